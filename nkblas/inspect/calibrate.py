"""Calibration: measures the constants of the cost model on this machine.

The probes are products of a few hundred plans on the engine itself: of shapes that reach each cache
level, with and without packing, in both loop orders. Times are compared with the model's estimates,
and the constants are those for which both agree best: a robust least-squares fit in logarithms
(Levenberg-Marquardt with the pseudo-Huber loss), in which each constant stays near what is typical
of CPUs (`TYPICAL_COSTS`) as far as the probes do not tell otherwise.
"""

import contextlib
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from nkblas._engine import ffi, lib
from nkblas.base.families import family as family_of
from nkblas.base.problem import Layout, Problem
from nkblas.planning import measured_costs
from nkblas.planning.cost_model import cost
from nkblas.planning.microarchitecture import COSTS, Costs
from nkblas.planning.plan import Plan, make_plan, without_duplicates
from nkblas.planning.schedule import register_tiles
from nkblas.planning.search_space import Array, ScheduleSpace
from nkblas.runtime.abi import plan_to_c
from nkblas.runtime.kernels import kernels
from nkblas.system.cpu import CPU, cpu
from nkblas.system.folder import Folder
from nkblas.system.lock import planning_lock
from nkblas.system.priority import lower_priority

if TYPE_CHECKING:
    from nkblas._engine import nk_call_args, nk_matrix, nk_plan

_Matrices: TypeAlias = "tuple[nk_matrix, nk_matrix, nk_matrix]"

DTYPE = "float32"
"""The products of the probes. The constants are in vectors and lines: they hold for all dtypes."""

SHAPES = (
    *((128, 1024, 1024), (128, 768, 2048), (128, 2048, 512), (256, 768, 768), (256, 1024, 512)),
    *((1024, 256, 256), (1000, 512, 128), (1024, 128, 1024), (2000, 64, 512), (768, 1024, 192)),
    *((512, 512, 512), (384, 384, 384), (256, 256, 256), (600, 600, 600), (192, 192, 1024)),
    *((64, 1024, 1024), (48, 2048, 768), (320, 2048, 256), (100, 4000, 256), (16, 1500, 1500)),
)
"""About the (m, n, k) of the probes: m is rounded to whole register tiles, n to whole vectors."""

OTHER_LAYOUTS: tuple[tuple[Layout, Layout], ...] = (("col", "row"), ("row", "col"))
"""Layouts of A and B besides row-major ones: every shape has one of them, in turns."""

PLANS_PER_SHAPE, PLANS_OF_OTHER_LAYOUT = 4, 2
"""Plans that are measured for each register tile and shape."""

MAX_RELATIVE_COST = 1.8
"""Of plans that are measured: their estimated cost over that of the best one."""

MAX_TILES = 3
"""Register tiles that are measured, of different widths."""

ROUNDS = 4
"""Rounds in which each probe is measured; its fastest time counts."""

FITTED = tuple(
    name
    for name in Costs._fields
    if name not in ("nanoseconds_per_cycle", "fma_latency", "conversion")
    and not name.startswith(("pack_rows", "pack_columns"))
)
"""The constants that are fitted besides the scale. The others are about converted elements, and
about operands beyond L3, which would take too long to measure."""

MIN_EXPECTED_COST = 0.05
"""In `TYPICAL_COSTS`, a constant that is less on some microarchitecture counts as this: what costs
nothing on one of them may cost something on another."""

TYPICAL_COSTS = Costs(
    *np.exp(np.log(np.maximum([*COSTS.values()], MIN_EXPECTED_COST)).mean(axis=0)).tolist()
)
"""The geometric mean of all microarchitectures: what is expected of one that is not known."""

PRIOR_DEVIATION = 1.0
"""Standard deviation of the logarithm of a constant, and of the scale, before the measurement."""

DEVIATION = 0.07
"""About the deviation of a time's logarithm from the model; those beyond it count linearly."""

MAX_ITERATIONS, MIN_IMPROVEMENT = 15, 1e-3
"""Iterations of the fit, and the least relative improvement of the loss that is worth another."""

LOCK_BYTE = 1
"""The byte of the lock file, in the folder of the plans, that is locked during calibration."""

MISALIGNMENT = 16
"""Bytes that operands start after a cache line, as arrays of NumPy mostly do."""


class Probes(NamedTuple):
    """Plans of one problem that are measured.

    Attributes
    ----------
    space : ScheduleSpace
        Their problem and their schedules.
    plans : list of Plan
    """

    space: ScheduleSpace
    plans: list[Plan]


def calibrate() -> Costs:
    """Measure the constants on this machine and save them; takes about 4 seconds.

    Raises
    ------
    KernelUnavailableError
        Kernels can't be loaded or compiled.
    OSError
        The constants can't be saved: they are used in this process only.
    """
    probes = list(make_probes(cpu))
    costs = fit(probes, measure(probes))
    measured_costs.save(costs, cpu)
    return costs


def calibrate_in_background() -> None:
    """`calibrate`, unless it has been done or another process does it.

    It takes the time that no other process wants, where that is allowed.
    """
    lower_priority()
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    folder = Folder(os.path.dirname(measured_costs.costs_file(cpu)))
    if folder.is_locked(LOCK_BYTE):
        return
    with folder.lock(LOCK_BYTE):
        if not measured_costs.are_measured(cpu):
            calibrate()


# ---- probes ----


def make_probes(cpu: CPU) -> Iterator[Probes]:
    """The probes; the same ones on every call."""
    generator, family = random.Random(0), family_of(DTYPE, "fma")
    lanes = family.lanes(cpu.isa)
    for mr, nr in _tiles(cpu):
        for i, (m, n, k) in enumerate(SHAPES):
            problem = Problem(DTYPE, _round_to(m, mr), _round_to(n, lanes), k)
            a, b = OTHER_LAYOUTS[i % 2]
            for variant, count in (
                (problem, PLANS_PER_SHAPE),
                (problem._replace(a=a, b=b), PLANS_OF_OTHER_LAYOUT),
            ):
                space = ScheduleSpace(variant, cpu, family)
                indices = np.flatnonzero((space.mr == mr) & (space.nr == nr))
                if len(indices):
                    yield _select(space.subset(indices), count, generator)


def _tiles(cpu: CPU) -> list[tuple[int, int]]:
    """Register tiles (mr, nr) of different widths, from two vectors on."""
    family = family_of(DTYPE, "fma")
    lanes = family.lanes(cpu.isa)
    tiles = [(mr, nr) for mr, nr in register_tiles(cpu.isa, family) if nr >= 2 * lanes]
    return tiles[:: max(1, len(tiles) // MAX_TILES)][:MAX_TILES]


def _round_to(length: int, step: int) -> int:
    """The multiple of `step` that is next to a length."""
    return max(1, round(length / step)) * step


def _select(space: ScheduleSpace, count: int, generator: random.Random) -> Probes:
    """The plan that should be the best one, and random ones that should not be much slower."""
    cycles = cost(space, TYPICAL_COSTS)
    best, *others = map(int, np.argsort(cycles, kind="stable"))
    others = [i for i in others if cycles[i] < MAX_RELATIVE_COST * cycles[best]]
    indices = [best, *generator.sample(others, min(count - 1, len(others)))]
    index_of = {make_plan(space.problem, space.cpu, space[i]): i for i in indices}
    plans = without_duplicates(index_of)
    return Probes(space.subset([index_of[plan] for plan in plans]), plans)


# ---- measurement ----


def measure(probes: Sequence[Probes]) -> Array:
    """Seconds of processor time of each plan of the probes, on one thread and warm."""
    plans = [plan for probe in probes for plan in probe.plans]
    specs = dict.fromkeys(spec for plan in plans for spec in plan.kernels)
    with planning_lock():
        addresses = kernels.load(specs)
        c_plans = [plan_to_c(plan, addresses) for plan in plans]
    operands = _Operands(probe.space.problem for probe in probes)
    seconds = np.full(len(plans), np.inf)
    for _ in range(ROUNDS):
        problem = None
        for i, (plan, c_plan) in enumerate(zip(plans, c_plans, strict=True)):
            matrices = operands.matrices(plan.problem)
            if plan.problem != problem:  # brings its operands into the caches
                problem = plan.problem
                _run(c_plan, matrices, operands.args)
            seconds[i] = min(seconds[i], _run(c_plan, matrices, operands.args))
    return seconds


def _run(c_plan: "nk_plan", matrices: "_Matrices", args: "nk_call_args") -> float:
    """Seconds of processor time of one product."""
    start = time.thread_time()
    a, b, c = matrices
    if not lib.nk_run_plan(c_plan, a, b, c, 1, (0, 0, 0), args[0], 1):
        raise MemoryError("no memory for packed panels")
    return time.thread_time() - start


class _Operands:
    """Memory for the operands of all problems, one at a time."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        shapes = [(p.m * p.k, p.k * p.n, p.m * p.n) for p in problems]
        sizes = [max(elements) + 64 for elements in zip(*shapes, strict=True)]
        # any numbers that are not subnormal
        self._arrays = [np.resize(np.linspace(-1, 1, 9999, dtype=DTYPE), size) for size in sizes]
        fields = {"alpha": 1, "a_imag_sign": 1, "c_imag_sign": 1}
        self.args = ffi.new("nk_call_args *", fields)

    def matrices(self, problem: Problem) -> "_Matrices":
        """The engine's A, B and C of a problem."""
        m, n, k = problem.m, problem.n, problem.k
        a, b, c = self._arrays
        return (
            _matrix(a, m, k, problem.a),
            _matrix(b, k, n, problem.b),
            _matrix(c, m, n, problem.c),
        )


def _matrix(array: np.ndarray, rows: int, columns: int, layout: Layout) -> "nk_matrix":
    """The engine's matrix in the memory of an array."""
    address = array.ctypes.data
    start = address + (MISALIGNMENT - address) % 64
    strides = (columns, 1) if layout == "row" else (1, rows)
    return ffi.new("nk_matrix *", (ffi.cast("char *", start), *strides))[0]


# ---- fit ----


def fit(probes: Sequence[Probes], seconds: Array) -> Costs:
    """The constants for which the model's estimates are nearest to measured times."""
    return _Fit(probes, seconds).run()


class _Fit:
    """The fit of the logarithms of the constants, and of the scale as the last parameter.

    Attributes
    ----------
    times : ndarray
        Logarithms of the measured nanoseconds.
    prior : ndarray
        Expected values of the parameters.
    """

    def __init__(self, probes: Sequence[Probes], seconds: Array) -> None:
        self.spaces = [probe.space for probe in probes]
        self.times = np.log(1e9 * seconds)
        typical = [getattr(TYPICAL_COSTS, name) for name in FITTED]
        self.prior = np.log([*typical, 1.0])
        self.prior[-1] = np.median(self.times - self._estimates(self.prior))

    def run(self) -> Costs:
        """The best constants."""
        parameters, damping = self.prior, 1e-2
        residuals = self._residuals(parameters)
        loss = self._loss(parameters, residuals)
        for _ in range(MAX_ITERATIONS):
            gradient, hessian = self._derivatives(parameters, residuals)
            improvement = 0.0
            while not improvement and damping < 1e6:
                damped = hessian + damping * np.diag(np.diag(hessian))
                candidate = parameters + np.clip(np.linalg.solve(damped, gradient), -1, 1)
                residuals = self._residuals(candidate)
                candidate_loss = self._loss(candidate, residuals)
                improvement = max(0.0, loss - candidate_loss)
                damping *= 0.25 if improvement else 4
            if improvement:
                parameters, loss = candidate, candidate_loss
            if improvement < MIN_IMPROVEMENT * loss:
                break
        return self._costs(parameters)

    def _costs(self, parameters: Array) -> Costs:
        *constants, scale = map(float, np.exp(parameters))
        values = dict(zip(FITTED, constants, strict=True))
        return TYPICAL_COSTS._replace(nanoseconds_per_cycle=scale, **values)

    def _estimates(self, parameters: Array) -> Array:
        """Logarithms of the estimated nanoseconds."""
        costs = self._costs(parameters)
        cycles = np.concatenate([cost(space, costs) for space in self.spaces])
        estimates: Array = np.log(cycles) + parameters[-1]
        return estimates

    def _residuals(self, parameters: Array) -> Array:
        residuals: Array = (self.times - self._estimates(parameters)) / DEVIATION
        return residuals

    def _loss(self, parameters: Array, residuals: Array) -> float:
        distances = (parameters - self.prior) / PRIOR_DEVIATION
        huber = 4 * (np.sqrt(1 + residuals**2 / 4) - 1)
        return float(huber.sum() + 0.5 * (distances**2).sum())

    def _derivatives(self, parameters: Array, residuals: Array) -> tuple[Array, Array]:
        """The negative gradient of the loss, and its Hessian (by Gauss and Newton)."""
        step = 1e-2
        steps = step * np.eye(len(parameters))[:-1]
        columns = [residuals - self._residuals(parameters + change) for change in steps]
        columns.append(np.full(len(residuals), step / DEVIATION))
        jacobian = np.stack(columns, axis=1) / step
        weighted = jacobian / np.sqrt(1 + residuals**2 / 4)[:, None]
        precision = 1 / PRIOR_DEVIATION**2
        gradient = weighted.T @ residuals - precision * (parameters - self.prior)
        return gradient, weighted.T @ jacobian + precision * np.eye(len(parameters))
