"""Where the engine asks for a plan.

The planner is imported at the first miss (see `nkblas.runtime.dispatch`), the kernels with the
package: so that neither the import nor the first product takes long.
"""

from typing import Any

from nkblas._engine import ffi, lib
from nkblas.system.lock import is_preparing, preparing

from . import kernels  # noqa: F401

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
            from .dispatch import answer

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


def install() -> None:
    """Have the engine call `_plan` for problems that its table lacks."""
    lib.nk_ask = ffi.addressof(lib, "nk_ask_python")
