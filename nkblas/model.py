"""The analytical model: a plan for any problem, without a measurement."""

from collections.abc import Iterator
from itertools import product
from math import gcd

from .detect import CPU
from .plan import Plan, Schedule, make, tiles
from .problem import Problem

PAGE = 4096
"""Bytes of a page of memory."""

CYCLE = 0.3
"""Nanoseconds, about: for what is not compared with another plan."""


def plan_for(problem: Problem, cpu: CPU) -> Plan:
    """The plan that costs least."""
    return ranked(problem, cpu)[0]


def ranked(problem: Problem, cpu: CPU) -> list[Plan]:
    """All candidates, the cheapest first."""
    plans = [
        plan._replace(nanoseconds=CYCLE * cost(plan, cpu)) for plan in candidates(problem, cpu)
    ]
    return sorted(plans, key=lambda plan: plan.nanoseconds)


def candidates(problem: Problem, cpu: CPU) -> Iterator[Plan]:
    """The plans that the model compares.

    A is read in place unless it has no unit stride: kernels broadcast its elements, and packing
    it hardly ever gave more than it cost. Of B, rows can be read in place, except for an edge
    where the ISA has no masks; with a single row of tiles nothing is read twice, and packing
    is for nothing.
    """
    lanes = cpu.isa.lanes(problem.itemsize)
    pack_a = problem.a == "strided"
    b_in_place = problem.b == "row" and (cpu.isa.masked or problem.n % lanes == 0)
    pack_b = (False, True) if b_in_place else (True,)
    found = [t for t in tiles(cpu.isa, problem.dtype, problem.n) if t[0] >= min(4, problem.m)]
    depths = [kc for kc in (128, 256, 512, 1024) if kc < 2 * problem.k] or [128]
    for tile, packed, kc in product(found, pack_b, depths):
        if packed and b_in_place and problem.m <= tile[0]:
            continue
        depth = min(kc, problem.k) * problem.itemsize
        quarter_of_l2 = cpu.l2 // (4 * depth)
        # Packed blocks are buffers of this process: they are bounded.
        whole_m = cpu.l2 // depth if pack_a else problem.m
        nc = max(cpu.l3, 8 << 20) // (2 * depth) if packed else problem.n
        for mc, ir_outside in ((quarter_of_l2, False), (whole_m, False), (whole_m, True)):
            schedule = Schedule("tiles", *tile, kc, mc, nc, pack_a, packed, ir_outside)
            yield make(problem, cpu, schedule)


# What things cost, in cycles. One set for two CPUs that differ much (Zen 4 with one 512-bit
# multiply-add a cycle, Emerald Rapids with two), fitted to 75 problems (float32 and float64, 64 to
# 4096 in each dimension), each measured with 50 to 200 plans: what the model chooses is slower than
# the best plan by 4 % in the median and 14 % at worst on Zen 4, 8 % and 23 % on Emerald Rapids.
LATENCY = 4.0  # a multiply-add's
B_LINE = (0.0, 0.6, 23.0)  # a vector of B, on its way from L1, L2, beyond
A_LINE = (0.0, 4.7, 10.0)  # a vector of A
A_ROW = 0.4  # a k-step on a row of A in place,
A_ROW_CROWDED = 0.4  # and more where A's rows push each other out of L1
B_PAGE = 0.7  # a k-step where B's rows lie in place, more than half a page apart,
B_CROWDED = 0.65  # and for each vector where B's rows push each other out of L1
OVERLAP = 0.15  # of the shorter of arithmetic and traffic, what the longer does not hide
TILE = 10.0  # a call of the microkernel
C_LINE = 4.0  # a vector of a C beyond L2, loaded and stored again for another block of k
PACKED_LINE = 4.0  # a vector of B, packed
REPACKED_LINE = 0.6  # a vector of packed B, fetched again for another block of A
FAR_LINE = 5.6  # a vector of a B beyond L2 that is read in place, for each block of A


def cost(plan: Plan, cpu: CPU) -> float:
    """The model: about how many cycles `plan` takes."""
    problem, m, n, kc = plan.problem, plan.m, plan.n, plan.kc
    itemsize = problem.itemsize
    lanes = cpu.isa.lanes(itemsize)
    fma_per_cycle = 1 if cpu.isa.vector_bits == 512 and cpu.double_pumped else 2
    l1, l2 = 0.75 * cpu.l1d, 0.5 * cpu.l2  # the rest is for what else is under way

    def level(rows: int, columns: int) -> int:
        """The cache that a part of an operand stays in: 0 and 1 for L1 and L2, 2 beyond."""
        size = rows * columns * itemsize
        return (size > l1) + (size > l2)

    # Of the two inner loops, the inner one comes back to a panel of one operand, while it goes
    # through a block of the other. (A single row of tiles comes back to nothing.)
    a_rows, b_columns = (
        (m.size, n.block * n.size) if plan.schedule.ir_outside else (m.block * m.size, n.size)
    )
    b_line = B_LINE[level(kc, min(b_columns, problem.n)) if m.tiles > 1 else 0]
    per_row = A_LINE[level(min(a_rows, problem.m), kc)] / lanes
    if not plan.schedule.pack_a:
        per_row += A_ROW + A_ROW_CROWDED * _crowded(m.size, problem.k * itemsize, cpu)
    per_step = 0.0
    if not plan.schedule.pack_b:
        b_line += B_CROWDED * _crowded(kc, problem.n * itemsize, cpu)
        per_step = B_PAGE * (2 * problem.n * itemsize >= PAGE)

    cycles = 0.0
    for rows, row_count in ((m.size, m.full), (m.rest, m.tiles - m.full)):
        for columns, column_count in ((n.size, n.full), (n.rest, n.tiles - n.full)):
            vectors = -(-columns // lanes)
            # multiply-adds; loads, two a cycle; an accumulator's wait for itself
            arithmetic = max(rows * vectors / fma_per_cycle, (rows + vectors) / 2, LATENCY)
            traffic = vectors * b_line + rows * per_row + per_step
            step = max(arithmetic, traffic) + OVERLAP * min(arithmetic, traffic)
            cycles += row_count * column_count * problem.k * step

    k_blocks = -(-problem.k // kc)
    m_blocks = -(-m.tiles // m.block)
    b_lines = problem.k * problem.n / lanes
    cycles += TILE * m.tiles * n.tiles * k_blocks
    if level(problem.m, problem.n) == 2:
        cycles += C_LINE * problem.m * problem.n / lanes * (k_blocks - 1)
    if plan.schedule.pack_b:
        cycles += b_lines * (PACKED_LINE + REPACKED_LINE * (m_blocks - 1))
    elif level(problem.k, problem.n) == 2:
        cycles += b_lines * m_blocks * FAR_LINE
    return cycles


def _crowded(rows: int, stride: int, cpu: CPU) -> bool:
    """Whether rows this many bytes apart have so few sets of L1 that they push each other out.

    The leading dimension is taken to be a contiguous operand's.
    """
    way = cpu.l1d // cpu.l1d_ways
    sets = way // gcd(stride, way)
    return -(-rows // sets) > cpu.l1d_ways - 2  # two ways for the other operands
