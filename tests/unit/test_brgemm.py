"""`brgemm` against exact sums of products."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_code import disassemble, innermost_loops, touching_stack

import nkblas
from nkblas.base.families import families
from nkblas.base.isa import ISAS
from nkblas.base.problem import Problem, parse
from nkblas.planning.cost_model import cheapest_plan
from nkblas.planning.schedule import can_reduce_in_place
from nkblas.runtime import plan_table

DTYPES = ["float32", "float64", "complex64", "float16", "int64", "int32", "int8"]


def stack(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-4, 5, shape)
    return (
        (values + 1j * values[::-1]).astype(dtype) if "complex" in dtype else values.astype(dtype)
    )


def exact(a: Any, b: Any) -> np.ndarray:
    wide = "complex128" if np.iscomplexobj(a[0]) else "float64"
    return sum(x.astype(wide) @ y.astype(wide) for x, y in zip(a, b, strict=True))


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 5), st.integers(0, 40), st.integers(0, 70), st.integers(0, 20)),
    order=st.sampled_from(["stack", "list", "columns", "swapped", "strided", "mixed"]),
    beta=st.sampled_from([0, 1, 2]),
    into=st.sampled_from([None, "C", "F"]),
)
def test_sums(dtype: str, shape: tuple, order: str, beta: int, into: str | None) -> None:
    """Blocks in a stack, in a list, in column-major order, strided, in different orders."""
    count, m, n, k = shape
    a, b = stack(dtype, count, m, k), stack(dtype, count, k, n, seed=1)
    c = stack(dtype, 1, m, n, seed=2)[0]
    expected = exact(a, b) + beta * c.astype(complex)
    operands: dict[str, Any] = {
        "stack": (a, b),
        "list": (list(a), tuple(b)),
        "columns": ([np.asfortranarray(x) for x in a], b),
        "swapped": (a, [np.asfortranarray(y) for y in b]),
        "strided": (np.repeat(a, 2, axis=2)[:, :, ::2], b[:, :, ::-1][:, :, ::-1]),
        "mixed": ([x if i % 2 else np.asfortranarray(x) for i, x in enumerate(a)], list(b)),
    }
    out = None if into is None else np.empty((m, n), dtype, order=into)  # type: ignore[call-overload]
    got = nkblas.brgemm(*operands[order], c, beta=beta, out=out)
    assert got.dtype == dtype
    assert got.shape == (m, n)
    assert out is None or got is out
    assert np.array_equal(
        got, expected.astype(got.dtype) if "complex" in dtype else expected.real.astype(dtype)
    )


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_more_than_fits_the_cache(dtype: str) -> None:
    """Groups of products are accumulated in registers, and then added to C."""
    side = 90
    each = 2 * side * side * np.dtype(dtype).itemsize
    count = 2 * nkblas.cpu.l2 // each + 3
    a, b = stack(dtype, count, side, side), stack(dtype, count, side, side, seed=1)
    c, expected = stack(dtype, 1, side, side, seed=2)[0], exact(a, b)
    for blocks in ((a, b), (list(a), list(b)), (a.mT, b.mT)):
        wanted = exact(*blocks)
        for beta in (0, 1):
            got = nkblas.brgemm(*blocks, c, beta=beta)
            assert np.array_equal(got, wanted + beta * c)
    before, found = nkblas.get_num_threads(), nkblas.brgemm(a, b)
    assert np.array_equal(found, expected)
    nkblas.set_num_threads(1 if before > 1 else 2)
    assert np.array_equal(found, nkblas.brgemm(a, b))
    nkblas.set_num_threads(before)


def test_out_that_is_an_operand() -> None:
    a, b = stack("float64", 3, 8, 8), stack("float64", 3, 8, 8, seed=1)
    expected = exact(a, b)
    blocks = [x.copy() for x in a]
    assert nkblas.brgemm(blocks, b, out=blocks[1]) is blocks[1]
    assert np.array_equal(blocks[1], expected)
    whole = a.copy()
    nkblas.brgemm(whole, b, out=whole[0])
    assert np.array_equal(whole[0], expected)


def test_deep_blocks_and_their_error() -> None:
    generator = np.random.default_rng(3)
    for k in (700, 1500):  # the latter is too deep to be reduced in place
        a, b = generator.standard_normal((4, 30, k)), generator.standard_normal((4, k, 50))
        for dtype in ("float32", "float64"):
            x, y = a.astype(dtype), b.astype(dtype)
            reference = exact(x.astype(np.longdouble), y.astype(np.longdouble))
            bound = 4 * k * np.finfo(dtype).eps * exact(abs(x), abs(y))
            assert (abs(nkblas.brgemm(x, y) - reference) <= bound).all()


def test_many_threads_have_the_same_bits() -> None:
    generator = np.random.default_rng(4)
    a, b = generator.standard_normal((6, 200, 64)), generator.standard_normal((6, 64, 300))
    before = nkblas.get_num_threads()
    try:
        found = set()
        for threads in (1, 2, 3):
            nkblas.set_num_threads(threads)
            found.add(nkblas.brgemm(a, b).tobytes())
        assert len(found) == 1
    finally:
        nkblas.set_num_threads(before)


def test_accumulators_stay_in_registers() -> None:
    """From block to block: only operands and C are loaded and stored, no accumulators."""
    problem = Problem("float32", 64, 64, 64, batch_reduce=True)
    cpu = nkblas.cpu._replace(isa=ISAS["avx512"], vendor="GenuineIntel")
    plan = cheapest_plan(problem, cpu)
    spec = plan.kernels[0]
    code = disassemble([spec])[spec.symbol]
    spills = [x for x in touching_stack(code) if "zmm" in x.operands]
    assert not spills
    assert any(
        sum(x.name.startswith("vfmadd") for x in body) >= 24 for body in innermost_loops(code)
    )


def test_reduction_in_place() -> None:
    a, b = stack("float32", 3, 16, 32), stack("float32", 3, 32, 48)
    nkblas.brgemm(a, b)
    problem = Problem("float32", 16, 48, 32, batch_reduce=True)
    assert can_reduce_in_place(problem, nkblas.cpu.isa)
    assert problem in plan_table.plans_in_table
    assert parse(str(problem)) == problem
    assert not can_reduce_in_place(problem._replace(k=4000), nkblas.cpu.isa)
    assert not can_reduce_in_place(problem._replace(dtype="int8"), nkblas.cpu.isa)
    assert families("float32", nkblas.cpu.isa)


@pytest.mark.parametrize("wide", ["a", "b"])
def test_blocks_of_several_dtypes(wide: str) -> None:
    """The result has the dtype that all blocks promote to, not that of the first ones."""
    a = [stack("float32", 3, 4), stack("float64" if wide == "a" else "float32", 3, 4)]
    b = [stack("float32", 4, 5), stack("float64" if wide == "b" else "float32", 4, 5)]
    wanted = sum(x.astype("f8") @ y.astype("f8") for x, y in zip(a, b, strict=True))
    out = np.empty((3, 5))
    for got in (nkblas.brgemm(a, b), nkblas.brgemm(a, b, out=out)):
        assert got.dtype == "f8"
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "text"),
    [
        (np.ones((2, 3)), np.ones((2, 3, 4)), {}, ValueError, r"a_blocks: got shape \(2, 3\)"),
        (
            np.ones((2, 3, 4)),
            np.ones((3, 4, 2)),
            {},
            ValueError,
            "b_blocks: got 3, expected as many",
        ),
        (
            np.ones((2, 3, 4)),
            np.ones((2, 3, 4)),
            {},
            ValueError,
            r"b_blocks: got matrices of shape",
        ),
        (
            [np.ones((3, 4)), np.ones((4, 4))],
            np.ones((2, 4, 4)),
            {},
            ValueError,
            "a_blocks: got shapes",
        ),
        ([], [], {}, ValueError, "and at least 1"),
        (
            np.ones((2, 3, 4)),
            np.ones((2, 4, 3)),
            {"c": np.ones((1, 3))},  # though beta is 0
            ValueError,
            r"c: got shape \(1, 3\), expected shape \(3, 3\)",
        ),
        (7, np.ones((2, 3, 4)), {}, TypeError, "a_blocks: got int"),
        (
            np.ones((2, 3, 4)),
            np.ones((2, 4, 3)),
            {"beta": 1},
            ValueError,
            "c: got none, expected shape",
        ),
        (
            np.ones((2, 3, 4)),
            np.ones((2, 4, 3)),
            {"out": np.ones((2, 3))},
            ValueError,
            r"out: got float64 of shape \(2, 3\)",
        ),
        (
            np.ones((2, 3, 4)),
            np.ones((2, 4, 3)),
            {"out": np.ones((3, 3), "f4")},
            ValueError,
            "out: got float32 of shape",
        ),
        (
            np.ones((2, 3, 4)),
            np.ones((2, 4, 3)),
            {"out": np.frombuffer(bytes(72)).reshape(3, 3)},
            ValueError,
            "out: got a read-only array",
        ),
        (
            np.ones((2, 3, 4)),
            np.ones((2, 4, 3)),
            {"beta": 1, "c": np.ones((3, 4))},
            ValueError,
            r"c: got shape \(3, 4\), expected shape \(3, 3\)",
        ),
    ],
)
def test_mistakes(a: Any, b: Any, options: dict[str, Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        nkblas.brgemm(a, b, **options)
