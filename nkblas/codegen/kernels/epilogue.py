"""Epilogues: what becomes of the sums on their way from the accumulators into C.

Their texts are those of `nkblas.base.epilogues`, whose kind is

- ``""``: ``C = sums``, or ``C += sums`` where `accumulate` is not 0.
- ``"scale"``: ``C = alpha * sums + beta * C``; where `accumulate` is not 0, C holds what other
  values of k gave, and it is ``C += alpha * sums``. Where C counts for nothing it is not read.

The rest of an epilogue comes once k is through. A C that can't hold sums (it is narrower) gets them
only then, rounded once; until then they are in a tile of their own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nkblas._engine import ffi
from nkblas.base.dtypes import DTYPES, REAL_PART
from nkblas.base.epilogues import Epilogue, parse
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value

from .activation import ACTIVATION_CODE
from .convert import convert


class Scale(NamedTuple):
    """The parameters of ``"scale"``, scalars of the sums' type; parts, of a complex one.

    Attributes
    ----------
    alpha, beta : Value
    alpha_imag, beta_imag : Value
        Imaginary parts.
    a_imag_sign, c_imag_sign : Value
        1 or -1: what products with A's imaginary parts, and then the imaginary parts of all sums,
        are multiplied by. That makes conjugate operands.
    """

    alpha: Value
    beta: Value
    alpha_imag: Value
    beta_imag: Value
    a_imag_sign: Value
    c_imag_sign: Value

    @classmethod
    def read(cls, scale: Value, element: Any) -> "Scale":
        """From an ``nk_call_args``, which holds float64."""
        double = ir.element_type("float64")
        return cls(*(ir.from_f64(load_field(scale, x, double), element) for x in cls._fields))


def load_field(args: Value, name: str, type_: Any) -> Value:
    """A field of the kernel's ``nk_call_args`` (engine/nkblas.h)."""
    offset = ffi.offsetof("nk_call_args", name)
    assert offset % 8 == 0, name
    return ir.load(type_, ir.gep(args, ir.i64(), offset // 8))


class Block(NamedTuple):
    """What a kernel has to know of its block of k, and of what comes after the last one.

    It is what ``nk_call_args`` has after its numbers.

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
    scales, zero : Value
        The address of factors, for the tile's first column, and what is added in the end, float64.
    """

    partial: Value
    first: Value
    last: Value
    bias: Value
    residual: Value
    ldr: Value
    bounds: tuple[Value, Value]
    scales: Value
    zero: Value

    @classmethod
    def read(cls, scale: Value) -> "Block":
        double = ir.element_type("float64")
        return cls(
            load_field(scale, "partial_sums", ir.ptr()),
            ir.is_nonzero(load_field(scale, "is_first_k_block", ir.i64())),
            ir.is_nonzero(load_field(scale, "is_last_k_block", ir.i64())),
            load_field(scale, "bias", ir.ptr()),
            load_field(scale, "residual", ir.ptr()),
            load_field(scale, "ldr", ir.i64()),
            (load_field(scale, "clip_low", double), load_field(scale, "clip_high", double)),
            load_field(scale, "scales", ir.ptr()),
            load_field(scale, "zero_point", double),
        )


class Blocks(NamedTuple):
    """The operands of a sum of products, as ``nk_call_args`` has them.

    Attributes
    ----------
    a, b : Value
        Addresses of arrays of addresses.
    count : Value
    """

    a: Value
    b: Value
    count: Value

    @classmethod
    def read(cls, scale: Value) -> "Blocks":
        return cls(
            load_field(scale, "a_blocks", ir.ptr()),
            load_field(scale, "b_blocks", ir.ptr()),
            load_field(scale, "block_count", ir.i64()),
        )


class Target(NamedTuple):
    """Where sums go: a tile of C, vector by vector.

    Attributes
    ----------
    c, ldc : Value
        Its first element, and the distance of its rows.
    rows : int
    starts : sequence of int
        The columns where a row's vectors start.
    masks : sequence of Value or None
        For each vector of a row.
    accumulate, scale : Value
        The kernel's arguments.
    down, right : Value or int
        How many rows and columns the tile is away from what `scale` speaks of.
    kept : Value or int
        How many sums are kept before the tile's from one block of k to the next.
    room : Value or None
        Memory for a tile of sums, which may be overwritten.
    """

    c: Value
    ldc: Value
    rows: int
    starts: Sequence[int]
    masks: Sequence[Value | None]
    accumulate: Value
    scale: Value
    down: Value | int = 0
    right: Value | int = 0
    kept: Value | int = 0
    room: Value | None = None

    def row(self, i: Value | int, dtype: str) -> list[tuple[Value, Value | None]]:
        """The places of a row's vectors, and their masks."""
        element = ir.element_type(dtype)
        distance = ir.mul(self.ldc, _value(i))
        return [
            (ir.gep(self.c, element, distance, start), mask)
            for start, mask in zip(self.starts, self.masks, strict=True)
        ]

    def places(self, dtype: str) -> list[tuple[Value, Value | None]]:
        """The same of all rows."""
        return [place for i in range(self.rows) for place in self.row(i, dtype)]


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
    finished = "float32" if epilogue.scales else held
    block = Block.read(target.scale) if epilogue.is_fused or held != stored else None

    def put(values: Sequence[Value], places: Sequence[tuple[Value, Value | None]]) -> list[Value]:
        for value, (place, mask) in zip(values, places, strict=True):
            ir.store(convert(value, finished, stored, isa), place, mask)
        return []

    def fuse(values: Sequence[Value]) -> list[Value]:
        assert block is not None
        tail = _Tail(epilogue, isa, dtypes, target, block, values[0].type)
        width = len(target.starts)
        if target.room is None:
            for i in range(target.rows):
                row = values[i * width : (i + 1) * width]
                put(tail.of_row(row, i), target.row(i, stored))
            return []
        size, element = tail.lanes, tail.vector.element_type
        for i, value in enumerate(values):
            ir.store(value, ir.gep(target.room, element, i * size))

        def of_row(i: Value, _: list[Value]) -> list[Value]:
            start = ir.gep(target.room, element, ir.mul(i, ir.const_i64(width * size)))
            kept = [ir.load(tail.vector, ir.gep(start, element, j * size)) for j in range(width)]
            return put(tail.of_row(kept, i), target.row(i, stored))

        ir.for_loop(ir.const_i64(target.rows), [], of_row)
        return []

    def finish(sums: Sequence[Value], last: Value | None) -> list[Value]:
        values = sums if epilogue.scales else _with_c(epilogue.kind, isa, dtypes, sums, target)
        if not epilogue.is_fused:
            return put(values, target.places(stored))
        if last is None:
            return fuse(values)
        return ir.if_else(last, lambda: fuse(values), lambda: put(values, target.places(stored)))

    if held == stored:
        finish(sums, block.last if block else None)
        return
    assert block is not None
    size, element = sums[0].type.shape[0], sums[0].type.element_type
    start = ir.gep(block.partial, element, target.kept)
    tile = [ir.gep(start, element, i * size) for i in range(len(sums))]

    def added() -> list[Value]:
        before = zip(sums, tile, strict=True)
        return [ir.add(ir.load(value.type, place), value) for value, place in before]

    total = ir.if_else(block.first, lambda: sums, added, [value.type for value in sums])

    def keep() -> list[Value]:
        for value, place in zip(total, tile, strict=True):
            ir.store(value, place)
        return []

    ir.if_else(block.last, lambda: finish(total, None), keep)


def _with_c(
    kind: str, isa: ISA, dtypes: tuple[str, str], sums: Sequence[Value], target: Target
) -> Sequence[Value]:
    """Sums that are scaled and added to C, in their own type."""
    held = dtypes[0]
    whether, factor = ir.is_nonzero(target.accumulate), None
    if kind == "scale":
        element = sums[0].type.element_type
        found = Scale.read(target.scale, element)
        sums = [times(value, held, found.alpha, found.alpha_imag) for value in sums]
        one, zero = ir.const_one(element), ir.const_zero(element)
        factor = (
            ir.select(whether, one, found.beta),
            ir.select(whether, zero, found.beta_imag),
        )
        whether = is_not_zero(*factor)

    def with_c() -> list[Value]:
        found = []
        for value, (place, mask) in zip(sums, target.places(dtypes[1]), strict=True):
            c = _read(value, dtypes, place, mask, isa)
            if factor is None:
                found.append(ir.add(c, value))
            elif held in REAL_PART:
                found.append(ir.add(times(c, held, *factor), value))
            else:
                found.append(ir.fma(ir.splat(factor[0], value.type), c, value))
        return found

    return ir.if_then(whether, with_c, sums)


def _read(
    value: Value, dtypes: tuple[str, str], place: Value, mask: Value | None, isa: ISA
) -> Value:
    """A vector of C's type at a place, as `value` is."""
    held, stored = dtypes
    element = ir.element_type(REAL_PART.get(stored, stored))
    return convert(ir.load(ir.type_like(value, element), place, mask), stored, held, isa)


class _Tail:
    """Bias, activation and residual, of values in the type of the sums."""

    def __init__(
        self,
        epilogue: Epilogue,
        isa: ISA,
        dtypes: tuple[str, str],
        target: Target,
        block: Block,
        vector: Any,
    ) -> None:
        self.epilogue, self.isa, self.dtypes = epilogue, isa, dtypes
        self.masks, self.block, self.down = target.masks, block, _value(target.down)
        self.vector, self.lanes = vector, vector.shape[0]
        self.held = dtypes[0]
        self.scales: list[Value] = []
        self.columns = [
            ir.add(ir.const_i64(start), _value(target.right)) for start in target.starts
        ]
        self.biases: list[Value] = []
        if epilogue.scales:  # from here on it is floats
            self.held, element = "float32", ir.element_type("float32")
            vector = self.wide = ir.vector_type(self.lanes, element)
            places = [ir.gep(block.scales, element, column) for column in self.columns]
            self.scales = [ir.load(vector, place) for place in places]
        else:
            self.wide = vector
        if epilogue.bias == "columns":
            element = vector.element_type
            places = [ir.gep(block.bias, element, column) for column in self.columns]
            self.biases = [ir.load(vector, place) for place in places]

    def of_row(self, values: Sequence[Value], i: Value | int) -> list[Value]:
        """What becomes of the vectors of row `i`."""
        biases, element = self.biases, self.wide.element_type
        if self.scales:
            floats = [ir.sitofp(value, element) for value in values]
            values = list(map(ir.mul, floats, self.scales))
        i = ir.add(self.down, _value(i))
        if self.epilogue.bias == "rows":
            one = ir.load(element, ir.gep(self.block.bias, element, i))
            biases = [ir.splat(one, self.wide)] * len(values)
        if biases:
            values = list(map(ir.add, values, biases))
        if self.epilogue.activation:
            bounds = self.block.bounds
            code = ACTIVATION_CODE[self.epilogue.activation]
            values = [code.emit(x, bounds) for x in values]
        if self.epilogue.residual:
            start = ir.mul(self.block.ldr, i)
            stored = ir.element_type(self.dtypes[1])
            places = [ir.gep(self.block.residual, stored, start, x) for x in self.columns]
            residual = [
                _read(value, (self.held, self.dtypes[1]), place, mask, self.isa)
                for value, place, mask in zip(values, places, self.masks, strict=True)
            ]
            values = list(map(ir.add, values, residual))
        if DTYPES[self.dtypes[1]].saturates:
            zero = ir.splat(ir.from_f64(self.block.zero, element), self.wide)
            values = [ir.add(ir.roundeven(_far(value)), zero) for value in values]
        return list(values)


def _far(value: Value) -> Value:
    """What is farther away from 0 than any byte, nearer."""
    most = ir.const(value.type, 1e6)
    return ir.clamp(value, ir.neg(most), most)


def _value(index: Value | int) -> Value:
    return ir.const_i64(index) if isinstance(index, int) else index


def is_not_zero(real: Value, imaginary: Value) -> Value:
    """Whether a number is not 0."""
    return ir.or_(ir.is_nonzero(real), ir.is_nonzero(imaginary))


def times(value: Value, dtype: str, real: Value, imaginary: Value) -> Value:
    """A vector of a dtype times a number. If that is real, infinities stay what they are."""
    scaled = ir.mul(ir.splat(real, value.type), value)
    if dtype not in REAL_PART:
        return scaled

    def turned() -> list[Value]:
        return [ir.fma(ir.splat(imaginary, value.type), times_i(value), scaled)]

    return ir.if_then(ir.is_nonzero(imaginary), turned, [scaled])[0]


def combined(parts: Sequence[Value]) -> Value:
    """The sums made of those with each part of A's elements."""
    if len(parts) == 1:
        return parts[0]
    real, imaginary = parts
    return ir.fma(swapped(imaginary), ir.const_alternating(real.type, -1, 1), real)


def product(parts: Sequence[Value], epilogue: str, scale: Value) -> Value:
    """The same, with what an epilogue says of conjugates."""
    if epilogue != "scale":
        return combined(parts)
    real, imaginary = parts
    found = Scale.read(scale, real.type.element_type)
    turned = ir.mul(ir.splat(found.a_imag_sign, imaginary.type), imaginary)
    return _with_sign(combined((real, turned)), found)


def with_sign(value: Value, dtype: str, scale: Scale | None) -> Value:
    """A vector of a dtype whose imaginary parts have another sign, if `scale` says so."""
    return value if scale is None or dtype not in REAL_PART else _with_sign(value, scale)


def _with_sign(value: Value, scale: Scale) -> Value:
    sign, type_ = ir.splat(scale.c_imag_sign, value.type), value.type
    return ir.mul(
        value, ir.fma(sign, ir.const_alternating(type_, 0, 1), ir.const_alternating(type_, 1, 0))
    )


def times_i(value: Value) -> Value:
    """A vector of complex numbers times the imaginary unit."""
    return ir.mul(swapped(value), ir.const_alternating(value.type, -1, 1))


def swapped(value: Value) -> Value:
    """Complex numbers with their parts in the other order."""
    return ir.shuffle(value, value, [lane ^ 1 for lane in range(value.type.shape[0])])


def scaled_element(element: Sequence[Value], scale: Scale) -> tuple[Value, ...]:
    """An element of A, for sums that need only `with_sign` to be scaled."""
    if len(element) == 1:
        return (ir.mul(scale.alpha, element[0]),)
    real, imaginary = element
    imaginary = ir.mul(scale.a_imag_sign, imaginary)
    alpha_i = ir.mul(scale.c_imag_sign, scale.alpha_imag)
    whole = ir.mul(scale.alpha, real), ir.mul(scale.alpha, imaginary)

    def turned() -> list[Value]:
        minus = ir.neg(alpha_i)
        cross = ir.mul(minus, imaginary), ir.mul(alpha_i, real)
        return list(map(ir.add, whole, cross))

    return tuple(ir.if_then(ir.is_nonzero(alpha_i), turned, whole))
