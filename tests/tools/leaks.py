"""Resident memory over a long run: ``python tests/tools/leaks.py``, which is ``make leaks``.

A process multiplies in all ways, products of 10,000 shapes again and again, or of shapes that are
always new. Once a tenth of them are done, or half of those, memory must not grow any more.
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

MOST = 96
"""A side of a product."""

STEP = 345_679
"""So far apart are shapes that follow each other, among all of them: it has no common divisor with
their number."""

Shape = tuple[int, int, int]


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def shape(index: int) -> Shape:
    """m, n and k: others for each index below 884,736."""
    rest, m = divmod(index * STEP % MOST**3, MOST)
    k, n = divmod(rest, MOST)
    return m + 1, n + 1, k + 1


room = {
    dtype: np.ones(8 * MOST**2, dtype)
    for dtype in ("f4", "f8", "i1", "u1", "i4", "f2", bfloat16, "c8")
}


def matrices(dtype: Any, *shapes: tuple[int, ...]) -> list[Any]:
    """Views of the same memory: nothing is allocated for them."""
    return [room[dtype][: int(np.prod(shape))].reshape(shape) for shape in shapes]


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


def of_blas(m: int, n: int, k: int) -> object:
    return nkblas.blas.dgemm(1.0, *matrices("f8", (m, k), (k, n)))


def mistake(m: int, n: int, k: int) -> object:
    try:
        return nkblas.matmul(*matrices("f4", (m, k), (k + 1, n)))
    except ValueError as error:
        return error


def thread(m: int, n: int, k: int) -> object:
    """A product of a thread that ends after it."""
    one = threading.Thread(target=strided, args=(m, n, k))
    one.start()
    return one.join()


WAYS = [
    *(matmul(dtype) for dtype in room),
    *(stack, strided, layer, gemm, scaled, brgemm, packed, vectors, einsum, of_blas, mistake),
    thread,
]


def work(calls: int, distinct: int) -> None:
    """So many products of so many shapes, over and over; and memory after each tenth of them."""
    start = time.perf_counter()
    for tenth in range(10):
        for i in range(calls * tenth // 10, calls * (tenth + 1) // 10):
            which = i % distinct
            WAYS[which % len(WAYS)](*shape(which))
        done = calls * (tenth + 1) // 10
        told = {"calls": done, "seconds": time.perf_counter() - start, "resident": resident()}
        print(json.dumps({**told, **nkblas.stats(), "calls": done}), flush=True)


def run(calls: int, distinct: int, **changes: Any) -> list[dict[str, Any]]:
    """What memory is after each tenth of the calls, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="nkblas-leaks-") as folder:
        changes = {"NKBLAS_CACHE_DIR": folder, "OPENBLAS_NUM_THREADS": 1, **changes}
        command = [sys.executable, __file__, "--work", "--calls", str(calls)]
        command += ["--shapes", str(distinct)]
        ran = subprocess.run(
            command, env=environment(**changes), stdout=subprocess.PIPE, text=True, check=True
        )
    return list(map(json.loads, ran.stdout.splitlines()))


def growth(found: list[dict[str, Any]], tenths: int = 1) -> int:
    """Bytes, after the first tenth, or so many."""
    resident: list[int] = [each["resident"] for each in found[tenths - 1 :]]
    return max(resident) - resident[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000, help="of few shapes (1000000)")
    parser.add_argument("--shapes", type=int, default=10_000, help="that come again (10000)")
    parser.add_argument("--new", type=int, default=300_000, help="calls of new shapes (300000)")
    parser.add_argument("--most", type=float, default=1e6, help="bytes that it may grow by (1e6)")
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
        kinds = "all new" if distinct == calls else f"of {distinct} shapes"
        # What is remembered of shapes that are always new is full after a third or so.
        tenths, last = 5 if distinct == calls else 1, found[-1]
        grown = growth(found, tenths)
        print(
            f"{calls} calls, {kinds}, {last['seconds']:.0f} s: grew by {grown / 1e6:.2f} MB "
            f"after {tenths} tenths"
        )
        print("  MB:", *(f"{each['resident'] / 1e6:.2f}" for each in found))
        print(f"  kernels: {last['kernels_compiled']} compiled, {last['kernels_loaded']} loaded")
        leaks += grown > options.most
    return int(leaks > 0)


if __name__ == "__main__":
    sys.exit(main())
