"""The kernel store: compiled kernels on disk, addressed by a hash of their inputs.

A kernel is two files, ``<key>.so`` and ``<key>.json``. The second one, its record, is written last
and holds the digest of the first: a kernel that is incomplete, swapped or damaged counts as absent,
and is compiled again.
"""

import contextlib
import hashlib
import json
import os
import re
from functools import cache
from typing import Any

from nkblas.codegen.spec import KernelSpec, to_dict
from nkblas.system import config
from nkblas.system.folder import MAX_FILE_BYTES, Folder
from nkblas.system.log import log
from nkblas.system.package import PACKAGE
from nkblas.system.toolchain import toolchain

KERNEL_FILE = r"([0-9a-f]{40})\.(so|json)"
"""A pattern of the names of a kernel's files: the key, and the suffix."""

GENERATOR_FOLDERS = ("base", "codegen", "engine")
"""The package's folders that a kernel's code depends on: the tables, the code generator, and the
engine's header, which defines the layout of the structs that kernels read."""

MAX_CACHED_KEYS = 1 << 14
"""Number of specs whose keys a process remembers."""


@cache
def sources_hash() -> str:
    """A hash of the code generator's sources."""
    digest = hashlib.sha256()
    for folder in GENERATOR_FOLDERS:
        for path, folders, names in os.walk(os.path.join(PACKAGE, folder)):
            folders.sort()
            for name in sorted(names):
                if name.endswith((".py", ".h")):
                    with open(os.path.join(path, name), "rb") as file:
                        digest.update(name.encode() + b"\0" + file.read())
    return digest.hexdigest()


def generator_hash() -> str:
    """A hash of the code generator's sources and of the toolchain's version.

    It is part of each key: after an upgrade of either, no kernel of before is found.
    """
    return hashlib.sha256((sources_hash() + toolchain()).encode()).hexdigest()


def lock_byte(key: str) -> int:
    """The byte of the folder's lock file that is locked while a kernel is being made."""
    return int(key[:15], 16)


class Store:
    """The kernels in ``folder/kernels``.

    No method but `read`, `shrink` and `remove` raises an exception for a failure of the disk: a
    kernel that can't be read is absent, and one that can't be written stays in its process.

    Parameters
    ----------
    folder : path_like
        The cache folder.

    Attributes
    ----------
    folder : Folder
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Folder(os.path.join(folder, "kernels"))
        self._generator_hash: str | None = None
        self._keys: dict[KernelSpec, str] = {}
        self._write_allowance = 0  # bytes to write until the size limit is checked again

    def key(self, spec: KernelSpec) -> str:
        """The key of a kernel: a hash of its spec and of `generator_hash`."""
        if spec not in self._keys:
            if self._generator_hash is None:
                self._generator_hash = generator_hash()
            if len(self._keys) >= MAX_CACHED_KEYS:
                self._keys.clear()
            text = json.dumps([to_dict(spec), self._generator_hash], sort_keys=True)
            self._keys[spec] = hashlib.sha256(text.encode()).hexdigest()[:40]
        return self._keys[spec]

    def has(self, spec: KernelSpec) -> bool:
        """Whether the store has a kernel, intact or damaged."""
        path = os.path.join(self.folder.path, f"{self.key(spec)}.json")
        return os.path.exists(path) and not self.folder.unusable_reason()

    def get(self, key: str) -> bytes | None:
        """The shared library that is stored under `key`; None if it is absent or damaged."""
        try:
            return self.read(key, mark_used=True)[1]
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            unusable_reason = self.folder.unusable_reason()
            if unusable_reason:
                self._warn_not_stored(unusable_reason)
            else:
                reason = getattr(error, "strerror", None) or error
                damage = f"kernel {key} in {self.folder.path} is damaged ({reason})"
                log("warning", f"{damage}: it is compiled again", once=True)
        return None

    def read(self, key: str, mark_used: bool = False) -> tuple[dict[str, Any], bytes]:
        """The record and the shared library that are stored under `key`.

        Parameters
        ----------
        key : str
        mark_used : bool
            Whether `shrink` is to count this as a use of the kernel.

        Raises
        ------
        OSError
            One of the files is absent, or can't be read.
        ValueError
            The files are not those that were stored.
        """
        text, library = self.folder.read(f"{key}.json", f"{key}.so", mark_used=mark_used)
        try:
            record = json.loads(text)
        except RecursionError:
            raise ValueError("the record is nested too deeply") from None
        if not isinstance(record, dict) or record.get("key") != key:
            raise ValueError("the record is not this kernel's")
        if record.get("sha256") != hashlib.sha256(library).hexdigest():
            raise ValueError("the library does not match the digest in its record")
        return record, library

    def put(self, key: str, library: bytes, spec: KernelSpec) -> None:
        """Store a shared library under `key`, each file atomically; apply the size limit."""
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
            self._write_allowance -= len(library)
        except OSError as error:
            self._warn_not_stored(error.strerror or str(error))
            return
        if self._write_allowance < 0:
            with contextlib.suppress(OSError):
                unused = config.CACHE_SIZE - self.shrink(config.CACHE_SIZE)
                self._write_allowance = min(unused, config.CACHE_SIZE // 16)

    def _warn_not_stored(self, reason: str) -> None:
        log(
            "warning",
            f"kernels can't be kept in {self.folder.path} ({reason}): each process compiles its "
            "own; NKBLAS_CACHE_DIR can name another folder",
            once=True,
        )

    def shrink(self, limit: int) -> int:
        """Remove kernels if they occupy more than `limit` bytes.

        The least recently used ones are removed until an eighth of the limit is free; files too
        large to be kernels come first. Kernels that are being made stay. A process that runs a
        kernel has it in memory.

        Returns
        -------
        int
            The bytes that the remaining kernels occupy.

        Raises
        ------
        OSError
            A file can't be removed.
        """
        sizes: dict[str, int] = {}
        last_used: dict[str, float] = {}
        for name, status in self.folder.entries().items():
            match = re.fullmatch(KERNEL_FILE, name)
            if match:
                key = match[1]
                sizes[key] = sizes.get(key, 0) + status.st_size
                last_used[key] = max(last_used.get(key, 0.0), status.st_mtime)
        total = sum(sizes.values())
        if total > limit:
            for key in sorted(
                sizes, key=lambda key: (sizes[key] <= MAX_FILE_BYTES, last_used[key])
            ):
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
            A file can't be removed.
        """
        for suffix in ("json", "so"):
            self.folder.remove(f"{key}.{suffix}")

    def lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Hold the lock for making this kernel, against all processes; see `Folder.lock`."""
        return self.folder.lock(lock_byte(key))

    def is_locked(self, key: str) -> bool:
        """Whether a process is making this kernel."""
        return self.folder.is_locked(lock_byte(key))
