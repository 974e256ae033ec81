"""BLAS level 3 of nkblas beside OpenBLAS (SciPy's) and MKL, all through CBLAS, on one thread.

``python -m bench.level3``: a line for each routine, type and side, and for each routine the
geometric mean and the lowest of the ratios: the fastest peer's time over nkblas's.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .__main__ import ISA_VARIABLES, prepare_environment

ROUTINES = ("gemmt", "syrk", "syr2k", "symm", "trmm", "trsm")
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
DTYPES = {"float32": "s", "float64": "d"}

COLUMN_MAJOR, NO_TRANS, UPPER, LOWER, NON_UNIT, LEFT, RIGHT = 102, 111, 121, 122, 131, 141, 142

SECONDS = 0.4
"""About how long a case is measured."""

WARM_UP_SECONDS = 0.3
"""How long nkblas is called before."""


def arguments_of(routine: str, dtype: str, side: int, variant: int) -> tuple[Any, tuple[Any, ...]]:
    """Square matrices in column-major order, and the arguments of a call with them.

    Variants alternate the triangle and the side on which the matrix is.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    scalar = ctypes.c_float if dtype == "float32" else ctypes.c_double
    matrices = [generator.random((side, side)).astype(dtype) for _ in range(3)]
    matrices[0] += side * np.eye(side, dtype=dtype)
    if routine in ("trmm", "trsm"):
        matrices[0][...] = np.eye(side)  # results stay finite when a call is repeated
        matrices[0] += 1e-6 * (np.tri(side, k=-1) + np.tri(side, k=-1).T)
    a, b, c = (ctypes.c_void_p(x.ctypes.data) for x in matrices)
    uplo, sides = (UPPER, LOWER)[variant % 2], (LEFT, RIGHT)[variant // 2]
    one, zero = scalar(1), scalar(0)
    return matrices, {
        "gemmt": (uplo, NO_TRANS, NO_TRANS, side, side, one, a, side, b, side, zero, c, side),
        "syrk": (uplo, NO_TRANS, side, side, one, a, side, zero, c, side),
        "syr2k": (uplo, NO_TRANS, side, side, one, a, side, b, side, zero, c, side),
        "symm": (sides, uplo, side, side, one, a, side, b, side, zero, c, side),
        "trmm": (sides, uplo, NO_TRANS, NON_UNIT, side, side, one, a, side, b, side),
        "trsm": (sides, uplo, NO_TRANS, NON_UNIT, side, side, one, a, side, b, side),
    }[routine]


def peers() -> dict[str, Callable[[str], Any]]:
    """For each library, what finds a function of CBLAS by its name."""
    import scipy

    import nkblas

    from .peers.mkl import MKL

    (path,) = (Path(scipy.__file__).parent.parent / "scipy.libs").glob("libscipy_openblas*.so")
    openblas = ctypes.CDLL(str(path))
    openblas.scipy_openblas_set_num_threads(1)
    nkblas.set_num_threads(1)
    own = ctypes.CDLL(nkblas.get_library())
    return {
        "nkblas": partial(getattr, own),
        "openblas": lambda name: getattr(openblas, f"scipy_{name}", None),
        "mkl": partial(getattr, MKL(1).library),
    }


def measure(routine: str, dtype: str, side: int, variant: int) -> dict[str, float]:
    """Each peer's time over nkblas's: medians over interleaved rounds; and GFLOP/s of nkblas."""
    from .timing import median_ratio, time_interleaved

    _matrices, arguments = arguments_of(routine, dtype, side, variant)
    calls: dict[str, Callable[[], Any]] = {}
    for name, find in peers().items():
        function = find(f"cblas_{DTYPES[dtype]}{routine}")
        if function is not None:
            function.restype = None
            calls[name] = partial(function, COLUMN_MAJOR, *arguments)
    end = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < end:  # missing kernels are compiled in the background
        calls["nkblas"]()
    times = time_interleaved(calls, SECONDS, 0, min_rounds=7)
    flops = side**3 * (2 if routine in ("syr2k", "symm") else 1)
    ratios = {
        name: median_ratio(times[name], times["nkblas"]) for name in calls if name != "nkblas"
    }
    return {"gflops": flops / statistics.median(times["nkblas"]) / 1e9, **ratios}


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(prog="bench.level3", description=__doc__)
    parser.add_argument("routines", nargs="*", default=ROUTINES, metavar="ROUTINE")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--sides", nargs="+", type=int, default=SIDES)
    parser.add_argument("--isa", default="", choices=["", *ISA_VARIABLES])
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    prepare_environment(options.isa)
    results = []
    for routine in options.routines:
        ratios = []
        for dtype in options.dtypes:
            for side in options.sides:
                for variant in range(4 if routine in ("symm", "trmm", "trsm") else 2):
                    result = measure(routine, dtype, side, variant)
                    best = min(x for name, x in result.items() if name != "gflops")
                    ratios.append(best)
                    results.append((routine, dtype, side, variant, best, result))
                    text = " ".join(f"{name} {x:.2f}" for name, x in result.items())
                    print(
                        f"{routine:6}{dtype:8} {side:5} {variant} {best:5.2f}  {text}", flush=True
                    )
        mean = statistics.geometric_mean(ratios)
        print(f"{routine}: geometric mean {mean:.2f}, lowest {min(ratios):.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
