"""The kernel that copies the lower triangle of a symmetric or Hermitian C to the upper one."""

from collections.abc import Callable

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value
from nkblas.codegen.spec import Mirror

from .packing import COMPLEX_PAIR_BYTES, element_type_for_copy, transpose

MAX_SIDE = 8
"""Rows of the squares that are transposed in registers: each takes a register."""

STRIP_COLUMNS = 16
"""Columns of the source that are copied together: the lines that are written at once for them fit a
set of L1, and their rows in the target lie on few pages."""


def build(spec: Mirror, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function.

    Squares are transposed in registers. The last of a row or column overlaps the one before it, and
    what is smaller than a square goes element by element.
    """
    m, n, source, source_rs, target, target_rs = arguments
    element = element_type_for_copy(spec.dtype)
    side = _side(spec, isa)

    def source_at(i: Value, j: Value) -> Value:
        return ir.gep(source, element, ir.mul(i, source_rs), j)

    def target_at(j: Value, i: Value) -> Value:
        return ir.gep(target, element, ir.mul(j, target_rs), i)

    def copy_square(i: Value, j: Value) -> list[Value]:
        rows, read, write = [], source_at(i, j), target_at(j, i)
        for _ in range(side):
            rows.append(_load(spec, read, side))
            read = ir.gep(read, element, source_rs)
        for column in transpose(rows):
            ir.store(column, write)
            write = ir.gep(write, element, target_rs)
        return []

    def copy_element(i: Value, j: Value) -> list[Value]:
        ir.store(_load(spec, source_at(i, j), 1), target_at(j, i))
        return []

    def copy_elements() -> list[Value]:
        def copy_column(j: Value, _: list[Value]) -> list[Value]:
            return ir.for_loop(m, [], lambda i, _: copy_element(i, j))

        return ir.for_loop(n, [], copy_column)

    def copy_squares() -> list[Value]:
        _copy_squares(m, n, side, ITEMSIZE[spec.dtype], target, copy_square)
        return []

    is_small = ir.slt(ir.minsi(m, n), ir.const_i64(side))
    ir.if_else(is_small, copy_elements, copy_squares)


def _copy_squares(
    m: Value,
    n: Value,
    side: int,
    itemsize: int,
    target: Value,
    copy_square: Callable[[Value, Value], list[Value]],
) -> None:
    """Call `copy_square` for squares that cover an m x n source.

    Rows are taken by as many as a cache line of the target holds, from its start on. Where rows of
    the target evict each other from the caches, a line that is written in parts is loaded again for
    each part.
    """
    line = max(side, ir.CACHE_LINE_BYTES // itemsize)
    first = ir.sub(ir.elements_until_aligned(target, itemsize, line), ir.const_i64(line))
    last_i, last_j = ir.sub(m, ir.const_i64(side)), ir.sub(n, ir.const_i64(side))

    def copy_line(start: Value, j: Value, j_end: Value) -> list[Value]:
        i_start = ir.maxsi(start, ir.const_i64(0))
        i_end = ir.minsi(ir.add(start, ir.const_i64(line)), m)

        def copy_column(j: Value, _: list[Value]) -> list[Value]:
            square_j = ir.minsi(j, last_j)

            def copy(i: Value, _: list[Value]) -> list[Value]:
                return copy_square(ir.minsi(i, last_i), square_j)

            return ir.for_loop(i_end, [], copy, start=i_start, step=side)

        return ir.for_loop(j_end, [], copy_column, start=j, step=side)

    def copy_strip(j: Value, _: list[Value]) -> list[Value]:
        j_end = ir.minsi(ir.add(j, ir.const_i64(STRIP_COLUMNS)), n)
        return ir.for_loop(m, [], lambda i, _: copy_line(i, j, j_end), start=first, step=line)

    ir.for_loop(n, [], copy_strip, step=STRIP_COLUMNS)


def _side(spec: Mirror, isa: ISA) -> int:
    """Rows of a square: 1 for numbers of 16 bytes, which gain nothing from registers."""
    itemsize = ITEMSIZE[spec.dtype]
    return min(MAX_SIDE, isa.lanes(itemsize)) if itemsize <= COMPLEX_PAIR_BYTES else 1


def _load(spec: Mirror, source: Value, count: int) -> Value:
    """Load adjacent elements, as a vector that can be transposed; or a single one."""
    element = element_type_for_copy(spec.dtype)
    type_ = ir.vector_type(count, element) if count > 1 else element
    if not spec.conjugates:
        return ir.load(type_, source)
    parts = ir.vector_type(2 * count, ir.element_type(REAL_PART[spec.dtype]))
    conjugated = _conjugate(ir.load(parts, source))
    return ir.bitcast(type_, conjugated) if count > 1 else conjugated


def _conjugate(value: Value) -> Value:
    """A vector of complex numbers, conjugated.

    An imaginary part of 0 keeps its sign: the full product sums it up alike on both sides of the
    diagonal.
    """
    is_nonzero = ir.olt(ir.const_zero(value.type), ir.fabs(value))
    negated = ir.mul(value, ir.const_alternating(value.type, 1, -1))
    return ir.select(is_nonzero, negated, value)
