"""`Plan`: how to multiply. The analytical model that chooses one for a problem.

The words are BLIS's (Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS
Functionality", ACM TOMS 41, 2015): register tile ``mr`` x ``nr``, cache blocks ``mc kc nc``.
"""

from collections.abc import Iterator
from itertools import product
from math import gcd
from typing import NamedTuple

from .codegen.spec import Copy, KernelSpec, Microkernel, Pack
from .detect import CPU
from .isa import ISA
from .problem import ITEMSIZE, Problem

PAGE = 4096
"""Bytes of a page of memory."""


class Cut(NamedTuple):
    """One dimension of C cut into register tiles, and those into cache blocks.

    Attributes
    ----------
    size, full : int
        The first `full` tiles have `size` rows (columns).
    rest : int
        Those after them have `rest`.
    tiles : int
        Number of tiles in all.
    block : int
        Tiles in one cache block.
    """

    size: int
    full: int
    rest: int
    tiles: int
    block: int

    def has(self, rest: bool) -> bool:
        """Whether there is a tile of the rest, or of the full size."""
        return self.tiles > self.full if rest else self.full > 0


class Plan(NamedTuple):
    """One way to do a problem.

    Attributes
    ----------
    problem : Problem
    isa : ISA
    m, n : Cut
        ``m.size`` is mr, ``n.size`` is nr; a cache block has mc = ``m.block * m.size`` rows and
        nc = ``n.block * n.size`` columns.
    kc : int
        Depth of a cache block.
    pack_a, pack_b : bool
        Whether the operand is copied into panels; otherwise it is read in place.
    ir_outside : bool
        Order of the two inner loops: over rows outside, or over columns outside.
    """

    problem: Problem
    isa: ISA
    m: Cut
    n: Cut
    kc: int
    pack_a: bool
    pack_b: bool
    ir_outside: bool

    @property
    def tile(self) -> tuple[int, int]:
        """The register tile (mr, nr)."""
        return self.m.size, self.n.size

    def microkernel(self, row_rest: bool, column_rest: bool) -> Microkernel | None:
        """The kernel for a tile that is, or is not, one of the rest in each dimension."""
        mr = self.m.rest if row_rest else self.m.size
        columns = self.n.rest if column_rest else self.n.size
        if not self.m.has(row_rest) or not self.n.has(column_rest):
            return None
        lanes = self.isa.lanes(self.problem.itemsize)
        return Microkernel(
            self.isa.name,
            self.problem.dtype,
            mr,
            -(-columns // lanes) * lanes,
            "col" if self.pack_a else self.problem.a,
            masked=columns % lanes != 0,
        )

    def pack(self, operand: str) -> Pack | None:
        """The packing routine of operand "a" or "b"; None if it is read in place."""
        packed, layout, along, width = {
            "a": (self.pack_a, self.problem.a, "col", self.m.size),
            "b": (self.pack_b, self.problem.b, "row", self.n.size),
        }[operand]
        if not packed:
            return None
        source = "strided" if layout == "strided" else "along" if layout == along else "across"
        return Pack(self.isa.name, self.problem.dtype, width, source)

    def copy(self) -> Copy | None:
        """The copy of C's tiles, if C has no unit stride."""
        if self.problem.c != "strided":
            return None
        return Copy(self.isa.name, self.problem.dtype)

    @property
    def kernels(self) -> tuple[KernelSpec, ...]:
        """All that has to be generated, main tile first."""
        found: list[KernelSpec | None] = [
            self.microkernel(i, j) for i in (False, True) for j in (False, True)
        ]
        found += [self.pack("a"), self.pack("b"), self.copy()]
        return tuple(dict.fromkeys(spec for spec in found if spec is not None))

    def __str__(self) -> str:
        mr, nr = self.tile
        packed = [name for name, yes in (("A", self.pack_a), ("B", self.pack_b)) if yes]
        return (
            f"{mr}x{nr}, mc {self.m.block * mr}, kc {self.kc}, nc {self.n.block * nr}, "
            f"{' and '.join(packed) or 'nothing'} packed, "
            f"{'ir outside jr' if self.ir_outside else 'jr outside ir'}"
        )


def tiles(isa: ISA, dtype: str, n: int = 0) -> list[tuple[int, int]]:
    """The register tiles (mr, nr) worth a thought: for each width, the most rows that fit.

    With `n`, so that they fit also where the tile at the edge of `n` columns is as wide and needs
    a mask.
    """
    lanes = isa.lanes(ITEMSIZE[dtype])
    found = []
    # Beyond these widths, the compiler's schedule needs more registers than the scheme.
    for vectors in range(1, isa.registers // 4 + 1):
        last = n % (vectors * lanes)
        edge = last > (vectors - 1) * lanes
        rows = [
            mr
            for mr in range(1, isa.registers)
            if isa.registers_needed(mr, vectors, edge) <= isa.registers
        ]
        if rows:
            found.append((rows[-1], vectors * lanes))
    return found


def cut_evenly(length: int, most: int) -> tuple[int, int, int, int]:
    """Cut a length into the fewest pieces of at most `most`, equal to within one.

    Returns size, full, rest and number of pieces, as in `Cut`.
    """
    pieces = -(-length // most)
    size = -(-length // pieces)
    return size, length - pieces * (size - 1), size - 1, pieces


def cut_whole(length: int, size: int) -> tuple[int, int, int, int]:
    """Cut a length into pieces of `size` and what is left over."""
    full, rest = divmod(length, size)
    return size, full, rest, full + (rest > 0)


def plan_for(problem: Problem, cpu: CPU) -> Plan:
    """Choose a plan by the model."""
    return min(candidates(problem, cpu), key=lambda plan: cost(plan, cpu))


def candidates(problem: Problem, cpu: CPU) -> Iterator[Plan]:
    """The plans that the model compares.

    A is read in place unless it has no unit stride: kernels broadcast its elements, and packing
    it hardly ever gave more than it cost. Of B, rows can be read in place, except for an edge
    where the ISA has no masks; with a single row of tiles nothing is read twice, and packing
    is for nothing.
    """
    lanes = cpu.isa.lanes(problem.itemsize)
    pack_a = problem.a == "strided"
    b_in_place = problem.b == "row" and (cpu.isa.masked or problem.n % lanes == 0)
    pack_b = (False, True) if b_in_place else (True,)
    found = [t for t in tiles(cpu.isa, problem.dtype, problem.n) if t[0] >= min(4, problem.m)]
    depths = [kc for kc in (128, 256, 512, 1024) if kc < 2 * problem.k] or [128]
    for tile, packed, kc in product(found, pack_b, depths):
        if packed and b_in_place and problem.m <= tile[0]:
            continue
        depth = min(kc, problem.k) * problem.itemsize
        quarter_of_l2 = cpu.l2 // (4 * depth)
        # Packed blocks are buffers of this process: they are bounded.
        whole_m = cpu.l2 // depth if pack_a else problem.m
        nc = max(cpu.l3, 8 << 20) // (2 * depth) if packed else problem.n
        for mc, ir_outside in ((quarter_of_l2, False), (whole_m, False), (whole_m, True)):
            yield make(problem, cpu, tile, pack_a, packed, kc, mc, nc, ir_outside)


def make(
    problem: Problem,
    cpu: CPU,
    tile: tuple[int, int],
    pack_a: bool,
    pack_b: bool,
    kc: int,
    mc: int,
    nc: int,
    ir_outside: bool,
) -> Plan:
    """A plan with blocks of at most the given sizes, all cut evenly."""
    mr, nr = tile
    lanes = cpu.isa.lanes(problem.itemsize)
    nr = min(nr, -(-problem.n // lanes) * lanes)
    m = cut_evenly(problem.m, mr)
    n = cut_whole(problem.n, nr)

    def block(length: int, tiles: int, most: int) -> int:
        return -(-tiles // -(-length // max(1, most)))

    return Plan(
        problem,
        cpu.isa,
        Cut(*m, block(problem.m, m[3], mc)),
        Cut(*n, block(problem.n, n[3], nc)),
        -(-problem.k // -(-problem.k // kc)),
        pack_a,
        pack_b,
        ir_outside,
    )


# What things cost, in cycles. One set for two CPUs that differ much (Zen 4 with one 512-bit
# multiply-add a cycle, Emerald Rapids with two), fitted to 75 problems (float32 and float64, 64 to
# 4096 in each dimension), each measured with 50 to 200 plans: what the model chooses is slower than
# the best plan by 4 % in the median and 14 % at worst on Zen 4, 8 % and 23 % on Emerald Rapids.
LATENCY = 4.0  # a multiply-add's
B_LINE = (0.0, 0.6, 23.0)  # a vector of B, on its way from L1, L2, beyond
A_LINE = (0.0, 4.7, 10.0)  # a vector of A
A_ROW = 0.4  # a k-step on a row of A in place,
A_ROW_CROWDED = 0.4  # and more where A's rows push each other out of L1
B_PAGE = 0.7  # a k-step where B's rows lie in place, more than half a page apart,
B_CROWDED = 0.65  # and for each vector where B's rows push each other out of L1
OVERLAP = 0.15  # of the shorter of arithmetic and traffic, what the longer does not hide
TILE = 10.0  # a call of the microkernel
C_LINE = 4.0  # a vector of a C beyond L2, loaded and stored again for another block of k
PACKED_LINE = 4.0  # a vector of B, packed
REPACKED_LINE = 0.6  # a vector of packed B, fetched again for another block of A
FAR_LINE = 5.6  # a vector of a B beyond L2 that is read in place, for each block of A


def cost(plan: Plan, cpu: CPU) -> float:
    """The model: about how many cycles `plan` takes."""
    problem, m, n, kc = plan.problem, plan.m, plan.n, plan.kc
    itemsize = problem.itemsize
    lanes = cpu.isa.lanes(itemsize)
    fma_per_cycle = 1 if cpu.isa.vector_bits == 512 and cpu.double_pumped else 2
    l1, l2 = 0.75 * cpu.l1d, 0.5 * cpu.l2  # the rest is for what else is under way

    def level(rows: int, columns: int) -> int:
        """The cache that a part of an operand stays in: 0 and 1 for L1 and L2, 2 beyond."""
        size = rows * columns * itemsize
        return (size > l1) + (size > l2)

    # Of the two inner loops, the inner one comes back to a panel of one operand, while it goes
    # through a block of the other. (A single row of tiles comes back to nothing.)
    a_rows, b_columns = (
        (m.size, n.block * n.size) if plan.ir_outside else (m.block * m.size, n.size)
    )
    b_line = B_LINE[level(kc, min(b_columns, problem.n)) if m.tiles > 1 else 0]
    per_row = A_LINE[level(min(a_rows, problem.m), kc)] / lanes
    if not plan.pack_a:
        per_row += A_ROW + A_ROW_CROWDED * _crowded(m.size, problem.k * itemsize, cpu)
    per_step = 0.0
    if not plan.pack_b:
        b_line += B_CROWDED * _crowded(kc, problem.n * itemsize, cpu)
        per_step = B_PAGE * (2 * problem.n * itemsize >= PAGE)

    cycles = 0.0
    for rows, row_count in ((m.size, m.full), (m.rest, m.tiles - m.full)):
        for columns, column_count in ((n.size, n.full), (n.rest, n.tiles - n.full)):
            vectors = -(-columns // lanes)
            # multiply-adds; loads, two a cycle; an accumulator's wait for itself
            arithmetic = max(rows * vectors / fma_per_cycle, (rows + vectors) / 2, LATENCY)
            traffic = vectors * b_line + rows * per_row + per_step
            step = max(arithmetic, traffic) + OVERLAP * min(arithmetic, traffic)
            cycles += row_count * column_count * problem.k * step

    k_blocks = -(-problem.k // kc)
    m_blocks = -(-m.tiles // m.block)
    b_lines = problem.k * problem.n / lanes
    cycles += TILE * m.tiles * n.tiles * k_blocks
    if level(problem.m, problem.n) == 2:
        cycles += C_LINE * problem.m * problem.n / lanes * (k_blocks - 1)
    if plan.pack_b:
        cycles += b_lines * (PACKED_LINE + REPACKED_LINE * (m_blocks - 1))
    elif level(problem.k, problem.n) == 2:
        cycles += b_lines * m_blocks * FAR_LINE
    return cycles


def _crowded(rows: int, stride: int, cpu: CPU) -> bool:
    """Whether rows this many bytes apart have so few sets of L1 that they push each other out.

    The leading dimension is taken to be a contiguous operand's.
    """
    way = cpu.l1d // cpu.l1d_ways
    sets = way // gcd(stride, way)
    return -(-rows // sets) > cpu.l1d_ways - 2  # two ways for the other operands
