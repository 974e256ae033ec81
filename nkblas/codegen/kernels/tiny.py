"""Products with so few columns that a vector holds several rows of C.

Rows of C follow each other without a gap, so a vector of them is a stretch of memory like any
other. It takes an element of A and one of B for each of its lanes: those are lanes of vectors of A
and B, brought into another order.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import SEGMENT_BYTES, Value
from nkblas.codegen.spec import Small

STEPS = 64
"""Multiply-adds of vectors at most: all of it is straight-line code."""


def rows_of_vector(spec: Small, isa: ISA) -> int:
    """How many rows of C a vector holds."""
    return min(spec.m, isa.lanes(ITEMSIZE[spec.dtype]) // spec.n)


def is_tiny(spec: Small, isa: ISA) -> bool:
    """Whether `product` is possible, and faster than a vector for each row. (Of complex numbers,
    it would have to move parts.)

    Rows as long as a segment, or shorter, move within segments or as whole ones. Longer ones do
    not, which costs more than is won.
    """
    itemsize = ITEMSIZE[spec.dtype]
    lanes, rows = isa.lanes(itemsize), rows_of_vector(spec, isa)
    fits = spec.n * itemsize <= SEGMENT_BYTES and rows >= 2 and spec.dtype not in REAL_PART
    fits = fits and -(-spec.m // rows) * spec.k <= STEPS
    # two vectors are what lanes can be chosen from
    fits = fits and (spec.a_layout == "col" or rows * spec.k <= 2 * lanes)
    fits = fits and (spec.b_layout == "row" or spec.n * spec.k <= 2 * lanes)
    whole = rows * spec.n == lanes and spec.m % rows == 0
    return fits and (isa.masked or (whole and spec.k * min(spec.m, spec.n) >= lanes))


class Operand:
    """A matrix as vectors of its memory, each loaded once.

    Attributes
    ----------
    start : address
    size : int
        Elements; what is beyond them is not read.
    """

    def __init__(self, start: Value, size: int, element: Any) -> None:
        self.start, self.size, self.element = start, size, element
        self.loaded: dict[tuple[int, int], Value] = {}

    def pick(self, wanted: Sequence[int], first: int, lanes: int) -> Value:
        """The elements at the places `wanted`, all of them in two vectors from `first` on."""
        first, second = (max(0, min(x, self.size - lanes)) for x in (first, first + lanes))
        order = [x - first if x < first + lanes else x - second + lanes for x in wanted]
        if max(order) < lanes:
            second = first
        return ir.shuffle(self._load(first, lanes), self._load(second, lanes), order)

    def _load(self, first: int, lanes: int) -> Value:
        if (first, lanes) not in self.loaded:
            place = ir.gep(self.start, self.element, first)
            live = self.size - first
            mask = ir.create_mask(lanes, ir.const_i64(live)) if live < lanes else None
            self.loaded[first, lanes] = ir.load(ir.vector_type(lanes, self.element), place, mask)
        return self.loaded[first, lanes]


def product(spec: Small, isa: ISA, element: Any) -> Callable[[Value, Value, Value], None]:
    """What emits one product, given the addresses of A, B and C."""
    m, n, k = spec.m, spec.n, spec.k
    rows = rows_of_vector(spec, isa)
    segment, most = SEGMENT_BYTES // ITEMSIZE[spec.dtype], isa.lanes(ITEMSIZE[spec.dtype])

    def lanes_for(elements: int) -> int:
        """Of the narrowest vector that holds so many elements, if any does."""
        return min(most, max(segment, 1 << (elements - 1).bit_length()))

    def vector(a: Operand, b: Operand, top: int, height: int) -> Value:
        """Rows of C from `top` on, with as many lanes as they need at least."""
        cells = [divmod(cell, n) for cell in range(height * n)]
        # lanes beyond repeat the first one: they raise no exception of their own
        cells += cells[:1] * (lanes_for(height * n) - height * n)
        total = ir.const_zero(ir.vector_type(len(cells), element))
        for p in range(k):
            if spec.a_layout == "row":
                place = top * k, lanes_for(height * k)
                x = a.pick([(top + i) * k + p for i, _ in cells], *place)
            else:
                place = p * m + top, lanes_for(height)
                x = a.pick([p * m + top + i for i, _ in cells], *place)
            if spec.b_layout == "col":
                y = b.pick([j * k + p for _, j in cells], 0, lanes_for(n * k))
            elif height * n == len(cells):  # one load brings a row to all places
                y = b.pick([p * n + j for _, j in cells], p * n, n)
            else:
                place = p // rows * rows * n, lanes_for(rows * n)
                y = b.pick([p * n + j for _, j in cells], *place)
            total = ir.fma(x, y, total)
        return total

    def one(a_start: Value, b_start: Value, c: Value) -> None:
        a, b = Operand(a_start, m * k, element), Operand(b_start, k * n, element)
        for top in range(0, m, rows):
            height = min(rows, m - top)
            value = vector(a, b, top, height)
            place = ir.gep(c, element, top * n)
            ir.store_first_lanes(value, place, height * n, isa.mask_registers)

    return one
