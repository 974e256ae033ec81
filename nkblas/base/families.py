"""Instruction families: the ways to multiply, as far as plans depend on them.

The instructions themselves are in `nkblas.codegen.kernels.nanokernel`, a class for each family.
"""

from typing import NamedTuple

from .dtypes import DTYPES, FLOAT8, ITEMSIZE, PRODUCTS, QUANTIZED
from .isa import ISA


class Family(NamedTuple):
    """How one instruction family does the products of some dtypes.

    Attributes
    ----------
    name : str
        That of its nanokernel.
    a, b : str
        What it multiplies, in panels: packing converts to it.
    sums : str
        What it adds up in.
    step : int
        Values of k that a step of its loop eats. Panels hold whole steps: zeros after the last k.
    group_a, group_b : int
        Values of k that lie together in a panel (the VNNI factor). An operand in place has to have
        them together, too; with 1 it can lie in any way.
    converts : bool
        Whether it can read the operands' own dtypes in place and convert them.
    compensation : int
        Panels of B begin with a row of so many times the sums of their columns: it makes up for
        operands that are shifted to have the signs that the instruction wants.
    accumulators, held, held_b : int
        Registers for a vector of C, for an element of A, and for a vector of B.
    spare : int
        Registers for something else, of 16.
    cost : float
        Instructions, in each step, for a vector of C.
    """

    name: str
    a: str
    b: str
    sums: str
    step: int = 1
    group_a: int = 1
    group_b: int = 1
    converts: bool = False
    compensation: int = 0
    accumulators: int = 1
    held: int = 1
    held_b: int = 1
    spare: int = 0
    cost: float = 1

    def split(self, isa: ISA) -> bool:
        """Whether multiply and add are two instructions."""
        integer = DTYPES[self.sums].kind == "integer"
        return self.name in ("fma", "madd", "words") and integer if isa.fused or integer else True

    @property
    def rows_in_tile(self) -> int:
        """Rows of C in a tile register; 0: it has vectors."""
        return 16 if self.name.startswith("amx") else 0

    @property
    def widens(self) -> bool:
        """Whether elements of operands are made wider, each by itself, as they are read."""
        return self.converts or (self.group_a == 1 and self.a != self.sums)

    def lanes(self, isa: ISA) -> int:
        """Columns of C in a register."""
        return isa.lanes(ITEMSIZE[self.sums])

    def registers_needed(self, isa: ISA, mr: int, vectors: int, edge: bool = False) -> int:
        """Vector registers that a tile of `mr` rows by `vectors` vectors needs.

        The accumulators, the smaller of the two operands' slices of one step, and one element
        of the other (see `nanokernel.compose`); one more for the product where
        multiply and add are two instructions. The mask of an `edge` takes one, and so does what
        is blended with it, unless the element's register is still free.
        """
        by_rows = mr * self.held >= vectors
        operands = vectors * self.held_b + self.held if by_rows else mr * self.held + self.held_b
        spare = self.spare * isa.registers // 16 + self.accumulators - 1
        if self == WHOLE and not isa.mask_registers:  # whose products are many instructions
            spare += 4 if isa.fused else 6
        needed = mr * vectors * self.accumulators + operands + spare + self.split(isa)
        if edge and isa.masked and not isa.mask_registers:
            needed += 1 + (mr < vectors or self.widens)
        return needed

    def fits(self, isa: ISA, mr: int, vectors: int, edge: bool = False) -> bool:
        """Whether the registers are enough for a tile."""
        if self.rows_in_tile:
            return mr <= 2 * self.rows_in_tile and vectors <= 2
        return self.registers_needed(isa, mr, vectors, edge) <= isa.registers


def _fma(dtype: str, sums: str = "") -> Family:
    """One value of k at a time."""
    wide = sums or dtype
    cost = 1.5 if wide in ("int32", "int64") else 1
    # what is made of 8 bits takes too many instructions to be made again and again
    converts = bool(sums) and ITEMSIZE[dtype] > 1
    return Family("fma", *(wide,) * 3, converts=converts, spare=dtype == "bfloat16", cost=cost)


def _complex(dtype: str) -> Family:
    return Family("complex", dtype, dtype, dtype, accumulators=2, held=2, cost=2)


def _dots(name: str, a: str, b: str, sums: str, step: int, **more: float) -> Family:
    """So many values of k, of both operands, make one sum."""
    return Family(name, a, b, sums, step, step, step, **more)  # type: ignore[arg-type]


def _tiles(name: str, a: str, b: str, sums: str) -> Family:
    size = ITEMSIZE[a]
    # a row of a tile of A has 64 bytes; a group of B, one element of C
    return Family(name, a, b, sums, 64 // size, 64 // size, 4 // size, cost=2)


def _vnni(a: str, b: str, exact: bool) -> Family:
    """The instruction takes unsigned times signed bytes."""
    shift = exact and a == b
    compensation = (-128 if a == "int8" else 128) if shift else 0
    return _dots("vnni", a, b, "int32", 4, compensation=compensation, spare=int(shift))


def _bytes(a: str, b: str, exact: bool) -> tuple[Family, ...]:
    """Products of bytes; if not `exact`, modulo 256."""
    return (
        _tiles("amx", a, b, "int32"),
        _dots("vnni_int8", a, b, "int32", 4),
        _vnni(a, b, exact),
        PAIRS,
    )


PAIRS = _dots("madd", "int16", "int16", "int32", 2, cost=1.5)

WHOLE = _fma("int64")
WORDS = Family("words", *("int64",) * 3, accumulators=2, held_b=2, cost=3)
"""int64 of products of 32 bits, for what has none of 64."""


def _halves(dtype: str) -> tuple[Family, ...]:
    """Products of 16-bit floats, added up in float32."""
    float32 = _fma(dtype, "float32")
    convert = Family("ne_convert", dtype, dtype, "float32", 2, 1, 2, spare=4, cost=2)
    if dtype == "bfloat16":
        own = _dots("bf16", dtype, dtype, "float32", 2)
        return _tiles("amx", dtype, dtype, "float32"), own, convert, float32
    own = Family("fp16", dtype, dtype, "float32", cost=1)
    return _tiles("amx_fp16", dtype, dtype, "float32"), own, convert, float32


EXACT = ("int8_int32", "uint8_int32", "uint8_int8_int32", "int8_uint8_int32", *QUANTIZED)

FAMILIES: dict[str, tuple[Family, ...]] = {
    **{name: (_fma(name),) for name in ("float32", "float64", "int32")},
    "int64": (WHOLE, WORDS),
    **{name: (_complex(name),) for name in ("complex64", "complex128")},
    "float16": _halves("float16"),
    "float16_float32": _halves("float16"),
    "bfloat16": _halves("bfloat16"),
    "bfloat16_float32": _halves("bfloat16"),
    **{f"{name}_float32": (_fma(name, "float32"),) for name in FLOAT8},
    "bool": _bytes("int8", "int8", exact=False),
    "int8": _bytes("int8", "int8", exact=False),
    "int16": (_dots("vnni", "int16", "int16", "int32", 2), PAIRS),
    **{name: _bytes(PRODUCTS[name].a, PRODUCTS[name].b, exact=True) for name in EXACT},
}
"""The families for each product of `nkblas.base.dtypes.PRODUCTS`, the most promising first."""


def families(dtype: str, isa: ISA) -> tuple[Family, ...]:
    """Those that an instruction set has, for a product of `nkblas.base.dtypes.PRODUCTS`."""
    return tuple(family for family in FAMILIES[dtype] if isa.row_of(family.name))


def row_of(family: Family, isa: ISA) -> ISA:
    """The least capable row of `nkblas.base.isa` that has a family, of those that `isa` extends."""
    row = isa.row_of(family.name)
    assert row is not None, f"{isa.name} has no {family.name}"
    return row


def family(dtype: str, name: str) -> Family:
    """The one of a name, for a product of `nkblas.base.dtypes.PRODUCTS`."""
    return next(family for family in FAMILIES[dtype] if family.name == name)
