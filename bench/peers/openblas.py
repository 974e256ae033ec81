"""The newest OpenBLAS, from the package `scipy-openblas64`: NumPy's wheels have an older one."""

import ctypes
from importlib import metadata
from typing import ClassVar

import numpy as np

from bench.operands import Array

from .cblas import CBLAS, package_library
from .contender import AbsentError, Call
from .numpy import warm_up_openblas

FLOAT32 = np.dtype(np.float32)


class OpenBLAS(CBLAS):
    """The C interface of OpenBLAS, with 64-bit sizes."""

    name = "openblas"

    SYMBOL: ClassVar = "scipy_{}64_"
    INT: ClassVar = ctypes.c_int64

    def __init__(self, threads: int) -> None:
        super().__init__(package_library("scipy-openblas64", "libscipy_openblas64_"))
        core_name = self.function("openblas_get_corename", FLOAT32)
        core_name.restype = ctypes.c_char_p
        kernels = core_name().decode()
        self.version = f"{metadata.version('scipy-openblas64')}, {kernels} kernels"

    def set_num_threads(self, threads: int) -> None:
        self.function("openblas_set_num_threads", FLOAT32)(threads)
        warm_up_openblas(lambda a, b: self._gemm(a, b, np.empty_like(a))())

    def _gemm_batch(self, a: Array, b: Array, out: Array) -> Call:
        if a.dtype.kind == "c":
            raise AbsentError("its batched products of complex numbers are wrong (0.3.34)")
        return super()._gemm_batch(a, b, out)
