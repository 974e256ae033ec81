"""MLIR types, and questions about the type of a value."""

from typing import Any, TypeAlias

from mlir import ir
from mlir.dialects import llvm

from nkblas.base.dtypes import DTYPES, FLOAT8, ITEMSIZE, REAL_PART

# MLIR's Python bindings have no type stubs.
Type: TypeAlias = Any
"""An `ir.Type`."""

Value: TypeAlias = Any
"""An `ir.Value`: an SSA value."""

_IEEE_FLOATS = {"float16": ir.F16Type, "float32": ir.F32Type, "float64": ir.F64Type}


def int_type(bits: int) -> Type:
    """The signless integer type of `bits` bits."""
    return ir.IntegerType.get_signless(bits)


def i64() -> Type:
    """The type of sizes, strides and loop counters."""
    return int_type(64)


def ptr() -> Type:
    """The type of addresses."""
    return llvm.PointerType.get()


def bf16() -> Type:
    """The bfloat16 type, for intrinsics that require it; see `element_type`."""
    return ir.BF16Type.get()


def amx_tile() -> Type:
    """The type of an AMX tile register."""
    return ir.Type.parse("!llvm.x86_amx")


def vector_type(lanes: int, element: Type) -> Type:
    """The type of a vector of `lanes` elements."""
    return ir.VectorType.get([lanes], element)


def element_type(dtype: str) -> Type:
    """The type of one element in memory.

    A complex number is a vector of two floats. Formats that LLVM does not support on every target
    (float8, bfloat16) are integers with the same bits: for arithmetic on bfloat16, LLVM emits
    library calls where the target has no instruction for it.
    """
    if dtype in REAL_PART:
        return vector_type(2, element_type(REAL_PART[dtype]))
    if dtype == "bfloat16" or dtype in FLOAT8 or DTYPES[dtype].kind in ("integer", "bool"):
        return int_type(8 * ITEMSIZE[dtype])
    return _IEEE_FLOATS[dtype].get()


def scalar_type(type_: Type) -> Type:
    """The element type of a vector type; a scalar type itself."""
    return getattr(type_, "element_type", type_)


def type_like(value: Value, element: Type) -> Type:
    """The type with the shape of `value`, a scalar or a vector, and another element type."""
    return vector_type(value.type.shape[0], element) if is_vector(value) else element


def is_integer(type_: Type) -> bool:
    """Whether a scalar type, or the element type of a vector type, is an integer type."""
    return isinstance(scalar_type(type_), ir.IntegerType)


def is_vector(value: Value) -> bool:
    """Whether a value is a vector."""
    return isinstance(value.type, ir.VectorType)


def itemsize_of(type_: Type) -> int:
    """Bytes of a scalar type, or of the element type of a vector type."""
    return int(scalar_type(type_).width) // 8
