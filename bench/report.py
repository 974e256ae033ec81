"""Text report: a table for each suite, dtype and number of threads, printed row by row."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from .results import BenchmarkRun, CallResult, Result, TileResult
from .suites import PEER_NAMES, SUITES, parse_dtypes

LOSING_RATIO = 0.95
"""A call loses if NumPy's time divided by nkblas's is below it: the noise of a ratio is less."""


class Column(NamedTuple):
    """A column of a table.

    Attributes
    ----------
    heading : str
    contender : str
        The contender whose GFLOP/s precede the value; empty for none.
    value : callable
        Function from a result to a number; its mean and minimum are below the rows.
    number_format : str
        Format specification of the value.
    """

    heading: str
    contender: str
    value: Callable[[Result], float]
    number_format: str = "6.2f"

    def cell(self, result: Result) -> str:
        """The text for one result."""
        if self.contender in result.absent:
            return "-"
        gflops = f"{result.gflops[self.contender]:.4g} " if self.contender else ""
        return gflops + self.format(self.value(result))

    def format(self, value: float) -> str:
        """A value as text, "-" for NaN."""
        return "-" if math.isnan(value) else f"{value:{self.number_format}}"


def print_run(run: BenchmarkRun, only_losing: bool = False) -> None:
    """Print the results of a run that is complete; `only_losing` as for `print_calls`."""
    print_header(run.header)
    for _ in print_tables(run.results):
        pass
    for _ in print_tiles(run.tiles):
        pass
    print_calls(run.calls, only_losing)


def print_header(header: dict[str, str]) -> None:
    """Print the description of the machine and of the contenders."""
    for key, value in header.items():
        print(f"{key:9} {value}")


def print_tables(results: Iterable[Result]) -> Iterator[Result]:
    """Print each result as soon as `results` yields it, and yield it."""
    fewest_threads: dict[tuple[str, str], dict[str, Result]] = {}
    for (suite, constant, _), group in groupby(results, key=table_key):
        finished: list[Result] = []
        for result in group:
            if not finished:
                columns = print_table_head(result, fewest_threads.get((suite, constant), {}))
            finished.append(result)
            note = "  fallback to NumPy" if result.fallback else ""
            _print_row(row_label(result), (column.cell(result) for column in columns), note)
            yield result
        for name, summarize in (("geometric mean", geometric_mean), ("minimum", minimum)):
            cells = (c.format(summarize([c.value(result) for result in finished])) for c in columns)
            _print_row(name, cells)
        for line in (*absence_notes(finished), *form_notes(finished)):
            print(line)
        fewest_threads.setdefault(
            (suite, constant), {row_label(result): result for result in finished}
        )


def table_key(result: Result) -> tuple[str, str, int]:
    """Suite, dtype (or size of the case) and threads: equal for the results of one table."""
    if SUITES[result.suite].rows_are_dtypes:
        constant = result.case.size
    else:
        constant = f"{result.dtype} {result.case.activation}".rstrip()
    return result.suite, constant, result.threads


def row_label(result: Result) -> str:
    """The label of a result in its table."""
    if SUITES[result.suite].rows_are_dtypes:
        return str(parse_dtypes(result.dtype))
    return result.case.size if result.case.activation else str(result.case)


def peers_of(result: Result) -> list[str]:
    """The peers that were selected for a result, including absent ones."""
    return [peer for peer in PEER_NAMES if peer in result.ratios or peer in result.absent]


def absence_notes(results: Sequence[Result]) -> list[str]:
    """For each reason why a peer is absent: the peer, the reason, and the rows."""
    rows: dict[str, list[str]] = {}
    for result in results:
        for name, reason in result.absent.items():
            rows.setdefault(f"{name}: {reason}", []).append(row_label(result))
    return [
        f"{note} ({'; '.join(labels) if len(labels) < len(results) else 'all'})"
        for note, labels in rows.items()
    ]


def form_notes(results: Sequence[Result]) -> list[str]:
    """For each contender with alternative calls: how often each of them was the fastest."""
    counts = Counter(
        (name, min(times, key=times.__getitem__))
        for result in results
        for name, times in result.forms.items()
    )
    return [
        f"{name}: {', '.join(f'{form} ({count})' for (_, form), count in group)}"
        for name, group in groupby(sorted(counts.items()), key=lambda item: item[0][0])
    ]


def print_table_head(first: Result, fewest_threads: dict[str, Result]) -> list[Column]:
    """Print the head of a table.

    Parameters
    ----------
    first : Result
        The first result of the table.
    fewest_threads : dict of str to Result
        The rows of the same table with the fewest threads, if that table was printed before.

    Returns
    -------
    list of Column
    """
    suite = SUITES[first.suite]
    unit = "10^9 operations per second" if suite.rows_are_dtypes else "GFLOP/s"
    limit = "its instructions' peak"
    if suite.may_be_memory_bound:
        limit += " or of the memory bandwidth, whichever is larger"
    print(f"\n{title(first)}")
    print(f"{unit}; then, for nkblas, the fraction of {limit}; for peers, nkblas's speed-up")
    if suite.note:
        print(suite.note)
    columns = [Column("nkblas", "nkblas", partial(roofline_fraction, "nkblas"), "6.1%")]
    columns += (Column(peer, peer, partial(speedup, peer)) for peer in peers_of(first))
    columns.append(Column("best peer", "", speedup_over_best_peer))
    if first.over_product:
        columns.append(Column("nkblas's a @ b", "", speedup_over_plain_product, "6.3f"))
    if fewest_threads:
        threads = next(iter(fewest_threads.values())).threads
        heading = f"{threads} thread{'s' * (threads > 1)}"
        columns.append(Column(heading, "", partial(thread_scaling, fewest_threads)))
    _print_row("" if suite.rows_are_dtypes else "m x n x k", (column.heading for column in columns))
    return columns


def title(result: Result) -> str:
    """The title of a result's table or figure."""
    suite = SUITES[result.suite]
    text = f"{result.suite}: {suite.description}, {table_key(result)[1]}, {result.threads} thread"
    text += "s" * (result.threads > 1)
    return text if result.out else f"{text}, without out="


def roofline_fraction(contender: str, result: Result) -> float:
    """A contender's fraction of the arithmetic peak or of the bandwidth, whichever is larger.

    NaN if the contender is absent.
    """
    fractions = (result.of_peak, result.of_bandwidth)
    return max((x[contender] for x in fractions if contender in x), default=math.nan)


def gflops(contender: str, result: Result) -> float:
    """A contender's 10^9 operations per second; NaN if it is absent."""
    return result.gflops.get(contender, math.nan)


def speedup(peer: str, result: Result) -> float:
    """Speed-up of nkblas over a peer; NaN if the peer is absent."""
    return result.ratios.get(peer, math.nan)


def speedup_over_best_peer(result: Result) -> float:
    """Speed-up of nkblas over the fastest peer; NaN if there is none."""
    return min(result.ratios.values(), default=math.nan)


def speedup_over_plain_product(result: Result) -> float:
    """Speed-up of a layer, or of a packed B, over nkblas's ``a @ b``; NaN for other cases."""
    return result.over_product or math.nan


def thread_scaling(fewest_threads: dict[str, Result], result: Result) -> float:
    """Speed-up of nkblas over its result with fewer threads.

    Both are related to the peak that was measured with them, if there is one.
    """
    before = fewest_threads.get(row_label(result))
    if before is None:
        return math.nan
    if not result.of_peak:
        return result.gflops["nkblas"] / before.gflops["nkblas"]
    now, then = (x.of_peak["nkblas"] * x.threads for x in (result, before))
    return now / then


def print_tiles(tiles: Iterable[TileResult]) -> Iterator[TileResult]:
    """Print each result as soon as `tiles` yields it, and yield it."""
    for dtype, group in groupby(tiles, key=lambda tile: tile.dtype):
        print(f"\ntiles, {dtype}: fraction of the FMA peak (tiles: panels in L2; cubes: L1)")
        for tile in group:
            print(f"{tile.mr:>4} x {tile.nr:<4} k {tile.k:<5} {tile.of_peak:6.1%}", flush=True)
            yield tile


def print_calls(calls: Sequence[CallResult], only_losing: bool = False) -> None:
    """Print the calls, those first that are slowest relative to NumPy, and a summary.

    Parameters
    ----------
    calls : sequence of CallResult
    only_losing : bool
        Whether to print only those whose ratio is below `LOSING_RATIO`, besides the summary.
    """
    if not calls:
        return
    print("\ncalls: NumPy's time divided by nkblas's, 1 thread, plans of the cost model")
    print(f"{'ratio':>6}{'NumPy':>10}{'nkblas':>10}  call")
    losing = [x for x in calls if x.ratio < LOSING_RATIO]
    for x in sorted(losing if only_losing else calls, key=lambda x: x.ratio):
        times = "".join(f"{format_seconds(x.medians[name]):>10}" for name in ("numpy", "nkblas"))
        note = "  (fallback to NumPy)" if x.fallback else ""
        print(f"{x.ratio:6.2f}{times}  {x.case}{note}")
    ratios = [x.ratio for x in calls]
    print(f"{geometric_mean(ratios):6.2f}  geometric mean of {len(calls)} calls")
    print(f"{len(losing):6}  below {LOSING_RATIO}")
    print(f"{sum(ratio >= 1 for ratio in ratios):6}  at least 1")


def format_seconds(seconds: float) -> str:
    """A time in us or ms, with three digits."""
    value, unit = (seconds * 1e6, "us") if seconds < 999.5e-6 else (seconds * 1e3, "ms")
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {unit}"


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean of the values that are not NaN; NaN if there are none."""
    logs = [math.log(value) for value in values if not math.isnan(value)]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def minimum(values: Sequence[float]) -> float:
    """Minimum of the values that are not NaN; NaN if there are none."""
    return min((value for value in values if not math.isnan(value)), default=math.nan)


def _print_row(label: str, cells: Iterable[str], note: str = "") -> None:
    print(f"{label:>30}" + "".join(f"{cell:>16}" for cell in cells) + note, flush=True)
