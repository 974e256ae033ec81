"""Conversions between the element types of operands, panels, sums and results.

One rounding, to the nearest and to even in a tie. Where the instruction set has none for it, they
are made of integer arithmetic.
"""

from nkblas.base.dtypes import DTYPES, FLOAT8, ITEMSIZE, Float8
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value


def convert(value: Value, source: str, target: str, isa: ISA) -> Value:
    """An element, or a vector of them, of dtype `source` as `target`.

    Parameters
    ----------
    value : Value
    source, target : str
        Names of `nkblas.base.dtypes.DTYPES`. Integers are cut to the bits that fit. A bool is
        whatever byte it is in memory; what becomes of one is 0 or 1.
    isa : ISA
    """
    if source == target:
        return value
    if source == "bool" or target == "bool":
        true = ir.ne(value, ir.const_zero(value.type))
        return ir.zext(true, 8 * ITEMSIZE[target])
    if DTYPES[target].saturates:
        return _saturated(value, target)
    if DTYPES[source].kind == "integer" and DTYPES[target].kind == "float":
        return ir.sitofp(value, ir.element_type(target))
    if DTYPES[source].kind == "integer":
        bits = 8 * ITEMSIZE[target]
        if ITEMSIZE[source] < ITEMSIZE[target]:
            return (ir.zext if source.startswith("u") else ir.sext)(value, bits)
        return value if ITEMSIZE[source] == ITEMSIZE[target] else ir.trunc(value, bits)
    if source in FLOAT8:
        return _from_float8(value, FLOAT8[source])
    hardware = "f16c" in isa.requires
    if source == "bfloat16":
        wide = ir.zext(value, 32)
        return ir.bitcast_to_float(ir.shl(wide, 16), ir.element_type(target))
    if target == "bfloat16":
        return _to_bfloat16(value)
    if source == "float16":
        element = ir.element_type(target)
        # of a scalar, LLVM would convert whatever else is in its register: that may raise flags
        hardware = hardware and ir.is_vector(value)
        return ir.fpext(value, element) if hardware else _from_float16(value)
    element = ir.element_type(target)
    return ir.fptrunc(value, element) if hardware else _to_float16(value)


def splat(value: Value, lanes: int, source: str, target: str, isa: ISA) -> Value:
    """A scalar of dtype `source`, as `target` in every lane of a vector."""
    if source == "bfloat16" and target != source:
        # twice in each lane; one instruction with the load, and one more
        halves = ir.splat(value, ir.vector_type(2 * lanes, value.type))
        wide = ir.bitcast(ir.vector_type(lanes, ir.int_type(32)), halves)
        return ir.bitcast_to_float(ir.shl(wide, 16), ir.element_type(target))
    return convert(ir.splat(value, ir.vector_type(lanes, value.type)), source, target, isa)


def _saturated(value: Value, target: str) -> Value:
    """Whole numbers, of float32, as those 8-bit integers that are nearest."""
    low, high = (-128, 127) if target == "qint8" else (0, 255)
    bounded = ir.clamp(value, ir.const(value.type, low), ir.const(value.type, high))
    return ir.trunc(ir.fptosi(bounded, 32), 8)


def _from_float8(value: Value, form: Float8) -> Value:
    bits = ir.zext(value, 32)
    i32, element = bits.type, ir.element_type("float32")
    sign = ir.shl(ir.and_(bits, ir.const(i32, 0x80)), 24)
    size = ir.and_(bits, ir.const(i32, 0x7F))
    shifted = ir.shl(size, 23 - form.mantissa)
    normal = ir.add(shifted, ir.const(i32, (127 - form.bias) << 23))
    # what has no leading bit is a small integer
    least = ir.const(ir.type_like(bits, element), 2.0 ** (1 - form.bias - form.mantissa))
    small = ir.bitcast_to_int(ir.mul(ir.sitofp(size, element), least))
    is_small = ir.ugt(ir.const(i32, 1 << form.mantissa), size)
    found = ir.or_(ir.select(is_small, small, normal), sign)
    nan = ir.const(i32, 0x7FC00000)
    if form.special == "ieee":
        first = 0x80 - (1 << form.mantissa)  # infinity; then NaN
        endless = ir.or_(ir.or_(shifted, ir.const(i32, 0x7F800000)), sign)
        found = ir.select(ir.ugt(size, ir.const(i32, first - 1)), endless, found)
    elif form.special == "fn":
        found = ir.select(ir.ne(size, ir.const(i32, 0x7F)), found, nan)
    else:
        found = ir.select(ir.ne(bits, ir.const(i32, 0x80)), found, nan)
    return ir.bitcast_to_float(found, element)


def _to_bfloat16(value: Value) -> Value:
    bits = ir.bitcast_to_int(value)
    i32 = bits.type
    odd = ir.and_(ir.lshr(bits, 16), ir.const_one(i32))
    rounded = ir.add(ir.add(bits, ir.const(i32, 0x7FFF)), odd)
    infinite = ir.const(i32, 0x7F800000)
    nan = ir.ugt(ir.and_(bits, ir.const(i32, 0x7FFFFFFF)), infinite)
    quiet = ir.or_(bits, ir.const(i32, 0x400000))
    high = ir.lshr(ir.select(nan, quiet, rounded), 16)
    return ir.trunc(high, 16)


def _from_float16(value: Value) -> Value:
    bits = ir.zext(ir.bitcast_to_int(value), 32)
    i32, element = bits.type, ir.element_type("float32")
    sign = ir.shl(ir.and_(bits, ir.const(i32, 0x8000)), 16)
    size = ir.shl(ir.and_(bits, ir.const(i32, 0x7FFF)), 13)
    # the exponent is off by 112, also for what has no leading bit
    scaled = ir.mul(
        ir.bitcast_to_float(size, element), ir.const(ir.type_like(value, element), 2.0**112)
    )
    finite = ir.ugt(ir.const(i32, 0x7C00 << 13), size)
    endless = ir.or_(size, ir.const(i32, 0x7F800000))
    return ir.bitcast_to_float(
        ir.or_(ir.select(finite, ir.bitcast_to_int(scaled), endless), sign), element
    )


def _to_float16(value: Value) -> Value:
    bits = ir.bitcast_to_int(value)
    i32, element = bits.type, ir.element_type("float32")
    size = ir.and_(bits, ir.const(i32, 0x7FFFFFFF))
    sign = ir.lshr(ir.xor(bits, size), 16)
    odd = ir.and_(ir.lshr(size, 13), ir.const_one(i32))
    offset = ir.const(i32, 0xFFF - (112 << 23))
    normal = ir.lshr(ir.add(ir.add(size, offset), odd), 13)
    # a half has its last bit where those of float16 have theirs, below 2 to the -14
    half = ir.const(ir.type_like(value, element), 0.5)
    small = ir.bitcast_to_int(ir.add(ir.bitcast_to_float(size, element), half))
    small = ir.add(small, ir.const(i32, -0x3F000000))
    tiny = ir.ugt(ir.const(i32, 113 << 23), size)
    large = ir.ugt(size, ir.const(i32, 0x477FEFFF))  # 65520 and more
    nan = ir.ugt(size, ir.const(i32, 0x7F800000))
    endless = ir.select(nan, ir.const(i32, 0x7E00), ir.const(i32, 0x7C00))
    finite = ir.select(tiny, small, normal)
    whole = ir.or_(ir.select(large, endless, finite), sign)
    return ir.bitcast_to_float(ir.trunc(whole, 16), ir.element_type("float16"))
