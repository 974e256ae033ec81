"""The operands of a case, laid out as its label says."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from .suites import Case, types

Array = np.ndarray[Any, Any]

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "": lambda x: x,
    ".T": lambda x: np.ascontiguousarray(x.mT).mT,
    "[::2]": lambda x: np.repeat(x, 2, axis=-2)[..., ::2, :],
    "[:, ::2]": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
}
"""From a contiguous array in C order to the same values in another layout."""


class Operands(NamedTuple):
    """A case in arrays.

    Attributes
    ----------
    a, b : ndarray
    out : ndarray
        For the result, whose type it has.
    bias : ndarray or None
        Of a layer: a number for each column.
    case : Case
        What is to be made of them.
    """

    a: Array
    b: Array
    out: Array
    bias: Array | None
    case: Case

    def with_own_weights(self) -> "Operands":
        """The same with another B that lies as this one does."""
        return self._replace(b=LAYOUTS[self.case.b](self.b.copy()))


def operands(case: Case, dtype: str) -> Operands:
    """Arrays for a case.

    Raises
    ------
    ImportError
        NumPy has no such type, and the package ml_dtypes is not installed.
    """
    of_a, of_b, of_c = map(element, types(dtype))
    generator = np.random.default_rng(case.elements)
    stack = (case.batch,) if case.batch else ()

    def matrix(dtype: np.dtype, rows: int, columns: int, layout: str) -> Array:
        return LAYOUTS[layout](draw(generator, dtype, (*stack, rows, columns), case.k))

    a, b = matrix(of_a, case.m, case.k, case.a), matrix(of_b, case.k, case.n, case.b)
    out = np.empty((case.m, case.n) if case.batch_reduce else (*stack, case.m, case.n), of_c)
    bias = None
    if case.activation:
        bias = draw(generator, of_c, (case.n,), case.k)
        if of_b.kind not in "iub":  # sums around 1, as those of layers are
            b *= of_b.type(3 / math.sqrt(case.k))
    if case.m == 1:
        a, out = a[..., 0, :], out[..., 0, :]
    if case.n == 1:
        b, out = b[..., 0], out[..., 0]
    return Operands(a, b, out, bias, case)


def element(name: str) -> np.dtype:
    """The type of that name, NumPy's or one of ml_dtypes."""
    try:
        return np.dtype(name)
    except TypeError:
        return np.dtype(getattr(import_module("ml_dtypes"), name))


def draw(generator: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...], k: int) -> Array:
    """Values from -1 to 1, of both parts if complex; all integers; as many True as leave a product
    over `k` half False."""
    if dtype.kind == "b":
        return generator.random(shape) < math.sqrt(math.log(2) / k)
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        return generator.integers(ends.min, ends.max, shape, dtype, endpoint=True)
    values = generator.uniform(-1, 1, shape)
    if dtype.kind == "c":
        return (values + 1j * generator.uniform(-1, 1, shape)).astype(dtype)
    return values.astype(dtype, copy=False)
