"""Processes that a program starts: patched by ``NKBLAS_PATCH``, and in the report of its parent."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from nkblas.inspect.record import Recording

PRODUCTS = """
import sys
import numpy as np

def multiply(i):
    a = np.ones((i + 3, 5))
    assert np.all(a @ a.T == 5)
    assert "nkblas" in sys.modules
    return 1
"""

PROGRAM = """
import multiprocessing, os, subprocess, sys
from products import multiply

if __name__ == "__main__":
    multiply(0)
    for method in ("spawn", "forkserver", "fork"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert sum(pool.map(multiply, range(10, 14))) == 4
    from joblib import Parallel, delayed
    assert sum(Parallel(n_jobs=2)(delayed(multiply)(i) for i in range(20, 24))) == 4
    nested = "import os, subprocess, sys; from products import multiply; multiply(30); "
    nested += "pid = os.fork(); multiply(32); os._exit(0) if not pid else os.wait(); multiply(33); "
    nested += "subprocess.run([sys.executable, '-c', 'from products import multiply; multiply(31)'], check=True)"
    subprocess.run([sys.executable, "-c", nested], check=True)
    killed = "import os, signal; from products import multiply; multiply(40); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", killed])
    print("done")
"""  # noqa: E501


def run(folder: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    variables = {
        k: v for k, v in os.environ.items() if k not in ("NKBLAS_PATCH", "NKBLAS_COUNTERS")
    }
    variables |= {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **environment}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=variables, text=True, capture_output=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "products.py").write_text(PRODUCTS)
    return tmp_path


def test_the_pth_file_is_installed() -> None:
    """The other tests need it; `pip install` puts it beside the package."""
    assert find_spec("nkblas_patch") is not None, "install nkblas again: nkblas_patch is missing"


def test_all_children_are_patched_and_counted(folder: Path) -> None:
    pytest.importorskip("joblib", reason="joblib is not installed")
    (folder / "program.py").write_text(PROGRAM)
    options = "--report", "--record", "problems.txt"
    done = run(folder, "-m", "nkblas", "run", *options, "program.py")
    assert done.stdout == "done\n", done.stderr
    expected = 1 + 3 * 4 + 4 + 5 + 1
    counts = re.search(
        r"nkblas: (\d+) products on generated kernels in .*, (\d+) by NumPy", done.stderr
    )
    assert counts is not None, done.stderr
    assert (int(counts[1]), int(counts[2])) == (expected, 0)
    recording = Recording.load(folder / "problems.txt")
    assert sum(recording.values()) == expected
    sides = {problem.m for problem in recording}
    assert {3, 13, 33, 34, 43} <= sides, "of this process, pools, a child, its child, a killed one"


def test_children_of_a_patched_environment(folder: Path) -> None:
    done = run(folder, "-c", "from products import multiply; multiply(1)", NKBLAS_PATCH="1")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "variable"), [((), ""), ((), "0"), (("-I",), "1"), (("-E",), "1"), (("-S",), "1")]
)
def test_where_the_variable_has_no_effect(
    folder: Path, options: tuple[str, ...], variable: str
) -> None:
    program = (
        f"import sys; sys.path += {sys.path}; import numpy; assert 'nkblas' not in sys.modules"
    )
    done = run(folder, *options, "-c", program, NKBLAS_PATCH=variable)
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_without_numpy(folder: Path) -> None:
    program = "import sys; assert not {'numpy', 'nkblas'} & {*sys.modules}"
    done = run(folder, "-c", program, NKBLAS_PATCH="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_is_one_line(folder: Path) -> None:
    """The program goes on with plain NumPy."""
    program = "import numpy as np; print(np.ones((2, 2)) @ np.ones(2))"
    done = run(folder, "-c", program, NKBLAS_PATCH="1", NKBLAS_JIT="sometimes")
    assert done.stdout == "[2. 2.]\n"
    assert done.stderr.startswith("nkblas: NumPy is not patched: ValueError: NKBLAS_JIT: got")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "first",
    [
        "import nkblas",
        "import importlib.util; importlib.util.find_spec('numpy')",
        "import importlib.util; assert importlib.util.find_spec('numpy').loader.get_filename()",
    ],
)
def test_programs_that_look_for_numpy_first(folder: Path, first: str) -> None:
    program = f"{first}\nfrom products import multiply; multiply(1)\n"
    program += "import nkblas; print(nkblas.stats()['calls'])"
    done = run(folder, "-c", program, NKBLAS_PATCH="1")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_children_may_be_left_alone(folder: Path) -> None:
    """The user's NKBLAS_PATCH=0 holds for the children of `nkblas run`."""
    program = "import os; print(os.environ['NKBLAS_PATCH'])"
    (folder / "program.py").write_text(program)
    assert run(folder, "-m", "nkblas", "run", "program.py", NKBLAS_PATCH="0").stdout == "0\n"


def test_numpy_looks_as_if_python_had_imported_it(folder: Path) -> None:
    program = """import sys, importlib, numpy
    assert numpy.__spec__.loader is numpy.__loader__
    assert type(numpy.__loader__).__module__ == "_frozen_importlib_external"
    """
    done = run(folder, "-c", program.replace("\n    ", "\n"), NKBLAS_PATCH="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_is_gone(folder: Path) -> None:
    """A child that outlives its parent counts for itself."""
    program = (
        "from products import multiply; multiply(1); import nkblas; print(nkblas.stats()['calls'])"
    )
    done = run(folder, "-c", program, NKBLAS_PATCH="1", NKBLAS_COUNTERS=str(folder / "gone"))
    assert (done.stdout, done.stderr) == ("1\n", "")
