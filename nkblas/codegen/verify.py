"""Every new kernel is run against a plain reference before anyone else runs it.

The operands hold small integers, so that sums are exact in any order and results compare for
equality; what lies around an output must stay as it was.
"""

import itertools

import numpy as np

from nkblas._engine import ffi
from nkblas.isa import ISAS
from nkblas.problem import ITEMSIZE

from .spec import Copy, Dot, KernelSpec, Microkernel, Pack, Peak, Small, Stream


class WrongKernelError(RuntimeError):
    """A kernel computed something else than its contract says."""


def check(spec: KernelSpec, address: int) -> None:
    """Run the function of `spec` at `address`.

    Raises
    ------
    WrongKernelError
        A result is not the reference's.
    """
    generator = np.random.default_rng(0)
    if isinstance(spec, Microkernel):
        _check_microkernel(spec, ffi.cast("nk_microkernel", address), generator)
    elif isinstance(spec, Small):
        _check_small(spec, ffi.cast("nk_small", address), generator)
    elif isinstance(spec, Stream):
        _check_stream(spec, ffi.cast("nk_microkernel", address), generator)
    elif isinstance(spec, Dot):
        _check_dot(spec, ffi.cast("nk_microkernel", address), generator)
    elif isinstance(spec, Pack):
        _check_pack(spec, ffi.cast("nk_pack", address), generator)
    elif isinstance(spec, Copy):
        _check_copy(spec, ffi.cast("nk_copy", address), generator)
    elif isinstance(spec, Peak):
        ffi.cast("nk_peak", address)(1, _pointer(np.zeros(64, spec.dtype)))


def _pointer(array: np.ndarray) -> object:
    return ffi.cast("void *", array.ctypes.data)


def _strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)


def _integers(generator: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    return generator.integers(-9, 10, shape).astype(dtype)


def _compare(spec: KernelSpec, got: np.ndarray, expected: np.ndarray, case: str) -> None:
    if not np.array_equal(got, expected):
        raise WrongKernelError(f"{spec.symbol} is wrong at {case}")


def _check_product(
    spec: Microkernel | Stream | Dot,
    kernel,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    k: int,
    n: int,
    accumulate: int,
    panel: np.ndarray | None = None,
) -> None:
    """`a`, `b` and `c` are the operands as rows, with something to the right of each."""
    before, product = c.copy(), np.einsum("ip,pj->ij", a[:, :k], b[:, :n])
    if not isinstance(spec, Dot) and spec.a_layout == "col":
        a = np.ascontiguousarray(np.pad(a, ((0, 4), (0, 0))).T)  # lda is not mr
    if isinstance(spec, Dot):
        b = np.ascontiguousarray(np.pad(b, ((0, 3), (0, 0))).T)
    matrices = [x for matrix in (a, b, c) for x in (_pointer(matrix), matrix.shape[1])]
    place = ffi.NULL if panel is None else _pointer(panel)
    fetched = (_pointer(b), 1, min(k, 2))
    for alpha, beta in [(-2.0, 0.5), (3.0, 0.0)] if spec.epilogue else [(1.0, 0.0)]:
        factor = 1.0 if accumulate else beta
        expected = before.copy()
        expected[:, :n] = alpha * product + factor * before[:, :n]
        c[...] = before
        if factor == 0:
            c[:, :n] = np.nan  # it is not to be read
        scale = ffi.new("nk_scale *", (alpha, beta))
        kernel(k, *matrices, n, accumulate, place, *fetched, scale)
        _compare(spec, c, expected, f"k={k}, n={n}, accumulate={accumulate}, beta={beta}")


def _check_microkernel(spec: Microkernel, kernel, generator: np.random.Generator) -> None:
    lanes = ISAS[spec.isa].lanes(ITEMSIZE[spec.dtype])
    widths = range(spec.nr - lanes + 1, spec.nr + 1) if spec.masked else [spec.nr]
    for k, n, accumulate in itertools.product((1, 2, 19), widths, (0, 1)):
        a = _integers(generator, spec.dtype, spec.mr, k + 3)
        # B's lanes beyond n count for nothing, but where there are no masks they are read
        b = _integers(generator, spec.dtype, k, spec.nr + 5)
        c = _integers(generator, spec.dtype, spec.mr, spec.nr + 7)
        panel = np.full((k + 1, spec.nr), 77, spec.dtype)
        _check_product(spec, kernel, a, b, c, k, n, accumulate, panel)
        packed = np.full_like(panel, 77)
        if spec.packs_b:
            packed[:k] = b[:, : spec.nr]
            packed[:k, n:] = panel[:k, n:]  # means nothing
        _compare(spec, panel, packed, f"k={k}, n={n}: the panel")


def _check_stream(spec: Stream, kernel, generator: np.random.Generator) -> None:
    lanes = ISAS[spec.isa].lanes(ITEMSIZE[spec.dtype])
    depths = {1, spec.kr, 2 * spec.kr + 1}
    for k, n, accumulate in itertools.product(depths, {1, lanes + 1, 3 * spec.nr - 1}, (0, 1)):
        a = _integers(generator, spec.dtype, spec.mr, k + 3)
        b = _integers(generator, spec.dtype, k, n + 5)
        # both ways to store: rows that are aligned together, and others
        for width in (n + lanes - n % lanes, n + lanes - n % lanes + 1):
            c = _integers(generator, spec.dtype, spec.mr, width)
            _check_product(spec, kernel, a, b, c, k, n, accumulate)


def _check_dot(spec: Dot, kernel, generator: np.random.Generator) -> None:
    lanes = ISAS[spec.isa].lanes(ITEMSIZE[spec.dtype])
    for k, accumulate in itertools.product((1, lanes + 1, 11 * lanes - 1), (0, 1)):
        a = _integers(generator, spec.dtype, spec.mr, k + 3)
        b = _integers(generator, spec.dtype, k, spec.nr)
        c = _integers(generator, spec.dtype, spec.mr, spec.nr + 7)
        _check_product(spec, kernel, a, b, c, k, spec.nr, accumulate)


def _check_small(spec: Small, kernel, generator: np.random.Generator) -> None:
    m, n, k = spec.m, spec.n, spec.k
    for count in (1, 3):
        a = _integers(generator, spec.dtype, count, m * k + 3)
        b = _integers(generator, spec.dtype, count, k * n + 5)
        c = _integers(generator, spec.dtype, count, m * n + 7)
        expected = c.copy()
        shape, axes = ((m, k), "ip") if spec.a_layout == "row" else ((k, m), "pi")
        b_shape, b_axes = ((k, n), "pj") if spec.b_layout == "row" else ((n, k), "jp")
        matrices = a[:, : m * k].reshape(count, *shape), b[:, : k * n].reshape(count, *b_shape)
        products = np.einsum(f"x{axes},x{b_axes}->xij", *matrices)
        expected[:, : m * n] = products.reshape(count, m * n)
        operands = [(_pointer(x), x.shape[1]) for x in (a, b, c)]
        kernel(count, *(value for operand in operands for value in operand))
        _compare(spec, c, expected, f"count={count}")


def _check_pack(spec: Pack, kernel, generator: np.random.Generator) -> None:
    width = spec.width
    for n, k in itertools.product({1, (width + 1) // 2, width}, (1, 15, 33)):
        whole = _integers(generator, spec.dtype, 2 * n, 3 * k)
        source = whole[::2, ::3]
        if spec.source == "across":
            source = np.ascontiguousarray(source)
        elif spec.source == "along":
            source = np.asfortranarray(source)
        expected = np.full((k + 1, width), 77, spec.dtype)
        panel = expected.copy()
        expected[:k] = source[np.minimum(np.arange(width), n - 1)].T
        kernel(n, k, _pointer(source), *_strides(source), _pointer(panel))
        _compare(spec, panel, expected, f"n={n}, k={k}")


def _check_copy(spec: Copy, kernel, generator: np.random.Generator) -> None:
    source = _integers(generator, spec.dtype, 14, 22)[::2, ::-2]
    target = np.zeros((30, 20), spec.dtype)
    expected = target.copy()
    expected.T[4:18:2, 5:27:2] = source
    view = target.T[4:18:2, 5:27:2]
    kernel(*source.shape, _pointer(source), *_strides(source), _pointer(view), *_strides(view))
    _compare(spec, target, expected, "strides")
