"""Housekeeping in the cache folder: what is there, what is wrong with it, and what can go.

Only files that nkblas makes are looked at, and they are known by their names.
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
from nkblas.planning.plan import Plan
from nkblas.system import config
from nkblas.system.config import cache_folder
from nkblas.system.cpu import CPU
from nkblas.system.folder import LOCK, Folder, remove

from .store import FILE, Store, byte_of

PLANS = re.compile(r".+-[0-9a-f]+-[0-9a-f]+-([a-z0-9_]+)\.txt")
TEMPORARY = re.compile(r"\.(([0-9a-f]{40})\.(so|json)|.+-[0-9a-f]+-[0-9a-f]+-\w+\.txt)\.\w{8}")
"""Names of files: a machine's plans; a file of a kernel, or with plans, while it is written."""

HEADER = "# nkblas plans for "


class Kernel(NamedTuple):
    """A kernel in the store.

    Attributes
    ----------
    key : str
    symbol : str
        The generated function; empty if the record can't be read.
    size : int
        Bytes, of all its files.
    used : float
        About when it was used last, in seconds since the epoch.
    files : tuple of str
    fault : str
        What is wrong with it; empty if it is whole.
    current : bool
        Whether this version of nkblas and its compiler can use it.
    """

    key: str
    symbol: str
    size: int
    used: float
    files: tuple[str, ...]
    fault: str
    current: bool


class Fault(NamedTuple):
    """What should not be there: files, why, and what was done about it."""

    files: tuple[str, ...]
    why: str
    done: str = "removed"

    def __str__(self) -> str:
        names = (os.path.relpath(path, cache_folder()) for path in self.files)
        return f"{', '.join(names)}: {self.why}: {self.done}"


def kernels(store: Store) -> list[Kernel]:
    """What is in a store, but for what is being made."""
    files: dict[str, dict[str, os.stat_result]] = {}
    for name, found in store.folder.stats().items():
        if match := FILE.fullmatch(name):
            files.setdefault(match[1], {})[name] = found
    kernels = [_kernel(store, key, files[key]) for key in files if not store.is_locked(key)]
    return sorted(kernels, key=lambda kernel: (kernel.symbol, kernel.key))


def _kernel(store: Store, key: str, files: dict[str, os.stat_result]) -> Kernel:
    symbol, fault, current = "", "", False
    if len(files) < 2:
        missing = "library has no record" if f"{key}.so" in files else "record has no library"
        fault = f"the {missing}"
    else:
        try:
            record, _ = store.read(key)
            symbol = str(record.get("kernel", ""))
            current = store.key(from_dict(record["spec"])) == key
        except (AttributeError, KeyError, TypeError):
            pass  # a spec of another version
        except OSError as error:
            fault = error.strerror or str(error)
        except ValueError as error:
            fault = str(error)
    size = sum(found.st_size for found in files.values())
    used = max(found.st_mtime for found in files.values())
    paths = tuple(os.path.join(store.folder.path, name) for name in files)
    return Kernel(key, symbol, size, used, paths, fault, current)


def plan_files() -> dict[str, str]:
    """The user's own plans: the ISA's name by the file's, for each machine and ISA."""
    folder = _plans()
    found = ((name, PLANS.fullmatch(name)) for name in folder.stats())
    return {os.path.join(folder.path, name): match[1] for name, match in found if match}


def _plans() -> Folder:
    return Folder(os.path.join(cache_folder(), "plans"))


def read_plans(path: str, isa: str, cpu: CPU) -> tuple[dict[Problem, Plan], list[str]]:
    """The plans of one of `plan_files`, and what is wrong with its other lines.

    Raises
    ------
    OSError
        It can't be read.
    """
    lines = measured_plans.read_lines(path)
    return measured_plans.check(lines, cpu._replace(isa=ISAS[isa])) if isa in ISAS else ({}, [])


def verify(store: Store, cpu: CPU) -> Iterator[Fault]:
    """Find and mend what is damaged, half there, left over, or open to others; tells of each.

    A kernel that is removed is made again when it is needed; of plans, the lines stay that hold.

    Raises
    ------
    OSError
        It can't be mended.
    """
    folders = store.folder, _plans()
    for path in (cache_folder(), *(folder.path for folder in folders)):
        yield from _close(path)
    for folder in folders:
        if infeasible_reason := folder.infeasible_reason():
            done = "nothing there is used; NKBLAS_CACHE_DIR names another folder"
            yield Fault((folder.path,), infeasible_reason, done)
            return
    for kernel in kernels(store):
        if kernel.fault:
            yield _removed(Fault(kernel.files, kernel.fault))
    for folder in folders:
        yield from _leftovers(folder)
    for path, isa in plan_files().items():
        try:
            faults = read_plans(path, isa, cpu)[1]
        except OSError as error:
            yield _removed(Fault((path,), error.strerror or str(error)))
            continue
        for why in faults:
            yield Fault((path,), why)
        if faults:
            measured_plans.compact(path, cpu._replace(isa=ISAS[isa]))


def _close(path: str) -> Iterator[Fault]:
    """Have a folder that nobody else can write to; what is in it now may be anybody's, and goes."""
    if os.path.islink(path) and path != cache_folder():
        os.unlink(path)
        yield Fault((path,), "a link, which is not followed")
    try:
        descriptor = os.open(path, os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # there is none; or nobody can mend that it is none
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and found.st_mode & 0o022:
            os.fchmod(descriptor, 0o700)
            names = [name for name in os.listdir(descriptor) if _is_ours(name)]
            for name in names:
                remove(name, descriptor)
            why = f"others can write to it (mode {stat.S_IMODE(found.st_mode):04o})"
            files = f", and removed {len(names)} files that may be anybody's" * bool(names)
            yield Fault((path,), why, f"closed it{files}")
    finally:
        os.close(descriptor)


def _is_ours(name: str) -> bool:
    return name == LOCK or any(known.fullmatch(name) for known in (FILE, PLANS, TEMPORARY))


def _leftovers(folder: Folder) -> Iterator[Fault]:
    """Temporary files of processes that died."""
    for name in folder.stats():
        found = TEMPORARY.fullmatch(name)
        if found and not folder.is_locked(byte_of(found[2]) if found[2] else 0):
            path = os.path.join(folder.path, name)
            yield _removed(Fault((path,), "a temporary file that nobody writes"))


def prune(store: Store, cpu: CPU) -> Iterator[Fault]:
    """`verify`, and remove what this version can't use and what exceeds the limit; tells of each.

    Raises
    ------
    OSError
        It can't be removed.
    """
    yield from verify(store, cpu)
    for kernel in kernels(store):
        if not kernel.current:
            yield _removed(Fault(kernel.files, f"{kernel.symbol} of another version"))
    before = {kernel.key: kernel for kernel in kernels(store)}
    store.shrink(config.CACHE_SIZE)
    for key in before.keys() - {kernel.key for kernel in kernels(store)}:
        why = f"{before[key].symbol}, one of those used least, above NKBLAS_CACHE_SIZE"
        yield Fault(before[key].files, why)
    for path, isa in plan_files().items():
        if isa in ISAS:
            lines = measured_plans.compact(path, cpu._replace(isa=ISAS[isa]))
            if lines:
                yield Fault((path,), f"{lines} of its lines, replaced by later ones or of no use")


def clear(store: Store) -> list[str]:
    """Remove all that nkblas has made; the files.

    Raises
    ------
    OSError
        One can't be removed.
    """
    removed: list[str] = []
    for folder in (store.folder, _plans()):
        names = [name for name in folder.stats() if _is_ours(name)]
        removed += _removed(Fault(tuple(os.path.join(folder.path, n) for n in names), "")).files
        with contextlib.suppress(OSError):  # there is none, or something else is in it
            os.rmdir(folder.path)
    return removed


def _removed(fault: Fault) -> Fault:
    for path in fault.files:
        folder, name = os.path.split(path)
        Folder(folder).remove(name)
    return fault


def to_text(found: Iterable[Plan], cpu: CPU) -> str:
    """Plans as a file that says which machine they are for."""
    lines = [measured_plans.to_line(plan) for plan in sorted(found, key=lambda plan: plan.problem)]
    return "".join([f"{HEADER}{measured_plans.machine(cpu)} ({cpu.brand}): {len(lines)}\n", *lines])


def machine_of(lines: Iterable[str]) -> str:
    """The machine that a file of plans says it is for; empty if it does not."""
    for line in lines:
        if line.startswith(HEADER):
            return line.removeprefix(HEADER).split(" ")[0].strip()
    return ""
