"""What a result has to be, computed apart from every contender, and what error it may have."""

import math
import time
from collections.abc import Callable

import numpy as np

from .operands import Array, Operands
from .peers import Call, side_by_side

DIGIT = 16
"""Bits of an integer's digit: sums of 2**21 products of two are exact in float64."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x / 2 * (1 + np.vectorize(math.erf, [np.float64])(x * math.sqrt(0.5))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}
"""Of the names of `bench.suites.ACTIVATIONS`: the functions."""

STEEPEST = 1.13
"""The most by which any of them makes an error larger."""

STEPS = 8
"""So many eps of its argument may an activation's own error be, the addition of a bias included."""


class Expected:
    """What is to be made of operands: integers exactly, modulo their range; others in float64.

    Parameters
    ----------
    operands : Operands
        Contenders write to its `out`.
    """

    def __init__(self, operands: Operands) -> None:
        a, b, out, bias, case = operands
        self._out = out
        if case.batch_reduce:
            a, b = side_by_side(a, b)
        if out.dtype.kind in "iub":
            self._result, self._bound = exact(a, b, out.dtype), np.zeros(())
            if bias is not None:
                self._result = ACTIVATIONS[case.activation](self._result + bias)
            self._poison = ~self._result
        else:
            self._result, self._bound = approximate(a, b, out.dtype)
            if bias is not None:
                made = self._result, self._bound
                self._result, self._bound = layer(*made, bias, case.activation, out.dtype)
            self._poison = np.full(out.shape, np.nan).astype(out.dtype)

    def verify(self, call: Call) -> float:
        """Make the call and look at what it wrote, or at what it returned if it wrote nothing.

        Returns
        -------
        float
            Seconds that the call took.

        Raises
        ------
        ArithmeticError
            It is not the result.
        """
        self._out[...] = self._poison  # what a call leaves out fails
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        if result is None or self._out.tobytes() != self._poison.tobytes():
            result = self._out
        result = np.asarray(result)
        if result.dtype != self._out.dtype:
            raise ArithmeticError(f"of type {result.dtype}, expected {self._out.dtype}")
        if not self._bound.ndim:
            if not np.array_equal(result, self._result):
                raise ArithmeticError("not the exact product")
        elif not (abs(result.astype(self._result.dtype) - self._result) <= self._bound).all():
            raise ArithmeticError("outside of the error bound")
        return seconds


def exact(a: Array, b: Array, dtype: np.dtype) -> Array:
    """Product of integers, modulo the range of `dtype`, or of truth values.

    Digit by digit in float64, where every sum of up to 2**21 products is exact.
    """
    if dtype.kind == "b":
        return a.astype(np.float64) @ b.astype(np.float64) > 0
    places = range(0, 8 * dtype.itemsize, DIGIT)

    def digits(x: Array) -> list[Array]:
        unsigned = x.astype(np.uint64)
        return [(unsigned >> p & ((1 << DIGIT) - 1)).astype(np.float64) for p in places]

    digits_a, digits_b = digits(a), digits(b)
    total = np.zeros((), np.uint64)
    for i, x in enumerate(digits_a):
        for j, y in enumerate(digits_b[: len(places) - i]):  # beyond is beyond the range
            total = total + ((x @ y).astype(np.uint64) << DIGIT * (i + j))
    return total.astype(dtype)


def approximate(a: Array, b: Array, dtype: np.dtype) -> tuple[Array, Array]:
    """Product in float64 or complex128, and the error that one in `dtype` may have.

    That is ``k eps (|A| |B|)``, with the eps of the sums, whose type is float32 at least, and one
    rounding to `dtype` where that is narrower. A sum over k complex products is one over 2 k real
    ones. It leaves room for this product's own error: each of the two is within half of it.
    """
    wide = np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    a, b = (x.astype(wide, copy=False) for x in (a, b))
    product = a @ b
    real = np.empty(0, dtype).real.dtype
    sums = np.promote_types(real, np.float32)
    k = a.shape[-1] * (2 if dtype.kind == "c" else 1)
    bound = k * eps(sums) * (abs(a) @ abs(b))
    if sums != real:
        bound += eps(real) * abs(product) + float(np.nextafter(real.type(0), real.type(1)))
    return product, bound


def layer(
    product: Array, bound: Array, bias: Array, activation: str, dtype: np.dtype
) -> tuple[Array, Array]:
    """What a layer makes of a product, and the error that it may have, from those of the product.

    Its steps are rounded, in the type of the sums or, if several calls do it, in `dtype`.
    """
    sums = product + bias.astype(product.dtype)
    result = ACTIVATIONS[activation](sums)
    return result, STEEPEST * (bound + STEPS * eps(dtype) * abs(sums))


def eps(dtype: np.dtype) -> float:
    """From 1 to the next number of a type, one of ml_dtypes too."""
    return float(np.nextafter(dtype.type(1), dtype.type(2))) - 1
