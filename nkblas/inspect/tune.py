"""The tuner: measures plans on the engine itself, and saves the best of them in a plan file.

It searches by successive halving. The plans that the cost model ranks first are candidates; in each
round every remaining candidate is measured once, in a random order, so that plans are compared
within moments of each other, and those that are slower than the fastest by more than the round's
cutoff are dropped. Then the winner is compared with its own neighbours in the same way, until none
of them is faster. Each round has operands at other addresses: some plans are fast only by the luck
of where pages lie in the caches. In the end the winner is compared with the model's choice once
more, and has to be faster in most of the rounds: in doubt, as on a crowded machine, the model's
choice stays.
"""

import random
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nkblas.base.dtypes import PRODUCTS
from nkblas.base.families import families, row_of
from nkblas.base.problem import Problem, parse
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import best_known_plan, measured
from nkblas.planning.plan import Plan, make_plan, without_duplicates
from nkblas.planning.schedule import register_tiles
from nkblas.runtime.abi import canonical
from nkblas.runtime.dispatch import tier_up
from nkblas.runtime.kernels import KernelUnavailableError, kernels
from nkblas.system.cpu import cpu

from .benchmark import MIN_SAMPLE_SECONDS, OPERAND_SETS, Benchmark
from .progress import Progress

SECONDS_PER_PROBLEM = 4.0
"""Default of the time that a problem may take, the compilation of its kernels included."""

MAX_CANDIDATES = 32
"""Plans that the search starts with."""

CUTOFFS = (1.3, 1.15, 1.08, 1.05)
"""By round: a plan whose time is above the fastest plan's by more than this factor is dropped."""

FINAL_ROUNDS, MIN_FINAL_ROUNDS = 12, 3
"""Rounds of the comparison between the winner and the model's choice: of whole products, and fewer
if these take long."""

MIN_FASTER_ROUNDS = 0.7
"""Fraction of these rounds in which the winner has to be faster."""

MAX_TIME_RATIO = 0.97
"""The median of the winner's time over that of the model's choice has to be below this."""


def successive_halving(benchmark: Benchmark, candidates: list[Plan], deadline: float) -> list[Plan]:
    """Measure candidates in rounds, and drop slow ones after each (see `CUTOFFS`).

    Parameters
    ----------
    benchmark : Benchmark
    candidates : list of Plan
        The first one is never dropped, and its kernels have to be available.
    deadline : float
        Of ``time.monotonic()``: at this time the last round ends early.

    Returns
    -------
    list of Plan
        The remaining candidates, the fastest first.
    """
    first = candidates[0]
    relative_times: dict[Plan, list[float]] = {plan: [] for plan in candidates}
    scores = {first: 1.0}
    for cutoff in CUTOFFS:
        benchmark.next_operands(first)
        seconds = _measure_round(benchmark, list(relative_times), first, deadline)
        if first not in seconds:
            break
        median = statistics.median(seconds.values())
        for plan, measured_seconds in seconds.items():
            relative_times[plan].append(measured_seconds / median)
        scores = {plan: statistics.median(relative_times[plan]) for plan in seconds}
        limit = cutoff * min(scores.values())
        scores = {plan: score for plan, score in scores.items() if plan == first or score < limit}
        relative_times = {plan: relative_times[plan] for plan in scores}
    return sorted(scores, key=lambda plan: scores[plan])


def _measure_round(
    benchmark: Benchmark, candidates: list[Plan], first: Plan, deadline: float
) -> dict[Plan, float]:
    """Seconds of each candidate, in a random order, until the deadline.

    Candidates whose kernels are not available are left out, except for `first`: that is an error.
    """
    random.shuffle(candidates)
    seconds = {}
    for plan in candidates:
        if time.monotonic() > deadline:
            break
        try:
            seconds[plan] = benchmark.seconds(plan)
        except KernelUnavailableError:
            if plan == first:
                raise
    return seconds


def neighbours(plan: Plan) -> Iterator[Plan]:
    """Plans that differ from `plan` in one parameter of the schedule."""
    schedule, problem = plan.schedule, plan.problem
    changes: list[dict[str, Any]] = [{"prefetch": not schedule.prefetch}]
    if schedule.kind == "tiles":
        changes += _tile_changes(plan)
    elif schedule.kind == "dot":
        changes += [{"nr": nr} for nr in (4, 6, 8, 12, 16) if not schedule.pack_b]
        changes += [{"mr": mr} for mr in (2, 4, 6, 8) if mr <= problem.m]
    else:
        changes += [{"mr": mr} for mr in (1, 2, 3, 4) if mr <= problem.m]
    panels = cost_model.prepacked_panels(problem, cpu)
    for change in changes:
        neighbour = schedule._replace(**change)
        if not neighbour.infeasible_reason(problem, cpu, panels):
            yield make_plan(problem, cpu, neighbour)


def _tile_changes(plan: Plan) -> Iterator[dict[str, Any]]:
    """The changes to a schedule of kind "tiles" that `neighbours` tries."""
    schedule, problem = plan.schedule, plan.problem
    for factor in (0.5, 0.75, 1.5, 2):
        if 64 <= (kc := round(factor * plan.kc)) < 2 * problem.k:
            yield {"kc": kc}
    yield {"pack_a": not schedule.pack_a}
    yield {"pack_b": not schedule.pack_b}
    yield {"ir_outside": not schedule.ir_outside}
    for factor in (0.5, 2):
        yield {"mc": max(1, round(factor * plan.m.block_tiles * plan.m.tile))}
        yield {"nc": max(1, round(factor * plan.n.block_tiles * plan.n.tile))}
    for mr, nr in register_tiles(plan.isa, plan.family, problem.n):
        yield {"mr": mr, "nr": nr}
    for family in families(problem.dtype, cpu.isa):
        if family != plan.family:
            for mr, nr in register_tiles(row_of(family, cpu.isa), family, problem.n):
                yield {"family": family.name, "mr": mr, "nr": nr, "pack_a": True, "pack_b": True}


def initial_candidates(problem: Problem) -> list[Plan]:
    """The plans that the search starts with, the model's choice first."""
    ranked = cost_model.ranked_plans(problem, cpu, 2 * MAX_CANDIDATES)
    return without_duplicates(ranked)[:MAX_CANDIDATES]


def find_best(problem: Problem, seconds: float = SECONDS_PER_PROBLEM) -> Plan:
    """Search for the fastest plan.

    Parameters
    ----------
    problem : Problem
    seconds : float
        Time for the search.

    Returns
    -------
    Plan
        Its `nanoseconds` are measured.

    Raises
    ------
    KernelUnavailableError
        A kernel of the model's choice can't be loaded or compiled.
    MemoryError
        There is no memory for the operands or for packed panels.
    """
    deadline = time.monotonic() + seconds
    benchmark = Benchmark(problem)
    candidates = initial_candidates(problem)
    models_choice = candidates[0]
    start = time.monotonic()
    product_seconds = benchmark.seconds(models_choice)
    sample_seconds = max(time.monotonic() - start, 2 * MIN_SAMPLE_SECONDS)
    # As many as can be measured in each round, here and among the winner's neighbours; the time for
    # the final comparison is set aside.
    deadline -= 2 * MIN_FINAL_ROUNDS * product_seconds
    measurement = 3 * len(CUTOFFS) * sample_seconds
    affordable = int((deadline - time.monotonic()) / measurement)
    if affordable < 2:
        return models_choice._replace(nanoseconds=1e9 * product_seconds)
    half = _time_after(0.5, deadline)
    winner = successive_halving(benchmark, candidates[:affordable], half)[0]
    while time.monotonic() < deadline:
        around = without_duplicates([models_choice, winner, *neighbours(winner)])
        next_winner = successive_halving(benchmark, around, _time_after(0.5, deadline))[0]
        if next_winner.schedule == winner.schedule or next_winner == models_choice:
            break
        winner = next_winner
    affordable = int((deadline - time.monotonic()) / (2 * product_seconds))
    rounds = min(FINAL_ROUNDS, MIN_FINAL_ROUNDS + max(0, affordable))
    return confirm_winner(benchmark, models_choice, winner, rounds)


def _time_after(fraction: float, deadline: float) -> float:
    """The time, of ``time.monotonic()``, after a fraction of the time that is left."""
    return time.monotonic() + fraction * max(0.0, deadline - time.monotonic())


def confirm_winner(
    benchmark: Benchmark, models_choice: Plan, winner: Plan, rounds: int = FINAL_ROUNDS
) -> Plan:
    """The winner, if it is clearly faster than the model's choice; else the model's choice."""
    pairs = []
    for i in range(rounds):
        if i % OPERAND_SETS == 0:
            benchmark.next_operands(winner if i else models_choice)
        plans = models_choice, winner
        pairs.append([benchmark.whole_seconds(plan) for plan in plans])
    ratios = [winners / models for models, winners in pairs]
    is_mostly_faster = sum(ratio < 1 for ratio in ratios) > MIN_FASTER_ROUNDS * rounds
    choice = int(is_mostly_faster and statistics.median(ratios) < MAX_TIME_RATIO)
    nanoseconds = 1e9 * statistics.median(pair[choice] for pair in pairs)
    return (models_choice, winner)[choice]._replace(nanoseconds=nanoseconds)


def warmup(
    problems: Iterable[Any],
    *,
    tune: bool = True,
    progress: bool = True,
    force: bool = False,
    seconds: float = SECONDS_PER_PROBLEM,
) -> None:
    """Prepare for products to come: find their best plans, and compile the kernels.

    The results are saved on disk, for this process and all later ones. It can be interrupted: what
    is finished stays, and another call continues with the rest.

    Parameters
    ----------
    problems : iterable
        Each a text such as ``"128x768x3072:f32"`` (m, n, k and dtype; see
        `nkblas.base.problem.Problem`), a tuple (m, n, k, dtype), or a `Problem`, as in a recording.
    tune : bool, default True
        Whether to measure plans on this machine (see `nkblas.inspect.tune`). Otherwise the cost
        model and plans that were measured before are used.
    progress : bool, default True
        Whether to show the progress on standard error.
    force : bool, default False
        Whether to measure problems again that were measured before.
    seconds : float, default 4.0
        Time to measure plans for one problem.

    Raises
    ------
    ValueError, TypeError
        An element of `problems` is none of these forms.
    RuntimeError
        Kernels can't be loaded or compiled on this machine.

    See Also
    --------
    nkblas.record : Collects the problems of a workload.
    nkblas.explain : Shows the plan for a product.
    """
    targets = list(dict.fromkeys(map(to_problem, problems)))
    full = dict.fromkeys(problem._replace(structure="") for problem in targets)
    untuned = [p for p in full if tune and (force or not measured.is_tuned(p, cpu))]
    specs = [spec for p in targets for spec in best_known_plan(p, cpu).kernels]
    specs += [spec for p in untuned for plan in initial_candidates(p) for spec in plan.kernels]
    missing = [spec for spec in dict.fromkeys(specs) if not kernels.is_available(spec)]
    with Progress("kernels", len(missing), progress) as bar:
        kernels.compile_all(missing, cpu.cpus, lambda spec: bar.step(spec.symbol))
    with Progress("plans", len(untuned), progress) as bar:
        for problem in untuned:
            try:
                plan = find_best(problem, seconds)
            except MemoryError as error:
                bar.step(f"{problem}: not tuned, {error or 'no memory for its operands'}")
                continue
            measured.save(plan, cpu)
            bar.step(f"{problem}: {problem.flops / plan.nanoseconds:.1f} GFLOP/s, {plan}")
    for problem in targets:
        tier_up(problem)


def to_problem(value: Any) -> Problem:
    """The problem that one of the forms of `warmup` describes, in the engine's canonical form.

    Raises
    ------
    ValueError, TypeError
        It is none of these forms.
    """
    if isinstance(value, str):
        return canonical(parse(value))
    if isinstance(value, Problem):
        return canonical(value)
    try:
        m, n, k, dtype = value
        name = dtype if dtype in PRODUCTS else np.dtype(dtype).name
        return canonical(parse(f"{m}x{n}x{k}:{name}"))
    except TypeError:
        raise TypeError(
            f"problems: got {value!r}, expected a text such as '128x768x3072:f32', "
            "a tuple (m, n, k, dtype) or a Problem"
        ) from None
