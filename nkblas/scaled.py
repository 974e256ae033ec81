"""Products of 8-bit integers whose sums are scaled: to float32, or to 8-bit integers again.

``activation(scale * (a @ b) + bias) + residual``, or that rounded, plus a zero point (the scheme of
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", arXiv 1712.05877).
"""

from typing import Any

import numpy as np

from . import _gufunc
from .epilogues import apply
from .fused import fused
from .matmul import matmul
from .operands import apart, plain, result, with_room

BYTES = (np.dtype(np.int8), np.dtype(np.uint8))
RESULTS = (np.dtype(np.float32), *BYTES)


def scaled_product(
    a: np.ndarray,
    b: np.ndarray,
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
        Shapes ``(m, k)`` and ``(k, n)``.
    """
    for name, array in (("a", a), ("b", b)):
        if array.dtype not in BYTES:
            raise TypeError(f"{name}: got {array.dtype} and a scale, expected int8 or uint8")
    dtype = np.dtype(out_dtype if out_dtype is not None else out.dtype if out is not None else "f4")
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
    target = out if out.flags.carray else np.empty(shape, dtype)
    left, right = (apart(plain(x, x.dtype), target) for x in (a, b))
    added = None if more.residual is None else apart(more.residual, target)
    # with a single column, rows and columns change places
    possible = 0 not in (*shape, a.shape[1]) and shape[1] > 1
    arguments = epilogue.fused, more.bias, added, *more.bounds, None, scales, float(zero_point)
    if not possible or not _gufunc.gemm(1, left, right, 0, target, 1, 1, *arguments):
        sums = matmul(left, right, dtype=np.int32)
        with np.errstate(all="ignore"):
            x = apply(epilogue, sums, more.bias, added, more.bounds, scales)
            target[...] = (
                x if ends is None else np.clip(np.rint(x) + zero_point, ends.min, ends.max)
            )
    if target is not out:
        out[...] = target
    return out


def _scales(value: Any, n: int) -> np.ndarray:
    """A factor for each column, with room behind them."""
    array = np.asarray(value)
    if array.shape not in ((), (1,), (n,), (1, n)):
        raise ValueError(f"scale: got shape {array.shape}, expected one number or ({n},)")
    if not np.can_cast(array.dtype, np.float32, "same_kind"):
        raise TypeError(f"scale: got {array.dtype}, expected floats")
    return with_room(array.ravel(), n, np.float32)
