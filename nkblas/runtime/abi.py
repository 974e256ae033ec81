"""Between Python's `Problem` and `Plan` and the engine's C structs (engine/nkblas.h).

The codes of products and the bits of epilogues come from the tables in `nkblas.base`, which the C
header is generated from: neither side has a list of its own.
"""

from typing import TYPE_CHECKING

from nkblas._engine import ffi, lib
from nkblas.base.dtypes import ITEMSIZE, PRODUCT_CODE
from nkblas.base.epilogues import Epilogue
from nkblas.base.epilogues import parse as parse_epilogue
from nkblas.base.problem import LAYOUTS, Problem
from nkblas.base.tiling import Tiling
from nkblas.codegen.spec import KernelSpec
from nkblas.planning.plan import Plan
from nkblas.planning.skinny import SHORT_DIMENSION
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


def problem_from_c(c: "nk_problem") -> Problem:
    """The problem that an ``nk_problem`` describes."""
    a, b, layout_c = (LAYOUTS[layout] for layout in (c.a, c.b, c.c))
    epilogue = str(Epilogue.from_code(c.epilogue))
    return Problem(
        _PRODUCT_NAMES[c.dtype], c.m, c.n, c.k, a, b, layout_c, epilogue, bool(c.batch_reduce)
    )


def problem_to_c(problem: Problem) -> "nk_problem":
    """A new ``nk_problem *`` that describes `problem`."""
    a, b, c = (LAYOUTS.index(layout) for layout in (problem.a, problem.b, problem.c))
    code, epilogue = PRODUCT_CODE[problem.dtype], parse_epilogue(problem.epilogue).code
    sizes = problem.m, problem.n, problem.k
    return ffi.new("nk_problem *", (*sizes, code, epilogue, a, b, c, problem.batch_reduce))


def canonical(problem: Problem) -> Problem:
    """The problem as the engine describes it: transposed where C would be column-major."""

    def matrix(rows: int, columns: int, layout: str) -> "nk_matrix":
        if layout == "packed":
            return ffi.new("nk_matrix *", {"is_packed": 1})
        strides = {"row": (columns, 1), "col": (1, rows), "strided": (2 * columns, 2)}[layout]
        return ffi.new("nk_matrix *", (ffi.NULL, *strides))

    dtype, m, n, k = problem[:4]
    operands = matrix(m, k, problem.a), matrix(k, n, problem.b), matrix(m, n, problem.c)
    strides = ffi.new("nk_batch_strides *")
    described = problem_from_c(lib.nk_describe(PRODUCT_CODE[dtype], m, n, k, *operands, strides))
    return described._replace(epilogue=problem.epilogue, batch_reduce=problem.batch_reduce)


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
    c.b_panels_along_k = schedule.kind == "dot" and schedule.pack_b
    c.overlaps_last_tile = plan.overlaps_last_tile
    c.spans_columns = plan.spans_columns
    c.is_memory_bound = min(m, n, k) <= SHORT_DIMENSION
    for i in (False, True):
        for j in (False, True):
            c.microkernel[i][j] = function("nk_microkernel", plan.microkernel(i, j))
    c.packing_microkernel = function("nk_microkernel", plan.packing())
    c.pack_a_panel = function("nk_pack", plan.pack("a"))
    c.pack_b_panel = function("nk_pack", plan.pack("b"))
    c.copy = function("nk_copy", plan.copy())
    c.small = function("nk_small", plan.small())
    return c
