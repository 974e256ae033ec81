"""Counters of this process: `nkblas.stats`."""

from nkblas._engine import lib


def stats() -> dict[str, int]:
    """Return what nkblas has done since the process started.

    Returns
    -------
    dict of str to int
        ``calls``: products that nkblas was called for, where each matrix of a stack counts.
        ``fallbacks``: those that NumPy did. ``kernels_compiled``: kernels that were compiled for
        this process. ``kernels_loaded``: kernels that were loaded from the store.

    See Also
    --------
    nkblas.record : the problems of these products.
    """
    counters = lib.nk_get_counters()
    return {
        "calls": counters.calls,
        "fallbacks": counters.fallbacks,
        "kernels_compiled": counters.kernels_compiled,
        "kernels_loaded": counters.kernels_loaded,
    }
