"""Instruction families: what a plan and a packing routine need to know of each way to multiply.

One `Family` describes how one group of instructions does the products of some dtypes. The
instructions themselves are in `nkblas.codegen.kernels.nanokernel`, a class for each family. A new
family is a `Family` in `FAMILIES`, its name in a row of `nkblas.base.isa`, and such a class.
"""

from functools import cache
from typing import NamedTuple

from .dtypes import DTYPES, FLOAT8, ITEMSIZE, PRODUCTS, QUANTIZED
from .isa import ISA


class Family(NamedTuple):
    """Descriptor of one instruction family, for the products of some dtypes.

    Attributes
    ----------
    name : str
        The key of its nanokernel class (`nanokernel.NANOKERNELS`), and of `ISA.families`.
    a, b : str
        Dtypes of the operands that the instruction takes. Packing converts to them.
    accumulator : str
        Dtype of the accumulators.
    k_step : int
        Values of k that one step of the k loop consumes. Panels hold whole steps, padded with zeros
        after the last k.
    k_group_a, k_group_b : int
        Values of k that are adjacent in a panel (the VNNI factor). An operand that is read in place
        has to have them adjacent too; with 1 it can be read in any layout.
    converts_on_load : bool
        Whether the nanokernel can read the operands' own dtypes in place and convert them.
    compensation : int
        If not 0, each panel of B starts with a row of int32: this factor times the column sums. It
        corrects for an A that is shifted by 128 to have the sign that the instruction requires.
    tile_rows : int
        Rows of C in one tile register; 0 for families that use vector registers.
    accumulator_registers : int
        Registers for the accumulators of one vector of C.
    a_registers, b_registers : int
        Registers for one element of A, and for one vector of B.
    spare_registers : int
        Registers that the nanokernel needs besides, on an ISA with 16 registers.
    spare_without_masks : (int, int)
        Registers that the nanokernel needs besides on an ISA without mask registers: with fused
        multiply-add, and without.
    separate_add : bool
        Whether the nanokernel adds with an instruction of its own on every ISA. (Families of
        floats do so only where the ISA has no fused multiply-add.)
    instructions : float
        Arithmetic instructions that one k step issues for each vector of C.
    slowdown_without_masks : float
        How many times as long one of them takes on an ISA without mask registers.
    """

    name: str
    a: str
    b: str
    accumulator: str
    k_step: int = 1
    k_group_a: int = 1
    k_group_b: int = 1
    converts_on_load: bool = False
    compensation: int = 0
    tile_rows: int = 0
    accumulator_registers: int = 1
    a_registers: int = 1
    b_registers: int = 1
    spare_registers: int = 0
    spare_without_masks: tuple[int, int] = (0, 0)
    separate_add: bool = False
    instructions: float = 1
    slowdown_without_masks: float = 1

    def is_unfused(self, isa: ISA) -> bool:
        """Whether multiply and add are two instructions: the product needs a register."""
        is_integer = DTYPES[self.accumulator].kind == "integer"
        return self.separate_add or not (isa.fused or is_integer)

    @property
    def widens(self) -> bool:
        """Whether each element of an operand is converted to a wider dtype when it is read."""
        return self.converts_on_load or (self.k_group_a == 1 and self.a != self.accumulator)

    def lanes(self, isa: ISA) -> int:
        """Columns of C in one register."""
        return isa.lanes(ITEMSIZE[self.accumulator])

    def registers_needed(self, isa: ISA, mr: int, vectors: int, edge: bool = False) -> int:
        """Vector registers that a tile of `mr` rows by `vectors` vectors needs.

        These are the accumulators, the smaller of the two operands' slices of one k step, one
        element or vector of the other operand (see `nanokernel.compose`), and what the nanokernel
        needs besides. The mask of an `edge` takes one register, and so does the vector that masked
        loads are blended with, unless the register of A's element is free at that point.
        """
        if mr * self.a_registers >= vectors:
            operands = vectors * self.b_registers + self.a_registers
        else:
            operands = mr * self.a_registers + self.b_registers
        spare = self.spare_registers * isa.registers // 16
        if isa.registers > 16:  # the compiler loads parts of A ahead, if it has many registers
            spare += self.accumulator_registers - 1
        if not isa.mask_registers:
            spare += self.spare_without_masks[not isa.fused]
        needed = mr * vectors * self.accumulator_registers + operands + spare
        needed += self.is_unfused(isa)
        if edge and isa.masked and not isa.mask_registers:
            needed += 1 + (mr < vectors or self.widens)
        return needed

    def fits(self, isa: ISA, mr: int, vectors: int, edge: bool = False) -> bool:
        """Whether `isa` has enough registers for a tile of `mr` rows by `vectors` vectors."""
        if self.tile_rows:  # 8 tile registers: 2x2 accumulators, 2 of A, 2 of B
            return mr <= 2 * self.tile_rows and vectors <= 2
        return self.registers_needed(isa, mr, vectors, edge) <= isa.registers


def _fma(dtype: str, accumulator: str = "") -> Family:
    """Multiply-add of one value of k; elements are widened to `accumulator` if it is given."""
    wide = accumulator or dtype
    is_integer = DTYPES[wide].kind == "integer"
    return Family(
        "fma",
        *(wide,) * 3,
        # Conversion from 8 bits takes too many instructions to be repeated for each tile.
        converts_on_load=bool(accumulator) and ITEMSIZE[dtype] > 1,
        spare_registers=int(dtype == "bfloat16"),
        separate_add=is_integer,
        instructions=1.5 if is_integer else 1,
    )


def _complex(dtype: str) -> Family:
    """Multiply-adds with the real and with the imaginary part of A's element."""
    return Family("complex", *(dtype,) * 3, accumulator_registers=2, a_registers=2, instructions=2)


def _dot_product(name: str, a: str, b: str, accumulator: str, k_step: int) -> Family:
    """Instructions that add up the products of `k_step` adjacent values of k."""
    return Family(name, a, b, accumulator, k_step, k_step, k_step)


def _tile(name: str, a: str, b: str, accumulator: str) -> Family:
    """Tile registers: rows of 64 bytes of A, and of B in groups as large as an element of C."""
    itemsize = ITEMSIZE[a]
    return Family(
        name,
        a,
        b,
        accumulator,
        k_step=64 // itemsize,
        k_group_a=64 // itemsize,
        k_group_b=4 // itemsize,
        tile_rows=16,
        instructions=2,
    )


def _vnni(a: str, b: str, exact: bool) -> Family:
    """``vpdpbusd`` takes unsigned times signed bytes: an A of the other sign is shifted by 128."""
    shifts = exact and a == b
    compensation = (-128 if a == "int8" else 128) if shifts else 0
    family = _dot_product("vnni", a, b, "int32", 4)
    return family._replace(compensation=compensation, spare_registers=int(shifts))


def _bytes(a: str, b: str, exact: bool) -> tuple[Family, ...]:
    """Products of bytes; where the result wraps modulo 256, signs do not matter (not `exact`)."""
    return (
        _tile("amx", a, b, "int32"),
        _dot_product("vnni_int8", a, b, "int32", 4),
        _vnni(a, b, exact),
        MADD,
    )


MADD = _dot_product("madd", "int16", "int16", "int32", 2)._replace(
    separate_add=True, instructions=1.5
)

INT64_FMA = _fma("int64")._replace(
    # Without AVX-512's vpmullq, LLVM expands a product to three products, three sums and shifts.
    spare_without_masks=(4, 6),
    slowdown_without_masks=3,
)

INT64_WORDS = Family(
    "words",
    *("int64",) * 3,
    accumulator_registers=2,
    b_registers=2,
    spare_registers=1,
    separate_add=True,
    instructions=3,
)
"""int64 from products of 32-bit halves, for an ISA without 64-bit products."""


def _half_precision(dtype: str) -> tuple[Family, ...]:
    """Products of 16-bit floats, accumulated in float32."""
    widened = _fma(dtype, "float32")
    convert = Family(
        "ne_convert", dtype, dtype, "float32", 2, 1, 2, spare_registers=4, instructions=2
    )
    if dtype == "bfloat16":
        dots = _dot_product("bf16", dtype, dtype, "float32", 2)
        return _tile("amx", dtype, dtype, "float32"), dots, convert, widened
    broadcast = Family("fp16", dtype, dtype, "float32", separate_add=False)
    return _tile("amx_fp16", dtype, dtype, "float32"), broadcast, convert, widened


_EXACT_BYTES = (
    "int8_int32",
    "uint8_int32",
    "uint8_int8_int32",
    "int8_uint8_int32",
    *QUANTIZED,
)

FAMILIES: dict[str, tuple[Family, ...]] = {
    **{name: (_fma(name),) for name in ("float32", "float64", "int32")},
    "int64": (INT64_FMA, INT64_WORDS),
    **{name: (_complex(name),) for name in ("complex64", "complex128")},
    "float16": _half_precision("float16"),
    "float16_float32": _half_precision("float16"),
    "bfloat16": _half_precision("bfloat16"),
    "bfloat16_float32": _half_precision("bfloat16"),
    **{f"{name}_float32": (_fma(name, "float32"),) for name in FLOAT8},
    "bool": _bytes("int8", "int8", exact=False),
    "int8": _bytes("int8", "int8", exact=False),
    "int16": (_dot_product("vnni", "int16", "int16", "int32", 2), MADD),
    **{name: _bytes(PRODUCTS[name].a, PRODUCTS[name].b, exact=True) for name in _EXACT_BYTES},
}
"""The families that can do each product of `PRODUCTS`, the most promising first."""


@cache
def families(dtype: str, isa: ISA) -> tuple[Family, ...]:
    """The families of `FAMILIES` for a product that `isa` has."""
    return tuple(family for family in FAMILIES[dtype] if isa.row_of(family.name))


@cache
def row_of(family: Family, isa: ISA) -> ISA:
    """The least capable instruction set, among `isa` and those that it extends, with `family`."""
    row = isa.row_of(family.name)
    assert row is not None, f"{isa.name} has no {family.name}"
    return row


@cache
def family(dtype: str, name: str) -> Family:
    """The family of a product by its name."""
    return next(family for family in FAMILIES[dtype] if family.name == name)
