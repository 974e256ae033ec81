"""The suite `calls`: calls that NumPy users write, as ratios of NumPy's time to nkblas's.

A sample of nkblas is taken while NumPy is patched, one of NumPy while it is not. Plans are those of
the cost model, all kernels are compiled before, and both libraries use one thread.
"""

import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from timeit import Timer
from typing import Any

import numpy as np

import nkblas

from .call_list import OPERAND_DTYPES, CallCase
from .operands import Array, random_array
from .peers.contender import load_module
from .results import CallResult
from .timing import median_ratio, time_interleaved

TOLERANCES = {"float16": 1e-2, "float32": 1e-4, "complex64": 1e-4, "float64": 1e-10}
"""By dtype of a result: how much two results may differ, relative to the largest element. Those of
dtypes that are not listed have to be equal."""

TOLERANCES["complex128"] = TOLERANCES["float64"]

HAS_SCIPY = find_spec("scipy") is not None

Namespace = dict[str, Any]


class PatchedTimer(Timer):
    """A timer that patches NumPy for each sample, outside of the measured time."""

    def timeit(self, number: int = 1000000) -> float:
        with nkblas.patched():
            return super().timeit(number)


def measure_calls(cases: Iterable[CallCase], seconds: float) -> Iterator[CallResult]:
    """Measure the calls whose functions are installed (see `measure_call`), with one thread."""
    if HAS_SCIPY:
        import_module("scipy.linalg.blas")  # loads an OpenBLAS of its own, which is limited, too
    load_module("threadpoolctl").ThreadpoolController().limit(limits=1)
    nkblas.set_num_threads(1)
    return (measure_call(case, seconds) for case in cases if is_installed(case))


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
    namespace = make_operands(case)
    numpy_namespace = namespace | {
        "blas": import_module("scipy.linalg.blas") if HAS_SCIPY else None
    }
    expected = np.array(eval(numpy_statement, numpy_namespace))
    fallbacks = nkblas.stats()["fallbacks"]
    with nkblas.patched(), nkblas.record() as problems:
        result = eval(case.statement, namespace)
    is_fallback = nkblas.stats()["fallbacks"] > fallbacks
    check(case, result, expected)
    nkblas.warmup(problems, tune=False, progress=False)
    timers = {
        "numpy": Timer(numpy_statement, globals=numpy_namespace),
        "nkblas": PatchedTimer(case.statement, globals=namespace),
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
    """The variables that the statements of a call use; the same values each time."""
    generator = np.random.default_rng(zlib.crc32(case.setup.encode()))

    def random(dtype: str, *shape: int) -> Array:
        return np.asarray(random_array(generator, np.dtype(dtype), shape, k=1))

    functions = {name: partial(random, name) for name in OPERAND_DTYPES}
    namespace: Namespace = {"np": np, "nkblas": nkblas, "blas": nkblas.blas, **functions}
    exec(case.setup, namespace)
    return namespace


def check(case: CallCase, result: object, expected: Array) -> None:
    """Compare nkblas's result with NumPy's.

    Raises
    ------
    ArithmeticError
        They differ.
    """
    got = np.asarray(result)
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        raise ArithmeticError(
            f"{case}: got {got.dtype} of shape {got.shape}, "
            f"expected {expected.dtype} of shape {expected.shape}"
        )
    tolerance = TOLERANCES.get(expected.dtype.name, 0) * abs(expected).max()
    if not np.allclose(got, expected, rtol=0, atol=tolerance):
        raise ArithmeticError(f"{case}: its result is not NumPy's")
