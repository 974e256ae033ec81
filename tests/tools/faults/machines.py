"""Degraded machines: what is missing is done without, and ``nkblas info`` explains it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import PRELUDE, environment

import nkblas

from . import ALONE, PRODUCTS, SHAPES, Case, children, fault, kill, told

MULTIPLY = f"multiply(*{SHAPES}); report()"


def lacking(case: Case, *options: str, prelude: str = "", **changes: Any) -> str:
    """What ``nkblas info`` says that is lacking, in a process that begins with a prelude."""
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
        told(errors, "no linker", "stay in memory")
    told(lacking(case, PATH="/nowhere"), "a linker (ld, ld.lld, cc in PATH)", "each process")


@fault("a linker that fails", 1)
def broken_linker(case: Case) -> None:
    (case.folder / "ld").write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    (case.folder / "ld").chmod(0o755)
    report, errors = case.run(PATH=f"{case.folder}:{os.environ['PATH']}")
    assert report["fallbacks"] == 0 < report["kernels_compiled"], report
    told(errors, "out of luck", "stay in memory")


@fault("no MLIR", 1)
def no_mlir(case: Case) -> None:
    """With a cold cache NumPy does it."""
    folder = case.folder / "packages"
    folder.mkdir()
    found = [Path(nkblas.__file__).parent]
    for entry in map(Path, sys.path):
        if entry.name in ("site-packages", "dist-packages"):
            found += [package for package in entry.iterdir() if "mlir" not in package.name]
    for package in found:
        if not (folder / package.name).exists():
            (folder / package.name).symlink_to(package)
    report, errors = case.run(MULTIPLY, "-S", PYTHONPATH=folder)
    assert report["fallbacks"] == report["calls"] > 0, report
    assert errors.count("mlir") == 1, errors
    told(lacking(case, "-S", PYTHONPATH=folder), "MLIR", "NumPy does")


@fault("NKBLAS_JIT=never, with none or some of the kernels", 4)
def never(case: Case) -> None:
    missing = case.random.randint(0, 2)
    if missing:
        case.warm()
        for path in case.kernels()[:missing]:
            path.with_suffix(".json").unlink()
            path.with_suffix(".so").unlink()
    report, errors = case.run(MULTIPLY, NKBLAS_JIT="never")
    assert report["kernels_compiled"] == 0, report
    if not missing:
        assert report["fallbacks"] == report["calls"], report
        told(errors, "NKBLAS_JIT=never")
    told(lacking(case, NKBLAS_JIT="never"), "NKBLAS_JIT=never", "NumPy does")


HOMES = ("/proc/nowhere", "/dev/null", "below a file", "unknown")


@fault("no home folder, or none that can be written to", 4)
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
    told(errors, ALONE)
    told(lacking(case, prelude=prelude, **changes), "to keep kernels in", "NKBLAS_CACHE_DIR")


def limit(name: str, value: int) -> str:
    """The beginning of a program that first limits itself."""
    return f"import resource\nresource.setrlimit(resource.{name}, ({value}, {value}))\n"


def with_little(case: Case, little: str) -> bool:
    """Products are right, if nkblas can be imported; whether it can."""
    process = case.start(MULTIPLY, prelude=little + PRELUDE)
    _, errors = process.communicate(timeout=120)
    if process.returncode == 0:
        case.notes["worked"] += 1
        return True
    assert process.returncode == 1, (process.returncode, errors)
    assert "in multiply" not in errors, errors
    case.notes["too little for the import"] += 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith(("ImportError", "MemoryError", "OSError", "ModuleNotFound")), errors
    return False


@fault("ulimit -v: 100 to 600 MiB of addresses", 30)
def address_space(case: Case) -> None:
    """NumPy does what there is no memory to compile for."""
    size = case.random.randrange(100, 600)
    little = limit("RLIMIT_AS", size << 20)
    if with_little(case, little) and 200 < size < 400:
        told(lacking(case, prelude=little), f"ulimit -v: {size} MiB", "NumPy does")


@fault("ulimit -n: 4 to 40 open files", 20)
def few_files(case: Case) -> None:
    with_little(case, limit("RLIMIT_NOFILE", case.random.randrange(4, 40)))


@fault("ulimit -f: files of at most 0 to 60 KiB", 10)
def small_files(case: Case) -> None:
    with_little(case, limit("RLIMIT_FSIZE", case.random.randrange(60 << 10)))


@contextlib.contextmanager
def control_group(quota: float) -> Iterator[Path | None]:
    """A control group with that many CPUs, if this user may make one."""
    period, name = 100_000, f"nkblas-fault-{os.getpid()}"
    share = str(int(quota * period))
    kinds = {
        "/sys/fs/cgroup/cpu": {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": share},
        "/sys/fs/cgroup": {"cpu.max": f"{share} {period}"},
    }
    for root, files in kinds.items():
        group = Path(root, name)
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for file, value in files.items():
                (group / file).write_text(value)
            yield group
            return
        except FileNotFoundError:
            continue
        finally:
            for _ in range(100):  # until all its processes have ended
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.1)
    yield None


@contextlib.contextmanager
def braked(process: int) -> Iterator[None]:
    """A process and its children run for a quarter of the time."""
    running = True

    def brake() -> None:
        while running:
            for number, seconds in ((signal.SIGSTOP, 0.06), (signal.SIGCONT, 0.02)):
                for pid in (process, *children(process)):
                    kill(pid, number)
                time.sleep(seconds)

    thread = threading.Thread(target=brake)
    thread.start()
    try:
        yield
    finally:
        running = False
        thread.join()


@fault("a quarter of a CPU: by a control group, or where none can be made by stopping", 4)
def quarter_cpu(case: Case) -> None:
    with control_group(0.25) as group:
        if group:
            case.notes["by a control group"] += 1
            join = f"open('{group}/cgroup.procs', 'w').write('0')\n"
            program = PRODUCTS.replace("report()", "report(threads=nkblas.get_num_threads())")
            report, _ = case.run(program, prelude=join + PRELUDE)
            assert report["threads"] == 1, report
            text = lacking(case, prelude=join)
            told(text, "a whole CPU", "grants 0.25", "4 times")
        else:
            case.notes["by stopping"] += 1
            process = case.start()
            with braked(process.pid):
                report, _ = case.finish(process)
    assert report["fallbacks"] == 0, report


@fault("one CPU of the affinity mask, taken away and given back while products run", 4)
def affinity(case: Case) -> None:
    program = f"""
cpus = sorted(os.sched_getaffinity(0))
for i in range(20):
    os.sched_setaffinity(0, {{cpus[i % len(cpus)]}} if i % 2 else cpus)
    multiply((400, 400, 400), *{SHAPES})
{PRODUCTS}
"""
    report, _ = case.run(program)
    assert report["fallbacks"] == 0, report
