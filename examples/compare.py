"""What the examples that compare libraries share: times taken in turns, errors, tables."""

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import nkblas

Array = np.ndarray[Any, Any]

ROUNDS = 25


class Times(NamedTuple):
    """Of a call, in seconds, for each round.

    Attributes
    ----------
    all : list of float
    products : list of float
        What of it nkblas was multiplying.
    """

    all: list[float]
    products: list[float]

    def over(self, other: "Times") -> str:
        """How many times as fast as another call: the median over the rounds."""
        return f"{statistics.median(y / x for x, y in zip(self.all, other.all, strict=True)):.2f}"


def in_turns(calls: Mapping[str, Callable[[], Array]]) -> dict[str, Times]:
    """Time calls in rounds, in which what slows the machine down for a while slows down all.

    Before, all kernels are compiled, as it happens in the background in a program that goes on.
    """
    with nkblas.record() as products:
        for call in calls.values():
            call()
    nkblas.warmup(products, tune=False, progress=False)
    times = {name: Times([], []) for name in calls}
    names = list(calls)
    for _ in range(ROUNDS):
        for name in names:
            with nkblas.record() as products:
                start = perf_counter()
                calls[name]()
                times[name].all.append(perf_counter() - start)
            times[name].products.append(sum(products.seconds.values()))
        names.reverse()
    return times


COLUMNS = "", "time", "over numpy", "over nkblas float32"


def columns(name: str, times: Mapping[str, Times]) -> tuple[str, ...]:
    """What `COLUMNS` are the names of; calls have names such as "numpy float32"."""
    over = (times[name].over(times[f"{other} float32"]) for other in ("numpy", "nkblas"))
    return name, milliseconds(times[name].all), *over


def milliseconds(seconds: list[float]) -> str:
    """Their median."""
    return f"{1e3 * statistics.median(seconds):.2f} ms"


class Error(NamedTuple):
    """How far a result is from what it should be.

    Attributes
    ----------
    relative : float
        The Frobenius norm of what is wrong, over that of the result.
    largest : float
        What is wrong with one element at most, over the root mean square of all elements.
    """

    relative: float
    largest: float

    @classmethod
    def of(cls, result: Array, expected: Array) -> "Error":
        wrong = abs(result.astype(np.float64) - expected)
        size = np.square(expected).mean() ** 0.5
        return cls(float(np.square(wrong).mean() ** 0.5 / size), float(wrong.max() / size))


def table(*rows: tuple[str, ...]) -> None:
    """Print rows as aligned columns, the first row underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (rows[0], tuple("-" * width for width in widths), *rows[1:]):
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print()
