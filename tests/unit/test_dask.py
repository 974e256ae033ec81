"""`nkblas.dask` on Dask's schedulers, and on clusters whose workers are killed."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run

import nkblas

da = pytest.importorskip("dask.array", reason="the extra nkblas[dask] is not installed")
distributed = pytest.importorskip("distributed", reason="the extra nkblas[dask] is not installed")

import dask  # noqa: E402

import nkblas.dask  # noqa: E402  it imports distributed
from nkblas.dask import NkblasPlugin, PartialSums, matmul  # noqa: E402

TIMEOUT = 60

CASES = [
    # shapes, and chunks of both operands
    ((7, 5), (3, 2), (5, 4), (5, 3)),
    ((1, 1), (1, 1), (1, 1), (1, 1)),
    ((8, 12), (8, 5), (12, 6), (4, 6)),  # chunks along k differ
    ((13,), (4,), (13, 6), (5, 2)),
    ((6, 13), (4, 4), (13,), (6,)),
    ((13,), (4,), (13,), (5,)),
    ((2, 3, 4, 5), (1, 2, 3, 2), (5, 6), (3, 4)),
    ((3, 1, 4, 5), (2, 1, 3, 2), (2, 5, 6), (1, 3, 4)),
    ((4, 0), (2, 1), (0, 3), (1, 3)),
    ((0, 4), (1, 2), (4, 3), (3, 3)),
]


def integers(shape: tuple[int, ...], dtype: Any, seed: int) -> np.ndarray[Any, Any]:
    """Small integers: products and sums are exact in all dtypes."""
    values = np.random.default_rng(seed).integers(-4, 5, shape)
    return values.astype(dtype)


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    """A client of two worker processes."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 10}):
        options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=2, **options) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_shapes(case: tuple[tuple[int, ...], ...], scheduler: str) -> None:
    a, b = integers(case[0], np.float64, 0), integers(case[2], np.float64, 1)
    c = matmul(da.from_array(a, chunks=case[1]), da.from_array(b, chunks=case[3]))
    expected = np.matmul(a, b)
    result = c.compute(scheduler=scheduler)
    assert (c.shape, c.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("x", ["f2", "f4", "f8", "c8", "c16", "i1", "i8", "?"])
@pytest.mark.parametrize("y", ["f4", "i4", "?", "c16"])
def test_dtypes(x: str, y: str) -> None:
    a, b = integers((9, 8), x, 0), integers((8, 7), y, 1)
    c = matmul(da.from_array(a, chunks=(4, 3)), da.from_array(b, chunks=(3, 4)))
    expected = np.matmul(a, b)
    result = c.compute(scheduler="synchronous")
    assert (c.dtype, result.dtype) == (expected.dtype, expected.dtype)
    assert np.array_equal(result, expected)


def test_half_precision_is_rounded_once() -> None:
    """Partial sums are kept in float32: 1 is not lost beside 2048."""
    a = np.array([[2048, 1, 1, 1]], np.float16)
    c = matmul(da.from_array(a, chunks=1), da.ones((4, 1), dtype=np.float16, chunks=1))
    assert c.compute(scheduler="synchronous")[0, 0] == np.float16(2051)


def test_operands_that_are_no_dask_arrays() -> None:
    assert np.array_equal(matmul([[1, 2]], np.array([[3], [4]])).compute(), [[11]])


def test_in_an_expression() -> None:
    x = da.arange(30, chunks=7).reshape(5, 6).rechunk(2)
    expected = np.arange(30).reshape(5, 6)
    result = (matmul(x, x.T) + 1)[1:, ::2].sum(axis=0)
    assert np.array_equal(result.compute(), (expected @ expected.T + 1)[1:, ::2].sum(axis=0))


def test_errors() -> None:
    x = da.ones((4, 5), chunks=2)
    with pytest.raises(ValueError, match=r"y: got 4 rows .* expected 5"):
        matmul(x, x)
    with pytest.raises(ValueError, match="x: got a scalar"):
        matmul(3, x)
    with pytest.raises(ValueError, match="unknown sizes"):
        matmul(x[x[:, 0] > 0], x.T)
    with pytest.raises(ValueError, match="broadcast"):
        matmul(da.ones((2, 4, 5), chunks=2), da.ones((3, 5, 4), chunks=2))
    with pytest.raises(TypeError):
        matmul(da.ones((2, 2), chunks=2, dtype="M8[s]"), x)


def test_sums_are_the_same_object() -> None:
    """A chain holds one array, however many blocks there are."""
    from nkblas.dask import _add_product

    dtype = np.dtype(np.float64)
    a, b = np.ones((3, 2)), np.ones((2, 4))
    first = _add_product(None, a, b, 0, dtype)
    sums = first.sums
    second = _add_product(first, a, b, 1, dtype)
    assert second is first
    assert second.sums is sums
    assert np.all(sums == 4)
    # tasks that run again
    _add_product(first, a, b, 0, dtype)
    _add_product(first, a, b, 1, dtype)
    assert np.all(first.sums == 4)
    with pytest.raises(RuntimeError, match="got 3, expected at most 2"):
        _add_product(first, a, b, 3, dtype)


def test_copies_of_sums_go_on_alone() -> None:
    import pickle

    total = PartialSums(np.zeros((2, 2)))
    total.add(np.eye(2), np.eye(2), 0)
    copy = pickle.loads(pickle.dumps(total))
    copy.add(np.eye(2), np.eye(2), 1)
    assert np.array_equal(total.sums, np.eye(2))
    assert np.array_equal(copy.sums, 2 * np.eye(2))


def test_on_processes(processes: Any) -> None:
    a, b = integers((60, 50), np.float32, 0), integers((50, 70), np.float32, 1)
    c = matmul(da.from_array(a, chunks=(20, 7)), da.from_array(b, chunks=(9, 30)))
    assert np.array_equal(processes.compute(c).result(TIMEOUT), a @ b)


def test_with_a_worker_of_threads() -> None:
    options = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        before = nkblas.get_num_threads()
        client.register_plugin(NkblasPlugin(threads=1))
        assert nkblas.get_num_threads() == 1
        a = integers((40, 30), np.float64, 0)
        x = da.from_array(a, chunks=8)
        calls = nkblas.stats()["calls"]
        assert np.array_equal(client.compute(matmul(x, x.T)).result(TIMEOUT), a @ a.T)
        assert nkblas.stats()["calls"] > calls
        client.unregister_worker_plugin("nkblas")
        assert nkblas.get_num_threads() == before


def patched_there() -> bool:
    """Whether NumPy is patched in this worker."""
    before = nkblas.stats()["calls"]
    np.matmul(np.ones((3, 4)), np.ones((4, 5)))
    return nkblas.stats()["calls"] == before + 1


def slow_block(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    time.sleep(0.5)
    return block


def test_a_worker_that_is_killed_comes_back(processes: Any) -> None:
    """The result is right, and the new worker has the plugin."""
    processes.register_plugin(NkblasPlugin(warmup=["20x20x20:f64"]))
    try:
        assert all(processes.run(patched_there).values())
        a = integers((120, 120), np.float64, 0)
        x = da.from_array(a, chunks=20).map_blocks(slow_block)
        future = processes.compute(matmul(x, x))
        time.sleep(2)
        assert not future.done()
        victim = next(iter(processes.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        assert np.array_equal(future.result(TIMEOUT), a @ a)
        processes.wait_for_workers(2, timeout=TIMEOUT)
        assert victim not in processes.run(os.getpid).values()
        end = time.monotonic() + TIMEOUT
        while not all(processes.run(patched_there).values()) and time.monotonic() < end:
            time.sleep(0.1)  # its plugin is being set up
        assert all(processes.run(patched_there).values())
    finally:
        processes.unregister_worker_plugin("nkblas")
    assert not any(processes.run(patched_there).values())


def test_plugin_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threads: got 0"):
        NkblasPlugin(threads=0)
    with pytest.raises(ValueError, match="problem"):
        NkblasPlugin(warmup=["nonsense"])
    with pytest.raises(FileNotFoundError):
        NkblasPlugin(warmup=tmp_path / "missing.txt")


def test_plugin_reads_a_recording(tmp_path: Path) -> None:
    (tmp_path / "shapes.txt").write_text("5x6x7:f32 3\n")
    assert NkblasPlugin(warmup=tmp_path / "shapes.txt").problems == ("5x6x7:f32",)


def test_nkblas_does_not_import_dask() -> None:
    output, _ = run("import sys, nkblas; print(str('dask' in sys.modules).lower())")
    assert output is False
