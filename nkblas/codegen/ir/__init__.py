"""The operations that the kernel builders use, over MLIR's dialect builders."""

from .builder import *  # noqa: F403
