"""Quantized `gemm` (8-bit integers with a scale) against exact sums."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from support import without_python

import nkblas
from nkblas.base.dtypes import QUANTIZED
from nkblas.base.families import families
from nkblas.base.isa import ISAS
from nkblas.base.problem import parse
from nkblas.codegen.loader import load_kernel
from nkblas.codegen.lowering import pipeline, verify
from nkblas.codegen.spec import Microkernel
from nkblas.inspect.report import compare
from nkblas.planning.plan import base_kernel

SIGNS = list(product(("int8", "uint8"), repeat=2))


def draw(generator: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    ends = np.iinfo(dtype)
    return generator.integers(ends.min, ends.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("result", ["float32", "int8", "uint8"])
@pytest.mark.parametrize(("of_a", "of_b"), SIGNS, ids="-".join)
def test_results(of_a: str, of_b: str, result: str) -> None:
    """The scales are powers of two: at most one rounding remains."""
    generator = np.random.default_rng(0)
    for i, (m, n, k) in enumerate(
        [(33, 70, 65), (1, 40, 300), (20, 1, 8), (64, 33, 5000), (3, 4, 0), (0, 4, 3)]
    ):
        a, b = draw(generator, of_a, m, k), draw(generator, of_b, k, n)
        scale = 2.0 ** generator.integers(-20, -6, n if i % 2 else 1)
        bias = generator.integers(-64, 64, n).astype(np.float32) / 4
        sums = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.float32)
        x = np.maximum(sums * scale.astype(np.float32) + bias, 0)
        zero = {"float32": 0, "int8": -7, "uint8": 11}[result]
        expected = x
        if result != "float32":
            ends = np.iinfo(result)
            expected = np.clip(np.rint(x) + zero, ends.min, ends.max).astype(result)
        packed = nkblas.pack(b, a_dtype=of_a)
        assert np.array_equal(a @ packed, a.astype(np.int64) @ b)  # the same panels
        for left, right, options in (
            (a, b, {}),
            (a, packed, {}),
            (np.asfortranarray(a), b.T.copy(), {"trans_b": True}),
            (a, b, {"out": np.empty((m, n), result, order="F")}),
        ):
            got = nkblas.gemm(
                left,
                right,
                scale=scale,
                zero_point=zero,
                bias=bias,
                activation="relu",
                out_dtype=result,
                **options,
            )
            assert got.dtype == result
            assert np.array_equal(got, expected), (m, n, k)


def test_extremes_and_ties() -> None:
    """Large sums do not overflow, ties are rounded to even, results out of range saturate."""
    a, b = np.full((2, 70000), -128, np.int8), np.full((70000, 2), -128, np.int8)
    got = nkblas.gemm(a, b, scale=1.0)
    assert (got == np.float32(70000 * 128 * 128)).all()
    assert (nkblas.gemm(a, b, scale=1e30, out_dtype=np.int8) == 127).all()
    assert (nkblas.gemm(a, -b - 1, scale=1e30, out_dtype=np.int8) == -128).all()
    ones = np.arange(-9, 10, dtype=np.int8)[:, None]
    got = nkblas.gemm(ones, np.ones((1, 2), np.int8), scale=0.5, out_dtype=np.int8)
    assert np.array_equal(got[:, 0], np.rint(ones[:, 0] / 2))


def test_residual() -> None:
    generator = np.random.default_rng(1)
    a, b = draw(generator, "uint8", 40, 64), draw(generator, "int8", 64, 48)
    x = generator.standard_normal((40, 48)).astype(np.float32)
    expected = np.tanh((a.astype(int) @ b) * 1e-4) + x
    got = nkblas.gemm(a, b, scale=1e-4, activation="tanh", residual=x, out=x)
    assert got is x
    assert np.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("result", ["float32", "int8", "uint8"])
def test_fast_path(result: str) -> None:
    """It has the bits of the general path."""
    general: Any = nkblas.gemm.__wrapped__  # type: ignore[attr-defined]
    generator = np.random.default_rng(2)
    a, b = draw(generator, "uint8", 9, 64), draw(generator, "int8", 64, 40)
    scale, bias, x = (generator.random(s, "f4") / 99 for s in (40, 40, (9, 40)))
    result_options: dict[str, Any] = {} if result == "float32" else {"out_dtype": result}
    for right in (b, nkblas.pack(b, a_dtype="u1")):
        for options in (
            {"scale": scale, "bias": bias, "activation": "relu"},
            {"scale": 0.01, "bias": 0.3, "out": np.empty((9, 40), result)},
            {"scale": np.float32(0.01), "zero_point": 0, "out_dtype": np.dtype(result)},
            {"scale": scale, "zero_point": 9}
            if result_options
            else {"scale": scale, "residual": x},
        ):
            got = without_python(nkblas.gemm, a, right, **(result_options | options))
            wanted = general(a, right, **(result_options | options))
            assert (got.dtype, got.tobytes()) == (result, wanted.tobytes()), options


def test_inexact_activation() -> None:
    """Near a tie a value may be rounded either way."""
    generator, before = np.random.default_rng(3), nkblas.stats()["fallbacks"]
    a, b = draw(generator, "int8", 33, 64), draw(generator, "int8", 64, 96)
    x = (a.astype(float) @ b) * np.float32(1e-3)
    x = np.clip(x / (1 + np.exp(-x)), -128, 127)
    near = abs(abs(x - np.trunc(x)) - 0.5) < 1e-3
    for right in (b, nkblas.pack(b)):
        got = nkblas.gemm(a, right, scale=1e-3, activation="silu", out_dtype=np.int8)
        assert (abs(got - x) < 0.5 + near).all()
    assert nkblas.stats()["fallbacks"] == before


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"a": np.ones((2, 3), "f4")}, TypeError, "a: got float32 and a scale, expected int8"),
        ({"out_dtype": "f8"}, TypeError, "out_dtype: got float64 and a scale"),
        ({"scale": np.ones(3)}, ValueError, r"scale: got shape \(3,\), expected one number"),
        ({"scale": 1j}, TypeError, "scale: got complex128"),
        ({"zero_point": 3}, ValueError, "zero_point: got 3, expected one that float32 has"),
        ({"zero_point": 300, "out_dtype": "i1"}, ValueError, "zero_point: got 300"),
        ({"alpha": 2}, TypeError, "scale: got c, alpha or beta"),
        ({"residual": np.ones((2, 2)), "out_dtype": "i1"}, TypeError, "residual: got one for int8"),
        ({"b": np.ones((2, 2), "i1")}, ValueError, r"b: got op\(b\) of shape \(2, 2\)"),
        ({"out": np.ones((2, 3), "f4")}, ValueError, "out: got float32 of shape"),
        (
            {"out": [[0.0, 0.0]]},
            ValueError,
            r"out: got \[\[0.0, 0.0\]\], expected an array of float32",
        ),
        ({"scale": None, "zero_point": 3}, TypeError, "zero_point: got 3 and no scale"),
        ({"b": nkblas.pack(np.ones((3, 2), "i1")), "trans_b": 1}, ValueError, "trans_b: got 1"),
        (
            {"b": nkblas.pack(np.ones((2, 3), "i1"))},
            ValueError,
            r"b: got op\(b\) of shape \(2, 3\)",
        ),
        ({"b": nkblas.pack(np.ones((3, 2), "f4"))}, TypeError, "b: got float32 and a scale"),
        (
            {"b": nkblas.pack(np.ones((3, 2), "u1"))},
            TypeError,
            "a: got int8, expected uint8, which",
        ),
        (
            {"b": nkblas.pack(np.ones((3, 2), "i1"), dtype="i1")},
            TypeError,
            "b: got a matrix packed for sums of int8 and a scale, expected one for int32",
        ),
    ],
)
def test_mistakes(change: dict[str, Any], error: type, text: str) -> None:
    arguments: dict[str, Any] = {
        "a": np.ones((2, 3), "i1"),
        "b": np.ones((3, 2), "i1"),
        "scale": 1.0,
    }
    arguments |= change
    a, b = arguments.pop("a"), arguments.pop("b")
    with pytest.raises(error, match=text):
        nkblas.gemm(a, b, **arguments)
    if isinstance(b, np.ndarray) and b.shape == (3, 2) and "alpha" not in change:
        with pytest.raises(error, match=text):
            nkblas.gemm(a, nkblas.pack(b), **arguments)


def test_recorded_and_measured() -> None:
    a, b = np.ones((9, 40), np.int8), np.ones((40, 33), np.int8)
    with nkblas.record() as shapes:
        nkblas.gemm(a, b, scale=0.1, out_dtype=np.int8)
    (problem,) = shapes
    assert str(problem) == "9x33x40:i8_q8:scales"
    assert compare(problem, 0.1) is None  # NumPy has none
    nkblas.warmup(shapes, progress=False, seconds=0.5)


def test_problems() -> None:
    problem = parse("8x8x8:i8_f32:scales+columns+relu")
    assert parse(str(problem)) == problem
    for text in ("8x8x8:i8_f32", "8x8x8:f32:scales"):
        with pytest.raises(ValueError, match="problem: got"):
            parse(text)


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_family(name: str) -> None:
    """On all instruction sets that this CPU has; the others differ only in how they sum."""
    for isa in ISAS.values():
        for family in families(name, isa):
            if family.name in isa.families and nkblas.cpu.features.issuperset(isa.requires):
                kernel = base_kernel(isa, name, family, "scales+columns+gelu")
                spec: Microkernel = kernel._replace(mr=3, nr=2 * family.lanes(isa))
                verify.check(spec, load_kernel(spec, pipeline.shared_library(spec)))


def test_verification_of_an_inexact_activation() -> None:
    """With enough elements that one is near a tie."""
    for family in families("int8_qint8", nkblas.cpu.isa):
        isa = nkblas.cpu.isa.row_of(family.name)
        spec = base_kernel(isa, "int8_qint8", family, "scales+columns+silu")
        verify.check(spec, load_kernel(spec, pipeline.shared_library(spec)))
