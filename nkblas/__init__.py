"""Matrix products for NumPy on kernels that are generated for the CPU and the shape.

``nkblas.matmul(a, b)`` is a drop-in for ``numpy.matmul``.
"""

from . import blas
from .explain import Explanation, explain, show_config, stats
from .gemm import gemm
from .matmul import matmul
from .record import Recording, record
from .runtime import cpu
from .threads import get_num_threads, set_num_threads

__all__ = [
    "Explanation",
    "Recording",
    "blas",
    "cpu",
    "explain",
    "gemm",
    "get_num_threads",
    "matmul",
    "record",
    "set_num_threads",
    "show_config",
    "stats",
    "warmup",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Tuning is for few programs: the others do not import it.
    if name == "warmup":
        from .tune import warmup

        return warmup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
