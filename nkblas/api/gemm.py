"""`gemm`: a matrix product that is scaled and added, ``C = alpha * op(A) @ op(B) + beta * C``.

With what makes it a layer of a neural network: a bias, an activation, a residual.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nkblas import _numpy_ext
from nkblas.base.dtypes import FLOAT8, product

from .fused import NO_EPILOGUE, Fused, accumulator_dtype, fused
from .gufuncs import fast_path, matmul, register_user_dtypes
from .operands import apart, is_plain, plain, result
from .packed import PackedMatrix
from .quantized import scaled_product


@fast_path
def gemm(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    alpha: complex = 1,
    beta: complex = 0,
    trans_a: int = False,
    trans_b: int = False,
    bias: Any = None,
    activation: Any = None,
    residual: Any = None,
    scale: Any = None,
    zero_point: int = 0,
    out: np.ndarray | None = None,
    out_dtype: Any = None,
) -> np.ndarray:
    """Scale a matrix product and add it: ``alpha * op(a) @ op(b) + beta * c``, in one pass.

    In the same pass, it can become a layer: ``activation(... + bias) + residual``. All types of
    numbers run on nkblas but for longdouble and clongdouble. Overflow and invalid operations raise
    no warnings.

    Parameters
    ----------
    a, b : array_like
        Matrices: ``op(a)`` has shape ``(m, k)``, ``op(b)`` has shape ``(k, n)``. No memory layout
        of them costs a copy. `b` may be a `PackedMatrix`, with ``op`` nothing.
    c : array_like, optional
        Shape ``(m, n)``. It is not changed, unless it is `out` too. With ``beta=0`` it is not read.
    alpha, beta : scalar
        With ``alpha=0``, `a` and `b` are not read.
    trans_a, trans_b : {False, True, 2}
        What ``op`` is: nothing, the transpose, the conjugate transpose.
    bias : array_like, optional
        Shape ``(n,)``, a number for each column, or ``(m, 1)``, for each row; or one for all. It is
        added to the sums in their own precision.
    activation : str or tuple, optional
        "relu", "gelu" (with erf), "gelu_tanh" (its approximation), "silu", "sigmoid", "tanh", or
        ``("clip", low, high)``. Floats are rounded to the result's dtype after it; integers have
        "relu" and "clip".
    residual : array_like, optional
        Shape ``(m, n)``. It is added in the end.
    scale : array_like, optional
        A number, or ``(n,)``, one for each column, of floats: for 8-bit integers, whose exact sums
        it makes float32 of, before `bias` and all that follows. The result is float32, or with
        `out_dtype` int8 or uint8: rounded to the nearest (to even in a tie), `zero_point` added,
        and saturated. Neither `c` nor `alpha` go with it. A packed `b` is one for int32.
    zero_point : int, optional
        What stands for 0 in a result of 8 bits.
    out : ndarray, optional
        Where the result goes: shape ``(m, n)`` and the dtype of the result. It may overlap the
        other arguments.
    out_dtype : dtype, optional
        The result's dtype. The product is made with it: of 8-bit integers and int32 it is exact,
        of float16 or bfloat16 and float32 it is not rounded in between, and the operands are not
        copied for that.

    Returns
    -------
    ndarray
        Shape ``(m, n)``; of the dtype that `a`, `b` and `c` promote to, where `alpha` and `beta`
        are Python's own numbers, or `out_dtype`. It is `out` if that is given. Each element is
        within ``(k + 2) * eps * (abs(alpha) * abs(op(a)) @ abs(op(b)) + abs(beta * c))`` of the
        exact one (twice that for complex types; float16 and bfloat16 are summed up in float32, and
        rounded once).

    Raises
    ------
    ValueError
        A shape does not fit, `out` has another dtype, there is no `c` for a `beta`, or no such
        activation.
    TypeError
        What `a` and `b` promote to can't be cast to `out_dtype` (``casting="same_kind"``), nor
        `bias` or `residual` to the result's; or the activation is none for it.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> a, c = np.array([[1.0, 2.0], [3.0, 4.0]]), np.ones((2, 2))
    >>> nkblas.gemm(a, a, c, alpha=2, beta=-1, trans_a=True)
    array([[19., 27.],
           [27., 39.]])
    >>> nkblas.gemm(a, a, c, beta=1, out=c) is c
    True
    >>> nkblas.gemm(a, a, bias=[-8, 1], activation="relu")
    array([[ 0., 11.],
           [ 7., 23.]])
    """
    if isinstance(b, PackedMatrix) and _trans("trans_b", trans_b):
        raise ValueError(f"trans_b: got {trans_b} and a packed matrix, expected pack(b.T)")
    if scale is not None:
        if c is not None or alpha != 1 or beta != 0:
            raise TypeError("scale: got c, alpha or beta with it, expected none of them")
        left = turned(_matrix("a", a), _trans("trans_a", trans_a))[0]
        right: Any = b
        if not isinstance(b, PackedMatrix):
            right = turned(_matrix("b", b), _trans("trans_b", trans_b))[0]
        _fit(left, right)
        how = scale, zero_point, bias, activation, residual
        return scaled_product(left, right, *how, out, out_dtype)
    if zero_point != 0:
        raise TypeError(f"zero_point: got {zero_point} and no scale, expected a scale")
    alpha, beta = _number("alpha", alpha), _number("beta", beta)
    arrays: dict[str, Any] = {"a": _matrix("a", a)}
    arrays["b"] = b if isinstance(b, PackedMatrix) else _matrix("b", b)
    if c is not None:
        arrays["c"] = _matrix("c", c)
    register_user_dtypes()
    if isinstance(b, PackedMatrix):
        dtype = work = _dtype_of_packed(b, arrays, (alpha, beta), out_dtype)
        left, conj_a = turned(plain(arrays["a"], b.a_dtype), _trans("trans_a", trans_a))
        right, conj_b = b, False
    else:
        dtype = _promoted([x.dtype for x in arrays.values()], (alpha, beta))
        if out_dtype is not None:
            dtype = _out_dtype(out_dtype, dtype)
        type_a, type_b, work = _types(arrays["a"], arrays["b"], dtype)
        left, conj_a = turned(plain(arrays["a"], type_a), _trans("trans_a", trans_a))
        right, conj_b = turned(plain(arrays["b"], type_b), _trans("trans_b", trans_b))
    _fit(left, right)
    shape = left.shape[0], right.shape[1]
    if c is None and beta != 0:
        raise ValueError(f"beta: got {beta} and no c, expected c of shape {shape}")
    if c is not None and arrays["c"].shape != shape:
        raise ValueError(f"c: got shape {arrays['c'].shape}, expected {shape}")
    out = result(out, shape, dtype)
    more = fused(bias, activation, residual, shape, dtype)
    left = apart(left, out)
    right = right if isinstance(right, PackedMatrix) else apart(right, out)
    place = np.asarray(out)  # whatever a subclass makes of its elements
    in_place = is_plain(place, work)
    if more.residual is not None:  # which lies in rows
        more = more._replace(residual=apart(more.residual, out))
        in_place = in_place and place.flags.c_contiguous
    target = place if in_place else np.empty(shape, work)
    if beta != 0 and target is not c:
        target[...] = arrays["c"]
    multiply(
        alpha, left, right, beta, target, conj_a, conj_b, more if work == dtype else NO_EPILOGUE
    )
    if work != dtype:
        more.apply(target)
    if target is not place:
        with np.errstate(all="ignore"):
            np.copyto(place, target, casting="unsafe")
    return out


def _matrix(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 2:
        raise ValueError(f"{name}: got shape {array.shape}, expected a matrix")
    return array


def _fit(left: Any, right: Any) -> None:
    if left.shape[1] != right.shape[0]:
        raise ValueError(
            f"b: got op(b) of shape {right.shape}, expected ({left.shape[1]}, n) "
            f"to multiply op(a) of shape {left.shape}"
        )


def _types(
    a: np.ndarray, b: np.ndarray, dtype: np.dtype[Any]
) -> tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]:
    """The types of both operands, and of what their product is made in, for a result of `dtype`.

    Where there are kernels for the operands as they are, these are left so. Integers wrap, and may
    do so before they are multiplied.
    """
    common = dtype if dtype.kind in "iu" else np.result_type(a, b, dtype)
    as_they_are = np.result_type(a), np.result_type(b)  # in native byte order
    for work in (dtype, np.dtype(np.float32)):  # which is what types without kernels fit
        for types in (as_they_are, (common, common)):
            if product(*(x.name for x in (*types, work))):
                return *types, work
    return common, common, common


def _promoted(dtypes: Sequence[np.dtype[Any]], factors: tuple[Any, ...]) -> np.dtype[Any]:
    """The dtype of what arrays are scaled to by Python's own numbers."""
    dtype = np.result_type(*dtypes)
    if dtype.name in ("bfloat16", *FLOAT8):  # `ml_dtypes` would make float64 of it
        factors = tuple(x for x in factors if isinstance(x, complex))
    return np.result_type(dtype, *factors)


def _dtype_of_packed(
    b: PackedMatrix, arrays: dict[str, Any], factors: tuple[Any, Any], out_dtype: Any
) -> np.dtype[Any]:
    """The dtype of a product with a packed matrix: there is one that can be had."""
    a, added = arrays["a"].dtype, (arrays[name].dtype for name in arrays if name == "c")
    if not np.can_cast(a, b.a_dtype):
        raise TypeError(f"a: got {a}, expected {b.a_dtype}, which b was packed for")
    dtype = _promoted([b.result_dtype, *added], factors)
    if out_dtype is not None:
        dtype = _out_dtype(out_dtype, b.result_dtype)
    if dtype != b.result_dtype:
        raise TypeError(f"out_dtype: got {dtype}, expected {b.result_dtype}, as b was packed for")
    return dtype


def _out_dtype(value: Any, natural: np.dtype[Any]) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(f"out_dtype: got {value!r}, expected a dtype") from None
    if not np.can_cast(natural, dtype, "same_kind"):
        raise TypeError(
            f"out_dtype: got {dtype}, expected one that {natural}, the type of the product, can "
            "be cast to (same_kind)"
        )
    return dtype


def _number(name: str, value: Any) -> Any:
    """A scalar as Python's own number, which leaves the dtypes of arrays as they are."""
    try:
        number = value.item() if hasattr(value, "item") else value
        number + 0
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {value!r}, expected a number") from None
    return number


def _trans(name: str, value: Any) -> int:
    if value not in (0, 1, 2):
        raise ValueError(f"{name}: got {value!r}, expected False, True or 2")
    return int(value)


def turned(array: np.ndarray, trans: int) -> tuple[np.ndarray, bool]:
    """``op(array)``, but for the conjugate; and whether it is that."""
    return array.T if trans else array, trans == 2 and array.dtype.kind == "c"


def multiply(
    alpha: Any,
    a: np.ndarray,
    b: np.ndarray | PackedMatrix,
    beta: Any,
    c: np.ndarray,
    conj_a: bool = False,
    conj_b: bool = False,
    more: Fused = NO_EPILOGUE,
) -> None:
    """``c = alpha * a @ b + beta * c``, and `more`, where nothing is left to check.

    Shapes fit, there are kernels for the dtypes, or all are the same; all is aligned and in the
    machine's byte order, and `c` overlaps neither `a` nor `b`. Of complex matrices, it may be the
    conjugate that is multiplied.
    """
    some = alpha != 0 and c.size > 0 and a.shape[1] > 0
    # kernels scale by floats: what they do with integers is to add
    scales = c.dtype.kind not in "iub" or (alpha == 1 and beta in (0, 1))
    turn, sign = -1 if conj_a != conj_b else 1, -1 if conj_b else 1
    at_once = not more.epilogue.is_fused or more.in_kernels(c.dtype)
    arguments = more.arguments if at_once and more is not NO_EPILOGUE else ()
    if some and scales and _numpy_ext.gemm(alpha, a, b, beta, c, turn, sign, *arguments):
        if not at_once:
            more.apply(c)
        return
    with np.errstate(all="ignore"):
        sums = c.astype(
            accumulator_dtype(c.dtype), copy=False
        )  # what is narrow is rounded once, in the end
        if some:
            left, right = a.conj() if conj_a else a, b
            if isinstance(b, PackedMatrix):
                right = b if sums is c else b.unpack()
            elif conj_b:
                right = b.conj()
            product = matmul(left, right, dtype=sums.dtype, casting="unsafe")
            scaled = 0 if beta == 0 else sums if beta == 1 else beta * sums
            sums[...] = (product if alpha == 1 else alpha * product) + scaled
        else:
            _scale(sums, beta)
        more.apply(sums)
        if sums is not c:
            c[...] = sums


def _scale(x: np.ndarray, factor: Any) -> None:
    """``x *= factor``; 0 clears, and a real factor leaves infinities alone."""
    if factor == 0:
        x[...] = 0
    elif x.dtype.kind == "c" and factor.imag == 0:
        _scale(x.real, factor.real)
        _scale(x.imag, factor.real)
    elif factor != 1:
        x *= factor
