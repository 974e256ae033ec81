"""What nkblas has to say: the logger ``nkblas``, shown from the level that ``NKBLAS_LOG`` names."""

import sys

from . import config
from .lock import call_after_unlock, planning_lock

TOLD = 1000
"""Messages that are told once; beyond, there is something wrong that has been told."""

_told: set[str] = set()


def log(level: str, message: str, *, once: bool = False) -> None:
    """Log `message` at `level` ("debug", "info", "warning", "error").

    ``logging`` is imported when there is something to say, and not at nkblas's import.
    """
    wanted = config.log_level()
    if level in ("debug", "info") and not wanted and "logging" not in sys.modules:
        return  # nobody has asked for it
    if once:
        if message in _told or len(_told) >= TOLD:
            return
        _told.add(message)
    call_after_unlock(lambda: _say(level, message, wanted))  # logging has locks of its own


def _say(level: str, message: str, wanted: str) -> None:
    with planning_lock():  # no fork comes into the import
        import logging

    logger = logging.getLogger("nkblas")
    if wanted and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("nkblas: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
        value = logging.getLevelName(wanted)
        logger.setLevel(value if isinstance(value, int) else logging.WARNING)
    logger.log(logging.getLevelName(level.upper()), "%s", message)
