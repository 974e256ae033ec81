"""Ties the levels together: for a new problem, a plan, its kernels, an entry in the table."""

import os
import threading
from typing import Any

from ._engine import ffi, lib
from .codegen.spec import KernelSpec
from .kernels import KernelsUnavailableError, kernels
from .log import log
from .plan import Cut, Plan, plan_for
from .problem import DTYPES, LAYOUTS, Problem
from .runtime import cpu, jit, preparing

why_numpy: dict[Problem, str] = {}
"""Problems that are left to NumPy for good, and why."""

_under_way: set[Problem] = set()  # problems that a background thread works on
os.register_at_fork(after_in_child=_under_way.clear)


def answer(raw: Any) -> int:
    """Answer the engine: 1 if its table now has the problem, 0 to leave this call to NumPy."""
    problem = from_c(raw)
    if jit == "background":
        _prepare_in_background(problem)
        return 0
    prepare(problem)
    return 1


def prepare(problem: Problem) -> None:
    """Put a plan for `problem` into the engine's table, with its kernels loaded.

    The caller is inside of `nkblas.runtime.preparing`.
    """
    if lib.nk_table_find(to_c(problem)) == ffi.NULL:  # nobody has done it meanwhile
        insert(_plan_or_numpy(problem))


def _plan_or_numpy(problem: Problem) -> Any:
    """The ``nk_plan`` of a problem; if it can't be had, one that leaves it to NumPy."""
    try:
        plan = plan_for(problem, cpu)
        return plan_to_c(plan, kernels.load(plan.kernels, jit=jit != "never"))
    except KernelsUnavailableError as why:
        log("warning", f"NumPy does the products that lack a kernel: {why.cause}", once=True)
        reason = str(why)
    except Exception as error:  # a defect of ours is no reason to fail the user's product
        reason = f"{type(error).__name__}: {error}"
        log("error", f"NumPy does a product for which nkblas fails: {reason}", once=True)
    log("info", f"NumPy does {problem}: {reason}")
    why_numpy[problem] = reason
    return left_to_numpy(problem)


def _prepare_in_background(problem: Problem) -> None:
    if problem in _under_way:
        return
    _under_way.add(problem)

    def work() -> None:
        try:
            with preparing():
                prepare(problem)
        finally:
            _under_way.discard(problem)

    threading.Thread(target=work, name="nkblas-compile", daemon=True).start()


def insert(plan: Any) -> None:
    """Put an ``nk_plan`` into the table."""
    if lib.nk_table_insert(plan) != 0:
        raise MemoryError("no memory for a plan")


def from_c(raw: Any) -> Problem:
    a, b, c = (LAYOUTS[layout] for layout in (raw.a, raw.b, raw.c))
    return Problem(DTYPES[raw.dtype], raw.m, raw.n, raw.k, a, b, c)


def to_c(problem: Problem) -> Any:
    """The ``nk_problem`` of `problem`."""
    a, b, c = (LAYOUTS.index(layout) for layout in (problem.a, problem.b, problem.c))
    dtype = DTYPES.index(problem.dtype)
    return ffi.new("nk_problem *", (problem.m, problem.n, problem.k, dtype, a, b, c, 0))


def left_to_numpy(problem: Problem) -> Any:
    """The ``nk_plan`` of a problem that can't be done here."""
    plan = ffi.new("nk_plan *")
    plan.problem = to_c(problem)[0]
    return plan


def plan_to_c(plan: Plan, addresses: dict[KernelSpec, int]) -> Any:
    """The ``nk_plan`` of `plan`, its kernels at `addresses`."""
    c = left_to_numpy(plan.problem)

    def address(kind: str, spec: KernelSpec | None) -> Any:
        return ffi.NULL if spec is None else ffi.cast(kind, addresses[spec])

    def cut(part: Cut) -> tuple[int, ...]:
        return part.size, part.full, part.rest, part.tiles, part.block

    c.m, c.n, c.kc = cut(plan.m), cut(plan.n), plan.kc
    c.pack_a, c.pack_b, c.ir_outside = plan.pack_a, plan.pack_b, plan.ir_outside
    for i in (False, True):
        for j in (False, True):
            c.microkernel[i][j] = address("nk_microkernel", plan.microkernel(i, j))
    c.packs[0] = address("nk_pack", plan.pack("a"))
    c.packs[1] = address("nk_pack", plan.pack("b"))
    c.copy = address("nk_copy", plan.copy())
    return c
