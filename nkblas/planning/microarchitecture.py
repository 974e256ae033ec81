"""Constants of the cost model: a row for each, a column for each microarchitecture.

They serve until those of the machine itself are measured (`nkblas.planning.measured_costs`). A new
microarchitecture is a column of `_TABLE`, a name in `_COLUMNS`, and the rule in
`microarchitecture_of` that selects it. The formulas that use the constants are the terms of
`nkblas.planning.cost_model`.

Here a vector is as many bytes as one vector register holds, and a line is a cache line of 64 bytes.
"""

from typing import NamedTuple

from nkblas.base.families import Family
from nkblas.system.cpu import AMD, CPU, INTEL


class Costs(NamedTuple):
    """What operations cost on one microarchitecture; `_TABLE` has the units.

    Attributes
    ----------
    nanoseconds_per_cycle : float
        It scales estimates, and does not change which plan is cheapest.
    fma_latency : float
        Latency of a multiply-add.
    conversion : float
        Conversion of a vector to a wider dtype, as far as it occupies the units that multiply.
    unoverlapped : float
        Fraction of min(compute, loads) that the longer of the two does not hide.
    kernel_call : float
        A call of the microkernel.
    b_from_l1, b_from_l2, b_beyond_l2 : float
        Load of a vector of B in the k loop, by the cache that holds it: L1, L2, or beyond L2.
    a_from_l1, a_from_l2, a_beyond_l2 : float
        Load of a vector of A in the k loop, by the cache that holds it: L1, L2, or beyond L2.
    a_in_place : float
        Added for each row of an A that is not packed.
    a_conflict : float
        Added for each row of an A that is not packed, where its rows evict each other from L1.
    a_page_per_column : float
        Added for each row of a column-major A that is neither packed nor fetched ahead, where
        columns are at least half a page apart or A is beyond L2: a tile reads a line of each.
    b_conflict : float
        Added for each vector of a B that is not packed, where its rows evict each other from L1.
    c_conflict : float
        Added for each line of C, where its rows evict each other from L1.
    c_reload : float
        Load and store of a vector of C that lies beyond L2, for another block of k.
    b_in_place : float
        Load of a vector of a B that lies beyond L2 and is not packed, for each block of A.
    pack : float
        Packing of a vector by a packing routine.
    pack_b_in_kernel : float
        Packing of a vector of B by the microkernel that reads it first:
        ``pack_b_in_kernel * (1 + 64 / (nr * itemsize))``. Narrower panels share more cache lines.
    pack_b_conflict : float
        Added for each vector of B, packed in such a way, that is evicted from L2 too early.
    panel_store : float
        Write of a packed vector to memory, where a block of B has more panels than fit L2.
    panel_reload : float
        Load of a packed vector of B, for another block of A.
    pack_rows, pack_rows_kc : float
        Packing of a vector of a row-major B from memory beyond L3:
        ``pack_rows / (nr * itemsize) * (1 + kc / pack_rows_kc)``. Fewer adjacent bytes cost more,
        and so do deeper panels.
    pack_columns_nr, pack_columns : float
        Packing of a vector of any other B from memory beyond L3:
        ``pack_columns_nr * nr + pack_columns / (kc * itemsize)``. More columns at once cost more.
    """

    nanoseconds_per_cycle: float
    fma_latency: float
    conversion: float
    unoverlapped: float
    kernel_call: float
    b_from_l1: float
    b_from_l2: float
    b_beyond_l2: float
    a_from_l1: float
    a_from_l2: float
    a_beyond_l2: float
    a_in_place: float
    a_conflict: float
    a_page_per_column: float
    b_conflict: float
    c_conflict: float
    c_reload: float
    b_in_place: float
    pack: float
    pack_b_in_kernel: float
    pack_b_conflict: float
    panel_store: float
    panel_reload: float
    pack_rows: float
    pack_rows_kc: float
    pack_columns_nr: float
    pack_columns: float


# Zen 4: fitted to products of 128 to 2048 in each dimension, each measured with 70 to 300 plans;
# `panel_store` was estimated afterwards, from what memory costs. On the shapes of the suites
# "paper" and "square", the model's choice is 1 % slower than the best of four fixed rules
# (geometric mean).
#
# Emerald Rapids: fitted to products of 128 to 4096 in each dimension, each measured with 20 to 56
# plans: the model's choice is 4 % slower than the best of them (geometric mean).
#
# Zen 1: fitted to 26 products of 64 to 5000 in each dimension, each measured with 36 plans: the
# model's choice is 1 % slower than the best of them (geometric mean; with Zen 4's constants, 6 %).
# Packing from beyond L3 has Zen 4's constants; `a_page_per_column` is Zen 1's for Zen 4 and Emerald
# Rapids.
#
# Zen 5: fitted to 66 products of 64 to 4096 in each dimension, each measured with 24 to 36 plans:
# the model's choice is 2.9 % slower than the best of them (geometric mean; with Zen 4's constants,
# 4.4 %). On 36 products, a third of them among these, it is 2.6 % faster than with Zen 4's.

_COLUMNS = ("zen1", "zen4", "zen5", "emerald_rapids")

# fmt: off
_TABLE = {
    #                       zen1    zen4    zen5 emerald    unit
    #                                             rapids
    "nanoseconds_per_cycle": (0.3,    0.3,    0.3,    0.3),  # about
    "fma_latency":       (    4.0,    4.0,    4.0,    4.0),  # cycles
    "conversion":        (    0.0,    0.0,    0.0,    1.0),  # cycles per vector
    "unoverlapped":      (   0.05,   0.09,   0.29,    0.6),  # fraction of min(compute, loads)
    "kernel_call":       (   55.0,   55.0,  112.2,   73.0),  # cycles per call

    "b_from_l1":         (    0.0,    0.0,    0.0,    0.0),  # cycles per vector
    "b_from_l2":         (   0.35,    0.5,   0.28,    0.6),  # cycles per vector
    "b_beyond_l2":       (    3.5,    3.5,   0.12,    0.5),  # cycles per vector
    "a_from_l1":         (    0.0,    0.0,    0.0,    0.0),  # cycles per vector
    "a_from_l2":         (    4.1,    2.7,   0.63,    3.3),  # cycles per vector
    "a_beyond_l2":       (   12.5,    6.3,    1.7,    3.4),  # cycles per vector
    "a_in_place":        (   0.07,   0.07,   0.08,    0.5),  # cycles per row and k step
    "a_conflict":        (   0.43,    0.4,   0.45,    0.0),  # cycles per row and k step
    "a_page_per_column": (    1.5,    1.5,   0.80,    1.5),  # cycles per row and k step
    "b_conflict":        (   0.65,    0.3,   0.20,    1.2),  # cycles per vector
    "c_conflict":        (   14.0,   15.0,    4.1,    0.0),  # cycles per line and block of k

    "c_reload":          (    3.3,   11.0,    8.7,    4.0),  # cycles per vector, later blocks of k
    "b_in_place":        (    8.3,    1.5,    3.0,   34.0),  # cycles per vector and block of A
    "pack":              (    3.9,    3.8,    5.4,    5.4),  # cycles per vector
    "pack_b_in_kernel":  (    0.7,    1.0,   0.02,    0.0),  # cycles per vector
    "pack_b_conflict":   (    5.0,    5.0,    5.0,   20.0),  # cycles per vector
    "panel_store":       (    1.2,    8.0,    9.5,   16.0),  # cycles per vector
    "panel_reload":      (   0.23,    1.1,   0.03,    3.0),  # cycles per vector, later blocks of A

    "pack_rows":         (  400.0,  400.0,  400.0,  400.0),  # cycles * bytes per vector
    "pack_rows_kc":      (   1024,   1024,   1024,   1024),  # rows
    "pack_columns_nr":   (    0.3,    0.3,    0.3,    0.3),  # cycles per vector and column
    "pack_columns":      ( 5500.0, 5500.0, 5500.0, 5500.0),  # cycles * bytes per vector
}
# fmt: on

COSTS: dict[str, Costs] = {
    name: Costs(**{constant: row[column] for constant, row in _TABLE.items()})
    for column, name in enumerate(_COLUMNS)
}
"""The constants by microarchitecture."""

VENDOR_DEFAULT = {INTEL: "emerald_rapids"}
"""The microarchitecture whose constants serve for all CPUs of a vendor; for others it is Zen 1
without mask registers, Zen 4 if 512-bit instructions are double-pumped, and else Zen 5."""


def microarchitecture_of(cpu: CPU) -> str:
    """The column that serves for a CPU: selected by its vendor and registers."""
    default = "zen4" if cpu.double_pumped else "zen5"
    default = default if cpu.isa.mask_registers else "zen1"
    return VENDOR_DEFAULT.get(cpu.vendor, default)


VENDOR_NAME = {AMD: "amd", INTEL: "intel"}
"""The short names of vendors."""


def machine(cpu: CPU) -> str:
    """The name of a CPU model and instruction set: that of the files with what was measured."""
    vendor = VENDOR_NAME.get(cpu.vendor, cpu.vendor.lower())
    return f"{vendor}-{cpu.family:x}-{cpu.model:x}-{cpu.isa.name}"


FMAS_PER_INSTRUCTION = {
    # vdpbf16ps: half as many products in a cycle as of float32
    ("bf16", INTEL): 4,
    # vcvtph2psx takes both of the units that multiply
    ("fp16", INTEL): 2,
}
"""By family and vendor: multiply-adds that take as long as one instruction, where it is not one."""


def fmas_per_instruction(family: Family, cpu: CPU) -> float:
    """How many multiply-adds take as long as one arithmetic instruction of a family."""
    if not cpu.isa.mask_registers and family.slowdown_without_masks > 1:
        return family.slowdown_without_masks
    return FMAS_PER_INSTRUCTION.get((family.name, cpu.vendor), 1)


def fmas_per_cycle(cpu: CPU) -> int:
    """Vector multiply-adds that the CPU starts in a cycle."""
    return 1 if cpu.isa.vector_bits == 512 and cpu.double_pumped else 2


TILE_CONFIGURATION = 250.0
"""AMX: cycles to configure the tile registers, once for each row of tiles."""

TILE_ROW_IN_PLACE = 1.5
"""AMX: cycles that a row of A in place takes more than a packed one, in each k step: in most
matrices, it is in two cache lines."""

TILE_STORE = 200.0
"""AMX: cycles to zero the accumulators of a tile of C, and to store them."""

STREAMED_BYTES_PER_CYCLE = (24, 16, 8)
"""About: of an operand that is read once, from L2, from a near L3, from memory or a distant L3."""
