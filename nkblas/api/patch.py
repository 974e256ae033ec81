"""`patch`: nkblas under NumPy itself.

Two doors lead to NumPy's products. Its gufuncs (`matmul` and the operator ``@``, `vecdot`,
`matvec`, `vecmat`) get other loops. Its functions `dot`, `inner`, `vdot` and `einsum` stay the
objects that they are, in whatever module and under whatever name they were imported, and get
another implementation. All others in NumPy (`tensordot`, `linalg.multi_dot`, `cov`, …) call these.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nkblas import _numpy_ext
from nkblas.system.log import log

from . import einsum as _einsum  # noqa: F401 (it is one of the replacements)
from . import products

_lock = threading.RLock()  # a signal handler may patch, too
_patched = False  # by `patch`
_blocks = 0  # of `patched`, in all threads


_functions: dict[str, Any] = {name: getattr(np, name) for name in products.replacements}
_before: dict[str, Callable[..., Any]] = {}  # the implementations that they had; empty: they have


def _update(patched: bool | None = None, blocks: int = 0) -> None:
    global _patched, _blocks
    with _lock:
        _patched = _patched if patched is None else patched
        _blocks += blocks
        on = _patched or _blocks > 0
        _numpy_ext.set_patched(on)
        for name, function in _functions.items():
            if on and name not in _before:
                had = products.implementation(function)
                try:
                    _numpy_ext.replace_implementation(function, products.replacements[name])
                except RuntimeError as why:  # of a NumPy to come: all others are patched
                    log("warning", f"numpy.{name} stays as it is: {why}", once=True)
                    continue
                _before[name] = had
            elif not on and name in _before:
                _numpy_ext.replace_implementation(function, _before.pop(name))


def _forget_lock() -> None:
    """After a fork, in the child: another thread may have held it."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_lock)


def patch() -> None:
    """Put nkblas under NumPy: from now on NumPy's products run on it, in all threads.

    These are ``@``, `numpy.matmul`, `vecdot`, `matvec`, `vecmat`, `dot`, `inner`, `vdot`, `einsum`,
    and what is made of them: `tensordot`, `linalg.multi_dot`, `linalg.matrix_power`, `cov`, …,
    also where they were imported by name before. Out of reach are the method `ndarray.dot` and
    those of `numpy.linalg`'s functions that call LAPACK.

    Called again it changes nothing.

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
    _update(patched=True)


def unpatch() -> None:
    """Take back `patch`: NumPy is what it was, unless a block of `patched` is still open.

    Without a `patch` before it changes nothing.
    """
    _update(patched=False)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """NumPy on nkblas (see `patch`) for the length of a block.

    Blocks may be nested, and open in several threads at a time: the last one that ends leaves
    NumPy as it was. All threads are affected, not only the one that opens it.

    Returns
    -------
    context manager

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> with nkblas.patched():
    ...     np.dot([1.0, 2.0], [3.0, 4.0])
    np.float64(11.0)
    """
    _update(blocks=1)
    try:
        yield
    finally:
        _update(blocks=-1)
