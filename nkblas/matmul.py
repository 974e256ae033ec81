"""`nkblas.matmul`, and what it can tell about itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _gufunc, runtime
from ._engine import ffi, lib
from .kernels import kernels
from .plan import Plan, plan_for
from .problem import Problem

matmul: np.ufunc = _gufunc.bind(
    np.matmul,
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_gemm"))),
    int(ffi.cast("uintptr_t", lib.nk_counts())),
)


def stats() -> dict[str, int]:
    """Counts since the process started.

    Returns
    -------
    dict
        ``calls``: products asked of nkblas, each matrix of a stack by itself. ``fallbacks``:
        those that NumPy did. ``kernels_compiled``: kernels compiled for this process.
        ``kernels_loaded``: kernels that it found in the store.
    """
    counts = lib.nk_counts()
    return {
        "calls": counts.calls,
        "fallbacks": counts.fallbacks,
        "kernels_compiled": kernels.compiled,
        "kernels_loaded": kernels.loaded,
    }


@dataclass(frozen=True)
class Explanation:
    """How nkblas does one product; `explain` makes it.

    Attributes
    ----------
    backend : {"nkblas", "numpy"}
        Who does it.
    reason : str
        Why NumPy does it; empty otherwise.
    problem : Problem or None
        The product of one pair of matrices (of a stack).
    plan : Plan or None
    kernels : dict of str to str
        The generated functions that it runs, and where each is now: "process", "store", or
        "nowhere" (the first call compiles it).
    threads : int
    """

    backend: str
    reason: str
    problem: Problem | None = None
    plan: Plan | None = None
    kernels: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    threads: int = 1

    @property
    def tile(self) -> tuple[int, int] | None:
        """The register tile (mr, nr)."""
        return self.plan.tile if self.plan else None

    def __str__(self) -> str:
        if self.plan is None:
            return f"numpy: {self.reason}"
        lines = [f"{self.backend}: {self.problem}, {self.threads} thread", f"  plan: {self.plan}"]
        if self.reason:
            lines[0] = f"{self.backend}: {self.problem}: {self.reason}"
        width = max(map(len, self.kernels))
        places = zip(self.kernels, self.cache, strict=True)
        return "\n".join([*lines, *(f"  {name:{width}}  {where}" for name, where in places)])


def explain(a: Any, b: Any) -> Explanation:
    """Tell how ``nkblas.matmul(a, b)`` is done. Nothing is multiplied or compiled.

    Parameters
    ----------
    a, b : array_like
        As for `matmul`.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError, TypeError
        `matmul` itself would not take `a` and `b`.
    """
    a, b = np.asanyarray(a), np.asanyarray(b)
    dtype = matmul.resolve_dtypes((a.dtype, b.dtype, None))[2]
    if dtype.name not in DTYPES:
        return Explanation("numpy", f"dtype {dtype.name} has no generated kernels")
    problem = _problem(dtype, a, b)
    if 0 in (problem.m, problem.n, problem.k):
        return Explanation("nkblas", "nothing to multiply", problem)
    plan = plan_for(problem, runtime.cpu)
    names = tuple(spec.symbol for spec in plan.kernels)
    places = tuple(map(kernels.where, plan.kernels))
    lost = runtime.why_numpy.get(problem, "")
    if not lost and runtime.jit == "never" and "nowhere" in places:
        lost = "NKBLAS_JIT=never, and a kernel is not in the store"
    return Explanation("numpy" if lost else "nkblas", lost, problem, plan, names, places)


def _problem(dtype: np.dtype, a: np.ndarray, b: np.ndarray) -> Problem:
    """The problem of one pair of matrices of ``matmul(a, b)``, as the engine will see it."""
    matmul_signature_checked = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    ...
