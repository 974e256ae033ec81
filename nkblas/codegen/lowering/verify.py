"""Every new kernel is run against a plain reference before anyone else runs it.

The operands hold small integers, so that sums are exact in any order and results compare for
equality; what lies around an output must stay as it was. Every operand ends, and then begins, where
memory does: a kernel that reads or writes a byte beyond it ends the process.
"""

import itertools
from typing import Any

import numpy as np

from nkblas._engine import ffi
from nkblas.base.dtypes import DTYPES, FLOAT8, ITEMSIZE, Float8, numpy_name
from nkblas.base.epilogues import ACTIVATIONS, apply, parse
from nkblas.base.isa import ISAS
from nkblas.codegen.spec import Copy, Dot, KernelSpec, Microkernel, Pack, Peak, Small, Stream

from .guard_pages import Areas, extent


class WrongKernelError(RuntimeError):
    """A kernel computed something else than its contract says."""


def check(spec: KernelSpec, address: int) -> None:
    """Run the function of `spec` at `address`.

    Raises
    ------
    WrongKernelError
        A result is not the reference's.
    """
    generator, areas = np.random.default_rng(0), Areas()
    if isinstance(spec, Microkernel):
        _check_microkernel(spec, ffi.cast("nk_microkernel", address), generator, areas)
    elif isinstance(spec, Small):
        _check_small(spec, ffi.cast("nk_small", address), generator, areas)
    elif isinstance(spec, Stream):
        _check_stream(spec, ffi.cast("nk_microkernel", address), generator, areas)
    elif isinstance(spec, Dot):
        _check_dot(spec, ffi.cast("nk_microkernel", address), generator, areas)
    elif isinstance(spec, Pack):
        _check_pack(spec, ffi.cast("nk_pack", address), generator, areas)
    elif isinstance(spec, Copy):
        _check_copy(spec, ffi.cast("nk_copy", address), generator, areas)
    elif isinstance(spec, Peak):
        for at_end in ENDS:
            room = areas.hold("out", np.zeros(4096, np.uint8), at_end)
            ffi.cast("nk_peak", address)(1, _pointer(room))


ENDS = (True, False)
"""Where memory ends around an operand: behind it, before it."""


def _pointer(array: np.ndarray) -> object:
    return ffi.cast("void *", array.ctypes.data)


def _strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)


def _integers(generator: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    """Small integers, as the dtype has them in memory; of bytes, all there are."""
    if numpy_name(dtype) in ("int8", "uint8"):
        return generator.integers(0, 256, shape).astype(np.uint8).view(numpy_name(dtype))
    if dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype in FLOAT8:
        numbers = _float8(FLOAT8[dtype])
        return generator.choice(np.flatnonzero(np.abs(numbers * 4) % 1 == 0), shape).astype(
            np.uint8
        )
    values = generator.integers(-9, 10, shape).astype(np.float64)
    if DTYPES[dtype].kind == "complex":
        values = values + 1j * generator.integers(-9, 10, shape)
    return _encode(values, dtype)


def _encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as a dtype has them in memory; of bfloat16, which NumPy lacks, the bits."""
    if DTYPES[dtype].saturates:
        ends = np.iinfo(numpy_name(dtype))
        return np.clip(np.rint(values) + ZERO, ends.min, ends.max).astype(ends.dtype)
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _decode(array: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers, in a type that holds sums of their products."""
    if dtype in FLOAT8:
        array = _float8(FLOAT8[dtype])[array]
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    kind = DTYPES[dtype].kind
    return array.astype({"float": "float64", "complex": "complex128"}.get(kind, "int64"))


def _float8(form: Float8) -> np.ndarray:
    """The numbers from -8 to 8 that bytes stand for; NaN for all other ones."""
    byte = np.arange(256)
    exponent, mantissa = byte % 128 >> form.mantissa, byte % (1 << form.mantissa)
    leading = np.minimum(exponent, 1)
    size = (leading + mantissa * 2.0**-form.mantissa) * 2.0 ** (np.maximum(exponent, 1) - form.bias)
    numbers = np.where(byte < 128, size, -size)
    return np.where((size <= 8) & (byte != 128), numbers, np.nan)


def _panel(lines: np.ndarray, width: int, group: int, step: int) -> np.ndarray:
    """Lines of k elements as `nkblas.codegen.spec.Pack` packs them."""
    count, k = lines.shape
    whole = np.zeros((width, -(-k // step) * step), lines.dtype)
    whole[:, :k] = lines[np.minimum(np.arange(width), count - 1)]
    return np.ascontiguousarray(whole.reshape(width, -1, group).transpose(1, 0, 2)).reshape(-1)


def _compensation(panel: np.ndarray, width: int, group: int, factor: int) -> np.ndarray:
    """The row before a panel."""
    sums = panel.reshape(-1, width, group).astype(np.int64).sum((0, 2))
    return (factor * sums).astype(np.int32)


ZERO = 3
"""What is added to what saturates."""

BOUNDS = -3, 5
"""Of "clip"."""


def _compare(
    spec: KernelSpec,
    got: np.ndarray,
    expected: np.ndarray,
    case: str,
    tolerance: tuple[float, float] = (0, 0),
) -> None:
    """Elements, and what lies between them."""
    got, expected = (extent(x).view(x.dtype) for x in (got, expected))
    if any(tolerance) and isinstance(spec, Microkernel):
        got, expected = (_decode(x, spec.types.c) for x in (got, expected))
        same = np.allclose(got, expected, *tolerance)
    else:
        same = np.array_equal(got, expected)
    if not same:
        raise WrongKernelError(f"{spec.symbol} is wrong at {case}")


def _check_product(
    spec: Stream | Dot,
    kernel,
    areas: Areas,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    k: int,
    n: int,
    accumulate: int,
) -> None:
    """`a`, `b` and `c` are the operands as rows, with something to the right of each."""
    operands = place_a, place_b = a[:, :k], b[:, :n]
    if isinstance(spec, Stream) and spec.a_layout == "col":
        place_a = _turned(place_a, 4)  # lda is not mr
    if isinstance(spec, Dot):
        place_b = _turned(place_b, 3)
    for alpha, beta, turn, sign in _scales(spec.epilogue, spec.dtype):
        factor = 1 if accumulate else beta
        before, expected = c.copy(), c.copy()
        expected[:, :n] = alpha * _product(*operands, turn, sign) + factor * c[:, :n]
        if factor == 0:
            _spoil(before[:, :n])  # it is not to be read
        scale = ffi.new("nk_call_args *", _factors(alpha, beta, turn, sign))
        case = f"k={k}, n={n}, accumulate={accumulate}, beta={beta}"
        for at_end in ENDS:
            views = {"a": place_a, "b": place_b, "c": before[:, :n]}
            held = [areas.hold(name, view, at_end) for name, view in views.items()]
            matrices = [x for view in held for x in (_pointer(view), _strides(view)[0])]
            kernel(k, *matrices, n, accumulate, ffi.NULL, ffi.NULL, 0, 0, scale)
            _compare(spec, held[2], expected[:, :n], case)


def _turned(matrix: np.ndarray, gap: int) -> np.ndarray:
    """The transpose, in rows that have a gap between them."""
    return np.ascontiguousarray(np.pad(matrix, ((0, gap), (0, 0))).T)[:, : len(matrix)]


def _scales(epilogue: str, dtype: str) -> list[tuple]:
    """alpha, beta, turn and sign to try an epilogue with."""
    if not parse(epilogue).kind:
        return [(1, 0, 1, 1)]
    if DTYPES[dtype].kind != "complex":
        return [(-2, 0.5, 1, 1), (3, 0, 1, 1)]
    return [(2 - 1j, 1 + 3j, 1, 1), (3, 0, -1, 1), (1j, 0.5, 1, -1), (1, 2j, -1, -1)]


def _factors(
    alpha: complex, beta: complex, a_imag_sign: float, c_imag_sign: float
) -> dict[str, Any]:
    """The fields of an ``nk_call_args`` for alpha, beta and conjugate operands."""
    return {
        "alpha": alpha.real,
        "beta": beta.real,
        "alpha_imag": alpha.imag,
        "beta_imag": beta.imag,
        "a_imag_sign": a_imag_sign,
        "c_imag_sign": c_imag_sign,
    }


def _product(a: np.ndarray, b: np.ndarray, turn: float = 1, sign: float = 1) -> np.ndarray:
    if np.iscomplexobj(a):
        a = a.real + 1j * turn * a.imag
        product = np.einsum("ip,pj->ij", a, b)
        return product.real + 1j * sign * product.imag
    return np.einsum("ip,pj->ij", a, b)


def _spoil(c: np.ndarray) -> None:
    """Fill a matrix with what must not be read: NaN, if it holds floats."""
    c[...] = np.frombuffer(b"\xff" * c.itemsize, c.dtype)[0]


def _check_microkernel(
    spec: Microkernel, kernel, generator: np.random.Generator, areas: Areas
) -> None:
    lanes, nr = spec.descriptor.lanes(ISAS[spec.isa]), spec.nr
    widths = list(range(nr - lanes + 1, nr + 1)) if spec.masked else [nr]
    if spec.descriptor.tile_rows:
        widths = [1, nr - 1, nr, 3 * nr - lanes]
    adds = (0,) if parse(spec.epilogue).scales else (0, 1)  # what is scaled is never added to C
    for steps, n, accumulate in itertools.product((1, 2, 19), widths, adds):
        case = _Case(spec, generator, areas, steps, n)
        for alpha, beta, turn, sign in _scales(spec.epilogue, spec.types.accumulator):
            for last in (1, 0) if parse(spec.epilogue).is_fused else (1,):
                if last or spec.types.accumulator == spec.types.c:
                    case.run(kernel, accumulate, alpha, beta, turn, sign, last)
        if spec.types.accumulator != spec.types.c and n == widths[-1]:
            case.run_in_blocks(kernel, accumulate)


class _Case:
    """Operands of a microkernel, as it reads them, and what it makes of them."""

    def __init__(
        self,
        spec: Microkernel,
        generator: np.random.Generator,
        areas: Areas,
        steps: int,
        n: int,
    ) -> None:
        self.spec, self.areas, self.steps, self.n = spec, areas, steps, n
        descriptor, types = spec.descriptor, spec.types
        k, width = steps * descriptor.k_step, -(-n // spec.nr) * spec.nr
        a, b = _integers(generator, types.a, spec.mr, k), _integers(generator, types.b, k, width)
        if types.c == "bool":
            a, b = a & 1, b & 1  # as it is packed
        self.packed = b  # as it is packed on the way
        self.a, self.b = _decode(a, types.a), _decode(b[:, :n], types.b)
        if spec.a_layout == "row":
            place_a = np.pad(a, ((0, 0), (0, 3)))[:, :k]
            self.lda = k + 3
        elif descriptor.k_group_a == 1:
            place_a, self.lda = _turned(a, 4), spec.mr + 4
        else:
            place_a, self.lda = _panel(a, spec.mr, descriptor.k_group_a, descriptor.k_step), spec.mr
        if descriptor.k_group_b == 1:
            # B's lanes beyond n count for nothing, but where there are no masks they are read
            reads = n if ISAS[spec.isa].can_mask(ITEMSIZE[types.b]) else width
            place_b, self.ldb = np.pad(b, ((0, 0), (0, 5)))[:, :reads], width + 5
        else:
            panels = [b[:, j : j + spec.nr] for j in range(0, width, spec.nr)]
            packed = [_panel(x.T, spec.nr, descriptor.k_group_b, descriptor.k_step) for x in panels]
            place_b, self.ldb = np.concatenate(packed), spec.nr
        if descriptor.compensation:
            row = _compensation(place_b, spec.nr, descriptor.k_group_b, descriptor.compensation)
            place_b = np.concatenate((row.view(place_b.dtype), place_b))
        self.places = place_a, place_b
        self.c = _integers(generator, types.c, spec.mr, width + 7)
        self.blocks = [self]
        if spec.batch_reduce:
            alone = spec._replace(batch_reduce=False)
            self.blocks += [_Case(alone, generator, areas, steps, n) for _ in range(2)]
        self.epilogue = parse(spec.epilogue)
        held = "float32" if self.epilogue.scales else types.accumulator
        along = spec.mr if self.epilogue.bias == "rows" else width  # whole vectors
        self.bias = _integers(generator, held, along)
        exponents = generator.integers(-12, -6, width)
        self.scales = (2.0**exponents).astype(np.float32)
        self.residual = _integers(generator, types.c, spec.mr, width + 5)
        self.held = {at_end: self._hold(at_end) for at_end in ENDS}

    def expected(self, product: np.ndarray, factor: complex, last: int = 1) -> np.ndarray:
        """C after `product` has come to it."""
        c = self.c.copy()
        dtype = self.spec.types.c
        if factor:
            product = product + factor * _decode(c[:, : self.n], dtype)
        if last and self.epilogue.is_fused:
            bias = _decode(
                self.bias, "float32" if self.epilogue.scales else self.spec.types.accumulator
            )
            residual = _decode(self.residual[:, : self.n], dtype)
            product = apply(self.epilogue, product, bias, residual, BOUNDS, self.scales)
        c[:, : self.n] = _encode(product, dtype)
        return c

    @property
    def tolerance(self) -> tuple[float, float]:
        """Relative and absolute, of what is not exact."""
        if ACTIVATIONS[self.epilogue.activation].is_exact:
            return 0, 0
        if DTYPES[self.spec.types.c].saturates:  # near a tie, it is rounded either way
            return 0, 1
        near = {8: 1e-14, 4: 1e-5}.get(ITEMSIZE[self.spec.types.c], 2e-2)
        return near, near

    def _hold(self, at_end: bool) -> tuple[object, object, dict[str, Any]]:
        """The addresses of operands where memory ends: A, B, what `scale` has after its block.

        What the kernel has no use for is nowhere.
        """

        def hold(name: str, array: np.ndarray, used: object = True) -> object:
            return (
                _pointer(self.areas.hold(f"{name} {at_end}", array, at_end)) if used else ffi.NULL
            )

        spec, epilogue = self.spec, self.epilogue
        a, b = (
            [hold(f"{name}{j}", block.places[i]) for j, block in enumerate(self.blocks)]
            for i, name in enumerate("ab")
        )
        more = {
            "bias": hold("bias", self.bias, epilogue.bias),
            "residual": hold("residual", self.residual[:, : self.n], epilogue.residual),
            "ldr": self.residual.shape[1],
            "clip_low": BOUNDS[0],
            "clip_high": BOUNDS[1],
            "a_blocks": hold("a blocks", _addresses(a), spec.batch_reduce),
            "b_blocks": hold("b blocks", _addresses(b), spec.batch_reduce),
            "block_count": len(self.blocks),
            "scales": hold("scales", self.scales, epilogue.scales),
            "zero_point": ZERO,
        }
        return a[0], b[0], more

    def call(
        self, kernel, at_end: bool, c: np.ndarray, accumulate: int, scale: dict[str, Any]
    ) -> np.ndarray:
        """C, where memory ends, after the kernel has run."""
        spec, (a, b, more) = self.spec, self.held[at_end]
        c = self.areas.hold("c", c[:, : self.n], at_end)
        panel = np.zeros_like(self.packed)
        if spec.packs_b:
            panel = self.areas.hold("panel", panel, at_end)
        kernel(
            self.steps, a, self.lda, b, self.ldb, _pointer(c), _strides(c)[0], self.n, accumulate,
            _pointer(panel) if spec.packs_b else ffi.NULL, b, 1, min(self.steps, 2),
            ffi.new("nk_call_args *", {**scale, **more}),
        )  # fmt: skip
        if spec.packs_b:
            panel[:, self.n :] = self.packed[:, self.n :]  # means nothing
            _compare(spec, panel, self.packed, f"k={self.steps}, n={self.n}: the panel")
        return c

    def run(
        self,
        kernel,
        accumulate: int,
        alpha: complex,
        beta: complex,
        turn: float,
        sign: float,
        last: int,
    ) -> None:
        factor = 1 if accumulate else beta
        before = self.c.copy()
        if factor == 0:
            _spoil(before[:, : self.n])  # it is not to be read
        scale = {
            **_factors(alpha, beta, turn, sign),
            "is_first_k_block": 1,
            "is_last_k_block": last,
        }
        case = f"k={self.steps}, n={self.n}, accumulate={accumulate}, beta={beta}"
        product = np.sum([_product(x.a, x.b, turn, sign) for x in self.blocks], axis=0)
        expected = self.expected(alpha * product, factor, last)[:, : self.n]
        for at_end in ENDS:
            c = self.call(kernel, at_end, before, accumulate, scale)
            _compare(self.spec, c, expected, f"{case}, last={last}", self.tolerance)

    def run_in_blocks(self, kernel, accumulate: int) -> None:
        """The same k twice: once to keep the sums, once to add to them."""
        spec = self.spec
        width = -(-self.n // spec.nr) * spec.nr
        expected = self.expected(2 * _product(self.a, self.b), accumulate)[:, : self.n]
        case = f"k={self.steps}, accumulate={accumulate}: in blocks"
        for at_end in ENDS:
            c = self.c
            tile = np.full((spec.mr * width, ITEMSIZE[spec.types.accumulator]), 0xFF, np.uint8)
            tile = self.areas.hold("tile", tile, at_end)
            for first in (1, 0):
                scale = {
                    **_factors(1, 0, 1, 1),
                    "partial_sums": _pointer(tile),
                    "is_first_k_block": first,
                    "is_last_k_block": 1 - first,
                }
                c = self.call(kernel, at_end, c, accumulate, scale)
                if first:
                    _compare(spec, c, self.c[:, : self.n], f"k={self.steps}: sums to keep")
            _compare(spec, c, expected, case, self.tolerance)


def _addresses(pointers: list) -> np.ndarray:
    return np.array([int(ffi.cast("uintptr_t", pointer)) for pointer in pointers], np.uintp)


def _check_stream(spec: Stream, kernel, generator: np.random.Generator, areas: Areas) -> None:
    lanes = ISAS[spec.isa].lanes(ITEMSIZE[spec.dtype])
    depths = {1, spec.kr, 2 * spec.kr + 1}
    for k, n, accumulate in itertools.product(depths, {1, lanes + 1, 3 * spec.nr - 1}, (0, 1)):
        a = _integers(generator, spec.dtype, spec.mr, k + 3)
        b = _integers(generator, spec.dtype, k, n + 5)
        # both ways to store: rows that are aligned together, and others
        for width in (n + lanes - n % lanes, n + lanes - n % lanes + 1):
            c = _integers(generator, spec.dtype, spec.mr, width)
            _check_product(spec, kernel, areas, a, b, c, k, n, accumulate)


def _check_dot(spec: Dot, kernel, generator: np.random.Generator, areas: Areas) -> None:
    lanes = ISAS[spec.isa].lanes(ITEMSIZE[spec.dtype])
    for k, accumulate in itertools.product((1, lanes + 1, 11 * lanes - 1), (0, 1)):
        a = _integers(generator, spec.dtype, spec.mr, k + 3)
        b = _integers(generator, spec.dtype, k, spec.nr)
        c = _integers(generator, spec.dtype, spec.mr, spec.nr + 7)
        _check_product(spec, kernel, areas, a, b, c, k, spec.nr, accumulate)


def _check_small(spec: Small, kernel, generator: np.random.Generator, areas: Areas) -> None:
    m, n, k = spec.m, spec.n, spec.k
    for count in (1, 3):
        a = _integers(generator, spec.dtype, count, m * k + 3)[:, : m * k]
        b = _integers(generator, spec.dtype, count, k * n + 5)[:, : k * n]
        c = _integers(generator, spec.dtype, count, m * n + 7)
        expected = c.copy()[:, : m * n]
        shape, axes = ((m, k), "ip") if spec.a_layout == "row" else ((k, m), "pi")
        b_shape, b_axes = ((k, n), "pj") if spec.b_layout == "row" else ((n, k), "jp")
        matrices = a.reshape(count, *shape), b.reshape(count, *b_shape)
        products = np.einsum(f"x{axes},x{b_axes}->xij", *matrices)
        expected[...] = products.reshape(count, m * n)
        for at_end in ENDS:
            views = {"a": a, "b": b, "c": c[:, : m * n]}
            held = [areas.hold(name, view, at_end) for name, view in views.items()]
            kernel(count, *(x for view in held for x in (_pointer(view), _strides(view)[0])))
            _compare(spec, held[2], expected, f"count={count}")


def _check_pack(spec: Pack, kernel, generator: np.random.Generator, areas: Areas) -> None:
    width, lanes = spec.width, ISAS[spec.isa].lanes(4)
    lengths = {1, 2, lanes - 1, lanes, lanes + 1, (width + 1) // 2, width - 1, width}
    lengths &= {*range(1, width + 1)}
    for n, k in itertools.product(sorted(lengths), (1, 15, 33, 64, 131)):
        whole = _integers(generator, spec.dtype, 2 * n, 3 * k)
        source = whole[::2, ::3]
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
        for at_end in ENDS:
            held = areas.hold("source", source, at_end)
            panel = areas.hold("panel", np.full(expected.size, 77).astype(expected.dtype), at_end)
            kernel(n, k, _pointer(held), *_strides(held), _pointer(panel))
            _compare(spec, panel, expected, f"n={n}, k={k}")


def _check_copy(spec: Copy, kernel, generator: np.random.Generator, areas: Areas) -> None:
    source = _integers(generator, spec.dtype, 14, 22)[::2, ::-2]
    target = _encode(np.zeros((30, 20)), spec.dtype).T[4:18:2, 5:27:2]
    expected = areas.hold("expected", target, True)
    expected[...] = source
    for at_end in ENDS:
        held = [areas.hold(name, view, at_end) for name, view in (("a", source), ("c", target))]
        kernel(*source.shape, *(x for view in held for x in (_pointer(view), *_strides(view))))
        _compare(spec, held[1], expected, "strides")
