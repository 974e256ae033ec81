"""`nkblas.matmul`: NumPy's gufunc machinery around the engine (see engine/gufunc.c)."""

import numpy as np

from . import _gufunc
from ._engine import ffi, lib

matmul: np.ufunc = _gufunc.bind(
    np.matmul,
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_gemm"))),
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_gemm_scaled"))),
    int(ffi.cast("uintptr_t", lib.nk_counts())),
)
