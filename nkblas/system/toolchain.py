"""The tools that make kernels on this machine: the packages of MLIR, and the system's linker."""

import os
from importlib.util import find_spec

LINKERS = ("ld", "ld.lld", "cc")
"""Programs that can link, in the order of preference."""

MLIR_PACKAGE = "mlir"
LLVM_PACKAGE = "llvm"
"""Import packages: MLIR's Python bindings, and the package with the libLLVM that they load."""


def toolchain() -> str:
    """Identify the compiler: names and versions of the two distributions that it consists of.

    The metadata folders beside the package ``mlir`` are searched for those whose ``top_level.txt``
    lists ``mlir`` or ``llvm``. (`importlib.metadata` can do the same, but takes longer than loading
    the kernels.) If there is none for ``mlir``, the names, sizes and modification times of its
    libraries identify it.

    Returns
    -------
    str
        Empty if there is no ``mlir``.
    """
    spec = find_spec(MLIR_PACKAGE)
    if spec is None:
        return ""
    package_folders = list(spec.submodule_search_locations or [])
    distributions = [
        (os.path.join(site, name), name.removesuffix(".dist-info"))
        for site in map(os.path.dirname, package_folders)
        for name in os.listdir(site)
        if name.endswith(".dist-info") and (MLIR_PACKAGE in name or LLVM_PACKAGE in name)
    ]
    mlir = [name for folder, name in distributions if MLIR_PACKAGE in _packages_in(folder)]
    llvm = [name for folder, name in distributions if LLVM_PACKAGE in _packages_in(folder)]
    return " ".join(sorted({*mlir, *llvm}) if mlir else _libraries(package_folders))


def _packages_in(metadata_folder: str) -> list[str]:
    """The import packages that a distribution says it provides."""
    try:
        with open(os.path.join(metadata_folder, "top_level.txt"), encoding="utf-8") as file:
            return file.read().split()
    except OSError:
        return []


def _libraries(package_folders: list[str]) -> list[str]:
    """Name, size and modification time of each of MLIR's shared libraries."""
    folders = [os.path.join(folder, "_mlir_libs") for folder in package_folders]
    return [
        f"{entry.name}:{entry.stat().st_size}:{entry.stat().st_mtime_ns}"
        for folder in filter(os.path.isdir, folders)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if ".so" in entry.name
    ]


def find_disassembler() -> str | None:
    """Path of LLVM's objdump, which the packages of MLIR bring, or else of the system's."""
    # takes milliseconds to import: only to show machine code
    import shutil

    package = find_spec(LLVM_PACKAGE)
    folders = list(package.submodule_search_locations or []) if package else []
    package_path = os.pathsep.join(os.path.join(folder, "bin") for folder in folders)
    for name in ("llvm-objdump", "objdump"):
        path = shutil.which(name, path=package_path) or shutil.which(name)
        if path is not None:
            return path
    return None


def find_linker() -> tuple[str, str] | None:
    """Name and path of the first of `LINKERS` that is in ``PATH``."""
    # takes milliseconds to import: only where a kernel is compiled
    import shutil

    for name in LINKERS:
        path = shutil.which(name)
        if path is not None:
            return name, path
    return None
