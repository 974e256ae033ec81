"""Epilogues: what becomes of the sums on their way from the accumulators into C.

- ``""``: ``C = sums``, or ``C += sums`` where `accumulate` is not 0.
- ``"scale"``: ``C = alpha * sums + beta * C``; where `accumulate` is not 0, C holds what other
  values of k gave, and it is ``C += alpha * sums``. Where C counts for nothing it is not read.

A C that can't hold sums (it is narrower) gets them once k is through, rounded once; until then they
are in a tile of their own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nkblas.dtypes import REAL
from nkblas.isa import ISA

from . import ir
from .convert import convert
from .ir import Value


class Scale(NamedTuple):
    """The parameters of ``"scale"``, scalars of the sums' type; parts, of a complex one.

    Attributes
    ----------
    alpha, beta : Value
    alpha_i, beta_i : Value
        Imaginary parts.
    turn, sign : Value
        1 or -1: what the products with A's imaginary parts, and then the imaginary parts of all
        sums, are multiplied by. That makes for conjugate operands.
    """

    alpha: Value
    beta: Value
    alpha_i: Value
    beta_i: Value
    turn: Value
    sign: Value

    @classmethod
    def read(cls, scale: Value, element: Any) -> "Scale":
        """From an ``nk_scale``, which holds float64."""
        double = ir.element_type("float64")
        return cls(
            *(ir.convert(ir.load(double, ir.address(scale, i, double)), element) for i in range(6))
        )


class Partial(NamedTuple):
    """Where sums are kept from one block of k to the next: after the numbers of ``nk_scale``.

    Attributes
    ----------
    tile : Value
        Their address.
    first, last : Value
        Whether the block is the first, and the last one.
    """

    tile: Value
    first: Value
    last: Value

    @classmethod
    def read(cls, scale: Value) -> "Partial":
        def word(i: int, type_: Any) -> Value:
            return ir.load(type_, ir.address(scale, 6 + i, ir.i64()))

        flags = (ir.nonzero(word(i, ir.i64())) for i in (1, 2))
        return cls(word(0, ir.ptr()), *flags)


def store(
    epilogue: str,
    isa: ISA,
    dtypes: tuple[str, str],
    sums: Sequence[Value],
    places: Sequence[tuple[Value, Value | None]],
    accumulate: Value,
    scale: Value,
    offset: Value | int = 0,
) -> None:
    """Emit the end of a kernel: vectors of sums go to places in C.

    Parameters
    ----------
    epilogue : str
    isa : ISA
    dtypes : (str, str)
        Of the sums, of C.
    sums : sequence of Value
        Vectors; if complex, they are `product`'s already.
    places : sequence of (address, mask or None)
    accumulate, scale : Value
        The kernel's arguments.
    offset : Value or int
        Sums that are kept before these.
    """
    held, stored = dtypes

    def finish(sums: Sequence[Value]) -> list[Value]:
        values = _with_c(epilogue, isa, dtypes, sums, places, accumulate, scale)
        for value, (place, mask) in zip(values, places, strict=True):
            ir.store(convert(value, held, stored, isa), place, mask)
        return []

    if held == stored:
        finish(sums)
        return
    partial = Partial.read(scale)
    size, element = sums[0].type.shape[0], sums[0].type.element_type
    start = ir.address(partial.tile, offset, element)
    tile = [ir.address(start, i * size, element) for i in range(len(sums))]

    def added() -> list[Value]:
        before = zip(sums, tile, strict=True)
        return [ir.plus(ir.load(value.type, place), value) for value, place in before]

    total = ir.either(partial.first, lambda: sums, added, [value.type for value in sums])

    def keep() -> list[Value]:
        for value, place in zip(total, tile, strict=True):
            ir.store(value, place)
        return []

    ir.either(partial.last, lambda: finish(total), keep)


def _with_c(
    epilogue: str,
    isa: ISA,
    dtypes: tuple[str, str],
    sums: Sequence[Value],
    places: Sequence[tuple[Value, Value | None]],
    accumulate: Value,
    scale: Value,
) -> Sequence[Value]:
    """What goes to C, in the type of the sums."""
    held, stored = dtypes
    whether, factor = ir.nonzero(accumulate), None
    if epilogue == "scale":
        element = sums[0].type.element_type
        found = Scale.read(scale, element)
        sums = [times(value, held, found.alpha, found.alpha_i) for value in sums]
        one, zero = ir.one(element), ir.zero(element)
        factor = (
            ir.select(whether, one, found.beta),
            ir.select(whether, zero, found.beta_i),
        )
        whether = is_not_zero(*factor)

    def read(value: Value, place: Value, mask: Value | None) -> Value:
        element = ir.element_type(REAL.get(stored, stored))
        c = ir.load(ir.like(value, element), place, mask)
        return convert(c, stored, held, isa)

    def with_c() -> list[Value]:
        found = []
        for value, (place, mask) in zip(sums, places, strict=True):
            c = read(value, place, mask)
            if factor is None:
                found.append(ir.plus(c, value))
            elif held in REAL:
                found.append(ir.plus(times(c, held, *factor), value))
            else:
                found.append(ir.fma(ir.splat(factor[0], value.type), c, value))
        return found

    return ir.when(whether, with_c, sums)


def is_not_zero(real: Value, imaginary: Value) -> Value:
    """Whether a number is not 0."""
    return ir.any_of(ir.float_nonzero(real), ir.float_nonzero(imaginary))


def times(value: Value, dtype: str, real: Value, imaginary: Value) -> Value:
    """A vector of a dtype times a number. If that is real, infinities stay what they are."""
    scaled = ir.times(ir.splat(real, value.type), value)
    if dtype not in REAL:
        return scaled

    def turned() -> list[Value]:
        return [ir.fma(ir.splat(imaginary, value.type), times_i(value), scaled)]

    return ir.when(ir.float_nonzero(imaginary), turned, [scaled])[0]


def combined(parts: Sequence[Value]) -> Value:
    """The sums made of those with each part of A's elements."""
    if len(parts) == 1:
        return parts[0]
    real, imaginary = parts
    return ir.fma(swapped(imaginary), ir.alternating(real.type, -1, 1), real)


def product(parts: Sequence[Value], epilogue: str, scale: Value) -> Value:
    """The same, with what an epilogue says of conjugates."""
    if epilogue != "scale":
        return combined(parts)
    real, imaginary = parts
    found = Scale.read(scale, real.type.element_type)
    turned = ir.times(ir.splat(found.turn, imaginary.type), imaginary)
    return _with_sign(combined((real, turned)), found)


def with_sign(value: Value, dtype: str, scale: Scale | None) -> Value:
    """A vector of a dtype whose imaginary parts have another sign, if `scale` says so."""
    return value if scale is None or dtype not in REAL else _with_sign(value, scale)


def _with_sign(value: Value, scale: Scale) -> Value:
    sign, type_ = ir.splat(scale.sign, value.type), value.type
    return ir.times(value, ir.fma(sign, ir.alternating(type_, 0, 1), ir.alternating(type_, 1, 0)))


def times_i(value: Value) -> Value:
    """A vector of complex numbers times the imaginary unit."""
    return ir.times(swapped(value), ir.alternating(value.type, -1, 1))


def swapped(value: Value) -> Value:
    """Complex numbers with their parts in the other order."""
    return ir.shuffle(value, value, [lane ^ 1 for lane in range(value.type.shape[0])])


def scaled_element(element: Sequence[Value], scale: Scale) -> tuple[Value, ...]:
    """An element of A, for sums that need only `with_sign` to be scaled."""
    if len(element) == 1:
        return (ir.times(scale.alpha, element[0]),)
    real, imaginary = element
    imaginary = ir.times(scale.turn, imaginary)
    alpha_i = ir.times(scale.sign, scale.alpha_i)
    whole = ir.times(scale.alpha, real), ir.times(scale.alpha, imaginary)

    def turned() -> list[Value]:
        minus = ir.negative(alpha_i)
        cross = ir.times(minus, imaginary), ir.times(alpha_i, real)
        return list(map(ir.plus, whole, cross))

    return tuple(ir.when(ir.float_nonzero(alpha_i), turned, whole))
