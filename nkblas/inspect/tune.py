"""The tuner: measures plans on the engine itself, and keeps the best of them on disk.

What the model ranks first is raced against the plans after it, and the winner against its own
neighbours. In a round each plan that is still in the race runs once, in a random order, so that
plans are compared within moments of each other; who is clearly behind leaves early. Each round has
operands at another place: where pages lie in the caches makes some plans fast by luck. In the end
the winner meets the model's choice once more, and has to be faster in most of the rounds: on a
crowded machine, in doubt, the model's choice stays.
"""

import random
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

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
from nkblas.planning.plan import Plan, make_plan, tiles
from nkblas.runtime.abi import canonical, plan_to_c
from nkblas.runtime.dispatch import tier_up
from nkblas.runtime.kernels import KernelUnavailableError, kernels
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock

from .progress import Progress

SECONDS = 4.0
"""That a problem may take, its kernels' compilation included."""

FIELD = 32
"""Plans that start the first race."""

SAMPLE = 100e-6
"""Seconds that a measurement takes at least."""

BEHIND = (1.3, 1.15, 1.08, 1.05)
"""After each round, how much slower than the fastest a plan may be to stay in the race."""

FINAL = 12
"""Rounds of the last race."""

PLACES = 4
"""Sets of operands, each at a place of its own, ..."""

BLOCKS = 8
"""Of a sum of products, the same each."""

MEMORY = 64 << 20
"""... as far as they fit so many bytes."""

CLEARLY = 0.97
"""What the winner's time, over that of the model's choice, has to be below."""


class Track:
    """Runs plans of one problem on operands of its own, on one thread.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        generator = np.random.default_rng(0)

        def matrix(rows: int, columns: int, layout: str, dtype: str) -> tuple[np.ndarray, Any]:
            # as dense as the layout allows, at the distances that its user has most likely
            apart = 2 if layout == "strided" else 1
            if layout == "packed":
                panels = PackedLayout.for_this_cpu(problem.dtype, rows, columns)
                held = -(-panels.nbytes // ITEMSIZE[panels.panel_dtype])
                view = _random(generator, panels.panel_dtype, 1, held)
                data = ffi.cast("char *", view.ctypes.data)
                return view, ffi.new("nk_matrix *", {"data": data, "is_packed": 1})[0]
            whole = _random(generator, dtype, rows, columns * apart)
            view = whole[:, ::apart]
            if layout == "col":
                view = np.asfortranarray(view)
            rs, cs = (stride // view.itemsize for stride in view.strides)
            data = ffi.cast("char *", view.ctypes.data)
            return view, ffi.new("nk_matrix *", (data, rs, cs))[0]

        m, n, k = problem.m, problem.n, problem.k
        types = problem.types
        size = (m * k + k * n) * ITEMSIZE[types.a] + m * n * problem.itemsize
        self._sets = [
            [
                matrix(m, k, problem.a, types.a),
                matrix(k, n, problem.b, types.b),
                matrix(m, n, problem.c, types.c),
            ]
            for _ in range(max(1, min(PLACES, MEMORY // size)))
        ]
        epilogue = parse_epilogue(problem.epilogue)
        alpha, beta = {"": (1, 0), "add": (1, 1), "scale": (0.5, 0.5)}[epilogue.kind]
        added_size = 16 * (m * n + m + n + READ_PADDING) if epilogue.is_fused else 0
        self._added = np.zeros(added_size, np.uint8)  # bias, residual, scales
        added = ffi.cast("char *", self._added.ctypes.data)
        fields: dict[str, object] = {
            "alpha": alpha,
            "beta": beta,
            "a_imag_sign": 1,
            "c_imag_sign": 1,
            "fused": epilogue.fused_code,
        }
        wanted = {"bias": epilogue.bias, "residual": epilogue.residual, "scales": epilogue.scales}
        fields |= {name: added for name, it_is in wanted.items() if it_is}
        self._blocks = (
            [ffi.new("char *[]", BLOCKS) for _ in range(2)] if problem.batch_reduce else []
        )
        if problem.batch_reduce:
            fields |= {
                "a_blocks": self._blocks[0],
                "b_blocks": self._blocks[1],
                "block_count": BLOCKS,
            }
        self._args = ffi.new("nk_call_args *", {**fields, "ldr": n, "clip_high": 1})
        self._plans: dict[Plan, Any] = {}

    def move(self, plan: Plan) -> None:
        """Go on to operands at another place; `plan` brings them into the caches."""
        self._sets.append(self._sets.pop(0))
        self.seconds(plan, 10 * SAMPLE)

    def seconds(self, plan: Plan, least: float = SAMPLE) -> float:
        """Seconds of one product, over at least `least` seconds of them."""
        if plan not in self._plans:
            with planning_lock():
                self._plans[plan] = plan_to_c(plan, kernels.load(plan.kernels))
        a, b, c = (matrix for _, matrix in self._sets[0])
        for addresses, matrix in zip(self._blocks, (a, b), strict=False):
            addresses[0:BLOCKS] = [matrix.data] * BLOCKS
        c_plan, count = self._plans[plan], 1
        while True:
            start = time.perf_counter()
            if lib.nk_run_plan(c_plan, a, b, c, count, (0, 0, 0), self._args[0], 1) != count:
                raise MemoryError(f"no memory for the packed panels of {plan.problem}")
            taken = time.perf_counter() - start
            if taken >= least:
                return taken / count
            count = max(2 * count, int(1.2 * count * least / max(taken, 1e-9)))


def _random(generator: np.random.Generator, dtype: str, rows: int, columns: int) -> np.ndarray:
    """A matrix of numbers from -1 to 1, or of all that integers can be."""
    kind = DTYPES[dtype].kind
    if kind in ("integer", "bool"):
        whole = generator.integers(0, 256, (rows, columns * ITEMSIZE[dtype]), np.uint8)
        return whole & 1 if kind == "bool" else whole.view(numpy_name(dtype))
    values = generator.uniform(-1, 1, (rows, columns)).astype(np.float32)
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def race(track: Track, runners: list[Plan], deadline: float) -> list[Plan]:
    """Those still in the race at its end, the fastest first; the first runner always is."""
    found: dict[Plan, list[float]] = {plan: [] for plan in runners}
    scores = {runners[0]: 1.0}
    for behind in BEHIND:
        track.move(runners[0])
        order = list(found)
        random.shuffle(order)
        seconds = {}
        for plan in order:
            if time.monotonic() > deadline:
                break
            try:
                seconds[plan] = track.seconds(plan)
            except KernelUnavailableError:
                if plan == runners[0]:
                    raise
        if runners[0] not in seconds:
            break
        usual = statistics.median(seconds.values())
        for plan, taken in seconds.items():
            found[plan].append(taken / usual)
        scores = {plan: statistics.median(found[plan]) for plan in seconds}
        fastest = min(scores.values())
        stay = [plan for plan in scores if plan == runners[0] or scores[plan] < behind * fastest]
        found = {plan: found[plan] for plan in stay}
        scores = {plan: scores[plan] for plan in stay}
    return sorted(scores, key=lambda plan: scores[plan])


def neighbours(plan: Plan) -> Iterator[Plan]:
    """Plans that differ from `plan` in one thing."""
    schedule, problem = plan.schedule, plan.problem
    changes: list[dict[str, Any]] = [{"prefetch": not schedule.prefetch}]
    if schedule.kind == "tiles":
        changes += [
            {"kc": kc}
            for factor in (0.5, 0.75, 1.5, 2)
            if 64 <= (kc := round(factor * plan.kc)) < 2 * problem.k
        ]
        changes += [{"pack_a": not schedule.pack_a}, {"pack_b": not schedule.pack_b}]
        changes += [{"ir_outside": not schedule.ir_outside}]
        for factor in (0.5, 2):
            changes += [{"mc": max(1, round(factor * plan.m.block_tiles * plan.m.tile))}]
            changes += [{"nc": max(1, round(factor * plan.n.block_tiles * plan.n.tile))}]
        sizes = tiles(plan.isa, plan.family, problem.n)
        changes += [{"mr": mr, "nr": nr} for mr, nr in sizes]
        others = [family for family in families(problem.dtype, cpu.isa) if family != plan.family]
        for family in others:
            for mr, nr in tiles(row_of(family, cpu.isa), family, problem.n):
                packed = {"pack_a": True, "pack_b": True}
                changes += [{"family": family.name, "mr": mr, "nr": nr, **packed}]
    elif schedule.kind == "dot":
        changes += [{"nr": nr} for nr in (4, 6, 8, 12, 16) if not schedule.pack_b]
        changes += [{"mr": mr} for mr in (2, 4, 6, 8) if mr <= problem.m]
    else:
        changes += [{"mr": mr} for mr in (1, 2, 3, 4) if mr <= problem.m]
    for change in changes:
        other = schedule._replace(**change)
        if not other.infeasible_reason(problem, cpu):
            yield make_plan(problem, cpu, other)


def distinct(found: Iterable[Plan]) -> list[Plan]:
    """Without those that cut the problem in the same way as one before them."""
    seen: dict[tuple[object, ...], Plan] = {}
    for plan in found:
        how = plan.schedule._replace(mr=0, nr=0, kc=0, mc=0, nc=0)
        key = (how, plan.m, plan.n, plan.kc)
        seen.setdefault(key, plan)
    return list(seen.values())


def field_of(problem: Problem) -> list[Plan]:
    """The plans that start the first race, the model's choice first."""
    return distinct(cost_model.ranked_plans(problem, cpu, 2 * FIELD))[:FIELD]


def find_best(problem: Problem, seconds: float = SECONDS) -> Plan:
    """The fastest plan that can be found in a time; its time is measured.

    Raises
    ------
    KernelsUnavailableError
        A kernel can't be had.
    MemoryError
        The operands do not fit.
    """
    deadline = time.monotonic() + seconds
    track = Track(problem)
    field = field_of(problem)
    first = field[0]
    once = track.seconds(first)
    # so many that each may run in each round of both races
    affordable = int((deadline - time.monotonic()) / (3 * len(BEHIND) * max(once, 2 * SAMPLE)))
    if affordable < 2:
        return first._replace(nanoseconds=1e9 * once)
    leaders = race(track, field[:affordable], _part(deadline, 0.5))
    while time.monotonic() < deadline:
        around = distinct([first, leaders[0], *neighbours(leaders[0])])
        again = race(track, around, _part(deadline, 0.5))
        if again[0].schedule == leaders[0].schedule or again[0] == first:
            break
        leaders = again
    return _final(track, first, leaders[0])


def _part(deadline: float, part: float) -> float:
    """The end of a part of the time that is left."""
    return time.monotonic() + part * max(0.0, deadline - time.monotonic())


def _final(track: Track, first: Plan, winner: Plan) -> Plan:
    """The winner if it is clearly faster than the model's choice, or else that one."""
    pairs = []
    for i in range(FINAL):
        if i % PLACES == 0:
            track.move(winner if i else first)
        pairs.append((track.seconds(first), track.seconds(winner)))
    ratios = [ours / models for models, ours in pairs]
    faster = sum(ratio < 1 for ratio in ratios) > 0.7 * FINAL
    choice = int(faster and statistics.median(ratios) < CLEARLY)
    nanoseconds = 1e9 * statistics.median(pair[choice] for pair in pairs)
    return (first, winner)[choice]._replace(nanoseconds=nanoseconds)


def warmup(
    problems: Iterable[Any],
    *,
    tune: bool = True,
    progress: bool = True,
    force: bool = False,
    seconds: float = SECONDS,
) -> None:
    """Have everything ready for products that are to come: best plans, and their kernels.

    What it finds is kept on disk, for this process and all later ones. It can be interrupted: what
    was done stays done, and another call goes on with the rest.

    Parameters
    ----------
    problems : iterable
        Each a text such as ``"128x768x3072:f32"`` (m, n, k and dtype; see
        `nkblas.base.problem.Problem`), a tuple (m, n, k, dtype), or a `Problem`, such as a
        recording has them.
    tune : bool
        Whether to measure plans on this machine (see `nkblas.inspect.tune`), or trust the model
        and what was measured before.
    progress : bool
        Whether to show on standard error how far it is.
    force : bool
        Whether to measure also what was measured before.
    seconds : float
        That measuring one problem may take.

    Raises
    ------
    ValueError, TypeError
        `problems` has something else in it.
    RuntimeError
        Kernels can't be had on this machine.
    """
    wanted = list(dict.fromkeys(map(to_problem, problems)))
    fresh = [p for p in wanted if tune and (force or not measured.has_own(p, cpu))]
    specs = [spec for p in wanted for spec in best_known_plan(p, cpu).kernels]
    specs += [spec for p in fresh for plan in field_of(p) for spec in plan.kernels]
    missing = [spec for spec in dict.fromkeys(specs) if not kernels.is_available(spec)]
    with Progress("kernels", len(missing), progress) as shown:
        kernels.compile_all(missing, cpu.cpus, lambda spec: shown.step(spec.symbol))
    with Progress("plans", len(fresh), progress) as shown:
        for problem in fresh:
            try:
                plan = find_best(problem, seconds)
            except MemoryError as error:
                shown.step(f"{problem}: not tuned, {error or 'no memory for its operands'}")
                continue
            measured.keep(plan, cpu)
            shown.step(f"{problem}: {problem.flops / plan.nanoseconds:.1f} GFLOP/s, {plan}")
    for problem in wanted:
        tier_up(problem)


def to_problem(value: Any) -> Problem:
    """The problem that one of the forms of `warmup` stands for, as the engine sees it."""
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
