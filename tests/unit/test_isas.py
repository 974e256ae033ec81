"""Products of all kinds on each less capable instruction set, in test processes of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator import emulated
from support import ROOT, TOOLS, environment

import nkblas
from nkblas.base.isa import ISAS

pytestmark = pytest.mark.xdist_group("isas")  # one worker starts all processes

NAMES = list(ISAS)
LESS_CAPABLE = NAMES[: NAMES.index(nkblas.cpu.isa.name)]
LOWER_BASES = [
    name for name in LESS_CAPABLE if ISAS[name].base.name == name != nkblas.cpu.isa.base.name
]
UNIT = Path(__file__).parent
MODULES = [
    str(UNIT.parent / "numpy_api" / "test_matmul.py"),
    *(str(UNIT / name) for name in ("test_gemm.py", "test_packed.py")),
]

# These compile kernels for the best plan of each product, which takes long
SKIPPED = ["-k", "not (test_packed and test_products)"]

Runs = dict[str, "subprocess.Popen[str]"]


# The ISAs whose registers the CPU has, and whose instructions it lacks
EMULATED_ISAS = [
    name
    for name, isa in ISAS.items()
    if nkblas.cpu.features.issuperset(isa.base.requires)
    and not nkblas.cpu.features.issuperset(isa.requires)
]
EMULATED_TESTS = ["-p", "on_emulated_isa", str(UNIT / "test_plan.py"), "-k", "any_plan"]


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    """All test processes at once: each mostly waits for its own compiler."""
    options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options]

    def start(arguments: list[str], changes: dict[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*command, *arguments],
            env=environment(**changes),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    started = {isa: start([*MODULES, *SKIPPED], {"NKBLAS_ISA": isa}) for isa in LOWER_BASES}
    path = os.pathsep.join(filter(None, (str(TOOLS), environment()["PYTHONPATH"])))
    for isa in EMULATED_ISAS:
        changes = emulated(EMULATED_ISA=isa, PYTHONPATH=path, NKBLAS_ISA="")
        started[isa] = start(EMULATED_TESTS, changes)
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("isa", LOWER_BASES)
def test_products_on(isa: str, runs: Runs) -> None:
    assert count_passed(isa, runs) > 100


@pytest.mark.parametrize("isa", EMULATED_ISAS)
def test_emulated_products_on(isa: str, runs: Runs) -> None:
    assert count_passed(isa, runs) == 1  # a property test of many plans


def count_passed(isa: str, runs: Runs) -> int:
    """The number of tests, none of which failed or was skipped."""
    output, _ = runs[isa].communicate()
    assert runs[isa].returncode == 0, output
    assert "skipped" not in output, output
    return sum(map(int, re.findall(r"(\d+) passed", output)))
