"""Sums of products as they are, with no rounding error that counts: what results are judged by."""

import math
from typing import Any, NamedTuple

import numpy as np

from .operands import Array

SPLITTER = 2.0**27 + 1
"""Dekker's: it cuts the 53 bits of a float64 into halves whose products float64 holds."""


class Sums(NamedTuple):
    """Some elements of A @ B, each part of a complex one by itself, all of them scaled.

    Attributes
    ----------
    exact, rest : ndarray
        What they are: the sum of the two, float64, good to about 100 bits.
    size : ndarray
        Those of |A| @ |B|.
    terms : int
        Real products that each is a sum of.
    exponents : ndarray
        Each is scaled by 2 to the power of this, so that nothing here overflows or underflows.
    """

    exact: Array
    rest: Array
    size: Array
    terms: int
    exponents: Array

    def errors(self, results: Array) -> Array:
        """How far `results` are from what they should be, scaled. What is not finite is so here."""
        with np.errstate(invalid="ignore"):
            scaled = np.ldexp(in_parts(results).astype(np.longdouble), self.exponents)
            difference: Array = abs((scaled - self.exact) - self.rest)
        return difference

    def scaled(self, number: float) -> Array:
        """A number beside these."""
        return np.ldexp(np.longdouble(number), self.exponents)


def in_parts(x: Array) -> Array:
    """Real parts, and behind them the imaginary ones if there are any."""
    return np.concatenate([x.real, x.imag]) if x.dtype.kind == "c" else x


def sums(a: Array, b: Array, rows: Array, columns: Array) -> Sums:
    """The elements of A @ B in these rows and columns, element by element."""
    x, y = a[rows], b[:, columns].T
    if a.dtype.kind == "c":
        left = np.concatenate([x.real, x.imag], axis=1), np.concatenate([x.imag, x.real], axis=1)
        right = np.concatenate([y.real, -y.imag], axis=1), np.concatenate([y.real, y.imag], axis=1)
        x, y = np.concatenate(left), np.concatenate(right)
    x, of_x = _scaled(x)
    y, of_y = _scaled(y)
    terms = x * y
    size = abs(terms).sum(axis=1)
    if a.dtype.itemsize >= 8 and a.dtype != np.complex64:
        parts = [(p, q) for p in _halves(x) for q in _halves(y)]
        terms = np.concatenate([p * q for p, q in parts], axis=1)
    exact, rest = [], []
    for row in terms.tolist():
        exact.append(math.fsum(row))  # rounded once
        row.append(-exact[-1])
        rest.append(math.fsum(row))
    return Sums(np.array(exact), np.array(rest), size, x.shape[1], of_x + of_y)


def _scaled(x: Array) -> tuple[Array, Any]:
    """float64 rows, the largest number of each around 1, and by what power of 2."""
    wide = x.astype(np.float64)
    exponents = -np.frexp(abs(wide).max(axis=1))[1]
    return np.ldexp(wide, exponents[:, None]), exponents


def _halves(x: Array) -> tuple[Array, Array]:
    """Two numbers of 26 bits that each of 53 is the sum of."""
    far = SPLITTER * x
    high = far - (far - x)
    return high, x - high
