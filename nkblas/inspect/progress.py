"""How far a long job is: a bar in a terminal, lines elsewhere."""

import sys
import time
from typing import TextIO

WIDTH = 24
"""Characters of the bar."""

EVERY = 5.0
"""Seconds between two lines, where there is no terminal."""


class Progress:
    """The steps of a job, counted on standard error.

    Parameters
    ----------
    what : str
        What is counted.
    total : int
        Number of steps.
    shown : bool
        False: nothing is written.
    """

    def __init__(self, what: str, total: int, shown: bool, stream: TextIO | None = None) -> None:
        self.what, self.total, self.done = what, total, 0
        self.shown = shown and total > 0
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.start = self.told = time.monotonic()

    def __enter__(self) -> "Progress":
        self.tell("")
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.terminal:
            self.stream.write("\n")

    def step(self, detail: str = "") -> None:
        """Count one step; `detail` says which."""
        self.done += 1
        self.tell(detail)

    def tell(self, detail: str) -> None:
        now = time.monotonic()
        due = now - self.told >= EVERY or self.done in (0, self.total)
        if not self.shown or not (self.terminal or due):
            return
        self.told = now
        text = f"{self.what} {self.done}/{self.total}"
        if 0 < self.done < self.total:
            left = (now - self.start) / self.done * (self.total - self.done)
            text += f", {_duration(left)} left"
        if detail:
            text += f"  {detail}"
        if self.terminal:
            full = WIDTH * self.done // self.total
            text = f"\r\x1b[K[{'#' * full}{'.' * (WIDTH - full)}] {text}"
        self.stream.write(text if self.terminal else text + "\n")
        self.stream.flush()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
