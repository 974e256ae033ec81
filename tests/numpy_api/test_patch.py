"""`nkblas.patch` replaces NumPy's products, and `unpatch` restores them exactly."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy import dot, einsum, inner, tensordot  # imported before NumPy is patched
from support import Array, exact, integers, run

import nkblas
from nkblas.api import products

A, B = integers(9, 11), integers(11, 13, seed=1)


@pytest.fixture(autouse=True)
def assert_restored() -> Iterator[None]:
    before = state()
    yield
    nkblas.unpatch()
    assert state() == before


def state() -> Any:
    """The implementations of NumPy's functions, and whether its gufuncs run on nkblas."""
    replaced = list(products.patch_implementations)
    implementations = [function._implementation for function in replaced]
    return implementations, calls(lambda: A @ B), calls(lambda: np.vecdot(A, A))


def calls(call: Callable[[], Any]) -> int:
    before = nkblas.stats()
    call()
    after = nkblas.stats()
    assert after["fallbacks"] == before["fallbacks"]
    return after["calls"] - before["calls"]


class Holder:
    """References outside NumPy's modules, which programs have."""

    product = staticmethod(np.matmul)


CALLS: dict[str, tuple[Callable[[], Any], int]] = {
    "@": (lambda: A @ B, 1),
    "@=": (lambda: A.__imatmul__(integers(11, 11)), 1),
    "__matmul__": (lambda: A.__matmul__(B), 1),
    "@ of stacks": (lambda: np.stack([A, A]) @ np.stack([B, B]), 2),
    "@ of lists": (lambda: A @ B.tolist(), 1),
    "@ of vectors": (lambda: A[0] @ A[0], 1),
    "matmul": (lambda: np.matmul(A, B), 1),
    "matmul elsewhere": (lambda: Holder.product(A, B), 1),
    "matmul with out": (lambda: np.matmul(A, B, out=np.empty((9, 13))), 1),
    "vecdot": (lambda: np.vecdot(A, A), 9),
    "dot": (lambda: np.dot(A, B), 1),
    "dot imported earlier": (lambda: dot(A, B), 1),
    "dot of stacks": (lambda: np.dot(np.stack([A, A]), B), 1),
    "inner": (lambda: np.inner(A, A), 1),
    "inner imported earlier": (lambda: inner(A, A), 1),
    "vdot": (lambda: np.vdot(A, A), 1),
    "tensordot": (lambda: np.tensordot(A, B, 1), 1),
    "tensordot imported earlier": (lambda: tensordot(A, B, 1), 1),
    "einsum": (lambda: np.einsum("ij,jk", A, B), 1),
    "einsum imported earlier": (lambda: einsum("ij,jk", A, B), 1),
    "einsum with a path": (lambda: np.einsum("ij,jk,lk", A, B, B, optimize=True), 2),
    "multi_dot": (lambda: np.linalg.multi_dot([A, B, B.T, A.T]), 3),
    "matrix_power": (lambda: np.linalg.matrix_power(A[:, :9], 3), 2),
    "linalg.matmul": (lambda: np.linalg.matmul(A, B), 1),
    "linalg.tensordot": (lambda: np.linalg.tensordot(A, B, axes=1), 1),
    "linalg.vecdot": (lambda: np.linalg.vecdot(A, A), 9),
    "cov": (lambda: np.cov(A), 1),
    "ma.dot": (lambda: np.ma.dot(np.ma.array(A), B), 1),
    "matrix *": (lambda: np.asmatrix(A) * np.asmatrix(B), 1),
}
if hasattr(np, "matvec"):
    CALLS["matvec"] = (lambda: np.matvec(A, B[:, 0]), 1)
    CALLS["vecmat"] = (lambda: np.vecmat(A[0], B), 1)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("name", CALLS)
def test_is_replaced(name: str) -> None:
    call, expected = CALLS[name]
    before = call()
    assert calls(call) == 0
    with nkblas.patched():
        if name != "ma.dot":  # it multiplies masks, too
            assert calls(call) == expected
        else:
            assert nkblas.stats()["calls"] < (call(), nkblas.stats()["calls"])[1]
        np.testing.assert_allclose(call(), before)
    assert calls(call) == 0


def test_is_not_replaced_without_doors() -> None:
    with nkblas.patched(doors=False):
        assert calls(lambda: A.dot(B)) == 0


def test_function_objects_stay_the_same() -> None:
    names = [(np, name) for name in ("dot", "inner", "vdot", "einsum", "tensordot", "matmul")]
    names += [(np.linalg, name) for name in ("multi_dot", "matrix_power", "matmul")]
    before = [getattr(module, name) for module, name in names]
    documents = [function.__doc__ for function in before]
    with nkblas.patched():
        during = [getattr(module, name) for module, name in names]
        assert [function.__doc__ for function in during] == documents
    after = [getattr(module, name) for module, name in names]
    assert all(x is y is z for x, y, z in zip(before, during, after, strict=True))


def is_patched() -> bool:
    found = {calls(call) for call in (lambda: A @ B, lambda: np.dot(A, B))}
    assert len(found) == 1
    return found == {1}


def test_idempotent() -> None:
    nkblas.unpatch()
    assert not is_patched()
    for _ in range(3):
        nkblas.patch()
        assert is_patched()
    nkblas.unpatch()
    assert not is_patched()


def test_nested_contexts() -> None:
    with nkblas.patched():
        with nkblas.patched():
            assert is_patched()
        assert is_patched()
        nkblas.unpatch()
        assert is_patched()
    assert not is_patched()
    nkblas.patch()
    with nkblas.patched():
        pass
    assert is_patched()


def test_context_with_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), nkblas.patched():
        _ = 1 / 0
    assert not is_patched()


def test_contexts_of_several_threads() -> None:
    """NumPy is restored when the last one ends."""
    inside, go_on = threading.Event(), threading.Event()

    def other() -> None:
        with nkblas.patched():
            inside.set()
            go_on.wait()

    thread = threading.Thread(target=other)
    with nkblas.patched():
        thread.start()
        inside.wait()
    assert is_patched()
    go_on.set()
    thread.join()
    assert not is_patched()


def test_fallbacks_are_counted() -> None:
    a, b = A.astype("g"), B.astype("g")
    expected = a @ b
    with nkblas.patched():
        for call in (lambda: a @ b, lambda: np.dot(a, b), lambda: np.einsum("ij,jk", a, b)):
            before = nkblas.stats()
            assert np.array_equal(call(), expected)
            after = nkblas.stats()
            assert after["fallbacks"] - before["fallbacks"] == 1
            assert after["calls"] - before["calls"] == 1


def test_without_a_compiler(tmp_path: Any) -> None:
    """A fallback runs NumPy's own loops and does not come back to nkblas."""
    program = """
    nkblas.patch()
    a, b = operands(5, 6, 7)
    results = [a @ b, np.dot(a, b), np.einsum("ij,jk", a, b), np.inner(a, b.T)]
    assert all(np.array_equal(x, a.astype("d") @ b.astype("d")) for x in results)
    assert np.vdot(a, a) == (a * a).sum()
    report()
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_JIT="never")
    assert report["fallbacks"] == report["calls"] > 4


def test_foreign_implementations_are_restored() -> None:
    """`unpatch` restores the implementation found by `patch`, even if it is not NumPy's own."""
    program = """
    def other(*args, **kwargs):
        return "other"

    numpys = np.dot._implementation
    nkblas._numpy_ext.replace_implementation(np.dot, other)
    nkblas.patch()
    during = float(np.dot([2.0], [3.0]))
    nkblas.unpatch()
    report(during=during, after=np.dot([2.0], [3.0]))
    """
    report, _ = run(program)
    assert report["during"] == 6.0
    assert report["after"] == "other"


def test_function_that_cannot_be_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays NumPy's, with a warning; all others are patched."""

    def hidden(function: Any, implementation: Any) -> None:
        if function is np.dot:
            raise RuntimeError("2 places hold what it calls")
        replace_implementation(function, implementation)

    replace_implementation = nkblas._numpy_ext.replace_implementation
    monkeypatch.setattr(nkblas._numpy_ext, "replace_implementation", hidden)
    with nkblas.patched(doors=False):
        assert calls(lambda: np.dot(A, B)) == 0
        assert calls(lambda: A @ B) == calls(lambda: np.inner(A, A)) == 1
    assert "numpy.dot is not patched: 2 places" in caplog.text


def test_from_many_threads() -> None:
    """Patch and unpatch while other threads multiply: results are right, nothing leaks."""
    program = """
    import gc, resource, sys
    a, b = operands(17, 19, 23)
    stack, vectors = np.stack([a, a]), [np.ones(50, "f")] * 2
    expected = a.astype("d") @ b.astype("d")
    expected_stack = np.stack([expected, expected])
    stop, faults = False, []

    def multiply_on():
        while not stop:
            if not np.array_equal(a @ b, expected): faults.append("@")
            if not np.array_equal(np.dot(a, b), expected): faults.append("dot")
            if not np.array_equal(stack @ b, expected_stack): faults.append("stack")
            if not np.array_equal(np.einsum("ij,jk", a, b), expected): faults.append("einsum")
            if np.inner(*vectors) != 50: faults.append("inner")

    def flip():
        for i in range(1000):
            if i % 3:
                nkblas.patch()
                nkblas.unpatch()
            else:
                with nkblas.patched():
                    pass

    def flips():
        threads = [threading.Thread(target=flip) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]

    implementations = [f._implementation for f in (np.dot, np.inner, np.vdot, np.einsum)]
    workers = [threading.Thread(target=multiply_on) for _ in range(3)]
    [worker.start() for worker in workers]
    flips()
    gc.collect()
    references = [sys.getrefcount(x) for x in implementations]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flips()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    stop = True
    [worker.join() for worker in workers]
    gc.collect()
    same = [f._implementation for f in (np.dot, np.inner, np.vdot, np.einsum)] == implementations
    kept = [sys.getrefcount(x) - y for x, y in zip(implementations, references)]
    before = nkblas.stats()["calls"]
    a @ b
    report(faults=faults, same=same, grown=grown, kept=kept,
           patched=nkblas.stats()["calls"] - before)
    """
    report, _ = run(program)
    assert report["faults"] == []
    assert report["same"]
    assert report["patched"] == 0
    assert max(report["kept"]) <= 3  # a worker may have been inside when they were counted
    assert report["grown"] < 4096  # KiB


def test_fork_while_a_thread_patches() -> None:
    program = """
    stop = False

    def flip():
        while not stop:
            with nkblas.patched():
                pass

    a, b = operands(3, 4, 5)
    np.matmul(a, b)
    thread = threading.Thread(target=flip)
    thread.start()
    lost = 0
    for _ in range(50):
        child = os.fork()
        if not child:
            nkblas.patch()
            os._exit(int(np.dot(a, b).shape != (3, 4)))
        lost += os.waitpid(child, 0)[1]
    stop = True
    thread.join()
    report(lost=lost)
    """
    report, _ = run(program)
    assert report["lost"] == 0


def test_results_while_patched() -> None:
    def check(a: Array, b: Array) -> None:
        assert np.array_equal(a @ b, exact(a, b))

    with nkblas.patched():
        for m, n, k in ((1, 1, 1), (7, 11, 13), (33, 1, 70), (1, 65, 3), (129, 130, 131)):
            for dtype in ("float32", "float64"):
                a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
                check(a, b)
                check(b.T, a.T)
                check(a[::-1], b[:, ::-1])
