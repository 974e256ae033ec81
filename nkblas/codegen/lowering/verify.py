"""Verification: every new kernel is run against a NumPy reference before it is used or stored.

The operands hold small integers, so that sums are exact in any order and results compare for
equality; memory around an output has to stay as it was. Every case is run twice, with each operand
at the end of a guarded area and at its start (`guard_pages`): a kernel that reads or writes a byte
beyond an operand ends the process.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict

import numpy as np

from nkblas._engine import ffi
from nkblas.base.dtypes import DTYPES, FLOAT8, ITEMSIZE, Float8, numpy_name
from nkblas.base.epilogues import ACTIVATIONS, apply, parse
from nkblas.base.isa import ISAS
from nkblas.codegen.spec import (
    Copy,
    Dot,
    DotStack,
    KernelSpec,
    Microkernel,
    Mirror,
    Pack,
    Peak,
    Small,
    Stream,
    Triangular,
)

from .guard_pages import Areas, Array, extent

if TYPE_CHECKING:
    from nkblas._engine import CData

Arguments: TypeAlias = dict[str, Any]
"""Fields of an ``nk_call_args``."""

AT_END = (True, False)
"""Whether operands are at the end of their guarded areas; otherwise they are at the start."""

BOUNDS = -3, 5
"""Bounds for the activation "clip"."""

ZERO_POINT = 3
"""Added to results that saturate."""


class WrongKernelError(RuntimeError):
    """A kernel computed something else than its specification says."""


class _Test(NamedTuple):
    """The function to check, and the resources for it.

    Attributes
    ----------
    kernel : CData
        The function.
    generator : Generator
    areas : Areas
    """

    kernel: "CData"
    generator: np.random.Generator
    areas: Areas

    def guard(self, at_end: bool, **arrays: Array) -> list[Array]:
        """Copies of arrays in guarded areas with their names."""
        return [self.areas.copy_in(name, array, at_end) for name, array in arrays.items()]


def check(spec: KernelSpec, address: int) -> None:
    """Verify the function of `spec` at `address`.

    Raises
    ------
    WrongKernelError
        A result is not the reference's.
    """
    c_type, check_kind = _CHECKS[type(spec)]
    kernel = ffi.cast(c_type, address)
    check_kind(spec, _Test(kernel, np.random.default_rng(0), Areas()))


# ---- operands ----


def _pointer(array: Array) -> "CData":
    return ffi.cast("void *", array.ctypes.data)


def _strides(array: Array) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def _with_leading_dimensions(arrays: Sequence[Array]) -> list[object]:
    """The address and the leading dimension of each array, as kernels take them."""
    return [x for array in arrays for x in (_pointer(array), _strides(array)[0])]


def _integers(generator: np.random.Generator, dtype: str, *shape: int) -> Array:
    """Random small integers, encoded in `dtype`; for 8-bit integers, random numbers."""
    if numpy_name(dtype) in ("int8", "uint8"):
        return generator.integers(0, 256, shape).astype(np.uint8).view(numpy_name(dtype))
    if dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype in FLOAT8:
        numbers = _float8_values(FLOAT8[dtype])
        is_exact = np.abs(numbers * 4) % 1 == 0
        encodings: Array = generator.choice(np.flatnonzero(is_exact), shape)
        return encodings.astype(np.uint8)
    values = generator.integers(-9, 10, shape).astype(np.float64)
    if DTYPES[dtype].kind == "complex":
        values = values + 1j * generator.integers(-9, 10, shape)
    return _encode(values, dtype)


def _encode(values: Array, dtype: str) -> Array:
    """Numbers in `dtype`; for bfloat16, which NumPy lacks, its bits."""
    if DTYPES[dtype].saturates:
        limits = np.iinfo(numpy_name(dtype))
        rounded: Array = np.rint(values) + ZERO_POINT
        return rounded.clip(limits.min, limits.max).astype(limits.dtype)
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32)
    encoded: Array = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return encoded


def _decode(array: Array, dtype: str) -> Array:
    """The numbers that `array` encodes, in a type that holds sums of their products."""
    if dtype in FLOAT8:
        array = _float8_values(FLOAT8[dtype])[array]
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    kind = DTYPES[dtype].kind
    numbers: Array = array.astype({"float": "float64", "complex": "complex128"}.get(kind, "int64"))
    return numbers


def _float8_values(form: Float8) -> Array:
    """The numbers from -8 to 8 that bytes encode; NaN for all other bytes."""
    byte = np.arange(256)
    exponent, mantissa = byte % 128 >> form.mantissa, byte % (1 << form.mantissa)
    leading = np.minimum(exponent, 1)
    scale = 2.0 ** (np.maximum(exponent, 1) - form.bias)
    magnitude = (leading + mantissa * 2.0**-form.mantissa) * scale
    numbers = np.where(byte < 128, magnitude, -magnitude)
    return np.where((magnitude <= 8) & (byte != 128), numbers, np.nan)


def _panel(lines: Array, width: int, group: int, step: int) -> Array:
    """Lines of k elements, packed as `nkblas.codegen.spec.Pack` says."""
    count, k = lines.shape
    padded = np.zeros((width, -(-k // step) * step), lines.dtype)
    padded[:, :k] = lines[np.minimum(np.arange(width), count - 1)]
    return np.ascontiguousarray(padded.reshape(width, -1, group).transpose(1, 0, 2)).reshape(-1)


def _compensation(panel: Array, width: int, group: int, factor: int) -> Array:
    """The compensation row of a panel."""
    sums = panel.reshape(-1, width, group).astype(np.int64).sum((0, 2))
    row: Array = (factor * sums).astype(np.int32)
    return row


def _transpose_with_gap(matrix: Array, gap: int) -> Array:
    """The transpose, in rows that are `gap` elements apart."""
    return np.ascontiguousarray(np.pad(matrix, ((0, gap), (0, 0))).T)[:, : len(matrix)]


def _poison(c: Array) -> None:
    """Fill a matrix that must not be read: with NaN, if it holds floats."""
    c[...] = np.frombuffer(b"\xff" * c.itemsize, c.dtype)[0]


# ---- references ----


class _Factors(NamedTuple):
    """alpha, beta, and the signs of imaginary parts, as fields of an ``nk_call_args``."""

    alpha: complex = 1
    beta: complex = 0
    a_imag_sign: float = 1
    c_imag_sign: float = 1

    def fields(self) -> Arguments:
        """The fields of an ``nk_call_args``."""
        return {
            "alpha": self.alpha.real,
            "beta": self.beta.real,
            "alpha_imag": self.alpha.imag,
            "beta_imag": self.beta.imag,
            "a_imag_sign": self.a_imag_sign,
            "c_imag_sign": self.c_imag_sign,
        }

    def product(self, a: Array, b: Array) -> Array:
        """The product of conjugate operands, without alpha."""
        if np.iscomplexobj(a):
            a = a.real + 1j * self.a_imag_sign * a.imag
        product: Array = np.einsum("ip,pj->ij", a, b)
        if np.iscomplexobj(product):
            product = product.real + 1j * self.c_imag_sign * product.imag
        return product


def _factors_to_check(epilogue: str, dtype: str) -> list[_Factors]:
    """The factors that an epilogue is checked with."""
    if not parse(epilogue).kind:
        return [_Factors()]
    if DTYPES[dtype].kind != "complex":
        return [_Factors(-2, 0.5), _Factors(3, 0)]
    return [
        _Factors(2 - 1j, 1 + 3j),
        _Factors(3, 0, a_imag_sign=-1),
        _Factors(1j, 0.5, c_imag_sign=-1),
        _Factors(1, 2j, -1, -1),
    ]


def _compare(
    spec: KernelSpec,
    got: Array,
    expected: Array,
    case: str,
    tolerance: tuple[float, float] = (0, 0),
) -> None:
    """Compare elements, and the memory between them; `tolerance` is relative and absolute."""
    got, expected = (extent(x).view(x.dtype) for x in (got, expected))
    if any(tolerance) and isinstance(spec, Microkernel):
        got, expected = (_decode(x, spec.types.c) for x in (got, expected))
        is_same = np.allclose(got, expected, *tolerance)
    else:
        is_same = np.array_equal(got, expected)
    if not is_same:
        raise WrongKernelError(f"{spec.symbol} is wrong at {case}")


# ---- microkernels ----


def _check_microkernel(spec: Microkernel, test: _Test) -> None:
    lanes, nr = spec.descriptor.lanes(ISAS[spec.isa]), spec.nr
    widths = list(range(nr - lanes + 1, nr + 1)) if spec.masked else [nr]
    if spec.descriptor.tile_rows:
        widths = [1, nr - 1, nr, 3 * nr - lanes]
    epilogue, types = parse(spec.epilogue), spec.types
    accumulates = (0,) if epilogue.scales else (0, 1)  # scaled sums are never added to C
    for steps, n, accumulate in itertools.product((1, 2, 19), widths, accumulates):
        case = _MicrokernelCase(spec, test, steps, n)
        for factors in _factors_to_check(spec.epilogue, types.accumulator):
            for is_last in (1, 0) if epilogue.is_fused else (1,):
                if is_last or types.accumulator == types.c:
                    case.run(accumulate, factors, is_last)
        # Kernels on tile registers start from the sums of the block before; others add them as C.
        keeps_sums = types.accumulator != types.c or (
            spec.descriptor.tile_rows and epilogue.kind != "scale"
        )
        if keeps_sums and (spec.descriptor.tile_rows or n == widths[-1]):
            case.run_in_k_blocks(accumulate)


class _GuardedOperands(TypedDict):
    """Addresses of a microkernel's operands in guarded areas."""

    a: "CData"
    b: "CData"
    args: Arguments


class _MicrokernelCase:
    """Operands of a microkernel of one size, and the reference's result for them.

    Attributes
    ----------
    a, b : ndarray
        The numbers to multiply.
    a_memory, b_memory : ndarray
        The operands as the kernel reads them.
    lda, ldb : int
    b_elements : ndarray
        B as the kernel reads it, but not packed: the kernel's own panel, if it packs.
    c, bias, scales, residual : ndarray
    blocks : list of _MicrokernelCase
        The blocks of a batch-reduce product, this case first.
    """

    def __init__(self, spec: Microkernel, test: _Test, steps: int, n: int) -> None:
        self.spec, self.test, self.steps, self.n = spec, test, steps, n
        types, generator = spec.types, test.generator
        k, self.width = steps * spec.descriptor.k_step, -(-n // spec.nr) * spec.nr
        a, b = (
            _integers(generator, types.a, spec.mr, k),
            _integers(generator, types.b, k, self.width),
        )
        if types.c == "bool":
            a, b = a & 1, b & 1  # packing converts bytes to 0 or 1
        self.a, self.b = _decode(a, types.a), _decode(b[:, :n], types.b)
        self.b_elements = b
        self.a_memory, self.lda = self._a_in_memory(a)
        self.b_memory, self.ldb = self._b_in_memory(b)
        self.c = _integers(generator, types.c, spec.mr, self.width + 7)
        self.blocks = [self]
        if spec.batch_reduce:
            single = spec._replace(batch_reduce=False)
            self.blocks += [_MicrokernelCase(single, test, steps, n) for _ in range(2)]
        self.epilogue = parse(spec.epilogue)
        self.bias_dtype = "float32" if self.epilogue.scales else types.accumulator
        biases = spec.mr if self.epilogue.bias == "rows" else self.width  # whole vectors
        self.bias = _integers(generator, self.bias_dtype, biases)
        exponents = generator.integers(-12, -6, self.width)
        self.scales = (2.0**exponents).astype(np.float32)
        self.residual = _integers(generator, types.c, spec.mr, self.width + 5)
        self.guarded = {at_end: self._guard_operands(at_end) for at_end in AT_END}

    def _a_in_memory(self, a: Array) -> tuple[Array, int]:
        """A as the kernel reads it, and its leading dimension."""
        spec, family, k = self.spec, self.spec.descriptor, a.shape[1]
        if spec.a_layout == "row":
            return np.pad(a, ((0, 0), (0, 3)))[:, :k], k + 3
        if family.k_group_a == 1:
            return _transpose_with_gap(a, 4), spec.mr + 4
        return _panel(a, spec.mr, family.k_group_a, family.k_step), spec.mr

    def _b_in_memory(self, b: Array) -> tuple[Array, int]:
        """B as the kernel reads it, and its leading dimension."""
        spec, family = self.spec, self.spec.descriptor
        group, nr = family.k_group_b, spec.nr
        if group == 1:
            # Columns beyond n do not count, but without masks they are read.
            can_mask = ISAS[spec.isa].can_mask(ITEMSIZE[spec.types.b])
            columns = self.n if can_mask else self.width
            memory, ldb = np.pad(b, ((0, 0), (0, 5)))[:, :columns], self.width + 5
        else:
            panels = [b[:, j : j + nr] for j in range(0, self.width, nr)]
            packed = [_panel(panel.T, nr, group, family.k_step) for panel in panels]
            memory, ldb = np.concatenate(packed), nr
        if family.compensation:
            row = _compensation(memory, nr, group, family.compensation)
            memory = np.concatenate((row.view(memory.dtype), memory))
        return memory, ldb

    def _guard_operands(self, at_end: bool) -> _GuardedOperands:
        """Copy the operands to guarded areas; operands that the kernel does not use are NULL."""
        spec, epilogue = self.spec, self.epilogue

        def guard(name: str, array: Array, is_used: object = True) -> "CData":
            if not is_used:
                return ffi.NULL
            return _pointer(self.test.areas.copy_in(f"{name} {at_end}", array, at_end))

        a = [guard(f"a{i}", block.a_memory) for i, block in enumerate(self.blocks)]
        b = [guard(f"b{i}", block.b_memory) for i, block in enumerate(self.blocks)]
        args = {
            "bias": guard("bias", self.bias, epilogue.bias),
            "residual": guard("residual", self.residual[:, : self.n], epilogue.residual),
            "ldr": self.residual.shape[1],
            "clip_low": BOUNDS[0],
            "clip_high": BOUNDS[1],
            "a_blocks": guard("a blocks", _addresses(a), spec.batch_reduce),
            "b_blocks": guard("b blocks", _addresses(b), spec.batch_reduce),
            "block_count": len(self.blocks),
            "scales": guard("scales", self.scales, epilogue.scales),
            "zero_point": ZERO_POINT,
        }
        return {"a": a[0], "b": b[0], "args": args}

    def expected(self, product: Array, c_factor: complex, is_last: int = 1) -> Array:
        """C as the kernel should leave it: `product` plus `c_factor` times C."""
        c = self.c.copy()
        dtype = self.spec.types.c
        if c_factor:
            product = product + c_factor * _decode(c[:, : self.n], dtype)
        if is_last and self.epilogue.is_fused:
            bias = _decode(self.bias, self.bias_dtype)
            residual = _decode(self.residual[:, : self.n], dtype)
            product = apply(self.epilogue, product, bias, residual, BOUNDS, self.scales)
        c[:, : self.n] = _encode(product, dtype)
        return c[:, : self.n]

    @property
    def tolerance(self) -> tuple[float, float]:
        """Relative and absolute tolerance of the results."""
        if ACTIVATIONS[self.epilogue.activation].is_exact:
            return 0, 0
        if DTYPES[self.spec.types.c].saturates:  # a result near a tie may be rounded either way
            return 0, 1
        error = {8: 1e-14, 4: 1e-5}.get(ITEMSIZE[self.spec.types.c], 2e-2)
        return error, error

    def _call(self, at_end: bool, c: Array, accumulate: int, args: Arguments) -> Array:
        """Run the kernel; returns C, in a guarded area."""
        spec, guarded = self.spec, self.guarded[at_end]
        (c,) = self.test.guard(at_end, c=c[:, : self.n])
        panel = np.zeros_like(self.b_elements)
        if spec.packs_b:
            (panel,) = self.test.guard(at_end, panel=panel)
        panel_pointer = _pointer(panel) if spec.packs_b else ffi.NULL
        call_args = ffi.new("nk_call_args *", {**args, **guarded["args"]})
        self.test.kernel(
            self.steps, guarded["a"], self.lda, guarded["b"], self.ldb, _pointer(c), _strides(c)[0],
            self.n, accumulate, panel_pointer, guarded["b"], 1, min(self.steps, 2), call_args,
        )  # fmt: skip
        if spec.packs_b:
            panel[:, self.n :] = self.b_elements[:, self.n :]  # not part of the result
            _compare(spec, panel, self.b_elements, f"k={self.steps}, n={self.n}: the panel")
        return c

    def run(self, accumulate: int, factors: _Factors, is_last: int) -> None:
        """Check the kernel on one block of k, which is the first one."""
        c_factor = 1 if accumulate else factors.beta
        before = self.c.copy()
        if c_factor == 0:
            _poison(before[:, : self.n])
        args = {**factors.fields(), "is_first_k_block": 1, "is_last_k_block": is_last}
        case = f"k={self.steps}, n={self.n}, accumulate={accumulate}, beta={factors.beta}"
        product = np.sum([factors.product(block.a, block.b) for block in self.blocks], axis=0)
        expected = self.expected(factors.alpha * product, c_factor, is_last)
        for at_end in AT_END:
            c = self._call(at_end, before, accumulate, args)
            _compare(self.spec, c, expected, f"{case}, last={is_last}", self.tolerance)

    def run_in_k_blocks(self, accumulate: int) -> None:
        """Check the kernel on two blocks of k: the second adds to the first one's sums."""
        spec, accumulator = self.spec, self.spec.types.accumulator
        c_holds_sums = accumulator == spec.types.c
        expected = self.expected(2 * _Factors().product(self.a, self.b), accumulate)
        case = f"k={self.steps}, accumulate={accumulate}: in blocks"
        for at_end in AT_END:
            c = self.c
            sums = np.full((spec.mr * self.width, ITEMSIZE[accumulator]), 0xFF, np.uint8)
            (sums,) = self.test.guard(at_end, partial_sums=sums)
            for is_first in (1, 0):
                args = {
                    **_Factors().fields(),
                    "partial_sums": _pointer(sums),
                    "is_first_k_block": is_first,
                    "is_last_k_block": 1 - is_first,
                }
                adds_sums = c_holds_sums and not is_first
                c = self._call(at_end, c, 1 if adds_sums else accumulate, args)
                if is_first and not c_holds_sums:
                    unchanged = self.c[:, : self.n]
                    _compare(spec, c, unchanged, f"k={self.steps}: C after the first block")
            _compare(spec, c, expected, case, self.tolerance)


def _addresses(pointers: list["CData"]) -> Array:
    return np.array([int(ffi.cast("uintptr_t", pointer)) for pointer in pointers], np.uintp)


# ---- kernels on operands in place ----


def _check_product(
    spec: Stream | Dot, test: _Test, sizes: tuple[int, int], matrices: Sequence[Array]
) -> None:
    """Check a product of k by n, `sizes`, with and without accumulation.

    `matrices` are A, B and C by rows, with more columns than the product has.
    """
    k, n = sizes
    a, b, c = matrices
    a, b = a[:, :k], b[:, :n]
    if spec.a_strided if isinstance(spec, Dot) else spec.a_layout == "col":
        a = _transpose_with_gap(a, 4)  # lda is not mr
    if isinstance(spec, Dot) and not spec.b_strided:
        b = _transpose_with_gap(b, 3)
    rows = matrices[0][:, :k], matrices[1][:, :n]
    for accumulate, factors in itertools.product(
        (0, 1), _factors_to_check(spec.epilogue, spec.dtype)
    ):
        c_factor = 1 if accumulate else factors.beta
        before, expected = c.copy(), c.copy()
        expected[:, :n] = factors.alpha * factors.product(*rows) + c_factor * c[:, :n]
        if c_factor == 0:
            _poison(before[:, :n])
        args = ffi.new("nk_call_args *", factors.fields())
        case = f"k={k}, n={n}, accumulate={accumulate}, beta={factors.beta}"
        for at_end in AT_END:
            guarded = test.guard(at_end, a=a, b=b, c=before[:, :n])
            operands = _with_leading_dimensions(guarded)
            test.kernel(k, *operands, n, accumulate, ffi.NULL, ffi.NULL, 0, 0, args)
            _compare(spec, guarded[2], expected[:, :n], case)


def _check_stream(spec: Stream, test: _Test) -> None:
    lanes = ISAS[spec.isa].lanes(ITEMSIZE[spec.dtype])
    depths = {1, spec.kr, 2 * spec.kr + 1}
    for k, n in itertools.product(depths, {1, lanes + 1, 3 * spec.nr - 1}):
        a = _integers(test.generator, spec.dtype, spec.mr, k + 3)
        b = _integers(test.generator, spec.dtype, k, n + 5)
        # rows of C that have the same alignment, for non-temporal stores, and others
        for width in (n + lanes - n % lanes, n + lanes - n % lanes + 1):
            c = _integers(test.generator, spec.dtype, spec.mr, width)
            _check_product(spec, test, (k, n), (a, b, c))


def _check_dot(spec: Dot, test: _Test) -> None:
    if spec.types.a != spec.types.accumulator:
        _check_widened_dot(spec, test)
        return
    lanes = ISAS[spec.isa].lanes(ITEMSIZE[spec.dtype])
    for k in (1, lanes + 1, 11 * lanes - 1, 19 * lanes):
        a = _integers(test.generator, spec.dtype, spec.mr, k + 3)
        is_strided = spec.a_strided or spec.b_strided
        for n in (spec.nr, 1 if is_strided else 3 * spec.nr - 1):
            b = _integers(test.generator, spec.dtype, k, n + 5)
            c = _integers(test.generator, spec.dtype, spec.mr, n + 7)
            _check_product(spec, test, (k, n), (a, b, c))


def _check_widened_dot(spec: Dot, test: _Test) -> None:
    types, lanes = spec.types, ISAS[spec.isa].lanes(ITEMSIZE[spec.types.accumulator])
    for k, accumulate in itertools.product((1, lanes + 1, 11 * lanes - 1), (0, 1)):
        a, b, c = (
            _integers(test.generator, dtype, 1, count)
            for dtype, count in ((types.a, k), (types.b, k), (types.c, 1))
        )
        numbers = [_decode(x, dtype) for x, dtype in ((a, types.a), (b, types.b), (c, types.c))]
        for factors in _factors_to_check(spec.epilogue, types.accumulator):
            c_factor = 1 if accumulate else factors.beta
            sums = factors.alpha * (numbers[0] @ numbers[1].T) + c_factor * numbers[2]
            before, expected = c.copy(), _encode(sums, types.c)
            if c_factor == 0:
                _poison(before)
            fields = {**factors.fields(), "is_first_k_block": 1, "is_last_k_block": 1}
            args = ffi.new("nk_call_args *", fields)
            for at_end in AT_END:
                guarded = test.guard(at_end, a=a, b=b, c=before)
                operands = _with_leading_dimensions(guarded)
                test.kernel(k, *operands, 1, accumulate, ffi.NULL, ffi.NULL, 0, 0, args)
                _compare(spec, guarded[2], expected, f"k={k}, accumulate={accumulate}")


def _check_dot_stack(spec: DotStack, test: _Test) -> None:
    _check_small(Small(spec.isa, spec.dtype, 1, 1, spec.k, "row", "col"), test)


def _check_small(spec: Small, test: _Test) -> None:
    m, n, k = spec.m, spec.n, spec.k
    for count in (1, 3):
        a = _integers(test.generator, spec.dtype, count, m * k + 3)[:, : m * k]
        b = _integers(test.generator, spec.dtype, count, k * n + 5)[:, : k * n]
        c = _integers(test.generator, spec.dtype, count, m * n + 7)
        expected = c.copy()[:, : m * n]
        a_shape, a_axes = ((m, k), "ip") if spec.a_layout == "row" else ((k, m), "pi")
        b_shape, b_axes = ((k, n), "pj") if spec.b_layout == "row" else ((n, k), "jp")
        stacks = a.reshape(count, *a_shape), b.reshape(count, *b_shape)
        products = np.einsum(f"x{a_axes},x{b_axes}->xij", *stacks)
        expected[...] = products.reshape(count, m * n)
        for at_end in AT_END:
            guarded = test.guard(at_end, a=a, b=b, c=c[:, : m * n])
            test.kernel(count, *_with_leading_dimensions(guarded))
            _compare(spec, guarded[2], expected, f"count={count}")


# ---- copies ----


def _check_pack(spec: Pack, test: _Test) -> None:
    width, lanes = spec.width, ISAS[spec.isa].lanes(4)
    counts = {1, 2, lanes - 1, lanes, lanes + 1, (width + 1) // 2, width - 1, width}
    counts &= {*range(1, width + 1)}
    for n, k in itertools.product(sorted(counts), (1, 15, 33, 64, 131)):
        source = _integers(test.generator, spec.dtype, 2 * n, 3 * k)[::2, ::3]
        if spec.source == "across":
            source = np.ascontiguousarray(source)
        elif spec.source == "along":
            source = np.asfortranarray(source)
        lines = source
        if spec.target != spec.dtype:
            lines = _encode(_decode(source, spec.dtype), spec.target)
        expected = _panel(lines, width, spec.group, spec.step)
        if spec.compensation:
            row = _compensation(expected, width, spec.group, spec.compensation)
            expected = np.concatenate((row.view(expected.dtype), expected))
        for at_end in AT_END:
            before = np.full(expected.size, 77).astype(expected.dtype)
            guarded, panel = test.guard(at_end, source=source, panel=before)
            test.kernel(n, k, _pointer(guarded), *_strides(guarded), _pointer(panel))
            _compare(spec, panel, expected, f"n={n}, k={k}")


def _check_copy(spec: Copy, test: _Test) -> None:
    source = _integers(test.generator, spec.dtype, 14, 22)[::2, ::-2]
    target = _encode(np.zeros((30, 20)), spec.dtype).T[4:18:2, 5:27:2]
    (expected,) = test.guard(True, expected=target)
    expected[...] = source
    for at_end in AT_END:
        guarded = test.guard(at_end, a=source, c=target)
        operands = [x for array in guarded for x in (_pointer(array), *_strides(array))]
        test.kernel(*source.shape, *operands)
        _compare(spec, guarded[1], expected, "strides")


def _check_mirror(spec: Mirror, test: _Test) -> None:
    for m, n in itertools.product((1, 7, 8, 19, 70), repeat=2):
        source = _integers(test.generator, spec.dtype, m, n + 3)[:, :n]
        target = _integers(test.generator, spec.dtype, n, m + 5)
        expected = target.copy()[:, :m]
        expected[...] = source.T.conj() if spec.conjugates else source.T
        for at_end in AT_END:
            guarded = test.guard(at_end, source=source, target=target[:, :m])
            test.kernel(m, n, *_with_leading_dimensions(guarded))
            _compare(spec, guarded[1], expected, f"m={m}, n={n}")


def _check_triangular(spec: Triangular, test: _Test) -> None:
    """Small integers, and inverses that are powers of 2: all operations are exact."""
    for k in (0, 1, 5, 8):
        full = _integers(test.generator, spec.dtype, spec.mr, k + spec.mr)
        diagonal = np.array([(1, 2, -1, 0.5)[i % 4] for i in range(spec.mr)], spec.dtype)
        x = _integers(test.generator, spec.dtype, k + spec.mr, spec.nr)
        expected = x.copy()
        triangle = np.tril(full[:, k:], -1)
        before = full[:, :k] @ x[:k]
        if spec.solves:
            for i in range(spec.mr):
                rest = x[k + i] - before[i] - triangle[i] @ expected[k:]
                expected[k + i] = rest * diagonal[i]
        else:
            expected[k:] = before + (triangle + np.diag(diagonal)) @ x[k:]
        full[:, k:][np.triu_indices(spec.mr)] = np.nan
        for a, at_end in itertools.product((full, np.asfortranarray(full)), AT_END):
            guarded, factors, target = test.guard(at_end, a=a, diagonal=diagonal, x=x)
            operands = (_pointer(guarded), *_strides(guarded), _pointer(factors))
            test.kernel(k, *operands, _pointer(target), spec.nr)
            _compare(spec, target, expected, f"k={k}")


def _check_peak(spec: Peak, test: _Test) -> None:
    for at_end in AT_END:
        (out,) = test.guard(at_end, out=np.zeros(4096, np.uint8))
        test.kernel(1, _pointer(out))


_CType: TypeAlias = Literal[
    "nk_microkernel", "nk_small", "nk_pack", "nk_copy", "nk_mirror", "nk_triangular", "nk_peak"
]

_CHECKS: dict[type[KernelSpec], tuple[_CType, Callable[[Any, _Test], None]]] = {
    Microkernel: ("nk_microkernel", _check_microkernel),
    Stream: ("nk_microkernel", _check_stream),
    Dot: ("nk_microkernel", _check_dot),
    Small: ("nk_small", _check_small),
    DotStack: ("nk_small", _check_dot_stack),
    Pack: ("nk_pack", _check_pack),
    Copy: ("nk_copy", _check_copy),
    Mirror: ("nk_mirror", _check_mirror),
    Triangular: ("nk_triangular", _check_triangular),
    Peak: ("nk_peak", _check_peak),
}
"""The C type of each kind's function, and the check; the spec that it takes has that type."""
