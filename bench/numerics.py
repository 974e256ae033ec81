"""The command line of the report on rounding errors; docs/numerics.md has what came of it."""

import argparse
import json
import os
import sys
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from .__main__ import ML_DTYPES, prepare_environment
from .suites import PEERS, types

if TYPE_CHECKING:
    from .errors import Error

THOSE = PEERS[:3]
"""The peers that are asked. (JAX multiplies by XLA's copy of oneDNN, which PyTorch has, too.)"""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.numerics", description=__doc__)
    add = parser.add_argument
    add("--dtype", nargs="+", metavar="D", help="(default: all floats and complex numbers)")
    add("--depth", nargs="+", type=int, metavar="K", help="(default: 1 to 100000)")
    add(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=THOSE,
        metavar="P",
        help=f"(default: {' '.join(THOSE)})",
    )
    add("--json", metavar="FILE", help="write everything there")
    add("--plot", metavar="FOLDER", help="draw the page's figures there")
    add("--from-json", metavar="FILE", help="measure nothing: show what --json wrote")
    options = parser.parse_args(arguments)
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot: the package matplotlib is not installed")
    return options


def run(options: argparse.Namespace) -> tuple[dict[str, str], list["Error"]]:
    """Measure; what is known of the machine and the libraries, and the errors."""
    prepare_environment()
    import nkblas

    from . import errors, peers

    dtypes = tuple(options.dtype or errors.DTYPES)
    unknown = set(dtypes) - set(errors.DTYPES)
    if unknown:
        expected = ", ".join(errors.DTYPES)
        raise SystemExit(f"--dtype: got {', '.join(unknown)}, expected some of {expected}")
    dtypes = tuple(x for x in dtypes if "bfloat16" not in x or ML_DTYPES)
    header = {"cpu": nkblas.cpu.brand, "isa": nkblas.cpu.isa.name, "nkblas": nkblas.__version__}
    contenders = []
    for name in options.peers:
        try:
            contenders.append(peers.PEERS[name](1))
            contenders[-1].use(1)
            header[name] = contenders[-1].version
        except peers.AbsentError as why:
            header[name] = f"absent: {why}"
    depths = tuple(options.depth or errors.DEPTHS)
    return header, list(errors.measure(list(errors.tasks(dtypes, depths)), contenders))


def save(path: str, header: dict[str, str], found: list["Error"]) -> None:
    errors = [{**error._asdict(), "task": error.task._asdict()} for error in found]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(
        json.dumps({"header": header, "errors": errors}, indent=1) + "\n", "utf-8"
    )


def load(path: str) -> tuple[dict[str, str], list["Error"]]:
    from .errors import Error, Task

    content = json.loads(Path(path).read_text("utf-8"))
    errors = [Error(**{**error, "task": Task(**error["task"])}) for error in content["errors"]]
    return content["header"], errors


def show(header: dict[str, str], found: list["Error"]) -> None:
    """Tables: for each dtype and kind of operands, the largest error in units of the bound."""
    for name, text in header.items():
        print(f"{name:8} {text}")
    for dtype, group in groupby(found, key=lambda error: error.task.dtype):
        errors = list(group)
        contenders = list(dict.fromkeys(error.contender for error in errors))
        for what, value in (
            ("largest error / bound", lambda error: error.of_bound),
            ("largest error / (eps |A||B|)", lambda error: error.worst),
        ):
            print(f"\n{types(dtype)}: {what}")
            print(f"{'':30}" + "".join(f"{name:>16}" for name in contenders))
            for key, row in groupby(errors, key=lambda error: error.task[1:]):
                values = {error.contender: value(error) for error in row}
                kind, shape, k = key
                cells = [f"{values[x]:16.3g}" if x in values else " " * 16 for x in contenders]
                print(f"{kind:14}{shape:9}{k:<7}" + "".join(cells))


def main() -> None:
    options = parse(sys.argv[1:])
    header, found = load(options.from_json) if options.from_json else run(options)
    show(header, found)
    if options.json:
        save(options.json, header, found)
    if options.plot:
        from .error_plots import plot

        for path in plot(header, found, options.plot):
            print(os.fspath(path))


if __name__ == "__main__":
    main()
