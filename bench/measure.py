"""Timing: all contenders on the same operands, in turns, in one process.

The speed of a machine changes while it is measured: its clock, its neighbours. So each round
times every contender once, in a random order, and contenders are compared within a round: a ratio
is the median over the rounds of the ratio of two times that were taken milliseconds apart.
"""

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from timeit import Timer
from typing import NamedTuple

import numpy as np

import nkblas
from nkblas import _engine
from nkblas.base.dtypes import product
from nkblas.base.families import families, row_of
from nkblas.codegen import spec
from nkblas.runtime import kernels

from .check import Expected
from .operands import Array, Operands, draw, element, operands
from .peers import AbsentError, Call, Contender, uniform
from .record import Result
from .suites import SUITES, Case, types

SAMPLE = 200e-6
"""Seconds that a sample takes at least: short calls are repeated to fill it."""

ROUNDS = 15
"""Rounds at least; more where they fit into the time given."""

SLOW = 50e-3
"""Seconds from which on a call is slow, if the fastest contender's takes less than 1 / `TIMES` of
that. It is timed in the first `FEWEST` rounds only."""

TIMES = 5

FEWEST = 3

RACE = 5
"""Rounds that tell which of a contender's forms is the fastest."""

LONGEST = 2.0
"""Seconds that a peer's call may take to be timed at all."""

REST = 5e-3
"""Seconds between samples with more than one thread: the workers of the library before it wait
busily for a while (see `bench.__main__.SHORT_WAITS`), on cores that the next one needs."""


class Peak:
    """A generated kernel that does nothing but multiply-adds on registers.

    They are of the most promising instruction family that the CPU has for the product.

    Parameters
    ----------
    dtype : str
        As in `bench.suites.types`.
    flops : int
        About how many a call does: as many as the product that it is compared with, so that
        both run for the same time; more if that is too short to hide the call.
    """

    STEPS = 30_000  # at least
    BYTES = 4096

    def __init__(self, dtype: str, flops: int) -> None:
        name = product(*types(dtype))
        assert name is not None, f"nkblas has no kernels for {dtype}"
        family = families(name, nkblas.cpu.isa)[0]
        isa = row_of(family, nkblas.cpu.isa)
        # Enough chains to hide the latency of each, and registers to spare for the operands.
        chains = 4 if family.tile_rows else isa.registers // 8 * 3 // family.accumulator_registers
        sums = chains * family.lanes(isa) * max(1, family.tile_rows)
        step = (8 if "complex" in name else 2) * sums * family.k_step
        self._steps = max(self.STEPS, flops // step)
        self.flops = self._steps * step
        peak = spec.Peak(isa.name, name, chains, family.name)
        self._kernel = _engine.ffi.cast("nk_peak", kernels.load([peak])[peak])
        # What is multiplied is no zeros: a CPU that does these with less power has a higher clock.
        held = element(types(dtype).a)
        values = draw(np.random.default_rng(0), held, (self.BYTES // held.itemsize,), 1)
        self._values = values.view(np.uint8)
        self._buffer = np.empty(self.BYTES, np.uint8)
        self._pointer = _engine.ffi.cast("void *", self._buffer.ctypes.data)

    def __call__(self) -> None:
        self._buffer[...] = self._values  # the kernel leaves its sums there, and they would grow
        self._kernel(self._steps, self._pointer)


class Read:
    """A read of memory that does nothing else, with the threads that NumPy's BLAS has.

    Dot products of one part of an operand with the next: of sums, maxima, dot and matrix-vector
    products, they read fastest wherever the operand was, from L2 to memory. A product that writes
    much can't reach as much: what is written is read before.

    Parameters
    ----------
    operand : ndarray
        What is read; the products read it from the same place.
    """

    PART = 1 << 22  # elements at most: two parts 256 MB apart were read a third slower

    def __init__(self, operand: Array) -> None:
        flat = operand.ravel(order="K")  # a view: no operand of these suites has gaps
        if flat.dtype.char not in "fdFD":  # BLAS can't read it: as many bytes in its place
            flat = np.ones(flat.nbytes // 4, np.float32)
        part = min(self.PART, flat.size // 2)
        starts = range(0, flat.size - 2 * part + 1, 2 * part)
        self.pairs = [(flat[i : i + part], flat[i + part : i + 2 * part]) for i in starts]
        self.bytes = 2 * part * len(self.pairs) * flat.itemsize

    def __call__(self) -> None:
        for pair in self.pairs:
            np.dot(*pair)


def measure(
    suite: str,
    case: Case,
    dtype: str,
    threads: int,
    contenders: Sequence[Contender],
    seconds: float,
    into: bool | None = None,
) -> Result:
    """Check and time every contender on one case.

    Parameters
    ----------
    suite : str
        A name of `bench.suites.SUITES`: says whether memory is read for comparison.
    case : Case
    dtype : str
    threads : int
        As many as the contenders use. The peak fraction refers to so many times one core's peak.
    contenders : sequence of Contender
        nkblas is one of them.
    seconds : float
        About how long to time it, if that is more than the fewest rounds take.
    into : bool, optional
        Whether the result goes into a given array; by default, as the suite says.
    """
    into = SUITES[suite].out if into is None else into
    rest = REST if threads > 1 else 0
    everything = operands(case, dtype)
    a, b, out, *_ = everything
    flops = case.flops(dtype)
    fallbacks = nkblas.stats()["fallbacks"]
    calls, forms, absent = bind(contenders, everything, into, rest)
    fallback = nkblas.stats()["fallbacks"] > fallbacks
    peak = Peak(dtype, flops)
    read = Read(max(a, b, out, key=np.size)) if SUITES[suite].in_memory else None
    yardsticks: dict[str, Call] = {"peak": peak}
    if read:
        yardsticks["read"] = read
    if case.product != case:
        own = [contender for contender in contenders if contender.name == "nkblas"]
        product_alone = everything.with_own_weights()._replace(case=case.product, bias=None)
        yardsticks["product"] = bind(own, product_alone, into, rest)[0]["nkblas"]
    times = interleave({**calls, **yardsticks}, seconds, rest)

    medians = {name: statistics.median(values) for name, values in times.items()}

    def share(yardstick: str, work: float) -> dict[str, float]:
        """By contender: its fraction of a yardstick's speed, for so many times its work."""
        return {name: work * paired(times[yardstick], times[name]) for name in calls}

    explicable = (
        case.product == case and not case.batch_reduce and uniform(a, b, out) and not fallback
    )
    return Result(
        suite=suite,
        case=case,
        dtype=dtype,
        threads=threads,
        out=into,
        plan=str(nkblas.explain(a, b).plan) if explicable else "",
        fallback=fallback,
        absent=absent,
        forms=forms,
        peak=peak.flops / medians["peak"] / 1e9,
        over_product=paired(times["product"], times["nkblas"]) if "product" in times else 0,
        bandwidth=read.bytes / medians["read"] / 1e9 if read else 0,
        gflops={name: flops / medians[name] / 1e9 for name in calls},
        of_peak=share("peak", flops / (peak.flops * threads)),
        of_bandwidth=share("read", (a.nbytes + b.nbytes + out.nbytes) / read.bytes) if read else {},
        ratios={name: paired(times[name], times["nkblas"]) for name in calls if name != "nkblas"},
        medians=medians,
        seconds=times,
    )


def bind(
    contenders: Sequence[Contender], operands: Operands, into: bool, rest: float
) -> tuple[dict[str, Call], dict[str, dict[str, float]], dict[str, str]]:
    """The calls of those that have the case, right and in time; why each other is absent.

    Where B may be packed, each contender has its own: one that several read, one after the other,
    would be nearer in the caches than what a single one has packed.

    Returns
    -------
    calls : dict of str to callable
        By contender, the fastest form.
    forms : dict of str to dict
        As `Result.forms`.
    absent : dict of str to str

    Raises
    ------
    ArithmeticError
        It is nkblas whose product is wrong.
    """
    calls: dict[str, Call] = {}
    raced: dict[str, dict[str, float]] = {}
    absent: dict[str, str] = {}
    expected = Expected(operands)
    weights = operands.case.product != operands.case
    for contender in contenders:
        try:
            forms = contender.bind(operands.with_own_weights() if weights else operands, into)
            seconds = min(map(expected.verify, forms.values()))
            if seconds > LONGEST and contender.name != "nkblas":
                raise AbsentError("takes too long")
            times = race(forms, rest) if len(forms) > 1 else dict.fromkeys(forms, seconds)
            form = min(times, key=times.__getitem__)
            calls[contender.name] = forms[form]
            if form:
                raced[contender.name] = times
        except AbsentError as why:
            absent[contender.name] = str(why)
        except ArithmeticError as why:
            if contender.name == "nkblas":
                raise
            absent[contender.name] = f"its product is {why}"
    return calls, raced, absent


def race(forms: Mapping[str, Call], rest: float) -> dict[str, float]:
    """Seconds of each form, from a few rounds."""
    times = interleave(forms, 0, rest, RACE)
    return {form: statistics.median(values) for form, values in times.items()}


def paired(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios within each round in which both were timed."""
    return statistics.median(x / y for x, y in zip(numerator, denominator, strict=False))


def interleave(
    calls: Mapping[str, Call], seconds: float, rest: float, fewest: int = ROUNDS
) -> dict[str, list[float]]:
    """Seconds that one call takes, for each round; the rounds fill `seconds`."""
    timers = {name: Timer(call) for name, call in calls.items()}
    samples = {name: fill(timer) for name, timer in timers.items()}
    slow = max(SLOW, TIMES * min(sample.seconds for sample in samples.values()))
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    start = time.perf_counter()
    rounds = 0
    while rounds < fewest or time.perf_counter() - start < seconds:
        if rounds == FEWEST:
            order = [name for name in order if samples[name].seconds < slow]
        shuffle(order)  # in a fixed order each would always find the same leftovers in the caches
        for name in order:
            number = samples[name].number
            if rest:
                pause(rest)
                timers[name].timeit(number)  # wakes this one's own workers
            times[name].append(timers[name].timeit(number) / number)
        rounds += 1
    return times


def pause(seconds: float) -> None:
    """Wait without sleep, after which the system would start workers on this thread's core."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Sample(NamedTuple):
    """How many calls it has, and how long it takes."""

    number: int
    seconds: float


def fill(timer: Timer) -> Sample:
    """The sample that takes long enough. Finding it warms up: clock, caches, thread pools."""
    number, seconds = 1, timer.timeit(1)
    if seconds > SLOW:
        return Sample(number, seconds)
    while (seconds := min(timer.repeat(3, number))) < SAMPLE:
        number *= 2
    return Sample(number, seconds)
