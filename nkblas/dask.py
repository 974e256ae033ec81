"""Products of Dask arrays, and a plugin that puts nkblas on the workers of a Dask cluster.

It needs the extra ``nkblas[dask]``. ``import nkblas`` does not import it, nor Dask.
"""

import asyncio
import contextlib
import os
import pickle
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

try:
    import dask.array as da
    import distributed
    from dask.base import tokenize
    from dask.blockwise import Blockwise, optimize_blockwise
    from dask.highlevelgraph import HighLevelGraph
    from dask.sizeof import sizeof
except ImportError as error:
    raise ImportError(f"nkblas.dask: {error}: pip install 'nkblas[dask]'") from error

from nkblas.api import gufuncs
from nkblas.api.gemm import gemm
from nkblas.api.operands import Array, DType
from nkblas.api.patch import patched
from nkblas.base.dtypes import FLOAT8
from nkblas.cache import exchange
from nkblas.inspect.record import Recording
from nkblas.inspect.tune import to_problem, warmup
from nkblas.planning.microarchitecture import machine
from nkblas.runtime.kernels import kernels
from nkblas.runtime.threads import get_num_threads, set_num_threads
from nkblas.system import config
from nkblas.system.cpu import cpu
from nkblas.system.log import log

__all__ = ["NkblasPlugin", "matmul"]

NARROW = ("float16", "bfloat16", *FLOAT8)
"""Dtypes whose partial sums are kept in float32."""

PEER_SECONDS = 60.0
"""Timeout for kernels and plans that a worker requests from other workers, in seconds."""


def matmul(x: Any, y: Any) -> Any:
    """Matrix product of Dask arrays, as `dask.array.matmul`, with less memory.

    Each block of the result is one array, to which the products of pairs of blocks are added in
    place: ``gemm(a, b, c, beta=1, out=c)``. `dask.array.matmul` makes an array of each of these
    products, and adds them up later. A worker thread needs memory for three blocks: the sums, and
    the two blocks that it multiplies. All of Dask's schedulers run it, distributed ones with any
    workers: if nkblas is installed there, they need no `NkblasPlugin`.

    Parameters
    ----------
    x, y : array_like
        Operands as for `numpy.matmul`: with one dimension or more, and leading dimensions that are
        broadcast. What is no Dask array is converted to one. Chunks of `x` and `y` along a common
        dimension that differ are divided further.

        Blocks that come from a loading function (`dask.array.map_blocks` without array arguments,
        say), and from functions of single elements after it, are loaded for each block of the
        result again, and not kept in memory: what Dask does with a function that has one user.
        ``x.persist()`` keeps them.

    Returns
    -------
    dask.array.Array
        Its dtype is that of `numpy.matmul`; sums of float16 and of bfloat16 are kept in float32 and
        rounded once. Each block is a sum in the order of the blocks: the same bits on every run,
        whichever workers did it, if their plans are the same.

    Raises
    ------
    ValueError
        The shapes do not fit, an operand has no dimension, or sizes of chunks are unknown.
    TypeError
        `numpy.matmul` can't multiply these dtypes.

    Notes
    -----
    The sums of a block stay correct if a task runs twice, because a worker was lost or its result
    was dropped: they know which products they hold already. Arrays whose blocks are not NumPy's
    (sparse ones, or those of a GPU) are left to `dask.array.matmul`.

    See Also
    --------
    nkblas.matmul : the product of NumPy arrays.
    nkblas.dask.NkblasPlugin : puts nkblas under NumPy on the workers.

    Examples
    --------
    >>> import dask.array as da, nkblas.dask
    >>> x = da.ones((1000, 2000), chunks=500)
    >>> z = nkblas.dask.matmul(x, x.T)
    >>> z.chunks
    ((500, 500), (500, 500))
    >>> z[0, :2].compute()
    array([2000., 2000.])
    """
    x, y = _to_dask("x", x), _to_dask("y", y)
    dtype = gufuncs.matmul(np.empty((0, 0), x.dtype), np.empty((0, 0), y.dtype)).dtype
    if x.shape[-1] != (rows := y.shape[max(0, y.ndim - 2)]):
        raise ValueError(
            f"y: got {rows} rows (shape {y.shape}), expected {x.shape[-1]} to multiply x of shape "
            f"{x.shape}"
        )
    np.broadcast_shapes(x.shape[:-2], y.shape[:-2])  # or NumPy's error
    if any(type(array._meta) is not np.ndarray for array in (x, y)):
        return da.matmul(x, y)
    x_axes, y_axes, axes = _axes(x.ndim, y.ndim)
    sizes, (x, y) = da.core.unify_chunks(x, x_axes, y, y_axes)
    chunks = tuple(sizes[axis] for axis in axes)
    name = f"nkblas-matmul-{tokenize(x, y)}"
    loads = [_loading_tasks(x), _loading_tasks(y)]
    graph: dict[Any, Any] = {}
    for block in product(*(range(len(x)) for x in chunks)):
        place = dict(zip(axes, block, strict=True))
        pairs = []
        for place["k"] in range(len(sizes["k"])):
            keys = _block_key(x, x_axes, place), _block_key(y, y_axes, place)
            pairs.append(tuple(tasks.get(key, key) for key, tasks in zip(keys, loads, strict=True)))
        graph.update(_chain(name, block, pairs, dtype))
    inputs = [array for array, tasks in zip((x, y), loads, strict=True) if not tasks]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=inputs)
    return da.Array(layers, name, chunks, dtype=dtype)


def _to_dask(name: str, value: Any) -> Any:
    """The operand as a Dask array.

    Raises
    ------
    ValueError
        It is a scalar, or the sizes of its chunks are unknown.
    """
    array = da.asanyarray(value)
    if not array.ndim:
        raise ValueError(f"{name}: got a scalar, expected an array with a dimension")
    if not np.isfinite(array.shape).all():
        raise ValueError(
            f"{name}: got chunks of unknown sizes, {array.chunks}, expected known ones: "
            f"{name}.compute_chunk_sizes() finds them"
        )
    return array


def _axes(x_ndim: int, y_ndim: int) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Names of the dimensions of x, y and their product.

    ``"m"``, ``"n"`` and ``"k"``, and for those of a stack their distance from the last one.
    """
    x_stack = tuple(range(x_ndim - 3, -1, -1))
    y_stack = tuple(range(y_ndim - 3, -1, -1))
    x_axes = (*x_stack, "m", "k") if x_ndim > 1 else ("k",)
    y_axes = (*y_stack, "k", "n") if y_ndim > 1 else ("k",)
    result_axes = (*max(x_stack, y_stack, key=len), *x_axes[-2:-1], *y_axes[-1:])
    return x_axes, y_axes, tuple(axis for axis in result_axes if axis != "k")


def _block_key(array: Any, axes: tuple[Any, ...], place: dict[Any, int]) -> tuple[Any, ...]:
    """The key of the block at a place; a dimension with one block serves all places."""
    blocks = zip(axes, array.numblocks, strict=True)
    return (array.name, *(place[axis] if count > 1 else 0 for axis, count in blocks))


def _loading_tasks(array: Any) -> dict[Any, Any]:
    """The tasks of an array's blocks if they depend on no others; else none.

    Other tasks are Dask's to order: it keeps their results until the last product has used them.
    """
    graph = optimize_blockwise(array.dask, keys=[array.name])
    layer = graph.layers.get(array.name)
    if not isinstance(layer, Blockwise) or layer.annotations:
        return {}
    return {} if graph.dependencies.get(array.name) else dict(layer)


def _chain(
    name: str, index: tuple[int, ...], pairs: list[tuple[Any, Any]], dtype: DType
) -> Iterator[tuple[Any, Any]]:
    """The tasks of one block of the result: a chain along k.

    Parameters
    ----------
    name : str
        Of the product.
    index : tuple of int
        Of the block.
    pairs : list of (object, object)
        Keys or tasks for the blocks to multiply.
    dtype : dtype
        Of the product.
    """
    previous: Any = None
    for number, (a, b) in enumerate(pairs[:-1]):
        key = (f"{name}-sums", *index, number)
        yield key, (partial(_add_product, number=number, dtype=dtype), previous, a, b)
        previous = key
    last = partial(_last_product, number=len(pairs) - 1, dtype=dtype)
    yield (name, *index), (last, previous, *pairs[-1])


class PartialSums:
    """A block of the result, and how many of its products it holds.

    All tasks of a chain return the same object, so an earlier task's result also has the products
    of later ones. A task that runs again, on it or on a copy, adds what is missing. That is why
    the order of the sum is fixed, and why copies are made while nothing is being added.

    Parameters
    ----------
    sums : ndarray
        Shape ``(..., m, n)``.
    added : int
        Number of products of matrices that `sums` has: for each pair of blocks as many as there
        are matrices in a stack.
    """

    def __init__(self, sums: Array, added: int = 0) -> None:
        self.sums = sums
        self.added = added
        self._is_intact = True
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        with self._lock:
            self._require_intact()
            return PartialSums, (self.sums.copy(), self.added)

    def add(self, a: Array, b: Array, number: int) -> None:
        """Add the product of the pair of blocks with this number, unless it has been added."""
        with self._lock:
            self._require_intact()
            stack = self.sums.shape[:-2]
            a = np.broadcast_to(a, stack + a.shape[-2:])
            b = np.broadcast_to(b, stack + b.shape[-2:])
            before = number * int(np.prod(stack))
            if self.added < before:
                raise RuntimeError(f"number: got {number}, expected at most {self.added} products")
            if not self.sums.flags.writeable:  # received from another worker
                self.sums = self.sums.copy()
            for done, matrix in enumerate(np.ndindex(stack), before + 1):
                if self.added < done:
                    self._is_intact = False
                    try:
                        _add_in_place(a[matrix], b[matrix], self.sums[matrix], number)
                    except Exception:
                        self._is_intact = True  # no sum is changed by a product that fails
                        raise
                    self.added = done
                    self._is_intact = True

    def _require_intact(self) -> None:
        if not self._is_intact:
            raise RuntimeError("an addition to these sums was interrupted: compute them again")


@sizeof.register(PartialSums)  # type: ignore[untyped-decorator]
def _size_of_sums(total: PartialSums) -> int:
    return total.sums.nbytes


def _add_in_place(a: Array, b: Array, sums: Array, number: int) -> None:
    """``sums += a @ b``; the first product is stored."""
    if sums.dtype == bool:
        products = gufuncs.matmul(a, b)
        np.logical_or(products, sums if number else False, out=sums)
    elif number:
        gemm(a, b, sums, beta=1, out=sums, out_dtype=sums.dtype)
    else:
        gemm(a, b, out=sums, out_dtype=sums.dtype)


def _add_product(
    total: PartialSums | None, a: Any, b: Any, number: int, dtype: DType
) -> PartialSums:
    """A task: add the product of two blocks to the sums; the first one makes them."""
    left = a[np.newaxis] if a.ndim == 1 else a
    right = b[:, np.newaxis] if b.ndim == 1 else b
    if total is None:
        stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        shape = (*stack, left.shape[-2], right.shape[-1])
        total = PartialSums(np.empty(shape, np.float32 if dtype.name in NARROW else dtype))
    total.add(left, right, number)
    return total


def _last_product(total: PartialSums | None, a: Any, b: Any, number: int, dtype: DType) -> Array:
    """The last task of a block: the sums as an array of the dimensions of the result."""
    sums = _add_product(total, a, b, number, dtype).sums.astype(dtype, copy=False)
    sums = sums[..., 0] if b.ndim == 1 else sums
    return sums[..., 0] if a.ndim == b.ndim == 1 else sums[..., 0, :] if a.ndim == 1 else sums


class NkblasPlugin(distributed.WorkerPlugin):  # type: ignore[misc]
    """Plugin for the workers of a Dask cluster: NumPy's products there are nkblas's.

    On each worker it

    - patches NumPy, as `nkblas.patch`, and undoes that when the plugin is removed;
    - sets the number of threads of a product so that all workers of a host together use its CPUs
      once: the CPUs divided by the threads of its workers;
    - fetches the kernels and tuned plans that other workers with the same CPU model have (those of
      one host share a cache folder anyway);
    - compiles the kernels for the problems of a workload, and measures plans for them if asked to:
      one worker for each CPU model, from which the others fetch them.

    Workers that join later, or come back after they were killed, do the same.

    Parameters
    ----------
    warmup : path_like, Recording or iterable, optional
        Problems to prepare for: the file of a recording (``nkblas run --record``,
        `Recording.save`), read here; or what `nkblas.warmup` takes.
    tune : bool, default False
        Whether to measure plans for them, about 4 s for each: the cluster's first worker with a CPU
        model does it, while the other ones wait.
    threads : int, optional
        How many threads a product may use on a worker, instead of the above. If it is not given,
        ``NKBLAS_NUM_THREADS`` in the worker's environment counts.

    Raises
    ------
    ValueError, TypeError
        `warmup` has something that is no problem, or `threads` is no positive integer.
    OSError
        The file can't be read.

    See Also
    --------
    nkblas.dask.matmul : products of Dask arrays that need less memory.
    nkblas.record : collects the problems of a workload.

    Examples
    --------
    >>> from nkblas.dask import NkblasPlugin
    >>> plugin = NkblasPlugin(warmup=["2500x2500x2500:f32"])
    >>> client.register_plugin(plugin)  # doctest: +SKIP
    """

    name = "nkblas"

    def __init__(self, warmup: Any = (), *, tune: bool = False, threads: int | None = None) -> None:
        if isinstance(warmup, str | os.PathLike):
            warmup = Recording.load(warmup)
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads: got {threads!r}, expected an integer above 0")
        self.problems = tuple(str(to_problem(problem)) for problem in warmup)
        self.tune = tune
        self.threads = threads
        self._patches: dict[str, contextlib.ExitStack] = {}  # by worker: in one process are several

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_plugin, (self.problems, self.tune, self.threads)

    async def setup(self, worker: Any) -> None:
        """Prepare a worker: Dask calls it when one has joined."""
        _limits.add(worker.id, self.threads)
        with contextlib.ExitStack() as stack:
            stack.enter_context(patched())
            self._patches[worker.id] = stack.pop_all()
        if worker.status == distributed.Status.init:
            # workers that are starting do not answer each other yet
            worker.loop.add_callback(self._cooperate, worker)
        else:
            await self._cooperate(worker)

    async def _cooperate(self, worker: Any) -> None:
        """Share CPUs, kernels and plans with the other workers, and warm up."""
        await _share_cpus(worker)
        name = f"nkblas-{machine(cpu)}"
        async with distributed.Lock(name, scheduler_rpc=worker.scheduler, loop=worker.loop):
            await _fetch_from_peers(worker)
            if self.problems:
                await asyncio.to_thread(self._warm_up)

    def teardown(self, worker: Any) -> None:
        """Undo `setup`: Dask calls it when a worker is closed, or the plugin is removed."""
        self._patches.pop(worker.id, contextlib.ExitStack()).close()
        _limits.remove(worker.id)

    def _warm_up(self) -> None:
        try:
            warmup(self.problems, tune=self.tune, progress=False)
        except RuntimeError as error:  # without a compiler, products are left to NumPy
            log("warning", f"NkblasPlugin: no warm-up: {error}")


def _make_plugin(problems: tuple[str, ...], tune: bool, threads: int | None) -> NkblasPlugin:
    return NkblasPlugin(problems, tune=tune, threads=threads)


class _ThreadLimits:
    """The number of threads of a product, in a process with workers that have the plugin."""

    def __init__(self) -> None:
        self._limits: dict[str, int | None] = {}
        self._before = 0

    def add(self, worker: str, limit: int | None) -> None:
        """A worker of this process has got the plugin, with a limit of its own or None."""
        if not self._limits:
            self._before = get_num_threads()
        self._limits[worker] = limit or config.chosen_num_threads()

    def remove(self, worker: str) -> None:
        """The plugin has been removed from a worker: without any, the number is as before."""
        if self._limits.pop(worker, 0) != 0 and not self._limits:
            set_num_threads(self._before)

    def update(self, host_threads: int) -> None:
        """Share the CPUs with all threads of this host's workers."""
        if self._limits:
            limits = [limit for limit in self._limits.values() if limit]
            set_num_threads(min(limits) if limits else max(1, cpu.cpus // host_threads))


_limits = _ThreadLimits()


async def _workers(worker: Any) -> dict[str, dict[str, Any]]:
    """The scheduler's workers by address: their hosts and threads."""
    identity = await worker.scheduler.identity()
    return dict(identity["workers"])


async def _run_on(
    worker: Any, addresses: Collection[str], function: Callable[..., Any], *args: Any
) -> list[Any]:
    """The results of a function on other workers, in their processes; failures are left out."""
    if not addresses:
        return []
    message = {"op": "run", "function": pickle.dumps(function), "args": pickle.dumps(args)}
    answers = worker.scheduler.broadcast(msg=message, workers=list(addresses), on_error="ignore")
    results = await asyncio.wait_for(answers, PEER_SECONDS)
    return [answer["result"] for answer in results.values() if answer["status"] == "OK"]


async def _share_cpus(worker: Any) -> None:
    """Divide the CPUs of a host anew among its workers.

    Those that are starting do so themselves.
    """
    workers = await _workers(worker)
    host = workers[worker.address]["host"]
    of_host = {address: x for address, x in workers.items() if x["host"] == host}
    total = sum(x["nthreads"] for x in of_host.values())
    _limits.update(total)
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        await _run_on(worker, _running(of_host, worker), _limits_update, total)


def _running(workers: dict[str, dict[str, Any]], worker: Any) -> list[str]:
    """The addresses of the workers that answer messages, but for this one."""
    return [
        address
        for address, x in workers.items()
        if address != worker.address and x.get("status") == "running"
    ]


def _limits_update(host_threads: int) -> None:
    _limits.update(host_threads)


async def _fetch_from_peers(worker: Any) -> None:
    """Fetch kernels and plans from a worker of each other host, if its CPU is the same model."""
    workers = await _workers(worker)
    own = workers.pop(worker.address)["host"]
    running = _running(workers, worker)
    peers = {workers[x]["host"]: x for x in running if workers[x]["host"] != own}
    if not peers:
        return
    try:
        inventory = await asyncio.to_thread(exchange.take_inventory, kernels.store, cpu)
        for bundle in await _run_on(worker, peers.values(), _make_bundle, inventory):
            counts = await asyncio.to_thread(exchange.add_bundle, kernels.store, cpu, bundle)
            log("info", f"NkblasPlugin: fetched {counts[0]} kernels and {counts[1]} plans")
    except (OSError, TimeoutError, asyncio.TimeoutError) as error:
        log("warning", f"NkblasPlugin: nothing fetched from other workers: {error!r}")


async def _make_bundle(inventory: exchange.Inventory) -> exchange.Bundle:
    return await asyncio.to_thread(exchange.make_bundle, kernels.store, cpu, inventory)
