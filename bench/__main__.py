"""The command line of the benchmark.

Nothing here imports NumPy before `main` has cleared the environment: OpenBLAS reads it when it is
loaded, and never again.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain, product

from .record import Record, Result
from .report import print_header, print_tiles, show, tables
from .suites import ACTIVATIONS, DTYPES, PEERS, REAL_PART, SUITES, Case

OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that make OpenBLAS run other kernels or block sizes than those for this CPU."""

SHORT_WAITS = {
    "KMP_BLOCKTIME": "1",
    "OPENBLAS_THREAD_TIMEOUT": "22",
    "GOMP_SPINCOUNT": "30000",
}
"""How long idle workers wait busily: 1 ms (MKL; else 200), 2**22 clock ticks (OpenBLAS; else 2**26)
and so many turns, about 1 ms (PyTorch; else 10 ms). Longer than between two calls of a sample,
shorter than `bench.measure.REST`."""

ML_DTYPES = find_spec("ml_dtypes") is not None

TILES = "tiles"
"""The register tiles by themselves, beside the suites of products."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="nkblas beside its peers.")
    add = parser.add_argument
    yes_no = argparse.BooleanOptionalAction
    names = (*SUITES, TILES)
    add("suites", nargs="*", metavar="SUITE", help=f"{', '.join(names)} (default: all)")
    add("--only", default="", metavar="TEXT", help="cases whose label has it, as 768x3072 or a.T")
    add("--dtype", nargs="+", choices=DTYPES, metavar="D", help="(default: each suite's own)")
    add(
        "--activation",
        nargs="+",
        choices=ACTIVATIONS,
        default=ACTIVATIONS[:2],
        metavar="F",
        help="of layers (default: relu gelu; or gelu_tanh)",
    )
    add("--threads", nargs="+", type=int, default=[1], metavar="N", help="(default: 1)")
    add("--peers", nargs="*", choices=PEERS, metavar="P", help="(default: each suite's own)")
    add("--seconds", type=float, default=0.5, metavar="S", help="for each case (default: 0.5)")
    add("--out", action=yes_no, help="write to a given array (default: all suites but small do)")
    add("--tune", action=yes_no, default=True, help="measure plans before a case is timed")
    add("--json", metavar="FILE", help="write everything there, each round's times included")
    add("--plot", metavar="FOLDER", help="draw figures there, a PNG for each table")
    add("--from-json", metavar="FILE", help="measure nothing: show what --json wrote")
    options = parser.parse_args(arguments)
    unknown = set(options.suites) - set(names)
    if unknown:
        parser.error(f"SUITE: got {', '.join(unknown)}, expected some of {', '.join(names)}")
    if min(options.threads) < 1:
        parser.error(f"--threads: got {min(options.threads)}, expected 1 or more")
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot: the package matplotlib is not installed")
    options.suites = options.suites or names
    return options


def clear_overrides() -> list[str]:
    """Unset `OVERRIDES` before NumPy loads OpenBLAS; start over if it is loaded already."""
    found = [name for name in OVERRIDES if os.environ.pop(name, None) is not None]
    if found and "numpy" in sys.modules:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return found


def prepare_environment() -> list[str]:
    """Make every library run as it does for its users, but with short waits; say what was unset."""
    cleared = clear_overrides()
    for name, value in SHORT_WAITS.items():
        os.environ.setdefault(name, value)
    return cleared


def runs(options: argparse.Namespace) -> Iterator[tuple[str, Case, str, int]]:
    """What is measured, table by table: suite, case, dtype and number of threads."""
    for name, suite in SUITES.items():
        if name not in options.suites:
            continue
        activations = ("", *options.activation)
        cases = [x for x in suite.cases if x.activation in activations and options.only in str(x)]
        dtypes = [x for x in options.dtype or suite.dtypes if "bfloat16" not in x or ML_DTYPES]
        if suite.by_dtype:
            for case, threads, dtype in product(cases, options.threads, dtypes):
                yield name, case, dtype, threads
        else:
            for dtype, threads, case in product(dtypes, options.threads, cases):
                yield name, case, dtype, threads


def run(options: argparse.Namespace, record: Record) -> None:
    """Measure into `record`, and print everything as soon as it is there."""
    cleared = prepare_environment()

    import nkblas

    from . import peers
    from .measure import measure
    from .tiles import measure_small, measure_tiles

    most = max(options.threads)
    contenders: list[peers.Contender] = [peers.NKBLAS(most, options.tune)]
    header = record.header
    header["cpu"] = nkblas.cpu.brand
    header["isa"] = nkblas.cpu.isa.name
    header["threads"] = " ".join(map(str, options.threads))
    header["load"] = f"{os.getloadavg()[0]:.1f} before the run"
    header["nkblas"] = contenders[0].version
    chosen = {
        name: suite.peers if options.peers is None else options.peers
        for name, suite in SUITES.items()
        if name in options.suites
    }
    unmeasured: list[peers.Contender] = []
    for name, peer in peers.PEERS.items():
        try:
            if any(name in names for names in chosen.values()):
                contenders.append(peer(most))
                header[name] = contenders[-1].version
            elif name == "numpy":
                unmeasured.append(peer(most))  # its threads read memory for `measure.Read`
        except peers.AbsentError as why:
            header[name] = f"absent: {why}"
    if not ML_DTYPES:
        header["bfloat16"] = "absent: the package ml_dtypes is not installed"
    if cleared:
        header["unset"] = f"{', '.join(cleared)}, for this run"
    print_header(header)

    def results() -> Iterator[Result]:
        in_use = 0
        for suite, case, dtype, threads in runs(options):
            if threads != in_use:
                for contender in contenders + unmeasured:
                    contender.use(threads)
                in_use = threads
            measured = [c for c in contenders if c.name in ("nkblas", *chosen[suite])]
            yield measure(suite, case, dtype, threads, measured, options.seconds, options.out)

    for result in tables(results()):
        record.results.append(result)
    if TILES in options.suites:
        for dtype in [x for x in options.dtype or REAL_PART if x in REAL_PART]:
            for tile in print_tiles(
                chain(measure_tiles(dtype, options.seconds), measure_small(dtype, options.seconds))
            ):
                record.tiles.append(tile)


def main() -> None:
    options = parse(sys.argv[1:])
    if options.from_json:
        record = Record.load(options.from_json)
        show(record)
    else:
        record = Record({}, [], [])
        try:
            run(options, record)
        finally:  # what there is of an interrupted run is kept as well
            if options.json:
                record.save(options.json)
    if options.plot:
        from .plots import plot

        for path in plot(record, options.plot):
            print(path)


if __name__ == "__main__":
    main()
