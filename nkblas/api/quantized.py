"""Products of 8-bit integers whose sums are scaled: to float32, or to 8-bit integers again.

``activation(scale * (a @ b) + bias) + residual``, or that rounded, plus a zero point (the scheme of
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", arXiv 1712.05877).
"""

from typing import Any

import numpy as np

from nkblas import _numpy_ext
from nkblas.base.epilogues import apply

from .fused import fused
from .gufuncs import matmul
from .operands import apart, padded, plain, result
from .packed import PackedMatrix

BYTES = (np.dtype(np.int8), np.dtype(np.uint8))
RESULTS = (np.dtype(np.float32), *BYTES)


def scaled_product(
    a: np.ndarray,
    b: np.ndarray | PackedMatrix,
    scale: Any,
    zero_point: int,
    bias: Any,
    activation: Any,
    residual: Any,
    out: np.ndarray | None,
    out_dtype: Any,
) -> np.ndarray:
    """What `gemm` does where it is given a `scale`; its parameters are described there.

    Parameters
    ----------
    a, b : ndarray
        Shapes ``(m, k)`` and ``(k, n)``; `b` may be packed.
    """
    for name, matrix in (("a", a), ("b", b)):
        if matrix.dtype not in BYTES:
            raise TypeError(f"{name}: got {matrix.dtype} and a scale, expected int8 or uint8")
    if isinstance(b, PackedMatrix):
        if b.result_dtype in BYTES:
            raise TypeError(
                f"b: got a matrix packed for sums of {b.result_dtype} and a scale, expected one "
                "for int32, which nkblas.pack makes where it is given no dtype"
            )
        if a.dtype != b.a_dtype:
            raise TypeError(f"a: got {a.dtype}, expected {b.a_dtype}, which b was packed for")
    dtype = np.dtype(getattr(out, "dtype", "f4") if out_dtype is None else out_dtype)
    if dtype not in RESULTS:
        names = ", ".join(str(result) for result in RESULTS)
        raise TypeError(f"out_dtype: got {dtype} and a scale, expected one of {names}")
    ends = np.iinfo(dtype) if dtype in BYTES else None
    if zero_point != 0 and (ends is None or not ends.min <= zero_point <= ends.max):
        raise ValueError(f"zero_point: got {zero_point}, expected one that {dtype} has")
    if residual is not None and ends is not None:
        raise TypeError(f"residual: got one for {dtype}, expected float32 as the result")
    shape = a.shape[0], b.shape[1]
    out = result(out, shape, dtype)
    more = fused(bias, activation, residual, shape, np.dtype(np.float32))
    epilogue = more.epilogue._replace(scales=True)
    scales = _scales(scale, shape[1])
    place = np.asarray(out)  # whatever a subclass makes of its elements
    target = place if place.flags.carray else np.empty(shape, dtype)
    left = apart(plain(a, a.dtype), target)
    right = b if isinstance(b, PackedMatrix) else apart(plain(b, b.dtype), target)
    added = None if more.residual is None else apart(more.residual, target)
    # with a single column, rows and columns change places, but not of what is packed
    possible = 0 not in (*shape, a.shape[1]) and (shape[1] > 1 or isinstance(b, PackedMatrix))
    arguments = epilogue.fused_code, more.bias, added, *more.bounds, None, scales, float(zero_point)
    if not possible or not _numpy_ext.gemm(1, left, right, 0, target, 1, 1, *arguments):
        right = right.unpack() if isinstance(right, PackedMatrix) else right
        sums = matmul(left, right, dtype=np.int32)
        with np.errstate(all="ignore"):
            x = apply(epilogue, sums, more.bias, added, more.bounds, scales)
            target[...] = (
                x if ends is None else np.clip(np.rint(x) + zero_point, ends.min, ends.max)
            )
    if target is not place:
        place[...] = target
    return out


def _scales(value: Any, n: int) -> np.ndarray:
    """A factor for each column, with room behind them."""
    array = np.asarray(value)
    if array.shape not in ((), (1,), (n,), (1, n)):
        raise ValueError(f"scale: got shape {array.shape}, expected one number or ({n},)")
    if not np.can_cast(array.dtype, np.float32, "same_kind"):
        raise TypeError(f"scale: got {array.dtype}, expected floats")
    return padded(array.ravel(), n, np.float32)
