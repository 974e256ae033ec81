"""nkblas, the library under test."""

from functools import partial
from importlib.util import find_spec
from typing import Any

import nkblas
from bench.operands import Operands, same_dtype

from .contender import Call, Forms, matmul_call


class NKBLAS:
    """The library under test.

    Parameters
    ----------
    threads : int
    tune : bool
        Whether plans are selected by measurement before a case is timed, or by the cost model.
    """

    name = "nkblas"

    def __init__(self, threads: int, tune: bool = False) -> None:
        self._library: Any = nkblas  # an older version lacks some functions
        self._tune = tune
        self._has_warmup = hasattr(nkblas, "warmup")
        self._has_threads = hasattr(nkblas, "set_num_threads")
        self.version = f"{nkblas.__version__}, {nkblas.cpu.isa.name} kernels"
        self.version += ", tuned plans" if tune and self._has_warmup else ", modelled plans"
        if find_spec("nkblas.planning.measured_costs"):
            from nkblas.planning.measured_costs import constants_of

            origin = constants_of(nkblas.cpu).microarchitecture
            self.version += f", constants of {origin or 'this machine'}"
        if threads > 1 and not self._has_threads:
            self.version += " (this version is single-threaded)"

    def set_num_threads(self, threads: int) -> None:
        if self._has_threads:
            self._library.set_num_threads(threads)

    def bind(self, operands: Operands, use_out: bool) -> Forms:
        forms = {"": self._call(operands, use_out)}
        if operands.case.activation:  # both unpacked and packed weights, as for the peers
            packed = operands._replace(case=operands.case._replace(packed=True))
            forms = {"unpacked weights": forms[""], "packed weights": self._call(packed, use_out)}
        if self._has_warmup:
            with self._library.record() as problems:
                for call in forms.values():
                    call()
            self._library.warmup(problems, tune=self._tune, progress=False)
        return forms

    def _call(self, operands: Operands, use_out: bool) -> Call:
        a, b, out, bias, case = operands
        options: dict[str, Any] = {"out": out} if use_out else {}
        if case.batch_reduce:
            return partial(nkblas.brgemm, a, b, **options)
        right: Any = nkblas.pack(b, a_dtype=a.dtype, dtype=out.dtype) if case.packed else b
        if case.activation:
            options |= {"bias": bias, "activation": case.activation}
            if not same_dtype(a, b, out):
                options["out_dtype"] = out.dtype
            return partial(nkblas.gemm, a, right, **options)
        if case.packed:
            return partial(nkblas.matmul, a, right, **options)
        return matmul_call(nkblas.matmul, a, b, out, use_out)
