"""What makes kernels on this machine: MLIR's packages, and the system's linker."""

import os
import shutil
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
    beside = {os.path.dirname(place) for place in spec.submodule_search_locations or []}
    return " ".join(
        sorted(
            name.removesuffix(".dist-info")
            for folder in beside
            for name in os.listdir(folder)
            if name.endswith(".dist-info") and ("mlir" in name or "llvm" in name)
        )
    )


def find_linker() -> tuple[str, str] | None:
    """Name and path of the first of `LINKERS` that is in ``PATH``."""
    for name in LINKERS:
        path = shutil.which(name)
        if path is not None:
            return name, path
    return None
