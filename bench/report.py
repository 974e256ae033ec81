"""What is printed: a table for each suite, dtype and number of threads, while it is measured."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from .record import Record, Result, Tile
from .suites import PEERS, SUITES, types


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
        if self.contender in result.absent:
            return "-"
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
    fewest: dict[tuple[str, str], dict[str, Result]] = {}
    for (suite, constant, _), group in groupby(results, key=table):
        seen: list[Result] = []
        for result in group:
            if not seen:
                columns = begin(result, fewest.get((suite, constant), {}))
            seen.append(result)
            note = "  a fallback: done by NumPy" if result.fallback else ""
            _line(row(result), (column.cell(result) for column in columns), note)
            yield result
        for name, summarize in (("geometric mean", geometric_mean), ("minimum", minimum)):
            numbers = (c.number(summarize([c.value(r) for r in seen])) for c in columns)
            _line(name, numbers)
        for line in (*reasons(seen), *forms(seen)):
            print(line)
        fewest.setdefault((suite, constant), {row(result): result for result in seen})


def table(result: Result) -> tuple[str, str, int]:
    """What the results of one table, or one figure, have in common."""
    if SUITES[result.suite].by_dtype:
        constant = result.case.size
    else:
        constant = f"{result.dtype} {result.case.activation}".rstrip()
    return result.suite, constant, result.threads


def row(result: Result) -> str:
    """What tells a result from the others of its table."""
    if SUITES[result.suite].by_dtype:
        return str(types(result.dtype))
    return result.case.size if result.case.activation else str(result.case)


def peers(result: Result) -> list[str]:
    """Who was to be compared with nkblas, the absent ones as well."""
    return [peer for peer in PEERS if peer in result.ratios or peer in result.absent]


def reasons(results: Sequence[Result]) -> list[str]:
    """For each dash in a table, why."""
    found: dict[str, list[str]] = {}
    for result in results:
        for name, why in result.absent.items():
            found.setdefault(f"{name}: {why}", []).append(row(result))
    return [
        f"{reason} ({'; '.join(rows) if len(rows) < len(results) else 'all'})"
        for reason, rows in found.items()
    ]


def forms(results: Sequence[Result]) -> list[str]:
    """For each contender that has several ways to do it: which was how often the fastest."""
    counts = Counter(
        (name, min(times, key=times.__getitem__))
        for result in results
        for name, times in result.forms.items()
    )
    return [
        f"{name}: {', '.join(f'{form} ({count})' for (_, form), count in group)}"
        for name, group in groupby(sorted(counts.items()), key=lambda item: item[0][0])
    ]


def begin(first: Result, fewest: dict[str, Result]) -> list[Column]:
    """Print the head of a table, and return its columns.

    Parameters
    ----------
    first : Result
        Says what the table is about.
    fewest : dict of str to Result
        The same rows on the fewest threads, if that was before.
    """
    share = "its share of the peak of its instruction"
    if SUITES[first.suite].in_memory:
        share += ", or of the bandwidth where it is more of that"
    unit = "10^9 operations a second" if SUITES[first.suite].by_dtype else "GFLOP/s"
    print(f"\n{title(first)}\n{unit} of each; for nkblas, {share}; for peers, its speed-up")
    if SUITES[first.suite].note:
        print(SUITES[first.suite].note)
    columns = [Column("nkblas", "nkblas", partial(of_roof, "nkblas"), "6.1%")]
    columns += (Column(peer, peer, partial(ratio, peer)) for peer in peers(first))
    columns.append(Column("best peer", "", best))
    if first.over_product:
        columns.append(Column("own product", "", over_product, "6.3f"))
    if fewest:
        one = next(iter(fewest.values())).threads
        heading = f"{one} thread{'s' * (one > 1)}"
        columns.append(Column(heading, "", partial(scaling, fewest)))
    _line(
        "" if SUITES[first.suite].by_dtype else "m x n x k", (column.heading for column in columns)
    )
    return columns


def title(result: Result) -> str:
    """What a table or a figure is about."""
    suite = SUITES[result.suite]
    words = f"{result.suite}: {suite.about}, {table(result)[1]}, {result.threads} thread"
    words += "s" * (result.threads > 1)
    return words if result.out else f"{words}, without out="


def of_roof(contender: str, result: Result) -> float:
    """Fraction that a contender reaches of what bounds the case: arithmetic or memory.

    NaN if it is absent, or nothing that bounds the case was measured.
    """
    fractions = (result.of_peak, result.of_bandwidth)
    return max((x[contender] for x in fractions if contender in x), default=math.nan)


def speed(contender: str, result: Result) -> float:
    """Billions of operations a second; NaN if the contender is absent."""
    return result.gflops.get(contender, math.nan)


def ratio(peer: str, result: Result) -> float:
    """nkblas's speed-up over a peer; NaN if that is absent."""
    return result.ratios.get(peer, math.nan)


def best(result: Result) -> float:
    """nkblas's speed-up over the fastest peer; NaN if there is none."""
    return min(result.ratios.values(), default=math.nan)


def over_product(result: Result) -> float:
    """nkblas's speed-up over its own product, without what is done to it or for it; NaN if it is
    that."""
    return result.over_product or math.nan


def scaling(fewest: dict[str, Result], result: Result) -> float:
    """nkblas's speed-up over fewer threads, each related to the peak at its time, if known."""
    before = fewest.get(row(result))
    if before is None:
        return math.nan
    if not result.of_peak:
        return result.gflops["nkblas"] / before.gflops["nkblas"]
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
    """Of those that are numbers; NaN if none is."""
    logs = [math.log(value) for value in values if not math.isnan(value)]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def minimum(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN if none is."""
    return min((value for value in values if not math.isnan(value)), default=math.nan)


def _line(head: str, cells: Iterable[str], note: str = "") -> None:
    print(f"{head:>30}" + "".join(f"{cell:>16}" for cell in cells) + note, flush=True)
