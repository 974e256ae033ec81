"""`Plan`: how to multiply. The analytical model that chooses one for a problem.

The words are BLIS's (Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS
Functionality", ACM TOMS 41, 2015): register tile ``mr`` x ``nr``, cache blocks ``mc kc nc``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .codegen.spec import Copy, KernelSpec, Microkernel, Pack
from .detect import CPU
from .isa import ISA
from .problem import ITEMSIZE, Problem


@dataclass(frozen=True)
class Cut:
    """One dimension of C cut into register tiles, and those into cache blocks.

    Attributes
    ----------
    size, count : int
        The first `count` tiles have `size` rows (columns).
    rest : int
        Those after them have `rest`.
    tiles : int
        Number of tiles in all.
    block : int
        Tiles in one cache block.
    """

    size: int
    count: int
    rest: int
    tiles: int
    block: int

    def has(self, rest: bool) -> bool:
        """Whether there is a tile of the rest, or of the full size."""
        return self.tiles > self.count if rest else self.count > 0


@dataclass(frozen=True)
class Plan:
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
        """The packing routine of operand "a" or "b"; None if it is not packed, or by `copy`."""
        packed, layout, along, width = {
            "a": (self.pack_a, self.problem.a, "col", self.m.size),
            "b": (self.pack_b, self.problem.b, "row", self.n.size),
        }[operand]
        if not packed or layout == "strided":
            return None
        return Pack(self.isa.name, self.problem.dtype, width, transposed=layout != along)

    def copy(self) -> Copy | None:
        """The copy between strided matrices, if some matrix has no unit stride."""
        layouts = (self.problem.a, self.problem.b, self.problem.c)
        return Copy(self.isa.name, self.problem.dtype) if "strided" in layouts else None

    @property
    def kernels(self) -> tuple[KernelSpec, ...]:
        """All that has to be generated, main tile first."""
        found = [self.microkernel(i, j) for i in (False, True) for j in (False, True)]
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


def tiles(isa: ISA, dtype: str) -> list[tuple[int, int]]:
    """The register tiles (mr, nr) worth a thought: for each width, the most rows that fit."""
    lanes = isa.lanes(ITEMSIZE[dtype])
    found = []
    for vectors in range(1, isa.registers):
        rows = [mr for mr in range(1, 31) if isa.registers_needed(mr, vectors) <= isa.registers]
        if rows:
            found.append((rows[-1], vectors * lanes))
    return found


def cut_evenly(length: int, most: int) -> tuple[int, int, int, int]:
    """Cut a length into the fewest pieces of at most `most`, equal to within one.

    Returns size, count, rest and number of pieces, as in `Cut`.
    """
    pieces = -(-length // most)
    size = -(-length // pieces)
    return size, length - pieces * (size - 1), size - 1, pieces


def cut_whole(length: int, size: int) -> tuple[int, int, int, int]:
    """Cut a length into pieces of `size` and what is left over."""
    count, rest = divmod(length, size)
    return size, count, rest, count + (rest > 0)


def plan_for(problem: Problem, cpu: CPU) -> Plan:
    """Choose a plan by the model."""
    return min(candidates(problem, cpu), key=lambda plan: cost(plan, cpu))


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
    """A plan with blocks of at most the given sizes, cut evenly."""
    mr, nr = tile
    m = cut_evenly(problem.m, mr)
    n = cut_whole(problem.n, nr)
    k_blocks = -(-problem.k // kc)

    def block(size: int, tiles: int, most: int) -> int:
        blocks = -(-tiles // max(1, most // size))
        return -(-tiles // blocks)

    return Plan(
        problem,
        cpu.isa,
        Cut(*m, block(m[0], m[3], mc)),
        Cut(*n, block(n[0], n[3], nc)),
        -(-problem.k // k_blocks),
        pack_a,
        pack_b,
        ir_outside,
    )


def candidates(problem: Problem, cpu: CPU) -> Iterator[Plan]:
    """The plans that the model compares."""
    for tile in tiles(cpu.isa, problem.dtype)[1:4]:
        yield make(problem, cpu, tile, problem.a != "row", True, 256, 10**6, 10**6, False)


def cost(plan: Plan, cpu: CPU) -> float:
    return -plan.m.size
