"""`nkblas.dot`, `tensordot` and others follow NumPy's rules, and run on the engine."""

import inspect
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from ml_dtypes import float8_e5m2 as f8
from support import DTYPES, Array, Layout, assert_same, assert_within_bound, integers, outcome
from support import LAYOUTS as MEMORY

import nkblas

Call = Callable[[Any], Any]
GUFUNCS = [name for name in ("vecdot", "matvec", "vecmat") if hasattr(np, name)]
FUNCTIONS = ["dot", "inner", "vdot", "tensordot", "multi_dot", "matrix_power", "einsum", *GUFUNCS]


def numpy_function(name: str) -> Any:
    return getattr(np, name, None) or getattr(np.linalg, name)


def products(call: Callable[[], Any]) -> tuple[int, int]:
    """The numbers of products that run on nkblas in a call, and of fallbacks."""
    before = nkblas.stats()
    call()
    after = nkblas.stats()
    fallbacks = after["fallbacks"] - before["fallbacks"]
    return after["calls"] - before["calls"] - fallbacks, fallbacks


class Subclass(np.ndarray):
    def __array_finalize__(self, other: Any) -> None:
        self.name = getattr(other, "name", "none")


class Ranked(np.ndarray):
    __array_priority__ = 5.0


class Arrayish:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return integers(3, 4)


def named(x: Array) -> Any:
    view = x.view(Subclass)
    view.name = "named"
    return view


def out(*shape: int, dtype: Any = "d", order: Any = "C") -> Array:
    return np.full(shape, 9, dtype, order=order)


A, B = integers(3, 4), integers(4, 5, seed=1)
S, T = integers(2, 3, 4), integers(5, 4, 3, seed=1)
U, V = integers(7), integers(7, seed=1)
Q = integers(3, 3) % 3

CASES: dict[str, dict[str, Call]] = {
    "dot": {
        "matrices": lambda f: f(A, B),
        "keywords": lambda f: f(a=A, b=B),
        "vectors": lambda f: f(U, V),
        "matrix and vector": lambda f: f(A, B[:, 0]),
        "vector and matrix": lambda f: f(A[0], B),
        "stack and matrix": lambda f: f(S, B),
        "matrix and stack": lambda f: f(integers(6, 4), T),
        "vector and stack": lambda f: f(B[:, 0], T),
        "stack and vector": lambda f: f(S, B[:, 0]),
        "stacks": lambda f: f(S, T),
        "stacks of stacks": lambda f: f(integers(2, 1, 3, 4), integers(3, 2, 4, 5)),
        "stacks backwards": lambda f: f(S[::-1, ::2], T[::-2, :, ::-1]),
        "columns": lambda f: f(np.asfortranarray(A), np.asfortranarray(B)),
        "lists": lambda f: f([[1.0, 2], [3, 4]], [0.5, 1]),
        "list and array": lambda f: f([[1, 2, 3, 4]], B),
        "scalars": lambda f: f(2.0, 3.0),
        "scalar and array": lambda f: f(2, A),
        "array and scalar": lambda f: f(A.astype("f"), 2.5),
        "0-d array": lambda f: f(np.array(2.0), A),
        "mixed": lambda f: f(A.astype("f"), B),
        "integers and floats": lambda f: f(A.astype("i"), B.astype("f")),
        "half and float": lambda f: f(A.astype("e"), B.astype("f")),
        "swapped bytes": lambda f: f(A.astype(">f8"), B),
        "no rows": lambda f: f(A[:0], B),
        "no columns": lambda f: f(A, B[:, :0]),
        "no depth": lambda f: f(A[:, :0], B[:0]),
        "no depth of vectors": lambda f: f(U[:0], V[:0]),
        "empty stack": lambda f: f(S[:0], T),
        "empty list and array": lambda f: f([], V[:0].astype("f")),
        "array and empty list": lambda f: f(np.zeros((3, 0), "f"), []),
        "one element, and a subclass": lambda f: f(U[:1], named(V[None])),
        "a subclass, and one element": lambda f: f(named(A[:, :1]), U[:1]),
        "no element, and a subclass": lambda f: f(U[:0], named(A[:0])),
        "out": lambda f: f(A, B, out(3, 5)),
        "out=": lambda f: f(A, B, out=out(3, 5)),
        "out of a stack": lambda f: f(S, T, out=out(2, 3, 5, 3)),
        "out of vectors": lambda f: f(U, V, out=out()),
        "out=None": lambda f: f(A, B, out=None),
        "out in columns": lambda f: f(A, B, out=out(3, 5, order="F")),
        "out of another dtype": lambda f: f(A, B, out=out(3, 5, dtype="f")),
        "out of another shape": lambda f: f(A, B, out=out(5, 3)),
        "out of a subclass": lambda f: f(A, B, out=named(out(3, 5))),
        "out is a list": lambda f: f(A, B, out=[1.0]),
        "not aligned": lambda f: f(A, A),
        "vectors not aligned": lambda f: f(U, V[:3]),
        "stacks not aligned": lambda f: f(S, S),
        "one operand": lambda f: f(A),
        "strings": lambda f: f(np.array(["a"]), np.array(["b"])),
        "unknown keyword": lambda f: f(A, B, nonsense=1),
        "matrix": lambda f: f(np.matrix(A), B),
        "matrix on the right": lambda f: f(A[0], np.matrix(B)),
        "matrix and a vector": lambda f: f(np.matrix(A), B[:, 0]),
        "matrix as out of a vector": lambda f: f(
            np.matrix(A).astype(f8), A[0].astype(f8), np.matrix(A[:, 0]).astype(f8)
        ),
        "masked": lambda f: f(np.ma.masked_equal(Q, 1), Q),
        "subclass": lambda f: f(named(A), B),
        "subclass of vectors": lambda f: f(named(U), V),
        "subclass that outranks": lambda f: f(named(A), B.view(Ranked)),
        "objects": lambda f: f(np.array([Decimal(2)]), np.array([Decimal(3)])),
        "complex": lambda f: f(A * 1j, B),
        "booleans": lambda f: f(A > 0, B > 0),
        "object with __array__": lambda f: f(Arrayish(), B),
    },
    "inner": {
        "matrices": lambda f: f(A, B.T),
        "vectors": lambda f: f(U, V),
        "matrix and vector": lambda f: f(A, A[0]),
        "vector and matrix": lambda f: f(A[0], A),
        "stacks": lambda f: f(S, T.swapaxes(1, 2)),
        "columns": lambda f: f(np.asfortranarray(A), np.asfortranarray(A)),
        "lists": lambda f: f([[1.0, 2], [3, 4]], [0.5, 1]),
        "scalar": lambda f: f(2.0, A),
        "mixed": lambda f: f(A.astype("f"), A),
        "no depth": lambda f: f(A[:, :0], A[:, :0]),
        "empty": lambda f: f(A[:0], A),
        "empty list": lambda f: f(np.zeros((3, 0), "f"), []),
        "one element, and a subclass": lambda f: f(U[:1], named(V[:, None])),
        "not aligned": lambda f: f(A, B),
        "out": lambda f: f(A, A, out(3, 3)),
        "matrix class": lambda f: f(np.matrix(A), A),
        "subclass": lambda f: f(A, named(A)),
        "complex": lambda f: f(A * 1j, A),
    },
    "vdot": {
        "vectors": lambda f: f(U, V),
        "matrices": lambda f: f(A, A + 1),
        "matrix and vector": lambda f: f(A, A.ravel() + 1),
        "empty matrices": lambda f: f(A[:0], A[:0]),
        "backwards": lambda f: f(A[::-1], A),
        "columns": lambda f: f(np.asfortranarray(A), A),
        "other shapes": lambda f: f(A, A.reshape(6, 2)),
        "scalars": lambda f: f(2.0, 3.0),
        "lists": lambda f: f([1.0, 2], [3, 4]),
        "mixed": lambda f: f(U.astype("f"), V),
        "empty": lambda f: f(U[:0], A[:0]),
        "empty list": lambda f: f(U[:0].astype("f"), []),
        "other sizes": lambda f: f(A, B),
        "matrix class": lambda f: f(np.matrix(A), A),
        "complex": lambda f: f(U * 1j, V),
    },
    "tensordot": {
        "one axis": lambda f: f(A, B, 1),
        "two axes": lambda f: f(S, T.transpose(2, 1, 0)),
        "axes": lambda f: f(S, T, ([1, 2], [2, 1])),
        "an axis of each": lambda f: f(S, T, (2, 1)),
        "no axis": lambda f: f(A, B, 0),
        "all axes": lambda f: f(A, A, 2),
        "negative axes": lambda f: f(S, T, axes=([-1], [-2])),
        "lists": lambda f: f([[1.0, 2]], [[3.0], [4]], 1),
        "mismatch": lambda f: f(A, A, 1),
        "duplicate axes": lambda f: f(S, S, ([1, 1], [1, 1])),
        "matrix class": lambda f: f(np.matrix(A), B, 1),
        "integers": lambda f: f(A.astype("i"), B.astype("i"), 1),
    },
    "multi_dot": {
        "two": lambda f: f([A, B]),
        "three": lambda f: f([A, B, B.T]),
        "four": lambda f: f([A, B, B.T, A.T]),
        "vectors at the ends": lambda f: f([A[0], B, B.T, A[1]]),
        "out": lambda f: f([A, B, B.T], out=out(3, 4)),
        "lists": lambda f: f([[[1.0, 2]], [[3.0], [4]], [[5.0]]]),
        "a tuple": lambda f: f((A, B)),
        "one": lambda f: f([A]),
        "a stack": lambda f: f([A, S, B]),
        "not aligned": lambda f: f([A, A, A]),
        "matrix class": lambda f: f([np.matrix(A), B, B.T]),
    },
    "matrix_power": {
        **{str(n): lambda f, n=n: f(Q, n) for n in (0, 1, 2, 3, 7, 12)},
        "stack": lambda f: f(np.stack([Q, Q.T]), 5),
        "inverse": lambda f: f(np.diag([1.0, 2.0, 4.0]), -3),
        "integers": lambda f: f(Q.astype("i"), 5),
        "objects": lambda f: f(Q.astype("i").astype("O"), 3),
        "not square": lambda f: f(A, 2),
        "no integer": lambda f: f(Q, 1.5),
        "matrix class": lambda f: f(np.matrix(Q), 3),
        "lists": lambda f: f([[1.0, 1], [1, 0]], 10),
    },
    "vecdot": {
        "vectors": lambda f: f(U, V),
        "stacks": lambda f: f(S, S[:, ::-1]),
        "stack and vector": lambda f: f(S, S[0, 0]),
        "vector and stack": lambda f: f(S[0, 0], S),
        "broadcast": lambda f: f(S, S[:, :1]),
        "backwards": lambda f: f(S[..., ::-1], S[::-1]),
        "axis": lambda f: f(S, S, axis=1),
        "out": lambda f: f(S, S, out=out(2, 3)),
        "out of another dtype": lambda f: f(S, S, out=out(2, 3, dtype="D")),
        "no depth": lambda f: f(S[..., :0], S[..., :0]),
        "lengths": lambda f: f(U, V[1:]),
        "scalar": lambda f: f(U, 2.0),
        "complex": lambda f: f(U * 1j, V * 1j),
        "integers": lambda f: f(U.astype("b"), V.astype("b")),
        "matrix class": lambda f: f(np.matrix(A), A),
    },
    "matvec": {
        "matrix and vector": lambda f: f(A, B[:, 0]),
        "stack and vector": lambda f: f(S, B[:, 0]),
        "matrix and vectors": lambda f: f(A, integers(6, 4)),
        "matrix and stacks of vectors": lambda f: f(A, integers(2, 6, 4)),
        "matrix and vectors backwards": lambda f: f(A[:, ::-1], integers(6, 4)[::-2]),
        "columns": lambda f: f(np.asfortranarray(A), np.asfortranarray(integers(6, 4))),
        "stacks": lambda f: f(S, S[:, 0]),
        "one vector": lambda f: f(A, B[None, :, 0]),
        "out": lambda f: f(A, integers(6, 4), out=out(3, 6).T),
        "out overlaps": lambda f: (lambda x: f(Q, x, out=x))(integers(5, 3)),
        "no depth": lambda f: f(S[..., :0], U[:0]),
        "no vectors": lambda f: f(A, integers(0, 4)),
        "lengths": lambda f: f(A, U),
        "vectors": lambda f: f(U, V),
        "complex": lambda f: f(A * 1j, B[:, 0] * 1j),
    },
    "vecmat": {
        "vector and matrix": lambda f: f(A[0], B),
        "vectors and matrix": lambda f: f(S, B),
        "vector and stack": lambda f: f(B[:, 0], T),
        "stacks": lambda f: f(integers(5, 4), T),
        "columns": lambda f: f(np.asfortranarray(A), np.asfortranarray(B)),
        "out": lambda f: f(A, B, out=out(5, 3).T),
        "no depth": lambda f: f(U[:0], B[:0]),
        "lengths": lambda f: f(U, B),
        "complex": lambda f: f(A[0] * 1j, B * 1j),
    },
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name in CASES for case in CASES[name] if name in FUNCTIONS]
)
def test_same_as_numpy(name: str, case: str) -> None:
    call = CASES[name][case]
    expected = outcome(call, numpy_function(name))
    got = outcome(call, getattr(nkblas, name))
    if isinstance(expected, tuple) and "argument" in expected[1]:
        assert (
            got[0] is expected[0]
        )  # a wrong call: Python's message depends on the kind of function
        return
    assert_same(got, expected)
    if isinstance(expected, Subclass):
        assert got.name == expected.name


ENGINE = {
    "dot": [
        *("vectors", "matrix and vector", "stacks", "lists", "mixed", "matrix", "subclass"),
        *("out=", "out of a subclass"),
    ],
    "inner": ["vectors", "matrices", "stacks", "lists", "subclass"],
    "vdot": ["vectors", "matrices", "columns"],
    "tensordot": ["one axis", "axes", "matrix class"],
    "multi_dot": ["two", "three", "four", "vectors at the ends", "out"],
    "matrix_power": ["2", "7", "stack"],
    "vecdot": ["vectors", "stacks", "stack and vector"],
    "matvec": ["matrix and vector", "matrix and vectors", "stacks"],
    "vecmat": ["vector and matrix", "vectors and matrix", "stacks"],
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name in FUNCTIONS for case in ENGINE.get(name, [])],
)
def test_runs_on_the_engine(name: str, case: str) -> None:
    done, fallbacks = products(lambda: CASES[name][case](getattr(nkblas, name)))
    assert done > 0
    assert fallbacks == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fallbacks_are_counted(name: str) -> None:
    a = Q.astype("g")
    calls: dict[str, Callable[[], Any]] = {
        "multi_dot": lambda: nkblas.multi_dot([a, a]),
        "matrix_power": lambda: nkblas.matrix_power(a, 2),
        "einsum": lambda: nkblas.einsum("ij,jk", a, a),
        "vecdot": lambda: nkblas.vecdot(a[0], a[0]),
        "matvec": lambda: nkblas.matvec(a, a[0]),
        "vecmat": lambda: nkblas.vecmat(a[0], a),
        "tensordot": lambda: nkblas.tensordot(a, a, 1),
    }
    call = calls.get(name) or (lambda: getattr(nkblas, name)(a, a))
    assert products(call) == (0, 1)


def test_mistakes_are_not_counted() -> None:
    def mistake() -> None:
        with pytest.raises(ValueError, match="not aligned"):
            nkblas.dot(A, A)
        with pytest.raises(ValueError, match="not aligned"):
            nkblas.dot(A.astype("g"), A.astype("g"))

    assert products(mistake) == (0, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("right", MEMORY)
@pytest.mark.parametrize("left", MEMORY)
def test_layouts(left: str, right: str, dtype: str) -> None:
    """Within the error bound for every layout; the memory between elements is not read."""
    random = np.random.default_rng(0)
    for m, n, k in ((1, 1, 1), (5, 17, 33), (1, 31, 29), (13, 1, 300)):
        a = MEMORY[left].arrange(random.uniform(-1, 1, (m, k)), dtype)
        b = MEMORY[right].arrange(random.uniform(-1, 1, (k, n)), dtype)
        assert_within_bound(nkblas.dot(a, b), a, b)
        assert_within_bound(nkblas.inner(a, b.T), a, b)
        assert_within_bound(nkblas.einsum("ij,jk->ik", a, b), a, b)
        assert_within_bound(np.reshape(nkblas.vdot(a[0], b[:, 0]), (1, 1)), a[:1], b[:, :1])


CONJUGATES = {"vdot": "k,k", "vecdot": "xk,xk->x", "matvec": "mk,xk->xm", "vecmat": "xk,kn->xn"}
"""Functions that conjugate their left operand if it is a vector, as subscripts."""


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", [name for name in CONJUGATES if name in FUNCTIONS])
def test_conjugates(name: str, dtype: str) -> None:
    random = np.random.default_rng(0)
    left, right = CONJUGATES[name].partition("->")[0].split(",")
    for k, x, m, n in ((1, 1, 1, 1), (3, 2, 4, 5), (70, 9, 3, 33), (700, 1, 21, 1), (40, 1, 1, 90)):
        lengths = {"k": k, "x": x, "m": m, "n": n}
        for layout in (Layout(), Layout("F"), Layout(steps=(-2, 3))):
            operands = []
            for term in (left, right):
                shape = 1, *(lengths[label] for label in term)
                values = random.integers(-9, 10, (2, *shape[-2:]))
                operand = layout.arrange(values[0] + 1j * values[1], dtype)
                operands.append(operand.reshape(shape[1:]) if len(term) == 1 else operand)
            a, b = operands
            wide = [z.astype("complex128") for z in operands]
            wide[0] = wide[0] if left == "mk" else wide[0].conj()
            function = getattr(nkblas, name)
            assert np.array_equal(function(a, b), np.einsum(CONJUGATES[name], *wide)), lengths
            assert products(lambda: function(a, b))[1] == 0  # noqa: B023


@pytest.mark.skipif("matvec" not in FUNCTIONS, reason="NumPy 2.2 has matvec")
@pytest.mark.parametrize("dtype", DTYPES)
def test_stacks_of_vectors(dtype: str) -> None:
    """A matrix and a stack of vectors are one product, in any layout of the vectors."""
    random = np.random.default_rng(0)
    a = random.uniform(-1, 1, (17, 33)).astype(dtype)
    for layout in (Layout(), Layout("F"), Layout(steps=(2, 1)), Layout(steps=(-1, -3))):
        x = layout.arrange(random.uniform(-1, 1, (19, 33)), dtype)
        assert_within_bound(nkblas.matvec(a, x), x, a.T)
        assert_within_bound(nkblas.vecmat(x, a.T), x, a.T)
        assert_within_bound(nkblas.vecdot(a[0], x)[:, None], x, a[:1].T)
    with nkblas.record() as shapes:
        nkblas.matvec(a, np.ones((19, 33), dtype))
    assert sum(shapes.values()) == 1


@pytest.mark.parametrize("name", ["dot", "inner", "vdot", "einsum"])
@pytest.mark.parametrize("shapes", [((9,), (9,)), ((9, 9), (9, 9)), ((2, 9, 9), (9, 9))])
def test_warnings(name: str, shapes: Any) -> None:
    """Overflow and invalid operations raise the same errors as in NumPy, or none."""
    for value, other in ((np.inf, 0.0), (1e300, 1e300)):
        a, b = np.full(shapes[0], value), np.full(shapes[1], other)
        if name == "vdot":
            b = np.full(shapes[0], other)
        arguments = ("...i,ji->...j" if a.ndim > 1 else "i,i", a, b) if name == "einsum" else (a, b)
        with np.errstate(all="raise"):
            expected = outcome(lambda f, x=arguments: f(*x), numpy_function(name))
            got = outcome(lambda f, x=arguments: f(*x), getattr(nkblas, name))
        assert_same(got, expected)


def test_out_may_overlap() -> None:
    x = integers(5, 5)
    expected = np.dot(x, x + 1)
    assert nkblas.dot(x, x + 1, out=x) is x
    assert np.array_equal(x, expected)


class Override:
    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function, args, kwargs


@pytest.mark.parametrize("name", ["dot", "inner", "vdot", "tensordot", "einsum"])
def test_array_function_is_called(name: str) -> None:
    """With NumPy's function as an argument, which other libraries know."""
    other = Override()
    for operands in ((other, A), (A, other)):
        arguments = ("ij,jk", *operands) if name == "einsum" else operands
        assert getattr(nkblas, name)(*arguments) == (numpy_function(name), arguments, {})
    assert nkblas.multi_dot([A, other]) == (np.linalg.multi_dot, ([A, other],), {})
    assert nkblas.matrix_power(other, 2) == (np.linalg.matrix_power, (other, 2), {})
    assert nkblas.dot(A, A, out=other) == (np.dot, (A, A), {"out": other})


def test_subclass_with_overrides_of_its_own() -> None:
    class Doubles(np.ndarray):
        def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
            return 2 * super().__array_function__(function, types, args, kwargs)

    x = A.view(Doubles)
    for context in (nkblas.patched(), None):
        if context is None:
            assert np.array_equal(nkblas.dot(x, B), 2 * np.dot(A, B))
        else:
            with context:
                assert np.array_equal(np.dot(x, B), 2 * nkblas.dot(A, B))
                assert np.array_equal(nkblas.dot(x, B), 2 * nkblas.dot(A, B))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_a_function_of_this_name(name: str) -> None:
    function = getattr(nkblas, name)
    assert function.__name__ == name
    assert pickle.loads(pickle.dumps(function)) is function
    if name not in GUFUNCS:
        assert function.__module__.startswith("nkblas.")
        try:
            expected = inspect.signature(numpy_function(name))
        except ValueError:  # before NumPy 2.4 some functions have no signature
            return
        assert list(inspect.signature(function).parameters) == list(expected.parameters)
