"""Intel's MKL, through its C interface."""

import ctypes
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from bench.operands import Array, Operands, concatenate_blocks, same_dtype

from .contender import AbsentError, Call, Forms, load_library


class MKL:
    """The C interface of the `mkl` package; it always writes to an existing result array.

    ``cblas_?gemm``, ``cblas_?gemv`` for vectors, ``cblas_?gemm_batch_strided`` for batches. For
    small matrices ``mkl_jit_create_?gemm``, which generates a kernel for the shape; where it does
    not (perhaps for another vendor's CPU), it is ``cblas_?gemm`` with fewer arguments. Half
    precision and integers have only a gemm. The sum of a batch is one call for each product, which
    adds to the result, or a single product of the concatenated blocks.
    """

    name = "mkl"

    LETTERS: ClassVar = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}
    GEMMS: ClassVar = {
        ("float16", "float16", "float16"): "cblas_hgemm",
        ("float16", "float16", "float32"): "cblas_gemm_f16f16f32",
        ("bfloat16", "bfloat16", "float32"): "cblas_gemm_bf16bf16f32",
        ("uint8", "int8", "int32"): "cblas_gemm_s8u8s32",  # s8u8 in column-major order
        ("int8", "int8", "int32"): "cblas_gemm_s8u8s32",
    }
    """Functions without a gemv and a batched variant, by the dtypes of A, B and C."""

    ROW_MAJOR, NO_TRANS, TRANS, ONE_OFFSET = 101, 111, 112, 173
    LP64, SEQUENTIAL, GNU = 0, 1, 3
    MAX_JIT_SIDE = 64
    """Largest dimension for which MKL is asked to generate a kernel."""

    def __init__(self, threads: int) -> None:
        try:
            files = metadata.files("mkl") or []
            self.version = metadata.version("mkl")
            (library,) = (file for file in files if file.name.startswith("libmkl_rt.so"))
        except (metadata.PackageNotFoundError, ValueError):
            raise AbsentError("the package mkl is not installed") from None
        self._mkl = load_library(str(library.locate()))
        self._mkl.MKL_Set_Interface_Layer(self.LP64)
        # GNU's OpenMP runtime, as PyTorch: with Intel's, its default, MKL computes wrong products
        # in a process that has loaded GNU's.
        if threads > 1:
            load_library("libgomp.so.1")
        self._mkl.MKL_Set_Threading_Layer(self.GNU if threads > 1 else self.SEQUENTIAL)

    def set_num_threads(self, threads: int) -> None:
        self._mkl.MKL_Set_Num_Threads(threads)

    def bind(self, operands: Operands, use_out: bool) -> Forms:
        a, b, out, _, case = operands
        if case.activation:
            raise AbsentError("has no layers")
        if not case.batch_reduce:
            return {"": self._product(a, b, out)}
        if not (same_dtype(a, b, out) and out.dtype.name in self.LETTERS):
            raise AbsentError("has no such function")
        forms = {"one product": self._product(*concatenate_blocks(a, b), out)}
        makers = {"gemm": self._gemm}
        if max(*out.shape, a.shape[2]) <= self.MAX_JIT_SIDE:
            makers["jit"] = self._gemm_jit
        for name, make in makers.items():
            calls = [
                make(x, y, out, float(i > 0)) for i, (x, y) in enumerate(zip(a, b, strict=True))
            ]
            forms[name] = partial(_call_all, calls)
        return forms

    def _product(self, a: Array, b: Array, out: Array) -> Call:
        copies: list[Call] = []

        def with_unit_stride(x: Array) -> Array:
            if x.itemsize in x.strides[-2:]:
                return x
            buffer = np.empty(x.shape, x.dtype)  # MKL requires a unit stride
            copies.append(partial(np.copyto, buffer, x))
            return buffer

        shift = 0
        if (a.dtype, out.dtype) == (np.int8, np.int32):
            signed, a, shift = a.view(np.uint8), np.empty_like(a, np.uint8), -128
            copies.append(partial(np.bitwise_xor, signed, np.uint8(128), out=a))  # adds 128
        a, b = with_unit_stride(a), with_unit_stride(b)
        if not (same_dtype(a, b, out) and out.dtype.name in self.LETTERS):
            call = self._gemm_only(a, b, out, shift)
        elif out.ndim == 1:
            # x @ B is B.T @ x
            call = self._gemv(a, b, out) if b.ndim == 1 else self._gemv(b.T, a, out)
        elif out.ndim == 3:
            call = self._gemm_batch(a, b, out)
        elif max(*out.shape, a.shape[1]) <= self.MAX_JIT_SIDE:
            call = self._gemm_jit(a, b, out)
        else:
            call = self._gemm(a, b, out)
        if not copies:
            return call

        def copy_and_call() -> None:
            for copy in copies:
                copy()
            call()

        return copy_and_call

    def _gemm_only(self, a: Array, b: Array, out: Array, shift: int) -> Call:
        name = self.GEMMS.get((a.dtype.name, b.dtype.name, out.dtype.name))
        if name is None or out.ndim == 3:
            raise AbsentError("has no such function")
        if out.ndim == 1:
            a, b = (a.reshape(1, -1), b) if a.ndim == 1 else (a, b.reshape(-1, 1))
            out = out.reshape(len(a), b.shape[1])
        (trans_a, lda), (trans_b, ldb) = self._describe(a), self._describe(b)
        (m, n), k = out.shape, a.shape[1]
        head = (self.ROW_MAJOR, trans_a, trans_b)
        if out.dtype != np.int32:
            return self._prepare(name, out.dtype, *head, m, n, k, 1.0, a, lda, b, ldb, 0.0, out, n)
        offset = np.zeros(1, np.int32)
        return self._prepare(
            name, np.dtype(np.float32), *head, self.ONE_OFFSET, m, n, k,
            1.0, a, lda, shift, b, ldb, 0, 0.0, out, n, offset,
        )  # fmt: skip

    def _gemv(self, a: Array, x: Array, out: Array) -> Call:
        trans, lda = self._describe(a)
        stored = a.shape if trans == self.NO_TRANS else a.shape[::-1]
        return self._prepare(
            "cblas_?gemv", a.dtype, self.ROW_MAJOR, trans, *stored,
            1.0, a, lda, x, 1, 0.0, out, 1,
        )  # fmt: skip

    def _gemm(self, a: Array, b: Array, out: Array, beta: float = 0.0) -> Call:
        (trans_a, lda), (trans_b, ldb) = self._describe(a), self._describe(b)
        (m, n), k = out.shape, a.shape[1]
        return self._prepare(
            "cblas_?gemm", a.dtype, self.ROW_MAJOR, trans_a, trans_b, m, n, k,
            1.0, a, lda, b, ldb, beta, out, n,
        )  # fmt: skip

    def _gemm_batch(self, a: Array, b: Array, out: Array) -> Call:
        (trans_a, lda), (trans_b, ldb) = self._describe(a), self._describe(b)
        (batch, m, n), k = out.shape, a.shape[2]
        stride_a, stride_b, stride_c = (x.strides[0] // x.itemsize for x in (a, b, out))
        return self._prepare(
            "cblas_?gemm_batch_strided", a.dtype, self.ROW_MAJOR, trans_a, trans_b, m, n, k,
            1.0, a, lda, stride_a, b, ldb, stride_b, 0.0, out, n, stride_c, batch,
        )  # fmt: skip

    def _gemm_jit(self, a: Array, b: Array, out: Array, beta: float = 0.0) -> Call:
        (trans_a, lda), (trans_b, ldb) = self._describe(a), self._describe(b)
        (m, n), k = out.shape, a.shape[1]
        jitter = ctypes.c_void_p()
        self._prepare(
            "mkl_cblas_jit_create_?gemm", a.dtype, ctypes.byref(jitter),
            self.ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0, lda, ldb, beta, n,
        )()  # fmt: skip
        get = self._function("mkl_jit_get_?gemm_ptr", a.dtype)
        get.restype = ctypes.c_void_p
        kernel = ctypes.CFUNCTYPE(None)(get(jitter))
        # the pointers from `data_as` keep the arrays alive
        return partial(kernel, jitter, *(x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, out)))

    def _describe(self, x: Array) -> tuple[int, int]:
        """The transposition and the leading dimension of an operand."""
        rows, columns = (stride // x.itemsize for stride in x.strides[-2:])
        return (self.NO_TRANS, rows) if columns == 1 else (self.TRANS, columns)

    def _function(self, name: str, dtype: np.dtype) -> Any:
        letter = self.LETTERS.get(dtype.name, "")
        try:
            function = getattr(self._mkl, name.replace("?", letter))
        except AttributeError as error:
            raise AbsentError(str(error)) from None
        function.restype = None
        return function

    def _prepare(self, name: str, dtype: np.dtype, *arguments: Any) -> Call:
        """A call of a C function, whose arguments are converted to C once.

        It then takes about as long as the dispatch of numpy.matmul. Python floats become scalars of
        type `dtype`; ints and arrays become C's int and pointers.
        """

        def scalar(x: float) -> Any:
            value = np.array(x, dtype)
            if dtype.kind == "c":
                return value.ctypes.data_as(ctypes.c_void_p)  # keeps the array alive
            if dtype == np.float16:
                return ctypes.c_ushort(int(value.view(np.uint16)))
            return np.ctypeslib.as_ctypes_type(dtype)(x)

        def convert(x: Any) -> Any:
            if isinstance(x, np.ndarray):
                return x.ctypes.data_as(ctypes.c_void_p)
            if isinstance(x, float):
                return scalar(x)
            return ctypes.c_int(x) if isinstance(x, int) else x

        return partial(self._function(name, dtype), *map(convert, arguments))


def _call_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()
