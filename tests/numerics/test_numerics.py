"""The report on rounding errors, and the error bounds that docs/numerics.md states."""

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
from bench import error_plots, error_tasks, numerics, rounding_errors
from bench.error_tasks import Task
from bench.exact_sums import exact_sums
from bench.operands import numpy_dtype
from bench.suites import parse_dtypes


def fractions(x: Array) -> list[Fraction]:
    return [Fraction(float(value)) for value in x]


def exact_dot(x: Array, y: Array) -> Fraction:
    return sum((p * q for p, q in zip(fractions(x), fractions(y), strict=True)), Fraction())


@pytest.mark.parametrize("kind", error_tasks.KINDS)
@pytest.mark.parametrize("dtype", error_tasks.DTYPES)
def test_exact_sums(dtype: str, kind: str) -> None:
    """Sums are correct to 100 bits, relative to the sum itself even where it cancels."""
    task = Task(dtype, kind, "matrix", 7)
    a, b, *_ = task.operands()
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    rows, columns = (x[:20] for x in task.sample())
    found = exact_sums(a, b, rows, columns)
    for index, (i, j) in enumerate(zip(rows, columns, strict=True)):
        x, y = a[i], b[:, j]
        parts = [exact_dot(x.real, y.real), Fraction()]
        if x.dtype.kind == "c":
            parts[0] -= exact_dot(x.imag, y.imag)
            parts[1] = exact_dot(x.imag, y.real) + exact_dot(x.real, y.imag)
        for position, expected in zip(range(index, len(found.high), 20), parts, strict=False):
            scaled = expected * Fraction(2) ** int(found.exponents[position])
            result = Fraction(found.high[position]) + Fraction(found.low[position])
            assert abs(result - scaled) <= abs(scaled) / 2**100


def test_errors_are_detected() -> None:
    """An error of one unit in the last place of the first element."""
    task = Task("float64", "cancelling", "matrix", 64)
    a, b, *_ = task.operands()
    reference = exact_sums(a, b, *task.sample())
    right = np.ldexp(reference.high, -reference.exponents)
    wrong = right.copy()
    wrong[0] = np.nextafter(right[0], np.inf)
    assert rounding_errors.evaluate(task, "", reference, right, "").of_bound < 1e-4
    units = reference.errors(wrong) / reference.scale(1) / np.spacing(abs(right))
    assert 0.5 <= units[0] <= 1.5
    assert (units[1:] <= 0.5).all()


@pytest.mark.parametrize("kind", error_tasks.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16"])
def test_bound(dtype: str, kind: str) -> None:
    """Errors are within the bound, also for a k of several cache blocks."""
    for shape in error_tasks.SHAPES:
        task = Task(dtype, kind, shape, 512)
        a, b, *_ = task.operands()
        reference = exact_sums(np.atleast_2d(a), b, *task.sample())
        result = rounding_errors.evaluate(task, "", reference, *rounding_errors.run_nkblas(task))
        assert result.of_bound <= 1, shape


def test_bound_of_tiny_bfloat16() -> None:
    """Instructions that flush subnormal numbers to zero are within the bound for them."""
    smallest_normal = float(ml_dtypes.finfo("bfloat16").tiny)
    for kind in ("tiny results", "tiny operands"):
        for shape, k in (("matrix", 64), ("matrix", 512), ("dots", 512)):
            task = Task("bfloat16_float32", kind, shape, k)
            a, b, *_ = task.operands()
            rows, columns = task.sample()
            a = np.atleast_2d(a).astype("float64")
            b = b.astype("float64")
            results, _ = rounding_errors.run_nkblas(task)
            operand_sum = abs(a).sum(axis=1)[rows] + abs(b).sum(axis=0)[columns]
            error = abs(results - (a @ b)[rows, columns])
            bound = k * 2.0**-23 * (abs(a) @ abs(b))[rows, columns]
            bound += (2 * k + operand_sum) * smallest_normal
            assert (error <= bound).all(), (kind, shape)


def test_overflow_of_alpha() -> None:
    """Alpha may multiply the elements of A, if A has at most four rows and B is in rows."""
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
    """The command writes a file, which loads again and gives the figures."""
    file = tmp_path / "numerics.json"
    options = ["--dtype", "float32", "bfloat16", "--depth", "512", "--peers", "numpy"]
    command = [sys.executable, "-m", "bench.numerics", *options, "--json", str(file)]
    changed = environment(PYTHONPATH=f"{ROOT}")
    done = subprocess.run(command, cwd=ROOT, env=changed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, results = numerics.load(str(file))
    assert header["cpu"] == nkblas.cpu.brand
    assert {x.task.dtype for x in results} == {"float32", "bfloat16"}
    assert {x.task.kind for x in results} == set(error_tasks.KINDS)
    isas = {*rounding_errors.isas("float32"), *rounding_errors.isas("bfloat16")}
    assert {x.contender for x in results} >= {rounding_errors.PLAIN_SUMMATION, *isas}
    task = Task("float32", "positive", "matrix", 512)
    worst = {x.contender: x.worst for x in results if x.task == task}
    assert 0 < worst[nkblas.cpu.isa.base.name] < worst[rounding_errors.PLAIN_SUMMATION]
    for result in results:
        dtype = numpy_dtype(parse_dtypes(result.task.dtype).c)
        may_flush = dtype.itemsize < 4 and "tiny" in result.task.kind
        assert result.of_bound <= 1 or may_flush, result
    numerics.save(str(tmp_path / "again.json"), header, results)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(file.read_text())
    for path in error_plots.plot(header, results, str(tmp_path)):
        assert path.read_bytes().startswith(b"\x89PNG")
