"""`nkblas.explain`: the plan of a product, the alternatives, and where its kernels are."""

import math
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from nkblas._engine import ffi, lib
from nkblas.api.gufuncs import matmul, register_user_dtypes
from nkblas.api.packed import PackedMatrix
from nkblas.base.dtypes import PRODUCT_CODE, product
from nkblas.base.problem import Problem
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import best_known_plan
from nkblas.planning.plan import Plan
from nkblas.runtime.abi import describe_product
from nkblas.runtime.dispatch import available_plan
from nkblas.runtime.kernels import cannot_compile_reason, kernels
from nkblas.runtime.plan_table import fallback_reasons, plans_in_table
from nkblas.runtime.threads import get_num_threads
from nkblas.system import config
from nkblas.system.cpu import CPU, cpu

if TYPE_CHECKING:
    from nkblas._engine import nk_matrix

MAX_REJECTED = 3
"""Number of rejected plans in an explanation."""


class Explanation(NamedTuple):
    """How nkblas does a product; `explain` returns it.

    Attributes
    ----------
    backend : {"nkblas", "numpy"}
        The library that does the product.
    reason : str
        Why NumPy does the product, or why there is no plan for it; else empty.
    problem : Problem or None
        The product of one pair of matrices of the stacks; or one of all of them, where the engine
        takes them as one with more rows or columns. None if nkblas has no kernels for the dtypes.
    plan : Plan or None
        The plan that a call uses now. ``plan.origin`` is "model" for a plan that the cost model
        selected, "tuned" for one that was measured on this machine, and "shipped" for one that was
        measured for the package.
    kernels : tuple of str
        Names of the generated functions that the plan calls, the main tile's first.
    cache : tuple of {"process", "package", "store", "nowhere"}
        Where each of `kernels` is now: loaded by this process, in the installed package, in the
        store on disk, or still to be compiled.
    threads : int
        The number of threads that do the product, if no other product runs at the same time.
    awaited : Plan or None
        The plan that replaces `plan`, an interim plan, once its kernels are compiled. None if
        `plan` is final.
    rejected : tuple of Plan
        The cheapest other plans by the cost model, in the order of their modelled times on one
        thread (``plan.nanoseconds``).

    See Also
    --------
    nkblas.explain
    """

    backend: Literal["nkblas", "numpy"]
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
        """The register tile (mr, nr) of `plan`, in elements; None if there is no plan."""
        return self.plan.tile if self.plan else None

    def __str__(self) -> str:
        if self.plan is None:
            return f"{self.backend}: {self.reason}"
        lines = [f"{self.backend}: {self.problem}, {self.threads} thread{'s' * (self.threads > 1)}"]
        plans = [("plan", self.plan), ("awaited", self.awaited)]
        for label, plan in [*plans, *(("rejected", other) for other in self.rejected)]:
            if plan is not None:
                origin = f"{plan.origin}{', interim' * plan.interim}"
                lines.append(f"  {label:8} {format_time(plan.nanoseconds):>8}  {plan} ({origin})")
        width = max(map(len, self.kernels))
        for name, location in zip(self.kernels, self.cache, strict=True):
            lines.append(f"  {name:{width}}  {location}")
        return "\n".join(lines)


def explain(a: Any, b: Any) -> Explanation:
    """Explain how ``nkblas.matmul(a, b)`` would be done. Nothing is multiplied or compiled.

    Parameters
    ----------
    a, b : array_like
        Operands as for `matmul`; `b` may be a `PackedMatrix`. Their elements are not read.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        The shapes of `a` and `b` do not match, or one of them is a scalar.
    TypeError
        There is no product of their dtypes.

    See Also
    --------
    nkblas.record : the problems that a program calls.
    nkblas.stats : how many products NumPy did.
    """
    a, b = np.asanyarray(a), b if isinstance(b, PackedMatrix) else np.asanyarray(b)
    if 0 in (a.ndim, b.ndim):
        raise ValueError("explain: expected arrays of at least one dimension, got a scalar")
    register_user_dtypes()
    if isinstance(b, PackedMatrix):
        b.check(a)
        dtypes: tuple[np.dtype, ...] = b.a_dtype, b.dtype, b.result_dtype
    else:
        dtypes = matmul.resolve_dtypes((a.dtype, b.dtype, None))
    name = product(*(dtype.name for dtype in dtypes))
    if name is None:
        return Explanation("numpy", f"dtype {dtypes[2].name} has no generated kernels")
    problem, count = _describe_product(name, dtypes, a, b)
    if 0 in (problem.m, problem.n, problem.k):
        return Explanation("nkblas", "nothing to multiply", problem)
    plan = plans_in_table.get(problem) or available_plan(problem)
    awaited = best_known_plan(problem, cpu) if plan.interim else None
    explanation = describe(plan, cpu, awaited, count)
    fallback_reason = fallback_reasons.get(problem, "")
    reason = cannot_compile_reason()
    if config.JIT_MODE == "background":
        reason = reason or "NKBLAS_JIT=background"
    if not fallback_reason and "nowhere" in explanation.cache and reason:
        missing = explanation.kernels[explanation.cache.index("nowhere")]
        fallback_reason = f"{missing}: not in the store, and {reason}"
    if fallback_reason:
        return Explanation("numpy", fallback_reason, problem)
    return explanation


def describe(plan: Plan, cpu: CPU, awaited: Plan | None = None, count: int = 1) -> Explanation:
    """The explanation of a plan.

    Parameters
    ----------
    plan : Plan
    cpu : CPU
        The CPU that the rejected plans are ranked for.
    awaited : Plan, optional
        The plan that will replace `plan`.
    count : int
        Number of products in the stack.
    """
    max_threads = min(get_num_threads(), len(os.sched_getaffinity(0)))
    # Schedules that differ only where the problem does not reach make plans with the same text.
    ranked_plans = {
        str(other): other for other in cost_model.ranked_plans(plan.problem, cpu, 8 * MAX_REJECTED)
    }
    selected = {str(plan), str(awaited)}
    rejected = [other for text, other in ranked_plans.items() if text not in selected]
    return Explanation(
        backend="nkblas",
        reason="",
        problem=plan.problem,
        plan=plan,
        kernels=tuple(spec.symbol for spec in plan.kernels),
        cache=tuple(map(kernels.location, plan.kernels)),
        threads=lib.nk_threads_for(plan.nanoseconds * count, max_threads),
        awaited=awaited,
        rejected=tuple(rejected[:MAX_REJECTED]),
    )


def format_time(nanoseconds: float) -> str:
    """A time as text: three digits and a unit."""
    for unit in ("ns", "us", "ms"):
        if nanoseconds < 999.5:
            return f"{nanoseconds:.3g} {unit}"
        nanoseconds /= 1000
    return f"{nanoseconds:.3g} s"


def _describe_product(
    name: str, dtypes: tuple[np.dtype, ...], a: np.ndarray, b: np.ndarray | PackedMatrix
) -> tuple[Problem, int]:
    """The problem that the engine will find for a product, and how many products it is.

    NumPy passes a stack of several dimensions along its last one.

    Parameters
    ----------
    name : str
        The product's key in `nkblas.base.dtypes.PRODUCTS`.
    dtypes : tuple of np.dtype
        Of the operands and of the result, after casting.
    a, b : np.ndarray or PackedMatrix
    """
    a = a[(None,) * (a.ndim == 1)]
    if isinstance(b, PackedMatrix):
        a = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    else:
        b = b[(..., *(None,) * (b.ndim == 1))]
    (m, k), (k_of_b, n) = a.shape[-2:], b.shape[-2:]
    if k != k_of_b:
        raise ValueError(f"explain: expected inner dimensions that agree, got {k} and {k_of_b}")
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # raises ValueError like matmul
    operands = _matrix_to_c(a, dtypes[0]), _matrix_to_c(b, dtypes[1])
    c = ffi.new("nk_matrix *", (ffi.NULL, n, 1))
    problem, count = describe_product(
        PRODUCT_CODE[name],
        (m, n, k),
        (*(matrix for matrix, _ in operands), c),
        math.prod(stack[-1:]),
        (*(batch_stride for _, batch_stride in operands), m * n),
    )
    return problem, count * math.prod(stack[:-1])


def _matrix_to_c(x: np.ndarray | PackedMatrix, dtype: np.dtype) -> tuple["nk_matrix", int]:
    """The engine's struct for an operand, and the distance to the next one of a stack.

    It has the operand's address, which is not read, unless NumPy casts it to a row-major copy.
    """
    if isinstance(x, PackedMatrix):
        return ffi.new("nk_matrix *", {"is_packed": 1}), 0
    data, strides = ffi.cast("char *", x.ctypes.data), x.strides
    if x.dtype != dtype:
        rows, columns = x.shape[-2:]
        data, strides = ffi.NULL, (rows * columns * x.itemsize, columns * x.itemsize, x.itemsize)
    is_stack = x.ndim > 2 and x.shape[-3] > 1
    batch_stride, rs, cs = (0, *strides[-2:]) if not is_stack else strides[-3:]
    return ffi.new("nk_matrix *", (data, rs // x.itemsize, cs // x.itemsize)), (
        batch_stride // x.itemsize
    )
