"""Loading generated code into this process."""

from nkblas._engine import ffi, lib

from .spec import KernelSpec


class Library:
    """A shared library that stays loaded for the rest of the process's life.

    Parameters
    ----------
    name : str
        What debuggers and profilers show for it.
    content : bytes

    Raises
    ------
    OSError
        The system can't load it.
    """

    def __init__(self, name: str, content: bytes) -> None:
        message = ffi.new("char[]", 256)
        self._handle = lib.nk_open_library(
            content, len(content), name.encode(), message, len(message)
        )
        if self._handle == ffi.NULL:
            raise OSError(ffi.string(message).decode(errors="replace"))

    def find(self, spec: KernelSpec) -> int | None:
        """The address of the function of `spec`; None if the library lacks it."""
        address = lib.nk_find_function(self._handle, spec.symbol.encode())
        return None if address == ffi.NULL else int(ffi.cast("uintptr_t", address))


def load_kernel(spec: KernelSpec, library: bytes) -> int:
    """Load the shared library of one kernel, and return the address of its function.

    Raises
    ------
    OSError
        The system can't load it, or it has no such function.
    """
    address = Library(spec.symbol, library).find(spec)
    if address is None:
        raise OSError(f"no function {spec.symbol} in the library")
    return address
