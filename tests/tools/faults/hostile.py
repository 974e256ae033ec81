"""The cache under attack: damage, full and vanishing disks, other users, other versions."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from support import PRELUDE

import nkblas
from nkblas.base.problem import parse
from nkblas.cli import command_line
from nkblas.planning import cost_model, measured_plans

from . import ALONE, PRODUCTS, SHAPES, Case, disk, fault, told

# ---- damage


def _flip(case: Case, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[case.random.randrange(len(content))] ^= 1 << case.random.randrange(8)
    path.write_bytes(content)


def _cut(case: Case, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: case.random.randrange(len(content))])


def _noise(case: Case, path: Path) -> None:
    path.write_bytes(case.random.randbytes(case.random.randrange(1, 30000)))


def _another(case: Case, path: Path) -> None:
    others = [p for p in path.parent.glob(f"*{path.suffix}") if p != path and p.is_file()]
    content = case.random.choice(others).read_bytes()
    path.write_bytes(content)


def _swapped(case: Case, path: Path) -> None:
    _another(case, path.with_suffix(".so"))
    _another(case, path.with_suffix(".json"))


def _link(case: Case, path: Path) -> None:
    target = case.folder / path.name
    path.rename(target)
    path.symlink_to(target)


def _pipe(case: Case, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(case: Case, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(case: Case, path: Path) -> None:
    os.truncate(path, 1 << 30)


def _open(case: Case, path: Path) -> None:
    path.chmod(0o666)


def _unlink(case: Case, path: Path) -> None:
    path.unlink()


DAMAGES = (_flip, _flip, _flip, _cut, _cut, _noise, _another, _swapped, _link, _pipe, _folder,
           _huge, _open, _unlink)  # fmt: skip


@fault("a kernel's file is damaged: bits, length, content, kind, mode, absence", 40)
def damage(case: Case) -> None:
    """Of several kernels at once; those and no others are compiled again."""
    case.warm()
    damaged = case.kernels()[: case.random.randint(1, 4)]
    for path in damaged:
        suffix = case.random.choice((".so", ".json"))
        case.random.choice(DAMAGES)(case, path.with_suffix(suffix))
    report, _ = case.run()
    assert report["kernels_compiled"] <= len(damaged), report
    assert report["fallbacks"] == 0, report


@fault("a kernel's library is written over in place while processes start", 10)
def rewritten(case: Case) -> None:
    """What is loaded is what was checked: never what the file has become since."""
    case.warm()
    libraries = [path.with_suffix(".so") for path in case.kernels()]
    contents = [path.read_bytes() for path in libraries]
    running = True

    def write() -> None:
        while running:
            i = case.random.randrange(len(libraries))
            length = len(contents[i])
            with open(libraries[i], "r+b") as file:  # the same file, while it may be mapped
                file.write(case.random.randbytes(length))
                file.seek(0)
                time.sleep(0.001)
                file.write(contents[i])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        reports = [case.finish(process)[0] for process in [case.start() for _ in range(2)]]
    finally:
        running = False
        thread.join()
    assert all(report["fallbacks"] == 0 for report in reports), reports


@fault("a measured plan's line is damaged, of 40 in a file", 20)
def plan_damage(case: Case) -> None:
    """Digits, letters, ends of lines: whatever plan comes of it, its products are right."""
    case.warm()
    shapes = [(i + 1, 2 * i + 3, 7 * i % 50 + 2) for i in range(40)]
    found = [
        cost_model.cheapest_plan(parse(f"{m}x{n}x{k}:f32"), nkblas.cpu)._replace(nanoseconds=1e3)
        for m, n, k in shapes
    ]
    text = bytearray("".join(map(measured_plans.to_line, found)).encode())
    for _ in range(40):
        place = case.random.randrange(len(text))
        text[place] = case.random.choice(b"0123456789=x \nabz\xff")
    path = case.cache / "plans" / f"{measured_plans.machine(nkblas.cpu)}.txt"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(text)
    path.chmod(0o600)
    case.run(f"multiply(*{shapes}); report()")


# ---- disks

# Writes to files fail once there is no more room; those in memory have no name.
FULL = """
import errno, stat
room, write = {room}, os.write

def full(descriptor, data):
    global room
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink:
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(descriptor, data)

os.write = full
"""


@fault("the disk is full, after 0 to 150 KiB", 15)
def full_disk(case: Case) -> None:
    room = case.random.randrange(150 << 10)
    with disk(case.cache, max(room, 4096)) as mounted:
        program = PRODUCTS if mounted else FULL.format(room=room) + PRODUCTS
        for _ in range(2):
            report, errors = case.run(program)
            assert report["fallbacks"] == 0, report
            if report["kernels_compiled"] and room < 20000:
                told(errors, ALONE, "No space left")
        case.verify()


@fault("the disk for temporary files is full, after 4 to 80 KiB", 15)
def full_temporary_disk(case: Case) -> None:
    """Where the linker can't write, kernels stay in memory."""
    temporary = case.folder / "tmp"
    with disk(temporary, case.random.randrange(4096, 80 << 10)) as mounted:
        if not mounted:  # a disk that holds nothing at all
            temporary = Path("/proc/self")
        report, _ = case.run(TMPDIR=temporary, TEMP=temporary, TMP=temporary)
    assert report["fallbacks"] == 0, report


READ_ONLY = """
import errno
opened, made = os.open, os.mkdir

def refuse(path, flags, mode=0o777, *, dir_fd=None):
    if flags & (os.O_WRONLY | os.O_RDWR):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    return opened(path, flags, mode, dir_fd=dir_fd)

def refuse_folder(path, mode=0o777, *, dir_fd=None):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

os.open, os.mkdir = refuse, refuse_folder
"""


@fault("the folder is read-only, with some of the kernels", 10)
def read_only(case: Case) -> None:
    with disk(case.cache, 8 << 20) as mounted:
        shutil.rmtree(case.cache, ignore_errors=True) if not mounted else None
        missing = _partly_warm(case)
        if mounted:
            command = ["mount", "-o", "remount,ro", str(case.cache)]
            subprocess.run(command, check=True, capture_output=True)
            report, errors = case.run()
        else:
            report, errors = case.run(READ_ONLY + PRODUCTS)
        assert report["kernels_compiled"] == missing, report
        assert report["fallbacks"] == 0, report
        told(errors, ALONE, "Read-only")
        if mounted:
            subprocess.run([*command[:2], "remount,rw", command[3]], check=True)
        case.verify()


def _partly_warm(case: Case) -> int:
    """A warm cache that lacks some kernels; how many."""
    source = case.folder / "warm"
    case.cache, cache = source, case.cache
    case.warm()
    case.cache = cache
    shutil.copytree(source, case.cache, dirs_exist_ok=True)
    removed = case.kernels()[: case.random.randint(1, 3)]
    for path in removed:
        path.with_suffix(".so").unlink()
        path.with_suffix(".json").unlink()
    return len(removed)


@fault("the folder vanishes, three times while two processes compile", 15)
def vanish(case: Case) -> None:
    processes = [case.start() for _ in range(2)]
    for _ in range(3):
        case.moment(0.7)
        shutil.rmtree(case.cache / case.random.choice(("", "kernels")), ignore_errors=True)
    for process in processes:
        report, _ = case.finish(process)
        assert report["fallbacks"] == 0, report


# One in `of` calls of each of these fails, as on a file system over a network.
NETWORK = """
import errno, fcntl, random
chance = random.Random({seed})

def failing(function, *errors):
    def call(*arguments, **keywords):
        if chance.random() < {share}:
            number = chance.choice(errors)
            raise OSError(number, os.strerror(number))
        return function(*arguments, **keywords)
    return call

for name in ("open", "replace", "write", "unlink", "fstat", "mkdir", "close", "listdir"):
    if name == "close":
        continue
    errors = (errno.ESTALE, errno.EIO, errno.ENOENT, errno.ETIMEDOUT, errno.EACCES)
    setattr(os, name, failing(getattr(os, name), *errors))
fcntl.fcntl = failing(fcntl.fcntl, errno.ENOLCK, errno.EINVAL, errno.EIO)
"""


@fault("file operations fail as NFS's do: rename, open, write, lock, …; 2 to 50 %", 20)
def network(case: Case) -> None:
    if case.random.random() < 0.5:
        case.warm()
    seed, share = case.random.random(), case.random.uniform(0.02, 0.5)
    program = NETWORK.format(seed=seed, share=share) + f"multiply(*{SHAPES}); report()"
    for _ in range(2):
        case.run(program)


@fault("the clock jumps, by up to ten years either way, and files' times with it", 10)
def clock(case: Case) -> None:
    case.warm()
    for path in case.cache.rglob("*"):
        moment = time.time() + case.random.uniform(-3e8, 3e8)
        os.utime(path, (moment, moment))
    jump = case.random.uniform(-3e8, 3e8)
    program = f"now = time.time; time.time = lambda: now() + {jump}\n" + PRODUCTS
    report, _ = case.run(program, NKBLAS_CACHE_SIZE=1)
    assert report["kernels_compiled"] == 0, report


# ---- others


@fault("two versions of nkblas side by side, one of them pruning", 3)
def versions(case: Case) -> None:
    """Neither finds the other's kernels; both find their own again."""
    package = Path(nkblas.__file__).parent
    changed = case.folder / "other" / "nkblas"
    shutil.copytree(package, changed, ignore=shutil.ignore_patterns("__pycache__"))
    beside = package.parent / "kernels_cache"
    if beside.is_dir():
        shutil.copytree(beside, changed.parent / "kernels_cache")
    with (changed / "base" / "isa.py").open("a") as file:
        file.write(f"# {case.random.random()}\n")
    prelude = f"import sys\nsys.path.insert(0, {str(changed.parent)!r})\n" + PRELUDE
    check = f"assert nkblas.__file__.startswith({str(changed)!r})\n"

    def both() -> list[Any]:
        processes = [case.start(), case.start(check + PRODUCTS, prelude=prelude)]
        return [case.finish(process)[0] for process in processes]

    cold = both()
    assert cold[0]["kernels_compiled"] == cold[1]["kernels_compiled"] > 0, cold
    assert len(case.kernels()) == 2 * cold[0]["kernels_compiled"]
    case.verify()
    assert [report["kernels_compiled"] for report in both()] == [0, 0]
    other = case.start(check + f"for _ in range(20): multiply(*{SHAPES})\n" + PRODUCTS,
                       prelude=prelude)  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        assert (
            command_line.main(["cache", "prune"]) == 0
        )  # of what is another version's to this one
    report, _ = case.finish(other)
    assert report["fallbacks"] == 0, report
    assert both()[0]["kernels_compiled"] == 0


HOSTILE = """
#include <unistd.h>
__attribute__((constructor)) static void take_over(void) { _exit(66); }
"""


def _plant(case: Case) -> int:
    """Put a library into each kernel's place that ends whoever loads it; digests are right."""
    (case.folder / "hostile.c").write_text(HOSTILE)
    library = case.folder / "hostile.so"
    command = ["cc", "-shared", "-fPIC", str(case.folder / "hostile.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    for path in case.kernels():
        path.with_suffix(".so").write_bytes(library.read_bytes())
        record = json.loads(path.with_suffix(".json").read_text())
        record["sha256"] = hashlib.sha256(library.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(record))
    return len(case.kernels())


@fault("hostile libraries with right digests, in a folder that others can write or own", 12, 2)
def intruder(case: Case) -> None:
    """They are not loaded: another user's, others can write, a link to such a folder."""
    case.warm()
    count = _plant(case)
    assert case.start().wait(60) == 66  # a folder that only this user can write is trusted
    paths = [case.cache, case.cache / "kernels"]
    path = case.random.choice(paths)
    prelude = ""
    kind = case.random.choice(["mode", "mode", "owner", "file", "link"])
    if kind == "mode":
        path.chmod(case.random.choice((0o777, 0o1777, 0o775, 0o722)))
    elif kind == "owner" and os.geteuid() == 0:
        os.chown(path, 12345, -1)
    elif kind == "owner":
        prelude = "os.geteuid = lambda: 12345\n"
    elif kind == "file":
        for file in case.cache.glob("kernels/*.??*"):
            file.chmod(0o666)
    elif kind == "link":
        paths[1].rename(case.folder / "elsewhere")
        paths[1].symlink_to(case.folder / "elsewhere")
    report, errors = case.run(prelude + PRODUCTS)
    assert report["kernels_loaded"] == 0, report
    assert report["kernels_compiled"] == count, report
    if kind == "file":
        told(errors, "damaged", "others can write")
    else:
        told(errors, ALONE)
    if kind == "owner":
        os.chown(path, os.geteuid(), -1)
        shutil.rmtree(case.cache)


@fault("more kernels than NKBLAS_CACHE_SIZE allows, by three processes", 5)
def size_limit(case: Case) -> None:
    """The least used go; what processes have loaded goes on."""
    case.warm()
    filler = case.random.randbytes(60 << 10)
    for i in range(30):  # 1.8 MB of kernels that nobody uses
        key = f"{i:040x}"
        (case.cache / "kernels" / f"{key}.so").write_bytes(filler)
        record = {"key": key, "kernel": "filler", "sha256": hashlib.sha256(filler).hexdigest()}
        (case.cache / "kernels" / f"{key}.json").write_text(json.dumps(record))
        for suffix in ("so", "json"):
            os.utime(case.cache / "kernels" / f"{key}.{suffix}", (10**9 + i, 10**9 + i))
    more = [[case.random.randint(1, 64) for _ in range(3)] for _ in range(3)]
    program = "improve({0}); multiply({0}, {0}); " + PRODUCTS
    processes = [case.start(program.format(tuple(s)), NKBLAS_CACHE_SIZE=1) for s in more]
    reports = [case.finish(process)[0] for process in processes]
    assert all(report["fallbacks"] == 0 for report in reports), reports
    sizes = sum(p.stat().st_size for p in case.cache.glob("kernels/*") if p.suffix != "")
    if any(report["kernels_compiled"] for report in reports):
        assert sizes <= 1 << 20, sizes
    report, _ = case.run()
    assert report["kernels_compiled"] == 0, report  # what is used has stayed
