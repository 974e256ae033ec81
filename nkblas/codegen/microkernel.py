"""The k loop over a register tile, built of nanokernels."""

from typing import Any

from nkblas.isa import ISA
from nkblas.problem import ITEMSIZE

from . import epilogue, ir
from .ir import LINE, PREFETCH, Value
from .nanokernel import FMA, compose
from .spec import Microkernel, Peak

AHEAD = 16
"""So many k-steps before it is needed, a row of B in place is fetched into L1."""


def build(spec: Microkernel, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Microkernel`'s)."""
    k, a, lda, b, ldb, c, ldc, n, accumulate, panel, line, line_step, lines, scale = arguments
    itemsize = ITEMSIZE[spec.dtype]
    lanes = isa.lanes(itemsize)
    rows, vectors = range(spec.mr), range(spec.nr // lanes)
    nanokernel = FMA(ir.vector_of(lanes, element))

    edge = None
    if spec.masked:
        edge = ir.first_lanes(lanes, ir.add(n, ir.const(-(len(vectors) - 1) * lanes)))
    c_mask = [None] * (len(vectors) - 1) + [edge]
    b_mask = c_mask if isa.masked else [None] * len(vectors)

    c_rows = [ir.address(c, ir.mul(ldc, ir.const(i)), element) for i in rows]
    c_tile = [[ir.address(row, j * lanes, element) for j in vectors] for row in c_rows]
    for row in c_tile:
        for place in row:
            ir.prefetch_for_write(place)

    # One k-step a turn, and addresses left to LLVM: it needs two registers for the rows of A in
    # place. Unrolled by hand, its scheduler draws the loads together and spills accumulators.
    a_rows = [ir.mul(lda, ir.const(i)) if spec.a_layout == "row" else i for i in rows]
    a_step = 1 if spec.a_layout == "row" else lda

    b_ahead = ir.mul(ldb, ir.const(AHEAD))

    def load_b(b: Value, panel: Value, j: int) -> Value:
        vector = nanokernel.load_b(ir.address(b, j * lanes, element), b_mask[j])
        if spec.packs_b:
            ir.store(vector, ir.address(panel, j * lanes, element))
        return vector

    def step(_: Value, carried: list[Value]) -> list[Value]:
        a, b, panel, *flat = carried
        if spec.packs_b:
            row = ir.address(b, b_ahead, element)
            for column in (*range(0, spec.nr, LINE // itemsize), spec.nr - 1):
                ir.prefetch(ir.address(row, column, element))
        if spec.prefetch:
            for column in range(0, spec.nr, max(lanes, LINE // itemsize)):
                ir.prefetch(ir.address(b, column + PREFETCH // itemsize, element), ir.L2)
        tile = compose(
            nanokernel,
            lambda i: nanokernel.load_a(ir.address(a, a_rows[i], element)),
            lambda j: load_b(b, panel, j),
            [flat[i * len(vectors) : (i + 1) * len(vectors)] for i in rows],
        )
        return [
            ir.address(a, a_step, element),
            ir.address(b, ldb, element),
            ir.address(panel, spec.nr, element) if spec.packs_b else panel,
            *(value for row in tile for value in row),
        ]

    def step_and_fetch(p: Value, carried: list[Value]) -> list[Value]:
        line, *rest = carried
        ir.prefetch(line, ir.L2)
        return [ir.address(line, line_step, element), *step(p, rest)]

    empty = [nanokernel.zero() for _ in rows for _ in vectors]
    _, *carried = ir.loop(lines, [line, a, b, panel, *empty], step_and_fetch)
    sums = ir.loop(k, carried, step, start=lines)[3:]

    places = [(place, c_mask[j]) for row in c_tile for j, place in enumerate(row)]
    epilogue.store(spec.epilogue, sums, places, accumulate, scale, element)


def build_peak(spec: Peak, isa: ISA, element: Any, arguments: list[Value]) -> None:
    """Emit independent multiply-adds on registers alone."""
    steps, out = arguments
    nanokernel = FMA(ir.vector_of(isa.lanes(ITEMSIZE[spec.dtype]), element))
    a = nanokernel.load_a(out)
    b = nanokernel.load_b(out, None)
    chains = ir.loop(
        steps,
        [nanokernel.zero() for _ in range(spec.chains)],
        lambda _, sums: [nanokernel.multiply_add(a, b, s) for s in sums],
    )
    total = chains[0]
    for other in chains[1:]:
        total = ir.float_add(total, other)
    ir.store(total, out)
