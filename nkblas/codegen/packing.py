"""Packing routines: from an operand as it lies in memory to panels that a microkernel streams."""

from typing import Any

from nkblas.isa import ISA
from nkblas.problem import ITEMSIZE

from . import ir
from .ir import Value
from .spec import Pack


def build(spec: Pack, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Pack`'s)."""
    lanes = isa.lanes(ITEMSIZE[spec.dtype])
    n = arguments[0]

    def elements() -> list[Value]:
        _elements(spec, element, arguments)
        return []

    def vectors() -> list[Value]:
        _vectors(spec, lanes, element, arguments)
        return []

    if spec.source == "across":
        _elements(spec, element, arguments, start=_squares(spec, lanes, element, arguments))
    elif spec.source == "along":
        ir.either(ir.less(n, ir.const(spec.width)), elements, vectors)
    else:
        elements()


def _line(i: Value | int, n: Value) -> Value:
    """The line that column `i` of the panel holds: beyond the last one, the last one."""
    return ir.minimum(ir.const(i) if isinstance(i, int) else i, ir.add(n, ir.const(-1)))


def _elements(spec: Pack, element: Any, arguments: list[Value], start: Value | None = None) -> None:
    """Copy one element at a time, from k = `start` on: what the faster ways leave over."""
    n, k, source, ls, ps, panel = arguments

    def step(p: Value, _: list[Value]) -> list[Value]:
        read = ir.address(source, ir.mul(p, ps), element)
        write = ir.address(panel, ir.mul(p, ir.const(spec.width)), element)

        def one(i: Value, _: list[Value]) -> list[Value]:
            value = ir.load(element, ir.address(read, ir.mul(_line(i, n), ls), element))
            ir.store(value, ir.address(write, i, element))
            return []

        ir.loop(ir.const(spec.width), [], one)
        return []

    ir.loop(k, [], step, start=start)


def _vectors(spec: Pack, lanes: int, element: Any, arguments: list[Value]) -> None:
    """Copy `width` elements, contiguous in the source too, for each k."""
    _, k, source, _, ps, panel = arguments
    vector_type = ir.vector_of(lanes, element)

    def step(_: Value, pointers: list[Value]) -> list[Value]:
        read, write = pointers
        for start in range(0, spec.width, lanes):
            left = ir.const(spec.width - start)
            mask = None if start + lanes <= spec.width else ir.first_lanes(lanes, left)
            value = ir.load(vector_type, ir.address(read, start, element), mask)
            ir.store(value, ir.address(write, start, element), mask)
        return [ir.address(read, ps, element), ir.address(write, spec.width, element)]

    ir.loop(k, [source, panel], step)


def _squares(spec: Pack, lanes: int, element: Any, arguments: list[Value]) -> Value:
    """Transpose squares of `lanes` by `lanes` in registers; returns the k that it comes to."""
    n, k, source, ls, _, panel = arguments
    vector_type = ir.vector_of(lanes, element)
    end = ir.round_down(k, lanes)
    whole = spec.width // lanes * lanes

    def square(p: Value, start: Value, columns: int = lanes) -> list[Value]:
        def read(i: int) -> Value:
            if i >= columns:
                return ir.zero(vector_type)
            line = ir.mul(_line(ir.add(start, ir.const(i)), n), ls)
            return ir.load(vector_type, ir.address(ir.address(source, line, element), p, element))

        target = ir.address(panel, ir.mul(p, ir.const(spec.width)), element)
        target = ir.address(target, start, element)
        mask = ir.first_lanes(lanes, ir.const(columns))
        for i, row in enumerate(transposed([read(i) for i in range(lanes)])):
            # Whole stores are faster than masked ones: what is too much is overwritten after
            # this, by the next row or by a square further left; but for the last rows.
            too_far = (i - lanes) * spec.width + whole + lanes > 0 and columns < lanes
            place = ir.address(target, i * spec.width, element)
            ir.store(row, place, mask if too_far else None)
        return []

    def band(p: Value, _: list[Value]) -> list[Value]:
        if whole < spec.width:
            square(p, ir.const(whole), spec.width - whole)
        ir.loop(ir.const(whole), [], lambda start, _: square(p, start), step=lanes)
        return []

    ir.loop(end, [], band, step=lanes)
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
