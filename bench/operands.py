"""The arrays that a case multiplies, in the layouts that it names."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from .suites import Case, Layout, parse_dtypes

Array = np.ndarray[Any, Any]

LAYOUTS: dict[Layout, Callable[[Array], Array]] = {
    "": lambda x: x,
    ".T": lambda x: np.ascontiguousarray(x.mT).mT,
    "[::2]": lambda x: np.repeat(x, 2, axis=-2)[..., ::2, :],
    "[:, ::2]": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
}
"""Functions that convert a C-contiguous array to a layout with the same values."""


class Operands(NamedTuple):
    """The arrays of a case.

    Attributes
    ----------
    a, b : ndarray
    out : ndarray
        An array of the shape and dtype of the result.
    bias : ndarray or None
        The bias of a layer: a number for each column.
    case : Case
    """

    a: Array
    b: Array
    out: Array
    bias: Array | None
    case: Case

    def with_copy_of_b(self) -> "Operands":
        """The same operands with a copy of B in the same layout."""
        return self._replace(b=LAYOUTS[self.case.b](self.b.copy()))


def make_operands(case: Case, dtype: str) -> Operands:
    """Allocate and fill the arrays of a case; the same values on each call.

    Raises
    ------
    ImportError
        NumPy lacks the dtype, and the package ml_dtypes is not installed.
    """
    dtype_a, dtype_b, dtype_c = map(numpy_dtype, parse_dtypes(dtype))
    generator = np.random.default_rng(case.elements)
    batch_shape = (case.batch,) if case.batch else ()

    def matrix(dtype: np.dtype, rows: int, columns: int, layout: Layout) -> Array:
        shape = (*batch_shape, rows, columns)
        return LAYOUTS[layout](random_array(generator, dtype, shape, case.k))

    a, b = matrix(dtype_a, case.m, case.k, case.a), matrix(dtype_b, case.k, case.n, case.b)
    shape_c = (case.m, case.n) if case.batch_reduce else (*batch_shape, case.m, case.n)
    out = np.empty(shape_c, dtype_c)
    bias = None
    if case.activation:
        bias = random_array(generator, dtype_c, (case.n,), case.k)
        if dtype_b.kind not in "iub":  # sums of about 1, as in trained layers
            b *= dtype_b.type(3 / math.sqrt(case.k))
    if case.m == 1:
        a, out = a[..., 0, :], out[..., 0, :]
    if case.n == 1:
        b, out = b[..., 0], out[..., 0]
    return Operands(a, b, out, bias, case)


def numpy_dtype(name: str) -> np.dtype:
    """The dtype with this name, of NumPy or else of ml_dtypes."""
    try:
        return np.dtype(name)
    except TypeError:
        dtype: np.dtype = np.dtype(getattr(import_module("ml_dtypes"), name))
        return dtype


def random_array(
    generator: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...], k: int
) -> Array:
    """Random values of a dtype.

    Floats, and the parts of complex numbers, are from -1 to 1; integers have their full range; for
    bool, the fraction of True is such that half of the elements of a product over `k` are True.
    """
    if dtype.kind == "b":
        return generator.random(shape) < math.sqrt(math.log(2) / k)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    values = generator.uniform(-1, 1, shape)
    if dtype.kind == "c":
        return (values + 1j * generator.uniform(-1, 1, shape)).astype(dtype)
    return values.astype(dtype, copy=False)


def same_dtype(*arrays: Array) -> bool:
    """Whether all arrays have the same dtype."""
    return len({x.dtype for x in arrays}) == 1


def concatenate_blocks(a: Array, b: Array) -> tuple[Array, Array]:
    """Two matrices whose product is the sum of the products of two batches."""
    return np.concatenate(a, axis=1), np.concatenate(b)
