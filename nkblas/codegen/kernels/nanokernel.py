"""Nanokernels: the smallest group of instructions that does one k-step of a register tile.

One class for each instruction family. A microkernel is composed of them (see `compose`) and knows
nothing of the instructions inside. The scheme is that of *Library Liberation* (arXiv 2511.13764).
"""

from collections.abc import Callable, Sequence
from typing import Any

from nkblas.base.dtypes import ITEMSIZE, REAL_PART
from nkblas.base.families import Family
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value

from . import epilogue
from .convert import convert, splat

Accumulator = tuple[Value, ...]

SIGNS = -0x7F7F7F80
"""The highest bit of each byte of a word."""


class Nanokernel:
    """One instruction family, on operands of some dtypes.

    Parameters
    ----------
    isa : ISA
    family : Family
    a, b : str
        Dtypes of the operands as they are read: those of the family's panels, or, in place, what
        it converts.

    Attributes
    ----------
    turns : int
        How often a step goes through the tile.
    """

    turns = 1

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        self.isa, self.family, self.a, self.b = isa, family, a, b
        self.a_registers = family.a_registers
        self.lanes = family.lanes(isa)
        part = ir.element_type(REAL_PART.get(family.accumulator, family.accumulator))
        parts = 2 if family.accumulator in REAL_PART else 1
        self.vector_type = ir.vector_type(parts * self.lanes, part)

    def row_groups(self, rows: int) -> list[tuple[int, int]]:
        """The rows of C that go together: the first of them, and how many."""
        return [(i, 1) for i in range(rows)]

    def zero(self, rows: int) -> Accumulator:
        """An empty accumulator, of some rows that go together."""
        return (ir.const_zero(self.vector_type),)

    def mask(self, live: Value) -> Value:
        """A mask of the first so many columns of a vector."""
        return ir.create_mask(self.lanes, live)

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        """A step's values of A, of some rows that go together; `apart` is their distance."""
        raise NotImplementedError

    def load_b(self, source: Value, mask: Value | None, apart: Value, turn: int) -> Value:
        """A step's values of B for one vector of C; `mask` always has its first lane.

        `apart` is the distance from one k to the next.
        """
        raise NotImplementedError

    def multiply_add(self, a: Value, b: Value, accumulator: Accumulator) -> Accumulator:
        raise NotImplementedError

    def sums(
        self, tile: Sequence[Sequence[Accumulator]], rows: int, kind: str, scale: Value
    ) -> list[Value]:
        """The vectors of sums that accumulators come to, row by row.

        `kind` and `scale` are the epilogue's.
        """
        return [accumulator[0] for row in tile for accumulator in row]


def load_masked(vector_type: Any, source: Value, mask: Value | None, parts: int = 1) -> Value:
    """A vector, or its first elements, of so many lanes each.

    Lanes beyond the edge repeat the first element: with zeros, infinity in the other operand would
    raise the invalid flag for a product that nobody asked for.
    """
    if mask is None:
        return ir.load(vector_type, source)
    first = ir.load(ir.vector_type(parts, vector_type.element_type), source)
    lanes = vector_type.shape[0]
    repeated = ir.shuffle(first, first, [lane % parts for lane in range(lanes)])
    return ir.load(vector_type, source, mask, passthru=repeated)


class Plain:
    """Vectors of what is summed up in the same type: all that functions without tiles need.

    An element of A is as many numbers as it has parts, and each of them has an accumulator of its
    own: the imaginary unit comes in once, when k is through. Real numbers have one part.

    Parameters
    ----------
    dtype : str
    lanes : int
        Elements in a vector.
    """

    a_registers = 1

    def __init__(self, dtype: str, lanes: int) -> None:
        self.parts = 2 if dtype in REAL_PART else 1
        self.lanes = lanes
        part = ir.element_type(REAL_PART.get(dtype, dtype))
        self.vector_type = ir.vector_type(self.parts * lanes, part)

    def mask(self, live: Value) -> Value:
        """A mask of the first so many elements of a vector."""
        return ir.create_mask(self.parts * self.lanes, ir.mul(live, ir.const_i64(self.parts)))

    def zero(self) -> Accumulator:
        return tuple(ir.const_zero(self.vector_type) for _ in range(self.parts))

    def element(self, source: Value) -> tuple[Value, ...]:
        """The parts of an element of A."""
        part = self.vector_type.element_type
        return tuple(ir.load(part, ir.gep(source, part, i)) for i in range(self.parts))

    def splat(self, element: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(ir.splat(part, self.vector_type) for part in element)

    def load_b(self, source: Value, mask: Value | None) -> tuple[Value, ...]:
        return (load_masked(self.vector_type, source, mask, self.parts),) * self.parts

    def multiply_add(
        self, a: Sequence[Value], b: Sequence[Value], accumulator: Accumulator
    ) -> Accumulator:
        return tuple(map(ir.fma, a, b, accumulator))

    def total(self, accumulator: Accumulator) -> Value:
        """What an accumulator comes to."""
        return epilogue.combined(accumulator)


class FMA(Nanokernel):
    """Broadcast an element of A, load a vector of B, multiply and add.

    float32, float64 and integers of 2, 4 and 8 bytes; what is narrower is converted as it is read.
    With AVX-512-FP16, one instruction loads, broadcasts and converts a float16.
    """

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        element = ir.load(ir.element_type(self.a), source)
        return splat(element, self.lanes, self.a, self.family.accumulator, self.isa)

    def load_b(self, source: Value, mask: Value | None, apart: Value, turn: int) -> Value:
        vector = load_masked(ir.vector_type(self.lanes, ir.element_type(self.b)), source, mask)
        return convert(vector, self.b, self.family.accumulator, self.isa)

    def multiply_add(self, a: Value, b: Value, accumulator: Accumulator) -> Accumulator:
        return (ir.fma(a, b, accumulator[0]),)


class Words(Nanokernel):
    """int64 of 32-bit halves: the lower ones' product, and what goes into the upper half.

    ``vpmuludq`` for the one and ``vpmulld`` for the other, which has sums of its own: both products
    of a lower and an upper half. They come in once, when k is through.
    """

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        super().__init__(isa, family, a, b)
        self.halves = ir.vector_type(2 * self.lanes, ir.int_type(32))
        self.low = ir.const(self.vector_type, 2**32 - 1)

    def zero(self, rows: int) -> Accumulator:
        return ir.const_zero(self.vector_type), ir.const_zero(self.halves)

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        return ir.splat(ir.load(self.vector_type.element_type, source), self.vector_type)

    def load_b(self, source: Value, mask: Value | None, apart: Value, turn: int) -> Value:
        b = load_masked(self.vector_type, source, mask)
        halves = ir.bitcast(self.halves, b)
        return b, ir.shuffle(halves, halves, [lane ^ 1 for lane in range(2 * self.lanes)])

    def multiply_add(self, a: Value, b: Value, accumulator: Accumulator) -> Accumulator:
        whole, turned = b
        sums, upper = accumulator
        product = ir.mul(ir.and_(a, self.low), ir.and_(whole, self.low))
        return ir.add(product, sums), ir.fma(ir.bitcast(self.halves, a), turned, upper)

    def sums(
        self, tile: Sequence[Sequence[Accumulator]], rows: int, kind: str, scale: Value
    ) -> list[Value]:
        def whole(sums: Value, upper: Value) -> Value:
            both = ir.bitcast(self.vector_type, upper)
            first, second = ir.shl(both, 32), ir.xor(both, ir.and_(both, self.low))
            return ir.add(sums, ir.add(first, second))

        return [whole(*accumulator) for row in tile for accumulator in row]


class ComplexFMA(Nanokernel):
    """The parts of an element of A, each times a vector of B as it lies in memory.

    With A's real and imaginary parts in sums of their own, ``sum(re(a) * b)`` and
    ``sum(im(a) * b)``, it takes no more instructions than real numbers do.
    """

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        super().__init__(isa, family, a, b)
        self.vectors = Plain(family.accumulator, self.lanes)

    def zero(self, rows: int) -> Accumulator:
        return self.vectors.zero()

    def mask(self, live: Value) -> Value:
        return self.vectors.mask(live)

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        return self.vectors.splat(self.vectors.element(source))

    def load_b(self, source: Value, mask: Value | None, apart: Value, turn: int) -> Value:
        return load_masked(self.vector_type, source, mask, self.vectors.parts)

    def multiply_add(self, a: Value, b: Value, accumulator: Accumulator) -> Accumulator:
        return self.vectors.multiply_add(a, (b, b), accumulator)

    def sums(
        self, tile: Sequence[Sequence[Accumulator]], rows: int, kind: str, scale: Value
    ) -> list[Value]:
        return [epilogue.product(accumulator, kind, scale) for row in tile for accumulator in row]


class Dots(Nanokernel):
    """Lanes that hold a few values of k each: a lane's products are added up into one sum."""

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        super().__init__(isa, family, a, b)
        bits = 8 * ITEMSIZE[family.accumulator]
        self.word = ir.vector_type(self.lanes, ir.int_type(bits))

    def operand(self, words: Value, dtype: str) -> Value:
        """A vector of words as the instruction takes it."""
        element = ir.bf16() if dtype == "bfloat16" else ir.element_type(dtype)
        type_ = ir.vector_type(self.lanes * self.family.k_step, element)
        return ir.bitcast(type_, words)

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        word = ir.load(self.word.element_type, source)
        return self.operand(ir.splat(word, self.word), self.a)

    def load_b(self, source: Value, mask: Value | None, apart: Value, turn: int) -> Value:
        return self.operand(ir.load(self.word, source), self.b)

    def multiply_add(self, a: Value, b: Value, accumulator: Accumulator) -> Accumulator:
        return (self.dot(a, b, accumulator[0]),)

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        raise NotImplementedError

    def intrinsic(self, name: str, *operands: Value) -> Value:
        """Call the one of this vector width."""
        result = operands[0].type
        return ir.call_intrinsic(name.format(self.isa.vector_bits), result, *operands)


class MultiplyAddPairs(Dots):
    """``vpmaddwd`` and ``vpaddd``: pairs of 16-bit integers. Every instruction set has it."""

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        name = {
            128: "llvm.x86.sse2.pmadd.wd",
            256: "llvm.x86.avx2.pmadd.wd",
            512: "llvm.x86.avx512.pmaddw.d.512",
        }[self.isa.vector_bits]
        return ir.add(ir.call_intrinsic(name, sums.type, a, b), sums)


class BFloat16Dots(Dots):
    """``vdpbf16ps``: pairs of bfloat16. Subnormal numbers count as zero."""

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        return self.intrinsic("llvm.x86.avx512bf16.dpbf16ps.{}", sums, a, b)


class VNNI(Dots):
    """``vpdpbusd``: four unsigned bytes times four signed ones; ``vpdpwssd``: pairs.

    Where both operands have the same sign, A's is changed by 128, which the compensation in B's
    panels (see `nkblas.base.families`) makes up for.
    """

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        if not self.family.compensation:
            return super().load_a(source, rows, apart)
        words = ir.splat(ir.load(self.word.element_type, source), self.word)
        # with a constant that it knows, LLVM would do this to a scalar, and then broadcast that
        signs = ir.arithmetic_fence(ir.const(self.word, SIGNS))
        return self.operand(ir.xor(words, signs), self.a)

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        if self.family.k_step == 2:
            return self.intrinsic("llvm.x86.avx512.vpdpwssd.{}", sums, a, b)
        b_unsigned = self.b == "uint8"
        unsigned, signed = (b, a) if b_unsigned else (a, b)
        return self.intrinsic("llvm.x86.avx512.vpdpbusd.{}", sums, unsigned, signed)


class VNNIInt8(Dots):
    """``vpdpbssd``, ``vpdpbsud``, ``vpdpbuud``: four bytes of any signs."""

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        if (self.a, self.b) == ("uint8", "int8"):
            a, b = b, a
        letters = {("int8", "int8"): "ss", ("uint8", "uint8"): "uu"}.get((self.a, self.b), "su")
        return self.intrinsic(f"llvm.x86.avx2.vpdpb{letters}d.{{}}", sums, a, b)


class NEConvert(FMA):
    """``vbcstne…2ps`` broadcasts and converts a 16-bit float of A.

    ``vcvtnee…`` and ``vcvtneo…`` convert the even and the odd ones of B: the first and the second k
    of pairs. FMA does the rest.
    """

    turns = 2

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        kind = {"bfloat16": "bf162ps", "float16": "sh2ps"}[self.a]
        return ir.call_intrinsic(f"llvm.x86.vbcstne{kind}256", self.vector_type, source)

    def load_b(self, source: Value, mask: Value | None, apart: Value, turn: int) -> Value:
        kind = {"bfloat16": "bf162ps", "float16": "ph2ps"}[self.b]
        return ir.call_intrinsic(f"llvm.x86.vcvtne{'eo'[turn]}{kind}256", self.vector_type, source)


class AMX(Nanokernel):
    """Tiles: 16 rows of A and 16 columns of B, 64 bytes of k. ``tdpbf16ps``, ``tdpfp16ps``,
    ``tdpbssd`` and its like.
    """

    LINE = 64
    """Bytes of a tile's row."""

    def row_groups(self, rows: int) -> list[tuple[int, int]]:
        most = self.family.tile_rows
        count = -(-rows // most)
        sizes = [rows // count + (i < rows % count) for i in range(count)]
        return [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]

    def zero(self, rows: int) -> Accumulator:
        return (self._call("tilezero", ir.amx_tile(), *self._shape(rows)),)

    def load_a(self, source: Value, rows: int, apart: Value) -> Value:
        return rows, self._load(rows, source, apart, ITEMSIZE[self.a])

    def load_b(self, source: Value, mask: Value | None, apart: Value, turn: int) -> Value:
        groups = self.family.k_step // self.family.k_group_b
        return self._load(groups, source, apart, ITEMSIZE[self.b] * self.family.k_group_b)

    def _load(self, rows: int, source: Value, apart: Value, size: int) -> Value:
        stride = ir.mul(apart, ir.const_i64(size))
        return self._call("tileloadd64", ir.amx_tile(), *self._shape(rows), source, stride)

    def multiply_add(self, a: Value, b: Value, accumulator: Accumulator) -> Accumulator:
        rows, tile = a
        name = {
            ("bfloat16", "bfloat16"): "tdpbf16ps",
            ("float16", "float16"): "tdpfp16ps",
            ("int8", "int8"): "tdpbssd",
            ("int8", "uint8"): "tdpbsud",
            ("uint8", "int8"): "tdpbusd",
            ("uint8", "uint8"): "tdpbuud",
        }[self.a, self.b]
        shape = (*self._shape(rows), ir.const_i16(self.LINE))
        return (self._call(name, ir.amx_tile(), *shape, accumulator[0], tile, b),)

    def store(
        self, tile: Sequence[Sequence[Accumulator]], rows: int, place: Value, apart: Value
    ) -> None:
        """Store so many rows of sums, so many of these apart."""
        element = self.vector_type.element_type
        stride = ir.mul(apart, ir.const_i64(ITEMSIZE[self.family.accumulator]))
        for (first, count), row in zip(self.row_groups(rows), tile, strict=True):
            start = ir.gep(place, element, ir.mul(apart, ir.const_i64(first)))
            for j, (value,) in enumerate(row):
                target = ir.gep(start, element, j * self.lanes)
                self._call("tilestored64", None, *self._shape(count), target, stride, value)

    def load_row(self, place: Value, before: Value, vectors: int) -> list[Value]:
        """So many vectors of a stored row, with so many sums before it."""
        element = self.vector_type.element_type
        places = [ir.gep(place, element, before, j * self.lanes) for j in range(vectors)]
        return [ir.load(self.vector_type, x) for x in places]

    def _shape(self, rows: int) -> tuple[Value, Value]:
        return ir.const_i16(rows), ir.const_i16(self.LINE)

    def _call(self, name: str, result: Any, *operands: Value) -> Value:
        # LLVM finds the registers for these, and sets the shapes before they are used
        return ir.call_intrinsic(f"llvm.x86.{name}.internal", result, *operands)


NANOKERNELS: dict[str, type[Nanokernel]] = {
    "fma": FMA,
    "fp16": FMA,
    "words": Words,
    "complex": ComplexFMA,
    "madd": MultiplyAddPairs,
    "bf16": BFloat16Dots,
    "vnni": VNNI,
    "vnni_int8": VNNIInt8,
    "ne_convert": NEConvert,
    "amx": AMX,
    "amx_fp16": AMX,
}
"""By the name of the family."""


def compose(
    nanokernel: Any,
    load_a: Callable[[int], Value],
    load_b: Callable[[int], Value],
    tile: Sequence[Sequence[Any]],
) -> list[list[Any]]:
    """One k-step of a whole tile, in the order that needs the fewest registers.

    The smaller slice of the two operands is held; the other passes through one register. With at
    least as many rows as vectors, all of B's vectors are loaded and each element of A feeds a row
    of multiply-adds; otherwise the other way round.

    Parameters
    ----------
    load_a, load_b : callable
        Row ``i`` of A's slice; vector ``j`` of B's.
    tile : rows of accumulators

    Returns
    -------
    The new accumulators, in rows.
    """
    rows, vectors = range(len(tile)), range(len(tile[0]))
    new = [list(row) for row in tile]
    if len(rows) * nanokernel.a_registers >= len(vectors):
        held = [load_b(j) for j in vectors]
        for i in rows:
            a = load_a(i)
            for j in vectors:
                new[i][j] = nanokernel.multiply_add(a, held[j], tile[i][j])
    else:
        held = [load_a(i) for i in rows]
        for j in vectors:
            b = load_b(j)
            for i in rows:
                new[i][j] = nanokernel.multiply_add(held[i], b, tile[i][j])
    return new


def flatten(tile: Sequence[Sequence[Accumulator]]) -> list[Value]:
    """The vectors of a tile, for a loop to carry."""
    return [value for row in tile for accumulator in row for value in accumulator]


def unflatten(flat: Sequence[Value], width: int, parts: int) -> list[list[Accumulator]]:
    """The tile of so many accumulators in a row, each of so many vectors, that `flatten` took."""
    each = [tuple(flat[i : i + parts]) for i in range(0, len(flat), parts)]
    return [each[i : i + width] for i in range(0, len(each), width)]
