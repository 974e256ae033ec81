"""The report on rounding errors: what it takes for the truth, its operands, and its figures; and
what docs/numerics.md says of numbers at the ends of the range."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from support import ROOT, Array, environment

import nkblas

sys.path.append(str(ROOT))  # bench is not installed

from bench import error_plots, errors, numerics
from bench.exact import sums
from bench.operands import element
from bench.suites import types


def fractions(x: Array) -> list[Fraction]:
    return [Fraction(float(value)) for value in x]


def exactly(x: Array, y: Array) -> Fraction:
    return sum((p * q for p, q in zip(fractions(x), fractions(y), strict=True)), Fraction())


@pytest.mark.parametrize("kind", errors.KINDS)
@pytest.mark.parametrize("dtype", errors.DTYPES)
def test_truth(dtype: str, kind: str) -> None:
    """To 100 bits of the sum of sizes, and of the sum itself where it cancels."""
    task = errors.Task(dtype, kind, "matrix", 7)
    a, b, *_ = task.operands()
    assert np.isfinite(a).all() and np.isfinite(b).all()
    rows, columns = (x[:20] for x in task.sample())
    found = sums(a, b, rows, columns)
    for place, (i, j) in enumerate(zip(rows, columns, strict=True)):
        x, y = a[i], b[:, j]
        parts = [exactly(x.real, y.real), Fraction()]
        if x.dtype.kind == "c":
            parts[0] -= exactly(x.imag, y.imag)
            parts[1] = exactly(x.imag, y.real) + exactly(x.real, y.imag)
        for part, wanted in zip(range(place, len(found.exact), 20), parts, strict=False):
            scale = Fraction(2) ** int(found.exponents[part])
            got = Fraction(found.exact[part]) + Fraction(found.rest[part])
            assert abs(got - wanted * scale) <= abs(wanted * scale) / 2**100


def test_an_error_is_seen() -> None:
    """One unit in the last place, of the first element."""
    task = errors.Task("float64", "cancelling", "matrix", 64)
    a, b, *_ = task.operands()
    found = sums(a, b, *task.sample())
    right = np.ldexp(found.exact, -found.exponents)
    wrong = right.copy()
    wrong[0] = np.nextafter(right[0], np.inf)
    assert errors.judge(task, "", found, right, "").of_bound < 1e-4
    difference = found.errors(wrong) / found.scaled(1) / np.spacing(abs(right))
    assert 0.5 <= difference[0] <= 1.5
    assert (difference[1:] <= 0.5).all()


@pytest.mark.parametrize("kind", errors.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16"])
def test_bound(dtype: str, kind: str) -> None:
    """On this instruction set; of sums that are too long for one block of k, too."""
    for shape in errors.SHAPES:
        task = errors.Task(dtype, kind, shape, 512)
        a, b, *_ = task.operands()
        found = sums(np.atleast_2d(a), b, *task.sample())
        assert errors.judge(task, "", found, *errors.by_nkblas(task)).of_bound <= 1, shape


def test_what_tiny_bfloat16_lose() -> None:
    """Instructions that take subnormal numbers for zeros lose no more than the page says."""
    least = float(ml_dtypes.finfo("bfloat16").tiny)
    for kind in ("tiny results", "tiny operands"):
        for shape, k in (("matrix", 64), ("matrix", 512), ("dots", 512)):
            task = errors.Task("bfloat16_float32", kind, shape, k)
            a, b, *_ = task.operands()
            rows, columns = task.sample()
            a = np.atleast_2d(a).astype("float64")
            b = b.astype("float64")
            results, _ = errors.by_nkblas(task)
            size = abs(a).sum(axis=1)[rows] + abs(b).sum(axis=0)[columns]
            lost = abs(results - (a @ b)[rows, columns])
            bound = k * 2.0**-23 * (abs(a) @ abs(b))[rows, columns] + (2 * k + size) * least
            assert (lost <= bound).all(), (kind, shape)


def test_alpha() -> None:
    """It may multiply the elements of A: of up to four rows times the rows of B."""
    k, n = 96, 64
    for m in (1, 2, 4, 30):
        a, b = np.zeros((m, k), "f"), np.zeros((k, n), "f")
        a[:, 0], b[0] = 2e38, 1e-10
        with np.errstate(over="ignore"):
            c = nkblas.gemm(a, b, alpha=2)
        right = np.isclose(c, 4e28)
        assert (right | np.isinf(c)).all()
        assert right.all() or m <= 4


def test_report(tmp_path: Path) -> None:
    """From the command line to figures, and back from its file."""
    file = tmp_path / "numerics.json"
    options = ["--dtype", "float32", "bfloat16", "--depth", "512", "--peers", "numpy"]
    command = [sys.executable, "-m", "bench.numerics", *options, "--json", str(file)]
    changed = environment(PYTHONPATH=f"{ROOT}")
    done = subprocess.run(command, cwd=ROOT, env=changed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, found = numerics.load(str(file))
    assert header["cpu"] == nkblas.cpu.brand
    assert {e.task.dtype for e in found} == {"float32", "bfloat16"}
    assert {e.task.kind for e in found} == set(errors.KINDS)
    contenders = {e.contender for e in found}
    assert contenders >= {errors.PLAIN_SUMMATION, *errors.isas("float32"), *errors.isas("bfloat16")}
    worst = {
        e.contender: e.worst for e in found if e.task == ("float32", "positive", "matrix", 512)
    }
    assert 0 < worst[nkblas.cpu.isa.base.name] < worst[errors.PLAIN_SUMMATION]
    for error in found:
        of_sums = np.dtype(element(types(error.task.dtype).c))
        flushes = of_sums.itemsize < 4 and "tiny" in error.task.kind
        assert error.of_bound <= 1 or flushes, error
    numerics.save(str(tmp_path / "again.json"), header, found)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(file.read_text())
    for path in error_plots.plot(header, found, str(tmp_path)):
        assert path.read_bytes().startswith(b"\x89PNG")
