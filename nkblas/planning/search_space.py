"""`ScheduleSpace`: the schedules that the cost model compares for a problem.

They are compared all at once: a field of the schedules is an array, with an element for each.
"""

from collections.abc import Sequence
from copy import copy
from functools import cache
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.families import Family
from nkblas.base.isa import ISA
from nkblas.base.problem import Problem
from nkblas.system.cpu import CPU

from .schedule import (
    KC_BOUNDS,
    MIN_L3,
    Panels,
    Schedule,
    b_panel_dtype,
    reads_a_in_place,
    reads_b_in_place,
    register_tiles,
)

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MAX_PARTIAL_SUMS = 8 << 20
"""Bytes: bound for the partial sums of a block of columns, which wait for the next block of k."""

IN_PLACE_MAX_ROWS = 64
"""Rows of C up to which a B beyond L2 may be read in place: it is read a few times only."""

PREFETCHED_L2_SIZES = 8
"""A prepacked B of more than this many times L2 has its panels prefetched, for few rows of C."""


class _Grid(NamedTuple):
    """All combinations of parameters, an element of each array for each combination.

    Attributes
    ----------
    mr, vectors, kc, pack_a, pack_b, ir_outside
        As in `Schedule`; nr is `vectors` vectors.
    a_l2_divisor
        A block of A takes L2 divided by this; 0: it is as large as A.
    fits, fits_with_mask
        Whether the registers are enough where the last vector is whole, and where it needs a mask.
    """

    mr: Array
    vectors: Array
    kc: Array
    pack_a: Array
    pack_b: Array
    a_l2_divisor: Array
    ir_outside: Array
    fits: Array
    fits_with_mask: Array


@cache
def _grid(isa: ISA, family: Family) -> _Grid:
    """The combinations of parameters for any problem, before illegal ones are removed."""
    lanes = family.lanes(isa)
    # n decides whether there is an edge with a mask, which takes registers: no width has one with
    # n = 0, and each has one where the last column of n is missing
    columns = (max(0, vectors * lanes - 1) for vectors in range(9))
    tiles = {tile for n in columns for tile in register_tiles(isa, family, n)}
    shapes = sorted((mr, nr // lanes) for mr, nr in tiles)
    a_l2_divisor_and_ir_outside = ((3, 0), (0, 0), (0, 1))
    fits = {shape: [family.fits(isa, *shape, edge) for edge in (False, True)] for shape in shapes}
    rows = [
        (*shape, kc * family.k_group_b, pack_a, pack_b, *loops, *fits[shape])
        for shape, kc, pack_a, pack_b, loops in product(
            shapes, KC_BOUNDS, (0, 1), (0, 1), a_l2_divisor_and_ir_outside
        )
    ]
    return _Grid(*np.array(rows).T)


class ScheduleSpace:
    """The "tiles" schedules of one instruction family that the model compares for a problem.

    A is packed (``pack_a``) only if it has no unit stride, to save conversions, or if it is
    column-major: kernels broadcast the elements of rows in place, and packing them hardly ever gave
    more than it cost. The rows of
    B can be read in place, except for an edge where the ISA has no masks; with a single row of
    tiles nothing is read twice, and B is not packed (``pack_b``). A prepacked B has the panels that
    were selected when it was packed.

    Parameters
    ----------
    problem : Problem
    cpu : CPU
    family : Family
    panels : Panels, optional
        The layout of a prepacked B; None while it is being selected.

    Attributes
    ----------
    lanes : int
        Columns of C in one vector.
    a_itemsize, b_itemsize : int
        Bytes of an element of A's panels, and of B's.
    is_prepacked : bool
    converts_panels : bool
        Whether the microkernel converts the elements of B's panels.
    mr, nr, kc, mc, nc, pack_a, pack_b, ir_outside : ndarray
        The fields of the schedules, an element for each schedule.
    """

    def __init__(
        self, problem: Problem, cpu: CPU, family: Family, panels: Panels | None = None
    ) -> None:
        self.problem, self.cpu, self.family = problem, cpu, family
        self.lanes = family.lanes(cpu.isa)
        panel_dtype = b_panel_dtype(problem, family, cpu.isa)
        self.is_prepacked = problem.b == "packed"
        self.converts_panels = panel_dtype != family.b
        self.a_itemsize, self.b_itemsize = ITEMSIZE[family.a], ITEMSIZE[panel_dtype]
        grid = _grid(cpu.isa, family)
        is_candidate = self._is_legal(grid, panels) & self._is_worthwhile(grid, panels)
        grid = _Grid(*(column[is_candidate] for column in grid))
        self.mr, self.nr = grid.mr, grid.vectors * self.lanes
        self.kc = np.full_like(grid.kc, panels.kc) if panels else grid.kc
        self.mc, self.nc = self._cache_blocks(grid, self.kc)
        self.pack_a, self.pack_b, self.ir_outside = grid.pack_a, grid.pack_b, grid.ir_outside

    def __len__(self) -> int:
        return len(self.mr)

    def subset(self, indices: Sequence[int] | Array) -> "ScheduleSpace":
        """The space of some of the schedules."""
        subset = copy(self)
        for name in ("mr", "nr", "kc", "mc", "nc", "pack_a", "pack_b", "ir_outside"):
            setattr(subset, name, getattr(self, name)[indices])
        return subset

    def __getitem__(self, index: int) -> Schedule:
        sizes = (self.mr, self.nr, self.kc, self.mc, self.nc)
        mr, nr, kc, mc, nc = (int(column[index]) for column in sizes)
        b_size = self.problem.k * self.problem.n * self.b_itemsize
        is_far_beyond_l2 = b_size > PREFETCHED_L2_SIZES * self.cpu.l2
        return Schedule(
            "tiles",
            mr,
            nr,
            kc,
            mc,
            nc,
            pack_a=bool(self.pack_a[index]),
            pack_b=bool(self.pack_b[index]),
            ir_outside=bool(self.ir_outside[index]),
            prefetch=self.is_prepacked and is_far_beyond_l2 and self.problem.m <= IN_PLACE_MAX_ROWS,
            family=self.family.name,
        )

    def _is_legal(self, grid: _Grid, panels: Panels | None) -> Array:
        """Whether kernels can read the operands that are not packed, and the tile fits."""
        problem, family, isa, lanes = self.problem, self.family, self.cpu.isa, self.lanes
        has_masked_edge = problem.n % (grid.vectors * lanes) > (grid.vectors - 1) * lanes
        is_legal: Array = np.where(has_masked_edge, grid.fits_with_mask, grid.fits) == 1
        if problem.batch_reduce:  # blocks are read in place, each with all of its k
            is_legal &= (grid.pack_a == 0) & (grid.pack_b == 0) & (grid.kc >= problem.k)
            return is_legal
        if not reads_a_in_place(problem, family, isa):
            is_legal &= grid.pack_a == 1
        if not reads_b_in_place(problem, family, isa):
            is_legal &= grid.pack_b == 1
        if family.tile_rows:
            is_legal &= grid.ir_outside == 1
        if panels:
            is_legal &= grid.vectors * lanes == panels.nr
        return is_legal

    def _is_worthwhile(self, grid: _Grid, panels: Panels | None) -> Array:
        """Whether each combination may be the best, as far as a rule of thumb can say."""
        problem, cpu, family = self.problem, self.cpu, self.family
        min_rows = 4 + (cpu.isa.registers > 16)  # with fewer, a tile is too flat
        min_rows = min_rows if family.accumulator_registers == 1 else 2
        is_worthwhile: Array = grid.mr >= min(min_rows, problem.m)
        smallest_kc = grid.kc == KC_BOUNDS[0] * family.k_group_b
        is_worthwhile &= smallest_kc if panels else (grid.kc < 2 * problem.k) | smallest_kc
        if problem.batch_reduce:
            is_worthwhile &= grid.a_l2_divisor == 0
            return is_worthwhile
        # Packing rows of A that can be read in place saves conversions, if anything; columns of A
        # may evict each other from the caches, and so may the rows that tile registers load.
        is_read_by_elements = not family.converts_on_load and not family.tile_rows
        if (
            reads_a_in_place(problem, family, cpu.isa)
            and is_read_by_elements
            and problem.a == "row"
        ):
            is_worthwhile &= grid.pack_a == 0
        # With jr outside, a whole block of A is read for each panel of B: it may be bounded by a
        # part of L2. Where all of A is smaller, that is the same as no bound.
        column_size = np.minimum(grid.kc, problem.k) * self.a_itemsize
        is_worthwhile &= (grid.a_l2_divisor == 0) | (
            grid.a_l2_divisor * problem.m * column_size > cpu.l2
        )
        # With a single row of tiles, a B that can be read in place is not packed.
        if reads_b_in_place(problem, family, cpu.isa):
            is_worthwhile &= (grid.pack_b == 0) | (problem.m > grid.mr)
        # The speed of a large B in place depends on where its pages lie: it is read in place only
        # where that saves much.
        b_size = problem.k * problem.n * self.b_itemsize
        if problem.m > IN_PLACE_MAX_ROWS and b_size > cpu.l2:
            is_worthwhile &= grid.pack_b == 1
        if self.is_prepacked and not family.tile_rows:
            is_worthwhile &= grid.ir_outside == 0  # each panel comes from memory once
        return is_worthwhile

    def _cache_blocks(self, grid: _Grid, kc: Array) -> tuple[Array, Array]:
        """Cache blocks of each combination: mc and nc."""
        problem, cpu, family = self.problem, self.cpu, self.family
        column_size = np.minimum(kc, problem.k) * self.a_itemsize
        # With jr outside, packed blocks are buffers of this process: they are bounded.
        is_buffer = (grid.pack_a == 1) & (grid.ir_outside == 0)
        whole_m = np.where(is_buffer, cpu.l2 // column_size, problem.m)
        divisor = grid.a_l2_divisor
        mc = np.where(divisor > 0, cpu.l2 // (np.maximum(divisor, 1) * column_size), whole_m)
        column_size = np.minimum(kc, problem.k) * self.b_itemsize
        # With ir outside, a whole block of B is read for each row of tiles: L2 has to hold it,
        # besides the rows of A and C that pass through.
        l2_share = cpu.l2 // (2 if family.tile_rows else 3)
        size = np.where(grid.ir_outside == 1, l2_share, max(cpu.l3, MIN_L3) // 2)
        nc = np.where(grid.pack_b == 1, size // column_size, problem.n)
        if family.accumulator != problem.types.c:  # C can't hold partial sums: they have a buffer
            columns = MAX_PARTIAL_SUMS // (problem.m * ITEMSIZE[family.accumulator])
            nc = np.where(kc < problem.k, np.minimum(nc, max(columns, 1)), nc)
        return mc, nc
