"""A hostile environment of the cache: damage, full disks, other users, other versions."""

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

from support import HANG_SECONDS, PRELUDE

import nkblas
from nkblas.base.problem import parse
from nkblas.cli import command_line
from nkblas.planning import cost_model, measured_plans
from nkblas.planning.microarchitecture import machine

from . import (
    COMPILE_AND_MULTIPLY,
    MULTIPLY,
    NOT_STORED,
    SHAPES,
    Case,
    assert_mentions,
    fault,
    small_disk,
    warm_cache,
)

# ---- damaged files


def flip_bit(case: Case, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[case.random.randrange(len(content))] ^= 1 << case.random.randrange(8)
    path.write_bytes(content)


def truncate(case: Case, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: case.random.randrange(len(content))])


def write_noise(case: Case, path: Path) -> None:
    path.write_bytes(case.random.randbytes(case.random.randrange(1, 30000)))


def copy_other_file(case: Case, path: Path) -> None:
    others = [p for p in path.parent.glob(f"*{path.suffix}") if p != path and p.is_file()]
    content = case.random.choice(others).read_bytes()
    path.write_bytes(content)


def swap_kernel(case: Case, path: Path) -> None:
    copy_other_file(case, path.with_suffix(".so"))
    copy_other_file(case, path.with_suffix(".json"))


def replace_by_link(case: Case, path: Path) -> None:
    target = case.folder / path.name
    path.rename(target)
    path.symlink_to(target)


def replace_by_pipe(case: Case, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(case: Case, path: Path) -> None:
    path.unlink()
    path.mkdir()


def enlarge(case: Case, path: Path) -> None:
    os.truncate(path, 1 << 30)


def make_writable(case: Case, path: Path) -> None:
    path.chmod(0o666)


def remove(case: Case, path: Path) -> None:
    path.unlink()


DAMAGES = (
    *(flip_bit, flip_bit, flip_bit, truncate, truncate, write_noise, copy_other_file, swap_kernel),
    *(replace_by_link, replace_by_pipe, replace_by_folder, enlarge, make_writable, remove),
)


@fault("a kernel's file is damaged: bits, length, content, file type, mode, or it is deleted", 40)
def damage(case: Case) -> None:
    """Several kernels are damaged; those and no others are compiled again."""
    case.fill_cache()
    damaged = case.shuffled_kernels()[: case.random.randint(1, 4)]
    for path in damaged:
        suffix = case.random.choice((".so", ".json"))
        case.random.choice(DAMAGES)(case, path.with_suffix(suffix))
    report, _ = case.run()
    assert report["kernels_compiled"] <= len(damaged), report
    assert report["fallbacks"] == 0, report


@fault("a kernel's library is overwritten in place while processes start", 10)
def rewritten(case: Case) -> None:
    """The bytes that are loaded are those that were verified, whatever the file holds since."""
    case.fill_cache()
    libraries = [path.with_suffix(".so") for path in case.shuffled_kernels()]
    contents = [path.read_bytes() for path in libraries]
    is_running = True

    def write() -> None:
        while is_running:
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
        is_running = False
        thread.join()
    assert all(report["fallbacks"] == 0 for report in reports), reports


@fault("one of 40 tuned plans in a file is damaged", 20)
def plan_damage(case: Case) -> None:
    """In digits, letters or line ends; products are right by whichever plan is read."""
    case.fill_cache()
    shapes = [(i + 1, 2 * i + 3, 7 * i % 50 + 2) for i in range(40)]
    found = [
        cost_model.cheapest_plan(parse(f"{m}x{n}x{k}:f32"), nkblas.cpu)._replace(nanoseconds=1e3)
        for m, n, k in shapes
    ]
    text = bytearray("".join(map(measured_plans.to_line, found)).encode())
    for _ in range(40):
        place = case.random.randrange(len(text))
        text[place] = case.random.choice(b"0123456789=x \nabz\xff")
    path = case.cache / "plans" / f"{machine(nkblas.cpu)}.txt"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(text)
    path.chmod(0o600)
    case.run(f"multiply(*{shapes}); report()")


# ---- disks

FULL_DISK = """
import errno, stat
free_bytes, write = {free_bytes}, os.write

def write_until_full(descriptor, data):
    global free_bytes
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink:
        free_bytes -= len(data)
        if free_bytes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(descriptor, data)

os.write = write_until_full
"""
"""A prelude: writes to files fail after some bytes. Files in memory (without a link) don't."""


def stored_bytes(cache: Path) -> int:
    """Bytes of the kernels in a cache folder, with their records."""
    return sum(path.stat().st_size for path in cache.glob("kernels/*.*"))


@fault("the disk is full, with room for none to all of the kernels", 15)
def full_disk(case: Case) -> None:
    needed = stored_bytes(warm_cache())
    size = case.random.randrange(4 * needed)
    with small_disk(case.cache, max(size, 4096)) as is_mounted:
        program = COMPILE_AND_MULTIPLY
        if not is_mounted:
            program = FULL_DISK.format(free_bytes=size) + program
        for _ in range(2):
            stored = stored_bytes(case.cache)
            free_bytes = size - stored if is_mounted else size
            report, errors = case.run(program)
            assert report["fallbacks"] == 0, report
            if report["kernels_compiled"] and needed - stored > free_bytes:
                assert_mentions(errors, NOT_STORED, "No space left")
        case.verify_cache()


@fault("the disk for temporary files is full, after 4 to 80 KiB", 15)
def full_temporary_disk(case: Case) -> None:
    """If the linker can't write, kernels stay in memory."""
    temporary = case.folder / "tmp"
    with small_disk(temporary, case.random.randrange(4096, 80 << 10)) as is_mounted:
        if not is_mounted:  # a folder that takes no file at all
            temporary = Path("/proc/self")
        report, _ = case.run(TMPDIR=temporary, TEMP=temporary, TMP=temporary)
    assert report["fallbacks"] == 0, report


READ_ONLY = """
import errno
opened = os.open

def refuse_to_write(path, flags, mode=0o777, *, dir_fd=None):
    if flags & (os.O_WRONLY | os.O_RDWR):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    return opened(path, flags, mode, dir_fd=dir_fd)

def refuse_folder(path, mode=0o777, *, dir_fd=None):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

os.open, os.mkdir = refuse_to_write, refuse_folder
"""


@fault("the cache folder is read-only, and has some of the kernels", 10)
def read_only(case: Case) -> None:
    with small_disk(case.cache, 8 << 20) as is_mounted:
        if not is_mounted:
            shutil.rmtree(case.cache, ignore_errors=True)
        missing = fill_cache_partly(case)
        if is_mounted:
            command = ["mount", "-o", "remount,ro", str(case.cache)]
            subprocess.run(command, check=True, capture_output=True)
            report, errors = case.run()
        else:
            report, errors = case.run(READ_ONLY + COMPILE_AND_MULTIPLY)
        assert report["kernels_compiled"] == missing, report
        assert report["fallbacks"] == 0, report
        assert_mentions(errors, NOT_STORED, "Read-only")
        if is_mounted:
            subprocess.run([*command[:2], "remount,rw", command[3]], check=True)
        case.verify_cache()


def fill_cache_partly(case: Case) -> int:
    """Fill the cache with all kernels but some; how many are missing."""
    source = case.folder / "warm"
    case.cache, cache = source, case.cache
    case.fill_cache()
    case.cache = cache
    shutil.copytree(source, case.cache, dirs_exist_ok=True)
    removed = case.shuffled_kernels()[: case.random.randint(1, 3)]
    for path in removed:
        path.with_suffix(".so").unlink()
        path.with_suffix(".json").unlink()
    return len(removed)


@fault("the cache folder is deleted, three times while two processes compile", 15)
def vanish(case: Case) -> None:
    processes = [case.start() for _ in range(2)]
    for _ in range(3):
        case.sleep_up_to(0.7)
        shutil.rmtree(case.cache / case.random.choice(("", "kernels")), ignore_errors=True)
    for process in processes:
        report, _ = case.finish(process)
        assert report["fallbacks"] == 0, report


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

for name in ("open", "replace", "write", "unlink", "fstat", "mkdir", "listdir"):
    errors = (errno.ESTALE, errno.EIO, errno.ENOENT, errno.ETIMEDOUT, errno.EACCES)
    setattr(os, name, failing(getattr(os, name), *errors))
fcntl.fcntl = failing(fcntl.fcntl, errno.ENOLCK, errno.EINVAL, errno.EIO)
"""
"""A prelude: a share of the file operations fails, as on a network file system."""


@fault("file operations fail as on NFS: rename, open, write, lock, …; 2 to 50 % of them", 20)
def network(case: Case) -> None:
    if case.random.random() < 0.5:
        case.fill_cache()
    seed, share = case.random.random(), case.random.uniform(0.02, 0.5)
    program = NETWORK.format(seed=seed, share=share) + MULTIPLY
    for _ in range(2):
        case.run(program)


@fault("the clock jumps by up to ten years, forward or backward, and file times with it", 10)
def clock(case: Case) -> None:
    case.fill_cache()
    for path in case.cache.rglob("*"):
        moment = time.time() + case.random.uniform(-3e8, 3e8)
        os.utime(path, (moment, moment))
    jump = case.random.uniform(-3e8, 3e8)
    program = f"now = time.time; time.time = lambda: now() + {jump}\n" + COMPILE_AND_MULTIPLY
    report, _ = case.run(program, NKBLAS_CACHE_SIZE=1)
    assert report["kernels_compiled"] == 0, report


# ---- other versions and other users


@fault("two versions of nkblas share a cache, and one of them prunes it", 3)
def versions(case: Case) -> None:
    """Neither loads the other's kernels; both find their own again."""
    package = Path(nkblas.__file__).parent
    changed = case.folder / "other" / "nkblas"
    shutil.copytree(package, changed, ignore=shutil.ignore_patterns("__pycache__"))
    shipped = package.parent / "kernels_cache"
    if shipped.is_dir():
        shutil.copytree(shipped, changed.parent / "kernels_cache")
    with (changed / "base" / "isa.py").open("a") as file:
        file.write(f"# {case.random.random()}\n")
    prelude = f"import sys\nsys.path.insert(0, {str(changed.parent)!r})\n" + PRELUDE
    check = f"assert nkblas.__file__.startswith({str(changed)!r})\n"

    def both() -> list[Any]:
        processes = [case.start(), case.start(check + COMPILE_AND_MULTIPLY, prelude=prelude)]
        return [case.finish(process)[0] for process in processes]

    cold = both()
    assert cold[0]["kernels_compiled"] == cold[1]["kernels_compiled"] > 0, cold
    assert len(case.shuffled_kernels()) == 2 * cold[0]["kernels_compiled"]
    case.verify_cache()
    assert [report["kernels_compiled"] for report in both()] == [0, 0]
    other = case.start(check + f"for _ in range(20): multiply(*{SHAPES})\n" + COMPILE_AND_MULTIPLY,
                       prelude=prelude)  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        # to this version the other one's kernels are another version's
        assert command_line.main(["cache", "prune"]) == 0
    report, _ = case.finish(other)
    assert report["fallbacks"] == 0, report
    assert both()[0]["kernels_compiled"] == 0


HOSTILE = """
#include <unistd.h>
__attribute__((constructor)) static void take_over(void) { _exit(66); }
"""


def plant_hostile_libraries(case: Case) -> int:
    """Replace each kernel by a library that ends the process that loads it; how many there are.

    Their digests are right.
    """
    (case.folder / "hostile.c").write_text(HOSTILE)
    library = case.folder / "hostile.so"
    command = ["cc", "-shared", "-fPIC", str(case.folder / "hostile.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    for path in case.shuffled_kernels():
        path.with_suffix(".so").write_bytes(library.read_bytes())
        record = json.loads(path.with_suffix(".json").read_text())
        record["sha256"] = hashlib.sha256(library.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(record))
    return len(case.shuffled_kernels())


@fault(
    "hostile libraries with correct digests, in a folder that other users own or can write to",
    12,
    2,
)
def intruder(case: Case) -> None:
    """They are not loaded if another user owns the folder or can write to it, or behind a link."""
    case.fill_cache()
    count = plant_hostile_libraries(case)
    # a folder that only this user can write to is trusted
    assert case.start().wait(HANG_SECONDS) == 66
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
    report, errors = case.run(prelude + COMPILE_AND_MULTIPLY)
    assert report["kernels_loaded"] == 0, report
    assert report["kernels_compiled"] == count, report
    if kind == "file":
        assert_mentions(errors, "damaged", "others can write")
    else:
        assert_mentions(errors, NOT_STORED)
    if kind == "owner":
        os.chown(path, os.geteuid(), -1)
        shutil.rmtree(case.cache)


@fault("three processes compile more kernels than NKBLAS_CACHE_SIZE allows", 5)
def size_limit(case: Case) -> None:
    """The least recently used ones are removed; a process keeps what it has loaded."""
    case.fill_cache()
    filler = case.random.randbytes(60 << 10)
    for i in range(30):  # 1.8 MB of kernels that no process uses
        key = f"{i:040x}"
        (case.cache / "kernels" / f"{key}.so").write_bytes(filler)
        record = {"key": key, "kernel": "filler", "sha256": hashlib.sha256(filler).hexdigest()}
        (case.cache / "kernels" / f"{key}.json").write_text(json.dumps(record))
        for suffix in ("so", "json"):
            os.utime(case.cache / "kernels" / f"{key}.{suffix}", (10**9 + i, 10**9 + i))
    more = [[case.random.randint(1, 64) for _ in range(3)] for _ in range(3)]
    program = "improve({0}); multiply({0}, {0}); " + COMPILE_AND_MULTIPLY
    processes = [case.start(program.format(tuple(s)), NKBLAS_CACHE_SIZE=1) for s in more]
    reports = [case.finish(process)[0] for process in processes]
    assert all(report["fallbacks"] == 0 for report in reports), reports
    sizes = sum(p.stat().st_size for p in case.cache.glob("kernels/*") if p.suffix != "")
    if any(report["kernels_compiled"] for report in reports):
        assert sizes <= 1 << 20, sizes
    report, _ = case.run()
    assert report["kernels_compiled"] == 0, report  # kernels in use have stayed
