"""Loading generated code into this process."""

from nkblas._engine import ffi, lib

from .spec import KernelSpec


def open_library(spec: KernelSpec, library: bytes) -> int:
    """Load a shared library, given as bytes, for the rest of the process's life.

    Returns
    -------
    int
        The address of the function of `spec`.

    Raises
    ------
    OSError
        The system can't load it.
    """
    message = ffi.new("char[]", 256)
    symbol = spec.symbol.encode()
    address = lib.nk_load(library, len(library), symbol, symbol, message, len(message))
    if address == ffi.NULL:
        raise OSError(ffi.string(message).decode(errors="replace"))
    return int(ffi.cast("uintptr_t", address))
