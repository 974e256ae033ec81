"""The analytical cost model: ranks the plans for a problem without a measurement.

The cost of a schedule is a sum of `TERMS`, in cycles on one thread. Each term is a function of all
schedules of a space at once, and returns an array with an element for each schedule. The constants
in the terms are measured on this machine (`nkblas.planning.measured_costs`), or those of its
microarchitecture.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from nkblas.base.dtypes import ITEMSIZE, UNSCALED
from nkblas.base.families import Family, families
from nkblas.base.families import family as family_of
from nkblas.base.problem import TRIANGLES, Problem
from nkblas.system.cpu import CPU

from .caches import (
    BEYOND_L2,
    CACHE_LINE,
    L1,
    L2,
    PAGE,
    USABLE_L2,
    USABLE_L2_WITH_STREAMS,
    cache_level,
    has_l1_conflicts,
    occupied_bytes,
)
from .measured_costs import costs_of
from .microarchitecture import (
    STREAMED_BYTES_PER_CYCLE,
    TILE_CONFIGURATION,
    TILE_ROW_IN_PLACE,
    TILE_STORE,
    Costs,
    fmas_per_cycle,
    fmas_per_instruction,
)
from .plan import MAX_KEPT_PANELS, Plan, make_plan, triangular_plan
from .schedule import Panels, Schedule, b_panel_dtype, register_tiles
from .search_space import Array, ScheduleSpace
from .skinny import is_far_in_l3, legal_skinny_schedules, skinny_schedules

STRUCTURE_CANDIDATES = 24
"""Plans of the full product among which the one of a symmetric product is selected."""

# ---- ranking ----


def cheapest_plan(problem: Problem, cpu: CPU) -> Plan:
    """The plan that costs least."""
    return next(ranked_plans(problem, cpu, 1))


def ranked_plans(problem: Problem, cpu: CPU, count: int) -> Iterator[Plan]:
    """Up to `count` plans, the cheapest first.

    Those for products with a short dimension (`nkblas.planning.skinny`) come before all others:
    the cost model is fitted to products of long dimensions. A product with structure has the plans
    of the full product.
    """
    if problem.structure == "triangular":
        yield triangular_plan(problem, cpu)
        return
    if problem.structure:
        yield from _ranked_with_structure(problem, cpu, count)
        return
    panels = prepacked_panels(problem, cpu)
    for schedule in islice(legal_skinny_schedules(problem, cpu, panels), count):
        count -= 1
        plan = make_plan(problem, cpu, schedule)
        yield plan._replace(nanoseconds=streaming_nanoseconds(problem, cpu))
    if count:
        yield from _ranked_by_cost(problem, cpu, count, panels)


def _ranked_by_cost(
    problem: Problem, cpu: CPU, count: int, panels: Panels | None
) -> Iterator[Plan]:
    """The plans of register tiles, the cheapest first."""
    if panels:
        candidates: tuple[Family, ...] = (family_of(problem.dtype, panels.family),)
    else:
        candidates = families(problem.dtype, cpu.isa)
    spaces = [ScheduleSpace(problem, cpu, family, panels) for family in candidates]
    cycles = np.concatenate([cost(space) for space in spaces])
    schedules = [(space, i) for space in spaces for i in range(len(space))]
    for rank in np.argsort(cycles, kind="stable")[:count]:
        space, i = schedules[rank]
        plan = make_plan(problem, cpu, space[i])
        nanoseconds = costs_of(cpu).nanoseconds_per_cycle * float(cycles[rank])
        yield plan._replace(nanoseconds=nanoseconds)


def _ranked_with_structure(problem: Problem, cpu: CPU, count: int) -> list[Plan]:
    """The plans of the full product; first those with its bits, the cheapest for a triangle first.

    With small tiles, fewer elements beyond the triangle are computed.
    """
    full = problem._replace(structure="")
    count_ranked = max(count, STRUCTURE_CANDIDATES)
    if problem.structure in TRIANGLES:  # streams and dots store all of C
        tiles = _ranked_by_cost(full, cpu, count_ranked, None)
        plans = [plan.with_structure(problem.structure) for plan in tiles]
        return sorted(plans, key=lambda plan: plan.nanoseconds)[:count]
    ranked = list(ranked_plans(full, cpu, count_ranked))
    plans = [plan.with_structure(problem.structure) for plan in ranked]
    if not any(skinny_schedules(full, cpu)):
        plans.sort(key=lambda plan: (plan.bits != ranked[0].bits, plan.nanoseconds))
    return plans[:count]


def streaming_nanoseconds(problem: Problem, cpu: CPU) -> float:
    """The estimated time of a skinny plan: that of reading the larger operand once."""
    size = max(problem.m, problem.n) * problem.k * problem.itemsize
    from_l2, from_l3, from_memory = STREAMED_BYTES_PER_CYCLE
    is_in_l3 = size <= cpu.l3 and not is_far_in_l3(size, cpu)
    bytes_per_cycle = from_l2 if size <= cpu.l2 else from_l3 if is_in_l3 else from_memory
    arithmetic = problem.flops / 2 / cpu.isa.lanes(problem.itemsize)
    return costs_of(cpu).nanoseconds_per_cycle * max(size / bytes_per_cycle, arithmetic)


# ---- the layout of a prepacked B ----

PREPACKED_ROWS = 128
"""Rows that a prepacked B is taken to be multiplied by, when its family is selected."""

MAX_PANEL_COLUMN, MAX_PANEL_COLUMN_OF_TILES = 2048, 4096
"""Bytes of a column of a prepacked panel, at most; and for tile registers."""


@lru_cache(4096)
def panels_for(dtype: str, k: int, n: int, cpu: CPU) -> Panels:
    """The panels of a prepacked B: a function of these arguments, and of nothing else.

    They are as wide as possible with a tile of `min_rows` rows or more: so there is one tile in a
    column for few rows, and there are few loads for each multiply-add for many. (In float32 on
    Emerald Rapids, wider or deeper ones were not clearly faster for 1 to 128 rows.) A quantized
    product has the panels of the product that it scales.
    """
    dtype = UNSCALED.get(dtype, dtype)
    problem = Problem(dtype, PREPACKED_ROWS, n, k, b="packed")
    spaces = [ScheduleSpace(problem, cpu, family) for family in families(dtype, cpu.isa)]
    family = min(spaces, key=lambda space: cost(space).min()).family
    min_rows = cpu.isa.registers // (4 * family.accumulator_registers)
    tiles = register_tiles(cpu.isa, family, n)
    nr = max((nr for mr, nr in tiles if mr >= min_rows), default=tiles[0][1])
    column_size = MAX_PANEL_COLUMN_OF_TILES if family.tile_rows else MAX_PANEL_COLUMN
    kc = column_size // ITEMSIZE[b_panel_dtype(problem, family, cpu.isa)]
    m = PREPACKED_ROWS
    plan = make_plan(problem, cpu, Schedule("tiles", m, nr, kc, m, n, family=family.name))
    return Panels(family.name, plan.n.tile, plan.kc)


def prepacked_panels(problem: Problem, cpu: CPU) -> Panels | None:
    """The panels of a problem's B, if it is prepacked; else None."""
    if problem.b != "packed":
        return None
    return panels_for(problem.dtype, problem.k, problem.n, cpu)


# ---- what a schedule costs ----


def cost(space: ScheduleSpace, costs: Costs | None = None) -> Array:
    """About how many cycles each schedule of a space takes on one thread: the sum of `TERMS`.

    Parameters
    ----------
    space : ScheduleSpace
    costs : Costs, optional
        The constants; those that are known of the CPU by default.
    """
    blocks = Blocks.of(space, costs or costs_of(space.cpu))
    cycles = np.zeros(len(space))
    for term in TERMS:
        cycles += term(blocks)
    return cycles


class Blocks(NamedTuple):
    """How each schedule of a space divides the problem; as `make_plan`, for all at once.

    Attributes
    ----------
    space : ScheduleSpace
    problem : Problem
    cpu : CPU
    costs : Costs
        The constants.
    mr, nr, kc : ndarray
        Sizes after even division.
    m_tiles, n_tiles : ndarray
        Tiles along m and n.
    m_block, n_block : ndarray
        Tiles in a cache block.
    m_blocks, n_blocks, k_blocks : ndarray
        Cache blocks.
    """

    space: ScheduleSpace
    problem: Problem
    cpu: CPU
    costs: Costs
    mr: Array
    nr: Array
    kc: Array
    m_tiles: Array
    n_tiles: Array
    m_block: Array
    n_block: Array
    m_blocks: Array
    n_blocks: Array
    k_blocks: Array

    @classmethod
    def of(cls, space: ScheduleSpace, costs: Costs) -> "Blocks":
        """The blocks of a space's schedules."""
        problem, lanes = space.problem, space.lanes
        m, n, k = problem.m, problem.n, problem.k
        nr = np.minimum(space.nr, -(-n // lanes) * lanes)
        k_blocks = -(-k // space.kc)
        m_tiles, n_tiles = -(-m // space.mr), -(-n // nr)
        m_block = -(-m_tiles // -(-m // np.maximum(space.mc, 1)))
        n_block = -(-n_tiles // -(-n // np.maximum(space.nc, 1)))
        return cls(
            space,
            problem,
            space.cpu,
            costs,
            mr=-(-m // m_tiles),
            nr=nr,
            kc=-(-k // k_blocks),
            m_tiles=m_tiles,
            n_tiles=n_tiles,
            m_block=m_block,
            n_block=n_block,
            m_blocks=-(-m_tiles // m_block),
            n_blocks=-(-n_tiles // n_block),
            k_blocks=k_blocks,
        )

    @property
    def vectors_of_a(self) -> float:
        """Vectors in all of A."""
        size = self.problem.k * self.problem.m * self.space.a_itemsize
        return size / (self.cpu.isa.vector_bits // 8)

    @property
    def vectors_of_b(self) -> float:
        """Vectors in all of B."""
        size = self.problem.k * self.problem.n * self.space.b_itemsize
        return size / (self.cpu.isa.vector_bits // 8)

    @property
    def b_is_beyond_l2(self) -> bool:
        """Whether L2 is too small for all of B."""
        size = self.problem.k * self.problem.n * self.space.b_itemsize
        return bool(cache_level(size, self.cpu) == BEYOND_L2)


def k_loops(x: Blocks) -> Array:
    """Cycles in the k loops of all microkernel calls.

    A step takes ``max(compute, loads) + unoverlapped * min(compute, loads)``.
    """
    m, n, lanes = x.problem.m, x.problem.n, x.space.lanes
    main_rows = m - x.m_tiles * (x.mr - 1)
    main_columns, edge_columns = n // x.nr, n % x.nr
    b_load, a_load = b_load_cycles(x), a_load_cycles(x)
    cycles = np.zeros(len(x.space))
    for height, row_count in ((x.mr, main_rows), (x.mr - 1, x.m_tiles - main_rows)):
        for width, column_count in ((x.nr, main_columns), (edge_columns, edge_columns > 0)):
            vectors = -(-width // lanes)
            compute = compute_cycles(x, height, vectors)
            loads = vectors * b_load + height * a_load
            step = np.maximum(compute, loads)
            step += x.costs.unoverlapped * np.minimum(compute, loads)
            steps = x.problem.k / x.space.family.k_step
            cycles += row_count * column_count * steps * step
    return cycles


def compute_cycles(x: Blocks, height: Array, vectors: Array) -> Array:
    """Cycles per k step of a register tile whose operands are in L1.

    The bounds are the multiply-adds, two loads a cycle, and the latency of a multiply-add, which
    the next one of the same accumulator waits for.
    """
    family, space = x.space.family, x.space
    per_cycle = fmas_per_cycle(x.cpu) / (family.instructions * fmas_per_instruction(family, x.cpu))
    loads = height * family.a_registers + vectors * (family.tile_rows or 1)
    fmas = height * vectors / per_cycle
    if family.converts_on_load:  # an operand in place is converted again for each tile
        reads_b_unconverted = 1 - space.pack_b + space.converts_panels
        conversions = height * (1 - space.pack_a) + vectors * reads_b_unconverted
        loads = loads + 2 * conversions
        fmas = fmas + x.costs.conversion * conversions
    compute: Array = np.maximum(np.maximum(fmas, loads / 2), x.costs.fma_latency)
    return compute


def b_load_cycles(x: Blocks) -> Array:
    """Cycles to load the part of B that a k step needs for a vector of C.

    With jr outside, the inner loop comes back to a panel of B (nr columns) for each row of tiles;
    with ir outside, to a block of B. A single row of tiles comes back to nothing.
    """
    space, costs, n = x.space, x.costs, x.problem.n
    columns = np.where(space.ir_outside == 1, x.n_block * x.nr, x.nr)
    size = x.kc * np.minimum(columns, n) * space.b_itemsize
    level = np.where(x.m_tiles > 1, cache_level(size, x.cpu), L1)
    if x.problem.batch_reduce:  # all blocks are read between one tile and the next
        level = np.maximum(level, L2)
    by_level = np.array((costs.b_from_l1, costs.b_from_l2, costs.b_beyond_l2))
    cycles: Array = by_level[level] * (space.family.tile_rows or 1)
    cycles += (
        (1 - space.pack_b) * costs.b_conflict * has_l1_conflicts(x.kc, n * space.b_itemsize, x.cpu)
    )
    return cycles


def a_load_cycles(x: Blocks) -> Array:
    """Cycles to load the part of A that a k step needs for a row of C.

    With ir outside, the inner loop comes back to a row of tiles (mr rows of A); with jr outside, to
    a block of A. Tile registers load whole rows of A: each costs as much as a vector of B.
    """
    space, costs, m = x.space, x.costs, x.problem.m
    rows = np.minimum(np.where(space.ir_outside == 1, x.mr, x.m_block * x.mr), m)
    itemsize = space.a_itemsize
    if x.problem.a == "col":
        in_place_size = occupied_bytes(x.kc, rows * itemsize, m * itemsize)
    else:
        in_place_size = occupied_bytes(rows, x.kc * itemsize, x.problem.k * itemsize)
    size = np.where(space.pack_a == 1, rows * x.kc * itemsize, in_place_size)
    usable_l2 = np.where(space.ir_outside == 1, USABLE_L2, USABLE_L2_WITH_STREAMS)
    level = cache_level(size, x.cpu, usable_l2)
    cycles: Array
    conflicts = has_l1_conflicts(x.mr, x.problem.k * space.a_itemsize, x.cpu)
    if space.family.tile_rows:
        level = np.maximum(level, L2 * conflicts * (1 - space.pack_a))
        cycles = np.array((costs.b_from_l1, costs.b_from_l2, costs.b_beyond_l2))[level]
        return cycles + TILE_ROW_IN_PLACE * (1 - space.pack_a)
    by_level = np.array((costs.a_from_l1, costs.a_from_l2, costs.a_beyond_l2))
    cycles = by_level[level] / space.lanes
    in_place: Any = costs.a_in_place
    if x.problem.a == "row":
        in_place = in_place + costs.a_conflict * conflicts
    elif 2 * m * itemsize >= PAGE or m * x.problem.k * itemsize > x.cpu.l2:
        in_place = in_place + costs.a_page_per_column * (1 - fetched_columns_of_a(x))
    cycles += (1 - space.pack_a) * in_place
    return cycles


def fetched_columns_of_a(x: Blocks) -> Array:
    """The part of a column-major A that is fetched ahead.

    With jr outside, the tiles of the block before do so: each can fetch one line of each column.
    """
    blocks = x.m_blocks * x.n_blocks * x.k_blocks
    lines_per_tile = x.mr * x.space.a_itemsize / (x.n_block * CACHE_LINE)
    fetched: Array = (1 - x.space.ir_outside) * (1 - 1 / blocks) / np.maximum(1, lines_per_tile)
    return fetched


def kernel_calls(x: Blocks) -> Array:
    """Cycles of all microkernel calls, without their k loops."""
    per_call = TILE_STORE if x.space.family.tile_rows else x.costs.kernel_call
    return per_call * x.m_tiles * x.n_tiles * x.k_blocks


def tile_configuration(x: Blocks) -> Array | float:
    """Cycles to configure tile registers: once for each row of tiles of a block."""
    if not x.space.family.tile_rows:
        return 0.0
    return TILE_CONFIGURATION * x.m_tiles * x.k_blocks * x.n_blocks


def c_conflicts(x: Blocks) -> Array:
    """Cycles of L1 misses because rows of C evict each other: per line of C and block of k."""
    m, n, itemsize = x.problem.m, x.problem.n, x.problem.itemsize
    rows, columns = np.minimum(m, x.mr * x.m_tiles), np.minimum(n, x.nr * x.n_tiles)
    lines = rows * columns * itemsize / CACHE_LINE
    conflicts = has_l1_conflicts(x.mr, n * itemsize, x.cpu)
    cycles: Array = x.costs.c_conflict * lines * x.k_blocks * conflicts
    return cycles


def c_reloads(x: Blocks) -> Array | float:
    """Cycles to load and store a C beyond L2 again: per vector and further block of k."""
    m, n = x.problem.m, x.problem.n
    if cache_level(m * n * ITEMSIZE[x.space.family.accumulator], x.cpu) != BEYOND_L2:
        return 0.0
    return x.costs.c_reload * m * n / x.space.lanes * (x.k_blocks - 1)


def b_packing_or_reading(x: Blocks) -> Array:
    """Cycles to pack B, or to read a B in place from beyond L2: per vector of B."""
    packed = prepacked_b_reading(x) if x.space.is_prepacked else b_packing(x)
    in_place = x.costs.b_in_place * x.m_blocks * x.b_is_beyond_l2
    return x.vectors_of_b * np.where(x.space.pack_b == 1, packed, in_place)


def b_packing(x: Blocks) -> Array:
    """Cycles per vector of B that is packed, and read again for each further block of A."""
    space, costs, problem = x.space, x.costs, x.problem
    # With jr outside, the first tile of a column packs B while it multiplies.
    packs_in_kernel = (problem.b == "row") & (space.ir_outside == 0) & (space.family.k_step == 1)
    # The lines of a row of a panel: it starts anywhere in a line, so that it has one more.
    lines_per_whole_line = 1 + CACHE_LINE / (x.nr * space.b_itemsize)
    in_kernel = costs.pack_b_in_kernel * lines_per_whole_line
    in_kernel = in_kernel + costs.pack_b_conflict * evicted_before_packing(x)
    cycles: Array = np.where(packs_in_kernel, in_kernel, costs.pack)
    # A panel that no further block of A comes back to never leaves the cache.
    is_read_again = (x.m_blocks > 1) | (space.ir_outside == 1)
    block_size = x.kc * np.minimum(x.n_block * x.nr, problem.n) * space.b_itemsize
    is_beyond_l2 = cache_level(block_size, x.cpu) == BEYOND_L2
    cycles = cycles + costs.panel_store * is_read_again * is_beyond_l2
    cycles = cycles + costs.panel_reload * (x.m_blocks - 1)
    # B counts as beyond L3 if it is larger than a quarter of L3.
    if 4 * problem.k * problem.n * space.b_itemsize >= x.cpu.l3:
        cycles = cycles + b_packing_from_memory(x)
    return cycles


def evicted_before_packing(x: Blocks) -> Array:
    """The fraction of B's lines that are evicted from L2 after they were fetched ahead.

    The rows of the next panel are fetched while the present one is multiplied.
    """
    itemsize = x.space.b_itemsize
    size = occupied_bytes(x.kc, x.nr * itemsize, x.problem.n * itemsize)
    fraction: Array = np.maximum(0, 1 - USABLE_L2_WITH_STREAMS * x.cpu.l2 / size)
    return x.b_is_beyond_l2 * fraction


def b_packing_from_memory(x: Blocks) -> Array:
    """More cycles per vector of B that is packed from beyond L3: see `Costs`."""
    costs, itemsize = x.costs, x.space.b_itemsize
    if x.problem.b == "row":
        return costs.pack_rows / (x.nr * itemsize) * (1 + x.kc / costs.pack_rows_kc)
    return costs.pack_columns_nr * x.nr + costs.pack_columns / (x.kc * itemsize)


def prepacked_b_reading(x: Blocks) -> Array:
    """Cycles per vector of a prepacked B, read from beyond L2 and again for each block of A."""
    first = x.costs.b_beyond_l2 * x.b_is_beyond_l2
    return first + x.costs.panel_reload * (x.m_blocks - 1)


def a_reloads(x: Blocks) -> Array | float:
    """Cycles to load an A beyond L2, for each block of columns: per vector of A.

    With ir outside, each row of tiles loads its rows of A.
    """
    if cache_level(x.problem.m * x.problem.k * x.space.a_itemsize, x.cpu) != BEYOND_L2:
        return 0.0
    return x.vectors_of_a * x.space.ir_outside * x.n_blocks * x.costs.a_beyond_l2


def a_packing(x: Blocks) -> Array:
    """Cycles to pack A, once or for each block of columns: per vector of A."""
    size = x.problem.m * x.problem.k * x.space.a_itemsize
    times = x.n_blocks if size > MAX_KEPT_PANELS else 1
    cycles: Array = x.vectors_of_a * x.space.pack_a * times * x.costs.pack
    return cycles


TERMS: tuple[Callable[[Blocks], Array | float], ...] = (
    k_loops,
    kernel_calls,
    tile_configuration,
    c_conflicts,
    c_reloads,
    b_packing_or_reading,
    a_reloads,
    a_packing,
)
"""The terms of `cost`: each gives cycles for each schedule."""
