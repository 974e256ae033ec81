"""A folder of the cache, and the one way to the files in it.

What is kept there is run by other programs of this user. So a folder that others can write to, or
that another user owns, is refused, and so is such a file; no link in it is followed; and what was
checked is what is used, by its descriptor, whatever takes its place meanwhile.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator

LOCK = "lock"
"""The file that is locked, byte by byte: nothing in it, and nothing to clean up after a crash."""

PATIENCE = 60.0
"""Seconds after which a lock is held by a process that was stopped, or lost."""

LARGEST = 64 << 20
"""Bytes of a file. (Kernels have 5 to 50 thousand.)"""

HOUR = 3600.0

# Threads are stopped wherever they are when the process forks: the locks are the parent's.
_held: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


class RefusedError(OSError):
    """Somebody else may have written what is there."""


def check(found: os.stat_result, path: str) -> None:
    """Refuse what somebody else may have written."""
    mode, user = found.st_mode, os.geteuid()
    if found.st_uid != user:
        why = f"user {found.st_uid} owns {path}, and this is user {user}"
        raise RefusedError(errno.EPERM, why, path)
    if mode & 0o022 and not stat.S_ISLNK(mode):  # a link's mode means nothing
        why = f"others can write to {path}, whose mode is {stat.S_IMODE(mode):04o}"
        raise RefusedError(errno.EPERM, why, path)


class Folder:
    """A folder right below the cache's.

    Its methods raise OSError as a disk may fail, and `RefusedError`.

    Attributes
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def open(self, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder, which only this user can write to."""
        above, name = os.path.split(self.path)
        if not os.path.isabs(above):
            raise FileNotFoundError(errno.ENOENT, "this user has no home folder", self.path)
        if create:
            os.makedirs(os.path.dirname(above), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(above, 0o700)
        check(os.lstat(above), above)
        outer = os.open(above, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            check(os.fstat(outer), above)
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=outer)
            inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
        finally:
            os.close(outer)
        try:
            check(os.fstat(inner), self.path)
            yield inner
        finally:
            os.close(inner)

    def infeasible_reason(self) -> str:
        """Why nothing there can be used; empty if it can, or if there is no such folder yet."""
        try:
            with self.open():
                return ""
        except FileNotFoundError:
            return "" if os.path.isabs(self.path) else "this user has no home folder"
        except OSError as error:
            return error.strerror or str(error)

    def unwritable_reason(self) -> str:
        """Why nothing can be kept there, which is tried; empty if it can."""
        try:
            name = f"{0:040}.so"  # as a kernel's: `nkblas cache verify` knows it
            self.write(name, bytes(1 << 16))
            self.remove(name)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def stats(self) -> dict[str, os.stat_result]:
        """All that is there, links themselves, by name; nothing if there is no such folder."""
        found: dict[str, os.stat_result] = {}
        with contextlib.suppress(FileNotFoundError), self.open() as folder:
            for name in sorted(os.listdir(folder)):
                with contextlib.suppress(FileNotFoundError):  # somebody else removes it
                    found[name] = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return found

    def read(self, *names: str, used: bool = False) -> list[bytes]:
        """The contents of files that only this user can have written.

        Whether they are `used` by that is noted in their times, to the hour, if that can be.
        """
        # what is no file, a pipe for one, must not be waited for
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        contents = []
        with self.open() as folder:
            for name in names:
                with _closing(os.open(name, flags, dir_fd=folder)) as descriptor:
                    found = os.fstat(descriptor)
                    check(found, os.path.join(self.path, name))
                    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                        raise OSError(errno.EINVAL, "it is no file of nkblas's", name)
                    if used and abs(time.time() - found.st_mtime) > HOUR:
                        with contextlib.suppress(OSError):
                            os.utime(descriptor)
                    contents.append(b"".join(iter(lambda: os.read(descriptor, 1 << 20), b"")))
        return contents

    def write(self, name: str, content: bytes) -> None:
        """Write a file that appears whole or not at all."""
        temporary = f".{name}.{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.open(create=True) as folder:
            try:
                with _closing(os.open(temporary, flags, 0o600, dir_fd=folder)) as descriptor:
                    _write(descriptor, content)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise

    def append(self, name: str, lines: bytes) -> None:
        """Add whole lines to a file; one that is torn at its end stays a line by itself."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self.open(create=True) as folder:
            opened = os.open(name, flags, 0o600, dir_fd=folder)
        with _closing(opened) as descriptor:
            found = os.fstat(descriptor)
            check(found, os.path.join(self.path, name))
            torn = found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n"
            _write(descriptor, b"\n" * bool(torn) + lines)

    def remove(self, name: str) -> None:
        """Remove a file, a link or an empty folder; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError), self.open() as folder:
            remove(name, folder)

    @contextlib.contextmanager
    def lock(self, byte: int) -> Iterator[None]:
        """Be the one process, and the one thread, that holds this byte of the lock.

        Where that can't be, for there is no such folder or its file system has no locks, and after
        `PATIENCE` seconds of waiting, it is done without.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = -1
        try:
            with contextlib.suppress(OSError):
                with self.open(create=True) as folder:
                    descriptor = os.open(LOCK, flags, 0o600, dir_fd=folder)
                _held.add(descriptor)
                _wait(descriptor, byte)
            yield
        finally:
            if descriptor in _held:  # else this is a child
                _held.remove(descriptor)
                with contextlib.suppress(OSError):  # forked by others, a child has it open too
                    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, byte))
                os.close(descriptor)

    def is_locked(self, byte: int) -> bool:
        """Whether somebody holds this byte of the lock."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with (
                self.open() as folder,
                _closing(os.open(LOCK, flags, dir_fd=folder)) as descriptor,
            ):
                asked = _lock(fcntl.F_WRLCK, byte)
                answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
        except OSError:
            return False
        return struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK


def remove(name: str, folder: int) -> None:
    """Remove a file, a link or an empty folder from the folder with that descriptor."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        os.rmdir(name, dir_fd=folder)


FLOCK = "hhqqi4x"
"""C's ``struct flock``."""


def _lock(kind: int, byte: int) -> bytes:
    return struct.pack(FLOCK, kind, os.SEEK_SET, byte, 1, 0)


def _wait(descriptor: int, byte: int) -> None:
    """Wait for a byte of the lock, which belongs to the open file: not to the process."""
    deadline, pause = time.monotonic() + PATIENCE, 1e-3
    while time.monotonic() < deadline:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, byte))
            return
        except (BlockingIOError, PermissionError):
            time.sleep(pause)
            pause = min(2 * pause, 0.05)


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)  # which may tell that the disk is full
