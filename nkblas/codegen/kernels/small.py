"""Small kernels: products of one constant m, n and k, for each matrix of a stack.

Everything is known when the kernel is generated: the tiles of C, the width of each vector, and
every address as a displacement. Nothing is packed, except for a B that is contiguous along k, whose
columns are transposed into rows. A stack is a loop around straight-line code, in which products
overlap in the CPU's out-of-order window.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, product
from typing import NamedTuple, TypeAlias

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.families import Family, families
from nkblas.base.isa import ISA
from nkblas.base.tiling import split_evenly
from nkblas.codegen import ir
from nkblas.codegen.ir import SEGMENT_BYTES, Type, Value
from nkblas.codegen.spec import Small

from . import tiny
from .nanokernel import Accumulator, NativeVectors, compose, flatten, unflatten
from .packing import COMPLEX_PAIR_BYTES, element_type_for_copy, transpose

MIN_L1_BYTES = 32 << 10
"""Size of the smallest L1 cache: columns of B up to this size stay in it."""

MAX_UNROLLED_FMAS = 400
"""Multiply-adds up to which k is unrolled: with more, code and compilation time would grow."""

UNROLLED_REGISTER_SHARE = 0.6
"""Share of the registers that a tile may take where k is unrolled: in long straight-line code, LLVM
moves loads together, which takes registers."""

# Costs of a tile, by which tiles are chosen, in the time of a multiply-add. Arrays of NumPy are
# aligned to 16 bytes: half of the vectors of AVX2 cross a cache line, and take two loads.
A_LOAD_COST = 1
B_LOAD_COST_L1, B_LOAD_COST_L2 = 1.5, 3
FMA_LATENCY_COST = 4
TILE_COST = 8
"""Start and end of a tile."""


class Piece(NamedTuple):
    """Some columns of C, in one vector.

    Attributes
    ----------
    column : int
        The first of them.
    lanes : int
        Elements of the vector.
    live : int
        Elements that are part of C.
    """

    column: int
    lanes: int
    live: int


def pieces(n: int, isa: ISA, itemsize: int) -> list[Piece]:
    """Divide n columns into vectors: whole ones, and the narrowest that hold the remainder."""
    whole = isa.lanes(itemsize)
    vectors = [Piece(column, whole, whole) for column in range(0, n - n % whole, whole)]
    start, left = n - n % whole, n % whole
    # Two elements in a wider register would compute in lanes that are not part of C.
    narrow = [bits // 8 // itemsize for bits in (128, 256) if bits < isa.vector_bits]
    while left:
        fitting = [lanes for lanes in (1, *narrow, whole) if lanes == left]
        if not fitting and isa.masked:
            fitting = [lanes for lanes in (*narrow, whole) if lanes > left]
        lanes = fitting[0] if fitting else 1
        vectors.append(Piece(start, lanes, min(left, lanes)))
        start, left = start + lanes, left - min(left, lanes)
    return vectors


Columns: TypeAlias = tuple[Piece, ...]
"""The vectors of a tile, whose columns are counted from the tile's first one."""


class Tiles(NamedTuple):
    """How C is divided into register tiles.

    Attributes
    ----------
    rows : list of (int, int)
        From top to bottom: the height of tiles, and the number of tiles of that height.
    columns : list of (Columns, int)
        From left to right: the vectors of a tile, and the number of such tiles.
    """

    rows: list[tuple[int, int]]
    columns: list[tuple[Columns, int]]


def _family(spec: Small, isa: ISA) -> Family:
    return families(spec.dtype, isa)[0]


def is_unrolled(spec: Small, isa: ISA) -> bool:
    """Whether k is unrolled."""
    vectors = len(pieces(spec.n, isa, ITEMSIZE[spec.dtype]))
    fmas = spec.m * spec.k * vectors * _family(spec, isa).accumulator_registers
    return fmas <= MAX_UNROLLED_FMAS


def tiles(spec: Small, isa: ISA) -> Tiles:
    """Divide C into register tiles, in the way that costs least."""
    columns = pieces(spec.n, isa, ITEMSIZE[spec.dtype])
    mr, vectors = _best_tile(spec, isa, columns)
    height, main_rows, edge_height, grid_rows = split_evenly(spec.m, mr)
    width, main_columns, edge_width, grid_columns = split_evenly(len(columns), vectors)
    groups, first = [], 0
    for j in range(grid_columns):
        group = columns[first : first + (width if j < main_columns else edge_width)]
        first += len(group)
        start = group[0].column
        groups.append(tuple(piece._replace(column=piece.column - start) for piece in group))
    rows = ((height, main_rows), (edge_height, grid_rows - main_rows))
    return Tiles(
        [(height, count) for height, count in rows if count],
        [(group, len(list(same))) for group, same in groupby(groups)],
    )


def _best_tile(spec: Small, isa: ISA, columns: list[Piece]) -> tuple[int, int]:
    """Rows and vectors of the register tile that costs least."""
    share = UNROLLED_REGISTER_SHARE if is_unrolled(spec, isa) else 1
    family = _family(spec, isa)
    has_edge = any(piece.live < piece.lanes for piece in columns)

    def cost(height: int, width: int) -> float:
        is_in_l1 = spec.k * width * isa.vector_bits // 8 <= MIN_L1_BYTES
        b_load = B_LOAD_COST_L1 if is_in_l1 else B_LOAD_COST_L2
        loads = height * family.a_registers * A_LOAD_COST + width * b_load
        fmas = height * width * family.accumulator_registers
        return spec.k * max(fmas, loads, FMA_LATENCY_COST) + TILE_COST

    def candidates() -> Iterator[tuple[float, int, int]]:
        for mr, vectors in product(range(1, spec.m + 1), range(1, len(columns) + 1)):
            height, main_rows, edge_height, grid_rows = split_evenly(spec.m, mr)
            width, main_columns, edge_width, grid_columns = split_evenly(len(columns), vectors)
            needed = family.registers_needed(isa, height, width, has_edge)
            if height * width > 1 and needed > share * isa.registers:
                continue
            heights = ((height, main_rows), (edge_height, grid_rows - main_rows))
            widths = ((width, main_columns), (edge_width, grid_columns - main_columns))
            total = sum(
                rows * columns * cost(height, width)
                for (height, rows), (width, columns) in product(heights, widths)
                if rows and columns
            )
            yield total, height, width

    _, height, width = min(candidates())
    return height, width


class _BRows(NamedTuple):
    """Rows of B, or of some of its columns.

    Attributes
    ----------
    start : Value
        Address of the first row.
    stride : int
        Distance between rows, in elements.
    offsets : dict of Piece to int
        Where each vector of a row starts.
    masks : dict of Piece to Value
        The masks of the vectors that are not whole.
    """

    start: Value
    stride: int
    offsets: dict[Piece, int]
    masks: dict[Piece, Value]


Accumulators: TypeAlias = list[list[Accumulator]]


class _Scalars(NativeVectors):
    """Elements of A that are broadcast to vectors of different widths."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype, 1)
        self.a_registers = self.parts

    def multiply_add(
        self, a: Sequence[Value], b: Sequence[Value], accumulator: Accumulator
    ) -> Accumulator:
        """The accumulator plus the products of A's parts with B's vectors."""
        wide = [x if x.type == y.type else ir.splat(x, y.type) for x, y in zip(a, b, strict=True)]
        return super().multiply_add(wide, b, accumulator)


def build(spec: Small, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function."""
    count, a, a_stride, b, b_stride, c, c_stride = arguments
    element = ir.element_type(spec.dtype)
    if tiny.is_tiny(spec, isa):
        emit_product: Callable[[Value, Value, Value], None] = tiny.emitter(spec, isa)
    else:
        emit_product = _SmallProduct(spec, isa).emit

    def next_product(_: Value, matrices: list[Value]) -> list[Value]:
        emit_product(*matrices)
        strides = zip(matrices, (a_stride, b_stride, c_stride), strict=True)
        return [ir.gep(matrix, element, stride) for matrix, stride in strides]

    ir.for_loop(count, [a, b, c], next_product)


class _SmallProduct:
    """Emits one product.

    Attributes
    ----------
    unrolls : bool
        Whether all loops are unrolled.
    masks : dict of Piece to Value
        The masks of the vectors that are not whole.
    panel : Value or None
        A buffer for columns of B, transposed into rows.
    """

    def __init__(self, spec: Small, isa: ISA) -> None:
        self.spec, self.isa, self.element = spec, isa, ir.element_type(spec.dtype)
        self.tiles, self.unrolls = tiles(spec, isa), is_unrolled(spec, isa)
        self.masks = {
            piece: NativeVectors(spec.dtype, piece.lanes).element_mask(ir.const_i64(piece.live))
            for columns, _ in self.tiles.columns
            for piece in columns
            if piece.live < piece.lanes
        }
        self.panel = None
        if spec.b_layout == "col":
            widths = [sum(piece.lanes for piece in columns) for columns, _ in self.tiles.columns]
            self.panel = ir.alloca(spec.k * max(widths), self.element)

    def emit(self, a: Value, b: Value, c: Value) -> None:
        """Emit the product of matrices at three addresses."""
        addresses = [b, c]
        for columns, count in self.tiles.columns:
            addresses = self._repeat(count, addresses, partial(self._tile_column, a, columns))

    def _repeat(
        self, count: int, iter_args: list[Value], body: Callable[[list[Value]], list[Value]]
    ) -> list[Value]:
        """A loop of `count` iterations, or as many copies of its body."""
        if not self.unrolls and count > 1:
            return ir.for_loop(ir.const_i64(count), iter_args, lambda _, args: body(args))
        for _ in range(count):
            iter_args = body(iter_args)
        return iter_args

    def _advance(self, addresses: list[Value], *distances: int) -> list[Value]:
        pairs = zip(addresses, distances, strict=True)
        return [ir.gep(address, self.element, distance) for address, distance in pairs]

    def _tile_column(self, a: Value, columns: Columns, addresses: list[Value]) -> list[Value]:
        """All tiles of some columns of C; `addresses` are the addresses of B and C."""
        spec, (b, c) = self.spec, addresses
        rows = _BRows(b, spec.n, {piece: piece.column for piece in columns}, self.masks)
        if self.panel is not None:
            rows = self._transpose_columns(columns, b, self.panel)

        def tile(height: int, addresses: list[Value]) -> list[Value]:
            self._tile(height, columns, addresses[0], rows, addresses[1])
            a_row = spec.k if spec.a_layout == "row" else 1
            return self._advance(addresses, height * a_row, height * spec.n)

        down = [a, c]
        for height, count in self.tiles.rows:
            down = self._repeat(count, down, partial(tile, height))
        width = sum(piece.live for piece in columns)
        b_column = 1 if spec.b_layout == "row" else spec.k
        return self._advance(addresses, width * b_column, width)

    def _transpose_columns(self, columns: Columns, b: Value, panel: Value) -> _BRows:
        """Transpose some columns of B, which are contiguous along k, into rows of the panel.

        Lanes beyond the last column repeat it.
        """
        spec = self.spec
        segment = SEGMENT_BYTES // ITEMSIZE[spec.dtype]
        while segment > spec.k:
            segment //= 2
        width, offsets = 0, {}
        for piece in columns:
            offsets[piece] = width
            width += piece.lanes

        def transpose_segment(addresses: list[Value]) -> list[Value]:
            """For as many values of k as a segment holds."""
            b, panel = addresses
            for piece in columns:
                rows = self._transpose_piece(piece, b, segment)
                for i, row in enumerate(rows):
                    ir.store(row, ir.gep(panel, self.element, i * width + offsets[piece]))
            return self._advance(addresses, segment, segment * width)

        last = spec.k - segment  # the last segment may overlap the one before
        self._repeat(-(-last // segment), [b, panel], transpose_segment)
        transpose_segment(self._advance([b, panel], last, last * width))
        return _BRows(panel, width, offsets, {})

    def _transpose_piece(self, piece: Piece, b: Value, segment: int) -> Iterator[Value]:
        """The rows of one vector of columns, for `segment` values of k, in order."""
        size = min(segment, piece.lanes)
        lines = [
            ir.gep(b, self.element, (piece.column + min(i, piece.live - 1)) * self.spec.k)
            for i in range(piece.lanes)
        ]
        type_ = _copy_type(self.spec.dtype, size)
        for p in range(0, segment, size):
            parts = [ir.load(type_, ir.gep(line, self.element, p)) for line in lines]
            vectors = [ir.concatenate(parts[i::size]) for i in range(size)]
            yield from transpose(vectors)

    def _tile(self, height: int, columns: Columns, a: Value, b: _BRows, c: Value) -> None:
        """Multiply and store one tile, whose first elements are at `a`, `b` and `c`."""
        spec = self.spec
        vectors = [NativeVectors(spec.dtype, piece.lanes) for piece in columns]
        sums = [[vector.zero_accumulator() for vector in vectors] for _ in range(height)]
        sums = self._multiply(columns, vectors, a, b, sums)
        for i, row in enumerate(sums):
            for piece, vector, accumulator in zip(columns, vectors, row, strict=True):
                address = ir.gep(c, self.element, i * spec.n + piece.column)
                live = piece.live * vector.parts
                value = vector.combine(accumulator)
                ir.store_first_lanes(value, address, live, self.isa.mask_registers)

    def _multiply(
        self,
        columns: Columns,
        vectors: list[NativeVectors],
        a: Value,
        b: _BRows,
        sums: Accumulators,
    ) -> Accumulators:
        """The k loop of one tile, or straight-line code."""
        spec, scalars = self.spec, _Scalars(self.spec.dtype)
        a_row, a_column = (spec.k, 1) if spec.a_layout == "row" else (1, spec.m)
        broadcasts = None
        if self.unrolls and self.isa.registers > 16:
            broadcasts = _SegmentBroadcasts(spec, columns, a)

        def step(p: int, a: Value, b_row: Value, sums: Accumulators) -> Accumulators:
            def load_b(j: int) -> Sequence[Value]:
                piece = columns[j]
                source = ir.gep(b_row, self.element, p * b.stride + b.offsets[piece])
                return vectors[j].load_b(source, b.masks.get(piece))

            def load_a(i: int) -> Sequence[Value]:
                if broadcasts and broadcasts.has(i, p):
                    return [broadcasts.broadcast(i, p)]
                return scalars.load_element(ir.gep(a, self.element, i * a_row + p * a_column))

            return compose(scalars, load_a, load_b, sums)

        if self.unrolls:
            for p in range(spec.k):
                sums = step(p, a, b.start, sums)
            return sums

        def loop_step(_: Value, iter_args: list[Value]) -> list[Value]:
            a, b_row, *flat = iter_args
            new = step(0, a, b_row, unflatten(flat, len(columns), scalars.parts))
            return [*self._advance([a, b_row], a_column, b.stride), *flatten(new)]

        iter_args = [a, b.start, *flatten(sums)]
        _, _, *flat = ir.for_loop(ir.const_i64(spec.k), iter_args, loop_step)
        return unflatten(flat, len(columns), scalars.parts)


def _copy_type(dtype: str, count: int) -> Type:
    """The type of `count` elements that are only copied."""
    element = element_type_for_copy(dtype)
    if dtype in REAL_PART and ITEMSIZE[dtype] > COMPLEX_PAIR_BYTES:
        return ir.vector_type(2 * count, element.element_type)
    return ir.vector_type(count, element)


class _SegmentBroadcasts:
    """Elements of A that are broadcast from registers instead of loaded one by one.

    Where each element of A feeds a single vector, loads are the bottleneck. For every other segment
    of A, one load brings the segment into all segments of a vector, and shuffles within segments
    broadcast its elements. With longer vectors, or with fewer elements in a segment, shuffles take
    as long as loads.
    """

    def __init__(self, spec: Small, columns: Columns, a: Value) -> None:
        self.spec, self.a, self.element = spec, a, ir.element_type(spec.dtype)
        self.size, self.lanes = SEGMENT_BYTES // ITEMSIZE[spec.dtype], columns[0].lanes
        is_bound_by_loads = spec.a_layout == "row" and len(columns) == 1
        self.is_faster = is_bound_by_loads and 4 <= self.size <= self.lanes <= 2 * self.size
        self.loaded: dict[tuple[int, int], Value] = {}

    def has(self, i: int, p: int) -> bool:
        """Whether the element in row `i` and column `p` is to be broadcast from a register."""
        segment = p // self.size
        is_whole = (segment + 1) * self.size <= self.spec.k
        return self.is_faster and (i + segment) % 2 == 0 and is_whole

    def broadcast(self, i: int, p: int) -> Value:
        """The element in row `i` and column `p`, in every lane."""
        segment, lane = divmod(p, self.size)
        if (i, segment) not in self.loaded:
            address = ir.gep(self.a, self.element, i * self.spec.k + segment * self.size)
            elements = ir.load(ir.vector_type(self.size, self.element), address)
            copies = ir.concatenate([elements] * (self.lanes // self.size))
            # If LLVM saw the load, it would replace it by a load of each element.
            self.loaded[i, segment] = ir.arithmetic_fence(copies)
        value = self.loaded[i, segment]
        order = [
            start + lane for start in range(0, self.lanes, self.size) for _ in range(self.size)
        ]
        return ir.shuffle(value, value, order)
