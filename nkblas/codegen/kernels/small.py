"""Small products: a function for one m, n and k, and for stacks of them.

Everything is known when it is generated: which tiles C is cut into, how wide each vector is, every
address as a displacement. Nothing is packed, but for a B that lies along k: its columns are brought
into rows. A stack is a loop around straight-line code, whose products overlap in the CPU's
out-of-order window.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, product
from typing import Any, NamedTuple, TypeAlias

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.families import Family, families
from nkblas.base.isa import ISA
from nkblas.base.tiling import split_evenly
from nkblas.codegen import ir
from nkblas.codegen.ir import SEGMENT_BYTES, Value
from nkblas.codegen.spec import Small

from . import tiny
from .nanokernel import Accumulator, NativeVectors, compose, flatten, unflatten
from .packing import element_type_for_copy, transpose

L1 = 32 << 10
"""Bytes of a B that stays near, whatever else there is: so large is L1 at least."""

STRAIGHT = 400
"""Multiply-adds up to which k is unrolled; beyond, code and compile time would get long."""

CROWD = 0.6
"""Part of the registers that a tile may take where k is unrolled: in much straight-line code, LLVM
draws loads together."""


class Piece(NamedTuple):
    """Some columns of C, in one vector.

    Attributes
    ----------
    column : int
        The first of them.
    lanes, live : int
        Elements of the vector, and how many of them count.
    """

    column: int
    lanes: int
    live: int


def pieces(n: int, isa: ISA, itemsize: int) -> list[Piece]:
    """Cut n columns into vectors: whole ones, and for what is left the narrowest that holds it."""
    whole = isa.lanes(itemsize)
    found = [Piece(column, whole, whole) for column in range(0, n - n % whole, whole)]
    start, left = n - n % whole, n % whole
    # Two elements of a wider register would compute in lanes that nobody asked for.
    narrow = [bits // 8 // itemsize for bits in (128, 256) if bits < isa.vector_bits]
    while left:
        fitting = [lanes for lanes in (1, *narrow, whole) if lanes == left]
        if not fitting and isa.masked:
            fitting = [lanes for lanes in (*narrow, whole) if lanes > left]
        lanes = fitting[0] if fitting else 1
        found.append(Piece(start, lanes, min(left, lanes)))
        start, left = start + lanes, left - min(left, lanes)
    return found


class Tiles(NamedTuple):
    """How C is cut into register tiles.

    Attributes
    ----------
    rows : list of (int, int)
        Their heights from top to bottom, and how many of each follow each other.
    columns : list of (tuple of Piece, int)
        Their vectors from left to right, counted from a tile's own first column, and how many of
        each follow each other.
    """

    rows: list[tuple[int, int]]
    columns: list[tuple[tuple[Piece, ...], int]]


def _family(spec: Small, isa: ISA) -> Family:
    return families(spec.dtype, isa)[0]


def is_straight(spec: Small, isa: ISA) -> bool:
    """Whether k is unrolled."""
    vectors = len(pieces(spec.n, isa, ITEMSIZE[spec.dtype]))
    return spec.m * spec.k * vectors * _family(spec, isa).accumulator_registers <= STRAIGHT


def tiles(spec: Small, isa: ISA) -> Tiles:
    """Cut C into register tiles, in the way that takes the fewest cycles."""
    columns = pieces(spec.n, isa, ITEMSIZE[spec.dtype])
    most = CROWD * isa.registers if is_straight(spec, isa) else isa.registers
    plain = _family(spec, isa)
    edge = any(piece.live < piece.lanes for piece in columns)
    near = spec.k * spec.n * ITEMSIZE[spec.dtype] <= L1

    def grids() -> Iterator[tuple[float, int, int]]:
        for rows, vectors in product(range(1, spec.m + 1), range(1, len(columns) + 1)):
            size, _, _, down = split_evenly(spec.m, rows)
            width, _, _, across = split_evenly(len(columns), vectors)
            if size * width > 1 and plain.registers_needed(isa, size, width, edge) > most:
                continue
            # a k-step: multiply-adds, loads at their price, an accumulator's latency
            loads = size * plain.a_registers * 0.75 + width * (0.75 if near else 3)
            step = max(size * width * plain.accumulator_registers, loads, 4)
            yield down * across * (spec.k * step + 8), size, width

    _, rows, vectors = min(grids())
    size, full, rest, down = split_evenly(spec.m, rows)
    width, wide, narrow, across = split_evenly(len(columns), vectors)
    groups, first = [], 0
    for j in range(across):
        group = columns[first : first + (width if j < wide else narrow)]
        first += len(group)
        start = group[0].column
        groups.append(tuple(piece._replace(column=piece.column - start) for piece in group))
    return Tiles(
        [(height, count) for height, count in ((size, full), (rest, down - full)) if count],
        [(group, len(list(same))) for group, same in groupby(groups)],
    )


class Rows(NamedTuple):
    """Where rows of B are, or those of some of its columns.

    Attributes
    ----------
    start : address
    apart : int
        Distance of two rows, in elements.
    places : dict of Piece to int
        Where each piece of a row begins.
    masks : dict of Piece to mask
        For those of which a part is not to be read.
    """

    start: Value
    apart: int
    places: dict[Piece, int]
    masks: dict[Piece, Value]


Sums: TypeAlias = list[list[Accumulator]]


class Scalar(NativeVectors):
    """An element of A that feeds vectors of different widths."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype, 1)
        self.a_registers = self.parts

    def multiply_add(
        self, a: Sequence[Value], b: Sequence[Value], accumulator: Accumulator
    ) -> Accumulator:
        wide = [x if x.type == y.type else ir.splat(x, y.type) for x, y in zip(a, b, strict=True)]
        return super().multiply_add(wide, b, accumulator)


def build(spec: Small, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Small`'s)."""
    count, a, a_step, b, b_step, c, c_step = arguments
    element = ir.element_type(spec.dtype)
    if tiny.is_tiny(spec, isa):
        one = tiny.product(spec, isa, element)
    else:
        one = _product(spec, isa, element)

    def turn(_: Value, pointers: list[Value]) -> list[Value]:
        one(*pointers)
        steps = zip(pointers, (a_step, b_step, c_step), strict=True)
        return [ir.gep(pointer, element, step) for pointer, step in steps]

    ir.for_loop(count, [a, b, c], turn)


def _product(spec: Small, isa: ISA, element: Any) -> Callable[[Value, Value, Value], None]:
    """What emits one product, given the addresses of A, B and C."""
    cut, straight = tiles(spec, isa), is_straight(spec, isa)
    masks = {
        piece: NativeVectors(spec.dtype, piece.lanes).element_mask(ir.const_i64(piece.live))
        for columns, _ in cut.columns
        for piece in columns
        if piece.live < piece.lanes
    }
    a_row = spec.k if spec.a_layout == "row" else 1
    b_column = 1 if spec.b_layout == "row" else spec.k
    panel = None
    if spec.b_layout == "col":
        widest = max(sum(piece.lanes for piece in columns) for columns, _ in cut.columns)
        panel = ir.alloca(spec.k * widest, element)

    def moved(addresses: list[Value], *distances: int) -> list[Value]:
        pairs = zip(addresses, distances, strict=True)
        return [ir.gep(start, element, distance) for start, distance in pairs]

    def one(a: Value, b: Value, c: Value) -> None:
        def band(columns: tuple[Piece, ...], at: list[Value]) -> list[Value]:
            """All rows of some columns of C."""
            b, c = at
            rows = Rows(b, spec.n, {piece: piece.column for piece in columns}, masks)
            if panel is not None:
                rows = _transpose(spec, element, columns, b, panel, straight)

            def tile(height: int, at: list[Value]) -> list[Value]:
                a, c = at
                _tile(spec, isa, element, height, columns, straight, a, rows, c)
                return moved(at, height * a_row, height * spec.n)

            down = [a, c]
            for height, count in cut.rows:
                down = _repeat(count, straight, down, partial(tile, height))
            width = sum(piece.live for piece in columns)
            return moved(at, width * b_column, width)

        across = [b, c]
        for columns, count in cut.columns:
            across = _repeat(count, straight, across, partial(band, columns))

    return one


def _repeat(
    count: int, straight: bool, carried: list[Value], body: Callable[[list[Value]], list[Value]]
) -> list[Value]:
    """A loop, or as many copies of its body."""
    if not straight and count > 1:
        return ir.for_loop(ir.const_i64(count), carried, lambda _, carried: body(carried))
    for _ in range(count):
        carried = body(carried)
    return carried


def _transpose(
    spec: Small,
    element: Any,
    columns: tuple[Piece, ...],
    b: Value,
    panel: Value,
    straight: bool,
) -> Rows:
    """Bring some columns of B, which lie along k, into rows.

    Columns that count for nothing repeat the last one.
    """
    segment = SEGMENT_BYTES // ITEMSIZE[spec.dtype]
    while segment > spec.k:
        segment //= 2
    width, places = 0, {}
    for piece in columns:
        places[piece] = width
        width += piece.lanes

    def squares(at: list[Value]) -> list[Value]:
        """For so many values of k as a segment holds."""
        b, panel = at
        for piece in columns:
            size = min(segment, piece.lanes)
            lines = [
                ir.gep(b, element, (piece.column + min(i, piece.live - 1)) * spec.k)
                for i in range(piece.lanes)
            ]
            for p in range(0, segment, size):
                parts = [
                    ir.load(_stretch(spec.dtype, size), ir.gep(line, element, p)) for line in lines
                ]
                vectors = [ir.concatenate(parts[i::size]) for i in range(size)]
                for i, row in enumerate(transpose(vectors), p):
                    ir.store(row, ir.gep(panel, element, i * width + places[piece]))
        return [ir.gep(b, element, segment), ir.gep(panel, element, segment * width)]

    last = spec.k - segment  # which may do some of k again
    _repeat(-(-last // segment), straight, [b, panel], squares)
    squares([ir.gep(b, element, last), ir.gep(panel, element, last * width)])
    return Rows(panel, width, places, {})


def _stretch(dtype: str, size: int) -> Any:
    """The type of so many elements that are only moved."""
    moved = element_type_for_copy(dtype)
    if dtype == "complex128":
        return ir.vector_type(2 * size, moved.element_type)
    return ir.vector_type(size, moved)


def _tile(
    spec: Small,
    isa: ISA,
    element: Any,
    height: int,
    columns: tuple[Piece, ...],
    straight: bool,
    a: Value,
    b: Rows,
    c: Value,
) -> None:
    """Multiply and store one tile, which A, B and C begin with."""
    rows = range(height)
    vectors = [NativeVectors(spec.dtype, piece.lanes) for piece in columns]
    scalar = Scalar(spec.dtype)
    a_row, a_column = (spec.k, 1) if spec.a_layout == "row" else (1, spec.m)
    segments = Segments(spec, element, columns, a) if straight and isa.registers > 16 else None

    def step(p: int, a: Value, b_row: Value, sums: Sums) -> Sums:
        def load_b(j: int) -> Sequence[Value]:
            piece = columns[j]
            source = ir.gep(b_row, element, p * b.apart + b.places[piece])
            return vectors[j].load_b(source, b.masks.get(piece))

        def load_a(i: int) -> Sequence[Value]:
            if segments and segments.has(i, p):
                return [segments.element_of(i, p)]
            return scalar.load_element(ir.gep(a, element, i * a_row + p * a_column))

        return compose(scalar, load_a, load_b, sums)

    sums = [[vector.zero_accumulator() for vector in vectors] for _ in rows]
    if straight:
        for p in range(spec.k):
            sums = step(p, a, b.start, sums)
    else:

        def turn(_: Value, carried: list[Value]) -> list[Value]:
            a, b_row, *flat = carried
            new = step(0, a, b_row, unflatten(flat, len(columns), scalar.parts))
            moved = [ir.gep(a, element, a_column), ir.gep(b_row, element, b.apart)]
            return [*moved, *flatten(new)]

        carried = ir.for_loop(ir.const_i64(spec.k), [a, b.start, *flatten(sums)], turn)
        sums = unflatten(carried[2:], len(columns), scalar.parts)
    for i, row in enumerate(sums):
        for piece, vector, accumulator in zip(columns, vectors, row, strict=True):
            place = ir.gep(c, element, i * spec.n + piece.column)
            live = piece.live * vector.parts
            ir.store_first_lanes(vector.combine(accumulator), place, live, isa.mask_registers)


class Segments:
    """Elements of A that come by way of registers.

    Where each element feeds a single vector, loads are the bottleneck. So for every other segment
    of A, one load brings it into all segments of a vector, and then lanes are moved within them.
    For longer vectors and for fewer elements in a segment, moving them takes as long as loading.
    """

    def __init__(self, spec: Small, element: Any, columns: tuple[Piece, ...], a: Value) -> None:
        self.spec, self.element, self.a = spec, element, a
        self.size, self.lanes = SEGMENT_BYTES // ITEMSIZE[spec.dtype], columns[0].lanes
        self.worth = spec.a_layout == "row" and len(columns) == 1
        self.worth = self.worth and 4 <= self.size <= self.lanes <= 2 * self.size
        self.loaded: dict[tuple[int, int], Value] = {}

    def has(self, i: int, p: int) -> bool:
        which = p // self.size
        return self.worth and (i + which) % 2 == 0 and (which + 1) * self.size <= self.spec.k

    def element_of(self, i: int, p: int) -> Value:
        """That of row i and column p, in every lane."""
        which, lane = divmod(p, self.size)
        if (i, which) not in self.loaded:
            place = ir.gep(self.a, self.element, i * self.spec.k + which * self.size)
            segment = ir.load(ir.vector_type(self.size, self.element), place)
            # if LLVM saw where it comes from, it would load each lane by itself
            self.loaded[i, which] = ir.arithmetic_fence(
                ir.concatenate([segment] * (self.lanes // self.size))
            )
        value = self.loaded[i, which]
        order = [
            start + lane for start in range(0, self.lanes, self.size) for _ in range(self.size)
        ]
        return ir.shuffle(value, value, order)
