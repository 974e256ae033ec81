"""A plugin of pytest's: the tests run as if the CPU had the instruction set ``EMULATED_ISA``.

The environment is what `emulator.emulated` makes: whatever the CPU lacks is carried out.
"""

import os

import nkblas
from nkblas import runtime
from nkblas.isa import ISAS

ROW = ISAS[os.environ["EMULATED_ISA"]]

# before anything has asked for it
nkblas.cpu = runtime.cpu = runtime.cpu._replace(
    isa=ROW, features=runtime.cpu.features.union(ROW.requires)
)
