"""Plans that improve while a program runs.

Once the products of a problem have taken a while, other plans with the same bits are tried on
them, one after the other (engine/trial.c): those that the cost model ranks next, and whose kernels
exist or are worth their compilation. A plan that wins its trial replaces the present one, and is
kept on disk as a measured plan. In the end so is a plan that the model selected and that none has
beaten: another process does not begin again.
"""

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nkblas._engine import ffi, lib
from nkblas.base.problem import Problem
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import measured
from nkblas.planning.plan import Plan, without_duplicates
from nkblas.system import config
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock
from nkblas.system.log import log

from . import plan_table
from .kernels import COMPILE_NS, cannot_compile_reason, kernels
from .plan_table import Trial, plans_in_table

if TYPE_CHECKING:
    from nkblas._engine import nk_trial

START_NS = 1e8
"""Nanoseconds that the products of a problem have taken when exploration begins. It takes about 3
milliseconds to find candidates."""

MIN_PRODUCT_NS = 5e3
"""Shorter products are not explored: reading the clock takes a part of their time, and most have
kernels of their own."""

RANKED_PLANS, MAX_CANDIDATES = 64, 8
"""Plans among which candidates are selected, and how many of them are tried."""

MAX_RELATIVE_COST = 1.1
"""Of candidates: their estimated time over that of the present plan."""

MAX_SHARE_OF_COMPILATION = 0.01
"""A kernel is compiled for a trial once that is less than this fraction of all products' time."""

MAX_RATIO = 0.97
"""The median of the winner's time over the present plan's has to be below this."""


class Exploration(NamedTuple):
    """The state of the exploration for one problem.

    Attributes
    ----------
    candidates : tuple of Plan
        Those that are still to be tried.
    challenger : Plan or None
        The one that is being tried.
    calls : int
        Products until now, as far as they were counted.
    spent : float
        Nanoseconds that challengers took longer than the present plan.
    """

    candidates: tuple[Plan, ...]
    challenger: Plan | None
    calls: int
    spent: float


_explorations: dict[Problem, Exploration] = {}


def products_until_exploration(plan: Plan) -> int:
    """After how many products of a plan exploration begins; 0: never."""
    problem = plan.problem
    may_explore = config.MAY_TUNE and not cannot_compile_reason() and plan.origin == "model"
    is_plain = plan.schedule.kind == "tiles" and not problem.structure and not problem.batch_reduce
    if not may_explore or not is_plain or plan.interim or plan.nanoseconds < MIN_PRODUCT_NS:
        return 0
    return ceil(START_NS / plan.nanoseconds)


def explore(problem: Problem) -> None:
    """Decide the trial that has ended, and begin the next one.

    The caller does not hold `planning_lock`.

    Raises
    ------
    KernelUnavailableError
        A kernel can't be loaded or compiled.
    """
    with planning_lock():
        present = plans_in_table.get(problem)
        if present is None or present.interim:  # the table was cleared meanwhile
            return
        state = _explorations.get(problem) or Exploration(
            candidates(present), None, products_until_exploration(present), 0.0
        )
        plan, state = _decide(present, state)
        products_until = {
            candidate: _products_until_trial(candidate, plan, state.calls)
            for candidate in state.candidates
        }
    challenger = next((x for x, products in products_until.items() if products == 0), None)
    if challenger:
        kernels.load_unlocked(challenger.kernels)
    with planning_lock():
        if plans_in_table.get(problem) != present:  # replaced meanwhile, by `nkblas.warmup`
            return
        if challenger:
            others = tuple(x for x in state.candidates if x != challenger)
            state = state._replace(candidates=others, challenger=challenger)
            trial = Trial(challenger, state.calls, state.spent)
            plan_table.insert(plan, trial=trial)
        elif products_until:
            products = min(products_until.values())
            state = state._replace(calls=state.calls + products)
            plan_table.insert(plan, tier_up_after=products)
        else:
            if plan.origin == "model":  # a winner is saved already
                plan = plan._replace(origin="tuned")
                measured.save(plan, cpu)
            plan_table.insert(plan)
        _explorations[problem] = state


def candidates(plan: Plan) -> tuple[Plan, ...]:
    """Plans with the bits of the present one that may be faster, the most promising first."""
    others = [
        other
        for other in cost_model.ranked_plans(plan.problem, cpu, RANKED_PLANS)
        if other.bits == plan.bits and other.nanoseconds < MAX_RELATIVE_COST * plan.nanoseconds
    ]
    return tuple(without_duplicates([plan, *others])[1 : 1 + MAX_CANDIDATES])


def _decide(plan: Plan, state: Exploration) -> tuple[Plan, Exploration]:
    """The faster one of the present plan and the challenger; and the state without a challenger."""
    challenger, trial = state.challenger, plan_table.find_trial(plan.problem)
    if challenger is None or trial is None:
        return plan, state._replace(challenger=None)
    if is_faster(trial):
        ratio = _median_ratio(trial)
        log("info", f"{plan.problem}: {challenger} takes {ratio:.2f} of the time of {plan}")
        plan = challenger._replace(nanoseconds=ratio * plan.nanoseconds, origin="tuned")
        measured.save(plan, cpu)
    return plan, state._replace(challenger=None, calls=trial.calls, spent=trial.spent_ns)


def is_faster(trial: "nk_trial") -> bool:
    """Whether the challenger of a trial has won it, and is worth a change."""
    return bool(trial.verdict == lib.NK_WON and _median_ratio(trial) < MAX_RATIO)


def _median_ratio(trial: "nk_trial") -> float:
    ratios: list[float] = ffi.unpack(trial.ratios, trial.pairs)
    return float(np.median(ratios))


def _products_until_trial(candidate: Plan, plan: Plan, calls: int) -> int:
    """After how many more products the kernels that a candidate lacks are worth compiling."""
    missing = sum(not kernels.is_available(spec) for spec in candidate.kernels)
    products = missing * COMPILE_NS / MAX_SHARE_OF_COMPILATION / plan.nanoseconds
    return max(0, ceil(products) - calls)
