"""`gemm`: a scaled matrix product, ``C = alpha * op(A) @ op(B) + beta * C``, with an epilogue.

The epilogue (bias, activation, residual) makes it a layer of a neural network.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nkblas.base.dtypes import FLOAT8, product

from .epilogue_args import to_epilogue_args
from .gemm_call import GemmCall
from .gufuncs import fast_path, register_user_dtypes
from .operands import Array, DType, Output, apply_trans, as_native_aligned, check_out
from .packed import PackedMatrix
from .quantized import quantized_result_dtype, to_quantized_epilogue_args


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
    out: Array | None = None,
    out_dtype: Any = None,
) -> Array:
    """Scaled matrix product with an epilogue: ``alpha * op(a) @ op(b) + beta * c``, in one pass.

    With an epilogue it is ``activation(alpha * op(a) @ op(b) + beta * c + bias) + residual``, also
    in one pass. All numeric dtypes run on nkblas except longdouble and clongdouble. Overflow and
    invalid operations raise no warnings.

    Parameters
    ----------
    a, b : array_like
        Matrices: ``op(a)`` has shape ``(m, k)``, ``op(b)`` has shape ``(k, n)``. Neither a memory
        order nor strides require a copy. `b` can be a `PackedMatrix` if `trans_b` is False.
    c : array_like, optional
        Shape ``(m, n)``. It is not modified unless it is also `out`. With ``beta=0`` it is not
        read.
    alpha, beta : scalar, optional
        With ``alpha=0``, `a` and `b` are not read.
    trans_a, trans_b : {False, True, 2}, optional
        The operation ``op``:

        - False (or 0): none, ``op(x) = x``
        - True (or 1): transpose, ``op(x) = x.T``
        - 2: conjugate transpose, ``op(x) = x.conj().T``
    bias : array_like, optional
        Shape ``(n,)`` for a number per column, ``(m, 1)`` for a number per row, or a scalar. It is
        added to the sums in the precision of the accumulators.
    activation : str or tuple, optional
        One of

        - "relu": ``max(x, 0)``
        - "gelu": ``x * (1 + erf(x / sqrt(2))) / 2``
        - "gelu_tanh": the approximation of "gelu" with tanh
        - "silu": ``x * sigmoid(x)``
        - "sigmoid", "tanh"
        - ``("clip", low, high)``: ``min(max(x, low), high)``

        Floats are rounded to the result's dtype after the activation. Integers have only "relu" and
        "clip".
    residual : array_like, optional
        Shape ``(m, n)``. It is added last.
    scale : array_like, optional
        Makes the product a quantized one: a float, or shape ``(n,)`` for a float per column. The
        operands are 8-bit integers; their exact sums are multiplied by `scale` in float32 before
        `bias` and the rest of the epilogue. The result is float32, or int8 or uint8 if `out_dtype`
        says so: rounded to the nearest integer (ties to even), `zero_point` added, and saturated.
        `c`, `alpha` and `beta` cannot be combined with it, and a packed `b` must be packed for
        int32.
    zero_point : int, optional
        The integer that represents 0 in a quantized result of 8 bits.
    out : ndarray, optional
        Array to write the result to: shape ``(m, n)`` and the dtype of the result. It may overlap
        the other arguments.
    out_dtype : dtype, optional
        The result's dtype. The product is computed in it: 8-bit integers with int32 give exact
        sums, float16 or bfloat16 with float32 sums that are not rounded to 16 bits; the operands
        are not copied for that.

    Returns
    -------
    ndarray
        Shape ``(m, n)``; `out` if that is given. Its dtype is `out_dtype`, else the one that `a`,
        `b` and `c` promote to with `alpha` and `beta` as Python scalars. Each element is within
        ``(k + 2) * eps * (abs(alpha) * abs(op(a)) @ abs(op(b)) + abs(beta * c))`` of the exact
        result (twice that for complex dtypes; float16 and bfloat16 are accumulated in float32 and
        rounded once).

    Raises
    ------
    ValueError
        A shape does not fit, `out` has another dtype, `beta` is not 0 and `c` is missing, or there
        is no such activation.
    TypeError
        The dtype of the product cannot be cast to `out_dtype`, or `bias` or `residual` cannot be
        cast to the result's dtype (``casting="same_kind"``), or the activation is not defined for
        it.

    See Also
    --------
    matmul : the product alone, of stacks of matrices too.
    pack : packs a `b` that is multiplied many times.
    brgemm : the sum of many products.
    blas : the same product with the arguments of `scipy.linalg.blas`.

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
    if isinstance(b, PackedMatrix) and _check_trans("trans_b", trans_b):
        raise ValueError(f"trans_b: got {trans_b} and a packed matrix, expected pack(b.T)")
    if scale is not None and (c is not None or alpha != 1 or beta != 0):
        raise TypeError("scale: got c, alpha or beta with it, expected none of them")
    if scale is None and zero_point != 0:
        raise TypeError(f"zero_point: got {zero_point} and no scale, expected a scale")
    alpha, beta = _to_number("alpha", alpha), _to_number("beta", beta)
    a, b = _to_matrix("a", a), b if isinstance(b, PackedMatrix) else _to_matrix("b", b)
    c = None if c is None else _to_matrix("c", c)
    register_user_dtypes()
    if scale is None:
        dtypes = _dtypes(a, b, c, (alpha, beta), out_dtype)
    else:
        dtypes = _quantized_dtypes(a, b, out, out_dtype)
    a, conj_a = apply_trans(as_native_aligned(a, dtypes.a), _check_trans("trans_a", trans_a))
    conj_b = False
    if not isinstance(b, PackedMatrix):
        b, conj_b = apply_trans(as_native_aligned(b, dtypes.b), _check_trans("trans_b", trans_b))
    shape = _result_shape(a, b, c, beta)
    result = check_out(out, shape, dtypes.result)
    epilogue_arguments = bias, activation, residual, shape, dtypes.result.newbyteorder("=")
    if scale is None:
        epilogue = to_epilogue_args(*epilogue_arguments)
    else:
        epilogue = to_quantized_epilogue_args(scale, zero_point, *epilogue_arguments)
    # the engine adds a residual and scales columns only in a C in row-major order
    row_major = scale is not None or epilogue.residual is not None
    output = Output.prepare(result, dtypes.c, row_major=row_major)
    call = GemmCall(a, b, output.target, alpha, beta, conj_a, conj_b, epilogue)
    if out is not None:
        call = call.without_overlap()
    if beta != 0 and output.target is not c:
        output.target[...] = c
    call.execute()
    return output.finish()


class DTypes(NamedTuple):
    """The dtypes of one product.

    Attributes
    ----------
    a, b : dtype
        The operands are converted to these dtypes.
    c : dtype
        The dtype of C in the kernels.
    result : dtype
        The dtype of the array to return, which C is cast to.
    """

    a: DType
    b: DType
    c: DType
    result: DType


def _dtypes(
    a: Array, b: "Array | PackedMatrix", c: Array | None, factors: tuple[Any, Any], out_dtype: Any
) -> DTypes:
    """The dtypes of a product that is not quantized; `factors` are alpha and beta."""
    added = [] if c is None else [c.dtype]
    if isinstance(b, PackedMatrix):
        if not np.can_cast(a.dtype, b.a_dtype):
            raise TypeError(f"a: got {a.dtype}, expected {b.a_dtype}, which b was packed for")
        result = _promote([b.result_dtype, *added], factors)
        if out_dtype is not None:
            result = _to_out_dtype(out_dtype, b.result_dtype)
        if result != b.result_dtype:
            raise TypeError(
                f"out_dtype: got {result}, expected {b.result_dtype}, as b was packed for"
            )
        return DTypes(b.a_dtype, b.dtype, result, result)
    result = _promote([a.dtype, b.dtype, *added], factors)
    if out_dtype is not None:
        result = _to_out_dtype(out_dtype, result)
    return DTypes(*_kernel_dtypes(a.dtype, b.dtype, result.newbyteorder("=")), result)


@lru_cache
def _kernel_dtypes(a: DType, b: DType, result: DType) -> tuple[DType, DType, DType]:
    """The dtypes of A, B and C that have kernels, for a result that C is cast to.

    The operands keep their own dtypes if there are kernels for those. Integers wrap, so they may
    be converted to the result's dtype before they are multiplied.
    """
    common = result if result.kind in "iu" else np.result_type(a, b, result)
    own = np.result_type(a), np.result_type(b)  # in native byte order
    for c in (result, np.dtype(np.float32)):  # float32 holds all values of dtypes without kernels
        for operands in (own, (common, common)):
            if product(*(dtype.name for dtype in (*operands, c))):
                return *operands, c
    return common, common, common


def _quantized_dtypes(a: Array, b: "Array | PackedMatrix", out: Any, out_dtype: Any) -> DTypes:
    result = quantized_result_dtype(a, b, out, out_dtype)
    return DTypes(a.dtype, b.dtype, result, result)


def _promote(dtypes: Sequence[DType], factors: tuple[Any, ...]) -> DType:
    """The dtype of arrays of these dtypes, scaled by Python's own numbers."""
    dtype = np.result_type(*dtypes)
    is_of_package = dtype.isbuiltin == 2
    # `ml_dtypes` promotes its own and a float to float64
    if is_of_package and dtype.name in ("bfloat16", *FLOAT8):
        factors = tuple(x for x in factors if isinstance(x, complex))
    return np.result_type(dtype, *factors)


def _to_out_dtype(value: Any, natural: DType) -> DType:
    """The dtype that `out_dtype` names, if a product of dtype `natural` can be cast to it."""
    try:
        dtype: DType = np.dtype(value)
    except TypeError:
        raise TypeError(f"out_dtype: got {value!r}, expected a dtype") from None
    if not np.can_cast(natural, dtype, "same_kind"):
        raise TypeError(
            f"out_dtype: got {dtype}, expected one that {natural}, the type of the product, can "
            "be cast to (same_kind)"
        )
    return dtype


def _to_matrix(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.ndim != 2:
        raise ValueError(f"{name}: got shape {array.shape}, expected a matrix")
    return array


def _to_number(name: str, value: Any) -> Any:
    """A scalar as Python's own number, which does not take part in type promotion."""
    try:
        number = value.item() if hasattr(value, "item") else value
        number + 0
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {value!r}, expected a number") from None
    return number


def _check_trans(name: str, value: Any) -> int:
    if value not in (0, 1, 2):
        raise ValueError(f"{name}: got {value!r}, expected False, True or 2")
    return int(value)


def _result_shape(
    a: Array, b: "Array | PackedMatrix", c: Array | None, beta: Any
) -> tuple[int, int]:
    """The shape of ``a @ b``, if the operands and `c` fit."""
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"b: got op(b) of shape {b.shape}, expected ({a.shape[1]}, n) "
            f"to multiply op(a) of shape {a.shape}"
        )
    shape = a.shape[0], b.shape[1]
    if c is None and beta != 0:
        raise ValueError(f"beta: got {beta} and no c, expected c of shape {shape}")
    if c is not None and c.shape != shape:
        raise ValueError(f"c: got shape {c.shape}, expected {shape}")
    return shape
