"""Epilogues: what becomes of the sums on their way from the accumulators into C.

Their texts are those of `nkblas.epilogues`, whose kind is

- ``""``: ``C = sums``, or ``C += sums`` where `accumulate` is not 0.
- ``"scale"``: ``C = alpha * sums + beta * C``; where `accumulate` is not 0, C holds what other
  values of k gave, and it is ``C += alpha * sums``. Where C counts for nothing it is not read.

The rest of an epilogue comes once k is through. A C that can't hold sums (it is narrower) gets them
only then, rounded once; until then they are in a tile of their own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nkblas.dtypes import REAL
from nkblas.epilogues import Epilogue, parse
from nkblas.isa import ISA

from . import ir
from .activation import activated
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


class Block(NamedTuple):
    """What a kernel has to know of its block of k, and of what comes after the last one.

    It is what ``nk_scale`` has after its numbers.

    Attributes
    ----------
    partial : Value
        The address of a tile where sums are kept from one block of k to the next.
    first, last : Value
        Whether the block is the first, and the last one.
    bias, residual, ldr : Value
        Addresses for the tile's first element, and the distance of the residual's rows.
    bounds : (Value, Value)
        Of an activation.
    """

    partial: Value
    first: Value
    last: Value
    bias: Value
    residual: Value
    ldr: Value
    bounds: tuple[Value, Value]

    @classmethod
    def read(cls, scale: Value) -> "Block":
        def word(i: int, type_: Any) -> Value:
            return ir.load(type_, ir.address(scale, 6 + i, ir.i64()))

        first, last = (ir.nonzero(word(i, ir.i64())) for i in (1, 2))
        bounds = word(6, ir.element_type("float64")), word(7, ir.element_type("float64"))
        addresses = word(3, ir.ptr()), word(4, ir.ptr()), word(5, ir.i64())
        return cls(word(0, ir.ptr()), first, last, *addresses, bounds)


class Target(NamedTuple):
    """Where sums go.

    Attributes
    ----------
    places : list of rows of (address, mask or None)
        In C, a place for each vector.
    accumulate, scale : Value
        The kernel's arguments.
    column : Value or int
        How many columns the places are away from those that `scale` speaks of.
    """

    places: Sequence[Sequence[tuple[Value, Value | None]]]
    accumulate: Value
    scale: Value
    column: Value | int = 0

    @property
    def flat(self) -> list[tuple[Value, Value | None]]:
        """The places, row by row."""
        return [place for row in self.places for place in row]


def store(
    text: str, isa: ISA, dtypes: tuple[str, str], sums: Sequence[Value], target: Target
) -> None:
    """Emit the end of a kernel: vectors of sums go to places in C.

    Parameters
    ----------
    text : str
        The epilogue.
    isa : ISA
    dtypes : (str, str)
        Of the sums, of C.
    sums : sequence of Value
        Vectors, row by row; if complex, they are `product`'s already.
    target : Target
    """
    held, stored = dtypes
    epilogue = parse(text)
    types = [value.type for value in sums]

    def finish(sums: Sequence[Value], last: Value | None) -> list[Value]:
        values = _with_c(epilogue.kind, isa, dtypes, sums, target)
        if epilogue.is_fused:

            def fused() -> Sequence[Value]:
                return _fused(epilogue, isa, dtypes, values, target)

            values = fused() if last is None else ir.when(last, fused, values)
        for value, (place, mask) in zip(values, target.flat, strict=True):
            ir.store(convert(value, held, stored, isa), place, mask)
        return []

    if held == stored:
        finish(sums, Block.read(target.scale).last if epilogue.is_fused else None)
        return
    block = Block.read(target.scale)
    size, element = sums[0].type.shape[0], sums[0].type.element_type
    kept = target.column  # before these sums: whole tiles, of so many columns
    if not isinstance(kept, int):
        kept = ir.mul(kept, ir.const(len(target.places)))
    start = ir.address(block.partial, kept, element)
    tile = [ir.address(start, i * size, element) for i in range(len(sums))]

    def added() -> list[Value]:
        before = zip(sums, tile, strict=True)
        return [ir.plus(ir.load(value.type, place), value) for value, place in before]

    total = ir.either(block.first, lambda: sums, added, types)

    def keep() -> list[Value]:
        for value, place in zip(total, tile, strict=True):
            ir.store(value, place)
        return []

    ir.either(block.last, lambda: finish(total, None), keep)


def _with_c(
    kind: str, isa: ISA, dtypes: tuple[str, str], sums: Sequence[Value], target: Target
) -> Sequence[Value]:
    """Sums that are scaled and added to C, in their own type."""
    held, stored = dtypes
    whether, factor = ir.nonzero(target.accumulate), None
    if kind == "scale":
        element = sums[0].type.element_type
        found = Scale.read(target.scale, element)
        sums = [times(value, held, found.alpha, found.alpha_i) for value in sums]
        one, zero = ir.one(element), ir.zero(element)
        factor = (
            ir.select(whether, one, found.beta),
            ir.select(whether, zero, found.beta_i),
        )
        whether = is_not_zero(*factor)

    def with_c() -> list[Value]:
        found = []
        for value, (place, mask) in zip(sums, target.flat, strict=True):
            c = _read(value, dtypes, place, mask, isa)
            if factor is None:
                found.append(ir.plus(c, value))
            elif held in REAL:
                found.append(ir.plus(times(c, held, *factor), value))
            else:
                found.append(ir.fma(ir.splat(factor[0], value.type), c, value))
        return found

    return ir.when(whether, with_c, sums)


def _read(
    value: Value, dtypes: tuple[str, str], place: Value, mask: Value | None, isa: ISA
) -> Value:
    """A vector of C's type at a place, as `value` is."""
    held, stored = dtypes
    element = ir.element_type(REAL.get(stored, stored))
    return convert(ir.load(ir.like(value, element), place, mask), stored, held, isa)


def _fused(
    epilogue: Epilogue, isa: ISA, dtypes: tuple[str, str], values: Sequence[Value], target: Target
) -> list[Value]:
    """Bias, activation and residual, of values in the type of the sums."""
    vector = values[0].type
    lanes, element = vector.shape[0], vector.element_type
    block, width = Block.read(target.scale), len(target.places[0])
    columns = [ir.add(ir.const(j * lanes), _value(target.column)) for j in range(width)]
    biases: list[Value] = []
    if epilogue.bias == "columns":
        row = [ir.load(vector, ir.address(block.bias, column, element)) for column in columns]
        biases = row * len(target.places)
    elif epilogue.bias == "rows":
        for i in range(len(target.places)):
            one = ir.load(element, ir.address(block.bias, i, element))
            biases += [ir.splat(one, vector)] * width
    found = []
    for i, (value, (_, mask)) in enumerate(zip(values, target.flat, strict=True)):
        if biases:
            value = ir.plus(value, biases[i])
        if epilogue.activation:
            value = activated(epilogue.activation, value, block.bounds)
        if epilogue.residual:
            start = ir.mul(block.ldr, ir.const(i // width))
            place = ir.at(block.residual, ir.element_type(dtypes[1]), start, columns[i % width])
            value = ir.plus(value, _read(value, dtypes, place, mask, isa))
        found.append(value)
    return found


def _value(index: Value | int) -> Value:
    return ir.const(index) if isinstance(index, int) else index


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
