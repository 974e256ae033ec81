"""`nkblas.matmul` follows NumPy's rules: types, arguments, subclasses, overrides, errors."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DTYPES, ORDERS, TOOLS, Array, Order, assert_same, exact, integers, outcome, run

import nkblas

# The same values for all dtypes: small enough for int8, and for bool to be mixed.
A = np.arange(6).reshape(2, 3) % 4
B = np.arange(12).reshape(3, 4) % 3

Call = Callable[[Any], Any]


def fallbacks(*operands: Any, **keywords: Any) -> int:
    """The number of products that NumPy does in a call of `nkblas.matmul`."""
    before = nkblas.stats()["fallbacks"]
    nkblas.matmul(*operands, **keywords)
    return nkblas.stats()["fallbacks"] - before


def test_is_a_gufunc_like_numpys() -> None:
    assert isinstance(nkblas.matmul, np.ufunc)
    for name in ("__name__", "nin", "nout", "nargs", "ntypes", "types", "identity", "signature"):
        assert getattr(nkblas.matmul, name) == getattr(np.matmul, name), name


WITHOUT_KERNELS = "gGO"


@pytest.mark.parametrize("dtype", sorted({t[-1] for t in np.matmul.types}))
def test_every_dtype(dtype: str) -> None:
    """Results are NumPy's; only types without kernels fall back to NumPy."""
    a, b = A.astype(dtype), B.astype(dtype)
    assert_same(nkblas.matmul(a, b), np.matmul(a, b))
    assert fallbacks(a, b) == (dtype in WITHOUT_KERNELS)
    stacks = np.stack([a, a, a])[:, None], np.stack([b, b])
    assert_same(nkblas.matmul(*stacks), np.matmul(*stacks))
    assert fallbacks(*stacks) == (6 if dtype in WITHOUT_KERNELS else 0)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
def test_integers_wrap(dtype: str) -> None:
    large = np.full((5, 5), np.iinfo(dtype).max, dtype)
    assert_same(nkblas.matmul(large, large), np.matmul(large, large))


def test_objects() -> None:
    a = np.array([[Fraction(1, 3), 2], [3, Fraction(4, 7)]], object)
    expected = [[Fraction(1, 9) + 6, Fraction(2, 3) + Fraction(8, 7)]]
    expected += [[1 + Fraction(12, 7), 6 + Fraction(16, 49)]]
    assert nkblas.matmul(a, a).tolist() == expected


@pytest.mark.parametrize("right", ["?", "b", "H", "i", "q", "e", "f", "d", "g", "F", "D"])
@pytest.mark.parametrize("left", ["f", "d"])
def test_mixed_dtypes(left: str, right: str) -> None:
    a, b = A.astype(left), B.astype(right)
    for x, y in ((a, b), (b.T, a.T)):
        expected = np.matmul(x, y)
        assert_same(nkblas.matmul(x, y), expected)
        assert fallbacks(x, y) == (expected.dtype.char in WITHOUT_KERNELS)


def out(*shape: int, dtype: Any = "d", order: Any = "C") -> Array:
    return np.full(shape, 9, dtype, order=order)


F, D = (np.stack([A, A + 1]).astype(char) for char in "fd")
G = B.astype("d")

ARGUMENTS: dict[str, Call] = {
    "positional out": lambda f: f(A, G, out(2, 4)),
    "out in a tuple": lambda f: f(A, G, out=(out(2, 4),)),
    "no out": lambda f: f(A, G, out=None),
    "out of a wider dtype": lambda f: f(F, B.astype("f"), out=out(2, 2, 4)),
    "out of complex dtype": lambda f: f(A, G, out=out(2, 4, dtype="D")),
    "out in columns": lambda f: f(A, G, out=out(2, 4, order="F")),
    "out broadcasts the operands": lambda f: f(A, G, out=out(3, 2, 4)),
    "dtype": lambda f: f(A, B, dtype="f"),
    "dtype of out": lambda f: f(F, B, dtype="d"),
    "casting": lambda f: f(D, G, dtype="f", casting="same_kind"),
    "unsafe casting": lambda f: f(D, G, out=out(2, 2, 4, dtype="i"), casting="unsafe"),
    "signature": lambda f: f(A, B, signature="ff->f", casting="unsafe"),
    "signature as a tuple": lambda f: f(A, B, signature=(None, None, "d")),
    "axes": lambda f: f(D, G, axes=[(0, 2), (0, 1), (1, 2)]),
    "axes of the result": lambda f: f(D, G, axes=[(-2, -1), (0, 1), (0, 1)]),
    "axes of vectors": lambda f: f(D[0, 0], G, axes=[(0,), (0, 1), (0,)]),
    "vector and matrix": lambda f: f(D[0, 0], G),
    "matrix and vector": lambda f: f(D, G[:, 0]),
    "vectors": lambda f: f(D[0, 0], G[:, 0]),
    "lists": lambda f: f([[1, 2], [3, 4]], [[0.5], [1.5]]),
    "list and array": lambda f: f([[1.0, 2, 3]], G),
    "tuples of vectors": lambda f: f((1.0, 2.0), (3.0, 4.0)),
    "objects with __array__": lambda f: f(Arrayish(), G),
    "matrix": lambda f: f(np.matrix(A), G),
    "matrix on the right": lambda f: f(A, np.matrix(G)),
    "matrix without subok": lambda f: f(np.matrix(A), G, subok=False),
    "subclass": lambda f: f(A.view(Subclass), G),
    "subclass without subok": lambda f: f(A.view(Subclass), G, subok=False),
    "masked array": lambda f: f(np.ma.masked_equal(np.eye(3), 1), np.eye(3) + 1),
    "masked out": lambda f: f(A, G, out=np.ma.array(out(2, 4))),
    "zero-length stack": lambda f: f(D[:0], G),
    # Errors
    "inner dimensions": lambda f: f(A, G.T),
    "inner dimensions of vectors": lambda f: f(D[0, 0], G[:2, 0]),
    "stacks": lambda f: f(np.ones((2, 2, 2)), np.ones((3, 2, 2))),
    "scalar on the left": lambda f: f(2.0, G),
    "scalar on the right": lambda f: f(A, np.float64(2)),
    "0-d array": lambda f: f(np.array(1.0), np.array(2.0)),
    "shape of out": lambda f: f(A, G, out=out(3, 4)),
    "dimensions of out": lambda f: f(D, G, out=out(2, 4)),
    "out for vectors": lambda f: f(D[0, 0], G[:, 0], out=out(1)),
    "dtype of out too narrow": lambda f: f(D, G, out=out(2, 2, 4, dtype="i")),
    "out is a list": lambda f: f(A, G, out=[1]),
    "read-only out": lambda f: f(A, G, out=read_only()),
    "casting too strict": lambda f: f(D, G, dtype="f", casting="safe"),
    # The first call selects a loop that NumPy keeps: the text of the error depends on it.
    "no such loop": lambda f: (f(G.T, G, dtype="f"), f(A, G, signature="dd->f")),
    "no such dtype": lambda f: f(A.astype("M8[s]"), G),
    "strings": lambda f: f(np.array([["a"]]), np.array([["b"]])),
    "axis": lambda f: f(A, G, axis=0),
    "axes out of bounds": lambda f: f(A, G, axes=[(0, 2), (0, 1), (0, 1)]),
    "axes too few": lambda f: f(A, G, axes=[(0, 1)]),
    "keepdims": lambda f: f(A, G, keepdims=True),
    "where": lambda f: f(A, G, where=True),
    "order": lambda f: f(A, G, order="X"),
    "unknown keyword": lambda f: f(A, G, nonsense=1),
    "one operand": lambda f: f(A),
    "ragged list": lambda f: f([[1.0], [1.0, 2.0]], G),
    "reduce": lambda f: f.reduce(A),
    "outer": lambda f: f.outer(A, G),
}


class Subclass(np.ndarray):
    pass


class Arrayish:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return A.astype("f")


def read_only() -> Array:
    result = out(2, 4)
    result.flags.writeable = False
    return result


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("case", ARGUMENTS)
def test_same_as_numpy(case: str) -> None:
    call = ARGUMENTS[case]
    assert_same(outcome(call, nkblas.matmul), outcome(call, np.matmul))


@pytest.mark.parametrize("order", "CFKA")
@pytest.mark.parametrize("order_b", ORDERS)
@pytest.mark.parametrize("order_a", ORDERS)
def test_order_of_the_result(order_a: Order, order_b: Order, order: Any) -> None:
    for a, b in ((D[0], G), (D, G)):
        operands = np.array(a, order=order_a), np.array(b, order=order_b)
        expected = np.matmul(*operands, order=order)
        assert_same(nkblas.matmul(*operands, order=order), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_of_another_dtype(dtype: str) -> None:
    """The product is computed in its own dtype and cast to that of `out`, without a fallback."""
    a, b = integers(20, 30, dtype=dtype), integers(30, 40, dtype=dtype, seed=1)
    result = np.full((20, 40), np.nan, "complex128")
    assert fallbacks(a, b, out=result) == 0
    assert np.array_equal(result, exact(a, b))


class Override:
    def __array_ufunc__(self, *arguments: Any, **keywords: Any) -> Any:
        return arguments, keywords


class Refuses:
    __array_ufunc__ = None


def test_array_ufunc_is_called() -> None:
    other = Override()
    for operands in ((other, A), (A, other)):
        assert nkblas.matmul(*operands) == ((nkblas.matmul, "__call__", *operands), {})
    arguments, keywords = nkblas.matmul(A, G, out=other)
    assert arguments[0] is nkblas.matmul
    assert keywords == {"out": (other,)}


def test_array_ufunc_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="does not support ufuncs"):
        nkblas.matmul(A, Refuses())


def complex_results(dtype: str) -> None:
    """Check complex results in an `out` with gaps, or with strides of fractions of an element."""
    size = np.dtype(dtype).itemsize
    left, right = (integers(70, 70, dtype=dtype, seed=seed) for seed in (1, 2))
    left.imag, right.imag = right.real, left.real
    stacks = np.stack([left, right]), np.stack([right, left])
    for function, operands in (
        (nkblas.matmul, (left, right)),
        (nkblas.matmul, (left, right[0])),
        (nkblas.matmul, (left[0], right)),
        (nkblas.matmul, stacks),
        (nkblas.matvec, (left, right[0])),
        (nkblas.vecmat, (left[0], right)),
        (nkblas.vecmat, (left[:3], stacks[0][:, None])),
        (nkblas.vecmat, (left[0, :0], right[:0])),
        (nkblas.vecdot, (left, right)),
    ):
        expected = function(*operands)
        for step in (3 * size // 2, -3 * size // 2, 2 * size, -size):
            strides = [step]
            for length in expected.shape[:0:-1]:
                strides.insert(0, abs(strides[0]) * length + size // 2)
            total = abs(strides[0]) * expected.shape[0] + size
            buffer = np.full(2 * total, 85, np.uint8)
            start = -step * (expected.shape[-1] - 1) if step < 0 else 0
            out = np.ndarray(expected.shape, dtype, buffer, total // 2 + start, strides)
            assert function(*operands, out=out) is out
            assert np.array_equal(out, expected), (function, step)
            elements = np.ndarray(out.shape, f"V{size}", buffer, total // 2 + start, strides)
            elements[...] = np.array(bytes([85]) * size, f"V{size}")
            assert (buffer == 85).all(), (function, step)


def test_stack_stride_is_a_fraction_of_an_element() -> None:
    """Each matrix is a product of its own; infinities are those of four real products."""
    buffer = np.zeros(2 * 16 * 8 + 4, np.uint8)
    stack = np.ndarray((2, 4, 4), "F", buffer, 0, (4 * 4 * 8 + 4, 4 * 8, 8))
    stack[...] = np.eye(4) * 2
    stack[1, 0, 1] = np.inf
    before = nkblas.stats()
    with np.errstate(invalid="ignore"):
        got = nkblas.matmul(stack, np.ones((4, 1), "F"))
    assert nkblas.stats()["fallbacks"] == before["fallbacks"]
    assert np.array_equal(got[0], np.full((4, 1), 2, "F"))
    assert np.isposinf(got[1, 0, 0].real)
    assert np.array_equal(got[1, 1:], np.full((3, 1), 2, "F"))


@pytest.mark.skipif(not hasattr(np, "vecmat"), reason="new in NumPy 2.2")
@pytest.mark.parametrize("dtype", ["F", "D"])
def test_complex_results_stay_in_out(dtype: str) -> None:
    """NumPy's own loops write outside of `out`."""
    complex_results(dtype)


@pytest.mark.skipif(not hasattr(np, "vecmat"), reason="new in NumPy 2.2")
def test_complex_results_stay_in_out_without_kernels(tmp_path: Path) -> None:
    """The same for fallbacks."""
    program = "from test_gufuncs import complex_results as f; f('F'); f('D'); report()"
    tests = str(Path(__file__).parent)
    report, _ = run(
        program, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=tmp_path, PYTHONPATH=f"{tests}:{TOOLS}"
    )
    assert report["kernels_compiled"] == 0 < report["fallbacks"]
