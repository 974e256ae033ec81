"""Memory: nothing beyond operands is accessed, and the memory of a process is bounded.

Small runs of tests/tools/guard.py, leaks.py and engine.c; `make guard`, `make leaks` and
`make sanitize` run them for longer.
"""

import argparse
import ctypes
import faulthandler
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import guard
import leaks
import numpy as np
import pytest
from support import ENGINE_SOURCES, ENGINE_WITHOUT_PYTHON, TOOLS, run

import nkblas
from nkblas.codegen.lowering.guard_pages import Area, bounds, extent

ISA_NAMES = sorted(
    {nkblas.cpu.isa.name, *(name for name in ("sse42", "avx2") if name in guard.ISA_NAMES)}
)


def outcome(function: Callable[[], object]) -> int:
    """The exit status of a child process that calls a function."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097])
def test_areas_are_fenced(size: int) -> None:
    """Reading or writing the byte beyond the fenced side faults; no byte of the array does."""
    area = Area(size)
    for at_end in (True, False):
        array = area.copy_in(np.arange(size, dtype=np.uint8), at_end)
        assert np.array_equal(array, np.arange(size, dtype=np.uint8))
        start = array.ctypes.data
        beyond = start + size if at_end else start - 1
        assert outcome(partial(ctypes.memset, start, 1, size)) == 0
        assert outcome(partial(ctypes.string_at, beyond, 1)) == -signal.SIGSEGV
        assert outcome(partial(ctypes.memset, beyond, 1, 1)) == -signal.SIGSEGV


def test_areas_preserve_strides() -> None:
    whole = np.arange(9 * 8 * 7.0).reshape(9, 8, 7)
    views = (
        whole[::-2, 1::3, ::-1],
        whole.T[2],
        np.broadcast_to(whole[0, 0], (3, 7)),
        whole[3, 4, 5:6],
        whole[:0],
    )
    for view in views:
        for at_end in (True, False):
            placed = Area(bounds(view)[1]).copy_in(view, at_end)
            assert (placed.shape, placed.strides, placed.dtype) == (
                view.shape,
                view.strides,
                view.dtype,
            )
            assert np.array_equal(placed, view)
            if view.size:
                assert np.array_equal(extent(placed), extent(view))


def options(**changes: int | str) -> argparse.Namespace:
    return argparse.Namespace(**{"seed": 0, "first": 0, "spoil": "", **changes})


@pytest.mark.parametrize("kind", guard.KINDS)
@pytest.mark.parametrize("isa", ISA_NAMES)
def test_nothing_beyond_operands_is_accessed(isa: str, kind: str) -> None:
    found = guard.run(isa, kind, options(kernels=2, products=15))
    assert not found.faults, "\n".join(found.faults)
    assert found.checked > 10 if kind == "kernels" else found.products > 15


@pytest.mark.parametrize("dimension", ["m", "n"])
def test_overruns_are_found(dimension: str) -> None:
    """One row or column too many, of small operands too; the report names the operand."""
    found = guard.run(nkblas.cpu.isa.name, "products", options(products=4, spoil=dimension))
    assert len(found.faults) >= 3, found
    assert any("SIGSEGV" in fault and "because of " in fault for fault in found.faults), found


def test_memory_does_not_grow() -> None:
    found = leaks.run(10000, 200, NKBLAS_CACHE_DIR=os.environ["NKBLAS_CACHE_DIR"])
    assert leaks.growth(found) < 1e6, found


def test_plans_and_kernels_are_bounded() -> None:
    """A full plan table is cleared while other threads multiply.

    With `MAX_LOADED_KERNELS` loaded, products use the kernels that are there.
    """
    report, _ = run(
        """
        from nkblas.runtime import abi, kernels, plan_table
        plan_table.MAX_PROBLEMS, kernels.MAX_LOADED_KERNELS = 40, 12
        done, max_problems, errors = [], 0, []

        def multiply_meanwhile():
            while not done:
                try:
                    multiply((30, 40, 50), (7, 8, 9), (300, 200, 100))
                except AssertionError as error:
                    errors.append(str(error))

        threads = [threading.Thread(target=multiply_meanwhile) for _ in range(2)]
        for thread in threads:
            thread.start()
        for i in range(400):
            multiply((i % 23 + 1, i % 29 + 1, i % 7 + 1))
            problems = len(plan_table.plans_in_table) + len(plan_table.fallback_reasons)
            max_problems = max(max_problems, problems)
        done.append(True)
        for thread in threads:
            thread.join()
        improve((5, 5, 5))  # an explicit request loads kernels all the same
        loaded = len(kernels.kernels.addresses)
        for i in range(3):
            multiply((9, 9, 9))
        problem = nkblas.explain(*operands(9, 9, 9)).problem
        threshold = plan_table.lib.nk_table_find(abi.problem_to_c(problem)).tier_up_after
        report(max_problems=max_problems, errors=errors, is_full=kernels.kernels.is_full,
               threshold=threshold, newly_loaded=len(kernels.kernels.addresses) - loaded)
        """
    )
    assert report["max_problems"] <= 40
    assert not report["errors"]
    assert report["fallbacks"] == 0
    assert (report["is_full"], report["threshold"], report["newly_loaded"]) == (True, 0, 0)


def test_recordings_are_freed() -> None:
    report, _ = run(
        """
        from nkblas._engine import ffi, lib
        with nkblas.record() as outer:
            multiply((3, 4, 5))
            with nkblas.record() as inner:
                multiply((4, 5, 6))
            during = lib.nk_recorded(ffi.NULL, 0)
            multiply((4, 5, 6))
        report(outer=sum(outer.values()), inner=sum(inner.values()), during=during,
               after=lib.nk_recorded(ffi.NULL, 0))
        """
    )
    assert (report["outer"], report["inner"], report["during"], report["after"]) == (3, 1, 2, 0)


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc")
def test_the_engine_is_sound(sanitizer: str, tmp_path: Path) -> None:
    """Concurrent callers under a sanitizer, while plans are inserted and removed."""
    program = tmp_path / "engine"
    sources = [TOOLS / "engine.c", *ENGINE_WITHOUT_PYTHON]
    command = ["gcc", "-std=gnu11", "-O1", "-g", f"-fsanitize={sanitizer}", "-o", str(program)]
    if subprocess.run(
        [*command, "-xc", "-"], input=b"int main() {}", capture_output=True
    ).returncode:
        pytest.skip(f"the compiler has no -fsanitize={sanitizer}")
    command += [f"-I{ENGINE_SOURCES}", *map(str, sources), "-lm", "-lpthread"]
    subprocess.run(command, check=True)
    ran = subprocess.run([str(program), "3000"], capture_output=True, text=True, timeout=100)
    if "unexpected memory mapping" in ran.stderr:
        pytest.skip("ThreadSanitizer does not run on this system")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")
