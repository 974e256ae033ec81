"""The loop along n over a few rows of B at a time, built of nanokernels."""

from typing import Any

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import CACHE_LINE_BYTES, PREFETCH_DISTANCE_BYTES, Value
from nkblas.codegen.spec import Stream

from . import epilogue
from .nanokernel import Accumulator, Plain, compose


def build(spec: Stream, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Stream`'s)."""

    def through_caches() -> list[Value]:
        return _loops(spec, isa, element, arguments, nontemporal=False)

    def past_caches() -> list[Value]:
        return _loops(spec, isa, element, arguments, nontemporal=True)

    if not spec.nontemporal:
        through_caches()
        return
    # Only an aligned vector can go past the caches: the rows are aligned together or not at all.
    itemsize = ITEMSIZE[spec.dtype]
    c, ldc = arguments[5:7]
    odd = ir.misalignment(c, itemsize)
    if spec.mr > 1:
        odd = ir.or_(odd, ir.mod_power_of_two(ldc, isa.lanes(itemsize)))
    ir.if_else(ir.is_nonzero(odd), through_caches, past_caches)
    ir.store_fence()


def _loops(
    spec: Stream, isa: ISA, element: Any, arguments: list[Value], nontemporal: bool
) -> list[Value]:
    k, a, lda, b, ldb, c, ldc, n, accumulate, *_, scale = arguments
    itemsize = ITEMSIZE[spec.dtype]
    all_lanes = isa.lanes(itemsize)
    whole_vectors = Plain(spec.dtype, all_lanes)
    part = whole_vectors.vector_type.element_type
    scales = epilogue.Scale.read(scale, part) if spec.epilogue else None
    rows = range(spec.mr)
    along_m, along_k = (lda, ir.const_i64(1)) if spec.a_layout == "row" else (ir.const_i64(1), lda)
    a_rows = [ir.mul(along_m, ir.const_i64(i)) for i in rows]
    c_rows = [ir.mul(ldc, ir.const_i64(i)) for i in rows]

    # A vector that lies in two cache lines is two loads. Columns before `start` and after `stop`
    # are left to the edge.
    aligned = ir.elements_until_aligned(c if nontemporal else b, itemsize, all_lanes)
    start = ir.minsi(aligned, n)
    stop = ir.add(start, ir.round_down(ir.sub(n, start), spec.nr))

    def element_of_a(place: Value) -> tuple[Value, ...]:
        value = whole_vectors.element(place)
        return value if scales is None else epilogue.scaled_element(value, scales)

    def with_sign(value: Value) -> Value:
        return epilogue.with_sign(value, spec.dtype, scales)

    def group(p: Value, count: int, fresh: bool, scaled: bool = False) -> list[Value]:
        """Rows of B from `p` on; what they come to is added to C, unless it is `fresh`.

        (To begin with C would save an instruction, and have all of k in one chain of rounding
        errors. The sums wait for B anyway.)
        """
        b_group = ir.gep(b, element, ir.mul(ldb, p))
        a_tile = [
            [
                element_of_a(
                    ir.gep(a, element, ir.mul(along_k, p), row, ir.mul(along_k, ir.const_i64(q)))
                )
                for row in a_rows
            ]
            for q in range(count)
        ]

        def tile(j: Value, vectors: int, lanes: int, mask: Value | None = None) -> list[Value]:
            """Columns from `j` on."""
            nanokernel = Plain(spec.dtype, lanes)
            whole = mask is None and lanes == all_lanes
            ahead = ir.add(j, ir.const_i64(PREFETCH_DISTANCE_BYTES // itemsize))
            if spec.prefetch and whole and spec.mr == 1 and isa.fused:
                # What comes after the last column is the first one of the next rows. (For more rows
                # of C, or with a register for products, LLVM's schedule would spill.)
                beyond = ir.sub(ahead, ir.sub(n, ir.mul(ldb, ir.const_i64(count))))
                ahead = ir.select(ir.slt(ahead, n), ahead, beyond)
            places = [
                [ir.gep(c, element, j, row, v * lanes) for v in range(vectors)] for row in c_rows
            ]

            def with_c(place: Value, value: Value) -> Value:
                if fresh:
                    return value
                c = ir.load(nanokernel.vector_type, place, mask)
                if scaled and scales is not None:
                    c = epilogue.times(c, spec.dtype, scales.beta, scales.beta_imag)
                return ir.add(c, value)

            sums = [[nanokernel.zero() for _ in row] for row in places]

            def add_row(sums: list[list[Accumulator]], q: int) -> list[list[Accumulator]]:
                row = ir.mul(ldb, ir.const_i64(q))
                b_row = ir.gep(b_group, element, j, row)
                if spec.prefetch and whole:
                    for line in range(0, vectors * lanes, max(lanes, CACHE_LINE_BYTES // itemsize)):
                        ir.prefetch(ir.gep(b_group, element, ahead, row, line), ir.TO_L2)
                return compose(
                    nanokernel,
                    lambda i: nanokernel.splat(a_tile[q][i]),
                    lambda v: nanokernel.load_b(ir.gep(b_row, element, v * lanes), mask),
                    sums,
                )

            for q in range(count):
                sums = add_row(sums, q)
            for place_row, sum_row in zip(places, sums, strict=True):
                for place, accumulator in zip(place_row, sum_row, strict=True):
                    value = with_c(place, with_sign(nanokernel.total(accumulator)))
                    if nontemporal and whole:
                        ir.store_nontemporal(value, place)
                    else:
                        ir.store(value, place, mask)
            return []

        def edge(side: Value, _: list[Value]) -> list[Value]:
            """What the whole tiles leave over on one side."""
            left = ir.is_zero(side)
            first, last = ir.select(left, ir.const_i64(0), stop), ir.select(left, start, n)

            def masked(j: Value, _: list[Value]) -> list[Value]:
                return tile(j, 1, all_lanes, whole_vectors.mask(ir.sub(last, j)))

            if isa.masked:
                return ir.for_loop(last, [], masked, start=first, step=all_lanes)
            return ir.for_loop(last, [], lambda j, _: tile(j, 1, 1), start=first)

        vectors = spec.nr // all_lanes
        ir.for_loop(stop, [], lambda j, _: tile(j, vectors, all_lanes), start=start, step=spec.nr)
        return ir.for_loop(ir.const_i64(2), [], edge)

    done = ir.const_i64(0)
    for count in dict.fromkeys((spec.kr, 1)):

        def groups(p: Value, _: list[Value], count: int = count) -> list[Value]:
            def first() -> list[Value]:
                if scales is None:
                    return group(p, count, fresh=True)
                return ir.if_else(
                    epilogue.is_not_zero(scales.beta, scales.beta_imag),
                    lambda: group(p, count, fresh=False, scaled=True),
                    lambda: group(p, count, fresh=True),
                )

            return ir.if_else(
                ir.is_zero(ir.add(p, accumulate)), first, lambda: group(p, count, fresh=False)
            )

        end = ir.add(done, ir.round_down(ir.sub(k, done), count))
        ir.for_loop(end, [], groups, start=done, step=count)
        done = end
    return []
