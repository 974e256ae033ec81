"""Kernels that were installed with the package: a shared library for each ISA and dtype.

``kernels.json`` holds their digests, and the hash of the sources that they were generated from: a
library that is damaged, or of other sources, counts as absent. They need no compiler, no linker and
no folder that can be written to. `release/kernels.py` makes them.
"""

import hashlib
import json
import os

from nkblas.codegen.loader import Library
from nkblas.codegen.spec import KernelSpec
from nkblas.system import config
from nkblas.system.log import log
from nkblas.system.package import shipped_folder

from .store import sources_hash

MANIFEST = "kernels.json"
"""Name of the file with the digests: ``{"sources": hash, "libraries": {name: digest}}``."""


def library_name(spec: KernelSpec) -> str:
    """The file with a kernel."""
    return f"{spec.isa}-{spec.dtype}.so"


class ShippedKernels:
    """The kernels in the package's folder ``kernels_cache``.

    Parameters
    ----------
    folder : str, optional
    """

    def __init__(self, folder: str = "") -> None:
        self.folder = folder or shipped_folder()
        self._digests: dict[str, str] | None = None
        self._libraries: dict[str, Library | None] = {}

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each library, by its name; none if they are of other sources."""
        if self._digests is None:
            self._digests = self._read_manifest()
        return self._digests

    def find(self, spec: KernelSpec) -> int | None:
        """The address of a kernel; None if it is not shipped."""
        name = library_name(spec)
        if name not in self._libraries:
            self._libraries[name] = self._open(name)
        library = self._libraries[name]
        return library.find(spec) if library else None

    def _read_manifest(self) -> dict[str, str]:
        path = os.path.join(self.folder, MANIFEST)
        if not config.MAY_USE_SHIPPED_KERNELS:
            return {}
        try:
            with open(path, "rb") as file:
                manifest = json.load(file)
            sources, digests = manifest["sources"], dict(manifest["libraries"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log("warning", f"{path} is damaged ({error}): kernels are compiled", once=True)
            return {}
        if sources != sources_hash():
            log("info", f"{path} is of other sources: kernels are compiled")
            return {}
        return digests

    def _open(self, name: str) -> Library | None:
        digest = self.digests.get(name)
        if digest is None:
            return None
        path = os.path.join(self.folder, name)
        try:
            with open(path, "rb") as file:
                content = file.read()
            if hashlib.sha256(content).hexdigest() != digest:
                raise OSError("it does not match its digest")
            return Library(name, content)
        except OSError as error:
            reason = error.strerror or error
            log("warning", f"{path} can't be used ({reason}): kernels are compiled", once=True)
            return None
