"""Run test suites of other packages twice: with NumPy as it is, and with NumPy patched.

Run ``python tests/tools/suites.py numpy``, ``scipy`` or ``scikit-learn``, followed by options of
pytest. This module is also the pytest plugin of the two runs, which patches NumPy and records the
results.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

SUITES = {
    "numpy": [
        *("--pyargs", "numpy._core.tests.test_multiarray", "numpy._core.tests.test_einsum"),
        *("numpy._core.tests.test_ufunc", "numpy.linalg", "numpy.matrixlib", "numpy.ma"),
    ],
    "scipy": [
        *("--pyargs", "scipy.linalg.tests.test_blas", "scipy.linalg.tests.test_fblas"),
        *("scipy.linalg.tests.test_basic", "scipy.linalg.tests.test_decomp"),
        *("scipy.linalg.tests.test_cython_blas",),
    ],
    "scikit-learn": [
        *("--pyargs", "sklearn.decomposition.tests.test_pca"),
        *("sklearn.linear_model.tests.test_ridge", "sklearn.neural_network"),
        *("sklearn.mixture", "sklearn.gaussian_process"),
    ],
}

FILTERED_MODULES = ("test_multiarray", "test_ufunc")
"""Large modules of tests, of which only those about products run."""

PRODUCT_TESTS = re.compile("mat(mul|vec)|vecmat|dot|inner|method|gufunc", re.IGNORECASE)


class Outcome(NamedTuple):
    """The outcome of a run.

    Attributes
    ----------
    tests : dict
        ``"passed"``, ``"failed"``, ... by the name of the test.
    seconds : float
        Time of the tests, without the start of Python and pytest's collection.
    stats : dict
        `nkblas.stats` at the end; empty if NumPy was not patched.
    doors : dict
        How many calls came through doors, by the function's name.
    """

    tests: dict[str, str]
    seconds: float
    stats: dict[str, int]
    doors: dict[str, int]

    @property
    def failures(self) -> set[str]:
        return {name for name, result in self.tests.items() if result not in ("passed", "skipped")}


def run(suite: str, *options: str, patched: bool, **changes: str) -> Outcome:
    """Run a suite in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")
        path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
        path += filter(None, [os.environ.get("PYTHONPATH")])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "NKBLAS_SUITE": os.path.join(folder, "outcome"),
            "NKBLAS_SUITE_PATCHED": str(int(patched)),
            **changes,
        }
        command = [sys.executable, "-m", "pytest", "-p", "suites", "-p", "no:cacheprovider", "-q"]
        command += ["-c", "pytest.ini", "--tb=short", "-W", "ignore", *SUITES[suite], *options]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        try:
            outcome = json.loads((Path(folder) / "outcome").read_text())
        except FileNotFoundError:
            raise RuntimeError(f"{suite}: {done.stdout[-4000:]}{done.stderr[-4000:]}") from None
    return Outcome(**outcome)


def report(stock: Outcome, patched: Outcome) -> str:
    """A text that compares a stock and a patched run."""
    calls, fallbacks = patched.stats["calls"], patched.stats["fallbacks"]
    lines = [
        f"{len(patched.tests)} tests, {len(stock.failures)} fail with NumPy as it is, "
        f"{len(patched.failures)} with nkblas under it",
        f"{calls} products, {calls - fallbacks} of them on generated kernels "
        f"({patched.stats['kernels_compiled']} compiled, {patched.stats['kernels_loaded']} loaded)",
        "calls through doors: "
        + (", ".join(f"{name} {calls}" for name, calls in patched.doors.items()) or "none"),
        f"{stock.seconds:.1f} s as it is, {patched.seconds:.1f} s patched",
        *(f"new failure: {name}" for name in sorted(patched.failures - stock.failures)),
    ]
    return "\n".join(lines)


# ---- the pytest plugin

_results: dict[str, str] = {}
_start_times: list[float] = []


def pytest_configure() -> None:
    if os.environ["NKBLAS_SUITE_PATCHED"] == "1":
        import nkblas

        nkblas.patch()


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    def is_selected(item: Any) -> bool:
        is_filtered = item.module.__name__.endswith(FILTERED_MODULES)
        return not is_filtered or bool(PRODUCT_TESTS.search(item.nodeid))

    config.hook.pytest_deselected(items=[item for item in items if not is_selected(item)])
    items[:] = filter(is_selected, items)


def pytest_collection_finish() -> None:
    _start_times.append(time.perf_counter())


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        _results[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    stats: dict[str, int] = {}
    doors: dict[str, int] = {}
    if os.environ["NKBLAS_SUITE_PATCHED"] == "1":
        import nkblas

        stats = nkblas.stats()
        doors = {door.symbol: door.calls for door in sorted(nkblas.Doors()) if door.calls}
    seconds = time.perf_counter() - _start_times[0]
    outcome = {"tests": _results, "seconds": seconds, "stats": stats, "doors": doors}
    Path(os.environ["NKBLAS_SUITE"]).write_text(json.dumps(outcome))


if __name__ == "__main__":
    suite, *rest = sys.argv[1:]
    runs = [run(suite, *rest, patched=patched) for patched in (False, True)]
    print(report(*runs))
    sys.exit(bool(runs[1].failures - runs[0].failures))
