"""Counters of this process: `nkblas.stats`."""

from nkblas._engine import lib
from nkblas.runtime.kernels import kernels


def stats() -> dict[str, int]:
    """Counts since the process started.

    Returns
    -------
    dict
        ``calls``: products asked of nkblas, each matrix of a stack by itself. ``fallbacks``:
        those that NumPy did. ``kernels_compiled``: kernels compiled for this process.
        ``kernels_loaded``: kernels that it found in the store.
    """
    counts = lib.nk_get_counters()
    return {
        "calls": counts.calls,
        "fallbacks": counts.fallbacks,
        "kernels_compiled": kernels.compiled,
        "kernels_loaded": kernels.loaded,
    }
