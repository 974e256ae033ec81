"""Housekeeping in the cache folder: what is there, what is wrong with it, and what can go.

Only files that nkblas makes are looked at, and they are known by their names.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import plans
from .codegen.spec import from_dict
from .detect import CPU
from .isa import ISAS
from .plan import Plan
from .problem import Problem
from .store import Store, default_folder

KERNEL = re.compile(r"([0-9a-f]{40})\.(so|json|lock)")
PLANS = re.compile(r".+-[0-9a-f]+-[0-9a-f]+-([a-z0-9_]+)\.txt")
TEMPORARY = re.compile(r"\.([0-9a-f]{40}\.(so|json)|.+-[0-9a-f]+-[0-9a-f]+-\w+\.txt)\.\w{8}")
"""Names of files: a kernel's, a machine's plans, one of these while it is written."""

STALE = 600.0
"""Seconds after which a temporary file belongs to nobody: it takes milliseconds to write one."""

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
    modified : float
        When it was stored, in seconds since the epoch.
    files : tuple of str
    fault : str
        What is wrong with it; empty if it is whole.
    current : bool
        Whether this version of nkblas and its compiler can use it.
    """

    key: str
    symbol: str
    size: int
    modified: float
    files: tuple[str, ...]
    fault: str
    current: bool


class Fault(NamedTuple):
    """What should not be there: files, and why."""

    files: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        names = (os.path.relpath(path, default_folder()) for path in self.files)
        return f"{', '.join(names)}: {self.why}"


def kernels(store: Store) -> list[Kernel]:
    """What is in a store, but for what is being made."""
    suffixes: dict[str, set[str]] = {}
    for name in _names(store.folder):
        found = KERNEL.fullmatch(name)
        if found and found[2] != "lock":
            suffixes.setdefault(found[1], set()).add(found[2])
    kernels = []
    for key in sorted(suffixes):
        with contextlib.suppress(FileNotFoundError):  # somebody else removes it
            if not store.is_locked(key):
                kernels.append(_kernel(store, key, suffixes[key]))
    return sorted(kernels, key=lambda kernel: (kernel.symbol, kernel.key))


def _kernel(store: Store, key: str, suffixes: set[str]) -> Kernel:
    files = tuple(os.path.join(store.folder, f"{key}.{suffix}") for suffix in sorted(suffixes))
    stats = [os.stat(path) for path in files]
    symbol, fault, current = "", "", False
    if len(suffixes) < 2:
        fault = "the library has no record" if "so" in suffixes else "the record has no library"
    else:
        try:
            record, _ = store.read(key)
            symbol = str(record.get("kernel", ""))
            current = store.key(from_dict(record["spec"])) == key
        except (AttributeError, KeyError, TypeError):
            pass  # a spec of another version
        except (OSError, ValueError) as error:
            fault = str(error)
    size, modified = sum(s.st_size for s in stats), max(s.st_mtime for s in stats)
    return Kernel(key, symbol, size, modified, files, fault, current)


def plan_files() -> dict[str, str]:
    """The user's own plans: the ISA's name by the file's, for each machine and ISA."""
    folder = os.path.join(default_folder(), "plans")
    found = ((name, PLANS.fullmatch(name)) for name in _names(folder))
    return {os.path.join(folder, name): match[1] for name, match in found if match}


def read_plans(path: str, isa: str, cpu: CPU) -> tuple[dict[Problem, Plan], list[str]]:
    """The plans of one of `plan_files`, and what is wrong with other lines (see `plans.check`).

    Raises
    ------
    OSError
        It can't be read.
    """
    if isa not in ISAS:
        return {}, []  # of another version
    with open(path, encoding="ascii", errors="replace") as file:
        return plans.check(file, cpu._replace(isa=ISAS[isa]))


def faults(store: Store, cpu: CPU) -> Iterator[Fault]:
    """What is damaged, half there or left over."""
    for kernel in kernels(store):
        if kernel.fault:
            yield Fault(kernel.files, kernel.fault)
    yield from leftovers(store)
    for path, isa in plan_files().items():
        for why in read_plans(path, isa, cpu)[1]:
            yield Fault((path,), why)


def leftovers(store: Store) -> Iterator[Fault]:
    """Locks that nobody holds, and temporary files of processes that died."""
    for name in _names(store.folder):
        found = KERNEL.fullmatch(name)
        if found and found[2] == "lock" and not store.is_locked(found[1]):
            yield Fault((os.path.join(store.folder, name),), "a lock that nobody holds")
    for folder in (store.folder, os.path.join(default_folder(), "plans")):
        for name in filter(TEMPORARY.fullmatch, _names(folder)):
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.stat(path).st_mtime > STALE:
                    yield Fault((path,), "a temporary file that nobody writes")


def prune(store: Store, cpu: CPU) -> Iterator[Fault]:
    """Remove what can't be used and what is left over; tells of each."""
    for kernel in kernels(store):
        if not kernel.current:
            yield _removed(
                Fault(kernel.files, kernel.fault or f"{kernel.symbol} of another version")
            )
    for fault in list(leftovers(store)):
        yield _removed(fault)
    for path, isa in plan_files().items():
        if isa in ISAS:
            lines = plans.compact(path, cpu._replace(isa=ISAS[isa]))
            if lines:
                yield Fault((path,), f"{lines} of its lines, replaced by later ones or of no use")


def clear(store: Store) -> list[str]:
    """Remove all that nkblas has made; the files."""
    removed: list[str] = []
    for folder, patterns in (
        (store.folder, (KERNEL, TEMPORARY)),
        (os.path.join(default_folder(), "plans"), (PLANS, TEMPORARY)),
    ):
        names = [n for n in _names(folder) if any(p.fullmatch(n) for p in patterns)]
        removed += _removed(Fault(tuple(os.path.join(folder, n) for n in names), "")).files
        with contextlib.suppress(OSError):  # there is none, or something else is in it
            os.rmdir(folder)
    return removed


def _removed(fault: Fault) -> Fault:
    for path in fault.files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return fault


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def to_text(found: Iterable[Plan], cpu: CPU) -> str:
    """Plans as a file that says which machine they are for."""
    lines = [plans.to_line(plan) for plan in sorted(found, key=lambda plan: plan.problem)]
    return "".join([f"{HEADER}{plans.machine(cpu)} ({cpu.brand}): {len(lines)}\n", *lines])


def machine_of(lines: Iterable[str]) -> str:
    """The machine that a file of plans says it is for; empty if it does not."""
    for line in lines:
        if line.startswith(HEADER):
            return line.removeprefix(HEADER).split(" ")[0].strip()
    return ""
