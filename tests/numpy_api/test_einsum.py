"""`nkblas.einsum` gives NumPy's results in the same memory order, on the engine."""

import itertools
from typing import Any

import numpy as np
import pytest
from support import Array, assert_same, assert_within_bound, integers, outcome

import nkblas

PRODUCTS = [
    ("ij,jk->ik", (5, 6), (6, 7)),
    ("ij,jk->ki", (5, 6), (6, 7)),
    ("ij,jk", (5, 6), (6, 7)),
    (" i j , j k -> i k ", (5, 6), (6, 7)),
    ("ba,bc", (6, 5), (6, 7)),
    ("ji,jk->ki", (6, 5), (6, 7)),
    ("i,i", (17,), (17,)),
    ("i,ij", (6,), (6, 7)),
    ("ij,ij", (5, 6), (5, 6)),
    ("ij,ij->i", (5, 6), (5, 6)),
    ("bij,bjk->bik", (3, 5, 6), (3, 6, 7)),
    ("bij,bjk->ikb", (3, 5, 6), (3, 6, 7)),
    ("ibj,jbk->ikb", (4, 3, 5), (5, 3, 6)),
    ("abij,abjk->baik", (2, 3, 4, 5), (2, 3, 5, 6)),
    ("ijk,jkl->il", (3, 4, 5), (4, 5, 6)),
    ("ijk,kjl->il", (3, 4, 5), (5, 4, 6)),
    ("aib,bja->ij", (3, 4, 5), (5, 6, 3)),
    ("abcd,cbea->de", (2, 3, 4, 5), (4, 3, 6, 2)),
    ("abcd,cbea->ed", (2, 3, 4, 5), (4, 3, 6, 2)),
    ("acbd,ce->abde", (2, 3, 4, 5), (3, 6)),
    ("...ij,...jk", (3, 1, 5, 6), (4, 6, 7)),
    ("...ij,...jk->...ki", (2, 5, 6), (2, 6, 7)),
    ("...ij,jk", (2, 3, 5, 6), (6, 7)),
    ("ij...,j...", (5, 6, 2), (6, 2)),
    ("b...,b", (3, 4, 5), (3,)),
    ("iij,jk->ik", (4, 4, 5), (5, 6)),  # a diagonal
    ("ijx,jk->ik", (4, 4, 5), (4, 6)),  # NumPy sums over x first
    ("ij,jk->", (5, 6), (6, 7)),
    ("ij,j", (0, 6), (6,)),
    ("ij,jk", (3, 0), (0, 4)),
]
NOT_ON_ENGINE = [
    ("ij", (3, 4), None),
    ("ii", (3, 3), None),
    ("ij->ji", (3, 4), None),
    ("ij,ij->ij", (3, 4), (3, 4)),
    ("i,j", (3,), (4,)),
    ("i,j->", (3,), (4,)),
    ("ij,jk", (3, 1), (4, 5)),  # the depth is broadcast
    ("ij,ij->j", (5, 6), (5, 6)),  # dot products of columns
]
MISTAKES: list[tuple[Any, ...]] = [
    (),
    ("i...,i...->", np.ones((3, 4)), np.ones((3, 4))),
    ("ij,jk->ik", np.ones((3, 4))),
    ("ij,jk->ik", np.ones((3, 4)), np.ones((5, 6))),
    ("ij,jk->iz", np.ones((3, 4)), np.ones((4, 6))),
    ("ij,jk->iik", np.ones((3, 4)), np.ones((4, 6))),
    ("ij,j1->i1", np.ones((3, 4)), np.ones((4, 6))),
    ("ijk,jk", np.ones((3, 4)), np.ones((4, 6))),
    ("ij,jj->ij", np.ones((0, 1)), np.ones((0, 1))),
    ("ij,jj", np.ones((0, 1)), np.ones((0, 1))),
    ("jj,ij->i", np.ones((1, 0)), np.ones((2, 1))),
    ("...i...,i", np.ones((3, 4)), np.ones(4)),
    ("..ij,jk", np.ones((3, 4)), np.ones((4, 4))),
    ("ij,jk->ik->ki", np.ones((3, 4)), np.ones((4, 4))),
    (np.ones((3, 4)), [0, 1], np.ones((4, 5)), [1, 99]),
    (np.ones((3, 4)), [0, 1], np.ones((4, 5)), "x"),
    (np.ones((3, 4)), [0, 1], np.ones((4, 5))),
]


def on_engine(*arguments: Any, **keywords: Any) -> tuple[int, int]:
    before = nkblas.stats()
    nkblas.einsum(*arguments, **keywords)
    after = nkblas.stats()
    fallbacks = after["fallbacks"] - before["fallbacks"]
    return after["calls"] - before["calls"] - fallbacks, fallbacks


def operands(shapes: Any, dtypes: str = "dd", orders: str = "CC") -> list[Array]:
    return [
        np.asarray(integers(*shape, dtype=dtype, seed=seed), order=order)  # type: ignore[call-overload]
        for seed, (shape, dtype, order) in enumerate(zip(shapes, dtypes, orders, strict=True))
        if shape is not None
    ]


@pytest.mark.parametrize("case", PRODUCTS, ids=lambda case: case[0])
def test_same_as_numpy(case: Any) -> None:
    subscripts, *shapes = case
    for dtypes, orders in itertools.product(("ff", "dd", "fd", "id"), ("CC", "CF", "FC", "FF")):
        arrays = operands(shapes, dtypes, orders)
        for keywords in ({}, *({"order": x} for x in "CFAK"), {"optimize": True}):
            expected = np.einsum(subscripts, *arrays, **keywords)
            got = nkblas.einsum(subscripts, *arrays, **keywords)
            if expected.size:
                assert_same(got, expected)
            assert got.shape == expected.shape
        # NumPy does dot products of vectors that are not contiguous
        is_strided_dot = subscripts == "ij,ij->i" and orders != "CC"
        if min(map(len, arrays)) and not is_strided_dot:
            done, fallbacks = on_engine(subscripts, *arrays)
            assert done > 0
            assert fallbacks == 0


@pytest.mark.parametrize("case", NOT_ON_ENGINE, ids=lambda case: case[0])
def test_numpy_does_the_others(case: Any) -> None:
    subscripts, *shapes = case
    arrays = operands(shapes)
    assert_same(nkblas.einsum(subscripts, *arrays), np.einsum(subscripts, *arrays))
    assert on_engine(subscripts, *arrays)[0] == 0


@pytest.mark.parametrize("arguments", MISTAKES, ids=lambda arguments: str(arguments[:1]))
def test_mistakes(arguments: Any) -> None:
    for keywords in ({}, {"optimize": True}):
        expected = outcome(lambda f, k=keywords: f(*arguments, **k), np.einsum)
        assert isinstance(expected, tuple) or keywords  # with a path NumPy accepts some
        assert_same(outcome(lambda f, k=keywords: f(*arguments, **k), nkblas.einsum), expected)


def test_views_stay_views() -> None:
    a = np.ones((3, 3))
    assert np.shares_memory(nkblas.einsum("ii->i", a), a)


def test_lists_of_labels() -> None:
    a, b = operands([(5, 6), (6, 7)])
    for arguments in (
        (a, [0, 1], b, [1, 2], [0, 2]),
        (a, [0, 1], b, [1, 2], [2, 0]),
        (a, [3, 50], b, [50, 1]),
        (a, [Ellipsis, 1], b, [1, 2]),
        (a, [Ellipsis, 1], b, [1, 2], [2, Ellipsis]),
        (a, (0, 1), b.tolist(), (1, 2)),
    ):
        assert_same(nkblas.einsum(*arguments), np.einsum(*arguments))
        assert on_engine(*arguments) == (1, 0)


def test_dtype_and_casting() -> None:
    a, b = operands([(5, 6), (6, 7)])
    narrow = a.astype("f"), b.astype("f")
    for keywords in (
        {"dtype": "f", "casting": "same_kind"},
        {"dtype": "f", "casting": "unsafe"},
        {"dtype": "f"},
        {"dtype": "D"},
        {"dtype": "i", "casting": "unsafe"},
        {"casting": "nonsense"},
        {"order": "X"},
        {"nonsense": 1},
    ):
        for arrays in ((a, b), narrow):
            expected = outcome(lambda f, x=arrays, k=keywords: f("ij,jk", *x, **k), np.einsum)
            got = outcome(lambda f, x=arrays, k=keywords: f("ij,jk", *x, **k), nkblas.einsum)
            assert_same(got, expected)
    assert on_engine("ij,jk", *narrow, dtype="d") == (1, 0)


def test_dtype_wider_than_that_of_the_kernels() -> None:
    """The kernels for float8 give float32."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    generator = np.random.default_rng(1)
    a = generator.standard_normal((9, 50)).astype(ml_dtypes.float8_e4m3fn)
    b = generator.standard_normal((50, 9)).astype(ml_dtypes.float8_e4m3fn)
    for dtype in (np.float64, np.complex128):
        got = nkblas.einsum("ij,jk", a, b, dtype=dtype)
        assert_same(got, a.astype(dtype) @ b.astype(dtype))


def test_float16_is_rounded_once() -> None:
    """Also if a label of one operand alone is summed over first."""
    a = np.array([1 + 2.0**-10], np.float16)
    b = np.array([[2048.0, 1.0]], np.float16)  # their sum is not a float16
    expected = np.float16((1 + 2.0**-10) * 2049.0)
    for result in (None, np.zeros((), np.float16)):
        got = nkblas.einsum("j,jk->", a, b, out=result)
        assert got == expected != a[0] * np.float16(2049.0)
        assert got.dtype == np.float16
    assert on_engine("j,jk->", a, b) == (1, 0)


@pytest.mark.parametrize("subscripts", ["ij,jk", "iij,jk->ik", "ij,jk->i"])
def test_dtype_is_that_of_the_sums(subscripts: str) -> None:
    """And not that of the operands, in which sums of bool are True and those of int8 wrap."""
    a = np.full((5,) * (subscripts.index(",")), 100)
    b = np.full((5, 7), 100)
    for own, dtype in (("?", "i4"), ("i1", "i4"), ("u1", "f8"), ("i4", "f4"), ("i8", "c16")):
        arrays = a.astype(own), b.astype(own)
        how = {"dtype": dtype, "casting": "unsafe"}
        got = nkblas.einsum(subscripts, *arrays, **how)
        assert_same(got, np.einsum(subscripts, *arrays, **how))


@pytest.mark.parametrize("subscripts", ["i,ik->i", "i,ik->", "ij,jkl->ik", "ijx,jk->ik"])
def test_sums_of_one_operand_alone(subscripts: str) -> None:
    """Not summed first if that changes the result: inf * (1 - 1) is not inf * 1 - inf * 1."""
    random = np.random.default_rng(0)
    sizes = {"i": 3, "j": 4, "k": 2, "l": 2, "x": 2}
    left, right = (
        random.integers(-1, 2, [sizes[label] for label in term]).astype("d")
        for term in subscripts.split("->")[0].split(",")
    )
    for special in (np.inf, np.nan, np.finfo("d").max):
        for place in range(left.size):
            a, b = left.copy(), right.copy()
            a.flat[place] = special
            b.flat[place % b.size] = -special
            for x, y in ((a, right), (left, b), (a, b)):
                with np.errstate(all="ignore"):
                    expected = np.einsum(subscripts, x, y)
                    assert_same(nkblas.einsum(subscripts, x, y), expected)
    for keywords in ({}, {"order": "F"}):
        a, b = left[..., :0], right  # the sums are empty: no NaN from inf * 0
        if subscripts == "i,ik->i":
            b = np.full((0, 2), np.inf)
        elif subscripts != "ijx,jk->ik":
            continue
        expected = np.einsum(subscripts, a, b * np.inf, **keywords)
        assert_same(nkblas.einsum(subscripts, a, b * np.inf, **keywords), expected)


def test_memory_order_is_that_of_the_operands() -> None:
    """Also if NumPy sums over a label first."""
    for shape, strides in (((5, 1, 80), (-160, 1, 1)), ((5, 3, 8), (1, 40, 5)), ((2, 3, 4), None)):
        a = np.empty(shape)
        if strides is not None:
            memory = np.zeros(2000)[700:]
            a = np.lib.stride_tricks.as_strided(memory, shape, [8 * x for x in strides])
        b = np.ones((shape[1], 2)).T.copy().T
        a = np.ones_like(a, subok=False)
        for order in "KACF":
            for subscripts in ("Bry,r...->y...", "Bry,rz->zy", "Bry,rz->yz"):
                got = nkblas.einsum(subscripts, a, b, order=order)  # type: ignore[arg-type]
                assert_same(got, np.einsum(subscripts, a, b, order=order))  # type: ignore[arg-type]


@pytest.mark.parametrize("subscripts", ["ij,jk->ik", "ij,jk->ki", "ij,jk->"])
def test_out(subscripts: str) -> None:
    a, b = operands([(5, 6), (6, 7)])
    expected = np.einsum(subscripts, a, b)
    shape = np.shape(expected)
    wide = np.zeros((*shape, 2))
    backwards = np.empty((*shape, 1))[::-1][..., 0]
    for out in (np.empty(shape), np.empty(shape, order="F"), wide[..., 1], backwards):
        assert nkblas.einsum(subscripts, a, b, out=out) is out
        assert np.array_equal(out, expected)
    assert not wide[..., 0].any()
    for out in (np.empty(shape, "D"), np.empty(shape, "f"), np.empty((2, 2)), [1]):
        assert_same(
            outcome(lambda f, x=out: f(subscripts, a, b, out=x), nkblas.einsum),
            outcome(lambda f, x=out: f(subscripts, a, b, out=x), np.einsum),
        )


def test_out_that_is_no_stack_of_matrices() -> None:
    """The two dimensions of the rows cannot be merged in place."""
    a, b = operands([(3, 4, 5), (5, 6)])
    out = np.zeros((3, 6, 8))[:, :, ::2].transpose(0, 2, 1)
    nkblas.einsum("abj,jk->abk", a, b, out=out)
    assert np.array_equal(out, np.einsum("abj,jk->abk", a, b))


def test_paths() -> None:
    arrays = operands([(5, 6), (6, 7), (7, 8)], "ddd", "CCC")
    expected = np.einsum("ij,jk,kl", *arrays)
    for optimize in (True, "greedy", "optimal", ["einsum_path", (1, 2), (0, 1)]):
        assert np.array_equal(nkblas.einsum("ij,jk,kl", *arrays, optimize=optimize), expected)
        assert on_engine("ij,jk,kl", *arrays, optimize=optimize) == (2, 0)
    assert on_engine("ij,jk,kl", *arrays) == (0, 1)


def test_subclasses_become_arrays() -> None:
    a, b = operands([(5, 6), (6, 7)])
    masked = np.ma.masked_equal(a, 1)
    assert_same(nkblas.einsum("ij,jk", masked, b), np.einsum("ij,jk", masked, b))


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_accuracy(dtype: str) -> None:
    random = np.random.default_rng(0)
    a, b = (random.uniform(-1, 1, shape).astype(dtype) for shape in ((31, 57), (57, 43)))
    assert_within_bound(nkblas.einsum("ij,jk", a, b), a, b)
    assert_within_bound(nkblas.einsum("ij,jk->ki", a, b).T, a, b)
