"""Shared by the examples that compare libraries: interleaved timing, errors and tables."""

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import nkblas

Array = np.ndarray[Any, Any]

ROUNDS = 25

TIME_HEADINGS = "", "time", "over numpy", "over nkblas float32"
"""Headings of the cells that `time_cells` returns."""


class Times(NamedTuple):
    """Seconds that a call took in each round.

    Attributes
    ----------
    total : list of float
    products : list of float
        The part of it that nkblas spent on matrix products.
    """

    total: list[float]
    products: list[float]

    def speedup_over(self, other: "Times") -> float:
        """Speed-up over another call: the median over the rounds."""
        return statistics.median(y / x for x, y in zip(self.total, other.total, strict=True))


def time_interleaved(calls: Mapping[str, Callable[[], Array]]) -> dict[str, Times]:
    """Time several calls in rounds, so that a slow phase of the machine affects all of them.

    All kernels are compiled first. (A program that runs longer has them compiled in the
    background.)
    """
    with nkblas.record() as problems:
        for call in calls.values():
            call()
    nkblas.warmup(problems, tune=False, progress=False)
    times = {name: Times([], []) for name in calls}
    names = list(calls)
    for _ in range(ROUNDS):
        for name in names:
            with nkblas.record() as problems:
                start = perf_counter()
                calls[name]()
                times[name].total.append(perf_counter() - start)
            times[name].products.append(sum(problems.seconds.values()))
        names.reverse()
    return times


def time_cells(name: str, times: Mapping[str, Times]) -> tuple[str, ...]:
    """Cells below `TIME_HEADINGS`, for a call with a name such as "numpy float32"."""
    own = times[name]
    speedups = (own.speedup_over(times[f"{other} float32"]) for other in ("numpy", "nkblas"))
    return name, milliseconds(own.total), *(f"{speedup:.2f}" for speedup in speedups)


def milliseconds(seconds: list[float]) -> str:
    """The median as text."""
    return f"{1e3 * statistics.median(seconds):.2f} ms"


class Error(NamedTuple):
    """The error of a result.

    Attributes
    ----------
    relative : float
        Frobenius norm of the error, divided by that of the exact result.
    largest : float
        Largest error of an element, divided by the root mean square of the exact elements.
    """

    relative: float
    largest: float

    @classmethod
    def of(cls, result: Array, exact: Array) -> "Error":
        """The error of a result, given the exact one."""
        error = abs(result.astype(np.float64) - exact)
        rms = np.square(exact).mean() ** 0.5
        return cls(float(np.square(error).mean() ** 0.5 / rms), float(error.max() / rms))


def print_table(*rows: tuple[str, ...]) -> None:
    """Print rows as aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (rows[0], tuple("-" * width for width in widths), *rows[1:]):
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print()
