"""Complex products, by real ones on the same memory.

A complex matrix with rows is, as it lies in memory, a real one with twice the columns: real parts
at the even ones, imaginary parts at the odd ones. So a complex product is one real product, once
one of the operands is written out in such a way that the sums of its real parts and of its
imaginary parts come to lie in C side by side.
"""

import numpy as np

from .gemm import multiply

FEW_ROWS = 8
"""Rows of C up to which B is not written out: it is much larger than A and C."""


def multiply_complex(
    alpha: complex, a: np.ndarray, b: np.ndarray, beta: complex, c: np.ndarray
) -> None:
    """``c = alpha * a @ b + beta * c``; the arguments are as for `nkblas.gemm.multiply`."""
    if alpha == 0 or a.shape[1] == 0 or c.size == 0:
        _scale(c, beta)
        return
    # C.T = B.T @ A.T: C gets rows, or a vector the operand that has them.
    columns = not _has_rows(c) and _has_rows(c.T)
    if columns or (c.shape[1] == 1 and not _has_rows(a)):
        a, b, c = b.T, a.T, c.T
    target = c if _has_rows(c) else c.copy()
    if len(c) <= FEW_ROWS:
        _by_planes(alpha, a, b, beta, target)
    else:
        _written_out(alpha, a, b, beta, target)
    if target is not c:
        c[...] = target


def _has_rows(x: np.ndarray) -> bool:
    return x.shape[1] == 1 or x.strides[1] == x.itemsize


def _as_real(x: np.ndarray) -> np.ndarray:
    """A matrix with rows as a real one: real and imaginary parts side by side."""
    shape = x.shape[0], 2 * x.shape[1]
    return np.lib.stride_tricks.as_strided(x.real, shape, (x.strides[0], x.itemsize // 2))


def _with_rows(x: np.ndarray) -> np.ndarray:
    return x if _has_rows(x) else np.ascontiguousarray(x)


def _written_out(
    alpha: complex, a: np.ndarray, b: np.ndarray, beta: complex, c: np.ndarray
) -> None:
    """Each element x + iy of B becomes ``[[x, y], [-y, x]]``."""
    (k, n), factor = b.shape, alpha.real
    whole = np.empty((k, 2, n), b.dtype)
    whole[:, 0] = b
    if alpha.imag != 0:
        whole[:, 0] *= alpha
        factor = 1
    np.negative(whole[:, 0].imag, out=whole[:, 1].real)
    whole[:, 1].imag = whole[:, 0].real
    if beta.imag != 0:
        _scale(c, beta)
        beta = 1
    real = _as_real(whole.reshape(2 * k, n))
    multiply(factor, _as_real(_with_rows(a)), real, beta.real, _as_real(c))


def _by_planes(alpha: complex, a: np.ndarray, b: np.ndarray, beta: complex, c: np.ndarray) -> None:
    """The real parts of A come above the imaginary ones; what that gives is put together."""
    parts = np.empty((2, *c.shape), c.dtype)
    flat = _as_real(parts.reshape(-1, c.shape[1]))
    multiply(1, np.concatenate((a.real, a.imag)), _as_real(_with_rows(b)), 0, flat)
    product, turned = parts
    product.real -= turned.imag
    product.imag += turned.real
    _scale(product, alpha)
    _scale(c, beta)
    c += product


def _scale(x: np.ndarray, factor: complex) -> None:
    """``x *= factor``; 0 clears, and a real factor leaves infinities alone."""
    if factor == 0:
        x[...] = 0
    elif factor.imag != 0:
        x *= factor
    elif factor != 1:
        x.real *= factor.real
        x.imag *= factor.real
