"""`Plan`: a schedule, applied to a problem; and the kernels that it needs.

The cost model (`nkblas.planning.cost_model`) ranks plans, the tuner (`nkblas.inspect.tune`)
measures them, and plan files (`nkblas.planning.measured_plans`) hold the measured ones.
"""

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Literal, NamedTuple, TypeAlias, cast

from nkblas._engine import lib
from nkblas.base import families
from nkblas.base.dtypes import DTYPES, ITEMSIZE, PRODUCTS
from nkblas.base.epilogues import parse as parse_epilogue
from nkblas.base.families import Family
from nkblas.base.isa import ISA
from nkblas.base.problem import TRIANGLES, Layout, Problem, Structure
from nkblas.base.tiling import Tiling, split_evenly, split_with_edge
from nkblas.codegen.spec import (
    Copy,
    Dot,
    DotStack,
    KernelSpec,
    Microkernel,
    Mirror,
    Pack,
    PackSource,
    Small,
    Stream,
    Triangular,
)
from nkblas.codegen.spec import Layout as KernelLayout
from nkblas.system.cpu import CPU

from .caches import BEYOND_L2, cache_level, occupied_bytes
from .schedule import (
    MIN_L3,
    SHORT_DIMENSION,
    Schedule,
    b_panel_dtype,
    dot_widths,
    has_plain_operands,
    has_small_kernel,
    has_spare_register,
    register_tiles,
    stream_depth,
    stream_shape,
)

TileKernel: TypeAlias = Microkernel | Stream | Dot

Origin = Literal["model", "shipped", "tuned"]

Operand = Literal["a", "b"]

MAX_STACKED_DOT = 256
"""The longest vectors whose dot product has a kernel for its length alone."""

BLOCK_ROWS = 8
"""Rows of a block of `Plan.row_kernels`."""

MIN_TRIANGLE_WORK = 4
"""The fewest vector instructions, for each element of a symmetric C, for which only a triangle is
computed. With fewer, mirroring takes longer (measured on Zen 5, with AVX2 and with AVX-512)."""

MIN_SMALL_TRIANGLE_DEPTH, MAX_FULL_WORK = 32, 3 << 18
"""Of products with a kernel for their size, from which depth on, and from which ``m * m * k`` bytes
on, half of the tiles take less time than that kernel."""

MAX_TRIANGLE_FRACTION = 0.9
"""The largest part of C that the tiles of its lower triangle may cover, for that."""

MAX_KEPT_PANELS = 64 << 20
"""Bytes of an A that is packed once, at most."""

BASE_PLAN_SLOWDOWN = 4
"""About how many times as long as the best plan a base plan takes."""


class Plan(NamedTuple):
    """One way to compute a problem: a schedule, and how it divides the problem.

    Attributes
    ----------
    problem : Problem
    isa : ISA
        The least capable one that has the instructions.
    schedule : Schedule
    m, n : Tiling
        ``m.tile`` is mr, ``n.tile`` is nr; a cache block has mc = ``m.block_tiles * m.tile`` rows
        and nc = ``n.block_tiles * n.tile`` columns.
    kc : int
        Depth of a cache block.
    has_b_conflicts : bool
        Whether the rows of a panel of B, in place, evict each other from L2: found out where
        that decides what packs them, with ir outside.
    nanoseconds : float
        Time on one thread: estimated if `origin` is "model", else measured.
    origin : {"model", "shipped", "tuned"}
        What selected it: the cost model, a measurement that ships with the package, or one on this
        machine.
    interim : bool
        Whether it only serves until the kernels of a better plan are compiled. Then a dot product
        needs no kernel for its length alone.
    """

    problem: Problem
    isa: ISA
    schedule: Schedule
    m: Tiling
    n: Tiling
    kc: int
    has_b_conflicts: bool = False
    nanoseconds: float = 0.0
    origin: Origin = "model"
    interim: bool = False

    @property
    def family(self) -> Family:
        """Descriptor of the instruction family."""
        return families.family(self.problem.dtype, self.schedule.family)

    @property
    def b_panel_dtype(self) -> str:
        """The dtype of B's panels."""
        return b_panel_dtype(self.problem, self.family, self.isa)

    @property
    def tile(self) -> tuple[int, int]:
        """The register tile (mr, nr)."""
        return self.m.tile, self.n.tile

    @property
    def spans_columns(self) -> bool:
        """Whether a microkernel computes all columns of a cache block in one call."""
        return self.schedule.kind in ("stream", "dot") or self.family.tile_rows > 0

    @property
    def keeps_a_panels(self) -> bool:
        """Whether all of A is packed once: else each block of columns packs it again."""
        size = self.problem.m * self.problem.k * ITEMSIZE[self.family.a]
        packs = self.schedule.pack_a and self.schedule.kind in ("tiles", "base")
        return packs and self.n.tiles > self.n.block_tiles and size <= MAX_KEPT_PANELS

    @property
    def sizes_in_classes(self) -> tuple[Literal["n", "k"], ...]:
        """In which sizes the engine can apply the plan to others (engine/similar_plan.c).

        It has to divide them in the same way, and to need the same kernels, up to the largest size
        of the class; `nkblas.planning.skinny` has to select its schedule for all of them.
        """
        problem, schedule = self.problem, self.schedule
        if schedule.pack_a or schedule.pack_b or problem.structure or problem.batch_reduce:
            return ()
        if not problem.is_native or min(problem.n, problem.k) <= SHORT_DIMENSION:
            return ()
        if self.small():
            return ()
        if schedule.kc < lib.nk_size_class(problem.k) or problem.m > SHORT_DIMENSION:
            return ()
        if schedule.kind == "stream" and problem.m > 1:
            return ()  # kr depends on k
        return ("n", "k") if schedule.kind == "dot" and problem.m == 1 else ("k",)

    @property
    def epilogue(self) -> str:
        """The epilogue that kernels are generated with: all of them can add, without one."""
        text = self.problem.epilogue
        epilogue = parse_epilogue(text)
        return str(epilogue._replace(kind="")) if epilogue.kind == "add" else text

    @property
    def bits(self) -> tuple[object, ...]:
        """What the bits of a result depend on: plans for which this is equal round alike.

        Kernels of kind "tiles" add up an element's products in the order of k, in blocks of kc.
        Those of kind "stream" do so in blocks of kr, which depends on mr (`stream_depth`).
        """
        kind = self.schedule.kind
        if DTYPES[self.family.accumulator].kind == "integer":
            return ()
        if kind == "dot":
            return (self.schedule,)
        if not self.problem.is_native:
            return (self.schedule.family, self.kc)
        if kind == "stream" and not self._streams_whole_sums:
            return (kind, self.kc, self.m)
        return (self.kc,)

    @property
    def _streams_whole_sums(self) -> bool:
        """Whether streams sum up all of k at once, as microkernels do.

        They scale the elements of A, and microkernels scale the sums.
        """
        kr = stream_depth(self.problem, self.isa, self.m.tile, self.family)  # and of edge tiles
        return not self.epilogue and kr == self.problem.k

    # ---- kernels ----

    def microkernel(self, row_edge: bool, column_edge: bool) -> TileKernel | None:
        """The kernel for main tiles or edge tiles.

        Parameters
        ----------
        row_edge, column_edge : bool
            Whether the tile is an edge tile in that dimension.

        Returns
        -------
        Microkernel, Stream, Dot or None
            None if there is no such tile, or if the main kernel computes it in a buffer.
        """
        kind = self.schedule.kind
        if kind == "triangular":
            return None
        if kind == "base":
            return None if row_edge or column_edge else base_kernel_for(self)
        if not self.m.has(row_edge) or not self.n.has(column_edge):
            return None
        mr = self.m.edge_tile if row_edge else self.m.tile
        columns = self.n.edge_tile if column_edge else self.n.tile
        if kind == "stream":
            return self._stream_kernel(mr)
        if kind == "dot":
            return self._dot_kernel(mr)
        return self._tile_kernel(mr, columns)

    def _stream_kernel(self, mr: int) -> Stream:
        vectors, _ = stream_shape(self.isa, mr, self.family)
        kr = stream_depth(self.problem, self.isa, mr, self.family)
        # B stays in the cache, and C is written once.
        writes_c_once = self.problem.k <= min(kr, self.problem.m)
        return Stream(
            self.isa.name,
            self.problem.dtype,
            mr,
            vectors * self.family.lanes(self.isa),
            kr,
            _unit_stride(self.problem.a),
            prefetch=self.schedule.prefetch and not writes_c_once,
            nontemporal=self.schedule.prefetch and writes_c_once,
            epilogue=self.epilogue,
        )

    def _dot_kernel(self, mr: int) -> Dot:
        problem, schedule = self.problem, self.schedule
        return Dot(
            self.isa.name,
            problem.dtype,
            mr,
            self.n.tile,
            "a" if schedule.ir_outside else "b",
            schedule.prefetch,
            self.epilogue,
            a_strided=problem.a != "row" and not schedule.pack_a,
            b_strided=problem.b != "col" and not schedule.pack_b,
        )

    def _tile_kernel(self, mr: int, columns: int) -> Microkernel:
        types, schedule, lanes = self.problem.types, self.schedule, self.family.lanes(self.isa)
        nr = self.n.tile if self.spans_columns else -(-columns // lanes) * lanes
        return Microkernel(
            self.isa.name,
            self.problem.dtype,
            mr,
            nr,
            "col" if schedule.pack_a else _unit_stride(self.problem.a),
            masked=columns % lanes != 0 and not self.spans_columns,
            epilogue=self.epilogue,
            prefetch=schedule.prefetch and not schedule.pack_b,
            panel_ahead=schedule.prefetch and self.problem.b == "packed",
            family=schedule.family,
            a=_if_other(self.family.a, types.a) if schedule.pack_a else "",
            b=_if_other(self.b_panel_dtype, types.b) if schedule.pack_b else "",
            batch_reduce=self.problem.batch_reduce,
        )

    def packing(self) -> Microkernel | None:
        """The microkernel that also packs B, for the first tile of a column; None: Pack does."""
        schedule = self.schedule
        if not schedule.pack_b or schedule.kind != "tiles" or self.problem.b != "row":
            return None
        main = self.microkernel(False, False)
        if not isinstance(main, Microkernel):
            return None
        # With ir outside, panels can be packed in groups: then their common lines are loaded once.
        if schedule.ir_outside and self.has_b_conflicts:
            return None
        if self.family.k_step > 1 or self.family.widens or self.problem.types.b != self.family.b:
            return None
        if self.family.b_registers > 1:
            return None
        if not has_spare_register(self.isa, self.family, *self.tile):
            return None
        return main._replace(packs_b=True)

    def small(self) -> Small | DotStack | None:
        """The kernel for this size alone, for dense operands.

        In a plan of kind "dot", whose bits are different, there is one for a single dot product.
        There is none for a symmetric C that is worth computing by halves, and in an interim plan.
        """
        problem = self.problem
        if self.interim:
            return None
        if self.schedule.kind == "dot":
            return self._dot_stack()
        if not has_small_kernel(problem, self.isa) or self.schedule.kind == "base":
            return None
        work = problem.itemsize * problem.m**2 * problem.k
        if problem.structure in TRIANGLES:
            return None
        if problem.structure and problem.k >= MIN_SMALL_TRIANGLE_DEPTH and work >= MAX_FULL_WORK:
            return None
        layouts = _unit_stride(problem.a), _unit_stride(problem.b)
        return Small(self.isa.name, problem.dtype, problem.m, problem.n, problem.k, *layouts)

    def _dot_stack(self) -> DotStack | None:
        problem = self.problem
        is_single = (problem.m, problem.n, problem.a, problem.b) == (1, 1, "row", "col")
        is_real = DTYPES[problem.types.c].kind != "complex"
        is_plain = has_plain_operands(problem) and is_real
        if not is_single or not is_plain or problem.k > MAX_STACKED_DOT:
            return None
        return DotStack(self.isa.name, problem.dtype, problem.k)

    def row_kernels(self) -> tuple[Small, Small] | None:
        """The kernels for a block of rows of C and for a single one, where rows are short.

        A vector would be filled in part, and a masked store of it takes longer than the row. Of a
        single row of C whose B has columns along k, these are the rows (``C.T = B.T @ A.T``). The
        bits are those of register tiles, which an interim plan uses.
        """
        problem = self.problem
        b_layout: Layout
        lanes = self.family.lanes(self.isa)
        if problem.m == 1:
            columns, is_short, b_layout = 1, problem.b == "col", "row"
        else:
            columns, is_short, b_layout = problem.n, problem.n < lanes, problem.b
        if problem.structure in TRIANGLES:
            return None
        if not is_short or problem.k > SHORT_DIMENSION or problem.a != "row" or self.interim:
            return None
        if self.schedule.kind != "tiles" or not has_plain_operands(problem) or self.small():
            return None
        sizes = 1, columns, problem.k
        kernel = Small(self.isa.name, problem.dtype, *sizes, "row", _unit_stride(b_layout))
        return kernel._replace(m=BLOCK_ROWS), kernel

    def pack(self, operand: Operand) -> Pack | None:
        """The packing routine of an operand; None if it is read in place, or prepacked."""
        is_packed, layout, contiguous_layout, width = {
            "a": (self.schedule.pack_a, self.problem.a, "col", self.m.tile),
            "b": (self.schedule.pack_b, self.problem.b, "row", self.n.tile),
        }[operand]
        is_copied = self.schedule.kind == "dot" and operand == "b"  # by `copy`, along k
        if not is_packed or layout == "packed" or is_copied:
            return None
        source: PackSource = "across"
        if layout == "strided":
            source = "strided"
        elif layout == contiguous_layout:
            source = "along"
        return pack_kernel(self.isa, self.problem.dtype, self.family, operand, width, source)

    def copy(self) -> Copy | None:
        """The copy of C's tiles, if some can't be stored in place; and of B's columns, for dots."""
        copies_c = self.problem.c == "strided" or self.schedule.kind in ("base", "triangular")
        copies_b = self.schedule.kind == "dot" and self.schedule.pack_b
        return Copy(self.isa.base.name, self.problem.types.c) if copies_c or copies_b else None

    @property
    def triangle_fraction(self) -> float:
        """About the part of C that the tiles of a triangle cover; 1 if all are computed.

        If C is symmetric, all are where half of the work takes no longer than mirroring: for a
        small depth, and for few tiles. Streams and dots are for products with a short side.
        """
        problem, family, kind = self.problem, self.family, self.schedule.kind
        if self.schedule.kind == "triangular" or not problem.structure:
            return 1.0
        # Half of C, and half of each tile on the diagonal.
        fraction = min(1.0, 0.5 * (1 + sum(self.tile) / problem.m))
        if problem.structure in TRIANGLES:
            return fraction
        instructions = problem.k / family.k_step * family.instructions / family.lanes(self.isa)
        is_divided = kind in ("tiles", "base") and instructions >= MIN_TRIANGLE_WORK
        if not is_divided or problem.c != "row" or self.small():
            return 1.0
        return fraction if fraction < MAX_TRIANGLE_FRACTION else 1.0

    @property
    def triangle(self) -> Structure:
        """The triangle of C whose tiles are computed: "lower", "upper" or, of all tiles, ""."""
        if self.problem.structure in TRIANGLES:
            return self.problem.structure
        return "lower" if self.mirror() and self.schedule.kind != "triangular" else ""

    def mirror(self) -> Mirror | None:
        """The copy from the lower triangle of a symmetric C to the upper one, if there is one.

        Of a triangular A, the copy of a column-major B to a panel, and back.
        """
        if self.schedule.kind == "triangular":
            return Mirror(self.isa.base.name, self.problem.types.c)
        if self.triangle_fraction == 1 or self.problem.structure in TRIANGLES:
            return None
        conjugates = self.problem.structure == "hermitian"
        return Mirror(self.isa.base.name, self.problem.types.c, conjugates)

    def triangular(self) -> tuple[Triangular, Triangular] | None:
        """The kernels of products with a triangular A, and of systems."""
        if self.schedule.kind != "triangular":
            return None
        multiply = Triangular(self.isa.name, self.problem.dtype, *self.tile)
        return multiply, multiply._replace(solves=True)

    def with_structure(self, structure: Structure) -> "Plan":
        """The plan of the same product of a matrix and its transpose.

        It has the same schedule, and so the same bits; but it may compute one triangle only.
        """
        plan = self._replace(problem=self.problem._replace(structure=structure))
        return plan._replace(nanoseconds=plan.nanoseconds * plan.triangle_fraction)

    @property
    def kernels(self) -> tuple[KernelSpec, ...]:
        """All kernels that it needs, the main tile's first."""
        tiles, *others, rows, triangular = self.kernels_by_use
        specs: list[KernelSpec | None] = [*tiles, *others, *(rows or ()), *(triangular or ())]
        return tuple(dict.fromkeys(spec for spec in specs if spec is not None))

    @property
    def kernels_by_use(self) -> "PlanKernels":
        """The kernels, by what each is for."""
        return _kernels_of(self)

    def __str__(self) -> str:
        mr, nr = self.tile
        schedule = self.schedule
        packed = [n for n, yes in (("A", schedule.pack_a), ("B", schedule.pack_b)) if yes]
        return (
            f"{mr}x{nr}, mc {self.m.block_tiles * mr}, kc {self.kc}, nc {self.n.block_tiles * nr}, "
            f"{' and '.join(packed) or 'nothing'} packed, "
            f"{'ir outside jr' if schedule.ir_outside else 'jr outside ir'}"
            f"{f', {self.triangle} triangle' if self.triangle else ''}"
        )


class PlanKernels(NamedTuple):
    """The kernels of a plan, as the methods of `Plan` give them; None where there is none.

    Attributes
    ----------
    microkernels : tuple of (Microkernel, Stream, Dot or None)
        For tiles that are at no edge, the column edge, the row edge, and both.
    """

    microkernels: tuple[TileKernel | None, ...]
    packing: Microkernel | None
    small: Small | DotStack | None
    pack_a: Pack | None
    pack_b: Pack | None
    copy: Copy | None
    mirror: Mirror | None
    rows: tuple[Small, Small] | None
    triangular: tuple[Triangular, Triangular] | None


@lru_cache(64)
def _kernels_of(plan: Plan) -> PlanKernels:
    return PlanKernels(
        tuple(plan.microkernel(i, j) for i in (False, True) for j in (False, True)),
        plan.packing(),
        plan.small(),
        plan.pack("a"),
        plan.pack("b"),
        plan.copy(),
        plan.mirror(),
        plan.row_kernels(),
        plan.triangular(),
    )


def make_plan(problem: Problem, cpu: CPU, schedule: Schedule) -> Plan:
    """The plan that applies a schedule to a problem, with evenly divided blocks.

    The schedule is legal for the problem (`Schedule.infeasible_reason`), or of kind "base".
    """
    family = families.family(problem.dtype, schedule.family)
    isa = families.row_of(family, cpu.isa)
    lanes = family.lanes(isa)
    if schedule.kind == "base":
        m = split_with_edge(problem.m, schedule.mr)
        n = split_with_edge(problem.n, schedule.nr)
    else:
        m = split_evenly(problem.m, schedule.mr)
        n = split_with_edge(problem.n, min(schedule.nr, -(-problem.n // lanes) * lanes))

    def block_tiles(length: int, tiles: int, max_block: int) -> int:
        return -(-tiles // -(-length // max(1, max_block)))

    kc = -(-problem.k // -(-problem.k // schedule.kc))
    kc = min(problem.k, -(-kc // family.k_step) * family.k_step)
    has_b_conflicts = False
    if schedule.pack_b and schedule.ir_outside:
        row_size, stride = (ITEMSIZE[problem.types.b] * length for length in (n[0], problem.n))
        b_panel_size = occupied_bytes(kc, row_size, stride)
        has_b_conflicts = bool(cache_level(b_panel_size, cpu) == BEYOND_L2)
    return Plan(
        problem,
        isa,
        schedule,
        Tiling(*m, block_tiles(problem.m, m[3], schedule.mc)),
        Tiling(*n, block_tiles(problem.n, n[3], schedule.nc)),
        kc,
        has_b_conflicts,
    )


def triangular_plan(problem: Problem, cpu: CPU) -> Plan:
    """The plan of the blocks on the diagonal of a triangular A.

    A tile has two vectors, and as many rows as give each multiply-add the time of its latency:
    sums in half of the registers.
    """
    family = families.families(problem.dtype, cpu.isa)[0]
    isa, lanes = families.row_of(family, cpu.isa), family.lanes(cpu.isa)
    parts = 2 if "complex" in problem.dtype else 1
    mr = isa.registers // (4 * parts)
    schedule = Schedule(
        "triangular", mr, 2 * lanes, problem.k, problem.m, 2 * lanes, family=family.name
    )
    nanoseconds = problem.flops / lanes / 8
    return make_plan(problem, cpu, schedule)._replace(nanoseconds=nanoseconds)


def without_duplicates(plans: Iterable[Plan]) -> list[Plan]:
    """The plans, without those that divide the problem in the same way as one before them."""
    first_of: dict[tuple[object, ...], Plan] = {}
    for plan in plans:
        other_fields = plan.schedule._replace(mr=0, nr=0, kc=0, mc=0, nc=0)
        first_of.setdefault((other_fields, plan.m, plan.n, plan.kc), plan)
    return list(first_of.values())


def pack_kernel(
    isa: ISA, dtype: str, family: Family, operand: Operand, width: int, source: PackSource
) -> Pack:
    """The packing routine of an operand of products of a dtype, for panels of `width`."""
    operand_dtype = getattr(PRODUCTS[dtype], operand)
    panel_dtype, group, compensation = {
        "a": (family.a, family.k_group_a, 0),
        "b": (family.b, family.k_group_b, family.compensation),
    }[operand]
    row = isa if compensation else isa.base
    to = _if_other(panel_dtype, operand_dtype)
    return Pack(row.name, operand_dtype, width, source, to, group, family.k_step, compensation)


def _unit_stride(layout: Layout) -> KernelLayout:
    """The layout of an operand that a kernel reads in place: `Schedule` allows no other."""
    return cast(KernelLayout, layout)


def _if_other(dtype: str, default: str) -> str:
    """A dtype as specs name it: empty if it is the default."""
    return dtype if dtype != default else ""


# ---- base plans: a few kernels that serve all problems of a dtype ----


def base_plan(best: Plan, cpu: CPU) -> Plan | None:
    """The interim plan whose few kernels serve any problem of the dtype, with the bits of `best`.

    One microkernel on packed panels, which repeat the last line where an operand ends; edge tiles
    of C are computed in a buffer. None if there is none: for a batch-reduce product,
    a triangular A, or if its panels would be too large.
    """
    problem, family = best.problem, best.family
    if problem.batch_reduce or best.schedule.kind == "triangular":
        return None
    column_size = best.kc * ITEMSIZE[family.b]
    mr, nr = base_tile_for(best)
    # a block of A takes a quarter of L2, one of B half of L3
    mc, nc = cpu.l2 // (4 * column_size), max(cpu.l3, MIN_L3) // (2 * column_size)
    if nc < nr:
        return None
    name = best.schedule.family
    ir_outside = family.tile_rows > 0
    schedule = Schedule("base", mr, nr, best.kc, mc, nc, True, True, ir_outside, family=name)
    plan = make_plan(problem, cpu, schedule)
    return plan._replace(nanoseconds=BASE_PLAN_SLOWDOWN * best.nanoseconds, interim=True)


def base_kernels(plan: Plan) -> list[KernelSpec]:
    """The kernels of all base plans of this plan's dtype, family and epilogue.

    They include those for the product of a vector and a matrix.
    """
    isa, dtype, family, epilogue = plan.isa, plan.problem.dtype, plan.family, plan.epilogue
    sources: tuple[PackSource, ...] = ("along", "across", "strided")
    mr, nr = base_tile_for(plan)
    packs = [pack_kernel(isa, dtype, family, "a", mr, source) for source in sources]
    vectors: list[KernelSpec] = []
    if plan.problem.b != "packed":
        packs += [pack_kernel(isa, dtype, family, "b", nr, source) for source in sources]
        if plan.problem.is_native and not parse_epilogue(epilogue).is_fused:
            vectors = _vector_kernels(plan)
    c_dtype = PRODUCTS[dtype].c
    copies = Copy(isa.base.name, c_dtype), Mirror(isa.base.name, c_dtype)
    return [base_kernel_for(plan), *packs, *copies, *vectors]


def _vector_kernels(plan: Plan) -> list[KernelSpec]:
    """The kernels for a vector times a matrix."""
    isa, dtype, family, epilogue = plan.isa, plan.problem.dtype, plan.family, plan.epilogue
    widths = dot_widths(isa, family)
    dots = [Dot(isa.name, dtype, 1, width, "b", epilogue=epilogue) for width in widths]
    vectors, kr = stream_shape(isa, 1, family)
    stream = Stream(isa.name, dtype, 1, vectors * family.lanes(isa), kr, "row", epilogue=epilogue)
    return [*dots, *(stream._replace(prefetch=prefetch) for prefetch in (False, True))]


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
    """The microkernel of base plans for a plan's problem: a prepacked B determines its width."""
    mr, nr = base_tile_for(plan)
    b = _if_other(plan.b_panel_dtype, plan.problem.types.b)
    kernel = base_kernel(plan.isa, plan.problem.dtype, plan.family, plan.epilogue)
    return kernel._replace(mr=mr, nr=nr, b=b)


@cache
def base_tile(isa: ISA, family: Family) -> tuple[int, int]:
    """The register tile (mr, nr) of base plans: the second narrowest, if there are two widths."""
    tiles = register_tiles(isa, family)
    return tiles[min(1, len(tiles) - 1)]


def base_tile_for(plan: Plan) -> tuple[int, int]:
    """The register tile (mr, nr) of base plans for a plan's problem."""
    if plan.problem.b != "packed":
        return base_tile(plan.isa, plan.family)
    tiles = register_tiles(plan.isa, plan.family)
    return next(tile for tile in tiles if tile[1] == plan.n.tile)
