"""Measured processes, with the background processes that they leave behind.

nkblas compiles and calibrates in processes that are no children of the program (see
`nkblas.codegen.compiler_client`) and that may outlive it. They would disturb the next measurement.
A process that called `adopt_orphans` becomes their parent, so that it can wait for them or end
them, and learns their CPU time.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36
"""Option of prctl(2)."""


class Execution(NamedTuple):
    """What one process did, and how long it took.

    Attributes
    ----------
    wall : float
        Seconds from its creation to its end.
    cpu : float
        Seconds of CPU time that wait4(2) gives for it: user and system, of all of its threads and
        of children that it waited for. Background processes are not in it.
    background_cpu : float
        Seconds of CPU time of its background processes, until they ended or were ended.
    status : int
        Its exit status; negative for a signal.
    output, messages : str
        What it wrote to stdout and to stderr.
    """

    wall: float
    cpu: float
    background_cpu: float
    status: int
    output: str
    messages: str


def adopt_orphans() -> None:
    """Have this process become the parent of orphans among its descendants.

    Raises
    ------
    OSError
        The system refuses it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"prctl: {os.strerror(error)}")


def execute(command: Sequence[str], environment: dict[str, str], end_background: bool) -> Execution:
    """Run a command to its end, and then its background processes.

    Parameters
    ----------
    command : sequence of str
    environment : dict of str to str
    end_background : bool
        Whether to kill the background processes instead of waiting for them.
    """
    with TemporaryFile() as output, TemporaryFile() as messages:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=messages, env=environment
        )
        _, wait_status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(wait_status)
        background_cpu = wait_for_children(end_background)
        texts = []
        for file in (output, messages):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    cpu = usage.ru_utime + usage.ru_stime
    return Execution(wall, cpu, background_cpu, process.returncode, *texts)


def wait_for_children(end: bool) -> float:
    """Wait for all children of this process; returns the seconds of CPU time that they used.

    Parameters
    ----------
    end : bool
        Whether to kill them first. Their own children become children of this process, and are
        killed as well.
    """
    seconds = 0.0
    while True:
        for pid in children() if end else ():
            os.kill(pid, signal.SIGKILL)  # it exists: no one else waits for it
        try:
            _, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return seconds
        seconds += usage.ru_utime + usage.ru_stime


def children() -> list[int]:
    """Process ids of the children of this process."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text("utf-8").split()]
