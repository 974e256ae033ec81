"""Activation functions of vectors of float32 or float64, within a few units in the last place.

Polynomials of as many terms as the type needs: no table of coefficients, these come from the
functions' own definitions when a kernel is generated.
"""

import math
from collections.abc import Sequence

import numpy as np

from . import ir
from .ir import Value

TERMS = {32: 7, 64: 13}
"""Powers of exp's series, for a remainder up to log(2) / 2; by the bits of an element."""

ERFC_TERMS = {32: 10, 64: 22}
"""The degree of the polynomial for erfc."""

LOG2 = {
    32: (0.693359375, -2.1219444005469058e-4),
    64: (0.6931471803691238, 1.9082149292705877e-10),
}
"""log(2) in two parts, the first of so few bits that an exponent times it is exact."""

LARGEST = {32: 88.0, 64: 708.0}
"""Up to this, exp and its inverse are normal numbers."""

ERFC_ENDS = {32: 9.0, 64: 26.0}
"""Up to this, erfc is a normal number; about."""


def activated(name: str, x: Value, bounds: tuple[Value, Value]) -> Value:
    """``name(x)`` for each lane, with a name of `nkblas.epilogues.ACTIVATIONS`; NaN stays NaN.

    Parameters
    ----------
    name : str
    x : Value
        A vector; integers have "relu" and "clip" only.
    bounds : (Value, Value)
        Scalars, float64: what "clip" keeps to.
    """
    if name == "relu":
        return ir.at_least(x, ir.zero(x.type))
    if name == "clip":
        low, high = (ir.splat(ir.number(bound, x.type.element_type), x.type) for bound in bounds)
        return ir.bounded(x, low, high)
    if name == "sigmoid":
        return _sigmoid(x)
    if name == "silu":
        return ir.times(x, _sigmoid(x))
    if name == "tanh":
        return _tanh(x)
    if name == "gelu_tanh":  # Hendrycks and Gimpel, arXiv 1606.08415; 1 + tanh(y) = 2 sigmoid(2y)
        cubic = ir.times(_constant(x, 2 * 0.044715 * math.sqrt(2 / math.pi)), ir.times(x, x))
        factor = ir.plus(_constant(x, 2 * math.sqrt(2 / math.pi)), cubic)
        return ir.times(x, _sigmoid(ir.times(x, factor)))
    assert name == "gelu", name
    half = ir.times(_constant(x, 0.5), x)
    return ir.times(half, _erfc(ir.times(_constant(x, -math.sqrt(0.5)), x)))


def _constant(like: Value, number: float) -> Value:
    return ir.constant(like.type, number)


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
    n = ir.plus(sum_, ir.negative(magic))
    high, low = LOG2[bits]
    rest = ir.fma(n, _constant(x, -high), x)
    rest = ir.fma(n, _constant(x, -low), rest)
    series = [1 / math.factorial(i) for i in range(TERMS[bits], 1, -1)]
    q = ir.fma(ir.times(rest, rest), _horner(rest, series), rest)
    one = _constant(x, 1.0)
    exponent = ir.shift_left(ir.bits_of(sum_), mantissa)
    power = ir.float_of(ir.plus(ir.bits_of(one), exponent), x.type.element_type)
    return power, q


def _exp(x: Value) -> Value:
    """exp(x), where x is small enough for it to be a number; with too negative ones it is tiny."""
    power, q = _power_and_rest(ir.at_least(x, _constant(x, -LARGEST[_bits(x)] + 1)))
    return ir.fma(power, q, power)


def _sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)); 0 where that is tiny."""
    one, minus = _constant(x, 1.0), ir.negative(x)
    most = _constant(x, LARGEST[_bits(x)])
    value = ir.divide(one, ir.plus(one, _exp(ir.at_most(minus, most))))
    return ir.select(ir.float_less(most, minus), ir.zero(x.type), value)


def _tanh(x: Value) -> Value:
    """e / (e + 2) with e = exp(2|x|) - 1, and x's sign: exact where x is small, too."""
    size = ir.absolute(x)
    twice = ir.at_most(ir.plus(size, size), _constant(x, 80.0))
    power, q = _power_and_rest(twice)
    e = ir.fma(power, q, ir.plus(power, _constant(x, -1.0)))
    return ir.copy_sign(ir.divide(e, ir.plus(e, _constant(x, 2.0))), x)


def _erfc(x: Value) -> Value:
    """t exp(-z**2 + P(t)) with z = |x| and t = 2 / (2 + z), or 0 where that is tiny; and 2 minus
    that for negative x.

    (Numerical Recipes, third edition, 6.2.2; P is a Chebyshev interpolation.)
    """
    coefficients = [float(c) for c in _erfc_coefficients(ERFC_TERMS[_bits(x)])]
    size, most = ir.absolute(x), _constant(x, ERFC_ENDS[_bits(x)])
    z, two = ir.at_most(size, most), _constant(x, 2.0)
    t = ir.divide(two, ir.plus(two, z))
    y = ir.fma(two, t, _constant(x, -1.0))
    twice, after, value = ir.plus(y, y), _constant(x, 0.0), _constant(x, coefficients[-1])
    for c in coefficients[-2:0:-1]:  # Clenshaw's recurrence
        after, value = value, ir.plus(ir.fma(twice, value, _constant(x, c)), ir.negative(after))
    sum_ = ir.plus(ir.fma(y, value, _constant(x, coefficients[0])), ir.negative(after))
    tail = ir.times(t, _exp(ir.fma(ir.negative(z), z, sum_)))
    tail = ir.select(ir.float_less(most, size), ir.zero(x.type), tail)
    other = ir.plus(two, ir.negative(tail))
    return ir.select(ir.float_less(x, ir.zero(x.type)), other, tail)


def _erfc_coefficients(degree: int) -> np.ndarray:
    """Of log(erfc(z) exp(z**2) / t), in Chebyshev polynomials of 2t - 1."""

    def function(y: np.ndarray) -> np.ndarray:
        t = (y + 1) / 2
        return np.array([math.log(_scaled_erfc(2 / x - 2) / x) for x in t])

    return np.polynomial.chebyshev.chebinterpolate(function, degree)


def _scaled_erfc(z: float) -> float:
    """erfc(z) exp(z**2)"""
    if z < 3:
        return math.erfc(z) * math.exp(z * z)
    fraction = z
    for i in range(80, 0, -1):  # Laplace's continued fraction
        fraction = z + i / 2 / fraction
    return 1 / (math.sqrt(math.pi) * fraction)
