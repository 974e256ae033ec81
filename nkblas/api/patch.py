"""`patch`: replace NumPy's products by nkblas's, in NumPy itself.

NumPy's products are replaced in two ways. Its gufuncs (`matmul` and the operator ``@``, `vecdot`,
`matvec`, `vecmat`) get other loops. Its functions `dot`, `inner`, `vdot`, `tensordot`, `einsum` and
`linalg.multi_dot` stay the same objects, in all modules and under all names that they were imported
to, and get another implementation. All other functions of NumPy (`linalg.matrix_power`, `cov`, ...)
call these.

What calls BLAS from C (`ndarray.dot`, SciPy) is reached by doors (`doors.py`).
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from nkblas import _numpy_ext
from nkblas.system import config
from nkblas.system.log import log

from . import einsum as _einsum  # noqa: F401 (it registers its implementation)
from .doors import Doors, close_doors, open_doors
from .products import implementation, patch_implementations

_lock = threading.RLock()  # reentrant: a signal handler may patch, too
_patch_doors: bool | None = None  # the argument of `patch`; None: it is undone
_context_doors: list[bool] = []  # those of the contexts of `patched` that are open, in all threads

_original_implementations: dict[Any, Callable[..., Any]] = {}
"""NumPy's own implementations of the functions that are patched now, by function."""


def _update() -> None:
    """Patch NumPy and open doors, or undo it, for `patch` and the open contexts together.

    The caller holds the lock.
    """
    _patch_numpy(_patch_doors is not None or bool(_context_doors))
    if config.MAY_OPEN_DOORS and (_patch_doors or any(_context_doors)):
        open_doors()
    else:
        close_doors()


def _patch_numpy(on: bool) -> None:
    _numpy_ext.set_patched(on)
    for function, replacement in patch_implementations.items():
        if on and function not in _original_implementations:
            original = implementation(function)
            try:
                _numpy_ext.replace_implementation(function, replacement)
            except RuntimeError as error:  # a later NumPy: all other functions are patched
                name = function.__name__
                log("warning", f"numpy.{name} is not patched: {error}", once=True)
                continue
            _original_implementations[function] = original
        elif not on and function in _original_implementations:
            original = _original_implementations.pop(function)
            _numpy_ext.replace_implementation(function, original)


def _replace_lock() -> None:
    """In the child of a fork: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_replace_lock)


def patch(doors: bool = True) -> Doors:
    """Replace NumPy's and SciPy's products by nkblas's, in all threads, until `unpatch`.

    These are ``@``, `numpy.matmul`, `vecdot`, `matvec`, `vecmat`, `dot`, `inner`, `vdot`,
    `tensordot`, `einsum`, `linalg.multi_dot`, and the functions that call them:
    `linalg.matrix_power`, `cov`, ..., also under names that were imported earlier.

    And what compiled modules of NumPy and SciPy do by BLAS, where nkblas has the function: the
    method `ndarray.dot`, `scipy.linalg.blas`, and `scipy.linalg.cython_blas`, which other packages'
    compiled modules call, too (scikit-learn's). For this, the address of nkblas's function is
    written to the memory through which such a module calls BLAS, its *doors*; also in modules that
    are loaded later. What is inside of a BLAS library is not reached: LAPACK behind `numpy.linalg`
    and `scipy.linalg`.

    Further calls have no effect, apart from `doors`.

    Parameters
    ----------
    doors : bool
        Whether the doors of compiled modules are opened, and not only NumPy's own functions
        replaced. With ``NKBLAS_DOORS=0`` in the environment they never are.

    Returns
    -------
    Doors
        What is reached and what is not: each place where a module that is loaded calls BLAS, its
        state, and the calls that came to nkblas. It is up to date whenever it is read or printed.

    See Also
    --------
    unpatch, patched

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> doors = nkblas.patch()  # print(doors) shows what is reached
    >>> before = nkblas.stats()["calls"]
    >>> np.eye(2) @ np.array([1.0, 2.0])
    array([1., 2.])
    >>> nkblas.stats()["calls"] - before
    1
    >>> nkblas.unpatch()
    """
    global _patch_doors
    with _lock:
        _patch_doors = bool(doors)
        _update()
    return Doors()


def unpatch() -> None:
    """Undo `patch`: NumPy's own products are back, unless a context of `patched` is still open.

    Each door is what it was, whichever modules were loaded meanwhile. Without a preceding `patch`
    it has no effect.

    See Also
    --------
    patch, patched
    """
    global _patch_doors
    with _lock:
        _patch_doors = None
        _update()


@contextlib.contextmanager
def patched(doors: bool = True) -> Iterator[Doors]:
    """Context manager: NumPy's and SciPy's products are nkblas's inside (see `patch`).

    Contexts can be nested, and open in several threads at the same time: when the last one ends,
    NumPy's own products are back. The patch affects all threads, not only the one that opens the
    context.

    Parameters
    ----------
    doors : bool
        As for `patch`.

    Returns
    -------
    context manager
        Its value is that of `patch`.

    See Also
    --------
    patch, unpatch

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> with nkblas.patched():
    ...     np.dot([1.0, 2.0], [3.0, 4.0])
    np.float64(11.0)
    """
    with _lock:
        _context_doors.append(bool(doors))
        _update()
    try:
        yield Doors()
    finally:
        with _lock:
            _context_doors.remove(bool(doors))
            _update()
