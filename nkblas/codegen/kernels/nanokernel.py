"""Nanokernels: the smallest group of instructions that does one k step of a register tile.

There is one class for each instruction family. `compose` makes a k step of a whole tile of them;
microkernels know nothing of the instructions inside. The scheme is that of *Library Liberation*
(arXiv 2511.13764).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from nkblas.base.dtypes import DTYPES, ITEMSIZE, REAL_PART
from nkblas.base.families import Family
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Type, Value

from . import complex_arithmetic
from .convert import convert, splat

Accumulator: TypeAlias = tuple[Value, ...]
"""The registers that one vector of C is accumulated in."""

Operand: TypeAlias = Any
"""A register of A or of B, or several of them: only the nanokernel that loaded it looks inside."""

BYTE_SIGN_BITS = -0x7F7F7F80
"""The highest bit of each byte of a 32-bit word."""

AMX_ROW_BYTES = 64
"""Bytes of a row of a tile register."""


class Nanokernel:
    """One instruction family on one ISA, for operands of some dtypes.

    A subclass provides `load_a`, `load_b` and `multiply_add`, and replaces other methods where the
    family differs from the defaults here: a vector of C has one accumulator register, which holds
    the sums themselves.

    Parameters
    ----------
    isa : ISA
    family : Family
    a, b : str
        Dtypes of the operands as they are read: those of the family's panels or, in place, dtypes
        that the nanokernel converts.

    Attributes
    ----------
    isa, family, a, b
        The parameters.
    passes : int
        How often one k step passes over the tile, each time with ``family.k_step / passes`` values
        of k.
    a_registers : int
        Registers of an operand that `load_a` returns.
    lanes : int
        Columns of C in a vector.
    vector_type : Type
        Type of a vector of C while it is accumulated: `lanes` elements, or the real and imaginary
        parts of as many complex numbers.
    """

    passes = 1

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        self.isa, self.family, self.a, self.b = isa, family, a, b
        self.a_registers = family.a_registers
        self.lanes = family.lanes(isa)
        self.vector_type = _accumulator_type(family.accumulator, self.lanes)

    @property
    def uses_tile_registers(self) -> bool:
        """Whether accumulators are tile registers (`store_accumulators`, `load_row`)."""
        return self.family.tile_rows > 0

    def row_groups(self, rows: int) -> list[tuple[int, int]]:
        """How `rows` rows of C are divided among accumulators: first row and number of rows."""
        return [(i, 1) for i in range(rows)]

    def zero_accumulator(self, rows: int) -> Accumulator:
        """The accumulator of a row group of `rows` rows, set to 0."""
        return (ir.const_zero(self.vector_type),)

    def column_mask(self, columns: Value) -> Value:
        """A mask of the first `columns` columns of a vector of C."""
        return ir.create_mask(self.lanes, columns)

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """Load A for one pass, for a row group of `rows` rows.

        Parameters
        ----------
        source : Value
            Address of the group's first element.
        rows : int
        row_stride : Value
            In elements.
        """
        raise NotImplementedError

    def load_b(
        self, source: Value, mask: Value | None, k_stride: Value, pass_index: int
    ) -> Operand:
        """Load B for one pass, for one vector of C.

        Parameters
        ----------
        source : Value
            Address of the first element of the k step: it is the same for all passes.
        mask : Value or None
            The columns to read; the first is always one of them.
        k_stride : Value
            Distance in elements from one group of k (`Family.k_group_b`) to the next.
        pass_index : int
            From 0 to ``passes - 1``.
        """
        raise NotImplementedError

    def multiply_add(self, a: Operand, b: Operand, accumulator: Accumulator) -> Accumulator:
        """The accumulator after the products of one pass have been added.

        Packing calls it with a vector of ones as `a`, to add up the columns of a panel, for
        families with `Family.compensation`.
        """
        raise NotImplementedError

    def combine(
        self, tile: Sequence[Sequence[Accumulator]], epilogue: str, args: Value
    ) -> list[Value]:
        """The vectors of sums, row by row, that a tile of accumulators stands for.

        `epilogue` and `args` are the kernel's: conjugate operands are applied here.
        """
        return [accumulator[0] for row in tile for accumulator in row]

    def load_accumulators(
        self, rows: int, vectors: int, source: Value, row_stride: Value
    ) -> list[list[Accumulator]]:
        """Load what `store_accumulators` stored; only for tile registers."""
        raise NotImplementedError

    def store_accumulators(
        self, tile: Sequence[Sequence[Accumulator]], rows: int, target: Value, row_stride: Value
    ) -> None:
        """Store the accumulators of a tile of `rows` rows; only for tile registers.

        `row_stride` is in elements.
        """
        raise NotImplementedError

    def load_row(self, source: Value, offset: Value, vectors: int) -> list[Value]:
        """The vectors of one row that `store_accumulators` stored; only for tile registers.

        `offset` is the number of elements before the row.
        """
        raise NotImplementedError


def _accumulator_type(dtype: str, lanes: int) -> Type:
    """A vector of `lanes` elements; of complex numbers, of their parts."""
    part = ir.element_type(REAL_PART.get(dtype, dtype))
    return ir.vector_type(2 * lanes if dtype in REAL_PART else lanes, part)


def load_columns(type_: Type, source: Value, mask: Value | None, parts: int = 1) -> Value:
    """Load a vector of B, or its first elements; an element has `parts` lanes.

    Lanes outside of `mask` repeat the first element. With zeros, an infinity in the other operand
    would raise the invalid flag, for a product that is not part of the result.
    """
    if mask is None:
        return ir.load(type_, source)
    first = ir.load(ir.vector_type(parts, type_.element_type), source)
    lanes = type_.shape[0]
    repeated = ir.shuffle(first, first, [lane % parts for lane in range(lanes)])
    return ir.load(type_, source, mask, passthru=repeated)


class NativeVectors:
    """Vector code for dtypes that are multiplied as they are and accumulated in their own type.

    The kernels that read operands in place, without panels (Small, Stream, Dot), need no other
    nanokernel. An element of A has one part, or two if it is complex; each part has an accumulator
    of its own, and they are combined after the k loop.

    Parameters
    ----------
    dtype : str
        One of `nkblas.base.problem.NATIVE_DTYPES`.
    lanes : int
        Elements in a vector.

    Attributes
    ----------
    a_registers : int
        For `compose`: registers of an element of A.
    parts : int
        Parts of an element.
    lanes : int
    vector_type : Type
        `lanes` elements, as their parts.
    """

    def __init__(self, dtype: str, lanes: int) -> None:
        self.a_registers = 1
        self.parts = 2 if dtype in REAL_PART else 1
        self.lanes = lanes
        self.vector_type = _accumulator_type(dtype, lanes)

    def element_mask(self, count: Value) -> Value:
        """A mask of the first `count` elements of a vector."""
        return ir.create_mask(self.parts * self.lanes, ir.mul(count, ir.const_i64(self.parts)))

    def zero_accumulator(self) -> Accumulator:
        """An accumulator that is 0."""
        return tuple(ir.const_zero(self.vector_type) for _ in range(self.parts))

    def load_element(self, source: Value) -> tuple[Value, ...]:
        """The parts of one element of A."""
        part = self.vector_type.element_type
        return tuple(ir.load(part, ir.gep(source, part, i)) for i in range(self.parts))

    def splat(self, element: Sequence[Value]) -> tuple[Value, ...]:
        """Each part of an element in every lane of a vector."""
        return tuple(ir.splat(part, self.vector_type) for part in element)

    def load_b(self, source: Value, mask: Value | None) -> tuple[Value, ...]:
        """A vector of B, for each part of A's element."""
        return (load_columns(self.vector_type, source, mask, self.parts),) * self.parts

    def multiply_add(
        self, a: Sequence[Value], b: Sequence[Value], accumulator: Accumulator
    ) -> Accumulator:
        """The accumulator plus the products of A's parts with B's vectors."""
        return tuple(map(ir.fma, a, b, accumulator))

    def combine(self, accumulator: Accumulator) -> Value:
        """The vector of sums that an accumulator stands for."""
        return complex_arithmetic.combine_parts(accumulator)


class FMA(Nanokernel):
    """Broadcast an element of A, load a vector of B, multiply and add.

    float32, float64 and integers of 2, 4 and 8 bytes; narrower dtypes are converted when they are
    loaded. With AVX-512-FP16, one instruction loads, broadcasts and converts a float16.
    """

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """An element of A in every lane."""
        element = ir.load(ir.element_type(self.a), source)
        return splat(element, self.lanes, self.a, self.family.accumulator, self.isa)

    def load_b(
        self, source: Value, mask: Value | None, k_stride: Value, pass_index: int
    ) -> Operand:
        """A vector of B, converted to the accumulator's dtype."""
        type_ = ir.vector_type(self.lanes, ir.element_type(self.b))
        vector = load_columns(type_, source, mask)
        return convert(vector, self.b, self.family.accumulator, self.isa)

    def multiply_add(self, a: Operand, b: Operand, accumulator: Accumulator) -> Accumulator:
        """One multiply-add."""
        return (ir.fma(a, b, accumulator[0]),)


class Words(Nanokernel):
    """int64 products from products of 32-bit halves.

    ``vpmuludq`` multiplies the lower halves. ``vpmulld`` multiplies each half with the other
    operand's other half; these products belong to the upper half of the result. They are
    accumulated separately, and added after the k loop.
    """

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        super().__init__(isa, family, a, b)
        self.halves_type = ir.vector_type(2 * self.lanes, ir.int_type(32))
        self.low_half = ir.const(self.vector_type, 2**32 - 1)

    def zero_accumulator(self, rows: int) -> Accumulator:
        """Sums of the lower halves' products, and those of the cross products."""
        return ir.const_zero(self.vector_type), ir.const_zero(self.halves_type)

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """An element of A in every lane."""
        return ir.splat(ir.load(self.vector_type.element_type, source), self.vector_type)

    def load_b(
        self, source: Value, mask: Value | None, k_stride: Value, pass_index: int
    ) -> Operand:
        """A vector of B, and the same with the halves of each element exchanged."""
        b = load_columns(self.vector_type, source, mask)
        halves = ir.bitcast(self.halves_type, b)
        return b, ir.shuffle(halves, halves, [lane ^ 1 for lane in range(2 * self.lanes)])

    def multiply_add(self, a: Operand, b: Operand, accumulator: Accumulator) -> Accumulator:
        """Add the lower halves' product and the cross products."""
        b, swapped_b = b
        low_sums, cross_sums = accumulator
        product = ir.mul(ir.and_(a, self.low_half), ir.and_(b, self.low_half))
        low_sums = ir.add(product, low_sums)
        return low_sums, ir.fma(ir.bitcast(self.halves_type, a), swapped_b, cross_sums)

    def combine(
        self, tile: Sequence[Sequence[Accumulator]], epilogue: str, args: Value
    ) -> list[Value]:
        """Add both sums of cross products to the upper half."""

        def combine(low_sums: Value, cross_sums: Value) -> Value:
            cross = ir.bitcast(self.vector_type, cross_sums)
            first = ir.shl(cross, 32)
            second = ir.xor(cross, ir.and_(cross, self.low_half))
            return ir.add(low_sums, ir.add(first, second))

        return [combine(*accumulator) for row in tile for accumulator in row]


class ComplexFMA(Nanokernel):
    """Each part of an element of A times a vector of B as it is in memory.

    The sums ``sum(re(a) * b)`` and ``sum(im(a) * b)`` have accumulators of their own: with that, a
    product takes no more instructions than the same number of real ones.
    """

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        super().__init__(isa, family, a, b)
        self.vectors = NativeVectors(family.accumulator, self.lanes)

    def zero_accumulator(self, rows: int) -> Accumulator:
        """Sums of the products with real and with imaginary parts of A."""
        return self.vectors.zero_accumulator()

    def column_mask(self, columns: Value) -> Value:
        """A mask of both parts of the first `columns` elements."""
        return self.vectors.element_mask(columns)

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """The real part of an element of A in every lane, and its imaginary part."""
        return self.vectors.splat(self.vectors.load_element(source))

    def load_b(
        self, source: Value, mask: Value | None, k_stride: Value, pass_index: int
    ) -> Operand:
        """A vector of B."""
        return load_columns(self.vector_type, source, mask, self.vectors.parts)

    def multiply_add(self, a: Operand, b: Operand, accumulator: Accumulator) -> Accumulator:
        """Two multiply-adds."""
        return self.vectors.multiply_add(a, (b, b), accumulator)

    def combine(
        self, tile: Sequence[Sequence[Accumulator]], epilogue: str, args: Value
    ) -> list[Value]:
        """Multiply the second sums by the imaginary unit and add them to the first."""
        return [
            complex_arithmetic.combine_parts_with_signs(accumulator, epilogue, args)
            for row in tile
            for accumulator in row
        ]


class DotProduct(Nanokernel):
    """Instructions whose lanes hold a group of k values: a lane's products are added to one sum.

    A subclass provides `dot`.
    """

    def __init__(self, isa: ISA, family: Family, a: str, b: str) -> None:
        super().__init__(isa, family, a, b)
        bits = 8 * ITEMSIZE[family.accumulator]
        self.word_type = ir.vector_type(self.lanes, ir.int_type(bits))

    def _as_operand(self, words: Value, dtype: str) -> Value:
        """A vector of words in the type that the instruction takes."""
        element = ir.bf16() if dtype == "bfloat16" else ir.element_type(dtype)
        return ir.bitcast(ir.vector_type(self.lanes * self.family.k_step, element), words)

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """A group of k values of A in every lane."""
        word = ir.load(self.word_type.element_type, source)
        return self._as_operand(ir.splat(word, self.word_type), self.a)

    def load_b(
        self, source: Value, mask: Value | None, k_stride: Value, pass_index: int
    ) -> Operand:
        """A vector of groups of k values of B."""
        return self._as_operand(ir.load(self.word_type, source), self.b)

    def multiply_add(self, a: Operand, b: Operand, accumulator: Accumulator) -> Accumulator:
        """One `dot`."""
        return (self.dot(a, b, accumulator[0]),)

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        """`sums` plus the products of A and B, added up in each lane."""
        raise NotImplementedError

    def call_sized(self, name: str, *operands: Value) -> Value:
        """Call an intrinsic; ``{}`` in its name stands for the bits of a vector register."""
        result = operands[0].type
        return ir.call_intrinsic(name.format(self.isa.vector_bits), result, *operands)


class MultiplyAddPairs(DotProduct):
    """``vpmaddwd`` and ``vpaddd``: pairs of 16-bit integers. Every instruction set has them."""

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        """Two instructions."""
        name = {
            128: "llvm.x86.sse2.pmadd.wd",
            256: "llvm.x86.avx2.pmadd.wd",
            512: "llvm.x86.avx512.pmaddw.d.512",
        }[self.isa.vector_bits]
        return ir.add(ir.call_intrinsic(name, sums.type, a, b), sums)


class BFloat16Dot(DotProduct):
    """``vdpbf16ps``: pairs of bfloat16. Subnormal numbers count as zero."""

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        """One instruction."""
        return self.call_sized("llvm.x86.avx512bf16.dpbf16ps.{}", sums, a, b)


class VNNI(DotProduct):
    """``vpdpbusd``: four unsigned bytes times four signed ones; ``vpdpwssd``: pairs of int16.

    Where both operands have the same signedness, A is shifted by 128, and the compensation in B's
    panels (`Family.compensation`) corrects the sums.
    """

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """A group of k values of A in every lane, shifted if the family has compensation."""
        if not self.family.compensation:
            return super().load_a(source, rows, row_stride)
        words = ir.splat(ir.load(self.word_type.element_type, source), self.word_type)
        # With a constant that it knows, LLVM would shift the scalar, and broadcast the result.
        sign_bits = ir.arithmetic_fence(ir.const(self.word_type, BYTE_SIGN_BITS))
        return self._as_operand(ir.xor(words, sign_bits), self.a)

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        """One instruction."""
        if self.family.k_step == 2:
            return self.call_sized("llvm.x86.avx512.vpdpwssd.{}", sums, a, b)
        unsigned, signed = (a, b) if DTYPES[self.b].signed else (b, a)
        return self.call_sized("llvm.x86.avx512.vpdpbusd.{}", sums, unsigned, signed)


class VNNIInt8(DotProduct):
    """``vpdpbssd``, ``vpdpbsud``, ``vpdpbuud``: four bytes, signed or not."""

    def dot(self, a: Value, b: Value, sums: Value) -> Value:
        """One instruction."""
        if (self.a, self.b) == ("uint8", "int8"):
            a, b = b, a  # the instruction for mixed operands takes the signed one first
        letters = {("int8", "int8"): "ss", ("uint8", "uint8"): "uu"}.get((self.a, self.b), "su")
        return self.call_sized(f"llvm.x86.avx2.vpdpb{letters}d.{{}}", sums, a, b)


class NEConvert(FMA):
    """FMA on 16-bit floats that are converted when they are loaded.

    ``vbcstne…2ps`` broadcasts and converts an element of A. ``vcvtnee…`` and ``vcvtneo…`` convert
    the even and the odd elements of B, which are the first and the second k of pairs: the two
    passes of a k step.
    """

    passes = 2

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """An element of A in every lane."""
        kind = {"bfloat16": "bf162ps", "float16": "sh2ps"}[self.a]
        return ir.call_intrinsic(f"llvm.x86.vbcstne{kind}256", self.vector_type, source)

    def load_b(
        self, source: Value, mask: Value | None, k_stride: Value, pass_index: int
    ) -> Operand:
        """The even or the odd elements of pairs."""
        kind = {"bfloat16": "bf162ps", "float16": "ph2ps"}[self.b]
        name = f"llvm.x86.vcvtne{'eo'[pass_index]}{kind}256"
        return ir.call_intrinsic(name, self.vector_type, source)


class AMX(Nanokernel):
    """Tile registers: 16 rows of A, 16 columns of B and 64 bytes of k.

    ``tdpbf16ps``, ``tdpfp16ps``, ``tdpbssd`` and the like.
    """

    def row_groups(self, rows: int) -> list[tuple[int, int]]:
        """As few groups as possible, equal to within one row."""
        count = -(-rows // self.family.tile_rows)
        sizes = [rows // count + (i < rows % count) for i in range(count)]
        return [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]

    def zero_accumulator(self, rows: int) -> Accumulator:
        """A tile register that is 0."""
        return (self._call("tilezero", ir.amx_tile(), *self._shape(rows)),)

    def load_a(self, source: Value, rows: int, row_stride: Value) -> Operand:
        """The number of rows, and the tile."""
        return rows, self._load(rows, source, row_stride, ITEMSIZE[self.a])

    def load_b(
        self, source: Value, mask: Value | None, k_stride: Value, pass_index: int
    ) -> Operand:
        """The tile."""
        groups = self.family.k_step // self.family.k_group_b
        return self._load(groups, source, k_stride, ITEMSIZE[self.b] * self.family.k_group_b)

    def _load(self, rows: int, source: Value, stride: Value, itemsize: int) -> Value:
        byte_stride = ir.mul(stride, ir.const_i64(itemsize))
        return self._call("tileloadd64", ir.amx_tile(), *self._shape(rows), source, byte_stride)

    def multiply_add(self, a: Operand, b: Operand, accumulator: Accumulator) -> Accumulator:
        """One instruction."""
        rows, tile = a
        name = {
            ("bfloat16", "bfloat16"): "tdpbf16ps",
            ("float16", "float16"): "tdpfp16ps",
            ("int8", "int8"): "tdpbssd",
            ("int8", "uint8"): "tdpbsud",
            ("uint8", "int8"): "tdpbusd",
            ("uint8", "uint8"): "tdpbuud",
        }[self.a, self.b]
        shape = (*self._shape(rows), ir.const_i16(AMX_ROW_BYTES))
        return (self._call(name, ir.amx_tile(), *shape, accumulator[0], tile, b),)

    def load_accumulators(
        self, rows: int, vectors: int, source: Value, row_stride: Value
    ) -> list[list[Accumulator]]:
        """Load each tile register."""
        itemsize, element = ITEMSIZE[self.family.accumulator], self.vector_type.element_type
        return [
            [
                (self._load(count, ir.gep(row, element, j * self.lanes), row_stride, itemsize),)
                for j in range(vectors)
            ]
            for count, row in self._accumulator_rows(rows, source, row_stride)
        ]

    def store_accumulators(
        self, tile: Sequence[Sequence[Accumulator]], rows: int, target: Value, row_stride: Value
    ) -> None:
        """Store each tile register."""
        element = self.vector_type.element_type
        byte_stride = ir.mul(row_stride, ir.const_i64(ITEMSIZE[self.family.accumulator]))
        groups = self._accumulator_rows(rows, target, row_stride)
        for (count, start), row in zip(groups, tile, strict=True):
            for j, (value,) in enumerate(row):
                address = ir.gep(start, element, j * self.lanes)
                self._call("tilestored64", None, *self._shape(count), address, byte_stride, value)

    def _accumulator_rows(
        self, rows: int, start: Value, row_stride: Value
    ) -> list[tuple[int, Value]]:
        """The number of rows of each row group, and the address of its first one in memory."""
        element = self.vector_type.element_type
        return [
            (count, ir.gep(start, element, ir.mul(row_stride, ir.const_i64(first))))
            for first, count in self.row_groups(rows)
        ]

    def load_row(self, source: Value, offset: Value, vectors: int) -> list[Value]:
        """Load vectors."""
        element = self.vector_type.element_type
        addresses = [ir.gep(source, element, offset, j * self.lanes) for j in range(vectors)]
        return [ir.load(self.vector_type, address) for address in addresses]

    def _shape(self, rows: int) -> tuple[Value, Value]:
        """Rows, and bytes of a row."""
        return ir.const_i16(rows), ir.const_i16(AMX_ROW_BYTES)

    def _call(self, name: str, result: Type | None, *operands: Value) -> Value:
        # For the internal intrinsics, LLVM allocates tile registers and configures their shapes.
        return ir.call_intrinsic(f"llvm.x86.{name}.internal", result, *operands)


NANOKERNELS: dict[str, type[Nanokernel]] = {
    "fma": FMA,
    "fp16": FMA,
    "words": Words,
    "complex": ComplexFMA,
    "madd": MultiplyAddPairs,
    "bf16": BFloat16Dot,
    "vnni": VNNI,
    "vnni_int8": VNNIInt8,
    "ne_convert": NEConvert,
    "amx": AMX,
    "amx_fp16": AMX,
}
"""The class of each family of `nkblas.base.families`, by the family's name."""


def compose(
    nanokernel: Nanokernel | NativeVectors,
    load_a: Callable[[int], Operand],
    load_b: Callable[[int], Operand],
    tile: Sequence[Sequence[Accumulator]],
) -> list[list[Accumulator]]:
    """One pass over a whole tile, in the order that needs the fewest registers.

    The smaller slice of the two operands stays in registers; the elements or vectors of the other
    one pass through one register. With at least as many rows as vectors, all vectors of B are
    loaded first, and each element of A feeds a row of multiply-adds; otherwise all elements of A
    are loaded first.

    Parameters
    ----------
    nanokernel : Nanokernel or NativeVectors
    load_a, load_b : callable
        ``load_a(i)`` loads row ``i`` of A's slice, ``load_b(j)`` vector ``j`` of B's.
    tile : sequence of rows of accumulators

    Returns
    -------
    list of rows of accumulators
    """
    rows, vectors = range(len(tile)), range(len(tile[0]))
    new = [list(row) for row in tile]
    if len(rows) * nanokernel.a_registers >= len(vectors):
        b_slice = [load_b(j) for j in vectors]
        for i in rows:
            a = load_a(i)
            for j in vectors:
                new[i][j] = nanokernel.multiply_add(a, b_slice[j], tile[i][j])
    else:
        a_slice = [load_a(i) for i in rows]
        for j in vectors:
            b = load_b(j)
            for i in rows:
                new[i][j] = nanokernel.multiply_add(a_slice[i], b, tile[i][j])
    return new


def flatten(tile: Sequence[Sequence[Accumulator]]) -> list[Value]:
    """The registers of a tile, as the `iter_args` of a loop."""
    return [value for row in tile for accumulator in row for value in accumulator]


def unflatten(flat: Sequence[Value], width: int, registers: int) -> list[list[Accumulator]]:
    """The inverse of `flatten`.

    `width` is the number of accumulators in a row, `registers` that of registers in each.
    """
    accumulators = [tuple(flat[i : i + registers]) for i in range(0, len(flat), registers)]
    return [accumulators[i : i + width] for i in range(0, len(accumulators), width)]
