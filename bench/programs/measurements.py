"""Measurement of a program: as plain Python, and under ``nkblas run``, in turns."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from ..timing import median_ratio
from .agreement import disagreement
from .processes import Execution, execute
from .program_list import PROGRAMS

Way = Literal["plain", "cold", "warm"]
"""How a program is run: by Python alone, by nkblas with an empty cache folder, or with a cache
folder that is kept."""

WARM_UP_RUNS = 2
"""Runs with the kept cache folder before it is measured: what one compiles, the next one uses."""


class ProgramResult(NamedTuple):
    """The measurements of one program.

    Attributes
    ----------
    name : str
    absent : str
        Why it was not run; else empty.
    errors : list of str
        Runs that failed, and outputs that disagree with that of plain Python.
    notes : list of str
        What the program wrote to stderr under nkblas, and not under plain Python.
    output : str
        Its output under plain Python.
    executions : dict of {"plain", "cold", "warm"} to list of Execution
        The measured runs. None if a run failed.
    """

    name: str
    absent: str
    errors: list[str]
    notes: list[str]
    output: str
    executions: dict[Way, list[Execution]]

    def seconds(self, way: Way, quantity: Literal["wall", "cpu"] = "wall") -> list[float]:
        """Wall or CPU time of each run; empty if there are none."""
        return [getattr(execution, quantity) for execution in self.executions.get(way, [])]

    def speedup(self, way: Way) -> float:
        """Plain Python's wall time divided by that of another way: the median over the rounds."""
        plain, other = self.seconds("plain"), self.seconds(way)
        return median_ratio(plain, other) if other else float("nan")

    def loss(self, way: Way) -> float:
        """Seconds of wall time that another way takes longer: the difference of the medians."""
        plain, other = self.seconds("plain"), self.seconds(way)
        return median(other) - median(plain) if other else float("nan")

    def cpu_ratio(self, way: Way) -> float:
        """The CPU time of another way divided by plain Python's: the median over the rounds."""
        plain, other = self.seconds("plain", "cpu"), self.seconds(way, "cpu")
        return median_ratio(other, plain) if other else float("nan")


class Measurement:
    """Runs programs, and keeps the cache folder of the way "warm".

    Parameters
    ----------
    ways : sequence of {"plain", "cold", "warm"}
        The ways to run programs; "plain" is one of them.
    runs : int
        Measured runs of each program in each way.
    """

    def __init__(self, ways: Sequence[Way], runs: int) -> None:
        self._ways, self._runs = list(ways), runs
        self._folder = TemporaryDirectory(prefix="bench-programs-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Remove the cache folder."""
        self._folder.cleanup()

    def measure(self, name: str) -> ProgramResult:
        """Measure one program."""
        missing = [package for package in PROGRAMS[name] if find_spec(package) is None]
        if missing:
            reason = f"the package {', '.join(missing)} is not installed"
            return ProgramResult(name, reason, [], [], "", {})
        result = ProgramResult(name, "", [], [], "", {way: [] for way in self._ways})
        first = self._execute(name, "plain")  # reads files into memory
        result = result._replace(output=first.output)
        _check(result, "plain", first, first)
        for _ in range(WARM_UP_RUNS if "warm" in self._ways and not result.errors else 0):
            _check(result, "warm", self._execute(name, "warm"), first)
        order = list(self._ways)
        for _ in range(0 if result.errors else self._runs):
            for way in order:
                execution = self._execute(name, way)
                _check(result, way, execution, first)
                result.executions[way].append(execution)
            order.reverse()
        return result

    def _execute(self, name: str, way: Way) -> Execution:
        """Run a program once."""
        folder = Path(self._folder.name)
        program = str(Path(__file__).with_name(f"{name}.py"))
        prefix = [] if way == "plain" else ["-m", "nkblas", "run"]
        cache = folder / way
        if way == "cold":
            shutil.rmtree(cache, ignore_errors=True)
        # temporary files, too, go to a folder that is removed: killed processes leave theirs
        environment = {**os.environ, "NKBLAS_CACHE_DIR": str(cache), "TMPDIR": str(folder)}
        return execute([sys.executable, *prefix, program], environment, way == "cold")


def _check(result: ProgramResult, way: Way, execution: Execution, first: Execution) -> None:
    """Note what is wrong with an execution, given the first one of plain Python."""
    texts = result.errors
    if execution.status:
        last_line = execution.messages.strip().rpartition("\n")[2]
        text = f"{way}: exit status {execution.status}: {last_line}"
    else:
        text = disagreement(execution.output, first.output)
        if not text and execution.messages != first.messages:
            texts, text = result.notes, execution.messages.strip()
        text = text and f"{way}: {text}"
    if text and text not in texts:
        texts.append(text)


def save(header: dict[str, str], results: Sequence[ProgramResult], path: str) -> None:
    """Write all results to a JSON file, with the times of each run in seconds."""
    raw: dict[str, Any] = {"header": header, "programs": []}
    for result in results:
        ways = {
            way: {key: [getattr(x, key) for x in runs] for key in ("wall", "cpu", "background_cpu")}
            for way, runs in result.executions.items()
        }
        raw["programs"].append({**result._asdict(), "executions": ways})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(raw, indent=1), "utf-8")
