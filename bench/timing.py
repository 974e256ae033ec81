"""Timing of several calls in interleaved rounds.

The speed of a machine changes while it is measured: its clock, and the load of its neighbours.
Therefore each round times every call once, in a random order, and calls are compared within rounds:
a ratio is the median over the rounds of the ratio of two times, measured milliseconds apart.
"""

import random
import statistics
import time
from collections.abc import Mapping
from timeit import Timer
from typing import NamedTuple

from .peers import Call

MIN_SAMPLE_SECONDS = 200e-6
"""Minimum duration of a sample: short calls are repeated to reach it."""

MIN_ROUNDS = 15
"""Minimum number of rounds; there are more if the given time allows."""

SLOW_SECONDS, SLOW_RATIO = 50e-3, 5
"""A call is slow if it takes longer than `SLOW_SECONDS`, and than `SLOW_RATIO` times the fastest
call. Slow calls are timed in the first `SLOW_ROUNDS` rounds only."""

SLOW_ROUNDS = 3

PAUSE_SECONDS = 5e-3
"""Pause between samples with several threads.

After a call, the worker threads of a library busy-wait for a while (see
`bench.__main__.BUSY_WAIT_LIMITS`) on cores that the next library needs.
"""


class SampleTimer(Timer):
    """A timer of a call, or of a statement."""

    def time_after_pause(self, number: int, pause: float) -> float:
        """Seconds that `number` calls take, after others that wake the library's worker threads."""
        if pause:
            busy_wait(pause)
            self.timeit(number)
        return self.timeit(number)


def time_interleaved(
    calls: Mapping[str, Call | SampleTimer],
    seconds: float,
    pause: float,
    min_rounds: int = MIN_ROUNDS,
) -> dict[str, list[float]]:
    """Time several calls in interleaved rounds.

    Parameters
    ----------
    calls : mapping of str to callable or SampleTimer
    seconds : float
        Duration of all rounds together, unless `min_rounds` take longer.
    pause : float
        Seconds to wait before each sample.
    min_rounds : int

    Returns
    -------
    dict of str to list of float
        For each call, its seconds in each round.
    """
    timers = {
        name: x if isinstance(x, SampleTimer) else SampleTimer(x) for name, x in calls.items()
    }
    samples = {name: choose_sample(timer) for name, timer in timers.items()}
    slow = max(SLOW_SECONDS, SLOW_RATIO * min(sample.seconds for sample in samples.values()))
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    start = time.perf_counter()
    rounds = 0
    while rounds < min_rounds or time.perf_counter() - start < seconds:
        if rounds == SLOW_ROUNDS:
            order = [name for name in order if samples[name].seconds < slow]
        shuffle(order)  # in a fixed order, each call would always inherit the same cache contents
        for name in order:
            repeats = samples[name].repeats
            times[name].append(timers[name].time_after_pause(repeats, pause) / repeats)
        rounds += 1
    return times


def median_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio of two times, for rounds that have both."""
    return statistics.median(x / y for x, y in zip(numerator, denominator, strict=False))


def busy_wait(seconds: float) -> None:
    """Wait without sleeping: after a sleep, Linux may place worker threads on this core."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Sample(NamedTuple):
    """Number of calls in a sample, and its duration in seconds."""

    repeats: int
    seconds: float


def choose_sample(timer: Timer) -> Sample:
    """The shortest sample that is long enough.

    The search also warms up the clock, the caches and the thread pools.
    """
    repeats, seconds = 1, timer.timeit(1)
    if seconds > SLOW_SECONDS:
        return Sample(repeats, seconds)
    while (seconds := min(timer.repeat(3, repeats))) < MIN_SAMPLE_SECONDS:
        repeats *= 2
    return Sample(repeats, seconds)
