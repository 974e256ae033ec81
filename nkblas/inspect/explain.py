"""What nkblas tells about itself: `explain`, `stats`, `show_config`."""

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nkblas._engine import ffi, lib
from nkblas.api.gufuncs import matmul, register_user_dtypes
from nkblas.api.packed import PackedMatrix
from nkblas.base.dtypes import product
from nkblas.base.problem import Problem
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import best_known_plan
from nkblas.planning.plan import Plan
from nkblas.runtime.abi import problem_from_c, product_code
from nkblas.runtime.dispatch import available_plan
from nkblas.runtime.kernels import kernels
from nkblas.runtime.plan_table import fallback_reasons, plans_in_table
from nkblas.runtime.threads import get_num_threads
from nkblas.system import config
from nkblas.system.cpu import CPU, cpu

if TYPE_CHECKING:
    from nkblas._engine import nk_matrix

REJECTED = 3
"""Plans that `explain` shows beside the chosen one."""


class Explanation(NamedTuple):
    """How nkblas does one product; `explain` makes it.

    Attributes
    ----------
    backend : {"nkblas", "numpy"}
        Who does it.
    reason : str
        Why NumPy does it, or why there is no plan; empty otherwise.
    problem : Problem or None
        The product of one pair of matrices (of a stack).
    plan : Plan or None
        ``plan.origin`` says who chose it: the "model", or a measurement, "tuned" on this machine
        or "shipped" with nkblas.
    kernels : tuple of str
        The generated functions that it runs, the main tile's first.
    cache : tuple of str
        Where each of them is now: "process", "store", or "nowhere" (the first call compiles it).
    threads : int
        How many threads do it, where none of them is needed elsewhere.
    awaited : Plan or None
        The better plan for which `plan` only stands by, until its kernels are compiled.
    rejected : tuple of Plan
        What the model would take next, each with its modelled time on one thread.
    """

    backend: str
    reason: str
    problem: Problem | None = None
    plan: Plan | None = None
    kernels: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    threads: int = 1
    awaited: Plan | None = None
    rejected: tuple[Plan, ...] = ()

    @property
    def tile(self) -> tuple[int, int] | None:
        """The register tile (mr, nr)."""
        return self.plan.tile if self.plan else None

    def __str__(self) -> str:
        if self.plan is None:
            return f"{self.backend}: {self.reason}"
        lines = [f"{self.backend}: {self.problem}, {self.threads} thread{'s' * (self.threads > 1)}"]
        plans = [("plan", self.plan), ("awaited", self.awaited)]
        for word, plan in [*plans, *(("rejected", other) for other in self.rejected)]:
            if plan is not None:
                origin = f"{plan.origin}{', interim' * plan.interim}"
                lines.append(f"  {word:8} {duration(plan.nanoseconds):>8}  {plan} ({origin})")
        width = max(map(len, self.kernels))
        places = zip(self.kernels, self.cache, strict=True)
        return "\n".join([*lines, *(f"  {name:{width}}  {where}" for name, where in places)])


def explain(a: Any, b: Any) -> Explanation:
    """Tell how ``nkblas.matmul(a, b)`` is done. Nothing is multiplied or compiled.

    Parameters
    ----------
    a, b : array_like
        As for `matmul`: `b` may be a `PackedMatrix`.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError, TypeError
        `matmul` would not take `a` and `b` either.
    """

    a, b = np.asanyarray(a), b if isinstance(b, PackedMatrix) else np.asanyarray(b)
    if 0 in (a.ndim, b.ndim):
        raise ValueError("explain: expected arrays of at least one dimension, got a scalar")
    register_user_dtypes()
    if isinstance(b, PackedMatrix):
        b.check(a)
        types: tuple[np.dtype, ...] = b.a_dtype, b.dtype, b.result_dtype
    else:
        types = matmul.resolve_dtypes((a.dtype, b.dtype, None))
    name = product(*(dtype.name for dtype in types))
    if name is None:
        return Explanation("numpy", f"dtype {types[2].name} has no generated kernels")
    problem = _problem(name, types, a, b)
    if 0 in (problem.m, problem.n, problem.k):
        return Explanation("nkblas", "nothing to multiply", problem)
    plan = plans_in_table.get(problem) or available_plan(problem)
    awaited = best_known_plan(problem, cpu) if plan.interim else None
    packed = isinstance(b, PackedMatrix)  # then a stack is one product
    count = 1 if packed else math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    found = describe(plan, cpu, awaited, count)
    lost = fallback_reasons.get(problem, "")
    if not lost and "nowhere" in found.cache and config.JIT_MODE != "first-call":
        missing = found.kernels[found.cache.index("nowhere")]
        lost = f"{missing}: not in the store, and NKBLAS_JIT={config.JIT_MODE}"
    return Explanation("numpy", lost, problem) if lost else found


def describe(plan: Plan, cpu: CPU, awaited: Plan | None = None, count: int = 1) -> Explanation:
    """The explanation of a plan, for a stack of `count` products."""

    most = min(get_num_threads(), len(os.sched_getaffinity(0)))
    # several schedules may come to the same
    ranked_plans = {
        str(other): other for other in cost_model.ranked_plans(plan.problem, cpu, 8 * REJECTED)
    }
    chosen = {str(plan), str(awaited)}
    return Explanation(
        "nkblas",
        "",
        plan.problem,
        plan,
        tuple(spec.symbol for spec in plan.kernels),
        tuple(map(kernels.location, plan.kernels)),
        lib.nk_threads_for(plan.nanoseconds * count, most),
        awaited,
        tuple(other for text, other in ranked_plans.items() if text not in chosen)[:REJECTED],
    )


def duration(nanoseconds: float) -> str:
    """A time to read, in three digits."""
    for unit in ("ns", "us", "ms"):
        if nanoseconds < 999.5:
            return f"{nanoseconds:.3g} {unit}"
        nanoseconds /= 1000
    return f"{nanoseconds:.3g} s"


def _problem(
    name: str, types: tuple[np.dtype, ...], a: np.ndarray, b: np.ndarray | PackedMatrix
) -> Problem:
    """The problem of one pair of matrices, as the engine will see it."""

    a = a[(None,) * (a.ndim == 1)]
    if isinstance(b, PackedMatrix):
        a = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    else:
        b = b[(..., *(None,) * (b.ndim == 1))]
    (m, k), (k_of_b, n) = a.shape[-2:], b.shape[-2:]
    if k != k_of_b:
        raise ValueError(f"explain: expected inner dimensions that agree, got {k} and {k_of_b}")
    np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # raises as matmul does

    def matrix(columns: int, strides: tuple[int, ...] | None, dtype: np.dtype) -> "nk_matrix":
        size = dtype.itemsize
        rs, cs = strides[-2:] if strides else (columns * size, size)
        return ffi.new("nk_matrix *", (ffi.NULL, rs // size, cs // size))

    # What NumPy casts, it casts to row-major copies.
    left = matrix(k, a.strides if a.dtype == types[0] else None, types[0])
    if isinstance(b, PackedMatrix):
        right = ffi.new("nk_matrix *", {"is_packed": 1})
    else:
        right = matrix(n, b.strides if b.dtype == types[1] else None, types[1])
    c, strides = matrix(n, None, types[2]), ffi.new("nk_batch_strides *")
    return problem_from_c(lib.nk_describe(product_code(name), m, n, k, left, right, c, strides))
