"""The k loop over a register tile, built of nanokernels."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from nkblas.base.dtypes import ITEMSIZE
from nkblas.base.epilogues import parse
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import CACHE_LINE_BYTES, PREFETCH_DISTANCE_BYTES, Value
from nkblas.codegen.spec import Microkernel, Peak

from . import epilogue
from .activation import ACTIVATION_CODE
from .nanokernel import AMX, NANOKERNELS, Nanokernel, compose, flatten, unflatten

Step: TypeAlias = Callable[[Value, list[Value]], list[Value]]

AHEAD = 16
"""So many k-steps before it is needed, a row of B in place is fetched into L1."""

PANEL_AHEAD = 8192
"""Bytes that a panel which was packed before is fetched ahead: one line of two, whose neighbours
the CPU brings in by itself."""

ROWS_AHEAD = 2
"""With tile registers, so many rows of C are fetched in a step for the next tile, and a line of so
many rows of A for the next row of tiles."""


def _nanokernel(spec: Microkernel | Peak, isa: ISA) -> Nanokernel:
    types = spec.types
    return NANOKERNELS[spec.family](isa, spec.descriptor, types.a, types.b)


class _StepsOfA(NamedTuple):
    """Where a microkernel finds A: distances in elements.

    Attributes
    ----------
    rows : list
        To the first row of each group of rows.
    apart : Value
        Of rows in a group.
    next, step : Value or int
        To the next k, for families that take them one by one; to the next step.
    """

    rows: list[Value | int]
    apart: Value
    next: Value
    step: Value | int

    @classmethod
    def of(cls, spec: Microkernel, lda: Value, groups: list[tuple[int, int]]) -> "_StepsOfA":
        descriptor = spec.descriptor
        if spec.a_layout == "row":
            rows = [ir.mul(lda, ir.const_i64(first)) for first, _ in groups]
            return cls(rows, lda, ir.const_i64(1), descriptor.k_step)
        rows = [first * descriptor.k_group_a for first, _ in groups]
        return cls(
            rows,
            ir.const_i64(descriptor.k_group_a),
            lda,
            ir.mul(lda, ir.const_i64(descriptor.k_step)),
        )


def build(spec: Microkernel, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function (its contract is `spec.Microkernel`'s)."""
    if spec.descriptor.tile_rows:
        _build_along_panels(spec, isa, arguments)
        return
    k, a, lda, b, ldb, c, ldc, n, accumulate, panel, line, line_step, lines, scale = arguments
    nanokernel, descriptor = _nanokernel(spec, isa), spec.descriptor
    of_a, of_b, held, of_c = spec.types
    a_element, b_element = map(ir.element_type, (of_a, of_b))
    b_size, lanes = ITEMSIZE[of_b], nanokernel.lanes
    vectors = range(spec.nr // lanes)
    groups = nanokernel.row_groups(spec.mr)

    edge = None
    if spec.masked:
        left = ir.add(n, ir.const_i64(-(len(vectors) - 1) * lanes))
        edge = nanokernel.mask(left)
    c_mask = [None] * (len(vectors) - 1) + [edge]
    # packed panels are whole
    can_mask = descriptor.k_group_b == 1 and isa.can_mask(b_size)
    b_mask = c_mask if can_mask else [None] * len(vectors)
    _fetch_to_write(spec, c, ldc, lanes)
    room = None
    activation = ACTIVATION_CODE.get(parse(spec.epilogue).activation)
    if activation and activation.is_long:
        room = ir.alloca(spec.mr * spec.nr, nanokernel.vector_type.element_type)

    # One k-step a turn, and addresses left to LLVM: it needs two registers for the rows of A in
    # place. Unrolled by hand, its scheduler draws the loads together and spills accumulators.
    of = _StepsOfA.of(spec, lda, groups)
    b_ahead = ir.mul(ldb, ir.const_i64(AHEAD))
    b_next = ir.mul(ldb, ir.const_i64(descriptor.k_step))

    def load_b(b: Value, panel: Value, turn: int, j: int) -> Value:
        place = ir.gep(b, b_element, j * lanes * descriptor.k_group_b)
        vector = nanokernel.load_b(place, b_mask[j], ldb, turn)
        if spec.packs_b:
            ir.store(vector, ir.gep(panel, b_element, j * lanes))
        return vector

    def step(_: Value, carried: list[Value]) -> list[Value]:
        a, b, panel, *flat = carried
        if spec.packs_b:
            row = ir.gep(b, b_element, b_ahead)
            for column in (*range(0, spec.nr, CACHE_LINE_BYTES // b_size), spec.nr - 1):
                ir.prefetch(ir.gep(row, b_element, column))
        if spec.prefetch:
            for column in range(0, spec.nr, max(lanes, CACHE_LINE_BYTES // b_size)):
                ir.prefetch(
                    ir.gep(b, b_element, column + PREFETCH_DISTANCE_BYTES // b_size), ir.TO_L2
                )
        if spec.panel_ahead:
            _fetch_panel(spec, b)
        tile = unflatten(flat, len(vectors), descriptor.accumulator_registers)
        for turn in range(nanokernel.turns):
            a_turn = ir.gep(a, a_element, ir.mul(of.next, ir.const_i64(turn))) if turn else a

            def load_a(i: int, a: Value = a_turn) -> Value:
                place = ir.gep(a, a_element, of.rows[i])
                return nanokernel.load_a(place, groups[i][1], of.apart)

            tile = compose(nanokernel, load_a, partial(load_b, b, panel, turn), tile)
        return [
            ir.gep(a, a_element, of.step),
            ir.gep(b, b_element, b_next),
            ir.gep(panel, b_element, spec.nr) if spec.packs_b else panel,
            *flatten(tile),
        ]

    def step_and_fetch(p: Value, carried: list[Value]) -> list[Value]:
        line, *rest = carried
        ir.prefetch(line, ir.TO_L2)
        return [ir.gep(line, ir.int_type(8), line_step), *step(p, rest)]

    empty = [[nanokernel.zero(count) for _ in vectors] for _, count in groups]
    if descriptor.compensation:
        b, empty = _compensated(nanokernel, b, ldb, empty)
    if spec.batch_reduce:
        flat = _sum_of_blocks(a, b, panel, scale, k, flatten(empty), step)
    else:
        _, *carried = ir.for_loop(lines, [line, a, b, panel, *flatten(empty)], step_and_fetch)
        flat = ir.for_loop(k, carried, step, start=lines)[3:]
    tile = unflatten(flat, len(vectors), descriptor.accumulator_registers)

    sums = nanokernel.sums(tile, spec.mr, spec.epilogue, scale)
    starts = range(0, spec.nr, lanes)
    target = epilogue.Target(c, ldc, spec.mr, starts, c_mask, accumulate, scale, room=room)
    epilogue.store(spec.epilogue, isa, (held, of_c), sums, target)


def _sum_of_blocks(
    a: Value, b: Value, panel: Value, scale: Value, k: Value, empty: list[Value], step: Step
) -> list[Value]:
    """The accumulators after the k loops of all blocks."""
    a_blocks, b_blocks, count = epilogue.Blocks.read(scale)
    a_offset = ir.ptr_diff(a, ir.load(ir.ptr(), a_blocks))
    b_offset = ir.ptr_diff(b, ir.load(ir.ptr(), b_blocks))
    byte = ir.int_type(8)

    def block(i: Value, flat: list[Value]) -> list[Value]:
        a = ir.gep(ir.load(ir.ptr(), ir.gep(a_blocks, ir.i64(), i)), byte, a_offset)
        b = ir.gep(ir.load(ir.ptr(), ir.gep(b_blocks, ir.i64(), i)), byte, b_offset)
        return ir.for_loop(k, [a, b, panel, *flat], step)[3:]

    return ir.for_loop(count, empty, block)


def _fetch_to_write(spec: Microkernel, c: Value, ldc: Value, lanes: int) -> None:
    """Have a tile of C on its way into the cache."""
    element = ir.element_type(spec.types.c)
    for i in range(spec.mr):
        for j in range(0, spec.nr, lanes):
            ir.prefetch_for_write(ir.gep(c, element, ir.mul(ldc, ir.const_i64(i)), j))


def _fetch_panel(spec: Microkernel, b: Value) -> None:
    """Fetch what a step takes of a panel, so much ahead; behind a panel comes the next one."""
    of_b = spec.types.b
    for byte in range(0, spec.nr * spec.descriptor.k_step * ITEMSIZE[of_b], 2 * CACHE_LINE_BYTES):
        place = (byte + PANEL_AHEAD) // ITEMSIZE[of_b]
        ir.prefetch(ir.gep(b, ir.element_type(of_b), place), ir.TO_L2)


def _build_along_panels(spec: Microkernel, isa: ISA, arguments: list[Value]) -> None:
    """The same for tile registers: they are configured once, and then go along all of B's panels.

    (Configuring them takes as long as ten of their multiply-adds.)
    """
    k, a, lda, b, _, c, ldc, n, accumulate, _, line, line_step, _, scale = arguments
    of_a, of_b, held, of_c = spec.types
    nanokernel, descriptor = AMX(isa, spec.descriptor, of_a, of_b), spec.descriptor
    a_element, b_element, c_element = map(ir.element_type, (of_a, of_b, of_c))
    lanes, vectors = nanokernel.lanes, range(spec.nr // nanokernel.lanes)
    groups = nanokernel.row_groups(spec.mr)
    of = _StepsOfA.of(spec, lda, groups)
    width = ir.const_i64(spec.nr)
    b_next = spec.nr * descriptor.k_step
    fetching = ir.minsi(k, ir.const_i64(-(-spec.mr // ROWS_AHEAD)))
    byte = ir.int_type(8)
    in_memory = ir.alloca(spec.mr * spec.nr, nanokernel.vector_type.element_type)

    def step(_: Value, carried: list[Value]) -> list[Value]:
        line, a, b, *flat = carried
        for i in range(ROWS_AHEAD):
            ir.prefetch(ir.gep(line, byte, ir.mul(line_step, ir.const_i64(i))), ir.TO_L2)
        if spec.panel_ahead:
            _fetch_panel(spec, b)
        tile = compose(
            nanokernel,
            lambda i: nanokernel.load_a(ir.gep(a, a_element, of.rows[i]), groups[i][1], of.apart),
            lambda j: nanokernel.load_b(
                ir.gep(b, b_element, j * lanes * descriptor.k_group_b), None, width, 0
            ),
            unflatten(flat, len(vectors), 1),
        )
        after = ir.gep(a, a_element, of.step), ir.gep(b, b_element, b_next)
        return [ir.gep(line, byte, CACHE_LINE_BYTES), *after, *flatten(tile)]

    def step_and_fetch(p: Value, carried: list[Value]) -> list[Value]:
        row, *rest = carried
        for i in range(ROWS_AHEAD):
            for j in range(spec.nr, 2 * spec.nr, max(lanes, CACHE_LINE_BYTES // ITEMSIZE[of_c])):
                ir.prefetch_for_write(ir.gep(row, c_element, ir.mul(ldc, ir.const_i64(i)), j))
        return [ir.gep(row, c_element, ir.mul(ldc, ir.const_i64(ROWS_AHEAD))), *step(p, rest)]

    def panel(j: Value, carried: list[Value]) -> list[Value]:
        b, c, line = carried
        empty = [[nanokernel.zero(count) for _ in vectors] for _, count in groups]
        _, *carried = ir.for_loop(fetching, [c, line, a, b, *flatten(empty)], step_and_fetch)
        _, _, after, *flat = ir.for_loop(k, carried, step, start=fetching)
        tile = unflatten(flat, len(vectors), 1)
        left = ir.sub(n, j)

        def by_way_of_memory() -> list[Value]:
            nanokernel.store(tile, spec.mr, in_memory, width)
            masks = [ir.create_mask(lanes, ir.add(left, ir.const_i64(-i * lanes))) for i in vectors]
            starts = [i * lanes for i in vectors]

            def row(i: Value, _: list[Value]) -> list[Value]:
                before = ir.mul(i, width)
                sums = nanokernel.load_row(in_memory, before, len(vectors))
                kept = ir.add(ir.mul(j, ir.const_i64(spec.mr)), before)
                c_row = ir.gep(c, c_element, ir.mul(ldc, i))
                target = epilogue.Target(
                    c_row, ldc, 1, starts, masks, accumulate, scale, i, j, kept
                )
                epilogue.store(spec.epilogue, isa, (held, of_c), sums, target)
                return []

            ir.for_loop(ir.const_i64(spec.mr), [], row)
            return []

        def straight() -> list[Value]:
            nanokernel.store(tile, spec.mr, c, ldc)
            return []

        if spec.epilogue or held != of_c:
            by_way_of_memory()
        else:
            other = ir.or_(ir.slt(left, width), ir.is_nonzero(accumulate))
            ir.if_else(other, by_way_of_memory, straight)
        next_line = ir.gep(line, byte, ir.mul(line_step, ir.const_i64(ROWS_AHEAD)))
        return [after, ir.gep(c, c_element, spec.nr), next_line]

    _fetch_to_write(spec, c, ldc, lanes)
    ir.for_loop(n, [b, c, line], panel, step=spec.nr)


def _compensated(
    nanokernel: Nanokernel, b: Value, ldb: Value, tile: list[list[tuple[Value, ...]]]
) -> tuple[Value, list[list[tuple[Value, ...]]]]:
    """B beyond the first row of its panel, and accumulators that begin with it."""
    vector = nanokernel.vector_type
    width = range(len(tile[0]))
    places = [ir.gep(b, vector.element_type, j * nanokernel.lanes) for j in width]
    row = [(ir.load(vector, place),) for place in places]
    after = ir.gep(b, vector.element_type, ldb)  # which may be wider than the tile
    return after, [row for _ in tile]


def build_peak(spec: Peak, isa: ISA, arguments: list[Value]) -> None:
    """Emit independent multiply-adds on registers alone."""
    steps, out = arguments
    nanokernel = _nanokernel(spec, isa)
    rows = nanokernel.family.tile_rows or 1
    one = ir.const_i64(spec.descriptor.k_group_a if rows == 1 else 0)
    parts = spec.descriptor.accumulator_registers
    integers = spec.descriptor.is_unfused(isa) and ir.is_integer(nanokernel.vector_type)

    a = nanokernel.load_a(out, rows, one)
    b = nanokernel.load_b(out, None, ir.const_i64(0), 0)

    def step(_: Value, carried: list[Value]) -> list[Value]:
        sums: list[Value] = []
        for i in range(0, len(carried), parts):
            chain = tuple(carried[i : i + parts])
            # a product that is the same for all would be done once
            x = ir.bitcast(a.type, carried[i - 1]) if integers else a
            sums += nanokernel.multiply_add(x, b, chain)
        return sums

    chains = [value for _ in range(spec.chains) for value in nanokernel.zero(rows)]
    if integers:  # equal ones would be one
        places = [ir.gep(out, nanokernel.vector_type, i) for i in range(len(chains))]
        chains = [ir.load(x.type, place) for x, place in zip(chains, places, strict=True)]
    chains = ir.for_loop(steps, chains, step)
    if isinstance(nanokernel, AMX):
        for chain in chains:
            nanokernel.store([[(chain,)]], rows, out, ir.const_i64(nanokernel.lanes))
        return
    total = chains[0]
    for other in chains[1:]:
        total = ir.add(total, ir.bitcast(total.type, other))
    ir.store(total, out)
