"""The planning lock: one thread at a time plans, loads kernels and writes the plan table."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

_lock = threading.Lock()
_owner = 0  # identifier of the thread that holds the lock; 0: none does
_deferred_calls: list[Callable[[], None]] = []


@contextlib.contextmanager
def planning_lock() -> Iterator[None]:
    """Hold the lock; it is not reentrant. Calls that were deferred meanwhile follow its release."""
    global _owner
    calls: list[Callable[[], None]] = []
    try:
        with _lock:
            _owner = threading.get_ident()
            try:
                yield
            finally:
                _owner = 0
                calls += _deferred_calls
                _deferred_calls.clear()
    finally:
        for function in calls:
            function()


def call_after_unlock(function: Callable[[], None]) -> None:
    """Call `function` when this thread does not hold `planning_lock`: at once, or at its release.

    This prevents a deadlock where `function` needs a lock whose holder may wait for this one.
    """
    if holds_planning_lock():
        _deferred_calls.append(function)
    else:
        function()


def holds_planning_lock() -> bool:
    """Whether this thread holds `planning_lock`."""
    return _owner == threading.get_ident()


def _before_fork() -> None:
    # A fork waits until no thread imports a module, holds a lock or talks to the compiler under
    # the planning lock: none of these threads exists in the child, which would wait forever.
    if not holds_planning_lock():
        _lock.acquire()


def _after_fork() -> None:
    if not holds_planning_lock():
        _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
