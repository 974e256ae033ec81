"""Operands as the engine takes them: of given dtypes, aligned, apart from the result."""

from typing import Any

import numpy as np


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


def apart(array: np.ndarray, target: np.ndarray) -> np.ndarray:
    """An array with these values that does not overlap `target`: itself, or a copy."""
    return array.copy() if np.may_share_memory(array, target) else array
