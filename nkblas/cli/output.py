"""Text for the user: error messages, tables, numbers with units."""

import sys
import time
from collections.abc import Iterable


class CommandError(Exception):
    """A command can't be carried out.

    Parameters
    ----------
    message : str
        For the user.
    status : int
        The exit status.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def print_error(message: str) -> None:
    """Print a message on standard error: the output of a command is on standard output."""
    print(f"nkblas: {message}", file=sys.stderr)


def print_table(rows: Iterable[tuple[str, str, str, str]]) -> None:
    """Print four columns: a name, two numbers aligned to the right, and text."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, number, other, text in rows:
        line = f"  {name:{widths[0]}}  {number:>{widths[1]}}  {other:>{widths[2]}}  {text}"
        print(line.rstrip())


def format_count(number: int, noun: str) -> str:
    """A number and a noun, in the plural if need be."""
    return f"{number} {noun}{'s' * (number != 1)}"


def format_size(size: int) -> str:
    """A number of bytes as text."""
    return f"{size / 1024:.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"


def format_age(timestamp: float) -> str:
    """The time since `timestamp`, in seconds since the epoch, as text."""
    age = max(0.0, time.time() - timestamp)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if age >= 2 * length:
            return f"{age / length:.0f} {unit}"
    return f"{age:.0f} s"
