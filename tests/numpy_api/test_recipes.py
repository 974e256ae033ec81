"""Fast paths of contractions give the results, and the counts, of the general Python functions."""

import itertools
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Array, assert_same, integers, outcome, without_python

import nkblas
from nkblas.api.einsum import c_einsum

LABELS = "abcd"
DTYPES = "fdFDeilbB?g"
lengths = st.dictionaries(st.sampled_from(LABELS), st.integers(1, 4)).map(
    lambda given: {label: given.get(label, 2) for label in LABELS}
)
dtypes = st.sampled_from(DTYPES)


class Memory(NamedTuple):
    """How an array of any number of dimensions lies in memory."""

    order: tuple[float, ...]
    steps: tuple[int, ...]
    is_aligned: bool
    is_native: bool

    def arrange(self, values: Array) -> Array:
        """A copy of an array, with gaps."""
        ndim = values.ndim
        axes = sorted(range(ndim), key=lambda axis: self.order[axis])
        steps = self.steps[:ndim]
        dtype = values.dtype if self.is_native else values.dtype.newbyteorder("S")
        shape = [values.shape[axis] * abs(steps[axis]) for axis in axes]
        raw = np.zeros(math.prod(shape) * dtype.itemsize + 1, np.uint8)
        whole = raw[not self.is_aligned :][: raw.size - 1].view(dtype).reshape(shape)
        view = whole.transpose(np.argsort(axes)) if ndim else whole
        view = view[(..., *(slice(None, None, step) for step in steps))]
        view[...] = values
        return view


memories = st.builds(
    Memory,
    st.one_of(st.just(tuple(range(8))), st.permutations(range(8)).map(tuple)),
    st.one_of(
        st.just((1,) * 8),
        st.lists(st.sampled_from((1, 1, 1, 2, -1)), min_size=8, max_size=8).map(tuple),
    ),
    st.sampled_from((True, True, True, False)),
    st.sampled_from((True, True, True, False)),
)


def operand(draw: Any, shape: tuple[int, ...], kind: str) -> Any:
    """An array with small numbers of a dtype; sometimes a list."""
    values = np.abs(integers(*shape, seed=draw(st.integers(0, 9))), out=np.empty(shape)) // 3
    array = draw(memories).arrange(np.asarray(values, kind))
    return array.tolist() if kind in "dl" and draw(st.integers(0, 9)) == 0 else array


def counted(call: Callable[[Any], Any], function: Any) -> tuple[Any, tuple[int, int]]:
    """The outcome of a call, and the products and fallbacks that it counts."""
    before = nkblas.stats()
    result = outcome(call, function)
    after = nkblas.stats()
    return result, tuple(after[x] - before[x] for x in ("calls", "fallbacks"))  # type: ignore[return-value]


def check(
    call: Callable[[Any], Any],
    function: Any,
    general: Any,
    numpy_function: Any,
    counts_products: bool = True,
    calls: int = 2,
) -> None:
    """Compare the first calls, and one by the recipe, with the general function and with NumPy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = outcome(call, numpy_function)
        result, counts = counted(call, general)
        assert_same(result, expected)
        for _ in range(calls):
            by_recipe, counts_by_recipe = counted(call, function)
            assert_same(by_recipe, expected)
            assert not counts_products or counts_by_recipe == counts


@st.composite
def einsum_calls(draw: Any) -> tuple[Any, ...]:
    length_of = draw(lengths)
    count = draw(st.sampled_from((1, 2, 2, 2, 2, 2, 3)))
    terms = [
        "".join(draw(st.lists(st.sampled_from(LABELS), max_size=3, unique=draw(st.booleans()))))
        for _ in range(count)
    ]
    used = sorted(set("".join(terms)))
    subscripts = ",".join(terms)
    if draw(st.booleans()):
        out = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
        subscripts += "->" + "".join(out)
    kinds = draw(st.lists(dtypes, min_size=count, max_size=count))
    if draw(st.booleans()):
        kinds = kinds[:1] * count
    arrays = [
        operand(draw, tuple(length_of[label] for label in term), kind)
        for term, kind in zip(terms, kinds, strict=True)
    ]
    return subscripts, *arrays


@settings(max_examples=400, deadline=None)
@given(einsum_calls())
def test_einsum(arguments: tuple[Any, ...]) -> None:
    check(lambda f: f(*arguments), nkblas.einsum, c_einsum.__wrapped__, np.einsum)  # type: ignore[attr-defined]


@pytest.mark.parametrize("subscripts", ["rk,rki->", "rk,rki->i", "gb,bxygd->xy", "kx,rkix->ir"])
def test_sums_of_one_operand_in_another_order(subscripts: str) -> None:
    """An operand that is summed first, whose labels are merged in the order of the other one."""
    terms = subscripts.partition("->")[0].split(",")
    lengths = {label: 2 + i for i, label in enumerate(sorted(set("".join(terms))))}
    for orders in itertools.product("CF", repeat=2):
        for kind in "fdiD":
            arrays = [
                integers(*(lengths[label] for label in term), dtype=kind).copy(order)
                for term, order in zip(terms, orders, strict=True)
            ]
            check(
                lambda f, x=arrays: f(subscripts, *x),
                nkblas.einsum,
                c_einsum.__wrapped__,  # type: ignore[attr-defined]
                np.einsum,
            )


@settings(max_examples=100, deadline=None)
@given(einsum_calls(), memories, dtypes)
def test_einsum_with_out(arguments: tuple[Any, ...], memory: Memory, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = outcome(lambda f: f(*arguments), np.einsum)
    if isinstance(expected, tuple):
        return
    out = memory.arrange(np.full(np.shape(expected), 3, kind))

    def call(function: Any) -> Any:
        result = function(*arguments, out=out)
        assert result is out
        return result.copy()

    check(call, nkblas.einsum, c_einsum.__wrapped__, np.einsum)  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(
    einsum_calls(),
    st.fixed_dictionaries(
        {},
        optional={
            "order": st.sampled_from("CFAKX"),
            "dtype": st.sampled_from((None, "f", "d", np.float64, "D", "i", "e", ">f8", "O", "S3")),
            "casting": st.sampled_from(("no", "safe", "same_kind", "unsafe", "none")),
        },
    ),
)
def test_einsum_with_options(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    check(lambda f: f(*arguments, **options), nkblas.einsum, c_einsum.__wrapped__, np.einsum)  # type: ignore[attr-defined]


@st.composite
def product_calls(draw: Any, name: str) -> tuple[Any, ...]:
    shapes = [draw(st.lists(st.sampled_from((1, 2, 3)), max_size=3).map(tuple)) for _ in range(2)]
    if name == "vdot" and draw(st.booleans()):
        shapes[1] = shapes[0]
    elif name in ("dot", "inner", "matmul", "vecdot", "matvec", "vecmat") and all(shapes):
        axis = -2 if name in ("dot", "matmul", "vecmat") and len(shapes[1]) > 1 else -1
        right = list(shapes[1])
        right[axis] = shapes[0][-1]
        shapes[1] = tuple(right)
    kinds = draw(st.lists(dtypes, min_size=2, max_size=2))
    if draw(st.booleans()):
        kinds = kinds[:1] * 2
    return tuple(operand(draw, shape, kind) for shape, kind in zip(shapes, kinds, strict=True))


FUNCTIONS = ("dot", "inner", "vdot")
GUFUNC_CALLS = 64
"""Calls of a gufunc after which they have a recipe (numpy_ext/recipes.c)."""

GUFUNCS = tuple(name for name in ("matmul", "vecdot", "matvec", "vecmat") if hasattr(np, name))


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_functions(name: str, data: Any) -> None:
    arguments = data.draw(product_calls(name))
    function = getattr(nkblas, name)
    # single elements are products in the fast path, but the general function leaves them to NumPy
    has_sums = min(np.size(x) for x in arguments) > 1
    check(lambda f: f(*arguments), function, function.__wrapped__, getattr(np, name), has_sums)


@pytest.mark.parametrize("name", GUFUNCS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_gufuncs(name: str, data: Any) -> None:
    arguments = data.draw(product_calls(name))
    function = getattr(nkblas, name)

    def general(*args: Any) -> Any:
        return function(*args, order="K")  # with a keyword there is no fast path

    check(lambda f: f(*arguments), function, general, getattr(np, name), calls=GUFUNC_CALLS + 1)


def test_gufuncs_get_a_recipe_once_they_repeat() -> None:
    events: list[str] = []
    stack = integers(11, 3, 7)
    sys.setprofile(lambda frame, event, _: events.append(f"{event} {frame.f_code.co_name}"))
    try:
        for _ in range(4 * GUFUNC_CALLS):
            nkblas.matmul(stack, stack.mT)
    finally:
        sys.setprofile(None)
    assert events.count("call make_recipe") == 1


axes = st.one_of(
    st.integers(-1, 3),
    st.tuples(*[st.one_of(st.integers(-3, 2), st.lists(st.integers(-3, 2), max_size=3))] * 2),
)


@settings(max_examples=300, deadline=None)
@given(product_calls("tensordot"), axes, st.booleans())
def test_tensordot(arguments: tuple[Any, ...], axes: Any, by_name: bool) -> None:
    def call(function: Any) -> Any:
        a, b = arguments
        return function(a, b, axes=axes) if by_name else function(a, b, axes)

    check(call, nkblas.tensordot, nkblas.tensordot.__wrapped__, np.tensordot)  # type: ignore[attr-defined]


@st.composite
def chains(draw: Any) -> list[Any]:
    count = draw(st.integers(2, 4))
    sizes = draw(st.lists(st.integers(1, 4), min_size=count + 1, max_size=count + 1))
    shapes = [(sizes[i], sizes[i + 1]) for i in range(count)]
    if draw(st.integers(0, 9)) == 0:
        shapes[1] = shapes[1][::-1]
    ends: list[tuple[int, ...]] = list(shapes)
    if draw(st.booleans()):
        ends[0] = shapes[0][1:]
    if draw(st.booleans()):
        ends[-1] = shapes[-1][:1]
    kinds = draw(st.lists(dtypes, min_size=count, max_size=count))
    if draw(st.booleans()):
        kinds = kinds[:1] * count
    return [operand(draw, shape, kind) for shape, kind in zip(ends, kinds, strict=True)]


@settings(max_examples=150, deadline=None)
@given(chains())
def test_multi_dot(arrays: list[Any]) -> None:
    check(
        lambda f: f(arrays),
        nkblas.multi_dot,
        nkblas.multi_dot.__wrapped__,  # type: ignore[attr-defined]
        np.linalg.multi_dot,
        counts_products=min(map(np.size, arrays)) > 1,
    )


M, V, S, R = integers(3, 3), integers(3), integers(4, 3, 3), integers(4, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ij,jk->ik", M, M),
        ("ij,jk->ki", M, M.astype("f")),
        ("ij,jk->i", M, M),
        ("nij,nj->ni", S, R),
        ("aij,bjk->abik", S, S[:2]),
        ("ij->ji", M),
        ("i,ij,j->", V, M, V),
        ("i,j->ij", V, V),
        (M, [0, 1], M, [1, 2], [2, 0]),
        ("ij,j", M.tolist(), V.tolist()),
    ],
    ids=lambda arguments: str(arguments[0])[:12],
)
def test_einsum_runs_no_python(arguments: tuple[Any, ...]) -> None:
    assert_same(without_python(nkblas.einsum, *arguments), np.einsum(*arguments))


def test_products_run_no_python() -> None:
    for axes in (1, 0, ([1], [0]), ((0, 1), (1, 0)), [0, 0]):
        assert_same(without_python(nkblas.tensordot, M, M, axes), np.tensordot(M, M, axes))
    for arrays in ([M, M], [V, M, V], (M, M, V)):
        assert_same(without_python(nkblas.multi_dot, arrays), np.linalg.multi_dot(arrays))
    for a, b in ((2.0, V), (V.tolist(), V), (M, S), (S, M.astype("f")), (np.array(2), np.array(3))):
        assert_same(without_python(nkblas.dot, a, b), np.dot(a, b))
    for name, a, b in (("matmul", S, S), ("matmul", M.tolist(), M), ("vecdot", M, M.astype("f"))):
        function = getattr(nkblas, name)
        assert_same(without_python(function, a, b), getattr(np, name)(a, b))


def test_more_kinds_than_recipes() -> None:
    """A recipe that another one has replaced is derived again."""
    subscripts = [f"{a}{b},{b}{c}" for a in "abcdefgh" for b in "ijklmnop" for c in "stuvwxyz"]
    for text in [*subscripts, *subscripts]:
        for kind in "fd":
            for out in ("", "->"):
                a = M.astype(kind)
                assert np.array_equal(nkblas.einsum(text + out, a, a), np.einsum(text + out, a, a))
