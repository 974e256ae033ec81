"""Which kernels a package ships: with them, most products need no compiler.

A microkernel serves any size, and one is about a kilobyte. So for the dtypes that NumPy programs
mostly use, all register tiles are shipped that the cost model selects from, with their edges;
kernels for short dimensions; and kernels for the sizes of small matrices that come in stacks.
All other dtypes, and CPUs without fused multiply-adds, have the kernels of base plans, integers
also those for small matrices. Fused epilogues and quantized products have none.
"""

from collections.abc import Iterator
from itertools import product

from nkblas.base.dtypes import DTYPES, ITEMSIZE, PRODUCTS, QUANTIZED
from nkblas.base.families import Family, families
from nkblas.base.isa import ISA, ISAS
from nkblas.base.problem import NATIVE_DTYPES, Problem
from nkblas.codegen.spec import Dot, KernelSpec, Layout, Microkernel, PackSource, Stream
from nkblas.system.cpu import AMD, CPU, INTEL

from .cost_model import ranked_plans
from .plan import base_kernels, base_tile, make_plan, pack_kernel, triangular_plan
from .schedule import Schedule, has_spare_register, max_vectors, register_tiles

INEXACT_DTYPES = tuple(name for name in NATIVE_DTYPES if DTYPES[name].kind != "integer")
"""The main dtypes: float32, float64, complex64 and complex128."""

SHORT_LENGTHS = range(1, 17)
LONG_LENGTHS = (300, 1500)
"""Lengths of the products whose kernels are shipped if one or two dimensions are short."""

CANDIDATES = 6
"""Plans of each of them: which one is selected depends on the machine."""

_AMD = CPU(
    vendor=AMD,
    brand="",
    family=0x19,
    model=0x21,
    stepping=0,
    features=frozenset(),
    isa=ISAS["avx2"],
    l1d=32 << 10,
    l2=512 << 10,
    l3=32 << 20,
    l1d_ways=8,
    double_pumped=True,
    cpus=1,
)
TYPICAL_CPUS = (
    _AMD,  # Zen 3 and 4
    _AMD._replace(family=0x1A, model=0x02, l1d=48 << 10, l2=1 << 20, double_pumped=False),  # Zen 5
    _AMD._replace(family=0x17, model=0x01, l3=8 << 20),  # Zen 1
    _AMD._replace(vendor=INTEL, family=6, l1d=48 << 10, l2=2 << 20, double_pumped=False),
)
"""CPUs for which kernels are selected: a package is the same, whichever machine makes it."""

MAX_ANY_SIDE, MAX_TRANSPOSED_SIDE, MAX_SQUARE_SIDE = 4, 16, 32
"""Sides of the small matrices that have a kernel for their size alone: of any shape; square ones of
which one is transposed; and square ones."""

LAYOUTS: tuple[Layout, ...] = ("row", "col")

LAYOUTS_OF_STACKS: tuple[tuple[Layout, Layout], ...] = (
    ("row", "row"),
    ("row", "col"),
    ("col", "row"),
)
"""Those of A and B: neither, or one of them, is transposed."""


def shipped_kernels(isa: ISA) -> list[KernelSpec]:
    """The kernels of one instruction set that are shipped.

    Those of the sets that it extends are not among them.
    """
    cpus = [cpu._replace(isa=isa) for cpu in TYPICAL_CPUS]
    specs: dict[KernelSpec, None] = {}
    for dtype in PRODUCTS:
        if dtype in QUANTIZED:
            continue
        # packing routines for the families of a set may be of the set that it extends
        for row in (row for row in ISAS.values() if row.base == isa.base):
            for family in families(dtype, row):
                cpu = cpus[0]._replace(isa=row)
                specs |= dict.fromkeys(_base_kernels(dtype, family, cpu))
        if dtype in NATIVE_DTYPES and isa.fused and not isa.extends:
            if dtype in INEXACT_DTYPES:
                specs |= dict.fromkeys(_tile_kernels(dtype, isa))
                block = Problem(dtype, 128, 128, 128, structure="triangular")
                specs |= dict.fromkeys(triangular_plan(block, cpus[0]._replace(isa=isa)).kernels)
                for cpu in cpus:
                    specs |= dict.fromkeys(_kernels_for_short_dimensions(dtype, cpu))
            specs |= dict.fromkeys(_kernels_for_small_sizes(dtype, cpus[0]))
    return [spec for spec in specs if spec.isa == isa.name]


def _base_kernels(dtype: str, family: Family, cpu: CPU) -> Iterator[KernelSpec]:
    """The kernels of base plans: C is written or added to, or scaled for the main dtypes."""
    side = LONG_LENGTHS[0]
    for epilogue in ("", "scale") if dtype in INEXACT_DTYPES else ("",):
        problem = Problem(dtype, side, side, side, epilogue=epilogue)
        tile = base_tile(cpu.isa, family)
        schedule = Schedule("base", *tile, side, side, side, True, True, family=family.name)
        yield from base_kernels(make_plan(problem, cpu, schedule))


def _tile_kernels(dtype: str, isa: ISA) -> Iterator[KernelSpec]:
    """The microkernels of all register tiles and of their edges, and packing routines for them."""
    family = families(dtype, isa)[0]
    lanes = family.lanes(isa)
    tiles = [*register_tiles(isa, family), (1, lanes * max_vectors(isa, 1, family))]
    sizes = {
        (height, width)
        for mr, nr in tiles
        for height in range(1, mr + 1)
        for width in range(lanes, nr + 1, lanes)
    }
    sources: tuple[PackSource, ...] = ("along", "across")
    for source in sources:
        for mr in sorted({height for height, _ in sizes}):
            yield pack_kernel(isa, dtype, family, "a", mr, source)
        for nr in sorted({width for _, width in sizes}):
            yield pack_kernel(isa, dtype, family, "b", nr, source)
    masks = (False, True) if isa.can_mask(ITEMSIZE[dtype]) else (False,)
    for (mr, nr), layout in product(sorted(sizes), LAYOUTS):
        kernel = Microkernel(isa.name, dtype, mr, nr, layout, family=family.name)
        yield from (kernel._replace(masked=masked) for masked in masks)
        if has_spare_register(isa, family, mr, nr):
            yield kernel._replace(packs_b=True)


def _kernels_for_short_dimensions(dtype: str, cpu: CPU) -> Iterator[KernelSpec]:
    """The kernels of products of which one or two dimensions are short."""
    shapes = {
        tuple(shape)
        for short, one, other in product(SHORT_LENGTHS, (*LONG_LENGTHS, 1, 2, 3, 4), LONG_LENGTHS)
        for shape in ((short, one, other), (one, short, other), (one, other, short))
    }
    for (m, n, k), a, b in product(sorted(shapes), LAYOUTS, LAYOUTS):
        for plan in ranked_plans(Problem(dtype, m, n, k, a, b), cpu, CANDIDATES):
            for spec in plan.kernels:
                # for a C beyond L3, there is one for each short k
                if not isinstance(spec, Stream) or not spec.nontemporal:
                    yield spec
                if isinstance(spec, Dot) and spec.streamed == "a":  # and those for fewer rows
                    yield from (spec._replace(mr=mr) for mr in range(1, spec.mr))
                elif isinstance(spec, Dot):  # and those for fewer columns
                    yield from (spec._replace(nr=nr) for nr in range(1, spec.nr))

    for epilogue, a, b in product(("", "scale"), LAYOUTS, LAYOUTS):  # dot products of any strides
        problem = Problem(dtype, 1, 1, LONG_LENGTHS[0], a, b, epilogue=epilogue)
        yield from next(ranked_plans(problem, cpu, 1)).kernels


def _kernels_for_small_sizes(dtype: str, cpu: CPU) -> Iterator[KernelSpec]:
    """The kernels for sizes of matrices that come in stacks."""
    short = range(1, MAX_ANY_SIDE + 1)
    sizes = [*product(short, short, short)]
    if dtype in INEXACT_DTYPES:
        sizes += [(side, side, side) for side in range(MAX_ANY_SIDE + 1, MAX_SQUARE_SIDE + 1)]
    for size, layouts in product(sizes, LAYOUTS_OF_STACKS):
        if max(size) <= MAX_TRANSPOSED_SIDE or layouts == ("row", "row"):
            yield from next(ranked_plans(Problem(dtype, *size, *layouts), cpu, 1)).kernels
