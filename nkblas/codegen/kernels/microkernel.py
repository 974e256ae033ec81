"""Microkernels: the k loop over a register tile, composed of nanokernels."""

from functools import partial
from typing import NamedTuple

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.epilogues import parse
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import CACHE_LINE_BYTES, PREFETCH_DISTANCE_BYTES, Value
from nkblas.codegen.spec import Microkernel

from .activation import ACTIVATION_CODE
from .call_args import BatchBlocks, KBlock, KernelArguments
from .nanokernel import NANOKERNELS, Accumulator, Nanokernel, compose, flatten, unflatten
from .tile_store import TileOfC, store_tile

B_STEPS_AHEAD = 16
"""How many k steps before its use a row of B in place is prefetched into L1."""

PANEL_BYTES_AHEAD = 8192
"""How far ahead a panel that was packed before the call is prefetched: every second line, because
the CPU fetches the adjacent one by itself."""

ROWS_PER_STEP = 2
"""With tile registers, the rows of C that each k step prefetches for the next tile, and the rows of
A of which it prefetches one line for the next row of tiles."""


def build(spec: Microkernel, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function."""
    emitter = _PanelSweep if spec.descriptor.tile_rows else _RegisterTile
    emitter(spec, isa, KernelArguments(*arguments)).emit()


class _AStrides(NamedTuple):
    """How a microkernel walks through A; all distances are in elements.

    Attributes
    ----------
    group_offsets : list of Value or int
        Offset of the first row of each row group.
    row : Value
        Distance between rows of a group.
    next_pass : Value
        Distance from one pass of a k step to the next.
    step : Value or int
        Distance from one k step to the next.
    """

    group_offsets: list[Value | int]
    row: Value
    next_pass: Value
    step: Value | int

    @classmethod
    def of(cls, spec: Microkernel, lda: Value, groups: list[tuple[int, int]]) -> "_AStrides":
        """The strides of `spec`'s A, for the row groups of its nanokernel."""
        family = spec.descriptor
        if spec.a_layout == "row":
            offsets = [ir.mul(lda, ir.const_i64(first)) for first, _ in groups]
            return cls(offsets, lda, ir.const_i64(1), family.k_step)
        offsets = [first * family.k_group_a for first, _ in groups]
        row = ir.const_i64(family.k_group_a)
        return cls(offsets, row, lda, ir.mul(lda, ir.const_i64(family.k_step)))


class _Emitter:
    """Base class of both forms of microkernels: operand types, addresses and prefetches.

    Attributes
    ----------
    vectors : range
        The vectors of a row of the tile.
    groups : list of (int, int)
        The row groups of the tile: first row and number of rows.
    """

    def __init__(self, spec: Microkernel, isa: ISA, args: KernelArguments) -> None:
        self.spec, self.isa, self.args = spec, isa, args
        self.family, types = spec.descriptor, spec.types
        self.nanokernel = NANOKERNELS[spec.family](isa, self.family, types.a, types.b)
        self.a_element, self.b_element, self.c_element = map(
            ir.element_type, (types.a, types.b, types.c)
        )
        self.b_itemsize, self.c_itemsize = ITEMSIZE[types.b], ITEMSIZE[types.c]
        self.lanes = self.nanokernel.lanes
        self.vectors = range(spec.nr // self.lanes)
        self.groups = self.nanokernel.row_groups(spec.mr)
        self.dtypes = types.accumulator, types.c

    def zero_tile(self) -> list[list[Accumulator]]:
        """The accumulators at the start of the k loop."""
        return [
            [self.nanokernel.zero_accumulator(count) for _ in self.vectors]
            for _, count in self.groups
        ]

    def unflatten(self, flat: list[Value]) -> list[list[Accumulator]]:
        """The tile that a loop carries."""
        return unflatten(flat, len(self.vectors), self.family.accumulator_registers)

    def load_a(self, a: Value, strides: _AStrides, group: int) -> Value:
        """One row group's operand, from A at the current k."""
        address = ir.gep(a, self.a_element, strides.group_offsets[group])
        return self.nanokernel.load_a(address, self.groups[group][1], strides.row)

    def b_address(self, b: Value, vector: int) -> Value:
        """The address of a vector in a row (with groups of k, in a group of rows) of B."""
        return ir.gep(b, self.b_element, vector * self.lanes * self.family.k_group_b)

    def prefetch_c(self) -> None:
        """Prefetch the tile of C, before the k loop."""
        c, ldc = self.args.c, self.args.ldc
        for i in range(self.spec.mr):
            for j in range(0, self.spec.nr, self.lanes):
                ir.prefetch_for_write(ir.gep(c, self.c_element, ir.mul(ldc, ir.const_i64(i)), j))

    def prefetch_panel(self, b: Value) -> None:
        """Prefetch as much of B's panel as a k step reads; the next panel follows it in memory."""
        step_bytes = self.spec.nr * self.family.k_step * self.b_itemsize
        for byte in range(0, step_bytes, 2 * CACHE_LINE_BYTES):
            offset = (byte + PANEL_BYTES_AHEAD) // self.b_itemsize
            ir.prefetch(ir.gep(b, self.b_element, offset), ir.TO_L2)


class _RegisterTile(_Emitter):
    """A microkernel on vector registers, which computes one register tile.

    A k step is one iteration of the loop, and addresses are left to LLVM, which needs two registers
    for the rows of A in place. With k unrolled in the generator, LLVM's scheduler moves the loads
    together and spills accumulators.
    """

    def __init__(self, spec: Microkernel, isa: ISA, args: KernelArguments) -> None:
        super().__init__(spec, isa, args)
        self.c_masks = self._column_masks()
        # Packed panels are whole.
        masks_b = self.family.k_group_b == 1 and isa.can_mask(self.b_itemsize)
        self.b_masks = self.c_masks if masks_b else [None] * len(self.vectors)
        self.prefetch_c()
        self.scratch = self._allocate_scratch()
        self.a_strides = _AStrides.of(spec, args.lda, self.groups)
        self.b_ahead = ir.mul(args.ldb, ir.const_i64(B_STEPS_AHEAD))
        self.b_step = ir.mul(args.ldb, ir.const_i64(self.family.k_step))

    def emit(self) -> None:
        """Emit the body of the function."""
        args, spec = self.args, self.spec
        b, tile = args.b, self.zero_tile()
        if self.family.compensation:
            b, tile = _start_from_compensation(self.nanokernel, b, args.ldb, tile)
        if spec.batch_reduce:
            flat = self._loop_over_blocks(b, flatten(tile))
        else:
            flat = self._k_loop(b, flatten(tile))
        sums = self.nanokernel.combine(self.unflatten(flat), spec.epilogue, args.args)
        columns = range(0, spec.nr, self.lanes)
        target = TileOfC(
            args.c, args.ldc, spec.mr, columns, self.c_masks, args.accumulate, args.args,
            scratch=self.scratch,
        )  # fmt: skip
        store_tile(spec.epilogue, self.isa, self.dtypes, sums, target)

    def _column_masks(self) -> list[Value | None]:
        """The mask of each vector of a row: only the last one can be an edge."""
        edge = None
        if self.spec.masked:
            whole = (len(self.vectors) - 1) * self.lanes
            edge = self.nanokernel.column_mask(ir.add(self.args.n, ir.const_i64(-whole)))
        return [None] * (len(self.vectors) - 1) + [edge]

    def _allocate_scratch(self) -> Value | None:
        """A buffer for the tile, if its activation is emitted as a loop over rows."""
        activation = ACTIVATION_CODE.get(parse(self.spec.epilogue).activation)
        if activation is None or not activation.is_long:
            return None
        return ir.alloca(self.spec.mr * self.spec.nr, self.nanokernel.vector_type.element_type)

    def _k_loop(self, b: Value, flat: list[Value]) -> list[Value]:
        """The accumulators after the k loop; its first steps prefetch the caller's lines too."""
        args = self.args
        iter_args = [args.line, args.a, b, args.panel, *flat]
        _, *iter_args = ir.for_loop(args.lines, iter_args, self._step_and_prefetch_line)
        return ir.for_loop(args.k, iter_args, self._step, start=args.lines)[3:]

    def _loop_over_blocks(self, b: Value, flat: list[Value]) -> list[Value]:
        """The accumulators after the k loops of all blocks of a batch-reduce product."""
        args = self.args
        blocks = BatchBlocks.read(args.args)
        a_offset = ir.ptr_diff(args.a, ir.load(ir.ptr(), blocks.a))
        b_offset = ir.ptr_diff(b, ir.load(ir.ptr(), blocks.b))
        byte = ir.int_type(8)

        def block_start(addresses: Value, i: Value, offset: Value) -> Value:
            address = ir.load(ir.ptr(), ir.gep(addresses, ir.i64(), i))
            return ir.gep(address, byte, offset)

        def block(i: Value, flat: list[Value]) -> list[Value]:
            a = block_start(blocks.a, i, a_offset)
            b = block_start(blocks.b, i, b_offset)
            return ir.for_loop(args.k, [a, b, args.panel, *flat], self._step)[3:]

        return ir.for_loop(blocks.count, flat, block)

    def _step_and_prefetch_line(self, p: Value, iter_args: list[Value]) -> list[Value]:
        line, *rest = iter_args
        ir.prefetch(line, ir.TO_L2)
        return [ir.gep(line, ir.int_type(8), self.args.line_step), *self._step(p, rest)]

    def _step(self, _: Value, iter_args: list[Value]) -> list[Value]:
        """One k step; `iter_args` are the positions in A, B and the packed panel, and the tile."""
        a, b, panel, *flat = iter_args
        spec = self.spec
        self._prefetch_b(b)
        tile = self.unflatten(flat)
        for index in range(self.nanokernel.passes):
            a_pass = a
            if index:
                offset = ir.mul(self.a_strides.next_pass, ir.const_i64(index))
                a_pass = ir.gep(a, self.a_element, offset)
            load_a = partial(self.load_a, a_pass, self.a_strides)
            load_b = partial(self._load_b, b, panel, index)
            tile = compose(self.nanokernel, load_a, load_b, tile)
        return [
            ir.gep(a, self.a_element, self.a_strides.step),
            ir.gep(b, self.b_element, self.b_step),
            ir.gep(panel, self.b_element, spec.nr) if spec.packs_b else panel,
            *flatten(tile),
        ]

    def _prefetch_b(self, b: Value) -> None:
        """Prefetch B for a later k step, into the level that the spec asks for."""
        spec = self.spec
        if spec.packs_b:
            row = ir.gep(b, self.b_element, self.b_ahead)
            line = CACHE_LINE_BYTES // self.b_itemsize
            for column in (*range(0, spec.nr, line), spec.nr - 1):
                ir.prefetch(ir.gep(row, self.b_element, column))
        if spec.prefetch:
            distance = PREFETCH_DISTANCE_BYTES // self.b_itemsize
            for column in range(0, spec.nr, max(self.lanes, CACHE_LINE_BYTES // self.b_itemsize)):
                ir.prefetch(ir.gep(b, self.b_element, column + distance), ir.TO_L2)
        if spec.panel_ahead:
            self.prefetch_panel(b)

    def _load_b(self, b: Value, panel: Value, pass_index: int, j: int) -> Value:
        """Vector `j` of B; it is also stored to the panel if the kernel packs B."""
        address = self.b_address(b, j)
        vector = self.nanokernel.load_b(address, self.b_masks[j], self.args.ldb, pass_index)
        if self.spec.packs_b:
            ir.store(vector, ir.gep(panel, self.b_element, j * self.lanes))
        return vector


def _start_from_compensation(
    nanokernel: Nanokernel, b: Value, ldb: Value, tile: list[list[Accumulator]]
) -> tuple[Value, list[list[Accumulator]]]:
    """B after the compensation row of its panel, and accumulators that start from that row."""
    type_ = nanokernel.vector_type
    addresses = [ir.gep(b, type_.element_type, j * nanokernel.lanes) for j in range(len(tile[0]))]
    row: list[Accumulator] = [(ir.load(type_, address),) for address in addresses]
    # The panel, and so its first row, may be wider than the tile.
    return ir.gep(b, type_.element_type, ldb), [row for _ in tile]


class _PanelSweep(_Emitter):
    """A microkernel on tile registers, which computes the tiles of all panels of B.

    Tile registers are configured once for a call: that takes as long as ten of their multiply-adds.

    Attributes
    ----------
    continues_sums : bool
        Whether the accumulators start from the sums of the block of k before: those in C, or in the
        buffer of partial sums. (An epilogue with alpha has scaled C's.)
    """

    def __init__(self, spec: Microkernel, isa: ISA, args: KernelArguments) -> None:
        super().__init__(spec, isa, args)
        self.a_strides = _AStrides.of(spec, args.lda, self.groups)
        self.width = ir.const_i64(spec.nr)
        self.c_prefetch_steps = ir.minsi(args.k, ir.const_i64(-(-spec.mr // ROWS_PER_STEP)))
        self.buffer = ir.alloca(spec.mr * spec.nr, self.nanokernel.vector_type.element_type)
        self.epilogue = parse(spec.epilogue)
        sum_dtype, c_dtype = self.dtypes
        self.c_holds_sums = sum_dtype == c_dtype
        self.continues_sums = self.epilogue.kind != "scale" or not self.c_holds_sums
        self.k_block = KBlock.read(args.args)
        self.accumulate = ir.is_nonzero(args.accumulate)
        if self.continues_sums and self.c_holds_sums:
            self.accumulate = ir.and_(self.accumulate, self.k_block.is_first)

    def emit(self) -> None:
        """Emit the body of the function."""
        args = self.args
        self.prefetch_c()
        ir.for_loop(args.n, [args.b, args.c, args.line], self._panel, step=self.spec.nr)

    def _panel(self, column: Value, iter_args: list[Value]) -> list[Value]:
        """Compute and store the tile of one panel of B.

        `iter_args` are the panel, the tile of C, and a row of A for the next call.
        """
        b, c, line = iter_args
        left = ir.sub(self.args.n, column)
        next_panel, tile = self._k_loop(b, c, line, self._first_tile(c, column, left))

        def store_through_buffer() -> list[Value]:
            return self._store_through_buffer(tile, c, column, left)

        def store_directly() -> list[Value]:
            target, row_stride = c, self.args.ldc
            if not self.c_holds_sums:
                target, row_stride = self._partial_sums(column), self.width
            self.nanokernel.store_accumulators(tile, self.spec.mr, target, row_stride)
            return []

        if self.c_holds_sums and not self.continues_sums:
            store_through_buffer()
        else:
            ir.if_else(self._needs_vectors(left), store_through_buffer, store_directly)
        line_offset = ir.mul(self.args.line_step, ir.const_i64(ROWS_PER_STEP))
        next_line = ir.gep(line, ir.int_type(8), line_offset)
        return [next_panel, ir.gep(c, self.c_element, self.spec.nr), next_line]

    def _needs_vectors(self, left: Value) -> Value:
        """Whether a tile can't be stored as it is, with `left` columns from its first one on."""
        if not self.c_holds_sums:
            return self.k_block.is_last
        needs_vectors = ir.or_(ir.slt(left, self.width), self.accumulate)
        if self.epilogue.is_fused:
            needs_vectors = ir.or_(needs_vectors, self.k_block.is_last)
        return needs_vectors

    def _partial_sums(self, column: Value) -> Value:
        """The address of a tile's sums between blocks of k."""
        element = self.nanokernel.vector_type.element_type
        offset = ir.mul(column, ir.const_i64(self.spec.mr))
        return ir.gep(self.k_block.partial_sums, element, offset)

    def _first_tile(self, c: Value, column: Value, left: Value) -> list[Value]:
        """The accumulators before the k loop."""
        zeros = flatten(self.zero_tile())
        if not self.continues_sums:
            return zeros

        def load_sums() -> list[Value]:
            source, row_stride = self._partial_sums(column), self.width
            if self.c_holds_sums:
                types = [source.type, row_stride.type]
                is_edge = ir.slt(left, self.width)
                source, row_stride = ir.if_else(
                    is_edge,
                    lambda: self._copy_to_buffer(c, left),
                    lambda: [c, self.args.ldc],
                    types,
                )
            rows, vectors = self.spec.mr, len(self.vectors)
            return flatten(self.nanokernel.load_accumulators(rows, vectors, source, row_stride))

        return ir.if_else(
            self.k_block.is_first, lambda: zeros, load_sums, [value.type for value in zeros]
        )

    def _copy_to_buffer(self, c: Value, left: Value) -> list[Value]:
        """Copy a tile with `left` columns; the buffer, and the distance between its rows."""
        element, masks = self.c_element, self._column_masks(left)

        def copy_row(i: Value, _: list[Value]) -> list[Value]:
            row = ir.gep(c, element, ir.mul(self.args.ldc, i))
            target = ir.gep(self.buffer, element, ir.mul(self.width, i))
            for j, mask in zip(self.vectors, masks, strict=True):
                address = ir.gep(row, element, j * self.lanes)
                vector = ir.load(self.nanokernel.vector_type, address, mask)
                ir.store(vector, ir.gep(target, element, j * self.lanes))
            return []

        ir.for_loop(ir.const_i64(self.spec.mr), [], copy_row)
        return [self.buffer, self.width]

    def _column_masks(self, left: Value) -> list[Value]:
        """The mask of each vector of a row with `left` columns."""
        starts = [j * self.lanes for j in self.vectors]
        return [ir.create_mask(self.lanes, ir.add(left, ir.const_i64(-j))) for j in starts]

    def _k_loop(
        self, b: Value, c: Value, line: Value, flat: list[Value]
    ) -> tuple[Value, list[list[Accumulator]]]:
        """The address after the panel, and the accumulators after the k loop."""
        iter_args = [c, line, self.args.a, b, *flat]
        _, *iter_args = ir.for_loop(self.c_prefetch_steps, iter_args, self._step_and_prefetch_c)
        start = self.c_prefetch_steps
        _, _, next_panel, *flat = ir.for_loop(self.args.k, iter_args, self._step, start=start)
        return next_panel, self.unflatten(flat)

    def _step_and_prefetch_c(self, p: Value, iter_args: list[Value]) -> list[Value]:
        """A k step that also prefetches rows of the next tile of C.

        Most matrices start within a cache line: with the lines of the last elements of vectors, all
        that this tile does not have are covered.
        """
        row, *rest = iter_args
        nr, ldc = self.spec.nr, self.args.ldc
        line = max(self.lanes, CACHE_LINE_BYTES // self.c_itemsize)
        for i in range(ROWS_PER_STEP):
            for j in range(nr, 2 * nr, line):
                offset = ir.mul(ldc, ir.const_i64(i))
                last = min(j + line, 2 * nr) - 1
                ir.prefetch_for_write(ir.gep(row, self.c_element, offset, last))
        next_row = ir.gep(row, self.c_element, ir.mul(ldc, ir.const_i64(ROWS_PER_STEP)))
        return [next_row, *self._step(p, rest)]

    def _step(self, _: Value, iter_args: list[Value]) -> list[Value]:
        """One k step; `iter_args` are the line to prefetch, A and B, and the tile."""
        line, a, b, *flat = iter_args
        byte = ir.int_type(8)
        for i in range(ROWS_PER_STEP):
            offset = ir.mul(self.args.line_step, ir.const_i64(i))
            ir.prefetch(ir.gep(line, byte, offset), ir.TO_L2)
        if self.spec.panel_ahead:
            self.prefetch_panel(b)

        def load_b(j: int) -> Value:
            return self.nanokernel.load_b(self.b_address(b, j), None, self.width, 0)

        load_a = partial(self.load_a, a, self.a_strides)
        tile = compose(self.nanokernel, load_a, load_b, self.unflatten(flat))
        next_a = ir.gep(a, self.a_element, self.a_strides.step)
        next_b = ir.gep(b, self.b_element, self.spec.nr * self.family.k_step)
        return [ir.gep(line, byte, CACHE_LINE_BYTES), next_a, next_b, *flatten(tile)]

    def _store_through_buffer(
        self, tile: list[list[Accumulator]], c: Value, column: Value, left: Value
    ) -> list[Value]:
        """Store accumulators to the buffer, then store its rows to C with the epilogue.

        `left` is the number of columns from the tile's first one to the end.
        """
        spec, args, nanokernel = self.spec, self.args, self.nanokernel
        nanokernel.store_accumulators(tile, spec.mr, self.buffer, self.width)
        columns, masks = [j * self.lanes for j in self.vectors], self._column_masks(left)
        accumulate = ir.zext(self.accumulate, 64)

        def store_row(i: Value, _: list[Value]) -> list[Value]:
            offset = ir.mul(i, self.width)
            sums = nanokernel.load_row(self.buffer, offset, len(self.vectors))
            c_row = ir.gep(c, self.c_element, ir.mul(args.ldc, i))
            row = TileOfC(
                c_row, args.ldc, 1, columns, masks, accumulate, args.args, i, column,
                has_all_sums=self.continues_sums,
            )  # fmt: skip
            store_tile(spec.epilogue, self.isa, self.dtypes, sums, row)
            return []

        ir.for_loop(ir.const_i64(spec.mr), [], store_row)
        return []
