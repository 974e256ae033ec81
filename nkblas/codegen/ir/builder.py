"""The few IR operations that the generators use, over MLIR's builders.

Addresses are plain LLVM pointers, so that a generated function has the C ABI; arithmetic is in the
`arith` and `vector` dialects, loops are `scf`. A value's element type decides what is emitted, so
one generator serves every dtype.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mlir import ir
from mlir.dialects import arith, llvm, scf, vector

from nkblas.base.dtypes import DTYPES, FLOAT8, ITEMSIZE, REAL_PART

LINE = 64
"""Bytes of a cache line."""

SEGMENT = 16
"""Bytes of a vector within which lanes are moved at the lowest cost."""

PREFETCH = 1024
"""How many bytes ahead an operand from beyond the caches is fetched."""

Value = Any  # an `ir.Value`; the bindings have no stubs


def i64() -> Any:
    return ir.IntegerType.get_signless(64)


def ptr() -> Any:
    return llvm.PointerType.get()


def element_type(dtype: str) -> Any:
    """What an element is in memory: a complex number a vector of two.

    Of floats in formats that LLVM does not know everywhere, it is their bits.

    (Of bfloat16, LLVM makes calls to a library where it has no instruction.)
    """
    if dtype in REAL_PART:
        return vector_of(2, element_type(REAL_PART[dtype]))
    if dtype == "bfloat16":
        return integer(16)
    if dtype in FLOAT8:
        return integer(8)
    if DTYPES[dtype].kind in ("integer", "bool"):
        return integer(8 * ITEMSIZE[dtype])
    return {
        "float32": ir.F32Type,
        "float64": ir.F64Type,
        "float16": ir.F16Type,
    }[dtype].get()


def integer(bits: int) -> Any:
    return ir.IntegerType.get_signless(bits)


def is_integer(type_: Any) -> bool:
    """Whether a scalar, or a vector's elements, are integers."""
    return isinstance(getattr(type_, "element_type", type_), ir.IntegerType)


def function(
    name: str, types: Sequence[Any], section: str, attributes: dict[str, str | None]
) -> Any:
    """Add a C function without result to the module; its entry block.

    `attributes` are LLVM's function attributes.
    """
    text = ir.StringAttr.get
    passthrough = [
        text(key) if value is None else ir.ArrayAttr.get([text(key), text(value)])
        for key, value in attributes.items()
    ]
    signature = f"!llvm.func<void ({', '.join(str(t) for t in types)})>"
    op = ir.Operation.create(
        "llvm.func",
        attributes={
            "sym_name": text(name),
            "function_type": ir.TypeAttr.get(ir.Type.parse(signature)),
            "linkage": ir.Attribute.parse("#llvm.linkage<external>"),
            "CConv": ir.Attribute.parse("#llvm.cconv<ccc>"),
            "visibility_": ir.IntegerAttr.get(i64(), 0),
            "section": text(section),
            "passthrough": ir.ArrayAttr.get(passthrough),
        },
        regions=1,
    )
    return op.regions[0].blocks.append(*types)


def return_() -> None:
    ir.Operation.create("llvm.return")


def const(value: int) -> Value:
    """An i64 constant."""
    return arith.constant(i64(), value)


def add(a: Value, b: Value) -> Value:
    return arith.addi(a, b)


def sub(a: Value, b: Value) -> Value:
    return arith.subi(a, b)


def mul(a: Value, b: Value) -> Value:
    return arith.muli(a, b)


def minimum(a: Value, b: Value) -> Value:
    return arith.minsi(a, b)


def round_down(value: Value, multiple: int) -> Value:
    """The largest multiple of a power of two that is not above `value`."""
    return arith.andi(value, const(-multiple))


def whole(value: Value, multiple: int) -> Value:
    """The largest multiple of any number that is not above `value`, which is not negative."""
    return sub(value, arith.remui(value, const(multiple)))


def modulo(value: Value, power: int) -> Value:
    """`value` modulo a power of two: not negative, whatever `value` is."""
    return arith.andi(value, const(power - 1))


def vector_of(lanes: int, element: Any) -> Any:
    return ir.VectorType.get([lanes], element)


def plus(a: Value, b: Value) -> Value:
    """The sum of two elements, or of the lanes of two vectors; integers wrap."""
    return (arith.addi if is_integer(a.type) else arith.addf)(a, b)


def times(a: Value, b: Value) -> Value:
    """The product of two elements, or of the lanes of two vectors; integers wrap."""
    return (arith.muli if is_integer(a.type) else arith.mulf)(a, b)


def negative(a: Value) -> Value:
    return arith.negf(a)


def divide(a: Value, b: Value) -> Value:
    return arith.divf(a, b)


def float_less(a: Value, b: Value) -> Value:
    """Where floats are less than others; NaN is not."""
    return arith.cmpf(arith.CmpFPredicate.OLT, a, b)


def _is_less(a: Value, b: Value) -> Value:
    return less(a, b) if is_integer(a.type) else float_less(a, b)


def at_least(value: Value, least: Value) -> Value:
    """The larger of two; NaN if `value` is."""
    return select(_is_less(value, least), least, value)


def at_most(value: Value, most: Value) -> Value:
    """The smaller of two; NaN if `value` is."""
    return select(_is_less(most, value), most, value)


def bounded(value: Value, least: Value, most: Value) -> Value:
    """What of a range is nearest; NaN if `value` is."""
    return at_most(at_least(value, least), most)


def absolute(value: Value) -> Value:
    bits = bits_of(value)
    size = both(bits, constant(bits.type, (1 << bits.type.element_type.width - 1) - 1))
    return float_of(size, value.type.element_type)


def copy_sign(size: Value, value: Value) -> Value:
    """`size`, which is not negative, with the signs of `value`."""
    bits = bits_of(value)
    sign = both(bits, constant(bits.type, -1 << bits.type.element_type.width - 1))
    return float_of(any_of(bits_of(size), sign), value.type.element_type)


def number(value: Value, type_: Any) -> Value:
    """A float64 scalar as one of another type."""
    return arith.fptosi(type_, value) if is_integer(type_) else convert(value, type_)


def float_nonzero(value: Value) -> Value:
    """Whether a scalar is not 0; NaN is not."""
    return arith.cmpf(arith.CmpFPredicate.UNE, value, zero(value.type))


def convert(value: Value, type_: Any) -> Value:
    """A float64 scalar in another floating-point type."""
    return value if value.type == type_ else arith.truncf(type_, value)


def zero(type_: Any) -> Value:
    """Zero, as a scalar or in every lane of a vector."""
    return constant(type_, 0.0)


def one(type_: Any) -> Value:
    """One, as a scalar or in every lane of a vector."""
    return constant(type_, 1.0)


def constant(type_: Any, number: float) -> Value:
    """A number, as a scalar or in every lane of a vector."""
    element = getattr(type_, "element_type", type_)
    value: Any
    if is_integer(element):
        value = ir.IntegerAttr.get(element, int(number))
    else:
        value = ir.FloatAttr.get(element, number)
    if isinstance(type_, ir.VectorType):
        value = ir.DenseElementsAttr.get_splat(type_, value)
    return arith.constant(type_, value)


def address(base: Value, index: Value | int, element: Any) -> Value:
    """``&base[index]``; a constant index becomes part of the instruction's displacement."""
    if isinstance(index, int):
        if index == 0:
            return base
        return llvm.getelementptr(ptr(), base, [], ir.DenseI32ArrayAttr.get([index]), element, None)
    dynamic = -(2**31)  # LLVM's marker for "see the operands"
    return llvm.getelementptr(
        ptr(), base, [index], ir.DenseI32ArrayAttr.get([dynamic]), element, None
    )


def distance(first: Value, second: Value) -> Value:
    """Bytes from one address to another."""
    return sub(llvm.ptrtoint(i64(), second), llvm.ptrtoint(i64(), first))


def at(base: Value, element: Any, *indices: Value | int) -> Value:
    """``&base[sum(indices)]``, the indices added one after the other."""
    for index in indices:
        base = address(base, index, element)
    return base


def _itemsize(type_: Any) -> int:
    element = type_.element_type if isinstance(type_, ir.VectorType) else type_
    return int(element.width) // 8


def call(name: str, result: Any, *operands: Value) -> Value:
    """Call one of LLVM's intrinsics."""
    op = ir.Operation.create(
        "llvm.call_intrinsic",
        results=[] if result is None else [result],
        operands=list(operands),
        attributes={
            "intrin": ir.StringAttr.get(name),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(operands), 0]),
            "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
        },
    )
    return None if result is None else op.result


def load(
    type_: Any, source: Value, mask: Value | None = None, otherwise: Value | None = None
) -> Value:
    """Load a scalar or a vector, from anywhere.

    What `mask` leaves out is not read, and is as in the vector `otherwise`, or 0.
    """
    if mask is None:
        return llvm.load(type_, source, alignment=1)
    if otherwise is None:
        otherwise = zero(type_)
    return llvm.intr_masked_load(type_, source, mask, 1, pass_thru=otherwise)


def store(value: Value, target: Value, mask: Value | None = None) -> None:
    if mask is None:
        llvm.store(value, target, alignment=1)
    else:
        llvm.intr_masked_store(value, target, mask, 1)


def store_first(value: Value, target: Value, live: int, masked: bool) -> None:
    """Store the first `live` lanes of a vector, `masked` or as vectors of 1, 2, 4 and so on."""
    lanes = value.type.shape[0]
    if live == lanes or masked:
        store(value, target, None if live == lanes else first_lanes(lanes, const(live)))
        return
    # if LLVM saw that nobody wants the other lanes, it would put something else into them
    value, start = opaque(value), 0
    while start < live:
        size = 1 << (live - start).bit_length() - 1
        part = shuffle(value, value, range(start, start + size))
        store(part, address(target, start, value.type.element_type))
        start += size


def store_past_caches(value: Value, target: Value) -> None:
    """Store a vector at an address that is aligned for it; `flush` comes after the last."""
    size = _itemsize(value.type) * value.type.shape[0]
    llvm.store(value, target, alignment=size, nontemporal=True)


def flush() -> None:
    """See to it that other threads see what went past the caches before whatever comes after."""
    call("llvm.x86.sse.sfence", None)


def load_first(type_: Any, source: Value, count: int) -> Value:
    """A vector of so many lanes, and zeros."""
    first = load(vector_of(count, type_.element_type), source)
    lanes = [min(lane, count) for lane in range(type_.shape[0])]
    return shuffle(first, zero(first.type), lanes)


def lane_of(address: Value, itemsize: int, lanes: int) -> Value:
    """The lane that an element has in the aligned vector, of so many of them, that it lies in.

    What is not a multiple of its size away from there counts as if it was.
    """
    elements = arith.shrui(llvm.ptrtoint(i64(), address), const(itemsize.bit_length() - 1))
    return modulo(elements, lanes)


def until_aligned(address: Value, itemsize: int, lanes: int) -> Value:
    """The number of elements between an element's address and the next one for a whole vector."""
    return modulo(sub(const(0), lane_of(address, itemsize, lanes)), lanes)


def misaligned(address: Value, itemsize: int) -> Value:
    """How many bytes an element is away from where it would be aligned to its size."""
    return modulo(llvm.ptrtoint(i64(), address), itemsize)


def rotate(value: Value, lanes: Value) -> Value:
    """Move each lane of a 256- or 512-bit vector down by `lanes`; the first ones come last."""
    size = _itemsize(value.type)
    words = value.type.shape[0] * size // 4
    of_words = vector_of(words, ir.F32Type.get())
    order = vector_of(words, integer(32))
    first = vector.broadcast(order, arith.trunci(integer(32), mul(lanes, const(size // 4))))
    rotated = call(
        {8: "llvm.x86.avx2.permps", 16: "llvm.x86.avx512.permvar.sf.512"}[words],
        of_words,
        vector.bitcast(of_words, value),
        # the instruction takes what it needs of each index, and so wraps around
        arith.addi(_steps(order), first),
    )
    return vector.bitcast(value.type, rotated)


def opaque(value: Value) -> Value:
    """`value`, of which LLVM does not see what it was made from."""
    lanes, bits = value.type.shape[0], value.type.element_type.width
    size = max(bits, 32)
    lanes = lanes * bits // size
    floats = vector_of(lanes, {32: ir.F32Type, 64: ir.F64Type}[size].get())
    fenced = call(f"llvm.arithmetic.fence.v{lanes}f{size}", floats, bitcast(floats, value))
    return bitcast(value.type, fenced)


def bitcast(type_: Any, value: Value) -> Value:
    """The bits of a vector as one of another type of the same size."""
    return value if value.type == type_ else vector.bitcast(type_, value)


def _steps(type_: Any) -> Value:
    """0, 1, 2 and so on, in a vector of integers."""
    numbers = [ir.IntegerAttr.get(type_.element_type, lane) for lane in range(type_.shape[0])]
    return arith.constant(type_, ir.DenseElementsAttr.get(numbers, type=type_))


def splat(scalar: Value, vector_type: Any) -> Value:
    return vector.broadcast(vector_type, scalar)


def fma(a: Value, b: Value, c: Value) -> Value:
    """``a * b + c``, fused where the target can (LLVM splits it where it can't)."""
    return plus(times(a, b), c) if is_integer(c.type) else vector.fma(a, b, c)


def first_lanes(lanes: int, count: Value) -> Value:
    """A mask of `lanes` bits of which the first `count` are set; `count` may be out of range."""
    vector_type = vector_of(lanes, integer(32))
    bounded = arith.maxsi(minimum(count, const(lanes)), const(0))
    limit = vector.broadcast(vector_type, arith.trunci(integer(32), bounded))
    return arith.cmpi(arith.CmpIPredicate.slt, _steps(vector_type), limit)


L1, L2 = 3, 2
"""Where to prefetch to: LLVM's degrees of temporal locality."""


def prefetch(source: Value, level: int = L1) -> None:
    llvm.intr_prefetch(source, 0, level, 1)


def prefetch_for_write(target: Value) -> None:
    llvm.intr_prefetch(target, 1, 3, 1)


def loop(
    stop: Value,
    carried: Sequence[Value],
    body: Callable[[Value, list[Value]], Sequence[Value]],
    start: Value | None = None,
    step: int = 1,
) -> list[Value]:
    """``for (i = start; i < stop; i += step)``; `body(i, carried)` returns the next `carried`."""
    op = scf.ForOp(const(0) if start is None else start, stop, const(step), list(carried))
    with ir.InsertionPoint(op.body):
        scf.yield_(list(body(op.induction_variable, list(op.inner_iter_args))))
    return list(op.results_)


def either(
    condition: Value,
    then: Callable[[], Sequence[Value]],
    otherwise: Callable[[], Sequence[Value]],
    types: Sequence[Any] = (),
) -> list[Value]:
    """``condition ? then() : otherwise()``, of which only one runs."""
    op = scf.IfOp(condition, list(types), has_else=True)
    for block, branch in ((op.then_block, then), (op.else_block, otherwise)):
        with ir.InsertionPoint(block):
            scf.yield_(list(branch()))
    return list(op.results_)


def when(
    condition: Value, then: Callable[[], Sequence[Value]], otherwise: Sequence[Value]
) -> list[Value]:
    """``condition ? then() : otherwise``, with `then` run only where the condition holds."""
    return either(condition, then, lambda: otherwise, [v.type for v in otherwise])


def nonzero(value: Value) -> Value:
    return arith.cmpi(arith.CmpIPredicate.ne, value, const(0))


def but_for(mask: Value, other: Value) -> Value:
    """What is set in `mask` and not in `other`, which has no lane that `mask` lacks."""
    return arith.xori(mask, other)


def select(condition: Value, a: Value, b: Value) -> Value:
    return arith.select(condition, a, b)


def is_zero(value: Value) -> Value:
    return arith.cmpi(arith.CmpIPredicate.eq, value, const(0))


def less(a: Value, b: Value) -> Value:
    return arith.cmpi(arith.CmpIPredicate.slt, a, b)


def shuffle(a: Value, b: Value, lanes: Sequence[int]) -> Value:
    """Lanes of two vectors of one type; those of `b` are counted on from those of `a`."""
    return vector.shuffle(a, b, list(lanes))


def interleave(a: Value, b: Value, segment: int) -> tuple[Value, Value]:
    """In each segment of so many lanes, the two halves of ``a0 b0 a1 b1 …``."""
    lanes = a.type.shape[0]
    first = [
        start + lane // 2 + (lane % 2) * lanes
        for start in range(0, lanes, segment)
        for lane in range(segment)
    ]
    return vector.shuffle(a, b, first), vector.shuffle(a, b, [i + segment // 2 for i in first])


def concatenate(parts: Sequence[Value]) -> Value:
    """One vector of two to the power of something vectors of the same length."""
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.shape[0])
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [vector.shuffle(a, b, list(lanes)) for a, b in pairs]
    return parts[0]


def allocate(count: int, element: Any) -> Value:
    """Memory for so many elements, on the stack of the function: at its entry, not in a loop."""
    return llvm.alloca(ptr(), const(count), element, alignment=LINE)


def like(value: Value, element: Any) -> Any:
    """The type of as many elements as `value` has, a scalar or a vector."""
    return vector_of(value.type.shape[0], element) if is_vector(value) else element


def is_vector(value: Value) -> bool:
    return isinstance(value.type, ir.VectorType)


def extend(value: Value, bits: int, signed: bool) -> Value:
    """Integers as wider ones."""
    return (arith.extsi if signed else arith.extui)(like(value, integer(bits)), value)


def truncate(value: Value, bits: int) -> Value:
    """The lower bits of integers."""
    return arith.trunci(like(value, integer(bits)), value)


def differs(a: Value, b: Value) -> Value:
    """Where integers differ."""
    return arith.cmpi(arith.CmpIPredicate.ne, a, b)


def above(a: Value, b: Value) -> Value:
    """Where an integer is above another one, neither of them signed."""
    return arith.cmpi(arith.CmpIPredicate.ugt, a, b)


def both(a: Value, b: Value) -> Value:
    return arith.andi(a, b)


def any_of(a: Value, b: Value) -> Value:
    """The bits, or conditions, of either."""
    return arith.ori(a, b)


def flipped(a: Value, b: Value) -> Value:
    return arith.xori(a, b)


def shift_left(value: Value, bits: int) -> Value:
    return arith.shli(value, constant(value.type, bits))


def shift_right(value: Value, bits: int) -> Value:
    return arith.shrui(value, constant(value.type, bits))


def float_extend(value: Value, element: Any) -> Value:
    return arith.extf(like(value, element), value)


def float_truncate(value: Value, element: Any) -> Value:
    """Floats as narrower ones, rounded to the nearest, to even in a tie."""
    return arith.truncf(like(value, element), value)


def bfloat16() -> Any:
    return ir.BF16Type.get()


def from_integer(value: Value, element: Any) -> Value:
    """Signed integers as floats."""
    return arith.sitofp(like(value, element), value)


def to_integer(value: Value, bits: int) -> Value:
    """Floats as signed integers, without what comes after the point."""
    return arith.fptosi(like(value, integer(bits)), value)


def nearest(value: Value) -> Value:
    """The whole numbers nearest to float32, even ones in a tie, if they are below 2**22."""
    magic = constant(value.type, 1.5 * 2.0**23)
    return plus(plus(value, magic), negative(magic))


def bits_of(value: Value) -> Value:
    """Floats as the integers that their bits make."""
    element = getattr(value.type, "element_type", value.type)
    type_ = like(value, integer(element.width))
    return bitcast(type_, value) if is_vector(value) else arith.bitcast(type_, value)


def float_of(value: Value, element: Any) -> Value:
    """The floats that integers are the bits of."""
    type_ = like(value, element)
    return bitcast(type_, value) if is_vector(value) else arith.bitcast(type_, value)


def alternating(type_: Any, even: float, odd: float) -> Value:
    """A vector of floats that takes turns between two numbers."""
    element = type_.element_type
    numbers = [ir.FloatAttr.get(element, (even, odd)[i % 2]) for i in range(type_.shape[0])]
    return arith.constant(type_, ir.DenseElementsAttr.get(numbers, type=type_))


def tile() -> Any:
    """The type of a tile register."""
    return ir.Type.parse("!llvm.x86_amx")


def short(value: int) -> Value:
    """An i16 constant."""
    return arith.constant(integer(16), value)
