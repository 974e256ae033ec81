"""Ties the levels together: when the engine meets a new problem, plan it and get its kernels."""

import os
import threading
from typing import Any

from ._engine import ffi, lib
from .codegen.spec import KernelSpec
from .detect import detect
from .kernels import KernelsUnavailableError, kernels
from .log import log
from .plan import Cut, Plan, plan_for
from .problem import DTYPES, LAYOUTS, Problem

cpu = detect()

JIT_MODES = ("first-call", "background", "never")


def _jit_mode() -> str:
    mode = os.environ.get("NKBLAS_JIT", JIT_MODES[0])
    if mode not in JIT_MODES:
        raise ValueError(f"NKBLAS_JIT: got {mode!r}, expected one of {', '.join(JIT_MODES)}")
    return mode


jit = _jit_mode()

why_numpy: dict[Problem, str] = {}
"""Problems that are left to NumPy for good, and why."""

_lock = threading.RLock()
_under_way: set[Problem] = set()  # problems that a background thread works on


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()
    _under_way.clear()


os.register_at_fork(after_in_child=_renew_lock)


@ffi.def_extern(name="nk_ask_python", error=0)
def _ask(raw: Any) -> int:
    """Called by the engine for a problem that its table lacks; 0 leaves this call to NumPy."""
    try:
        problem = from_c(raw)
        if jit == "background":
            _prepare_in_background(problem)
            return 0
        prepare(problem)
        return 1
    except KeyboardInterrupt:
        # It can't pass through C: this product is NumPy's, and the interrupt comes after it.
        import _thread

        _thread.interrupt_main()
        return 0
    except Exception as error:
        log("error", f"no plan for a product, NumPy does it: {type(error).__name__}: {error}")
        return 0


lib.nk_ask = lib.nk_ask_python


def prepare(problem: Problem) -> None:
    """Put a plan for `problem` into the engine's table, with its kernels loaded."""
    with _lock:
        if lib.nk_table_find(to_c(problem)) != ffi.NULL:
            return  # another thread has done it meanwhile
        plan = plan_for(problem, cpu)
        try:
            addresses = kernels.load(plan.kernels, jit=jit != "never")
        except KernelsUnavailableError as why:
            log("warning", f"NumPy does the products that lack a kernel: {why.cause}", once=True)
            log("info", f"NumPy does {problem}: {why}")
            why_numpy[problem] = str(why)
            insert(left_to_numpy(problem))
        else:
            insert(plan_to_c(plan, addresses))


def _prepare_in_background(problem: Problem) -> None:
    if problem in _under_way:
        return
    _under_way.add(problem)

    def work() -> None:
        try:
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
