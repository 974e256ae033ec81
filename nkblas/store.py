"""The store: compiled kernels on disk, by the hash of all that they were made from.

A kernel is two files, ``<key>.so`` and ``<key>.json``. The second is written last, and holds the
digest of the first: what is torn, swapped or damaged reads as absent, and is made again.
"""

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from .codegen.spec import KernelSpec, to_dict
from .log import log
from .toolchain import toolchain

# Threads in the background are stopped wherever they are when the process ends: their locks must
# not stay.
_held: set[str] = set()
_ending = False


def _end() -> None:
    global _ending
    _ending = True
    for path in list(_held):
        with contextlib.suppress(OSError):
            os.unlink(path)


atexit.register(_end)
os.register_at_fork(after_in_child=_held.clear)  # they are the parent's


def default_folder() -> str:
    """``NKBLAS_CACHE_DIR``, or the user's cache folder."""
    chosen = os.environ.get("NKBLAS_CACHE_DIR")
    if chosen:
        return chosen
    import platformdirs

    return platformdirs.user_cache_dir("nkblas", appauthor=False)


SOURCES = ("cut.py", "dtypes.py", "epilogues.py", "families.py", "isa.py")
"""What the generator reads beside its own folder."""


def generation() -> str:
    """A hash of the generator's own sources and of the toolchain's version.

    It is part of every key: after an upgrade of either, no old kernel is found.
    """
    digest = hashlib.sha256()
    package = os.path.dirname(__file__)
    codegen = os.path.join(package, "codegen")
    sources = [os.path.join(codegen, name) for name in os.listdir(codegen) if name.endswith(".py")]
    sources += [os.path.join(package, name) for name in SOURCES]
    for source in sorted(sources):
        with open(source, "rb") as file:
            digest.update(os.path.basename(source).encode() + b"\0" + file.read())
    digest.update(toolchain().encode())
    return digest.hexdigest()


def write_whole(path: str, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    import tempfile

    folder, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class Store:
    """Kernels in ``folder/kernels``.

    Every method may fail as a disk may fail; none of them raises for it. A kernel that can't be
    read is absent, one that can't be written is kept by its process alone.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.join(folder, "kernels")
        self._generation: str | None = None
        self._keys: dict[KernelSpec, str] = {}

    def key(self, spec: KernelSpec) -> str:
        """The name of a kernel: a hash of its spec and of the `generation`."""
        if spec not in self._keys:
            if self._generation is None:
                self._generation = generation()
            text = json.dumps([to_dict(spec), self._generation], sort_keys=True)
            self._keys[spec] = hashlib.sha256(text.encode()).hexdigest()[:40]
        return self._keys[spec]

    def has(self, spec: KernelSpec) -> bool:
        """Whether a kernel is there, whole or damaged."""
        return os.path.exists(f"{self.folder}/{self.key(spec)}.json")

    def get(self, key: str) -> bytes | None:
        """The shared library stored under `key`, if it is whole and its digest is right."""
        try:
            return self.read(key)[1]
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log("warning", f"damaged kernel {key} in {self.folder} ({error}): it is made again")
        return None

    def read(self, key: str) -> tuple[dict[str, Any], bytes]:
        """The record and the shared library stored under `key`.

        Raises
        ------
        OSError
            One of them is not there, or can't be read.
        ValueError
            They are not what was stored.
        """
        record = json.loads(self._read(f"{key}.json"))
        library = self._read(f"{key}.so")
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
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            for suffix, content in (
                ("so", library),
                ("json", json.dumps(record, indent=1).encode() + b"\n"),
            ):
                write_whole(os.path.join(self.folder, f"{key}.{suffix}"), content)
        except OSError as error:
            log(
                "warning",
                f"kernels can't be kept in {self.folder} ({error.strerror}): each process "
                "compiles its own; NKBLAS_CACHE_DIR names another folder",
                once=True,
            )

    def _read(self, name: str) -> bytes:
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Be the one process of all that makes this kernel; without a disk, do not wait."""
        path = os.path.join(self.folder, f"{key}.lock")
        if _ending:
            yield
            return
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            file = open(path, "w")  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield
            return
        try:
            _held.add(path)
            if _ending:
                _end()
            yield
        finally:
            # Unlinked while held: whoever waits for this file, and whoever makes it anew, looks
            # into the store next and finds the kernel there.
            _held.discard(path)
            with contextlib.suppress(OSError):
                os.unlink(path)
            # A process forked meanwhile holds the file too: closing it would not unlock it.
            fcntl.flock(file, fcntl.LOCK_UN)
            file.close()

    def is_locked(self, key: str) -> bool:
        """Whether a process is making this kernel."""
        try:
            with open(os.path.join(self.folder, f"{key}.lock")) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False
