"""Plans that were measured: the user's own, and those that ship with the package.

Both are text files, one for each microarchitecture and instruction set, a line for each problem:
``128x768x3072:f32 kind=tiles mr=6 nr=64 kc=1024 … ns=7300000``. The user's is in the cache
folder; lines are only ever appended to it, each in one write, and a later line holds. What can't
be read is no plan: the model has one.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from typing import Any

from . import model
from .detect import CPU
from .log import log
from .plan import Plan, Schedule, make
from .problem import Problem, parse
from .store import default_folder, write_whole

SHIPPED = "shipped"
TUNED = "tuned"


_PACKAGE = os.path.dirname(__file__)
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
    return os.path.join(default_folder(), "plans", f"{machine(cpu)}.txt")


def read(name: str) -> dict[str, str]:
    """The lines of a file: the schedule's text by the problem's."""
    try:
        with open(name, encoding="ascii", errors="replace") as file:
            lines = [line.partition(" ") for line in file if not line.startswith("#")]
    except FileNotFoundError:
        return {}
    except OSError as error:
        log("warning", f"tuned plans can't be read from {name}: {error.strerror}", once=True)
        return {}
    return {problem: rest for problem, _, rest in lines if rest.endswith("\n")}


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
    why_not = schedule.why_not(problem, cpu)
    if why_not or not nanoseconds > 0:
        raise ValueError(why_not or "expected a time above 0")
    return make(problem, cpu, schedule)._replace(nanoseconds=nanoseconds)


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
    """Add lines to a file in one write, so that other processes' lines stay whole.

    Raises
    ------
    OSError
        That can't be.
    """
    folder = os.path.dirname(name)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with _alone_in(folder):
        descriptor = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, ("\n" * bool(torn) + "".join(lines)).encode())
        finally:
            os.close(descriptor)


def compact(name: str, cpu: CPU) -> int:
    """Leave the lines of a file that hold and can be used by `cpu`; how many others there were.

    Raises
    ------
    OSError
        It can't be read or written.
    """
    with _alone_in(os.path.dirname(name)):
        with open(name, encoding="ascii", errors="replace") as file:
            lines = file.readlines()
        good, _ = check(lines, cpu)
        comments = [line for line in lines if line.startswith("#")]
        left = [*comments, *map(to_line, good.values())]
        if lines != left:
            write_whole(name, "".join(left).encode())
    return len(lines) - len(left)


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Be the one process that changes files there, if its file system knows locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process forked meanwhile holds it too
        os.close(descriptor)


measured = Plans()


def plan_for(problem: Problem, cpu: CPU) -> Plan:
    """The best plan known: measured if there is one, else the model's."""
    return measured.find(problem, cpu) or model.plan_for(problem, cpu)
