"""NumPy, and the BLAS inside its wheels."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.operands import Array, Operands, concatenate_blocks
from bench.suites import Activation

from .contender import AbsentError, Call, Forms, load_module, matmul_call

BLAS_DTYPES = ("bfloat16", "float32", "float64", "complex64", "complex128")


WARM_UP_SIDE = 1000


def warm_up_openblas(multiply: Callable[[Array, Array], object]) -> None:
    """Multiply large matrices once.

    Until OpenBLAS has done so, it may take three times as long for matrices of sides of 200 to 300
    (0.3.31 on Zen), however often they are multiplied.
    """
    a = np.ones((WARM_UP_SIDE, WARM_UP_SIDE))
    multiply(a, a)


class NumPy:
    """``numpy.matmul``: OpenBLAS, or NumPy's own loops for dtypes that a BLAS lacks.

    A layer is the product followed by ufuncs that work in place.
    """

    name = "numpy"

    MAX_LOOP_FLOPS = 10**9
    """Operations of the largest product without a BLAS that is measured: one or two seconds."""

    def __init__(self, threads: int) -> None:
        pools = load_module("threadpoolctl").ThreadpoolController().select(internal_api="openblas")
        if not pools.info():
            raise AbsentError("this NumPy is built with another BLAS")
        self._pools = pools
        info = pools.info()[0]
        kernels = f"{info['architecture']} kernels"
        self.version = f"{np.__version__}, OpenBLAS {info['version']}, {kernels}"

    def set_num_threads(self, threads: int) -> None:
        self._pools.limit(limits=threads)
        warm_up_openblas(np.matmul)

    def bind(self, operands: Operands, use_out: bool) -> Forms:
        a, b, out, bias, case = operands
        if case.batch_reduce:
            a, b = concatenate_blocks(a, b)
        has_blas = out.dtype.name in BLAS_DTYPES
        if not has_blas and 2 * out.size * a.shape[-1] > self.MAX_LOOP_FLOPS:
            raise AbsentError("takes too long")
        call = matmul_call(np.matmul, a, b, out, use_out)
        return {"": self._layer(call, bias, case.activation) if bias is not None else call}

    def _layer(self, product: Call, bias: Array, activation: Activation) -> Call:
        activate, buffer = activation_ufuncs(activation), np.empty_like(product())

        def layer() -> object:
            c: Any = product()
            np.add(c, bias, out=c)
            activate(c, buffer)
            return c

        return layer


def activation_ufuncs(activation: Activation) -> Callable[[Array, Array], object]:
    """A function that applies an activation in place.

    Its second argument is a buffer of the shape and dtype of the first.

    Raises
    ------
    AbsentError
        SciPy, which provides erf, is not installed.
    """
    if activation == "relu":
        return lambda c, _: np.maximum(c, 0, out=c)
    erf = load_module("scipy.special").erf if activation == "gelu" else None

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
