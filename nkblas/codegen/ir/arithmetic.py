"""Constants, arithmetic, comparisons and conversions, of scalars and of vectors lane by lane.

The element type decides between the integer and the floating-point operation. Names follow MLIR's
`arith` dialect and LLVM's instructions.
"""

from collections.abc import Sequence

from mlir import ir
from mlir.dialects import arith, vector

from .types import Type, Value, i64, int_type, is_integer, is_vector, scalar_type, type_like

# ---- constants ----


def const(type_: Type, number: float) -> Value:
    """A number as a scalar, or in every lane of a vector."""
    element = scalar_type(type_)
    if is_integer(element):
        attribute = ir.IntegerAttr.get(element, int(number))
    else:
        attribute = ir.FloatAttr.get(element, number)
    if isinstance(type_, ir.VectorType):
        attribute = ir.DenseElementsAttr.get_splat(type_, attribute)
    return arith.constant(type_, attribute)


def const_i64(value: int) -> Value:
    """An i64 constant."""
    return arith.constant(i64(), value)


def const_i16(value: int) -> Value:
    """An i16 constant."""
    return arith.constant(int_type(16), value)


def const_zero(type_: Type) -> Value:
    """Zero as a scalar, or in every lane of a vector."""
    return const(type_, 0.0)


def const_one(type_: Type) -> Value:
    """One as a scalar, or in every lane of a vector."""
    return const(type_, 1.0)


def const_alternating(type_: Type, even: float, odd: float) -> Value:
    """A vector of floats with one number in its even lanes and another one in its odd lanes."""
    pair = [ir.FloatAttr.get(type_.element_type, number) for number in (even, odd)]
    return _const_lanes(type_, [pair[lane % 2] for lane in range(type_.shape[0])])


def const_lane_numbers(type_: Type) -> Value:
    """A vector of integers that holds 0, 1, 2 and so on."""
    return _const_lanes(
        type_, [ir.IntegerAttr.get(type_.element_type, lane) for lane in range(type_.shape[0])]
    )


def _const_lanes(type_: Type, attributes: Sequence[ir.Attribute]) -> Value:
    return arith.constant(type_, ir.DenseElementsAttr.get(attributes, type=type_))


# ---- arithmetic ----


def add(a: Value, b: Value) -> Value:
    """``a + b``; integers wrap."""
    return (arith.addi if is_integer(a.type) else arith.addf)(a, b)


def sub(a: Value, b: Value) -> Value:
    """``a - b``, of integers; they wrap."""
    return arith.subi(a, b)


def mul(a: Value, b: Value) -> Value:
    """``a * b``; integers wrap."""
    return (arith.muli if is_integer(a.type) else arith.mulf)(a, b)


def div(a: Value, b: Value) -> Value:
    """``a / b``, of floats."""
    return arith.divf(a, b)


def neg(a: Value) -> Value:
    """``-a``, of floats."""
    return arith.negf(a)


def fma(a: Value, b: Value, c: Value) -> Value:
    """``a * b + c``. Of floats it is fused where the target has FMA: elsewhere LLVM splits it."""
    return add(mul(a, b), c) if is_integer(c.type) else vector.fma(a, b, c)


def minsi(a: Value, b: Value) -> Value:
    """The smaller of two signed integers."""
    return arith.minsi(a, b)


def maxsi(a: Value, b: Value) -> Value:
    """The larger of two signed integers."""
    return arith.maxsi(a, b)


def maximum(value: Value, low: Value) -> Value:
    """The larger of two integers or floats; NaN if `value` is NaN."""
    return select(_is_less(value, low), low, value)


def minimum(value: Value, high: Value) -> Value:
    """The smaller of two integers or floats; NaN if `value` is NaN."""
    return select(_is_less(high, value), high, value)


def clamp(value: Value, low: Value, high: Value) -> Value:
    """The number in the range [low, high] that is nearest to `value`; NaN if `value` is NaN."""
    return minimum(maximum(value, low), high)


def _is_less(a: Value, b: Value) -> Value:
    return slt(a, b) if is_integer(a.type) else olt(a, b)


def roundeven(value: Value) -> Value:
    """Floats rounded to the nearest integer, to the even one in a tie.

    They are float32 with an absolute value below 2**22.
    """
    # float32 numbers of this size have no fraction: the sum is rounded to an integer.
    shift = const(value.type, 1.5 * 2.0**23)
    return add(add(value, shift), neg(shift))


def fabs(value: Value) -> Value:
    """The absolute values of a vector of floats."""
    bits = bitcast_to_int(value)
    sign_bit = bits.type.element_type.width - 1
    magnitude = and_(bits, const(bits.type, (1 << sign_bit) - 1))
    return bitcast_to_float(magnitude, value.type.element_type)


def copysign(magnitude: Value, sign: Value) -> Value:
    """A vector of `magnitude`, which is not negative, with the signs of `sign`."""
    bits = bitcast_to_int(sign)
    sign_bit = bits.type.element_type.width - 1
    sign_bits = and_(bits, const(bits.type, -1 << sign_bit))
    return bitcast_to_float(or_(bitcast_to_int(magnitude), sign_bits), sign.type.element_type)


# ---- multiples ----


def align_down(value: Value, power_of_two: int) -> Value:
    """The largest multiple of a power of two that is not above `value`."""
    return arith.andi(value, const_i64(-power_of_two))


def round_down(value: Value, multiple: int) -> Value:
    """The largest multiple of any number that is not above `value`, which is not negative."""
    return sub(value, arith.remui(value, const_i64(multiple)))


def mod_power_of_two(value: Value, power_of_two: int) -> Value:
    """`value` modulo a power of two: not negative, for negative values either."""
    return arith.andi(value, const_i64(power_of_two - 1))


# ---- bits and masks ----


def and_(a: Value, b: Value) -> Value:
    """Bitwise and."""
    return arith.andi(a, b)


def or_(a: Value, b: Value) -> Value:
    """Bitwise or."""
    return arith.ori(a, b)


def xor(a: Value, b: Value) -> Value:
    """Bitwise exclusive or."""
    return arith.xori(a, b)


def andnot(mask: Value, subset: Value) -> Value:
    """The lanes of `mask` that are not in `subset`, which has no lane outside `mask`."""
    return arith.xori(mask, subset)


def shl(value: Value, bits: int) -> Value:
    """Integers shifted left."""
    return arith.shli(value, const(value.type, bits))


def lshr(value: Value, bits: int) -> Value:
    """Integers shifted right, with zeros shifted in."""
    return arith.shrui(value, const(value.type, bits))


# ---- comparisons ----


def ne(a: Value, b: Value) -> Value:
    """``a != b``, of integers."""
    return arith.cmpi(arith.CmpIPredicate.ne, a, b)


def slt(a: Value, b: Value) -> Value:
    """``a < b``, of signed integers."""
    return arith.cmpi(arith.CmpIPredicate.slt, a, b)


def ugt(a: Value, b: Value) -> Value:
    """``a > b``, of unsigned integers."""
    return arith.cmpi(arith.CmpIPredicate.ugt, a, b)


def olt(a: Value, b: Value) -> Value:
    """``a < b``, of floats; false for NaN."""
    return arith.cmpf(arith.CmpFPredicate.OLT, a, b)


def is_zero(value: Value) -> Value:
    """``value == 0``, of an i64."""
    return arith.cmpi(arith.CmpIPredicate.eq, value, const_i64(0))


def is_nonzero(value: Value) -> Value:
    """``value != 0``, of integers and of floats; true for NaN."""
    zero = const_zero(value.type)
    if is_integer(value.type):
        return ne(value, zero)
    return arith.cmpf(arith.CmpFPredicate.UNE, value, zero)


def select(condition: Value, a: Value, b: Value) -> Value:
    """``condition ? a : b``; both are evaluated."""
    return arith.select(condition, a, b)


# ---- conversions ----


def sext(value: Value, bits: int) -> Value:
    """Signed integers as wider ones."""
    return arith.extsi(type_like(value, int_type(bits)), value)


def zext(value: Value, bits: int) -> Value:
    """Unsigned integers as wider ones."""
    return arith.extui(type_like(value, int_type(bits)), value)


def trunc(value: Value, bits: int) -> Value:
    """The lower bits of integers."""
    return arith.trunci(type_like(value, int_type(bits)), value)


def fpext(value: Value, element: Type) -> Value:
    """Floats in a wider floating-point type."""
    return arith.extf(type_like(value, element), value)


def fptrunc(value: Value, element: Type) -> Value:
    """Floats in a narrower floating-point type, rounded to nearest even."""
    return arith.truncf(type_like(value, element), value)


def sitofp(value: Value, element: Type) -> Value:
    """Signed integers as floats."""
    return arith.sitofp(type_like(value, element), value)


def fptosi(value: Value, bits: int) -> Value:
    """Floats as signed integers, rounded toward 0."""
    return arith.fptosi(type_like(value, int_type(bits)), value)


def from_f64(value: Value, type_: Type) -> Value:
    """A float64 scalar converted to another integer or floating-point type."""
    if is_integer(type_):
        return arith.fptosi(type_, value)
    return value if value.type == type_ else arith.truncf(type_, value)


def bitcast(type_: Type, value: Value) -> Value:
    """The bits of a vector as a vector of another type of the same size."""
    return value if value.type == type_ else vector.bitcast(type_, value)


def bitcast_to_int(value: Value) -> Value:
    """The bits of floats as integers of the same width."""
    return _bitcast_elements(value, int_type(scalar_type(value.type).width))


def bitcast_to_float(value: Value, element: Type) -> Value:
    """The floats whose bits are given as integers of the same width."""
    return _bitcast_elements(value, element)


def _bitcast_elements(value: Value, element: Type) -> Value:
    type_ = type_like(value, element)
    return bitcast(type_, value) if is_vector(value) else arith.bitcast(type_, value)
