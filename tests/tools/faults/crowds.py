"""Many processes at once, forks of every kind, and processes that end at any moment."""

import signal
import time

from support import HANG_SECONDS, PRELUDE, start

from . import (
    COMPILE_AND_MULTIPLY,
    SHAPES,
    Case,
    assert_mentions,
    fault,
    has_ended,
    helper_processes,
    send_signal,
)

IGNORE_FORK_WARNING = ("-W", "ignore:This process:DeprecationWarning")
"""Python 3.12 and later warn of a fork in a process that has threads."""


@fault("64 processes start at once on a cold cache", 2, 0)
def crowd(case: Case) -> None:
    start_together(case, 64)


@fault("12 processes start at once on a cold cache", 2)
def small_crowd(case: Case) -> None:
    start_together(case, 12)


def start_together(case: Case, count: int) -> None:
    """No process multiplies before all are ready; each kernel is compiled once."""
    gate = case.folder / "gate"
    program = f"""
open({str(case.folder)!r} + f"/ready-{{os.getpid()}}", "w").close()
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
{COMPILE_AND_MULTIPLY}
"""
    processes = [case.start(program, NKBLAS_NUM_THREADS=1) for _ in range(count)]
    while len(list(case.folder.glob("ready-*"))) < count:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    gate.touch()
    reports = [case.finish(process)[0] for process in processes]
    kernels = len(case.shuffled_kernels())
    assert sum(report["kernels_compiled"] for report in reports) == kernels > 0
    for report in reports:
        assert report["kernels_compiled"] + report["kernels_loaded"] == kernels
        assert report["fallbacks"] == 0


KILLER = """
import random, signal
from nkblas.runtime.kernels import kernels
moment, killed = {moment}, []

def kill():
    while kernels._background_compiler.server is None:
        time.sleep(0.001)
    time.sleep(moment)
    server = kernels._background_compiler.server
    if server is not None:
        os.kill(server.pid, signal.{signal})
        killed.append(server.pid)

threading.Thread(target=kill, daemon=True).start()
improve(*{shapes})
meanwhile = len(killed)
multiply(*{shapes})
report(meanwhile=meanwhile)
"""


@fault("the compile server is killed, 0 to 1.5 s after its start", 100)
def kill_compiler(case: Case) -> None:
    """A new one takes its place: no product is left to NumPy."""
    moment, number = case.random.uniform(0, 1.5), case.random.choice(("SIGKILL", "SIGSEGV"))
    program = KILLER.format(moment=moment, signal=number, shapes=tuple(SHAPES))
    report, errors = case.run(program)
    case.notes["killed during compilation"] += report["meanwhile"]
    assert report["fallbacks"] == 0, report
    assert errors == "", errors
    assert report["kernels_compiled"] == len(case.shuffled_kernels()), report


@fault("one of three processes on a cold cache is killed, within 1.5 s", 30)
def kill_process(case: Case) -> None:
    """The others take over, its compiler ends, and its incomplete files are repaired."""
    victim, *others = [case.start() for _ in range(3)]
    case.sleep_up_to(1.5)
    helpers = helper_processes(victim.pid)
    case.notes["killed during compilation"] += victim.poll() is None
    send_signal(victim.pid)
    victim.communicate(timeout=HANG_SECONDS)
    for process in others:
        report, errors = case.finish(process)
        assert report["fallbacks"] == 0, report
        assert errors == "", errors
    assert all(map(has_ended, helpers)), helpers


@fault("a compiling process is stopped for good; others wait 2 s (instead of 60) for it", 3)
def stop_process(case: Case) -> None:
    victim = case.start()
    while not helper_processes(victim.pid):
        assert victim.poll() is None
        time.sleep(0.01)
    case.sleep_up_to(0.4)
    send_signal(victim.pid, signal.SIGSTOP)
    try:
        short_wait = "from nkblas.system import folder; folder.LOCK_TIMEOUT_SECONDS = 2.0\n"
        report, _ = case.run(short_wait + COMPILE_AND_MULTIPLY)
        assert report["fallbacks"] == 0, report
    finally:
        send_signal(victim.pid, signal.SIGCONT)
    report, _ = case.finish(victim)
    assert report["fallbacks"] == 0, report


EXITS = {
    "end": (0, ""),
    "sys.exit(3)": (3, ""),
    "os._exit(4)": (4, ""),
    "os.kill(os.getpid(), 15); time.sleep(60)": (-15, ""),
    "signal.raise_signal(2); time.sleep(60)": (-2, "KeyboardInterrupt"),
    "raise RuntimeError('mine')": (1, "RuntimeError: mine"),
}
"""Ways to end a process: the status, and the last line of the standard error."""


@fault("the interpreter exits during a compilation, in the background or in a thread", 20, 2)
def shutdown(case: Case) -> None:
    """It ends with the program's own status and message, and leaves no process behind."""
    end, (status, last) = case.random.choice(list(EXITS.items()))
    work = case.random.choice(
        (
            "threading.Thread(target=improve, args=shapes, daemon=True).start()",
            "threading.Thread(target=multiply, args=shapes, daemon=True).start()",
            "multiply(*shapes)",  # the base kernels are then compiled in the background
        )
    )
    moment = case.random.uniform(0, 1.5)
    program = f"""
import signal
shapes, end = {SHAPES}, None
{work}
time.sleep({moment})
print("ending", flush=True)
{end}
"""
    process = case.start(program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ending\n", process.stderr.read()
    helpers = helper_processes(process.pid)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == status, (process.returncode, errors)
    lines = errors.strip().splitlines()
    assert (lines[-1] if lines else "") == last, errors
    assert all("nkblas" not in line for line in lines), errors
    assert all(map(has_ended, helpers)), helpers
    report, _ = case.run()
    assert report["fallbacks"] == 0, report


@fault("a keyboard interrupt arrives while a product waits for the compiler", 15)
def interrupt(case: Case) -> None:
    program = f"""
interrupted = 0
try:
    print("ready", flush=True)
    multiply(*{SHAPES})
    time.sleep(2)
except KeyboardInterrupt:
    interrupted = 1
{COMPILE_AND_MULTIPLY[:-1]}interrupted=interrupted)
"""
    process = case.start(program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    case.sleep_up_to(1.2)
    send_signal(process.pid, signal.SIGINT)
    report, _ = case.finish(process)
    assert report["interrupted"] == 1, report


@fault("multiprocessing.Pool on a cold cache, with fork, spawn and forkserver", 9)
def pools(case: Case) -> None:
    method = ("fork", "spawn", "forkserver")[case.random.randrange(3)]
    parent_multiplies = case.random.random() < 0.5  # it then has a compiler, and kernels
    program = f"""
import multiprocessing
if {parent_multiplies}:
    multiply({SHAPES[0]})
a, b = operands(*{SHAPES[2]})
with multiprocessing.get_context({method!r}).Pool(3) as processes:
    for m, n, k in {SHAPES}:
        a, b = operands(m, n, k)
        found = processes.starmap_async(nkblas.matmul, [(a, b)] * 6).get({HANG_SECONDS})
        assert all(np.array_equal(c, a.astype("d") @ b) for c in found), (m, n, k)
{COMPILE_AND_MULTIPLY}
"""
    report, errors = case.run(program, *IGNORE_FORK_WARNING)
    assert report["fallbacks"] == 0, report
    assert errors == "", errors


SERVER = """
import random, signal
chance = random.Random({seed})
shapes = {shapes}
multiply(shapes[0])  # the application is loaded before the fork
if {busy}:
    threading.Thread(target=improve, args=shapes, daemon=True).start()
    time.sleep(chance.uniform(0, 0.5))

def worker():
    child = os.fork()
    if child == 0:
        status = 99
        try:
            signal.alarm({hang_seconds})
            for shape in shapes:
                improve(shape)
                multiply(shape)
            status = nkblas.stats()["fallbacks"]
        finally:
            os._exit(status)
    return child

workers, statuses, killed = [worker() for _ in range(4)], [], set()
for _ in range(2):  # the master replaces workers that end early
    time.sleep(chance.uniform(0, 0.5))
    victim = chance.choice([w for w in workers if w not in killed])
    os.kill(victim, signal.SIGKILL)
    killed.add(victim)
    workers.append(worker())
for pid in workers:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if pid not in killed:
        statuses.append(status)
{products}
"""


@fault("a server loads nkblas and forks 4 workers, of which 2 are killed and replaced", 12)
def preload(case: Case) -> None:
    """Like gunicorn with ``--preload``; in half of the cases the master compiles meanwhile."""
    program = SERVER.format(
        seed=case.random.random(), shapes=SHAPES, busy=case.random.random() < 0.5,
        hang_seconds=HANG_SECONDS,
        products=COMPILE_AND_MULTIPLY.replace("report()", "report(statuses=statuses)"),
    )  # fmt: skip
    report, errors = case.run(program, *IGNORE_FORK_WARNING)
    assert report["statuses"] == [0] * 4, report
    assert report["fallbacks"] == 0, report
    assert errors == "", errors


SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters  # 3.13
    def create(): return interpreters.create("legacy")
    def run(i, text):
        found = interpreters.run_string(i, text)
        return found and found.formatted
except ImportError:
    import _xxsubinterpreters as interpreters
    def create():
        try:
            return interpreters.create(isolated=False)
        except TypeError:
            return interpreters.create()
    def run(i, text):
        try:
            interpreters.run_string(i, text)
        except Exception as error:
            return str(error)
import warnings
if {first}:
    import nkblas
error = run(create(), '''
import warnings; warnings.simplefilter("ignore")
import nkblas, numpy as np
nkblas.matmul(np.ones((3, 3)), np.ones((3, 3)))
''')
assert error and "ImportError" in error, error
"""


@fault("nkblas is imported in a subinterpreter", 4)
def subinterpreter(case: Case) -> None:
    """NumPy or nkblas refuses to be imported there; the main interpreter is unaffected."""
    prelude = SUBINTERPRETER.format(first=case.random.random() < 0.5) + PRELUDE
    report, _ = case.run(prelude=prelude)
    assert report["fallbacks"] == 0, report


@fault("free-threaded Python without a GIL (simulated)", 1)
def without_gil(case: Case) -> None:
    prelude = "import sys; sys._is_gil_enabled = lambda: False\n" + PRELUDE
    process = start(COMPILE_AND_MULTIPLY, prelude=prelude, NKBLAS_CACHE_DIR=case.cache)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 1
    assert_mentions(errors.splitlines()[-1], "ImportError", "GIL", "PYTHON_GIL=0")
    assert not case.cache.exists()
