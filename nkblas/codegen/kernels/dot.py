"""Products of rows and columns that both lie along k, built of nanokernels."""

from collections.abc import Callable
from typing import Any

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import (
    CACHE_LINE_BYTES,
    PREFETCH_DISTANCE_BYTES,
    SEGMENT_BYTES,
    Value,
)
from nkblas.codegen.spec import Dot

from . import epilogue
from .nanokernel import Plain, compose, flatten, unflatten

CHAINS = 8
"""Accumulators that keep the units busy: two multiply-adds a cycle, each of which takes four."""


def build(spec: Dot, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Dot`'s)."""
    k, a, lda, b, ldb, c, ldc, _, accumulate, *_, scale = arguments
    itemsize = ITEMSIZE[spec.dtype]
    lanes = isa.lanes(itemsize)
    nanokernel = Plain(spec.dtype, lanes)
    vector, parts = nanokernel.vector_type, nanokernel.parts
    size = spec.mr * spec.nr * parts
    a_lines = [ir.mul(lda, ir.const_i64(i)) for i in range(spec.mr)]
    b_lines = [ir.mul(ldb, ir.const_i64(j)) for j in range(spec.nr)]
    streamed, ld, lines = (a, lda, a_lines) if spec.streamed == "a" else (b, ldb, b_lines)
    turns_a = spec.mr < spec.nr

    def operand(vector: Value, turned: bool) -> list[Value]:
        """What the parts of an accumulator are multiplied by: see `_sums`."""
        return [vector, epilogue.swapped(vector) if turned else vector][:parts]

    def step(
        p: Value, sums: list[Value], load: Callable[[Value], Value], offset: int = 0
    ) -> list[Value]:
        """One vector of each line, from `p` + `offset` on."""
        tile = compose(
            nanokernel,
            lambda i: operand(load(ir.gep(a, element, p, a_lines[i], offset)), turns_a),
            lambda j: operand(load(ir.gep(b, element, p, b_lines[j], offset)), not turns_a),
            unflatten(sums, spec.nr, parts),
        )
        return flatten(tile)

    def steps(p: Value, sums: list[Value]) -> list[Value]:
        """Some vectors of each line, with accumulators for each."""
        new = []
        for i in range(len(sums) // size):
            offset = i * lanes
            if spec.prefetch and offset * itemsize % CACHE_LINE_BYTES == 0:
                for line in lines:
                    ir.prefetch(
                        ir.gep(
                            streamed, element, p, line, offset + PREFETCH_DISTANCE_BYTES // itemsize
                        ),
                        ir.TO_L2,
                    )
            new += step(p, sums[i * size :][:size], lambda place: ir.load(vector, place), offset)
        return new

    def edge(start: Value, stop: Value, sums: list[Value]) -> list[Value]:
        """Less than a vector; zeros fill both sides, and raise no exceptions."""
        if isa.masked:
            mask = nanokernel.mask(ir.sub(stop, start))

            def masked() -> list[Value]:
                return step(start, sums, lambda place: ir.load(vector, place, mask))

            return ir.if_then(ir.slt(start, stop), masked, sums)

        def one(p: Value, sums: list[Value]) -> list[Value]:
            return step(p, sums, lambda place: ir.load_first_lanes(vector, place, parts))

        return ir.for_loop(stop, sums, one, start=start)

    def zeros(count: int) -> list[Value]:
        return [ir.const_zero(vector)] * count

    def up_to_aligned(skipped: Value) -> list[Value]:
        """The first, aligned vector of the streamed operand, without the lanes before it."""
        mask = nanokernel.mask(ir.add(skipped, k))
        mask = ir.andnot(mask, nanokernel.mask(skipped))
        before = ir.sub(ir.const_i64(0), skipped)
        return step(before, sums, lambda place: ir.load(vector, place, mask))

    # A vector that lies in two cache lines is two loads: most are of the streamed operand, whose
    # lines are aligned together or not at all.
    start, sums = ir.const_i64(0), zeros(size)
    vectors_at_once = max(1, CHAINS // size)
    aligned = isa.masked and vectors_at_once == 1
    if aligned:
        odd = ir.mod_power_of_two(ld, lanes) if len(lines) > 1 else ir.const_i64(0)
        skipped = ir.select(
            ir.is_zero(odd), ir.lane_in_aligned_vector(streamed, itemsize, lanes), ir.const_i64(0)
        )
        sums = ir.if_then(ir.is_nonzero(skipped), lambda: up_to_aligned(skipped), sums)
        start = ir.minsi(ir.mod_power_of_two(ir.sub(ir.const_i64(0), skipped), lanes), k)
    for count in dict.fromkeys((vectors_at_once, 1)):
        stop = ir.add(start, ir.round_down(ir.sub(k, start), count * lanes))
        chains = sums + zeros(size * (count - 1))
        chains = ir.for_loop(stop, chains, steps, start=start, step=count * lanes)
        sums = chains[:size]
        for i in range(size, len(chains), size):
            sums = list(map(ir.add, sums, chains[i : i + size]))
        start = stop
    sums = edge(start, k, sums)
    if aligned:
        # The bits must not depend on where operands lie: the sums in each lane are always those
        # of the same elements, and so is their order.
        down = ir.mul(skipped, ir.const_i64(parts))
        sums = ir.if_then(
            ir.is_nonzero(skipped), lambda: [ir.rotate_lanes(x, down) for x in sums], sums
        )

    found = epilogue.Scale.read(scale, vector.element_type) if spec.epilogue else None
    sums = _sums(sums, parts, turns_a, found)
    stored = []
    together = max(1, lanes // spec.nr)  # rows of C, in one vector
    row_size, width = spec.nr * parts, lanes * parts
    for first in range(0, spec.mr, together):
        rows = range(first, min(first + together, spec.mr))
        segment = SEGMENT_BYTES * parts // itemsize
        totals = lane_sums(sums[rows.start * row_size : rows.stop * row_size], segment)
        for i in rows:
            for j in range(0, spec.nr, lanes):
                which, lane = divmod((i - first) * row_size + j * parts, width)
                chosen = range(lane, lane + min(lanes, spec.nr - j) * parts)
                total = ir.shuffle(totals[which], totals[which], chosen)
                stored.append(epilogue.with_sign(total, spec.dtype, found))
    dtypes = spec.dtype, spec.dtype
    starts = range(0, spec.nr, lanes)
    target = epilogue.Target(c, ldc, spec.mr, starts, [None] * len(starts), accumulate, scale)
    epilogue.store(spec.epilogue, isa, dtypes, stored, target)


def _sums(
    accumulators: list[Value], parts: int, turns_a: bool, scale: epilogue.Scale | None
) -> list[Value]:
    """The vectors whose lanes make up the sums, part by part.

    Of complex numbers, an accumulator's first part is multiplied like that: real parts by real
    ones, imaginary by imaginary ones. For the second, one operand has its parts in the other order.
    """
    if parts == 1:
        return accumulators
    type_ = accumulators[0].type
    signs = ir.const_alternating(type_, 1, -1), ir.const_one(type_)
    if scale is not None:  # A's imaginary parts
        turn = ir.splat(scale.a_imag_sign, type_)
        odd, even = ir.const_alternating(type_, 0, 1), ir.const_alternating(type_, 1, 0)
        ofs = (odd, even) if not turns_a else (even, odd)
        signs = ir.fma(turn, ir.const_alternating(type_, 0, -1), even), ir.fma(turn, ofs[0], ofs[1])
    return [ir.mul(value, signs[i % 2]) for i, value in enumerate(accumulators)]


def lane_sums(vectors: list[Value], segment: int) -> list[Value]:
    """The sum of the lanes of each vector; the sums, in order, in as few vectors as they fill.

    Two vectors become one that has half of its lanes for each of them, and so on until one lane is
    left for each: about a third of the work of one vector after the other. It begins inside of
    segments of a few lanes, which is cheaper than across them.
    """
    lanes = vectors[0].type.shape[0]

    def halve(x: Value, y: Value | None, span: int, block: int) -> Value:
        """Add the two halves of each block: in each span, those of x and then those of y."""
        width = x.type.shape[0]
        lower = [
            operand + start + lane
            for first in range(0, width, span)
            for operand in ([0] if y is None else [0, width])
            for start in range(first, first + span, block)
            for lane in range(block // 2)
        ]
        upper = [lane + block // 2 for lane in lower]
        other = x if y is None else y
        return ir.add(ir.shuffle(x, other, lower), ir.shuffle(x, other, upper))

    def in_pairs(vectors: list[Value], span: int, block: int) -> list[Value]:
        even = vectors + [ir.const_zero(vectors[0].type)] * (len(vectors) % 2)
        return [halve(x, y, span, block) for x, y in zip(even[::2], even[1::2], strict=True)]

    block = segment
    while block > 1:
        vectors = in_pairs(vectors, segment, block)
        block //= 2
    block = lanes
    while block > segment:
        if len(vectors) > 1:
            vectors = in_pairs(vectors, lanes, block)
        else:
            vectors = [halve(x, None, x.type.shape[0], block) for x in vectors]
        block //= 2
    return vectors
