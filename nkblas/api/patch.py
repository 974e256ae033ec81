"""`patch`: replace NumPy's products by nkblas's, in NumPy itself.

NumPy's products are replaced in two ways. Its gufuncs (`matmul` and the operator ``@``, `vecdot`,
`matvec`, `vecmat`) get other loops. Its functions `dot`, `inner`, `vdot`, `tensordot`, `einsum` and
`linalg.multi_dot` stay the same objects, in all modules and under all names that they were imported
to, and get another implementation. All other functions of NumPy (`linalg.matrix_power`, `cov`, ...)
call these.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from nkblas import _numpy_ext
from nkblas.system.log import log

from . import einsum as _einsum  # noqa: F401 (it registers its implementation)
from .products import implementation, patch_implementations

_lock = threading.RLock()  # reentrant: a signal handler may patch, too
_is_patched = False  # by `patch`
_open_contexts = 0  # of `patched`, in all threads

_original_implementations: dict[Any, Callable[..., Any]] = {}
"""NumPy's own implementations of the functions that are patched now, by function."""


def _update(is_patched: bool | None = None, contexts: int = 0) -> None:
    """Count contexts, set or clear the patch, and patch NumPy's functions accordingly."""
    global _is_patched, _open_contexts
    with _lock:
        _is_patched = _is_patched if is_patched is None else is_patched
        _open_contexts += contexts
        on = _is_patched or _open_contexts > 0
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


def patch() -> None:
    """Replace NumPy's products by nkblas's, in all threads, until `unpatch`.

    These are ``@``, `numpy.matmul`, `vecdot`, `matvec`, `vecmat`, `dot`, `inner`, `vdot`,
    `tensordot`, `einsum`, `linalg.multi_dot`, and the functions that call them:
    `linalg.matrix_power`, `cov`, ..., also under names that were imported earlier. The method
    `ndarray.dot`, and functions of `numpy.linalg` that call LAPACK, cannot be replaced.

    Further calls have no effect.

    See Also
    --------
    unpatch, patched

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.patch()
    >>> before = nkblas.stats()["calls"]
    >>> np.eye(2) @ np.array([1.0, 2.0])
    array([1., 2.])
    >>> nkblas.stats()["calls"] - before
    1
    >>> nkblas.unpatch()
    """
    _update(is_patched=True)


def unpatch() -> None:
    """Undo `patch`: NumPy's own products are back, unless a context of `patched` is still open.

    Without a preceding `patch` it has no effect.

    See Also
    --------
    patch, patched
    """
    _update(is_patched=False)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Context manager: NumPy's products are nkblas's inside (see `patch`).

    Contexts can be nested, and open in several threads at the same time: when the last one ends,
    NumPy's own products are back. The patch affects all threads, not only the one that opens the
    context.

    Returns
    -------
    context manager

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
    _update(contexts=1)
    try:
        yield
    finally:
        _update(contexts=-1)
