"""The arguments of generated kernels, and the fields of the ``nk_call_args`` that they read."""

from typing import NamedTuple

from nkblas._engine import ffi
from nkblas.codegen import ir
from nkblas.codegen.ir import Type, Value


class KernelArguments(NamedTuple):
    """The arguments of `nkblas.codegen.spec.Microkernel`, `Stream` and `Dot`."""

    k: Value
    a: Value
    lda: Value
    b: Value
    ldb: Value
    c: Value
    ldc: Value
    n: Value
    accumulate: Value
    panel: Value
    line: Value
    line_step: Value
    lines: Value
    args: Value


class ScaleFactors(NamedTuple):
    """The parameters of the epilogue "scale", scalars of the accumulators' type.

    Attributes
    ----------
    alpha, beta : Value
        Real parts, for complex products.
    alpha_imag, beta_imag : Value
        Imaginary parts.
    a_imag_sign, c_imag_sign : Value
        1 or -1: factors of the products with A's imaginary parts, and then of the imaginary parts
        of all sums. They conjugate operands.
    """

    alpha: Value
    beta: Value
    alpha_imag: Value
    beta_imag: Value
    a_imag_sign: Value
    c_imag_sign: Value

    @classmethod
    def read(cls, args: Value, element: Type) -> "ScaleFactors":
        """Load them from an ``nk_call_args``, which holds float64, as `element`."""
        f64 = ir.element_type("float64")
        return cls(*(ir.from_f64(load_field(args, name, f64), element) for name in cls._fields))


class KBlock(NamedTuple):
    """The position of a block of k, and the operands of the fused epilogue.

    Attributes
    ----------
    partial_sums : Value
        Address of a buffer that keeps sums from one block of k to the next.
    is_first, is_last : Value
        Whether the block is the first, and the last one.
    bias, residual, ldr : Value
        Addresses for the tile's first element, and the residual's leading dimension.
    bounds : (Value, Value)
        Lower and upper bound of the activation "clip", float64.
    scales, zero_point : Value
        Address of the factors for the tile's first column, and the number added to results that
        saturate, float64.
    """

    partial_sums: Value
    is_first: Value
    is_last: Value
    bias: Value
    residual: Value
    ldr: Value
    bounds: tuple[Value, Value]
    scales: Value
    zero_point: Value

    @classmethod
    def read(cls, args: Value) -> "KBlock":
        """Load it from an ``nk_call_args``."""
        f64 = ir.element_type("float64")
        return cls(
            load_field(args, "partial_sums", ir.ptr()),
            ir.is_nonzero(load_field(args, "is_first_k_block", ir.i64())),
            ir.is_nonzero(load_field(args, "is_last_k_block", ir.i64())),
            load_field(args, "bias", ir.ptr()),
            load_field(args, "residual", ir.ptr()),
            load_field(args, "ldr", ir.i64()),
            (load_field(args, "clip_low", f64), load_field(args, "clip_high", f64)),
            load_field(args, "scales", ir.ptr()),
            load_field(args, "zero_point", f64),
        )


class BatchBlocks(NamedTuple):
    """The operands of a batch-reduce product.

    Attributes
    ----------
    a, b : Value
        Addresses of arrays of block addresses.
    count : Value
        Number of blocks.
    """

    a: Value
    b: Value
    count: Value

    @classmethod
    def read(cls, args: Value) -> "BatchBlocks":
        """Load them from an ``nk_call_args``."""
        return cls(
            load_field(args, "a_blocks", ir.ptr()),
            load_field(args, "b_blocks", ir.ptr()),
            load_field(args, "block_count", ir.i64()),
        )


def load_field(args: Value, name: str, type_: Type) -> Value:
    """Load a field of an ``nk_call_args`` (engine/nkblas.h), at the offset that C gives it."""
    offset = ffi.offsetof("nk_call_args", name)
    assert offset % 8 == 0, name
    return ir.load(type_, ir.gep(args, ir.i64(), offset // 8))
