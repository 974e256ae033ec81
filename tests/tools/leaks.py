"""Check resident memory over a long run: ``python tests/tools/leaks.py`` or ``make leaks``.

A process calls all public functions, either with 10,000 shapes in turn, or with a new shape in each
call. Resident memory must not grow after the first tenth of the calls, or after half of them if
shapes are new.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from support import environment

import nkblas

PAGE = os.sysconf("SC_PAGE_SIZE")

HUGE_PAGE = 2 << 20

MAX_LENGTH = 96
"""The largest m, n and k."""

SHAPE_STEP = 345_679
"""Distance of successive shapes in the list of all shapes; coprime to their number."""

Shape = tuple[int, int, int]


def resident() -> int:
    """Resident bytes of this process."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def shape(index: int) -> Shape:
    """(m, n, k), different for each index below 884,736."""
    rest, m = divmod(index * SHAPE_STEP % MAX_LENGTH**3, MAX_LENGTH)
    k, n = divmod(rest, MAX_LENGTH)
    return m + 1, n + 1, k + 1


buffers = {
    dtype: np.ones(8 * MAX_LENGTH**2, dtype)
    for dtype in ("f4", "f8", "i1", "u1", "i4", "f2", bfloat16, "c8")
}


def matrices(dtype: Any, *shapes: tuple[int, ...]) -> list[Any]:
    """Matrices of ones as views of one buffer, so that no memory is allocated."""
    return [buffers[dtype][: int(np.prod(shape))].reshape(shape) for shape in shapes]


def matmul(dtype: Any) -> Callable[[int, int, int], object]:
    def multiply(m: int, n: int, k: int) -> object:
        return nkblas.matmul(*matrices(dtype, (m, k), (k, n)))

    return multiply


def stack(m: int, n: int, k: int) -> object:
    return nkblas.matmul(*matrices("f4", (3, m, k), (3, k, n)))


def strided(m: int, n: int, k: int) -> object:
    a, b = matrices("f8", (2 * m, k), (n, k))
    return nkblas.matmul(a[::2], b.T)


def layer(m: int, n: int, k: int) -> object:
    a, b, bias, c = matrices("f4", (m, k), (k, n), (n,), (m, n))
    return nkblas.gemm(a, b, bias=bias, activation="relu", residual=c)


def gemm(m: int, n: int, k: int) -> object:
    a, b, c = matrices("f8", (m, k), (n, k), (m, n))
    return nkblas.gemm(a, b, c, alpha=2, beta=3, trans_b=True)


def scaled(m: int, n: int, k: int) -> object:
    return nkblas.gemm(*matrices("i1", (m, k), (k, n)), scale=0.5, out_dtype=np.int8)


def brgemm(m: int, n: int, k: int) -> object:
    return nkblas.brgemm(*matrices("f4", (2, m, k), (2, k, n)))


def packed(m: int, n: int, k: int) -> object:
    a, b = matrices("f4", (m, k), (k, n))
    return a @ nkblas.pack(b)


def vectors(m: int, n: int, k: int) -> object:
    a, x = matrices("f4", (m + 7 * n, k), (k,))
    return nkblas.dot(a, x)


def einsum(m: int, n: int, k: int) -> object:
    return nkblas.einsum("ij,kj->ik", *matrices("f4", (m, k), (n, k)))


def blas_gemm(m: int, n: int, k: int) -> object:
    return nkblas.blas.dgemm(1.0, *matrices("f8", (m, k), (k, n)))


def mistake(m: int, n: int, k: int) -> object:
    try:
        return nkblas.matmul(*matrices("f4", (m, k), (k + 1, n)))
    except ValueError as error:
        return error


def thread(m: int, n: int, k: int) -> object:
    """A product in a thread that ends after it."""
    one = threading.Thread(target=strided, args=(m, n, k))
    one.start()
    one.join()
    return one


CALLS = [
    *(matmul(dtype) for dtype in buffers),
    *(stack, strided, layer, gemm, scaled, brgemm, packed, vectors, einsum, blas_gemm, mistake),
    thread,
]


def work(calls: int, distinct: int) -> None:
    """Make calls with `distinct` shapes in turn, and print the memory after each tenth of them."""
    start = time.perf_counter()
    for tenth in range(10):
        for i in range(calls * tenth // 10, calls * (tenth + 1) // 10):
            index = i % distinct
            CALLS[index % len(CALLS)](*shape(index))
        done = calls * (tenth + 1) // 10
        progress = {"calls": done, "seconds": time.perf_counter() - start, "resident": resident()}
        print(json.dumps({**progress, **nkblas.stats(), "calls": done}), flush=True)


def run(calls: int, distinct: int, **changes: Any) -> list[dict[str, Any]]:
    """The memory after each tenth of the calls, in a process with a cache folder of its own."""
    with tempfile.TemporaryDirectory(prefix="nkblas-leaks-") as folder:
        changes = {"NKBLAS_CACHE_DIR": folder, "OPENBLAS_NUM_THREADS": 1, **changes}
        command = [sys.executable, __file__, "--work", "--calls", str(calls)]
        command += ["--shapes", str(distinct)]
        ran = subprocess.run(
            command, env=environment(**changes), stdout=subprocess.PIPE, text=True, check=True
        )
    return list(map(json.loads, ran.stdout.splitlines()))


def growth(found: list[dict[str, Any]], tenths: int = 1) -> int:
    """Growth of the resident bytes after `tenths` tenths of the calls.

    A thread's packing buffer, one huge page, is allocated when the thread first packs, which
    happens late if the machine is busy. It is no leak: one for each thread is left out, as far as
    the growth was not steady (the median growth per tenth, times their number).
    """
    sizes: list[int] = [each["resident"] for each in found[tenths - 1 :]]
    growths = np.diff(sizes)
    steady = int(np.median(growths) * len(growths))
    return max(steady, max(sizes) - sizes[0] - HUGE_PAGE * nkblas.get_num_threads())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--calls", type=int, default=1_000_000, help="calls with few shapes (1000000)"
    )
    parser.add_argument("--shapes", type=int, default=10_000, help="number of those shapes (10000)")
    parser.add_argument("--new", type=int, default=300_000, help="calls with new shapes (300000)")
    parser.add_argument(
        "--most", type=float, default=1e6, help="bytes of growth that are no leak (1e6)"
    )
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.calls, options.shapes)
        return 0
    leaks = 0
    for calls, distinct in ((options.calls, options.shapes), (options.new, options.new)):
        if not calls:
            continue
        found = run(calls, distinct)
        shapes = "all new" if distinct == calls else f"of {distinct} shapes"
        # the tables of shapes are full after about a third of the new shapes
        tenths, last = 5 if distinct == calls else 1, found[-1]
        grown = growth(found, tenths)
        print(
            f"{calls} calls, {shapes}, {last['seconds']:.0f} s: grew by {grown / 1e6:.2f} MB "
            f"after {tenths} tenths"
        )
        print("  MB:", *(f"{each['resident'] / 1e6:.2f}" for each in found))
        print(f"  kernels: {last['kernels_compiled']} compiled, {last['kernels_loaded']} loaded")
        leaks += grown > options.most
    return int(leaks > 0)


if __name__ == "__main__":
    sys.exit(main())
