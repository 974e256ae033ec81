"""`Schedule`: the parameters of a plan, and which of them are legal for a problem.

The words are BLIS's (Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS
Functionality", ACM TOMS 41, 2015): register tile ``mr`` x ``nr``, cache blocks ``mc kc nc``, loops
``jc pc ic jr ir``. `nkblas.planning.search_space` has the schedules that are compared, and
`nkblas.planning.cost_model` what they cost.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.epilogues import parse as parse_epilogue
from nkblas.base.families import Family, families
from nkblas.base.families import family as family_of
from nkblas.base.isa import ISA
from nkblas.base.problem import NATIVE_DTYPES, Problem
from nkblas.base.tiling import split_evenly
from nkblas.system.cpu import CPU

Kind = Literal["tiles", "stream", "dot", "base", "triangular"]
"""The kind of a schedule's innermost kernel; see `Schedule`."""

SELECTABLE_KINDS = ("tiles", "stream", "dot")
"""The kinds that the model and the tuner choose from, and that a plan file may have."""

MAX_SMALL_DIMENSION = 64
"""Up to this m, n and k a product has a kernel for its size alone."""

MAX_MIDDLE_DIMENSION = {16: 100, 32: 128}
"""By the number of vector registers: up to this m, n and k, a product that has no short dimension
has such a kernel too. That is 3 to 9 % faster than tiles that are called one by one; with 16
registers it would be slower beyond this size, where B in place does not stay in L1."""

SHORT_DIMENSION = 16
"""Up to this, a dimension is so short that an operand is hardly used again."""

MAX_STREAM_ROWS = 4
"""Most rows of C that a "stream" kernel computes at once."""

MAX_REDUCED_K = 1024
"""Most k of the blocks of a batch-reduce product that are read in place."""

KC_BOUNDS = (128, 256, 512, 1024)
"""Upper bounds for kc, in groups of k (`Family.k_group_b`)."""

MIN_L3 = 8 << 20
"""Bytes: blocks of B are made for an L3 of at least this size."""


class Panels(NamedTuple):
    """The layout of a prepacked B, selected before it is known how many rows A will have.

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


class Schedule(NamedTuple):
    """How a problem is computed: the parameters that the model or the tuner selects.

    Attributes
    ----------
    kind : {"tiles", "stream", "dot", "base", "triangular"}
        The innermost kernel. "tiles": a microkernel, which has a tile of C in registers. "stream":
        it goes along whole rows of B, for few rows of C. "dot": both operands are contiguous along
        k. "base": a microkernel that serves any size (see `nkblas.planning.plan.base_plan`).
        "triangular": a block on the diagonal of a triangular A (`triangular_plan` there).
    mr, nr : int
        The register tile; of "stream", nr is the granularity at which threads divide the columns.
    kc, mc, nc : int
        Upper bounds for a cache block; blocks are divided evenly.
    pack_a, pack_b : bool
        Whether the operand is packed into panels; otherwise it is read in place.
    ir_outside : bool
        Order of the two inner loops: ir around jr, or jr around ir.
    prefetch : bool
        Whether an operand that is read once is prefetched (B, for "tiles" that do not pack it), or
        a C beyond L3 that is written once is stored with non-temporal stores.
    family : str
        The instruction family: a name of `nkblas.base.families`.
    """

    kind: Kind
    mr: int
    nr: int
    kc: int
    mc: int
    nc: int
    pack_a: bool = False
    pack_b: bool = False
    ir_outside: bool = False
    prefetch: bool = False
    family: str = "fma"

    def infeasible_reason(self, problem: Problem, cpu: CPU, panels: Panels | None = None) -> str:
        """Why this schedule is not legal for a problem; empty if it is.

        Parameters
        ----------
        problem : Problem
        cpu : CPU
        panels : Panels, optional
            The layout of a prepacked B (`nkblas.planning.cost_model.prepacked_panels`). Without
            it, no schedule is legal for a problem whose B is prepacked.
        """
        return (
            self._field_reason(problem, cpu)
            or self._operand_reason(problem, cpu, panels)
            or self._kernel_reason(problem, cpu)
        )

    def _field_reason(self, problem: Problem, cpu: CPU) -> str:
        """Why the value of a field is not legal by itself; or empty."""
        if self.kind not in SELECTABLE_KINDS:
            return f"kind: got {self.kind}, expected one of {', '.join(SELECTABLE_KINDS)}"
        if self.family not in [family.name for family in families(problem.dtype, cpu.isa)]:
            return f"family: {cpu.isa.name} has no {self.family} for {problem.dtype}"
        if min(self.mr, self.nr, self.kc, self.mc, self.nc) < 1:
            return "mr, nr, kc, mc, nc: expected numbers above 0"
        return ""

    def _operand_reason(self, problem: Problem, cpu: CPU, panels: Panels | None) -> str:
        """Why this kind of kernel does not serve the operands or the epilogue; or empty."""
        if problem.b == "packed":
            own = Panels(self.family, self.nr, self.kc)
            if self.kind != "tiles" or not self.pack_b or own != panels:
                return f"B is prepacked: expected {panels}"
        family = family_of(problem.dtype, self.family)
        if not self.pack_a and not reads_a_in_place(problem, family, cpu.isa):
            return "A must be packed"
        widens = self.kind == "dot" and is_widened_dot(problem, family, cpu.isa)
        if self.kind != "tiles" and not problem.is_native and not widens:
            return f"kind: {self.kind} is for {', '.join(NATIVE_DTYPES)}"
        if self.kind != "tiles" and parse_epilogue(problem.epilogue).is_fused:
            return f"kind: {self.kind} has no epilogue {problem.epilogue}"
        if problem.batch_reduce and (self.kind != "tiles" or self.pack_a or self.pack_b):
            return "the blocks of a batch-reduce product are read in place, by tiles"
        if problem.batch_reduce and self.kc < problem.k:
            return f"kc: got {self.kc}, expected the k of a batch-reduce product's blocks"
        return ""

    def _kernel_reason(self, problem: Problem, cpu: CPU) -> str:
        """Why there is no kernel of this kind for the tile and the operands; or empty."""
        family = family_of(problem.dtype, self.family)
        if self.kind == "stream":
            return self._stream_reason(problem, family, cpu.isa)
        if self.kind == "dot":
            return self._dot_reason(problem, family, cpu.isa)
        return self._tile_reason(problem, family, cpu.isa)

    def _stream_reason(self, problem: Problem, family: Family, isa: ISA) -> str:
        if has_small_kernel(problem, isa):
            return "the kernel for this size has other bits"
        is_in_place = problem.b == "row" and not self.pack_a and not self.pack_b
        if not is_in_place or self.mr > MAX_STREAM_ROWS:
            return f"stream: expected a row-major B in place, and mr <= {MAX_STREAM_ROWS}"
        tile, main_tiles, edge_tile, tiles = split_evenly(problem.m, self.mr)
        heights = [tile, edge_tile][: 1 + (tiles > main_tiles)]
        depths = {stream_depth(problem, isa, height, family) for height in heights}
        if len(depths) > 1 and problem.k >= min(depths):
            return "mr: rows of edge tiles would be summed up in other blocks of k"
        return ""

    def _dot_reason(self, problem: Problem, family: Family, isa: ISA) -> str:
        if not dot_tile_fits(isa, self.mr, self.nr, family):
            return f"the tile {self.mr}x{self.nr} needs too many registers"
        if (self.mr, self.nr, problem.m, problem.n) == (1, 1, 1, 1):
            return ""  # any strides
        if self.nr > problem.n:
            return f"nr: got {self.nr}, expected at most the {problem.n} columns"
        a_is_along_k = problem.m == 1 if self.pack_a else problem.a == "row"
        b_is_along_k = self.pack_b or problem.b == "col"
        return "" if a_is_along_k and b_is_along_k else "dot: A or B is not contiguous along k"

    def _tile_reason(self, problem: Problem, family: Family, isa: ISA) -> str:
        lanes = family.lanes(isa)
        if self.nr % lanes:
            return f"nr: got {self.nr}, expected a multiple of {lanes}"
        has_masked_edge = problem.n % self.nr > self.nr - lanes
        if not family.fits(isa, self.mr, self.nr // lanes, has_masked_edge):
            return f"the tile {self.mr}x{self.nr} needs too many registers"
        if not self.ir_outside and family.tile_rows:
            return "ir_outside: kernels on tile registers need it"
        if not self.pack_b and not reads_b_in_place(problem, family, isa):
            return "B must be packed"
        return ""


# ---- operands: in place or packed ----


def reads_a_in_place(problem: Problem, family: Family, isa: ISA) -> bool:
    """Whether a microkernel can read A where it is; otherwise A is packed (``pack_a``)."""
    reads_dtype = _converts_on_load(family, isa) or problem.types.a == family.a
    has_whole_steps = problem.k % family.k_step == 0
    layouts = ("row", "col") if family.k_group_a == 1 else ("row",)
    return reads_dtype and has_whole_steps and problem.a in layouts


def reads_b_in_place(problem: Problem, family: Family, isa: ISA) -> bool:
    """Whether a microkernel can read B where it is; otherwise B is packed (``pack_b``)."""
    reads_dtype = _converts_on_load(family, isa) or problem.types.b == family.b
    has_edge = problem.n % family.lanes(isa) != 0
    can_mask = isa.can_mask(ITEMSIZE[problem.types.b])
    return reads_dtype and family.k_step == 1 and problem.b == "row" and (can_mask or not has_edge)


def _converts_on_load(family: Family, isa: ISA) -> bool:
    """Whether the microkernel converts operands itself: not without fused multiply-add."""
    return family.converts_on_load and isa.fused


def is_widened_dot(problem: Problem, family: Family, isa: ISA) -> bool:
    """Whether it is a dot product of contiguous vectors whose elements kernels widen."""
    vectors = problem.m, problem.n, problem.a, problem.b, problem.c
    return vectors == (1, 1, "row", "col", "row") and _converts_on_load(family, isa)


def b_panel_dtype(problem: Problem, family: Family, isa: ISA) -> str:
    """The dtype of B's panels.

    A prepacked B is mostly multiplied by few rows, which makes it memory-bound: where a microkernel
    converts on load, its panels keep the operand's narrower dtype.
    """
    keeps_dtype = problem.b == "packed" and _converts_on_load(family, isa)
    return problem.types.b if keeps_dtype else family.b


def can_reduce_in_place(problem: Problem, isa: ISA) -> bool:
    """Whether there are kernels for a batch-reduce product, which read its blocks in place."""
    if not problem.is_native or problem.k > MAX_REDUCED_K or "strided" in (problem.a, problem.c):
        return False
    family = families(problem.dtype, isa)[0]
    return reads_a_in_place(problem, family, isa) and reads_b_in_place(problem, family, isa)


def has_plain_operands(problem: Problem) -> bool:
    """Whether nothing but a product is stored, and all matrices have a unit stride."""
    is_plain = problem.is_native and not problem.batch_reduce and not problem.epilogue
    has_unit_strides = not {"strided", "packed"}.intersection((problem.a, problem.b, problem.c))
    return is_plain and has_unit_strides


def has_small_kernel(problem: Problem, isa: ISA) -> bool:
    """Whether there may be a kernel for this size alone, for dense operands."""
    if not has_plain_operands(problem):
        return False
    shortest, *_, longest = sorted((problem.m, problem.n, problem.k))
    if longest <= MAX_SMALL_DIMENSION:
        return True
    is_middling = shortest > SHORT_DIMENSION and longest <= MAX_MIDDLE_DIMENSION[isa.registers]
    return is_middling and not problem.structure


# ---- register tiles ----


def register_tiles(isa: ISA, family: Family, n: int = 0) -> list[tuple[int, int]]:
    """The register tiles (mr, nr) that are considered: for each width, the most rows that fit.

    Parameters
    ----------
    isa : ISA
    family : Family
    n : int, optional
        Columns of C: the tile also fits where the edge tile is as wide and needs a mask.
    """
    lanes = family.lanes(isa)
    tiles = []
    # Beyond these sizes, the compiler's schedule needs more registers than `registers_needed`.
    max_width = isa.registers // (4 * family.accumulator_registers)
    max_height_of_one_vector = isa.registers
    if family.widens:
        max_width = max_width if isa.mask_registers else max_width // 2
    if family.widens or (family.k_step > 1 and not family.tile_rows):
        max_height_of_one_vector //= 2
    for vectors in range(1, max_width + 1):
        edge = n % (vectors * lanes)
        has_masked_edge = edge > (vectors - 1) * lanes
        max_height = isa.registers if vectors > 1 else max_height_of_one_vector
        height = _max_height(isa, family, vectors, max_height, has_masked_edge)
        if height:
            tiles.append((height, vectors * lanes))
    return tiles


@lru_cache(1024)
def _max_height(isa: ISA, family: Family, vectors: int, bound: int, has_masked_edge: bool) -> int:
    heights = range(bound, 0, -1)
    return next((mr for mr in heights if family.fits(isa, mr, vectors, has_masked_edge)), 0)


def max_vectors(isa: ISA, mr: int, family: Family, n: int = 0) -> int:
    """The width, in vectors, of the widest tile of `mr` rows.

    It fits with a masked edge as wide as the tile; or, if `n` columns are given, with their edge.
    """
    unmasked, masked = _max_vectors(isa, mr, family, False), _max_vectors(isa, mr, family, True)
    lanes = family.lanes(isa)
    for vectors in range(unmasked, masked, -1):
        if n and n % (vectors * lanes) <= (vectors - 1) * lanes:
            return vectors
    return masked


@lru_cache(4096)
def _max_vectors(isa: ISA, mr: int, family: Family, has_masked_edge: bool) -> int:
    # As in `register_tiles`; but a single row is a chain of multiply-adds for each vector, no more.
    bound = isa.registers // (4 * family.accumulator_registers) if mr > 1 else isa.registers
    widths = range(1, bound + 1)
    return max((w for w in widths if family.fits(isa, mr, w, has_masked_edge)), default=0)


def has_spare_register(isa: ISA, family: Family, mr: int, nr: int) -> bool:
    """Whether a tile leaves a register free: a microkernel that packs B as well needs it."""
    return family.registers_needed(isa, mr, nr // family.lanes(isa)) < isa.registers


def stream_shape(isa: ISA, rows: int, family: Family) -> tuple[int, int]:
    """The vectors of n, and the most rows of B, that a `Stream` kernel of `rows` rows takes."""
    vectors = 2 if rows <= 2 else 1
    others = (
        rows * vectors * family.accumulator_registers
        + min(rows, vectors)
        + 1
        + family.is_unfused(isa)
    )
    others += 2 * (isa.masked and not isa.mask_registers)
    others += 2 * (family.accumulator_registers - 1)  # for real and imaginary parts exchanged
    # Eight rows that are whole pages apart would fill their sets of L1; six leave some free.
    bound = 6 if rows == 1 else 8
    return vectors, max(1, min(bound, (isa.registers - others) // (rows * family.a_registers)))


def stream_depth(problem: Problem, isa: ISA, rows: int, family: Family) -> int:
    """The rows of B that the `Stream` kernel of a problem takes at once, for few passes over C.

    A vector times a matrix has the kernel of base plans, for any k.
    """
    _, kr = stream_shape(isa, rows, family)
    if problem.m == 1:
        return kr
    depths = range(1, min(kr, problem.k) + 1)
    return min(depths, key=lambda depth: (stream_passes(problem.k, depth), -depth))


def stream_passes(k: int, kr: int) -> int:
    """How often a `Stream` kernel writes C: for `kr` rows of B, and for each of the rows left."""
    return k // kr + k % kr


def dot_tile_fits(isa: ISA, mr: int, nr: int, family: Family) -> bool:
    """Whether the registers are enough for a tile of a `Dot` kernel."""
    return (mr * nr + min(mr, nr)) * family.accumulator_registers <= isa.registers - 4


def dot_widths(isa: ISA, family: Family) -> tuple[int, ...]:
    """The numbers of columns along k that the "dot" kernels of base plans take at once."""
    if isa.registers > 16:
        return (1, 6, 16) if family.accumulator_registers == 1 else (1, 6, 8)
    return (1, 6) if family.accumulator_registers == 1 else (1, 4)
