"""`Plan`: how to multiply. The cost model selects one for a problem, the tuner measures them.

The words are BLIS's (Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS
Functionality", ACM TOMS 41, 2015): register tile ``mr`` x ``nr``, cache blocks ``mc kc nc``.
"""

from functools import cache
from typing import NamedTuple, TypeAlias

from nkblas.base import families
from nkblas.base.dtypes import DTYPES, ITEMSIZE, PRODUCTS
from nkblas.base.epilogues import parse as parse_epilogue
from nkblas.base.families import Family
from nkblas.base.isa import ISA
from nkblas.base.problem import NATIVE_DTYPES, Problem
from nkblas.base.tiling import Tiling, split_evenly, split_with_edge
from nkblas.codegen.spec import Copy, Dot, KernelSpec, Microkernel, Pack, Small, Stream
from nkblas.system.cpu import CPU

SMALL = 64
"""Up to this m, n and k a product has a function of its own."""

Multiply: TypeAlias = Microkernel | Stream | Dot

KINDS = ("tiles", "stream", "dot")


class Schedule(NamedTuple):
    """How to do a problem, in the few numbers that the model or the tuner chooses.

    Attributes
    ----------
    kind : {"tiles", "stream", "dot", "base"}
        What the innermost function is. "tiles": a microkernel that holds a tile of C in registers.
        "stream": one that goes along whole rows of B, for few rows of C. "dot": one whose operands
        both lie along k. "base": see `base`.
    mr, nr : int
        The tile; of "stream", the columns that threads can share C by.
    kc, mc, nc : int
        A cache block, at most; blocks are cut evenly.
    pack_a, pack_b : bool
        Whether the operand is copied into panels; otherwise it is read in place.
    ir_outside : bool
        Order of the two inner loops: over rows outside, or over columns outside.
    prefetch : bool
        Whether what is read once is fetched ahead (B, for "tiles" that do not pack it), or a C that
        is written once goes past the caches: for one beyond L3.
    family : str
        The instructions: a name of `nkblas.base.families`.
    """

    kind: str
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

    def infeasible_reason(self, problem: Problem, cpu: CPU) -> str:
        """Why a plan of this kind can't be made for a problem; empty if it can."""
        if self.kind not in KINDS:
            return f"kind: got {self.kind}, expected one of {', '.join(KINDS)}"
        if self.family not in [family.name for family in families.families(problem.dtype, cpu.isa)]:
            return f"family: {cpu.isa.name} has no {self.family} for {problem.dtype}"
        family = families.family(problem.dtype, self.family)
        lanes = family.lanes(cpu.isa)
        if min(self.mr, self.nr, self.kc, self.mc, self.nc) < 1:
            return "got a size below 1"
        if problem.b == "packed":
            from .cost_model import panels_for  # which compares schedules itself

            panels = panels_for(problem.dtype, problem.k, problem.n, cpu)
            if (self.kind, self.pack_b, self.family, self.nr, self.kc) != ("tiles", True, *panels):
                return f"B is packed in panels for {panels}"
        if not self.pack_a and not reads_a_in_place(problem, family, cpu.isa):
            return "A has to be packed"
        if self.kind != "tiles" and not problem.is_native:
            return f"kind: {self.kind} is for {', '.join(NATIVE_DTYPES)}"
        if self.kind != "tiles" and parse_epilogue(problem.epilogue).is_fused:
            return f"kind: {self.kind} has no {problem.epilogue}"
        if problem.batch_reduce and (self.kind, self.pack_a, self.pack_b) != (
            "tiles",
            False,
            False,
        ):
            return "blocks of a sum are read in place"
        if problem.batch_reduce and self.kc < problem.k:
            return f"kc {self.kc} is less than a block's k"
        if self.kind == "stream":
            if has_small_kernel(problem):
                return "its bits are not those of the function for this size"
            fits = problem.b == "row" and not self.pack_a and not self.pack_b
            fits = fits and self.mr <= MAX_STREAM_ROWS
            return "" if fits else f"B has to have rows in place, and mr to be <= {MAX_STREAM_ROWS}"
        if self.kind == "dot":
            if not dot_tile_fits(cpu.isa, self.mr, self.nr, family):
                return f"the tile {self.mr}x{self.nr} needs too many registers"
            if self.nr > problem.n or (problem.n % self.nr and self.kc < problem.k):
                return "columns are done twice: nr has to be <= n, and kc to be all of k"
            along_k = problem.a == "row" if not self.pack_a else problem.m == 1
            return "" if along_k and (self.pack_b or problem.b == "col") else "A and B: not along k"
        if self.nr % lanes:
            return f"nr {self.nr} is no multiple of {lanes}"
        edge = problem.n % self.nr > self.nr - lanes
        if not family.fits(cpu.isa, self.mr, self.nr // lanes, edge):
            return f"the tile {self.mr}x{self.nr} needs too many registers"
        if not self.ir_outside and family.tile_rows:
            return "tile registers go along rows: ir is outside jr"
        in_place = reads_b_in_place(problem, family, cpu.isa)
        return "" if self.pack_b or in_place else "B has to be packed"


def has_small_kernel(problem: Problem) -> bool:
    """Whether there may be a function for this size alone, for dense operands."""
    plain = problem.is_native and not problem.batch_reduce and not problem.epilogue
    unit_strides = not {"strided", "packed"}.intersection((problem.a, problem.b, problem.c))
    return plain and unit_strides and max(problem.m, problem.n, problem.k) <= SMALL


def reads_a_in_place(problem: Problem, family: Family, isa: ISA) -> bool:
    """Whether a microkernel can read A where it lies."""
    as_it_is = _converts(family, isa) or problem.types.a == family.a
    whole = problem.k % family.k_step == 0
    return (
        as_it_is and whole and problem.a in (("row", "col") if family.k_group_a == 1 else ("row",))
    )


def _converts(family: Family, isa: ISA) -> bool:
    """Whether a microkernel can convert what it reads; without fused multiply-add it does not."""
    return family.converts_on_load and isa.fused


def reads_b_in_place(problem: Problem, family: Family, isa: ISA) -> bool:
    """Whether a microkernel can read B where it lies."""
    as_it_is = _converts(family, isa) or problem.types.b == family.b
    edge = problem.n % family.lanes(isa) != 0
    can_mask = isa.can_mask(ITEMSIZE[problem.types.b])
    return as_it_is and family.k_step == 1 and problem.b == "row" and (can_mask or not edge)


def b_panel_dtype(problem: Problem, family: Family, isa: ISA) -> str:
    """The dtype that a packed B has.

    What is packed once is mostly used for few rows, and waits for memory: where a microkernel can
    convert what it reads, the panels stay as narrow as the operand.
    """
    as_it_is = problem.b == "packed" and _converts(family, isa)
    return problem.types.b if as_it_is else family.b


MAX_REDUCED_K = 1024
"""The deepest blocks of a sum that are read in place."""


def can_reduce_in_place(problem: Problem, isa: ISA) -> bool:
    """Whether there are kernels for a sum of such products."""
    if not problem.is_native or problem.k > MAX_REDUCED_K or "strided" in (problem.a, problem.c):
        return False
    family = families.families(problem.dtype, isa)[0]
    return reads_a_in_place(problem, family, isa) and reads_b_in_place(problem, family, isa)


class Plan(NamedTuple):
    """One way to do a problem: a schedule, and how it cuts the problem.

    Attributes
    ----------
    problem : Problem
    isa : ISA
        The least capable one that has the instructions.
    schedule : Schedule
    m, n : Cut
        ``m.size`` is mr, ``n.size`` is nr; a cache block has mc = ``m.block * m.size`` rows and
        nc = ``n.block * n.size`` columns.
    kc : int
        Depth of a cache block.
    nanoseconds : float
        About what it takes on one thread.
    origin : {"model", "shipped", "tuned"}
        Who chose it.
    interim : bool
        Whether it only serves until the kernels of a better one are there.
    """

    problem: Problem
    isa: ISA
    schedule: Schedule
    m: Tiling
    n: Tiling
    kc: int
    nanoseconds: float = 0.0
    origin: str = "model"
    interim: bool = False

    @property
    def family(self) -> Family:
        """What is to be known of the instructions."""
        return families.family(self.problem.dtype, self.schedule.family)

    @property
    def b_panel_dtype(self) -> str:
        """The dtype that a packed B has."""
        return b_panel_dtype(self.problem, self.family, self.isa)

    @property
    def tile(self) -> tuple[int, int]:
        """The register tile (mr, nr)."""
        return self.m.tile, self.n.tile

    @property
    def overlaps_last_tile(self) -> bool:
        """Whether the last tile of a row takes columns of the one before it again.

        It can't where C is read: they are there already.
        """
        return self.schedule.kind == "dot" and not self.problem.epilogue

    @property
    def spans_columns(self) -> bool:
        """Whether a microkernel does all columns of a block at once."""
        return self.schedule.kind == "stream" or self.family.tile_rows > 0

    @property
    def epilogue(self) -> str:
        """What the kernels do with sums: any of them can add."""
        epilogue = parse_epilogue(self.problem.epilogue)
        return str(epilogue._replace(kind="") if epilogue.kind == "add" else epilogue)

    @property
    def bits(self) -> tuple[object, ...]:
        """Two plans of a problem for which this is equal have the same rounding errors.

        "tiles" add up an element's products in the order of k, in blocks of kc. So do streams, in
        as many rows of B as they take at once, which depends on their rows of C.
        """
        kind = self.schedule.kind
        if DTYPES[self.family.accumulator].kind == "integer":
            return ()
        if not self.problem.is_native:
            return (self.schedule.family, self.kc)
        if kind == "dot":
            return (self.schedule,)
        if kind == "stream":
            return (kind, self.kc, self.m)
        return (self.kc,)

    def microkernel(self, row_edge: bool, column_edge: bool) -> Multiply | None:
        """The kernel for a tile that is, or is not, one of the rest in each dimension.

        None if there is no such tile, or if the main kernel does it by way of a tile in memory.
        """
        if self.schedule.kind == "base":
            if row_edge or column_edge:
                return None
            return base_kernel_for(self)
        mr = self.m.edge_tile if row_edge else self.m.tile
        columns = self.n.edge_tile if column_edge else self.n.tile
        if not self.m.has(row_edge) or not self.n.has(column_edge):
            return None
        lanes = self.family.lanes(self.isa)
        if self.schedule.kind == "stream":
            width, deep = stream_shape(self.isa, mr, self.family)
            far, once = self.schedule.prefetch, self.problem.k <= min(deep, self.problem.m)
            return Stream(
                self.isa.name,
                self.problem.dtype,
                mr,
                width * lanes,
                deep,
                self.problem.a,
                prefetch=far and not once,
                nontemporal=far and once,
                epilogue=self.epilogue,
            )
        if self.schedule.kind == "dot":
            if column_edge and self.overlaps_last_tile:
                return None
            streamed = "a" if self.schedule.ir_outside else "b"
            prefetch = self.schedule.prefetch
            return Dot(
                self.isa.name,
                self.problem.dtype,
                mr,
                columns,
                streamed,
                prefetch,
                self.epilogue,
            )
        types, schedule = self.problem.types, self.schedule
        along_panels = self.family.tile_rows > 0
        return Microkernel(
            self.isa.name,
            self.problem.dtype,
            mr,
            self.n.tile if along_panels else -(-columns // lanes) * lanes,
            "col" if schedule.pack_a else self.problem.a,
            masked=columns % lanes != 0 and not along_panels,
            epilogue=self.epilogue,
            prefetch=schedule.prefetch and not schedule.pack_b,
            panel_ahead=schedule.prefetch and self.problem.b == "packed",
            family=schedule.family,
            a=_if_other(self.family.a, types.a) if schedule.pack_a else "",
            b=_if_other(self.b_panel_dtype, types.b) if schedule.pack_b else "",
            batch_reduce=self.problem.batch_reduce,
        )

    def small(self) -> Small | None:
        """The function for this size alone, which dense operands go to.

        Not beside dots, whose bits are others.
        """
        problem = self.problem
        if not has_small_kernel(problem) or self.schedule.kind in ("base", "dot"):
            return None
        return Small(
            self.isa.name, problem.dtype, problem.m, problem.n, problem.k, problem.a, problem.b
        )

    def packing(self) -> Microkernel | None:
        """The kernel for the first of a column of tiles, if it can pack B while it multiplies."""
        main = self.microkernel(False, False)
        if not isinstance(main, Microkernel) or self.schedule.kind != "tiles":
            return None
        if not self.schedule.pack_b or self.problem.b != "row":
            return None
        if self.family.k_step > 1 or self.family.widens or self.problem.types.b != self.family.b:
            return None
        if self.family.b_registers > 1:
            return None
        if not has_spare_register(self.isa, self.family, *self.tile):
            return None
        return main._replace(packs_b=True)

    def pack(self, operand: str) -> Pack | None:
        """The packing routine of operand "a" or "b"; None if it is read in place."""
        packed, layout, along, width = {
            "a": (self.schedule.pack_a, self.problem.a, "col", self.m.tile),
            "b": (self.schedule.pack_b, self.problem.b, "row", self.n.tile),
        }[operand]
        if not packed or layout == "packed" or (self.schedule.kind == "dot" and operand == "b"):
            return None
        source = "strided" if layout == "strided" else "along" if layout == along else "across"
        return pack_of(self.isa, self.problem.dtype, self.family, operand, width, source)

    def copy(self) -> Copy | None:
        """The copy of C's tiles, if some can't be stored in place; and of B's columns, for dots."""
        needed = self.problem.c == "strided" or self.schedule.kind == "base"
        if not needed and not (self.schedule.kind == "dot" and self.schedule.pack_b):
            return None
        return Copy(self.isa.base.name, self.problem.types.c)

    @property
    def kernels(self) -> tuple[KernelSpec, ...]:
        """All that has to be generated, main tile first."""
        found: list[KernelSpec | None] = [
            self.microkernel(i, j) for i in (False, True) for j in (False, True)
        ]
        found += [self.packing(), self.small(), self.pack("a"), self.pack("b"), self.copy()]
        return tuple(dict.fromkeys(spec for spec in found if spec is not None))

    def __str__(self) -> str:
        mr, nr = self.tile
        schedule = self.schedule
        packed = [n for n, yes in (("A", schedule.pack_a), ("B", schedule.pack_b)) if yes]
        return (
            f"{mr}x{nr}, mc {self.m.block_tiles * mr}, kc {self.kc}, nc {self.n.block_tiles * nr}, "
            f"{' and '.join(packed) or 'nothing'} packed, "
            f"{'ir outside jr' if schedule.ir_outside else 'jr outside ir'}"
        )


MAX_STREAM_ROWS = 4
"""Most rows of C that a "stream" plan takes at once."""


def _if_other(wanted: str, held: str) -> str:
    """A dtype as specs name it: not at all, if it is what there is anyway."""
    return wanted if wanted != held else ""


def pack_of(isa: ISA, dtype: str, family: Family, operand: str, width: int, source: str) -> Pack:
    """The packing routine of operand "a" or "b" of products of a dtype."""
    held = getattr(PRODUCTS[dtype], operand)
    wanted, group, compensation = {
        "a": (family.a, family.k_group_a, 0),
        "b": (family.b, family.k_group_b, family.compensation),
    }[operand]
    row = isa if compensation else isa.base
    to = _if_other(wanted, held)
    return Pack(row.name, held, width, source, to, group, family.k_step, compensation)


def base_kernel(isa: ISA, dtype: str, family: Family, epilogue: str) -> Microkernel:
    """The microkernel of base plans."""
    types = PRODUCTS[dtype]
    return Microkernel(
        isa.name,
        dtype,
        *base_tile(isa, family),
        "col",
        epilogue=epilogue,
        family=family.name,
        a=_if_other(family.a, types.a),
        b=_if_other(family.b, types.b),
    )


def base_kernel_for(plan: Plan) -> Microkernel:
    """The microkernel of all base plans like one; a B that is packed before decides its width."""
    mr, nr = base_tile_for(plan)
    b = _if_other(plan.b_panel_dtype, plan.problem.types.b)
    kernel = base_kernel(plan.isa, plan.problem.dtype, plan.family, plan.epilogue)
    return kernel._replace(mr=mr, nr=nr, b=b)


def stream_shape(isa: ISA, rows: int, family: Family) -> tuple[int, int]:
    """The vectors of n, and the rows of B, that a `Stream` of so many rows takes at once."""
    vectors = 2 if rows <= 2 else 1
    others = (
        rows * vectors * family.accumulator_registers
        + min(rows, vectors)
        + 1
        + family.is_unfused(isa)
    )
    others += 2 * (isa.masked and not isa.mask_registers)
    others += 2 * (family.accumulator_registers - 1)  # for parts that change places
    # eight rows that are whole pages apart would fill their place in L1; six of them leave room
    most = 6 if rows == 1 else 8
    return vectors, max(1, min(most, (isa.registers - others) // (rows * family.a_registers)))


def dot_tile_fits(isa: ISA, mr: int, nr: int, family: Family) -> bool:
    """Whether the registers are enough for a tile of `Dot`."""
    return (mr * nr + min(mr, nr)) * family.accumulator_registers <= isa.registers - 4


def tiles(isa: ISA, family: Family, n: int = 0) -> list[tuple[int, int]]:
    """The register tiles (mr, nr) worth a thought: for each width, the most rows that fit.

    With `n`, so that they fit also where the tile at the edge of `n` columns is as wide and needs
    a mask.
    """
    lanes = family.lanes(isa)
    found = []
    # Beyond these sizes, the compiler's schedule needs more registers than the scheme.
    widest = isa.registers // (4 * family.accumulator_registers)
    tallest = isa.registers
    if family.widens:
        widest = widest if isa.mask_registers else widest // 2
    if family.widens or (family.k_step > 1 and not family.tile_rows):
        tallest //= 2
    for vectors in range(1, widest + 1):
        last = n % (vectors * lanes)
        edge = last > (vectors - 1) * lanes
        most = isa.registers if vectors > 1 else tallest
        rows = [mr for mr in range(1, most + 1) if family.fits(isa, mr, vectors, edge)]
        if rows:
            found.append((rows[-1], vectors * lanes))
    return found


def widest(isa: ISA, mr: int, family: Family) -> int:
    """The most vectors of n that a tile of so many rows may have, with a mask at its edge."""
    # as in `tiles`, but a single row is a chain of multiply-adds for each vector and no more
    most = isa.registers // (4 * family.accumulator_registers) if mr > 1 else isa.registers
    return sum(family.fits(isa, mr, v, True) for v in range(1, most + 1))


def has_spare_register(isa: ISA, family: Family, mr: int, nr: int) -> bool:
    """Whether a tile leaves a register free: a kernel that packs B on the way needs it."""
    return family.registers_needed(isa, mr, nr // family.lanes(isa)) < isa.registers


def make_plan(problem: Problem, cpu: CPU, schedule: Schedule) -> Plan:
    """The plan that a schedule makes of a problem, with blocks cut evenly."""
    family = families.family(problem.dtype, schedule.family)
    isa = families.row_of(family, cpu.isa)
    lanes = family.lanes(isa)
    if schedule.kind == "base":
        m = split_with_edge(problem.m, schedule.mr)
        n = split_with_edge(problem.n, schedule.nr)
    else:
        m = split_evenly(problem.m, schedule.mr)
        n = split_with_edge(problem.n, min(schedule.nr, -(-problem.n // lanes) * lanes))
    if schedule.kind == "dot" and problem.epilogue:  # what is left over is done column by column
        n = schedule.nr, n[1], 1, n[1] + n[2]

    def block(length: int, tiles: int, most: int) -> int:
        return -(-tiles // -(-length // max(1, most)))

    kc = -(-problem.k // -(-problem.k // schedule.kc))
    return Plan(
        problem,
        isa,
        schedule,
        Tiling(*m, block(problem.m, m[3], schedule.mc)),
        Tiling(*n, block(problem.n, n[3], schedule.nc)),
        min(problem.k, -(-kc // family.k_step) * family.k_step),
    )


def base_plan(best: Plan, cpu: CPU) -> Plan | None:
    """What does any problem with the same few kernels, and with the bits of `best`.

    One microkernel on packed panels, which repeat a line where an operand ends; tiles at the edges
    of C go by way of a tile in memory. None if its panels would be too large.
    """
    problem, family = best.problem, best.family
    if problem.batch_reduce:
        return None
    depth = best.kc * ITEMSIZE[family.b]
    mr, nr = base_tile_for(best)
    mc, nc = cpu.l2 // (4 * depth), max(cpu.l3, 8 << 20) // (2 * depth)
    if nc < nr:
        return None
    name = best.schedule.family
    along = family.tile_rows > 0
    schedule = Schedule("base", mr, nr, best.kc, mc, nc, True, True, along, family=name)
    plan = make_plan(problem, cpu, schedule)
    return plan._replace(nanoseconds=4 * best.nanoseconds, interim=True)


def dot_widths(isa: ISA, family: Family) -> tuple[int, ...]:
    """How many columns a vector is multiplied by at once, where they lie along k."""
    if isa.registers > 16:
        return (1, 6, 16) if family.accumulator_registers == 1 else (1, 6, 8)
    return (1, 6) if family.accumulator_registers == 1 else (1, 4)


def base_kernels(plan: Plan) -> list[KernelSpec]:
    """The kernels of all base plans like one, and of vectors times matrices."""
    isa, dtype, family, epilogue = plan.isa, plan.problem.dtype, plan.family, plan.epilogue
    packs = [
        pack_of(isa, dtype, family, operand, width, source)
        for operand, width in zip("ab", base_tile_for(plan), strict=True)
        for source in ("along", "across", "strided")
    ]
    vectors: list[KernelSpec] = []
    if plan.problem.b == "packed":
        packs = packs[:3]
    elif plan.problem.is_native and not parse_epilogue(epilogue).is_fused:
        widths = dot_widths(isa, family)
        vectors += [Dot(isa.name, dtype, 1, width, "b", epilogue=epilogue) for width in widths]
        wide, deep = stream_shape(isa, 1, family)
        stream = Stream(isa.name, dtype, 1, wide * family.lanes(isa), deep, "row")
        vectors += [stream._replace(prefetch=far, epilogue=epilogue) for far in (False, True)]
    return [base_kernel_for(plan), *packs, Copy(isa.base.name, PRODUCTS[dtype].c), *vectors]


@cache
def base_tile(isa: ISA, family: Family) -> tuple[int, int]:
    """The tile (mr, nr) of base plans."""
    found = tiles(isa, family)
    return found[min(1, len(found) - 1)]


def base_tile_for(plan: Plan) -> tuple[int, int]:
    """The tile (mr, nr) of all base plans like one."""
    if plan.problem.b != "packed":
        return base_tile(plan.isa, plan.family)
    return next(tile for tile in tiles(plan.isa, plan.family) if tile[1] == plan.n.tile)
