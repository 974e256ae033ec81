"""Storing a tile of accumulated sums to C, with the epilogue applied.

The epilogues are defined in `nkblas.base.epilogues`. Their kind is

- ``""``: ``C = sums``, or ``C += sums`` if `accumulate` is not 0.
- ``"scale"``: ``C = alpha * sums + beta * C``. If `accumulate` is not 0, C holds the result of
  other values of k, and it is ``C += alpha * sums``. Where C does not contribute it is not read.

The fused part of an epilogue is applied after the last block of k. A C that can't hold sums,
because its type is narrower, is written after the last block only, and rounded once; until then the
sums are in a buffer (`KBlock.partial_sums`).
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from nkblas.base.dtypes import DTYPES, REAL_PART
from nkblas.base.epilogues import Epilogue, parse
from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Type, Value

from . import complex_arithmetic
from .activation import ACTIVATION_CODE
from .call_args import KBlock, ScaleFactors
from .convert import convert

MaskedAddress: TypeAlias = tuple[Value, Value | None]
"""The address of a vector, and the mask of its lanes in C (None: all of them)."""

ROUNDING_LIMIT = 1e6
"""Values that saturate are clamped to this before they are rounded (`ir.roundeven` needs it): it is
far outside of the range of any 8-bit type."""


class TileOfC(NamedTuple):
    """The tile of C that sums are stored to, as vectors along n.

    Attributes
    ----------
    c, ldc : Value
        The address of its first element, and C's leading dimension.
    rows : int
    column_offsets : sequence of int
        The columns at which a row's vectors start.
    masks : sequence of Value or None
        The mask of each vector of a row.
    accumulate, args : Value
        The kernel's arguments.
    row_offset, column_offset : Value or int
        The position of the tile in the rows and columns that `args` describes.
    scratch : Value or None
        Address of a buffer for the sums of the tile, if the fused epilogue is to be a loop over
        rows.
    has_all_sums : bool
        Whether the sums are over all of k, where C can't hold those of a block.
    """

    c: Value
    ldc: Value
    rows: int
    column_offsets: Sequence[int]
    masks: Sequence[Value | None]
    accumulate: Value
    args: Value
    row_offset: Value | int = 0
    column_offset: Value | int = 0
    scratch: Value | None = None
    has_all_sums: bool = False

    def row(self, i: Value | int, dtype: str) -> list[MaskedAddress]:
        """The vectors of row `i`."""
        element = ir.element_type(dtype)
        offset = ir.mul(self.ldc, _as_value(i))
        return [
            (ir.gep(self.c, element, offset, column), mask)
            for column, mask in zip(self.column_offsets, self.masks, strict=True)
        ]

    def vectors(self, dtype: str) -> list[MaskedAddress]:
        """The vectors of all rows."""
        return [address for i in range(self.rows) for address in self.row(i, dtype)]


def store_tile(
    epilogue: str, isa: ISA, dtypes: tuple[str, str], sums: Sequence[Value], tile: TileOfC
) -> None:
    """Emit the end of a kernel, which stores vectors of sums to C.

    Parameters
    ----------
    epilogue : str
    isa : ISA
    dtypes : (str, str)
        The dtype of the sums, and C's.
    sums : sequence of Value
        Vectors, row by row. The parts of complex numbers are combined already
        (`complex_arithmetic`).
    tile : TileOfC
    """
    _TileStore(parse(epilogue), isa, dtypes, tile).store(sums)


class _TileStore:
    """The steps of `store_tile`.

    Attributes
    ----------
    value_dtype : str
        Dtype of the values before they are converted to C's.
    k_block : KBlock or None
        None if sums are stored in the same way for all blocks of k.
    """

    def __init__(
        self, epilogue: Epilogue, isa: ISA, dtypes: tuple[str, str], tile: TileOfC
    ) -> None:
        self.epilogue, self.isa, self.dtypes, self.tile = epilogue, isa, dtypes, tile
        self.sum_dtype, self.c_dtype = dtypes
        self.value_dtype = "float32" if epilogue.scales else self.sum_dtype
        differs_by_block = epilogue.is_fused or self.sum_dtype != self.c_dtype
        self.k_block = KBlock.read(tile.args) if differs_by_block else None

    def store(self, sums: Sequence[Value]) -> None:
        """Store the sums of a block of k, to C or to the buffer of partial sums."""
        k_block = self.k_block
        if k_block is None:
            self._write(self._apply_kind(sums), self.tile.vectors(self.c_dtype))
        elif self.sum_dtype == self.c_dtype:  # C holds the partial sums
            values = self._apply_kind(sums)
            ir.if_else(
                k_block.is_last,
                lambda: self._apply_fused_and_write(values, k_block),
                lambda: self._write(values, self.tile.vectors(self.c_dtype)),
            )
        elif self.tile.has_all_sums:
            self._finish(sums, k_block)
        else:
            buffer = self._partial_sum_addresses(sums, k_block)
            total = self._add_partial_sums(sums, buffer, k_block)
            ir.if_else(
                k_block.is_last,
                lambda: self._finish(total, k_block),
                lambda: self._save_partial_sums(total, buffer),
            )

    def _finish(self, sums: Sequence[Value], k_block: KBlock) -> list[Value]:
        """Apply all of the epilogue to the sums over all of k, and write them."""
        values = self._apply_kind(sums)
        if self.epilogue.is_fused:
            return self._apply_fused_and_write(values, k_block)
        return self._write(values, self.tile.vectors(self.c_dtype))

    def _partial_sum_addresses(self, sums: Sequence[Value], k_block: KBlock) -> list[Value]:
        type_ = sums[0].type
        size, element = type_.shape[0], type_.element_type
        return [ir.gep(k_block.partial_sums, element, i * size) for i in range(len(sums))]

    def _add_partial_sums(
        self, sums: Sequence[Value], buffer: Sequence[Value], k_block: KBlock
    ) -> list[Value]:
        def add() -> list[Value]:
            pairs = zip(sums, buffer, strict=True)
            return [ir.add(ir.load(value.type, address), value) for value, address in pairs]

        return ir.if_else(k_block.is_first, lambda: sums, add, [value.type for value in sums])

    def _save_partial_sums(self, sums: Sequence[Value], buffer: Sequence[Value]) -> list[Value]:
        for value, address in zip(sums, buffer, strict=True):
            ir.store(value, address)
        return []

    def _apply_kind(self, sums: Sequence[Value]) -> Sequence[Value]:
        """Apply alpha, beta and `accumulate`; quantized products have none of them."""
        if self.epilogue.scales:
            return sums
        reads_c, beta = ir.is_nonzero(self.tile.accumulate), None
        if self.epilogue.kind == "scale":
            element = sums[0].type.element_type
            factors = ScaleFactors.read(self.tile.args, element)
            sums = [
                complex_arithmetic.multiply(
                    value, self.sum_dtype, factors.alpha, factors.alpha_imag
                )
                for value in sums
            ]
            one, zero = ir.const_one(element), ir.const_zero(element)
            beta = (
                ir.select(reads_c, one, factors.beta),
                ir.select(reads_c, zero, factors.beta_imag),
            )
            reads_c = complex_arithmetic.is_nonzero(*beta)

        def add_c() -> list[Value]:
            vectors = zip(sums, self.tile.vectors(self.c_dtype), strict=True)
            return [self._add_c(value, address, beta) for value, address in vectors]

        return ir.if_then(reads_c, add_c, sums)

    def _add_c(
        self, value: Value, address: MaskedAddress, beta: tuple[Value, Value] | None
    ) -> Value:
        """``value + beta * C``, of one vector."""
        c = _load_as(value, self.dtypes, address, self.isa)
        if beta is None:
            return ir.add(c, value)
        if self.sum_dtype in REAL_PART:
            return ir.add(complex_arithmetic.multiply(c, self.sum_dtype, *beta), value)
        return ir.fma(ir.splat(beta[0], value.type), c, value)

    def _write(self, values: Sequence[Value], addresses: Sequence[MaskedAddress]) -> list[Value]:
        """Convert values to C's dtype and store them."""
        for value, (address, mask) in zip(values, addresses, strict=True):
            ir.store(convert(value, self.value_dtype, self.c_dtype, self.isa), address, mask)
        return []

    def _apply_fused_and_write(self, values: Sequence[Value], k_block: KBlock) -> list[Value]:
        """Apply the fused part of the epilogue, row by row, and write the results."""
        tile, type_ = self.tile, values[0].type
        fused = _FusedEpilogue(self.epilogue, self.isa, self.dtypes, tile, k_block, type_)
        width = len(tile.column_offsets)
        scratch = tile.scratch
        if scratch is None:
            for i in range(tile.rows):
                row = values[i * width : (i + 1) * width]
                self._write(fused.apply_to_row(row, i), tile.row(i, self.c_dtype))
            return []
        size, element = type_.shape[0], type_.element_type
        for i, value in enumerate(values):
            ir.store(value, ir.gep(scratch, element, i * size))

        def apply_to_row(i: Value, _: list[Value]) -> list[Value]:
            start = ir.gep(scratch, element, ir.mul(i, ir.const_i64(width * size)))
            row = [ir.load(type_, ir.gep(start, element, j * size)) for j in range(width)]
            return self._write(fused.apply_to_row(row, i), tile.row(i, self.c_dtype))

        ir.for_loop(ir.const_i64(tile.rows), [], apply_to_row)
        return []


class _FusedEpilogue:
    """Scales, bias, activation, residual and rounding of a tile's values.

    Attributes
    ----------
    vector_type : Type
        Of the values: that of the sums, or float32 for quantized products.
    columns : list of Value
        Where a row's vectors start, counted from the first column that `args` describes.
    scales, column_biases : list of Value
        A vector for each vector of a row; empty if the epilogue has none.
    """

    def __init__(
        self,
        epilogue: Epilogue,
        isa: ISA,
        dtypes: tuple[str, str],
        tile: TileOfC,
        k_block: KBlock,
        sum_type: Type,
    ) -> None:
        self.epilogue, self.isa, self.k_block, self.masks = epilogue, isa, k_block, tile.masks
        self.value_dtype, self.c_dtype = dtypes
        self.row_offset = _as_value(tile.row_offset)
        self.columns = [
            ir.add(ir.const_i64(column), _as_value(tile.column_offset))
            for column in tile.column_offsets
        ]
        self.vector_type = sum_type
        self.scales: list[Value] = []
        if epilogue.scales:
            self.value_dtype = "float32"
            self.vector_type = ir.vector_type(sum_type.shape[0], ir.element_type("float32"))
            self.scales = self._load_columns(k_block.scales)
        self.column_biases: list[Value] = []
        if epilogue.bias == "columns":
            self.column_biases = self._load_columns(k_block.bias)

    def _load_columns(self, start: Value) -> list[Value]:
        """Vectors of numbers that belong to the tile's columns."""
        element = self.vector_type.element_type
        addresses = [ir.gep(start, element, column) for column in self.columns]
        return [ir.load(self.vector_type, address) for address in addresses]

    def apply_to_row(self, values: Sequence[Value], i: Value | int) -> list[Value]:
        """The results for the vectors of row `i` of the tile."""
        element = self.vector_type.element_type
        if self.scales:
            floats = [ir.sitofp(value, element) for value in values]
            values = list(map(ir.mul, floats, self.scales))
        row = ir.add(self.row_offset, _as_value(i))
        values = self._add_bias(values, row)
        if self.epilogue.activation:
            code = ACTIVATION_CODE[self.epilogue.activation]
            values = [code.emit(value, self.k_block.bounds) for value in values]
        if self.epilogue.residual:
            values = self._add_residual(values, row)
        if DTYPES[self.c_dtype].saturates:
            zero_point = ir.splat(ir.from_f64(self.k_block.zero_point, element), self.vector_type)
            values = [
                ir.add(ir.roundeven(_clamp_for_rounding(value)), zero_point) for value in values
            ]
        return list(values)

    def _add_bias(self, values: Sequence[Value], row: Value) -> Sequence[Value]:
        biases, element = self.column_biases, self.vector_type.element_type
        if self.epilogue.bias == "rows":
            bias = ir.load(element, ir.gep(self.k_block.bias, element, row))
            biases = [ir.splat(bias, self.vector_type)] * len(values)
        return list(map(ir.add, values, biases)) if biases else values

    def _add_residual(self, values: Sequence[Value], row: Value) -> list[Value]:
        start = ir.mul(self.k_block.ldr, row)
        element = ir.element_type(self.c_dtype)
        addresses = [
            ir.gep(self.k_block.residual, element, start, column) for column in self.columns
        ]
        dtypes = self.value_dtype, self.c_dtype
        residual = [
            _load_as(value, dtypes, (address, mask), self.isa)
            for value, address, mask in zip(values, addresses, self.masks, strict=True)
        ]
        return list(map(ir.add, values, residual))


def _clamp_for_rounding(value: Value) -> Value:
    limit = ir.const(value.type, ROUNDING_LIMIT)
    return ir.clamp(value, ir.neg(limit), limit)


def _load_as(value: Value, dtypes: tuple[str, str], address: MaskedAddress, isa: ISA) -> Value:
    """A vector in memory, converted to the type of `value`.

    `dtypes` are those of `value` and of the vector in memory.
    """
    value_dtype, memory_dtype = dtypes
    element = ir.element_type(REAL_PART.get(memory_dtype, memory_dtype))
    loaded = ir.load(ir.type_like(value, element), *address)
    return convert(loaded, memory_dtype, value_dtype, isa)


def _as_value(index: Value | int) -> Value:
    return ir.const_i64(index) if isinstance(index, int) else index
