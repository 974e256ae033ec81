"""Starts the calibration of the cost model, once for a machine: in a process of its own.

That process does not depend on the user's, and the user's program does not wait for it. Its result
serves the processes that start afterwards.
"""

from nkblas.codegen.compiler_client import detached_python, python_environment
from nkblas.planning import measured_costs
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock

STATEMENT = "from nkblas.inspect import calibrate; calibrate.calibrate_in_background()"
"""What the process executes."""


def start() -> None:
    """Have another process calibrate the cost model, if that was not done on this machine.

    Raises
    ------
    OSError, CompileError
        The process can't be started.
    """
    if measured_costs.are_measured(cpu):
        return
    with planning_lock():  # no fork comes into the import
        import subprocess  # takes time to import, and few processes need it
    subprocess.run(
        detached_python(STATEMENT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=python_environment(),
        check=True,
    )
