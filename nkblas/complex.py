"""Complex products, by real ones on the same memory.

A complex matrix with rows is, as it lies in memory, a real one with twice the columns: real and
imaginary parts side by side. So a complex product is one real product, if one of the operands is
written out for it: in full, so that the sums lie in C as they belong there, or only in its two
planes, and then the sums have to be put together.
"""

import numpy as np

from .gemm import multiply


def multiply_complex(
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray,
    beta: complex,
    c: np.ndarray,
    conj_a: bool = False,
    conj_b: bool = False,
) -> None:
    """``c = alpha * a @ b + beta * c``, with the conjugate of `a` or `b` if asked for.

    The arguments are as for `nkblas.gemm.multiply`.
    """
    if alpha == 0 or a.shape[1] == 0 or c.size == 0:
        _scale(c, beta)
        return
    # C.T = B.T @ A.T: so C gets rows, and where it is a vector the matrix does.
    if not _has_rows(c) or (c.shape[1] == 1 and not _has_rows(a)):
        a, b, c = b.T, a.T, c.T
        conj_a, conj_b = conj_b, conj_a
    target = c if _has_rows(c) else c.copy(order="C")
    (m, n), k = c.shape, len(b)
    # what either way has to move, beside the product
    way = _by_planes if m * k + 6 * m * n < 3 * k * n else _written_out
    way(alpha, a, b, beta, target, conj_a, conj_b)
    if target is not c:
        c[...] = target


def _written_out(
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray,
    beta: complex,
    c: np.ndarray,
    conj_a: bool,
    conj_b: bool,
) -> None:
    """Each element x + iy of B becomes ``[[x, y], [-y, x]]``."""
    k, n = b.shape
    whole = np.empty((k, 2, n), b.dtype)
    first, second = whole[:, 0], whole[:, 1]
    np.conjugate(b, out=first) if conj_b else np.copyto(first, b)
    if alpha.imag != 0:
        first *= alpha
        alpha = 1
    sign = -1 if conj_a else 1
    np.multiply(first.imag, -sign, out=second.real)
    np.multiply(first.real, sign, out=second.imag)
    if beta.imag != 0:
        c *= beta
        beta = 1
    real = _as_real(whole.reshape(2 * k, n))
    multiply(alpha.real, _as_real(_with_rows(a)), real, beta.real, _as_real(c))


def _by_planes(
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray,
    beta: complex,
    c: np.ndarray,
    conj_a: bool,
    conj_b: bool,
) -> None:
    """The rows of A's real parts come above those of its imaginary parts."""
    planes = np.concatenate((a.real, -a.imag if conj_a else a.imag))
    parts = np.empty((2, *c.shape), c.dtype)
    multiply(1, planes, _as_real(_with_rows(b)), 0, _as_real(parts.reshape(-1, c.shape[1])))
    product, turned = parts
    if conj_b:
        product, turned = product.conj(), turned.conj()
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


def _has_rows(x: np.ndarray) -> bool:
    return x.shape[1] == 1 or x.strides[1] == x.itemsize


def _with_rows(x: np.ndarray) -> np.ndarray:
    return x if _has_rows(x) else np.ascontiguousarray(x)


def _as_real(x: np.ndarray) -> np.ndarray:
    """A matrix with rows as a real one."""
    if x.strides[1] == x.itemsize:
        return x.view(x.real.dtype)
    shape = x.shape[0], 2  # one column, whose stride may be anything
    return np.lib.stride_tricks.as_strided(x.real, shape, (x.strides[0], x.itemsize // 2))
