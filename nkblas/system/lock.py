"""One thread at a time plans, loads kernels and fills the engine's table."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

_lock = threading.Lock()
_owner = 0  # the thread that holds it
_afterwards: list[Callable[[], None]] = []


@contextlib.contextmanager
def planning_lock() -> Iterator[None]:
    """Be that thread."""
    global _owner
    todo: list[Callable[[], None]] = []
    try:
        with _lock:
            _owner = threading.get_ident()
            try:
                yield
            finally:
                _owner = 0
                todo += _afterwards
                _afterwards.clear()
    finally:
        for function in todo:
            function()


def call_after_unlock(function: Callable[[], None]) -> None:
    """Call `function` once this thread is outside of `planning_lock`, now if it is.

    For what may wait for a lock that another thread holds while it waits for this one.
    """
    if holds_planning_lock():
        _afterwards.append(function)
    else:
        function()


def holds_planning_lock() -> bool:
    """Whether this thread is inside of `planning_lock`."""
    return _owner == threading.get_ident()


def _before_fork() -> None:
    # A child would wait for ever for a module that another thread is importing, for a lock, for
    # the answer of a helper: a fork waits until there is none of that.
    if not holds_planning_lock():
        _lock.acquire()


def _after_fork() -> None:
    if not holds_planning_lock():
        _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
