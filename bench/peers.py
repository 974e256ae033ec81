"""The contenders: nkblas and the libraries it is measured against, one class for each.

A contender is made for a number of threads, and raises `AbsentError` if it can't be had. `bind`
prepares one product as a call without arguments, all of which write into the same `out`.
"""

import ctypes
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any, Protocol

import numpy as np

import nkblas

Array = np.ndarray[Any, Any]
Call = Callable[[], object]


class AbsentError(RuntimeError):
    """A contender is not to be had here; the message says why."""


class Contender(Protocol):
    """What the classes below have in common.

    Attributes
    ----------
    name : str
    version : str
        Version, and whatever else tells which code runs.
    """

    name: str
    version: str

    def bind(self, a: Array, b: Array, out: Array) -> Call:
        """``out[...] = a @ b`` as a call without arguments."""
        ...


class NKBLAS:
    """The library under test."""

    name = "nkblas"

    def __init__(self, threads: int) -> None:
        self.version = f"{nkblas.__version__}, {nkblas.cpu.isa.name} kernels"
        if hasattr(nkblas, "set_num_threads"):
            nkblas.set_num_threads(threads)
        elif threads > 1:
            self.version += " (this version has one thread)"

    def bind(self, a: Array, b: Array, out: Array) -> Call:
        return lambda: nkblas.matmul(a, b, out=out)


class OpenBLAS:
    """The BLAS inside NumPy's wheels, called as most people call it: by ``numpy.matmul``."""

    name = "openblas"

    def __init__(self, threads: int) -> None:
        pools = _module("threadpoolctl").ThreadpoolController().select(internal_api="openblas")
        if not pools.info():
            raise AbsentError("this NumPy is built on another BLAS")
        pools.limit(limits=threads)
        info = pools.info()[0]
        kernels = f"{info['architecture']} kernels"
        self.version = f"{info['version']}, {kernels}, in numpy {np.__version__}"

    def bind(self, a: Array, b: Array, out: Array) -> Call:
        return lambda: np.matmul(a, b, out=out)


class MKL:
    """``cblas_sgemm`` and ``cblas_dgemm`` of the `mkl` package."""

    name = "mkl"

    ROW_MAJOR, NO_TRANS = 101, 111
    LP64, INTEL, SEQUENTIAL = 0, 0, 1

    def __init__(self, threads: int) -> None:
        try:
            files = metadata.files("mkl") or []
            self.version = metadata.version("mkl")
            (library,) = (file for file in files if file.name.startswith("libmkl_rt.so"))
        except (metadata.PackageNotFoundError, ValueError):
            raise AbsentError("the package mkl is not installed") from None
        self._library = ctypes.CDLL(str(library.locate()))
        self._library.MKL_Set_Interface_Layer(self.LP64)
        # Without threads there is no need for a second OpenMP runtime beside PyTorch's.
        self._library.MKL_Set_Threading_Layer(self.INTEL if threads > 1 else self.SEQUENTIAL)
        self._library.MKL_Set_Num_Threads(threads)

    def bind(self, a: Array, b: Array, out: Array) -> Call:
        double = a.dtype == np.float64
        gemm = self._library.cblas_dgemm if double else self._library.cblas_sgemm
        gemm.restype = None
        scalar = ctypes.c_double if double else ctypes.c_float
        (m, n), k = out.shape, a.shape[1]
        order = map(ctypes.c_int, (self.ROW_MAJOR, self.NO_TRANS, self.NO_TRANS, m, n, k))
        (pa, lda), (pb, ldb), (pc, ldc) = (
            (ctypes.c_void_p(x.ctypes.data), ctypes.c_int(x.shape[1])) for x in (a, b, out)
        )
        # Converted here, once: a call then costs about what numpy.matmul's dispatch costs.
        arguments = (*order, scalar(1), pa, lda, pb, ldb, scalar(0), pc, ldc)
        return lambda: gemm(*arguments)


class Torch:
    """``torch.mm`` on views of the same arrays."""

    name = "torch"

    def __init__(self, threads: int) -> None:
        self._torch = _module("torch")
        self._torch.set_num_threads(threads)
        self.version = self._torch.__version__

    def bind(self, a: Array, b: Array, out: Array) -> Call:
        mm = self._torch.mm
        ta, tb, tc = (self._torch.from_numpy(x) for x in (a, b, out))
        return lambda: mm(ta, tb, out=tc)


PEERS = {peer.name: peer for peer in (OpenBLAS, MKL, Torch)}


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise AbsentError(f"the package {name} is not installed") from None
