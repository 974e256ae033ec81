"""The interface of a contender: a library that is measured, nkblas or one of its peers.

A contender is created for a maximum number of threads. Its `bind` prepares one case as a function
without arguments, the call that an experienced user of the library would make, or as several
alternatives if only a measurement can tell which is the fastest. Work that each product requires is
inside the call, such as the copy of an operand whose layout the library does not support. Work that
is done once for a shape or for a weight matrix is done by `bind`.
"""

import ctypes
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from bench.operands import Array, Operands, same_dtype

Call: TypeAlias = Callable[[], object]

Forms: TypeAlias = dict[str, Call]
"""Alternative calls for one case, by name; the name is empty if there is only one."""


class AbsentError(RuntimeError):
    """A library is not installed, or does not support a case; the message is the reason."""


class Contender(Protocol):
    """A library that is measured.

    The constructor raises `AbsentError` if the library is not installed.

    Attributes
    ----------
    name : str
    version : str
        The version, and other facts that identify the code that runs.
    """

    name: str
    version: str

    def set_num_threads(self, threads: int) -> None:
        """Set the number of threads of all further calls."""
        ...

    def bind(self, operands: Operands, use_out: bool) -> Forms:
        """Prepare calls that compute the case of some operands.

        Parameters
        ----------
        operands : Operands
        use_out : bool
            Whether the calls write to `operands.out`. Otherwise they return a new array. (A library
            that supports only one of the two ignores it.)

        Raises
        ------
        AbsentError
            The library does not support the case.
        """
        ...


def matmul_call(matmul: Any, a: Array, b: Array, out: Array, use_out: bool) -> Call:
    """A call of `numpy.matmul` or of a function with the same arguments."""
    options: dict[str, Any] = {} if same_dtype(a, b, out) else {"dtype": out.dtype}
    if use_out:
        options["out"] = out
    # Unpacking a dict of keyword arguments takes measurable time beside a very small product.
    if options.keys() == {"out"}:
        return lambda: matmul(a, b, out=out)
    return (lambda: matmul(a, b, **options)) if options else (lambda: matmul(a, b))


def load_module(name: str) -> Any:
    """Import a module of an optional package.

    Raises
    ------
    AbsentError
        The package is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise AbsentError(f"the package {name} is not installed") from None


def load_library(name: str, mode: int = ctypes.DEFAULT_MODE) -> ctypes.CDLL:
    """Load a shared library; `mode` as for `ctypes.CDLL`.

    Raises
    ------
    AbsentError
        The dynamic linker can't load it.
    """
    try:
        return ctypes.CDLL(name, mode)
    except OSError as error:
        raise AbsentError(str(error)) from None
