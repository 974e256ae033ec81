"""Products of float32 and float64 on the engine. `test_isas` runs this module on every ISA."""

import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    DTYPES,
    GUARD,
    LAYOUTS,
    ORDERS,
    STACKS,
    Array,
    Layout,
    Order,
    assert_within_bound,
    exact,
    fenced,
    integers,
    layouts,
    run,
    tile,
)

import nkblas

by_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def no_fallbacks() -> Iterator[None]:
    """No product in this module falls back to NumPy."""
    before = nkblas.stats()
    yield
    after = nkblas.stats()
    assert after["fallbacks"] == before["fallbacks"]
    assert after["calls"] > before["calls"]


def lanes(dtype: str) -> int:
    return nkblas.cpu.isa.lanes(np.dtype(dtype).itemsize)


def sizes(dtype: str) -> tuple[int, int, int]:
    """The tile: rows, columns, and for k the side of the square that packing transposes."""
    return *tile(dtype), lanes(dtype)


def around(size: int) -> list[int]:
    """Difficult lengths: 1, 2, a prime, a tile and its neighbours."""
    return sorted({1, 2, 7, size - 1, size, size + 1})


def edges(dtype: str) -> list[tuple[int, int, int]]:
    """A few shapes with edge tiles in every dimension."""
    mr, nr, kr = sizes(dtype)
    return [(1, 1, 1), (mr - 1, nr - 1, kr + 1), (mr + 1, nr + 1, 2 * kr - 1), (2, 3, 1)]


def test_isa_is_the_requested_one() -> None:
    expected = os.environ.get("NKBLAS_ISA") or nkblas.cpu.isa.name
    one = np.ones((3, 3))
    nkblas.matmul(one, one)
    assert nkblas.cpu.isa.name == expected
    base = nkblas.cpu.isa.base.name  # sufficient for float64
    assert all(f"_{base}_" in kernel for kernel in nkblas.explain(one, one).kernels)


@by_dtype
@pytest.mark.parametrize("layout", ["rows", "columns", "every other of both"])
@pytest.mark.parametrize("dimension", "mnk")
def test_every_length(dimension: str, layout: str, dtype: str) -> None:
    """One dimension takes every length up to a tile and 2 more, the others the difficult ones."""
    which = "mnk".index(dimension)
    lengths: list[Any] = [around(size) for size in sizes(dtype)]
    lengths[which] = range(sizes(dtype)[which] * (2 if dimension == "k" else 1) + 3)
    largest = [max(values) for values in lengths]
    a = integers(largest[0], largest[2])
    b = integers(largest[2], largest[1], seed=1)
    for m, n, k in itertools.product(*lengths):
        left = LAYOUTS[layout].arrange(a[:m, :k], dtype)
        right = LAYOUTS[layout].arrange(b[:k, :n], dtype)
        c = nkblas.matmul(left, right)
        assert c.dtype == dtype
        assert np.array_equal(c, exact(left, right)), f"{m}x{n}x{k}"


PRIMES_AND_BLOCKS = [
    (31, 37, 41),
    (127, 131, 137),
    (257, 263, 521),
    (1, 1000, 1),
    (1000, 1, 1000),
    (1, 1, 3001),
    (2, 3001, 3),
    (3, 2000, 700),
    (2503, 5, 300),
    (600, 600, 1500),
]


@by_dtype
@pytest.mark.parametrize("shape", PRIMES_AND_BLOCKS, ids=str)
def test_orders(shape: tuple[int, int, int], dtype: str) -> None:
    """Shapes larger than cache blocks, with every matrix in both memory orders."""
    m, n, k = shape
    a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
    expected = exact(a, b)
    for order_a, order_b, order_c in itertools.product(ORDERS, repeat=3):
        out = np.full((m, n), np.nan, dtype, order=order_c)
        nkblas.matmul(a.copy(order_a), b.copy(order_b), out=out)
        assert np.array_equal(out, expected), order_a + order_b + order_c


@by_dtype
@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_layouts(layout_a: str, layout_b: str, dtype: str) -> None:
    """NaN between the elements does not affect the result."""
    for m, n, k in edges(dtype):
        a = LAYOUTS[layout_a].arrange(integers(m, k), dtype)
        b = LAYOUTS[layout_b].arrange(integers(k, n, seed=1), dtype)
        assert np.array_equal(nkblas.matmul(a, b), exact(a, b)), f"{m}x{n}x{k}"


@by_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_out(layout: str, dtype: str) -> None:
    """All of `out` is written and nothing else; its previous content has no effect."""
    for m, n, k in [*edges(dtype), (3, 5, 0), (4, 40, 700)]:
        a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
        buffer, out = LAYOUTS[layout].empty((m, n), dtype, fill=GUARD)
        out[...] = np.nan
        assert nkblas.matmul(a, b, out=out) is out
        assert np.array_equal(out, exact(a, b)), f"{m}x{n}x{k}"
        out[...] = GUARD
        assert (buffer == GUARD).all(), f"{m}x{n}x{k}"


@by_dtype
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("order_b", ORDERS)
@pytest.mark.parametrize("order_a", ORDERS)
def test_nothing_beyond_is_read(order_a: Order, order_b: Order, at_end: bool, dtype: str) -> None:
    """Operands are adjacent to guard pages: an access beyond them is a crash."""
    for m, n, k in edges(dtype):
        a = fenced(integers(m, k), dtype, order_a, at_end)
        b = fenced(integers(k, n, seed=1), dtype, order_b, at_end)
        out = fenced(np.zeros((m, n)), dtype, "C", at_end)
        assert np.array_equal(nkblas.matmul(a, b, out=out), exact(a, b))


@by_dtype
def test_broadcast_views(dtype: str) -> None:
    """Strides of zero, in either dimension and in both."""
    m, n, k = edges(dtype)[2]
    views = [(1, 1), (1, None), (None, 1), (None, None)]
    for size_a, size_b in itertools.product(views, repeat=2):
        a = np.broadcast_to(integers(size_a[0] or m, size_a[1] or k, dtype=dtype), (m, k))
        b = np.broadcast_to(integers(size_b[0] or k, size_b[1] or n, dtype=dtype, seed=1), (k, n))
        assert np.array_equal(nkblas.matmul(a, b), exact(a, b))


@by_dtype
def test_read_only_operands(dtype: str) -> None:
    a, b = integers(9, 8, dtype=dtype), integers(8, 7, dtype=dtype)
    a.flags.writeable = b.flags.writeable = False
    assert np.array_equal(nkblas.matmul(a, b), exact(a, b))


@by_dtype
def test_strides_of_length_one(dtype: str) -> None:
    """NumPy allows any stride for a dimension of length 1, also a fraction of an element."""

    def with_odd_stride(x: Array) -> Array:
        odd = [
            3 * stride - 1 if length == 1 else stride
            for length, stride in zip(x.shape, x.strides, strict=True)
        ]
        return np.lib.stride_tricks.as_strided(x, strides=odd)

    for m, n, k in [(1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1, 1)]:
        a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
        c = nkblas.matmul(with_odd_stride(a), with_odd_stride(b))
        assert np.array_equal(c, exact(a, b))


# The values return views (a, b, out) of a buffer of (2 size, size) elements.
OVERLAPS: dict[str, Callable[[Array, int], tuple[Array, Array, Array]]] = {
    "out is a": lambda x, n: (x[:n], x[n:], x[:n]),
    "out is b": lambda x, n: (x[:n], x[n:], x[n:]),
    "all are the same": lambda x, n: (x[:n], x[:n], x[:n]),
    "out is a transposed": lambda x, n: (x[:n], x[n:], x[:n].T),
    "out is b backwards": lambda x, n: (x[:n], x[n:], x[n:][::-1]),
    "out is a shifted by a row": lambda x, n: (x[:n], x[n:], x[1 : n + 1]),
    "out is part of both": lambda x, n: (x[:n], x[n:], x[n // 2 : n // 2 + n]),
    "out between the rows of a": lambda x, n: (x[::2], x[:n], x[1::2]),
}


@by_dtype
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_overlapping_out(overlap: str, dtype: str) -> None:
    for size in (1, 2, tile(dtype)[0], tile(dtype)[1] + 1, 150):
        buffer = integers(2 * size, size, dtype=dtype)
        a, b, out = OVERLAPS[overlap](buffer, size)
        expected = exact(a, b)
        nkblas.matmul(a, b, out=out)
        assert np.array_equal(out, expected), size


MORE_STACKS = [*STACKS, ((2, 3, 6, 7), (7, 3)), ((3, 6, 7), (3, 7, 17)), ((100, 2, 3), (100, 3, 2))]


@by_dtype
@pytest.mark.parametrize("shapes", MORE_STACKS, ids=str)
def test_stacks(shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: str) -> None:
    a, b = (integers(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes))
    expected = np.asarray(exact(a, b))
    before = nkblas.stats()["calls"]
    c = nkblas.matmul(a, b)
    matrices = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    assert np.shape(c) == expected.shape
    assert np.array_equal(c, expected)
    assert nkblas.stats()["calls"] - before == np.prod(matrices, dtype=int)

    views = a[..., ::-1, :] if a.ndim > 1 else a, b[..., ::-1]
    assert np.array_equal(nkblas.matmul(*views), exact(*views))


@by_dtype
@pytest.mark.parametrize("shape", [(0, 0, 0), (0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 3, 0)], ids=str)
def test_empty(shape: tuple[int, int, int], dtype: str) -> None:
    m, n, k = shape
    a, b = np.ones((2, m, k), dtype), np.ones((2, k, n), dtype)
    for order in ORDERS:
        out = np.full((2, m, n), np.nan, dtype, order=order)
        assert nkblas.matmul(a, b, out=out) is out
        assert np.array_equal(out, np.zeros((2, m, n)))


@by_dtype
@pytest.mark.parametrize("shape", [(65, 67, 1000), (200, 100, 300), (1, 300, 2000)], ids=str)
@pytest.mark.parametrize("scale", [0, -60, 60])
def test_error_bound(scale: int, shape: tuple[int, int, int], dtype: str) -> None:
    m, n, k = shape
    generator = np.random.default_rng(0)
    # Factors from 2**-30 to 2**30 around `scale` make rounding errors large.
    a, b = (
        np.ldexp(generator.standard_normal(s), generator.integers(-15, 16, s) + half).astype(dtype)
        for s, half in (((m, k), scale), ((k, n), 0))
    )
    for left, right in ((a, b), (np.asfortranarray(a), np.asfortranarray(b)), (abs(a), abs(b))):
        assert_within_bound(nkblas.matmul(left, right), left, right)


@by_dtype
def test_subnormals_are_exact(dtype: str) -> None:
    smallest = np.finfo(dtype).smallest_subnormal
    for m, n, k in [*edges(dtype), (30, 70, 300)]:
        a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
        for left, right in ((a * smallest, b), (a, b * smallest)):
            c = nkblas.matmul(left, right)
            assert np.array_equal(c / smallest, exact(a, b))


def by_definition(a: Array, b: Array) -> Array:
    """The product by its definition, with NaN and Inf as in IEEE arithmetic."""
    with np.errstate(invalid="ignore"):
        product: Array = (a.astype("float64")[:, :, None] * b.astype("float64")).sum(axis=1)
        return product


@by_dtype
@pytest.mark.parametrize("values", [*itertools.product([0.0, np.nan, np.inf, -np.inf], repeat=2)])
def test_nan_and_inf(values: tuple[float, float], dtype: str) -> None:
    """NaN and Inf in one element of each operand affect only their row and column."""
    for m, n, k in edges(dtype):
        for place in ((0, 0), (-1, -1), (m // 2, k // 2), (-1, 0)):
            for order in ORDERS:
                a = integers(m, k, dtype=dtype).copy(order)
                b = integers(k, n, dtype=dtype, seed=1).copy(order)
                a[place], b[place[1], place[0] % n] = values
                with np.errstate(invalid="ignore"):
                    c = nkblas.matmul(a, b)
                assert np.array_equal(c, by_definition(a, b), equal_nan=True), (
                    f"{m}x{n}x{k} {place}"
                )


@by_dtype
def test_signed_zeros(dtype: str) -> None:
    """A sum starts from +0, as in NumPy's own loops: no sum of zeros is negative."""
    for m, n, k in edges(dtype):
        a = np.copysign(0, integers(m, k)).astype(dtype)
        b = np.copysign(1, integers(k, n, seed=1)).astype(dtype)
        c = nkblas.matmul(a, b)
        assert np.array_equal(c, np.zeros((m, n)))
        assert not np.signbit(c).any()
        assert not np.signbit(np.matmul(a.astype("longdouble"), b.astype("longdouble"))).any()


@by_dtype
@pytest.mark.parametrize("nan", [False, True])
def test_finite_data_never_warns(nan: bool, dtype: str) -> None:
    """No warning comes from memory around the operands or from old packing buffers.

    A quiet NaN in an operand gives none, either.
    """
    machine = np.finfo(dtype)
    for poison in (np.inf, float(machine.max), float(machine.tiny), np.nan):
        full = np.full((80, 80), poison, dtype)[::2, ::2]
        for (m, n, k), layout in itertools.product(edges(dtype), LAYOUTS.values()):
            a = layout.arrange(integers(m, k), dtype, fill=poison)
            b = layout.arrange(integers(k, n, seed=1), dtype, fill=poison)
            if nan:
                b[0, 0] = np.nan
            with np.errstate(all="ignore"):  # both fill packing buffers with `poison`
                nkblas.matmul(full, full)
                nkblas.matmul(np.ones_like(full), full)
            with np.errstate(all="raise"):
                c = nkblas.matmul(a, b)
            assert np.array_equal(c, by_definition(a, b), equal_nan=True)


WARNINGS = {"invalid": (np.inf, 0), "overflow": (None, 4)}


@by_dtype
@pytest.mark.parametrize("kind", WARNINGS)
def test_warnings(kind: str, dtype: str) -> None:
    """Warnings have NumPy's text, also for a single element of the last tile."""
    left, right = WARNINGS[kind]
    for m, n, k in edges(dtype):
        a, b = np.ones((m, k), dtype), np.ones((k, n), dtype)
        a[-1, -1] = np.finfo(dtype).max if left is None else left
        b[-1, -1] = right
        with pytest.warns(RuntimeWarning, match=f"^{kind}.* encountered in matmul"):
            c = nkblas.matmul(a, b)
        assert np.isnan(c[-1, -1]) if kind == "invalid" else np.isinf(c[-1, -1])
        with np.errstate(all="raise"), pytest.raises(FloatingPointError, match=kind):
            nkblas.matmul(a, b)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")
            nkblas.matmul(a, b)


REPEATABLE = """
    import hashlib
    generator = np.random.default_rng(0)
    digest = hashlib.sha256()
    for shape in {shapes}:
        m, n, k = shape
        a = generator.standard_normal((m, k)).astype("{dtype}")
        b = generator.standard_normal((k, n)).astype("{dtype}")
        results = [nkblas.matmul(a, b).tobytes() for _ in range(3)]
        assert results[1:] == results[:-1], shape
        digest.update(results[0])
    print(json.dumps(digest.hexdigest()))
"""


@by_dtype
def test_same_bits_on_every_run(dtype: str) -> None:
    shapes = [*edges(dtype), (100, 101, 999), (1, 500, 600)]
    generator = np.random.default_rng(0)
    digest = hashlib.sha256()
    for m, n, k in shapes:
        a = generator.standard_normal((m, k)).astype(dtype)
        b = generator.standard_normal((k, n)).astype(dtype)
        results = [nkblas.matmul(a.copy(), b.copy()).tobytes() for _ in range(3)]
        assert results[1:] == results[:-1]
        digest.update(results[0])
    elsewhere, _ = run(REPEATABLE.format(shapes=shapes, dtype=dtype))
    assert elsewhere == digest.hexdigest()


any_layout = layouts(-3, -2, -1, 1, 2, 3)
lengths = st.integers(0, 70)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    lengths,
    lengths,
    lengths,
    any_layout,
    any_layout,
    any_layout,
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)
def test_any_shape_and_strides(
    m: int,
    n: int,
    k: int,
    layout_a: Layout,
    layout_b: Layout,
    layout_c: Layout,
    dtype: str,
    seed: int,
) -> None:
    a = layout_a.arrange(integers(m, k, seed=seed), dtype)
    b = layout_b.arrange(integers(k, n, seed=seed + 1), dtype)
    buffer, out = layout_c.empty((m, n), dtype, fill=GUARD)
    expected = a.astype("int64") @ b.astype("int64")
    nkblas.matmul(a, b, out=out)
    assert np.array_equal(out, expected)
    assert np.array_equal(nkblas.matmul(a, b), expected)
    out[...] = GUARD
    assert (buffer == GUARD).all()
