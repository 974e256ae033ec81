"""Arithmetic of complex numbers, whose real and imaginary parts alternate in the lanes of vectors.

A kernel accumulates the products with A's real parts and those with A's imaginary parts in separate
vectors ("parts"), and multiplies by the imaginary unit once, after the k loop. Real dtypes pass
through these functions unchanged: they have one part.
"""

from collections.abc import Sequence

from nkblas.base.dtypes import REAL_PART
from nkblas.codegen import ir
from nkblas.codegen.ir import Value

from .call_args import ScaleFactors


def is_nonzero(real: Value, imaginary: Value) -> Value:
    """Whether a complex number is not 0."""
    return ir.or_(ir.is_nonzero(real), ir.is_nonzero(imaginary))


def swap_parts(value: Value) -> Value:
    """A vector of complex numbers with real and imaginary parts exchanged."""
    return ir.shuffle(value, value, [lane ^ 1 for lane in range(value.type.shape[0])])


def multiply(value: Value, dtype: str, real: Value, imaginary: Value) -> Value:
    """A vector of `dtype` times a scalar; with a real scalar, infinities stay infinities."""
    scaled = ir.mul(ir.splat(real, value.type), value)
    if dtype not in REAL_PART:
        return scaled

    def add_imaginary() -> list[Value]:
        return [ir.fma(ir.splat(imaginary, value.type), _multiply_by_i(value), scaled)]

    return ir.if_then(ir.is_nonzero(imaginary), add_imaginary, [scaled])[0]


def _multiply_by_i(value: Value) -> Value:
    return ir.mul(swap_parts(value), ir.const_alternating(value.type, -1, 1))


def combine_parts(parts: Sequence[Value]) -> Value:
    """The vector of sums of an accumulator, given its parts."""
    if len(parts) == 1:
        return parts[0]
    real, imaginary = parts
    return ir.fma(swap_parts(imaginary), ir.const_alternating(real.type, -1, 1), real)


def combine_parts_with_signs(parts: Sequence[Value], epilogue: str, args: Value) -> Value:
    """As `combine_parts`, with the signs that conjugate operands have under epilogue "scale"."""
    if epilogue != "scale":
        return combine_parts(parts)
    real, imaginary = parts
    factors = ScaleFactors.read(args, real.type.element_type)
    signed = ir.mul(ir.splat(factors.a_imag_sign, imaginary.type), imaginary)
    return _apply_c_sign(combine_parts((real, signed)), factors)


def apply_c_sign(value: Value, dtype: str, factors: ScaleFactors | None) -> Value:
    """A vector of `dtype` with its imaginary parts multiplied by `c_imag_sign`."""
    return value if factors is None or dtype not in REAL_PART else _apply_c_sign(value, factors)


def _apply_c_sign(value: Value, factors: ScaleFactors) -> Value:
    sign, type_ = ir.splat(factors.c_imag_sign, value.type), value.type
    is_imaginary, is_real = ir.const_alternating(type_, 0, 1), ir.const_alternating(type_, 1, 0)
    return ir.mul(value, ir.fma(sign, is_imaginary, is_real))


def scale_element(element: Sequence[Value], factors: ScaleFactors) -> tuple[Value, ...]:
    """An element of A times alpha, for sums to which `apply_c_sign` is applied afterwards."""
    if len(element) == 1:
        return (ir.mul(factors.alpha, element[0]),)
    real, imaginary = element
    imaginary = ir.mul(factors.a_imag_sign, imaginary)
    alpha_imag = ir.mul(factors.c_imag_sign, factors.alpha_imag)
    scaled = ir.mul(factors.alpha, real), ir.mul(factors.alpha, imaginary)

    def add_imaginary() -> list[Value]:
        minus = ir.neg(alpha_imag)
        cross = ir.mul(minus, imaginary), ir.mul(alpha_imag, real)
        return list(map(ir.add, scaled, cross))

    return tuple(ir.if_then(ir.is_nonzero(alpha_imag), add_imaginary, scaled))
