"""`Benchmark`: measures plans on the engine itself, large products by parts of them."""

import itertools
import random
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nkblas._engine import ffi, lib
from nkblas.api.packed import PackedLayout
from nkblas.base.dtypes import DTYPES, ITEMSIZE, numpy_name
from nkblas.base.epilogues import READ_PADDING
from nkblas.base.epilogues import parse as parse_epilogue
from nkblas.base.problem import Problem
from nkblas.planning.plan import Plan, make_plan
from nkblas.runtime.abi import plan_to_c
from nkblas.runtime.kernels import kernels
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock

if TYPE_CHECKING:
    from nkblas._engine import CArray, nk_call_args, nk_matrix, nk_plan

MIN_SAMPLE_SECONDS = 100e-6
"""A measurement repeats the product for at least this time."""

OPERAND_SETS = 4
"""Sets of operands at different addresses; fewer if they are larger than `MAX_OPERAND_BYTES`."""

MAX_OPERAND_BYTES = 64 << 20

REDUCED_BLOCKS = 8
"""Blocks of a batch-reduce product; all of them are the same matrices."""

MAX_WHOLE_FLOPS = 2e9
"""Operations of the largest product that is measured whole: about 10 ms in float32."""

MAX_SAMPLE_PLACES, MAX_SAMPLED_FRACTION = 3, 0.3
"""Places at which the parts of a large product are measured, and the largest fraction of its work
that is worth it."""

MAX_PANELS, MAX_ROWS_OF_TILES = 12, 32
"""Panels of B, and rows of tiles, in the longer part of a large product."""


class Sample(NamedTuple):
    """Two parts of a product that differ in one length, and how they make up the whole.

    The time of a part is linear in the length: what is done once is the time at length 0.

    Attributes
    ----------
    parts : (Plan, Plan)
        Plans of the parts, with the blocks of the whole.
    lengths : (int, int)
        Their numbers of rows, or of columns.
    length : int
        The same of the whole, or of one of its blocks.
    repeats : float
        How often the whole length is run through: for blocks of the other dimensions.
    """

    parts: tuple[Plan, Plan]
    lengths: tuple[int, int]
    length: int
    repeats: float

    @property
    def places(self) -> int:
        """At how many places the parts are measured; 0 if the whole product takes hardly longer."""
        part_flops = sum(part.problem.flops for part in self.parts)
        work = self.parts[0].problem.flops / self.lengths[0] * self.length * self.repeats
        return min(MAX_SAMPLE_PLACES, int(MAX_SAMPLED_FRACTION * work / part_flops))

    def extrapolate(self, seconds: tuple[float, float]) -> float:
        """Seconds of the whole product, from those of the parts."""
        (short, long), (first, second) = self.lengths, seconds
        slope = max(0.0, second - first) / (long - short)
        return self.repeats * (first + (self.length - short) * slope)


def sample_of(plan: Plan) -> Sample | None:
    """The parts by which a plan is measured; None if its product is measured whole.

    A part has whole blocks in two dimensions, so that its data are in the caches that those of the
    whole product are in, and a few of the repetitions in the third: of the panels of B that read
    the same block of A (jr outside), of the rows of tiles that read the same block of B (ir
    outside), or of the blocks of A, if there are several.
    """
    problem, m, n = plan.problem, plan.m, plan.n
    k_blocks = problem.k / plan.kc
    has_own_sums = problem.types.c != plan.family.accumulator and k_blocks > 1
    is_plain = plan.schedule.kind == "tiles" and not problem.batch_reduce and problem.b != "packed"
    if problem.flops <= MAX_WHOLE_FLOPS or not is_plain or has_own_sums:
        return None
    rows = min(problem.m, m.block_tiles * m.tile)
    columns = min(problem.n, n.block_tiles * n.tile)
    repeats = k_blocks * problem.n / columns
    if plan.schedule.ir_outside:
        heights, length = _lengths(problem.m, m.tile, MAX_ROWS_OF_TILES), problem.m
    elif rows < problem.m:
        heights, length = (rows, min(problem.m, 2 * rows)), problem.m
    else:
        heights, length = (), columns
    widths = () if heights else _lengths(columns, n.tile, MAX_PANELS)
    lengths = heights or widths
    if not lengths:
        return None
    blocks = plan.schedule._replace(mr=m.tile, nr=n.tile, kc=plan.kc, mc=rows, nc=columns)
    parts = [
        make_plan(
            problem._replace(m=side if heights else rows, n=side if widths else columns, k=plan.kc),
            cpu,
            blocks,
        )
        for side in lengths
    ]
    sample = Sample((parts[0], parts[1]), lengths, length, repeats)
    return sample if sample.places else None


def _lengths(length: int, tile: int, max_tiles: int) -> tuple[int, int] | tuple[()]:
    """Two lengths of parts, in whole tiles; none if there are too few tiles."""
    tiles = min(length // tile, max_tiles)
    return (tiles // 3 * tile, tiles * tile) if tiles >= 3 else ()


class _Matrix(NamedTuple):
    """An operand: the array, which owns the memory, and what the engine gets."""

    array: np.ndarray
    struct: "nk_matrix"

    def at(self, row: int, column: int) -> "nk_matrix":
        """The matrix from a row and a column on."""
        address = self.array[row:, column:].ctypes.data
        data = ffi.cast("char *", address)
        return ffi.new("nk_matrix *", (data, self.struct.rs, self.struct.cs))[0]


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
        self._accumulating_args = self._call_args(problem)
        self._accumulating_args.beta = 1
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
        """Measure a plan; that of a large product by its `Sample`.

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
        sample = sample_of(plan)
        return self._sampled_seconds(sample) if sample else self.whole_seconds(plan, min_sample)

    def whole_seconds(self, plan: Plan, min_sample: float = MIN_SAMPLE_SECONDS) -> float:
        """As `seconds`, of the whole product, however large."""
        a, b, c = (matrix.struct for matrix in self._operand_sets[0])
        for addresses, operand in zip(self._block_lists, (a, b), strict=False):
            addresses[0:REDUCED_BLOCKS] = [operand.data] * REDUCED_BLOCKS
        count = 1
        while True:
            elapsed = self._run(plan, a, b, c, self._args, count)
            if elapsed >= min_sample:
                return elapsed / count
            count = max(2 * count, int(1.2 * count * min_sample / max(elapsed, 1e-9)))

    def _sampled_seconds(self, sample: Sample) -> float:
        """Each part is run at other places, whose data are as far away as in the whole product."""
        whole, sums = self._operand_sets[0], [0.0, 0.0]
        for _, (i, part) in itertools.product(range(sample.places), enumerate(sample.parts)):
            problem = part.problem
            row = _random_start(len(whole[2].array), problem.m, part.m.tile)
            column = _random_start(whole[2].array.shape[1], problem.n, part.n.tile)
            k = _random_start(whole[0].array.shape[1], problem.k, problem.k)
            a, b, c = whole[0].at(row, k), whole[1].at(k, column), whole[2].at(row, column)
            sums[i] += self._run(part, a, b, c, self._accumulating_args)
        first, second = (total / sample.places for total in sums)
        return sample.extrapolate((first, second))

    def _run(
        self,
        plan: Plan,
        a: "nk_matrix",
        b: "nk_matrix",
        c: "nk_matrix",
        args: "nk_call_args",
        count: int = 1,
    ) -> float:
        """Seconds of `count` products."""
        if plan not in self._plans:
            with planning_lock():
                self._plans[plan] = plan_to_c(plan, kernels.load(plan.kernels))
        c_plan = self._plans[plan]
        start = time.perf_counter()
        if lib.nk_run_plan(c_plan, a, b, c, count, (0, 0, 0), args[0], 1) != count:
            raise MemoryError(f"no memory for the packed panels of {plan.problem}")
        return time.perf_counter() - start


def _random_start(length: int, part: int, step: int) -> int:
    """A multiple of `step` at which a part of a length may start."""
    return random.randrange(0, length - part + 1, step)


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
