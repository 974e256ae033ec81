"""Packing routines: they copy an operand in memory to panels that microkernels read in order.

Each form of packing returns the k up to which it has packed whole groups; `_pack_elements` packs
the rest.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.families import FAMILIES, Family, families
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Type, Value
from nkblas.codegen.spec import Copy, Pack

from .convert import convert
from .nanokernel import NANOKERNELS

WORD_BYTES = 4

TRANSPOSABLE_BYTES = (4, 8)
"""Sizes of cells that are transposed in registers."""

COMPLEX_PAIR_BYTES = 8
"""Bytes of a complex number that is moved as one float64."""


class PackArguments(NamedTuple):
    """The arguments of `nkblas.codegen.spec.Pack`, with `panel` after the compensation row."""

    n: Value
    k: Value
    source: Value
    line_stride: Value
    k_stride: Value
    panel: Value

    def line(self, i: Value | int) -> Value:
        """The line that column `i` of the panel holds: beyond the last line, the last one."""
        column = ir.const_i64(i) if isinstance(i, int) else i
        return ir.minsi(column, ir.add(self.n, ir.const_i64(-1)))


class Cells(NamedTuple):
    """The cells of a panel: a cell is `group` adjacent values of k of one line.

    Attributes
    ----------
    spec : Pack
    isa : ISA
    source, target : Type
        Of an element, in memory and in the panel.
    itemsize : int
        Bytes of a cell.
    lanes : int
        Cells in a vector.
    """

    spec: Pack
    isa: ISA
    source: Type
    target: Type
    itemsize: int
    lanes: int

    @classmethod
    def of(cls, spec: Pack, isa: ISA) -> "Cells":
        """The cells of `spec`'s panel."""
        itemsize = spec.group * ITEMSIZE[spec.target]
        source, target = element_type_for_copy(spec.dtype), element_type_for_copy(spec.target)
        return cls(spec, isa, source, target, itemsize, max(1, isa.lanes(itemsize)))

    def address(self, panel: Value, k: Value | int, line: Value | int) -> Value:
        """The address of the cell of a line that starts at `k`, a multiple of the group."""

        def multiply(index: Value | int, factor: int) -> Value | int:
            return index * factor if isinstance(index, int) else ir.mul(index, ir.const_i64(factor))

        column = multiply(line, self.spec.group)
        return ir.gep(panel, self.target, multiply(k, self.spec.width), column)

    def convert(self, value: Value) -> Value:
        """Elements in the panel's dtype."""
        return convert(value, self.spec.dtype, self.spec.target, self.isa)

    def load(
        self,
        address: Value,
        count: int,
        mask: Value | None = None,
        passthru: Value | None = None,
    ) -> Value:
        """Load `count` adjacent elements of the source, in the panel's dtype.

        Lanes outside of `mask` are the element `passthru`, or 0.
        """
        type_ = ir.vector_type(count, self.source)
        others = None if passthru is None else ir.splat(passthru, type_)
        return self.convert(ir.load(type_, address, mask, others))


def element_type_for_copy(dtype: str) -> Type:
    """An element's type where it is only copied: a complex64 is one float64."""
    is_pair = dtype in REAL_PART and ITEMSIZE[dtype] == COMPLEX_PAIR_BYTES
    return ir.element_type("float64" if is_pair else dtype)


def build(spec: Pack, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function."""
    args = PackArguments(*arguments)
    cells, header = Cells.of(spec, isa), args.panel
    if spec.compensation:
        args = args._replace(panel=ir.gep(header, ir.int_type(32), spec.width))
    _pack_all(cells, args)
    if spec.step > 1:
        _pad_with_zeros(cells, args.k, args.panel)
    if spec.compensation:
        _store_compensation(cells, args.k, args.panel, header)


def _pack_all(cells: Cells, args: PackArguments) -> None:
    """Pack all elements, in the form that suits the source's layout."""
    spec = cells.spec

    def remaining_elements(start: Value | None = None) -> list[Value]:
        _pack_elements(cells, args, start)
        return []

    def pack_rows(is_edge: bool) -> list[Value]:
        # A cell of tile registers' A fills a vector.
        pack = _transpose_rows if spec.group > 1 and cells.lanes == 1 else _interleave_rows
        return remaining_elements(pack(cells, args, is_edge))

    if spec.source == "along" and spec.dtype not in REAL_PART:
        can_mask = cells.isa.can_mask(ITEMSIZE[spec.dtype])
        edge = partial(pack_rows, True) if can_mask else remaining_elements
        is_edge = ir.slt(args.n, ir.const_i64(spec.width))
        ir.if_else(is_edge, edge, partial(pack_rows, False))
    elif spec.source == "across" and cells.itemsize in TRANSPOSABLE_BYTES:
        remaining_elements(_transpose_lines(cells, args))
    elif spec.source == "across" and spec.group > 1:
        remaining_elements(_copy_cells(cells, args))
    else:
        remaining_elements()


def _pack_elements(cells: Cells, args: PackArguments, start: Value | None = None) -> None:
    """Pack one element at a time, from k = `start` on."""

    def load_element(p: Value, i: Value) -> Value:
        k_offset, line_offset = ir.mul(p, args.k_stride), ir.mul(args.line(i), args.line_stride)
        address = ir.gep(args.source, cells.source, k_offset, line_offset)
        return cells.convert(ir.load(cells.source, address))

    _store_elements(cells, args.panel, start, args.k, load_element)


def _pad_with_zeros(cells: Cells, k: Value, panel: Value) -> None:
    """Store zeros after the last k, up to a whole step."""
    stop = _round_up(k, cells.spec.step)
    _store_elements(cells, panel, k, stop, lambda p, i: ir.const_zero(cells.target))


def _store_elements(
    cells: Cells,
    panel: Value,
    start: Value | None,
    stop: Value,
    element: Callable[[Value, Value], Value],
) -> None:
    """Store ``element(p, i)`` for each p from `start` to `stop` and each column of the panel."""

    def store_row(p: Value, _: list[Value]) -> list[Value]:
        group = ir.align_down(p, cells.spec.group)
        row = ir.gep(cells.address(panel, group, 0), cells.target, ir.sub(p, group))

        def store_element(i: Value, _: list[Value]) -> list[Value]:
            ir.store(element(p, i), cells.address(row, 0, i))
            return []

        return ir.for_loop(ir.const_i64(cells.spec.width), [], store_element)

    ir.for_loop(stop, [], store_row, start=start)


def _round_up(k: Value, step: int) -> Value:
    """The least multiple of `step`, a power of two, that is not below `k`."""
    return ir.align_down(ir.add(k, ir.const_i64(step - 1)), step)


def _edge_mask(
    cells: Cells, args: PackArguments, is_edge: bool, start: int, lanes: int
) -> Value | None:
    """The mask of source elements in the vector of `lanes` columns from `start` on."""
    live = min(lanes, cells.spec.width - start)
    if is_edge:
        return ir.create_mask(lanes, ir.add(args.n, ir.const_i64(-start)))
    return ir.create_mask(lanes, ir.const_i64(live)) if live < lanes else None


def _load_last_line(cells: Cells, args: PackArguments, row: Value) -> Value:
    """The element of the last line, in a row of the source at one k."""
    last = ir.add(args.n, ir.const_i64(-1))
    return ir.load(cells.source, ir.gep(row, cells.source, last))


def _interleave_rows(cells: Cells, args: PackArguments, is_edge: bool) -> Value:
    """Pack a source whose lines are adjacent: rows of `group` values of k are interleaved.

    At an edge, columns beyond the last line repeat it.
    """
    spec, group = cells.spec, cells.spec.group
    end = ir.align_down(args.k, group)
    rest = spec.width % cells.lanes
    overlaps = rest & (rest - 1) > 0  # not a power of two

    def pack_group(p: Value, iter_args: list[Value], is_final: bool) -> list[Value]:
        (read,) = iter_args
        rows = [
            ir.gep(read, cells.source, ir.mul(args.k_stride, ir.const_i64(q))) for q in range(group)
        ]
        last: list[Value | None] = [None] * group
        if is_edge:
            last_line = ir.add(args.n, ir.const_i64(-1))
            last = [ir.load(cells.source, ir.gep(row, cells.source, last_line)) for row in rows]
        for start in range(0, spec.width, cells.lanes):
            live = min(cells.lanes, spec.width - start)
            lanes = 1 << (live - 1).bit_length()  # the least power of two
            mask = _edge_mask(cells, args, is_edge, start, lanes)
            vectors = [
                cells.load(ir.gep(row, cells.source, start), lanes, mask, passthru)
                for row, passthru in zip(rows, last, strict=True)
            ]
            # Whole stores are faster than masked ones. The next row overwrites the elements beyond
            # the columns, except in the last row.
            store_mask = None
            if is_final and live < lanes:
                store_mask = ir.create_mask(lanes * group, ir.const_i64(live * group))
            ir.store(_interleave(vectors), cells.address(args.panel, p, start), store_mask)
        return [ir.gep(read, cells.source, ir.mul(args.k_stride, ir.const_i64(group)))]

    stop = ir.add(end, ir.const_i64(-group)) if overlaps else end
    read = ir.for_loop(stop, [args.source], partial(pack_group, is_final=False), step=group)
    if overlaps:
        start = ir.maxsi(stop, ir.const_i64(0))
        ir.for_loop(end, read, partial(pack_group, is_final=True), step=group, start=start)
    return end


def _transpose_rows(cells: Cells, args: PackArguments, is_edge: bool) -> Value:
    """As `_interleave_rows`, where a cell fills a vector: words are transposed in registers."""
    spec, group = cells.spec, cells.spec.group
    values_per_word = WORD_BYTES // ITEMSIZE[spec.target]
    lanes = group // values_per_word
    words_type = ir.vector_type(lanes, ir.int_type(8 * WORD_BYTES))
    end = ir.align_down(args.k, group)

    def pack_columns(p: Value, read: Value, start: int) -> None:
        mask = _edge_mask(cells, args, is_edge, start, lanes)

        def load_row(q: int) -> Value:
            row = ir.gep(read, cells.source, ir.mul(args.k_stride, ir.const_i64(q)))
            last = _load_last_line(cells, args, row) if is_edge else None
            return cells.load(ir.gep(row, cells.source, start), lanes, mask, last)

        words = [
            ir.bitcast(
                words_type, _interleave([load_row(q) for q in range(q, q + values_per_word)])
            )
            for q in range(0, group, values_per_word)
        ]
        live = min(lanes, spec.width - start)
        for i, cell in enumerate(transpose(words)[:live]):
            ir.store(cell, cells.address(args.panel, p, start + i))

    def pack_group(p: Value, iter_args: list[Value]) -> list[Value]:
        (read,) = iter_args
        for start in range(0, spec.width, lanes):
            pack_columns(p, read, start)
        return [ir.gep(read, cells.source, ir.mul(args.k_stride, ir.const_i64(group)))]

    ir.for_loop(end, [args.source], pack_group, step=group)
    return end


def _interleave(vectors: list[Value]) -> Value:
    """The first lanes of all vectors, then their second lanes, and so on."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        lanes = range(vectors[0].type.shape[0])
        order = [lane + len(lanes) * operand for lane in lanes for operand in (0, 1)]
        # of four: 0 with 2 and 1 with 3, then the two results
        vectors = [ir.shuffle(vectors[i], vectors[i + half], order) for i in range(half)]
    return vectors[0]


def _copy_cells(cells: Cells, args: PackArguments) -> Value:
    """Copy cells that are contiguous in the source too."""
    group = cells.spec.group
    end = ir.align_down(args.k, group)

    def pack_group(p: Value, _: list[Value]) -> list[Value]:
        def copy_cell(i: Value, _: list[Value]) -> list[Value]:
            line_offset = ir.mul(args.line(i), args.line_stride)
            address = ir.gep(args.source, cells.source, line_offset, p)
            ir.store(cells.load(address, group), cells.address(args.panel, p, i))
            return []

        ir.for_loop(ir.const_i64(cells.spec.width), [], copy_cell)
        return []

    ir.for_loop(end, [], pack_group, step=group)
    return end


def _transpose_lines(cells: Cells, args: PackArguments) -> Value:
    """Pack a source whose lines are contiguous along k: squares of cells are transposed."""
    lanes, group, width = cells.lanes, cells.spec.group, cells.spec.width
    cell = ir.int_type(8 * WORD_BYTES) if group > 1 else cells.target
    vector_type = ir.vector_type(lanes, cell)
    end = ir.align_down(args.k, lanes * group)
    whole = width // lanes * lanes

    def pack_square(p: Value, start: Value, columns: int = lanes) -> list[Value]:
        def read(i: int) -> Value:
            if i >= columns:
                return ir.const_zero(vector_type)
            line_offset = ir.mul(args.line(ir.add(start, ir.const_i64(i))), args.line_stride)
            address = ir.gep(args.source, cells.source, line_offset, p)
            return ir.bitcast(vector_type, cells.load(address, lanes * group))

        target = cells.address(args.panel, p, start)
        mask = ir.create_mask(lanes, ir.const_i64(columns))
        for i, row in enumerate(transpose([read(i) for i in range(lanes)])):
            # Whole stores are faster than masked ones. The elements beyond the columns are
            # overwritten later, by the next row or by a square further left, except in the last
            # rows.
            is_final = (i - lanes) * width + whole + lanes > 0 and columns < lanes
            address = cells.address(target, i * group, 0)
            ir.store(row, address, mask if is_final else None)
        return []

    def pack_rows(p: Value, _: list[Value]) -> list[Value]:
        if whole < width:
            pack_square(p, ir.const_i64(whole), width - whole)
        ir.for_loop(ir.const_i64(whole), [], lambda start, _: pack_square(p, start), step=lanes)
        return []

    ir.for_loop(end, [], pack_rows, step=lanes * group)
    return end


def transpose(rows: list[Value]) -> list[Value]:
    """Transpose squares of lanes: of n vectors, the n lanes from each multiple of n on.

    It takes log2(n) rounds of pairwise interleaving.
    """
    half = len(rows) // 2
    for _ in range(half.bit_length()):
        pairs = [ir.interleave(rows[i], rows[i + half], len(rows)) for i in range(half)]
        rows = [vector for pair in pairs for vector in pair]
    return rows


def _family_of_panel(spec: Pack, isa: ISA) -> Family:
    """A family of `isa` that reads such panels of B."""
    panel = (spec.target, spec.group, spec.step, spec.compensation)
    return next(
        family
        for dtype in FAMILIES
        for family in families(dtype, isa)
        if (family.b, family.k_group_b, family.k_step, family.compensation) == panel
    )


def _store_compensation(cells: Cells, k: Value, panel: Value, header: Value) -> None:
    """Store the sums of the panel's columns, times `compensation`, before its first row.

    The family's own multiply-add computes them, with an A of ones.
    """
    spec, lanes = cells.spec, cells.lanes
    family = _family_of_panel(spec, cells.isa)
    nanokernel = NANOKERNELS[family.name](cells.isa, family, family.a, family.b)
    sums_type = nanokernel.vector_type
    operand_type = ir.vector_type(spec.group * lanes, cells.target)
    ones = ir.const_one(operand_type)

    def add_row(p: Value, totals: list[Value]) -> list[Value]:
        new: list[Value] = []
        for j, total in enumerate(totals):
            b = ir.load(operand_type, cells.address(panel, p, j * lanes))
            new += nanokernel.multiply_add(ones, b, (total,))
        return new

    zeros = [ir.const_zero(sums_type) for _ in range(0, spec.width, lanes)]
    totals = ir.for_loop(_round_up(k, spec.step), zeros, add_row, step=spec.group)
    factor = ir.const(sums_type, spec.compensation)
    for j, total in enumerate(totals):
        address = ir.gep(header, sums_type.element_type, j * lanes)
        ir.store(ir.mul(total, factor), address)


def build_copy(spec: Copy, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of a `Copy`'s function."""
    m, n, source, source_rs, source_cs, target, target_rs, target_cs = arguments
    element = element_type_for_copy(spec.dtype)

    def copy_row(_: Value, rows: list[Value]) -> list[Value]:
        def copy_element(_: Value, addresses: list[Value]) -> list[Value]:
            source, target = addresses
            ir.store(ir.load(element, source), target)
            return [ir.gep(source, element, source_cs), ir.gep(target, element, target_cs)]

        source, target = rows
        ir.for_loop(n, [source, target], copy_element)
        return [ir.gep(source, element, source_rs), ir.gep(target, element, target_rs)]

    ir.for_loop(m, [source, target], copy_row)
