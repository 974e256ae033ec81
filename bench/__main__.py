"""The command line of the benchmark.

Nothing here imports NumPy before `main` has cleared the environment: OpenBLAS reads it when it is
loaded, and never again.
"""

import argparse
import json
import os
import sys
from typing import Any

from .suites import SUITES

OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that make OpenBLAS run other kernels or block sizes than those for this CPU."""

SHORT_WAITS = {"KMP_BLOCKTIME": "1", "OPENBLAS_THREAD_TIMEOUT": "22"}
"""How long idle workers wait busily: 1 ms (MKL; else 200) and 2**22 clock ticks (OpenBLAS; else
2**26). Longer than between two calls of a sample, shorter than `bench.measure.REST`."""

NAMES = (*SUITES, "tiles")
"""Suites of products, and the register tiles by themselves."""

PEERS = ("openblas", "mkl", "torch")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="nkblas beside its peers.")
    add = parser.add_argument
    add("suites", nargs="*", metavar="SUITE", help=f"{', '.join(NAMES)} (default: all)")
    add("--dtype", nargs="+", choices=["float32", "float64"], default=["float32", "float64"])
    add("--threads", type=int, default=1, metavar="N")
    add("--peers", nargs="*", choices=PEERS, default=PEERS)
    add("--seconds", type=float, default=0.5, metavar="S", help="for each shape (default: 0.5)")
    add("--json", metavar="FILE", help="write everything there, each round's times included")
    options = parser.parse_args(arguments)
    unknown = set(options.suites) - set(NAMES)
    if unknown:
        parser.error(f"SUITE: got {', '.join(unknown)}, expected some of {', '.join(NAMES)}")
    return options


def clear_overrides() -> list[str]:
    """Unset `OVERRIDES` before NumPy loads OpenBLAS; start over if it is loaded already."""
    found = [name for name in OVERRIDES if os.environ.pop(name, None) is not None]
    if found and "numpy" in sys.modules:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return found


def main() -> None:
    options = parse(sys.argv[1:])
    cleared = clear_overrides()
    for name, value in SHORT_WAITS.items():
        os.environ.setdefault(name, value)

    import nkblas

    from . import peers
    from .measure import measure
    from .report import Table
    from .tiles import measure_tiles

    header = {"cpu": nkblas.cpu.brand, "isa": nkblas.cpu.isa.name, "threads": str(options.threads)}
    contenders: list[peers.Contender] = [peers.NKBLAS(options.threads)]
    header["nkblas"] = contenders[0].version
    for name in options.peers:
        try:
            contenders.append(peers.PEERS[name](options.threads))
            header[name] = contenders[-1].version
        except peers.AbsentError as why:
            header[name] = f"absent: {why}"
    if cleared:
        header["unset"] = f"{', '.join(cleared)}, for this run"
    for key, value in header.items():
        print(f"{key:9} {value}")

    record: dict[str, Any] = {"header": header, "results": []}
    present = [contender.name for contender in contenders[1:]]
    for suite in options.suites or NAMES:
        for dtype in options.dtype:
            if suite == "tiles":
                print(f"\ntiles, {dtype}: share of the FMA peak, packed operands in L2")
                for tile in measure_tiles(dtype, options.seconds):
                    print(f"{tile.mr:>4} x {tile.nr:<4} k {tile.k:<5} {tile.of_peak:6.1%}")
                    record["results"].append({"suite": suite, **tile._asdict()})
                continue
            table = Table(f"{suite}, {dtype}", present)
            for shape in SUITES[suite]:
                result = measure(shape, dtype, contenders, options.threads, options.seconds)
                table.add(result)
                record["results"].append({"suite": suite, **result._asdict()})
            table.end()
    if options.json:
        with open(options.json, "w") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()
