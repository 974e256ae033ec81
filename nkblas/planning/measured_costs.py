"""The constants of the cost model for this machine: measured ones, or those of its vendor.

`nkblas.inspect.calibrate` measures them. They are kept beside the tuned plans, in a file that is
named in the same way, ``intel-6-a7-avx512.costs``: ASCII text with a ``name value`` in each line.
These are the day of the measurement (``date``), the cache sizes that the machine had, and each
field of `Costs`. A file that lacks one of them, or is for other cache sizes, is ignored: virtual
machines of one CPU model may differ.
"""

import os
import time
from math import inf
from typing import NamedTuple

from nkblas.system.config import cache_folder
from nkblas.system.cpu import CPU
from nkblas.system.folder import Folder
from nkblas.system.log import log

from .microarchitecture import COSTS, Costs, machine, microarchitecture_of

CACHES = ("l1d", "l2", "l3")
"""The cache sizes in a file: these fields of `CPU`."""


class Constants(NamedTuple):
    """The constants that are used for a CPU.

    Attributes
    ----------
    costs : Costs
    microarchitecture : str
        The column of `nkblas.planning.microarchitecture` that they are from; empty if they were
        measured on this machine.
    date : str
        When they were measured, such as ``2026-01-31``.
    """

    costs: Costs
    microarchitecture: str = ""
    date: str = ""

    def __str__(self) -> str:
        if self.microarchitecture:
            return f"those of {self.microarchitecture}; nkblas calibrate measures this machine's"
        return f"measured on this machine, {self.date}"


_known: dict[CPU, Constants] = {}


def constants_of(cpu: CPU) -> Constants:
    """The constants that are used for a CPU; their file is read when they are first needed."""
    if cpu not in _known:
        name = microarchitecture_of(cpu)
        _known[cpu] = _read(cpu) or Constants(COSTS[name], name)
    return _known[cpu]


def costs_of(cpu: CPU) -> Costs:
    """`constants_of`, without their origin."""
    return constants_of(cpu).costs


def costs_file(cpu: CPU) -> str:
    """The path of the file with the measured constants for a CPU; it need not exist."""
    return os.path.join(cache_folder(), "plans", f"{machine(cpu)}.costs")


def are_measured(cpu: CPU) -> bool:
    """Whether there is a file with constants for this CPU."""
    return _read(cpu) is not None


def save(costs: Costs, cpu: CPU) -> None:
    """Use these constants from now on, here and in other processes.

    Raises
    ------
    OSError
        The file can't be written; they are used in this process alone.
    """
    date = time.strftime("%Y-%m-%d")
    _known[cpu] = Constants(costs, date=date)
    values = {"date": date, **{name: getattr(cpu, name) for name in CACHES}}
    values |= {name: f"{value:.4g}" for name, value in costs._asdict().items()}
    folder, name = os.path.split(costs_file(cpu))
    text = "".join(f"{name} {value}\n" for name, value in values.items())
    Folder(folder).write(name, text.encode())


def _read(cpu: CPU) -> Constants | None:
    """The constants in the file for a CPU; None if there is none, or none that is valid."""
    path = costs_file(cpu)
    folder, name = os.path.split(path)
    try:
        (content,) = Folder(folder).read(name)
        return _parse(content.decode("ascii"), cpu)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error)
    log("warning", f"measured constants in {path} are ignored: {reason}", once=True)
    return None


def _parse(text: str, cpu: CPU) -> Constants:
    """The constants that a file has for a CPU.

    Raises
    ------
    ValueError
        It has none.
    """
    values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    missing = [name for name in ("date", *CACHES, *Costs._fields) if name not in values]
    if missing:
        raise ValueError(f"{', '.join(missing)}: missing")
    for name in CACHES:
        if values[name] != str(getattr(cpu, name)):
            raise ValueError(f"{name}: got {values[name]}, expected {getattr(cpu, name)}")
    costs = Costs(*(float(values[name]) for name in Costs._fields))
    if not all(0 <= cost < inf for cost in costs):
        raise ValueError("expected numbers of at least 0")
    return Constants(costs, date=values["date"])
