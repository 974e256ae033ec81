"""Starts the calibration of the cost model, once for a machine: in a process of its own.

That process does not depend on the user's, and the user's program does not wait for it. Its result
serves the processes that start afterwards: so it starts when this one ends, or has run for long.
"""

import atexit
import contextlib
import os
import time
from typing import TYPE_CHECKING

from nkblas.codegen.compiler_client import CompileError, detached_python, python_environment
from nkblas.planning import measured_costs
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock

if TYPE_CHECKING:
    import subprocess

STATEMENT = "from nkblas.inspect import calibrate; calibrate.calibrate_in_background()"
"""What the process executes."""

LONG_SECONDS = 60.0
"""Seconds after which a process is not expected to end soon. A shorter one would be slowed down:
the measurements need caches and memory, even at the lowest priority."""

_imported = time.monotonic()
_registered = False


def start_after_program() -> None:
    """Have another process calibrate the cost model, if that was not done on this machine.

    It starts when this process ends; or now, if this one has run for `LONG_SECONDS`.

    Raises
    ------
    OSError, CompileError
        The process can't be started.
    """
    global _registered
    if measured_costs.are_measured(cpu):
        return
    if time.monotonic() - _imported > LONG_SECONDS:
        _start().wait()  # for the process that starts the other one, and ends
    elif not _registered:
        _registered = True
        atexit.register(_start_at_exit, os.getpid())


def _start_at_exit(pid: int) -> None:
    is_child_of_fork = pid != os.getpid()
    if not is_child_of_fork and not measured_costs.are_measured(cpu):
        with contextlib.suppress(OSError, CompileError):
            _start().returncode = 0  # nothing waits for it


def _start() -> "subprocess.Popen[bytes]":
    with planning_lock():  # no fork comes into the import
        import subprocess  # takes time to import, and few processes need it
    return subprocess.Popen(
        detached_python(STATEMENT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=python_environment(),
    )
