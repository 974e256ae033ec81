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
from collections.abc import Sequence
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

    def times(self, vectors: Array) -> tuple[Array, Array]:
        """The matrix times columns in float64, and the same for magnitudes."""
        parts = vectors.reshape(self.blocks, self.block, -1)
        products, bounds = np.zeros((2, *parts.shape))
        for i, k in np.ndindex(self.blocks, self.blocks):
            elements = self.read((i, k)).astype(float)
            products[i] += elements @ parts[k]
            bounds[i] += np.abs(elements) @ np.abs(parts[k])
        return products.reshape(vectors.shape), bounds.reshape(vectors.shape)

    def transposed_times(self, vectors: Array) -> tuple[Array, Array]:
        """The same for the transposed matrix."""
        parts = vectors.reshape(self.blocks, self.block, -1)
        products, bounds = np.zeros((2, *parts.shape))
        for k, j in np.ndindex(self.blocks, self.blocks):
            elements = self.read((k, j)).T.astype(float)
            products[j] += elements @ parts[k]
            bounds[j] += np.abs(elements) @ np.abs(parts[k])
        return products.reshape(vectors.shape), bounds.reshape(vectors.shape)

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


def reference(a: MatrixFile, b: MatrixFile) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """Indices of samples, these rows of A @ B (as columns), and these columns; with bounds."""
    samples = np.random.default_rng(0).integers(0, a.blocks * a.block, SAMPLES)
    rows = b.transposed_times(np.stack([a.row(i) for i in samples], axis=1))
    columns = a.times(np.stack([b.column(j) for j in samples], axis=1))
    return samples, rows, columns


def largest_error(
    c: MatrixFile, expected: tuple[Array, tuple[Array, ...], tuple[Array, ...]]
) -> float:
    """The largest error in sampled rows and columns, over k eps |A| |B|."""
    samples, (rows, row_bounds), (columns, column_bounds) = expected
    factor = c.blocks * c.block * float(np.finfo(np.float32).eps)
    errors = []
    for number, sample in enumerate(samples):
        errors += [
            np.abs(c.row(sample) - rows[:, number]) / (factor * row_bounds[:, number]),
            np.abs(c.column(sample) - columns[:, number]) / (factor * column_bounds[:, number]),
        ]
    return float(np.max(errors))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Multiply matrices larger than memory with Dask.")
    parser.add_argument("--size", type=int, default=8000, help="rows of the matrices")
    parser.add_argument("--block", type=int, default=1000, help="rows of a block")
    parser.add_argument("--memory", type=float, default=600, help="MB of all workers together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each library")
    parser.add_argument("--folder", help="where to put the files (default: a temporary folder)")
    options = parser.parse_args()
    if options.size % options.block:
        parser.error(f"--size: got {options.size}, expected a multiple of --block {options.block}")
    return options


def main() -> int:
    options = parse_options()
    block_mb = 4 * options.block**2 / MB
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        a, b, c = (
            MatrixFile(os.path.join(folder, name), options.size, options.block) for name in "abc"
        )
        a.create(seed=1)
        b.create(seed=2)
        expected = reference(a, b)
        print(
            f"{options.size} x {options.size} float32, {3 * a.blocks**2 * block_mb:,.0f} MB in "
            f"blocks of {block_mb:.1f} MB; {options.workers} workers x {options.threads} threads "
            f"with {options.memory:,.0f} MB"
        )
        seconds: dict[str, list[float]] = {"nkblas": [], "NumPy": []}
        peaks: dict[str, list[int]] = {"nkblas": [], "NumPy": []}
        errors = dict.fromkeys(seconds, 0.0)
        for _ in range(options.rounds):
            for library in seconds:
                c.create()
                elapsed, peak = measure(library, options, a, b, c)
                seconds[library].append(elapsed)
                peaks[library].append(peak)
                errors[library] = max(errors[library], largest_error(c, expected))
        rows = [
            (
                library,
                f"{min(seconds[library]):.1f} s",
                f"{2e-9 * options.size**3 / min(seconds[library]):.0f} GFLOP/s",
                f"{max(peaks[library]) / MB:,.0f} MB",
                f"{max(peaks[library]) / MB / block_mb:.1f} blocks",
                f"{errors[library]:.1e}",
            )
            for library in seconds
        ]
        for row in [("", "time", "speed", "peak memory", "", "error/bound"), *rows]:
            print("  ".join(f"{cell:>12}" for cell in row))
        print(f"nkblas is {min(seconds['NumPy']) / min(seconds['nkblas']):.2f} times as fast")
    return int(not max(errors.values()) < 1)


if __name__ == "__main__":
    sys.exit(main())
