"""Threads: the same bits for any number of them, and a pool that survives forks and signals."""

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
    THREAD_POOL,
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
from nkblas.planning.plan import base_tile, make_plan
from nkblas.planning.schedule import Schedule
from nkblas.runtime import abi
from nkblas.runtime.kernels import kernels
from nkblas.system import config
from nkblas.system.lock import planning_lock

CPUS = len(os.sched_getaffinity(0))
THREAD_COUNTS = (2, 3, CPUS + 5)
ENGINE = Path(_engine.__file__)

by_dtype = pytest.mark.parametrize("dtype", DTYPES)
on_two_cpus = pytest.mark.skipif(CPUS < 2, reason="with one CPU, no product has a second thread")
compiler = shutil.which("cc") or shutil.which("gcc")
with_compiler = pytest.mark.skipif(not compiler, reason="there is no C compiler")


@pytest.fixture(autouse=True)
def restore_num_threads() -> Iterator[None]:
    before = nkblas.get_num_threads()
    yield
    nkblas.set_num_threads(before)


# ---- the same bits


def assert_same_bits(product: Callable[[], Array]) -> Array:
    """Check that one thread and several compute the same bits; return the result."""
    nkblas.set_num_threads(1)
    single = product()
    for number in THREAD_COUNTS:
        nkblas.set_num_threads(number)
        assert product().tobytes() == single.tobytes(), f"{number} threads"
    return single


def make_large(problem: Problem | None) -> None:
    """Make the engine divide a problem in its table among many threads, as if it were large."""
    assert problem is not None
    c_plan = lib.nk_table_find(abi.problem_to_c(problem))
    if c_plan != ffi.NULL:
        c_plan.nanoseconds = 1e9


def random(*shape: int, dtype: str, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@by_dtype
@pytest.mark.parametrize("shape", [(50, 50, 60), (65, 130, 33), (129, 128, 127), (7, 900, 64)])
def test_bits_near_the_thread_threshold(shape: tuple[int, int, int], dtype: str) -> None:
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
    """Any plan, divided into many chunks."""
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
    """Operands packed or in place, both loop orders, several cache blocks in each dimension."""
    m, n, k = 37, 150, 70
    tile = base_tile(nkblas.cpu.isa.base, family(dtype, "fma"))
    a = LAYOUTS[of_a].arrange(random(m, k, dtype=dtype), dtype)
    b = LAYOUTS[of_b].arrange(random(k, n, dtype=dtype, seed=1), dtype)
    _, out = LAYOUTS[of_c].empty((m, n), dtype, fill=0)
    operands = tuple(matrix(x) for x in (a, b, out))
    problem, _ = abi.describe_product(DTYPES.index(dtype), (m, n, k), operands, 1, (0, 0, 0))
    schedules = [
        Schedule("tiles", *tile, 30, 2 * tile[0], 2 * tile[1], *choices)
        for choices in itertools.product((False, True), repeat=3)
    ]
    schedules = [s for s in schedules if not s.infeasible_reason(problem, nkblas.cpu)]
    assert len(schedules) >= 2
    results = set()
    for schedule in schedules:
        plan = make_plan(problem, nkblas.cpu, schedule)
        with planning_lock():
            c_plan = abi.plan_to_c(plan, kernels.load(plan.kernels))
        c_plan.nanoseconds = 1e9
        for number in (1, *THREAD_COUNTS):
            out[...] = np.nan
            matrices = [operand[0] for operand in operands]
            args = lib.nk_plain_args
            assert lib.nk_run_plan(c_plan, *matrices, 1, (0, 0, 0), args, number) == 1
            results.add(out.tobytes())
    assert len(results) == 1
    assert np.allclose(out, a @ b, atol=1e-3)


def test_explain_shows_the_threads() -> None:
    small, large = np.ones((8, 8)), np.ones((900, 900))
    nkblas.set_num_threads(CPUS + 3)
    assert nkblas.explain(small, small).threads == 1
    assert nkblas.explain(large, large).threads == CPUS
    assert nkblas.explain(np.ones((10**5, 8, 8)), small[None]).threads == CPUS
    nkblas.set_num_threads(1)
    assert nkblas.explain(large, large).threads == 1


# ---- the pool by itself: jobs whose chunks are Python functions

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
LONG_NS = 1e9
"""Nanoseconds of a job that is worth waking all threads for."""

SHORT_NS = 20e3
"""Nanoseconds of a job that is not worth waking a thread for."""


def run_job(
    threads: int, chunks: int, chunk: Callable[[int], Any], nanoseconds: float = LONG_NS
) -> None:
    """Run a job; an exception in a chunk is raised here."""
    errors: list[BaseException] = []

    def work(_: object, i: int) -> None:
        try:
            chunk(i)
        except BaseException as error:
            errors.append(error)

    pool.nk_parallel(threads, nanoseconds, chunks, Work(work), None)
    if errors:
        raise errors[0]


def run_on_two_threads(
    chunk: Callable[[int], Any] = lambda i: None, nanoseconds: float = LONG_NS
) -> None:
    """Run a job of two chunks on two threads: each chunk waits until both have started."""
    barrier = threading.Barrier(2)

    def wait(i: int) -> None:
        barrier.wait(10)
        chunk(i)

    run_job(2, 2, wait, nanoseconds)


def workers() -> list[int]:
    """Thread ids of the pool's workers."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            if (task / "comm").read_text().strip() == "nkblas":
                found.append(int(task.name))
    return found


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chunks", [0, 1, 2, 7, 300])
def test_each_chunk_runs_once(chunks: int, threads: int) -> None:
    done: list[int] = []
    run_job(threads, chunks, done.append)
    assert sorted(done) == list(range(chunks))


@on_two_cpus
@pytest.mark.parametrize("pause", [0, 1e-3, 5e-2])
def test_workers_take_part(pause: float) -> None:
    """Workers that spin while they wait for a job, and workers that sleep."""
    for _ in range(10):
        run_on_two_threads()
        time.sleep(pause)


@on_two_cpus
def test_short_jobs_wake_nobody() -> None:
    time.sleep(0.01)
    seen: set[int] = set()
    run_job(2, 2, lambda i: seen.add(threading.get_ident()), SHORT_NS)
    assert seen == {threading.get_ident()}


@on_two_cpus
def test_jobs_in_a_row_keep_workers_awake() -> None:
    def chunk(i: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.005)

    for _ in range(200):  # the second job follows at once, unless this thread is preempted
        seen: set[int] = set()
        run_job(1, 1, lambda i: None)
        run_job(2, 2, chunk, SHORT_NS)
        if len(seen) == 2:
            return
    pytest.fail("no worker was awake")


@on_two_cpus
def test_busy_pool() -> None:
    """A job that is submitted while the pool runs another one stays on its caller's thread."""
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    callers: dict[int, int] = {}

    def submit_another(i: int) -> None:
        callers[i] = threading.get_ident()
        run_job(2, 4, lambda _: seen[i].add(threading.get_ident()))

    run_on_two_threads(submit_another)
    assert seen == {i: {caller} for i, caller in callers.items()}


@on_two_cpus
@pytest.mark.parametrize("flag", [0x01, 0x04, 0x08, 0x10])
def test_floating_point_flags(flag: int) -> None:
    """The caller gets the flags that a worker raises, and no others."""
    me = threading.get_ident()

    def chunk(i: int) -> None:
        if threading.get_ident() != me:
            libm.feraiseexcept(flag)

    libm.feclearexcept(0x3F)
    run_on_two_threads()
    before = libm.fetestexcept(0x1F)
    run_on_two_threads(chunk)
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
        run_on_two_threads(lambda i: seen.setdefault(threading.get_ident(), libm.fegetround()))
    finally:
        libm.fesetround(0)
    assert list(seen.values()) == [mode, mode]
    run_on_two_threads(lambda i: seen.__setitem__(threading.get_ident(), libm.fegetround()))
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
        run_on_two_threads(lambda i: seen.setdefault(threading.get_ident(), control() & flush))
    finally:
        libm.fesetenv(before)
    assert list(seen.values()) == [flush, flush]
    run_on_two_threads(lambda i: seen.__setitem__(threading.get_ident(), control() & flush))
    assert list(seen.values()) == [0, 0]


@on_two_cpus
def test_workers_block_signals() -> None:
    """All but synchronous ones, such as SIGSEGV, which faulthandler handles."""
    run_on_two_threads()
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
    """Concurrent callers under ThreadSanitizer: jobs of every size, workers asleep and awake."""
    program = tmp_path / "pool"
    sources = [TOOLS / "pool.c", THREAD_POOL]
    if not sources[1].exists():
        pytest.skip("the sources are not here")
    command = [str(compiler), "-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-o", str(program)]
    if subprocess.run(
        [*command, "-xc", "-"], input=b"int main() {}", capture_output=True
    ).returncode:
        pytest.skip("the compiler has no ThreadSanitizer")
    command += [f"-I{ENGINE_SOURCES}", *map(str, sources), "-lm", "-lpthread"]
    subprocess.run(command, check=True)
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

def cpu_time(worker):
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
    """The report of a program that starts with `PRELUDE`."""
    # Python 3.12 warns of forks while there are threads, as in most of these programs
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

    sys.setswitchinterval(1e-4)  # so that threads are switched anywhere
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
    """The pool ends before a fork; parent and child each start a new one, without a warning."""
    program_text = """
        while threading.active_count() > 1:
            time.sleep(0.01)  # a kernel is being compiled in the background
        before = len(workers())
        child = os.fork()
        after_fork = len(workers())
        check(400)
        restarted = len(workers())
        if child == 0:
            os._exit([after_fork, restarted] != [0, before])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        report(before=before, after_fork=after_fork, restarted=restarted, status=status)
    """
    options = ["-W", "error::DeprecationWarning"]  # Python 3.12 warns of forks among threads
    found = program(program_text, *options)
    expected = min(3, CPUS) - 1
    assert found == {"before": expected, "after_fork": 0, "restarted": expected, "status": 0}


def test_fork_in_a_thread() -> None:
    """The only thread of the child is not its parent's main thread; the child forks again."""
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
        report(correct=[c.tobytes() == results[400] for c in found])
    """
    assert program(program_text) == {"correct": [True] * 6}


def test_many_python_threads() -> None:
    """16 threads at once: correct results, and no threads beyond these and the pool's."""
    program_text = """
        before = len(os.listdir("/proc/self/task")) - len(workers())
        max_threads, done = 0, []

        def work(size):
            for _ in range(30):
                check(size)
            done.append(size)

        threads = [threading.Thread(target=work, args=((100, 150, 400)[i % 3],)) for i in range(16)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            max_threads = max(max_threads, len(os.listdir("/proc/self/task")))
            time.sleep(1e-3)
        report(before=before, max_threads=max_threads, workers=len(workers()), done=len(done))
    """
    found = program(program_text)
    assert found["done"] == 16
    assert found["workers"] == min(3, CPUS) - 1
    # one more thread may compile in the background
    assert found["max_threads"] <= found["before"] + 16 + found["workers"] + 1


def test_set_num_threads_while_threads_multiply() -> None:
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
    """Workers stay asleep while the affinity mask has one CPU, and work again afterwards."""
    program_text = """
        (worker, *_) = workers()
        os.sched_setaffinity(0, {min(cpus)})
        time.sleep(0.05)
        before = cpu_time(worker)
        for _ in range(20):
            check(400)
        on_one_cpu = cpu_time(worker) - before
        explained = nkblas.explain(operands[400], operands[400]).threads
        os.sched_setaffinity(0, cpus)
        for _ in range(200):
            check(400)
        report(on_one_cpu=on_one_cpu, explained=explained, later=cpu_time(worker) - before)
    """
    found = program(program_text)
    assert found["on_one_cpu"] == 0
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
        mask = os.sched_getaffinity(worker)
        report(cpus=len(mask), is_subset=mask < two)
    """
    assert program(program_text) == {"cpus": 1, "is_subset": True}


NO_THREADS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Grants the engine $GRANTED threads, and other callers any number. */
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
    """Ctrl-C reaches Python's main thread while the pool's threads multiply."""
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
    """Memory does not grow with calls, with threads that end, or with changed thread counts."""
    program_text = """
        x = operands[100]
        strided = np.zeros((200, 200), "float32")[::2, ::2]

        def multiply(calls):
            for i in range(calls):
                nkblas.set_num_threads(i % 4 + 1)
                nkblas.matmul(strided, x)

        def start_and_join(threads):
            for _ in range(threads):
                thread = threading.Thread(target=multiply, args=(2,))
                thread.start()
                thread.join()

        def memory():
            return int(open("/proc/self/statm").read().split()[1]) * 4096  # resident

        multiply(1000)
        start_and_join(20)
        before = memory()
        multiply(10000)
        start_and_join(300)
        report(growth=memory() - before, workers=len(workers()))
    """
    found = program(program_text)
    assert found["workers"] == min(4, CPUS) - 1
    assert found["growth"] < 8 << 20


@pytest.mark.parametrize(
    "end",
    [
        "check(400)",  # workers spin, waiting for the next job
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


# ---- the number of threads

ENVIRONMENTS: list[tuple[dict[str, str], int]] = [
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


@pytest.mark.parametrize(("environment", "expected"), ENVIRONMENTS)
def test_num_threads_from_the_environment(environment: dict[str, str], expected: int) -> None:
    assert threads_of(environment) == expected


def threads_of(environment: dict[str, str]) -> int:
    return config.num_threads(7, environment)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "2,3", "0x2"])
def test_invalid_environment(text: str) -> None:
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


def test_set_num_threads_to_invalid_values() -> None:
    before = nkblas.get_num_threads()
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"n: got {value}"):
            nkblas.set_num_threads(value)
    for other in (1.5, "2", None):
        with pytest.raises(TypeError, match="n: got"):
            nkblas.set_num_threads(other)  # type: ignore[arg-type]
    assert nkblas.get_num_threads() == before
