"""AMD's AOCL-BLAS, which is based on BLIS, from the package `aoclda`."""

import ctypes
from importlib import metadata

import numpy as np

from bench.operands import Array

from .cblas import CBLAS, ROW_MAJOR, package_library
from .contender import Call


class AOCL(CBLAS):
    """The C interface of AOCL-BLAS.

    A batch is a group of products of one size (``cblas_?gemm_batch``).
    """

    name = "aocl"

    def __init__(self, threads: int) -> None:
        package_library("aoclda", "libomp-", ctypes.RTLD_GLOBAL)  # its OpenMP runtime
        super().__init__(package_library("aoclda", "libblis-mt-"))
        self.version = f"of aoclda {metadata.version('aoclda')}"

    def set_num_threads(self, threads: int) -> None:
        self.function("bli_thread_set_num_threads", np.dtype(np.float32))(ctypes.c_int64(threads))

    def _gemm_batch(self, a: Array, b: Array, out: Array) -> Call:
        (trans_a, lda), (trans_b, ldb) = self.describe(a), self.describe(b)
        (batch, m, n), k = out.shape, a.shape[2]

        def ints(x: int) -> Array:
            return np.array([x], self.INT)

        def addresses(x: Array) -> Array:
            return np.array([matrix.ctypes.data for matrix in x], np.uintp)

        one, zero = (np.array([x], a.dtype) for x in (1, 0))
        return self.prepare(
            "cblas_?gemm_batch", a.dtype, ROW_MAJOR, ints(trans_a), ints(trans_b),
            ints(m), ints(n), ints(k), one, addresses(a), ints(lda), addresses(b), ints(ldb),
            zero, addresses(out), ints(n), 1, ints(batch),
        )  # fmt: skip
