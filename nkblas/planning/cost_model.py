"""The analytical model: a plan for any problem, without a measurement.

All schedules are compared at once: what a schedule has of a thing is an element of an array.
"""

from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import product
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from nkblas.base.dtypes import ITEMSIZE, UNSCALED
from nkblas.base.families import Family, families
from nkblas.base.families import family as family_of
from nkblas.base.isa import ISA
from nkblas.base.problem import Problem
from nkblas.system.cpu import CPU

from .plan import (
    MAX_STREAM_ROWS,
    Plan,
    Schedule,
    b_panel_dtype,
    dot_tile_fits,
    dot_widths,
    make_plan,
    reads_a_in_place,
    reads_b_in_place,
    tiles,
    widest,
)

LINE = 64
"""Bytes of a cache line."""

PAGE = 4096
"""Bytes of a page of memory."""

CYCLE = 0.3
"""Nanoseconds, about: for what is not compared with another plan."""

DEPTHS = (128, 256, 512, 1024)
"""What kc may be at most."""

Numbers = Any
"""A number for each schedule."""


def cheapest_plan(problem: Problem, cpu: CPU) -> Plan:
    """The plan that costs least."""
    return next(ranked_plans(problem, cpu, 1))


def ranked_plans(problem: Problem, cpu: CPU, count: int) -> Iterator[Plan]:
    """Up to so many plans, the cheapest first.

    What is made for products with a short dimension comes before what would do them well if it
    were longer.
    """
    short = [s for s in skinny_schedules(problem, cpu) if not s.infeasible_reason(problem, cpu)]
    for schedule in short[:count]:
        yield make_plan(problem, cpu, schedule)._replace(nanoseconds=time_of_reading(problem, cpu))
    if problem.b == "packed":
        panels = panels_for(problem.dtype, problem.k, problem.n, cpu)
        spaces = [Space(problem, cpu, family_of(problem.dtype, panels.family), panels)]
    else:
        spaces = [Space(problem, cpu, family) for family in families(problem.dtype, cpu.isa)]
    cycles = np.concatenate([space.cost() for space in spaces])
    schedules = [(space, i) for space in spaces for i in range(space.count)]
    for which in np.argsort(cycles, kind="stable")[: max(0, count - len(short))]:
        space, i = schedules[which]
        plan = make_plan(problem, cpu, space.schedule(i))
        yield plan._replace(nanoseconds=CYCLE * float(cycles[which]))


class Panels(NamedTuple):
    """What a B is packed for, before it is known how many rows it will be multiplied by.

    Attributes
    ----------
    family : str
        A name of `nkblas.base.families`.
    nr, kc : int
        Columns of a panel, and its depth.
    """

    family: str
    nr: int
    kc: int


ROWS = 128
"""How many rows a B that is packed before is taken to be multiplied by, for its family."""

DEPTH, DEPTH_OF_TILES = 2048, 4096
"""Bytes of a column of its panels, at most; and of those for tile registers."""


@lru_cache(4096)
def panels_for(dtype: str, k: int, n: int, cpu: CPU) -> Panels:
    """The panels of a B that is packed before: a function of these, and of nothing else.

    They are as wide as leaves a tile with some rows: of few rows there is one tile in a column, and
    of many, few reads for each multiply-add. (In float32 on Emerald Rapids, wider or deeper ones
    were not clearly faster for 1 to 128 rows.) Where sums are scaled, they are those of the sums.
    """
    dtype = UNSCALED.get(dtype, dtype)
    problem = Problem(dtype, ROWS, n, k, b="packed")
    spaces = [Space(problem, cpu, family) for family in families(dtype, cpu.isa)]
    family = min(spaces, key=lambda space: space.cost().min()).family
    rows = cpu.isa.registers // (4 * family.accumulator_registers)
    found = tiles(cpu.isa, family, n)
    nr = max((nr for mr, nr in found if mr >= rows), default=found[0][1])
    depth = DEPTH_OF_TILES if family.tile_rows else DEPTH
    kc = depth // ITEMSIZE[b_panel_dtype(problem, family, cpu.isa)]
    plan = make_plan(problem, cpu, Schedule("tiles", ROWS, nr, kc, ROWS, n, family=family.name))
    return Panels(family.name, plan.n.tile, plan.kc)


def skinny_schedules(problem: Problem, cpu: CPU) -> Iterator[Schedule]:
    """Schedules that read the large operand of a product once, as it lies; the best first."""
    if not problem.is_native or problem.batch_reduce:
        return
    plain = families(problem.dtype, cpu.isa)[0]
    for schedule in _skinny_schedules(problem, cpu, plain):
        yield schedule._replace(family=plain.name)


def _skinny_schedules(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    if problem.k <= SHORT < problem.m and problem.b == "row":
        yield from _short_k(problem, cpu, family)
    elif problem.m <= SHORT and problem.b == "row":
        yield from _few_rows(problem, cpu, family)
    elif problem.m <= SHORT // 2 and problem.b == "col":
        yield from _few_rows_of_dots(problem, cpu, family)
    elif problem.n <= SHORT and problem.a == "row":
        yield from _few_columns(problem, cpu, family)


SHORT = 16
"""Up to this, a dimension is so short that an operand is hardly used again."""


def _few_rows(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """Along the rows of B."""
    m, n, k, lanes = problem.m, problem.n, problem.k, cpu.isa.lanes(problem.itemsize)
    size = k * n * problem.itemsize
    nc = cpu.l2 // (4 * m * problem.itemsize)
    rows = min(m, MAX_STREAM_ROWS)
    stream = Schedule("stream", rows, 16 * lanes, k, m, nc, prefetch=4 * size > cpu.l3)
    # One row of tiles, or two: what the first has brought in, the second finds in the cache.
    most = 8 if cpu.isa.registers > 16 else 6
    if m <= most:
        most //= family.accumulator_registers  # so few rows that tiles had better be wide
    mr = -(-m // -(-m // most))
    vectors = min(widest(cpu.isa, mr, family), -(-n // lanes))
    far = 4 * size >= cpu.l3
    # a tile that is alone needs no blocks; but long chains of sums have large errors
    kc = DEPTHS[-1] if n <= vectors * lanes else 256 if far else 512
    tiles = Schedule("tiles", mr, vectors * lanes, kc, m, n, prefetch=far and m > 1)
    if m == 1 and (n > vectors * lanes or size > cpu.l2):  # one tile is nothing to share
        yield stream
    elif family.accumulator_registers == 1 and (m == 2 or (m in (3, 4) and far)):
        yield from (stream, tiles)
    elif -(-m // mr) <= 2:
        yield tiles
        if m <= 8:
            yield stream


def _few_rows_of_dots(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """Along the columns of B."""
    m, n, k = problem.m, problem.n, problem.k
    size = k * n * problem.itemsize
    # kernels for dots are many, and nothing stands by for most of them: they have to be worth it
    standing_by = m == 1 and (n == 1 or n >= dot_widths(cpu.isa, family)[1])
    if m > max(4, cpu.isa.lanes(problem.itemsize) // 2) or not (standing_by or size >= 2 * cpu.l1d):
        return
    far = 2 * size > cpu.l3
    mr, nr = min(m, 6), {2: 8, 3: 6, 4: 6}.get(m, 4)
    if m == 1:
        one, *few = dot_widths(cpu.isa, family)
        crowded = k * problem.itemsize % PAGE == 0
        nr = one if n == 1 else 8 if far else few[0] if crowded or n < few[-1] else few[-1]
    nr = min(nr, n)
    while not dot_tile_fits(cpu.isa, mr, nr, family):
        nr -= 1
    yield Schedule("dot", mr, nr, k, m, n, problem.a != "row", prefetch=far)


def _few_columns(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """Along the rows of A, with all of B in the cache."""
    m, n, k, lanes = problem.m, problem.n, problem.k, cpu.isa.lanes(problem.itemsize)
    size = m * k * problem.itemsize
    if (
        n <= min(6 // family.accumulator_registers, lanes // 2)
        and k >= 2 * lanes
        and size >= 2 * cpu.l1d
    ):
        mr = max(mr for mr in range(1, 9) if dot_tile_fits(cpu.isa, mr, n, family))
        yield Schedule("dot", mr, n, 2048, m, n, False, True, True, prefetch=2 * size > cpu.l3)
    nr = -(-n // lanes) * lanes
    yield Schedule("tiles", 8, nr, cpu.l2 // (2 * nr * problem.itemsize), m, n)


def _short_k(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """Along the rows of C."""
    m, n, k, lanes = problem.m, problem.n, problem.k, cpu.isa.lanes(problem.itemsize)
    far = m * n * problem.itemsize > cpu.l3
    if k == 1:
        yield Schedule("stream", MAX_STREAM_ROWS if far else 2, 16 * lanes, k, m, n, prefetch=far)
    elif far and 4 < k <= 8:
        yield Schedule("stream", 2, 16 * lanes, k, m, n, prefetch=far)
    for mr in (6, 4):
        yield Schedule("tiles", mr, widest(cpu.isa, mr, family) * lanes, k, m, n, ir_outside=True)


def time_of_reading(problem: Problem, cpu: CPU) -> float:
    """About how many nanoseconds it takes to read the larger operand once."""
    size = max(problem.m, problem.n) * problem.k * problem.itemsize
    bytes_per_cycle = 24 if size <= cpu.l2 else 16 if size <= cpu.l3 else 8
    arithmetic = problem.flops / 2 / cpu.isa.lanes(problem.itemsize)
    return CYCLE * max(size / bytes_per_cycle, arithmetic)


@cache
def _grid(isa: ISA, family: Family) -> np.ndarray:
    """All combinations, a column for each: mr, vectors of nr, kc, pack_a, pack_b, part, ir_outside;
    and whether the tile fits where the last vector is whole, and where not. A block of A takes one
    `part`-th of L2, or is as large as A (0).
    """
    lanes = family.lanes(isa)
    # n decides whether there is an edge with a mask, which takes registers
    found = {tile for n in range(8 * lanes) for tile in tiles(isa, family, n)}
    shapes = sorted((mr, nr // lanes) for mr, nr in found)
    loops = ((3, 0), (0, 0), (0, 1))
    fits = {shape: [family.fits(isa, *shape, edge) for edge in (False, True)] for shape in shapes}
    columns = [
        (*shape, kc * family.k_group_b, pack_a, pack_b, *loop, *fits[shape])
        for shape, kc, pack_a, pack_b, loop in product(shapes, DEPTHS, (0, 1), (0, 1), loops)
    ]
    return np.array(columns).T


class Costs(NamedTuple):
    """What things cost on a microarchitecture, in cycles.

    Attributes
    ----------
    latency : float
        A multiply-add's.
    b_line, a_line : (float, float, float)
        A vector of the operand, on its way from L1, L2, beyond.
    a_row, a_row_crowded : float
        A k-step on a row of A in place, and more where A's rows push each other out of L1.
    b_crowded : float
        A vector of B in place, where B's rows push each other out of L1.
    converted : float
        A vector that is made wider by the units that multiply.
    overlap : float
        Of the shorter of arithmetic and traffic, what the longer does not hide.
    tile : float
        A call of the microkernel.
    c_line : float
        A vector of a C beyond L2, loaded and stored again for another block of k.
    c_crowded : float
        A line of C, where C's rows push each other out of L1.
    packed_line, packed_on_the_way : float
        A vector of B, packed; and by the microkernel that reads it first.
    kept_line : float
        A packed vector written to memory, with more panels than L2 holds.
    repacked_line : float
        A vector of packed B, fetched again for another block of A.
    far_rows : (float, float)
        A line packed from beyond L3, by the bytes of a row of B that are read at once, and by so
        many rows that a panel has.
    far_columns : (float, float)
        By the columns that are read at once, and the bytes of each.
    far_line : float
        A vector of a B beyond L2 that is read in place, for each block of A.
    """

    latency: float = 4.0
    b_line: tuple[float, float, float] = (0.0, 0.5, 3.5)
    a_line: tuple[float, float, float] = (0.0, 2.7, 6.3)
    a_row: float = 0.07
    a_row_crowded: float = 0.4
    b_crowded: float = 0.3
    converted: float = 0.0
    overlap: float = 0.09
    tile: float = 55.0
    c_line: float = 11.0
    c_crowded: float = 15.0
    packed_line: float = 3.8
    packed_on_the_way: float = 1.5
    kept_line: float = 8.0
    repacked_line: float = 1.1
    far_rows: tuple[float, float] = (400.0, 1024)
    far_columns: tuple[float, float] = (0.3, 5500.0)
    far_line: float = 1.5


# Fitted on Zen 4 to products of 128 to 2048 in each dimension, each measured with 70 to 300 plans;
# `kept_line` was estimated afterwards, from what memory costs. On the shapes of the suites "paper"
# and "square", the model's choice is 1 % slower than the best of four fixed rules (geometric mean).
ZEN4 = Costs()

# Fitted on Emerald Rapids to products of 128 to 4096 in each dimension, each measured with 20 to 56
# plans: the model's choice is 4 % slower than the best of them (geometric mean).
EMERALD_RAPIDS = Costs(
    b_line=(0.0, 0.6, 0.5),
    a_line=(0.0, 3.3, 3.4),
    a_row=0.5,
    a_row_crowded=0.0,
    b_crowded=1.2,
    converted=1.0,
    overlap=0.6,
    tile=73.0,
    c_line=4.0,
    c_crowded=0.0,
    packed_line=5.4,
    packed_on_the_way=0.0,
    kept_line=16.0,
    repacked_line=3.0,
    far_line=34.0,
)

COSTS = {"GenuineIntel": EMERALD_RAPIDS}
"""By the CPU's vendor; of all others, Zen 4's."""


SLOW = {("bf16", "GenuineIntel"): 4, ("fp16", "GenuineIntel"): 2}
"""Intel's vdpbf16ps: half as many products in a cycle as of float32; and vcvtph2psx, which takes
both of the units that multiply."""

CONFIGURED = 250.0
"""Cycles that it takes to configure tile registers, for each row of tiles, ..."""

TILE_REGISTERS = 200.0
"""... and to empty and to store those of a tile of C."""

SUMS = 8 << 20
"""Bytes, at most, of the sums that wait for the next block of k."""

FEW_TIMES = 64
"""Rows of C up to which a B beyond L2 may stay in place: it is read a few times only."""


FAR = 8
"""How many times as large as L2 a B that is packed before has to be, for its panels to be fetched
ahead along themselves where they are read a few times."""


class Space:
    """The schedules that the model compares for a problem.

    A is read in place unless it has no unit stride: kernels broadcast its elements, and packing
    it hardly ever gave more than it cost. Of B, rows can be read in place, except for an edge
    where the ISA has no masks; with a single row of tiles nothing is read twice, and packing
    is for nothing. A B that is packed before is as its panels are, once these are known.
    """

    def __init__(
        self, problem: Problem, cpu: CPU, family: Family, panels: Panels | None = None
    ) -> None:
        self.problem, self.cpu, self.family = problem, cpu, family
        self.lanes = lanes = family.lanes(cpu.isa)
        held = b_panel_dtype(problem, family, cpu.isa)
        self.prepacked, self.converts_panels = problem.b == "packed", held != family.b
        self.size_b = ITEMSIZE[held]
        size_a, size_b = ITEMSIZE[family.a], self.size_b
        grid = _grid(cpu.isa, family)
        mr, vectors, kc, pack_a, pack_b, part, ir_outside, fits_whole, fits_edge = grid
        edge = problem.n % (vectors * lanes) > (vectors - 1) * lanes
        in_place = reads_b_in_place(problem, family, cpu.isa)
        few = 4 + (cpu.isa.registers > 16)  # rows below which a tile is too flat
        few = few if family.accumulator_registers == 1 else 2
        a_in_place = reads_a_in_place(problem, family, cpu.isa)
        # a packed A may save conversions, and no more
        possible = np.where(pack_a == 1, family.converts_on_load or not a_in_place, a_in_place)
        possible &= mr >= min(few, problem.m)
        # with jr outside, all of a block of A is read for each panel of B
        depth = np.minimum(kc, problem.k) * size_a
        possible &= (part == 0) | (part * problem.m * depth > cpu.l2)
        possible &= (ir_outside == 1) | (not family.tile_rows)
        possible &= ((pack_b == 0) | (problem.m > mr)) if in_place else pack_b == 1
        # A large B in place depends on luck, in where its pages lie: it has to save much.
        few_times = problem.m <= FEW_TIMES or problem.k * problem.n * size_b <= cpu.l2
        possible &= (pack_b == 1) | few_times
        if problem.batch_reduce:  # one after the other, as they lie
            possible = (pack_a == 0) & (pack_b == 0) & (kc >= problem.k) & (part == 0)
            possible &= mr >= min(few, problem.m)
        possible &= (kc < 2 * problem.k) | (kc == DEPTHS[0] * family.k_group_b)
        possible &= np.where(edge, fits_edge, fits_whole) == 1
        if self.prepacked and not family.tile_rows:
            possible &= ir_outside == 0  # each panel is read from afar once
        if panels:
            possible &= (vectors * lanes == panels.nr) & (kc == DEPTHS[0] * family.k_group_b)
        mr, vectors, kc, pack_a, pack_b, part, ir_outside = grid[:7, possible]
        if panels:
            kc = np.full_like(kc, panels.kc)

        depth = np.minimum(kc, problem.k) * size_a
        # Packed blocks are buffers of this process: they are bounded.
        whole_m = np.where(pack_a == 1, cpu.l2 // depth, problem.m)
        mc = np.where(part > 0, cpu.l2 // (np.maximum(part, 1) * depth), whole_m)
        depth = np.minimum(kc, problem.k) * size_b
        # With ir outside, all of a block of B is read for each row of tiles: L2 has to hold it.
        most = np.where(ir_outside == 1, cpu.l2, max(cpu.l3, 8 << 20))
        nc = np.where(pack_b == 1, most // (2 * depth), problem.n)
        if family.accumulator != problem.types.c:  # so are sums that C can't hold
            sums = SUMS // (problem.m * ITEMSIZE[family.accumulator])
            nc = np.where(kc < problem.k, np.minimum(nc, max(sums, 1)), nc)
        self.columns = mr, vectors * lanes, kc, mc, nc, pack_a, pack_b, ir_outside
        self.count = len(mr)

    def schedule(self, index: int) -> Schedule:
        mr, nr, kc, mc, nc, *flags = (int(column[index]) for column in self.columns)
        pack_a, pack_b, ir_outside = map(bool, flags)
        family = self.family.name
        far = self.problem.k * self.problem.n * self.size_b > FAR * self.cpu.l2
        prefetch = self.prepacked and far and self.problem.m <= FEW_TIMES
        return Schedule("tiles", mr, nr, kc, mc, nc, pack_a, pack_b, ir_outside, prefetch, family)

    def cost(self) -> Numbers:
        """About how many cycles each schedule takes."""
        cpu, lanes, family = self.cpu, self.lanes, self.family
        costs = COSTS.get(cpu.vendor, ZEN4)
        size_a, size_b = ITEMSIZE[family.a], self.size_b
        size_c, stored = ITEMSIZE[family.accumulator], self.problem.itemsize
        m, n, k = self.problem.m, self.problem.n, self.problem.k
        mr, nr, kc, mc, nc, pack_a, pack_b, ir_outside = self.columns
        units = 1 if cpu.isa.vector_bits == 512 and cpu.double_pumped else 2
        per_cycle = units / (family.instructions * slowdown(family, cpu))
        l1, l2 = 0.75 * cpu.l1d, 0.6 * cpu.l2  # the rest is for what else is under way

        def level(rows: Numbers, columns: Numbers, itemsize: int) -> Numbers:
            """The cache that a part of an operand stays in: 0 and 1 for L1 and L2, 2 beyond."""
            size = rows * columns * itemsize
            return (size > l1) * 1 + (size > l2)

        # as `nkblas.planning.plan.make` cuts
        nr = np.minimum(nr, -(-n // lanes) * lanes)
        k_blocks = -(-k // kc)
        kc = -(-k // k_blocks)
        m_tiles = -(-m // mr)
        rows = -(-m // m_tiles)
        full_rows = m - m_tiles * (rows - 1)
        full_columns, rest_columns = n // nr, n % nr
        m_block = -(-m_tiles // -(-m // np.maximum(mc, 1)))
        n_tiles = full_columns + (rest_columns > 0)
        n_block = -(-n_tiles // -(-n // np.maximum(nc, 1)))

        # Of the two inner loops, the inner one comes back to a panel of one operand, while it goes
        # through a block of the other. (A single row of tiles comes back to nothing.)
        a_rows = np.where(ir_outside == 1, rows, m_block * rows)
        b_columns = np.where(ir_outside == 1, n_block * nr, nr)
        b_level = np.where(m_tiles > 1, level(kc, np.minimum(b_columns, n), size_b), 0)
        if self.problem.batch_reduce:  # all blocks come between one tile and the next
            b_level = np.maximum(b_level, 1)
        b_line = np.array(costs.b_line)[b_level]
        a_level = level(np.minimum(a_rows, m), kc, size_a)
        lines_b = family.tile_rows or 1  # that a vector of C takes of B in a step
        b_line *= lines_b
        per_row = np.array(costs.b_line if family.tile_rows else costs.a_line)[a_level]
        per_row /= 1 if family.tile_rows else lanes
        per_row += (1 - pack_a) * (
            costs.a_row + costs.a_row_crowded * _crowded(rows, k * size_a, cpu)
        )
        b_line += (1 - pack_b) * costs.b_crowded * _crowded(kc, n * size_b, cpu)

        # With jr outside, the first tile of a column packs B while it multiplies.
        can_pack = (self.problem.b == "row") & (ir_outside == 0) & (family.k_step == 1)

        cycles = np.zeros(len(mr))
        for height, row_count in ((rows, full_rows), (rows - 1, m_tiles - full_rows)):
            for width, column_count in ((nr, full_columns), (rest_columns, rest_columns > 0)):
                vectors = -(-width // lanes)
                # multiply-adds; loads, two a cycle; an accumulator's wait for itself
                loads = height * family.a_registers + vectors * lines_b
                arithmetic = height * vectors / per_cycle
                if family.converts_on_load:  # what is in place is converted again and again
                    of_b = 1 - pack_b + self.converts_panels
                    converted = height * (1 - pack_a) + vectors * of_b
                    loads = loads + 2 * converted
                    arithmetic = arithmetic + costs.converted * converted
                arithmetic = np.maximum(arithmetic, loads / 2)
                arithmetic = np.maximum(arithmetic, costs.latency)
                traffic = vectors * b_line + height * per_row
                step = np.maximum(arithmetic, traffic)
                step += costs.overlap * np.minimum(arithmetic, traffic)
                cycles += row_count * column_count * (k / family.k_step) * step

        tile = TILE_REGISTERS if family.tile_rows else costs.tile
        cycles += tile * m_tiles * n_tiles * k_blocks
        if family.tile_rows:
            cycles += CONFIGURED * m_tiles * k_blocks * -(-n_tiles // n_block)
        lines = np.minimum(m, rows * m_tiles) * np.minimum(n, nr * n_tiles) * stored / LINE
        cycles += costs.c_crowded * lines * k_blocks * _crowded(rows, n * stored, cpu)
        if level(m, n, size_c) == 2:
            cycles += costs.c_line * m * n / lanes * (k_blocks - 1)
        m_blocks = -(-m_tiles // m_block)
        packing = np.where(can_pack, costs.packed_on_the_way, costs.packed_line)
        # A panel that no other block of A comes back to never leaves the cache.
        kept = (m_blocks > 1) | (ir_outside == 1)
        packing = packing + costs.kept_line * kept * (
            level(kc, np.minimum(n_block * nr, n), size_b) == 2
        )
        packing += costs.repacked_line * (m_blocks - 1)
        if 4 * k * n * size_b >= cpu.l3:
            if self.problem.b == "row":
                packing += costs.far_rows[0] / (nr * size_b) * (1 + kc / costs.far_rows[1])
            else:
                packing += costs.far_columns[0] * nr + costs.far_columns[1] / (kc * size_b)
        if self.prepacked:
            packing = costs.b_line[2] * (level(k, n, size_b) == 2)
            packing = packing + costs.repacked_line * (m_blocks - 1)
        in_place = costs.far_line * m_blocks * (level(k, n, size_b) == 2)
        vector = cpu.isa.vector_bits // 8
        cycles += k * n * size_b / vector * np.where(pack_b == 1, packing, in_place)
        n_blocks = -(-n_tiles // n_block)
        if level(m, k, size_a) == 2:  # each row of tiles brings in its rows of A
            cycles += k * m * size_a / vector * ir_outside * n_blocks * costs.a_line[2]
        return cycles + k * m * size_a / vector * pack_a * n_blocks * costs.packed_line


def slowdown(family: Family, cpu: CPU) -> float:
    """How many multiply-adds take as long as one instruction of a family, where it is not one."""
    if not cpu.isa.mask_registers and family.slowdown_without_masks > 1:
        return family.slowdown_without_masks
    return SLOW.get((family.name, cpu.vendor), 1)


def _crowded(rows: Numbers, stride: int, cpu: CPU) -> Numbers:
    """Whether rows this many bytes apart have so few sets of L1 that they push each other out.

    The leading dimension is taken to be a contiguous operand's.
    """
    way = cpu.l1d // cpu.l1d_ways
    sets = way // gcd(stride, way)
    return -(-rows // sets) > cpu.l1d_ways - 2  # two ways for the other operands
