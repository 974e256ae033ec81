"""Ties the levels together: for a new problem, a plan, its kernels, an entry in the table.

A new problem does not wait for a compiler if it can be helped. While kernels of the best plan are
missing, another one stands by that needs none; once the products of this problem have taken about
as long as compiling would, the missing kernels are compiled in the background. So a program that
walks through thousands of shapes compiles next to nothing, and no shape costs more than twice what
it would have cost had its future been known (the ski-rental rule: Karlin, Manasse, Rudolph and
Sleator, "Competitive Snoopy Caching", Algorithmica 3, 1988). The bits of a result do not depend on
which of the two plans made it.
"""

import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import chain
from math import ceil
from typing import Any

from nkblas._engine import ffi, lib
from nkblas.base.dtypes import ITEMSIZE, PRODUCTS
from nkblas.base.epilogues import Epilogue
from nkblas.base.epilogues import parse as parse_epilogue
from nkblas.base.problem import LAYOUTS, Problem
from nkblas.base.tiling import Cut
from nkblas.codegen.spec import KernelSpec
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import measured, plan_for
from nkblas.planning.plan import Plan, base, base_kernels, reduces_in_place
from nkblas.system import config
from nkblas.system.cpu import cpu
from nkblas.system.lock import preparing
from nkblas.system.log import log

from .kernels import KernelsUnavailableError, kernels

COMPILING = 50e6
"""Nanoseconds that a kernel takes to compile, about."""

CALL = 300.0
"""Nanoseconds that the way to the engine takes, about."""

STANDBYS = 16
"""Plans that are looked at for one that needs no compilation, the cheapest first."""

MOST = 1 << 14
"""Problems that the engine's table holds; when it is full, it begins anew."""

in_table: dict[Problem, Plan] = {}
"""What is in the engine's table."""

why_numpy: dict[Problem, str] = {}
"""Problems that are left to NumPy for good, and why."""

# What is to be done in the background, in this order: problems to improve, and the base kernels.
_waiting: dict[Problem | str, Callable[[], None]] = {}
_worker: threading.Thread | None = None


def answer(raw: Any) -> int:
    """Answer the engine: 1 if its table now has the problem, 0 to leave this call to NumPy.

    It asks again once its patience with a plan that stands by is over.
    """
    problem = from_c(raw)
    if problem in in_table:
        _in_background(problem, partial(improve, problem))
        return 1
    return int(prepare(problem))


def prepare(problem: Problem) -> bool:
    """Put a plan for `problem` into the engine's table; False if there is none yet.

    The caller is inside of `nkblas.system.lock.preparing`.
    """
    if lib.nk_table_find(to_c(problem)) != ffi.NULL:  # somebody has done it meanwhile
        return True
    if problem.reduces and not reduces_in_place(problem, cpu.isa):
        _leave_to_numpy(problem, "its blocks can't be read in place")  # brgemm sees to it
        return True
    try:
        plan, missing = _choose(problem)
        cold = not all(map(kernels.at_hand, plan.kernels))
        if cold and config.JIT_MODE == "background":
            _in_background(problem, partial(improve, problem))
            return False
        patience = COMPILING * missing / (plan.nanoseconds + CALL)
        _insert(plan, 0 if config.JIT_MODE == "never" or kernels.are_many else ceil(patience))
        if cold and plan.standby:  # those that the next problem of this dtype may need
            specs = base_kernels(plan)
            what = " ".join(("base kernels", problem.dtype, plan.epilogue))
            _in_background(what, partial(kernels.load_aside, specs))
    except KernelsUnavailableError as why:
        log("warning", f"NumPy does the products that lack a kernel: {why.cause}", once=True)
        _leave_to_numpy(problem, str(why))
    except Exception as error:  # a defect of ours is no reason to fail the user's product
        reason = f"{type(error).__name__}: {error}"
        log("error", f"NumPy does a product for which nkblas fails: {reason}", once=True)
        _leave_to_numpy(problem, reason)
    return True


def plan_for_now(problem: Problem) -> Plan:
    """The best plan if none of its kernels is missing, or else what stands by for it."""
    return _choose(problem)[0]


def _choose(problem: Problem) -> tuple[Plan, int]:
    """The plan for now, and how many kernels the best one lacks.

    If it lacks any, that is the cheapest plan with the same bits that needs no compilation; or the
    base plan, whose few kernels serve all other problems too.
    """
    ranked = cost_model.ranked(problem, cpu, STANDBYS)
    best = measured.find(problem, cpu) or next(ranked)
    missing = sum(not kernels.at_hand(spec) for spec in best.kernels)
    if not missing:
        return best, 0
    last = base(best, cpu)
    if last and last.bits != best.bits:
        last = None
    for plan in chain(ranked, [last] if last else []):
        if plan.bits == best.bits and all(map(kernels.at_hand, plan.kernels)):
            return plan._replace(standby=True), missing
    return (best, 0) if last is None or config.JIT_MODE == "never" else (last, missing)


def _insert(plan: Plan, patience: int = 0) -> None:
    """Load the kernels of a plan, and put it into the table."""
    c_plan = to_c_plan(plan, kernels.load(plan.kernels, jit=config.JIT_MODE != "never"))
    c_plan.patience = patience
    _put(c_plan)
    in_table[plan.problem] = plan


def improve(problem: Problem) -> None:
    """Put the best plan for a problem into the table, compiling what it needs.

    The caller is not inside of `nkblas.system.lock.preparing`, and others may be meanwhile.

    Raises
    ------
    KernelsUnavailableError
        A kernel can't be had. The table is as it was.
    """
    with preparing():
        best = plan_for(problem, cpu)
    kernels.load_aside(best.kernels)
    with preparing():
        _insert(best)
        why_numpy.pop(problem, None)


def _in_background(what: Problem | str, work: Callable[[], None]) -> None:
    """Have `work` done by a thread of its own, after what waits there already."""
    global _worker
    _waiting.setdefault(what, work)
    if _worker is None:
        _worker = threading.Thread(target=_work_off, name="nkblas-compile", daemon=True)
        _worker.start()


def _work_off() -> None:
    global _worker
    while True:
        with preparing():
            if not _waiting:
                _worker = None
                return
            what, work = next(iter(_waiting.items()))
        try:
            work()
        except Exception as error:
            log("info", f"{what}: {error}")
        _waiting.pop(what, None)


def _forget_worker() -> None:
    """After a fork, in the child."""
    global _worker
    _worker = None
    _waiting.clear()


os.register_at_fork(after_in_child=_forget_worker)


def _leave_to_numpy(problem: Problem, reason: str) -> None:
    log("info", f"NumPy does {problem}: {reason}")
    c_plan = ffi.new("nk_plan *")
    c_plan.problem = to_c(problem)[0]
    _put(c_plan)
    why_numpy[problem] = reason


def _put(c_plan: Any) -> None:
    if len(in_table) + len(why_numpy) >= MOST:
        lib.nk_table_clear()
        in_table.clear()
        why_numpy.clear()
    if lib.nk_table_insert(c_plan) != 0:
        raise MemoryError("no memory for a plan")


DTYPES = tuple(PRODUCTS)
"""In the order of the engine's."""


def from_c(raw: Any) -> Problem:
    a, b, c = (LAYOUTS[layout] for layout in (raw.a, raw.b, raw.c))
    epilogue = str(Epilogue.of_code(raw.epilogue))
    sizes = raw.m, raw.n, raw.k
    return Problem(DTYPES[raw.dtype], *sizes, a, b, c, epilogue, bool(raw.reduces))


def to_c(problem: Problem) -> Any:
    """The ``nk_problem`` of `problem`."""
    a, b, c = (LAYOUTS.index(layout) for layout in (problem.a, problem.b, problem.c))
    dtype, epilogue = DTYPES.index(problem.dtype), parse_epilogue(problem.epilogue).code
    sizes = problem.m, problem.n, problem.k
    return ffi.new("nk_problem *", (*sizes, dtype, epilogue, a, b, c, problem.reduces))


def canonical(problem: Problem) -> Problem:
    """The problem as the engine sees it: transposed, where that makes vectors and C rows."""

    def matrix(rows: int, columns: int, layout: str) -> Any:
        if layout == "packed":
            return ffi.new("nk_matrix *", {"packed": 1})
        strides = {"row": (columns, 1), "col": (1, rows), "strided": (2 * columns, 2)}[layout]
        return ffi.new("nk_matrix *", (ffi.NULL, *strides))

    dtype, m, n, k = problem[:4]
    operands = matrix(m, k, problem.a), matrix(k, n, problem.b), matrix(m, n, problem.c)
    steps = ffi.new("nk_steps *")
    described = from_c(lib.nk_describe(DTYPES.index(dtype), m, n, k, *operands, steps))
    return described._replace(epilogue=problem.epilogue, reduces=problem.reduces)


def to_c_plan(plan: Plan, addresses: dict[KernelSpec, int]) -> Any:
    """The ``nk_plan`` of `plan`, its kernels at `addresses`."""
    c = ffi.new("nk_plan *")
    c.problem = to_c(plan.problem)[0]

    def address(kind: str, spec: KernelSpec | None) -> Any:
        return ffi.NULL if spec is None else ffi.cast(kind, addresses[spec])

    def cut(part: Cut) -> tuple[int, ...]:
        return part.size, part.full, part.rest, part.tiles, part.block

    schedule, family = plan.schedule, plan.family
    c.step = family.step
    c.panel_a, c.panel_b = ITEMSIZE[family.a], ITEMSIZE[plan.in_panels]
    c.top_b = ITEMSIZE[family.sums] if family.compensation else 0
    c.held = ITEMSIZE[family.sums]
    c.sum = c.held if family.sums != plan.problem.types.c else 0
    m, n, k = plan.problem[1:4]
    types = plan.problem.types
    c.together = max(1, cpu.l2 // 2 // (k * (m * ITEMSIZE[types.a] + n * ITEMSIZE[types.b])))
    c.nanoseconds = plan.nanoseconds
    c.m, c.n, c.kc = cut(plan.m), cut(plan.n), plan.kc
    c.pack_a, c.pack_b, c.ir_outside = schedule.pack_a, schedule.pack_b, schedule.ir_outside
    c.b_along_k = schedule.kind == "dot" and schedule.pack_b
    c.redo_columns = plan.redo_columns
    c.reads_once = min(plan.problem[1:4]) <= cost_model.SHORT
    c.whole_rows = plan.whole_rows
    for i in (False, True):
        for j in (False, True):
            c.microkernel[i][j] = address("nk_microkernel", plan.microkernel(i, j))
    c.packing = address("nk_microkernel", plan.packing())
    c.packs[0] = address("nk_pack", plan.pack("a"))
    c.packs[1] = address("nk_pack", plan.pack("b"))
    c.copy = address("nk_copy", plan.copy())
    c.small = address("nk_small", plan.small())
    return c
