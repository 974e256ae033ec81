"""Reference results, computed independently of all contenders, and the errors that are allowed."""

import math
import time
from collections.abc import Callable

import numpy as np

from .operands import Array, Operands, concatenate_blocks
from .peers.contender import Call
from .suites import Activation

DIGIT_BITS = 16
"""Bits of the digits that integers are split into.

float64 is exact for sums of up to 2**21 products of two digits.
"""

ACTIVATION_FUNCTIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x / 2 * (1 + np.vectorize(math.erf, [np.float64])(x * math.sqrt(0.5))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}

MAX_ACTIVATION_SLOPE = 1.13
"""Largest slope of an activation: the largest factor by which it amplifies an error."""

ACTIVATION_ERROR_EPS = 8
"""Error allowed to the bias addition and the activation, in eps of the activation's argument."""


class Reference:
    """The correct result of a case: exact modulo 2**bits for integers, in float64 for others.

    Parameters
    ----------
    operands : Operands
        The operands that contenders multiply, and the `out` that they write to.
    """

    def __init__(self, operands: Operands) -> None:
        a, b, out, bias, case = operands
        self._out = out
        if case.batch_reduce:
            a, b = concatenate_blocks(a, b)
        if out.dtype.kind in "iub":
            self._result, self._bound = exact_product(a, b, out.dtype), np.zeros(())
            if bias is not None:
                self._result = ACTIVATION_FUNCTIONS[case.activation](self._result + bias)
            self._poison = ~self._result
        else:
            self._result, self._bound = product_and_bound(a, b, out.dtype)
            if bias is not None:
                self._result, self._bound = layer_and_bound(
                    self._result, self._bound, bias, case.activation, out.dtype
                )
            self._poison = np.full(out.shape, np.nan).astype(out.dtype)

    def verify(self, call: Call) -> float:
        """Check the result of a call: what it wrote to `out`, or else what it returned.

        Returns
        -------
        float
            Seconds that the call took.

        Raises
        ------
        ArithmeticError
            The result is wrong.
        """
        self._out[...] = self._poison  # elements that the call does not write are wrong
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        if result is None or self._out.tobytes() != self._poison.tobytes():
            result = self._out
        result = np.asarray(result)
        if result.dtype != self._out.dtype:
            raise ArithmeticError(f"of dtype {result.dtype}, expected {self._out.dtype}")
        if not self._bound.ndim:
            if not np.array_equal(result, self._result):
                raise ArithmeticError("not exact")
        elif not (abs(result.astype(self._result.dtype) - self._result) <= self._bound).all():
            raise ArithmeticError("outside the error bound")
        return seconds


def exact_product(a: Array, b: Array, dtype: np.dtype) -> Array:
    """Product of integers modulo the range of `dtype`, or logical product of bools.

    Integers are multiplied digit by digit in float64, which is exact for up to 2**21 terms.
    """
    if dtype.kind == "b":
        return a.astype(np.float64) @ b.astype(np.float64) > 0
    shifts = range(0, 8 * dtype.itemsize, DIGIT_BITS)

    def digits(x: Array) -> list[Array]:
        unsigned = x.astype(np.uint64)
        return [(unsigned >> s & ((1 << DIGIT_BITS) - 1)).astype(np.float64) for s in shifts]

    digits_a, digits_b = digits(a), digits(b)
    total = np.zeros((), np.uint64)
    for i, x in enumerate(digits_a):
        for j, y in enumerate(digits_b[: len(shifts) - i]):  # higher digits are out of range
            total = total + ((x @ y).astype(np.uint64) << DIGIT_BITS * (i + j))
    return total.astype(dtype)


def product_and_bound(a: Array, b: Array, dtype: np.dtype) -> tuple[Array, Array]:
    """Product in float64 or complex128, and the error allowed to a product of type `dtype`.

    The bound is ``k eps (|A| |B|)``, with the eps of the accumulator, which is at least float32,
    plus one rounding to `dtype` where that is narrower. A complex sum of k products is a real sum
    of 2 k products. The error of the reference itself is covered: both errors are at most half of
    the bound.
    """
    wide = np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    a, b = (x.astype(wide, copy=False) for x in (a, b))
    product = a @ b
    real = np.empty(0, dtype).real.dtype
    accumulator = np.promote_types(real, np.float32)
    k = a.shape[-1] * (2 if dtype.kind == "c" else 1)
    bound = k * eps(accumulator) * (abs(a) @ abs(b))
    if accumulator != real:
        bound += eps(real) * abs(product) + float(np.nextafter(real.type(0), real.type(1)))
    return product, bound


def layer_and_bound(
    product: Array, bound: Array, bias: Array, activation: Activation, dtype: np.dtype
) -> tuple[Array, Array]:
    """Result of a layer and the error allowed to it, from those of the product.

    The steps of a layer are rounded to the type of the accumulator, or to `dtype` where each step
    is a separate call.
    """
    argument = product + bias.astype(product.dtype)
    own_error = ACTIVATION_ERROR_EPS * eps(dtype) * abs(argument)
    return ACTIVATION_FUNCTIONS[activation](argument), MAX_ACTIVATION_SLOPE * (bound + own_error)


def eps(dtype: np.dtype) -> float:
    """Difference between 1 and the next larger number of a dtype, also of ml_dtypes."""
    return float(np.nextafter(dtype.type(1), dtype.type(2))) - 1
