"""Products of rows and columns that both lie along k, built of nanokernels."""

from collections.abc import Callable
from typing import Any

from nkblas.isa import ISA
from nkblas.problem import ITEMSIZE

from . import ir
from .ir import LINE, PREFETCH, Value
from .nanokernel import FMA, compose
from .spec import Dot

CHAINS = 8
"""Accumulators that keep the units busy: two multiply-adds a cycle, each of which takes four."""

SEGMENT = 16
"""Bytes within which lanes move freely; from one such part of a vector to another is dearer."""


def build(spec: Dot, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Dot`'s)."""
    k, a, lda, b, ldb, c, ldc, _, accumulate = arguments
    itemsize = ITEMSIZE[spec.dtype]
    lanes = isa.lanes(itemsize)
    size = spec.mr * spec.nr
    nanokernel = FMA(ir.vector_of(lanes, element))
    vector = nanokernel.vector_type
    a_lines = [ir.mul(lda, ir.const(i)) for i in range(spec.mr)]
    b_lines = [ir.mul(ldb, ir.const(j)) for j in range(spec.nr)]
    streamed, lines = (a, a_lines) if spec.streamed == "a" else (b, b_lines)

    def step(
        p: Value, sums: list[Value], load: Callable[[Value], Value], offset: int = 0
    ) -> list[Value]:
        """A vector of k from `p` + `offset` on, on all accumulators."""

        def place(operand: Value, line: Value) -> Value:
            return ir.address(
                ir.address(ir.address(operand, p, element), line, element), offset, element
            )

        tile = compose(
            nanokernel,
            lambda i: load(place(a, a_lines[i])),
            lambda j: load(place(b, b_lines[j])),
            [sums[i : i + spec.nr] for i in range(0, size, spec.nr)],
        )
        return [value for row in tile for value in row]

    def steps(p: Value, sums: list[Value]) -> list[Value]:
        """Vectors that follow each other, with accumulators for each."""
        new = []
        for i in range(len(sums) // size):
            if spec.prefetch and i * lanes * itemsize % LINE == 0:
                ahead = ir.address(streamed, ir.add(p, ir.const(i * lanes)), element)
                for line in lines:
                    ir.prefetch(
                        ir.address(ir.address(ahead, line, element), PREFETCH // itemsize, element)
                    )
            new += step(p, sums[i * size : (i + 1) * size], lambda x: ir.load(vector, x), i * lanes)
        return new

    def edge(start: Value, stop: Value, sums: list[Value]) -> list[Value]:
        """Less than a vector; zeros on both sides fill it, and raise no exceptions."""
        if isa.masked:
            mask = ir.first_lanes(lanes, ir.sub(stop, start))

            def masked() -> list[Value]:
                return step(start, sums, lambda x: ir.load(vector, x, mask))

            return ir.when(ir.less(start, stop), masked, sums)
        return ir.loop(
            stop,
            sums,
            lambda p, sums: step(p, sums, lambda x: ir.load_one(vector, x)),
            start=start,
        )

    def zeros(count: int) -> list[Value]:
        return [nanokernel.zero() for _ in range(count)]

    # A vector that lies in two cache lines is two loads: most are of the streamed operand.
    start = ir.minimum(ir.until_aligned(streamed, vector), k)
    sums = edge(ir.const(0), start, zeros(size))
    for count in dict.fromkeys((max(1, CHAINS // size), 1)):
        stop = ir.add(start, ir.whole(ir.sub(k, start), count * lanes))
        parts = sums + zeros(size * (count - 1))
        parts = ir.loop(stop, parts, steps, start=start, step=count * lanes)
        sums = parts[:size]
        for i in range(size, len(parts), size):
            sums = list(map(ir.float_add, sums, parts[i : i + size]))
        start = stop
    sums = edge(start, k, sums)

    def store(value: Value, place: Value) -> None:
        def plus_c() -> list[Value]:
            return [ir.float_add(ir.load(value.type, place), value)]

        ir.store(ir.when(ir.nonzero(accumulate), plus_c, [value])[0], place)

    rows = max(1, lanes // spec.nr)  # of which one vector holds the results
    for first in range(0, spec.mr, rows):
        results = lane_sums(sums[first * spec.nr : (first + rows) * spec.nr], SEGMENT // itemsize)
        for i in range(first, min(first + rows, spec.mr)):
            row = ir.address(c, ir.mul(ldc, ir.const(i)), element)
            for j in range(0, spec.nr, lanes):
                at = (i - first) * spec.nr + j
                chosen = range(at % lanes, at % lanes + min(lanes, spec.nr - j))
                result = results[at // lanes]
                store(ir.shuffle(result, result, chosen), ir.address(row, j, element))


def lane_sums(vectors: list[Value], segment: int) -> list[Value]:
    """The sum of each vector's lanes; the sums, in order, in as few vectors as it takes.

    The lanes of two vectors are added in pairs to one vector that has half of its lanes for each
    of the two, and so on: a third of the additions and shuffles that one vector at a time takes.
    It begins within segments of a few lanes, which is cheaper than across them.
    """
    lanes = vectors[0].type.shape[0]

    def halved(x: Value, y: Value | None, span: int, block: int) -> Value:
        """In each span: of each block of x, then of y, its lower and its upper half, added."""
        width = x.type.shape[0]
        lower = [
            operand + start + first + lane
            for start in range(0, width, span)
            for operand in ((0,) if y is None else (0, width))
            for first in range(0, span, block)
            for lane in range(block // 2)
        ]
        upper = [lane + block // 2 for lane in lower]
        other = x if y is None else y
        return ir.float_add(ir.shuffle(x, other, lower), ir.shuffle(x, other, upper))

    def paired(vectors: list[Value], span: int, block: int) -> list[Value]:
        even = vectors + [ir.zero(vectors[0].type)] * (len(vectors) % 2)
        return [halved(x, y, span, block) for x, y in zip(even[::2], even[1::2], strict=True)]

    block = segment
    while block > 1:
        vectors = paired(vectors, segment, block)
        block //= 2
    block = lanes
    while block > segment:
        if len(vectors) > 1:
            vectors = paired(vectors, lanes, block)
        else:
            vectors = [halved(x, None, x.type.shape[0], block) for x in vectors]
        block //= 2
    return vectors
