"""The store: compiled kernels on disk, by the hash of all that they were made from.

A kernel is two files, ``<key>.so`` and ``<key>.json``. The second is written last, and holds the
digest of the first: what is torn, swapped or damaged reads as absent, and is made again.
"""

import contextlib
import hashlib
import json
import os
import re
from typing import Any

from nkblas.codegen.spec import KernelSpec, to_dict
from nkblas.system import config
from nkblas.system.folder import LARGEST, Folder
from nkblas.system.log import log
from nkblas.system.toolchain import toolchain

FILE = re.compile(r"([0-9a-f]{40})\.(so|json)")
"""Names of a kernel's files."""

GENERATOR = ("base", "codegen", "engine")
"""The folders that a kernel's code depends on: tables, generator, and the engine's header, which
has the layout of what kernels read."""


def generation() -> str:
    """A hash of the generator's own sources and of the toolchain's version.

    It is part of every key: after an upgrade of either, no old kernel is found.
    """
    digest = hashlib.sha256()
    package = os.path.dirname(os.path.dirname(__file__))
    for folder in GENERATOR:
        for path, folders, names in os.walk(os.path.join(package, folder)):
            folders.sort()
            for name in sorted(names):
                if name.endswith((".py", ".h")):
                    with open(os.path.join(path, name), "rb") as file:
                        digest.update(name.encode() + b"\0" + file.read())
    digest.update(toolchain().encode())
    return digest.hexdigest()


def byte_of(key: str) -> int:
    """The byte of the folder's lock that is a kernel's."""
    return int(key[:15], 16)


KEYS = 1 << 14
"""Keys that are remembered."""


class Store:
    """Kernels in ``folder/kernels``.

    Every method may fail as a disk may fail; none of them raises for it. A kernel that can't be
    read is absent, one that can't be written is kept by its process alone.

    Attributes
    ----------
    folder : Folder
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Folder(os.path.join(folder, "kernels"))
        self._generation: str | None = None
        self._keys: dict[KernelSpec, str] = {}
        self._room = 0  # bytes that may be written until somebody has to look at the limit

    def key(self, spec: KernelSpec) -> str:
        """The name of a kernel: a hash of its spec and of the `generation`."""
        if spec not in self._keys:
            if self._generation is None:
                self._generation = generation()
            if len(self._keys) >= KEYS:
                self._keys.clear()
            text = json.dumps([to_dict(spec), self._generation], sort_keys=True)
            self._keys[spec] = hashlib.sha256(text.encode()).hexdigest()[:40]
        return self._keys[spec]

    def has(self, spec: KernelSpec) -> bool:
        """Whether a kernel is there, whole or damaged."""
        path = os.path.join(self.folder.path, f"{self.key(spec)}.json")
        return os.path.exists(path) and not self.folder.infeasible_reason()

    def get(self, key: str) -> bytes | None:
        """The shared library stored under `key`, if it is whole and its digest is right."""
        try:
            return self.read(key, used=True)[1]
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            infeasible_reason = self.folder.infeasible_reason()
            if infeasible_reason:
                self._alone(infeasible_reason)
            else:
                how = getattr(error, "strerror", None) or error
                what = f"damaged kernel {key} in {self.folder.path} ({how})"
                log("warning", f"{what}: it is made again", once=True)
        return None

    def read(self, key: str, used: bool = False) -> tuple[dict[str, Any], bytes]:
        """The record and the shared library stored under `key`; whether that is a use of it.

        Raises
        ------
        OSError
            One of them is not there, or can't be read.
        ValueError
            They are not what was stored.
        """
        text, library = self.folder.read(f"{key}.json", f"{key}.so", used=used)
        try:
            record = json.loads(text)
        except RecursionError:
            raise ValueError("the record is no record") from None
        if not isinstance(record, dict) or record.get("key") != key:
            raise ValueError("the record is not this kernel's")
        if record.get("sha256") != hashlib.sha256(library).hexdigest():
            raise ValueError("the library has not the digest that its record says")
        return record, library

    def put(self, key: str, library: bytes, spec: KernelSpec) -> None:
        """Store a library under `key`; each file appears whole or not at all."""
        record: dict[str, Any] = {
            "key": key,
            "kernel": spec.symbol,
            "spec": to_dict(spec),
            "toolchain": toolchain(),
            "sha256": hashlib.sha256(library).hexdigest(),
        }
        try:
            self.folder.write(f"{key}.so", library)
            self.folder.write(f"{key}.json", json.dumps(record, indent=1).encode() + b"\n")
            self._room -= len(library)
        except OSError as error:
            self._alone(error.strerror or str(error))
            return
        if self._room < 0:
            with contextlib.suppress(OSError):
                self._room = min(
                    config.CACHE_SIZE - self.shrink(config.CACHE_SIZE), config.CACHE_SIZE // 16
                )

    def _alone(self, why: str) -> None:
        log(
            "warning",
            f"kernels can't be kept in {self.folder.path} ({why}): each process compiles its own; "
            "NKBLAS_CACHE_DIR names another folder",
            once=True,
        )

    def shrink(self, limit: int) -> int:
        """Remove kernels if they take up more than `limit` bytes; how many they take up then.

        Those go that were not used for longest, until there is some room; what is too large for a
        kernel goes first. Those being made stay, and who runs a kernel has it in memory.

        Raises
        ------
        OSError
            A file can't be removed.
        """
        sizes: dict[str, int] = {}
        used: dict[str, float] = {}
        for name, found in self.folder.stats().items():
            kernel = FILE.fullmatch(name)
            if kernel:
                key = kernel[1]
                sizes[key] = sizes.get(key, 0) + found.st_size
                used[key] = max(used.get(key, 0.0), found.st_mtime)
        total = sum(sizes.values())
        if total > limit:
            for key in sorted(used, key=lambda key: (sizes[key] <= LARGEST, used[key])):
                if total <= limit * 7 // 8:
                    break
                if not self.is_locked(key):
                    self.remove(key)
                    total -= sizes[key]
        return total

    def remove(self, key: str) -> None:
        """Remove a kernel.

        Raises
        ------
        OSError
            That can't be.
        """
        for suffix in ("json", "so"):
            self.folder.remove(f"{key}.{suffix}")

    def lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Be the one process of all that makes this kernel; without a disk, do not wait."""
        return self.folder.lock(byte_of(key))

    def is_locked(self, key: str) -> bool:
        """Whether a process is making this kernel."""
        return self.folder.is_locked(byte_of(key))
