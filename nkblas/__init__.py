"""Matrix products for NumPy on kernels that are generated for the CPU and the shape.

``nkblas.matmul(a, b)`` is a drop-in for ``numpy.matmul``, as `dot`, `einsum` and the others are for
NumPy's; ``nkblas.patch()`` puts them under NumPy itself.
"""

import os
import sys
from importlib import import_module

from nkblas.system import config

with config.openblas_timeout():
    # imports NumPy, and refuses a subinterpreter before
    from nkblas import _numpy_ext  # noqa: F401

# isort: split
from typing import TYPE_CHECKING

import numpy as np

from nkblas._engine import lib
from nkblas.api import recipes  # noqa: F401  it registers itself for the fast paths
from nkblas.api.brgemm import brgemm
from nkblas.api.doors import Door, Doors
from nkblas.api.einsum import einsum
from nkblas.api.gemm import gemm
from nkblas.api.gufuncs import matmul, vecdot
from nkblas.api.packed import PackedMatrix, pack
from nkblas.api.patch import patch, patched, unpatch
from nkblas.api.products import dot, inner, matrix_power, multi_dot, tensordot, vdot
from nkblas.runtime import miss_handler
from nkblas.runtime.threads import get_num_threads, set_num_threads
from nkblas.system.cpu import cpu
from nkblas.system.package import get_include, get_library
from nkblas.system.version import __version__ as __version__

if TYPE_CHECKING:
    from nkblas import blas
    from nkblas.inspect.explain import Explanation, explain
    from nkblas.inspect.record import Recording, record
    from nkblas.inspect.show_config import show_config
    from nkblas.inspect.stats import stats
    from nkblas.inspect.tune import warmup

__all__ = [
    "Door",
    "Doors",
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
    "get_include",
    "get_library",
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
    from nkblas.api.gufuncs import matvec, vecmat

    __all__ += ["matvec", "vecmat"]

# A free-threaded Python takes the GIL for extensions that need it, unless it is told not to.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("nkblas needs the GIL: start Python without PYTHON_GIL=0 and -X gil=0")


miss_handler.install()
if config.COUNTERS_FOLDER:  # a child of `nkblas run --report`
    lib.nk_count_in_files(os.fsencode(config.COUNTERS_FOLDER), True)

# Few programs use these, and they import the planner: each is imported at its first use. So is
# nkblas.blas, whose functions get their docstrings when it is imported.
_LAZY = {
    "Explanation": "explain",
    "Recording": "record",
    "explain": "explain",
    "record": "record",
    "show_config": "show_config",
    "stats": "stats",
    "warmup": "tune",
}


def __getattr__(name: str) -> object:
    if name == "blas":
        return import_module("nkblas.blas")
    if name in _LAZY:
        value = getattr(import_module(f"nkblas.inspect.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    if name in ("matvec", "vecmat"):
        raise AttributeError(f"nkblas.{name}: expected NumPy 2.2 or later, got {np.__version__}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if getattr(sys.modules.get("nkblas_patch"), "is_left_to_nkblas", False):
    patch()  # NKBLAS_PATCH, in a process that imports nkblas before NumPy
