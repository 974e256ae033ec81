"""What nkblas has to say: the logger ``nkblas``, shown from the level that ``NKBLAS_LOG`` names."""

import contextlib
import os

from .preparing import is_preparing, preparing

_told: set[str] = set()


def log(level: str, message: str, *, once: bool = False) -> None:
    """Log `message` at `level` ("debug", "info", "warning", "error").

    ``logging`` is imported when there is something to say, and not at nkblas's import.
    """
    with contextlib.nullcontext() if is_preparing() else preparing():  # no fork comes in between
        import logging

    if once:
        if message in _told:
            return
        _told.add(message)
    logger = logging.getLogger("nkblas")
    wanted = os.environ.get("NKBLAS_LOG", "").upper()
    if wanted and not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("nkblas: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
        value = logging.getLevelName(wanted)
        logger.setLevel(value if isinstance(value, int) else logging.WARNING)
    logger.log(logging.getLevelName(level.upper()), "%s", message)
