"""Command line of the report on rounding errors, whose results are in docs/numerics.md."""

import argparse
import json
import sys
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from .__main__ import HAS_ML_DTYPES, prepare_environment
from .suites import PEER_NAMES, parse_dtypes

if TYPE_CHECKING:
    from .rounding_errors import ErrorResult

DEFAULT_PEERS = PEER_NAMES[:3]
"""The peers that are measured by default. (JAX uses XLA's copy of oneDNN, which is in PyTorch.)"""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; exit with an error message if it is wrong."""
    parser = argparse.ArgumentParser(
        "python -m bench.numerics", description="Measure rounding errors of nkblas and its peers."
    )
    add = parser.add_argument
    add("--dtype", nargs="+", metavar="D", help="(default: all real and complex floats)")
    add("--depth", nargs="+", type=int, metavar="K", help="values of k (default: 1 to 100000)")
    add(
        "--peers",
        nargs="*",
        choices=PEER_NAMES,
        default=DEFAULT_PEERS,
        metavar="P",
        help=f"{', '.join(PEER_NAMES)} (default: {' '.join(DEFAULT_PEERS)})",
    )
    add("--json", metavar="FILE", help="write all results to it")
    add("--plot", metavar="FOLDER", help="draw the figures of docs/numerics.md into it")
    add("--from-json", metavar="FILE", help="report what --json wrote, instead of measuring")
    options = parser.parse_args(arguments)
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot: the package matplotlib is not installed")
    return options


def run(options: argparse.Namespace) -> tuple[dict[str, str], list["ErrorResult"]]:
    """Measure; return the versions of CPU and libraries, and the errors."""
    prepare_environment(isa="")

    # These modules import NumPy.
    import nkblas

    from . import error_tasks, peers, rounding_errors

    dtypes = tuple(options.dtype or error_tasks.DTYPES)
    unknown = set(dtypes) - set(error_tasks.DTYPES)
    if unknown:
        expected = ", ".join(error_tasks.DTYPES)
        raise SystemExit(f"--dtype: got {', '.join(unknown)}, expected some of {expected}")
    dtypes = tuple(x for x in dtypes if "bfloat16" not in x or HAS_ML_DTYPES)
    header = {"cpu": nkblas.cpu.brand, "isa": nkblas.cpu.isa.name, "nkblas": nkblas.__version__}
    contenders = []
    for name in options.peers:
        try:
            contenders.append(peers.PEERS[name](1))
            contenders[-1].set_num_threads(1)
            header[name] = contenders[-1].version
        except peers.AbsentError as error:
            header[name] = f"absent: {error}"
    depths = tuple(options.depth or error_tasks.DEPTHS)
    tasks = list(error_tasks.make_tasks(dtypes, depths))
    return header, list(rounding_errors.measure(tasks, contenders))


def save(path: str, header: dict[str, str], results: list["ErrorResult"]) -> None:
    """Write results to a JSON file."""
    errors = [{**result._asdict(), "task": result.task._asdict()} for result in results]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(
        json.dumps({"header": header, "errors": errors}, indent=1) + "\n", "utf-8"
    )


def load(path: str) -> tuple[dict[str, str], list["ErrorResult"]]:
    """Read a file that `save` wrote."""
    # These modules import NumPy.
    from .error_tasks import Task
    from .rounding_errors import ErrorResult

    content = json.loads(Path(path).read_text("utf-8"))
    results = [ErrorResult(**{**x, "task": Task(**x["task"])}) for x in content["errors"]]
    return content["header"], results


def print_report(header: dict[str, str], results: list["ErrorResult"]) -> None:
    """Print two tables for each dtype: a row for each task, a column for each contender."""
    for name, text in header.items():
        print(f"{name:8} {text}")
    for dtype, group in groupby(results, key=lambda result: result.task.dtype):
        of_dtype = list(group)
        contenders = list(dict.fromkeys(result.contender for result in of_dtype))
        for heading, field in (
            ("largest error / bound", "of_bound"),
            ("largest error / (eps |A||B|)", "worst"),
        ):
            print(f"\n{parse_dtypes(dtype)}: {heading}")
            print(f"{'':30}" + "".join(f"{name:>16}" for name in contenders))
            for (kind, shape, k), row in groupby(of_dtype, key=lambda result: result.task[1:]):
                values: dict[str, float] = {x.contender: getattr(x, field) for x in row}
                cells = [f"{values[x]:16.3g}" if x in values else " " * 16 for x in contenders]
                print(f"{kind:14}{shape:9}{k:<7}" + "".join(cells))


def main() -> None:
    """Run ``python -m bench.numerics``."""
    options = parse_arguments(sys.argv[1:])
    header, results = load(options.from_json) if options.from_json else run(options)
    print_report(header, results)
    if options.json:
        save(options.json, header, results)
    if options.plot:
        from .error_plots import plot  # imports matplotlib, which is optional

        for path in plot(header, results, options.plot):
            print(path)


if __name__ == "__main__":
    main()
