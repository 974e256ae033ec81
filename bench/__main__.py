"""Command line of the benchmark.

This module does not import NumPy before the environment is prepared: OpenBLAS reads its environment
variables only when it is loaded.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import chain, product
from typing import TYPE_CHECKING

from .call_list import CALLS, CallCase
from .report import LOSING_RATIO, print_calls, print_header, print_run, print_tables, print_tiles
from .results import BenchmarkRun, Result
from .suites import ACTIVATIONS, DTYPES, PEER_NAMES, REAL_DTYPES, SUITES, Case

if TYPE_CHECKING:
    from .peers import Contender
    from .workers import Worker

OPENBLAS_OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make OpenBLAS use kernels or block sizes that are not those for this CPU."""

ISA_VARIABLES = {
    "avx2": {
        "NKBLAS_ISA": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "AOCL_ENABLE_INSTRUCTIONS": "avx2",
    },
    "avx512": {
        "NKBLAS_ISA": "avx512",
        "OPENBLAS_CORETYPE": "SkylakeX",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "AOCL_ENABLE_INSTRUCTIONS": "avx512",
    },
}
"""For an instruction set of nkblas, the variables that hold each library to it."""

BUSY_WAIT_LIMITS = {
    "KMP_BLOCKTIME": "1",
    "OPENBLAS_THREAD_TIMEOUT": "22",
    "GOMP_SPINCOUNT": "30000",
}
"""How long idle worker threads busy-wait, about 1 ms for each library.

MKL: 1 ms (default 200). OpenBLAS: 2**22 clock ticks (default 2**26). PyTorch: 30,000 iterations,
about 1 ms (default 10 ms). That is longer than the time between two calls of a sample, and shorter
than `bench.timing.PAUSE_SECONDS`.
"""

HAS_ML_DTYPES = find_spec("ml_dtypes") is not None

TILES, CALL_SUITE = "tiles", "calls"
"""Names on the command line of measurements that are no suites of products: of microkernels, and of
the calls in `bench.call_list`. Both use one thread."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; exit with an error message if it is wrong."""
    parser = argparse.ArgumentParser(
        "python -m bench", description="Measure nkblas and its peers on the same operands."
    )
    add = parser.add_argument
    yes_no = argparse.BooleanOptionalAction
    names = (*SUITES, TILES, CALL_SUITE)
    add("suites", nargs="*", metavar="SUITE", help=f"{', '.join(names)} (default: all)")
    add("--only", default="", metavar="TEXT", help="cases whose label contains it: 768x3072, a.T")
    add("--dtype", nargs="+", choices=DTYPES, metavar="D", help="(default: those of each suite)")
    add(
        "--activation",
        nargs="+",
        choices=ACTIVATIONS,
        default=ACTIVATIONS[:2],
        metavar="F",
        help=f"of layers: {', '.join(ACTIVATIONS)} (default: {' '.join(ACTIVATIONS[:2])})",
    )
    add("--threads", nargs="+", type=int, default=[1], metavar="N", help="(default: 1)")
    add(
        "--peers",
        nargs="*",
        choices=PEER_NAMES,
        metavar="P",
        help=f"{', '.join(PEER_NAMES)} (default: those of each suite)",
    )
    add("--seconds", type=float, default=0.5, metavar="S", help="for each case (default: 0.5)")
    add("--out", action=yes_no, help="write to an existing array (default: all suites but small)")
    add("--tune", action=yes_no, default=True, help="tune the plan of a case before it is timed")
    add(
        "--isa",
        choices=ISA_VARIABLES,
        default="",
        help="the most that each library uses (JAX: all that the CPU has)",
    )
    add("--losing", action="store_true", help=f"print only calls with a ratio below {LOSING_RATIO}")
    add("--json", metavar="FILE", help="write all results to it, with the times of each round")
    add("--plot", metavar="FOLDER", help="draw a figure for each table into it, as PNG")
    add("--from-json", metavar="FILE", help="report what --json wrote, instead of measuring")
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


def set_openblas_overrides(coretype: str) -> list[str]:
    """Set `OPENBLAS_OVERRIDES` before NumPy loads OpenBLAS.

    If NumPy is loaded already, the process is restarted.

    Parameters
    ----------
    coretype : str
        The kernels that OpenBLAS has to use; empty for its choice: all variables are unset.

    Returns
    -------
    list of str
        The variables that were set, and are unset now.
    """
    wanted = {"OPENBLAS_CORETYPE": coretype} if coretype else {}
    before = {name: os.environ.pop(name) for name in OPENBLAS_OVERRIDES if name in os.environ}
    os.environ.update(wanted)
    if before != wanted and "numpy" in sys.modules:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return [name for name in before if name not in wanted]


def prepare_environment(isa: str) -> list[str]:
    """Have each library run with its defaults, except for shorter busy-waiting.

    Of nkblas, plans that improve meanwhile are turned off: a result is that of one plan.

    Parameters
    ----------
    isa : str
        The instruction set that libraries are held to; empty for the CPU's.

    Returns
    -------
    list of str
        The variables that were unset.
    """
    variables = dict(ISA_VARIABLES.get(isa, {}))
    unset = set_openblas_overrides(variables.pop("OPENBLAS_CORETYPE", ""))
    os.environ.update(variables)
    os.environ["NKBLAS_TUNE"] = "0"
    for name, value in BUSY_WAIT_LIMITS.items():
        os.environ.setdefault(name, value)
    return unset


def selected_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case, str, int]]:
    """Suite, case, dtype and threads of each selected measurement, ordered by table."""
    for name, suite in SUITES.items():
        if name not in options.suites:
            continue
        activations = ("", *options.activation)
        cases = [x for x in suite.cases if x.activation in activations and options.only in str(x)]
        dtypes = [x for x in options.dtype or suite.dtypes if "bfloat16" not in x or HAS_ML_DTYPES]
        if suite.rows_are_dtypes:
            for case, threads, dtype in product(cases, options.threads, dtypes):
                yield name, case, dtype, threads
        else:
            for dtype, threads, case in product(dtypes, options.threads, cases):
                yield name, case, dtype, threads


def selected_calls(options: argparse.Namespace) -> list[CallCase]:
    """The selected calls: with --dtype, those that have an operand of one of the dtypes."""
    selected = [x for x in CALLS if options.only in str(x)]
    if options.dtype:
        selected = [x for x in selected if any(f"{name}(" in x.setup for name in options.dtype)]
    return selected


def selected_peers(options: argparse.Namespace) -> dict[str, list[str]]:
    """Names of the peers to measure in each selected suite."""
    return {
        name: list(suite.peers if options.peers is None else options.peers)
        for name, suite in SUITES.items()
        if name in options.suites
    }


def create_contenders(
    names: set[str], max_threads: int, tune: bool
) -> tuple[list["Contender | Worker"], dict[str, str]]:
    """Create nkblas and the peers with the given names.

    With several threads, each is a worker, in a process of its own.

    Returns
    -------
    contenders : list of Contender or Worker
    versions : dict of str to str
        For each, its version or the reason why it is absent.
    """
    from .peers import NKBLAS, PEERS, AbsentError  # imports NumPy
    from .workers import Worker

    contenders: list[Contender | Worker] = []
    versions: dict[str, str] = {}
    for name in ("nkblas", *(x for x in PEERS if x in names)):
        try:
            if max_threads > 1:
                contenders.append(Worker(name, max_threads, tune))
            elif name == "nkblas":
                contenders.append(NKBLAS(max_threads, tune))
            else:
                contenders.append(PEERS[name](max_threads))
        except AbsentError as error:
            versions[name] = f"absent: {error}"
        else:
            versions[name] = contenders[-1].version
    return contenders, versions


def numpy_limiter(max_threads: int) -> Callable[[int], None]:
    """The function that sets NumPy's number of threads: `bench.roofline.MemoryRead` uses them."""
    from .peers import AbsentError, NumPy  # imports NumPy

    try:
        return NumPy(max_threads).set_num_threads
    except AbsentError:
        return lambda threads: None


def run_benchmark(options: argparse.Namespace, run: BenchmarkRun) -> None:
    """Measure, print each result at once, and append it to `run`."""
    unset = prepare_environment(options.isa)

    # These modules import NumPy.
    import nkblas

    from .measure import measure

    max_threads = max(options.threads)
    peers_of_suite = selected_peers(options)
    peer_names = set().union(*peers_of_suite.values(), ["numpy"] * (CALL_SUITE in options.suites))
    tune = options.tune and bool(peers_of_suite)
    contenders, versions = create_contenders(peer_names, max_threads, tune)
    limit_numpy = numpy_limiter(max_threads)
    header = run.header
    header["cpu"] = nkblas.cpu.brand
    header["isa"] = nkblas.cpu.isa.name
    header["threads"] = " ".join(map(str, options.threads))
    header["load"] = f"{os.getloadavg()[0]:.1f} before the run"
    header.update(versions)
    if not HAS_ML_DTYPES:
        header["bfloat16"] = "absent: the package ml_dtypes is not installed"
    if unset:
        header["unset"] = f"{', '.join(unset)}, for this run"
    print_header(header)

    def results() -> Iterator[Result]:
        current_threads = 0
        for suite, case, dtype, threads in selected_cases(options):
            if threads != current_threads:
                for contender in contenders:
                    contender.set_num_threads(threads)
                limit_numpy(threads)
                current_threads = threads
            measured = [c for c in contenders if c.name in ("nkblas", *peers_of_suite[suite])]
            yield measure(suite, case, dtype, threads, measured, options.seconds, options.out)

    for result in print_tables(results()):
        run.results.append(result)
    if TILES in options.suites:
        run_tiles(options, run)
    if CALL_SUITE in options.suites:
        run_calls(options, run)


def run_tiles(options: argparse.Namespace, run: BenchmarkRun) -> None:
    """Measure microkernels and small-product kernels, with one thread."""
    from .microkernels import measure_small_kernels, measure_tiles  # imports NumPy

    for dtype in options.dtype or REAL_DTYPES:
        if dtype in REAL_DTYPES:
            seconds = options.seconds
            tiles = chain(measure_tiles(dtype, seconds), measure_small_kernels(dtype, seconds))
            for tile in print_tiles(tiles):
                run.tiles.append(tile)


def run_calls(options: argparse.Namespace, run: BenchmarkRun) -> None:
    """Measure the calls of `bench.call_list`, with one thread."""
    # These modules import NumPy.
    from nkblas.inspect.progress import Progress

    from .calls import measure_calls

    selected = selected_calls(options)
    try:
        with Progress("calls", len(selected), is_shown=True) as bar:
            for result in measure_calls(selected, options.seconds):
                run.calls.append(result)
                bar.step(str(result.case))
    finally:  # also prints the results of an interrupted run
        print_calls(run.calls, options.losing)


def main() -> None:
    """Run ``python -m bench``."""
    options = parse_arguments(sys.argv[1:])
    if options.from_json:
        run = BenchmarkRun.load(options.from_json)
        print_run(run, options.losing)
    else:
        run = BenchmarkRun({}, [], [], [])
        try:
            run_benchmark(options, run)
        finally:  # also writes the results of an interrupted run
            if options.json:
                run.save(options.json)
    if options.plot:
        from .plots import plot  # imports matplotlib, which is optional

        for path in plot(run, options.plot):
            print(path)


if __name__ == "__main__":
    main()
