"""A folder of the cache, and safe access to the files in it.

Programs of this user load and run the files that are stored there. A folder or a file that another
user owns or can write to is therefore refused, and no symbolic link inside the cache is followed.
Each check is made on an open descriptor, and the same descriptor is used afterwards: a file that is
replaced in between is not read.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator

LOCK_FILE = "lock"
"""Name of the file whose bytes are locked. It is empty, and needs no cleaning up after a crash."""

LOCK_TIMEOUT_SECONDS = 60.0
"""After this time the holder of a lock is taken for stopped or lost."""

MAX_FILE_BYTES = 64 << 20
"""Larger files are refused. (Kernels have 5 to 50 thousand bytes.)"""

TIMESTAMP_SECONDS = 3600.0
"""Resolution of the modification times that record when a file was used last."""

FLOCK_FORMAT = "hhqqi4x"
"""C's ``struct flock``, for the `struct` module."""

# Descriptors of lock files. A forked child closes its copies, which would keep its parent's locks.
_lock_descriptors: set[int] = set()


def _close_lock_files_in_child() -> None:
    for descriptor in _lock_descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _lock_descriptors.clear()


os.register_at_fork(after_in_child=_close_lock_files_in_child)


class UntrustedError(OSError):
    """Another user may have written this file or folder."""


def require_trusted(status: os.stat_result, path: str) -> None:
    """Refuse a file or a folder that another user may have written.

    Raises
    ------
    UntrustedError
        Another user owns it, or its mode permits the group or others to write to it.
    """
    mode, user = status.st_mode, os.geteuid()
    if status.st_uid != user:
        reason = f"user {status.st_uid} owns {path}, and this is user {user}"
        raise UntrustedError(errno.EPERM, reason, path)
    if mode & 0o022 and not stat.S_ISLNK(mode):  # the mode of a symbolic link has no effect
        reason = f"others can write to {path}, whose mode is {stat.S_IMODE(mode):04o}"
        raise UntrustedError(errno.EPERM, reason, path)


class Folder:
    """A folder whose parent is the cache folder.

    Its methods raise `UntrustedError`, and OSError for failures of the file system.

    Attributes
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def open(self, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder, which no other user can write to.

        Parameters
        ----------
        create : bool
            Whether to create the folder, and the cache folder, if they do not exist.
        """
        parent, name = os.path.split(self.path)
        if not os.path.isabs(parent):
            raise FileNotFoundError(errno.ENOENT, "this user has no home folder", self.path)
        if create:
            os.makedirs(os.path.dirname(parent), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(parent, 0o700)
        require_trusted(os.lstat(parent), parent)
        outer = os.open(parent, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            require_trusted(os.fstat(outer), parent)
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=outer)
            inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
        finally:
            os.close(outer)
        try:
            require_trusted(os.fstat(inner), self.path)
            yield inner
        finally:
            os.close(inner)

    def unusable_reason(self) -> str:
        """Why no file of the folder can be used; empty if files can, or if it does not exist."""
        try:
            with self.open():
                return ""
        except FileNotFoundError:
            return "" if os.path.isabs(self.path) else "this user has no home folder"
        except OSError as error:
            return error.strerror or str(error)

    def unwritable_reason(self) -> str:
        """Why no file can be written to the folder; empty if one can, which is tried."""
        try:
            name = f"{0:040}.so"  # the name of a kernel: `nkblas cache verify` removes a leftover
            self.write(name, bytes(1 << 16))
            self.remove(name)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def entries(self) -> dict[str, os.stat_result]:
        """Status of each entry (of a link itself) by name; empty if the folder does not exist."""
        statuses: dict[str, os.stat_result] = {}
        with contextlib.suppress(FileNotFoundError), self.open() as folder:
            for name in sorted(os.listdir(folder)):
                with contextlib.suppress(FileNotFoundError):  # removed by another process
                    statuses[name] = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return statuses

    def read(self, *names: str, mark_used: bool = False) -> list[bytes]:
        """Contents of files that no other user can have written.

        Parameters
        ----------
        *names : str
        mark_used : bool
            Whether to set the files' modification times, where that is possible: to the hour.
        """
        # O_NONBLOCK: the open of a pipe would wait for a writer
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        contents = []
        with self.open() as folder:
            for name in names:
                with _closing(os.open(name, flags, dir_fd=folder)) as descriptor:
                    status = os.fstat(descriptor)
                    require_trusted(status, os.path.join(self.path, name))
                    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                        raise OSError(errno.EINVAL, "not a file that nkblas wrote", name)
                    if mark_used and abs(time.time() - status.st_mtime) > TIMESTAMP_SECONDS:
                        with contextlib.suppress(OSError):
                            os.utime(descriptor)
                    contents.append(b"".join(iter(lambda: os.read(descriptor, 1 << 20), b"")))
        return contents

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically: it appears whole or not at all."""
        temporary = f".{name}.{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.open(create=True) as folder:
            try:
                with _closing(os.open(temporary, flags, 0o600, dir_fd=folder)) as descriptor:
                    _write_all(descriptor, content)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise

    def append(self, name: str, lines: bytes) -> None:
        """Append whole lines to a file; an incomplete last line is ended first."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self.open(create=True) as folder:
            opened = os.open(name, flags, 0o600, dir_fd=folder)
        with _closing(opened) as descriptor:
            status = os.fstat(descriptor)
            require_trusted(status, os.path.join(self.path, name))
            size = status.st_size
            is_incomplete = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_all(descriptor, b"\n" * is_incomplete + lines)

    def remove(self, name: str) -> None:
        """Remove a file, a symbolic link or an empty folder, if it exists."""
        with contextlib.suppress(FileNotFoundError), self.open() as folder:
            remove_entry(name, folder)

    @contextlib.contextmanager
    def lock(self, byte: int) -> Iterator[None]:
        """Hold the lock on one byte of `LOCK_FILE`, against other processes and threads.

        The lock is advisory. The block runs without it where the folder can't be created, where
        its file system has no locks, and once `LOCK_TIMEOUT_SECONDS` have passed.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = -1
        try:
            with contextlib.suppress(OSError):
                with self.open(create=True) as folder:
                    descriptor = os.open(LOCK_FILE, flags, 0o600, dir_fd=folder)
                _lock_descriptors.add(descriptor)
                _wait_for_lock(descriptor, byte)
            yield
        finally:
            if descriptor in _lock_descriptors:  # not in a forked child
                _lock_descriptors.remove(descriptor)
                # Unlock explicitly: a child that C code forked may have the file open, too.
                with contextlib.suppress(OSError):
                    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, byte))
                os.close(descriptor)

    def is_locked(self, byte: int) -> bool:
        """Whether a process or a thread holds the lock on this byte."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with (
                self.open() as folder,
                _closing(os.open(LOCK_FILE, flags, dir_fd=folder)) as descriptor,
            ):
                query = _flock(fcntl.F_WRLCK, byte)
                answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, query)
        except OSError:
            return False
        return bool(struct.unpack(FLOCK_FORMAT, answer)[0] != fcntl.F_UNLCK)


def remove_entry(name: str, folder: int) -> None:
    """Remove a file, a symbolic link or an empty folder.

    Parameters
    ----------
    name : str
    folder : int
        Descriptor of the folder that it is in.
    """
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        os.rmdir(name, dir_fd=folder)


def _flock(kind: int, byte: int) -> bytes:
    """A ``struct flock`` for one byte."""
    return struct.pack(FLOCK_FORMAT, kind, os.SEEK_SET, byte, 1, 0)


def _wait_for_lock(descriptor: int, byte: int) -> None:
    """Acquire a lock within `LOCK_TIMEOUT_SECONDS`.

    It is an open-file-description lock: it excludes other threads of the process as well.
    """
    deadline, pause = time.monotonic() + LOCK_TIMEOUT_SECONDS, 1e-3
    while time.monotonic() < deadline:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, byte))
            return
        except (BlockingIOError, PermissionError):
            time.sleep(pause)
            pause = min(2 * pause, 0.05)


def _write_all(descriptor: int, content: bytes) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)  # not suppressed: this may be the call that reports a full disk
