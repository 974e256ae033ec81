"""Schedules for products with a short dimension, which are bound by memory.

At least one operand is hardly used more than once then. These schedules read the large operand
once, in place, in the order in which it lies in memory.
"""

from collections.abc import Iterator

from nkblas._engine import lib
from nkblas.base.families import Family, families
from nkblas.base.problem import Problem
from nkblas.system.cpu import AMD, CPU, INTEL

from .caches import PAGE
from .schedule import (
    KC_BOUNDS,
    MAX_STREAM_ROWS,
    SHORT_DIMENSION,
    Panels,
    Schedule,
    dot_tile_fits,
    dot_widths,
    is_widened_dot,
    max_vectors,
    register_tiles,
    stream_depth,
    stream_passes,
)

# A or B counts as beyond L3 if it is larger than a quarter of L3, or for "dot" than half of it.

STREAM_VECTORS = 4
"""Vectors of columns of a "stream" schedule's nr, the granularity for threads."""

MAX_DISTANT_ROWS, MAX_CONFLICTING_ROWS = 15, 8
"""Rows of a tile that spans all columns, at most: for an A from beyond L3 (with 30 of them it takes
up to 2.8 times as long: the CPU does not prefetch as many), and for rows that are pages apart."""

MAX_ROWS_OF_FEW_TILES = 4
"""Rows of tiles, at most, for which B's rows are read once."""

MAX_STREAMED_K, MAX_STREAMED_K_TO_CACHE = 4, 12
"""Up to this k, 16 registers are enough for streams that add to C: where it may be anywhere, and
where a wide one stays in a near cache."""

MIN_STREAMED_VECTORS = 12
"""Vectors in a row of C from which it is wide."""


def skinny_schedules(problem: Problem, cpu: CPU) -> Iterator[Schedule]:
    """Schedules that read the large operand of a skinny product once, the best first.

    Some may be illegal for the problem (`Schedule.infeasible_reason`). There is none for a product
    whose dimensions are all long.
    """
    for family in families(problem.dtype, cpu.isa):
        if is_widened_dot(problem, family, cpu.isa):
            yield Schedule("dot", 1, 1, problem.k, 1, 1, family=family.name)
    if not problem.is_native or problem.batch_reduce:
        return
    family = families(problem.dtype, cpu.isa)[0]
    for schedule in _schedules_by_shape(_largest_of_class(problem), cpu, family):
        yield schedule._replace(family=family.name)


def legal_skinny_schedules(
    problem: Problem, cpu: CPU, panels: Panels | None = None
) -> Iterator[Schedule]:
    """Those of `skinny_schedules` that are legal for the problem, with its prepacked `panels`."""
    for schedule in skinny_schedules(problem, cpu):
        if not schedule.infeasible_reason(problem, cpu, panels):
            yield schedule


def _largest_of_class(problem: Problem) -> Problem:
    """The problem that the schedules are selected for: the largest of its class in n and k.

    So a plan serves for all sizes of a class (`Plan.sizes_in_classes`). n counts where only dots
    along k depend on it.
    """
    n = lib.nk_size_class(problem.n) if problem.m == 1 and problem.b == "col" else problem.n
    return problem._replace(n=n, k=lib.nk_size_class(problem.k))


def _has_few_registers(cpu: CPU) -> bool:
    """Whether streams are short of registers."""
    return cpu.isa.registers <= 16


def _is_zen1(cpu: CPU) -> bool:
    """Whether the CPU is a Zen 1 or Zen+, whose vector units have 128 bits."""
    return cpu.vendor == AMD and cpu.family == 0x17 and cpu.model < 0x30


def _gains_by_prefetch(cpu: CPU, rows: int) -> bool:
    """Whether streams and dots of `rows` rows prefetch an operand from beyond L3.

    With a single row, Zen 5 loses 10 to 25 % by it; Zen 1 loses with more, too.
    """
    if _is_zen1(cpu):
        return False
    return rows > 1 or cpu.vendor != AMD or cpu.double_pumped


def is_far_in_l3(size: int, cpu: CPU) -> bool:
    """Whether an operand of `size` bytes is in a distant L3, as that of Intel's servers.

    (28 GB/s for a core of Granite Rapids, and 170 from its L2.)
    """
    return cpu.vendor == INTEL and size > cpu.l2


def _is_distant(size: int, cpu: CPU) -> bool:
    """Whether an operand of `size` bytes is so far away that prefetching it helps."""
    return is_far_in_l3(size, cpu) or 4 * size > cpu.l3


def _prefers_narrow_dots(cpu: CPU) -> bool:
    """Whether dots of 16 columns at once are slower than those of 6: by up to 1.35 on Zen 5."""
    return cpu.vendor == AMD and not cpu.double_pumped


def _schedules_by_shape(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    m, n, k = problem.m, problem.n, problem.k
    is_wide = m > 1 and n >= 2 * cpu.isa.lanes(problem.itemsize)
    if is_wide and problem.b == "row" and not _tallest_tile(problem, cpu, family):
        yield from _streams(problem, cpu, family)
    if m == n == 1 and (problem.a, problem.b) != ("row", "col"):
        yield Schedule("dot", 1, 1, k, 1, 1)  # of vectors that have other strides
    elif k <= SHORT_DIMENSION < m and problem.b == "row":
        yield from _short_k(problem, cpu, family)
    elif m <= SHORT_DIMENSION and problem.b == "row":
        yield from _few_rows(problem, cpu, family)
    elif m == 1 and k <= SHORT_DIMENSION and problem.b == "col":
        yield from _short_columns(problem, cpu, family)
    elif m <= SHORT_DIMENSION // 2 and problem.b == "col":
        yield from _few_rows_along_k(problem, cpu, family)
    elif n <= SHORT_DIMENSION and problem.a == "row":
        yield from _few_columns(problem, cpu, family)


def _tallest_tile(problem: Problem, cpu: CPU, family: Family) -> tuple[int, int] | None:
    """The register tile (mr, nr) with the most rows of those that span all columns of C."""
    tiles = register_tiles(cpu.isa, family, problem.n)
    tile = next(((mr, nr) for mr, nr in tiles if nr >= problem.n), None)
    if not tile:
        return None
    row_size = problem.k * problem.itemsize
    max_rows = cpu.isa.registers
    if 4 * problem.m * row_size > cpu.l3:
        max_rows = MAX_DISTANT_ROWS
    if row_size % PAGE == 0:  # rows are in the same sets of L1
        max_rows = MAX_CONFLICTING_ROWS
    mr, nr = tile
    return min(mr, max_rows), nr


def _streams(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """C is written once for all of k, or for a few rows of B at a time.

    For a k of up to 8, tiles take 1.3 to 1.6 times as long; with a C beyond L3, which streams write
    past the caches, twice as long.
    """
    m, n, k, itemsize = problem.m, problem.n, problem.k, problem.itemsize
    c_size, nr = m * n * itemsize, STREAM_VECTORS * cpu.isa.lanes(itemsize)
    is_beyond_l3 = 4 * c_size > 3 * cpu.l3
    if is_far_in_l3(c_size, cpu) and not is_beyond_l3:
        return  # the writes of C are the limit
    all_heights = (m,) if m <= MAX_STREAM_ROWS else (4, 3, 2, 1)
    depths = {rows: stream_depth(problem, cpu.isa, rows, family) for rows in all_heights}
    by_passes = sorted(depths, key=lambda rows: stream_passes(k, depths[rows]))
    heights = [rows for rows in by_passes if depths[rows] == k and (rows > 1 or is_beyond_l3)]
    is_near = not _is_distant(c_size, cpu)
    if not heights and _has_few_registers(cpu):
        is_wide = n >= MIN_STREAMED_VECTORS * cpu.isa.lanes(itemsize)
        may_be_longer = is_near and is_wide and not _is_zen1(cpu)
        if k <= (MAX_STREAMED_K_TO_CACHE if may_be_longer else MAX_STREAMED_K):
            heights = by_passes
    for rows in heights:
        # The rows of B stay in L1, and with them those of C.
        nc = max(nr, cpu.l1d // ((rows + k) * itemsize)) if is_near else n
        yield Schedule("stream", rows, nr, k, m, nc, prefetch=is_beyond_l3)


def _short_k(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """C is written once, row by row."""
    m, n, k, lanes = problem.m, problem.n, problem.k, cpu.isa.lanes(problem.itemsize)
    c_size = m * n * problem.itemsize
    tile = _tallest_tile(problem, cpu, family)
    if tile:
        mr, nr = tile
        yield Schedule("tiles", mr, nr, k, m, n, ir_outside=True)
    is_in_far_l3, has_few_registers = is_far_in_l3(c_size, cpu), _has_few_registers(cpu)
    max_k_in_place = 8 if is_in_far_l3 or has_few_registers else 4
    heights, packs_b = (6, 4), c_size > cpu.l2 and k > max_k_in_place
    if is_in_far_l3:
        # With 16 registers, 4 x 24 is faster than 6 x 16 (float32).
        if k == 1 and has_few_registers:
            yield Schedule("stream", 1, STREAM_VECTORS * lanes, k, m, n)
        if family.accumulator_registers == 1 and (k == 1 or has_few_registers):
            heights = (4, 6)
    elif has_few_registers and k > 8 and family.accumulator_registers == 1 and not _is_zen1(cpu):
        heights = (4, 6)
    for mr in heights:
        nr = max_vectors(cpu.isa, mr, family, n) * lanes
        yield Schedule("tiles", mr, nr, k, m, n, pack_b=packs_b, ir_outside=True)


def _few_rows(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """A row-major B is read once, along its rows."""
    m, n, k, lanes = problem.m, problem.n, problem.k, cpu.isa.lanes(problem.itemsize)
    b_size = k * n * problem.itemsize
    nc = cpu.l2 // (4 * m * problem.itemsize)
    is_distant = _is_distant(b_size, cpu)
    is_in_far_l3 = is_far_in_l3(b_size, cpu)
    stream = Schedule(
        "stream",
        min(m, MAX_STREAM_ROWS),
        STREAM_VECTORS * lanes,
        k,
        m,
        nc,
        prefetch=is_distant and _gains_by_prefetch(cpu, m),
    )
    # One row of tiles, or a few: the others find in the cache what the first has loaded.
    has_few_registers = _has_few_registers(cpu)
    max_mr = 8 if not has_few_registers else 4 if is_in_far_l3 or 6 < m <= 8 else 6
    if m <= max_mr:
        max_mr //= family.accumulator_registers  # with so few rows, wide tiles are faster
    row_tiles = -(-m // max_mr)
    mr = -(-m // row_tiles)
    vectors = min(max_vectors(cpu.isa, mr, family, n), -(-n // lanes))
    is_single_column_of_tiles = n <= vectors * lanes
    # A single tile needs no cache blocks; but long chains of sums have large errors.
    kc = KC_BOUNDS[-1] if is_single_column_of_tiles else _depth_of_few_rows(b_size, cpu)
    tiles = Schedule("tiles", mr, vectors * lanes, kc, m, n, prefetch=is_distant and m > 1)
    is_single_row, max_row_tiles = row_tiles == 1, 2
    prefers_stream = m in (3, 4) and is_distant
    if is_in_far_l3:
        tiles = tiles._replace(ir_outside=is_single_row, prefetch=is_single_row)
        max_row_tiles = MAX_ROWS_OF_FEW_TILES
    elif cpu.vendor == AMD or has_few_registers:
        # With jr outside, the next columns are fetched meanwhile: for a distant L3.
        tiles = tiles._replace(ir_outside=is_single_row and b_size <= cpu.l3)
    if _is_zen1(cpu):
        prefers_stream = m <= 8 and b_size > cpu.l3
    elif has_few_registers and not is_in_far_l3:
        rows_conflict = n * problem.itemsize % PAGE == 0
        tiles = tiles._replace(
            prefetch=tiles.prefetch and m <= 8,
            pack_b=row_tiles > 2 and rows_conflict,
            ir_outside=is_single_row or not (is_distant or rows_conflict),
        )
        prefers_stream, max_row_tiles = rows_conflict and m <= 8 and not is_distant, 3
    # A single tile can't be divided among threads, and gains nothing from a stream.
    if m == 1 and (not is_single_column_of_tiles or b_size > cpu.l2):
        yield stream
    elif family.accumulator_registers == 1 and (m == 2 or prefers_stream):
        yield from (stream, tiles)
    elif row_tiles <= max_row_tiles:
        yield tiles
        if m <= 8:
            yield stream


def _depth_of_few_rows(b_size: int, cpu: CPU) -> int:
    """The kc of tiles that read the rows of B once.

    From a distant L3, a small one is best by far (64 instead of 512: up to 3 times as fast): rows
    that are pages apart evict each other, and each takes an entry of the TLB.
    """
    if is_far_in_l3(b_size, cpu):
        return 64
    depth = 256 if _has_few_registers(cpu) else 512
    return depth // 2 if _is_distant(b_size, cpu) else depth


def _few_rows_along_k(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """A column-major B is read once, along its columns."""
    m, n, k = problem.m, problem.n, problem.k
    b_size = k * n * problem.itemsize
    # There are many "dot" kernels, and base plans have few of them: the others have to be worth
    # their compilation.
    base_widths = dot_widths(cpu.isa, family)
    base_plan_has_it = m == 1 and (n == 1 or n >= base_widths[1])
    is_worth_compilation = base_plan_has_it or b_size >= 2 * cpu.l1d
    if m > max(4, cpu.isa.lanes(problem.itemsize) // 2) or not is_worth_compilation:
        return
    is_beyond_l3 = 2 * b_size > cpu.l3
    mr, nr = min(m, 6), {2: 8, 3: 6, 4: 6}.get(m, 4)
    if m == 1:
        single, *wider = base_widths
        columns_conflict = k * problem.itemsize % PAGE == 0  # in the same sets of L1
        use_narrow = columns_conflict or n < wider[-1] or _prefers_narrow_dots(cpu)
        nr = single if n == 1 else 8 if is_beyond_l3 else wider[0] if use_narrow else wider[-1]
    nr = min(nr, n)
    while not dot_tile_fits(cpu.isa, mr, nr, family):
        nr -= 1
    prefetch = is_beyond_l3 and _gains_by_prefetch(cpu, m)
    yield Schedule("dot", mr, nr, k, m, n, pack_a=problem.a != "row", prefetch=prefetch)


def _short_columns(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """Each column of B is a short sum: `Plan.row_kernels` or `Plan.small` compute them."""
    lanes = cpu.isa.lanes(problem.itemsize)
    vectors = min(max_vectors(cpu.isa, 1, family), -(-problem.n // lanes))
    nr = vectors * lanes
    yield Schedule("tiles", 1, nr, problem.k, 1, problem.n, problem.a != "row", pack_b=True)


def _few_columns(problem: Problem, cpu: CPU, family: Family) -> Iterator[Schedule]:
    """A row-major A is read once, along its rows, with all of B in the cache."""
    m, n, k, lanes = problem.m, problem.n, problem.k, cpu.isa.lanes(problem.itemsize)
    a_size = m * k * problem.itemsize
    max_dot_columns = min(6 // family.accumulator_registers, lanes // 2)
    if n <= max_dot_columns and k >= 2 * lanes and a_size >= 2 * cpu.l1d:
        mr = max(mr for mr in range(1, 9) if dot_tile_fits(cpu.isa, mr, n, family))
        prefetch = 2 * a_size > cpu.l3 and _gains_by_prefetch(cpu, n)
        yield Schedule("dot", mr, n, 2048, m, n, pack_b=True, ir_outside=True, prefetch=prefetch)
    tile = _tallest_tile(problem, cpu, family)
    if tile:
        mr, nr = tile
        yield Schedule("tiles", mr, nr, cpu.l2 // (2 * nr * problem.itemsize), m, n)
