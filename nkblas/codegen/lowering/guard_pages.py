"""Memory between pages that can't be touched: who reads or writes a byte too many is stopped."""

import ctypes
import mmap
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE


def bounds(array: np.ndarray) -> tuple[int, int]:
    """How many bytes there are from the first byte of an array to its data, and to its end."""
    if not array.size:
        return 0, 0
    before, after = 0, array.itemsize
    for length, stride in zip(array.shape, array.strides, strict=True):
        reach = (length - 1) * stride
        before, after = before - min(reach, 0), after + max(reach, 0)
    return before, before + after


def extent(array: np.ndarray) -> np.ndarray:
    """All bytes from the first to the last one of an array: also those between its elements."""
    before, size = bounds(array)
    memory: Any = (ctypes.c_char * size).from_address(array.ctypes.data - before)
    return np.ndarray(size, np.uint8, memory)


class Area:
    """At least so many bytes, after a page that can't be touched and before another one.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        self._map = mmap.mmap(-1, self.size + 2 * PAGE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + PAGE
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for fence in (self._start - PAGE, self._start + self.size):
            if protect(ctypes.c_void_p(fence), ctypes.c_size_t(PAGE), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")

    @property
    def memory(self) -> np.ndarray:
        """All of its bytes."""
        return np.frombuffer(self._map, np.uint8, self.size, PAGE)

    def hold(self, array: np.ndarray, at_end: bool) -> np.ndarray:
        """A copy that ends where the area ends, or begins where it begins.

        It lies as `array` does, with the same bytes between its elements. It is the only one here
        until the next one.
        """
        before, size = bounds(array)
        first = self.size - size if at_end else 0
        ctypes.memmove(self._start + first, array.ctypes.data - before, size)
        place = PAGE + first + before
        return np.ndarray(array.shape, array.dtype, self._map, place, array.strides)


class Areas:
    """One for each operand of a function, by name; they grow as they have to."""

    def __init__(self) -> None:
        self._areas: dict[str, Area] = {}

    def hold(self, name: str, array: np.ndarray, at_end: bool) -> np.ndarray:
        """What `Area.hold` returns."""
        size = bounds(array)[1]
        if name not in self._areas or self._areas[name].size < size:
            self._areas[name] = Area(size)
        return self._areas[name].hold(array, at_end)
