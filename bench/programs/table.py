"""Text report: a table of the programs, printed row by row."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isnan, nan
from statistics import median
from typing import NamedTuple

from ..report import geometric_mean
from .measurements import ProgramResult, Way


class Column(NamedTuple):
    """A column of numbers.

    Attributes
    ----------
    heading : str
    value : callable
        Function from a result to a number, NaN for none.
    number_format : str
        Format specification of the value.
    is_ratio : bool
        Whether the column has a geometric mean.
    """

    heading: str
    value: Callable[[ProgramResult], float]
    number_format: str
    is_ratio: bool

    def format(self, value: float) -> str:
        """A value as text, "-" for NaN."""
        return "-" if isnan(value) else f"{value:{self.number_format}}"


def columns(ways: Sequence[Way]) -> list[Column]:
    """The columns after that of plain Python's times."""
    selected: list[Column] = []
    if "cold" in ways:
        selected.append(Column("cold", lambda x: x.speedup("cold"), ".2f", True))
        selected.append(Column("cold - plain", lambda x: x.loss("cold"), "+.2f", False))
    if "warm" in ways:
        selected.append(Column("warm", lambda x: x.speedup("warm"), ".2f", True))
        selected.append(Column("CPU warm", lambda x: x.cpu_ratio("warm"), ".2f", True))
    return selected


def print_table(
    results: Iterable[ProgramResult], ways: Sequence[Way], title: str
) -> Iterator[ProgramResult]:
    """Print each result as soon as `results` yields it, and yield it; then print a summary."""
    print(f"\n{title}")
    print("plain: seconds of plain Python, median (minimum-maximum)")
    print("cold, warm: its time divided by that of nkblas run, with an empty and a used cache")
    print("cold - plain: seconds; CPU warm: CPU time of nkblas run divided by that of plain Python")
    selected = columns(ways)
    _print_row("", ["plain", *(column.heading for column in selected)])
    finished: list[ProgramResult] = []
    for result in results:
        if result.seconds("plain"):
            finished.append(result)
            cells = [column.format(column.value(result)) for column in selected]
            _print_row(result.name, [_plain_cell(result), *cells])
        if result.absent:
            print(f"absent: {result.name}: {result.absent}", flush=True)
        for text in result.errors:
            print(f"ERROR: {result.name}: {text}", flush=True)
        for text in result.notes:
            print(f"note: {result.name}: {text}", flush=True)
        yield result
    for name, summarize in (("geometric mean", geometric_mean), ("minimum", min), ("maximum", max)):
        cells = []
        for column in selected:
            values = [value for value in map(column.value, finished) if not isnan(value)]
            has_value = values and (column.is_ratio or summarize is not geometric_mean)
            cells.append(column.format(summarize(values) if has_value else nan))
        _print_row(name, ["", *cells])


def _plain_cell(result: ProgramResult) -> str:
    seconds = result.seconds("plain")
    return f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"


def _print_row(label: str, cells: Sequence[str]) -> None:
    print(f"{label:>20}{cells[0]:>20}" + "".join(f"{cell:>14}" for cell in cells[1:]), flush=True)
