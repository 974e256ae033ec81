"""`test_matmul` and `test_gemm` on every instruction set below the one that is used here."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import environment

import nkblas
from nkblas.isa import ISAS

NAMES = list(ISAS)
LOWER = NAMES[: NAMES.index(nkblas.cpu.isa.name)]
FOLDER = Path(__file__).parent
MODULES = [str(FOLDER / name) for name in ("test_matmul.py", "test_gemm.py")]

Runs = dict[str, "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    """All of them at once: they compile most of the time, each in one process."""
    options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *MODULES]
    started = {
        isa: subprocess.Popen(
            command,
            env=environment(NKBLAS_ISA=isa),
            cwd=FOLDER.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for isa in LOWER
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("isa", LOWER)
def test_products_on(isa: str, runs: Runs) -> None:
    output, _ = runs[isa].communicate()
    assert runs[isa].returncode == 0, output
    passed = re.findall(r"(\d+) passed", output)
    assert sum(map(int, passed)) > 100, output
    assert "skipped" not in output, output
