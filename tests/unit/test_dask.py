"""`nkblas.dask`: products of Dask arrays beside NumPy's, on all schedulers, and the plugin."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import environment

import nkblas
from nkblas.cache import exchange
from nkblas.cache.store import Store
from nkblas.runtime.kernels import kernels
from nkblas.system.cpu import cpu

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
nkblas_dask = pytest.importorskip("nkblas.dask")

random = np.random.default_rng(0)


def integers(shape: tuple[int, ...], dtype: str) -> Any:
    """Small integers, whose products are exact in each dtype."""
    return random.integers(-2, 3, shape).astype(dtype)


CASES = [
    # shapes of x and y, their chunks
    ((50, 60), (60, 40), (20, 20), (30, 15)),
    ((60,), (60, 40), 20, (30, 15)),
    ((50, 60), (60,), (20, 20), 25),
    ((60,), (60,), 20, 25),
    ((3, 50, 60), (60, 40), (2, 20, 20), (30, 15)),
    ((60,), (3, 60, 40), 20, (2, 30, 15)),
    ((3, 50, 60), (60,), (2, 20, 20), 25),
    ((1, 50, 60), (4, 3, 60, 40), (1, 20, 20), (3, 2, 30, 15)),
    ((50, 0), (0, 40), (20, 0), (0, 15)),
    ((0, 60), (60, 40), (0, 20), (30, 15)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shapes(case: tuple[Any, ...]) -> None:
    x, y = integers(case[0], "f4"), integers(case[1], "f4")
    z = nkblas_dask.matmul(da.from_array(x, case[2]), da.from_array(y, case[3]))
    expected = x @ y
    assert (z.shape, z.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(z.compute(scheduler="threads"), expected)
    np.testing.assert_array_equal(z.compute(scheduler="sync"), expected)


@pytest.mark.parametrize(
    "dtypes", ["f4 f4", "f8 f4", "f2 f2", "c8 f8", "i1 i1", "u1 i4", "? ?", "g g", "O O"]
)
def test_dtypes(dtypes: str) -> None:
    x_dtype, y_dtype = dtypes.split()
    x, y = integers((50, 60), x_dtype), integers((60, 40), y_dtype)
    z = nkblas_dask.matmul(da.from_array(x, 20), y)
    expected = x @ y
    assert z.dtype == expected.dtype
    np.testing.assert_array_equal(z.compute(scheduler="threads"), expected)


def test_float16_is_rounded_once() -> None:
    x = np.ones((1, 4096), np.float16)
    x[0, :4] = 2048
    y = np.ones((4096, 1), np.float16)
    y[3] = -3
    z = nkblas_dask.matmul(da.from_array(x, (1, 2)), da.from_array(y, (2, 1))).compute(
        scheduler="sync"
    )
    assert z == np.float16(np.sum(x.astype(float) @ y.astype(float)))


def test_loads_and_fusion() -> None:
    """Blocks that are made from nothing have no tasks of their own: they are made when needed."""
    x = da.ones((100, 200), chunks=30)
    z = nkblas_dask.matmul(x, x.T + 1)
    optimized = dict(z.__dask_optimize__(z.dask, z.__dask_keys__()))
    assert len(optimized) == 16
    assert (z.compute(scheduler="threads") == 400).all()


def test_errors() -> None:
    x = da.ones((100, 200), chunks=30)
    with pytest.raises(ValueError, match=r"y: got 100 rows .*, expected 200"):
        nkblas_dask.matmul(x, x)
    with pytest.raises(ValueError, match="y: got a scalar"):
        nkblas_dask.matmul(x, 1)
    with pytest.raises(ValueError, match="x: got chunks of unknown sizes"):
        nkblas_dask.matmul(x[x[:, 0] > 0], x.T)
    with pytest.raises(ValueError, match="threads: got 0"):
        nkblas_dask.NkblasPlugin(threads=0)
    with pytest.raises(ValueError, match="nonsense"):
        nkblas_dask.NkblasPlugin(["nonsense"])


def test_sums_know_what_they_hold() -> None:
    """Tasks that run twice, in any order, on the sums or on a copy, add each product once."""
    pairs = [(integers((2, 5, 6), "f4"), integers((2, 6, 7), "f4")) for _ in range(4)]
    expected = sum(a @ b for a, b in pairs)
    sums = nkblas_dask.PartialSums(np.empty((2, 5, 7), np.float32))
    sums.add(*pairs[0], 0)
    sums.add(*pairs[1], 1)
    copy = pickle.loads(pickle.dumps(sums))
    copy.sums.flags.writeable = False
    sums.add(*pairs[2], 2)
    for number in (1, 0, 2, 3, 2, 3):
        sums.add(*pairs[number], number)
    for number in (1, 2, 3):
        copy.add(*pairs[number], number)
    np.testing.assert_array_equal(sums.sums, expected)
    np.testing.assert_array_equal(copy.sums, expected)


def test_sums_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that fails can be repeated; after an interruption the sums are not used."""
    a, b = integers((3, 5, 6), "f4"), integers((3, 6, 7), "f4")
    sums = nkblas_dask.PartialSums(np.empty((3, 5, 7), np.float32))
    calls = iter([None, MemoryError(), None, None, KeyboardInterrupt()])
    add = nkblas_dask._add_in_place

    def failing(*args: Any) -> None:
        add(*args) if (error := next(calls)) is None else (_ for _ in ()).throw(error)

    monkeypatch.setattr(nkblas_dask, "_add_in_place", failing)
    with pytest.raises(MemoryError):
        sums.add(a, b, 0)
    sums.add(a, b, 0)
    np.testing.assert_array_equal(sums.sums, a @ b)
    with pytest.raises(KeyboardInterrupt):
        sums.add(a, b, 1)
    with pytest.raises(RuntimeError, match="interrupted"):
        sums.add(a, b, 1)
    with pytest.raises(RuntimeError, match="interrupted"):
        pickle.dumps(sums)


@pytest.fixture(params=["processes", "threads"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    options = {"host": "127.0.0.1"} if request.param == "processes" else {"processes": False}
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address=None, **options
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def observe() -> tuple[int, int]:
    """Threads of a product, and whether `@` is nkblas's."""
    a, before = np.ones((8, 8), np.float32), nkblas.stats()["calls"]
    a @ a
    return nkblas.get_num_threads(), nkblas.stats()["calls"] - before


def test_cluster(client: Any) -> None:
    before = client.run(observe)
    client.register_plugin(nkblas_dask.NkblasPlugin(["90x90x90:f32"]))
    expected = max(1, cpu.cpus // 4), 1
    assert list(client.run(observe).values()) == [expected] * 2
    client.register_plugin(nkblas_dask.NkblasPlugin(threads=3))
    assert list(client.run(observe).values()) == [(3, 1)] * 2
    x, y = integers((300, 400), "f4"), integers((400, 200), "f4")
    z = nkblas_dask.matmul(da.from_array(x, 90), da.from_array(y, 70))
    np.testing.assert_array_equal(z.compute(), x @ y)
    client.unregister_worker_plugin("nkblas")
    assert client.run(observe) == before


def slow_block(block: Any) -> Any:
    import time

    time.sleep(0.02)
    return block


def test_killed_worker() -> None:
    """A worker is killed while it multiplies; it comes back, with the plugin."""
    x, y = integers((400, 1200), "f4"), integers((1200, 400), "f4")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.register_plugin(nkblas_dask.NkblasPlugin())
        processes = client.run(os.getpid)
        # blocks with tasks of their own: chains are not fused
        left = da.from_array(x, 100).map_blocks(slow_block)
        z = nkblas_dask.matmul(left, da.from_array(y, 100).map_blocks(slow_block))
        future = client.compute(z)
        victim = next(iter(processes.values()))
        deadline = distributed.metrics.time() + 60
        while not any(client.has_what().values()) and distributed.metrics.time() < deadline:
            pass
        os.kill(victim, signal.SIGKILL)
        np.testing.assert_array_equal(future.result(timeout=120), x @ y)
        client.wait_for_workers(2, timeout=60)
        assert victim not in client.run(os.getpid).values()
        assert [patched for _, patched in client.run(observe).values()] == [1, 1]


def test_exchange(tmp_path: Any) -> None:
    """A cache gets what it lacks from another one of the same machine, and nothing else."""
    nkblas.warmup(["33x34x35:f32"], tune=False, progress=False)
    target = Store(tmp_path / "cache")
    inventory = exchange.take_inventory(target, cpu)
    assert not inventory.kernels
    bundle = exchange.make_bundle(kernels.store, cpu, inventory)
    assert bundle.kernels
    assert exchange.add_bundle(target, cpu, bundle)[0] == len(bundle.kernels)
    assert exchange.take_inventory(target, cpu).kernels == bundle.kernels.keys()
    again = exchange.make_bundle(kernels.store, cpu, exchange.take_inventory(target, cpu))
    assert not again.kernels
    other = inventory._replace(machine="another-cpu")
    assert not exchange.make_bundle(kernels.store, cpu, other).kernels
    swapped = dict(zip(bundle.kernels, reversed(bundle.kernels.values()), strict=True))
    empty = Store(tmp_path / "other")
    added, _ = exchange.add_bundle(empty, cpu, bundle._replace(kernels=swapped))
    assert added == sum(bundle.kernels[key] == swapped[key] for key in swapped)


def test_plugin_reads_a_recording(tmp_path: Any) -> None:
    (tmp_path / "shapes.txt").write_text("5x6x7:f32 3\n")
    assert nkblas_dask.NkblasPlugin(tmp_path / "shapes.txt").problems == ("5x6x7:f32",)
    with pytest.raises(FileNotFoundError):
        nkblas_dask.NkblasPlugin(tmp_path / "missing.txt")


def test_nkblas_does_not_import_dask() -> None:
    program = "import nkblas, sys; sys.exit('dask' in sys.modules or 'distributed' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True, timeout=60)
