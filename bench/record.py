"""What is measured, as plain data: it goes to a JSON file and comes back the same."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from .suites import Case


class Result(NamedTuple):
    """What was measured on one case.

    Attributes
    ----------
    suite : str
    case : Case
    dtype : str
        As for `bench.suites.types`.
    threads : int
    out : bool
        Whether the result went into a given array.
    plan : str
        How nkblas does it, where `nkblas.explain` knows.
    fallback : bool
        Whether nkblas left the product to NumPy.
    absent : dict of str to str
        By contender that has no such product: why.
    forms : dict of str to dict of str to float
        By contender with several ways to have it: seconds of each in a short race, whose winner
        was measured.
    peak : float
        GFLOP/s of multiply-adds alone, on one core, in the same rounds; 0 where no kernel
        measures it for this dtype.
    over_product : float
        Time of nkblas's own product, of `Case.product`, / its time for the case; 0 where that is
        the same.
    bandwidth : float
        GB/s at which the largest operand is read, in the same rounds; 0 where nobody asked.
    gflops : dict of str to float
        By contender.
    of_peak : dict of str to float
        By contender: the fraction it reaches of `peak` times the number of threads. Empty where
        there is none.
    of_bandwidth : dict of str to float
        By contender: the fraction of `bandwidth` at which it goes once through A, B and C. Empty
        where nobody asked.
    ratios : dict of str to float
        By peer: its time / nkblas's, so that above 1 nkblas is faster.
    medians : dict of str to float
        By contender, and "peak", "read", "product": seconds of one call.
    seconds : dict of str to list of float
        The same in each round; for those who are very slow, in the first few.
    """

    suite: str
    case: Case
    dtype: str
    threads: int
    out: bool
    plan: str
    fallback: bool
    absent: dict[str, str]
    forms: dict[str, dict[str, float]]
    peak: float
    over_product: float
    bandwidth: float
    gflops: dict[str, float]
    of_peak: dict[str, float]
    of_bandwidth: dict[str, float]
    ratios: dict[str, float]
    medians: dict[str, float]
    seconds: dict[str, list[float]]


class Tile(NamedTuple):
    """What one microkernel reaches on packed operands that lie in L2.

    Attributes
    ----------
    dtype : str
    mr, nr, k : int
    of_peak : float
        Fraction of the FMA peak in the same rounds.
    """

    dtype: str
    mr: int
    nr: int
    k: int
    of_peak: float


class Record(NamedTuple):
    """A run of the benchmark.

    Attributes
    ----------
    header : dict of str to str
        The machine, and the version of each contender or why it is absent.
    results : list of Result
    tiles : list of Tile
    """

    header: dict[str, str]
    results: list[Result]
    tiles: list[Tile]

    @classmethod
    def load(cls, path: str) -> "Record":
        """Read what `save` wrote."""
        raw = json.loads(Path(path).read_text())
        results = [Result(**{**x, "case": Case(**x["case"])}) for x in raw["results"]]
        return cls(raw["header"], results, [Tile(**x) for x in raw["tiles"]])

    def save(self, path: str) -> None:
        """Write everything to a JSON file."""
        results = [{**x._asdict(), "case": x.case._asdict()} for x in self.results]
        raw: dict[str, Any] = {"header": self.header, "results": results}
        raw["tiles"] = [x._asdict() for x in self.tiles]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(raw, indent=1))
