"""Products of all kinds on every instruction set below the one that is used here."""

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

pytestmark = pytest.mark.xdist_group("isas")  # where one has started all of them

NAMES = list(ISAS)
BELOW = NAMES[: NAMES.index(nkblas.cpu.isa.name)]
LOWER = [name for name in BELOW if ISAS[name].base.name == name != nkblas.cpu.isa.base.name]
UNIT = Path(__file__).parent
MODULES = [
    str(UNIT.parent / "numpy_api" / "test_matmul.py"),
    *(str(UNIT / name) for name in ("test_gemm.py", "test_packed.py")),
]

# what takes long: each product on the best of plans, with kernels of its own
NOT_AGAIN = ["-k", "not (test_packed and test_products)"]

Runs = dict[str, "subprocess.Popen[str]"]


# The sets that the CPU lacks but for the instructions, on registers that it has
LACKING = [
    name
    for name, isa in ISAS.items()
    if nkblas.cpu.features.issuperset(isa.base.requires)
    and not nkblas.cpu.features.issuperset(isa.requires)
]
EMULATED = ["-p", "on_emulated_isa", str(UNIT / "test_plan.py"), "-k", "any_plan"]


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    """All of them at once: they compile most of the time, each in one process."""
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

    started = {isa: start([*MODULES, *NOT_AGAIN], {"NKBLAS_ISA": isa}) for isa in LOWER}
    path = os.pathsep.join(filter(None, (str(TOOLS), environment()["PYTHONPATH"])))
    for isa in LACKING:
        changes = emulated(EMULATED_ISA=isa, PYTHONPATH=path, NKBLAS_ISA="")
        started[isa] = start(EMULATED, changes)
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("isa", LOWER)
def test_products_on(isa: str, runs: Runs) -> None:
    assert passed(isa, runs) > 100


@pytest.mark.parametrize("isa", LACKING)
def test_emulated_products_on(isa: str, runs: Runs) -> None:
    assert passed(isa, runs) == 1  # of very many plans


def passed(isa: str, runs: Runs) -> int:
    """How many tests, of which none failed or was skipped."""
    output, _ = runs[isa].communicate()
    assert runs[isa].returncode == 0, output
    assert "skipped" not in output, output
    return sum(map(int, re.findall(r"(\d+) passed", output)))
