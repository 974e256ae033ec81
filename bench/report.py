"""What is printed: a table for each suite and dtype, a line as soon as it is measured."""

import math
from collections.abc import Iterable, Sequence

from .measure import Result


class Table:
    """A table that grows by a line for each shape, and ends with a summary.

    Parameters
    ----------
    title : str
    peers : sequence of str
        A column for each, and one for the best of them.
    """

    def __init__(self, title: str, peers: Sequence[str]) -> None:
        self.peers = peers
        self.results: list[Result] = []
        print(f"\n{title}: GFLOP/s; nkblas's share of the FMA peak; its speed-up over each peer")
        _line("m x n x k", ["nkblas", *peers, "best peer"])

    def add(self, result: Result) -> None:
        """Print the line of one shape."""
        self.results.append(result)
        _line(
            " x ".join(map(str, result.shape)),
            [
                f"{result.gflops['nkblas']:.1f} {result.of_peak:6.1%}",
                *(f"{result.gflops[p]:.1f} {_ratio(result.ratios[p])}" for p in self.peers),
                _ratio(result.best),
            ],
            "  a fallback: done by NumPy" if result.fallback else "",
        )

    def end(self) -> None:
        """Print the summary: geometric mean and minimum of each ratio."""
        for name, summarize in (("geometric mean", geometric_mean), ("minimum", min)):
            _line(
                name,
                [
                    f"{summarize([r.of_peak for r in self.results]):.1%}",
                    *(_ratio(summarize([r.ratios[p] for r in self.results])) for p in self.peers),
                    _ratio(summarize([r.best for r in self.results])),
                ],
            )


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:6.2f}x"


def _line(head: str, cells: Iterable[str], note: str = "") -> None:
    print(f"{head:>18}" + "".join(f"{cell:>16}" for cell in cells) + note, flush=True)
