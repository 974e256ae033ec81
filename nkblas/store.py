"""The store: compiled kernels on disk, by the hash of all that they were made from.

A kernel is two files, ``<key>.so`` and ``<key>.json``. The second is written last, and holds the
digest of the first: what is torn, swapped or damaged reads as absent, and is made again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .codegen.spec import KernelSpec
from .log import log


def default_folder() -> Path:
    """``NKBLAS_CACHE_DIR``, or the user's cache folder."""
    chosen = os.environ.get("NKBLAS_CACHE_DIR")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("nkblas", appauthor=False))


def generation() -> str:
    """A hash of the generator's own sources and of the toolchain's version.

    It is part of every key: after an upgrade of either, no old kernel is found.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for source in sorted([*package.glob("codegen/*.py"), package / "isa.py"]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    digest.update(toolchain().encode())
    return digest.hexdigest()


def toolchain() -> str:
    """Name and version of the packages that provide ``mlir``; empty if there is none.

    Read from the names of the metadata folders beside the package: `importlib.metadata` gives the
    same and takes longer than loading the kernels.
    """
    spec = find_spec("mlir")
    if spec is None:
        return ""
    places = spec.submodule_search_locations or []
    beside = {Path(place).parent for place in places}
    return " ".join(
        sorted(
            entry.name.removesuffix(".dist-info")
            for folder in beside
            for entry in folder.glob("*.dist-info")
            if "mlir" in entry.name or "llvm" in entry.name
        )
    )


class Store:
    """Kernels in ``folder/kernels``.

    Every method may fail as a disk may fail; none of them raises for it. A kernel that can't be
    read is absent, one that can't be written is kept by its process alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "kernels"
        self._generation: str | None = None

    def key(self, spec: KernelSpec) -> str:
        """The name of a kernel: a hash of its spec and of the `generation`."""
        if self._generation is None:
            self._generation = generation()
        text = json.dumps([spec.to_dict(), self._generation], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def get(self, key: str) -> bytes | None:
        """The shared library stored under `key`, if it is whole and its digest is right."""
        try:
            record = json.loads((self.folder / f"{key}.json").read_bytes())
            library = (self.folder / f"{key}.so").read_bytes()
            if record["key"] == key and record["sha256"] == hashlib.sha256(library).hexdigest():
                return library
            log("warning", f"damaged kernel {key} in {self.folder}: it is made again")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log("warning", f"unreadable kernel {key} in {self.folder} ({error}): it is made again")
        return None

    def put(self, key: str, library: bytes, spec: KernelSpec) -> None:
        """Store a library under `key`; each file appears whole or not at all."""
        record: dict[str, Any] = {
            "key": key,
            "kernel": spec.symbol,
            "spec": spec.to_dict(),
            "toolchain": toolchain(),
            "sha256": hashlib.sha256(library).hexdigest(),
        }
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(f"{key}.so", library)
            self._write(f"{key}.json", json.dumps(record, indent=1).encode() + b"\n")
        except OSError as error:
            log(
                "warning",
                f"kernels can't be kept in {self.folder} ({error.strerror}): each process "
                "compiles its own; NKBLAS_CACHE_DIR names another folder",
                once=True,
            )

    def _write(self, name: str, content: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, self.folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    @contextlib.contextmanager
    def lock(self, keys: list[str]) -> Iterator[None]:
        """Be the one process of all that makes these kernels; without a disk, do not wait."""
        held = []
        try:
            for key in sorted(keys):  # one order for all, so that none waits in a circle
                path = self.folder / f"{key}.lock"
                try:
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    file = path.open("w")
                    fcntl.flock(file, fcntl.LOCK_EX)
                    held.append((path, file))
                except OSError:
                    continue
            yield
        finally:
            for path, file in held:
                # Unlinked while held: whoever waits for this file, and whoever makes it anew,
                # looks into the store next and finds the kernel there.
                with contextlib.suppress(OSError):
                    path.unlink()
                file.close()
