"""The arguments of `nkblas.blas`: converted as `scipy.linalg.blas` does, with its errors."""

import operator
import sys
from collections.abc import Callable
from functools import cache
from inspect import Parameter, Signature
from math import prod
from typing import Any, TypeVar

import numpy as np

from .gufuncs import fast_path
from .operands import Array, DType, as_native_aligned, is_native_aligned

Number = TypeVar("Number", int, float, complex)

DTYPES: dict[str, DType] = {
    letter: np.dtype(char) for letter, char in zip("sdcz", "fdFD", strict=True)
}
"""By the letter that a function's name begins with."""


class BlasError(ValueError):
    """An argument does not fit the others.

    In a program that has imported `scipy.linalg`, the error is also an instance of SciPy's own.
    """


BlasError.__module__ = "nkblas.blas"  # where users find it


def _error_class() -> type[BlasError]:
    scipy = sys.modules.get("scipy.linalg._fblas")
    return BlasError if scipy is None else _derived_error(scipy.__fblas_error)


@cache
def _derived_error(scipy_error: type[Exception]) -> type[BlasError]:
    attributes = {"__module__": BlasError.__module__}
    return type("BlasError", (BlasError, scipy_error), attributes)


class Arguments:
    """Converts the arguments of one function of BLAS, and describes them in errors.

    Parameters
    ----------
    name : str
        The function's name; its first letter is that of its dtype.
    signature : Signature
        Its parameters.
    """

    def __init__(self, name: str, signature: Signature) -> None:
        self.name = name
        self.dtype = DTYPES[name[0]]
        self.signature = signature
        parameters = signature.parameters.values()
        self.required = [x.name for x in parameters if x.default is Parameter.empty]
        self.optional = [x.name for x in parameters if x.default is not Parameter.empty]

    def error(self, argument: str, got: object, expected: str) -> BlasError:
        """The error for an argument, which is described as SciPy does: "2nd argument a"."""
        kind = "argument" if argument in self.required else "keyword"
        names = self.required if argument in self.required else self.optional
        number = names.index(argument) + 1
        ordinal = {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
        place = f"{ordinal} {kind} {argument}"
        return _error_class()(f"{self.name}: failed for {place}: got {got}, expected {expected}")

    def doc_fields(self) -> dict[str, str]:
        """What its docstring says; the examples print real parts."""
        return {
            "name": self.name,
            "dtype": self.dtype.name,
            "dtype_in_repr": ", dtype=float32" if self.name[0] in "sc" else "",
        }

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, without defaults.

        Raises
        ------
        TypeError
        """
        names = self.signature.parameters
        given = dict(zip(names, args, strict=False), **kwargs)
        is_complete = len(given) == len(args) + len(kwargs) and given.keys() >= set(self.required)
        if is_complete and given.keys() <= names.keys():
            return given
        try:
            return self.signature.bind(*args, **kwargs).arguments  # it has the words for the error
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    # ---- numbers ----

    def _number(self, argument: str, value: Any, kind: type[Number]) -> Number:
        """A Python number: the first element of a sequence; the real part if `kind` is real.

        Raises
        ------
        TypeError, ValueError, IndexError
            `value` is not a number.
        """
        if type(value) is kind:
            return value
        try:
            if isinstance(value, str | bytes):
                raise (TypeError if kind is complex else ValueError)
            if isinstance(value, np.ndarray | list | tuple):
                value = np.asarray(value).flat[0]
            if kind is not complex and isinstance(value, complex | np.complexfloating):
                value = value.real
            return kind(value)
        except (TypeError, ValueError, IndexError) as error:
            raise type(error)(
                f"{self.name}: {argument}: got {value!r}, expected a number of type {kind.__name__}"
            ) from None

    def integer(self, argument: str, value: Any, default: int = 0) -> int:
        """An int; None is the default."""
        if value is None:
            return default
        return value if type(value) is int else self._number(argument, value, int)

    def choice(self, argument: str, value: Any, choices: tuple[int, ...]) -> int:
        """One of these integers; None is the first."""
        number = self.integer(argument, value)
        if number not in choices:
            *others, last = map(str, choices)
            raise self.error(argument, number, f"{', '.join(others)} or {last}")
        return number

    def flag(self, argument: str, value: Any) -> bool:
        """Whether an integer is not 0.

        Raises
        ------
        TypeError
            `value` is not an integer.
        """
        try:
            return operator.index(value) != 0
        except TypeError:
            raise TypeError(
                f"{self.name}: {argument}: got {value!r}, expected an integer"
            ) from None

    def factor(self, argument: str, value: Any) -> complex:
        """The number for alpha or beta."""
        if self.dtype.kind == "c":
            return self._number(argument, value, complex)
        return self._number(argument, value, float)

    # ---- arrays ----

    def array(self, value: Any, ndim: int) -> Array:
        """An operand with `ndim` dimensions, which the engine can read."""
        if not isinstance(value, np.ndarray):
            value = np.asarray(value, self.dtype)  # raises if it has to make complex numbers real
        return with_ndim(as_native_aligned(value, self.dtype), ndim)

    def result(self, value: Any, overwrite: bool) -> Array:
        """The array to return, with an argument in it: that itself if it can be overwritten."""
        if (
            overwrite
            and isinstance(value, np.ndarray)
            and is_native_aligned(value, self.dtype)
            and value.flags.f_contiguous
            and value.flags.writeable
        ):
            return value
        return np.array(value, self.dtype, order="F")

    def vector(self, argument: str, array: Array, count: int, offset: int, inc: int) -> Array:
        """`count` elements of `array` from `offset` on, at distances of ``abs(inc)``.

        If `inc` is negative they are in reverse order.
        """
        last = offset + (count - 1) * abs(inc)
        if not 0 <= offset < len(array) or last >= len(array):
            expected = f"{max(count, 1)}, {abs(inc)} apart and the first at {offset}"
            raise self.error(argument, f"{len(array)} elements", expected)
        return array[offset : max(offset, last + 1) : abs(inc)][:: 1 if inc > 0 else -1]


def with_ndim(array: Array, ndim: int) -> Array:
    """The array with `ndim` dimensions.

    Missing dimensions have length 1 and come last. If there are too many, those of length 1 are
    removed, and the remaining ones from `ndim` on are merged into one, in Fortran order.
    """
    if array.ndim == ndim:
        return array
    shape = array.shape
    if array.ndim > ndim:
        shape = tuple(length for length in shape if length != 1)
    shape += (1,) * (ndim - len(shape))
    return array.reshape((*shape[: ndim - 1], prod(shape[ndim - 1 :])), order="F")


def named(function: Callable[..., Array], name: str, doc: str) -> Callable[..., Array]:
    """The function of `nkblas.blas` with this name, and with its fast path."""
    function.__name__ = function.__qualname__ = name
    function.__module__ = BlasError.__module__
    function.__doc__ = doc
    return fast_path(function)
