"""Results of the benchmark, and the JSON file that stores them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from .call_list import CallCase
from .suites import Case


class Result(NamedTuple):
    """The measurements of one case.

    Attributes
    ----------
    suite : str
    case : Case
    dtype : str
        Abbreviation that `bench.suites.parse_dtypes` reads.
    threads : int
    out : bool
        Whether results were written to an existing array.
    plan : str
        nkblas's plan, for cases that `nkblas.explain` accepts; else empty.
    fallback : bool
        Whether nkblas left the product to NumPy.
    absent : dict of str to str
        For each contender that was not measured, the reason.
    forms : dict of str to dict of str to float
        For each contender with alternative calls, seconds of each call in a short measurement. The
        fastest one was measured.
    peak : float
        GFLOP/s of a kernel that only multiplies and adds, on one core, in the same rounds.
    over_product : float
        For a layer or a packed B: time of nkblas's ``a @ b`` divided by its time for the case; for
        other cases 0.
    bandwidth : float
        GB/s at which the largest operand is read, in the same rounds; 0 if it was not measured.
    gflops : dict of str to float
        GFLOP/s of each contender.
    of_peak : dict of str to float
        For each contender, its fraction of `peak` times the number of threads.
    of_bandwidth : dict of str to float
        For each contender, the bytes of A, B and C divided by its time, as a fraction of
        `bandwidth`. Empty if that was not measured.
    ratios : dict of str to float
        For each peer, its time divided by nkblas's: above 1, nkblas is faster.
    medians : dict of str to float
        Seconds of one call of each contender, and of "peak", "read" and "product".
    seconds : dict of str to list of float
        The same for each round. Slow contenders are in the first few rounds only.
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


class TileResult(NamedTuple):
    """The speed of one microkernel on packed panels in L2, or of one small-product kernel.

    Attributes
    ----------
    dtype : str
    mr, nr, k : int
    of_peak : float
        Fraction of the FMA peak, measured in the same rounds.
    """

    dtype: str
    mr: int
    nr: int
    k: int
    of_peak: float


class CallResult(NamedTuple):
    """The measurements of one call of the suite `calls`.

    Attributes
    ----------
    case : CallCase
    fallback : bool
        Whether nkblas left a product of the call to NumPy.
    ratio : float
        NumPy's time divided by nkblas's: above 1, nkblas is faster.
    medians : dict of str to float
        Seconds of one call of "numpy" and "nkblas".
    seconds : dict of str to list of float
        The same for each round. If one of them is slow, it is in the first few rounds only.
    """

    case: CallCase
    fallback: bool
    ratio: float
    medians: dict[str, float]
    seconds: dict[str, list[float]]


class BenchmarkRun(NamedTuple):
    """All results of one run of the benchmark.

    Attributes
    ----------
    header : dict of str to str
        The machine, and for each contender its version or the reason why it is absent.
    results : list of Result
    tiles : list of TileResult
    calls : list of CallResult
    """

    header: dict[str, str]
    results: list[Result]
    tiles: list[TileResult]
    calls: list[CallResult]

    @classmethod
    def load(cls, path: str) -> "BenchmarkRun":
        """Read a file that `save` wrote."""
        raw = json.loads(Path(path).read_text("utf-8"))
        results = [Result(**{**x, "case": Case(**x["case"])}) for x in raw["results"]]
        tiles = [TileResult(**x) for x in raw["tiles"]]
        calls = [CallResult(**{**x, "case": CallCase(**x["case"])}) for x in raw["calls"]]
        return cls(raw["header"], results, tiles, calls)

    def save(self, path: str) -> None:
        """Write all results to a JSON file."""
        results = [{**x._asdict(), "case": x.case._asdict()} for x in self.results]
        raw: dict[str, Any] = {"header": self.header, "results": results}
        raw["tiles"] = [x._asdict() for x in self.tiles]
        raw["calls"] = [{**x._asdict(), "case": x.case._asdict()} for x in self.calls]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(raw, indent=1), "utf-8")
