"""The contenders: nkblas and the libraries it is measured against, one class for each.

A contender is made for a number of threads, at most, and raises `AbsentError` if it can't be had.
`bind` prepares one product as a call without arguments: the call that someone who knows the
library would make. What has to be done for every product is inside of it, a copy included where
the library takes no such operand; what can be done once for a shape is done by `bind`.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from typing import Any, Protocol

import numpy as np

import nkblas

from .operands import Array

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

    def use(self, threads: int) -> None:
        """From now on, run on so many threads."""
        ...

    def bind(self, a: Array, b: Array, out: Array, into: bool) -> Call:
        """``a @ b`` as a call without arguments.

        With `into` it writes to `out`. Without, it makes an array for the result and returns it,
        unless the library has no such call.
        """
        ...


class NKBLAS:
    """The library under test.

    Parameters
    ----------
    threads : int
    tune : bool
        Whether plans are measured before a product is timed, or modelled.
    """

    name = "nkblas"

    def __init__(self, threads: int, tune: bool = False) -> None:
        self._library: Any = nkblas
        self._tune = tune
        self._warms_up = hasattr(nkblas, "warmup")
        self._has_threads = hasattr(nkblas, "set_num_threads")
        self.version = f"{nkblas.__version__}, {nkblas.cpu.isa.name} kernels"
        self.version += ", tuned plans" if tune and self._warms_up else ", modelled plans"
        if threads > 1 and not self._has_threads:
            self.version += " (this version has one thread)"

    def use(self, threads: int) -> None:
        if self._has_threads:
            self._library.set_num_threads(threads)

    def bind(self, a: Array, b: Array, out: Array, into: bool) -> Call:
        matmul = nkblas.matmul
        call: Call = (lambda: matmul(a, b, out=out)) if into else (lambda: matmul(a, b))
        if self._warms_up:
            with self._library.record() as shapes:
                call()
            self._library.warmup(shapes, tune=self._tune, progress=False)
        return call


class OpenBLAS:
    """The BLAS inside NumPy's wheels, called as most people call it: by ``numpy.matmul``."""

    name = "openblas"

    def __init__(self, threads: int) -> None:
        pools = _module("threadpoolctl").ThreadpoolController().select(internal_api="openblas")
        if not pools.info():
            raise AbsentError("this NumPy is built on another BLAS")
        self._pools = pools
        info = pools.info()[0]
        kernels = f"{info['architecture']} kernels"
        self.version = f"{info['version']}, {kernels}, in numpy {np.__version__}"

    def use(self, threads: int) -> None:
        self._pools.limit(limits=threads)

    def bind(self, a: Array, b: Array, out: Array, into: bool) -> Call:
        matmul = np.matmul
        return (lambda: matmul(a, b, out=out)) if into else (lambda: matmul(a, b))


class MKL:
    """The C interface of the `mkl` package; results go into a given array always.

    ``cblas_?gemm``, ``cblas_?gemv`` for vectors, ``cblas_?gemm_batch_strided`` for stacks, and for
    small matrices what ``mkl_jit_create_?gemm`` gives: a kernel made for the shape, or
    ``cblas_?gemm`` with fewer arguments where it makes none (on this CPU's vendor, perhaps).
    """

    name = "mkl"

    ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112
    LP64, SEQUENTIAL, GNU = 0, 1, 3
    SMALL = 64
    """Sides up to which a kernel is asked for."""

    def __init__(self, threads: int) -> None:
        try:
            files = metadata.files("mkl") or []
            self.version = metadata.version("mkl")
            (library,) = (file for file in files if file.name.startswith("libmkl_rt.so"))
        except (metadata.PackageNotFoundError, ValueError):
            raise AbsentError("the package mkl is not installed") from None
        self._library = _shared_library(str(library.locate()))
        self._library.MKL_Set_Interface_Layer(self.LP64)
        # Threads by GNU's OpenMP runtime, which is PyTorch's too. MKL's default, Intel's runtime,
        # computes wrong products in a process where GNU's is loaded.
        if threads > 1:
            _shared_library("libgomp.so.1")
        self._library.MKL_Set_Threading_Layer(self.GNU if threads > 1 else self.SEQUENTIAL)

    def use(self, threads: int) -> None:
        self._library.MKL_Set_Num_Threads(threads)

    def bind(self, a: Array, b: Array, out: Array, into: bool) -> Call:
        copies: list[tuple[Array, Array]] = []

        def with_unit_stride(x: Array) -> Array:
            if x.itemsize in x.strides[-2:]:
                return x
            copies.append((np.empty(x.shape, x.dtype), x))  # no argument describes it
            return copies[-1][0]

        a, b = with_unit_stride(a), with_unit_stride(b)
        if out.ndim == 1:
            # x @ B is B.T @ x
            call = self._gemv(a, b, out) if b.ndim == 1 else self._gemv(b.T, a, out)
        elif out.ndim == 3:
            call = self._gemm_batch(a, b, out)
        elif max(*out.shape, a.shape[1]) <= self.SMALL:
            call = self._gemm_jit(a, b, out)
        else:
            call = self._gemm(a, b, out)
        if not copies:
            return call

        def copy_and_call() -> None:
            for buffer, x in copies:
                np.copyto(buffer, x)
            call()

        return copy_and_call

    def _gemv(self, a: Array, x: Array, out: Array) -> Call:
        trans, lda = self._describe(a)
        stored = a.shape if trans == self.NO_TRANS else a.shape[::-1]
        return self._prepare(
            "cblas_?gemv", a.dtype, self.ROW_MAJOR, trans, *stored,
            1.0, a, lda, x, 1, 0.0, out, 1,
        )  # fmt: skip

    def _gemm(self, a: Array, b: Array, out: Array) -> Call:
        (trans_a, lda), (trans_b, ldb) = self._describe(a), self._describe(b)
        (m, n), k = out.shape, a.shape[1]
        return self._prepare(
            "cblas_?gemm", a.dtype, self.ROW_MAJOR, trans_a, trans_b, m, n, k,
            1.0, a, lda, b, ldb, 0.0, out, n,
        )  # fmt: skip

    def _gemm_batch(self, a: Array, b: Array, out: Array) -> Call:
        (trans_a, lda), (trans_b, ldb) = self._describe(a), self._describe(b)
        (batch, m, n), k = out.shape, a.shape[2]
        step_a, step_b, step_c = (x.strides[0] // x.itemsize for x in (a, b, out))
        return self._prepare(
            "cblas_?gemm_batch_strided", a.dtype, self.ROW_MAJOR, trans_a, trans_b, m, n, k,
            1.0, a, lda, step_a, b, ldb, step_b, 0.0, out, n, step_c, batch,
        )  # fmt: skip

    def _gemm_jit(self, a: Array, b: Array, out: Array) -> Call:
        (trans_a, lda), (trans_b, ldb) = self._describe(a), self._describe(b)
        (m, n), k = out.shape, a.shape[1]
        jitter = ctypes.c_void_p()
        self._prepare(
            "mkl_cblas_jit_create_?gemm", a.dtype, ctypes.byref(jitter),
            self.ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0, lda, ldb, 0.0, n,
        )()  # fmt: skip
        get = self._function("mkl_jit_get_?gemm_ptr", a.dtype)
        get.restype = ctypes.c_void_p
        kernel = ctypes.CFUNCTYPE(None)(get(jitter))
        return partial(kernel, jitter, *(ctypes.c_void_p(x.ctypes.data) for x in (a, b, out)))

    def _describe(self, x: Array) -> tuple[int, int]:
        """How an operand's matrices lie: transposed or not, and their leading dimension."""
        rows, columns = (stride // x.itemsize for stride in x.strides[-2:])
        return (self.NO_TRANS, rows) if columns == 1 else (self.TRANS, columns)

    def _function(self, name: str, dtype: Any) -> Any:
        function = getattr(self._library, name.replace("?", "sd"[dtype == np.float64]))
        function.restype = None
        return function

    def _prepare(self, name: str, dtype: Any, *arguments: Any) -> Call:
        """A call of a function, its arguments converted once: float, int, array, or C's already.

        It then costs about what numpy.matmul's dispatch costs.
        """
        scalar = ctypes.c_double if dtype == np.float64 else ctypes.c_float

        def convert(x: Any) -> Any:
            if isinstance(x, np.ndarray):
                return ctypes.c_void_p(x.ctypes.data)
            return {float: scalar, int: ctypes.c_int}.get(type(x), lambda x: x)(x)

        return partial(self._function(name, dtype), *map(convert, arguments))


class Torch:
    """``torch.mm``, ``mv`` and ``bmm`` on views of the same arrays."""

    name = "torch"

    def __init__(self, threads: int) -> None:
        self._torch = _module("torch")
        # As those do who do not train: for good, or every call would have to enter it.
        self._torch.inference_mode().__enter__()
        self.version = self._torch.__version__

    def use(self, threads: int) -> None:
        self._torch.set_num_threads(threads)

    def bind(self, a: Array, b: Array, out: Array, into: bool) -> Call:
        x, y, z = (self._torch.from_numpy(array) for array in (a, b, out))
        if out.ndim == 1:
            function = self._torch.mv
            if a.ndim == 1:
                x, y = y.T, x
        else:
            function = self._torch.bmm if out.ndim == 3 else self._torch.mm
        return (lambda: function(x, y, out=z)) if into else (lambda: function(x, y))


PEERS: dict[str, Callable[[int], Contender]] = {peer.name: peer for peer in (OpenBLAS, MKL, Torch)}


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise AbsentError(f"the package {name} is not installed") from None


def _shared_library(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as why:
        raise AbsentError(str(why)) from None
