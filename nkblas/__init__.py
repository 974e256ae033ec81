"""Matrix products for NumPy on kernels that are generated for the CPU and the shape.

``nkblas.matmul(a, b)`` is a drop-in for ``numpy.matmul``, as `dot`, `einsum` and the others are for
NumPy's; ``nkblas.patch()`` puts them under NumPy itself.
"""

import sys

from . import _gufunc  # noqa: F401  refuses a subinterpreter, before NumPy is there to stay

# isort: split
import numpy as np

from . import blas
from .brgemm import brgemm
from .einsum import einsum
from .explain import Explanation, explain, show_config, stats
from .gemm import gemm
from .matmul import matmul, vecdot
from .packed import PackedMatrix, pack
from .patch import patch, patched, unpatch
from .products import dot, inner, matrix_power, multi_dot, tensordot, vdot
from .record import Recording, record
from .runtime import cpu
from .threads import get_num_threads, set_num_threads

__all__ = [
    "Explanation",
    "PackedMatrix",
    "Recording",
    "blas",
    "brgemm",
    "cpu",
    "dot",
    "einsum",
    "explain",
    "gemm",
    "get_num_threads",
    "inner",
    "matmul",
    "matrix_power",
    "multi_dot",
    "pack",
    "patch",
    "patched",
    "record",
    "set_num_threads",
    "show_config",
    "stats",
    "tensordot",
    "unpatch",
    "vdot",
    "vecdot",
    "warmup",
]
if hasattr(np, "matvec"):  # since NumPy 2.2
    from .matmul import matvec, vecmat

    __all__ += ["matvec", "vecmat"]
__version__ = "0.1.0"

# A free-threaded Python takes the GIL for extensions that need it, unless it is told not to.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("nkblas needs the GIL: start Python without PYTHON_GIL=0 and -X gil=0")


def __getattr__(name: str) -> object:
    # Tuning is for few programs: the others do not import it.
    if name == "warmup":
        from .tune import warmup

        return warmup
    if name in ("matvec", "vecmat"):
        raise AttributeError(f"nkblas.{name}: expected NumPy 2.2 or later, got {np.__version__}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
