"""`Level3Call`: a product or solution with a triangle, which runs on the engine or else on NumPy.

`nkblas.blas` converts its arguments into such calls. Only this module calls the engine's functions
for triangles.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from nkblas import _numpy_ext
from nkblas._engine import ffi, lib

from .gemm_call import GemmCall
from .operands import Array

OPERATIONS = ("gemmt", "symm", "trmm", "trsm")
"""In the order of `level3_operation` in numpy_ext/numpy_ext.h."""

_numpy_ext.register_level3(
    *(int(ffi.cast("uintptr_t", ffi.addressof(lib, f"nk_{name}"))) for name in OPERATIONS)
)

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Level3Call(NamedTuple):
    """One operation with a matrix of which a triangle is used, written to `c`.

    ======= ===================================================================================
    gemmt   ``C = alpha * A @ B + beta * C`` in the triangle of C; the other one stays
    symm    ``C = alpha * A @ B + beta * C``, where A equals its own (conjugate) transpose
    trmm    ``C = alpha * A @ C``, where A is triangular
    trsm    ``C = alpha * inv(A) @ C``, where A is triangular
    ======= ===================================================================================

    The other triangle of A is not read. An A on the right is one on the left of the transposed
    matrices. Arrays are native and aligned (`operands.is_native_aligned`), of one dtype, their
    shapes fit, and `c` shares no memory with the others (see `without_overlap`).

    Attributes
    ----------
    operation : str
    a : ndarray
        Square, except in a gemmt.
    b : ndarray or None
        None for trmm and trsm.
    c : ndarray
        Gemmt and symm don't read it if `beta` is 0.
    is_lower : bool
        Which triangle it is.
    alpha, beta : scalar
        Python's own numbers. If `alpha` is 0, `a` and `b` are not read.
    conj_a, conj_b : bool
        Whether the conjugate of a complex operand is multiplied; not for symm.
    is_hermitian : bool
        Whether the triangle is one of a Hermitian matrix: the imaginary parts of its diagonal are
        not read, and are written as 0.
    is_unit : bool
        Whether the diagonal of a triangular A, which is not read then, is 1.
    """

    operation: Literal["gemmt", "symm", "trmm", "trsm"]
    a: Array
    b: Any
    c: Array
    is_lower: bool
    alpha: Any = 1
    beta: Any = 0
    conj_a: bool = False
    conj_b: bool = False
    is_hermitian: bool = False
    is_unit: bool = False

    def without_overlap(self) -> "Level3Call":
        """The same call, with copies of the operands that may share memory with `c`."""
        call = self
        if np.may_share_memory(self.a, self.c):
            call = call._replace(a=self.a.copy())
        if self.b is not None and np.may_share_memory(self.b, self.c):
            call = call._replace(b=self.b.copy())
        return call

    def execute(self) -> None:
        """Run on the engine, or on NumPy where that is not possible. No warnings are raised."""
        if self.c.size and not self.run_on_engine():
            with np.errstate(all="ignore"):
                _ON_NUMPY[self.operation](self)

    def run_on_engine(self) -> bool:
        """Write `c` and return True; or False if there are no kernels for it."""
        if self.alpha == 0 or self.a.size == 0:
            return False
        return _numpy_ext.level3(
            OPERATIONS.index(self.operation),
            self.alpha,
            self.a,
            self.b,
            self.beta,
            self.c,
            self.is_lower,
            self.is_hermitian,
            self.is_unit,
            # A @ conj(B) is computed as conj(conj(A) @ B)
            -1 if self.conj_a != self.conj_b else 1,
            -1 if self.conj_b else 1,
        )


# ---- the operations on NumPy ----


def _gemmt(call: Level3Call) -> None:
    a, b, c, n = call.a, call.b, call.c, len(call.c)
    if call.beta == 1 and (call.alpha == 0 or a.shape[1] == 0):
        return  # as in BLAS, a diagonal keeps its imaginary parts then
    sums = c.copy()
    diagonal = np.arange(n)
    if call.is_hermitian:
        sums[diagonal, diagonal] = sums[diagonal, diagonal].real
    GemmCall(a, b, sums, call.alpha, call.beta, call.conj_a, call.conj_b).execute()
    if call.is_hermitian:
        sums[diagonal, diagonal] = sums[diagonal, diagonal].real
    np.copyto(c, sums, where=_triangle(n, call.is_lower))


def _symm(call: Level3Call) -> None:
    a, is_stored = call.a, _triangle(len(call.a), call.is_lower)
    whole = np.where(is_stored, a, a.T.conj() if call.is_hermitian else a.T)
    if call.is_hermitian:
        np.fill_diagonal(whole, a.diagonal().real)
    GemmCall(whole, call.b, call.c, call.alpha, call.beta).execute()


def _triangular(call: Level3Call) -> None:
    a, c = call.a, call.c
    if call.alpha == 0:
        c[...] = 0
        return
    if not call.is_lower:  # an upper triangle becomes a lower one if all rows are reversed
        a, c = a[::-1, ::-1], c[::-1]
    if call.alpha != 1:
        c *= call.alpha
    act = _multiply if call.operation == "trmm" else _solve
    act(a.conj() if call.conj_a else a, c, call.is_unit)


def _multiply(a: Array, b: Array, is_unit: bool) -> None:
    """``B = A @ B`` for a lower triangle A, by halves: zeros of A must not multiply infinities."""
    half = len(a) // 2
    if half == 0:
        if not is_unit:
            b *= a
        return
    _multiply(a[half:, half:], b[half:], is_unit)
    b[half:] += a[half:, :half] @ b[:half]
    _multiply(a[:half, :half], b[:half], is_unit)


def _solve(a: Array, b: Array, is_unit: bool) -> None:
    """``B = inv(A) @ B`` for a lower triangle A."""
    half = len(a) // 2
    if half == 0:
        if not is_unit:
            b /= a
        return
    _solve(a[:half, :half], b[:half], is_unit)
    b[half:] -= a[half:, :half] @ b[:half]
    _solve(a[half:, half:], b[half:], is_unit)


def _triangle(n: int, is_lower: bool) -> Mask:
    """Which elements of an n x n matrix are in the triangle."""
    lower = np.tri(n, dtype=np.bool_)
    return lower if is_lower else lower.T


_ON_NUMPY: dict[str, Callable[[Level3Call], None]] = {
    "gemmt": _gemmt,
    "symm": _symm,
    "trmm": _triangular,
    "trsm": _triangular,
}
