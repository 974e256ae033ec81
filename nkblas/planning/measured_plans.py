"""Plan files: measured plans on disk, the user's own and those that ship with the package.

A plan file is named after a microarchitecture and an instruction set, ``amd-19-11-avx512_bf16.txt``
(`machine`). The shipped ones are in ``kernels_cache``; the user's own, which the tuner writes,
are in ``plans`` in the cache folder, and come first.

Format of a plan file: ASCII text with one measured plan in each line, such as

    128x768x3072:f32 kind=tiles mr=6 nr=64 kc=1024 mc=128 nc=768 pack_a=0 pack_b=1 ir_outside=0
    prefetch=0 family=fma ns=7300000

(in one line). It begins with the problem, in the text form of `nkblas.base.problem.Problem`. Then
come, separated by single blanks, ``name=value`` for each field of `Schedule`, booleans as 0 or 1
(a missing ``family`` is "fma"), and ``ns``, the measured nanoseconds on one thread. A line that
begins with ``#`` is a comment. Lines are only appended, by any number of processes: the last line
for a problem counts, and a line without a newline at its end is torn. A line that can't be read, or
whose plan is not legal for this CPU, is ignored: the cost model has a plan for any problem.
"""

import os
from collections.abc import Iterable
from math import inf
from typing import Any, Literal

from nkblas._engine import lib
from nkblas.base.problem import Problem, parse
from nkblas.system.config import cache_folder
from nkblas.system.cpu import CPU
from nkblas.system.folder import Folder
from nkblas.system.log import log
from nkblas.system.package import shipped_folder

from . import cost_model
from .microarchitecture import machine
from .plan import Plan, make_plan
from .schedule import Schedule

Layer = Literal["shipped", "tuned"]
"""Whose plan files: the package's or the user's own; it is the origin of their plans."""

Classes = tuple[int, int, int]
"""m, and the classes of n and k."""

SHIPPED: Layer = "shipped"
TUNED: Layer = "tuned"

LOCK_BYTE = 0
"""The byte of the lock file that is locked while plan files are written."""


def plan_file(cpu: CPU, layer: Layer) -> str:
    """The path of the plan file of a layer for a CPU; it need not exist."""
    folder = shipped_folder() if layer == SHIPPED else f"{cache_folder()}/plans"
    return f"{folder}/{machine(cpu)}.txt"


def read_lines(path: str) -> list[str]:
    """The lines of a plan file.

    Raises
    ------
    OSError
        It can't be read; or it is the user's own, and other users can write to it.
    """
    folder, name = os.path.split(path)
    if folder == shipped_folder():
        with open(path, "rb") as file:
            content = file.read()
    else:
        (content,) = Folder(folder).read(name)
    return [line.decode("ascii", errors="replace") for line in content.splitlines(keepends=True)]


def read(path: str) -> dict[str, str]:
    """The plans of a plan file, unchecked: the rest of each line by the text of its problem."""
    try:
        lines = [line.partition(" ") for line in read_lines(path) if not line.startswith("#")]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        log("warning", f"tuned plans can't be read from {path}: {error.strerror}", once=True)
        return {}
    return {problem: rest for problem, _, rest in lines if rest.endswith("\n")}


def to_line(plan: Plan) -> str:
    """The line of a plan file for a plan."""
    nanoseconds = round(plan.nanoseconds, 2 if plan.nanoseconds < 100 else None)
    fields = {**plan.schedule._asdict(), "ns": nanoseconds}
    words = [f"{name}={_field_text(value)}" for name, value in fields.items()]
    return " ".join([str(plan.problem), *words]) + "\n"


def _field_text(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


def from_text(problem: Problem, text: str, cpu: CPU) -> Plan:
    """The plan that a line describes.

    Parameters
    ----------
    problem : Problem
    text : str
        The line after the problem.
    cpu : CPU

    Raises
    ------
    ValueError
        It describes no plan, or one that is not legal for this CPU.
    """
    try:
        fields = dict(word.split("=", 1) for word in text.split())
        nanoseconds = float(fields.pop("ns"))
        kind: Any = fields.pop("kind")  # infeasible_reason checks it
        family = fields.pop("family", "fma")
        numbers: dict[str, Any] = {name: int(value) for name, value in fields.items()}
        for name in ("pack_a", "pack_b", "ir_outside", "prefetch"):
            numbers[name] = bool(numbers[name])
        schedule = Schedule(kind, family=family, **numbers)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"expected name=number for each of {', '.join(Schedule._fields)}"
        ) from None
    panels = cost_model.prepacked_panels(problem, cpu)
    infeasible_reason = schedule.infeasible_reason(problem, cpu, panels)
    if infeasible_reason or not 0 < nanoseconds < inf:
        raise ValueError(infeasible_reason or "expected a time above 0")
    return make_plan(problem, cpu, schedule)._replace(nanoseconds=nanoseconds)


def check(lines: Iterable[str], cpu: CPU) -> tuple[dict[Problem, Plan], list[str]]:
    """Check the lines of a plan file.

    Returns
    -------
    plans : dict of Problem to Plan
        Those that are legal for `cpu`.
    faults : list of str
        What is wrong with each of the other lines.
    """
    good: dict[Problem, Plan] = {}
    faults = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            if not line.endswith("\n"):
                raise ValueError("it does not end with a newline")
            text, _, rest = line.partition(" ")
            problem = parse(text)
            good[problem] = from_text(problem, rest, cpu)
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    return good, faults


def _classes(problem: Problem) -> Classes:
    return problem.m, lib.nk_size_class(problem.n), lib.nk_size_class(problem.k)


def _classes_of(text: str) -> Classes | None:
    """m, and the classes of n and k, of the problem that a text describes; None: it is damaged."""
    try:
        return _classes(parse(text))
    except ValueError:
        return None


class Plans:
    """The measured plans by problem; each plan file is read when it is first needed.

    Attributes
    ----------
    layers : dict of str to (dict of str to str)
        The files that were read, by path: as from `read`.
    """

    def __init__(self) -> None:
        self.layers: dict[str, dict[str, str]] = {}
        self._classes: dict[str, tuple[int, set[Classes]]] = {}  # by path: of how many lines

    def find(self, problem: Problem, cpu: CPU) -> Plan | None:
        """The measured plan for a problem: the user's own, else the shipped one, else None.

        A product with structure has the plan of the full product, if that is one of tiles where
        only a triangle is stored.
        """
        if problem.structure:
            full = self.find(problem._replace(structure=""), cpu)
            needs_tiles = problem.structure not in ("symmetric", "hermitian")
            if not full or (needs_tiles and full.schedule.kind != "tiles"):
                return None
            return full.with_structure(problem.structure)
        for layer in (TUNED, SHIPPED):
            lines = self._layer(layer, cpu)
            line = lines and lines.get(str(problem))
            if lines and not line and problem.epilogue:
                # An epilogue hardly changes which plan is best: that without it serves.
                line = lines.get(str(problem._replace(epilogue="")))
            if not line:
                continue
            try:
                return from_text(problem, line, cpu)._replace(origin=layer)
            except ValueError as error:
                log("warning", f"a plan in {plan_file(cpu, layer)} is ignored: {problem}: {error}")
        return None

    def is_tuned(self, problem: Problem, cpu: CPU) -> bool:
        """Whether the user's own plan file has this problem."""
        return str(problem) in self._layer(TUNED, cpu)

    def has_similar(self, problem: Problem, cpu: CPU) -> bool:
        """Whether there may be a measured plan for a problem of the same classes of n and k."""
        classes = _classes(problem)
        for layer in (TUNED, SHIPPED):
            lines, path = self._layer(layer, cpu), plan_file(cpu, layer)
            count, known = self._classes.get(path, (0, set()))
            if count != len(lines):
                known = set(filter(None, map(_classes_of, lines)))
                self._classes[path] = len(lines), known
            if classes in known:
                return True
        return False

    def _layer(self, layer: Layer, cpu: CPU) -> dict[str, str]:
        path = plan_file(cpu, layer)
        if path not in self.layers:
            self.layers[path] = read(path)
        return self.layers[path]

    def save(self, plan: Plan, cpu: CPU) -> None:
        """Make `plan` the user's own for its problem; if the file can't be written, in memory."""
        path = plan_file(cpu, TUNED)
        line = to_line(plan)
        self._layer(TUNED, cpu)[str(plan.problem)] = line.partition(" ")[2]
        try:
            append(path, [line])
        except OSError as error:
            log("warning", f"tuned plans can't be saved to {path}: {error.strerror}", once=True)


def append(path: str, lines: Iterable[str]) -> None:
    """Append lines to a plan file, so that other processes' lines stay whole.

    Raises
    ------
    OSError
        It can't be written.
    """
    folder_path, name = os.path.split(path)
    folder = Folder(folder_path)
    with folder.lock(LOCK_BYTE):
        folder.append(name, "".join(lines).encode())


def compact(path: str, cpu: CPU) -> int:
    """Remove the lines of a plan file that are replaced by later ones, or not legal for `cpu`.

    Returns
    -------
    int
        Lines that were removed.

    Raises
    ------
    OSError
        It can't be read or written.
    """
    folder_path, name = os.path.split(path)
    folder = Folder(folder_path)
    with folder.lock(LOCK_BYTE):
        before = read_lines(path)
        good, _ = check(before, cpu)
        comments = [line for line in before if line.startswith("#") and line.endswith("\n")]
        after = [*comments, *map(to_line, good.values())]
        if before != after:
            folder.write(name, "".join(after).encode())
    return len(before) - len(after)


measured = Plans()
"""The measured plans of this process."""


def best_known_plan(problem: Problem, cpu: CPU) -> Plan:
    """The best plan known: a measured one if there is one, else the cost model's."""
    return measured.find(problem, cpu) or cost_model.cheapest_plan(problem, cpu)
