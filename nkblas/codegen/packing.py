"""Packing routines: from an operand as it lies in memory to panels that a microkernel streams."""

from typing import Any

from nkblas.isa import ISA
from nkblas.problem import ITEMSIZE

from . import ir
from .ir import Value
from .spec import Pack


def build(spec: Pack, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Pack`'s)."""
    n = arguments[0]
    lanes = isa.lanes(ITEMSIZE[spec.dtype])
    whole = ir.at_least(n, ir.const(spec.width))
    emit = _transpose if spec.transposed else _gather

    # Full panels have no masks and no tests; the one at the edge may be slow.
    def full() -> list[Value]:
        emit(spec, lanes, element, arguments, None)
        return []

    def edge() -> list[Value]:
        emit(spec, lanes, element, arguments, n)
        return []

    ir.either(whole, full, edge)


def _gather(spec: Pack, lanes: int, element: Any, arguments: list[Value], n: Value | None) -> None:
    """The source is contiguous along the panel: copy `width` elements for each k."""
    _, k, source, lds, panel = arguments
    starts = range(0, spec.width, lanes)

    def masks(limit: Value | int) -> list[Value | None]:
        if isinstance(limit, int):
            return [
                None if start + lanes <= limit else ir.first_lanes(lanes, ir.const(limit - start))
                for start in starts
            ]
        return [ir.first_lanes(lanes, ir.add(limit, ir.const(-start))) for start in starts]

    load_masks = masks(spec.width if n is None else n)
    store_masks = masks(spec.width)
    vector_type = ir.vector_of(lanes, element)

    def line(_: Value, pointers: list[Value]) -> list[Value]:
        source, panel = pointers
        for start, load_mask, store_mask in zip(starts, load_masks, store_masks, strict=True):
            vector = ir.load(vector_type, ir.address(source, start, element), load_mask)
            ir.store(vector, ir.address(panel, start, element), store_mask)
        return [ir.address(source, lds, element), ir.address(panel, spec.width, element)]

    ir.loop(k, [source, panel], line)


def _transpose(
    spec: Pack, lanes: int, element: Any, arguments: list[Value], n: Value | None
) -> None:
    """The source is contiguous along k: transpose squares of `lanes` by `lanes` in registers."""
    _, k, source, lds, panel = arguments
    vector_type = ir.vector_of(lanes, element)
    blocks = ir.round_down(k, lanes)

    def read(type_: Any, i: int, p: Value) -> Value:
        """From element `p` of line `i` on; zero for the lines beyond `n`."""
        place = ir.address(ir.address(source, ir.mul(lds, ir.const(i)), element), p, element)
        if n is None:
            return ir.load(type_, place)
        return ir.when(ir.less(ir.const(i), n), lambda: [ir.load(type_, place)], [ir.zero(type_)])[
            0
        ]

    def square(p: Value, _: list[Value]) -> list[Value]:
        target = ir.address(panel, ir.mul(p, ir.const(spec.width)), element)
        for start in reversed(range(0, spec.width, lanes)):
            lines = range(start, min(start + lanes, spec.width))
            missing = [ir.zero(vector_type)] * (lanes - len(lines))
            rows = transposed([read(vector_type, i, p) for i in lines] + missing)
            mask = ir.first_lanes(lanes, ir.const(len(lines))) if missing else None
            for i, row in enumerate(rows):
                # Whole stores are faster than masked ones: what is written after this overwrites
                # what is too much (the next row; the columns further left), but for the last.
                end = i * spec.width + start + lanes
                place = ir.address(target, i * spec.width + start, element)
                ir.store(row, place, mask if end > lanes * spec.width else None)
        return []

    def single(p: Value, _: list[Value]) -> list[Value]:
        target = ir.address(panel, ir.mul(p, ir.const(spec.width)), element)
        for i in range(spec.width):
            ir.store(read(element, i, p), ir.address(target, i, element))
        return []

    ir.loop(blocks, [], square, step=lanes)
    ir.loop(k, [], single, start=blocks)


def transposed(rows: list[Value]) -> list[Value]:
    """The transpose of a square of vectors: log2(n) rounds of pairwise interleaving."""
    half = len(rows) // 2
    for _ in range(half.bit_length()):
        pairs = [ir.interleave(rows[i], rows[i + half]) for i in range(half)]
        rows = [vector for pair in pairs for vector in pair]
    return rows


def build_copy(element: Any, arguments: list[Value]) -> None:
    """Emit a copy between any two strided matrices (its contract is `spec.Copy`'s)."""
    m, n, source, srs, scs, target, trs, tcs = arguments

    def row(_: Value, pointers: list[Value]) -> list[Value]:
        def one(_: Value, places: list[Value]) -> list[Value]:
            source, target = places
            ir.store(ir.load(element, source), target)
            return [ir.address(source, scs, element), ir.address(target, tcs, element)]

        source, target = pointers
        ir.loop(n, [source, target], one)
        return [ir.address(source, srs, element), ir.address(target, trs, element)]

    ir.loop(m, [source, target], row)
