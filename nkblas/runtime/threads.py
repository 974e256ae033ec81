"""The number of threads that a product may use.

How many of them a product does use is decided in the engine (``nk_threads_for``,
engine/partition.c).
"""

import operator
from typing import SupportsIndex

from nkblas._engine import lib
from nkblas.system import config
from nkblas.system.cpu import cpu

from . import threadpoolctl

MAX_THREADS = 1 << 20
"""Larger numbers mean the same."""


def set_num_threads(n: SupportsIndex) -> None:
    """Set how many threads a product may use, in the whole process.

    Parameters
    ----------
    n : int
        At least 1: the calling thread counts. Small products use fewer, and no product uses more
        than the calling thread's affinity mask has CPUs.

    Raises
    ------
    TypeError
        `n` is not an integer.
    ValueError
        `n` is below 1.

    See Also
    --------
    get_num_threads
    """
    try:
        number = operator.index(n)
    except TypeError:
        raise TypeError(f"n: got {n!r}, expected an integer") from None
    if number < 1:
        raise ValueError(f"n: got {number}, expected at least 1")
    lib.nk_set_num_threads(min(number, MAX_THREADS))


def get_num_threads() -> int:
    """The number of threads that a product may use (see `set_num_threads`).

    At first it is ``NKBLAS_NUM_THREADS``, or ``OMP_NUM_THREADS``, or ``nkblas.cpu.cpus``.

    Returns
    -------
    int

    See Also
    --------
    set_num_threads
    """
    return int(lib.nk_get_num_threads())


set_num_threads(config.num_threads(cpu.cpus))
threadpoolctl.install()
