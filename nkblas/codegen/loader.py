"""Loading generated code into this process."""

from nkblas._engine import ffi, lib

from .spec import KernelSpec


def open_library(spec: KernelSpec, library: bytes) -> int:
    """The address of the function of `spec` in a shared library given as bytes.

    It stays loaded for as long as the process lives.

    Raises
    ------
    OSError
        The system does not load it.
    """
    message = ffi.new("char[]", 256)
    symbol = spec.symbol.encode()
    address = lib.nk_load(library, len(library), symbol, symbol, message, len(message))
    if address == ffi.NULL:
        raise OSError(ffi.string(message).decode(errors="replace"))
    return int(ffi.cast("uintptr_t", address))
