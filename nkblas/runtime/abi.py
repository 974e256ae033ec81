"""Between Python's `Problem` and `Plan` and the engine's C structs (engine/nkblas.h).

The codes of products and the bits of epilogues come from the tables in `nkblas.base`, which the C
header is generated from: neither side has a list of its own.
"""

from typing import TYPE_CHECKING

from nkblas._engine import ffi, lib
from nkblas.base.dtypes import ITEMSIZE, PRODUCT_CODE
from nkblas.base.epilogues import code_of as epilogue_code
from nkblas.base.epilogues import text_of as epilogue_text
from nkblas.base.problem import LAYOUTS, STRUCTURES, Problem
from nkblas.base.tiling import Tiling
from nkblas.codegen.spec import KernelSpec
from nkblas.planning.plan import Plan
from nkblas.planning.schedule import SHORT_DIMENSION
from nkblas.system.cpu import cpu

if TYPE_CHECKING:
    from nkblas._engine import CData, nk_matrix, nk_plan, nk_problem, nk_tiling

_PRODUCT_NAMES = tuple(PRODUCT_CODE)

assert [LAYOUTS.index(x) for x in ("row", "col", "strided", "packed")] == [
    lib.NK_ROW,
    lib.NK_COL,
    lib.NK_STRIDED,
    lib.NK_PACKED,
]
assert [
    STRUCTURES.index(x) for x in ("", "symmetric", "hermitian", "lower", "upper", "triangular")
] == [
    lib.NK_GENERAL,
    lib.NK_SYMMETRIC,
    lib.NK_HERMITIAN,
    lib.NK_LOWER,
    lib.NK_UPPER,
    lib.NK_TRIANGULAR,
]


def problem_from_c(c: "nk_problem") -> Problem:
    """The problem that an ``nk_problem`` describes."""
    a, b, layout_c = (LAYOUTS[layout] for layout in (c.a, c.b, c.c))
    epilogue = epilogue_text(c.epilogue)
    dtype, structure = _PRODUCT_NAMES[c.dtype], STRUCTURES[c.structure]
    batch_reduce = bool(c.batch_reduce)
    return Problem(dtype, c.m, c.n, c.k, a, b, layout_c, epilogue, batch_reduce, structure)


def problem_to_c(problem: Problem) -> "nk_problem":
    """A new ``nk_problem *`` that describes `problem`."""
    a, b, c = (LAYOUTS.index(layout) for layout in (problem.a, problem.b, problem.c))
    code, epilogue = PRODUCT_CODE[problem.dtype], epilogue_code(problem.epilogue)
    sizes = problem.m, problem.n, problem.k
    structure = STRUCTURES.index(problem.structure)
    return ffi.new(
        "nk_problem *", (*sizes, epilogue, code, a, b, c, problem.batch_reduce, structure)
    )


def canonical(problem: Problem) -> Problem:
    """The problem as the engine describes it: transposed where C would be column-major."""

    def matrix(rows: int, columns: int, layout: str) -> "nk_matrix":
        if layout == "packed":
            return ffi.new("nk_matrix *", {"is_packed": 1})
        strides = {"row": (columns, 1), "col": (1, rows), "strided": (2 * columns, 2)}[layout]
        return ffi.new("nk_matrix *", (ffi.NULL, *strides))

    dtype, m, n, k = problem[:4]
    operands = matrix(m, k, problem.a), matrix(k, n, problem.b), matrix(m, n, problem.c)
    described, _ = describe_product(PRODUCT_CODE[dtype], (m, n, k), operands, 1, (0, 0, 0))
    return described._replace(
        epilogue=problem.epilogue, batch_reduce=problem.batch_reduce, structure=problem.structure
    )


def describe_product(
    code: int,
    sizes: tuple[int, int, int],
    matrices: tuple["nk_matrix", ...],
    count: int,
    batch_strides: tuple[int, ...],
) -> tuple[Problem, int]:
    """The problem that the engine finds for a stack of products, and how many of it there are.

    Parameters
    ----------
    code : int
        Of the product, `nkblas.base.dtypes.PRODUCT_CODE`.
    sizes : tuple of int
        m, n and k.
    matrices : tuple of nk_matrix
        A, B and C; they are changed to those that a plan works on.
    count : int
        Products in the stack.
    batch_strides : tuple of int
        Distances, in elements, from one A, B and C to the next.
    """
    strides, products = ffi.new("nk_batch_strides *", batch_strides), ffi.new("int64_t *", count)
    args = ffi.new("nk_call_args *", lib.nk_plain_args)
    m, n, k = sizes
    a, b, c = matrices
    problem = lib.nk_describe(code, m, n, k, a, b, c, products, strides, args)
    return problem_from_c(problem), int(products[0])


def plan_to_c(plan: Plan, addresses: dict[KernelSpec, int]) -> "nk_plan":
    """A new ``nk_plan *`` for `plan`, whose kernels are at `addresses`."""

    def function(kind: str, spec: KernelSpec | None) -> "CData":
        return ffi.NULL if spec is None else ffi.cast(kind, addresses[spec])

    def tiling(x: Tiling) -> "nk_tiling":
        return ffi.new("nk_tiling *", x)[0]

    problem, schedule, family = plan.problem, plan.schedule, plan.family
    m, n, k, types = problem.m, problem.n, problem.k, problem.types
    accumulator = ITEMSIZE[family.accumulator]
    c = ffi.new("nk_plan *")
    c.problem = problem_to_c(problem)[0]
    c.nanoseconds = plan.nanoseconds
    c.m, c.n, c.kc = tiling(plan.m), tiling(plan.n), plan.kc
    c.k_step = family.k_step
    c.a_panel_itemsize = ITEMSIZE[family.a]
    c.b_panel_itemsize = ITEMSIZE[plan.b_panel_dtype]
    c.b_panel_header = accumulator if family.compensation else 0
    c.accumulator_itemsize = accumulator
    c.partial_sum_itemsize = accumulator if family.accumulator != types.c else 0
    block_size = k * (m * ITEMSIZE[types.a] + n * ITEMSIZE[types.b])
    c.blocks_per_pass = max(1, cpu.l2 // 2 // block_size)
    c.pack_a, c.pack_b, c.ir_outside = schedule.pack_a, schedule.pack_b, schedule.ir_outside
    c.keeps_a_panels = plan.keeps_a_panels
    c.b_panels_along_k = schedule.kind == "dot" and schedule.pack_b
    c.spans_columns = plan.spans_columns
    c.is_memory_bound = min(m, n, k) <= SHORT_DIMENSION
    kernels = plan.kernels_by_use
    for i, microkernel in enumerate(kernels.microkernels):
        c.microkernel[i // 2][i % 2] = function("nk_microkernel", microkernel)
    c.packing_microkernel = function("nk_microkernel", kernels.packing)
    c.pack_a_panel = function("nk_pack", kernels.pack_a)
    c.pack_b_panel = function("nk_pack", kernels.pack_b)
    c.copy = function("nk_copy", kernels.copy)
    c.triangle = STRUCTURES.index(plan.triangle)
    c.mirror = function("nk_mirror", kernels.mirror)
    if kernels.triangular is not None:
        c.multiply, c.solve = (function("nk_triangular", spec) for spec in kernels.triangular)
    c.small = function("nk_small", kernels.small)
    if kernels.rows is not None:
        c.row_block, c.single_row = (function("nk_small", kernel) for kernel in kernels.rows)
        c.block_rows = kernels.rows[0].m
    return c
