"""Plans that were measured: the user's own, and those that ship with the package.

Both are text files, one for each microarchitecture and instruction set, a line for each problem:
``128x768x3072:f32 kind=tiles mr=6 nr=64 kc=1024 … ns=7300000``. The user's is in the cache
folder; lines are only ever appended to it, and a later line holds. What can't be read is no plan:
the model has one.
"""

import os
from collections.abc import Iterable
from math import inf
from typing import Any

from nkblas.base.problem import Problem, parse
from nkblas.system.config import cache_folder
from nkblas.system.cpu import CPU
from nkblas.system.folder import Folder
from nkblas.system.log import log

from . import cost_model
from .plan import Plan, Schedule, make_plan

SHIPPED = "shipped"
TUNED = "tuned"


_PACKAGE = os.path.dirname(os.path.dirname(__file__))
# in a source tree it is beside the package
SHIPPED_FOLDERS = [os.path.join(folder, "kernels_cache") for folder in (_PACKAGE, f"{_PACKAGE}/..")]


def machine(cpu: CPU) -> str:
    """The name of a microarchitecture, and of the files with its plans."""
    vendor = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(cpu.vendor, cpu.vendor.lower())
    return f"{vendor}-{cpu.family:x}-{cpu.model:x}-{cpu.isa.name}"


def path(cpu: CPU, layer: str) -> str:
    """The file of a layer, `SHIPPED` or `TUNED`; it need not exist."""
    if layer == SHIPPED:
        folder = next(filter(os.path.isdir, SHIPPED_FOLDERS), "")
        return os.path.join(folder, f"{machine(cpu)}.txt")
    return os.path.join(cache_folder(), "plans", f"{machine(cpu)}.txt")


def read_lines(name: str) -> list[str]:
    """The lines of a file; of the user's own only if nobody else can have written it.

    Raises
    ------
    OSError
        It can't be read.
    """
    folder, base = os.path.split(name)
    if folder in SHIPPED_FOLDERS:
        with open(name, "rb") as file:
            content = file.read()
    else:
        (content,) = Folder(folder).read(base)
    return [line.decode("ascii", errors="replace") for line in content.splitlines(keepends=True)]


def read(name: str) -> dict[str, str]:
    """The plans of a file: the schedule's text by the problem's."""
    try:
        found = [line.partition(" ") for line in read_lines(name) if not line.startswith("#")]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        log("warning", f"tuned plans can't be read from {name}: {error.strerror}", once=True)
        return {}
    return {problem: rest for problem, _, rest in found if rest.endswith("\n")}


def to_line(plan: Plan) -> str:
    nanoseconds = round(plan.nanoseconds, 2 if plan.nanoseconds < 100 else None)
    fields = {**plan.schedule._asdict(), "ns": nanoseconds}
    return " ".join([str(plan.problem), *(f"{k}={_word(v)}" for k, v in fields.items())]) + "\n"


def _word(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


def from_text(problem: Problem, text: str, cpu: CPU) -> Plan:
    """The plan that a line's rest describes.

    Raises
    ------
    ValueError
        It describes none, or one that can't be run.
    """
    try:
        fields = dict(word.split("=", 1) for word in text.split())
        nanoseconds = float(fields.pop("ns"))
        kind, family = fields.pop("kind"), fields.pop("family", "fma")
        numbers: dict[str, Any] = {name: int(value) for name, value in fields.items()}
        for name in ("pack_a", "pack_b", "ir_outside", "prefetch"):
            numbers[name] = bool(numbers[name])
        schedule = Schedule(kind, family=family, **numbers)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"expected name=number for each of {', '.join(Schedule._fields)}"
        ) from None
    infeasible_reason = schedule.infeasible_reason(problem, cpu)
    if infeasible_reason or not 0 < nanoseconds < inf:
        raise ValueError(infeasible_reason or "expected a time above 0")
    return make_plan(problem, cpu, schedule)._replace(nanoseconds=nanoseconds)


def check(lines: Iterable[str], cpu: CPU) -> tuple[dict[Problem, Plan], list[str]]:
    """The plans of a file's lines that `cpu` can use, and what is wrong with the other lines."""
    good: dict[Problem, Plan] = {}
    faults = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            if not line.endswith("\n"):
                raise ValueError("it has no end")
            text, _, rest = line.partition(" ")
            problem = parse(text)
            good[problem] = from_text(problem, rest, cpu)
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    return good, faults


class Plans:
    """All that was measured, by problem; each file is read when it is first asked for.

    Attributes
    ----------
    layers : dict of str to (dict of str to str)
        `read` files.
    """

    def __init__(self) -> None:
        self.layers: dict[str, dict[str, str]] = {}

    def find(self, problem: Problem, cpu: CPU) -> Plan | None:
        """The measured plan of a problem: the user's own, else the shipped one."""
        for layer in (TUNED, SHIPPED):
            lines = self._layer(layer, cpu)
            # an epilogue has little to do with how a product is best done
            line = lines.get(str(problem)) or lines.get(str(problem._replace(epilogue="")))
            if line is None:
                continue
            try:
                return from_text(problem, line, cpu)._replace(origin=layer)
            except ValueError as error:
                log("warning", f"a plan in {path(cpu, layer)} is ignored: {problem}: {error}")
        return None

    def has_own(self, problem: Problem, cpu: CPU) -> bool:
        """Whether the user has measured this problem."""
        return str(problem) in self._layer(TUNED, cpu)

    def _layer(self, layer: str, cpu: CPU) -> dict[str, str]:
        name = path(cpu, layer)
        if name not in self.layers:
            self.layers[name] = read(name)
        return self.layers[name]

    def keep(self, plan: Plan, cpu: CPU) -> None:
        """Make `plan` the user's own for its problem, on disk too if that can be."""
        name = path(cpu, TUNED)
        line = to_line(plan)
        self._layer(TUNED, cpu)[str(plan.problem)] = line.partition(" ")[2]
        try:
            append(name, [line])
        except OSError as error:
            log("warning", f"tuned plans can't be kept in {name}: {error.strerror}", once=True)


def append(name: str, lines: Iterable[str]) -> None:
    """Add lines to a file, so that other processes' lines stay whole.

    Raises
    ------
    OSError
        That can't be.
    """
    path, base = os.path.split(name)
    folder = Folder(path)
    with folder.lock(0):
        folder.append(base, "".join(lines).encode())


def compact(name: str, cpu: CPU) -> int:
    """Leave the lines of a file that hold and can be used by `cpu`; how many others there were.

    Raises
    ------
    OSError
        It can't be read or written.
    """
    path, base = os.path.split(name)
    folder = Folder(path)
    with folder.lock(0):
        before = read_lines(name)
        good, _ = check(before, cpu)
        comments = [line for line in before if line.startswith("#") and line.endswith("\n")]
        left = [*comments, *map(to_line, good.values())]
        if before != left:
            folder.write(base, "".join(left).encode())
    return len(before) - len(left)


measured = Plans()


def best_known_plan(problem: Problem, cpu: CPU) -> Plan:
    """The best plan known: measured if there is one, else the model's."""
    return measured.find(problem, cpu) or cost_model.cheapest_plan(problem, cpu)
