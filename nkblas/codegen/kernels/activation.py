"""Activation functions of vectors of float32 or float64, within a few units in the last place of
what they are applied to (gelu, silu), or of the result (the others).

Polynomials of as many terms as the type needs: no table of coefficients, these come from the
functions' own definitions when a kernel is generated.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

from nkblas.codegen import ir
from nkblas.codegen.ir import Value

TERMS = {32: 7, 64: 13}
"""Powers of exp's series, for a remainder up to log(2) / 2; by the bits of an element."""

LOG2 = {
    32: (0.693359375, -2.1219444005469058e-4),
    64: (0.6931471803691238, 1.9082149292705877e-10),
}
"""log(2) in two parts, the first of so few bits that an exponent times it is exact."""

LARGEST = {32: 88.0, 64: 708.0}
"""Up to this, exp and its inverse are normal numbers."""

NORMAL = {32: (5.3, 14), 64: (8.2, 36)}
"""Where the normal distribution's function has become 1 within an element's precision, and the
degree of the polynomial up to there."""


class ActivationCode(NamedTuple):
    """The code of an activation of `nkblas.base.epilogues.ACTIVATIONS`.

    Attributes
    ----------
    emit : callable
        ``emit(x, bounds)`` of a vector of floats (of integers too, where the activation is defined
        for them). The bounds are those of "clip", float64 scalars. NaN stays NaN.
    is_long : bool
        Whether it takes so many instructions that a loop goes through the rows of a tile, which
        takes memory for the tile.
    """

    emit: Callable[[Value, tuple[Value, Value]], Value]
    is_long: bool


def _clip(x: Value, bounds: tuple[Value, Value]) -> Value:
    low, high = (ir.splat(ir.from_f64(bound, x.type.element_type), x.type) for bound in bounds)
    return ir.clamp(x, low, high)


def _gelu_tanh(x: Value) -> Value:
    # Hendrycks and Gimpel, arXiv 1606.08415; 1 + tanh(y) = 2 sigmoid(2y)
    cubic = ir.mul(_constant(x, 2 * 0.044715 * math.sqrt(2 / math.pi)), ir.mul(x, x))
    factor = ir.add(_constant(x, 2 * math.sqrt(2 / math.pi)), cubic)
    return ir.mul(x, _sigmoid(ir.mul(x, factor)))


ACTIVATION_CODE: dict[str, ActivationCode] = {
    "relu": ActivationCode(lambda x, bounds: ir.maximum(x, ir.const_zero(x.type)), is_long=False),
    "clip": ActivationCode(_clip, is_long=False),
    "sigmoid": ActivationCode(lambda x, bounds: _sigmoid(x), is_long=True),
    "silu": ActivationCode(lambda x, bounds: ir.mul(x, _sigmoid(x)), is_long=True),
    "tanh": ActivationCode(lambda x, bounds: _tanh(x), is_long=True),
    "gelu_tanh": ActivationCode(lambda x, bounds: _gelu_tanh(x), is_long=True),
    "gelu": ActivationCode(lambda x, bounds: _gelu(x), is_long=True),
}
"""By name."""


def _constant(like: Value, number: float) -> Value:
    return ir.const(like.type, number)


def _bits(x: Value) -> int:
    return int(x.type.element_type.width)


def _horner(x: Value, coefficients: Sequence[float]) -> Value:
    """The polynomial with these coefficients, the highest power's first."""
    value = _constant(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = ir.fma(value, x, _constant(x, coefficient))
    return value


def _power_and_rest(x: Value) -> tuple[Value, Value]:
    """``p`` and ``q`` of ``exp(x) = p * (1 + q)``: p is a power of two, and q not far from 0."""
    bits = _bits(x)
    mantissa = {32: 23, 64: 52}[bits]
    # the sum has the nearest integer in its last bits
    magic = _constant(x, 1.5 * 2.0**mantissa)
    sum_ = ir.fma(x, _constant(x, 1 / math.log(2)), magic)
    n = ir.add(sum_, ir.neg(magic))
    high, low = LOG2[bits]
    rest = ir.fma(n, _constant(x, -high), x)
    rest = ir.fma(n, _constant(x, -low), rest)
    series = [1 / math.factorial(i) for i in range(TERMS[bits], 1, -1)]
    q = ir.fma(ir.mul(rest, rest), _horner(rest, series), rest)
    one = _constant(x, 1.0)
    exponent = ir.shl(ir.bitcast_to_int(sum_), mantissa)
    power = ir.bitcast_to_float(ir.add(ir.bitcast_to_int(one), exponent), x.type.element_type)
    return power, q


def _exp(x: Value) -> Value:
    """exp(x), where x is small enough for it to be a number; with too negative ones it is tiny."""
    power, q = _power_and_rest(ir.maximum(x, _constant(x, -LARGEST[_bits(x)] + 1)))
    return ir.fma(power, q, power)


def _sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)); 0 where that is tiny."""
    one, minus = _constant(x, 1.0), ir.neg(x)
    most = _constant(x, LARGEST[_bits(x)])
    value = ir.div(one, ir.add(one, _exp(ir.minimum(minus, most))))
    return ir.select(ir.olt(most, minus), ir.const_zero(x.type), value)


def _tanh(x: Value) -> Value:
    """e / (e + 2) with e = exp(2|x|) - 1, and x's sign: exact where x is small, too."""
    size = ir.fabs(x)
    twice = ir.minimum(ir.add(size, size), _constant(x, 80.0))
    power, q = _power_and_rest(twice)
    e = ir.fma(power, q, ir.add(power, _constant(x, -1.0)))
    return ir.copysign(ir.div(e, ir.add(e, _constant(x, 2.0))), x)


def _gelu(x: Value) -> Value:
    """x times the normal distribution's function, 1/2 + u G(u**2), with u not far from 0: beyond,
    that is 0 or 1 within an element's precision."""
    end, degree = NORMAL[_bits(x)]
    least = ir.maximum(x, _constant(x, -end))
    u = ir.minimum(least, _constant(x, end))
    y = ir.fma(ir.mul(u, u), _constant(x, 2 / end**2), _constant(x, -1.0))
    normal = ir.fma(u, _horner(y, _normal(end, degree)), _constant(x, 0.5))
    return ir.mul(least, normal)


@cache
def _normal(end: float, degree: int) -> list[float]:
    """The coefficients of G(u**2), as a polynomial in y = 2 (u / end)**2 - 1."""

    def function(y: float) -> float:
        u = end * math.sqrt((y + 1) / 2)
        return math.erf(u / math.sqrt(2)) / (2 * u)

    return _interpolated(function, degree)


def _interpolated(function: Callable[[float], float], degree: int) -> list[float]:
    """The coefficients, the highest power's first, of the polynomial that is equal to a function in
    Chebyshev's nodes from -1 to 1.

    (Newton's divided differences, multiplied out: in so many digits that nothing is lost.)
    """
    with localcontext() as context:
        context.prec = 60
        count = degree + 1
        nodes = [Decimal(math.cos(math.pi * (2 * i + 1) / (2 * count))) for i in range(count)]
        differences = [Decimal(function(float(node))) for node in nodes]
        for j in range(1, count):
            for i in range(degree, j - 1, -1):
                rise = differences[i] - differences[i - 1]
                differences[i] = rise / (nodes[i] - nodes[i - j])
        powers: list[Decimal] = []
        for node, difference in zip(reversed(nodes), reversed(differences), strict=True):
            times_y, times_node = [Decimal(0), *powers], [*powers, Decimal(0)]
            pairs = zip(times_y, times_node, strict=True)
            powers = [first - node * second for first, second in pairs]
            powers[0] += difference
        return [float(power) for power in reversed(powers)]
