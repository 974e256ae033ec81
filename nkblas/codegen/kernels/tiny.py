"""Small products with so few columns that a vector holds several rows of C.

Rows of C are adjacent in memory, so several of them are one vector. Each of its lanes takes an
element of A and an element of B; these come from vectors of A and B by shuffles.
"""

from collections.abc import Callable, Sequence

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import SEGMENT_BYTES, Type, Value
from nkblas.codegen.spec import Small

MAX_VECTOR_FMAS = 64
"""Vector multiply-adds of a product: it is all straight-line code."""

MAX_GATHERED_VECTORS, GATHERED_COLUMNS = 8, 3
"""Vectors of A that the lanes of one are taken from, if C has at most three columns; each but the
first takes a shuffle. Elsewhere they are taken from two: beyond that, shuffles cost more than they
save (B along k: 3 x 3 x 8 takes 1.15 times as long, 4 x 4 x 16 1.16)."""

SCALAR_DTYPES = ("int64",)
"""Without mask registers there are products of single elements only: shuffles are not worth while
for more than two vectors."""


def rows_per_vector(spec: Small, isa: ISA) -> int:
    """Number of rows of C in a vector."""
    return min(spec.m, isa.lanes(ITEMSIZE[spec.dtype]) // spec.n)


def is_tiny(spec: Small, isa: ISA) -> bool:
    """Whether `emitter` can do a product, and does it faster than with a vector for each row.

    Complex numbers would take shuffles of their parts. Rows up to a segment long are shuffled
    within segments or as whole segments; longer rows are not, which costs more than it saves.
    """
    itemsize = ITEMSIZE[spec.dtype]
    lanes, rows = isa.lanes(itemsize), rows_per_vector(spec, isa)
    fits = spec.n * itemsize <= SEGMENT_BYTES and rows >= 2 and spec.dtype not in REAL_PART
    fits = fits and -(-spec.m // rows) * spec.k <= MAX_VECTOR_FMAS
    has_products = isa.mask_registers or spec.dtype not in SCALAR_DTYPES
    gathers_many = has_products and spec.n <= GATHERED_COLUMNS
    max_elements = (MAX_GATHERED_VECTORS if gathers_many else 2) * lanes
    fits = fits and (spec.a_layout == "col" or rows * spec.k <= max_elements)
    fits = fits and (spec.b_layout == "row" or spec.n * spec.k <= 2 * lanes)
    has_whole_vectors = rows * spec.n == lanes and spec.m % rows == 0
    reuses_loads = spec.k * min(spec.m, spec.n) >= lanes
    return fits and (isa.masked or (has_whole_vectors and reuses_loads))


class _Matrix:
    """A contiguous operand, as vectors of its memory that are each loaded once.

    Parameters
    ----------
    start : Value
        Address of the first element.
    size : int
        Number of elements; nothing beyond them is read.
    element : Type
    """

    def __init__(self, start: Value, size: int, element: Type) -> None:
        self.start, self.size, self.element = start, size, element
        self.loaded: dict[tuple[int, int], Value] = {}

    def gather(self, indices: Sequence[int], first: int, lanes: int) -> Value:
        """The elements at `indices`, from vectors of `lanes` lanes from `first` on."""
        count = (max(indices) - first) // lanes + 1
        starts = [max(0, min(first + i * lanes, self.size - lanes)) for i in range(count)]
        vectors = [self._load(start, lanes) for start in starts]
        if count == 1:
            return ir.shuffle(vectors[0], vectors[0], [x - starts[0] for x in indices])
        # Each shuffle puts the lanes of one more vector in their places; the first those of two.
        gathered, width = vectors[0], len(indices)
        for i in range(1, count):
            order = list(range(lanes))
            for lane, x in enumerate(indices):
                source = (x - first) // lanes
                if source == i:
                    order[lane] = lanes + x - starts[i]
                elif source == 0 and i == 1:
                    order[lane] = x - starts[0]
            order = order if i < count - 1 else order[:width]
            gathered = ir.shuffle(gathered, vectors[i], order)
        return gathered

    def _load(self, first: int, lanes: int) -> Value:
        if (first, lanes) not in self.loaded:
            address = ir.gep(self.start, self.element, first)
            live = self.size - first
            mask = ir.create_mask(lanes, ir.const_i64(live)) if live < lanes else None
            self.loaded[first, lanes] = ir.load(ir.vector_type(lanes, self.element), address, mask)
        return self.loaded[first, lanes]


def emitter(spec: Small, isa: ISA) -> Callable[[Value, Value, Value], None]:
    """The function that emits one product, given the addresses of A, B and C."""
    m, n, k = spec.m, spec.n, spec.k
    element = ir.element_type(spec.dtype)
    rows = rows_per_vector(spec, isa)
    segment = SEGMENT_BYTES // ITEMSIZE[spec.dtype]
    max_lanes = isa.lanes(ITEMSIZE[spec.dtype])

    def lanes_for(elements: int) -> int:
        """Lanes of the narrowest vector that holds `elements`, or of the widest."""
        return min(max_lanes, max(segment, 1 << (elements - 1).bit_length()))

    def load_a(a: _Matrix, cells: list[tuple[int, int]], p: int, top: int, height: int) -> Value:
        """For each cell of C, in a vector of rows from `top` on, the element of A."""
        if spec.a_layout == "row":
            indices = [(top + i) * k + p for i, _ in cells]
            return a.gather(indices, top * k, lanes_for(height * k))
        return a.gather([p * m + top + i for i, _ in cells], p * m + top, lanes_for(height))

    def load_b(b: _Matrix, cells: list[tuple[int, int]], p: int, height: int) -> Value:
        """For each cell of C the element of B."""
        if spec.b_layout == "col":
            return b.gather([j * k + p for _, j in cells], 0, lanes_for(n * k))
        indices = [p * n + j for _, j in cells]
        if height * n == len(cells):  # one load broadcasts a row
            return b.gather(indices, p * n, n)
        return b.gather(indices, p // rows * rows * n, lanes_for(rows * n))

    def sum_rows(a: _Matrix, b: _Matrix, top: int, height: int) -> Value:
        """Rows of C from `top` on, in a vector of at least as many lanes as they have elements."""
        cells = [divmod(cell, n) for cell in range(height * n)]
        # The remaining lanes repeat the first one: they raise no other exceptions than it does.
        cells += cells[:1] * (lanes_for(height * n) - height * n)
        total = ir.const_zero(ir.vector_type(len(cells), element))
        for p in range(k):
            x = load_a(a, cells, p, top, height)
            total = ir.fma(x, load_b(b, cells, p, height), total)
        return total

    def emit(a_start: Value, b_start: Value, c: Value) -> None:
        a, b = _Matrix(a_start, m * k, element), _Matrix(b_start, k * n, element)
        for top in range(0, m, rows):
            height = min(rows, m - top)
            value = sum_rows(a, b, top, height)
            address = ir.gep(c, element, top * n)
            ir.store_first_lanes(value, address, height * n, isa.mask_registers)

    return emit
