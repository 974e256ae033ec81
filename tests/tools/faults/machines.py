"""Degraded machines: nkblas does without what is missing, and ``nkblas info`` explains it."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import HANG_SECONDS, PRELUDE, environment, run, start

import nkblas

from . import (
    COMPILE_AND_MULTIPLY,
    MULTIPLY,
    NOT_STORED,
    SHAPES,
    Case,
    assert_mentions,
    fault,
    helper_processes,
    send_signal,
)


def lacking(case: Case, *options: str, prelude: str = "", **changes: Any) -> str:
    """The lines of ``nkblas info`` on what the machine lacks; `prelude` runs before it."""
    main = "import sys\nfrom nkblas.cli import command_line\nsys.exit(command_line.main(['info']))"
    program = f"{prelude}\n{main}"
    changes = {"NKBLAS_CACHE_DIR": case.cache, **changes}
    command = [sys.executable, *options, "-c", program]
    done = subprocess.run(command, env=environment(**changes), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("lacking"))


@fault("no linker", 1, 0)
def no_linker(case: Case) -> None:
    """Kernels stay in memory."""
    for _ in range(2):
        report, errors = case.run(PATH="/nowhere")
        assert report["fallbacks"] == 0 < report["kernels_compiled"], report
        assert_mentions(errors, "no linker", "stay in memory")
    text = lacking(case, PATH="/nowhere")
    assert_mentions(text, "a linker (ld, ld.lld, cc in PATH)", "each process")


@fault("a linker that fails", 1)
def broken_linker(case: Case) -> None:
    (case.folder / "ld").write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    (case.folder / "ld").chmod(0o755)
    report, errors = case.run(PATH=f"{case.folder}:{os.environ['PATH']}")
    assert report["fallbacks"] == 0 < report["kernels_compiled"], report
    assert_mentions(errors, "out of luck", "stay in memory")


@fault("no MLIR", 1)
def no_mlir(case: Case) -> None:
    """With a cold cache NumPy does the products."""
    folder = case.folder / "packages"
    folder.mkdir()
    packages = [Path(nkblas.__file__).parent]
    for entry in map(Path, sys.path):
        if entry.name in ("site-packages", "dist-packages"):
            packages += [package for package in entry.iterdir() if "mlir" not in package.name]
    for package in packages:
        if not (folder / package.name).exists():
            (folder / package.name).symlink_to(package)
    report, errors = case.run(MULTIPLY, "-S", PYTHONPATH=folder)
    assert report["fallbacks"] == report["calls"] > 0, report
    assert errors.count("mlir") == 1, errors
    assert_mentions(lacking(case, "-S", PYTHONPATH=folder), "MLIR", "NumPy does")


@fault("NKBLAS_JIT=never, with none or some of the kernels", 4)
def never(case: Case) -> None:
    missing = case.random.randint(0, 2)
    if missing:
        case.fill_cache()
        for path in case.shuffled_kernels()[:missing]:
            path.with_suffix(".json").unlink()
            path.with_suffix(".so").unlink()
    report, errors = case.run(MULTIPLY, NKBLAS_JIT="never")
    assert report["kernels_compiled"] == 0, report
    if not missing:
        assert report["fallbacks"] == report["calls"], report
        assert_mentions(errors, "NKBLAS_JIT=never")
    assert_mentions(lacking(case, NKBLAS_JIT="never"), "NKBLAS_JIT=never", "NumPy does")


HOMES = ("/proc/nowhere", "/dev/null", "below a file", "unknown")


@fault("no home folder, or a read-only one", 4)
def no_home(case: Case) -> None:
    home, prelude = case.random.choice(HOMES), ""
    if home == "below a file":
        (case.folder / "file").touch()
        home = str(case.folder / "file" / "home")
    elif home == "unknown":  # as for a user whom the system does not know
        prelude = "import os\nos.path.expanduser = lambda path: path\n"
    changes = {"HOME": home, "NKBLAS_CACHE_DIR": "", "XDG_CACHE_HOME": ""}
    report, errors = case.run(prelude=prelude + PRELUDE, **changes)
    assert report["fallbacks"] == 0 < report["kernels_compiled"], report
    assert_mentions(errors, NOT_STORED)
    text = lacking(case, prelude=prelude, **changes)
    assert_mentions(text, "to keep kernels in", "NKBLAS_CACHE_DIR")


# ---- resource limits: what NumPy alone can't do under the same limit is no failure of nkblas's


def limit(name: str, value: int) -> str:
    """The beginning of a program that sets a resource limit of its process."""
    return f"import resource\nresource.setrlimit(resource.{name}, ({value}, {value}))\n"


NUMPY_ALONE = PRELUDE.replace("import nkblas", "nkblas = np")
"""`PRELUDE` without nkblas: NumPy does all products."""

OPENBLAS_NO_MEMORY = "OpenBLAS error: Memory allocation still failed"
"""OpenBLAS ends a process with this message if there is no room for its buffer of 32 MiB."""

OPENBLAS_NO_THREAD = "OpenBLAS blas_thread_init: pthread_create failed"
"""After this message OpenBLAS interrupts the process, while NumPy is imported."""

NUMPY_NO_MEMORY = "numpy._core._exceptions._ArrayMemoryError"

MAX_NKBLAS_ADDRESSES = 32 << 20
"""Bytes of addresses that nkblas may take beyond NumPy's; 7 to 9 MB were measured."""

PRINT_PEAK_ADDRESSES = """
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) << 10 for line in status if line.startswith("VmPeak:")))
"""


def numpy_failure(errors: str) -> str:
    """The failure of NumPy itself that ended a process, by its standard error; "" for any other."""
    lines = errors.strip().splitlines() or [""]
    if lines[-1].startswith(OPENBLAS_NO_MEMORY):
        return OPENBLAS_NO_MEMORY
    if f'File "{Path(nkblas.__file__).parent}' in errors:  # in the traceback
        return ""
    if lines[-1] == "KeyboardInterrupt" and OPENBLAS_NO_THREAD in errors:
        return OPENBLAS_NO_THREAD
    return NUMPY_NO_MEMORY if lines[-1].startswith(NUMPY_NO_MEMORY) else ""


@functools.cache
def peak_addresses(prelude: str) -> int:
    """Peak of the bytes of addresses of an unlimited process in which NumPy does the products."""
    program = f"multiply(*{SHAPES})\n{PRINT_PEAK_ADDRESSES}"
    with tempfile.TemporaryDirectory(prefix="nkblas-fault-") as folder:
        peak, _ = run(program, prelude=prelude, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=folder)
    assert isinstance(peak, int)
    return peak


def fails_without_nkblas(limits: str, status: int, failure: str) -> bool:
    """Whether NumPy alone has the same failure under the same limits.

    If it has not, a ballast takes as many addresses as nkblas would: any imported package takes
    some.
    """
    nkblas_addresses = peak_addresses(PRELUDE) - peak_addresses(NUMPY_ALONE)
    assert 0 < nkblas_addresses <= MAX_NKBLAS_ADDRESSES, nkblas_addresses
    ballast = f"""
import mmap
ballast = mmap.mmap(-1, {nkblas_addresses}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
"""
    for prelude in (limits + NUMPY_ALONE, limits + NUMPY_ALONE + ballast):
        process = start(f"multiply(*{SHAPES})", prelude=prelude)
        _, errors = process.communicate(timeout=HANG_SECONDS)
        if (process.returncode, numpy_failure(errors)) == (status, failure):
            return True
    return False


def multiply_within(case: Case, limits: str) -> dict[str, int] | None:
    """Check products under limits; the process's report, or None if the limits are too low.

    They may be too low to import nkblas, or for NumPy's own products. Beyond that nkblas must not
    fail: NumPy does the products that lack a kernel.
    """
    process = case.start(MULTIPLY, prelude=limits + PRELUDE)
    output, errors = process.communicate(timeout=HANG_SECONDS)
    status = process.returncode
    if status == 0:
        case.notes["worked"] += 1
        report: dict[str, int] = json.loads(output)
        return report
    failure = numpy_failure(errors)
    if failure and fails_without_nkblas(limits, status, failure):
        case.notes["too little for NumPy"] += 1
        return None
    assert status == 1, (status, errors)
    assert "in multiply" not in errors, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith(("ImportError", "MemoryError", "OSError", "ModuleNotFound")), errors
    case.notes["too little for the import"] += 1
    return None


COMPILER_MIB = 432
"""MiB of addresses that suffice for the compiler, beyond those of NumPy's products."""


@fault("ulimit -v: from too few addresses for NumPy to enough for the compiler", 30)
def address_space(case: Case) -> None:
    """NumPy does the products if the compiler does not fit."""
    numpy = peak_addresses(NUMPY_ALONE) >> 20
    size = case.random.randrange(numpy * 3 // 5, numpy + COMPILER_MIB)
    limits = limit("RLIMIT_AS", size << 20)
    report = multiply_within(case, limits)
    if report and report["fallbacks"]:
        text = lacking(case, prelude=limits)
        assert_mentions(text, f"ulimit -v: {size} MiB", "NumPy does")


@fault("ulimit -n: 4 to 40 open files", 20)
def few_files(case: Case) -> None:
    multiply_within(case, limit("RLIMIT_NOFILE", case.random.randrange(4, 40)))


@fault("ulimit -f: files of at most 0 to 60 KiB", 10)
def small_files(case: Case) -> None:
    multiply_within(case, limit("RLIMIT_FSIZE", case.random.randrange(60 << 10)))


# ---- CPUs


@contextlib.contextmanager
def control_group(quota: float) -> Iterator[Path | None]:
    """A control group that grants `quota` CPUs, of version 1 or 2; None if it can't be made."""
    period = 100_000
    share = str(int(quota * period))
    for root, settings in {
        "/sys/fs/cgroup/cpu": {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": share},
        "/sys/fs/cgroup": {"cpu.max": f"{share} {period}"},
    }.items():
        group = Path(root, f"nkblas-fault-{os.getpid()}")
        try:
            if is_usable(group, settings):
                yield group
                return
        finally:
            remove_group(group)
    yield None


def is_usable(group: Path, settings: dict[str, str]) -> bool:
    """Make a control group; whether it takes these settings, and processes."""
    try:
        group.mkdir()
        for name, value in settings.items():
            (group / name).write_text(value)
    except OSError:
        return False
    join = ["sh", "-c", f"echo 0 > {group}/cgroup.procs"]
    return subprocess.run(join, capture_output=True).returncode == 0


def remove_group(group: Path) -> None:
    """Remove a control group, once all its processes have ended."""
    for _ in range(100):
        if not group.exists():
            return
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


@contextlib.contextmanager
def throttled(process: int) -> Iterator[None]:
    """Let a process and its helpers run for a quarter of the time."""
    is_running = True

    def throttle() -> None:
        while is_running:
            for number, seconds in ((signal.SIGSTOP, 0.06), (signal.SIGCONT, 0.02)):
                for pid in (process, *helper_processes(process)):
                    send_signal(pid, number)
                time.sleep(seconds)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        is_running = False
        thread.join()


@fault(
    "a quarter of a CPU: by a control group, or by stopping the process if none can be created", 4
)
def quarter_cpu(case: Case) -> None:
    with control_group(0.25) as group:
        if group:
            case.notes["by a control group"] += 1
            join = f"open('{group}/cgroup.procs', 'w').write('0')\n"
            program = COMPILE_AND_MULTIPLY.replace(
                "report()", "report(threads=nkblas.get_num_threads())"
            )
            report, _ = case.run(program, prelude=join + PRELUDE)
            assert report["threads"] == 1, report
            text = lacking(case, prelude=join)
            assert_mentions(text, "a whole CPU", "grants 0.25", "4 times")
        else:
            case.notes["by stopping"] += 1
            process = case.start()
            with throttled(process.pid):
                report, _ = case.finish(process)
    assert report["fallbacks"] == 0, report


@fault("a CPU is removed from the affinity mask and added again while products run", 4)
def affinity(case: Case) -> None:
    program = f"""
cpus = sorted(os.sched_getaffinity(0))
for i in range(20):
    os.sched_setaffinity(0, {{cpus[i % len(cpus)]}} if i % 2 else cpus)
    multiply((400, 400, 400), *{SHAPES})
{COMPILE_AND_MULTIPLY}
"""
    report, _ = case.run(program)
    assert report["fallbacks"] == 0, report
