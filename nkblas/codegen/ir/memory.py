"""Addresses, loads, stores and prefetches.

Addresses are plain LLVM pointers, with no alignment assumed unless a function says so.
"""

from mlir import ir
from mlir.dialects import arith, llvm

from .arithmetic import const_i64, const_zero, mod_power_of_two, sub
from .control_flow import call_intrinsic
from .types import Type, Value, i64, itemsize_of, ptr, vector_type
from .vectors import arithmetic_fence, create_mask, shuffle

CACHE_LINE_BYTES = 64

PREFETCH_DISTANCE_BYTES = 1024
"""How many bytes ahead an operand beyond L3 is prefetched."""

TO_L1, TO_L2 = 3, 2
"""Prefetch targets: LLVM's degrees of temporal locality."""

_DYNAMIC_INDEX = -(2**31)
"""LLVM's marker for an index of getelementptr that is an operand."""


def gep(base: Value, element: Type, *indices: Value | int) -> Value:
    """``&base[sum(indices)]`` (getelementptr), with the indices added one after the other.

    A constant index becomes part of the instruction's displacement.
    """
    for index in indices:
        if isinstance(index, int):
            if index == 0:
                continue
            operands, constant = [], index
        else:
            operands, constant = [index], _DYNAMIC_INDEX
        constants = ir.DenseI32ArrayAttr.get([constant])
        base = llvm.getelementptr(ptr(), base, operands, constants, element, None)
    return base


def ptr_diff(a: Value, b: Value) -> Value:
    """``a - b`` of two addresses, in bytes."""
    return sub(llvm.ptrtoint(i64(), a), llvm.ptrtoint(i64(), b))


def alloca(count: int, element: Type) -> Value:
    """Stack memory for `count` elements; to be called at the function's entry, not in a loop."""
    return llvm.alloca(ptr(), const_i64(count), element, alignment=CACHE_LINE_BYTES)


def load(
    type_: Type, source: Value, mask: Value | None = None, passthru: Value | None = None
) -> Value:
    """Load a scalar or a vector.

    Lanes outside of `mask` are not read: they are taken from the vector `passthru`, or are 0.
    """
    if mask is None:
        return llvm.load(type_, source, alignment=1)
    if passthru is None:
        passthru = const_zero(type_)
    return llvm.intr_masked_load(type_, source, mask, 1, pass_thru=passthru)


def load_first_lanes(type_: Type, source: Value, count: int) -> Value:
    """A vector whose first `count` lanes are loaded; the others are 0."""
    first = load(vector_type(count, type_.element_type), source)
    lanes = [min(lane, count) for lane in range(type_.shape[0])]
    return shuffle(first, const_zero(first.type), lanes)


def store(value: Value, target: Value, mask: Value | None = None) -> None:
    """Store a scalar or a vector; lanes outside of `mask` are not written."""
    if mask is None:
        llvm.store(value, target, alignment=1)
    else:
        llvm.intr_masked_store(value, target, mask, 1)


def store_first_lanes(value: Value, target: Value, count: int, has_masks: bool) -> None:
    """Store the first `count` lanes of a vector.

    Without mask registers, it takes stores of 1, 2, 4 and so on lanes.
    """
    lanes = value.type.shape[0]
    if count == lanes or has_masks:
        store(value, target, None if count == lanes else create_mask(lanes, const_i64(count)))
        return
    # If LLVM saw that the other lanes are not used, it would compute something else in them.
    value, start = arithmetic_fence(value), 0
    while start < count:
        size = 1 << (count - start).bit_length() - 1
        part = shuffle(value, value, range(start, start + size))
        store(part, gep(target, value.type.element_type, start))
        start += size


def store_nontemporal(value: Value, target: Value) -> None:
    """Store a vector past the caches, to an address aligned to its size.

    `store_fence` has to follow the last of these stores.
    """
    size = itemsize_of(value.type) * value.type.shape[0]
    llvm.store(value, target, alignment=size, nontemporal=True)


def store_fence() -> None:
    """Make non-temporal stores visible to other threads before any later store (``sfence``)."""
    call_intrinsic("llvm.x86.sse.sfence", None)


def prefetch(source: Value, target: int = TO_L1) -> None:
    """Prefetch a cache line to read it."""
    llvm.intr_prefetch(source, 0, target, 1)


def prefetch_for_write(address: Value) -> None:
    """Prefetch a cache line into L1 to write it."""
    llvm.intr_prefetch(address, 1, TO_L1, 1)


def lane_in_aligned_vector(address: Value, itemsize: int, lanes: int) -> Value:
    """The lane of an element in the aligned vector of `lanes` elements that contains it.

    The address counts as if it were aligned to the element's size.
    """
    elements = arith.shrui(llvm.ptrtoint(i64(), address), const_i64(itemsize.bit_length() - 1))
    return mod_power_of_two(elements, lanes)


def elements_until_aligned(address: Value, itemsize: int, lanes: int) -> Value:
    """The number of elements from an element to the next one at which a vector is aligned."""
    minus_lane = sub(const_i64(0), lane_in_aligned_vector(address, itemsize, lanes))
    return mod_power_of_two(minus_lane, lanes)


def misalignment(address: Value, itemsize: int) -> Value:
    """Bytes by which an element's address is not a multiple of its size."""
    return mod_power_of_two(llvm.ptrtoint(i64(), address), itemsize)
