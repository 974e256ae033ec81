"""Memory between guard pages: a read or write beyond its ends stops the process."""

import ctypes
import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PAGE_BYTES = mmap.PAGESIZE


def bounds(array: Array) -> tuple[int, int]:
    """The extent of an array in memory, in bytes.

    Returns
    -------
    before : int
        From the lowest address of an element to the address of the first element.
    size : int
        From the lowest address to the end of the highest element.
    """
    if not array.size:
        return 0, 0
    before, after = 0, array.itemsize
    for length, stride in zip(array.shape, array.strides, strict=True):
        reach = (length - 1) * stride
        before, after = before - min(reach, 0), after + max(reach, 0)
    return before, before + after


def extent(array: Array) -> Array:
    """All bytes of an array's extent, including those between its elements."""
    before, size = bounds(array)
    memory: Any = (ctypes.c_char * size).from_address(array.ctypes.data - before)
    return np.ndarray(size, np.uint8, memory)


class Area:
    """An area of memory with an inaccessible page before and after it.

    Parameters
    ----------
    size : int
        Bytes; rounded up to whole pages.
    """

    def __init__(self, size: int) -> None:
        self.size = -(-size // PAGE_BYTES) * PAGE_BYTES
        self._map = mmap.mmap(-1, self.size + 2 * PAGE_BYTES)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + PAGE_BYTES
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for guard in (self._start - PAGE_BYTES, self._start + self.size):
            if protect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE_BYTES), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")

    @property
    def memory(self) -> Array:
        """All bytes of the area."""
        return np.frombuffer(self._map, np.uint8, self.size, PAGE_BYTES)

    def copy_in(self, array: Array, at_end: bool) -> Array:
        """Copy an array to the end or to the start of the area.

        The copy has the same strides, and the same bytes between its elements. It overwrites any
        earlier one.
        """
        before, size = bounds(array)
        first = self.size - size if at_end else 0
        ctypes.memmove(self._start + first, array.ctypes.data - before, size)
        offset = PAGE_BYTES + first + before
        return np.ndarray(array.shape, array.dtype, self._map, offset, array.strides)


class Areas:
    """Areas by name, one for each operand of a function; they grow when needed."""

    def __init__(self) -> None:
        self._areas: dict[str, Area] = {}

    def copy_in(self, name: str, array: Array, at_end: bool) -> Array:
        """Copy an array to the area `name`: see `Area.copy_in`."""
        size = bounds(array)[1]
        if name not in self._areas or self._areas[name].size < size:
            self._areas[name] = Area(size)
        return self._areas[name].copy_in(array, at_end)
