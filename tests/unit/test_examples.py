"""The examples work as documented.

Those that do not import nkblas have the same results under `nkblas run`; those that call it are as
accurate as they document.
"""

import os
import re
import subprocess
import sys

import pytest
from support import ROOT, environment, start

EXAMPLES = ROOT / "examples"


def run_example(*command: str) -> tuple[dict[str, list[float]], str]:
    """The output of a program, a name and numbers in each line; and its standard error."""
    done = subprocess.run(
        [sys.executable, *command], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    printed = (line.split() for line in done.stdout.splitlines())
    return {name: list(map(float, numbers)) for name, *numbers in printed}, done.stderr


@pytest.mark.parametrize("name", ["network", "pca_ridge", "gaussian_process"])
def test_example(name: str) -> None:
    if name != "gaussian_process":
        pytest.importorskip("sklearn")
    program = os.fspath(EXAMPLES / f"{name}.py")
    expected, _ = run_example(program)
    results, errors = run_example("-m", "nkblas", "run", "--report", program)
    assert results.keys() == expected.keys()
    for key, values in expected.items():
        # rounding leads the training to another network of the same quality
        tolerance = 0.01 if name == "network" else 1e-6
        assert results[key] == pytest.approx(values, rel=tolerance), key
    summary = re.search(
        r"nkblas: (\d+) products on generated kernels in .*, (\d+) by NumPy", errors
    )
    assert summary is not None
    assert int(summary[1]) > 100
    assert int(summary[2]) < 0.01 * int(summary[1])


SMALL_BLOCK = ("2", "32", "4", "64", "256")
"""An encoder block: number of sequences, tokens in each, heads, width, hidden width."""


def read_table(*command: str) -> dict[str, list[str]]:
    """The rows of the table that a program prints, by library and dtype."""
    done = subprocess.run(
        [sys.executable, *command], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left to NumPy: 0 of" in done.stdout
    rows = re.findall(r"^(numpy|nkblas) (\w+) +(.*)$", done.stdout, re.MULTILINE)
    return {f"{library} {dtype}": row.split() for library, dtype, row in rows}


def test_encoder() -> None:
    table = read_table(os.fspath(EXAMPLES / "encoder.py"), *SMALL_BLOCK)
    errors = {}
    for name in ("numpy float32", "nkblas float32", "nkblas bfloat16", "nkblas int8"):
        error, bound, largest_error, largest_bound = map(float, table[name][-4:])
        assert 0 < error <= bound < 0.05, name
        assert error < largest_error <= largest_bound, name
        errors[name] = error
    # the errors show that the products have these dtypes
    assert 10 * errors["nkblas float32"] < errors["nkblas bfloat16"] < errors["nkblas int8"]


def test_encoder_detects_errors() -> None:
    """With a scale that is wrong by a tenth it ends with status 1."""
    program = f"""
        import sys
        sys.path.insert(0, {os.fspath(EXAMPLES)!r})
        import encoder
        right = encoder.Int8Linear.__init__
        def wrong(self, *args):
            right(self, *args)
            self.scale *= 1.1
        encoder.Int8Linear.__init__ = wrong
        sys.argv[1:] = {SMALL_BLOCK!r}
        sys.exit(encoder.main())
    """
    process = start(program, prelude="")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "Not as accurate as documented: nkblas int8\n" in output


def test_inference() -> None:
    pytest.importorskip("sklearn")
    table = read_table(os.fspath(EXAMPLES / "inference.py"))
    for name in ("numpy float32", "nkblas float32", "nkblas bfloat16", "nkblas int8"):
        accuracy, changed, bound = (float(x.rstrip("%")) for x in table[name][-4:-1])
        assert accuracy > 95, name
        assert changed <= bound <= 1, name
    errors = [float(table[f"nkblas {dtype}"][-1]) for dtype in ("float32", "bfloat16", "int8")]
    assert errors == sorted(errors)
    assert errors[0] < 1e-5
    assert 1e-4 < errors[2] < 0.1
