"""The kernel that copies the lower triangle of a symmetric or Hermitian C to the upper one."""

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value
from nkblas.codegen.spec import Mirror

from .packing import COMPLEX_PAIR_BYTES, element_type_for_copy, transpose

MAX_SIDE = 8
"""Rows of the squares that are transposed in registers: each takes a register."""


def build(spec: Mirror, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function.

    Squares are transposed in registers; the last rows and columns go element by element.
    """
    m, n, source, source_rs, target, target_rs = arguments
    element = element_type_for_copy(spec.dtype)
    side = _side(spec, isa)
    square_rows, square_columns = ir.align_down(m, side), ir.align_down(n, side)

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

    def copy_column(j: Value, start: Value) -> list[Value]:
        ir.for_loop(m, [], lambda i, _: copy_element(i, j), start=start)
        return []

    def copy_squares(j: Value, _: list[Value]) -> list[Value]:
        ir.for_loop(square_rows, [], lambda i, _: copy_square(i, j), step=side)
        end = ir.add(j, ir.const_i64(side))
        ir.for_loop(end, [], lambda j, _: copy_column(j, square_rows), start=j)
        return []

    ir.for_loop(square_columns, [], copy_squares, step=side)
    ir.for_loop(n, [], lambda j, _: copy_column(j, ir.const_i64(0)), start=square_columns)


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
