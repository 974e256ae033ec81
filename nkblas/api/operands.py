"""Operands as the engine takes them: of given dtypes, aligned, apart from the result."""

from typing import Any

import numpy as np

from nkblas.base.epilogues import READ_PADDING


def is_plain(array: np.ndarray, dtype: Any) -> bool:
    """Whether an array has this dtype, in the machine's byte order, and is aligned.

    Elements lie whole elements apart: complex numbers may be aligned without that.
    """
    if array.dtype != dtype or not array.flags.aligned:
        return False
    return not any(stride % array.itemsize for stride in array.strides)


def plain(array: np.ndarray, dtype: Any) -> np.ndarray:
    """An array with these properties: itself, or a copy."""
    return array if is_plain(array, dtype) else array.astype(dtype)


def result(out: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The array for a result: `out`, or a new one.

    Raises
    ------
    ValueError
        `out` is none that it fits, or that can be written.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or (out.shape, out.dtype) != (shape, dtype):
        got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else repr(out)
        raise ValueError(f"out: got {got}, expected an array of {dtype} of shape {shape}")
    if not out.flags.writeable:
        raise ValueError("out: got a read-only array, expected one that can be written")
    return out


def padded(values: np.ndarray, count: int, dtype: Any) -> np.ndarray:
    """So many numbers, or one for all, with zeros behind them: kernels read whole vectors."""
    room = np.zeros(count + READ_PADDING, dtype)
    room[:count] = values
    return room


def apart(array: np.ndarray, target: np.ndarray) -> np.ndarray:
    """An array with these values that does not overlap `target`: itself, or a copy."""
    return array.copy() if np.may_share_memory(array, target) else array
