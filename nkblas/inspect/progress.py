"""The progress of a long job on standard error: a bar in a terminal, lines elsewhere."""

import sys
import time
from typing import TextIO

BAR_WIDTH = 24
"""Characters."""

SECONDS_BETWEEN_LINES = 5.0
"""Least time between two lines, where there is no terminal."""


class Progress:
    """Counts the steps of a job, and shows them with an estimate of the time left.

    Parameters
    ----------
    label : str
        What the steps are, such as "kernels".
    total : int
        Number of steps.
    is_shown : bool
        If False, nothing is written.
    stream : file, optional
        Default: standard error.
    """

    def __init__(
        self, label: str, total: int, is_shown: bool, stream: TextIO | None = None
    ) -> None:
        self.label, self.total, self.done = label, total, 0
        self.is_shown = is_shown and total > 0
        self.stream = stream or sys.stderr
        self.is_terminal = self.stream.isatty()
        self.start = self.last_written = time.monotonic()

    def __enter__(self) -> "Progress":
        self._write("")
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_shown and self.is_terminal:
            self.stream.write("\n")

    def step(self, detail: str = "") -> None:
        """Count one step; `detail` is shown beside the count."""
        self.done += 1
        self._write(detail)

    def _write(self, detail: str) -> None:
        now = time.monotonic()
        is_due = now - self.last_written >= SECONDS_BETWEEN_LINES or self.done in (0, self.total)
        if not self.is_shown or not (self.is_terminal or is_due):
            return
        self.last_written = now
        text = f"{self.label} {self.done}/{self.total}"
        if 0 < self.done < self.total:
            seconds_left = (now - self.start) / self.done * (self.total - self.done)
            text += f", {_duration(seconds_left)} left"
        if detail:
            text += f"  {detail}"
        if self.is_terminal:
            full = BAR_WIDTH * self.done // self.total
            text = f"\r\x1b[K[{'#' * full}{'.' * (BAR_WIDTH - full)}] {text}"
        self.stream.write(text if self.is_terminal else text + "\n")
        self.stream.flush()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
