"""The report of `nkblas run --report`: a program's products, and NumPy's times for them."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nkblas import _numpy_ext
from nkblas.api.doors import close_doors
from nkblas.api.gufuncs import matmul
from nkblas.api.packed import PackedMatrix, pack
from nkblas.base.dtypes import QUANTIZED
from nkblas.base.problem import TRIANGLES, Problem

from .explain import format_time
from .record import Recording
from .stats import stats

if TYPE_CHECKING:
    from .children import Totals

MAX_TOTAL_SECONDS = 3.0
"""Time for all comparisons together."""

MAX_ROUNDS = 9
"""Rounds of a comparison; each measures nkblas and then NumPy."""

PAUSE_SECONDS = 5e-3
"""Pause before each measurement: the other library's idle threads may spin for more work."""

MIN_MEASURED_SECONDS = 200e-6
"""Least duration of a measurement: short products are repeated."""

MAX_PROBLEMS = 20
"""Rows for single problems, those with the longest times; one row has the sums of the rest."""

HEADER = ("problem", "products", "in all", "each", "now", "NumPy", "NumPy / nkblas")

Array = np.ndarray[Any, Any]


def report(recording: Recording, children: "Totals | None" = None) -> str:
    """A table of the recorded problems, with the times of nkblas and NumPy measured now.

    NumPy is no longer patched afterwards.

    Parameters
    ----------
    recording : Recording
        The products of this process and its children.
    children : Totals, optional
        What the children did.
    """
    counters = Counter(stats()) + (children.stats if children else Counter())
    _numpy_ext.set_patched(False)
    close_doors()
    seconds = recording.seconds
    problems = sorted(recording, key=lambda problem: -seconds.get(problem, 0.0))
    deadline = time.perf_counter() + MAX_TOTAL_SECONDS
    rows: list[tuple[str, ...]] = [HEADER]
    rows += [_row(recording, problem, deadline) for problem in problems[:MAX_PROBLEMS]]
    rest = problems[MAX_PROBLEMS:]
    if rest:
        count = sum(recording[problem] for problem in rest)
        total = _seconds_to_text(sum(seconds[problem] for problem in rest))
        rows.append((f"{len(rest)} more", str(count), total, "", "", "", ""))
    total = _seconds_to_text(sum(seconds.values()))
    summary = (
        f"nkblas: {counters['calls'] - counters['fallbacks']} products on generated kernels "
        f"in {total}, {counters['fallbacks']} by NumPy; "
        f"{counters['kernels_compiled']} kernels compiled, {counters['kernels_loaded']} loaded"
    )
    if children and children.processes:
        summary += f"; {children.processes} other processes among them"
    return "\n".join([summary, *_align(rows)])


def _row(recording: Recording, problem: Problem, deadline: float) -> tuple[str, ...]:
    """The cells of a problem; without a comparison if there is no time for one."""
    total, count = recording.seconds[problem], recording[problem]
    cells = (str(problem), str(count), _seconds_to_text(total), _seconds_to_text(total / count))
    remaining = deadline - time.perf_counter()
    times = compare(problem, remaining) if remaining > 3 * total / count else None
    if times is None:
        return (*cells, "", "", "")
    nkblas, numpy = times
    return (*cells, _seconds_to_text(nkblas), _seconds_to_text(numpy), f"{numpy / nkblas:.2f}")


def _seconds_to_text(seconds: float) -> str:
    return format_time(1e9 * seconds)


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of a table: the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *aligned]).rstrip())
    return lines


def compare(problem: Problem, seconds: float) -> tuple[float, float] | None:
    """Measure one product on nkblas and on NumPy, alternately.

    Parameters
    ----------
    problem : Problem
    seconds : float
        Time that is left for all comparisons; this one takes a part of it.

    Returns
    -------
    (float, float) or None
        Median seconds of a product on nkblas, and on NumPy. None if NumPy has no such product, or
        if there is no memory for the operands.
    """
    if problem.dtype in QUANTIZED or problem.structure in TRIANGLES:
        return None
    try:
        a, b, c = operands(problem)
    except MemoryError:
        return None
    nkblas_b = pack(b, a_dtype=a.dtype, dtype=c.dtype) if problem.b == "packed" else b
    options = {} if a.dtype == c.dtype else {"dtype": c.dtype}
    contenders = ((partial(matmul, **options), nkblas_b), (partial(np.matmul, **options), b))
    end = time.perf_counter() + min(seconds, max(0.1, seconds / 4))
    for function, right in contenders:
        function(a, right, out=c)  # a first call plans, loads kernels and touches memory
    rounds: list[tuple[float, ...]] = []
    while not rounds or (len(rounds) < MAX_ROUNDS and time.perf_counter() < end):
        rounds.append(tuple(measure(function, a, right, c) for function, right in contenders))
    nkblas, numpy = (statistics.median(times) for times in zip(*rounds, strict=True))
    return nkblas, numpy


def measure(function: Callable[..., Any], a: Array, b: Array | PackedMatrix, c: Array) -> float:
    """Seconds of one call, the mean of at least `MIN_MEASURED_SECONDS` of calls."""
    count = 1
    time.sleep(PAUSE_SECONDS)
    while True:
        start = time.perf_counter()
        for _ in range(count):
            function(a, b, out=c)
        seconds = time.perf_counter() - start
        if seconds >= MIN_MEASURED_SECONDS:
            return seconds / count
        count = max(2 * count, int(1.2 * count * MIN_MEASURED_SECONDS / max(seconds, 1e-9)))


def operands(problem: Problem) -> tuple[Array, Array, Array]:
    """Matrices A, B and C for a problem, in its layouts, all ones."""

    def matrix(rows: int, columns: int, layout: str, dtype: str) -> Array:
        column_step = 2 if layout == "strided" else 1
        x = np.ones((rows, columns * column_step), dtype)[:, ::column_step]
        return np.asfortranarray(x) if layout == "col" else x

    m, n, k, (a, b, c) = problem.m, problem.n, problem.k, problem.types
    return matrix(m, k, problem.a, a), matrix(k, n, problem.b, b), matrix(m, n, problem.c, c)
