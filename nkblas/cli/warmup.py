"""``nkblas warmup`` and ``nkblas tune``."""

import argparse
import os
from collections.abc import Iterable

from nkblas.base.problem import Problem, parse
from nkblas.inspect import tune as tuner
from nkblas.inspect.record import Recording

from .output import CommandError


def warmup(options: argparse.Namespace) -> int:
    """Measure plans, unless ``--no-tune`` is given, and compile kernels."""
    problems = read_problems(options.problems)
    tuner.warmup(problems, tune=options.tune, progress=not options.quiet)
    return 0


def tune(options: argparse.Namespace) -> int:
    """Measure plans within the time limit of ``--seconds``."""
    problems = read_problems(options.problems)
    limit = {} if options.seconds is None else {"seconds": options.seconds}
    tuner.warmup(problems, force=options.force, progress=not options.quiet, **limit)
    return 0


def read_problems(arguments: Iterable[str]) -> list[str]:
    """The problems that are given by name or recorded in files, each once, as text.

    Raises
    ------
    CommandError
        An argument is neither a problem nor a valid file.
    OSError
        A file can't be read.
    """
    problems: list[Problem] = []
    for argument in arguments:
        try:
            problems.append(parse(argument))
            continue
        except ValueError as error:
            reason = str(error)
        if not os.path.exists(argument):
            raise CommandError(f"{reason}; and there is no such file", 2)
        try:
            problems += Recording.load(argument)
        except ValueError as error:
            raise CommandError(str(error)) from None
    return [str(problem) for problem in dict.fromkeys(problems)]
