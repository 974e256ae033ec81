"""Operands and results as the engine takes them: native dtypes, aligned, without overlap."""

from typing import Any, NamedTuple

import numpy as np

from nkblas.base.epilogues import READ_PADDING

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]


def is_native_aligned(array: Array, dtype: DType) -> bool:
    """Whether the engine can use an array in place as one of `dtype`, a native dtype.

    The array has this dtype and is aligned, and its strides are multiples of the itemsize. (A
    complex array can be aligned although its strides are not.)
    """
    if array.dtype != dtype or not array.flags.aligned:
        return False
    for stride in array.strides:  # noqa: SIM110 (a generator takes three times as long)
        if stride % array.itemsize:
            return False
    return True


def as_native_aligned(array: Array, dtype: DType) -> Array:
    """The array itself if `is_native_aligned`, else a copy of `dtype`."""
    return array if is_native_aligned(array, dtype) else array.astype(dtype)


def apply_trans(array: Array, trans: int) -> tuple[Array, bool]:
    """``op(array)`` without its conjugation, and whether the engine has to conjugate it.

    `trans` is 0 for no operation, 1 for the transpose, 2 for the conjugate transpose.
    """
    return array.T if trans else array, trans == 2 and array.dtype.kind == "c"


def padded_vector(values: Array, count: int, dtype: DType) -> Array:
    """`count` elements, or one number repeated, and zeros: kernels read whole vectors."""
    vector = np.zeros(count + READ_PADDING, dtype)
    vector[:count] = values
    return vector


def check_out(out: Any, shape: tuple[int, ...], dtype: DType) -> Array:
    """The array to return: `out`, or a new one.

    Raises
    ------
    ValueError
        `out` has another shape or dtype, or is read-only.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or (out.shape, out.dtype) != (shape, dtype):
        got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else repr(out)
        raise ValueError(f"out: got {got}, expected an array of {dtype} of shape {shape}")
    if not out.flags.writeable:
        raise ValueError("out: got a read-only array, expected one that can be written")
    return out


class Output(NamedTuple):
    """The array that a function returns, and the memory that the product is computed in.

    Attributes
    ----------
    result : ndarray
        The array to return: `out`, which may be an instance of a subclass, or a new one.
    elements : ndarray
        The same memory as a base-class array: masks, for instance, do not affect assignments to it.
    target : ndarray
        C of the product: `elements`, or a temporary array that `finish` copies to it.
    """

    result: Array
    elements: Array
    target: Array

    @classmethod
    def prepare(cls, result: Array, dtype: DType, *, row_major: bool = False) -> "Output":
        """Compute in the result's own memory if the engine can write a C of `dtype` there.

        With `row_major`, C has to be C-contiguous.
        """
        elements = np.asarray(result)
        in_place = is_native_aligned(elements, dtype) and elements.flags.writeable
        if in_place and (elements.flags.c_contiguous or not row_major):
            return cls(result, elements, elements)
        return cls(result, elements, np.empty(elements.shape, dtype))

    def finish(self, casting: Any = "unsafe") -> Array:
        """Copy a temporary target to the result, and return the result."""
        if self.target is not self.elements:
            with np.errstate(all="ignore"):
                np.copyto(self.elements, self.target, casting=casting)
        return self.result
