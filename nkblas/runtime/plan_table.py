"""The engine's plan table, and what Python remembers of its entries.

The caller of each function holds `planning_lock`: the engine lets one thread insert at a time.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

from nkblas._engine import ffi, lib
from nkblas.base.problem import Problem
from nkblas.planning.plan import Plan
from nkblas.system.log import log

from . import abi
from .kernels import kernels

if TYPE_CHECKING:
    from nkblas._engine import nk_plan, nk_trial

MAX_PROBLEMS = 1 << 14
"""Problems in the table; a full one is cleared."""

plans_in_table: dict[Problem, Plan] = {}
"""The plans in the table, by problem."""

fallback_reasons: dict[Problem, str] = {}
"""Why problems in the table are left to NumPy."""


def is_in_table(problem: Problem) -> bool:
    """Whether the table has an entry for `problem`: a plan, or an entry that leaves it to NumPy."""
    return bool(lib.nk_table_find(abi.problem_to_c(problem)) != ffi.NULL)


class Trial(NamedTuple):
    """A plan that does some of the products of a problem, beside the present plan.

    Attributes
    ----------
    challenger : Plan
        It has the same bits.
    calls : int
        Products since the first trial for the problem began.
    spent : float
        What challengers took longer than the present plan since then, in nanoseconds.
    """

    challenger: Plan
    calls: int = 0
    spent: float = 0.0


def insert(
    plan: Plan, *, tier_up_after: int = 0, jit: bool = True, trial: Trial | None = None
) -> None:
    """Load the kernels of a plan, and enter it for its problem.

    Parameters
    ----------
    plan : Plan
    tier_up_after : int
        Products after which the engine asks for a better plan; 0: never.
    jit : bool
        Whether missing kernels may be compiled.
    trial : Trial, optional

    Raises
    ------
    KernelUnavailableError
        A kernel can't be loaded or compiled. The table is unchanged.
    MemoryError
        There is no memory for the entry.
    """
    c_plan = abi.plan_to_c(plan, kernels.load(plan.kernels, jit=jit))
    c_plan.tier_up_after = tier_up_after
    if trial:
        challenger = trial.challenger._replace(nanoseconds=plan.nanoseconds)  # as many threads
        c_challenger = abi.plan_to_c(challenger, kernels.load(challenger.kernels, jit=jit))
        c_trial = ffi.new("nk_trial *", {"calls": trial.calls, "spent_ns": trial.spent})
        c_trial.random = int.from_bytes(os.urandom(8), "little") | 1
        c_trial.challenger = c_challenger[0]
        c_plan.trial = c_trial
    _insert(c_plan)
    plans_in_table[plan.problem] = plan
    fallback_reasons.pop(plan.problem, None)


def insert_for_classes(plan: Plan, tier_up_after: int) -> None:
    """Enter a plan for all problems of its class in n, and in k (`Plan.sizes_in_classes`).

    Parameters
    ----------
    plan : Plan
        It is in the table.
    tier_up_after : int
        Products of the class after which the engine asks for a plan of the last problem's own.

    Raises
    ------
    MemoryError
        There is no memory for an entry.
    """
    c_plan = abi.plan_to_c(plan, kernels.addresses)
    c_plan.tier_up_after = tier_up_after
    c_problem = abi.problem_to_c(plan.problem)
    for size in plan.sizes_in_classes:
        of_class = {"n": lib.nk_class_in_n, "k": lib.nk_class_in_k}[size]
        c_plan.problem = of_class(c_problem)
        _insert(c_plan)


def find_trial(problem: Problem) -> "nk_trial | None":
    """The trial in the entry of a problem, if there is one."""
    entry = lib.nk_table_find(abi.problem_to_c(problem))
    return entry.trial if entry and entry.trial else None


def insert_fallback(problem: Problem, reason: str) -> None:
    """Have the engine leave a problem to NumPy from now on.

    Raises
    ------
    MemoryError
        There is no memory for the entry.
    """
    log("info", f"NumPy does {problem}: {reason}")
    c_plan = ffi.new("nk_plan *")  # kc is 0
    c_plan.problem = abi.problem_to_c(problem)[0]
    _insert(c_plan)
    fallback_reasons[problem] = reason


def _insert(c_plan: "nk_plan") -> None:
    if len(plans_in_table) + len(fallback_reasons) >= MAX_PROBLEMS:
        lib.nk_table_clear()
        plans_in_table.clear()
        fallback_reasons.clear()
    if lib.nk_table_insert(c_plan) != 0:
        raise MemoryError("no memory for a plan")
