"""Called by the engine for a problem that its plan table lacks.

The planner (`nkblas.runtime.dispatch`) and the kernel store are imported at the first miss: a
program that imports nkblas need not multiply.
"""

from types import TracebackType
from typing import TYPE_CHECKING

from nkblas._engine import ffi, lib
from nkblas.system.lock import holds_planning_lock, planning_lock

if TYPE_CHECKING:
    from nkblas._engine import nk_problem

_pending: BaseException | None = None


def _keep(kind: type[BaseException], error: BaseException, traceback: TracebackType) -> None:
    """Keep an exception until `raise_pending`; a signal may raise it before the first line."""
    global _pending
    _pending = error


# The stub lacks onerror: its generator is a part of the kernels' keys.
@ffi.def_extern(name="nk_python_miss_handler", error=-1, onerror=_keep)  # type: ignore[call-arg]
def _handle_miss(c_problem: "nk_problem") -> int:
    """1 if the table has an entry for the problem now; 0 if this call is left to NumPy.

    An exception that a signal handler raises meanwhile can't propagate through C: this product is
    left to NumPy, and the engine has the exception raised as soon as it returns (-1).
    """
    if holds_planning_lock():
        return 0  # a signal handler or a finalizer multiplies while this thread plans
    with planning_lock():
        # imported at the first miss, under the lock: no fork comes into the import
        from .abi import problem_from_c
        from .dispatch import handle_miss

        return int(handle_miss(problem_from_c(c_problem)))


def raise_pending() -> None:
    """Raise the exception that came while this process was planning; the engine calls it."""
    global _pending
    error, _pending = _pending, None
    if error is not None:
        raise error


def install() -> None:
    """Have the engine call Python for problems that its table lacks."""
    lib.nk_miss_handler = ffi.addressof(lib, "nk_call_python_miss_handler")
