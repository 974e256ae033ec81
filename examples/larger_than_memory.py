"""A product of matrices that do not fit the memory of the workers that multiply them.

The matrices are files. The workers of a Dask cluster read them block by block, multiply them and
write the result to a file: with ``nkblas.dask.matmul`` on workers with `NkblasPlugin`, and with
``dask.array.matmul`` on NumPy, in turns, each time in a new cluster. The program prints the time of
each; the peak of the memory of all workers (sampled, without what they have when they are idle);
and the largest error in sampled rows and columns, over its bound.

Run it with ``python examples/larger_than_memory.py``. It requires the extra ``nkblas[dask]``. By
default the matrices have 8,000 rows and columns, 768 MB in all, and the workers 600 MB in all. The
big case has 4.8 GB of matrices, and takes some minutes::

    python examples/larger_than_memory.py --size 20000 --block 2500 --memory 3000 --rounds 1

The exit status is 1 if an error exceeds its bound.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import psutil
from compare import Array
from distributed import Client, LocalCluster

import nkblas.dask

SAMPLES = 4
"""Rows, and columns, of the result that are checked."""

MB = 1e6


class MatrixFile:
    """A square float32 matrix in a file, block after block.

    Parameters
    ----------
    path : str
    size, block : int
        Rows of the matrix and of its blocks.
    """

    def __init__(self, path: str, size: int, block: int) -> None:
        self.path = path
        self.block = block
        self.blocks = size // block

    def create(self, seed: int | None = None) -> None:
        """Make the file, with random numbers if there is a seed."""
        count = self.block**2
        with open(self.path, "wb") as file:
            file.truncate(4 * self.blocks**2 * count)
            if seed is not None:
                random = np.random.default_rng(seed)
                for _ in range(self.blocks**2):
                    random.standard_normal(count, np.float32).tofile(file)

    def read(self, block_id: tuple[int, int]) -> Array:
        """A block."""
        count = self.block**2
        values = np.fromfile(self.path, np.float32, count, offset=self._offset(block_id))
        return values.reshape(self.block, self.block)

    def write(self, values: Array, block_id: tuple[int, int]) -> Array:
        """Write a block; returns an array to put in its place."""
        with open(self.path, "r+b") as file:
            file.seek(self._offset(block_id))
            values.tofile(file)
        return np.ones((1, 1), bool)

    def _offset(self, block_id: tuple[int, int]) -> int:
        i, j = block_id
        return 4 * self.block**2 * (i * self.blocks + j)

    def _elements(self) -> Array:
        shape = (self.blocks, self.blocks, self.block, self.block)
        return np.memmap(self.path, np.float32, "r", shape=shape)

    def row(self, i: int) -> Array:
        """A row in float64."""
        return self._elements()[i // self.block, :, i % self.block].astype(float).ravel()

    def column(self, j: int) -> Array:
        """A column in float64."""
        return self._elements()[:, j // self.block, :, j % self.block].astype(float).ravel()

    def product(self, vector: Array, function: Callable[[Array], Array] = np.asarray) -> Array:
        """The matrix, with a function applied to its elements, times a column, in float64."""
        parts, elements = vector.reshape(self.blocks, self.block), self._elements()
        rows = [
            sum(function(elements[i, k].astype(float)) @ part for k, part in enumerate(parts))
            for i in range(self.blocks)
        ]
        return np.concatenate(rows)

    def left_product(self, vector: Array, function: Callable[[Array], Array] = np.asarray) -> Array:
        """A row times the matrix, with a function applied to its elements, in float64."""
        parts, elements = vector.reshape(self.blocks, self.block), self._elements()
        columns = [
            sum(part @ function(elements[k, j].astype(float)) for k, part in enumerate(parts))
            for j in range(self.blocks)
        ]
        return np.concatenate(columns)

    def as_dask(self) -> Any:
        """The matrix as a Dask array."""
        chunks = ((self.block,) * self.blocks,) * 2
        return da.map_blocks(
            self.read, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), "f4")
        )


class PeakMemory(threading.Thread):
    """Samples the memory of processes, all together, in bytes."""

    def __init__(self, processes: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self.processes = [psutil.Process(process) for process in processes]
        self.idle = self.peak = self.sample()
        self.ended = threading.Event()
        self.start()

    def sample(self) -> int:
        """Their memory without pages of files."""
        infos = [process.memory_info() for process in self.processes]
        return int(sum(info.rss - info.shared for info in infos))

    def run(self) -> None:
        while not self.ended.wait(0.01):
            self.peak = max(self.peak, self.sample())

    def stop(self) -> int:
        """The peak, without the memory at the start."""
        self.ended.set()
        self.join()
        return self.peak - self.idle


def measure(
    library: str, options: argparse.Namespace, a: MatrixFile, b: MatrixFile, c: MatrixFile
) -> tuple[float, int]:
    """Multiply in a cluster; returns seconds and the peak of memory."""
    matmul = nkblas.dask.matmul if library == "nkblas" else da.matmul
    with (
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=options.threads,
            memory_limit=int(options.memory * MB / options.workers),
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        if library == "nkblas":
            problem = (options.block,) * 3
            client.register_plugin(nkblas.dask.NkblasPlugin(warmup=[(*problem, "float32")]))
        product = matmul(a.as_dask(), b.as_dask())
        written = product.map_blocks(
            c.write, chunks=(1, 1), dtype=bool, meta=np.empty((0, 0), bool)
        )
        memory = PeakMemory(list(client.run(os.getpid).values()))
        start = time.perf_counter()
        assert written.all().compute()
        return time.perf_counter() - start, memory.stop()


def largest_error(a: MatrixFile, b: MatrixFile, c: MatrixFile) -> float:
    """The largest error of sampled rows and columns of C over k eps |A| |B|."""
    size = a.blocks * a.block
    worst = 0.0
    for i in np.random.default_rng(0).integers(0, size, SAMPLES):
        for got, exact, bound in (
            (c.row(i), b.left_product(a.row(i)), b.left_product(abs(a.row(i)), np.abs)),
            (c.column(i), a.product(b.column(i)), a.product(abs(b.column(i)), np.abs)),
        ):
            bound = size * np.finfo(np.float32).eps * bound
            worst = max(worst, float(np.max(np.abs(got - exact) / bound)))
    return worst


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--size", type=int, default=8000, help="rows and columns of the matrices (default 8000)")
    add("--block", type=int, default=1000, help="rows and columns of a block (default 1000)")
    add("--workers", type=int, default=2, help="processes (default 2)")
    add("--threads", type=int, default=1, help="threads of each (default 1)")
    add("--memory", type=float, default=600, help="MB for all workers together (default 600)")
    add("--rounds", type=int, default=2, help="products with each library (default 2)")
    options = parser.parse_args()
    if options.size % options.block:
        parser.error(f"--size: got {options.size}, expected a multiple of --block {options.block}")
    block_bytes, threads = 4 * options.block**2, options.workers * options.threads
    with tempfile.TemporaryDirectory() as folder:
        files = [MatrixFile(f"{folder}/{x}", options.size, options.block) for x in "abc"]
        files[0].create(seed=0)
        files[1].create(seed=1)
        rows = []
        for _ in range(options.rounds):
            for library in ("nkblas", "numpy"):
                files[2].create()
                seconds, peak = measure(library, options, *files)
                error = largest_error(*files)
                rows.append((library, seconds, peak, error))
                print(
                    f"{library:7} {seconds:6.1f} s   peak of memory {peak / MB:6.0f} MB, "
                    f"{peak / block_bytes / threads:4.1f} blocks for each thread   "
                    f"error {error:.3f} of its bound",
                    flush=True,
                )
    times = [min(row[1] for row in rows if row[0] == name) for name in ("numpy", "nkblas")]
    print(f"dask.array.matmul on NumPy takes {times[0] / times[1]:.2f} times as long")
    sys.exit(any(row[3] > 1 for row in rows))


if __name__ == "__main__":
    main()
