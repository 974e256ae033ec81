"""Operations on whole vectors: broadcasts, masks and lane permutations."""

from collections.abc import Sequence

from mlir import ir
from mlir.dialects import vector

from .arithmetic import add, bitcast, const_i64, const_lane_numbers, maxsi, minsi, mul, slt, trunc
from .control_flow import call_intrinsic
from .types import Type, Value, int_type, itemsize_of, vector_type

SEGMENT_BYTES = 16
"""Bytes of a segment of a vector register (Intel's 128-bit lane): moving elements within segments
is cheaper than moving them across."""


def splat(scalar: Value, type_: Type) -> Value:
    """A scalar in every lane of a vector."""
    return vector.broadcast(type_, scalar)


def create_mask(lanes: int, count: Value) -> Value:
    """A mask of `lanes` bits of which the first `count` are set; `count` may be out of range."""
    numbers_type = vector_type(lanes, int_type(32))
    clamped = maxsi(minsi(count, const_i64(lanes)), const_i64(0))
    limit = splat(trunc(clamped, 32), numbers_type)
    return slt(const_lane_numbers(numbers_type), limit)


def shuffle(a: Value, b: Value, lanes: Sequence[int]) -> Value:
    """The chosen lanes of two vectors of one type; lanes of `b` are numbered after those of `a`."""
    return vector.shuffle(a, b, list(lanes))


def interleave(a: Value, b: Value, segment: int) -> tuple[Value, Value]:
    """In each segment of `segment` lanes, the two halves of ``a0 b0 a1 b1 …``."""
    lanes = a.type.shape[0]
    first_half = [
        start + lane // 2 + (lane % 2) * lanes
        for start in range(0, lanes, segment)
        for lane in range(segment)
    ]
    second_half = [lane + segment // 2 for lane in first_half]
    return shuffle(a, b, first_half), shuffle(a, b, second_half)


def concatenate(parts: Sequence[Value]) -> Value:
    """One vector of vectors of the same length, whose number is a power of two."""
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.shape[0])
        parts = [shuffle(a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def rotate_lanes(value: Value, count: Value) -> Value:
    """Move each lane of a 256- or 512-bit vector down by `count`; the first lanes become the last.

    `count` is an i64 that is known at run time only.
    """
    itemsize = itemsize_of(value.type)
    words = value.type.shape[0] * itemsize // 4
    words_type = vector_type(words, ir.F32Type.get())
    indices_type = vector_type(words, int_type(32))
    first = splat(trunc(mul(count, const_i64(itemsize // 4)), 32), indices_type)
    rotated = call_intrinsic(
        {8: "llvm.x86.avx2.permps", 16: "llvm.x86.avx512.permvar.sf.512"}[words],
        words_type,
        vector.bitcast(words_type, value),
        # The instruction reads only the lower bits of each index: indices wrap around.
        add(const_lane_numbers(indices_type), first),
    )
    return vector.bitcast(value.type, rotated)


def arithmetic_fence(value: Value) -> Value:
    """A vector whose origin LLVM's optimizer does not see: ``llvm.arithmetic.fence``."""
    lanes, bits = value.type.shape[0], value.type.element_type.width
    float_bits = max(bits, 32)
    count = lanes * bits // float_bits
    floats = vector_type(count, {32: ir.F32Type, 64: ir.F64Type}[float_bits].get())
    name = f"llvm.arithmetic.fence.v{count}f{float_bits}"
    return bitcast(value.type, call_intrinsic(name, floats, bitcast(floats, value)))
