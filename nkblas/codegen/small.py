"""Small products: a function for one m, n and k, and for stacks of them.

Everything is known when it is generated: which tiles C is cut into, how wide each vector is, every
address as a displacement. Nothing is packed. A stack is a loop around straight-line code, whose
products overlap in the CPU's out-of-order window.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from nkblas.cut import cut_evenly
from nkblas.isa import ISA
from nkblas.problem import ITEMSIZE

from . import ir
from .ir import Value
from .nanokernel import FMA, compose
from .spec import Small

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
        The first.
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


class Tile(NamedTuple):
    """A part of C whose accumulators stay in registers."""

    row: int
    rows: int
    columns: list[Piece]


def is_straight(spec: Small, isa: ISA) -> bool:
    """Whether k is unrolled."""
    return spec.m * spec.k * len(pieces(spec.n, isa, ITEMSIZE[spec.dtype])) <= STRAIGHT


def tiles(spec: Small, isa: ISA) -> list[Tile]:
    """Cut C into register tiles, in the way that takes the fewest cycles."""
    columns = pieces(spec.n, isa, ITEMSIZE[spec.dtype])
    most = CROWD * isa.registers if is_straight(spec, isa) else isa.registers
    edge = any(piece.live < piece.lanes for piece in columns)

    def grids() -> Iterator[tuple[float, int, int]]:
        for rows, vectors in product(range(1, spec.m + 1), range(1, len(columns) + 1)):
            size, _, _, down = cut_evenly(spec.m, rows)
            width, _, _, across = cut_evenly(len(columns), vectors)
            if isa.registers_needed(size, width, edge) > most:
                continue
            # a k-step: multiply-adds, loads at half their price, an accumulator's latency
            step = max(size * width, (size + width) * 0.75, 4)
            yield down * across * (spec.k * step + 8), size, width

    _, rows, vectors = min(grids())
    found = []
    size, full, rest, down = cut_evenly(spec.m, rows)
    width, wide, narrow, across = cut_evenly(len(columns), vectors)
    row = 0
    for i in range(down):
        height, first = size if i < full else rest, 0
        for j in range(across):
            count = width if j < wide else narrow
            found.append(Tile(row, height, columns[first : first + count]))
            first += count
        row += height
    return found


class Scalar(FMA):
    """An element of A that feeds vectors of different widths."""

    def load_a(self, source: Value) -> Value:
        return ir.load(self.element, source)

    def multiply_add(self, a: Value, b: Value, accumulator: Value) -> Value:
        return ir.fma(ir.splat(a, accumulator.type), b, accumulator)

    def __init__(self, element: Any) -> None:
        self.element = element


def build(spec: Small, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Small`'s)."""
    count, a, a_step, b, b_step, c, c_step = arguments
    cut = tiles(spec, isa)
    masks = {
        piece: ir.first_lanes(piece.lanes, ir.const(piece.live))
        for tile in cut
        for piece in tile.columns
        if piece.live < piece.lanes
    }

    def one(_: Value, pointers: list[Value]) -> list[Value]:
        a, b, c = pointers
        for tile in cut:
            _tile(spec, element, tile, masks, is_straight(spec, isa), a, b, c)
        steps = zip(pointers, (a_step, b_step, c_step), strict=True)
        return [ir.address(pointer, step, element) for pointer, step in steps]

    ir.loop(count, [a, b, c], one)


def _tile(
    spec: Small,
    element: Any,
    tile: Tile,
    masks: dict[Piece, Value],
    straight: bool,
    a: Value,
    b: Value,
    c: Value,
) -> None:
    """Multiply and store one tile."""
    rows = range(tile.rows)
    vectors = [FMA(ir.vector_of(piece.lanes, element)) for piece in tile.columns]
    a_row, a_column = (spec.k, 1) if spec.a_layout == "row" else (1, spec.m)

    def step(p: int, a: Value, b: Value, sums: list[list[Value]]) -> list[list[Value]]:
        def load_b(j: int) -> Value:
            piece = tile.columns[j]
            source = ir.address(b, p * spec.n + piece.column, element)
            return vectors[j].load_b(source, masks.get(piece))

        def load_a(i: int) -> Value:
            index = (tile.row + i) * a_row + p * a_column
            return ir.load(element, ir.address(a, index, element))

        return compose(Scalar(element), load_a, load_b, sums)

    sums = [[vector.zero() for vector in vectors] for _ in rows]
    if straight:
        for p in range(spec.k):
            sums = step(p, a, b, sums)
    else:
        width = len(vectors)

        def turn(_: Value, carried: list[Value]) -> list[Value]:
            a, b, *flat = carried
            new = step(0, a, b, [flat[i * width : (i + 1) * width] for i in rows])
            moved = [ir.address(a, a_column, element), ir.address(b, spec.n, element)]
            return [*moved, *(value for row in new for value in row)]

        flat = ir.loop(ir.const(spec.k), [a, b, *(v for row in sums for v in row)], turn)[2:]
        sums = [flat[i * width : (i + 1) * width] for i in rows]
    for i, row in enumerate(sums):
        for piece, value in zip(tile.columns, row, strict=True):
            place = ir.address(c, (tile.row + i) * spec.n + piece.column, element)
            ir.store(value, place, masks.get(piece))
