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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nkblas._engine import ffi, lib
from nkblas.api.packed import PackedLayout
from nkblas.base.dtypes import DTYPES, ITEMSIZE, PRODUCTS, numpy_name
from nkblas.base.epilogues import READ_PADDING
from nkblas.base.epilogues import parse as parse_epilogue
from nkblas.base.families import families, row_of
from nkblas.base.problem import Problem, parse
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import best_known_plan, measured
from nkblas.planning.plan import Plan, make_plan
from nkblas.planning.schedule import register_tiles
from nkblas.runtime.abi import canonical, plan_to_c
from nkblas.runtime.dispatch import tier_up
from nkblas.runtime.kernels import KernelUnavailableError, kernels
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock

from .progress import Progress

if TYPE_CHECKING:
    from nkblas._engine import CArray, nk_call_args, nk_matrix, nk_plan

SECONDS_PER_PROBLEM = 4.0
"""Default of the time that a problem may take, the compilation of its kernels included."""

MAX_CANDIDATES = 32
"""Plans that the search starts with."""

CUTOFFS = (1.3, 1.15, 1.08, 1.05)
"""By round: a plan whose time is above the fastest plan's by more than this factor is dropped."""

MIN_SAMPLE_SECONDS = 100e-6
"""A measurement repeats the product for at least this time."""

FINAL_ROUNDS = 12
"""Rounds of the comparison between the winner and the model's choice."""

MIN_FASTER_ROUNDS = 0.7
"""Fraction of these rounds in which the winner has to be faster."""

MAX_TIME_RATIO = 0.97
"""The median of the winner's time over that of the model's choice has to be below this."""

OPERAND_SETS = 4
"""Sets of operands at different addresses; fewer if they are larger than `MAX_OPERAND_BYTES`."""

MAX_OPERAND_BYTES = 64 << 20

REDUCED_BLOCKS = 8
"""Blocks of a batch-reduce product; all of them are the same matrices."""


class _Matrix(NamedTuple):
    """An operand: the array, which owns the memory, and what the engine gets."""

    array: np.ndarray
    struct: "nk_matrix"


class Benchmark:
    """Measures plans for one problem on operands of its own, on one thread.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        generator = np.random.default_rng(0)
        m, n, k = problem.m, problem.n, problem.k
        types = problem.types
        size = (m * k + k * n) * ITEMSIZE[types.a] + m * n * problem.itemsize
        self._operand_sets = [
            (
                _matrix(generator, problem, m, k, problem.a, types.a),
                _matrix(generator, problem, k, n, problem.b, types.b),
                _matrix(generator, problem, m, n, problem.c, types.c),
            )
            for _ in range(max(1, min(OPERAND_SETS, MAX_OPERAND_BYTES // size)))
        ]
        is_fused = parse_epilogue(problem.epilogue).is_fused
        # zeros, which serve as bias, residual and scales
        self._zeros = np.zeros(16 * (m * n + m + n + READ_PADDING) if is_fused else 0, np.uint8)
        self._block_lists: list[CArray] = []
        if problem.batch_reduce:
            self._block_lists = [ffi.new("char *[]", REDUCED_BLOCKS) for _ in range(2)]
        self._args = self._call_args(problem)
        self._plans: dict[Plan, nk_plan] = {}

    def _call_args(self, problem: Problem) -> "nk_call_args":
        epilogue = parse_epilogue(problem.epilogue)
        alpha, beta = {"": (1, 0), "add": (1, 1), "scale": (0.5, 0.5)}[epilogue.kind]
        fields: dict[str, object] = {
            "alpha": alpha,
            "beta": beta,
            "a_imag_sign": 1,
            "c_imag_sign": 1,
            "fused": epilogue.fused_code,
            "ldr": problem.n,
            "clip_high": 1,
        }
        zeros = ffi.cast("char *", self._zeros.ctypes.data)
        parts = {"bias": epilogue.bias, "residual": epilogue.residual, "scales": epilogue.scales}
        fields |= {name: zeros for name, is_present in parts.items() if is_present}
        if problem.batch_reduce:
            a_blocks, b_blocks = self._block_lists
            fields |= {"a_blocks": a_blocks, "b_blocks": b_blocks, "block_count": REDUCED_BLOCKS}
        return ffi.new("nk_call_args *", fields)

    def next_operands(self, plan: Plan) -> None:
        """Go on to the next set of operands; `plan` is run to bring them into the caches."""
        self._operand_sets.append(self._operand_sets.pop(0))
        self.seconds(plan, 10 * MIN_SAMPLE_SECONDS)

    def seconds(self, plan: Plan, min_sample: float = MIN_SAMPLE_SECONDS) -> float:
        """Measure a plan.

        Parameters
        ----------
        plan : Plan
        min_sample : float
            Seconds that the product is repeated for, at least.

        Returns
        -------
        float
            Seconds of one product.
        """
        if plan not in self._plans:
            with planning_lock():
                self._plans[plan] = plan_to_c(plan, kernels.load(plan.kernels))
        a, b, c = (matrix.struct for matrix in self._operand_sets[0])
        for addresses, operand in zip(self._block_lists, (a, b), strict=False):
            addresses[0:REDUCED_BLOCKS] = [operand.data] * REDUCED_BLOCKS
        c_plan, count = self._plans[plan], 1
        while True:
            start = time.perf_counter()
            if lib.nk_run_plan(c_plan, a, b, c, count, (0, 0, 0), self._args[0], 1) != count:
                raise MemoryError(f"no memory for the packed panels of {plan.problem}")
            elapsed = time.perf_counter() - start
            if elapsed >= min_sample:
                return elapsed / count
            count = max(2 * count, int(1.2 * count * min_sample / max(elapsed, 1e-9)))


def _matrix(
    generator: np.random.Generator,
    problem: Problem,
    rows: int,
    columns: int,
    layout: str,
    dtype: str,
) -> _Matrix:
    """A random matrix, as dense as its layout allows: its leading dimension is the usual one."""
    if layout == "packed":
        panels = PackedLayout.for_this_cpu(problem.dtype, rows, columns)
        length = -(-panels.nbytes // ITEMSIZE[panels.panel_dtype])
        view = _random(generator, panels.panel_dtype, 1, length)
        data = ffi.cast("char *", view.ctypes.data)
        return _Matrix(view, ffi.new("nk_matrix *", {"data": data, "is_packed": 1})[0])
    stride = 2 if layout == "strided" else 1
    view = _random(generator, dtype, rows, columns * stride)[:, ::stride]
    if layout == "col":
        view = np.asfortranarray(view)
    rs, cs = (step // view.itemsize for step in view.strides)
    data = ffi.cast("char *", view.ctypes.data)
    return _Matrix(view, ffi.new("nk_matrix *", (data, rs, cs))[0])


def _random(generator: np.random.Generator, dtype: str, rows: int, columns: int) -> np.ndarray:
    """A matrix of numbers from -1 to 1, or of any values of an integer dtype."""
    kind = DTYPES[dtype].kind
    if kind in ("integer", "bool"):
        data = generator.integers(0, 256, (rows, columns * ITEMSIZE[dtype]), np.uint8)
        return data & 1 if kind == "bool" else data.view(numpy_name(dtype))
    values = generator.uniform(-1, 1, (rows, columns)).astype(np.float32)
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


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


def without_duplicates(plans: Iterable[Plan]) -> list[Plan]:
    """The plans, without those that divide the problem in the same way as one before them."""
    first_of: dict[tuple[object, ...], Plan] = {}
    for plan in plans:
        other_fields = plan.schedule._replace(mr=0, nr=0, kc=0, mc=0, nc=0)
        first_of.setdefault((other_fields, plan.m, plan.n, plan.kc), plan)
    return list(first_of.values())


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
    product_seconds = benchmark.seconds(models_choice)
    # As many as can be measured in each round, here and among the winner's neighbours.
    measurement = 3 * len(CUTOFFS) * max(product_seconds, 2 * MIN_SAMPLE_SECONDS)
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
    return confirm_winner(benchmark, models_choice, winner)


def _time_after(fraction: float, deadline: float) -> float:
    """The time, of ``time.monotonic()``, after a fraction of the time that is left."""
    return time.monotonic() + fraction * max(0.0, deadline - time.monotonic())


def confirm_winner(benchmark: Benchmark, models_choice: Plan, winner: Plan) -> Plan:
    """The winner, if it is clearly faster than the model's choice; else the model's choice."""
    pairs = []
    for i in range(FINAL_ROUNDS):
        if i % OPERAND_SETS == 0:
            benchmark.next_operands(winner if i else models_choice)
        pairs.append((benchmark.seconds(models_choice), benchmark.seconds(winner)))
    ratios = [winners / models for models, winners in pairs]
    is_mostly_faster = sum(ratio < 1 for ratio in ratios) > MIN_FASTER_ROUNDS * FINAL_ROUNDS
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
