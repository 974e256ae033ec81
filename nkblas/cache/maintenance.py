"""Maintenance of the cache folder: list, verify, prune, clear, and exchange tuned plans.

Only files that nkblas writes are touched; they are recognised by their names.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nkblas.base.isa import ISAS
from nkblas.base.problem import Problem
from nkblas.codegen.spec import from_dict
from nkblas.planning import measured_plans
from nkblas.planning.microarchitecture import machine
from nkblas.planning.plan import Plan
from nkblas.system import config
from nkblas.system.config import cache_folder
from nkblas.system.cpu import CPU
from nkblas.system.folder import LOCK_FILE, Folder, remove_entry

from .store import KERNEL_FILE, Store, lock_byte

PLAN_FILE = re.compile(r".+-[0-9a-f]+-[0-9a-f]+-([a-z0-9_]+)\.txt")
"""Names of files with a machine's plans; the group is the instruction set."""

COSTS_FILE = re.compile(r".+-[0-9a-f]+-[0-9a-f]+-[a-z0-9_]+\.costs")
"""Names of files with the measured constants of a machine's cost model."""

TEMPORARY_FILE = re.compile(
    r"\.(([0-9a-f]{40})\.(so|json)|.+-[0-9a-f]+-[0-9a-f]+-\w+\.(txt|costs))\.\w{8}"
)
"""Names of files that are being written, with a kernel (group 2 is its key), plans or costs."""

EXPORT_HEADER = "# nkblas plans for "
"""Start of the first line of exported plans; the name of their machine follows."""


class Kernel(NamedTuple):
    """A kernel in the store.

    Attributes
    ----------
    key : str
    symbol : str
        Name of the generated function; empty if the record can't be read.
    size : int
        Bytes of all its files.
    last_used : float
        When it was used last, to the hour, in seconds since the epoch.
    files : tuple of str
        Paths.
    damage : str
        A description; empty if the kernel is intact.
    is_current : bool
        Whether this version of nkblas and of its compiler can use it.
    """

    key: str
    symbol: str
    size: int
    last_used: float
    files: tuple[str, ...]
    damage: str
    is_current: bool


class Fault(NamedTuple):
    """Something wrong in the cache folder.

    Attributes
    ----------
    files : tuple of str
        Paths.
    reason : str
        What is wrong with them.
    action : str
        What was done about it.
    """

    files: tuple[str, ...]
    reason: str
    action: str = "removed"

    def __str__(self) -> str:
        names = (os.path.relpath(path, cache_folder()) for path in self.files)
        return f"{', '.join(names)}: {self.reason}: {self.action}"


def kernels(store: Store) -> list[Kernel]:
    """The kernels in a store, except those that are being made.

    Raises
    ------
    OSError
        The folder can't be used.
    """
    files: dict[str, dict[str, os.stat_result]] = {}
    for name, status in store.folder.entries().items():
        if match := re.fullmatch(KERNEL_FILE, name):
            files.setdefault(match[1], {})[name] = status
    stored = [_read_kernel(store, key, files[key]) for key in files if not store.is_locked(key)]
    return sorted(stored, key=lambda kernel: (kernel.symbol, kernel.key))


def _read_kernel(store: Store, key: str, files: dict[str, os.stat_result]) -> Kernel:
    """The kernel of that key; `files` are the status of its files, by name."""
    symbol, damage, is_current = "", "", False
    if len(files) < 2:
        has_library = f"{key}.so" in files
        damage = "the library has no record" if has_library else "the record has no library"
    else:
        try:
            record, _ = store.read(key)
            symbol = str(record.get("kernel", ""))
            is_current = store.key(from_dict(record["spec"])) == key
        except (AttributeError, KeyError, TypeError):
            pass  # the spec is of another version
        except OSError as error:
            damage = error.strerror or str(error)
        except ValueError as error:
            damage = str(error)
    size = sum(status.st_size for status in files.values())
    last_used = max(status.st_mtime for status in files.values())
    paths = tuple(os.path.join(store.folder.path, name) for name in files)
    return Kernel(key, symbol, size, last_used, paths, damage, is_current)


def plan_files() -> dict[str, str]:
    """The files with the user's tuned plans, one for each machine and instruction set.

    Returns
    -------
    dict of str to str
        The name of the instruction set by the path of the file.

    Raises
    ------
    OSError
        The folder can't be used.
    """
    folder = _plans_folder()
    matches = ((name, PLAN_FILE.fullmatch(name)) for name in folder.entries())
    return {os.path.join(folder.path, name): match[1] for name, match in matches if match}


def _plans_folder() -> Folder:
    return Folder(os.path.join(cache_folder(), "plans"))


def read_plans(path: str, isa: str, cpu: CPU) -> tuple[dict[Problem, Plan], list[str]]:
    """The plans in one of `plan_files`, and descriptions of the lines that hold none.

    Both are empty if this version does not know the instruction set.

    Raises
    ------
    OSError
        The file can't be read.
    """
    lines = measured_plans.read_lines(path)
    return measured_plans.check(lines, cpu._replace(isa=ISAS[isa])) if isa in ISAS else ({}, [])


def verify(store: Store, cpu: CPU) -> Iterator[Fault]:
    """Repair the cache: remove what is damaged, incomplete, left over or writable by others.

    A kernel that is removed is compiled again when it is needed. Of a file with plans, the valid
    lines stay.

    Yields
    ------
    Fault
        Each one, after its repair.

    Raises
    ------
    OSError
        A repair fails.
    """
    folders = store.folder, _plans_folder()
    for path in (cache_folder(), *(folder.path for folder in folders)):
        yield from _make_private(path)
    for folder in folders:
        if unusable_reason := folder.unusable_reason():
            action = "no file in it is used; NKBLAS_CACHE_DIR can name another folder"
            yield Fault((folder.path,), unusable_reason, action)
            return
    for kernel in kernels(store):
        if kernel.damage:
            yield _remove_files(Fault(kernel.files, kernel.damage))
    for folder in folders:
        yield from _remove_abandoned_files(folder)
    for path, isa in plan_files().items():
        try:
            line_faults = read_plans(path, isa, cpu)[1]
        except OSError as error:
            yield _remove_files(Fault((path,), error.strerror or str(error)))
            continue
        for reason in line_faults:
            yield Fault((path,), reason)
        if line_faults:
            measured_plans.compact(path, cpu._replace(isa=ISAS[isa]))


def _make_private(path: str) -> Iterator[Fault]:
    """Deny others write access to a folder; remove its files, since others may have written them.

    A symbolic link in the place of a folder inside the cache is removed.
    """
    if os.path.islink(path) and path != cache_folder():
        os.unlink(path)
        yield Fault((path,), "a symbolic link, which is not followed")
    try:
        descriptor = os.open(path, os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # it does not exist, or is no folder, or another user's
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and status.st_mode & 0o022:
            os.fchmod(descriptor, 0o700)
            names = [name for name in os.listdir(descriptor) if _is_nkblas_file(name)]
            for name in names:
                remove_entry(name, descriptor)
            reason = f"others can write to it (mode {stat.S_IMODE(status.st_mode):04o})"
            removed = (
                f", and removed {len(names)} files that others may have written" if names else ""
            )
            yield Fault((path,), reason, f"denied others access{removed}")
    finally:
        os.close(descriptor)


def _is_nkblas_file(name: str) -> bool:
    """Whether a file has a name that nkblas gives."""
    patterns = (KERNEL_FILE, PLAN_FILE, COSTS_FILE, TEMPORARY_FILE)
    return name == LOCK_FILE or any(re.fullmatch(pattern, name) for pattern in patterns)


def _remove_abandoned_files(folder: Folder) -> Iterator[Fault]:
    """Remove temporary files of processes that have died."""
    for name in folder.entries():
        match = TEMPORARY_FILE.fullmatch(name)
        if match is None:
            continue
        if not folder.is_locked(lock_byte(match[2]) if match[2] else measured_plans.LOCK_BYTE):
            path = os.path.join(folder.path, name)
            yield _remove_files(Fault((path,), "an abandoned temporary file"))


def prune(store: Store, cpu: CPU) -> Iterator[Fault]:
    """Do as `verify`, and remove files that this version can't use or that exceed the size limit.

    Yields
    ------
    Fault
        Each one, and each removal.

    Raises
    ------
    OSError
        A file can't be removed.
    """
    yield from verify(store, cpu)
    for kernel in kernels(store):
        if not kernel.is_current:
            yield _remove_files(Fault(kernel.files, f"{kernel.symbol} of another version"))
    before = {kernel.key: kernel for kernel in kernels(store)}
    store.shrink(config.CACHE_SIZE)
    for key in before.keys() - {kernel.key for kernel in kernels(store)}:
        reason = f"{before[key].symbol}, among the least recently used, above NKBLAS_CACHE_SIZE"
        yield Fault(before[key].files, reason)
    for path, isa in plan_files().items():
        if isa in ISAS:
            lines = measured_plans.compact(path, cpu._replace(isa=ISAS[isa]))
            if lines:
                yield Fault((path,), f"{lines} of its lines, superseded or unusable")


def clear(store: Store) -> list[str]:
    """Remove all files that nkblas has written to the cache folder.

    Returns
    -------
    list of str
        Their paths.

    Raises
    ------
    OSError
        A file can't be removed.
    """
    removed: list[str] = []
    for folder in (store.folder, _plans_folder()):
        names = filter(_is_nkblas_file, folder.entries())
        paths = tuple(os.path.join(folder.path, name) for name in names)
        removed += _remove_files(Fault(paths, "")).files
        with contextlib.suppress(OSError):  # the folder does not exist, or has other files
            os.rmdir(folder.path)
    return removed


def _remove_files(fault: Fault) -> Fault:
    """Remove the files of a fault, and return the fault."""
    for path in fault.files:
        folder, name = os.path.split(path)
        Folder(folder).remove(name)
    return fault


def export_text(plans: Iterable[Plan], cpu: CPU) -> str:
    """The text of a file with plans, whose first line names their machine."""
    lines = [measured_plans.to_line(plan) for plan in sorted(plans, key=lambda plan: plan.problem)]
    header = f"{EXPORT_HEADER}{machine(cpu)} ({cpu.brand}): {len(lines)}\n"
    return "".join([header, *lines])


def exported_machine(lines: Iterable[str]) -> str:
    """The machine that exported plans are for; empty if no line names it."""
    for line in lines:
        if line.startswith(EXPORT_HEADER):
            return line.removeprefix(EXPORT_HEADER).split(" ")[0].strip()
    return ""
