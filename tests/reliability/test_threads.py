"""Threads: the same bits for any number of them, and a pool that stands what processes do."""

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    DTYPES,
    ENGINE_SOURCES,
    LAYOUTS,
    TOOLS,
    Array,
    Layout,
    exact,
    failure,
    finish,
    integers,
    run,
    start,
)

import nkblas
from nkblas import _engine
from nkblas._engine import ffi, lib
from nkblas.base.families import family
from nkblas.base.problem import Problem
from nkblas.planning import plan
from nkblas.planning.schedule import Schedule
from nkblas.runtime import abi
from nkblas.runtime.kernels import kernels
from nkblas.system import config
from nkblas.system.lock import planning_lock

CPUS = len(os.sched_getaffinity(0))
MANY = (2, 3, CPUS + 5)
ENGINE = Path(_engine.__file__)

by_dtype = pytest.mark.parametrize("dtype", DTYPES)
on_two_cpus = pytest.mark.skipif(CPUS < 2, reason="one CPU: no product has a second thread")
compiler = shutil.which("cc") or shutil.which("gcc")
with_compiler = pytest.mark.skipif(not compiler, reason="there is no C compiler")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = nkblas.get_num_threads()
    yield
    nkblas.set_num_threads(before)


# ---- the same bits


def assert_same_bits(product: Callable[[], Array]) -> Array:
    """By one thread and by many."""
    nkblas.set_num_threads(1)
    alone = product()
    for number in MANY:
        nkblas.set_num_threads(number)
        assert product().tobytes() == alone.tobytes(), f"{number} threads"
    return alone


def make_large(problem: Problem | None) -> None:
    """Have the engine take a problem that it knows for a large one: for many threads and chunks."""
    assert problem is not None
    known = lib.nk_table_find(abi.problem_to_c(problem))
    if known != ffi.NULL:
        known.nanoseconds = 1e9


def random(*shape: int, dtype: str, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@by_dtype
@pytest.mark.parametrize("shape", [(50, 50, 60), (65, 130, 33), (129, 128, 127), (7, 900, 64)])
def test_bits_where_threads_begin(shape: tuple[int, int, int], dtype: str) -> None:
    m, n, k = shape
    a, b = random(m, k, dtype=dtype), random(k, n, dtype=dtype, seed=1)
    for left, right in itertools.product((a, a.copy("F")), (b, b.copy("F"))):
        assert_same_bits(lambda left=left, right=right: nkblas.matmul(left, right))


@by_dtype
@pytest.mark.parametrize("shape", [(384, 385, 386), (1000, 64, 700), (40, 2000, 500)], ids=str)
def test_bits_of_large_products(shape: tuple[int, int, int], dtype: str) -> None:
    m, n, k = shape
    a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
    assert np.array_equal(assert_same_bits(lambda: nkblas.matmul(a, b)), exact(a, b))
    a, b = random(m, k, dtype=dtype), random(k, n, dtype=dtype, seed=1)
    assert_same_bits(lambda: nkblas.matmul(a, b))


layouts = st.sampled_from([layout for layout in LAYOUTS.values() if not layout.swapped])


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.tuples(*3 * [st.integers(1, 90)]), layouts, layouts, layouts, st.sampled_from(DTYPES))
def test_bits_of_any_product(
    shape: tuple[int, int, int], of_a: Layout, of_b: Layout, of_c: Layout, dtype: str
) -> None:
    """Whatever plan it has, cut into many chunks."""
    m, n, k = shape
    a = of_a.arrange(random(m, k, dtype=dtype), dtype)
    b = of_b.arrange(random(k, n, dtype=dtype, seed=1), dtype)
    _, out = of_c.empty((m, n), dtype, fill=np.nan)
    nkblas.matmul(a, b, out=out)
    for c in (None, out):
        make_large(nkblas.explain(a, b).problem)
        assert_same_bits(lambda c=c: nkblas.matmul(a, b, out=c).copy())


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(1, 40), st.tuples(*3 * [st.integers(1, 40)]), st.sampled_from("ab-"),
    st.sampled_from(DTYPES), st.booleans(),
)  # fmt: skip
def test_bits_of_stacks(
    count: int, shape: tuple[int, int, int], single: str, dtype: str, large: bool
) -> None:
    m, n, k = shape
    a = random(*([] if single == "a" else [count]), m, k, dtype=dtype)
    b = random(*([] if single == "b" else [count]), k, n, dtype=dtype, seed=1)
    nkblas.matmul(a, b)
    if large:
        make_large(nkblas.explain(a, b).problem)
    c = assert_same_bits(lambda: nkblas.matmul(a, b))
    for one, left, right in zip(
        c, np.broadcast_to(a, (count, m, k)), np.broadcast_to(b, (count, k, n)), strict=True
    ):
        assert np.allclose(one, left @ right, atol=1e-3)


def matrix(x: Array) -> Any:
    rs, cs = (stride // x.itemsize for stride in x.strides)
    return ffi.new("nk_matrix *", (ffi.cast("char *", x.ctypes.data), rs, cs))


@by_dtype
@pytest.mark.parametrize("of_c", ["rows", "every third column"])
@pytest.mark.parametrize("of_b", ["rows", "columns", "every third column"])
@pytest.mark.parametrize("of_a", ["rows", "columns", "every third column"])
def test_bits_of_every_schedule(of_a: str, of_b: str, of_c: str, dtype: str) -> None:
    """Packed or not, in each order of the loops, with several cache blocks in each dimension."""
    m, n, k = 37, 150, 70
    tile = plan.base_tile(nkblas.cpu.isa.base, family(dtype, "fma"))
    a = LAYOUTS[of_a].arrange(random(m, k, dtype=dtype), dtype)
    b = LAYOUTS[of_b].arrange(random(k, n, dtype=dtype, seed=1), dtype)
    _, out = LAYOUTS[of_c].empty((m, n), dtype, fill=0)
    operands = [matrix(x) for x in (a, b, out)]
    steps = ffi.new("nk_batch_strides *")
    problem = abi.problem_from_c(lib.nk_describe(DTYPES.index(dtype), m, n, k, *operands, steps))
    schedules = [
        Schedule("tiles", *tile, 30, 2 * tile[0], 2 * tile[1], *choices)
        for choices in itertools.product((False, True), repeat=3)
    ]
    schedules = [s for s in schedules if not s.infeasible_reason(problem, nkblas.cpu)]
    assert len(schedules) >= 2
    results = set()
    for schedule in schedules:
        made = plan.make_plan(problem, nkblas.cpu, schedule)
        with planning_lock():
            c_plan = abi.plan_to_c(made, kernels.load(made.kernels))
        c_plan.nanoseconds = 1e9
        for number in (1, *MANY):
            out[...] = np.nan
            arguments = [operand[0] for operand in operands]
            assert lib.nk_run_plan(c_plan, *arguments, 1, steps[0], lib.nk_plain_args, number) == 1
            results.add(out.tobytes())
    assert len(results) == 1
    assert np.allclose(out, a @ b, atol=1e-3)


def test_explain_tells_the_threads() -> None:
    small, large = np.ones((8, 8)), np.ones((900, 900))
    nkblas.set_num_threads(CPUS + 3)
    assert nkblas.explain(small, small).threads == 1
    assert nkblas.explain(large, large).threads == CPUS
    assert nkblas.explain(np.ones((10**5, 8, 8)), small[None]).threads == CPUS
    nkblas.set_num_threads(1)
    assert nkblas.explain(large, large).threads == 1


# ---- the pool by itself: jobs whose chunks are Python

Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
pool = ctypes.CDLL(str(ENGINE))
pool.nk_parallel.restype = None
pool.nk_parallel.argtypes = [
    ctypes.c_int32,
    ctypes.c_double,
    ctypes.c_int64,
    Work,
    ctypes.c_void_p,
]
libm = ctypes.CDLL("libm.so.6")
LONG = 1e9


def job(threads: int, chunks: int, chunk: Callable[[int], Any], nanoseconds: float = LONG) -> None:
    """Run a job; what goes wrong in a chunk goes wrong here."""
    errors: list[BaseException] = []

    def work(_: object, i: int) -> None:
        try:
            chunk(i)
        except BaseException as error:
            errors.append(error)

    pool.nk_parallel(threads, nanoseconds, chunks, Work(work), None)
    if errors:
        raise errors[0]


def together(chunk: Callable[[int], Any] = lambda i: None, nanoseconds: float = LONG) -> None:
    """A job of two chunks, each of which waits until the other one has begun on another thread."""
    barrier = threading.Barrier(2)

    def wait(i: int) -> None:
        barrier.wait(10)
        chunk(i)

    job(2, 2, wait, nanoseconds)


def workers() -> list[int]:
    """The pool's threads."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            if (task / "comm").read_text().strip() == "nkblas":
                found.append(int(task.name))
    return found


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chunks", [0, 1, 2, 7, 300])
def test_each_chunk_is_done_once(chunks: int, threads: int) -> None:
    done: list[int] = []
    job(threads, chunks, done.append)
    assert sorted(done) == list(range(chunks))


@on_two_cpus
@pytest.mark.parametrize("pause", [0, 1e-3, 5e-2])
def test_workers_take_part(pause: float) -> None:
    """Those that look out for a job, and those that sleep."""
    for _ in range(10):
        together()
        time.sleep(pause)


@on_two_cpus
def test_short_jobs_wake_nobody() -> None:
    time.sleep(0.01)
    seen: set[int] = set()
    job(2, 2, lambda i: seen.add(threading.get_ident()), 20e3)
    assert seen == {threading.get_ident()}


@on_two_cpus
def test_jobs_in_a_row_keep_workers_awake() -> None:
    def chunk(i: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.005)

    for _ in range(200):  # each of two jobs comes at once, unless this thread is held up
        seen: set[int] = set()
        job(1, 1, lambda i: None)
        job(2, 2, chunk, 20e3)
        if len(seen) == 2:
            return
    pytest.fail("no worker was awake")


@on_two_cpus
def test_busy_pool() -> None:
    """A job that comes while there is one runs on its caller's thread."""
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    callers: dict[int, int] = {}

    def another(i: int) -> None:
        callers[i] = threading.get_ident()
        job(2, 4, lambda _: seen[i].add(threading.get_ident()))

    together(another)
    assert seen == {i: {caller} for i, caller in callers.items()}


@on_two_cpus
@pytest.mark.parametrize("flag", [0x01, 0x04, 0x08, 0x10])
def test_floating_point_flags(flag: int) -> None:
    """Those that a worker raises are the caller's; no others come with them."""
    me = threading.get_ident()

    def chunk(i: int) -> None:
        if threading.get_ident() != me:
            libm.feraiseexcept(flag)

    libm.feclearexcept(0x3F)
    together()
    before = libm.fetestexcept(0x1F)
    together(chunk)
    after = libm.fetestexcept(0x1F)
    libm.feclearexcept(0x3F)
    assert not before & flag
    assert after & flag


@on_two_cpus
@pytest.mark.parametrize("mode", [0, 0x400, 0x800, 0xC00])
def test_rounding_mode(mode: int) -> None:
    seen = {}
    libm.fesetround(mode)
    try:
        together(lambda i: seen.setdefault(threading.get_ident(), libm.fegetround()))
    finally:
        libm.fesetround(0)
    assert list(seen.values()) == [mode, mode]
    together(lambda i: seen.__setitem__(threading.get_ident(), libm.fegetround()))
    assert list(seen.values()) == [0, 0]


@on_two_cpus
def test_flush_to_zero() -> None:
    flush = 0x8040

    def control() -> int:
        environment = (ctypes.c_uint32 * 8)()
        libm.fegetenv(environment)
        return int(environment[7])

    seen = {}
    before = (ctypes.c_uint32 * 8)()
    libm.fegetenv(before)
    changed = (ctypes.c_uint32 * 8)(*before)
    changed[7] |= flush
    libm.fesetenv(changed)
    try:
        together(lambda i: seen.setdefault(threading.get_ident(), control() & flush))
    finally:
        libm.fesetenv(before)
    assert list(seen.values()) == [flush, flush]
    together(lambda i: seen.__setitem__(threading.get_ident(), control() & flush))
    assert list(seen.values()) == [0, 0]


@on_two_cpus
def test_signals_are_not_for_workers() -> None:
    """But for those that a thread brings upon itself: faulthandler is to see them."""
    together()
    for worker in workers():
        status = Path(f"/proc/self/task/{worker}/status").read_text()
        (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
        mask = int(blocked, 16)
        for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGCHLD", "SIGPROF", "SIGUSR1", "SIGWINCH"):
            assert mask >> getattr(signal, name) - 1 & 1, name
        for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"):
            assert not mask >> getattr(signal, name) - 1 & 1, name


@with_compiler
@on_two_cpus
def test_no_races(tmp_path: Path) -> None:
    """Callers at once, under ThreadSanitizer: jobs of every size, workers asleep and awake."""
    program = tmp_path / "pool"
    sources = [TOOLS / "pool.c", ENGINE_SOURCES / "threads.c"]
    if not sources[1].exists():
        pytest.skip("the sources are not here")
    options = ["-std=gnu11", "-O1", "-g", "-fsanitize=thread", f"-I{ENGINE_SOURCES}"]
    command = [str(compiler), *options, *map(str, sources), "-lm", "-lpthread", "-o", str(program)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the compiler has no ThreadSanitizer")
    ran = subprocess.run([str(program), "10000"], capture_output=True, text=True, timeout=60)
    if "unexpected memory mapping" in ran.stderr:
        pytest.skip("ThreadSanitizer does not run on this system")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")


# ---- processes

PRELUDE = """
import json, os, signal, sys, threading, time
import numpy as np
import nkblas

def report(**found):
    print(json.dumps(found))

def workers():
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            if open(f"/proc/self/task/{task}/comm").read() == "nkblas\\n":
                found.append(int(task))
        except OSError:  # a thread that has just ended
            pass
    return found

def used(worker):
    return time.clock_gettime(~worker << 3 | 6)

def operand(size):
    return np.random.default_rng(size).standard_normal((size, size)).astype("float32")

def check(size):
    assert nkblas.matmul(operands[size], operands[size]).tobytes() == results[size], size

cpus = os.sched_getaffinity(0)
operands = {size: operand(size) for size in (100, 150, 400)}
nkblas.set_num_threads(1)
results = {size: nkblas.matmul(x, x).tobytes() for size, x in operands.items()}
nkblas.set_num_threads(3)
for _ in range(10):
    check(400)
"""


def program(text: str, *options: str, **changes: Any) -> Any:
    """What a program reports that knows some products and their results."""
    # most programs that fork have threads of their own, of which Python 3.12 warns
    quiet = ["-W", "ignore:This process:DeprecationWarning"]
    found, errors = run(text, *quiet, *options, prelude=PRELUDE, **changes)
    assert errors == ""
    return found


FORKS = """
    stop, forks, children, states = False, {forks}, [], []
    counts = [0, 0]

    def work(i):
        while not stop:
            check(150)
            counts[i] += 1

    def reap():
        states.append(os.waitstatus_to_exitcode(os.waitpid(children.pop(0), 0)[1]))

    sys.setswitchinterval(1e-4)  # threads change places everywhere
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(forks):
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(30)  # ends a child that hangs
                check(150)
                check(150)
                os._exit(0)
            finally:
                os._exit(99)
        children.append(child)
        if len(children) > 3:
            reap()
    while children:
        reap()
    stop = True
    for thread in threads:
        thread.join()
    report(states=sorted(set(states)), forks=len(states), counts=min(counts))
"""


def test_forks_while_threads_multiply() -> None:
    found = program(FORKS.format(forks=2000))
    assert found["states"] == [0]
    assert found["forks"] == 2000
    assert found["counts"] > 0


def test_fork_of_an_idle_pool() -> None:
    """It ends before a fork, and both sides start one of their own. No other thread was there."""
    program_text = """
        while threading.active_count() > 1:
            time.sleep(0.01)  # something is compiled in the background
        before = len(workers())
        child = os.fork()
        left = len(workers())
        check(400)
        again = len(workers())
        if child == 0:
            os._exit([left, again] != [0, before])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        report(before=before, left=left, again=again, status=status)
    """
    options = ["-W", "error::DeprecationWarning"]  # Python 3.12 warns of forks among threads
    found = program(program_text, *options)
    expected = min(3, CPUS) - 1
    assert found == {"before": expected, "left": 0, "again": expected, "status": 0}


def test_fork_in_a_thread() -> None:
    """The child's only thread is not its parent's main thread; it forks again."""
    program_text = """
        states = []

        def fork(depth):
            child = os.fork()
            if child == 0:
                try:
                    signal.alarm(30)
                    check(400)
                    states.clear()
                    if depth:
                        fork(depth - 1)
                    check(400)
                    os._exit(any(states))
                finally:
                    os._exit(99)
            check(400)
            states.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        threads = [threading.Thread(target=fork, args=(2,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report(states=states)
    """
    assert program(program_text) == {"states": [0, 0, 0]}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    program_text = f"""
        import multiprocessing
        with multiprocessing.get_context("{method}").Pool(2) as processes:
            x = operands[400]
            found = processes.starmap_async(nkblas.matmul, [(x, x)] * 6).get(60)
        report(right=[c.tobytes() == results[400] for c in found])
    """
    assert program(program_text) == {"right": [True] * 6}


def test_many_python_threads() -> None:
    """16 at once: right results, and no more threads than those and the pool's."""
    program_text = """
        before = len(os.listdir("/proc/self/task")) - len(workers())
        most, done = 0, []

        def work(size):
            for _ in range(30):
                check(size)
            done.append(size)

        threads = [threading.Thread(target=work, args=((100, 150, 400)[i % 3],)) for i in range(16)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, len(os.listdir("/proc/self/task")))
            time.sleep(1e-3)
        report(before=before, most=most, workers=len(workers()), done=len(done))
    """
    found = program(program_text)
    assert found["done"] == 16
    assert found["workers"] == min(3, CPUS) - 1
    # one more may compile in the background
    assert found["most"] <= found["before"] + 16 + found["workers"] + 1


def test_set_num_threads_meanwhile() -> None:
    program_text = """
        stop, done = False, [0] * 3

        def work(i):
            while not stop:
                check((100, 150, 400)[i])
                done[i] += 1

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            for number in (1, 2, 5, 3):
                nkblas.set_num_threads(number)
                check(150)
        stop = True
        for thread in threads:
            thread.join()
        report(done=min(done), workers=len(workers()))
    """
    found = program(program_text)
    assert found["done"] > 0
    assert found["workers"] <= min(5, CPUS) - 1


@on_two_cpus
def test_one_cpu_is_left() -> None:
    """After the pool has started: its workers rest, until there are CPUs again."""
    program_text = """
        (worker, *_) = workers()
        os.sched_setaffinity(0, {min(cpus)})
        time.sleep(0.05)
        before = used(worker)
        for _ in range(20):
            check(400)
        alone = used(worker) - before
        explained = nkblas.explain(operands[400], operands[400]).threads
        os.sched_setaffinity(0, cpus)
        for _ in range(200):
            check(400)
        report(alone=alone, explained=explained, later=used(worker) - before)
    """
    found = program(program_text)
    assert found["alone"] == 0
    assert found["explained"] == 1
    assert found["later"] > 0


@pytest.mark.skipif(CPUS < 3, reason="fewer than three CPUs: a mask of two can't change")
def test_workers_follow_the_mask() -> None:
    program_text = """
        import itertools
        seen = []
        for mask in map(set, itertools.combinations(sorted(cpus)[:3], 2)):
            os.sched_setaffinity(0, mask)
            check(400)
            (worker, *_) = workers()
            seen.append(os.sched_getaffinity(worker) < mask)
        report(seen=seen)
    """
    assert program(program_text) == {"seen": [True] * 3}


@on_two_cpus
def test_workers_are_off_the_callers_cpu() -> None:
    program_text = """
        two = set(sorted(cpus)[:2])
        os.sched_setaffinity(0, two)
        check(400)
        (worker, *_) = workers()
        report(left=len(os.sched_getaffinity(worker)), among=os.sched_getaffinity(worker) < two)
    """
    assert program(program_text) == {"left": 1, "among": True}


NO_THREADS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Grants the engine so many threads, and everybody else all. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument)
{
    static int granted;
    int (*create)() = (int (*)())dlsym(RTLD_NEXT, "pthread_create");
    Dl_info info;
    if (dladdr((void *)start, &info) && strstr(info.dli_fname, "_engine"))
        if (granted++ >= atoi(getenv("GRANTED")))
            return EAGAIN;
    return create(thread, attributes, start, argument);
}
"""


@with_compiler
@pytest.mark.parametrize("granted", [0, 1])
def test_system_refuses_threads(granted: int, tmp_path: Path) -> None:
    (tmp_path / "refuse.c").write_text(NO_THREADS)
    library = tmp_path / "refuse.so"
    options = ["-shared", "-fPIC", str(tmp_path / "refuse.c"), "-ldl", "-o", str(library)]
    subprocess.run([str(compiler), *options], check=True)
    program_text = """
        for size in (100, 150, 400) * 20:
            check(size)
        report(workers=len(workers()))
    """
    found = program(program_text, LD_PRELOAD=library, GRANTED=granted)
    assert found == {"workers": min(granted, CPUS - 1)}


def test_interrupt() -> None:
    """Ctrl-C reaches Python's main thread, whichever threads multiply."""
    process = start(
        """
        x = operand(1000)
        try:
            print("ready", flush=True)
            while True:
                nkblas.matmul(x, x)
        except KeyboardInterrupt:
            check(400)
            report(interrupted=True)
        """,
        prelude=PRELUDE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert finish(process) == ({"interrupted": True}, "")


@by_dtype
@pytest.mark.parametrize("place", [(0, 0), (-1, -1), (0, -1), (-1, 0)])
def test_overflow_in_any_chunk(place: tuple[int, int], dtype: str) -> None:
    nkblas.set_num_threads(2)
    a, b = np.zeros((2, 400, 400), dtype)
    a[place[0], 5] = b[5, place[1]] = np.finfo(dtype).max
    for _ in range(20):
        with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
            nkblas.matmul(a, b)
    with pytest.warns(RuntimeWarning, match="overflow encountered in matmul"):
        c = nkblas.matmul(a, b)
    assert np.isinf(c[place])
    with np.errstate(all="raise"):
        nkblas.matmul(b, b[::-1])


def test_nothing_leaks() -> None:
    """Neither calls nor threads that come and go, nor numbers of threads that change."""
    program_text = """
        x = operands[100]
        strided = np.zeros((200, 200), "float32")[::2, ::2]

        def multiply(calls):
            for i in range(calls):
                nkblas.set_num_threads(i % 4 + 1)
                nkblas.matmul(strided, x)

        def come_and_go(threads):
            for _ in range(threads):
                thread = threading.Thread(target=multiply, args=(2,))
                thread.start()
                thread.join()

        def memory():
            return int(open("/proc/self/statm").read().split()[1]) * 4096  # resident

        multiply(1000)
        come_and_go(20)
        before = memory()
        multiply(10000)
        come_and_go(300)
        report(grown=memory() - before, workers=len(workers()))
    """
    found = program(program_text)
    assert found["workers"] == min(4, CPUS) - 1
    assert found["grown"] < 8 << 20


@pytest.mark.parametrize(
    "end",
    [
        "check(400)",  # workers look out for the next job
        "threading.Thread(target=forever, daemon=True).start(); time.sleep(0.05)",
        "threading.Thread(target=forever, daemon=True).start(); check(400); os._exit(0)",
        "threading.Thread(target=forever, daemon=True).start(); sys.exit(0)",
    ],
)
def test_end_of_the_interpreter(end: str) -> None:
    program_text = f"""
        def forever():
            while True:
                check(400)

        report(done=True)
        sys.stdout.flush()
        {end}
    """
    assert program(program_text) == {"done": True}


# ---- how many

CHOICES: list[tuple[dict[str, str], int]] = [
    ({}, 7),
    ({"NKBLAS_NUM_THREADS": "3"}, 3),
    ({"NKBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
    ({"NKBLAS_NUM_THREADS": ""}, 7),
    ({"OMP_NUM_THREADS": "5"}, 5),
    ({"OMP_NUM_THREADS": "5,3,2"}, 5),
    ({"OMP_NUM_THREADS": " 4 "}, 4),
    ({"OMP_NUM_THREADS": ""}, 7),
    ({"OMP_NUM_THREADS": "0"}, 7),
    ({"OMP_NUM_THREADS": "-2"}, 7),
    ({"OMP_NUM_THREADS": "many"}, 7),
    ({"OMP_NUM_THREADS": "1000000"}, 1000000),
]


@pytest.mark.parametrize(("environment", "expected"), CHOICES)
def test_number_of_the_environment(environment: dict[str, str], expected: int) -> None:
    assert threads_of(environment) == expected


def threads_of(environment: dict[str, str]) -> int:
    return config.num_threads(7, environment)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "2,3", "0x2"])
def test_environment_that_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match="NKBLAS_NUM_THREADS") as error:
        threads_of({"NKBLAS_NUM_THREADS": text})
    assert repr(text) in str(error.value)


def test_environment_of_a_process() -> None:
    found, _ = run("report(n=nkblas.get_num_threads())", NKBLAS_NUM_THREADS=3)
    assert found["n"] == 3
    error = failure("", NKBLAS_NUM_THREADS="none")
    assert error.startswith("ValueError: NKBLAS_NUM_THREADS: got 'none'")


def test_set_num_threads() -> None:
    for number in (1, 2, np.int64(5), 10**30):
        nkblas.set_num_threads(number)
        assert nkblas.get_num_threads() == min(number, 1 << 20)
        x = np.ones((200, 200))
        assert (nkblas.matmul(x, x) == 200).all()


def test_set_num_threads_to_nonsense() -> None:
    before = nkblas.get_num_threads()
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"n: got {value}"):
            nkblas.set_num_threads(value)
    for other in (1.5, "2", None):
        with pytest.raises(TypeError, match="n: got"):
            nkblas.set_num_threads(other)  # type: ignore[arg-type]
    assert nkblas.get_num_threads() == before
