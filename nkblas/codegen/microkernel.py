"""The k loop over a register tile, built of nanokernels."""

from functools import partial

from nkblas.dtypes import ITEMSIZE
from nkblas.isa import ISA

from . import epilogue, ir
from .ir import LINE, PREFETCH, Value
from .nanokernel import NANOKERNELS, Nanokernel, compose, flatten, unflatten
from .spec import Microkernel, Peak

AHEAD = 16
"""So many k-steps before it is needed, a row of B in place is fetched into L1."""


def _nanokernel(spec: Microkernel | Peak, isa: ISA) -> Nanokernel:
    types = spec.types
    return NANOKERNELS[spec.family](isa, spec.facts, types.a, types.b)


def build(spec: Microkernel, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Microkernel`'s)."""
    k, a, lda, b, ldb, c, ldc, n, accumulate, panel, line, line_step, lines, scale = arguments
    nanokernel, facts = _nanokernel(spec, isa), spec.facts
    of_a, of_b, held, of_c = spec.types
    a_element, b_element, c_element = map(ir.element_type, (of_a, of_b, of_c))
    b_size, lanes = ITEMSIZE[of_b], nanokernel.lanes
    vectors = range(spec.nr // lanes)
    groups = nanokernel.row_groups(spec.mr)

    edge = None
    if spec.masked:
        left = ir.add(n, ir.const(-(len(vectors) - 1) * lanes))
        edge = nanokernel.mask(left)
    c_mask = [None] * (len(vectors) - 1) + [edge]
    # packed panels are whole
    can_mask = facts.group_b == 1 and isa.can_mask(b_size)
    b_mask = c_mask if can_mask else [None] * len(vectors)

    c_rows = [ir.address(c, ir.mul(ldc, ir.const(i)), c_element) for i in range(spec.mr)]
    c_tile = [[ir.address(row, j * lanes, c_element) for j in vectors] for row in c_rows]
    for row in c_tile:
        for place in row:
            ir.prefetch_for_write(place)

    # One k-step a turn, and addresses left to LLVM: it needs two registers for the rows of A in
    # place. Unrolled by hand, its scheduler draws the loads together and spills accumulators.
    in_rows = spec.a_layout == "row"
    a_rows = [
        ir.mul(lda, ir.const(first)) if in_rows else first * facts.group_a for first, _ in groups
    ]
    a_apart = lda if in_rows else ir.const(facts.group_a)
    a_next = ir.const(1) if in_rows else lda  # the next k, for families that take them one by one
    a_step = facts.step if in_rows else ir.mul(lda, ir.const(facts.step))

    b_ahead = ir.mul(ldb, ir.const(AHEAD))
    b_next = ir.mul(ldb, ir.const(facts.step))

    def load_b(b: Value, panel: Value, turn: int, j: int) -> Value:
        place = ir.address(b, j * lanes * facts.group_b, b_element)
        vector = nanokernel.load_b(place, b_mask[j], ldb, turn)
        if spec.packs_b:
            ir.store(vector, ir.address(panel, j * lanes, b_element))
        return vector

    def step(_: Value, carried: list[Value]) -> list[Value]:
        a, b, panel, *flat = carried
        if spec.packs_b:
            row = ir.address(b, b_ahead, b_element)
            for column in (*range(0, spec.nr, LINE // b_size), spec.nr - 1):
                ir.prefetch(ir.address(row, column, b_element))
        if spec.prefetch:
            for column in range(0, spec.nr, max(lanes, LINE // b_size)):
                ir.prefetch(ir.address(b, column + PREFETCH // b_size, b_element), ir.L2)
        tile = unflatten(flat, len(vectors), facts.accumulators)
        for turn in range(nanokernel.turns):
            a_turn = ir.address(a, ir.mul(a_next, ir.const(turn)), a_element) if turn else a

            def load_a(i: int, a: Value = a_turn) -> Value:
                place = ir.address(a, a_rows[i], a_element)
                return nanokernel.load_a(place, groups[i][1], a_apart)

            tile = compose(nanokernel, load_a, partial(load_b, b, panel, turn), tile)
        return [
            ir.address(a, a_step, a_element),
            ir.address(b, b_next, b_element),
            ir.address(panel, spec.nr, b_element) if spec.packs_b else panel,
            *flatten(tile),
        ]

    def step_and_fetch(p: Value, carried: list[Value]) -> list[Value]:
        line, *rest = carried
        ir.prefetch(line, ir.L2)
        return [ir.address(line, line_step, ir.integer(8)), *step(p, rest)]

    empty = [[nanokernel.zero(count) for _ in vectors] for _, count in groups]
    if facts.compensation:
        b, empty = _compensated(nanokernel, b, ldb, empty)
    _, *carried = ir.loop(lines, [line, a, b, panel, *flatten(empty)], step_and_fetch)
    flat = ir.loop(k, carried, step, start=lines)[3:]
    tile = unflatten(flat, len(vectors), facts.accumulators)

    sums = nanokernel.sums(tile, spec.mr, spec.epilogue, scale)
    places = [(place, c_mask[j]) for row in c_tile for j, place in enumerate(row)]
    epilogue.store(spec.epilogue, isa, (held, of_c), sums, places, accumulate, scale)


def _compensated(
    nanokernel: Nanokernel, b: Value, ldb: Value, tile: list[list[tuple[Value, ...]]]
) -> tuple[Value, list[list[tuple[Value, ...]]]]:
    """B beyond the first row of its panel, and accumulators that begin with it."""
    vector = nanokernel.vector_type
    width = range(len(tile[0]))
    places = [ir.address(b, j * nanokernel.lanes, vector.element_type) for j in width]
    row = [(ir.load(vector, place),) for place in places]
    after = ir.address(b, ldb, vector.element_type)  # which may be wider than the tile
    return after, [row for _ in tile]


def build_peak(spec: Peak, isa: ISA, arguments: list[Value]) -> None:
    """Emit independent multiply-adds on registers alone."""
    steps, out = arguments
    nanokernel = _nanokernel(spec, isa)
    rows = nanokernel.family.rows_in_tile or 1
    one = ir.const(spec.facts.group_a if rows == 1 else 0)
    parts = spec.facts.accumulators
    integers = spec.facts.split(isa) and ir.is_integer(nanokernel.vector_type)

    a = nanokernel.load_a(out, rows, one)
    b = nanokernel.load_b(out, None, ir.const(0), 0)

    def step(_: Value, carried: list[Value]) -> list[Value]:
        sums: list[Value] = []
        for i in range(0, len(carried), parts):
            chain = tuple(carried[i : i + parts])
            # a product that is the same for all would be done once
            x = ir.bitcast(a.type, carried[i - 1]) if integers else a
            sums += nanokernel.multiply_add(x, b, chain)
        return sums

    vectors = not nanokernel.family.rows_in_tile
    chains = [value for _ in range(spec.chains) for value in nanokernel.zero(rows)]
    if integers:  # equal ones would be one
        places = [ir.address(out, i, nanokernel.vector_type) for i in range(len(chains))]
        chains = [ir.load(x.type, place) for x, place in zip(chains, places, strict=True)]
    chains = ir.loop(steps, chains, step)
    if not vectors:
        for chain in chains:
            nanokernel.sums([[(chain,)]], rows, "", out)
        return
    total = chains[0]
    for other in chains[1:]:
        total = ir.plus(total, ir.bitcast(total.type, other))
    ir.store(total, out)
