"""Elements of a product with about 100 correct bits: the reference for rounding errors."""

import math
from typing import Any, NamedTuple

import numpy as np

from .operands import Array

SPLITTER = 2.0**27 + 1
"""Dekker's constant: splits a float64 into two halves whose products are exact in float64."""


class ExactSums(NamedTuple):
    """Some elements of A @ B, each scaled by a power of 2.

    Complex elements are stored as real parts followed by imaginary parts.

    Attributes
    ----------
    high, low : ndarray of float64
        The scaled elements are ``high + low``, correct to about 100 bits.
    abs_product : ndarray
        The same elements of |A| @ |B|, scaled.
    terms : int
        Number of real products in the sum of each element.
    exponents : ndarray of int
        Each element is scaled by 2 to this power, so that nothing overflows or underflows.
    """

    high: Array
    low: Array
    abs_product: Array
    terms: int
    exponents: Array

    def errors(self, results: Array) -> Array:
        """Scaled absolute errors of `results`; infinite or NaN where a result is."""
        with np.errstate(invalid="ignore"):
            scaled = np.ldexp(_real_parts(results).astype(np.longdouble), self.exponents)
            difference: Array = abs((scaled - self.high) - self.low)
        return difference

    def scale(self, number: float) -> Array:
        """A number in the scale of each element."""
        return np.ldexp(np.longdouble(number), self.exponents)


def exact_sums(a: Array, b: Array, rows: Array, columns: Array) -> ExactSums:
    """The elements ``(A @ B)[rows, columns]``."""
    x, y = a[rows], b[:, columns].T
    if a.dtype.kind == "c":
        left = np.concatenate([x.real, x.imag], axis=1), np.concatenate([x.imag, x.real], axis=1)
        right = np.concatenate([y.real, -y.imag], axis=1), np.concatenate([y.real, y.imag], axis=1)
        x, y = np.concatenate(left), np.concatenate(right)
    x, exponents_x = _normalize_rows(x)
    y, exponents_y = _normalize_rows(y)
    terms = x * y
    abs_product = abs(terms).sum(axis=1)
    if a.dtype.itemsize >= 8 and a.dtype != np.complex64:  # products of 53 bits are not exact
        halves = [(p, q) for p in _halves(x) for q in _halves(y)]
        terms = np.concatenate([p * q for p, q in halves], axis=1)
    high, low = [], []
    for row in terms.tolist():
        high.append(math.fsum(row))  # rounds once
        row.append(-high[-1])
        low.append(math.fsum(row))
    return ExactSums(
        np.array(high), np.array(low), abs_product, x.shape[1], exponents_x + exponents_y
    )


def _real_parts(x: Array) -> Array:
    """Real parts, followed by the imaginary parts of complex numbers."""
    return np.concatenate([x.real, x.imag]) if x.dtype.kind == "c" else x


def _normalize_rows(x: Array) -> tuple[Array, Any]:
    """Rows in float64, scaled to a largest element of about 1, and the exponents of the scales."""
    wide = x.astype(np.float64)
    exponents = -np.frexp(abs(wide).max(axis=1))[1]
    return np.ldexp(wide, exponents[:, None]), exponents


def _halves(x: Array) -> tuple[Array, Array]:
    """Two float64 of at most 26 significant bits each, whose sum is `x` (Dekker's split)."""
    shifted = SPLITTER * x
    high = shifted - (shifted - x)
    return high, x - high
