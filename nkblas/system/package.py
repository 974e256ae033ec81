"""Where the package's own files are."""

import os
from functools import cache

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The package's folder."""


@cache
def shipped_folder() -> str:
    """The folder ``kernels_cache`` with shipped plans and kernels; empty if there is none.

    In a source tree it is beside the package.
    """
    folders = (os.path.join(parent, "kernels_cache") for parent in (PACKAGE, f"{PACKAGE}/.."))
    return next(filter(os.path.isdir, folders), "")
