"""Plans for problems that the engine's table lacks, and better plans once products repeat.

A new problem does not wait for the compiler if that can be avoided. While kernels of the best plan
are missing, an interim plan serves that needs none; once the products of the problem have lost
about as much time by it as compilation takes (the tier-up threshold), the missing kernels are
compiled in the background, and the best plan replaces the interim one. So a program that walks
through thousands of shapes compiles almost nothing, and no shape costs more than twice what it
would have cost had the number of its products been known (the ski-rental rule: Karlin, Manasse,
Rudolph and Sleator, "Competitive Snoopy Caching", Algorithmica 3, 1988). Both plans give the same
bits.
"""

from functools import partial
from itertools import chain
from math import ceil
from typing import NamedTuple

from nkblas.base.problem import Problem
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import best_known_plan, measured
from nkblas.planning.plan import Plan, base_kernels, base_plan
from nkblas.planning.schedule import can_reduce_in_place
from nkblas.planning.skinny import legal_skinny_schedules
from nkblas.system import config
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock
from nkblas.system.log import log

from . import background, calibration, plan_table
from .exploration import explore, products_until_exploration
from .kernels import (
    COMPILE_NS,
    KernelUnavailableError,
    cannot_compile_reason,
    kernels,
)
from .plan_table import plans_in_table

MIN_LOSS = 0.25
"""The least that an interim plan other than a base plan is taken to lose, as a part of its time: it
has no kernels for one size alone."""

CALL_NS = 300.0
"""About how long a call takes until the engine runs, in nanoseconds."""

PLANNING_NS = 4e5
"""About how long it takes to plan a problem in the midst of a program, in nanoseconds."""

SHARING_NS = 40.0
"""About how much longer a call takes with the plan of a class, in nanoseconds."""

INTERIM_CANDIDATES = 16
"""How many of the cheapest plans are considered as the interim plan."""


def handle_miss(problem: Problem) -> bool:
    """Give the engine a plan for a problem; whether its table has an entry now.

    The engine calls it for a problem that its table lacks, again when an interim plan reaches its
    tier-up threshold, and when a better plan may be looked for. The caller holds `planning_lock`.
    """
    plan = plans_in_table.get(problem)
    if plan is None:
        return insert_available_plan(problem)
    if plan.interim:
        _tier_up_in_background(problem)
    else:
        background.submit(problem, partial(explore, problem))
    return True


def insert_available_plan(problem: Problem) -> bool:
    """Enter a plan for a problem into the table; False if this call has to be left to NumPy.

    The caller holds `planning_lock`.
    """
    if plan_table.is_in_table(problem):  # another thread was faster
        return True
    if problem.batch_reduce and not can_reduce_in_place(problem, cpu.isa):
        # brgemm concatenates the blocks then
        plan_table.insert_fallback(problem, "its blocks can't be read in place")
        return True
    try:
        plan, missing, loss = _select(problem)
        is_cold = not all(map(kernels.is_available, plan.kernels))
        jit = not cannot_compile_reason()
        if is_cold and jit and config.JIT_MODE == "background":
            _tier_up_in_background(problem)
            return False
        tier_up_after = products_until_exploration(plan)
        if missing and jit and not kernels.is_full:
            tier_up_after = ceil(COMPILE_NS * missing / loss)
        _insert(plan, tier_up_after, jit, loss)
        if is_cold and plan.interim:  # other problems of this dtype may need the other base kernels
            key = " ".join(("base kernels", problem.dtype, plan.epilogue))
            background.submit(key, partial(kernels.load_unlocked, base_kernels(plan)))
    except KernelUnavailableError as error:
        log("warning", f"NumPy does the products that lack a kernel: {error.cause}", once=True)
        plan_table.insert_fallback(problem, str(error))
    except Exception as error:  # a defect of nkblas must not fail the user's product
        reason = f"{type(error).__name__}: {error}"
        log("error", f"NumPy does a product for which nkblas fails: {reason}", once=True)
        plan_table.insert_fallback(problem, reason)
    return True


def _insert(plan: Plan, tier_up_after: int, jit: bool, loss: float = 0.0) -> None:
    """Enter a plan for its problem, and for all problems of its classes if it serves them."""
    plan_table.insert(plan, tier_up_after=tier_up_after, jit=jit)
    if _serves_classes(plan):
        plan_table.insert_for_classes(plan, ceil(PLANNING_NS / (SHARING_NS + loss)))


def _serves_classes(plan: Plan) -> bool:
    """Whether all problems of its classes in n, or in k, would have this plan's schedule."""
    problem = plan.problem
    if not plan.sizes_in_classes or plan.origin != "model" or measured.has_similar(problem, cpu):
        return False
    return plan.schedule == next(legal_skinny_schedules(problem, cpu), None)


def available_plan(problem: Problem) -> Plan:
    """The best plan if none of its kernels is missing, else the interim plan."""
    return _select(problem).plan


class Selection(NamedTuple):
    """The plan to use now.

    Attributes
    ----------
    plan : Plan
    missing : int
        Kernels of the best plan that are missing.
    loss : float
        About how many nanoseconds longer a product takes than with the best plan.
    """

    plan: Plan
    missing: int = 0
    loss: float = 0.0


def _select(problem: Problem) -> Selection:
    """The best plan, or the interim plan if kernels of the best one are missing.

    The interim plan is the cheapest one with the same bits that needs no compilation; or the base
    plan, whose few kernels serve all other problems too.
    """
    candidates = cost_model.ranked_plans(problem, cpu, INTERIM_CANDIDATES)
    best = measured.find(problem, cpu) or next(candidates)
    missing = sum(not kernels.is_available(spec) for spec in best.kernels)
    if not missing:
        return Selection(best)
    base = base_plan(best, cpu)
    if base and base.bits != best.bits:
        general = best._replace(interim=True)
        base = general if general.kernels != best.kernels else None
    for plan in chain([best], candidates, [base] if base else []):
        interim = plan._replace(interim=True)
        if plan.bits == best.bits and all(map(kernels.is_available, interim.kernels)):
            return Selection(interim, missing, _loss(plan, best))
    if base is None or cannot_compile_reason():
        return Selection(best)
    return Selection(base, missing, _loss(base, best))


def _loss(interim: Plan, best: Plan) -> float:
    """About how many nanoseconds longer a product takes with an interim plan."""
    if interim.schedule.kind == "base":
        return interim.nanoseconds + CALL_NS
    return max(interim.nanoseconds - best.nanoseconds, MIN_LOSS * interim.nanoseconds)


def tier_up(problem: Problem) -> None:
    """Enter the best plan for a problem into the table, and compile what it needs.

    The caller does not hold `planning_lock`: other threads may plan while kernels are compiled.

    Raises
    ------
    KernelUnavailableError
        A kernel can't be loaded or compiled. The table is unchanged.
    """
    with planning_lock():
        best = best_known_plan(problem, cpu)
    kernels.load_unlocked(best.kernels)
    with planning_lock():
        products = products_until_exploration(best)
        _insert(best, products, jit=not cannot_compile_reason())


def _tier_up_in_background(problem: Problem) -> None:
    if config.MAY_TUNE:
        background.submit("calibration", calibration.start_after_program)  # takes no time
    background.submit(problem, partial(tier_up, problem))
