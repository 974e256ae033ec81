"""Measurement of one case: check every contender, then time all of them in one process."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

import nkblas

from .operands import Operands, make_operands, same_dtype
from .peers import AbsentError, Call, Contender
from .reference import Reference
from .results import Result
from .roofline import ArithmeticPeak, MemoryRead
from .suites import SUITES, Case
from .timing import PAUSE_SECONDS, median_ratio, time_interleaved

FORM_ROUNDS = 5
"""Rounds that determine the fastest of a contender's alternative calls."""

MAX_PEER_SECONDS = 2.0
"""A peer whose call takes longer is not measured."""


def measure(
    suite: str,
    case: Case,
    dtype: str,
    threads: int,
    contenders: Sequence[Contender],
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
    fallbacks = nkblas.stats()["fallbacks"]
    calls, forms, absent = bind_contenders(contenders, operands, use_out, pause)
    is_fallback = nkblas.stats()["fallbacks"] > fallbacks

    flops = case.flops(dtype)
    peak = ArithmeticPeak(dtype, flops)
    read = MemoryRead(max(a, b, out, key=np.size)) if SUITES[suite].may_be_memory_bound else None
    yardsticks: dict[str, Call] = {"peak": peak}
    if read:
        yardsticks["read"] = read
    if case.plain_product != case:
        yardsticks["product"] = bind_plain_product(contenders, operands, use_out, pause)
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
        plan="" if is_fallback else plan_of(operands),
        fallback=is_fallback,
        absent=absent,
        forms=forms,
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


def plan_of(operands: Operands) -> str:
    """The plan of nkblas for a plain product of one dtype; empty for other cases."""
    a, b, out, _, case = operands
    is_plain = case.plain_product == case and not case.batch_reduce
    return str(nkblas.explain(a, b).plan) if is_plain and same_dtype(a, b, out) else ""


def bind_plain_product(
    contenders: Sequence[Contender], operands: Operands, use_out: bool, pause: float
) -> Call:
    """The call of nkblas for ``a @ b``, with the operands of a layer or of a packed B."""
    plain = operands.with_copy_of_b()._replace(case=operands.case.plain_product, bias=None)
    nkblas_alone = [contender for contender in contenders if contender.name == "nkblas"]
    calls, _, _ = bind_contenders(nkblas_alone, plain, use_out, pause)
    return calls["nkblas"]


def bind_contenders(
    contenders: Sequence[Contender], operands: Operands, use_out: bool, pause: float
) -> tuple[dict[str, Call], dict[str, dict[str, float]], dict[str, str]]:
    """Bind contenders to a case, and check their results.

    If B may be packed, each contender gets its own copy of B: a B that several contenders read in
    turn would be closer in the caches than a packed B, which only one of them reads.

    Returns
    -------
    calls : dict of str to callable
        The fastest call of each contender that supports the case, is correct, and takes at most
        `MAX_PEER_SECONDS`.
    forms : dict of str to dict
        As `Result.forms`.
    absent : dict of str to str
        As `Result.absent`.

    Raises
    ------
    ArithmeticError
        nkblas's result is wrong.
    """
    calls: dict[str, Call] = {}
    form_times: dict[str, dict[str, float]] = {}
    absent: dict[str, str] = {}
    reference = Reference(operands)
    may_pack = operands.case.plain_product != operands.case
    for contender in contenders:
        try:
            own = operands.with_copy_of_b() if may_pack else operands
            forms = contender.bind(own, use_out)
            seconds = min(map(reference.verify, forms.values()))
            if seconds > MAX_PEER_SECONDS and contender.name != "nkblas":
                raise AbsentError("takes too long")
        except AbsentError as error:
            absent[contender.name] = str(error)
            continue
        except ArithmeticError as error:
            if contender.name == "nkblas":
                raise
            absent[contender.name] = f"its result is {error}"
            continue
        times = median_times(forms, pause) if len(forms) > 1 else dict.fromkeys(forms, seconds)
        fastest = min(times, key=times.__getitem__)
        calls[contender.name] = forms[fastest]
        if fastest:
            form_times[contender.name] = times
    return calls, form_times, absent


def median_times(forms: Mapping[str, Call], pause: float) -> dict[str, float]:
    """Median seconds of each of several alternative calls, from a few rounds."""
    times = time_interleaved(forms, 0, pause, FORM_ROUNDS)
    return {form: statistics.median(values) for form, values in times.items()}
