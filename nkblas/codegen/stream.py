"""The loops along n over a few rows of B at a time, built of nanokernels."""

from collections.abc import Callable
from typing import Any

from nkblas.isa import ISA
from nkblas.problem import ITEMSIZE

from . import ir
from .ir import LINE, PREFETCH, Value
from .nanokernel import FMA, compose
from .spec import Stream


def build(spec: Stream, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Stream`'s)."""
    ldc = arguments[6]
    lanes = isa.lanes(ITEMSIZE[spec.dtype])

    def through_caches() -> list[Value]:
        return _build(spec, isa, element, arguments, ir.store)

    def past_caches() -> list[Value]:
        return _build(spec, isa, element, arguments, ir.store_past_caches)

    if not spec.nontemporal:
        through_caches()
        return
    # Only whole, aligned vectors can go past the caches; one row's may be aligned, another's not.
    rest = ir.sub(ldc, ir.round_down(ldc, lanes)) if spec.mr > 1 else ir.const(0)
    ir.either(ir.nonzero(rest), through_caches, past_caches)
    ir.flush()


def _build(
    spec: Stream,
    isa: ISA,
    element: Any,
    arguments: list[Value],
    store_whole: Callable[[Value, Value], None],
) -> list[Value]:
    k, a, lda, b, ldb, c, ldc, n, accumulate = arguments
    itemsize = ITEMSIZE[spec.dtype]
    lanes = isa.lanes(itemsize)
    rows, vectors = range(spec.mr), range(spec.nr // lanes)
    row_step, k_step = (lda, ir.const(1)) if spec.a_layout == "row" else (ir.const(1), lda)
    c_rows = [ir.mul(ldc, ir.const(i)) for i in rows]

    # A vector that lies in two cache lines is two loads, and can't be stored past the caches.
    aligned = b if store_whole is ir.store else c
    start = ir.minimum(ir.until_aligned(aligned, ir.vector_of(lanes, element)), n)
    stop = ir.add(start, ir.whole(ir.sub(n, start), spec.nr))

    def rows_of_b(p: Value, count: int, first: bool) -> list[Value]:
        """Multiply `count` rows of B, from row `p` on; to the `first` ones no C is added."""
        a_tile = ir.address(a, ir.mul(p, k_step), element)
        held = [
            [
                ir.load(
                    element,
                    ir.address(
                        ir.address(a_tile, ir.mul(k_step, ir.const(q)), element),
                        ir.mul(row_step, ir.const(i)),
                        element,
                    ),
                )
                for i in rows
            ]
            for q in range(count)
        ]
        b_tile = ir.address(b, ir.mul(p, ldb), element)
        b_rows = [ir.mul(ldb, ir.const(q)) for q in range(count)]

        def tile(j: Value, vectors: range, lanes: int, mask: Value | None = None) -> list[Value]:
            """Columns from `j` on."""
            nanokernel = FMA(ir.vector_of(lanes, element))

            def place(matrix: Value, row: Value, v: int) -> Value:
                return ir.address(
                    ir.address(ir.address(matrix, j, element), row, element), v * lanes, element
                )

            sums = [
                [
                    nanokernel.zero()
                    if first
                    else ir.load(nanokernel.vector_type, place(c, row, v), mask)
                    for v in vectors
                ]
                for row in c_rows
            ]
            whole = mask is None and lanes > 1
            for scalars, row in zip(held, b_rows, strict=True):
                for v in vectors:
                    if spec.prefetch and whole and v * lanes * itemsize % LINE == 0:
                        ir.prefetch(
                            ir.address(place(b_tile, row, v), PREFETCH // itemsize, element)
                        )
                sums = compose(
                    nanokernel,
                    lambda i: ir.splat(scalars[i], nanokernel.vector_type),
                    lambda v: nanokernel.load_b(place(b_tile, row, v), mask),
                    sums,
                )
            for row, values in zip(c_rows, sums, strict=True):
                for v, value in enumerate(values):
                    if whole:
                        store_whole(value, place(c, row, v))
                    else:
                        ir.store(value, place(c, row, v), mask)
            return []

        def edge(side: Value, _: list[Value]) -> list[Value]:
            """Columns before and after the whole tiles."""
            left = ir.is_zero(side)
            first, last = ir.select(left, ir.const(0), stop), ir.select(left, start, n)
            if isa.masked:
                ir.loop(
                    last,
                    [],
                    lambda j, _: tile(j, range(1), lanes, ir.first_lanes(lanes, ir.sub(last, j))),
                    start=first,
                    step=lanes,
                )
            else:
                ir.loop(last, [], lambda j, _: tile(j, range(1), 1), start=first)
            return []

        ir.loop(stop, [], lambda j, _: tile(j, vectors, lanes), start=start, step=spec.nr)
        ir.loop(ir.const(2), [], edge)
        return []

    begin = ir.const(0)
    for count in dict.fromkeys((spec.kr, 1)):
        end = ir.add(begin, ir.whole(ir.sub(k, begin), count))

        def group(p: Value, _: list[Value], count: int = count) -> list[Value]:
            return ir.either(
                ir.is_zero(ir.add(p, accumulate)),
                lambda: rows_of_b(p, count, True),
                lambda: rows_of_b(p, count, False),
            )

        ir.loop(end, [], group, start=begin, step=count)
        begin = end
    return []
