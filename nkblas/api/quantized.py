"""Quantized `gemm`: 8-bit integers whose exact sums are scaled, to float32 or to 8 bits again.

The result is ``activation(scale * (a @ b) + bias) + residual`` in float32, or that rounded, with a
zero point added (the scheme of Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", arXiv 1712.05877).
"""

from typing import Any

import numpy as np

from nkblas.base.dtypes import PRODUCTS, QUANTIZED, numpy_name

from .epilogue_args import EpilogueArgs, to_epilogue_args
from .operands import Array, DType, padded_vector
from .packed import PackedMatrix

OPERAND_DTYPES = (np.dtype(np.int8), np.dtype(np.uint8))
RESULT_DTYPES = tuple(dict.fromkeys(np.dtype(numpy_name(PRODUCTS[x].c)) for x in QUANTIZED))


def quantized_result_dtype(a: Array, b: "Array | PackedMatrix", out: Any, out_dtype: Any) -> DType:
    """The dtype of ``gemm(a, b, scale=...)``: `out_dtype`, else that of `out`, else float32.

    Raises
    ------
    TypeError
        There is no quantized product of these dtypes.
    """
    for name, matrix in (("a", a), ("b", b)):
        if matrix.dtype not in OPERAND_DTYPES:
            raise TypeError(f"{name}: got {matrix.dtype} and a scale, expected int8 or uint8")
    if isinstance(b, PackedMatrix):
        if b.result_dtype in OPERAND_DTYPES:
            raise TypeError(
                f"b: got a matrix packed for sums of {b.result_dtype} and a scale, expected one "
                "for int32, which nkblas.pack makes where it is given no dtype"
            )
        if a.dtype != b.a_dtype:
            raise TypeError(f"a: got {a.dtype}, expected {b.a_dtype}, which b was packed for")
    dtype: DType = np.dtype(getattr(out, "dtype", "f4") if out_dtype is None else out_dtype)
    if dtype not in RESULT_DTYPES:
        names = ", ".join(map(str, RESULT_DTYPES))
        raise TypeError(f"out_dtype: got {dtype} and a scale, expected one of {names}")
    return dtype


def to_quantized_epilogue_args(
    scale: Any,
    zero_point: int,
    bias: Any,
    activation: Any,
    residual: Any,
    shape: tuple[int, int],
    dtype: DType,
) -> EpilogueArgs:
    """Convert the arguments of `gemm` for a quantized result of this shape and dtype.

    Raises
    ------
    ValueError
        A shape does not fit, `dtype` does not have the zero point, or there is no such activation.
    TypeError
        `scale` is not of floats, or `dtype` cannot have a residual.
    """
    limits = None if dtype.kind == "f" else np.iinfo(dtype)
    if zero_point != 0 and (limits is None or not limits.min <= zero_point <= limits.max):
        raise ValueError(f"zero_point: got {zero_point}, expected one that {dtype} has")
    if residual is not None and limits is not None:
        raise TypeError(f"residual: got one for {dtype}, expected float32 as the result")
    # what follows the scale is computed in float32
    args = to_epilogue_args(bias, activation, residual, shape, np.dtype(np.float32))
    return args._replace(
        epilogue=args.epilogue._replace(scales=True),
        scales=_to_scales(scale, shape[1]),
        zero_point=float(zero_point),
    )


def _to_scales(scale: Any, n: int) -> Array:
    """A scale for each column, padded for the kernels."""
    array = np.asarray(scale)
    if array.shape not in ((), (1,), (n,), (1, n)):
        raise ValueError(f"scale: got shape {array.shape}, expected one number or ({n},)")
    if not np.can_cast(array.dtype, np.float32, "same_kind"):
        raise TypeError(f"scale: got {array.dtype}, expected floats")
    return padded_vector(array.ravel(), n, np.dtype(np.float32))
