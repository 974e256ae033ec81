"""The priority of processes that work in the background."""

import contextlib
import os

LOWEST_PRIORITY = 19
"""The niceness of background processes."""


def lower_priority() -> None:
    """Lower the priority of this process, and of its session, as far as possible.

    Where the system groups processes by session (autogroups, sched(7)), niceness counts within the
    session only, and two sessions share a CPU equally.
    """
    os.nice(LOWEST_PRIORITY)
    with (
        contextlib.suppress(OSError),  # there are no autogroups, or they can't be changed
        open("/proc/self/autogroup", "w", encoding="ascii") as file,
    ):
        file.write(str(LOWEST_PRIORITY))
