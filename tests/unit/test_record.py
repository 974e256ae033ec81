"""`nkblas.record`: products are counted by their problems."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, run

import nkblas
from nkblas.base.problem import Problem, parse


def ones(*shape: int, dtype: Any = "float32") -> Array:
    return np.ones(shape, dtype)


def counts(shapes: nkblas.Recording) -> dict[str, int]:
    return {str(problem): count for problem, count in shapes.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts(dtype: str) -> None:
    a, b = ones(4, 5, dtype=dtype), ones(5, 6, dtype=dtype)
    with nkblas.record() as shapes:
        nkblas.matmul(a, b)
        nkblas.matmul(a, b)
        nkblas.matmul(a[:2], b)
    assert dict(shapes) == {Problem(dtype, 4, 6, 5): 2, Problem(dtype, 2, 6, 5): 1}
    nkblas.matmul(a, b)
    assert shapes[Problem(dtype, 4, 6, 5)] == 2


CASES: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
    "stack": (lambda: nkblas.matmul(ones(7, 4, 5), ones(7, 5, 6)), {"4x6x5:f32": 7}),
    "stacks": (lambda: nkblas.matmul(ones(3, 1, 4, 5), ones(7, 5, 6)), {"4x6x5:f32": 21}),
    "stack times one": (lambda: nkblas.matmul(ones(7, 4, 5), ones(5, 6)), {"28x6x5:f32": 1}),
    "vectors": (lambda: nkblas.matmul(ones(5), ones(5)), {"1x1x5:f32:rcr": 1}),
    "columns": (lambda: nkblas.matmul(ones(5, 4).T, ones(5, 6)), {"4x6x5:f32:crr": 1}),
    "cast": (lambda: nkblas.matmul(ones(4, 5), ones(5, 6, dtype="d")), {"4x6x5:f64": 1}),
    "empty operand": (lambda: nkblas.matmul(ones(0, 5), ones(5, 6)), {}),
    "k is 0": (lambda: nkblas.matmul(ones(4, 0), ones(0, 6)), {}),
    "other dtype": (lambda: nkblas.matmul(ones(4, 5, dtype="g"), ones(5, 6, dtype="g")), {}),
    "numpy": (lambda: np.matmul(ones(4, 5), ones(5, 6)), {}),
    "explained": (lambda: nkblas.explain(ones(4, 5), ones(5, 6)), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_counted_problems(case: str) -> None:
    call, expected = CASES[case]
    with nkblas.record() as shapes:
        call()
    assert counts(shapes) == expected


def test_many_problems() -> None:
    with nkblas.record() as shapes:
        for m in range(1, 300):
            nkblas.matmul(ones(m, 2), ones(2, 3))
    assert dict(shapes) == {Problem("float32", m, 3, 2): 1 for m in range(1, 300)}


def test_order_by_arithmetic() -> None:
    with nkblas.record() as shapes:
        for m, times in ((20, 1), (2, 30), (3, 1)):
            for _ in range(times):
                nkblas.matmul(ones(m, 2), ones(2, 3))
    assert [problem.m for problem in shapes] == [2, 20, 3]


def test_nested() -> None:
    with nkblas.record() as outer:
        nkblas.matmul(ones(4, 5), ones(5, 6))
        with nkblas.record() as inner:
            nkblas.matmul(ones(4, 5), ones(5, 6))
            nkblas.matmul(ones(3, 5), ones(5, 6))
        nkblas.matmul(ones(2, 5), ones(5, 6))
    assert counts(inner) == {"4x6x5:f32": 1, "3x6x5:f32": 1}
    assert counts(outer) == {"4x6x5:f32": 2, "3x6x5:f32": 1, "2x6x5:f32": 1}


def test_all_threads() -> None:
    """A recording counts the products of all threads, whichever thread started it."""
    barrier = threading.Barrier(4)
    recordings = []

    def work(m: int) -> None:
        with nkblas.record() as shapes:
            barrier.wait()
            for _ in range(500):
                nkblas.matmul(ones(m, 5), ones(5, 6))
                nkblas.matmul(ones(2, 2), ones(2, 2))
            barrier.wait()
        recordings.append(counts(shapes))

    threads = [threading.Thread(target=work, args=(10 + i,)) for i in range(4)]
    with nkblas.record() as shapes:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = {f"{10 + i}x6x5:f32": 500 for i in range(4)} | {"2x2x2:f32": 2000}
    assert counts(shapes) == expected
    assert recordings == [expected] * 4


def test_after_an_exception() -> None:
    def multiply_and_fail() -> None:
        nkblas.matmul(ones(4, 5), ones(5, 6))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), nkblas.record() as shapes:
        multiply_and_fail()
    assert counts(shapes) == {"4x6x5:f32": 1}
    with nkblas.record() as again:
        pass
    assert counts(again) == {}


def test_fallbacks_without_a_kernel_are_not_counted(tmp_path: Path) -> None:
    program = """
    with nkblas.record() as shapes:
        multiply((5, 6, 7), (5, 6, 7))
    report(shapes=str(shapes))
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_JIT="never")
    assert report["fallbacks"] == 2
    assert report["shapes"] == ""


def test_exceptions_of_signal_handlers() -> None:
    """Each exception that is raised during a recorded product is propagated."""
    program = """
    import signal

    class Alarm(Exception):
        pass

    def handle(*_):
        global handled
        handled += 1
        raise Alarm

    signal.signal(signal.SIGALRM, handle)
    a = np.ones((2, 2), "float32")
    nkblas.matmul(a, a)
    handled = caught = 0
    with nkblas.record():
        while caught < 100:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                while True:
                    nkblas.matmul(a, a)
            except Alarm:
                caught += 1
    report(handled=handled, caught=caught)
    """
    report, errors = run(program)
    assert report["handled"] == report["caught"] == 100
    assert errors == ""


def test_fork_while_other_threads_read_counters() -> None:
    """The child does not wait for a lock of another thread, and has counters of its own."""
    program = """
    from nkblas._engine import ffi, lib
    stop = False

    def work():
        while not stop:
            lib.nk_recorded(ffi.NULL, 0)

    failures = 0
    threads = [threading.Thread(target=work) for _ in range(2)]
    with nkblas.record() as outer:
        multiply(*((m, 1, 1) for m in range(2, 600)))
        [thread.start() for thread in threads]
        for _ in range(50):
            child = os.fork()
            if not child:
                with nkblas.record() as shapes:
                    multiply((2, 2, 1))
                os._exit(str(shapes) != "2x2x1:f32 1\\n")
            failures += os.waitpid(child, 0)[1]
        stop = True
        [thread.join() for thread in threads]
    report(failures=failures, problems=len(outer))
    """
    report, _ = run(program)
    assert report["failures"] == 0
    assert report["problems"] == 598


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    with nkblas.record() as shapes:
        for _ in range(3):
            nkblas.matmul(ones(128, 768), ones(768, 30))
        nkblas.matmul(ones(5, 4, dtype="d").T, ones(5, 6, dtype="d"))
    shapes.save(path)
    assert path.read_text() == "128x30x768:f32 3\n4x6x5:f64:crr 1\n"
    assert nkblas.Recording.load(path) == shapes
    assert nkblas.Recording.load(str(path)) == shapes
    shapes.save(path)  # replaces it
    assert nkblas.Recording.load(path) == shapes
    assert repr(shapes) == "<Recording: 2 problems, 4 products>"


def test_concatenated_files(tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text("# two recordings\n4x6x5:f32 3\n\n2x2x2:f64:ccs 1\n4x6x5:float32:rrr  2")
    assert counts(nkblas.Recording.load(path)) == {"4x6x5:f32": 5, "2x2x2:f64:ccs": 1}


@pytest.mark.parametrize(
    "line",
    [
        "4x6x5:f32",
        "4x6x5:f32 0",
        "4x6x5:f32 -1",
        "4x6x5:f32 1.5",
        "4x6x5:f32 ²",
        "4x6x5:f32 1_0",
        "4x6x5:f32 2 3",
        "4x6:f32 2",
        "4x0x5:f32 2",
        "4x6x5:f3 2",
        "2 4x6x5:f32",
        "\x00\x00",
        "\xff",
        "4x6x5:f32 " + 5000 * "9",
    ],
)
def test_damaged_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    path.write_bytes(b"2x2x2:f32 1\n" + line.encode("latin-1") + b"\n3x3x3:f32 1\n")
    with pytest.raises(ValueError, match=r"shapes\.txt, line 2: ") as error:
        nkblas.Recording.load(path)
    assert "128x768x3072:f32 123" in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nkblas.Recording.load(tmp_path / "none.txt")


def test_is_a_mapping() -> None:
    shapes = nkblas.Recording({parse("2x2x2:f32"): 3})
    assert len(shapes) == 1
    assert parse("2x2x2:f32") in shapes
    assert shapes == {parse("2x2x2:f32"): 3}
    with pytest.raises(KeyError):
        shapes[parse("3x3x3:f32")]
