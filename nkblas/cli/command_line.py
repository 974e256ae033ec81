"""The command line: ``nkblas``, or ``python -m nkblas``.

Exit status: 0; 1 if the command failed or found something wrong; 2 if its arguments are wrong; 130
if it was interrupted. ``nkblas run`` ends as the program that it runs.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace

from .output import CommandError, print_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"] and words[1:] and not words[1].startswith("-"):
        options = SimpleNamespace(module=None, script=words[1:], record=None, report=False)
        return _import_command("run:run")(options)
    # imported only where there are options to parse: argparse takes 10 ms
    from .arguments import parser

    status = 0
    try:
        try:
            parsed = parser().parse_args(words)
            runs_program = parsed.command == "run:run"
            if not runs_program:
                status = _import_command(parsed.command)(parsed)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130
    except CommandError as error:
        print_error(str(error))
        return error.status
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    except RuntimeError as error:
        print_error(str(error))
        return 1
    if runs_program:  # outside of the handlers: the program's exceptions are its own
        return _import_command(parsed.command)(parsed)
    return status


def _import_command(command: str) -> Callable[..., int]:
    """The function of a command, named by its module in this folder and its name."""
    # A command's module is imported when the command runs: `nkblas run` must start without the
    # planner, which the other commands import.
    module, function = command.split(":")
    imported: Callable[..., int] = getattr(import_module(f".{module}", __package__), function)
    return imported
