"""How many threads a product may use."""

import operator
from typing import SupportsIndex

from nkblas._engine import lib
from nkblas.system import config
from nkblas.system.cpu import cpu

from . import threadpoolctl


def set_num_threads(n: SupportsIndex) -> None:
    """Set how many threads a product may use, this thread included, in the whole process.

    Parameters
    ----------
    n : int
        At least 1. Small products use fewer, and none uses more than there are CPUs in the
        affinity mask of the thread that asks for it.

    Raises
    ------
    TypeError, ValueError
        `n` is no integer; it is below 1.
    """
    try:
        number = operator.index(n)
    except TypeError:
        raise TypeError(f"n: got {n!r}, expected an integer") from None
    if number < 1:
        raise ValueError(f"n: got {number}, expected at least 1")
    lib.nk_set_num_threads(min(number, 1 << 20))


def get_num_threads() -> int:
    """The number of threads that a product may use (see `set_num_threads`).

    At first it is ``NKBLAS_NUM_THREADS``, or ``OMP_NUM_THREADS``, or ``nkblas.cpu.cpus``.

    Returns
    -------
    int
    """
    return int(lib.nk_get_num_threads())


set_num_threads(config.num_threads(cpu.cpus))
threadpoolctl.install()
