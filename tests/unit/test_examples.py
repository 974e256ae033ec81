"""The examples do what they say.

Those that know nothing of nkblas run on it unchanged, with the same results; those whose layers it
does are as accurate as they document.
"""

import os
import re
import subprocess
import sys

import pytest
from support import ROOT, environment, start

EXAMPLES = ROOT / "examples"


def lines(*command: str) -> tuple[dict[str, list[float]], str]:
    """What a program prints, a name and numbers in each line; and its standard error."""
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
    expected, _ = lines(program)
    results, errors = lines("-m", "nkblas", "run", "--report", program)
    assert results.keys() == expected.keys()
    for key, values in expected.items():
        # rounding sets the training off on another path to as good a network
        tolerance = 0.01 if name == "network" else 1e-6
        assert results[key] == pytest.approx(values, rel=tolerance), key
    summary = re.search(
        r"nkblas: (\d+) products on generated kernels in .*, (\d+) by NumPy", errors
    )
    assert summary is not None
    assert int(summary[1]) > 100
    assert int(summary[2]) < 0.01 * int(summary[1])


SMALL = ("2", "32", "4", "64", "256")
"""Of an encoder block: sequences, tokens in each, heads, width, hidden width."""


def compared(*command: str) -> dict[str, list[str]]:
    """The rows of the table that a program prints, each by its library and type."""
    done = subprocess.run(
        [sys.executable, *command], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left to NumPy: 0 of" in done.stdout
    rows = re.findall(r"^(numpy|nkblas) (\w+) +(.*)$", done.stdout, re.MULTILINE)
    return {f"{library} {dtype}": row.split() for library, dtype, row in rows}


def test_encoder() -> None:
    table = compared(os.fspath(EXAMPLES / "encoder.py"), *SMALL)
    errors = {}
    for name in ("numpy float32", "nkblas float32", "nkblas bfloat16", "nkblas int8"):
        error, allowed, largest, most = map(float, table[name][-4:])
        assert 0 < error <= allowed < 0.05, name
        assert error < largest <= most, name
        errors[name] = error
    # it is these types that were multiplied
    assert 10 * errors["nkblas float32"] < errors["nkblas bfloat16"] < errors["nkblas int8"]


def test_encoder_tells_of_errors() -> None:
    """A scale that is wrong by a tenth ends it with status 1."""
    program = f"""
        import sys
        sys.path.insert(0, {os.fspath(EXAMPLES)!r})
        import encoder
        right = encoder.Int8Linear.__init__
        def wrong(self, *args):
            right(self, *args)
            self.scale *= 1.1
        encoder.Int8Linear.__init__ = wrong
        sys.argv[1:] = {SMALL!r}
        sys.exit(encoder.main())
    """
    process = start(program, prelude="")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "Not as accurate as documented: nkblas int8\n" in output


def test_inference() -> None:
    pytest.importorskip("sklearn")
    table = compared(os.fspath(EXAMPLES / "inference.py"))
    for name in ("numpy float32", "nkblas float32", "nkblas bfloat16", "nkblas int8"):
        accuracy, others, allowed = (float(x.rstrip("%")) for x in table[name][-4:-1])
        assert accuracy > 95, name
        assert others <= allowed <= 1, name
    errors = [float(table[f"nkblas {dtype}"][-1]) for dtype in ("float32", "bfloat16", "int8")]
    assert errors == sorted(errors)
    assert errors[0] < 1e-5
    assert 1e-4 < errors[2] < 0.1
