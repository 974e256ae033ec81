"""Stream kernels: a loop along n that reads a few rows of B at a time, and each of them once."""

from functools import partial
from typing import Literal, NamedTuple

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import CACHE_LINE_BYTES, PREFETCH_DISTANCE_BYTES, Value
from nkblas.codegen.spec import Stream

from . import complex_arithmetic
from .call_args import KernelArguments, ScaleFactors
from .nanokernel import Accumulator, NativeVectors, compose


def build(spec: Stream, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function."""
    args = KernelArguments(*arguments)

    def cached_stores() -> list[Value]:
        return _StreamLoops(spec, isa, args, nontemporal=False).emit()

    def nontemporal_stores() -> list[Value]:
        return _StreamLoops(spec, isa, args, nontemporal=True).emit()

    if not spec.nontemporal:
        cached_stores()
        return
    # Non-temporal stores require alignment: all rows of C have the same one, or not.
    itemsize = ITEMSIZE[spec.dtype]
    cannot_align = ir.misalignment(args.c, itemsize)
    if spec.mr > 1:
        cannot_align = ir.or_(cannot_align, ir.mod_power_of_two(args.ldc, isa.lanes(itemsize)))
    ir.if_else(ir.is_nonzero(cannot_align), cached_stores, nontemporal_stores)
    ir.store_fence()


class _Pass(NamedTuple):
    """One pass over the columns, for a few rows of B.

    Attributes
    ----------
    b : Value
        Address of the first row.
    a : list
        For each row of B, the elements of A that it is multiplied by: one for each row of C.
    c_use : {"overwrite", "add", "scale"}
        Whether the products replace C, or are added to C, or to beta * C.
    """

    b: Value
    a: list[list[tuple[Value, ...]]]
    c_use: Literal["overwrite", "add", "scale"]


class _StreamLoops:
    """The loops over rows of B and over columns.

    Attributes
    ----------
    start, stop : Value
        The columns that tiles of `spec.nr` columns cover; those before and after are the edges.
    """

    def __init__(self, spec: Stream, isa: ISA, args: KernelArguments, nontemporal: bool) -> None:
        self.spec, self.isa, self.args, self.nontemporal = spec, isa, args, nontemporal
        self.element, self.itemsize = ir.element_type(spec.dtype), ITEMSIZE[spec.dtype]
        self.lanes = isa.lanes(self.itemsize)
        self.vectors = NativeVectors(spec.dtype, self.lanes)
        part = self.vectors.vector_type.element_type
        self.factors = ScaleFactors.read(args.args, part) if spec.epilogue else None
        lda, one = args.lda, ir.const_i64(1)
        self.a_row_stride, self.a_k_stride = (lda, one) if spec.a_layout == "row" else (one, lda)
        rows = range(spec.mr)
        self.a_rows = [ir.mul(self.a_row_stride, ir.const_i64(i)) for i in rows]
        self.c_rows = [ir.mul(args.ldc, ir.const_i64(i)) for i in rows]
        # A vector that crosses a cache line takes two loads.
        aligned = args.c if nontemporal else args.b
        until_aligned = ir.elements_until_aligned(aligned, self.itemsize, self.lanes)
        self.start = ir.minsi(until_aligned, args.n)
        self.stop = ir.add(self.start, ir.round_down(ir.sub(args.n, self.start), spec.nr))

    def emit(self) -> list[Value]:
        """Emit passes of `spec.kr` rows of B, then of one row."""
        done = ir.const_i64(0)
        for rows in dict.fromkeys((self.spec.kr, 1)):
            end = ir.add(done, ir.round_down(ir.sub(self.args.k, done), rows))
            ir.for_loop(end, [], partial(self._select_pass, rows), start=done, step=rows)
            done = end
        return []

    def _select_pass(self, rows: int, p: Value, _: list[Value]) -> list[Value]:
        """The pass over `rows` rows of B from row `p` on, which is the first one or not."""

        def first_pass() -> list[Value]:
            if self.factors is None:
                return self._pass(p, rows, "overwrite")
            return ir.if_else(
                complex_arithmetic.is_nonzero(self.factors.beta, self.factors.beta_imag),
                lambda: self._pass(p, rows, "scale"),
                lambda: self._pass(p, rows, "overwrite"),
            )

        is_first = ir.is_zero(ir.add(p, self.args.accumulate))
        return ir.if_else(is_first, first_pass, lambda: self._pass(p, rows, "add"))

    def _pass(
        self, p: Value, rows: int, c_use: Literal["overwrite", "add", "scale"]
    ) -> list[Value]:
        """A pass over all columns.

        C is added at the end. (To start from C would save an instruction, but put all of k in one
        chain of rounding errors; and the sums wait for B anyway.)
        """
        b = ir.gep(self.args.b, self.element, ir.mul(self.args.ldb, p))
        a = [[self._load_a(p, q, row) for row in self.a_rows] for q in range(rows)]
        group = _Pass(b, a, c_use)

        def main_tile(j: Value, _: list[Value]) -> list[Value]:
            return self._tile(group, j, self.spec.nr // self.lanes, self.lanes)

        ir.for_loop(self.stop, [], main_tile, start=self.start, step=self.spec.nr)
        return ir.for_loop(ir.const_i64(2), [], partial(self._edge, group))

    def _load_a(self, p: Value, q: int, row: Value) -> tuple[Value, ...]:
        """The element of A at k = `p` + `q`, times alpha."""
        k_offset = ir.mul(self.a_k_stride, p)
        q_offset = ir.mul(self.a_k_stride, ir.const_i64(q))
        element = self.vectors.load_element(
            ir.gep(self.args.a, self.element, k_offset, row, q_offset)
        )
        if self.factors is None:
            return element
        return complex_arithmetic.scale_element(element, self.factors)

    def _edge(self, group: _Pass, side: Value, _: list[Value]) -> list[Value]:
        """The columns before the main tiles (`side` is 0) or after them (1)."""
        is_left = ir.is_zero(side)
        first = ir.select(is_left, ir.const_i64(0), self.stop)
        last = ir.select(is_left, self.start, self.args.n)

        def masked_vector(j: Value, _: list[Value]) -> list[Value]:
            mask = self.vectors.element_mask(ir.sub(last, j))
            return self._tile(group, j, 1, self.lanes, mask)

        if self.isa.masked:
            return ir.for_loop(last, [], masked_vector, start=first, step=self.lanes)
        return ir.for_loop(last, [], lambda j, _: self._tile(group, j, 1, 1), start=first)

    def _tile(
        self, group: _Pass, j: Value, vectors: int, lanes: int, mask: Value | None = None
    ) -> list[Value]:
        """Multiply and store all rows of C, for `vectors` vectors of columns from `j` on."""
        nanokernel = NativeVectors(self.spec.dtype, lanes)
        is_main = mask is None and lanes == self.lanes
        ahead = self._prefetch_column(group, j, is_main)
        addresses = [
            [ir.gep(self.args.c, self.element, j, row, v * lanes) for v in range(vectors)]
            for row in self.c_rows
        ]
        sums = [[nanokernel.zero_accumulator() for _ in row] for row in addresses]

        def add_row(sums: list[list[Accumulator]], q: int) -> list[list[Accumulator]]:
            row = ir.mul(self.args.ldb, ir.const_i64(q))
            b_row = ir.gep(group.b, self.element, j, row)
            if self.spec.prefetch and is_main:
                step = max(lanes, CACHE_LINE_BYTES // self.itemsize)
                for column in range(0, vectors * lanes, step):
                    ir.prefetch(ir.gep(group.b, self.element, ahead, row, column), ir.TO_L2)
            return compose(
                nanokernel,
                lambda i: nanokernel.splat(group.a[q][i]),
                lambda v: nanokernel.load_b(ir.gep(b_row, self.element, v * lanes), mask),
                sums,
            )

        for q in range(len(group.a)):
            sums = add_row(sums, q)
        for address_row, sum_row in zip(addresses, sums, strict=True):
            for address, accumulator in zip(address_row, sum_row, strict=True):
                value = nanokernel.combine(accumulator)
                value = complex_arithmetic.apply_c_sign(value, self.spec.dtype, self.factors)
                value = self._add_c(group, value, address, mask)
                if self.nontemporal and is_main:
                    ir.store_nontemporal(value, address)
                else:
                    ir.store(value, address, mask)
        return []

    def _prefetch_column(self, group: _Pass, j: Value, is_main: bool) -> Value:
        """The column that is prefetched together with the tile at `j`."""
        args = self.args
        ahead = ir.add(j, ir.const_i64(PREFETCH_DISTANCE_BYTES // self.itemsize))
        if self.spec.prefetch and is_main and self.spec.mr == 1 and self.isa.fused:
            # After the last column it is the first one of the next rows of B. (With more rows of C,
            # or where products need a register, LLVM's schedule would spill.)
            next_rows = ir.mul(args.ldb, ir.const_i64(len(group.a)))
            wrapped = ir.sub(ahead, ir.sub(args.n, next_rows))
            ahead = ir.select(ir.slt(ahead, args.n), ahead, wrapped)
        return ahead

    def _add_c(self, group: _Pass, value: Value, address: Value, mask: Value | None) -> Value:
        """`value`, with C or beta * C added if the pass asks for it."""
        if group.c_use == "overwrite":
            return value
        c = ir.load(value.type, address, mask)
        if group.c_use == "scale" and self.factors is not None:
            beta, beta_imag = self.factors.beta, self.factors.beta_imag
            c = complex_arithmetic.multiply(c, self.spec.dtype, beta, beta_imag)
        return ir.add(c, value)
