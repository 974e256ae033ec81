"""Intel's MKL, through its C interface."""

import ctypes
from functools import partial
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from bench.operands import Array

from .cblas import CBLAS, ROW_MAJOR, package_library, with_copies
from .contender import AbsentError, Call, load_library


class MKL(CBLAS):
    """The C interface of the `mkl` package.

    For small matrices ``mkl_jit_create_?gemm``, which generates a kernel for the shape; where it
    does not (perhaps for another vendor's CPU), it is ``cblas_?gemm`` with fewer arguments. Half
    precision and integers have only a gemm.
    """

    name = "mkl"

    GEMMS: ClassVar = {
        ("float16", "float16", "float16"): "cblas_hgemm",
        ("float16", "float16", "float32"): "cblas_gemm_f16f16f32",
        ("bfloat16", "bfloat16", "float32"): "cblas_gemm_bf16bf16f32",
        ("uint8", "int8", "int32"): "cblas_gemm_s8u8s32",  # s8u8 in column-major order
        ("int8", "int8", "int32"): "cblas_gemm_s8u8s32",
    }
    """Functions without a gemv and a batched variant, by the dtypes of A, B and C."""

    ONE_OFFSET = 173
    LP64, SEQUENTIAL, GNU = 0, 1, 3
    MAX_JIT_SIDE = 64
    """Largest dimension for which MKL is asked to generate a kernel."""

    def __init__(self, threads: int) -> None:
        super().__init__(package_library("mkl", "libmkl_rt.so"))
        self.version = metadata.version("mkl")
        self.library.MKL_Set_Interface_Layer(self.LP64)
        # GNU's OpenMP runtime, as PyTorch: with Intel's, its default, MKL computes wrong products
        # in a process that has loaded GNU's.
        if threads > 1:
            load_library("libgomp.so.1")
        self.library.MKL_Set_Threading_Layer(self.GNU if threads > 1 else self.SEQUENTIAL)

    def set_num_threads(self, threads: int) -> None:
        self.library.MKL_Set_Num_Threads(threads)

    def _makers(self, shape: tuple[int, ...], k: int) -> dict[str, Any]:
        has_jit = max(*shape, k) <= self.MAX_JIT_SIDE
        return super()._makers(shape, k) | ({"jit": self._gemm_jit} if has_jit else {})

    def _product(self, a: Array, b: Array, out: Array) -> Call:
        if (a.dtype, out.dtype) != (np.int8, np.int32):
            return super()._product(a, b, out)
        unsigned = np.empty_like(a, np.uint8)
        add_128 = partial(np.bitwise_xor, a.view(np.uint8), np.uint8(128), out=unsigned)
        return with_copies([add_128], self._gemm_only(unsigned, b, out, -128))

    def _call(self, a: Array, b: Array, out: Array) -> Call:
        if not self.supports(a, b, out):
            return self._gemm_only(a, b, out, 0)
        if out.ndim == 2 and max(*out.shape, a.shape[1]) <= self.MAX_JIT_SIDE:
            return self._gemm_jit(a, b, out)
        return super()._call(a, b, out)

    def _gemm_only(self, a: Array, b: Array, out: Array, shift: int) -> Call:
        name = self.GEMMS.get((a.dtype.name, b.dtype.name, out.dtype.name))
        if name is None or out.ndim == 3:
            raise AbsentError("has no such function")
        if out.ndim == 1:
            a, b = (a.reshape(1, -1), b) if a.ndim == 1 else (a, b.reshape(-1, 1))
            out = out.reshape(len(a), b.shape[1])
        (trans_a, lda), (trans_b, ldb) = self.describe(a), self.describe(b)
        (m, n), k = out.shape, a.shape[1]
        head = (ROW_MAJOR, trans_a, trans_b)
        if out.dtype != np.int32:
            return self.prepare(name, out.dtype, *head, m, n, k, 1.0, a, lda, b, ldb, 0.0, out, n)
        offset = np.zeros(1, np.int32)
        return self.prepare(
            name, np.dtype(np.float32), *head, self.ONE_OFFSET, m, n, k,
            1.0, a, lda, shift, b, ldb, 0, 0.0, out, n, offset,
        )  # fmt: skip

    def _gemm_jit(self, a: Array, b: Array, out: Array, beta: float = 0.0) -> Call:
        (trans_a, lda), (trans_b, ldb) = self.describe(a), self.describe(b)
        (m, n), k = out.shape, a.shape[1]
        jitter = ctypes.c_void_p()
        self.prepare(
            "mkl_cblas_jit_create_?gemm", a.dtype, ctypes.byref(jitter),
            ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0, lda, ldb, beta, n,
        )()  # fmt: skip
        get = self.function("mkl_jit_get_?gemm_ptr", a.dtype)
        get.restype = ctypes.c_void_p
        kernel = ctypes.CFUNCTYPE(None)(get(jitter))
        # the pointers from `data_as` keep the arrays alive
        return partial(kernel, jitter, *(x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, out)))
