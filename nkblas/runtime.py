"""Where the engine asks for a plan.

The planner is imported when it does (see `nkblas.prepare`), the kernels with the package: so that
neither the import nor the first product takes long.
"""

import os
from typing import Any

from . import kernels  # noqa: F401
from ._engine import ffi, lib
from .detect import detect
from .preparing import is_preparing, preparing

cpu = detect()

JIT_MODES = ("first-call", "background", "never")


def _jit_mode() -> str:
    mode = os.environ.get("NKBLAS_JIT", JIT_MODES[0])
    if mode not in JIT_MODES:
        raise ValueError(f"NKBLAS_JIT: got {mode!r}, expected one of {', '.join(JIT_MODES)}")
    return mode


jit = _jit_mode()


_raised: BaseException | None = None


@ffi.def_extern(name="nk_plan_python", error=0)
def _plan(raw: Any) -> int:
    """Called by the engine for a problem that its table lacks; 0 leaves this call to NumPy.

    What the handler of a signal raises can't pass through C: this product is NumPy's, and the
    engine has it raised again (-1).
    """
    global _raised
    if is_preparing():
        return 0  # a signal handler or a finalizer multiplies while this thread prepares
    try:
        with preparing():
            from .prepare import answer

            return answer(raw)
    except BaseException as error:
        _raised = error
        return -1


def raise_again() -> None:
    """Raise what was raised while this process was planning; Python calls it, for the engine."""
    global _raised
    error, _raised = _raised, None
    if error is not None:
        raise error


lib.nk_ask = ffi.addressof(lib, "nk_ask_python")
