"""NumPy's functions of products, `dot` and its kin, on the engine.

What the engine does not do (other dtypes, scalars, mistakes) is handed to NumPy's own
implementations, which also have the words for the mistakes.
"""

import functools
from collections.abc import Callable, Sequence
from math import prod
from types import FunctionType
from typing import Any, ParamSpec, SupportsIndex, TypeVar

import numpy as np

from nkblas import _numpy_ext
from nkblas.base.dtypes import product as product_of
from nkblas.system.log import log

from .gufuncs import dot_gufunc, fast_path, matmul, mixed_matmul, register_user_dtypes, vecdot

Array = np.ndarray[Any, Any]
P = ParamSpec("P")
R = TypeVar("R")


def implementation(function: Any) -> Callable[..., Any]:
    """What one of NumPy's functions calls once no argument has overridden it."""
    return function._implementation


numpys = {name: implementation(getattr(np, name)) for name in ("dot", "inner", "vdot", "einsum")}
"""NumPy's implementations of those that `nkblas.patch` replaces."""

replacements: dict[str, Callable[..., Any]] = {}
"""What it puts in their place."""


def overrides(x: object) -> bool:
    """Whether `x` brings its own versions of NumPy's functions (``__array_function__``)."""
    usual = np.ndarray.__array_function__
    return getattr(type(x), "__array_function__", usual) is not usual


def like(numpy: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make the public function of one that does what a function of NumPy's does.

    If an argument overrides NumPy's, that one is called, and asks it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def public(*args: P.args, **kwargs: P.kwargs) -> R:
            for x in (*args, *kwargs.values()):
                if overrides(x) or (isinstance(x, (list, tuple)) and any(map(overrides, x))):
                    result: R = numpy(*args, **kwargs)
                    return result
            return function(*args, **kwargs)

        if function.__name__ in numpys:
            replacements[function.__name__] = _fast_path(function)
        return _fast_path(public)

    return decorate


def _fast_path(function: Callable[P, R]) -> Callable[P, R]:
    return fast_path(function) if function.__name__ in ("dot", "inner", "vdot") else function


def left_to_numpy(name: str, reason: str, *args: Any, **kwargs: Any) -> Any:
    """What NumPy's own function gives; it counts as a product that NumPy did."""
    result = numpys[name](*args, **kwargs)
    _numpy_ext.count_fallbacks(1)
    log("info", f"NumPy does {name}: {reason}", once=True)
    return result


@functools.lru_cache
def engine_dtype(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any] | None:
    """The dtype of a product, if there are generated kernels for it."""
    try:
        dtype = np.result_type(a, b)
    except TypeError:
        return None
    return dtype if product_of(dtype.name, dtype.name, dtype.name) else None


@functools.lru_cache
def wider_dtype(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any] | None:
    """For types of `ml_dtypes` without kernels, the one of NumPy's that holds them all."""
    if a != b or a.isbuiltin == 1:
        return None
    wider = (np.dtype(name) for name in ("int8", "uint8", "float32"))
    return next((dtype for dtype in wider if np.can_cast(a, dtype)), None)


NO_KERNELS = "there are no generated kernels for its dtype"

_empty_like = implementation(np.empty_like)


def _new(x: Array, y: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """An array for the product of `x` and `y`, of the class of that which outranks the other."""
    first = x
    if type(x) is not type(y):
        ranks = [getattr(operand, "__array_priority__", 0.0) for operand in (x, y)]
        first = y if ranks[1] > ranks[0] else x
    return _empty_like(first, dtype, "C", True, shape)


def _plain(x: Array) -> Array:
    return np.ndarray.view(x, np.ndarray)


def _sums(name: str, a: Any, b: Any, out: Any = None) -> Any:
    """``sum(a[i, ..., :] * b[j, ..., :, n])``, where inner has the last two axes of b swapped."""
    extra = () if out is None else (out,)
    x, y = np.asanyarray(a), np.asanyarray(b)
    if x.size <= 1 or y.size <= 1:
        return numpys[name](a, b, *extra)  # nothing is added up; and [] takes the other's dtype
    axis = max(y.ndim - 2, 0) if name == "dot" else y.ndim - 1
    before, depth, after = y.shape[:axis], y.shape[axis], y.shape[axis + 1 :]
    shape = x.shape[:-1] + before + after
    dtype = engine_dtype(x.dtype, y.dtype)
    if dtype is None:
        wider = wider_dtype(x.dtype, y.dtype)
        if wider is None:
            return left_to_numpy(name, NO_KERNELS, a, b, *extra)
        result = _sums(name, x.astype(wider), y.astype(wider)).astype(x.dtype)
        if out is None:
            return result
        if not _may_be_out(out, type(_new(x, y, x.dtype, ())), result.dtype, shape):
            return numpys[name](a, b, out)  # raises
        out[...] = result
        return out if out.ndim else _plain(out)[()]
    if x.shape[-1] != depth:
        return numpys[name](a, b, *extra)  # raises
    result = _new(x, y, dtype, shape) if out is None else out
    if out is not None and not _may_be_out(out, type(_new(x, y, dtype, ())), dtype, shape):
        return numpys[name](a, b, out)  # raises

    rows = prod(x.shape[:-1])
    x = _plain(x).reshape(rows, depth)
    target = _plain(result).reshape(rows, *before, *after)
    if not after:  # vectors: all of them as columns of one matrix
        y = _plain(y).reshape(prod(before), depth).T
        target = target.reshape(rows, prod(before))
    else:  # a stack of matrices: each makes its own columns of the result
        y = _plain(y)
        target = target.transpose(*range(1, len(before) + 1), 0, len(before) + 1)
    multiply_stacks(x, y, target)
    return result if result.ndim else _plain(result)[()]


def _may_be_out(out: Any, kind: type, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    right = type(out) is kind and isinstance(out, np.ndarray)
    return right and (out.dtype, out.shape) == (dtype, shape) and out.flags.carray


def multiply_stacks(x: Array, y: Array, target: Array) -> None:
    """``target = x @ y``; all are of one dtype, or can be cast to target's."""
    if target.dtype.isbuiltin != 1:  # bfloat16, of which matmul makes float32
        register_user_dtypes()
        dtype = target.dtype
        x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
        mixed_matmul(x, y, out=target, dtype=dtype)
    else:
        dot_gufunc(x, y, out=target)


@like(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """Dot product of two arrays: `numpy.dot`, on generated kernels.

    Parameters, result and errors are those of `numpy.dot`. NumPy does scalars, and what
    `matmul` leaves to it.

    Parameters
    ----------
    a, b : array_like
        Shapes ``(..., k)`` and ``(..., k, n)`` or ``(k,)``.
    out : ndarray, optional
        Where the result goes: C-contiguous, of just its dtype and shape.

    Returns
    -------
    ndarray or scalar
        ``sum(a[i, ..., :] * b[j, ..., :, n])``, of shape ``(i, ..., j, ..., n)``.

    Raises
    ------
    ValueError
        The shapes are not aligned, or `out` is not as it must be.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.dot([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    array([21., 43.])
    >>> nkblas.dot(np.ones((2, 3, 4)), np.ones((5, 4, 6))).shape
    (2, 3, 5, 6)
    """
    return _sums("dot", a, b, out)


@like(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    """Inner product of two arrays: `numpy.inner`, on generated kernels.

    Parameters, result and errors are those of `numpy.inner`. NumPy does scalars, and what
    `matmul` leaves to it.

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

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.inner([[1.0, 2.0], [3.0, 4.0]], [[1.0, 10.0]])
    array([[21.],
           [43.]])
    """
    return _sums("inner", a, b)


@like(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    """Dot product of the elements of two arrays: `numpy.vdot`, on generated kernels.

    Parameters, result and errors are those of `numpy.vdot`. NumPy does scalars, and what
    `matmul` leaves to it.

    Parameters
    ----------
    a, b : array_like
        As many elements each; they are taken as vectors.

    Returns
    -------
    scalar

    Raises
    ------
    ValueError
        The numbers of elements differ.

    Examples
    --------
    >>> import nkblas
    >>> float(nkblas.vdot([[1.0, 2.0], [3.0, 4.0]], [[1.0, 10.0], [100.0, 1000.0]]))
    4321.0
    """
    x, y = np.asanyarray(a), np.asanyarray(b)
    if x.size <= 1 or x.size != y.size:
        return numpys["vdot"](a, b)
    dtype = engine_dtype(x.dtype, y.dtype)
    if dtype is None:
        wider = wider_dtype(x.dtype, y.dtype)
        if wider is None:
            return left_to_numpy("vdot", NO_KERNELS, a, b)
        return vdot(x.astype(wider), y.astype(wider)).astype(x.dtype)
    if not type(x) is type(y) is np.ndarray:
        return left_to_numpy("vdot", "its operands are of a subclass", a, b)
    with np.errstate(all="ignore"):  # as NumPy's
        return vecdot(x.ravel(), y.ravel()).astype(dtype)  # it makes float32 of bfloat16


def rebuilt(function: Any, *helpers: str, **more: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's own function, with our products where it calls NumPy's.

    Parameters
    ----------
    function : function of NumPy's
    *helpers : str
        Functions of the same module that it calls and that call products too.
    **more : functions
        What the names in its module stand for, besides `dot` and `matmul`.
    """
    code = implementation(function)
    names: dict[str, Any] = {**code.__globals__, "dot": dot, "matmul": matmul, **more}

    def copied(numpy: Any) -> FunctionType:
        new = FunctionType(
            numpy.__code__, names, numpy.__name__, numpy.__defaults__, numpy.__closure__
        )
        new.__kwdefaults__ = numpy.__kwdefaults__
        return new

    for name in helpers:
        if name in names:  # some have come with later versions
            names[name] = copied(names[name])
    return copied(code)


_tensordot = rebuilt(np.tensordot)
_multi_dot = rebuilt(np.linalg.multi_dot, "_multi_dot", "_multi_dot_three")
_matrix_power = rebuilt(np.linalg.matrix_power)


@like(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Sums of products over given axes: `numpy.tensordot`, on generated kernels.

    Parameters, result and errors are those of `numpy.tensordot`; it is NumPy's own code around
    `dot`.

    Parameters
    ----------
    a, b : array_like
    axes : int or (axes of a, axes of b)
        The axes that are summed over; a number means the last of `a` and the first of `b`.

    Returns
    -------
    ndarray
        The other axes of `a`, then those of `b`.

    Raises
    ------
    ValueError
        The lengths of these axes differ.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.tensordot(np.ones((2, 3, 4)), np.ones((4, 3, 5)), ([1, 2], [1, 0])).shape
    (2, 5)
    """
    return _tensordot(a, b, axes)


@like(np.linalg.multi_dot)
def multi_dot(arrays: Sequence[Any], *, out: Any = None) -> Any:
    """Product of two or more arrays, in the cheapest order: `numpy.linalg.multi_dot`.

    Parameters, result and errors are those of `numpy.linalg.multi_dot`; it is NumPy's own code
    around `dot`.

    Parameters
    ----------
    arrays : sequence of array_like
        Matrices; the first and the last may be vectors.
    out : ndarray, optional
        Where the result goes: C-contiguous, of just its dtype and shape.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        There are fewer than two, or the shapes are not aligned.
    numpy.linalg.LinAlgError
        One of them is neither a matrix nor a vector.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.multi_dot([np.ones((2, 3)), np.ones((3, 4)), np.ones(4)])
    array([12., 12.])
    """
    return _multi_dot(arrays, out=out)


@like(np.linalg.matrix_power)
def matrix_power(a: Any, n: SupportsIndex) -> Any:
    """A square matrix to an integer power: `numpy.linalg.matrix_power`.

    Parameters, result and errors are those of `numpy.linalg.matrix_power`; it is NumPy's own code
    around `matmul`.

    Parameters
    ----------
    a : array_like
        A matrix or a stack of matrices: shape ``(..., m, m)``.
    n : int
        Below 0, it is the power of the inverse.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        `n` is no integer.
    numpy.linalg.LinAlgError
        A matrix is not square, or has no inverse.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.matrix_power([[1.0, 1.0], [1.0, 0.0]], 10)
    array([[89., 55.],
           [55., 34.]])
    """
    return _matrix_power(a, n)
