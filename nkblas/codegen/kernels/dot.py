"""Dot kernels: products of rows of A and columns of B that both have unit stride along k."""

from collections.abc import Callable, Sequence
from functools import partial

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import (
    CACHE_LINE_BYTES,
    PREFETCH_DISTANCE_BYTES,
    SEGMENT_BYTES,
    Value,
)
from nkblas.codegen.spec import Dot, DotStack

from . import complex_arithmetic
from .call_args import KernelArguments, ScaleFactors
from .convert import convert
from .nanokernel import NativeVectors, compose, flatten, unflatten
from .tile_store import TileOfC, store_tile

INDEPENDENT_CHAINS = 8
"""Accumulators that keep the FMA units busy: two multiply-adds a cycle, with a latency of four."""


MIN_ALIGNED_VECTORS = 16
"""Vectors of k from which on it is worth while to align the loads of an operand."""


def build(spec: Dot, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function: a loop over groups of columns."""
    args, types = KernelArguments(*arguments), spec.types
    b_element, c_element = ir.element_type(types.b), ir.element_type(types.c)

    def columns(j: Value, _: list[Value]) -> list[Value]:
        b = ir.gep(args.b, b_element, ir.mul(args.ldb, j))
        c = ir.gep(args.c, c_element, j)
        tile_args = args._replace(b=b, c=c, n=ir.sub(args.n, j))
        _DotTile(spec, isa, tile_args).emit()
        return []

    ir.for_loop(args.n, [], columns, step=spec.nr)


def build_stack(spec: DotStack, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function: a loop around the code for one row and one column."""
    count, a, a_stride, b, b_stride, c, c_stride = arguments
    element, dot = ir.element_type(spec.dtype), Dot(spec.isa, spec.dtype, 1, 1, "b")
    # Constants, of which LLVM makes straight-line code. There are no prefetches, and no epilogue.
    k, zero, one = map(ir.const_i64, (spec.k, 0, 1))

    def next_product(_: Value, vectors: list[Value]) -> list[Value]:
        a, b, c = vectors
        args = KernelArguments(k, a, one, b, one, c, one, one, zero, *[zero] * 5)
        _DotTile(dot, isa, args).emit()
        strides = zip(vectors, (a_stride, b_stride, c_stride), strict=True)
        return [ir.gep(vector, element, stride) for vector, stride in strides]

    ir.for_loop(count, [a, b, c], next_product)


class _DotTile:
    """The emission of one group of columns, step by step.

    In the last group there may be fewer of them: it computes the last one several times.

    Parameters
    ----------
    spec : Dot
    isa : ISA
    args : KernelArguments
        B and C begin at the first column, and `n` is the number of columns from there on.

    Attributes
    ----------
    tile_registers : int
        Accumulator registers for one vector of k.
    swaps_a : bool
        Whether A, of complex operands, is also multiplied with its real and imaginary parts
        exchanged; if not, B is. It is the operand with fewer lines.
    a_lines, b_lines : list of Value
        Offsets of A's rows and B's columns.
    streamed, streamed_ld, streamed_lines : Value, Value, list of Value
        The operand in the more distant level of memory.
    unrolled_vectors : int
        Vectors of k in an iteration of the main loop, each with accumulators of its own.
    aligns : bool
        Whether loads of the streamed operand are aligned. A vector that crosses a cache line takes
        two loads; the lines have the same alignment only if the leading dimension is a multiple of
        the vector.
    """

    def __init__(self, spec: Dot, isa: ISA, args: KernelArguments) -> None:
        self.spec, self.isa, self.args = spec, isa, args
        self.dtype, self.accumulator = spec.types.a, spec.types.accumulator
        self.element, self.itemsize = ir.element_type(self.dtype), ITEMSIZE[self.dtype]
        is_strided = spec.a_strided or spec.b_strided
        self.lanes = 1 if is_strided else isa.lanes(ITEMSIZE[self.accumulator])
        self.nanokernel = NativeVectors(self.accumulator, self.lanes)
        self.vector_type, self.parts = self.nanokernel.vector_type, self.nanokernel.parts
        self.tile_registers = spec.mr * spec.nr * self.parts
        self.swaps_a = spec.mr < spec.nr
        self.a_lines = [ir.mul(args.lda, ir.const_i64(i)) for i in range(spec.mr)]
        last = ir.sub(args.n, ir.const_i64(1))
        columns = [ir.minsi(ir.const_i64(j), last) for j in range(spec.nr)]
        self.b_lines = [ir.const_i64(0), *(ir.mul(args.ldb, j) for j in columns[1:])]
        self.streamed, self.streamed_ld, self.streamed_lines = (
            (args.a, args.lda, self.a_lines)
            if spec.streamed == "a"
            else (args.b, args.ldb, self.b_lines)
        )
        self.unrolled_vectors = max(1, INDEPENDENT_CHAINS // self.tile_registers)
        self.can_mask = isa.can_mask(self.itemsize)
        self.aligns = self.can_mask and self.unrolled_vectors == 1 and not is_strided

    def emit(self) -> None:
        """Emit the body of the function."""
        k = self.args.k
        start, sums, skipped = ir.const_i64(0), self._zeros(self.tile_registers), None
        if self.aligns:
            start, sums, skipped = self._start_aligned(sums)
        for vectors in dict.fromkeys((self.unrolled_vectors, 1)):
            start, sums = self._k_loop(start, sums, vectors)
        if self.lanes > 1:
            sums = self._last_elements(start, k, sums)
        if skipped is not None:
            # The bits must not depend on where operands are in memory: each lane always holds the
            # sum of the same elements, in the same order.
            shift = ir.mul(skipped, ir.const_i64(self.parts))
            sums = self._rotate_if(skipped, shift, sums)
        self._store(sums)

    def _rotate_if(self, condition: Value, shift: Value, sums: list[Value]) -> list[Value]:
        """Sums with their lanes rotated by `shift`, if an integer is not 0."""

        def rotate() -> list[Value]:
            return [ir.rotate_lanes(value, shift) for value in sums]

        return ir.if_then(ir.is_nonzero(condition), rotate, sums)

    def _zeros(self, count: int) -> list[Value]:
        return [ir.const_zero(self.vector_type)] * count

    def _start_aligned(self, sums: list[Value]) -> tuple[Value, list[Value], Value]:
        """Multiply the elements before the first aligned vector of the streamed operand.

        Returns the k that follows them, the sums, and the lanes that were left out of the vector
        that they are in; 0 if the lines do not have the same alignment.
        """
        lanes = self.lanes
        if len(self.streamed_lines) > 1:
            misaligned_lines = ir.mod_power_of_two(self.streamed_ld, lanes)
        else:
            misaligned_lines = ir.const_i64(0)
        is_long = ir.slt(ir.const_i64(MIN_ALIGNED_VECTORS * lanes - 1), self.args.k)
        can_align = ir.and_(ir.is_zero(misaligned_lines), is_long)
        lane = ir.lane_in_aligned_vector(self.streamed, self.itemsize, lanes)
        skipped = ir.select(can_align, lane, ir.const_i64(0))

        def first_vector() -> list[Value]:
            mask = self.nanokernel.element_mask(ir.add(skipped, self.args.k))
            mask = ir.andnot(mask, self.nanokernel.element_mask(skipped))
            before = ir.sub(ir.const_i64(0), skipped)
            return self._step(before, sums, lambda source: self._load(source, mask))

        sums = ir.if_then(ir.is_nonzero(skipped), first_vector, sums)
        done = ir.mod_power_of_two(ir.sub(ir.const_i64(0), skipped), lanes)
        return ir.minsi(done, self.args.k), sums, skipped

    def _k_loop(self, start: Value, sums: list[Value], vectors: int) -> tuple[Value, list[Value]]:
        """The loop over k from `start` on, with `vectors` vectors in an iteration.

        Returns the k that it stops at, and the sums.
        """
        size, step = self.tile_registers, vectors * self.lanes
        stop = ir.add(start, ir.round_down(ir.sub(self.args.k, start), step))
        chains = sums + self._zeros(size * (vectors - 1))
        chains = ir.for_loop(stop, chains, self._steps, start=start, step=step)
        sums = chains[:size]
        for i in range(size, len(chains), size):
            sums = list(map(ir.add, sums, chains[i : i + size]))
        return stop, sums

    def _steps(self, p: Value, chains: list[Value]) -> list[Value]:
        """One iteration: a vector of k for each set of accumulators."""
        size, new = self.tile_registers, []
        for i in range(len(chains) // size):
            offset = i * self.lanes
            if self.spec.prefetch and offset * self.itemsize % CACHE_LINE_BYTES == 0:
                self._prefetch(p, offset)
            new += self._step(p, chains[i * size :][:size], self._load, offset)
        return new

    def _prefetch(self, p: Value, offset: int) -> None:
        distance = PREFETCH_DISTANCE_BYTES // self.itemsize
        for line in self.streamed_lines:
            ir.prefetch(ir.gep(self.streamed, self.element, p, line, offset + distance), ir.TO_L2)

    def _load(self, source: Value, mask: Value | None = None) -> Value:
        if self.dtype == self.accumulator:
            return ir.load(self.vector_type, source, mask)
        narrow = ir.load(ir.vector_type(self.lanes, self.element), source, mask)
        return convert(narrow, self.dtype, self.accumulator, self.isa)

    def _load_element(self, source: Value) -> Value:
        """One element, in the first lane of a vector."""
        if self.dtype == self.accumulator:
            return ir.load_first_lanes(self.vector_type, source, self.parts)
        narrow = ir.load_first_lanes(ir.vector_type(self.lanes, self.element), source, 1)
        return convert(narrow, self.dtype, self.accumulator, self.isa)

    def _step(
        self, p: Value, sums: list[Value], load: Callable[[Value], Value], offset: int = 0
    ) -> list[Value]:
        """Multiply one vector of each line, from k = `p` + `offset` on."""
        args = self.args
        a_k_stride = args.lda if self.spec.a_strided else None
        b_k_stride = args.ldb if self.spec.b_strided else None

        def load_a(i: int) -> list[Value]:
            address = self._address(args.a, self.a_lines[i], a_k_stride, p, offset)
            return self._operand(load(address), self.swaps_a)

        def load_b(j: int) -> list[Value]:
            address = self._address(args.b, self.b_lines[j], b_k_stride, p, offset)
            return self._operand(load(address), not self.swaps_a)

        tile = unflatten(sums, self.spec.nr, self.parts)
        return flatten(compose(self.nanokernel, load_a, load_b, tile))

    def _address(
        self, start: Value, line: Value, k_stride: Value | None, p: Value, offset: int
    ) -> Value:
        """The address of k = `p` + `offset` in a line; without `k_stride`, k is adjacent."""
        if k_stride is None:
            return ir.gep(start, self.element, p, line, offset)
        return ir.gep(start, self.element, ir.mul(ir.add(p, ir.const_i64(offset)), k_stride))

    def _operand(self, vector: Value, swaps: bool) -> list[Value]:
        """The factors for the parts of an accumulator: see `_apply_part_signs`."""
        return [vector, complex_arithmetic.swap_parts(vector) if swaps else vector][: self.parts]

    def _last_elements(self, start: Value, stop: Value, sums: list[Value]) -> list[Value]:
        """Multiply less than a vector of k.

        Both operands are filled up with zeros, which raise no floating-point exceptions.
        """
        if self.can_mask:
            mask = self.nanokernel.element_mask(ir.sub(stop, start))

            def masked_vector() -> list[Value]:
                return self._step(start, sums, lambda source: self._load(source, mask))

            return ir.if_then(ir.slt(start, stop), masked_vector, sums)

        def element(p: Value, sums: list[Value]) -> list[Value]:
            return self._step(p, sums, self._load_element)

        return ir.for_loop(stop, sums, element, start=start)

    def _store(self, sums: list[Value]) -> None:
        """Add up the lanes of the accumulators, and store the sums to C."""
        spec, args = self.spec, self.args
        part = self.vector_type.element_type
        factors = ScaleFactors.read(args.args, part) if spec.epilogue else None
        signed = self._apply_part_signs(sums, factors)
        values = self._sum_lanes(signed, factors)

        def store_all() -> list[Value]:
            self._store_values(values, args.c, range(0, spec.nr, self.lanes))
            return []

        if spec.nr == 1:
            store_all()
        else:
            is_whole = ir.slt(ir.const_i64(spec.nr - 1), args.n)
            ir.if_else(is_whole, store_all, lambda: self._store_columns(values))

    def _store_values(self, values: Sequence[Value], c: Value, columns: Sequence[int]) -> None:
        """Store vectors, row by row, that start at these columns."""
        spec, args = self.spec, self.args
        masks = [None] * len(columns)
        tile = TileOfC(c, args.ldc, spec.mr, columns, masks, args.accumulate, args.args)
        store_tile(spec.epilogue, self.isa, (self.accumulator, spec.types.c), values, tile)

    def _store_columns(self, values: Sequence[Value]) -> list[Value]:
        """Store the first `n` columns, one by one."""
        spec, parts = self.spec, self.parts
        vectors = len(values) // spec.mr
        c_element = ir.element_type(spec.types.c)

        def store_column(j: int) -> list[Value]:
            vector, lane = divmod(j, self.lanes)
            lanes = range(lane * parts, (lane + 1) * parts)
            rows = [values[i * vectors + vector] for i in range(spec.mr)]
            column = [ir.shuffle(row, row, lanes) for row in rows]
            self._store_values(column, ir.gep(self.args.c, c_element, j), [0])
            return []

        store_column(0)
        for j in range(1, spec.nr):
            is_live = ir.slt(ir.const_i64(j), self.args.n)
            ir.if_then(is_live, partial(store_column, j), [])
        return []

    def _apply_part_signs(
        self, accumulators: list[Value], factors: ScaleFactors | None
    ) -> list[Value]:
        """Accumulators with signs, such that the sum of their lanes is the result.

        The first part of a complex accumulator has the products of real with real and of imaginary
        with imaginary parts. For the second part, one operand has its parts exchanged.
        """
        if self.parts == 1:
            return accumulators
        type_ = accumulators[0].type
        signs = ir.const_alternating(type_, 1, -1), ir.const_one(type_)
        if factors is not None:  # A's imaginary parts may have another sign
            a_sign = ir.splat(factors.a_imag_sign, type_)
            odd, even = ir.const_alternating(type_, 0, 1), ir.const_alternating(type_, 1, 0)
            a_imag, a_real = (even, odd) if self.swaps_a else (odd, even)
            first = ir.fma(a_sign, ir.const_alternating(type_, 0, -1), even)
            signs = first, ir.fma(a_sign, a_imag, a_real)
        return [ir.mul(value, signs[i % 2]) for i, value in enumerate(accumulators)]

    def _sum_lanes(self, sums: Sequence[Value], factors: ScaleFactors | None) -> list[Value]:
        """The results as vectors along n, row by row."""
        spec, parts = self.spec, self.parts
        values = []
        rows_per_vector = max(1, self.lanes // spec.nr)
        row_size, width = spec.nr * parts, self.lanes * parts
        for first in range(0, spec.mr, rows_per_vector):
            rows = range(first, min(first + rows_per_vector, spec.mr))
            segment = min(width, SEGMENT_BYTES * parts // ITEMSIZE[self.accumulator])
            totals = reduce_lanes(sums[rows.start * row_size : rows.stop * row_size], segment)
            for i in rows:
                for j in range(0, spec.nr, self.lanes):
                    vector, lane = divmod((i - first) * row_size + j * parts, width)
                    chosen = range(lane, lane + min(self.lanes, spec.nr - j) * parts)
                    value = ir.shuffle(totals[vector], totals[vector], chosen)
                    values.append(complex_arithmetic.apply_c_sign(value, self.accumulator, factors))
        return values


def reduce_lanes(vectors: Sequence[Value], segment: int) -> list[Value]:
    """The sum of the lanes of each vector; the sums, in order, in as few vectors as they fill.

    Two vectors become one that has half of its lanes for each of them, and so on until each vector
    has one lane left. That is about a third of the work of reducing one vector after the other. It
    starts within segments of `segment` lanes, which is cheaper than across them.
    """
    lanes = vectors[0].type.shape[0]

    def halve(x: Value, y: Value | None, span: int, block: int) -> Value:
        """Add the two halves of each block: in each span, those of x and then those of y."""
        width = x.type.shape[0]
        lower = [
            operand + start + lane
            for first in range(0, width, span)
            for operand in ([0] if y is None else [0, width])
            for start in range(first, first + span, block)
            for lane in range(block // 2)
        ]
        upper = [lane + block // 2 for lane in lower]
        other = x if y is None else y
        return ir.add(ir.shuffle(x, other, lower), ir.shuffle(x, other, upper))

    def halve_pairs(vectors: list[Value], span: int, block: int) -> list[Value]:
        even = vectors + [ir.const_zero(vectors[0].type)] * (len(vectors) % 2)
        return [halve(x, y, span, block) for x, y in zip(even[::2], even[1::2], strict=True)]

    reduced, block = list(vectors), segment
    while block > 1:
        reduced = halve_pairs(reduced, segment, block)
        block //= 2
    block = lanes
    while block > segment:
        if len(reduced) > 1:
            reduced = halve_pairs(reduced, lanes, block)
        else:
            reduced = [halve(x, None, x.type.shape[0], block) for x in reduced]
        block //= 2
    return reduced
