"""The suite `calls`: calls that NumPy users write, as ratios of NumPy's time to nkblas's.

Both libraries use one thread and the same operands. nkblas is timed while NumPy is patched, with
plans that were not tuned on this machine, and after their kernels were compiled.
"""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np

import nkblas
from nkblas.planning.measured_plans import TUNED, measured, plan_file

from .call_list import OPERAND_DTYPES, CallCase
from .operands import Array, random_array
from .peers.contender import load_module
from .peers.numpy import warm_up_openblas
from .results import CallResult
from .timing import SampleTimer, median_ratio, time_interleaved

TOLERANCES = {
    "float16": 1e-2,
    "float32": 1e-4,
    "complex64": 1e-4,
    "float64": 1e-10,
    "complex128": 1e-10,
}
"""By dtype: how much two results may differ, relative to the largest element. Those of other dtypes
have to be equal."""

CACHE_LINE, PAGE = 64, 4096

MALLOC_HEADER = 16
"""Bytes before an array in the memory that malloc takes from the system for it."""

MMAP_THRESHOLD = 128 << 10
"""malloc takes whole pages from the system for this many bytes, by default."""

HAS_SCIPY = find_spec("scipy") is not None

Namespace = dict[str, Any]


class CallTimer(SampleTimer):
    """A timer of a statement by CPU time: other processes on the core do not count.

    Parameters
    ----------
    statement : str
    namespace : dict
        Its variables.
    """

    def __init__(self, statement: str, namespace: Namespace) -> None:
        super().__init__(statement, timer=time.thread_time, globals=namespace)


class PatchedTimer(CallTimer):
    """A timer that patches NumPy for each sample, outside the measured time."""

    def timeit(self, number: int = 1000000) -> float:
        with nkblas.patched():
            return super().timeit(number)


def measure_calls(cases: Iterable[CallCase], seconds: float) -> Iterator[CallResult]:
    """Measure those calls whose functions are installed, each as `measure_call` does.

    From then on the process uses one thread, and plans that were not tuned on this machine.
    """
    products: list[Callable[[Array, Array], object]] = [np.matmul]
    if HAS_SCIPY:  # it has an OpenBLAS of its own
        products.append(partial(import_module("scipy.linalg.blas").dgemm, 1))
    load_module("threadpoolctl").ThreadpoolController().limit(limits=1)
    for multiply in products:
        warm_up_openblas(multiply)
    nkblas.set_num_threads(1)
    measured.layers[plan_file(nkblas.cpu, TUNED)] = {}
    for case in cases:
        if is_installed(case):
            yield measure_call(case, seconds)


def is_installed(case: CallCase) -> bool:
    """Whether there are the functions that a call needs: SciPy's, and those of NumPy 2.2."""
    if case.statement.startswith("blas."):
        return HAS_SCIPY
    return hasattr(np, "matvec") or not case.statement.startswith(("np.matvec", "np.vecmat"))


def measure_call(case: CallCase, seconds: float) -> CallResult:
    """Check and time one call.

    Parameters
    ----------
    case : CallCase
    seconds : float
        Approximate duration of the timing, unless the minimum number of rounds takes longer.

    Raises
    ------
    ArithmeticError
        nkblas's result is not NumPy's.
    """
    numpy_statement = case.numpy_statement or case.statement
    # Operands of its own: a result that nkblas leaves in `out` unwritten must not look right.
    expected = eval(numpy_statement, make_operands(case) | numpy_functions())
    operands = make_operands(case)
    namespace = operands | {"blas": nkblas.blas}
    fallbacks = nkblas.stats()["fallbacks"]
    with nkblas.patched(), nkblas.record() as problems:
        result = eval(case.statement, namespace)
    is_fallback = nkblas.stats()["fallbacks"] > fallbacks
    check(case, result, expected)
    nkblas.warmup(problems, tune=False, progress=False)
    timers = {
        "numpy": CallTimer(numpy_statement, operands | numpy_functions()),
        "nkblas": PatchedTimer(case.statement, namespace),
    }
    times = time_interleaved(timers, seconds, pause=0)
    return CallResult(
        case=case,
        fallback=is_fallback,
        ratio=median_ratio(times["numpy"], times["nkblas"]),
        medians={name: median(values) for name, values in times.items()},
        seconds=times,
    )


def make_operands(case: CallCase) -> Namespace:
    """The variables of a call's statements, without `blas`; the same values each time."""
    generator = np.random.default_rng(zlib.crc32(case.setup.encode()))

    def random(dtype: str, *shape: int) -> Array:
        values = np.asarray(random_array(generator, np.dtype(dtype), shape, k=1))
        return place_like_malloc(values)

    namespace: Namespace = {name: partial(random, name) for name in OPERAND_DTYPES}
    namespace |= {"np": np, "nkblas": nkblas}
    exec(case.setup, namespace)
    return namespace


def place_like_malloc(values: Array) -> Array:
    """A copy, `MALLOC_HEADER` bytes beyond a cache line; if it is large, beyond a page.

    An address that is left to chance would be aligned for vectors in some runs only.
    """
    alignment = PAGE if values.nbytes >= MMAP_THRESHOLD else CACHE_LINE
    buffer = np.empty(values.nbytes + alignment, np.uint8)
    start = (MALLOC_HEADER - buffer.ctypes.data) % alignment
    copy = np.ndarray(values.shape, values.dtype, buffer, start)
    copy[...] = values
    return copy


def numpy_functions() -> Namespace:
    """What a statement finds under other names than nkblas's: SciPy's BLAS, if it is installed."""
    return {"blas": import_module("scipy.linalg.blas")} if HAS_SCIPY else {}


def check(case: CallCase, result: Any, expected: Any) -> None:
    """Compare nkblas's result with NumPy's.

    Raises
    ------
    ArithmeticError
        They differ, in type, dtype, shape or values.
    """
    kinds = [(type(x).__name__, np.asarray(x).dtype.name, np.shape(x)) for x in (result, expected)]
    if kinds[0] != kinds[1]:
        raise ArithmeticError(f"{case}: got {kinds[0]}, expected {kinds[1]}")
    got, wanted = np.asarray(result), np.asarray(expected)
    tolerance = TOLERANCES.get(wanted.dtype.name)
    if tolerance is None:
        is_right = np.array_equal(got, wanted)
    else:
        is_right = np.allclose(got, wanted, rtol=0, atol=tolerance * abs(wanted).max())
    if not is_right:
        raise ArithmeticError(f"{case}: nkblas's result is not NumPy's")
