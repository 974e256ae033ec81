"""Faults, injected many times at random places and moments; see ``docs/reliability.md``.

By hand: ``make faults`` for all, ``make fault-NAME`` for one, or from this folder's parent
``python -m faults [NAME ...] [--times N] [--seed S]``. Each injection begins with a cache of its
own, ends with products that are right and a cache that ``nkblas cache verify`` finds whole, and
counts what it cost. ``test_faults.py`` injects each a few times.
"""

import atexit
import contextlib
import functools
import io
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support import finish, start

from nkblas.cli import command_line

SHAPES = [(5, 6, 7), (3, 16, 9), (70, 80, 90), (2, 33, 4)]
PRODUCTS = f"improve(*{SHAPES}); multiply(*{SHAPES}); report()"
"""Compiles the best kernels of some shapes, or loads them, and checks products against NumPy's."""

ALONE = "can't be kept"
"""What is said where the folder can't be used."""


class Case:
    """One injection.

    Attributes
    ----------
    random : random.Random
        What is random about it.
    folder, cache : Path
        A folder of its own, and the cache folder in it.
    notes : Counter
        What it cost.
    """

    def __init__(self, seed: int, folder: Path, notes: "Counter[str]") -> None:
        self.random = random.Random(seed)
        self.folder, self.cache, self.notes = folder, folder / "cache", notes

    def start(self, program: str = PRODUCTS, *options: str, **changes: Any) -> Any:
        """Start a process that multiplies; see `support.start`."""
        changes = {"NKBLAS_CACHE_DIR": self.cache, **changes}
        return start(program, *options, **changes)

    def finish(self, process: Any) -> tuple[Any, str]:
        """What it reported, and its standard error; it has ended as it should."""
        report, errors = finish(process)
        self.notes["products by NumPy"] += report["fallbacks"]
        self.notes["kernels compiled"] += report["kernels_compiled"]
        return report, errors

    def run(self, program: str = PRODUCTS, *options: str, **changes: Any) -> tuple[Any, str]:
        return self.finish(self.start(program, *options, **changes))

    def warm(self) -> None:
        """Have a cache with the kernels of `SHAPES`, and with a plan."""
        shutil.copytree(warm_cache(), self.cache, symlinks=True)

    def kernels(self) -> list[Path]:
        """The kernels in the cache, without suffix, in a random order."""
        found = sorted(path.with_suffix("") for path in self.cache.glob("kernels/*.json"))
        self.random.shuffle(found)
        return found

    def moment(self, longest: float) -> None:
        time.sleep(self.random.uniform(0, longest))

    def verify(self) -> None:
        """``nkblas cache verify``: what it mends is noted, and the second time it finds nothing."""
        os.environ["NKBLAS_CACHE_DIR"] = str(self.cache)
        for last in (False, True):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                status = command_line.main(["cache", "verify"])
            text = output.getvalue()
            if status == 0:
                break
            assert not last, text
            self.notes["faults mended"] += len(text.splitlines()) - 1


@functools.cache
def warm_cache() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="nkblas-faults-"))
    atexit.register(shutil.rmtree, folder)
    finish(start(PRODUCTS, NKBLAS_CACHE_DIR=folder / "cache"))
    return folder / "cache"


class Fault(NamedTuple):
    """A kind of fault.

    Attributes
    ----------
    what : str
        What is done.
    times, quick : int
        How often, by hand and in the tests.
    inject : callable
        Does it, and checks what comes of it.
    """

    what: str
    times: int
    quick: int
    inject: Callable[[Case], None]


FAULTS: dict[str, Fault] = {}


def fault(what: str, times: int, quick: int = 1) -> Any:
    """Register a function that injects a fault."""

    def register(inject: Callable[[Case], None]) -> Callable[[Case], None]:
        FAULTS[inject.__name__.replace("_", "-")] = Fault(what, times, quick, inject)
        return inject

    return register


class Outcome(NamedTuple):
    lost: list[str]
    notes: "Counter[str]"


def inject(name: str, times: int, seed: int) -> Outcome:
    """Inject a fault so often; each time has its own seed, ``seed + i``."""
    before = os.environ.get("NKBLAS_CACHE_DIR")
    notes: Counter[str] = Counter()
    lost = []
    for i in range(seed, seed + times):
        folder = Path(tempfile.mkdtemp(prefix="nkblas-fault-"))
        case = Case(i, folder, notes)
        try:
            FAULTS[name].inject(case)
            case.verify()
        except Exception as error:
            lost.append(f"seed {i}: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.environ.pop("NKBLAS_CACHE_DIR", None)
            if before is not None:
                os.environ["NKBLAS_CACHE_DIR"] = before
    return Outcome(lost, notes)


# What several faults need


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[bool]:
    """A disk of so many bytes there, if this user may mount one; whether there is."""
    folder.mkdir(mode=0o700, exist_ok=True)
    options = f"size={size},mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "nkblas-fault", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if fields[1] == str(process) and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def gone(process: int) -> bool:
    """Whether a process has ended, within a while."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def kill(process: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def told(text: str, *words: str) -> None:
    assert all(word in text for word in words), text


from . import crowds, hostile, machines  # noqa: E402, F401
