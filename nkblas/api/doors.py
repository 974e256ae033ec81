"""Doors: where the compiled modules of NumPy and SciPy call BLAS.

Such a module calls each function of BLAS through a word of its memory, to which the loader writes
the function's address. `open_doors` has the addresses of nkblas's routines written there
(cblas/doors.c), in the modules that are loaded, and from then on in each one as it is loaded.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args, overload

from nkblas._engine import ffi, lib
from nkblas.system.import_hook import Finder
from nkblas.system.log import log

PACKAGES = ("numpy", "scipy")
"""The packages whose modules have doors."""

DoorState = Literal["closed", "open", "read-only", "foreign", "unsupported"]
STATES: tuple[DoorState, ...] = get_args(DoorState)
"""The order is that of nk_door_state in cblas/doors.h."""


class Door(NamedTuple):
    """A place where a compiled module calls a function of BLAS.

    Attributes
    ----------
    module : str
        The module, such as "scipy.linalg._fblas".
    symbol : str
        The function, under the name by which the module calls it, such as "scipy_dgemm_".
    state : {"open", "closed", "read-only", "foreign", "unsupported"}
        "open": it leads to nkblas. "closed": it leads to the module's own BLAS. The others lead
        there, too, and can't be opened: "read-only", because the module's memory is write-protected
        (it was linked with ``-z now``, as packages of some distributions are); "foreign", because
        another program has changed it; "unsupported", because the integers of its BLAS have another
        size than its name says.
    calls : int
        How many calls of this function have come to nkblas, by this name and through all modules.
        Small ones (up to 1,000 multiply-adds, 4,096 of a matrix times a vector) go on to the own
        BLAS of the module, which takes less time for them.
    """

    module: str
    symbol: str
    state: DoorState
    calls: int


class Doors(Sequence[Door]):
    """The doors of the modules of NumPy and SciPy that are loaded, as they are now.

    A sequence of `Door`; as text, it is a table. `nkblas.patch` returns it.

    See Also
    --------
    nkblas.patch
    """

    @overload
    def __getitem__(self, index: int) -> Door: ...

    @overload
    def __getitem__(self, index: slice) -> list[Door]: ...

    def __getitem__(self, index: int | slice) -> Door | list[Door]:
        return _list_doors()[index]

    def __iter__(self) -> Iterator[Door]:
        return iter(_list_doors())

    def __len__(self) -> int:
        return int(lib.nk_list_doors(ffi.new("nk_door[]", 0), 0))

    def __repr__(self) -> str:
        doors = _list_doors()
        counts = {state: sum(door.state == state for door in doors) for state in STATES}
        text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        return f"<{type(self).__name__}: {text or 'none'}; print() shows them>"

    def __str__(self) -> str:
        return "\n".join(_table(_list_doors()))


def _list_doors() -> list[Door]:
    count = lib.nk_list_doors(ffi.new("nk_door[]", 0), 0)
    array = ffi.new("nk_door[]", count)
    count = min(lib.nk_list_doors(array, count), count)
    folders = _folders()
    return [
        Door(
            _module_name(os.fsdecode(ffi.string(door.path)), folders),
            ffi.string(door.symbol).decode(),
            STATES[door.state],
            door.calls,
        )
        for door in array[0:count]
    ]


def _module_name(path: str, folders: list[str]) -> str:
    """The name of the module in a file; the path, if it is in none of the packages' folders."""
    for folder in folders:
        if path.startswith(folder + os.sep):
            name = os.path.relpath(path, os.path.dirname(folder))
            return name.partition(".")[0].replace(os.sep, ".")
    return path


# ---- the table


def _table(doors: list[Door]) -> list[str]:
    """A row for each module and state, and one for each function that was called."""
    if not doors:
        return ["no module that is loaded calls BLAS from a library of its own"]
    groups: dict[tuple[str, str], list[str]] = {}
    for door in doors:
        groups.setdefault((door.module, door.state), []).append(door.symbol)
    rows = [("module", "doors", "functions")]
    rows += [(*key, _fold(symbols)) for key, symbols in sorted(groups.items())]
    calls = {door.symbol.removeprefix("scipy_"): str(door.calls) for door in doors if door.calls}
    if calls:
        rows += [
            ("", "", ""),
            ("function", "calls", ""),
            *((*x, "") for x in sorted(calls.items())),
        ]
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    return [f"{x:{first}}  {y:{second}}  {z}".rstrip() for x, y, z in rows]


def _fold(symbols: list[str]) -> str:
    """Names of functions, shortened: "?" is any type, and common beginnings and ends are one."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for symbol in symbols:
        match = re.fullmatch(r"(scipy_)?(cblas_)?[sdcz]([a-z0-9]+?)((_?64)?_?)", symbol)
        before, name, after = (match[2] or "", match[3], match[4]) if match else ("", symbol, "")
        groups.setdefault((f"{before}?", after), {})[name] = None
    return "  ".join(
        f"{before}{','.join(names)}{after}" if len(names) == 1
        else f"{before}{{{','.join(sorted(names))}}}{after}"
        for (before, after), names in groups.items()
    )  # fmt: skip


# ---- opening and closing


def open_doors() -> None:
    """Open the doors of the modules that are loaded, and of each one that is loaded later."""
    _finder.install()
    _check(lib.nk_open_doors(_folder_names()))


def close_doors() -> None:
    """Restore all doors."""
    lib.nk_close_doors()


def _check(status: int) -> None:
    if status:
        log(
            "warning",
            "no memory for a list of doors: some modules run on their own BLAS",
            once=True,
        )


def _folders() -> list[str]:
    """The folders of the packages that are imported."""
    packages = filter(None, map(sys.modules.get, PACKAGES))
    return [folder for package in packages for folder in getattr(package, "__path__", ())]


def _folder_names() -> bytes:
    """The folders as C takes them: strings, the last of which is empty."""
    return b"".join(os.fsencode(folder) + b"\0" for folder in _folders())


class _Loader(ExtensionFileLoader):
    """Loads a compiled module, and has its doors opened.

    Parameters
    ----------
    loader : ExtensionFileLoader
        What would load the module. It takes this one's place before anything can see that.
    """

    def __init__(self, loader: ExtensionFileLoader) -> None:
        super().__init__(loader.name, loader.path)
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Load the module's library."""
        spec.loader = self._loader
        module = self._loader.create_module(spec)
        _check(lib.nk_keep_doors_open(_folder_names()))
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module: a reload, which creates none."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)


_PREFIXES = tuple(f"{package}." for package in PACKAGES)


def _may_have_doors(name: str) -> bool:
    return name.startswith(_PREFIXES)


def _with_doors(loader: Any) -> Any:
    """What loads a module in the place of `loader`; the same, if it is not a compiled one."""
    return _Loader(loader) if type(loader) is ExtensionFileLoader else loader


_finder = Finder(_may_have_doors, _with_doors)
