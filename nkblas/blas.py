"""Matrix products with the signatures of `scipy.linalg.blas`: ``{s,d,c,z}gemm``, ``{s,d,c,z}gemv``.

Arguments, results, memory orders and errors are SciPy's: ``from nkblas import blas`` can replace
``from scipy.linalg import blas``. The letter is the dtype: float32, float64, complex64, complex128.
"""

import sys
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any, TypeVar

import numpy as np

from nkblas.api.gemm_call import GemmCall
from nkblas.api.gufuncs import fast_path
from nkblas.api.operands import Array, DType, apply_trans, as_native_aligned, is_native_aligned

__all__ = ["BlasError", "cgemm", "cgemv", "dgemm", "dgemv", "sgemm", "sgemv", "zgemm", "zgemv"]

Number = TypeVar("Number", int, float, complex)

DTYPES: dict[str, DType] = {
    letter: np.dtype(char) for letter, char in zip("sdcz", "fdFD", strict=True)
}


class BlasError(ValueError):
    """An argument does not fit the others.

    In a program that has imported `scipy.linalg`, the error is also an instance of SciPy's own.
    """


def _blas_error(name: str, argument: str, got: str, expected: str) -> BlasError:
    """The error for an argument, which is described as SciPy does: "2nd argument b"."""
    scipy = sys.modules.get("scipy.linalg._fblas")
    kind = BlasError if scipy is None else _error_class(scipy.__fblas_error)
    return kind(f"{name}: failed for {argument}: got {got}, expected {expected}")


@cache
def _error_class(scipy_error: type[Exception]) -> type[BlasError]:
    return type("BlasError", (BlasError, scipy_error), {})


# ---- conversion of the arguments, as SciPy converts them ----


def _to_number(name: str, argument: str, value: Any, kind: type[Number]) -> Number:
    """A Python number: the first element of a sequence, and the real part if `kind` is real.

    Raises
    ------
    TypeError, ValueError, IndexError
        `value` is not a number.
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


def _to_int(name: str, argument: str, value: Any, default: int = 0) -> int:
    if value is None:
        return default
    return value if type(value) is int else _to_number(name, argument, value, int)


def _to_factor(name: str, argument: str, value: Any, dtype: DType) -> complex:
    """The number for alpha or beta."""
    if dtype.kind == "c":
        return _to_number(name, argument, value, complex)
    return _to_number(name, argument, value, float)


def _to_trans(name: str, argument: str, position: str, value: Any) -> int:
    trans = _to_int(name, argument, value)
    if trans not in (0, 1, 2):
        raise _blas_error(name, f"{position} {argument}", str(trans), "0, 1 or 2")
    return trans


def _to_array(value: Any, dtype: DType, ndim: int) -> Array:
    if not isinstance(value, np.ndarray):
        value = np.asarray(value, dtype)  # raises if it has to make complex numbers real
    return _with_ndim(as_native_aligned(value, dtype), ndim)


def _with_ndim(array: Array, ndim: int) -> Array:
    """The array with `ndim` dimensions.

    Missing dimensions have length 1 and come last. If there are too many, those of length 1 are
    removed, and the remaining ones from `ndim` on are merged into one, in Fortran order.
    """
    if array.ndim == ndim:
        return array
    shape = array.shape
    if array.ndim > ndim:
        shape = tuple(length for length in shape if length != 1)
    shape += (1,) * (ndim - len(shape))
    return array.reshape((*shape[: ndim - 1], prod(shape[ndim - 1 :])), order="F")


def _to_result(value: Any, dtype: DType, overwrite: int) -> Array:
    """The array to return, with C or y in it: `value` itself if it can be overwritten."""
    if (
        overwrite
        and isinstance(value, np.ndarray)
        and is_native_aligned(value, dtype)
        and value.flags.f_contiguous
        and value.flags.writeable
    ):
        return value
    return np.array(value, dtype, order="F")


def _vector(name: str, argument: str, array: Array, count: int, offset: int, inc: int) -> Array:
    """`count` elements of `array` from `offset` on, at distances of ``abs(inc)``.

    If `inc` is negative they are in reverse order.
    """
    last = offset + (count - 1) * abs(inc)
    if not 0 <= offset < len(array) or last >= len(array):
        expected = f"{max(count, 1)}, {abs(inc)} apart and the first at {offset}"
        raise _blas_error(name, argument, f"{len(array)} elements", expected)
    return array[offset : max(offset, last + 1) : abs(inc)][:: 1 if inc > 0 else -1]


# ---- the functions ----


def _make_gemm(name: str, dtype: DType) -> Callable[..., Array]:
    def gemm(
        alpha: Any,
        a: Any,
        b: Any,
        beta: Any = 0,
        c: Any = None,
        trans_a: Any = 0,
        trans_b: Any = 0,
        overwrite_c: Any = 0,
    ) -> Array:
        alpha = _to_factor(name, "alpha", alpha, dtype)
        beta = 0 if beta is None else _to_factor(name, "beta", beta, dtype)
        trans_a = _to_trans(name, "trans_a", "3rd keyword", trans_a)
        trans_b = _to_trans(name, "trans_b", "4th keyword", trans_b)
        left, conj_a = apply_trans(_to_array(a, dtype, 2), trans_a)
        right, conj_b = apply_trans(_to_array(b, dtype, 2), trans_b)
        shape = left.shape[0], right.shape[1]
        if left.shape[1] != right.shape[0]:
            expected = f"({left.shape[1]}, n)"
            raise _blas_error(name, "2nd argument b", f"op(b) of shape {right.shape}", expected)
        if c is None:
            result, beta = np.empty(shape, dtype, order="F"), 0
        else:
            result = _to_result(c, dtype, _to_int(name, "overwrite_c", overwrite_c))
        target = _with_ndim(result, 2)
        if target.shape != shape:
            raise ValueError(f"{name}: c: got shape {np.shape(c)}, expected {shape}")
        GemmCall(left, right, target, alpha, beta, conj_a, conj_b).without_overlap().execute()
        return result

    return _named(gemm, name, dtype, _GEMM_DOC)


def _make_gemv(name: str, dtype: DType) -> Callable[..., Array]:
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
    ) -> Array:
        alpha = _to_factor(name, "alpha", alpha, dtype)
        beta = 0 if beta is None else _to_factor(name, "beta", beta, dtype)
        offx, offy = _to_int(name, "offx", offx), _to_int(name, "offy", offy)
        incx, incy = _to_int(name, "incx", incx, 1), _to_int(name, "incy", incy, 1)
        if incx == 0:
            raise _blas_error(name, "4th keyword incx", "0", "another number")
        if incy == 0:
            raise _blas_error(name, "6th keyword incy", "0", "another number")
        trans = _to_trans(name, "trans", "7th keyword", trans)
        matrix, conj = apply_trans(_to_array(a, dtype, 2), trans)
        m, n = matrix.shape
        vector = _vector(name, "3rd argument x", _to_array(x, dtype, 1), n, offx, incx)
        if y is None:
            result, beta = np.zeros(max(0, 1 + offy + (m - 1) * abs(incy)), dtype), 0
        else:
            result = _to_result(y, dtype, _to_int(name, "overwrite_y", overwrite_y))
        target = _vector(name, "2nd keyword y", _with_ndim(result, 1), m, offy, incy)
        if m and n:  # without products, BLAS does not scale y either
            call = GemmCall(matrix, vector[:, None], target[:, None], alpha, beta, conj)
            call.without_overlap().execute()
        return result

    return _named(gemv, name, dtype, _GEMV_DOC)


def _named(
    function: Callable[..., Array], name: str, dtype: DType, doc: str
) -> Callable[..., Array]:
    function.__name__ = function.__qualname__ = name
    dtype_in_repr = ", dtype=float32" if name[0] in "sc" else ""
    function.__doc__ = doc.format(name=name, dtype=dtype.name, dtype_in_repr=dtype_in_repr)
    return fast_path(function)


_GEMM_DOC = """Scaled product of {dtype} matrices: ``alpha * op(a) @ op(b) + beta * c``.

    The signature is that of `scipy.linalg.blas.{name}`.

    Parameters
    ----------
    alpha : scalar
        With 0, `a` and `b` are not read.
    a, b : array_like
        Matrices, converted to {dtype}: ``op(a)`` has shape ``(m, k)``, ``op(b)`` has shape
        ``(k, n)``. A vector is a matrix with one column.
    beta : scalar, optional
        With 0, the default, `c` is not read.
    c : array_like, optional
        Shape ``(m, n)``; default: zeros.
    trans_a, trans_b : {{0, 1, 2}}, optional
        The operation ``op``:

        - 0: none, ``op(x) = x``
        - 1: transpose, ``op(x) = x.T``
        - 2: conjugate transpose, ``op(x) = x.conj().T``
    overwrite_c : bool, optional
        Whether the result may be written to `c`. It is if `c` is a writeable array of {dtype} in
        Fortran order; it may overlap `a` and `b`.

    Returns
    -------
    ndarray
        Shape ``(m, n)``, {dtype}, in Fortran order.

    Raises
    ------
    BlasError
        ``op(a)`` and ``op(b)`` do not fit, or `trans_a` or `trans_b` has another value.
    ValueError, TypeError
        `c` has another shape, or an argument cannot be converted.

    See Also
    --------
    nkblas.gemm : the same product for all dtypes, with an epilogue.

    Examples
    --------
    >>> from nkblas import blas
    >>> blas.{name}(2, [[1, 2], [3, 4]], [[1], [1]]).real
    array([[ 6.],
           [14.]]{dtype_in_repr})
    """

_GEMV_DOC = """Scaled product of a {dtype} matrix and a vector: ``alpha * op(a) @ x + beta * y``.

    The signature is that of `scipy.linalg.blas.{name}`.

    Parameters
    ----------
    alpha : scalar
        With 0, `a` and `x` are not read.
    a : array_like
        A matrix, converted to {dtype}: ``op(a)`` has shape ``(m, n)``.
    x : array_like
        Its `n` elements begin at index `offx`, at distances of ``abs(incx)``.
    beta : scalar, optional
        With 0, the default, the elements of `y` that are overwritten are not read.
    y : array_like, optional
        Its `m` elements begin at index `offy`, at distances of ``abs(incy)``; the other elements
        keep their values. Default: zeros, as many as necessary.
    offx, offy : int, optional
        Index of the first element.
    incx, incy : int, optional
        Increment. If it is negative, the vector consists of the same elements in reverse order.
    trans : {{0, 1, 2}}, optional
        The operation ``op``:

        - 0: none, ``op(a) = a``
        - 1: transpose, ``op(a) = a.T``
        - 2: conjugate transpose, ``op(a) = a.conj().T``
    overwrite_y : bool, optional
        Whether the result may be written to `y`. It is if `y` is a writeable contiguous array of
        {dtype}; it may overlap `a` and `x`.

    Returns
    -------
    ndarray
        All of `y`, {dtype}.

    Raises
    ------
    BlasError
        A vector is too short, or another argument has a value that is not allowed.
    ValueError, TypeError
        An argument cannot be converted.

    See Also
    --------
    nkblas.matvec : products of stacks of matrices and vectors.

    Examples
    --------
    >>> from nkblas import blas
    >>> blas.{name}(2, [[1, 2], [3, 4]], [1, 1]).real
    array([ 6., 14.]{dtype_in_repr})
    """

sgemm, dgemm, cgemm, zgemm = (
    _make_gemm(f"{letter}gemm", dtype) for letter, dtype in DTYPES.items()
)
sgemv, dgemv, cgemv, zgemv = (
    _make_gemv(f"{letter}gemv", dtype) for letter, dtype in DTYPES.items()
)
