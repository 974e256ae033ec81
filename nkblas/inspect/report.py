"""What `nkblas run --report` tells of a program: its products, beside NumPy on the same shapes."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nkblas import _numpy_ext
from nkblas.api.gufuncs import matmul
from nkblas.api.packed import PackedMatrix, pack
from nkblas.base.dtypes import QUANTIZED
from nkblas.base.problem import Problem

from .explain import duration
from .record import Recording
from .stats import stats

SECONDS = 3.0
"""That all comparisons may take."""

ROUNDS = 9
"""Of a comparison, at most: in each, nkblas and NumPy have a turn."""

REST = 5e-3
"""Seconds before each turn: threads of the other library may wait busily for more."""

SAMPLE = 200e-6
"""Seconds that a turn takes at least: short products are repeated."""

LINES = 20
"""Problems that are shown, those that took longest; the rest is summed up."""

Array = np.ndarray[Any, Any]


def report(recording: Recording) -> str:
    """A table of what was recorded, compared with NumPy now.

    NumPy is no longer patched afterwards.
    """
    counts = stats()
    _numpy_ext.set_patched(False)
    problems = sorted(recording, key=lambda problem: -recording.seconds.get(problem, 0.0))
    deadline = time.perf_counter() + SECONDS
    rows = [("problem", "products", "in all", "each", "now", "NumPy", "NumPy / nkblas")]
    for problem in problems[:LINES]:
        taken, count = recording.seconds[problem], recording[problem]
        row = (str(problem), str(count), duration(1e9 * taken), duration(1e9 * taken / count))
        left = deadline - time.perf_counter()
        times = compare(problem, left) if left > 3 * taken / count else None
        if times is None:
            rows.append((*row, "", "", ""))
        else:
            ratio = f"{times[1] / times[0]:.2f}"
            rows.append((*row, duration(1e9 * times[0]), duration(1e9 * times[1]), ratio))
    rest = problems[LINES:]
    if rest:
        number = sum(recording[problem] for problem in rest)
        taken = sum(recording.seconds[problem] for problem in rest)
        rows.append((f"{len(rest)} more", str(number), duration(1e9 * taken), *4 * ("",)))
    done = counts["calls"] - counts["fallbacks"]
    total = duration(1e9 * sum(recording.seconds.values()))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"nkblas: {done} products on generated kernels in {total}, {counts['fallbacks']} by NumPy; "
        f"{counts['kernels_compiled']} kernels compiled, {counts['kernels_loaded']} loaded",
        *(
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ),
    ]
    return "\n".join(lines)


def compare(problem: Problem, seconds: float) -> tuple[float, float] | None:
    """Seconds of one product on nkblas and on NumPy, in turns; None if there is no memory."""
    if problem.dtype in QUANTIZED:  # which NumPy has no call for
        return None
    try:
        a, b, c = operands(problem)
    except MemoryError:
        return None
    right = pack(b, a_dtype=a.dtype, dtype=c.dtype) if problem.b == "packed" else b
    options = {} if a.dtype == c.dtype else {"dtype": c.dtype}
    contenders = ((partial(matmul, **options), right), (partial(np.matmul, **options), b))
    end = time.perf_counter() + min(seconds, max(0.1, seconds / 4))
    for function, right in contenders:
        function(a, right, out=c)  # the first has more to do than the others
    rounds: list[tuple[float, ...]] = []
    while not rounds or (len(rounds) < ROUNDS and time.perf_counter() < end):
        rounds.append(tuple(once(function, a, right, c) for function, right in contenders))
    nkblas, numpy = (statistics.median(times) for times in zip(*rounds, strict=True))
    return nkblas, numpy


def once(function: Callable[..., Any], a: Array, b: Array | PackedMatrix, c: Array) -> float:
    """Seconds of one call, over at least `SAMPLE` seconds of them."""
    count = 1
    time.sleep(REST)
    while True:
        start = time.perf_counter()
        for _ in range(count):
            function(a, b, out=c)
        taken = time.perf_counter() - start
        if taken >= SAMPLE:
            return taken / count
        count = max(2 * count, int(1.2 * count * SAMPLE / max(taken, 1e-9)))


def operands(problem: Problem) -> tuple[Array, Array, Array]:
    """A, B and C of a problem, in its layouts."""

    def matrix(rows: int, columns: int, layout: str, dtype: str) -> Array:
        apart = 2 if layout == "strided" else 1
        x = np.ones((rows, columns * apart), dtype)[:, ::apart]
        return np.asfortranarray(x) if layout == "col" else x

    m, n, k, (a, b, c) = problem.m, problem.n, problem.k, problem.types
    return matrix(m, k, problem.a, a), matrix(k, n, problem.b, b), matrix(m, n, problem.c, c)
