"""The C interface of a BLAS, called through ctypes."""

import ctypes
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from bench.operands import Array, Operands, concatenate_blocks, same_dtype

from .contender import AbsentError, Call, Forms, load_library

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112


class CBLAS:
    """A BLAS that has the functions of CBLAS; it always writes to an existing result array.

    ``cblas_?gemm``, ``cblas_?gemv`` for vectors, and for batches what `_gemm_batch` calls. The sum
    of a batch is one call for each product, which adds to the result, or a single product of the
    concatenated blocks.

    Attributes
    ----------
    SYMBOL : str
        How the library spells a function's name, which stands for the braces.
    INT : type
        The C type of sizes.
    """

    SYMBOL: ClassVar = "{}"
    INT: ClassVar[Any] = ctypes.c_int
    LETTERS: ClassVar = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def bind(self, operands: Operands, use_out: bool) -> Forms:
        a, b, out, _, case = operands
        if case.activation:
            raise AbsentError("has no layers")
        if not case.batch_reduce:
            return {"": self._product(a, b, out)}
        if not self.supports(a, b, out):
            raise AbsentError("has no such function")
        forms = {"one product": self._product(*concatenate_blocks(a, b), out)}
        for name, make in self._makers(out.shape, a.shape[2]).items():
            calls = [
                make(x, y, out, float(i > 0)) for i, (x, y) in enumerate(zip(a, b, strict=True))
            ]
            forms[name] = partial(_call_all, calls)
        return forms

    def supports(self, *arrays: Array) -> bool:
        """Whether there is a gemm for arrays of these dtypes."""
        return same_dtype(*arrays) and arrays[0].dtype.name in self.LETTERS

    def _makers(self, shape: tuple[int, ...], k: int) -> dict[str, Any]:
        """By name: functions that prepare the product of two matrices, with a `beta`."""
        return {"gemm": self._gemm}

    def _product(self, a: Array, b: Array, out: Array) -> Call:
        copies: list[Call] = []

        def with_unit_stride(x: Array) -> Array:
            if x.itemsize in x.strides[-2:]:
                return x
            buffer = np.empty(x.shape, x.dtype)  # a BLAS requires a unit stride
            copies.append(partial(np.copyto, buffer, x))
            return buffer

        call = self._call(with_unit_stride(a), with_unit_stride(b), out)
        return with_copies(copies, call)

    def _call(self, a: Array, b: Array, out: Array) -> Call:
        if not self.supports(a, b, out):
            raise AbsentError("has no such function")
        if out.ndim == 1:
            # x @ B is B.T @ x
            return self._gemv(a, b, out) if b.ndim == 1 else self._gemv(b.T, a, out)
        if out.ndim == 3:
            return self._gemm_batch(a, b, out)
        return self._gemm(a, b, out)

    def _gemv(self, a: Array, x: Array, out: Array) -> Call:
        trans, lda = self.describe(a)
        stored = a.shape if trans == NO_TRANS else a.shape[::-1]
        return self.prepare(
            "cblas_?gemv", a.dtype, ROW_MAJOR, trans, *stored,
            1.0, a, lda, x, 1, 0.0, out, 1,
        )  # fmt: skip

    def _gemm(self, a: Array, b: Array, out: Array, beta: float = 0.0) -> Call:
        (trans_a, lda), (trans_b, ldb) = self.describe(a), self.describe(b)
        (m, n), k = out.shape, a.shape[1]
        return self.prepare(
            "cblas_?gemm", a.dtype, ROW_MAJOR, trans_a, trans_b, m, n, k,
            1.0, a, lda, b, ldb, beta, out, n,
        )  # fmt: skip

    def _gemm_batch(self, a: Array, b: Array, out: Array) -> Call:
        (trans_a, lda), (trans_b, ldb) = self.describe(a), self.describe(b)
        (batch, m, n), k = out.shape, a.shape[2]
        stride_a, stride_b, stride_c = (x.strides[0] // x.itemsize for x in (a, b, out))
        return self.prepare(
            "cblas_?gemm_batch_strided", a.dtype, ROW_MAJOR, trans_a, trans_b, m, n, k,
            1.0, a, lda, stride_a, b, ldb, stride_b, 0.0, out, n, stride_c, batch,
        )  # fmt: skip

    def describe(self, x: Array) -> tuple[int, int]:
        """The transposition and the leading dimension of an operand."""
        rows, columns = (stride // x.itemsize for stride in x.strides[-2:])
        return (NO_TRANS, rows) if columns == 1 else (TRANS, columns)

    def function(self, name: str, dtype: np.dtype) -> Any:
        """The function with a name in which "?" stands for a dtype's letter.

        Raises
        ------
        AbsentError
        """
        letter = self.LETTERS.get(dtype.name, "")
        try:
            function = getattr(self.library, self.SYMBOL.format(name.replace("?", letter)))
        except AttributeError as error:
            raise AbsentError(str(error)) from None
        function.restype = None
        return function

    def prepare(self, name: str, dtype: np.dtype, *arguments: Any) -> Call:
        """A call of a C function, whose arguments are converted to C once.

        It then takes about as long as the dispatch of numpy.matmul. Python floats become scalars of
        type `dtype`; ints and arrays become C's int and pointers.
        """

        def convert(x: Any) -> Any:
            if isinstance(x, np.ndarray):
                return x.ctypes.data_as(ctypes.c_void_p)
            if isinstance(x, float):
                return scalar(x, dtype)
            return self.INT(x) if isinstance(x, int) else x

        return partial(self.function(name, dtype), *map(convert, arguments))


def scalar(x: float, dtype: np.dtype) -> Any:
    """A number as C functions of a dtype take it: complex numbers by a pointer."""
    value = np.array(x, dtype)
    if dtype.kind == "c":
        return value.ctypes.data_as(ctypes.c_void_p)  # keeps the array alive
    if dtype == np.float16:
        return ctypes.c_ushort(int(value.view(np.uint16)))
    return np.ctypeslib.as_ctypes_type(dtype)(x)


def with_copies(copies: Sequence[Call], call: Call) -> Call:
    """A call, after others that copy operands."""
    if not copies:
        return call

    def copy_and_call() -> None:
        for copy in copies:
            copy()
        call()

    return copy_and_call


def _call_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


def package_library(package: str, prefix: str, mode: int = ctypes.DEFAULT_MODE) -> ctypes.CDLL:
    """Load the library of an installed package whose file name begins with `prefix`.

    Raises
    ------
    AbsentError
        The package is not installed.
    """
    try:
        files = metadata.files(package) or []
        (library,) = (file for file in files if file.name.startswith(prefix))
    except (metadata.PackageNotFoundError, ValueError):
        raise AbsentError(f"the package {package} is not installed") from None
    return load_library(str(library.locate()), mode)
