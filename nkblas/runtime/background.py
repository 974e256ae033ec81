"""Work that is done by one background thread: compiling kernels, mostly."""

import os
import threading
from collections.abc import Callable, Hashable

from nkblas.system.lock import planning_lock
from nkblas.system.log import log

_queue: dict[Hashable, Callable[[], None]] = {}  # in the order of submission
_thread: threading.Thread | None = None


def submit(key: Hashable, work: Callable[[], None]) -> None:
    """Have the background thread call `work`, unless something of this key is queued already.

    The caller holds `planning_lock`. The thread is started if there is none.
    """
    global _thread
    _queue.setdefault(key, work)
    if _thread is None:
        _thread = threading.Thread(target=_run, name="nkblas-compile", daemon=True)
        _thread.start()


def _run() -> None:
    """Do all queued work, and end."""
    global _thread
    while True:
        with planning_lock():
            if not _queue:
                _thread = None
                return
            key, work = next(iter(_queue.items()))
        try:
            work()
        except Exception as error:
            log("info", f"{key}: {error}")
        _queue.pop(key, None)


def _after_fork_in_child() -> None:
    global _thread
    _thread = None
    _queue.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
