"""The logger ``nkblas``; ``NKBLAS_LOG`` has its messages printed from a level on."""

import sys
from typing import Literal

from . import config
from .lock import call_after_unlock, planning_lock

Level = Literal["debug", "info", "warning", "error"]

MAX_ONCE_MESSAGES = 1000
"""Different messages that are logged with ``once=True``; the rest are dropped."""

_logged_once: set[str] = set()


def log(level: Level, message: str, *, once: bool = False) -> None:
    """Log a message.

    ``logging`` is imported by the first message and not with nkblas: its import takes long.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}
    message : str
    once : bool
        Whether to drop it if it has been logged before.
    """
    threshold = config.LOG_LEVEL
    if level in ("debug", "info") and not threshold and "logging" not in sys.modules:
        return  # neither the user nor the program has asked for such messages
    if once:
        if message in _logged_once or len(_logged_once) >= MAX_ONCE_MESSAGES:
            return
        _logged_once.add(message)
    call_after_unlock(lambda: _emit(level, message, threshold))  # logging has locks of its own


def _emit(level: Level, message: str, threshold: str) -> None:
    with planning_lock():
        # imported under the lock: a fork during the import would leave it incomplete in the child
        import logging

    logger = logging.getLogger("nkblas")
    if threshold and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("nkblas: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(threshold.upper())
    logger.log(logging.getLevelName(level.upper()), "%s", message)
