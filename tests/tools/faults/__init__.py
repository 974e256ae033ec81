"""Fault injection: each fault many times, at random places and moments.

``docs/reliability.md`` has the results. Run all faults with ``make faults``, one with
``make fault-NAME``, or some with ``python -m faults [NAME ...] [--times N] [--seed S]`` in the
parent folder. Each injection starts with a cache folder of its own. It passes if all products are
right and ``nkblas cache verify`` finds the cache whole at the end; what it cost is counted.
``test_faults.py`` injects each fault a few times.
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
COMPILE_AND_MULTIPLY = f"improve(*{SHAPES}); multiply(*{SHAPES}); report()"
"""A program that compiles or loads the kernels of the best plans, and checks the products."""

MULTIPLY = f"multiply(*{SHAPES}); report()"
"""A program that checks the products by whichever plans come first."""

NOT_STORED = "can't be kept"
"""Part of the warning that kernels can't be stored in the cache folder."""


class Case:
    """One injection of a fault.

    Attributes
    ----------
    random : random.Random
        The source of everything that is random in the injection.
    folder, cache : Path
        A temporary folder, and the cache folder in it.
    notes : Counter
        What the injection cost, as counts by description.
    """

    def __init__(self, seed: int, folder: Path, notes: "Counter[str]") -> None:
        self.random = random.Random(seed)
        self.folder, self.cache, self.notes = folder, folder / "cache", notes

    def start(self, program: str = COMPILE_AND_MULTIPLY, *options: str, **changes: Any) -> Any:
        """Start a process that multiplies, on this case's cache; see `support.start`."""
        changes = {"NKBLAS_CACHE_DIR": self.cache, **changes}
        return start(program, *options, **changes)

    def finish(self, process: Any) -> tuple[Any, str]:
        """Wait for a process, which must succeed; its report and its standard error."""
        report, errors = finish(process)
        self.notes["products by NumPy"] += report["fallbacks"]
        self.notes["kernels compiled"] += report["kernels_compiled"]
        return report, errors

    def run(
        self, program: str = COMPILE_AND_MULTIPLY, *options: str, **changes: Any
    ) -> tuple[Any, str]:
        """`start` a process and `finish` it."""
        return self.finish(self.start(program, *options, **changes))

    def fill_cache(self) -> None:
        """Fill the cache with the kernels that the products of `SHAPES` need."""
        shutil.copytree(warm_cache(), self.cache, symlinks=True)

    def shuffled_kernels(self) -> list[Path]:
        """The kernels in the cache, as paths without suffix, in random order."""
        found = sorted(path.with_suffix("") for path in self.cache.glob("kernels/*.json"))
        self.random.shuffle(found)
        return found

    def sleep_up_to(self, seconds: float) -> None:
        time.sleep(self.random.uniform(0, seconds))

    def verify_cache(self) -> None:
        """Run ``nkblas cache verify``; what it repairs is counted, and a second run finds nothing.

        Raises
        ------
        AssertionError
            The second run finds a fault.
        """
        os.environ["NKBLAS_CACHE_DIR"] = str(self.cache)
        for is_second in (False, True):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                status = command_line.main(["cache", "verify"])
            text = output.getvalue()
            if status == 0:
                break
            assert not is_second, text
            self.notes["defects repaired"] += len(text.splitlines()) - 1


@functools.cache
def warm_cache() -> Path:
    """A cache folder with the kernels that the products of `SHAPES` need."""
    folder = Path(tempfile.mkdtemp(prefix="nkblas-faults-"))
    atexit.register(shutil.rmtree, folder)
    finish(start(COMPILE_AND_MULTIPLY, NKBLAS_CACHE_DIR=folder / "cache"))
    return folder / "cache"


class Fault(NamedTuple):
    """A kind of fault.

    Attributes
    ----------
    description : str
        What happens.
    times, test_times : int
        How often it is injected by hand, and by `test_faults.py`.
    inject : callable
        Injects it once, and checks the consequences.
    """

    description: str
    times: int
    test_times: int
    inject: "Injection"


Injection = Callable[[Case], None]

FAULTS: dict[str, Fault] = {}
"""All faults by name."""


def fault(description: str, times: int, test_times: int = 1) -> Callable[[Injection], Injection]:
    """Register a function that injects a fault, under its own name with hyphens."""

    def register(inject: Injection) -> Injection:
        name = inject.__name__.replace("_", "-")
        FAULTS[name] = Fault(description, times, test_times, inject)
        return inject

    return register


class Outcome(NamedTuple):
    """The outcome of several injections of one fault.

    Attributes
    ----------
    failures : list of str
        A message for each injection that failed.
    notes : Counter
        What the injections cost.
    """

    failures: list[str]
    notes: "Counter[str]"


def inject(name: str, times: int, seed: int) -> Outcome:
    """Inject a fault `times` times, with the seeds from `seed` on."""
    cache_dir_before = os.environ.get("NKBLAS_CACHE_DIR")
    notes: Counter[str] = Counter()
    failures = []
    for i in range(seed, seed + times):
        folder = Path(tempfile.mkdtemp(prefix="nkblas-fault-"))
        case = Case(i, folder, notes)
        try:
            FAULTS[name].inject(case)
            case.verify_cache()
        except Exception as error:
            failures.append(f"seed {i}: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.environ.pop("NKBLAS_CACHE_DIR", None)
            if cache_dir_before is not None:
                os.environ["NKBLAS_CACHE_DIR"] = cache_dir_before
    return Outcome(failures, notes)


# ---- helpers of several faults


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a tmpfs of `size` bytes on a folder; False if this user may not mount."""
    folder.mkdir(mode=0o700, exist_ok=True)
    options = f"size={size},mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "nkblas-fault", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def helper_processes(process: int) -> list[int]:
    """The running processes that a process of `support.start` has started: no children of it."""

    def mark(entry: str) -> bytes:
        variables = Path("/proc", entry, "environ").read_bytes().split(b"\0")
        return next((v for v in variables if v.startswith(b"TEST_PROCESS=")), b"")

    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and int(entry) != process and mark(entry) == mark(str(process)):
                found.append(int(entry))
    return found


EXIT_SECONDS = 60
"""How long a process may take to notice that its parent has ended, on a busy machine."""


def has_ended(process: int) -> bool:
    """Whether a process ends within `EXIT_SECONDS`."""
    end = time.monotonic() + EXIT_SECONDS
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def send_signal(process: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def assert_mentions(text: str, *words: str) -> None:
    assert all(word in text for word in words), text


from . import crowds, hostile, machines  # noqa: E402, F401
