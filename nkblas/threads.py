"""How many threads a product may use."""

import operator
import os
from collections.abc import Mapping
from typing import SupportsIndex

from . import controller, runtime
from ._engine import lib


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


def first_number(environment: Mapping[str, str], cpus: int) -> int:
    """The number of threads to begin with.

    Raises
    ------
    ValueError
        ``NKBLAS_NUM_THREADS`` is not a number above 0.
    """
    text = environment.get("NKBLAS_NUM_THREADS", "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"NKBLAS_NUM_THREADS: got {text!r}, expected an integer above 0")
        return int(text)
    # OpenMP's may be a list, for nested levels; what OpenMP would ignore is ignored here too
    outer = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(outer) if outer.isdecimal() and int(outer) > 0 else cpus


set_num_threads(first_number(os.environ, runtime.cpu.cpus))
controller.install()
