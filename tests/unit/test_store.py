"""The kernel store and the compile server: results are right whatever happens to them."""

import functools
import hashlib
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import failure, finish, run, start

import nkblas
from nkblas.cache import store
from nkblas.cache.store import Store
from nkblas.codegen.spec import Copy, KernelSpec, Microkernel, Pack
from nkblas.system import config
from nkblas.system.toolchain import toolchain

SPECS: list[KernelSpec] = [
    Microkernel("avx2", "float32", 6, 16, "row", False),
    Microkernel("avx2", "float32", 6, 16, "row", True),
    Microkernel("avx2", "float32", 6, 16, "col", False),
    Microkernel("avx2", "float64", 6, 16, "row", False),
    Microkernel("sse42", "float32", 6, 16, "row", False),
    Pack("avx2", "float32", 16, "along"),
    Pack("avx2", "float32", 16, "across"),
    Copy("avx2", "float32"),
]

# their plans have more kernels than `DAMAGES` has kinds of damage
SHAPES = [(m, n, 3) for m in range(1, 7) for n in (1, 2, 4, 8, 9, 16, 17, 32)]

# two shapes whose plans have different kernels
ONE, OTHER = (5, 6, 7), (3, 16, 9)


def kernels(folder: Path) -> list[str]:
    """The keys in a store."""
    return sorted(path.stem for path in folder.glob("kernels/*.json"))


def test_put_and_get(tmp_path: Path) -> None:
    stored = Store(tmp_path)
    for spec in SPECS:
        assert stored.get(stored.key(spec)) is None
        stored.put(stored.key(spec), spec.symbol.encode(), spec)
    for spec in SPECS:
        assert Store(tmp_path).get(stored.key(spec)) == spec.symbol.encode()
    assert sorted(map(stored.key, SPECS)) == kernels(tmp_path)
    names = {path.suffix for path in tmp_path.glob("kernels/*")}
    assert names == {".json", ".so"}  # no temporary file is left


def test_warm_process_compiles_nothing(tmp_path: Path) -> None:
    cold, _ = run(f"improve({ONE}); multiply({ONE}); report()", NKBLAS_CACHE_DIR=tmp_path)
    program = f"multiply({ONE}, {ONE}); report(mlir='mlir' in sys.modules)"
    warm, _ = run(program, NKBLAS_CACHE_DIR=tmp_path)
    count = len(kernels(tmp_path))
    assert count > 0
    assert cold == {
        "calls": 1,
        "fallbacks": 0,
        "kernels_compiled": count,
        "kernels_loaded": 0,
    }
    assert warm == {
        "calls": 2,
        "fallbacks": 0,
        "kernels_compiled": 0,
        "kernels_loaded": count,
        "mlir": False,
    }


Damage = Callable[[Path, Path], None]


def truncate(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_content(suffix: str, content: bytes) -> Damage:
    def damage(path: Path, other: Path) -> None:
        path.with_suffix(suffix).write_bytes(content)

    return damage


def copy_of_another(*suffixes: str) -> Damage:
    def damage(path: Path, other: Path) -> None:
        for suffix in suffixes:
            shutil.copy(other.with_suffix(suffix), path.with_suffix(suffix))

    return damage


# Each function takes the paths of a kernel to damage and of another kernel, without suffix.
DAMAGES: dict[str, Damage] = {
    "library truncated to nothing": lambda path, other: truncate(path.with_suffix(".so"), 0),
    "library truncated to a byte": lambda path, other: truncate(path.with_suffix(".so"), 1),
    "library truncated": lambda path, other: truncate(path.with_suffix(".so"), 1000),
    "library without its last byte": lambda path, other: truncate(path.with_suffix(".so"), -1),
    "library with a bit flipped": lambda path, other: flip_bit(path.with_suffix(".so")),
    "no library": lambda path, other: path.with_suffix(".so").unlink(),
    "library of another kernel": copy_of_another(".so"),
    "library is text": replace_content(".so", b"not a library"),
    "no record": lambda path, other: path.with_suffix(".json").unlink(),
    "record truncated to nothing": lambda path, other: truncate(path.with_suffix(".json"), 0),
    "record truncated": lambda path, other: truncate(path.with_suffix(".json"), 100),
    "record of another kernel": copy_of_another(".json"),
    "another kernel": copy_of_another(".so", ".json"),
    "record is a list": replace_content(".json", b"[]"),
    "record is null": replace_content(".json", b"null"),
    "record is empty": replace_content(".json", b"{}"),
    "record of wrong types": replace_content(".json", b'{"key": 1, "sha256": [2]}'),
    "record is not text": replace_content(".json", b"\xff\xfe\x00"),
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the kernels of all `SHAPES`."""
    folder = tmp_path_factory.mktemp("warm")
    run(f"improve(*{SHAPES}); report()", NKBLAS_CACHE_DIR=folder)
    assert len(kernels(folder)) > len(DAMAGES)
    return folder


@pytest.fixture
def copied(warm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(warm, tmp_path / "copied"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_detected(damage: str, copied: Path) -> None:
    one, other = kernels(copied)[:2]
    before = Store(copied).get(one), Store(copied).get(other)
    assert None not in before
    DAMAGES[damage](copied / "kernels" / one, copied / "kernels" / other)
    assert Store(copied).get(one) is None
    assert Store(copied).get(other) == before[1]


def test_damaged_kernels_are_compiled_again(copied: Path) -> None:
    """One process needs kernels with all kinds of damage."""
    keys = kernels(copied)
    damaged = dict(zip(keys, DAMAGES.values(), strict=False))
    for key, damage in damaged.items():
        damage(copied / "kernels" / key, copied / "kernels" / keys[-1])
    assert [key for key in keys if Store(copied).get(key) is None] == list(damaged)
    report, _ = run(f"improve(*{SHAPES}); multiply(*{SHAPES}); report()", NKBLAS_CACHE_DIR=copied)
    assert report["fallbacks"] == 0
    assert report["kernels_compiled"] == len(damaged)
    assert report["kernels_loaded"] == len(keys) - len(damaged)
    assert all(Store(copied).get(key) for key in keys)


def test_library_that_the_system_refuses(copied: Path) -> None:
    """A file with the right digest that is no shared library: results are right all the same."""
    for key in kernels(copied):
        library, record = (copied / "kernels" / f"{key}.{suffix}" for suffix in ("so", "json"))
        library.write_bytes(b"not a library")
        content = json.loads(record.read_text())
        content["sha256"] = hashlib.sha256(library.read_bytes()).hexdigest()
        record.write_text(json.dumps(content))
    report, _ = run(f"multiply(*{SHAPES}); report()", NKBLAS_CACHE_DIR=copied)
    assert report["calls"] == len(SHAPES)


def test_size_limit(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used kernels are removed, except those that are being made."""
    stored = Store(copied)
    keys = kernels(copied)
    for i, key in enumerate(keys):
        for suffix in ("so", "json"):
            os.utime(copied / "kernels" / f"{key}.{suffix}", (10**9 + i, 10**9 + i))

    def size(key: str) -> int:
        return sum(path.stat().st_size for path in copied.glob(f"kernels/{key}.*"))

    total = sum(map(size, keys))
    assert stored.shrink(total) == total
    assert kernels(copied) == keys
    assert stored.get(keys[0]) is not None  # now it is the most recently used
    with stored.lock(keys[1]):
        left = stored.shrink(total - 1)
    assert left == sum(map(size, kernels(copied)))
    gone = [key for key in keys if key not in kernels(copied)]
    assert gone == keys[2 : 2 + len(gone)]
    assert total * 7 // 8 - size(keys[-1]) < left <= total * 7 // 8

    before = kernels(copied)
    # a damaged file above the limit: it is removed, and not others instead of it
    os.truncate(copied / "kernels" / f"{before[-1]}.so", 1 << 30)
    assert stored.shrink(total) < left
    assert kernels(copied) == before[:-1]

    monkeypatch.setattr(config, "CACHE_SIZE", left // 2)
    stored.put(stored.key(SPECS[0]), b"library", SPECS[0])
    assert stored.get(stored.key(SPECS[0])) == b"library"
    assert sum(map(size, kernels(copied))) <= left // 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_invalid_size_limit(text: str) -> None:
    error = failure("", NKBLAS_CACHE_SIZE=text)
    assert error.startswith(f"ValueError: NKBLAS_CACHE_SIZE: got {text!r}")


def test_lock_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process waits until the time-out for the holder of a lock, and then goes on without it."""
    monkeypatch.setattr("nkblas.system.folder.LOCK_TIMEOUT_SECONDS", 0.2)
    stored = Store(tmp_path)
    with stored.lock("ab" * 20):
        assert stored.is_locked("ab" * 20)
        assert not stored.is_locked("cd" * 20)
        with stored.lock("cd" * 20):
            pass
        start = time.monotonic()
        with stored.lock("ab" * 20):
            assert 0.2 <= time.monotonic() - start < 5
        assert stored.is_locked("ab" * 20)
    assert not stored.is_locked("ab" * 20)


def test_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    stored = Store(tmp_path)
    with stored.lock("ab" * 20):
        child = os.fork()
        if child == 0:
            try:
                time.sleep(60)
            finally:
                os._exit(0)
    assert not stored.is_locked("ab" * 20)
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_default_folder_is_the_users(tmp_path: Path) -> None:
    run(f"multiply({ONE}); report()", NKBLAS_CACHE_DIR="", XDG_CACHE_HOME=tmp_path)
    assert kernels(tmp_path / "nkblas")


@pytest.mark.parametrize("place", ["below a file", "/proc/nkblas", "/dev/null"])
def test_folder_that_takes_no_files(place: str, tmp_path: Path) -> None:
    """Each process compiles its own kernels, and the log says so."""
    if place == "below a file":
        (tmp_path / "file").touch()
        place = str(tmp_path / "file" / "store")
    for _ in range(2):
        report, log = run(f"multiply({ONE}, {OTHER}, {ONE}); report()", NKBLAS_CACHE_DIR=place)
        assert report["fallbacks"] == report["kernels_loaded"] == 0
        assert report["kernels_compiled"] > 0
        assert place in log
        assert "NKBLAS_CACHE_DIR" in log


PACKAGE = Path(nkblas.__file__).parent
SOURCES = [
    str(path.relative_to(PACKAGE))
    for folder in store.GENERATOR_FOLDERS
    for path in sorted((PACKAGE / folder).rglob("*"))
    if path.suffix in (".py", ".h")
]
"""The files that a kernel's key depends on."""


@pytest.mark.parametrize("source", SOURCES)
def test_new_sources_make_new_keys(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Store(tmp_path).key(SPECS[0])
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    changed = Path(shutil.copytree(PACKAGE, tmp_path / "nkblas", ignore=ignored))
    monkeypatch.setattr(store, "PACKAGE", str(changed))
    monkeypatch.setattr(store, "sources_hash", store.sources_hash.__wrapped__)
    assert Store(tmp_path).key(SPECS[0]) == before
    with (changed / source).open("a") as file:
        file.write("# changed\n")
    assert Store(tmp_path).key(SPECS[0]) != before


def test_new_toolchain_makes_new_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert toolchain()
    before = Store(tmp_path).key(SPECS[0])
    monkeypatch.setattr("nkblas.cache.store.toolchain", lambda: "another")
    assert Store(tmp_path).key(SPECS[0]) != before


def make_packages(folder: Path, *distributions: tuple[str, str]) -> None:
    """Metadata of installed distributions, each with the import package that it provides."""
    for distribution, package in distributions:
        metadata = folder / f"{distribution}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "top_level.txt").write_text(f"{package}\n")
        (folder / package / "_mlir_libs").mkdir(parents=True)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that packages are found in, and in no other folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages")])
    for name in ("mlir", "llvm"):  # `find_spec` returns the specs of imported packages
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "packages").mkdir()
    return tmp_path / "packages"


def test_toolchain_names_its_two_packages(packages: Path) -> None:
    """Other packages of LLVM beside them change nothing: kernels would be compiled again."""
    assert toolchain() == ""
    make_packages(packages, ("some_mlir-22.1", "mlir"), ("some_llvm_tools-22.2", "llvm"))
    importlib.invalidate_caches()
    assert toolchain() == "some_llvm_tools-22.2 some_mlir-22.1"
    make_packages(packages, ("llvmlite-0.44", "llvmlite"), ("mlir_extras-1.0", "mlir_extras"))
    (packages / "llvm_without_names-1.0.dist-info").mkdir()
    assert toolchain() == "some_llvm_tools-22.2 some_mlir-22.1"
    (packages / "some_mlir-22.1.dist-info").rename(packages / "some_mlir-22.3.dist-info")
    assert toolchain() == "some_llvm_tools-22.2 some_mlir-22.3"


def test_toolchain_without_metadata(packages: Path) -> None:
    """The libraries of another provider of MLIR identify it."""
    make_packages(packages, ("some_llvm_tools-22.2", "llvm"))
    libraries = packages / "mlir" / "_mlir_libs"
    libraries.mkdir(parents=True)
    (libraries / "libMLIR.so").write_bytes(b"12345")
    (libraries / "__init__.py").touch()
    importlib.invalidate_caches()
    before = toolchain()
    assert before.startswith("libMLIR.so:5:")
    assert " " not in before
    (libraries / "libMLIR.so").write_bytes(b"123456")
    assert toolchain().startswith("libMLIR.so:6:")


def test_processes_compile_each_kernel_once(tmp_path: Path) -> None:
    processes = [
        start(f"improve({ONE}, {OTHER}); report()", NKBLAS_CACHE_DIR=tmp_path) for _ in range(3)
    ]
    reports = [finish(process)[0] for process in processes]
    count = len(kernels(tmp_path))
    assert sum(report["kernels_compiled"] for report in reports) == count
    for report in reports:
        assert report["kernels_compiled"] + report["kernels_loaded"] == count
        assert report["fallbacks"] == 0


THREADS = """
    shapes = [(5, 6, 7), (5, 6, 7), (3, 16, 9), (3, 16, 9), (70, 80, 90), (2, 33, 4), (7, 2, 2)] * 2
    barrier, done = threading.Barrier(len(shapes)), []

    def work(first, second):
        barrier.wait()
        improve(first, second)
        multiply(first, second, first)
        done.append(first)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(shapes, reversed(shapes))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report(done=len(done))
"""


def test_threads_compile_each_kernel_once(tmp_path: Path) -> None:
    report, _ = run(THREADS, NKBLAS_CACHE_DIR=tmp_path)
    assert report == {
        "calls": 3 * 14,
        "fallbacks": 0,
        "kernels_compiled": len(kernels(tmp_path)),
        "kernels_loaded": 0,
        "done": 14,
    }


FORK = """
    improve({one})
    multiply({one})
    child = os.fork()
    if child == 0:
        try:
            improve({other})
            multiply({one}, {other})
            os._exit(nkblas.stats()["fallbacks"])
        finally:
            os._exit(99)
    status = os.waitpid(child, 0)[1]
    improve((2, 33, 4))
    multiply({one}, {other}, (2, 33, 4))
    report(status=os.waitstatus_to_exitcode(status))
"""


def test_fork_after_use(tmp_path: Path) -> None:
    """The child uses kernels of its parent, and compiles others."""
    report, _ = run(FORK.format(one=ONE, other=OTHER), NKBLAS_CACHE_DIR=tmp_path)
    assert report["status"] == 0
    assert report["fallbacks"] == 0
    assert report["kernels_loaded"] > 0  # those that the child compiled


FORK_WHILE_COMPILING = """
    thread = threading.Thread(target=multiply, args=({one},))
    thread.start()
    time.sleep({delay})
    child = os.fork()
    if child == 0:
        try:
            multiply({one}, {other})
            os._exit(nkblas.stats()["fallbacks"])
        finally:
            os._exit(99)
    thread.join()
    status = os.waitpid(child, 0)[1]
    report(status=os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("delay", [0.02, 0.2, 0.4])
def test_fork_while_compiling(delay: float, tmp_path: Path) -> None:
    """Neither process waits for a lock that the other one holds."""
    program = FORK_WHILE_COMPILING.format(one=ONE, other=OTHER, delay=delay)
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path)
    assert report["status"] == 0
    assert report["fallbacks"] == 0


def test_product_in_a_signal_handler_while_compiling(tmp_path: Path) -> None:
    """NumPy does the handler's product while the interrupted thread plans; nothing hangs."""
    program = """
        import signal
        signal.signal(signal.SIGALRM, lambda *_: multiply({other}))
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        multiply({one})
        signal.setitimer(signal.ITIMER_REAL, 0)
        multiply({other})
        report()
    """
    report, _ = run(program.format(one=ONE, other=OTHER), NKBLAS_CACHE_DIR=tmp_path)
    assert report["calls"] - report["fallbacks"] >= 2


# Records the compile servers that nkblas starts; with `is_doomed` set, kills each at once.
HELPERS = """
    import signal
    from nkblas.codegen.compiler_client import Server

    started, is_doomed, start_server = [], False, Server.start

    def start(in_background):
        server = start_server(in_background)
        started.append(server.pid)
        if is_doomed:
            os.kill(server.pid, signal.SIGKILL)
        return server

    Server.start = start
"""


def has_ended(process: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_helper_ends_with_its_parent(tmp_path: Path) -> None:
    program = f"multiply({ONE}, {OTHER}); report(helpers=started)"
    report, _ = run(HELPERS + "    " + program, NKBLAS_CACHE_DIR=tmp_path)
    helpers = report["helpers"]  # one that products wait for, and perhaps one for the background
    deadline = time.monotonic() + 10
    while not all(map(has_ended, helpers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert helpers
    assert all(map(has_ended, helpers))


def test_killed_helper_is_replaced(tmp_path: Path) -> None:
    program = f"""
    improve({ONE})
    os.kill(started[0], signal.SIGKILL)
    improve({OTHER})
    multiply({ONE}, {OTHER})
    report(helpers=len(started))
    """
    report, _ = run(HELPERS + program, NKBLAS_CACHE_DIR=tmp_path)
    assert report["helpers"] == 2
    assert report["fallbacks"] == 0
    assert report["kernels_compiled"] == len(kernels(tmp_path))


def test_helper_that_always_dies(tmp_path: Path) -> None:
    program = f"""
    is_doomed = True
    multiply({ONE}, {OTHER}, {ONE})
    report()
    """
    report, log = run(HELPERS + program, NKBLAS_CACHE_DIR=tmp_path)
    assert report["fallbacks"] == report["calls"] == 3
    assert "died" in log


def test_compiler_that_aborts(tmp_path: Path) -> None:
    """It does not take the user's process with it."""
    (tmp_path / "mlir").mkdir()
    (tmp_path / "mlir" / "ir.py").write_text("import os\nos.abort()\n")
    path = os.pathsep.join([str(tmp_path), str(Path(nkblas.__file__).parents[1])])
    report, log = run(
        f"multiply({ONE}, {OTHER}); report()", PYTHONPATH=path, NKBLAS_CACHE_DIR=tmp_path
    )
    assert report["fallbacks"] == report["calls"] == 2
    assert "died" in log


def test_without_mlir(tmp_path: Path) -> None:
    """NumPy does the products, and the log gives the reason once."""
    (tmp_path / "packages").mkdir()
    found = [Path(nkblas.__file__).parent]
    for folder in map(Path, sys.path):
        if folder.name in ("site-packages", "dist-packages"):
            found += [entry for entry in folder.iterdir() if not entry.name.startswith("mlir")]
    for entry in found:
        link = tmp_path / "packages" / entry.name
        if not link.exists():
            link.symlink_to(entry)
    report, log = run(
        f"multiply({ONE}, {OTHER}, {ONE}); report()",
        "-S",
        PYTHONPATH=tmp_path / "packages",
        NKBLAS_CACHE_DIR=tmp_path / "store",
    )
    assert report["fallbacks"] == report["calls"] == 3
    assert log.count("mlir") == 1


def test_without_linker(tmp_path: Path) -> None:
    """Kernels stay in memory, and the log says so once."""
    (tmp_path / "empty").mkdir()
    report, log = run(
        f"multiply({ONE}, {OTHER}, {ONE}); report()",
        PATH=tmp_path / "empty",
        NKBLAS_CACHE_DIR=tmp_path / "store",
    )
    assert report["fallbacks"] == report["kernels_loaded"] == 0
    assert report["kernels_compiled"] > 0
    assert log.count("linker") == 1
    assert not kernels(tmp_path / "store")


def test_exit_while_compiling_in_the_background(tmp_path: Path) -> None:
    """The background thread is stopped at an arbitrary point, and leaves no lock."""
    report, _ = run(f"multiply({ONE}); report()", NKBLAS_CACHE_DIR=tmp_path)
    assert report["fallbacks"] == 0
    assert len(kernels(tmp_path)) == report["kernels_compiled"]
    assert list(tmp_path.glob("kernels/*.lock")) == []


def test_jit_never(tmp_path: Path) -> None:
    """NumPy does products whose kernels are not in the store."""
    program = f"multiply({ONE}, {ONE}, {OTHER}); report()"
    run_here = functools.partial(run, NKBLAS_CACHE_DIR=tmp_path)
    cold, log = run_here(program, NKBLAS_JIT="never")
    assert cold["fallbacks"] == cold["calls"] == 3
    assert cold["kernels_compiled"] == 0
    assert "NKBLAS_JIT=never" in log
    run_here(f"improve({ONE}); report()")
    warm, _ = run_here(program, NKBLAS_JIT="never")
    assert warm["fallbacks"] == 1
    assert warm["kernels_compiled"] == 0
    assert warm["kernels_loaded"] == len(kernels(tmp_path))


def test_jit_in_the_background(tmp_path: Path) -> None:
    """NumPy does the products until the kernels are compiled."""
    program = f"""
    multiply({ONE})
    first = nkblas.stats()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before = nkblas.stats()["fallbacks"]
        multiply({ONE})
        if nkblas.stats()["fallbacks"] == before:
            break
        time.sleep(0.01)
    settled = nkblas.stats()["fallbacks"]
    multiply({ONE})
    report(first=first["fallbacks"], settled=settled)
    """
    report, _ = run(program, NKBLAS_JIT="background", NKBLAS_CACHE_DIR=tmp_path)
    assert report["first"] == 1
    assert report["fallbacks"] == report["settled"] < report["calls"]
    assert report["kernels_compiled"] == len(kernels(tmp_path)) > 0


def test_unknown_jit_mode() -> None:
    error = failure("", NKBLAS_JIT="sometimes")
    assert error.startswith("ValueError: NKBLAS_JIT")
    assert all(word in error for word in ("'sometimes'", "first-call", "background", "never"))


def test_log_level(tmp_path: Path) -> None:
    """``NKBLAS_LOG=info`` logs each compiled kernel; without it nkblas is silent."""
    run_here = functools.partial(run, NKBLAS_CACHE_DIR=tmp_path)
    report, log = run_here(f"multiply({ONE}); report()", NKBLAS_LOG="info")
    assert log.count("compiled") == report["kernels_compiled"] > 0
    _, log = run_here(f"multiply({OTHER}); report()")
    assert log == ""


TIER_UP = """
    shape = (70, 80, 90)
    a, b = operands(*shape)
    nkblas.matmul(a, b)
    plans = [str(nkblas.explain(a, b))]
    deadline = time.monotonic() + 60
    while "interim" in str(nkblas.explain(a, b)) and time.monotonic() < deadline:
        for _ in range(1000):
            nkblas.matmul(a, b)
    multiply(shape)
    plans.append(str(nkblas.explain(a, b)))
    report(plans=plans)
"""


def test_tier_up(tmp_path: Path) -> None:
    """Once a shape repeats often enough, the best plan replaces the interim plan."""
    report, _ = run(TIER_UP, NKBLAS_CACHE_DIR=tmp_path)
    assert ["interim" in plan for plan in report["plans"]] == [True, False]
    assert report["fallbacks"] == 0


def test_5000_shapes_compile_few_kernels(tmp_path: Path) -> None:
    """Each shape once, in two dtypes: all run on the base kernels, which are compiled first."""
    program = """
    from nkblas.planning.plan import base_kernels
    start = time.monotonic()
    for i in range(5000):
        m, n, k = i % 17 + 1, i // 17 % 17 + 1, i // 289 + 1
        a, b = operands(m, n, k)
        if i % 2:
            a, b = a.astype("d"), b.astype("d")
        assert np.array_equal(nkblas.matmul(a, b), a @ b), (m, n, k)
    from nkblas.planning.cost_model import cheapest_plan
    from nkblas.base.problem import Problem
    few = 2 * len(base_kernels(cheapest_plan(Problem("float32", 9, 9, 9), nkblas.cpu)))
    report(few=few, seconds=time.monotonic() - start)
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path)
    assert report["fallbacks"] == 0
    assert report["kernels_compiled"] <= report["few"]
    print(report)
