"""A pytest plugin that runs the tests as if the CPU had the instruction set ``EMULATED_ISA``.

It requires the environment of `emulator.emulated`, which emulates instructions that the CPU lacks.
"""

import os
import sys

import nkblas
from nkblas.base.isa import ISAS
from nkblas.system import cpu as detection

ISA = ISAS[os.environ["EMULATED_ISA"]]

_detected = detection.cpu
_emulated = _detected._replace(isa=ISA, features=_detected.features.union(ISA.requires))
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "nkblas" and getattr(module, "cpu", None) is _detected:
        module.cpu = _emulated  # type: ignore[attr-defined]
assert nkblas.cpu is _emulated
