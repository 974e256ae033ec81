"""PyTorch on the CPU."""

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from bench.operands import Array, Operands, concatenate_blocks, same_dtype

from .contender import AbsentError, Call, Forms, load_module


class Torch:
    """``torch.mm``, ``mv`` and ``bmm`` on views of the same arrays; ``_int_mm`` for int8 -> int32.

    Other products with a wider result pass ``out_dtype``. For layers and for the sum of a batch
    there are several calls, of which the fastest is measured.
    """

    name = "torch"

    def __init__(self, threads: int) -> None:
        self._torch = load_module("torch")
        # As in inference programs. It is never left, so that calls need not enter it.
        self._torch.inference_mode().__enter__()
        self.version = self._torch.__version__

    def set_num_threads(self, threads: int) -> None:
        self._torch.set_num_threads(threads)

    def bind(self, operands: Operands, use_out: bool) -> Forms:
        if not use_out and operands.out.dtype.name == "bfloat16":
            raise AbsentError("NumPy can't read its results")
        if operands.bias is not None:
            forms = self._layers(operands, operands.bias, use_out)
        elif operands.case.batch_reduce:
            forms = self._batch_reduce(operands, use_out)
        else:
            forms = {"": self._product(operands, use_out)}
        supported = {}
        for name, call in forms.items():
            try:
                call()
                supported[name] = call
            except RuntimeError as error:
                reason = str(error).partition(". ")[0]
        if not supported:
            raise AbsentError(reason)
        return supported

    def _product(self, operands: Operands, use_out: bool) -> Call:
        a, b, out, *_ = operands
        x, y, z = map(self._tensor, (a, b, out))
        if same_dtype(a, b, out):
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
        return (lambda: function(x, y, out=z)) if use_out else (lambda: function(x, y))

    def _layers(self, operands: Operands, bias: Array, use_out: bool) -> Forms:
        """Calls with unpacked, transposed and packed weights.

        ``torch.nn.Linear`` stores weights transposed; ``torch.compile`` packs frozen weights.
        """
        torch = self._torch
        x, w, z, c = map(self._tensor, (operands.a, operands.b, operands.out, bias))
        transposed = w.T.contiguous()
        options = {"out": z} if use_out else {}
        linear, gelu = torch._C._nn.linear, torch._C._nn.gelu_
        activate, name, algorithm = {
            "relu": (torch.relu_, "relu", ""),
            "gelu": (gelu, "gelu", "none"),
            "gelu_tanh": (partial(gelu, approximate="tanh"), "gelu", "tanh"),
        }[operands.case.activation]
        forms: Forms = {
            "addmm": lambda: activate(torch.addmm(c, x, w, **options)),
            "linear": lambda: activate(linear(x, transposed, c, **options)),
        }
        rows = len(x)
        with suppress(AttributeError, RuntimeError):  # not in this build, or not for this dtype
            onednn_weight = torch.ops.mkldnn._reorder_linear_weight(transposed, rows)
            pointwise = torch.ops.mkldnn._linear_pointwise.default
            forms["packed by oneDNN"] = lambda: pointwise(x, onednn_weight, c, name, [], algorithm)
        with suppress(AttributeError, RuntimeError):
            mkl_weight = torch.ops.mkl._mkl_reorder_linear_weight(transposed, rows)
            mkl_linear = torch.ops.mkl._mkl_linear.default
            forms["packed by MKL"] = lambda: activate(
                mkl_linear(x, mkl_weight, transposed, c, rows)
            )
        return forms

    def _batch_reduce(self, operands: Operands, use_out: bool) -> Forms:
        torch = self._torch
        a, b, out, *_ = operands
        x, y, z, wide, tall = map(self._tensor, (a, b, out, *concatenate_blocks(a, b)))
        options = {"out": z} if use_out else {}
        products = torch.empty((len(a), *out.shape), dtype=z.dtype)
        return {
            "one mm": lambda: torch.mm(wide, tall, **options),
            "addbmm": lambda: torch.addbmm(z, x, y, beta=0, **options),
            "bmm, sum": lambda: torch.sum(torch.bmm(x, y, out=products), 0, **options),
        }

    def _tensor(self, x: Array) -> Any:
        if x.dtype.name == "bfloat16":
            return self._torch.from_numpy(x.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(x)
