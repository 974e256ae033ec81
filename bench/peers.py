"""The contenders: nkblas and the libraries it is measured against, one class for each.

A contender is made for a number of threads, at most, and raises `AbsentError` if it can't be had;
so does `bind` for a product that it doesn't have.
`bind` prepares one case as a call without arguments: the call that someone who knows the library
would make, or several, where only a race tells which is the fastest. What has to be done for every
product is inside of it, a copy included where the library takes no such operand; what can be done
once for a shape, or for weights, is done by `bind`.
"""

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module, metadata
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

import nkblas

from .operands import Array, Operands

Call = Callable[[], object]

Forms: TypeAlias = dict[str, Call]
"""Calls that do the same, by name; no name where there is one."""


class AbsentError(RuntimeError):
    """A contender is not to be had here, or not for this product; the message says why."""


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

    def bind(self, operands: Operands, into: bool) -> Forms:
        """What the operands' case is, as calls without arguments.

        With `into` they write to `out`. Without, they make an array for the result and return it.
        Either way, unless the library has no such call.

        Raises
        ------
        AbsentError
            The library has no call for these operands.
        """
        ...


def uniform(*arrays: Array) -> bool:
    """Whether all have the same type."""
    return len({x.dtype for x in arrays}) == 1


def as_numpy(matmul: Any, a: Array, b: Array, out: Array, into: bool) -> Call:
    """A call of ``numpy.matmul`` or what has its arguments."""
    options: dict[str, Any] = {} if uniform(a, b, out) else {"dtype": out.dtype}
    if into:
        options["out"] = out
    # as it is written, for products of so small matrices that keywords in a dict count
    if options.keys() == {"out"}:
        return lambda: matmul(a, b, out=out)
    return (lambda: matmul(a, b, **options)) if options else (lambda: matmul(a, b))


def side_by_side(a: Array, b: Array) -> tuple[Array, Array]:
    """Two stacks as two matrices, whose product is the sum over that of the stacks."""
    return np.concatenate(a, axis=1), np.concatenate(b)


def in_place(activation: str) -> Callable[[Array, Array], object]:
    """NumPy's calls for an activation of an array; another one like it is for what is in between.

    Raises
    ------
    AbsentError
        There is no SciPy, whose erf it needs.
    """
    if activation == "relu":
        return lambda c, _: np.maximum(c, 0, out=c)
    erf = _module("scipy.special").erf if activation == "gelu" else None

    def gelu(c: Array, x: Array) -> None:
        if erf:
            np.multiply(c, math.sqrt(0.5), out=x)
            erf(x, out=x)
        else:
            np.multiply(c, c, out=x)
            np.multiply(x, 0.044715 * math.sqrt(2 / math.pi), out=x)
            np.add(x, math.sqrt(2 / math.pi), out=x)
            np.multiply(c, x, out=x)
            np.tanh(x, out=x)
        np.add(x, 1, out=x)
        np.multiply(x, 0.5, out=x)
        np.multiply(c, x, out=c)

    return gelu


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

    def bind(self, operands: Operands, into: bool) -> Forms:
        forms = {"": self._call(operands, into)}
        if operands.case.activation:  # with weights as they are, and packed: peers do so, too
            packed = operands._replace(case=operands.case._replace(packed=True))
            forms = {"weights as they are": forms[""], "weights packed": self._call(packed, into)}
        if self._warms_up:
            with self._library.record() as shapes:
                for call in forms.values():
                    call()
            self._library.warmup(shapes, tune=self._tune, progress=False)
        return forms

    def _call(self, operands: Operands, into: bool) -> Call:
        a, b, out, bias, case = operands
        given: dict[str, Any] = {"out": out} if into else {}
        if case.batch_reduce:
            return partial(nkblas.brgemm, a, b, **given)
        right: Any = nkblas.pack(b, a_dtype=a.dtype, dtype=out.dtype) if case.packed else b
        if case.activation:
            given |= {"bias": bias, "activation": case.activation}
            if not uniform(a, b, out):
                given["out_dtype"] = out.dtype
            return partial(nkblas.gemm, a, right, **given)
        if case.packed:
            return partial(nkblas.matmul, a, right, **given)
        return as_numpy(nkblas.matmul, a, b, out, into)


class NumPy:
    """``numpy.matmul``: the BLAS inside NumPy's wheels, or loops where that hasn't the type.

    What makes it a layer follows in place.
    """

    name = "numpy"

    LOOPS = 10**9
    """Operations up to which a product without a BLAS is tried: it takes a second or two."""

    def __init__(self, threads: int) -> None:
        pools = _module("threadpoolctl").ThreadpoolController().select(internal_api="openblas")
        if not pools.info():
            raise AbsentError("this NumPy is built on another BLAS")
        self._pools = pools
        info = pools.info()[0]
        kernels = f"{info['architecture']} kernels"
        self.version = f"{np.__version__}, OpenBLAS {info['version']}, {kernels}"

    def use(self, threads: int) -> None:
        self._pools.limit(limits=threads)

    def bind(self, operands: Operands, into: bool) -> Forms:
        a, b, out, bias, case = operands
        if case.batch_reduce:
            a, b = side_by_side(a, b)
        has_blas = out.dtype.name in ("bfloat16", "float32", "float64", "complex64", "complex128")
        if not has_blas and 2 * out.size * a.shape[-1] > self.LOOPS:
            raise AbsentError("takes too long")
        call = as_numpy(np.matmul, a, b, out, into)
        return {"": self._layer(call, bias, case.activation) if bias is not None else call}

    def _layer(self, product: Call, bias: Array, activation: str) -> Call:
        activate, buffer = in_place(activation), np.empty_like(product())

        def layer() -> Array:
            c: Any = product()
            np.add(c, bias, out=c)
            activate(c, buffer)
            return c

        return layer


class MKL:
    """The C interface of the `mkl` package; results go into a given array always.

    ``cblas_?gemm``, ``cblas_?gemv`` for vectors, ``cblas_?gemm_batch_strided`` for stacks, and for
    small matrices what ``mkl_jit_create_?gemm`` gives: a kernel made for the shape, or
    ``cblas_?gemm`` with fewer arguments where it makes none (on this CPU's vendor, perhaps).
    Half precision and integers have a gemm only. Sums over a stack are one product after the other,
    added to the result, or one of all side by side.
    """

    name = "mkl"

    LETTERS: ClassVar = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}
    GEMMS: ClassVar = {
        ("float16", "float16", "float16"): "cblas_hgemm",
        ("float16", "float16", "float32"): "cblas_gemm_f16f16f32",
        ("bfloat16", "bfloat16", "float32"): "cblas_gemm_bf16bf16f32",
        ("uint8", "int8", "int32"): "cblas_gemm_s8u8s32",  # in column-major order, that is
        ("int8", "int8", "int32"): "cblas_gemm_s8u8s32",
    }
    """By the types of A, B and C: the functions that have no kin for vectors and stacks."""

    ROW_MAJOR, NO_TRANS, TRANS, ONE_OFFSET = 101, 111, 112, 173
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

    def bind(self, operands: Operands, into: bool) -> Forms:
        a, b, out, _, case = operands
        if case.activation:
            raise AbsentError("has no layers")
        if not case.batch_reduce:
            return {"": self._product(a, b, out)}
        if not (uniform(a, b, out) and out.dtype.name in self.LETTERS):
            raise AbsentError("has no function for that")
        forms = {"one product": self._product(*side_by_side(a, b), out)}
        makers = {"gemm": self._gemm}
        if max(*out.shape, a.shape[2]) <= self.SMALL:
            makers["jit"] = self._gemm_jit
        for name, make in makers.items():
            calls = [
                make(x, y, out, float(i > 0)) for i, (x, y) in enumerate(zip(a, b, strict=True))
            ]
            forms[name] = partial(_all, calls)
        return forms

    def _product(self, a: Array, b: Array, out: Array) -> Call:
        copies: list[Call] = []

        def with_unit_stride(x: Array) -> Array:
            if x.itemsize in x.strides[-2:]:
                return x
            buffer = np.empty(x.shape, x.dtype)  # no argument describes it
            copies.append(partial(np.copyto, buffer, x))
            return buffer

        shift = 0
        if (a.dtype, out.dtype) == (np.int8, np.int32):
            signed, a, shift = a.view(np.uint8), np.empty_like(a, np.uint8), -128
            copies.append(partial(np.bitwise_xor, signed, np.uint8(128), out=a))  # adds 128
        a, b = with_unit_stride(a), with_unit_stride(b)
        if not (uniform(a, b, out) and out.dtype.name in self.LETTERS):
            call = self._gemm_only(a, b, out, shift)
        elif out.ndim == 1:
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
            for copy in copies:
                copy()
            call()

        return copy_and_call

    def _gemm_only(self, a: Array, b: Array, out: Array, shift: int) -> Call:
        name = self.GEMMS.get((a.dtype.name, b.dtype.name, out.dtype.name))
        if name is None or out.ndim == 3:
            raise AbsentError("has no function for that")
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
        step_a, step_b, step_c = (x.strides[0] // x.itemsize for x in (a, b, out))
        return self._prepare(
            "cblas_?gemm_batch_strided", a.dtype, self.ROW_MAJOR, trans_a, trans_b, m, n, k,
            1.0, a, lda, step_a, b, ldb, step_b, 0.0, out, n, step_c, batch,
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
        # what `data_as` returns keeps the array
        return partial(kernel, jitter, *(x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, out)))

    def _describe(self, x: Array) -> tuple[int, int]:
        """How an operand's matrices lie: transposed or not, and their leading dimension."""
        rows, columns = (stride // x.itemsize for stride in x.strides[-2:])
        return (self.NO_TRANS, rows) if columns == 1 else (self.TRANS, columns)

    def _function(self, name: str, dtype: np.dtype) -> Any:
        letter = self.LETTERS.get(dtype.name, "")
        try:
            function = getattr(self._library, name.replace("?", letter))
        except AttributeError as why:
            raise AbsentError(str(why)) from None
        function.restype = None
        return function

    def _prepare(self, name: str, dtype: np.dtype, *arguments: Any) -> Call:
        """A call of a function, its arguments converted once: float, int, array, or C's already.

        It then costs about what numpy.matmul's dispatch costs. A float is of type `dtype`.
        """

        def scalar(x: float) -> Any:
            value = np.array(x, dtype)
            if dtype.kind == "c":
                return value.ctypes.data_as(ctypes.c_void_p)  # keeps the array, too
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


class Torch:
    """``torch.mm``, ``mv`` and ``bmm`` on views of the same arrays; ``_int_mm`` for int8 -> int32.

    A wider result of other types is asked for by ``out_dtype``. Layers and sums over a stack are
    whatever is the fastest of several ways.
    """

    name = "torch"

    def __init__(self, threads: int) -> None:
        self._torch = _module("torch")
        # As those do who do not train: for good, or every call would have to enter it.
        self._torch.inference_mode().__enter__()
        self.version = self._torch.__version__

    def use(self, threads: int) -> None:
        self._torch.set_num_threads(threads)

    def bind(self, operands: Operands, into: bool) -> Forms:
        if not into and operands.out.dtype.name == "bfloat16":
            raise AbsentError("NumPy can't read the result that it makes")
        if operands.bias is not None:
            forms = self._layers(operands, operands.bias, into)
        elif operands.case.batch_reduce:
            forms = self._sums(operands, into)
        else:
            forms = {"": self._product(operands, into)}
        running = {}
        for name, call in forms.items():
            try:
                call()
                running[name] = call
            except RuntimeError as error:
                why = str(error).partition(". ")[0]
        if not running:
            raise AbsentError(why)
        return running

    def _product(self, operands: Operands, into: bool) -> Call:
        a, b, out, *_ = operands
        x, y, z = map(self._tensor, (a, b, out))
        if uniform(a, b, out):
            if out.ndim == 1:
                function = self._torch.mv
                if a.ndim == 1:
                    x, y = y.T, x
            else:
                function = self._torch.bmm if out.ndim == 3 else self._torch.mm
        else:
            if out.ndim == 1:
                x, y = (x[None], y) if a.ndim == 1 else (x, y[:, None])
                z = z.reshape(len(x), y.shape[1])
            if a.dtype == b.dtype == np.int8 and out.ndim < 3:
                function = self._torch._int_mm
            else:
                function = partial(
                    self._torch.bmm if out.ndim == 3 else self._torch.mm, out_dtype=z.dtype
                )
        return (lambda: function(x, y, out=z)) if into else (lambda: function(x, y))

    def _layers(self, operands: Operands, bias: Array, into: bool) -> Forms:
        """With weights as they are, as ``torch.nn.Linear`` keeps them, or packed as ``compile``
        has them when they are frozen."""
        torch = self._torch
        x, w, z, c = map(self._tensor, (operands.a, operands.b, operands.out, bias))
        kept = w.T.contiguous()
        given = {"out": z} if into else {}
        linear, gelu = torch._C._nn.linear, torch._C._nn.gelu_
        activate, name, algorithm = {
            "relu": (torch.relu_, "relu", ""),
            "gelu": (gelu, "gelu", "none"),
            "gelu_tanh": (partial(gelu, approximate="tanh"), "gelu", "tanh"),
        }[operands.case.activation]
        forms: Forms = {
            "addmm": lambda: activate(torch.addmm(c, x, w, **given)),
            "linear": lambda: activate(linear(x, kept, c, **given)),
        }
        rows = len(x)
        with suppress(AttributeError, RuntimeError):  # built without, or without for this type
            by_onednn = torch.ops.mkldnn._reorder_linear_weight(kept, rows)
            pointwise = torch.ops.mkldnn._linear_pointwise.default
            forms["packed by oneDNN"] = lambda: pointwise(x, by_onednn, c, name, [], algorithm)
        with suppress(AttributeError, RuntimeError):
            by_mkl = torch.ops.mkl._mkl_reorder_linear_weight(kept, rows)
            mkl_linear = torch.ops.mkl._mkl_linear.default
            forms["packed by MKL"] = lambda: activate(mkl_linear(x, by_mkl, kept, c, rows))
        return forms

    def _sums(self, operands: Operands, into: bool) -> Forms:
        torch = self._torch
        a, b, out, *_ = operands
        x, y, z, wide, tall = map(self._tensor, (a, b, out, *side_by_side(a, b)))
        given = {"out": z} if into else {}
        stack = torch.empty((len(a), *out.shape), dtype=z.dtype)
        return {
            "one mm": lambda: torch.mm(wide, tall, **given),
            "addbmm": lambda: torch.addbmm(z, x, y, beta=0, **given),
            "bmm, sum": lambda: torch.sum(torch.bmm(x, y, out=stack), 0, **given),
        }

    def _tensor(self, x: Array) -> Any:
        if x.dtype.name == "bfloat16":
            return self._torch.from_numpy(x.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(x)


class JAX:
    """``jax.numpy.matmul``, compiled, on the CPU. Operands are copied into arrays of its own, once.

    It has neither strided arrays nor ``out=``: each call makes a new array, and waits for it.
    """

    name = "jax"

    def __init__(self, threads: int) -> None:
        self._jax = _module("jax")
        self._backend = _module("jax.extend.backend")
        self._jax.config.update("jax_platforms", "cpu")
        self._jax.config.update("jax_enable_x64", True)
        self.version = f"{self._jax.__version__}, jit of jax.numpy.matmul"

    def use(self, threads: int) -> None:
        """The number is read from the environment when its pool of threads is made."""
        if os.environ.get("PJRT_NPROC") != str(threads):
            os.environ["PJRT_NPROC"] = str(threads)
            self._backend.clear_backends()

    def bind(self, operands: Operands, into: bool) -> Forms:
        a, b, out, _, case = operands
        if case.activation or case.batch_reduce:
            raise AbsentError("is measured on products only")
        jnp = self._jax.numpy
        turn_a, turn_b = (not x.flags.c_contiguous for x in (a, b))
        a, b = (a.mT if turn_a else a), (b.mT if turn_b else b)
        if not (a.flags.c_contiguous and b.flags.c_contiguous):
            raise AbsentError("has no strided arrays")
        x, y = jnp.array(a), jnp.array(b)
        wider = None if uniform(a, b, out) else out.dtype

        @self._jax.jit  # type: ignore[misc, unused-ignore]
        def product(x: Any, y: Any) -> Any:
            x, y = (x.mT if turn_a else x), (y.mT if turn_b else y)
            return jnp.matmul(x, y, preferred_element_type=wider)

        return {"": lambda: product(x, y).block_until_ready()}


PEERS: dict[str, Callable[[int], Contender]] = {
    peer.name: peer for peer in (NumPy, MKL, Torch, JAX)
}


def _all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()


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
