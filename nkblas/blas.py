"""Matrix products with the signatures of `scipy.linalg.blas`: ``{s,d,c,z}gemm``, ``{s,d,c,z}gemv``.

Arguments, results, memory orders and errors are SciPy's: ``from nkblas import blas`` can stand for
``from scipy.linalg import blas``. The letter is the dtype: float32, float64, complex64, complex128.
"""

import sys
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import numpy as np

from nkblas.api.gemm import multiply, turned
from nkblas.api.operands import apart, is_plain, plain

__all__ = ["BlasError", "cgemm", "cgemv", "dgemm", "dgemv", "sgemm", "sgemv", "zgemm", "zgemv"]


DTYPES = {letter: np.dtype(char) for letter, char in zip("sdcz", "fdFD", strict=True)}


class BlasError(ValueError):
    """An argument that does not fit the others.

    In a program that has imported `scipy.linalg`, it is also what SciPy raises.
    """


def _failed(name: str, where: str, got: str, expected: str) -> BlasError:
    scipy = sys.modules.get("scipy.linalg._fblas")
    kind = BlasError if scipy is None else _also(scipy.__fblas_error)
    return kind(f"{name}: failed for {where}: got {got}, expected {expected}")


@cache
def _also(theirs: type[Exception]) -> type[BlasError]:
    return type("BlasError", (BlasError, theirs), {})


# --- arguments, as SciPy takes them ---


def _scalar(name: str, argument: str, value: Any, kind: type) -> Any:
    """A number of Python's; of a sequence, its first element, and of a complex one the real part.

    Raises
    ------
    TypeError, ValueError, IndexError
        There is none.
    """
    if type(value) is kind:
        return value
    try:
        if isinstance(value, str | bytes):
            raise (TypeError if kind is complex else ValueError)
        if isinstance(value, np.ndarray | list | tuple):
            value = np.asarray(value).flat[0]
        if kind is not complex and isinstance(value, complex | np.complexfloating):
            value = value.real
        return kind(value)
    except (TypeError, ValueError, IndexError) as error:
        raise type(error)(
            f"{name}: {argument}: got {value!r}, expected a number of type {kind.__name__}"
        ) from None


def _integer(name: str, argument: str, value: Any, default: int = 0) -> int:
    if value is None:
        return default
    return value if type(value) is int else _scalar(name, argument, value, int)


def _factor(name: str, argument: str, value: Any, dtype: np.dtype) -> Any:
    """alpha or beta."""
    return _scalar(name, argument, value, complex if dtype.kind == "c" else float)


def _trans(name: str, argument: str, where: str, value: Any) -> int:
    trans = _integer(name, argument, value)
    if trans not in (0, 1, 2):
        raise _failed(name, f"{where} {argument}", str(trans), "0, 1 or 2")
    return trans


def _array(value: Any, dtype: np.dtype, ndim: int) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        value = np.asarray(value, dtype)  # complex numbers in a list do not become real ones
    return _of_rank(plain(value, dtype), ndim)


def _of_rank(array: np.ndarray, ndim: int) -> np.ndarray:
    """The array with so many dimensions.

    Missing ones have length 1 and come last. If there are too many, those of length 1 count for
    nothing, and what is still too much becomes part of the last one.
    """
    if array.ndim == ndim:
        return array
    shape = array.shape
    if array.ndim > ndim:
        shape = tuple(length for length in shape if length != 1)
    shape += (1,) * (ndim - len(shape))
    return array.reshape((*shape[: ndim - 1], prod(shape[ndim - 1 :])), order="F")


def _result(value: Any, dtype: np.dtype, overwrite: int) -> np.ndarray:
    """The array that a result goes to, holding what it is added to: a copy, where it has to be."""
    if (
        overwrite
        and isinstance(value, np.ndarray)
        and is_plain(value, dtype)
        and value.flags.f_contiguous
        and value.flags.writeable
    ):
        return value
    return np.array(value, dtype, order="F")


def _elements(
    name: str, where: str, array: np.ndarray, count: int, off: int, inc: int
) -> np.ndarray:
    """`count` elements from `off` on and `inc` apart; if that is negative, the last one first."""
    last = off + (count - 1) * abs(inc)
    if not 0 <= off < len(array) or last >= len(array):
        wanted = f"{max(count, 1)}, {abs(inc)} apart and the first at {off}"
        raise _failed(name, where, f"{len(array)} elements", wanted)
    return array[off : max(off, last + 1) : abs(inc)][:: 1 if inc > 0 else -1]


# --- the functions ---


def _gemm(name: str, dtype: np.dtype) -> Callable[..., np.ndarray]:
    def gemm(
        alpha: Any,
        a: Any,
        b: Any,
        beta: Any = 0,
        c: Any = None,
        trans_a: Any = 0,
        trans_b: Any = 0,
        overwrite_c: Any = 0,
    ) -> np.ndarray:
        alpha = _factor(name, "alpha", alpha, dtype)
        beta = 0 if beta is None else _factor(name, "beta", beta, dtype)
        trans_a = _trans(name, "trans_a", "3rd keyword", trans_a)
        trans_b = _trans(name, "trans_b", "4th keyword", trans_b)
        left, conj_a = turned(_array(a, dtype, 2), trans_a)
        right, conj_b = turned(_array(b, dtype, 2), trans_b)
        shape = left.shape[0], right.shape[1]
        if left.shape[1] != right.shape[0]:
            expected = f"({left.shape[1]}, n)"
            raise _failed(name, "2nd argument b", f"op(b) of shape {right.shape}", expected)
        if c is None:
            result, beta = np.empty(shape, dtype, order="F"), 0
        else:
            result = _result(c, dtype, _integer(name, "overwrite_c", overwrite_c))
        target = _of_rank(result, 2)
        if target.shape != shape:
            raise ValueError(f"{name}: c: got shape {np.shape(c)}, expected {shape}")
        left, right = apart(left, result), apart(right, result)
        multiply(alpha, left, right, beta, target, conj_a, conj_b)
        return result

    return _named(gemm, name, dtype, GEMM)


def _gemv(name: str, dtype: np.dtype) -> Callable[..., np.ndarray]:
    def gemv(
        alpha: Any,
        a: Any,
        x: Any,
        beta: Any = 0,
        y: Any = None,
        offx: Any = 0,
        incx: Any = 1,
        offy: Any = 0,
        incy: Any = 1,
        trans: Any = 0,
        overwrite_y: Any = 0,
    ) -> np.ndarray:
        alpha = _factor(name, "alpha", alpha, dtype)
        beta = 0 if beta is None else _factor(name, "beta", beta, dtype)
        offx, offy = _integer(name, "offx", offx), _integer(name, "offy", offy)
        incx, incy = _integer(name, "incx", incx, 1), _integer(name, "incy", incy, 1)
        if incx == 0:
            raise _failed(name, "4th keyword incx", "0", "another number")
        if incy == 0:
            raise _failed(name, "6th keyword incy", "0", "another number")
        matrix, conj = turned(_array(a, dtype, 2), _trans(name, "trans", "7th keyword", trans))
        rows, columns = matrix.shape
        vector = _elements(name, "3rd argument x", _array(x, dtype, 1), columns, offx, incx)
        if y is None:
            result, beta = np.zeros(max(0, 1 + offy + (rows - 1) * abs(incy)), dtype), 0
        else:
            result = _result(y, dtype, _integer(name, "overwrite_y", overwrite_y))
        target = _elements(name, "2nd keyword y", _of_rank(result, 1), rows, offy, incy)
        if rows and columns:  # with nothing to multiply, BLAS does not scale either
            left, right = apart(matrix, result), apart(vector, result)
            multiply(alpha, left, right[:, None], beta, target[:, None], conj)
        return result

    return _named(gemv, name, dtype, GEMV)


def _named(function: Any, name: str, dtype: np.dtype, doc: str) -> Callable[..., np.ndarray]:
    function.__name__ = function.__qualname__ = name
    note = ", dtype=float32" if name[0] in "sc" else ""
    function.__doc__ = doc.format(name=name, dtype=dtype.name, note=note)
    return function


GEMM = """Scale a product of {dtype} matrices and add it: ``alpha * op(a) @ op(b) + beta * c``.

    The signature is that of `scipy.linalg.blas.{name}`.

    Parameters
    ----------
    alpha : scalar
        With 0, `a` and `b` are not read.
    a, b : array_like
        Matrices, converted to {dtype}: ``op(a)`` has shape ``(m, k)``, ``op(b)`` ``(k, n)``. A
        vector is a column.
    beta : scalar, optional
        With 0, which it is at first, `c` is not read.
    c : array_like, optional
        Shape ``(m, n)``; zeros if there is none.
    trans_a, trans_b : {{0, 1, 2}}, optional
        What ``op`` is: nothing, the transpose, the conjugate transpose.
    overwrite_c : bool, optional
        Whether the result may go to `c`: it does if `c` is an array of {dtype} with contiguous
        columns (Fortran order). It may overlap `a` and `b`.

    Returns
    -------
    ndarray
        Shape ``(m, n)``, {dtype}, in Fortran order.

    Raises
    ------
    BlasError
        ``op(a)`` and ``op(b)`` do not fit, or `trans_a` or `trans_b` is something else.
    ValueError, TypeError
        `c` has another shape, or something can't be converted.

    Examples
    --------
    >>> from nkblas import blas
    >>> blas.{name}(2, [[1, 2], [3, 4]], [[1], [1]]).real
    array([[ 6.],
           [14.]]{note})
    """

GEMV = """Scale a {dtype} matrix-vector product and add it: ``alpha * op(a) @ x + beta * y``.

    The signature is that of `scipy.linalg.blas.{name}`.

    Parameters
    ----------
    alpha : scalar
        With 0, `a` and `x` are not read.
    a : array_like
        A matrix, converted to {dtype}: ``op(a)`` has shape ``(m, n)``.
    x : array_like
        Its `n` elements are the `offx`-th and those that follow, `incx` apart.
    beta : scalar, optional
        With 0, which it is at first, what is overwritten of `y` is not read.
    y : array_like, optional
        Its `m` elements are the `offy`-th and those that follow, `incy` apart; the others stay as
        they are. Zeros, as many as it takes, if there is none.
    offx, offy : int, optional
    incx, incy : int, optional
        If negative, the vector is read backwards, from the same elements.
    trans : {{0, 1, 2}}, optional
        What ``op`` is: nothing, the transpose, the conjugate transpose.
    overwrite_y : bool, optional
        Whether the result may go to `y`: it does if `y` is a contiguous array of {dtype}. It may
        overlap `a` and `x`.

    Returns
    -------
    ndarray
        All of `y`, {dtype}.

    Raises
    ------
    BlasError
        A vector is too short, or another argument has no such value.
    ValueError, TypeError
        Something can't be converted.

    Examples
    --------
    >>> from nkblas import blas
    >>> blas.{name}(2, [[1, 2], [3, 4]], [1, 1]).real
    array([ 6., 14.]{note})
    """

sgemm, dgemm, cgemm, zgemm = (_gemm(f"{letter}gemm", dtype) for letter, dtype in DTYPES.items())
sgemv, dgemv, cgemv, zgemv = (_gemv(f"{letter}gemv", dtype) for letter, dtype in DTYPES.items())
