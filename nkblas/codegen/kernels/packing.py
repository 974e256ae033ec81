"""Packing routines: from an operand as it lies in memory to panels that a microkernel streams."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value
from nkblas.codegen.spec import Copy, Pack

from .convert import convert

WORDS = (4, 8)
"""Bytes of the cells that are transposed in registers."""


class Cells(NamedTuple):
    """What lies together in a panel: `group` values of k of one line.

    Attributes
    ----------
    spec : Pack
    isa : ISA
    source, target : type
        An element, in memory and in the panel.
    size : int
        Bytes of a cell.
    lanes : int
        Cells in a vector.
    """

    spec: Pack
    isa: ISA
    source: Any
    target: Any
    size: int
    lanes: int

    @classmethod
    def of(cls, spec: Pack, isa: ISA) -> "Cells":
        size = spec.group * ITEMSIZE[spec.target]
        source, target = as_moved(spec.dtype), as_moved(spec.target)
        return cls(spec, isa, source, target, size, max(1, isa.lanes(size)))

    def address(self, panel: Value, k: Value | int, line: Value | int) -> Value:
        """Where the cell of a line is that begins with a k, a multiple of the group."""

        def times(index: Value | int, factor: int) -> Value | int:
            return index * factor if isinstance(index, int) else ir.mul(index, ir.const_i64(factor))

        column = times(line, self.spec.group)
        return ir.gep(panel, self.target, times(k, self.spec.width), column)

    def convert(self, value: Value) -> Value:
        return convert(value, self.spec.dtype, self.spec.target, self.isa)

    def load(
        self, place: Value, lines: int, mask: Value | None = None, otherwise: Value | None = None
    ) -> Value:
        """So many elements that follow each other, as those of a panel.

        What `mask` leaves out is as the element `otherwise`, or 0.
        """
        vector = ir.vector_type(lines, self.source)
        rest = None if otherwise is None else ir.splat(otherwise, vector)
        return self.convert(ir.load(vector, place, mask, rest))


def as_moved(dtype: str) -> Any:
    """An element's type where it is only moved: a complex64 goes as one number of its size."""
    return ir.element_type("float64" if dtype == "complex64" else dtype)


def build(spec: Pack, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Pack`'s)."""
    n, k, source, ls, ps, panel = arguments
    cells = Cells.of(spec, isa)
    top = panel
    if spec.compensation:
        panel = ir.gep(panel, ir.int_type(32), spec.width)
    arguments = [n, k, source, ls, ps, panel]

    def elements(start: Value | None = None) -> list[Value]:
        _elements(cells, arguments, start)
        return []

    def vectors(at_edge: bool) -> list[Value]:
        # cells of tile registers' A are as long as a vector
        way = _turned if spec.group > 1 and cells.lanes == 1 else _vectors
        return elements(way(cells, arguments, at_edge))

    if spec.source == "along" and spec.dtype not in REAL_PART:
        can_mask = isa.can_mask(ITEMSIZE[spec.dtype])
        edge = partial(vectors, True) if can_mask else elements
        ir.if_else(ir.slt(n, ir.const_i64(spec.width)), edge, partial(vectors, False))
    elif spec.source == "across" and cells.size in WORDS:
        elements(_squares(cells, arguments))
    elif spec.source == "across" and spec.group > 1:
        elements(_copies(cells, arguments))
    else:
        elements()
    if spec.step > 1:
        _fill(cells, k, panel)
    if spec.compensation:
        _compensate(cells, k, panel, top)


def _line(i: Value | int, n: Value) -> Value:
    """The line that column `i` of the panel holds: beyond the last one, the last one."""
    return ir.minsi(ir.const_i64(i) if isinstance(i, int) else i, ir.add(n, ir.const_i64(-1)))


def _elements(cells: Cells, arguments: list[Value], start: Value | None = None) -> None:
    """Copy one element at a time, from k = `start` on: what the faster ways leave over."""
    n, k, source, ls, ps, panel = arguments

    def element(p: Value, i: Value) -> Value:
        place = ir.gep(source, cells.source, ir.mul(p, ps), ir.mul(_line(i, n), ls))
        return cells.convert(ir.load(cells.source, place))

    _one_by_one(cells, panel, start, k, element)


def _fill(cells: Cells, k: Value, panel: Value) -> None:
    """Zeros from k on, up to a whole step."""
    stop = _padded(k, cells.spec.step)
    _one_by_one(cells, panel, k, stop, lambda p, i: ir.const_zero(cells.target))


def _one_by_one(
    cells: Cells,
    panel: Value,
    start: Value | None,
    stop: Value,
    element: Callable[[Value, Value], Value],
) -> None:
    """Store ``element(p, i)`` for each p from `start` to `stop` and each column of the panel."""

    def step(p: Value, _: list[Value]) -> list[Value]:
        group = ir.align_down(p, cells.spec.group)
        write = ir.gep(cells.address(panel, group, 0), cells.target, ir.sub(p, group))

        def one(i: Value, _: list[Value]) -> list[Value]:
            ir.store(element(p, i), cells.address(write, 0, i))
            return []

        return ir.for_loop(ir.const_i64(cells.spec.width), [], one)

    ir.for_loop(stop, [], step, start=start)


def _padded(k: Value, step: int) -> Value:
    return ir.align_down(ir.add(k, ir.const_i64(step - 1)), step)


def _vectors(cells: Cells, arguments: list[Value], at_edge: bool) -> Value:
    """Copy elements that are contiguous in the source too, for each k; the k that it comes to.

    `width` of them, or fewer, and the last one again and again.
    """
    n, k, source, _, ps, panel = arguments
    spec, group = cells.spec, cells.spec.group
    end = ir.align_down(k, group)

    def step(p: Value, carried: list[Value]) -> list[Value]:
        (read,) = carried
        places = [ir.gep(read, cells.source, ir.mul(ps, ir.const_i64(q))) for q in range(group)]
        last = [None] * group
        if at_edge:
            final = ir.add(n, ir.const_i64(-1))
            last = [ir.load(cells.source, ir.gep(x, cells.source, final)) for x in places]
        for start in range(0, spec.width, cells.lanes):
            live = min(cells.lanes, spec.width - start)
            mask = None
            if at_edge:
                mask = ir.create_mask(cells.lanes, ir.add(n, ir.const_i64(-start)))
            elif live < cells.lanes:
                mask = ir.create_mask(cells.lanes, ir.const_i64(live))
            rows = [
                cells.load(ir.gep(x, cells.source, start), cells.lanes, mask, otherwise)
                for x, otherwise in zip(places, last, strict=True)
            ]
            mask = None
            if live < cells.lanes:
                mask = ir.create_mask(cells.lanes * group, ir.const_i64(live * group))
            ir.store(_zipped(rows), cells.address(panel, p, start), mask)
        return [ir.gep(read, cells.source, ir.mul(ps, ir.const_i64(group)))]

    ir.for_loop(end, [source], step, step=group)
    return end


def _turned(cells: Cells, arguments: list[Value], at_edge: bool) -> Value:
    """As `_vectors`, where a cell fills a vector: squares of words are transposed in registers."""
    n, k, source, _, ps, panel = arguments
    spec, group = cells.spec, cells.spec.group
    part = WORDS[0] // ITEMSIZE[spec.target]  # values of k in a word
    lanes = group // part
    words = ir.vector_type(lanes, ir.int_type(32))
    end = ir.align_down(k, group)

    def step(p: Value, carried: list[Value]) -> list[Value]:
        (read,) = carried
        for start in range(0, spec.width, lanes):
            live = min(lanes, spec.width - start)
            mask = None
            if at_edge:
                mask = ir.create_mask(lanes, ir.add(n, ir.const_i64(-start)))
            elif live < lanes:
                mask = ir.create_mask(lanes, ir.const_i64(live))

            def row(q: int, start: int = start, mask: Value | None = mask) -> Value:
                place = ir.gep(read, cells.source, ir.mul(ps, ir.const_i64(q)))
                last = None
                if at_edge:
                    final = ir.add(n, ir.const_i64(-1))
                    last = ir.load(cells.source, ir.gep(place, cells.source, final))
                return cells.load(ir.gep(place, cells.source, start), lanes, mask, last)

            rows = [
                ir.bitcast(words, _zipped([row(q) for q in range(first, first + part)]))
                for first in range(0, group, part)
            ]
            for i, cell in enumerate(transposed(rows)[:live]):
                ir.store(cell, cells.address(panel, p, start + i))
        return [ir.gep(read, cells.source, ir.mul(ps, ir.const_i64(group)))]

    ir.for_loop(end, [source], step, step=group)
    return end


def _zipped(vectors: list[Value]) -> Value:
    """The first lanes of all vectors, then their second ones, and so on."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        lanes = range(vectors[0].type.shape[0])
        turns = [lane + len(lanes) * which for lane in lanes for which in (0, 1)]
        # 0 and 2, 1 and 3; and then these two
        vectors = [ir.shuffle(vectors[i], vectors[i + half], turns) for i in range(half)]
    return vectors[0]


def _copies(cells: Cells, arguments: list[Value]) -> Value:
    """Copy whole cells, contiguous in the source too; the k that it comes to."""
    n, k, source, ls, _, panel = arguments
    group = cells.spec.group
    end = ir.align_down(k, group)

    def step(p: Value, _: list[Value]) -> list[Value]:
        def one(i: Value, _: list[Value]) -> list[Value]:
            place = ir.gep(source, cells.source, ir.mul(_line(i, n), ls), p)
            ir.store(cells.load(place, group), cells.address(panel, p, i))
            return []

        ir.for_loop(ir.const_i64(cells.spec.width), [], one)
        return []

    ir.for_loop(end, [], step, step=group)
    return end


def _squares(cells: Cells, arguments: list[Value]) -> Value:
    """Transpose squares of `lanes` by `lanes` cells in registers; the k that it comes to."""
    n, k, source, ls, _, panel = arguments
    lanes, group, width = cells.lanes, cells.spec.group, cells.spec.width
    words = ir.vector_type(lanes, ir.int_type(32) if group > 1 else cells.target)
    end = ir.align_down(k, lanes * group)
    whole = width // lanes * lanes

    def square(p: Value, start: Value, columns: int = lanes) -> list[Value]:
        def read(i: int) -> Value:
            if i >= columns:
                return ir.const_zero(words)
            line = ir.mul(_line(ir.add(start, ir.const_i64(i)), n), ls)
            place = ir.gep(source, cells.source, line, p)
            return ir.bitcast(words, cells.load(place, lanes * group))

        target = cells.address(panel, p, start)
        mask = ir.create_mask(lanes, ir.const_i64(columns))
        for i, row in enumerate(transposed([read(i) for i in range(lanes)])):
            # Whole stores are faster than masked ones: what is too much is overwritten after
            # this, by the next row or by a square further left; but for the last rows.
            too_far = (i - lanes) * width + whole + lanes > 0 and columns < lanes
            place = cells.address(target, i * group, 0)
            ir.store(row, place, mask if too_far else None)
        return []

    def band(p: Value, _: list[Value]) -> list[Value]:
        if whole < width:
            square(p, ir.const_i64(whole), width - whole)
        ir.for_loop(ir.const_i64(whole), [], lambda start, _: square(p, start), step=lanes)
        return []

    ir.for_loop(end, [], band, step=lanes * group)
    return end


def transposed(rows: list[Value]) -> list[Value]:
    """Transpose squares: in n vectors, n lanes from each multiple of n on.

    log2(n) rounds of pairwise interleaving.
    """
    half = len(rows) // 2
    for _ in range(half.bit_length()):
        pairs = [ir.interleave(rows[i], rows[i + half], len(rows)) for i in range(half)]
        rows = [vector for pair in pairs for vector in pair]
    return rows


def _compensate(cells: Cells, k: Value, panel: Value, top: Value) -> None:
    """The sums of the panel's columns, times `compensation`, before its first row."""
    spec, lanes = cells.spec, cells.lanes
    sums = ir.vector_type(lanes, ir.int_type(32))
    four = ir.vector_type(4 * lanes, cells.target)
    ones = ir.const_one(four)
    name = f"llvm.x86.avx512.vpdpbusd.{cells.isa.vector_bits}"

    def add(p: Value, totals: list[Value]) -> list[Value]:
        new = []
        for j, total in enumerate(totals):
            values = ir.load(four, cells.address(panel, p, j * lanes))
            pair = (values, ones) if spec.target == "uint8" else (ones, values)
            new.append(ir.call_intrinsic(name, sums, total, *pair))
        return new

    empty = [ir.const_zero(sums) for _ in range(0, spec.width, lanes)]
    totals = ir.for_loop(_padded(k, spec.step), empty, add, step=spec.group)
    factor = ir.const(sums, spec.compensation)
    for j, total in enumerate(totals):
        place = ir.gep(top, sums.element_type, j * lanes)
        ir.store(ir.mul(total, factor), place)


def build_copy(spec: Copy, arguments: list[Value]) -> None:
    """Emit a copy between any two strided matrices (its contract is `spec.Copy`'s)."""
    m, n, source, srs, scs, target, trs, tcs = arguments
    element = as_moved(spec.dtype)

    def row(_: Value, pointers: list[Value]) -> list[Value]:
        def one(_: Value, places: list[Value]) -> list[Value]:
            source, target = places
            ir.store(ir.load(element, source), target)
            return [ir.gep(source, element, scs), ir.gep(target, element, tcs)]

        source, target = pointers
        ir.for_loop(n, [source, target], one)
        return [ir.gep(source, element, srs), ir.gep(target, element, trs)]

    ir.for_loop(m, [source, target], row)
