"""What is printed: a table for each suite, dtype and number of threads, while it is measured."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from .record import Record, Result, Tile
from .suites import SUITES, Case


class Column(NamedTuple):
    """A column of a table.

    Attributes
    ----------
    heading : str
    contender : str
        Whose GFLOP/s stand in front; empty for none.
    value : callable
        The number of a result, whose mean and minimum stand below.
    form : str
        Its format.
    """

    heading: str
    contender: str
    value: Callable[[Result], float]
    form: str = "6.2f"

    def cell(self, result: Result) -> str:
        speed = f"{result.gflops[self.contender]:.4g} " if self.contender else ""
        return speed + self.number(self.value(result))

    def number(self, value: float) -> str:
        return "-" if math.isnan(value) else f"{value:{self.form}}"


def show(record: Record) -> None:
    """Print a run that was saved."""
    print_header(record.header)
    for _ in tables(record.results):
        pass
    for _ in print_tiles(record.tiles):
        pass


def print_header(header: dict[str, str]) -> None:
    for key, value in header.items():
        print(f"{key:9} {value}")


def tables(results: Iterable[Result]) -> Iterator[Result]:
    """Print results as they come, and hand them on."""
    fewest: dict[tuple[str, str], dict[Case, Result]] = {}
    groups = groupby(results, key=lambda result: (result.suite, result.dtype, result.threads))
    for (suite, dtype, _), group in groups:
        seen: list[Result] = []
        for result in group:
            if not seen:
                columns = begin(result, fewest.get((suite, dtype), {}))
            seen.append(result)
            note = "  a fallback: done by NumPy" if result.fallback else ""
            _line(str(result.case), (column.cell(result) for column in columns), note)
            yield result
        for name, summarize in (("geometric mean", geometric_mean), ("minimum", min)):
            numbers = (c.number(summarize([c.value(r) for r in seen])) for c in columns)
            _line(name, numbers)
        fewest.setdefault((suite, dtype), {result.case: result for result in seen})


def begin(first: Result, fewest: dict[Case, Result]) -> list[Column]:
    """Print the head of a table, and return its columns.

    Parameters
    ----------
    first : Result
        Says what the table is about.
    fewest : dict of Case to Result
        The same cases on the fewest threads, if that was before.
    """
    share = "its share of the FMA peak"
    if SUITES[first.suite].in_memory:
        share += ", or of the bandwidth where it is more of that"
    print(f"\n{title(first)}\nGFLOP/s of each; for nkblas, {share}; for peers, its speed-up")
    if SUITES[first.suite].note:
        print(SUITES[first.suite].note)
    columns = [Column("nkblas", "nkblas", partial(of_roof, "nkblas"), "6.1%")]
    columns += (Column(peer, peer, partial(ratio, peer)) for peer in first.ratios)
    columns.append(Column("best peer", "", best))
    if fewest:
        one = next(iter(fewest.values())).threads
        heading = f"{one} thread{'s' * (one > 1)}"
        columns.append(Column(heading, "", partial(scaling, fewest)))
    _line("m x n x k", (column.heading for column in columns))
    return columns


def title(result: Result) -> str:
    """What a table or a figure is about."""
    suite = SUITES[result.suite]
    words = f"{result.suite}: {suite.about}, {result.dtype}, {result.threads} thread"
    words += "s" * (result.threads > 1)
    return words if result.out else f"{words}, without out="


def of_roof(contender: str, result: Result) -> float:
    """Fraction that a contender reaches of what bounds the case: arithmetic or memory."""
    return max(result.of_peak[contender], result.of_bandwidth.get(contender, 0))


def ratio(peer: str, result: Result) -> float:
    """nkblas's speed-up over a peer."""
    return result.ratios[peer]


def best(result: Result) -> float:
    """nkblas's speed-up over the fastest peer; NaN if there is none."""
    return min(result.ratios.values(), default=math.nan)


def scaling(fewest: dict[Case, Result], result: Result) -> float:
    """nkblas's speed-up over fewer threads, each related to the peak at its time."""
    before = fewest.get(result.case)
    if before is None:
        return math.nan
    now, then = (x.of_peak["nkblas"] * x.threads for x in (result, before))
    return now / then


def print_tiles(tiles: Iterable[Tile]) -> Iterator[Tile]:
    """Print tiles as they come, and hand them on."""
    for dtype, group in groupby(tiles, key=lambda tile: tile.dtype):
        print(f"\ntiles, {dtype}: share of the FMA peak (operands in L2; small sizes in L1)")
        for tile in group:
            print(f"{tile.mr:>4} x {tile.nr:<4} k {tile.k:<5} {tile.of_peak:6.1%}", flush=True)
            yield tile


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _line(head: str, cells: Iterable[str], note: str = "") -> None:
    print(f"{head:>30}" + "".join(f"{cell:>16}" for cell in cells) + note, flush=True)
