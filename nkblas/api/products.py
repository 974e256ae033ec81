"""NumPy's functions of products (`dot`, `inner`, `vdot`, `tensordot`, ...) on the engine.

Calls that the engine cannot do (other dtypes, scalars, wrong arguments) go to NumPy's own
implementations, which also raise the errors.
"""

import functools
from collections.abc import Callable, Sequence
from math import prod
from types import FunctionType
from typing import Any, ParamSpec, SupportsIndex, TypeVar

import numpy as np

from nkblas import _numpy_ext
from nkblas.system.log import log

from .contraction import NO_KERNELS, engine_dtype
from .gufuncs import (
    dot_gufunc,
    matmul,
    mixed_matmul,
    register_user_dtypes,
    vecdot,
    with_fast_path,
)
from .operands import Array, DType

P = ParamSpec("P")
R = TypeVar("R")


def implementation(function: Any) -> Callable[..., Any]:
    """What a NumPy function calls if no argument overrides it (``__array_function__``)."""
    called: Callable[..., Any] = function._implementation
    return called


numpy_implementations = {
    function.__name__: implementation(function)
    for function in (np.dot, np.inner, np.vdot, np.einsum, np.tensordot, np.linalg.multi_dot)
}
"""NumPy's own implementations of the functions that `nkblas.patch` replaces."""

patch_implementations: dict[Any, Callable[..., Any]] = {}
"""Those functions, and the implementations that `nkblas.patch` gives them."""


def overridable_as(
    numpy_function: Callable[..., Any], has_fast_path: bool = True
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make the public version of a function that replaces a NumPy function.

    If an argument overrides NumPy's function, that function is called, and calls the override. Both
    the public version and the implementation for `nkblas.patch` have the function's fast path.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__ if has_fast_path else None
        if function.__name__ in numpy_implementations:
            patch_implementations[numpy_function] = with_fast_path(function, name)
        return with_fast_path(function, name, numpy_function)

    return decorate


def fall_back(name: str, reason: str, *args: Any, **kwargs: Any) -> Any:
    """The result of NumPy's implementation; the call counts as a fallback."""
    result = numpy_implementations[name](*args, **kwargs)
    _numpy_ext.count_fallbacks(1)
    log("info", f"NumPy does {name}: {reason}", once=True)
    return result


@functools.lru_cache
def wider_dtype(a: DType, b: DType) -> DType | None:
    """For a dtype of `ml_dtypes` without kernels, the NumPy dtype that holds all its values."""
    if a != b or a.isbuiltin == 1:
        return None
    candidates = (np.dtype(name) for name in ("int8", "uint8", "float32"))
    return next((dtype for dtype in candidates if np.can_cast(a, dtype)), None)


_empty_like = implementation(np.empty_like)


def _allocate_result(x: Array, y: Array, dtype: DType, shape: tuple[int, ...]) -> Array:
    """An array for the product of `x` and `y`, of the class with the higher priority."""
    prototype = x
    if type(x) is not type(y):
        priorities = [getattr(operand, "__array_priority__", 0.0) for operand in (x, y)]
        prototype = y if priorities[1] > priorities[0] else x
    result: Array = _empty_like(prototype, dtype, "C", True, shape)
    return result


def _as_base_array(x: Array) -> Array:
    return np.ndarray.view(x, np.ndarray)


def _dot_or_inner(name: str, a: Any, b: Any, out: Any = None) -> Any:
    """``sum(a[i, ..., :] * b[j, ..., :, n])``; for "inner" the last two axes of `b` are swapped."""
    optional_out = () if out is None else (out,)
    numpy_function = numpy_implementations[name]
    x, y = np.asanyarray(a), np.asanyarray(b)
    if x.size <= 1 or y.size <= 1:  # no sums; and an empty list takes the other's dtype
        return numpy_function(a, b, *optional_out)
    axis = max(y.ndim - 2, 0) if name == "dot" else y.ndim - 1
    before, depth, after = y.shape[:axis], y.shape[axis], y.shape[axis + 1 :]
    shape = x.shape[:-1] + before + after
    dtype = engine_dtype(x.dtype, y.dtype)
    if dtype is None:
        wider = wider_dtype(x.dtype, y.dtype)
        if wider is None:
            return fall_back(name, NO_KERNELS, a, b, *optional_out)
        result = _dot_or_inner(name, x.astype(wider), y.astype(wider)).astype(x.dtype)
        if out is None:
            return result
        if not _is_valid_out(out, result.dtype, shape):
            return numpy_function(a, b, out)  # raises
        _as_base_array(out)[...] = result
        return out if out.ndim else _as_base_array(out)[()]
    if x.shape[-1] != depth:
        return numpy_function(a, b, *optional_out)  # raises
    if out is None:
        result = _allocate_result(x, y, dtype, shape)
    elif _is_valid_out(out, dtype, shape):
        result = out
    else:
        return numpy_function(a, b, out)  # raises

    rows = prod(x.shape[:-1])
    x = _as_base_array(x).reshape(rows, depth)
    target = _as_base_array(result).reshape(rows, *before, *after)
    if not after:  # vectors: they are the columns of one matrix
        y = _as_base_array(y).reshape(prod(before), depth).T
        target = target.reshape(rows, prod(before))
    else:  # a stack of matrices: each computes its own columns of the result
        y = _as_base_array(y)
        target = target.transpose(*range(1, len(before) + 1), 0, len(before) + 1)
    _multiply_stacks(x, y, target)
    return result if result.ndim else _as_base_array(result)[()]


def _is_valid_out(out: Any, dtype: DType, shape: tuple[int, ...]) -> bool:
    fits = isinstance(out, np.ndarray) and (out.dtype, out.shape) == (dtype, shape)
    return fits and out.flags.carray


def _multiply_stacks(x: Array, y: Array, target: Array) -> None:
    """``target = x @ y``, for operands of the target's dtype or dtypes that can be cast to it."""
    if target.dtype.isbuiltin != 1:  # bfloat16: matmul's result would be float32
        register_user_dtypes()
        dtype = target.dtype
        x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
        mixed_matmul(x, y, out=target, dtype=dtype)
    else:
        dot_gufunc(x, y, out=target)


@overridable_as(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """Dot product of two arrays: `numpy.dot`, on generated kernels.

    Parameters, result and errors are those of `numpy.dot`. Scalars, and dtypes that `matmul` does
    not run on nkblas, are left to NumPy.

    Parameters
    ----------
    a, b : array_like
        Shapes ``(..., k)`` and ``(..., k, n)`` or ``(k,)``.
    out : ndarray, optional
        Array to write the result to: C-contiguous, with exactly the result's dtype and shape.

    Returns
    -------
    ndarray or scalar
        ``sum(a[i, ..., :] * b[j, ..., :, n])``, of shape ``(i, ..., j, ..., n)``.

    Raises
    ------
    ValueError
        The shapes are not aligned, or `out` is not such an array.

    See Also
    --------
    matmul : broadcasts stacks of matrices instead.
    inner, vdot, tensordot, multi_dot

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.dot([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    array([21., 43.])
    >>> nkblas.dot(np.ones((2, 3, 4)), np.ones((5, 4, 6))).shape
    (2, 3, 5, 6)
    """
    return _dot_or_inner("dot", a, b, out)


@overridable_as(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    """Inner product of two arrays: `numpy.inner`, on generated kernels.

    Parameters, result and errors are those of `numpy.inner`. Scalars, and dtypes that `matmul` does
    not run on nkblas, are left to NumPy.

    Parameters
    ----------
    a, b : array_like
        Shapes ``(..., k)``.

    Returns
    -------
    ndarray or scalar
        ``sum(a[i, ..., :] * b[j, ..., :])``, of shape ``a.shape[:-1] + b.shape[:-1]``.

    Raises
    ------
    ValueError
        The last dimensions differ.

    See Also
    --------
    dot, tensordot
    vecdot : inner products of pairs of vectors.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.inner([[1.0, 2.0], [3.0, 4.0]], [[1.0, 10.0]])
    array([[21.],
           [43.]])
    """
    return _dot_or_inner("inner", a, b)


@overridable_as(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    """Dot product of two arrays as vectors: `numpy.vdot`, on generated kernels.

    Parameters, result and errors are those of `numpy.vdot`. Scalars, and dtypes that `matmul` does
    not run on nkblas, are left to NumPy.

    Parameters
    ----------
    a, b : array_like
        Arrays of equal size, which are flattened. `a` is conjugated.

    Returns
    -------
    scalar

    Raises
    ------
    ValueError
        The sizes differ.

    See Also
    --------
    dot, vecdot

    Examples
    --------
    >>> import nkblas
    >>> float(nkblas.vdot([[1.0, 2.0], [3.0, 4.0]], [[1.0, 10.0], [100.0, 1000.0]]))
    4321.0
    """
    x, y = np.asanyarray(a), np.asanyarray(b)
    if x.size <= 1 or x.size != y.size:
        return numpy_implementations["vdot"](a, b)
    dtype = engine_dtype(x.dtype, y.dtype)
    if dtype is None:
        wider = wider_dtype(x.dtype, y.dtype)
        if wider is None:
            return fall_back("vdot", NO_KERNELS, a, b)
        return vdot(x.astype(wider), y.astype(wider)).astype(x.dtype)
    if not type(x) is type(y) is np.ndarray:
        return fall_back("vdot", "its operands are of a subclass", a, b)
    with np.errstate(all="ignore"):  # NumPy's vdot does not warn
        return vecdot(x.ravel(), y.ravel()).astype(dtype)  # bfloat16: vecdot gives float32


def rebind_products(
    function: Any, *helpers: str, **replacements: Callable[..., Any]
) -> Callable[..., Any]:
    """A copy of a NumPy function that calls nkblas's products instead of NumPy's.

    Parameters
    ----------
    function : function
        A function of NumPy.
    *helpers : str
        Functions of the same module that it calls, and that call products too.
    **replacements : function
        Replacements of other names in its module besides `dot` and `matmul`.
    """
    own = implementation(function)
    names: dict[str, Any] = {**own.__globals__, "dot": dot, "matmul": matmul, **replacements}

    def copy(original: Any) -> FunctionType:
        new = FunctionType(
            original.__code__,
            names,
            original.__name__,
            original.__defaults__,
            original.__closure__,
        )
        new.__kwdefaults__ = original.__kwdefaults__
        return new

    for name in helpers:
        if name in names:  # some exist in later versions only
            names[name] = copy(names[name])
    return copy(own)


_tensordot = rebind_products(np.tensordot)
_multi_dot = rebind_products(np.linalg.multi_dot, "_multi_dot", "_multi_dot_three")
_matrix_power = rebind_products(np.linalg.matrix_power)


@overridable_as(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Sum of products over given axes: `numpy.tensordot`, on generated kernels.

    Parameters, result and errors are those of `numpy.tensordot`, whose code is used with nkblas's
    `dot`.

    Parameters
    ----------
    a, b : array_like
    axes : int or (axes of a, axes of b)
        The axes that are summed over; an integer N means the last N axes of `a` and the first N
        of `b`.

    Returns
    -------
    ndarray
        Its axes are the other axes of `a`, followed by those of `b`.

    Raises
    ------
    ValueError
        The lengths of these axes differ.

    See Also
    --------
    dot, einsum

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.tensordot(np.ones((2, 3, 4)), np.ones((4, 3, 5)), ([1, 2], [1, 0])).shape
    (2, 5)
    """
    return _tensordot(a, b, axes)


@overridable_as(np.linalg.multi_dot)
def multi_dot(arrays: Sequence[Any], *, out: Any = None) -> Any:
    """Product of two or more arrays, in the cheapest order: `numpy.linalg.multi_dot`.

    Parameters, result and errors are those of `numpy.linalg.multi_dot`, whose code is used with
    nkblas's `dot`.

    Parameters
    ----------
    arrays : sequence of array_like
        Matrices; the first and the last may be vectors.
    out : ndarray, optional
        Array to write the result to: C-contiguous, with exactly the result's dtype and shape.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        There are fewer than two arrays, or the shapes are not aligned.
    numpy.linalg.LinAlgError
        An array is neither a matrix nor a vector.

    See Also
    --------
    dot, einsum

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.multi_dot([np.ones((2, 3)), np.ones((3, 4)), np.ones(4)])
    array([12., 12.])
    """
    return _multi_dot(arrays, out=out)


@overridable_as(np.linalg.matrix_power, has_fast_path=False)
def matrix_power(a: Any, n: SupportsIndex) -> Any:
    """A square matrix to an integer power: `numpy.linalg.matrix_power`.

    Parameters, result and errors are those of `numpy.linalg.matrix_power`, whose code is used with
    nkblas's `matmul`.

    Parameters
    ----------
    a : array_like
        A matrix or a stack of matrices: shape ``(..., m, m)``.
    n : int
        The exponent. A negative one takes powers of the inverse.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        `n` is not an integer.
    numpy.linalg.LinAlgError
        A matrix is not square, or has no inverse.

    See Also
    --------
    matmul

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.matrix_power([[1.0, 1.0], [1.0, 0.0]], 10)
    array([[89., 55.],
           [55., 34.]])
    """
    return _matrix_power(a, n)
