"""Command line: measure whole programs as plain Python and under ``nkblas run``.

Each program of this folder runs as plain Python, under ``nkblas run`` with an empty cache folder
(cold), and with a cache folder that all programs of this invocation share (warm), in turns. The
wall time is that of the whole process, from its creation to its end. The CPU time is what wait4(2)
gives for it; it does not contain the CPU time of compilation and calibration, which run in
processes of their own. Before the next process starts, those of a warm run are waited for, and
those of a cold run are killed.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..__main__ import ISA_VARIABLES, set_openblas_overrides
from ..report import print_header
from .processes import adopt_orphans
from .program_list import PROGRAMS

if TYPE_CHECKING:
    from .measurements import ProgramResult, Way

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NKBLAS_NUM_THREADS")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; exit with an error message if it is wrong."""
    parser = argparse.ArgumentParser(
        "python -m bench.programs",
        description="Measure whole NumPy programs as plain Python and under nkblas run.",
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"{', '.join(PROGRAMS)} (default: all)")
    add("--runs", type=int, default=5, metavar="N", help="measured runs of each (default: 5)")
    add("--isa", choices=ISA_VARIABLES, default="", help="the most that each library uses")
    add("--jit", choices=("first-call", "background", "never"), help="NKBLAS_JIT")
    add("--threads", type=int, default=2, metavar="N", help="(default: 2)")
    add("--json", metavar="FILE", help="write all results to it, with the times of each run")
    add("--plot", metavar="FILE", help="draw a figure into it, as PNG")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--cold", action="store_true", help="only with an empty cache folder")
    group.add_argument("--warm", action="store_true", help="only with a cache folder in use")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(PROGRAMS)
    if unknown:
        expected = ", ".join(PROGRAMS)
        parser.error(f"NAME: got {', '.join(sorted(unknown))}, expected some of {expected}")
    for name in ("runs", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: got {getattr(options, name)}, expected 1 or more")
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot: the package matplotlib is not installed")
    options.names = options.names or list(PROGRAMS)
    return options


def prepare_environment(options: argparse.Namespace) -> list[str]:
    """Set the variables that the programs inherit; returns those of OpenBLAS that were unset."""
    variables = dict(ISA_VARIABLES.get(options.isa, {}))
    unset = set_openblas_overrides(variables.pop("OPENBLAS_CORETYPE", ""))
    variables.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    if options.jit:
        variables["NKBLAS_JIT"] = options.jit
    os.environ.update(variables)
    return unset


def make_header(unset: list[str]) -> dict[str, str]:
    """The machine, the versions of the packages, and nkblas's variables."""
    # NumPy is imported after the environment is prepared
    import numpy as np

    import nkblas

    header = {"cpu": nkblas.cpu.brand, "isa": nkblas.cpu.isa.name}
    header["load"] = f"{os.getloadavg()[0]:.1f} before the run"
    header["python"] = sys.version.split()[0]
    header["numpy"] = np.__version__
    header["nkblas"] = nkblas.__version__
    names = sorted(name for name in os.environ if name.startswith("NKBLAS_"))
    names = [name for name in names if name != "NKBLAS_CACHE_DIR"]  # each way has its own
    header["variables"] = " ".join(f"{name}={os.environ[name]}" for name in names)
    if unset:
        header["unset"] = f"{', '.join(unset)}, for this run"
    return header


def main() -> int:
    """Run ``python -m bench.programs``; returns 1 if a program failed or outputs disagree."""
    options = parse_arguments(sys.argv[1:])
    header = make_header(prepare_environment(options))

    # These modules import NumPy.
    from .measurements import Measurement, save
    from .table import print_table

    print_header(header)
    ways: list[Way] = ["plain"]
    ways += [] if options.warm else ["cold"]
    ways += [] if options.cold else ["warm"]
    title = f"programs, {options.threads} thread{'s' * (options.threads > 1)}, "
    title += f"{options.runs} run{'s' * (options.runs > 1)} of each"
    adopt_orphans()
    results: list[ProgramResult] = []
    measurement = Measurement(ways, options.runs)
    try:
        measured = map(measurement.measure, options.names)
        for result in print_table(measured, ways, title):
            results.append(result)
    finally:  # also writes the results of an interrupted run
        measurement.close()
        if options.json:
            save(header, results, options.json)
    if options.plot:
        from .figure import plot  # imports matplotlib, which is optional

        plot(results, f"{header['cpu']} · {header['isa']}", title, options.plot)
        print(options.plot)
    return int(any(result.errors for result in results))


if __name__ == "__main__":
    sys.exit(main())
