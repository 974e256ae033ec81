"""What fits which cache, and which rows of a matrix evict each other from it.

Sizes are in bytes. All functions take arrays as well as numbers.
"""

from math import gcd
from typing import Any

import numpy as np

from nkblas.system.cpu import CPU

CACHE_LINE, PAGE = 64, 4096

USABLE_L1, USABLE_L2 = 0.75, 0.6
"""Fractions of the caches that an operand's block may take; the rest is for other data."""

USABLE_L2_WITH_STREAMS = 0.4
"""The same of L2 while panels of B and rows of C pass through it."""

L1, L2, BEYOND_L2 = 0, 1, 2
"""What `cache_level` returns."""


def cache_level(size: Any, cpu: CPU, usable_l2: Any = USABLE_L2) -> Any:
    """The cache that `size` bytes of an operand stay in: `L1`, `L2` or `BEYOND_L2`."""
    return (size > USABLE_L1 * cpu.l1d) * 1 + (size > usable_l2 * cpu.l2)


def has_l1_conflicts(rows: Any, stride: int, cpu: CPU) -> Any:
    """Whether rows that are `stride` bytes apart have so few sets of L1 that they evict each other.

    The leading dimension is taken to be a contiguous operand's.
    """
    way = cpu.l1d // cpu.l1d_ways
    sets = way // gcd(stride, way)
    return -(-rows // sets) > cpu.l1d_ways - 2  # two ways for the other operands


def occupied_bytes(rows: Any, length: Any, stride: int) -> Any:
    """The part of L2 that rows of `length` bytes, `stride` bytes apart, compete for.

    It is as large as they are, or larger: rows that are whole pages apart have only the sets of the
    same part of each page, wherever in memory the pages are.
    """
    return rows * np.maximum(length, gcd(stride, PAGE))
