"""Conversions between the element types of operands, panels, accumulators and results.

Each rounds once, to nearest even. Where the instruction set has no instruction for a conversion, it
is done in integer arithmetic.
"""

from nkblas.base.dtypes import DTYPES, FLOAT8, ITEMSIZE, Float8
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value

INFINITY_32 = 0x7F800000
"""The bits of infinity in float32; those of NaN are above it."""

QUIET_NAN_32 = 0x7FC00000
"""The bits of a quiet NaN in float32."""


def convert(value: Value, source: str, target: str, isa: ISA) -> Value:
    """An element, or a vector of them, of dtype `source` converted to dtype `target`.

    Parameters
    ----------
    value : Value
    source, target : str
        Names of `nkblas.base.dtypes.DTYPES`. Integers are truncated to the bits that fit. A bool in
        memory may be any byte; converted to or from, it is 0 or 1.
    isa : ISA
    """
    if source == target:
        return value
    if source == "bool" or target == "bool":
        return ir.zext(ir.is_nonzero(value), 8 * ITEMSIZE[target])
    if DTYPES[target].saturates:
        return _saturate(value, target)
    if DTYPES[source].kind == "integer" and DTYPES[target].kind == "float":
        return ir.sitofp(value, ir.element_type(target))
    if DTYPES[source].kind == "integer":
        return _resize_integer(value, source, target)
    return _convert_float(value, source, target, isa)


def splat(value: Value, lanes: int, source: str, target: str, isa: ISA) -> Value:
    """A scalar of dtype `source`, converted to `target`, in every lane of a vector."""
    if source == "bfloat16" and target != source:
        # Twice in each lane: one instruction with the load, and one shift.
        halves = ir.splat(value, ir.vector_type(2 * lanes, value.type))
        words = ir.bitcast(ir.vector_type(lanes, ir.int_type(32)), halves)
        return ir.bitcast_to_float(ir.shl(words, 16), ir.element_type(target))
    return convert(ir.splat(value, ir.vector_type(lanes, value.type)), source, target, isa)


def _resize_integer(value: Value, source: str, target: str) -> Value:
    bits = 8 * ITEMSIZE[target]
    if ITEMSIZE[source] < ITEMSIZE[target]:
        return (ir.sext if DTYPES[source].signed else ir.zext)(value, bits)
    return value if ITEMSIZE[source] == ITEMSIZE[target] else ir.trunc(value, bits)


def _convert_float(value: Value, source: str, target: str, isa: ISA) -> Value:
    """Convert between float32 and a narrower floating-point type, in either direction."""
    if source in FLOAT8:
        return _from_float8(value, FLOAT8[source])
    if source == "bfloat16":
        wide = ir.zext(value, 32)
        return ir.bitcast_to_float(ir.shl(wide, 16), ir.element_type(target))
    if target == "bfloat16":
        return _to_bfloat16(value)
    has_instruction = isa.converts_float16
    element = ir.element_type(target)
    if source == "float16":
        # For a scalar, LLVM would convert the rest of its register as well, which may raise flags.
        use_instruction = has_instruction and ir.is_vector(value)
        return ir.fpext(value, element) if use_instruction else _from_float16(value)
    return ir.fptrunc(value, element) if has_instruction else _to_float16(value)


def _saturate(value: Value, target: str) -> Value:
    """Integral values of float32 as the nearest integers of a type of 8 or 16 bits."""
    bits = 8 * ITEMSIZE[target]
    low = -(1 << bits - 1) if DTYPES[target].signed else 0
    high = low + (1 << bits) - 1
    clamped = ir.clamp(value, ir.const(value.type, low), ir.const(value.type, high))
    return ir.trunc(ir.fptosi(clamped, 32), bits)


def _from_float8(value: Value, form: Float8) -> Value:
    """Bytes of an 8-bit format as float32."""
    bits = ir.zext(value, 32)
    i32, element = bits.type, ir.element_type("float32")
    sign = ir.shl(ir.and_(bits, ir.const(i32, 0x80)), 24)
    magnitude = ir.and_(bits, ir.const(i32, 0x7F))
    shifted = ir.shl(magnitude, 23 - form.mantissa)
    normal = ir.add(shifted, ir.const(i32, (127 - form.bias) << 23))
    # Subnormal numbers are small integers times the least of them.
    least = ir.const(ir.type_like(bits, element), 2.0 ** (1 - form.bias - form.mantissa))
    subnormal = ir.bitcast_to_int(ir.mul(ir.sitofp(magnitude, element), least))
    is_subnormal = ir.ugt(ir.const(i32, 1 << form.mantissa), magnitude)
    result = ir.or_(ir.select(is_subnormal, subnormal, normal), sign)
    nan = ir.const(i32, QUIET_NAN_32)
    if form.special == "ieee":
        infinity = 0x80 - (1 << form.mantissa)  # above it are NaN
        special = ir.or_(ir.or_(shifted, ir.const(i32, INFINITY_32)), sign)
        result = ir.select(ir.ugt(magnitude, ir.const(i32, infinity - 1)), special, result)
    elif form.special == "fn":
        result = ir.select(ir.ne(magnitude, ir.const(i32, 0x7F)), result, nan)
    else:
        result = ir.select(ir.ne(bits, ir.const(i32, 0x80)), result, nan)
    return ir.bitcast_to_float(result, element)


def _to_bfloat16(value: Value) -> Value:
    """Float32 as the bits of bfloat16."""
    bits = ir.bitcast_to_int(value)
    i32 = bits.type
    is_odd = ir.and_(ir.lshr(bits, 16), ir.const_one(i32))
    rounded = ir.add(ir.add(bits, ir.const(i32, 0x7FFF)), is_odd)
    infinity = ir.const(i32, INFINITY_32)
    is_nan = ir.ugt(ir.and_(bits, ir.const(i32, 0x7FFFFFFF)), infinity)
    quiet = ir.or_(bits, ir.const(i32, 0x400000))
    return ir.trunc(ir.lshr(ir.select(is_nan, quiet, rounded), 16), 16)


def _from_float16(value: Value) -> Value:
    """Float16 as float32, in integer arithmetic."""
    bits = ir.zext(ir.bitcast_to_int(value), 32)
    i32, element = bits.type, ir.element_type("float32")
    sign = ir.shl(ir.and_(bits, ir.const(i32, 0x8000)), 16)
    magnitude = ir.shl(ir.and_(bits, ir.const(i32, 0x7FFF)), 13)
    # The exponents' biases differ by 112; a product corrects subnormal numbers as well.
    unscaled = ir.bitcast_to_float(magnitude, element)
    scaled = ir.mul(unscaled, ir.const(ir.type_like(value, element), 2.0**112))
    is_finite = ir.ugt(ir.const(i32, 0x7C00 << 13), magnitude)
    special = ir.or_(magnitude, ir.const(i32, INFINITY_32))
    result = ir.select(is_finite, ir.bitcast_to_int(scaled), special)
    return ir.bitcast_to_float(ir.or_(result, sign), element)


def _to_float16(value: Value) -> Value:
    """Float32 as float16, in integer arithmetic."""
    bits = ir.bitcast_to_int(value)
    i32, element = bits.type, ir.element_type("float32")
    magnitude = ir.and_(bits, ir.const(i32, 0x7FFFFFFF))
    sign = ir.lshr(ir.xor(bits, magnitude), 16)
    is_odd = ir.and_(ir.lshr(magnitude, 13), ir.const_one(i32))
    offset = ir.const(i32, 0xFFF - (112 << 23))
    normal = ir.lshr(ir.add(ir.add(magnitude, offset), is_odd), 13)
    # Added to 0.5, a number below 2**-14 is rounded at the last bit of a subnormal float16.
    half = ir.const(ir.type_like(value, element), 0.5)
    subnormal = ir.bitcast_to_int(ir.add(ir.bitcast_to_float(magnitude, element), half))
    subnormal = ir.add(subnormal, ir.const(i32, -0x3F000000))
    is_subnormal = ir.ugt(ir.const(i32, 113 << 23), magnitude)
    overflows = ir.ugt(magnitude, ir.const(i32, 0x477FEFFF))  # from 65520 on
    is_nan = ir.ugt(magnitude, ir.const(i32, INFINITY_32))
    special = ir.select(is_nan, ir.const(i32, 0x7E00), ir.const(i32, 0x7C00))
    finite = ir.select(is_subnormal, subnormal, normal)
    result = ir.or_(ir.select(overflows, special, finite), sign)
    return ir.bitcast_to_float(ir.trunc(result, 16), ir.element_type("float16"))
