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
            mr for mr in range(1, 31) if isa.registers_needed(mr, vectors, edge) <= isa.registers
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
    where the ISA has no masks.
    """
    lanes = cpu.isa.lanes(problem.itemsize)
    pack_a = problem.a == "strided"
    b_in_place = problem.b == "row" and (cpu.isa.masked or problem.n % lanes == 0)
    pack_b = (False, True) if b_in_place else (True,)
    found = [t for t in tiles(cpu.isa, problem.dtype, problem.n) if t[0] >= min(4, problem.m)]
    depths = [kc for kc in (256, 512, 1024) if kc < 2 * problem.k]
    for tile, packed, kc in product(found, pack_b, depths or [256]):
        for part in (4, 1):  # A's block in a quarter of L2, or in all of it
            mc = cpu.l2 // (part * min(kc, problem.k) * problem.itemsize)
            yield make(problem, cpu, tile, pack_a, packed, kc, mc)


def make(
    problem: Problem,
    cpu: CPU,
    tile: tuple[int, int],
    pack_a: bool,
    pack_b: bool,
    kc: int,
    mc: int,
    nc: int = 1 << 40,
    ir_outside: bool = False,
) -> Plan:
    """A plan with blocks of at most the given sizes, all cut evenly."""
    mr, nr = tile
    m = cut_evenly(problem.m, mr)
    n = cut_whole(problem.n, nr)

    def block(size: int, tiles: int, most: int) -> int:
        blocks = -(-tiles // max(1, most // size))
        return -(-tiles // blocks)

    return Plan(
        problem,
        cpu.isa,
        Cut(*m, block(m[0], m[3], mc)),
        Cut(*n, block(n[0], n[3], nc)),
        -(-problem.k // -(-problem.k // kc)),
        pack_a,
        pack_b,
        ir_outside,
    )


# What things cost beside the multiply-adds, in cycles. Fitted to 51 problems (float32 and float64,
# 64 to 4096 in each dimension), each measured with 50 to 200 plans on a Zen 4: what the model
# chooses is as fast as the best plan to within 2.5 % in the median, 9 % in the worst case.
LATENCY = 4.0  # of a multiply-add
LINE, LINE_FAR = 1.0, 17.0  # a vector of B on its way from its panel: in L2, or beyond
TILE = 3.0  # a call of the microkernel
C_VECTOR = 0.35  # a vector of C, each time it is loaded or stored
C_VECTOR_FAR = 26.0  # the same, where C does not fit into L2
PACKED_LINE = 5.7  # a vector of B, packed
REPACKED_LINE = 0.25  # a vector of packed B, read again for another block of A
IN_PLACE_LINE = 0.25  # a vector of B read in place, for each block of A
IN_PLACE_LINE_FAR = 3.6  # the same, where B does not fit into L2,
AGAIN_LINE = 0.036  # and for each tile
A_LINE = 0.44  # a vector of A read in place
CROWDED_LINE = 58.0  # a vector of A whose rows push each other out of L1
LARGE_BLOCK_LINE = 0.75  # a vector of A, where its block takes more than half of L2


def cost(plan: Plan, cpu: CPU) -> float:
    """The model: cycles that `plan` takes, in a unit that ranks plans of one problem."""
    problem, m, n = plan.problem, plan.m, plan.n
    lanes = cpu.isa.lanes(problem.itemsize)
    fma_per_cycle = 1 if cpu.isa.vector_bits == 512 and cpu.double_pumped else 2

    def sizes(cut: Cut) -> list[tuple[int, int]]:
        return [(cut.size, cut.full), (cut.rest, cut.tiles - cut.full)]

    def fits(rows: int, columns: int, part: int = 1) -> bool:
        return part * rows * columns * problem.itemsize <= cpu.l2

    # (A single row of tiles reads each panel once, from wherever B is.)
    line = LINE if m.tiles == 1 or fits(plan.kc, n.size, part=2) else LINE_FAR
    arithmetic = 0.0
    for rows, row_count in sizes(m):
        for columns, column_count in sizes(n):
            vectors = -(-columns // lanes)
            # A k-step takes as long as its multiply-adds, its loads (two a cycle), the way of
            # B's vectors from their panel, or an accumulator's wait for itself.
            step = max(
                rows * vectors / fma_per_cycle,
                (rows + vectors) / 2,
                vectors * line,
                LATENCY,
            )
            arithmetic += row_count * column_count * problem.k * step

    k_blocks = -(-problem.k // plan.kc)
    m_blocks = -(-m.tiles // m.block)
    b_lines = problem.k * problem.n / lanes
    a_lines = problem.k * problem.m / lanes
    c_lines = problem.m * -(-problem.n // lanes)
    b_far = not fits(problem.k, problem.n)
    extra = TILE * m.tiles * n.tiles * k_blocks
    extra += C_VECTOR * c_lines * k_blocks
    if not fits(problem.m, problem.n):
        extra += C_VECTOR_FAR * c_lines * (k_blocks - 1)
    if plan.pack_b:
        extra += b_lines * (PACKED_LINE + REPACKED_LINE * (m_blocks - 1))
    else:
        extra += b_lines * m_blocks * (IN_PLACE_LINE + IN_PLACE_LINE_FAR * b_far)
        extra += b_lines * m.tiles * AGAIN_LINE * b_far
    if problem.a == "row":
        extra += a_lines * n.tiles * (CROWDED_LINE if _crowded(plan, cpu) else A_LINE)
    if not fits(m.block * m.size, plan.kc, part=2):
        extra += a_lines * n.tiles * LARGE_BLOCK_LINE
    return arithmetic + extra


def _crowded(plan: Plan, cpu: CPU) -> bool:
    """Whether A's rows, read in place, share so few sets of L1 that they push each other out.

    The leading dimension is taken to be k: a contiguous operand's.
    """
    way = cpu.l1d // cpu.l1d_ways
    starts = way // gcd(plan.problem.k * plan.problem.itemsize, way)
    rows_in_a_set = -(-plan.m.size // starts)
    return rows_in_a_set > cpu.l1d_ways - 2  # two for B and C
