"""Where the engine asks for a plan.

The planner is imported when it does (see `nkblas.prepare`), the kernels with the package: so that
neither the import nor the first product takes long.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from . import kernels  # noqa: F401
from ._engine import ffi, lib
from .detect import detect

cpu = detect()

JIT_MODES = ("first-call", "background", "never")


def _jit_mode() -> str:
    mode = os.environ.get("NKBLAS_JIT", JIT_MODES[0])
    if mode not in JIT_MODES:
        raise ValueError(f"NKBLAS_JIT: got {mode!r}, expected one of {', '.join(JIT_MODES)}")
    return mode


jit = _jit_mode()


_lock = threading.Lock()
_owner = 0  # the thread that holds it


@contextlib.contextmanager
def preparing() -> Iterator[None]:
    """Be the one thread that plans, compiles and fills the engine's table."""
    global _owner
    with _lock:
        _owner = threading.get_ident()
        try:
            yield
        finally:
            _owner = 0


def is_preparing() -> bool:
    """Whether this thread is inside of `preparing`."""
    return _owner == threading.get_ident()


def _before_fork() -> None:
    # A child would wait for ever for a module that another thread is importing, for a lock, for
    # the answer of a helper: a fork waits until there is none of that.
    if not is_preparing():
        _lock.acquire()


def _after_fork() -> None:
    if not is_preparing():
        _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


@ffi.def_extern(name="nk_ask_python", error=0)
def _ask(raw: Any) -> int:
    """Called by the engine for a problem that its table lacks; 0 leaves this call to NumPy."""
    if is_preparing():
        return 0  # a signal handler or a finalizer multiplies while this thread prepares
    try:
        with preparing():
            from .prepare import answer

            return answer(raw)
    except KeyboardInterrupt:
        # It can't pass through C: this product is NumPy's, and the interrupt comes after it.
        import _thread

        _thread.interrupt_main()
        return 0


lib.nk_ask = lib.nk_ask_python
