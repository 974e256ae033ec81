"""Timing: all contenders on the same operands, in turns, in one process.

The speed of a machine changes while it is measured: its clock, its neighbours. So each round
times every contender once, in a random order, and contenders are compared within a round: a ratio
is the median over the rounds of the ratio of two times that were taken milliseconds apart.
"""

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from timeit import Timer
from typing import NamedTuple

import numpy as np

import nkblas
from nkblas import _engine, kernels
from nkblas.codegen import spec

from .peers import Array, Call, Contender
from .suites import Shape

SAMPLE = 200e-6
"""Seconds that a sample takes at least: short calls are repeated to fill it."""

ROUNDS = 15
"""Rounds at least; more where they fit into the time given."""

REST = 5e-3
"""Seconds between samples with more than one thread: the workers of the library before it wait
busily for a while (see `bench.__main__.SHORT_WAITS`), on cores that the next one needs."""


class Result(NamedTuple):
    """What was measured on one shape.

    Attributes
    ----------
    shape : tuple of int
        m, n, k.
    dtype : str
    plan : str
        How nkblas does it.
    fallback : bool
        Whether nkblas left the product to NumPy.
    peak : float
        GFLOP/s of multiply-adds alone, on one core, in the same rounds.
    of_peak : float
        Fraction of that, times the number of threads, that nkblas reaches.
    gflops : dict of str to float
        By contender.
    ratios : dict of str to float
        By peer: its time / nkblas's, so that above 1 nkblas is faster.
    medians : dict of str to float
        By contender, and "peak": seconds of one call.
    seconds : dict of str to list of float
        The same in each round.
    """

    shape: Shape
    dtype: str
    plan: str
    fallback: bool
    peak: float
    of_peak: float
    gflops: dict[str, float]
    ratios: dict[str, float]
    medians: dict[str, float]
    seconds: dict[str, list[float]]

    @property
    def best(self) -> float:
        """Ratio to the fastest peer; NaN if there is none."""
        return min(self.ratios.values(), default=math.nan)


class Peak:
    """A generated kernel that does nothing but multiply-adds on registers.

    Parameters
    ----------
    dtype : str
    flops : int
        About how many a call does: as many as the product that it is compared with, so that
        both run for the same time; more if that is too short to hide the call.
    """

    STEPS = 30_000  # at least

    def __init__(self, dtype: str, flops: int) -> None:
        isa = nkblas.cpu.isa
        # Enough chains to hide the latency of each, and registers to spare for the operands.
        chains = 24 if isa.registers == 32 else 12
        step = 2 * chains * isa.lanes(np.dtype(dtype).itemsize)
        self._steps = max(self.STEPS, flops // step)
        self.flops = self._steps * step
        peak = spec.Peak(isa.name, dtype, chains)
        self._kernel = _engine.ffi.cast("nk_peak", kernels.load([peak])[peak])
        self._buffer = np.empty(64 // np.dtype(dtype).itemsize, dtype)
        self._pointer = _engine.ffi.cast("void *", self._buffer.ctypes.data)

    def __call__(self) -> None:
        self._buffer.fill(1e-3)  # the kernel leaves its sums there, and they would grow
        self._kernel(self._steps, self._pointer)


def measure(
    shape: Shape, dtype: str, contenders: Sequence[Contender], threads: int, seconds: float
) -> Result:
    """Check and time every contender on one shape.

    Parameters
    ----------
    shape : tuple of int
        m, n, k.
    dtype : str
    contenders : sequence of Contender
        nkblas is one of them.
    threads : int
        As many times the peak of one core is what the peak fraction refers to.
    seconds : float
        About how long to time it, if that is more than the fewest rounds take.
    """
    m, n, k = shape
    generator = np.random.default_rng(m * n + k)
    a = generator.uniform(-1, 1, (m, k)).astype(dtype)
    b = generator.uniform(-1, 1, (k, n)).astype(dtype)
    out = np.empty((m, n), dtype)
    calls = {c.name: c.bind(a, b, out) for c in contenders}
    fallbacks = nkblas.stats()["fallbacks"]
    check(calls, a, b, out)
    flops = 2 * m * n * k
    peak = Peak(dtype, flops)
    times = interleave({**calls, "peak": peak}, seconds, REST if threads > 1 else 0)

    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: paired(values, times["nkblas"]) for name, values in times.items()}
    return Result(
        shape=shape,
        dtype=dtype,
        plan=str(nkblas.explain(a, b).plan),
        fallback=nkblas.stats()["fallbacks"] > fallbacks,
        peak=peak.flops / medians["peak"] / 1e9,
        of_peak=ratios["peak"] * flops / (peak.flops * threads),
        gflops={name: flops / medians[name] / 1e9 for name in calls},
        ratios={name: ratios[name] for name in calls if name != "nkblas"},
        medians=medians,
        seconds=times,
    )


def paired(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios within each round."""
    return statistics.median(x / y for x, y in zip(numerator, denominator, strict=True))


def check(calls: dict[str, Call], a: Array, b: Array, out: Array) -> None:
    """See to it that every contender's result is within ``k eps (|A| |B|)`` of a float64 one.

    That leaves room for a float64 reference's own error: each of the two is within half of it.

    Raises
    ------
    ArithmeticError
        A result is not.
    """
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    reference = wide_a @ wide_b
    bound = a.shape[1] * np.finfo(a.dtype).eps * (abs(wide_a) @ abs(wide_b))
    for name, call in calls.items():
        out[...] = np.nan  # what a call leaves out fails
        call()
        if not (abs(out - reference) <= bound).all():
            (m, n), k = out.shape, a.shape[1]
            raise ArithmeticError(f"{name}: {m}x{n}x{k}:{a.dtype} is outside of the error bound")


def interleave(calls: Mapping[str, Call], seconds: float, rest: float) -> dict[str, list[float]]:
    """Seconds that one call takes, for each round; the rounds fill `seconds`."""
    timers = {name: Timer(call) for name, call in calls.items()}
    numbers = {name: fill(timer) for name, timer in timers.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    start = time.perf_counter()
    while len(times[order[0]]) < ROUNDS or time.perf_counter() - start < seconds:
        shuffle(order)  # in a fixed order each would always find the same leftovers in the caches
        for name in order:
            if rest:
                pause(rest)
                calls[name]()  # wakes this one's own workers
            times[name].append(timers[name].timeit(numbers[name]) / numbers[name])
    return times


def pause(seconds: float) -> None:
    """Wait without sleep, after which the system would start workers on this thread's core."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def fill(timer: Timer) -> int:
    """How many calls fill a sample. Finding it warms up: clock, caches, thread pools."""
    number = 1
    while min(timer.repeat(3, number)) < SAMPLE:
        number *= 2
    return number
