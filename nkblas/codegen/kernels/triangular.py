"""Kernels for a tile of a triangular matrix on the diagonal: a product, or a system, in place.

The rows of X are vectors along the columns. A system is solved by substitution in registers; rows
are multiplied by the inverses of the diagonal elements, which the caller computes once for a block.
"""

from functools import partial

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value
from nkblas.codegen.spec import Triangular

from .nanokernel import Accumulator, NativeVectors, compose, flatten, unflatten


def build(spec: Triangular, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function."""
    _TriangularTile(spec, isa, arguments).emit()


class _TriangularTile:
    """The steps of `build`."""

    def __init__(self, spec: Triangular, isa: ISA, arguments: list[Value]) -> None:
        self.spec = spec
        self.k, self.a, self.a_rs, self.a_cs, self.diagonal, self.x, self.ldx = arguments
        self.native = NativeVectors(spec.dtype, isa.lanes(ITEMSIZE[spec.dtype]))
        self.element = ir.element_type(spec.dtype)
        self.columns = range(0, spec.nr, self.native.lanes)
        self.row_offsets = [ir.mul(self.a_rs, ir.const_i64(i)) for i in range(spec.mr)]
        first = ir.gep(self.x, self.element, ir.mul(self.k, self.ldx))
        self.rows = [
            ir.gep(first, self.element, ir.mul(self.ldx, ir.const_i64(i))) for i in range(spec.mr)
        ]

    def emit(self) -> None:
        """Emit the body of the function."""
        tile = self._sums_of_rows_before()
        a = ir.gep(self.a, self.element, ir.mul(self.k, self.a_cs))
        finish = self._solve if self.spec.solves else self._multiply
        finish(a, tile)

    def _load_rows(self) -> list[list[Value]]:
        return [[self._load(row, column) for column in self.columns] for row in self.rows]

    def _load(self, row: Value, column: int) -> Value:
        return ir.load(self.native.vector_type, ir.gep(row, self.element, column))

    def _sums_of_rows_before(self) -> list[list[Accumulator]]:
        """``A[:, :k] @ X[:k]``; for a system it is subtracted from the rows of X."""
        tile = [[self.native.zero_accumulator() for _ in self.columns] for _ in self.rows]
        if self.spec.solves:
            zeros = tile[0][0][1:]
            tile = [[(row, *zeros) for row in vectors] for vectors in self._load_rows()]

        def step(_: Value, iter_args: list[Value]) -> list[Value]:
            a, x, *flat = iter_args
            load_a = partial(self._load_a, a)
            load_b = lambda j: self.native.load_b(ir.gep(x, self.element, self.columns[j]), None)  # noqa: E731
            parts = self.native.parts
            tile = compose(self.native, load_a, load_b, unflatten(flat, len(self.columns), parts))
            following = ir.gep(a, self.element, self.a_cs), ir.gep(x, self.element, self.ldx)
            return [*following, *flatten(tile)]

        flat = ir.for_loop(self.k, [self.a, self.x, *flatten(tile)], step)[2:]
        return unflatten(flat, len(self.columns), self.native.parts)

    def _load_a(self, a: Value, i: int) -> tuple[Value, ...]:
        """Row `i`'s element of a column of A; for a system, its negative."""
        element = self.native.load_element(ir.gep(a, self.element, self.row_offsets[i]))
        splat = self.native.splat(element)
        return tuple(map(ir.neg, splat)) if self.spec.solves else splat

    def _load_diagonal(self, i: int) -> tuple[Value, ...]:
        element = self.native.load_element(ir.gep(self.diagonal, self.element, i))
        return self.native.splat(element)

    def _column(self, a: Value, j: int) -> Value:
        return ir.gep(a, self.element, ir.mul(self.a_cs, ir.const_i64(j)))

    def _add(self, a: tuple[Value, ...], x: Value, accumulator: Accumulator) -> Accumulator:
        return self.native.multiply_add(a, (x,) * self.native.parts, accumulator)

    def _solve(self, a: Value, tile: list[list[Accumulator]]) -> None:
        for j, row in enumerate(self.rows):
            inverse, column = self._load_diagonal(j), self._column(a, j)
            solved = []
            for accumulator, first in zip(tile[j], self.columns, strict=True):
                zero = self.native.zero_accumulator()
                value = self.native.combine(accumulator)
                value = self.native.combine(self._add(inverse, value, zero))
                ir.store(value, ir.gep(row, self.element, first))
                solved.append(value)
            for i in range(j + 1, self.spec.mr):
                factor = self._load_a(column, i)
                tile[i] = [
                    self._add(factor, x, sums) for x, sums in zip(solved, tile[i], strict=True)
                ]

    def _multiply(self, a: Value, tile: list[list[Accumulator]]) -> None:
        for i in reversed(range(self.spec.mr)):
            for j in range(i + 1):
                factor = self._load_diagonal(i) if j == i else self._load_a(self._column(a, j), i)
                tile[i] = [
                    self._add(factor, self._load(self.rows[j], first), sums)
                    for first, sums in zip(self.columns, tile[i], strict=True)
                ]
            for accumulator, first in zip(tile[i], self.columns, strict=True):
                ir.store(
                    self.native.combine(accumulator), ir.gep(self.rows[i], self.element, first)
                )
