"""`nkblas.gemm` for real and complex dtypes. `test_isas` runs this module on every ISA."""

import doctest
import itertools
import re
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from support import (
    GUARD,
    LAYOUTS,
    ORDERS,
    Array,
    Layout,
    Order,
    assert_within_bound,
    fenced,
    layouts,
    tile,
)

import nkblas

REAL, COMPLEX = ("float32", "float64"), ("complex64", "complex128")
by_dtype = pytest.mark.parametrize("dtype", REAL + COMPLEX)
by_real_dtype = pytest.mark.parametrize("dtype", REAL)

# alpha and beta: for kernels without an epilogue, for those with one, and without any product
SCALES = [(1, 0), (1, 1), (2, 0), (-1, 1), (0.5, -3), (1, 2), (0, 0), (0, 1), (0, 2)]
COMPLEX_SCALES = [*SCALES, (1j, 0), (2, -1j), (1 - 2j, 0.5 + 1j)]


def scales(dtype: str) -> list[tuple[Any, Any]]:
    return COMPLEX_SCALES if dtype in COMPLEX else SCALES


def integers(shape: tuple[int, int], dtype: str, seed: int) -> Array:
    """Small integers: sums of thousands of their products are exact in any order."""
    generator = np.random.default_rng(seed)
    values = generator.integers(-5, 6, shape).astype(dtype)
    if dtype in COMPLEX:
        values.imag = generator.integers(-5, 6, shape)
    return values


def op(x: Array, trans: int) -> Array:
    return x if trans == 0 else x.T if trans == 1 else x.conj().T


def exact(alpha: Any, a: Array, b: Array, beta: Any, c: Array | None) -> Array:
    """The result by NumPy in float64, in which all sums of small integers are exact."""
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    product = alpha * np.einsum("ip,pj->ij", a.astype(wide), b.astype(wide))
    result: Array = product if beta == 0 or c is None else product + beta * c.astype(wide)
    return result


def edges(dtype: str) -> list[tuple[int, int, int]]:
    """Shapes with edge tiles, vectors, few rows or columns, and several k blocks."""
    mr, nr = tile("float64" if dtype in ("float64", "complex128") else "float32")
    many = [(1, 1, 1), (2, 3, 1), (7, 5, 3), (mr + 1, nr + 1, 17), (3 * mr - 1, nr - 1, 40)]
    few = [(1, 97, 31), (97, 1, 31), (1, 1, 301), (5, 200, 70), (300, 3, 64), (40, 300, 2)]
    return [*many, *few, (20, 40, 2100)]


@by_dtype
@pytest.mark.parametrize("shape", range(12))
def test_scales(shape: int, dtype: str) -> None:
    """Every alpha and beta, with operands in both memory orders; a c that is not read is NaN."""
    m, n, k = edges(dtype)[shape]
    a, b, c = integers((m, k), dtype, 0), integers((k, n), dtype, 1), integers((m, n), dtype, 2)
    for alpha, beta in scales(dtype):
        before = np.full_like(c, np.nan) if beta == 0 else c
        expected = exact(alpha, a, b, beta, c)
        for order_a, order_b, order_c in itertools.product(ORDERS, repeat=3):
            out = np.array(before, order=order_c)
            left, right = a.copy(order_a), b.copy(order_b)
            assert nkblas.gemm(left, right, out, alpha=alpha, beta=beta, out=out) is out
            assert np.array_equal(out, expected), (alpha, beta, order_a + order_b + order_c)


@by_dtype
def test_transposes(dtype: str) -> None:
    for (m, n, k), ta, tb in itertools.product(edges(dtype), (0, 1, 2), (0, 1, 2)):
        a = integers((k, m) if ta else (m, k), dtype, 0)
        b = integers((n, k) if tb else (k, n), dtype, 1)
        c = integers((m, n), dtype, 2)
        for alpha, beta in scales(dtype)[-2:]:
            got = nkblas.gemm(a, b, c, alpha=alpha, beta=beta, trans_a=ta, trans_b=tb)
            assert got.dtype == dtype
            assert got.flags.c_contiguous
            assert np.array_equal(got, exact(alpha, op(a, ta), op(b, tb), beta, c)), (m, n, k)


@by_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, dtype: str) -> None:
    """The memory between the elements, which is NaN, is neither read nor written."""
    arranged = LAYOUTS[layout]
    for (m, n, k), (alpha, beta) in itertools.product(edges(dtype)[:6], scales(dtype)[::3]):
        a, b, c = integers((m, k), dtype, 0), integers((k, n), dtype, 1), integers((m, n), dtype, 2)
        buffer, out = arranged.empty((m, n), dtype, fill=GUARD)
        out[...] = c
        if out.dtype.isnative:
            left, right = arranged.arrange(a, dtype), arranged.arrange(b, dtype)
            nkblas.gemm(left, right, out, alpha=alpha, beta=beta, out=out)
            assert np.array_equal(out, exact(alpha, a, b, beta, c)), (m, n, k)
            out[...] = GUARD
            assert (buffer == GUARD).all()
        left, right = arranged.arrange(a, dtype), arranged.arrange(b, dtype)
        got = nkblas.gemm(left, right, out, alpha=alpha, beta=0)
        assert np.array_equal(got, exact(alpha, a, b, 0, c)), (m, n, k)


@by_real_dtype
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_no_access_out_of_bounds(order: Order, at_end: bool, dtype: str) -> None:
    """Each matrix lies beside an inaccessible page: an access out of bounds is a crash."""
    for m, n, k in edges(dtype):
        a, b, c = integers((m, k), dtype, 0), integers((k, n), dtype, 1), integers((m, n), dtype, 2)
        for alpha, beta in ((1, 1), (2, 0), (2, 3)):
            left, right, out = (fenced(x, dtype, order, at_end) for x in (a, b, c))
            nkblas.gemm(left, right, out, alpha=alpha, beta=beta, out=out)
            assert np.array_equal(out, exact(alpha, a, b, beta, c)), (m, n, k)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_strides_that_are_no_multiple_of_the_itemsize(dtype: str) -> None:
    """Complex arrays can be aligned with such strides."""
    part = np.dtype(dtype).type(0).real.dtype
    whole = np.zeros((4, 9), [("x", dtype), ("y", part)])
    a = whole["x"][:, :4]
    a[...] = integers((4, 4), dtype, 0)
    out = whole["x"][:, 5:]
    b = np.ascontiguousarray(a.T)
    nkblas.gemm(a, b, alpha=1j, out=out, trans_b=2)
    assert np.array_equal(out, exact(1j, a, a.conj(), 0, None))
    assert np.array_equal(nkblas.matmul(a, a.T), exact(1, a, a.T, 0, None))
    assert (whole["y"] == 0).all()


any_layout = layouts(-2, -1, 1, 3)
lengths = st.integers(0, 70)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    lengths,
    lengths,
    lengths,
    st.tuples(any_layout, any_layout, any_layout),
    st.sampled_from(REAL + COMPLEX),
    st.sampled_from(COMPLEX_SCALES),
    st.integers(0, 9),
)
def test_any_shape_and_strides(
    m: int,
    n: int,
    k: int,
    arranged: tuple[Layout, Layout, Layout],
    dtype: str,
    scale: tuple[Any, Any],
    seed: int,
) -> None:
    alpha, beta = (x if dtype in COMPLEX else x.real for x in scale)
    a, b, c = (integers(shape, dtype, seed + i) for i, shape in enumerate(((m, k), (k, n), (m, n))))
    left, right = arranged[0].arrange(a, dtype), arranged[1].arrange(b, dtype)
    buffer, out = arranged[2].empty((m, n), dtype, fill=GUARD)
    out[...] = np.nan if beta == 0 else c
    expected = exact(alpha, a, b, beta, c)
    assert np.array_equal(nkblas.gemm(left, right, out, alpha=alpha, beta=beta), expected)
    nkblas.gemm(left, right, out, alpha=alpha, beta=beta, out=out)
    assert np.array_equal(out, expected)
    out[...] = GUARD
    assert (buffer == GUARD).all()


@by_real_dtype
def test_error_bound(dtype: str) -> None:
    """Element by element; the exact result is computed in extended precision."""
    generator, eps = np.random.default_rng(0), np.finfo(dtype).eps
    for m, n, k in edges(dtype):
        a, b, c = (generator.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (m, n)))
        assert_within_bound(nkblas.gemm(a, b), a, b)
        for alpha, beta in ((0.3, 0), (1, 0.7), (-1.7, 1), (0.3, -0.7)):
            got = nkblas.gemm(a, b, c, alpha=alpha, beta=beta)
            # alpha and beta are rounded to the dtype first
            scale = [np.longdouble(np.dtype(dtype).type(x)) for x in (alpha, beta)]
            wide = [x.astype(np.longdouble) for x in (a, b, c)]
            error = abs(got - (scale[0] * (wide[0] @ wide[1]) + scale[1] * wide[2]))
            size = abs(scale[0]) * (abs(wide[0]) @ abs(wide[1])) + abs(scale[1] * wide[2])
            assert (error <= (k + 2) * eps * size).all(), (m, n, k, alpha, beta)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_error_bound_of_complex(dtype: str) -> None:
    generator, eps = np.random.default_rng(0), np.finfo(dtype).eps

    def normal(*shape: int) -> Array:
        parts = generator.standard_normal((2, *shape))
        values: Array = (parts[0] + 1j * parts[1]).astype(dtype)
        return values

    for m, n, k in edges(dtype):
        a, b, c = normal(m, k), normal(k, n), normal(m, n)
        for alpha, beta in ((1, 0), (0.5, 2), (0.5 + 0.25j, 0.75 - 2j)):
            got = nkblas.gemm(a, b, c, alpha=alpha, beta=beta)
            wide = [x.astype(np.clongdouble) for x in (a, b, c)]
            error = abs(got - (alpha * (wide[0] @ wide[1]) + beta * wide[2]))
            size = abs(alpha) * (abs(wide[0]) @ abs(wide[1])) + abs(beta * wide[2])
            assert (error <= 4 * (k + 2) * eps * size).all(), (m, n, k, alpha, beta)


@by_dtype
def test_zero_factors_read_no_operands(dtype: str) -> None:
    """With alpha = 0 A and B are not read, with beta = 0 C is not."""
    for m, n, k in edges(dtype):
        nothing = [np.full(shape, np.nan, dtype) for shape in ((m, k), (k, n), (m, n))]
        c = integers((m, n), dtype, 2)
        assert np.array_equal(nkblas.gemm(*nothing[:2], c, alpha=0, beta=2), 2 * c)
        assert np.array_equal(nkblas.gemm(*nothing, alpha=0, beta=0), np.zeros((m, n)))
        assert np.array_equal(nkblas.gemm(*nothing[:2], alpha=0, out=nothing[2]), np.zeros((m, n)))


@by_dtype
def test_nan_propagates(dtype: str) -> None:
    """NaN propagates, without warnings."""
    for (m, n, k), (alpha, beta) in itertools.product(edges(dtype), [(1, 1), (2, 1), (-1, 0.5)]):
        a, b, c = integers((m, k), dtype, 0), integers((k, n), dtype, 1), integers((m, n), dtype, 2)
        a[-1, -1] = c[0, 0] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = nkblas.gemm(a, b, c, alpha=alpha, beta=beta)
        assert np.isnan(got[-1]).all()
        assert np.isnan(got[0, 0])
        rest = got[:-1].copy()
        rest[:1, 0] = 0
        assert not np.isnan(rest).any()


@by_dtype
def test_empty(dtype: str) -> None:
    for m, n, k in itertools.product((0, 3), (0, 40), (0, 2)):
        if m * n * k:
            continue
        a, b, c = integers((m, k), dtype, 0), integers((k, n), dtype, 1), integers((m, n), dtype, 2)
        for alpha, beta in scales(dtype):
            got = nkblas.gemm(a, b, c, alpha=alpha, beta=beta)
            assert got.dtype == dtype
            assert np.array_equal(got, beta * c)
        assert np.array_equal(nkblas.gemm(a, b), np.zeros((m, n)))


# by name: views (a, b, c, out) of a buffer of shape (2 * size, size)
OVERLAPS: dict[str, Callable[[Array, int], tuple[Array, Array, Array, Array]]] = {
    "out is a": lambda x, n: (x[:n], x[n:], x[n:], x[:n]),
    "out is b": lambda x, n: (x[:n], x[n:], x[:n], x[n:]),
    "all are one": lambda x, n: (x[:n], x[:n], x[:n], x[:n]),
    "out is a transposed": lambda x, n: (x[:n], x[n:], x[:n], x[:n].T),
    "out is c backwards": lambda x, n: (x[:n], x[:n], x[n:], x[n:][::-1]),
    "out is c one row on": lambda x, n: (x[:n], x[:n], x[:n], x[1 : n + 1]),
    "out is part of all": lambda x, n: (x[:n], x[n:], x[:n], x[n // 2 : n // 2 + n]),
}


def test_out_of_a_subclass() -> None:
    """Masked elements are written too, and `*` of matrices is not used."""
    a, b, c = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2), np.ones((2, 2))
    i, j = a.astype("i2"), b.astype("i2")
    scale = np.full(2, 0.5, "f4")
    for make in (lambda x: np.ma.MaskedArray(x, [[True, False], [False, True]]), np.asmatrix):
        for expected, (function, *arguments), options in (
            (2 * a @ b + 3 * c, (nkblas.gemm, a, b, c), {"alpha": 2, "beta": 3}),
            (2 * i @ j + 3, (nkblas.gemm, i, j), {"alpha": 2, "bias": 3}),
            (i @ j + 3, (nkblas.gemm, i, j), {"bias": 3, "activation": ("clip", 0, 99)}),
            (a @ b + 3 * c, (nkblas.brgemm, a[None], b[None], c), {"beta": 3}),
            (a @ b, (nkblas.brgemm, a[None], b[None]), {}),
            (a @ b / 2, (nkblas.gemm, a.astype("i1"), b.astype("i1")), {"scale": scale}),
        ):
            dtype = "f4" if "scale" in options else arguments[0].dtype
            for buffer in (np.zeros((2, 2), dtype), np.zeros((2, 4), dtype)[:, ::2]):
                out = make(buffer)
                assert function(*arguments, **options, out=out) is out
                assert np.array_equal(buffer, expected), (make, function, options)


@by_dtype
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_overlaps(overlap: str, dtype: str) -> None:
    for size, (alpha, beta) in itertools.product((1, 2, 20, 70), scales(dtype)):
        whole = integers((2 * size, size), dtype, 0)
        a, b, c, out = OVERLAPS[overlap](whole, size)
        expected = exact(alpha, a, b, beta, c)
        assert nkblas.gemm(a, b, c, alpha=alpha, beta=beta, out=out) is out
        assert np.array_equal(out, expected), (size, alpha, beta)


@by_dtype
def test_operands_are_not_modified(dtype: str) -> None:
    arrays = [integers((30, 30), dtype, seed) for seed in range(3)]
    before = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    for trans in itertools.product((0, 1, 2), repeat=2):
        nkblas.gemm(*arrays, alpha=2, beta=3, trans_a=trans[0], trans_b=trans[1])
    assert all(map(np.array_equal, arrays, before))


@by_dtype
def test_one_call_of_the_engine(dtype: str) -> None:
    before = nkblas.stats()
    a = integers((40, 30), dtype, 0)
    with nkblas.record() as recording:
        nkblas.gemm(a, a, integers((40, 40), dtype, 1), alpha=2, beta=3, trans_b=True)
        nkblas.gemm(a, a, integers((40, 40), dtype, 1), beta=1, trans_b=True)
    after = nkblas.stats()
    assert (after["calls"], after["fallbacks"]) == (before["calls"] + 2, before["fallbacks"])
    assert sorted(problem.epilogue for problem in recording) == ["add", "scale"]
    assert sum(":scale " in line for line in str(recording).splitlines()) == 1


@by_real_dtype
def test_same_bits_for_any_number_of_threads(dtype: str) -> None:
    generator = np.random.default_rng(0)
    before = nkblas.get_num_threads()
    try:
        for m, n, k in ((300, 310, 320), (1, 3000, 700), (1000, 3, 900), (130, 2000, 1200)):
            a, b, c = (generator.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (m, n)))
            found = set()
            for threads in (1, 2, 3, 1):
                nkblas.set_num_threads(threads)
                found.add(nkblas.gemm(a, b, c, alpha=0.7, beta=-0.3).tobytes())
            assert len(found) == 1, (m, n, k)
    finally:
        nkblas.set_num_threads(before)


def test_dtypes() -> None:
    """The arrays' dtypes decide, and not the types of alpha and beta; with and without kernels."""
    single, double = np.ones((2, 2), "f4"), np.ones((2, 2), "f8")
    cases = [
        ((single, single), {"alpha": np.float64(0.5)}, "f4"),
        ((single, single, double), {"beta": 1}, "f8"),
        ((single, double), {}, "f8"),
        ((half := single.astype(bfloat16), half), {"alpha": 0.5}, bfloat16),
        ((half, half, half), {"beta": 2.5}, bfloat16),
        ((half, half, single), {"alpha": 2, "beta": 0.5}, "f4"),
        ((half, nkblas.pack(half, dtype=bfloat16)), {"alpha": 0.5}, bfloat16),
        ((single, single), {"alpha": 1j}, "c8"),
        ((single, double.astype("c16")), {}, "c16"),
        ((single.astype("f2"), single.astype("f2")), {"alpha": 0.5}, "f2"),
        ((single.astype("i4"), single.astype("i4")), {"alpha": 2}, "i4"),
        ((single.astype("i4"), single.astype("i4")), {"alpha": 0.5}, "f8"),
        (([[1, 2], [3, 4]], single), {}, "f8"),
    ]
    for arrays, options, dtype in cases:
        got = nkblas.gemm(*arrays, **options)
        a, b = (np.asarray(x).astype("c16") for x in arrays[:2])
        expected = options.get("alpha", 1) * (a @ b)
        assert got.dtype == dtype
        assert np.array_equal(got, expected + options.get("beta", 0))
    swapped = nkblas.gemm(single, single, bias=1, activation="relu", out_dtype=">f4")
    assert swapped.dtype == ">f4"
    assert (swapped == 3).all()
    eighth = single.astype("float8_e4m3")  # promotes with float64 and with 1, but not with both
    assert np.array_equal(nkblas.gemm(eighth, 3 * double), np.full((2, 2), 6.0))
    large = np.full((2, 2), 2**63 + 1, "u8")  # float64 has only the first 53 bits
    assert np.array_equal(nkblas.gemm(large, large, out_dtype="i8"), np.full((2, 2), 2))
    wide = np.full((2, 2), 2**15)  # sums wrap before the epilogue
    assert not nkblas.gemm(wide, wide, out_dtype="i4", activation="relu").any()
    wrapping = np.full((2, 2), 100, "i1")
    expected = (3 * (100 * 100 * 2) + 2 * 100 + 128) % 256 - 128
    assert (nkblas.gemm(wrapping, wrapping, wrapping, alpha=3, beta=2) == expected).all()


def read_only() -> Array:
    x = np.ones((2, 4))
    x.flags.writeable = False
    return x


A, B = np.ones((2, 3)), np.ones((3, 4))
MISTAKES: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((A, A), {}, ValueError, "b: got op(b) of shape (2, 3), expected (3, n) to multiply op(a)"),
    ((A, B), {"trans_a": 1}, ValueError, "b: got op(b) of shape (3, 4), expected (2, n)"),
    ((A, B), {"trans_b": 3}, ValueError, "trans_b: got 3, expected False, True or 2"),
    ((A, B[0]), {}, ValueError, "b: got shape (4,), expected a matrix"),
    ((A[None], B), {}, ValueError, "a: got shape (1, 2, 3), expected a matrix"),
    ((A, B, A), {"beta": 1}, ValueError, "c: got shape (2, 3), expected (2, 4)"),
    ((A, B, A), {}, ValueError, "c: got shape (2, 3), expected (2, 4)"),
    ((A, B), {"beta": 2}, ValueError, "beta: got 2 and no c, expected c of shape (2, 4)"),
    ((A, B), {"alpha": "x"}, TypeError, "alpha: got 'x', expected a number"),
    ((A, B), {"beta": [1, 2]}, TypeError, "beta: got [1, 2], expected a number"),
    ((A, B), {"alpha": np.ones(2)}, TypeError, "alpha: got array([1., 1.]), expected a number"),
    ((A, B), {"out": np.ones((2, 4), "f4")}, ValueError, "out: got float32 of shape (2, 4), "),
    ((A, B), {"out": A}, ValueError, "expected an array of float64 of shape (2, 4)"),
    ((A, B), {"out": [1]}, ValueError, "out: got [1], expected an array of float64"),
    ((A, B), {"out": read_only()}, ValueError, "out: got a read-only array"),
]


@pytest.mark.parametrize(("arrays", "options", "kind", "words"), MISTAKES)
def test_mistakes(
    arrays: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        nkblas.gemm(*arrays, **options)


@pytest.mark.parametrize("module", ["nkblas.api.gemm", "nkblas.blas"])
def test_examples(module: str) -> None:
    found = doctest.testmod(import_module(module))
    assert found.attempted > 3
    assert found.failed == 0
