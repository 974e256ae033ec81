"""Measurement of one case: check every contender, then time all of them in turns."""

import statistics
from collections.abc import Sequence

import numpy as np

from .binding import Bound, bind_fastest
from .operands import Operands, make_operands
from .peers import AbsentError, Call, Contender
from .reference import Reference
from .results import Result
from .roofline import ArithmeticPeak, MemoryRead
from .suites import SUITES, Case
from .timing import PAUSE_SECONDS, SampleTimer, median_ratio, time_interleaved
from .workers import Worker


def measure(
    suite: str,
    case: Case,
    dtype: str,
    threads: int,
    contenders: Sequence[Contender | Worker],
    seconds: float,
    use_out: bool | None = None,
) -> Result:
    """Check and time every contender on one case.

    Parameters
    ----------
    suite : str
        Key of `bench.suites.SUITES`; it determines whether the memory bandwidth is measured.
    case : Case
    dtype : str
        Abbreviation that `bench.suites.parse_dtypes` reads.
    threads : int
        Number of threads that the contenders use. The peak is this many times that of one core.
    contenders : sequence of Contender
        nkblas, and the peers.
    seconds : float
        Approximate duration of the timing, unless the minimum number of rounds takes longer.
    use_out : bool, optional
        Whether results are written to an existing array; by default as the suite specifies.

    Raises
    ------
    ArithmeticError
        nkblas's result is wrong.
    """
    use_out = SUITES[suite].uses_out if use_out is None else use_out
    pause = PAUSE_SECONDS if threads > 1 else 0
    operands = make_operands(case, dtype)
    a, b, out, *_ = operands
    bound, absent = bind_contenders(contenders, operands, dtype, use_out, pause)
    calls = {name: x.call for name, x in bound.items()}

    flops = case.flops(dtype)
    peak = ArithmeticPeak(dtype, flops)
    read = MemoryRead(max(a, b, out, key=np.size)) if SUITES[suite].may_be_memory_bound else None
    yardsticks: dict[str, Call | SampleTimer] = {"peak": peak}
    if read:
        yardsticks["read"] = read
    if case.plain_product != case:
        yardsticks["product"] = bind_plain_product(contenders, operands, dtype, use_out, pause)
    times = time_interleaved({**calls, **yardsticks}, seconds, pause)
    medians = {name: statistics.median(values) for name, values in times.items()}

    def fractions(yardstick: str, relative_work: float) -> dict[str, float]:
        """For each contender, its speed as a fraction of a yardstick's.

        `relative_work` is the contender's work divided by the yardstick's.
        """
        return {name: relative_work * median_ratio(times[yardstick], times[name]) for name in calls}

    traffic = a.nbytes + b.nbytes + out.nbytes
    return Result(
        suite=suite,
        case=case,
        dtype=dtype,
        threads=threads,
        out=use_out,
        plan=bound["nkblas"].plan,
        fallback=bound["nkblas"].is_fallback,
        absent=absent,
        forms={name: x.forms for name, x in bound.items() if x.forms},
        peak=peak.flops / medians["peak"] / 1e9,
        over_product=median_ratio(times["product"], times["nkblas"]) if "product" in times else 0,
        bandwidth=read.bytes / medians["read"] / 1e9 if read else 0,
        gflops={name: flops / medians[name] / 1e9 for name in calls},
        of_peak=fractions("peak", flops / (peak.flops * threads)),
        of_bandwidth=fractions("read", traffic / read.bytes) if read else {},
        ratios={
            name: median_ratio(times[name], times["nkblas"]) for name in calls if name != "nkblas"
        },
        medians=medians,
        seconds=times,
    )


def bind_plain_product(
    contenders: Sequence[Contender | Worker],
    operands: Operands,
    dtype: str,
    use_out: bool,
    pause: float,
) -> Call | SampleTimer:
    """The call of nkblas for ``a @ b``, with the operands of a layer or of a packed B."""
    plain = operands.with_copy_of_b()._replace(case=operands.case.plain_product, bias=None)
    nkblas_alone = [contender for contender in contenders if contender.name == "nkblas"]
    bound, _ = bind_contenders(nkblas_alone, plain, dtype, use_out, pause)
    call: Call | SampleTimer = bound["nkblas"].call
    return call


def bind_contenders(
    contenders: Sequence[Contender | Worker],
    operands: Operands,
    dtype: str,
    use_out: bool,
    pause: float,
) -> tuple[dict[str, Bound], dict[str, str]]:
    """Bind contenders to a case, and check their results.

    Returns
    -------
    bound : dict of str to Bound
        Those that support the case, are correct, and take at most `MAX_PEER_SECONDS`.
    absent : dict of str to str
        As `Result.absent`.

    Raises
    ------
    ArithmeticError
        nkblas's result is wrong.
    """
    bound: dict[str, Bound] = {}
    absent: dict[str, str] = {}
    reference: Reference | None = None
    for contender in contenders:
        try:
            if isinstance(contender, Worker):
                found = contender.bind_fastest(operands.case, dtype, use_out, pause)
            else:
                reference = reference or Reference(operands)
                found = bind_fastest(contender, operands, reference, use_out, pause)
        except AbsentError as error:
            absent[contender.name] = str(error)
        else:
            bound[contender.name] = found
    return bound, absent
