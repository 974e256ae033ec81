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
        true = ir.differs(value, ir.zero(value.type))
        return ir.extend(true, 8 * ITEMSIZE[target], signed=False)
    if DTYPES[target].saturates:
        return _saturated(value, target)
    if DTYPES[source].kind == "integer" and DTYPES[target].kind == "float":
        return ir.from_integer(value, ir.element_type(target))
    if DTYPES[source].kind == "integer":
        bits = 8 * ITEMSIZE[target]
        if ITEMSIZE[source] < ITEMSIZE[target]:
            return ir.extend(value, bits, signed=not source.startswith("u"))
        return value if ITEMSIZE[source] == ITEMSIZE[target] else ir.truncate(value, bits)
    if source in FLOAT8:
        return _from_float8(value, FLOAT8[source])
    hardware = "f16c" in isa.requires
    if source == "bfloat16":
        wide = ir.extend(value, 32, signed=False)
        return ir.float_of(ir.shift_left(wide, 16), ir.element_type(target))
    if target == "bfloat16":
        return _to_bfloat16(value)
    if source == "float16":
        element = ir.element_type(target)
        # of a scalar, LLVM would convert whatever else is in its register: that may raise flags
        hardware = hardware and ir.is_vector(value)
        return ir.float_extend(value, element) if hardware else _from_float16(value)
    element = ir.element_type(target)
    return ir.float_truncate(value, element) if hardware else _to_float16(value)


def splat(value: Value, lanes: int, source: str, target: str, isa: ISA) -> Value:
    """A scalar of dtype `source`, as `target` in every lane of a vector."""
    if source == "bfloat16" and target != source:
        # twice in each lane; one instruction with the load, and one more
        halves = ir.splat(value, ir.vector_of(2 * lanes, value.type))
        wide = ir.bitcast(ir.vector_of(lanes, ir.integer(32)), halves)
        return ir.float_of(ir.shift_left(wide, 16), ir.element_type(target))
    return convert(ir.splat(value, ir.vector_of(lanes, value.type)), source, target, isa)


def _saturated(value: Value, target: str) -> Value:
    """Whole numbers, of float32, as those 8-bit integers that are nearest."""
    low, high = (-128, 127) if target == "qint8" else (0, 255)
    bounded = ir.bounded(value, ir.constant(value.type, low), ir.constant(value.type, high))
    return ir.truncate(ir.to_integer(bounded, 32), 8)


def _from_float8(value: Value, form: Float8) -> Value:
    bits = ir.extend(value, 32, signed=False)
    i32, element = bits.type, ir.element_type("float32")
    sign = ir.shift_left(ir.both(bits, ir.constant(i32, 0x80)), 24)
    size = ir.both(bits, ir.constant(i32, 0x7F))
    shifted = ir.shift_left(size, 23 - form.mantissa)
    normal = ir.plus(shifted, ir.constant(i32, (127 - form.bias) << 23))
    # what has no leading bit is a small integer
    least = ir.constant(ir.like(bits, element), 2.0 ** (1 - form.bias - form.mantissa))
    small = ir.bits_of(ir.times(ir.from_integer(size, element), least))
    is_small = ir.above(ir.constant(i32, 1 << form.mantissa), size)
    found = ir.any_of(ir.select(is_small, small, normal), sign)
    nan = ir.constant(i32, 0x7FC00000)
    if form.special == "ieee":
        first = 0x80 - (1 << form.mantissa)  # infinity; then NaN
        endless = ir.any_of(ir.any_of(shifted, ir.constant(i32, 0x7F800000)), sign)
        found = ir.select(ir.above(size, ir.constant(i32, first - 1)), endless, found)
    elif form.special == "fn":
        found = ir.select(ir.differs(size, ir.constant(i32, 0x7F)), found, nan)
    else:
        found = ir.select(ir.differs(bits, ir.constant(i32, 0x80)), found, nan)
    return ir.float_of(found, element)


def _to_bfloat16(value: Value) -> Value:
    bits = ir.bits_of(value)
    i32 = bits.type
    odd = ir.both(ir.shift_right(bits, 16), ir.one(i32))
    rounded = ir.plus(ir.plus(bits, ir.constant(i32, 0x7FFF)), odd)
    infinite = ir.constant(i32, 0x7F800000)
    nan = ir.above(ir.both(bits, ir.constant(i32, 0x7FFFFFFF)), infinite)
    quiet = ir.any_of(bits, ir.constant(i32, 0x400000))
    high = ir.shift_right(ir.select(nan, quiet, rounded), 16)
    return ir.truncate(high, 16)


def _from_float16(value: Value) -> Value:
    bits = ir.extend(ir.bits_of(value), 32, signed=False)
    i32, element = bits.type, ir.element_type("float32")
    sign = ir.shift_left(ir.both(bits, ir.constant(i32, 0x8000)), 16)
    size = ir.shift_left(ir.both(bits, ir.constant(i32, 0x7FFF)), 13)
    # the exponent is off by 112, also for what has no leading bit
    scaled = ir.times(ir.float_of(size, element), ir.constant(ir.like(value, element), 2.0**112))
    finite = ir.above(ir.constant(i32, 0x7C00 << 13), size)
    endless = ir.any_of(size, ir.constant(i32, 0x7F800000))
    return ir.float_of(ir.any_of(ir.select(finite, ir.bits_of(scaled), endless), sign), element)


def _to_float16(value: Value) -> Value:
    bits = ir.bits_of(value)
    i32, element = bits.type, ir.element_type("float32")
    size = ir.both(bits, ir.constant(i32, 0x7FFFFFFF))
    sign = ir.shift_right(ir.flipped(bits, size), 16)
    odd = ir.both(ir.shift_right(size, 13), ir.one(i32))
    offset = ir.constant(i32, 0xFFF - (112 << 23))
    normal = ir.shift_right(ir.plus(ir.plus(size, offset), odd), 13)
    # a half has its last bit where those of float16 have theirs, below 2 to the -14
    half = ir.constant(ir.like(value, element), 0.5)
    small = ir.bits_of(ir.plus(ir.float_of(size, element), half))
    small = ir.plus(small, ir.constant(i32, -0x3F000000))
    tiny = ir.above(ir.constant(i32, 113 << 23), size)
    large = ir.above(size, ir.constant(i32, 0x477FEFFF))  # 65520 and more
    nan = ir.above(size, ir.constant(i32, 0x7F800000))
    endless = ir.select(nan, ir.constant(i32, 0x7E00), ir.constant(i32, 0x7C00))
    finite = ir.select(tiny, small, normal)
    whole = ir.any_of(ir.select(large, endless, finite), sign)
    return ir.float_of(ir.truncate(whole, 16), ir.element_type("float16"))
