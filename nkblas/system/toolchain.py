"""What makes kernels on this machine: MLIR's packages, and the system's linker."""

import os
from importlib.util import find_spec

LINKERS = ("ld", "ld.lld", "cc")
"""Programs that can link, in the order of preference."""


def toolchain() -> str:
    """Name and version of the packages that provide ``mlir``; empty if there is none.

    Read from the names of the metadata folders beside the package: `importlib.metadata` gives the
    same and takes longer than loading the kernels.
    """
    spec = find_spec("mlir")
    if spec is None:
        return ""
    places = list(spec.submodule_search_locations or [])
    beside = [name for place in places for name in os.listdir(os.path.dirname(place))]
    found = sorted(
        name.removesuffix(".dist-info")
        for name in beside
        if name.endswith(".dist-info") and ("mlir" in name or "llvm" in name)
    )
    if not found:  # not from a package: its libraries are told apart by what the disk says
        libraries = [os.path.join(place, "_mlir_libs") for place in places]
        found = [
            f"{entry.name}:{entry.stat().st_size}:{entry.stat().st_mtime_ns}"
            for folder in libraries
            if os.path.isdir(folder)
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
            if ".so" in entry.name
        ]
    return " ".join(found)


def find_disassembler() -> str | None:
    """Path of LLVM's or the system's objdump: the former comes with the packages of ``mlir``."""
    import shutil

    package = find_spec("llvm")
    places = list(package.submodule_search_locations or []) if package else []
    beside = os.pathsep.join(os.path.join(place, "bin") for place in places)
    for name in ("llvm-objdump", "objdump"):
        path = shutil.which(name, path=beside) or shutil.which(name)
        if path is not None:
            return path
    return None


def find_linker() -> tuple[str, str] | None:
    """Name and path of the first of `LINKERS` that is in ``PATH``."""
    import shutil

    for name in LINKERS:
        path = shutil.which(name)
        if path is not None:
            return name, path
    return None
