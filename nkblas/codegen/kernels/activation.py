"""Activation functions of vectors of float32 or float64.

Their errors are within a few units in the last place of the argument (gelu, silu) or of the result
(the others). Polynomials have as many terms as the type needs; their coefficients are computed from
the functions' definitions when a kernel is generated, so there is no table of them.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

from nkblas.codegen import ir
from nkblas.codegen.ir import Value

# Tables by the bits of an element.

MANTISSA_BITS = {32: 23, 64: 52}

EXP_DEGREE = {32: 7, 64: 13}
"""Degree of exp's Taylor polynomial, for arguments up to log(2) / 2."""

LOG2 = {
    32: (0.693359375, -2.1219444005469058e-4),
    64: (0.6931471803691238, 1.9082149292705877e-10),
}
"""log(2) as a sum, whose first term has so few bits that its product with an exponent is exact."""

EXP_LIMIT = {32: 88.0, 64: 708.0}
"""For arguments up to this, exp and its reciprocal are normal numbers."""

NORMAL_CDF = {32: (5.3, 14), 64: (8.2, 36)}
"""The argument from which the normal distribution's function is 1 within an element's precision,
and the degree of the polynomial up to there."""


class ActivationCode(NamedTuple):
    """The code of an activation of `nkblas.base.epilogues.ACTIVATIONS`.

    Attributes
    ----------
    emit : callable
        ``emit(x, bounds)`` emits the activation of a vector of floats (of integers too, where the
        activation is defined for them). The bounds are float64 scalars, for "clip". NaN stays NaN.
    is_long : bool
        Whether the code is emitted once, in a loop over the rows of a register tile, because it
        has many instructions; the tile is then stored to a buffer.
    """

    emit: Callable[[Value, tuple[Value, Value]], Value]
    is_long: bool


def _clip(x: Value, bounds: tuple[Value, Value]) -> Value:
    low, high = (ir.splat(ir.from_f64(bound, x.type.element_type), x.type) for bound in bounds)
    return ir.clamp(x, low, high)


def _gelu_tanh(x: Value) -> Value:
    # Hendrycks and Gimpel, arXiv 1606.08415; 1 + tanh(y) = 2 sigmoid(2y)
    cubic = ir.mul(_const(x, 2 * 0.044715 * math.sqrt(2 / math.pi)), ir.mul(x, x))
    factor = ir.add(_const(x, 2 * math.sqrt(2 / math.pi)), cubic)
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
"""The code of each activation, by its name in `nkblas.base.epilogues.ACTIVATIONS`."""


def _const(like: Value, number: float) -> Value:
    return ir.const(like.type, number)


def _element_bits(x: Value) -> int:
    return int(x.type.element_type.width)


def _horner(x: Value, coefficients: Sequence[float]) -> Value:
    """The polynomial with the given coefficients, that of the highest power first."""
    value = _const(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = ir.fma(value, x, _const(x, coefficient))
    return value


def _exp_factors(x: Value) -> tuple[Value, Value]:
    """``p`` and ``q`` of ``exp(x) = p * (1 + q)``: p is a power of two, and q is near 0."""
    bits = _element_bits(x)
    mantissa = MANTISSA_BITS[bits]
    # Added to this number, x / log(2) is rounded to an integer n, in the last bits of the sum.
    shift = _const(x, 1.5 * 2.0**mantissa)
    shifted = ir.fma(x, _const(x, 1 / math.log(2)), shift)
    n = ir.add(shifted, ir.neg(shift))
    high, low = LOG2[bits]
    rest = ir.fma(n, _const(x, -high), x)
    rest = ir.fma(n, _const(x, -low), rest)
    series = [1 / math.factorial(i) for i in range(EXP_DEGREE[bits], 1, -1)]
    q = ir.fma(ir.mul(rest, rest), _horner(rest, series), rest)
    one = _const(x, 1.0)
    exponent = ir.shl(ir.bitcast_to_int(shifted), mantissa)
    power = ir.bitcast_to_float(ir.add(ir.bitcast_to_int(one), exponent), x.type.element_type)
    return power, q


def _exp(x: Value) -> Value:
    """exp(x), for x up to `EXP_LIMIT`; for x below minus that, a tiny number."""
    limit = EXP_LIMIT[_element_bits(x)]
    power, q = _exp_factors(ir.maximum(x, _const(x, -limit + 1)))
    return ir.fma(power, q, power)


def _sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)); 0 where that is tiny."""
    one, minus = _const(x, 1.0), ir.neg(x)
    limit = _const(x, EXP_LIMIT[_element_bits(x)])
    value = ir.div(one, ir.add(one, _exp(ir.minimum(minus, limit))))
    return ir.select(ir.olt(limit, minus), ir.const_zero(x.type), value)


def _tanh(x: Value) -> Value:
    """tanh(x) = sign(x) * e / (e + 2) with e = exp(2|x|) - 1, which is accurate for small x too."""
    magnitude = ir.fabs(x)
    twice = ir.minimum(ir.add(magnitude, magnitude), _const(x, 80.0))
    power, q = _exp_factors(twice)
    e = ir.fma(power, q, ir.add(power, _const(x, -1.0)))
    return ir.copysign(ir.div(e, ir.add(e, _const(x, 2.0))), x)


def _gelu(x: Value) -> Value:
    """Compute x times the normal distribution's function.

    That is 1/2 + u G(u**2), where u is x clamped to the range beyond which the function is 0 or 1
    within an element's precision.
    """
    end, degree = NORMAL_CDF[_element_bits(x)]
    above_low = ir.maximum(x, _const(x, -end))
    u = ir.minimum(above_low, _const(x, end))
    y = ir.fma(ir.mul(u, u), _const(x, 2 / end**2), _const(x, -1.0))
    normal = ir.fma(u, _horner(y, _normal_coefficients(end, degree)), _const(x, 0.5))
    return ir.mul(above_low, normal)


@cache
def _normal_coefficients(end: float, degree: int) -> list[float]:
    """The coefficients of G(u**2), as a polynomial in y = 2 (u / end)**2 - 1."""

    def function(y: float) -> float:
        u = end * math.sqrt((y + 1) / 2)
        return math.erf(u / math.sqrt(2)) / (2 * u)

    return _interpolate(function, degree)


def _interpolate(function: Callable[[float], float], degree: int) -> list[float]:
    """The polynomial that equals a function at the Chebyshev nodes from -1 to 1.

    Returns its coefficients, that of the highest power first. They are Newton's divided differences
    multiplied out, with enough digits that rounding does not matter.
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
