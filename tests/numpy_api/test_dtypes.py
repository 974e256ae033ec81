"""Products of every dtype that NumPy multiplies without BLAS, and of `ml_dtypes`.

float32 and float64 are in `test_matmul`. No test here depends on the ISA.
"""

import hashlib
import itertools
import operator
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    COMPLEX,
    DTYPES,
    FLOAT8,
    INTEGERS,
    LAYOUTS,
    MIXED,
    ORDERS,
    PRELUDE,
    PRODUCTS,
    STACKS,
    TOOLS,
    Array,
    Layout,
    Order,
    Product,
    assert_exact,
    assert_within_bound,
    expected,
    fenced,
    layouts,
    outcome,
    poison,
    run,
    sample,
    tile,
)

import nkblas

NAMES = [*COMPLEX, "float16", "bfloat16", "bool", *INTEGERS, *FLOAT8]
PRODUCTS_HERE = [product for product in PRODUCTS if product.a not in DTYPES]
# Of the float8 types only two: one that has infinities, and one without.
REPRESENTATIVE = [
    p for p in PRODUCTS_HERE if p.a not in FLOAT8 or p.a in ("float8_e5m2", "float8_e4m3fn")
]
HALVES = [p for p in PRODUCTS_HERE if p.a in ("float16", "bfloat16")]
NARROW = [p for p in HALVES if p.result.itemsize == 2]
EXACT = [p for p in PRODUCTS_HERE if p.result.kind in "iu"]

pytestmark = pytest.mark.filterwarnings("error:.*encountered in:RuntimeWarning")
by_name = pytest.mark.parametrize("name", NAMES)


def by_product(products: list[Product]) -> Any:
    return pytest.mark.parametrize("product", products, ids=str)


@pytest.fixture(autouse=True)
def no_fallbacks() -> Iterator[None]:
    """No product in this module falls back to NumPy."""
    before = nkblas.stats()["fallbacks"]
    yield
    assert nkblas.stats()["fallbacks"] == before


def edges(product: Product) -> list[tuple[int, int, int]]:
    """A few shapes (m, n, k) with edges in every dimension, for any k step."""
    mr, nr = tile(product.a)
    return [(1, 1, 1), (2, 3, 2), (mr - 1, nr + 1, 67), (mr + 1, nr - 1, 33), (5, 1, 66)]


def operands(product: Product, m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    left = sample(m, k, dtype=product.a, seed=seed)
    return left, sample(k, n, dtype=product.b, seed=seed + 1)


def products(call: Callable[[], Any]) -> int:
    """The number of products that nkblas does in a call."""
    before = nkblas.stats()["calls"]
    call()
    return nkblas.stats()["calls"] - before


# The backend and the dtype of the result.


@by_name
def test_is_nkblas(name: str) -> None:
    """Every dtype runs on nkblas, and the result has NumPy's dtype."""
    a = sample(9, 9, dtype=name)
    assert nkblas.explain(a, a).backend == "nkblas"
    assert products(lambda: nkblas.matmul(a, a)) == 1
    assert nkblas.matmul(a, a).dtype == np.matmul(a, a).dtype


OTHER_NAMES = [name for name in dir(ml_dtypes) if name.startswith(("int", "uint", "float"))]


@pytest.mark.parametrize("name", [name for name in OTHER_NAMES if name not in FLOAT8])
def test_other_types_of_ml_dtypes(name: str) -> None:
    """Types of 2, 4 and 6 bits, and others without kernels: results are NumPy's."""
    a, b = (np.ones((9, 9), name) * few("bool", i).astype(name) for i in (0, 1))
    assert nkblas.explain(a, b).backend == "nkblas"
    assert products(lambda: nkblas.matmul(a, b)) == 1
    assert_exact(nkblas.matmul(a, b), np.matmul(a, b))
    assert_exact(nkblas.matmul(a[0], b), np.matmul(a[0], b))
    nkblas.matmul(*[np.ones((2, 2), "bfloat16")] * 2)  # registers the user dtypes
    for function, operands in (("vecdot", (a, b)), ("matvec", (a, b[0])), ("vecmat", (a[0], b))):
        if hasattr(np, function):
            got = getattr(nkblas, function)(*operands)
            assert_exact(got, getattr(np, function)(*operands))


def problem_dtypes(product: Product) -> set[str]:
    """The dtypes in the name of its problem, where uint32 results are int32."""
    return {product.a, product.b, product.result.name.replace("uint32", "int32")}


@by_product(list(MIXED))
def test_operands_are_not_widened(product: Product) -> None:
    """The planned and recorded problem has the operands' own dtypes."""
    a, b = operands(product, 9, 8, 7)
    with nkblas.record() as shapes:
        c = product(a, b)
        nkblas.gemm(a, b, out_dtype=product.result)
    assert c.dtype == product.result
    (problem,) = shapes
    assert set(problem.dtype.split("_")) == problem_dtypes(product)


@pytest.mark.parametrize("types", ["bb->i", "BB->i", "BB->I", "Bb->i", "bB->i", "ee->f"])
def test_forms_of_dtype_and_signature(types: str) -> None:
    """`dtype`, all forms of `signature`, and `out` select a product without a widened copy."""
    chars = types.replace("->", "")
    product = Product(*(np.dtype(char).name for char in chars))
    a, b = operands(product, 17, 19, 70)
    wanted = expected(a, b, product.dtype)
    classes = tuple(np.dtype(char).type for char in chars)
    forms: list[dict[str, Any]] = [
        {"dtype": np.dtype(chars[2])},
        {"dtype": chars[2]},
        {"dtype": classes[2]},
        {"signature": types},
        {"signature": classes},
        {"signature": tuple(map(np.dtype, chars))},
        {"signature": (None, None, classes[2])},
        {"sig": types},
    ]
    for form in forms:
        for out in (None, np.empty((17, 19), chars[2]), np.empty((19, 17), chars[2]).T):
            options = form if out is None else {**form, "out": out}
            with nkblas.record() as shapes:
                c = nkblas.matmul(a, b, **options)
            assert out is None or c is out
            assert_exact(c, wanted, form)
            (problem,) = shapes
            assert set(problem.dtype.split("_")) == problem_dtypes(product), form


@pytest.mark.parametrize("product", list(MIXED), ids=str)
def test_stacks_of_mixed(product: Product) -> None:
    """Stacks, vectors, axes and order, with `dtype`."""
    a, b = sample(5, 1, 6, 7, dtype=product.a), sample(4, 7, 3, dtype=product.b, seed=1)
    wanted = expected(a, b, product.dtype)
    assert_exact(product(a, b), wanted)
    assert_exact(product(a[0, 0, 0], b), expected(a[0, 0, 0], b, product.dtype))
    assert_exact(product(a[0, 0], b[0, :, 0]), expected(a[0, 0], b[0, :, 0], product.dtype))
    axes = [(0, 1), (0, 1), (1, 0)]
    assert_exact(product(a[0, 0], b[0], axes=axes), wanted[0, 0].T)
    assert_exact(product(a[0, 0], b[0], order="F"), wanted[0, 0])
    assert product(a[0, 0], b[0], order="F").flags.f_contiguous
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        product(a[0, 0], a[0, 0])
    assert nkblas.matmul(a, b).dtype == np.matmul(a[..., :1], b[..., :1, :]).dtype


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        ("float32", "float32", {"dtype": "int32"}),
        ("int8", "int8", {"dtype": "nonsense"}),
        ("int8", "int8", {"signature": "bb->b->b"}),
        ("int8", "int8", {"dtype": "int32", "signature": "ii->i"}),
        ("int8", "int8", {"dtype": "int32", "nonsense": 1}),
        ("uint8", "uint8", {"dtype": "int32", "casting": "nonsense"}),
        ("int8", "int8", {"dtype": "uint32"}),
        ("uint16", "int8", {"dtype": "int8", "casting": "safe"}),
    ],
)
def test_errors_are_numpys(a: str, b: str, options: dict[str, Any]) -> None:
    x, y = sample(3, 4, dtype=a), sample(4, 5, dtype=b)
    wanted = outcome(lambda f: f(x, y, **options), np.matmul)
    assert isinstance(wanted, tuple)
    assert outcome(lambda f: f(x, y, **options), nkblas.matmul)[0] is wanted[0]


OUTS = [
    ("int8", "int32"),
    ("uint8", "int64"),
    ("int8", "float64"),
    ("float16", "float32"),
    ("float32", "float16"),
    ("int32", "int16"),
    ("complex64", "complex128"),
    ("bool", "int8"),
    ("bool", "float32"),
]


@pytest.mark.parametrize(("name", "out"), OUTS)
def test_out_of_another_dtype_alone(name: str, out: str) -> None:
    """Without `dtype` the product is computed in NumPy's type and then cast to `out`."""
    a, b = sample(17, 33, dtype=name), sample(33, 19, dtype=name, seed=1)
    found = np.full((17, 19), 7, out)
    assert nkblas.matmul(a, b, out=found) is found
    assert_exact(found, expected(a, b).astype(out))


PROMOTED = [
    ("int8", "int16"),
    ("uint8", "int8"),
    ("uint8", "uint16"),
    ("uint32", "int32"),
    ("uint64", "int64"),
    ("int16", "float16"),
    ("int32", "float32"),
    ("int64", "float64"),
    ("bool", "int8"),
    ("bool", "uint64"),
    ("bool", "float16"),
    ("bool", "bfloat16"),
    ("float16", "float32"),
    ("float16", "complex64"),
    ("float64", "complex64"),
    ("int8", "complex64"),
    ("bfloat16", "float32"),
    ("bfloat16", "float64"),
    ("bfloat16", "int8"),
    ("float8_e5m2", "float16"),
    ("float8_e4m3fn", "float32"),
    ("float8_e4m3fn", "bool"),
]


@pytest.mark.parametrize(("left", "right"), PROMOTED)
def test_promotion(left: str, right: str) -> None:
    """Operands of two dtypes give NumPy's dtype and values."""
    for a, b in ((left, right), (right, left)):
        x, y = few(a, 0), few(b, 1)
        assert nkblas.explain(x, y).backend == "nkblas"
        assert_exact(nkblas.matmul(x, y), np.matmul(x, y), (a, b))
        assert_exact(nkblas.matmul(x, y), expected(x, y), (a, b))
        assert_exact(nkblas.matmul(x[0], y), expected(x[0], y), (a, b))


@pytest.mark.parametrize("other", ["uint8", "int8", "float8_e4m3", "float8_e5m2", "int32", "bool"])
def test_float8_beside_other_types(other: str) -> None:
    """Neither is rounded to the other, though `ml_dtypes` declares such casts safe."""
    x = np.linspace(3, 99, 81).reshape(9, 9).astype(other)
    y = np.full((9, 9), 1.125).astype("float8_e4m3fn")
    for options in ({}, {"dtype": "f4"}, {"dtype": "f8"}, {"casting": "unsafe"}):
        for a, b in ((x, y), (y, x)):
            for name in ("matmul", "vecdot", "matvec", "vecmat"):
                if hasattr(np, name):
                    wanted = getattr(np, name)(a, b, **options)
                    assert_exact(getattr(nkblas, name)(a, b, **options), wanted)
            wanted = np.matmul(a, b, out=np.empty((9, 9), "f4"), casting="unsafe")
            got = nkblas.matmul(a, b, out=np.empty((9, 9), "f4"), casting="unsafe")
            assert_exact(got, wanted)


def few(name: str, seed: int) -> Array:
    """Small values, whose products every type represents exactly."""
    values = np.random.default_rng(seed).integers(0, 4, (9, 9))
    return values.astype(name)


def test_lists_and_scalars() -> None:
    """Lists and scalars are converted as by NumPy."""
    for name in NAMES:
        a = few(name, 0)
        for other in (a.tolist(), a[0].tolist(), [[True] * 9] * 9, [[2] * 9] * 9, [[2.0] * 9] * 9):
            for call in (lambda f, x=a, y=other: f(x, y), lambda f, x=a, y=other: f(y, x)):
                wanted = outcome(call, np.matmul)
                got = outcome(call, nkblas.matmul)
                if isinstance(wanted, tuple):
                    assert got == wanted
                else:
                    assert_exact(got, wanted)


# Shapes and layouts, with values whose sums are exact.


SHAPES = [
    (1, 1, 2),
    (31, 37, 41),
    (127, 131, 137),
    (1, 300, 70),
    (300, 1, 70),
    (1, 1, 3001),
    (2, 301, 3),
    (3, 200, 700),
    (203, 5, 300),
    (100, 90, 1500),
]


@by_product(PRODUCTS_HERE)
def test_shapes_and_orders(product: Product) -> None:
    """Primes, a tile and 1 more, more than a cache block; all matrices in both orders."""
    for m, n, k in [*edges(product), *SHAPES]:
        a, b = operands(product, m, n, k)
        wanted = expected(a, b, product.dtype)
        assert_exact(product(a, b), wanted, (m, n, k))
        for order_a, order_b, order_c in itertools.product(ORDERS, repeat=3):
            out = np.full((m, n), 7, order=order_c).astype(product.result)
            assert product(a.copy(order_a), b.copy(order_b), out=out) is out
            assert_exact(out, wanted, (m, n, k, order_a, order_b, order_c))


@by_product(REPRESENTATIVE)
def test_every_k(product: Product) -> None:
    """Every remainder of k by a k step, up to two of the longest steps."""
    a, b = operands(product, 3, 19, 130)
    for k in range(131):
        c = product(a[:, :k], b[:k])
        assert_exact(c, expected(a[:, :k], b[:k], product.dtype), k)


@by_product(PRODUCTS_HERE)
def test_empty(product: Product) -> None:
    for m, n, k in [(0, 0, 0), (0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 3, 0)]:
        a, b = operands(product, m, n, k)
        out = np.full((m, n), 7).astype(product.result)
        for c in (product(a, b), product(a, b, out=out)):
            assert_exact(c, np.zeros((m, n), product.result))
    nothing, some = np.ones((0, 2, 3), product.a), np.ones((3, 4), product.b)
    assert_exact(product(nothing, some), np.zeros((0, 2, 4), product.result))


@by_product(REPRESENTATIVE)
def test_stacks_and_vectors(product: Product) -> None:
    for shapes in [*STACKS, ((3, 6, 67), (3, 67, 17))]:
        a, b = sample(*shapes[0], dtype=product.a), sample(*shapes[1], dtype=product.b, seed=1)
        for x, y in ((a, b), (a[..., ::-1], b[::-1])):
            c = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
            assert products(lambda x=x, y=y: product(x, y)) == np.prod(c, dtype=int)
            assert_exact(product(x, y), expected(x, y, product.dtype), shapes)


@by_product(REPRESENTATIVE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, product: Product) -> None:
    """Memory between the elements affects neither results nor floating-point flags."""
    for other, (m, n, k) in itertools.product(LAYOUTS.values(), edges(product)[1:]):
        a, b = operands(product, m, n, k)
        left = LAYOUTS[layout].arrange(a, product.a, poison(product.a))
        right = other.arrange(b, product.b, poison(product.b))
        with np.errstate(all="raise"):
            c = product(left, right)
        assert_exact(c, expected(a, b, product.dtype), (other, m, n, k))


@by_product(REPRESENTATIVE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_out(layout: str, product: Product) -> None:
    """All of `out` is written and nothing else; its previous content has no effect."""
    result = product.result
    for m, n, k in [*edges(product), (3, 5, 0), (4, 40, 700)]:
        a, b = operands(product, m, n, k)
        for guard in (False, True) if result.kind == "b" else (77,):
            buffer, out = LAYOUTS[layout].empty((m, n), result.name, fill=guard)
            out[...] = np.array(poison(result.name), result)
            assert product(a, b, out=out) is out
            assert_exact(out.astype(result), expected(a, b, product.dtype), (m, n, k))
            out[...] = np.array(guard, result)
            assert (buffer.astype(result) == guard).all(), (m, n, k)


@by_product(REPRESENTATIVE)
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_nothing_beyond_is_touched(order: Order, at_end: bool, product: Product) -> None:
    """All matrices are adjacent to guard pages: an access beyond them is a crash."""
    for (m, n, k), order_b in itertools.product(edges(product), ORDERS):
        a, b = operands(product, m, n, k)
        wanted = expected(a, b, product.dtype)
        left, right = fenced(a, product.a, order, at_end), fenced(b, product.b, order_b, at_end)
        out = fenced(np.zeros((m, n)), product.result.name, order, at_end)
        assert_exact(product(left, right, out=out), wanted, (m, n, k))


@by_product(REPRESENTATIVE)
def test_broadcast_views(product: Product) -> None:
    """Strides of zero in either dimension and in both, of read-only operands."""
    m, n, k = edges(product)[2]
    views = [(1, 1), (1, None), (None, 1), (None, None)]
    for size_a, size_b in itertools.product(views, repeat=2):
        a = np.broadcast_to(sample(size_a[0] or m, size_a[1] or k, dtype=product.a), (m, k))
        b = np.broadcast_to(sample(size_b[0] or k, size_b[1] or n, dtype=product.b, seed=1), (k, n))
        assert_exact(product(a, b), expected(a.copy(), b.copy(), product.dtype))


# The values return the offset of `out`, from the bytes of `a`, of an element of `out` and of `b`.
OVERLAPS: dict[str, Callable[[int, int, int], int]] = {
    "where a begins": lambda a, c, b: 0,
    "an element after a begins": lambda a, c, b: c,
    "in the middle of a": lambda a, c, b: a // 2 // c * c,
    "where b begins": lambda a, c, b: -(-a // 16) * 16,
    "an element before a ends": lambda a, c, b: max(0, a // c - 1) * c,
}


@by_product(REPRESENTATIVE)
@pytest.mark.parametrize("order", ORDERS)
def test_overlapping_out(order: Order, product: Product) -> None:
    """`out` overlaps its operands, also where their dtypes differ."""
    result = product.result
    for (where, begin), (m, n, k) in itertools.product(OVERLAPS.items(), edges(product)):
        a, b = operands(product, m, n, k)
        wanted = expected(a, b, product.dtype)
        offset = -(-a.nbytes // 16) * 16
        memory = np.zeros(offset + b.nbytes + 2 * m * n * result.itemsize, "u1")
        left = memory[: a.nbytes].view(a.dtype).reshape(a.shape)
        right = memory[offset : offset + b.nbytes].view(b.dtype).reshape(b.shape)
        start = begin(a.nbytes, result.itemsize, b.nbytes)
        room = memory[start : start + m * n * result.itemsize].view(result)
        out = room.reshape((m, n), order=order)
        left[...], right[...] = a, b
        product(left, right, out=out)
        assert_exact(out, wanted, (where, m, n, k))
        # The same backwards.
        left[...], right[...] = a, b
        product(left, right, out=out[::-1, ::-1])
        assert_exact(out[::-1, ::-1], wanted, (where, m, n, k))


@by_product(REPRESENTATIVE)
def test_operands_stay(product: Product) -> None:
    a, b = operands(product, 33, 35, 66)
    before = a.copy(), b.copy()
    a.flags.writeable = b.flags.writeable = False
    product(a, b)
    product(a[::-1], b[:, ::-1], out=np.empty((33, 35), product.result))
    assert_exact(a, before[0])
    assert_exact(b, before[1])


lengths = st.sampled_from([0, 1, 2, 5, 16, 33, 66])
layout_of_any = layouts(-2, -1, 1, 3)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.sampled_from(REPRESENTATIVE),
    st.tuples(lengths, lengths, lengths),
    st.tuples(layout_of_any, layout_of_any, layout_of_any),
    st.integers(0, 9),
)
def test_any_shape_and_strides(
    product: Product, shape: tuple[int, int, int], layout: tuple[Layout, Layout, Layout], seed: int
) -> None:
    m, n, k = shape
    a, b = operands(product, m, n, k, seed)
    left = layout[0].arrange(a, product.a, poison(product.a))
    right = layout[1].arrange(b, product.b, poison(product.b))
    guard = product.result.kind == "b" or 77
    buffer, out = layout[2].empty((m, n), product.result.name, fill=guard)
    wanted = expected(a, b, product.dtype)
    product(left, right, out=out)
    assert_exact(out, wanted)
    assert_exact(product(left, right), wanted)
    out[...] = guard
    assert (buffer == guard).all()


# Rounding, overflow and subnormals.


def random(*shape: int, dtype: str, seed: int = 0, spread: int = 4) -> Array:
    """Random numbers of both signs, scaled by powers of two up to `spread`."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "c":
        parts = [random(*shape, dtype="float64", seed=2 * seed + i, spread=spread) for i in (0, 1)]
        return (parts[0] + 1j * parts[1]).astype(dtype)
    size = generator.integers(-spread, spread + 1, shape)
    values = np.ldexp(generator.standard_normal(shape), size)
    limit, narrow = 0.9 * float(ml_dtypes.finfo(dtype).max), np.dtype(dtype).itemsize < 4
    return np.clip(values, -limit, limit).astype("float32" if narrow else dtype).astype(dtype)


@by_product([p for p in PRODUCTS_HERE if p.result.kind not in "iub"])
@pytest.mark.parametrize("shape", [(5, 3, 5000), (65, 67, 300), (1, 300, 1000)], ids=str)
def test_error_bound(shape: tuple[int, int, int], product: Product) -> None:
    """Sums with large rounding errors, with cancellation, and without."""
    m, n, k = shape
    for spread in (0, 4):
        a = random(m, k, dtype=product.a, spread=spread)
        b = random(k, n, dtype=product.b, seed=1, spread=spread)
        c = product(a, b)
        assert np.isfinite(c).all()
        assert_within_bound(c, a, b)
        assert_within_bound(product(np.asfortranarray(a), np.asfortranarray(b)), a, b)
        if product.result.kind == "c":  # a small imaginary part is as exact
            a, b = a.real + 1e-5j * a.imag, b.real + 1e-5j * b.imag
            a, b = a.astype(product.a), b.astype(product.b)
            assert_within_bound(product(a, b), a, b)
        else:
            assert_within_bound(product(abs(a), abs(b)), abs(a), abs(b))
        a[:, k // 2 :] = -a[:, : k - k // 2]
        b[k // 2 :] = b[: k - k // 2]
        assert_within_bound(product(a, b), a, b)


def ties(product: Product, k: int) -> tuple[Array, Array, Array]:
    """Operands whose sums are often midway between two values of the result's type."""
    digits = int(ml_dtypes.finfo(product.result).nmant) + 1
    a, b = operands(product, 40, 40, k)
    a[:, k // 3], b[k // 3] = 1, 1.5 * 2**digits
    sums = np.matmul(a.astype("float64"), b.astype("float64"))
    # Odd sums with one digit more than the result's type has.
    return a, b, (abs(sums) >= 2**digits) & (abs(sums) < 2 ** (digits + 1)) & (sums % 2 == 1)


@by_product(NARROW)
@pytest.mark.parametrize("k", [200, 1000, 5000])
def test_rounded_once_to_even(k: int, product: Product) -> None:
    """Sums with more digits than the result, ties included, for any blocks of k."""
    a, b, midway = ties(product, k)
    assert midway.sum() > 20
    wanted = expected(a, b, product.dtype)
    assert_exact(product(a, b), wanted)
    assert_exact(product(np.asfortranarray(a), np.asfortranarray(b)), wanted)
    assert_exact(product(a[:1], b), wanted[:1])
    assert_exact(product(a, b[:, :1]), wanted[:, :1])
    assert_exact(product(a[0], b[:, 0]), wanted[0, 0])


@by_product(NARROW)
def test_a_tie_and_a_bit(product: Product) -> None:
    """A sum next to a tie is rounded to its own side, for any position of the last bit in k."""
    digits = int(ml_dtypes.finfo(product.result).nmant) + 1
    tie, bit = 2**digits + 1, 2.0 ** (digits - 21)  # float32 holds their sum
    for k in (2, 3, 67, 700, 3000):
        for at, sign in itertools.product((0, 1, k // 2, k - 1), (1, -1)):
            a, b = np.zeros((3, k), product.a), np.zeros((k, 5), product.b)
            a[:, (at + 1) % k], b[(at + 1) % k] = 1, 2**digits
            a[:, at] = 1
            b[at] = 1
            assert_exact(product(a, b), np.full((3, 5), 2**digits, product.result), (k, at))
            if k < 3:
                continue
            a[:, (at + 2) % k] = sign * bit
            b[(at + 2) % k] = 1
            wanted = 2**digits + (2 if sign > 0 else 0)
            assert tie + sign * bit != tie
            assert_exact(product(a, b), np.full((3, 5), wanted, product.result), (k, at, sign))


@by_product([p for p in HALVES if p.a == "float16"])
def test_sums_beyond_the_range_of_float16(product: Product) -> None:
    """Only the final sum can overflow, no product and no partial sum."""
    for k, (factor, rest) in itertools.product((2, 3, 66, 700, 3001), ((2, 3), (60000, 1024))):
        for first in {0, k // 2 - 1, k - 2}:
            a, b = np.zeros((3, k), product.a), np.ones((k, 5), product.b)
            a[:, first : first + 2] = 60000, -60000
            b[first : first + 2] = factor
            if k == 2:
                rest = 0
            else:
                a[:, first - 1] = rest  # float32 holds it beside the large products
            with np.errstate(all="raise"):
                c = product(a, b)
            assert_exact(c, np.full((3, 5), rest, product.result), (k, first, factor))


@by_product(NARROW)
def test_overflow_is_of_the_rounded_sum(product: Product) -> None:
    """A sum is infinite from half a step beyond the largest number; less is rounded to it."""
    machine: Any = ml_dtypes.finfo(product.result)
    largest, digits = float(machine.max), int(machine.nmant) + 1
    step = 2.0 ** (np.frexp(largest)[1] - digits)
    for k in (2, 65, 1000):
        a, b = np.zeros((3, k), product.a), np.zeros((k, 5), product.b)
        a[:, 0] = 1
        b[0], b[-1] = largest, step
        for part, wanted in ((0.5, np.inf), (0.49, largest), (0.25, largest), (1, np.inf)):
            for sign in (1, -1):
                a[:, 0] = sign
                a[:, -1] = sign * part
                with np.errstate(over="ignore"):
                    c = product(a, b)
                assert_exact(c, np.full((3, 5), sign * wanted, product.result), (k, part))


@pytest.mark.skipif("f16c" not in nkblas.cpu.isa.requires, reason="nkblas.cpu lacks f16c")
def test_overflow_warns_as_numpys() -> None:
    """float16: in every shape, also for a single element of the last tile."""
    for m, n, k in edges(Product("float16", "float16")):
        a, b = np.ones((m, k), "float16"), np.ones((k, n), "float16")
        a[-1, -1], b[-1, -1] = 60000, 2
        for name in ("matmul", "dot", "inner"):
            x, y = a, b.T if name == "inner" else b
            for module in (np, nkblas):
                function = getattr(module, name)
                message = f"^overflow encountered in {'dot' if name == 'inner' else name}"
                with pytest.warns(RuntimeWarning, match=message):
                    c = function(x, y)
                assert c[-1, -1] == np.inf
                with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
                    function(x, y)
                with np.errstate(over="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("error")
                    function(x, y)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                nkblas.matmul(x, b, dtype="float32")


@by_product([Product("float16", "float16"), Product("float16", "float16", "float32")])
def test_subnormals_of_float16(product: Product) -> None:
    """Subnormal operands and results are exact, with ties to even."""
    for m, n, k in [*edges(product), (20, 30, 300)]:
        a, b = operands(product, m, n, k)
        for shifts in ((-24, 8), (8, -24), (-24, 0), (-12, -13), (-12, -12), (-10, -17)):
            x, y = (np.ldexp(z, s).astype("float16") for z, s in zip((a, b), shifts, strict=True))
            assert_exact(product(x, y), expected(x, y, product.dtype), (m, n, k, shifts))


@by_product([p for p in HALVES if p.a == "bfloat16"])
def test_subnormals_of_bfloat16(product: Product) -> None:
    """Instructions may flush subnormal operands and results to zero, but no other values."""
    tiny = float(ml_dtypes.finfo("bfloat16").tiny)
    for m, n, k in edges(product):
        a, b = operands(product, m, n, k)
        x = (a.astype("float64") * tiny / 16).astype("bfloat16")  # all subnormal
        y = np.ldexp(b.astype("float32"), 60).astype("bfloat16")
        a[:, 1:] = x[:, 1:] = 0  # one product in each sum
        exactly = expected(x, y, product.dtype)
        for order in ORDERS:
            c = product(x.copy(order), y.copy(order))
            assert ((c == exactly) | (c == 0)).all(), (m, n, k)
        x[:, :1] = 3 * tiny
        wanted = expected(x[:, :1], y[:1], product.dtype)
        assert_exact(product(x, y), wanted, (m, n, k))


@pytest.mark.parametrize("name", FLOAT8)
def test_values_of_float8(name: str) -> None:
    """All pairs of a type's 256 values, as single products and in sums."""
    values = np.arange(256, dtype="u1").view(name)
    values = values[np.isfinite(values)]
    wide = values.astype("float64")
    assert_exact(nkblas.matmul(values[:, None], values[None]), np.outer(wide, wide).astype("f"))
    a, b = np.tile(values, (3, 1)), np.tile(values[:, None], (1, 5))
    assert_within_bound(nkblas.matmul(a, b), a, b)
    x, y = random(20, 30, dtype=name, spread=1), random(30, 10, dtype=name, seed=1, spread=1)
    x, y = (x.astype("f") / 16).astype(name), (y.astype("f") / 16).astype(name)
    for c in (nkblas.dot(x, y), nkblas.inner(x, y.T), nkblas.tensordot(x, y, 1), nkblas.gemm(x, y)):
        assert c.dtype == name
        assert_within_bound(c, x, y)
    small, other = (few(name, 0) > 1).astype(name), (few(name, 1) > 1).astype(name)
    wanted = np.matmul(small.astype("f"), other.astype("f")).astype(name)
    assert_exact(nkblas.dot(small, other), wanted)
    assert_exact(nkblas.gemm(small, other), wanted)
    for call in (lambda f: f(small, other), lambda f: f(small[0], other[0])):
        assert type(call(nkblas.dot)) is type(call(np.dot))
        assert_exact(call(nkblas.dot), call(np.dot))


def by_definition(a: Array, b: Array) -> Array:
    """The product by its definition, with NaN and Inf as in IEEE arithmetic."""
    with np.errstate(invalid="ignore"):
        terms: Array = a.astype("float64")[:, :, None] * b.astype("float64")
        return terms.sum(axis=1).astype("float32")


@by_product([*HALVES, Product("float8_e5m2", "float8_e5m2")])
def test_nan_and_inf(product: Product) -> None:
    """NaN and Inf in one element of each operand affect only their row and column."""
    values = itertools.product([0.0, np.nan, np.inf, -np.inf], repeat=2)
    for pair, (m, n, k), order in itertools.product(values, edges(product), ORDERS):
        for place in ((0, 0), (-1, -1), (m // 2, k // 2), (-1, 0)):
            a, b = (x.copy(order) for x in operands(product, m, n, k))
            a[place], b[place[1], place[0] % n] = pair
            with np.errstate(invalid="ignore"):
                c = product(a, b)
            assert_exact(c, by_definition(a, b).astype(product.result), (m, n, k, place, pair))


@by_product([p for p in PRODUCTS_HERE if p.result.kind not in "iub"])
def test_finite_data_never_warns(product: Product) -> None:
    """Values left in packing buffers give no warning, and neither does a quiet NaN."""
    limit = float(ml_dtypes.finfo(product.a).max)
    for value in (poison(product.a), np.nan, limit):
        for m, n, k in [*edges(product), (1, 300, 1000)]:
            full = np.full((m + 9, k + 9), value, product.a)
            a, b = operands(product, m, n, k)
            with np.errstate(all="ignore"):
                product(full, np.full((k + 9, n + 30), value, product.b))
                product(full[:m, :k], np.full((k, n), value, product.b))
            with np.errstate(all="raise"):
                assert_exact(product(a, b), expected(a, b, product.dtype), (m, n, k, value))
                a[0, 0] = np.nan
                assert_within_bound(product(a, b)[1:], a[1:], b)


@by_product([p for p in HALVES if p.a == "float16"])
def test_sums_with_halves_like_nan(product: Product) -> None:
    """Sums in float32 whose lower half would be a signalling NaN as a float16."""
    factor = np.float16(1.2345)
    values = np.arange(0x3C00, 0x4800, dtype="u2").view("f2")
    bits = (values.astype("f") * np.float32(factor)).view("u4") & 0x7FFF
    values = values[(bits > 0x7C00) & (bits < 0x7E00)]
    assert len(values) > 10
    for m, n, k in [*edges(product), (1, 300, 1000), (13, 500, 70)]:
        a, b = np.zeros((m, k), "f2"), np.zeros((k, n), "f2")
        a[:, k // 2] = factor
        b[k // 2] = np.resize(values, n)
        with np.errstate(all="raise"):
            assert_exact(product(a, b), expected(a, b, product.dtype), (m, n, k))


# Complex numbers.


@pytest.mark.parametrize("name", COMPLEX)
def test_finite_stays_finite(name: str) -> None:
    """Finite sums are finite, and NaN and Inf affect only their row."""
    product = Product(name, name)
    for m, n, k in edges(product):
        a, b = random(m, k, dtype=name, spread=20), random(k, n, dtype=name, seed=1, spread=20)
        clean = product(a, b)
        assert np.isfinite(clean).all()
        for value in (np.nan, np.inf, complex(0, np.nan), complex(0, -np.inf)):
            a[-1, -1] = value
            with np.errstate(invalid="ignore"):
                c = product(a, b)
            assert not np.isfinite(c[-1]).any()
            assert np.array_equal(c[:-1], clean[:-1])


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("m", [1, 5, 70])
def test_complex_views(m: int, name: str) -> None:
    """Transposed, conjugate, reversed and real or imaginary views; vdot and vecdot."""
    a, b = sample(m, 67, dtype=name), sample(67, 19, dtype=name, seed=1)
    for x, y in itertools.product((a, a.conj(), a[::-1, ::-1], a.copy("F")), (b, b[:, ::-1])):
        assert_exact(nkblas.matmul(x, y), expected(x, y))
        assert_exact(nkblas.matmul(y.T, x.T), expected(x, y).T)
        assert_exact(nkblas.matmul(y.conj().T, x.conj().T), expected(x, y).conj().T)
        assert_exact(nkblas.matmul(x.real, y), expected(x.real.copy(), y))
        assert_exact(nkblas.matmul(x, y.imag), expected(x, y.imag.copy()))
        assert_exact(nkblas.matmul(x.real, y.imag), expected(x.real.copy(), y.imag.copy()))
        assert_exact(nkblas.einsum("ij,jk->ki", x, y), expected(x, y).T)
        assert_exact(nkblas.einsum("ij,jk", x.conj(), y), expected(x.conj(), y))
        assert_exact(nkblas.vdot(x[0], y[:, 0]), expected(x[:1].conj(), y[:, :1])[0, 0])
        assert_exact(nkblas.vdot(x, x), expected(x.reshape(1, -1).conj(), x.reshape(-1, 1))[0, 0])
        assert_exact(nkblas.vecdot(x[0], x[0]), expected(x[0].conj(), x[0]))
        for trans in itertools.product((1, 2), repeat=2):
            stored = [z.T if t == 1 else z.conj().T for z, t in zip((x, y), trans, strict=True)]
            c = nkblas.gemm(*stored, alpha=2j, trans_a=trans[0], trans_b=trans[1])
            assert_exact(c, 2j * expected(x, y))


# Integers and booleans.


def low_and_high(x: Array, name: str) -> Array:
    low, high = np.iinfo(name).min, np.iinfo(name).max
    return np.where(x % 2 == 0, low, high).astype(name)


# The values return an operand of extreme values, from its indices along k and the other dimension.
EXTREMES: dict[str, Callable[[str, Array, Array], Array]] = {
    "lowest": lambda name, k, i: low_and_high(0 * k * i, name),
    "highest": lambda name, k, i: low_and_high(0 * k * i + 1, name),
    "alternating": lambda name, k, i: low_and_high(k + 0 * i, name),
    "alternating in both dimensions": lambda name, k, i: low_and_high(k + i, name),
    "in pairs": lambda name, k, i: low_and_high(k // 2 + 0 * i, name),
    "in fours": lambda name, k, i: low_and_high(k // 4 + i, name),
    "all bits": lambda name, k, i: np.full(np.broadcast_shapes(k.shape, i.shape), -1).astype(name),
    "next to lowest": lambda name, k, i: (low_and_high(0 * k * i, name) + 1).astype(name),
    "sign bits": lambda name, k, i: (1 << (8 * np.dtype(name).itemsize - 1 - 0 * k * i)).astype(
        name
    ),
}


@by_product(EXACT)
@pytest.mark.parametrize("left", EXTREMES)
def test_extremes(left: str, product: Product) -> None:
    """Values that saturate or overflow in sums of pairs, where results have to wrap."""
    for right, (m, n, k) in itertools.product(EXTREMES, [(5, 3, 4), (7, 37, 66), (15, 33, 259)]):
        steps = np.arange(k)
        a = EXTREMES[left](product.a, steps, np.arange(m)[:, None])
        b = EXTREMES[right](product.b, steps[:, None], np.arange(n))
        assert a.shape == (m, k)
        assert b.shape == (k, n)
        c = product(a, b)
        assert_exact(c, expected(a, b, product.dtype), (left, right, k))
        if k == 4:  # compare with Python's integers
            least, count = int(np.iinfo(c.dtype).min), 2 ** (8 * c.itemsize)
            sums = a.astype(object) @ b.astype(object)
            assert c.tolist() == ((sums - least) % count + least).tolist()


@by_product(EXACT)
@pytest.mark.parametrize("left", ["lowest", "highest", "alternating", "any"])
def test_long_sums(left: str, product: Product) -> None:
    """Up to 70,001 products: sums far beyond 32 bits, in few and in more elements."""
    for (m, n, k), right in itertools.product(
        [(1, 1, 70001), (3, 5, 65536), (2, 33, 66003), (17, 2, 4099)], ["lowest", "highest", "any"]
    ):
        steps = np.arange(k)
        a, b = operands(product, m, n, k)
        if left != "any":
            a = EXTREMES[left](product.a, steps, np.arange(m)[:, None])
        if right != "any":
            b = EXTREMES[right](product.b, steps[:, None], np.arange(n))
        assert_exact(product(a, b), expected(a, b, product.dtype), (m, n, k, right))


@pytest.mark.parametrize("k", [1, 2, 255, 256, 257, 512, 65535, 65536, 65537, 70000])
def test_many_true_products(k: int) -> None:
    """A count of true products must not wrap to 0."""
    for m, n in ((1, 1), (3, 5), (17, 2)):
        a, b = np.ones((m, k), bool), np.ones((k, n), bool)
        assert_exact(nkblas.matmul(a, b), np.ones((m, n), bool))
        a[:, :-1] = False
        assert_exact(nkblas.matmul(a, b), np.ones((m, n), bool))
        b[-1] = False
        assert_exact(nkblas.matmul(a, b), np.zeros((m, n), bool))
        if k > 1:
            a[-1, 0] = True
            wanted = np.zeros((m, n), bool)
            wanted[-1] = True
            assert_exact(nkblas.matmul(a, b), wanted)


@pytest.mark.parametrize("layout", ["rows", "columns", "every other of both"])
def test_any_nonzero_byte_is_true(layout: str) -> None:
    """Results are bytes of 1, also where products such as 2 * 128 and 16 * 16 are 0 mod 256."""
    generator = np.random.default_rng(0)
    for m, n, k in [*edges(Product("bool", "bool")), (9, 9, 256), (65, 70, 300)]:
        for choice in ([0, 0, 0, 0, 2, 128, 16, 64, 255], [2], [128], [16], [255], [0, 256 - 16]):
            a, b = (
                LAYOUTS[layout].arrange(generator.choice(choice, shape), "uint8", 0).view(bool)
                for shape in ((m, k), (k, n))
            )
            wanted = (a.view("u1") != 0).astype("f") @ (b.view("u1") != 0).astype("f") > 0
            assert_exact(nkblas.matmul(a, b), wanted, (m, n, k, choice))
            out = np.full((m, n), 7, "u1").view(bool)
            assert_exact(nkblas.matmul(a, b, out=out), wanted)


# Other functions.


FUNCTIONS: dict[str, Callable[[Any, Array, Array], Any]] = {
    "dot": lambda f, a, b: f.dot(a, b),
    "dot with out": lambda f, a, b: f.dot(a, b, out=np.empty((9, 9), f.dot(a[0], b[0]).dtype)),
    "dot with out for a scalar": lambda f, a, b: f.dot(a[0], b[0], np.empty((), f.dot(a, b).dtype)),
    "dot with out for a subclass": lambda f, a, b: f.dot(a.view(np.matrix), b, f.dot(a, b)),
    "dot of vectors": lambda f, a, b: f.dot(a[0], b[:, 0]),
    "dot of stacks": lambda f, a, b: f.dot(a.reshape(3, 3, 9), b),
    "inner": lambda f, a, b: f.inner(a, b),
    "inner of vectors": lambda f, a, b: f.inner(a[0], b[0]),
    "vdot": lambda f, a, b: f.vdot(a, b),
    "vdot of stacks": lambda f, a, b: f.vdot(a.reshape(3, 3, 9), b.reshape(3, 3, 9)),
    "tensordot": lambda f, a, b: f.tensordot(a, b, ([0], [1])),
    "multi_dot": lambda f, a, b: getattr(f, "multi_dot", np.linalg.multi_dot)([a, b]),
    "vecdot": lambda f, a, b: f.vecdot(a, b),
    "einsum": lambda f, a, b: f.einsum("ij,jk", a, b),
    "einsum of vectors": lambda f, a, b: f.einsum("i,i", a[0], b[0]),
}
if hasattr(np, "matvec"):
    FUNCTIONS["matvec"] = lambda f, a, b: f.matvec(a, b[0])
    FUNCTIONS["vecmat"] = lambda f, a, b: f.vecmat(a[0], b)


@by_name
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions(function: str, name: str) -> None:
    """NumPy's results and errors: `numpy.einsum` does not support the types of `ml_dtypes`."""
    a, b = few(name, 0), few(name, 1)
    if name in (*FLOAT8, "bfloat16"):  # every sum is exact
        a, b = ((x > 1).astype(name) for x in (a, b))
    wanted = outcome(lambda f: FUNCTIONS[function](f, a, b), np)
    before = nkblas.stats()["calls"]
    got = outcome(lambda f: FUNCTIONS[function](f, a, b), nkblas)
    if isinstance(wanted, tuple):
        assert got == wanted
        return
    assert nkblas.stats()["calls"] > before
    assert type(got) is type(wanted)
    assert_exact(got, wanted)


SCALES = [(1, 0), (1, 1), (2, 0), (-1, 1), (3, -2), (0, 2), (0, 0)]


@by_name
def test_gemm(name: str) -> None:
    """Alpha and beta apply to the accumulators: the result is rounded, or wraps, once."""
    if name in FLOAT8:
        scales: list[tuple[Any, Any]] = [(1, 0)]
    elif name == "bool":
        scales = [(True, False), (True, True)]
    else:
        scales = [*SCALES, (1 - 2j, 2j)] if name in COMPLEX else SCALES
    kind = np.dtype(name)
    for (m, n, k), (alpha, beta) in itertools.product(edges(Product(name, name)), scales):
        if kind.kind == "u" and min(alpha, beta) < 0:
            continue  # NumPy promotes to float64, or raises
        a, b, c = (sample(*s, dtype=name, seed=i) for i, s in enumerate(((m, k), (k, n), (m, n))))
        if kind.kind in "iu":
            words = [x.astype("u8") for x in (a, b, c)]
            factors = [np.array(x).astype("u8") for x in (alpha, beta)]
            wanted = (factors[0] * (words[0] @ words[1]) + factors[1] * words[2]).astype(kind)
        elif name == "bool":
            wanted = expected(a, b) | (c & beta)
        else:
            wide = [x.astype("c16" if kind.kind == "c" else "f8") for x in (a, b, c)]
            sums = alpha * (wide[0] @ wide[1]) + beta * wide[2]
            wanted = (sums.astype("f") if kind.itemsize < 4 else sums).astype(kind)
        transposed = ((a, b, 0, 0), (a.T.copy(), b, 1, 0), (a, b.T, 0, True), (a.T, b.T, 1, 1))
        for x, y, ta, tb in transposed:
            got = nkblas.gemm(x, y, c, alpha=alpha, beta=beta, trans_a=ta, trans_b=tb)
            assert_exact(got, wanted, (m, n, k, alpha, beta, ta, tb))
        out = c.copy()
        assert nkblas.gemm(a, b, out, alpha=alpha, beta=beta, out=out) is out
        assert_exact(out, wanted)
        if beta == 0:
            assert_exact(nkblas.gemm(a, b, alpha=alpha, beta=beta), wanted)


OUT_DTYPES = [
    *((p.a, p.b, p.result.name) for p in MIXED),
    ("int8", "int8", "int8"),
    ("int8", "int8", "int16"),
    ("int8", "int8", "int64"),
    ("int8", "int8", "float32"),
    ("uint8", "int8", "int64"),
    ("uint8", "uint8", "uint64"),
    ("int16", "int16", "int32"),
    ("int16", "int16", "int64"),
    ("int32", "int32", "int64"),
    ("int32", "int32", "int8"),
    ("bool", "bool", "int32"),
    ("float16", "float16", "float16"),
    ("float16", "float16", "float64"),
    ("float16", "float16", "complex64"),
    ("bfloat16", "bfloat16", "float64"),
    ("float32", "float32", "float16"),
    ("float32", "float32", "float64"),
    ("float64", "float64", "float32"),
    ("float32", "float32", "complex64"),
    ("complex64", "complex64", "complex128"),
    ("float8_e5m2", "float8_e5m2", "float32"),
    ("float8_e4m3fn", "float8_e4m3fn", "float32"),
]


@pytest.mark.parametrize(("left", "right", "out_dtype"), OUT_DTYPES)
def test_out_dtype(left: str, right: str, out_dtype: str) -> None:
    """The result is computed in `out_dtype`, not cast from a narrower type."""
    product = Product(left, right, out_dtype)
    for m, n, k in [*edges(product), (17, 40, 700)]:
        a, b = operands(product, m, n, k)
        wanted = widened(a, b, out_dtype)
        for x, y in ((a, b), (a.copy("F"), b.copy("F"))):
            assert_exact(nkblas.gemm(x, y, out_dtype=out_dtype), wanted, (m, n, k))
        out = np.empty((m, n), out_dtype)
        assert nkblas.gemm(a.T, b, trans_a=True, out_dtype=np.dtype(out_dtype), out=out) is out
        assert_exact(out, wanted)
        if product.result.kind in "iu":
            c = sample(m, n, dtype=product.result.name, seed=2)
            twice = (2 * wanted.astype("u8") + 3 * c.astype("u8")).astype(out_dtype)
            assert_exact(nkblas.gemm(a, b, c, alpha=2, beta=3, out_dtype=out_dtype), twice)


def widened(a: Array, b: Array, dtype: str) -> Array:
    """The product in `dtype`, whose sums are neither rounded nor wrapped before."""
    if a.dtype.kind == "b":
        a, b = a.astype("u1"), b.astype("u1")
    if a.dtype.kind in "iu" and np.dtype(dtype).kind == "f":
        return np.matmul(a.astype("i8"), b.astype("i8")).astype(dtype)
    return expected(a, b, dtype)


@pytest.mark.parametrize("out_dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_out_dtype_is_not_rounded_before(name: str, out_dtype: str) -> None:
    a, b = random(33, 700, dtype=name), random(700, 35, dtype=name, seed=1)
    c = nkblas.gemm(a, b, out_dtype=out_dtype)
    assert c.dtype == out_dtype
    assert_within_bound(c.astype("float32"), a, b)
    assert (c != c.astype(name).astype(out_dtype)).mean() > 0.9


NO_OUT_DTYPES = [
    ("float32", "nonsense"),
    ("float32", "int32"),
    ("float32", 3.5),
    ("complex64", "float32"),
    ("int8", bool),
    ("int8", "uint8"),
    ("float16", "int8"),
    ("float64", "datetime64[s]"),
]


@pytest.mark.parametrize(("name", "out_dtype"), NO_OUT_DTYPES)
def test_errors_in_out_dtype(name: str, out_dtype: Any) -> None:
    a = few(name, 0)
    with pytest.raises((TypeError, ValueError), match=r"^out_dtype: got .*, expected ") as error:
        nkblas.gemm(a, a, out_dtype=out_dtype)
    name_in_message = getattr(out_dtype, "__name__", str(out_dtype))
    assert name_in_message in str(error.value)
    with pytest.raises(ValueError, match=r"^out: got float64 of shape"):
        nkblas.gemm(few("int8", 0), few("int8", 1), out_dtype="int32", out=np.empty((9, 9)))


# Patched into NumPy, in any order of imports.


PATCHED: dict[str, Callable[[Array, Array], Any]] = {
    "@": operator.matmul,
    "matmul": lambda a, b: np.matmul(a, b),
    "matmul of stacks": lambda a, b: np.matmul(np.stack([a, a]), b),
    "matmul with out": lambda a, b: np.matmul(a, b, out=np.empty((9, 9), (a[:1] @ b).dtype)),
    "dot": lambda a, b: np.dot(a, b),
    "inner": lambda a, b: np.inner(a, b),
    "einsum": lambda a, b: np.einsum("ij,jk->ik", a, b),
    "tensordot": lambda a, b: np.tensordot(a, b, 1),
}


def loops() -> Any:
    """The types that ``np.matmul`` takes and returns."""
    kinds = map(np.dtype, (*NAMES, *DTYPES))
    return np.matmul.types, [np.matmul.resolve_dtypes((kind, kind, None)) for kind in kinds]


@by_name
@pytest.mark.parametrize("call", PATCHED)
def test_patched(call: str, name: str) -> None:
    """NumPy's functions run on nkblas while it is patched, and only then."""
    if call == "einsum" and name in (*FLOAT8, "bfloat16"):
        return  # NumPy's einsum lacks them
    a, b = ((few(name, i) > 1).astype(name) for i in (0, 1))
    wanted, before = PATCHED[call](a, b), loops()
    with nkblas.patched():
        assert products(lambda: PATCHED[call](a, b)) > 0
        got = PATCHED[call](a, b)
    assert_exact(got, wanted)
    assert loops() == before
    assert products(lambda: PATCHED[call](a, b)) == 0
    assert_exact(PATCHED[call](a, b), wanted)


def test_patched_bfloat16_is_not_widened() -> None:
    a, b = few("bfloat16", 0), few("bfloat16", 1)
    for call in (operator.matmul, np.matmul, np.dot, np.inner):
        with nkblas.patched(), nkblas.record() as shapes:
            call(a, b)
        assert [problem.dtype.split("_")[0] for problem in shapes] == ["bfloat16"]
        with nkblas.record() as shapes:
            call(a, b)
        assert not shapes


CHECK = """
def check(name):
    a, b = np.ones((5, 6)).astype(name), np.ones((6, 7)).astype(name)
    with nkblas.record() as shapes:
        c = nkblas.matmul(a, b)
    wanted = np.full((5, 7), True if name == "bool" else 6)
    assert np.array_equal(c, wanted), name
    with nkblas.patched():
        assert np.array_equal(a @ b, wanted), name
    return [problem.dtype for problem in shapes]
"""

ORDERS_OF_IMPORT = {
    "never": """
        check("float16"), check("int8"), check("float32")
        report(there="ml_dtypes" in sys.modules, found=[])
    """,
    "before": """
        found = check(ml_dtypes.bfloat16) + check(ml_dtypes.bfloat16)
        check(ml_dtypes.float8_e4m3fn)
        report(there=True, found=found)
    """,
    "after": """
        check("float16"), check("float32")
        import ml_dtypes
        found = check(ml_dtypes.bfloat16) + check(ml_dtypes.bfloat16)
        check(ml_dtypes.float8_e4m3fn)
        report(there=True, found=found)
    """,
    "while patched": """
        nkblas.patch()
        check("float16")
        import ml_dtypes
        a = np.ones((5, 6), ml_dtypes.bfloat16)
        with nkblas.record() as shapes:
            a @ a.T
        found = [problem.dtype for problem in shapes]
        nkblas.unpatch()
        report(there=True, found=found + check(ml_dtypes.bfloat16))
    """,
    "missing": """
        sys.modules["ml_dtypes"] = None
        check("float16"), check("int8"), check("bool"), check("complex64")
        report(there=False, found=[])
    """,
}


@pytest.mark.parametrize("when", ORDERS_OF_IMPORT)
def test_ml_dtypes_is_imported(when: str) -> None:
    """The program may import it at any time, or never."""
    first = "import ml_dtypes\n" if when == "before" else ""
    report, _ = run(ORDERS_OF_IMPORT[when], prelude=first + PRELUDE + CHECK)
    assert report["fallbacks"] == 0
    assert report["there"] == (when not in ("never", "missing"))
    assert [name.split("_")[0] for name in report["found"]] == ["bfloat16"] * len(report["found"])
    assert len(report["found"]) == (2 if report["there"] else 0)


def test_without_kernels(tmp_path: Path) -> None:
    """NumPy does every product; where it has no loop, `numpy_ext/reference.c` does."""
    program = """
        from support import PRODUCTS, assert_exact, expected, sample

        for product in PRODUCTS:
            a, b = sample(4, 9, dtype=product.a), sample(9, 5, dtype=product.b, seed=1)
            assert_exact(product(a, b), expected(a, b, product.dtype), product)
        report(products=len(PRODUCTS))
    """
    report, _ = run(program, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=tmp_path, PYTHONPATH=TOOLS)
    assert report["kernels_compiled"] == 0
    assert report["fallbacks"] == report["products"]


# Reproducible bits.


CPUS = len(os.sched_getaffinity(0))


@by_product(REPRESENTATIVE)
def test_any_number_of_threads(product: Product) -> None:
    """Any number of threads gives exact results and the same bits."""
    shapes = [(260, 390, 500), (1, 3000, 700)]
    before = nkblas.get_num_threads()
    if product.dtype is None:
        nkblas.set_num_threads(2)
        assert nkblas.explain(*operands(product, *shapes[0])).threads == min(2, CPUS)
    try:
        for m, n, k in shapes:
            a, b = operands(product, m, n, k)
            found = []
            for threads in (1, 2, 3, 1):
                nkblas.set_num_threads(threads)
                found.append(product(a, b))
            assert_exact(found[0], expected(a, b, product.dtype))
            assert len({c.tobytes() for c in found}) == 1
            if product.result.kind not in "iub":
                a = random(m, k, dtype=product.a)
                b = random(k, n, dtype=product.b, seed=1)
                bits = set()
                for threads in (1, 2, 3, 1):
                    nkblas.set_num_threads(threads)
                    bits.add(product(a, b).tobytes())
                assert len(bits) == 1
    finally:
        nkblas.set_num_threads(before)


REPEATABLE = """
    import hashlib, ml_dtypes
    digest = hashlib.sha256()
    generator = np.random.default_rng(0)
    for a, b, dtype in {products}:
        for m, n, k in {shapes}:
            x = generator.standard_normal((m, k)).astype("f").astype(a)
            y = generator.standard_normal((k, n)).astype("f").astype(b)
            digest.update(nkblas.matmul(x, y, dtype=dtype).tobytes())
    print(json.dumps(digest.hexdigest()))
"""


def test_same_bits_on_every_run() -> None:
    shapes = [(1, 1, 1), (15, 33, 67), (65, 67, 999), (1, 300, 500)]
    chosen = [p for p in REPRESENTATIVE if p.result.kind not in "iub"]
    generator = np.random.default_rng(0)
    digest = hashlib.sha256()
    for product, (m, n, k) in itertools.product(chosen, shapes):
        a = generator.standard_normal((m, k)).astype("f").astype(product.a)
        b = generator.standard_normal((k, n)).astype("f").astype(product.b)
        results = [product(a.copy(), b.copy()).tobytes() for _ in range(3)]
        assert results[1:] == results[:-1]
        digest.update(results[0])
    program = REPEATABLE.format(products=[tuple(p) for p in chosen], shapes=shapes)
    elsewhere, _ = run(program)
    assert elsewhere == digest.hexdigest()
