"""Environment variables: the one module that reads them.

Each function reads its variable when it is called; an empty variable counts as unset. The settings
of the whole process (instruction set, threads, JIT mode, tuning, cache size, log level) are read
once, when nkblas is imported; the cache folder is read each time that it is needed.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Literal, get_args

Environment = Mapping[str, str]

JITMode = Literal["first-call", "background", "never"]
JIT_MODES: tuple[JITMode, ...] = get_args(JITMode)
"""The default is the first."""


LOG_LEVELS = ("debug", "info", "warning", "error")


def isa_name(environment: Environment = os.environ) -> str:
    """``NKBLAS_ISA``: the instruction set to use; empty for the most capable that the CPU has."""
    return environment.get("NKBLAS_ISA", "")


def num_threads(cpus: int, environment: Environment = os.environ) -> int:
    """``NKBLAS_NUM_THREADS``, else ``OMP_NUM_THREADS``, else `cpus`: threads for one product.

    Raises
    ------
    ValueError
        ``NKBLAS_NUM_THREADS`` is not an integer above 0.
    """
    if chosen := chosen_num_threads(environment):
        return chosen
    # OpenMP's may be a list with a number for each nesting level. Values that OpenMP ignores are
    # ignored here too.
    openmp = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(openmp) if openmp.isdecimal() and int(openmp) > 0 else cpus


def chosen_num_threads(environment: Environment = os.environ) -> int | None:
    """``NKBLAS_NUM_THREADS``; None if it is not set.

    Raises
    ------
    ValueError
        It is not an integer above 0.
    """
    if not environment.get("NKBLAS_NUM_THREADS"):
        return None
    return _positive_integer("NKBLAS_NUM_THREADS", environment)


def cache_folder(environment: Environment = os.environ) -> str:
    """``NKBLAS_CACHE_DIR``, else in the user's cache folder: where kernels and plans are stored.

    The user's is ``XDG_CACHE_HOME``, else ``~/.cache`` (XDG Base Directory Specification, 0.8,
    which has relative paths ignored).
    """
    return _cache_folder(
        environment.get("NKBLAS_CACHE_DIR", ""), environment.get("XDG_CACHE_HOME", "")
    )


@lru_cache
def _cache_folder(chosen: str, of_user: str) -> str:
    if not chosen:
        chosen = os.path.join(of_user if os.path.isabs(of_user) else "~/.cache", "nkblas")
    return os.path.abspath(os.path.expanduser(chosen))


def cache_size(environment: Environment = os.environ) -> int:
    """``NKBLAS_CACHE_SIZE`` (in MiB): the limit for all kernels in the cache, in bytes.

    Raises
    ------
    ValueError
        The value is not an integer above 0.
    """
    if not environment.get("NKBLAS_CACHE_SIZE"):
        return 1 << 30
    return _positive_integer("NKBLAS_CACHE_SIZE", environment, " (MiB)") << 20


def jit_mode(environment: Environment = os.environ) -> JITMode:
    """``NKBLAS_JIT``: when kernels are compiled.

    Raises
    ------
    ValueError
        The value is none of `JIT_MODES`.
    """
    mode = environment.get("NKBLAS_JIT") or JIT_MODES[0]
    if mode not in JIT_MODES:
        raise ValueError(f"NKBLAS_JIT: got {mode!r}, expected one of {', '.join(JIT_MODES)}")
    return mode


def may_tune(environment: Environment = os.environ) -> bool:
    """``NKBLAS_TUNE``: whether plans and the cost model may be measured while a program runs.

    Raises
    ------
    ValueError
        The value is neither 0 nor 1.
    """
    return _switch("NKBLAS_TUNE", environment)


def counters_folder(environment: Environment = os.environ) -> str:
    """``NKBLAS_COUNTERS``: where this process counts, for ``nkblas run``; empty for nowhere.

    ``nkblas run --report`` and ``--record`` set it for the children of a program.
    """
    return environment.get("NKBLAS_COUNTERS", "")


def patch_children(counters: str = "", environment: MutableMapping[str, str] = os.environ) -> None:
    """Have the Python processes that this one starts patched (``NKBLAS_PATCH``).

    Parameters
    ----------
    counters : str, optional
        The folder in which they count (``NKBLAS_COUNTERS``).
    environment : mutable mapping of str to str
    """
    if not environment.get("NKBLAS_PATCH"):  # the user may have set it to 0
        environment["NKBLAS_PATCH"] = "1"
    if counters:
        environment["NKBLAS_COUNTERS"] = counters


def may_open_doors(environment: Environment = os.environ) -> bool:
    """``NKBLAS_DOORS``: whether `nkblas.patch` may open doors, where C code calls BLAS.

    Raises
    ------
    ValueError
        The value is neither 0 nor 1.
    """
    return _switch("NKBLAS_DOORS", environment)


def may_use_shipped_kernels(environment: Environment = os.environ) -> bool:
    """``NKBLAS_SHIPPED_KERNELS``: whether kernels that were installed with the package are used.

    Raises
    ------
    ValueError
        The value is neither 0 nor 1.
    """
    return _switch("NKBLAS_SHIPPED_KERNELS", environment)


def log_level(environment: Environment = os.environ) -> str:
    """``NKBLAS_LOG``: the least severe level to print on standard error; empty for none.

    Raises
    ------
    ValueError
        The value is none of `LOG_LEVELS`, in lower or upper case.
    """
    level = environment.get("NKBLAS_LOG", "").lower()
    if level and level not in LOG_LEVELS:
        raise ValueError(f"NKBLAS_LOG: got {level!r}, expected one of {', '.join(LOG_LEVELS)}")
    return level


@contextlib.contextmanager
def openblas_timeout(
    arguments: Sequence[str] = sys.orig_argv, environment: MutableMapping[str, str] = os.environ
) -> Iterator[None]:
    """While NumPy is imported by ``nkblas run``: have its OpenBLAS's idle threads sleep soon.

    They would spin for 2**26 cycles after each of NumPy's own calls (LAPACK's, say), on cores that
    the next product needs. Some spinning is needed: a Cholesky factorisation gives them work
    hundreds of times. A value that the user has set stays, and so does the environment.

    Parameters
    ----------
    arguments : sequence of str
        The command line of the process.
    environment : mutable mapping of str to str
    """
    name, place = "OPENBLAS_THREAD_TIMEOUT", 2 if arguments[1:2] == ["-m"] else 1
    program = [os.path.basename(word) for word in arguments[place : place + 2]]
    if program != ["nkblas", "run"] or environment.get(name):
        yield
        return
    environment[name] = "17"  # 2**17 cycles: about 40 us
    try:
        yield
    finally:
        del environment[name]


def _switch(name: str, environment: Environment) -> bool:
    """The value of a variable that is 0 or 1, and 1 by default.

    Raises
    ------
    ValueError
        It is neither.
    """
    value = environment.get(name) or "1"
    if value not in ("0", "1"):
        raise ValueError(f"{name}: got {value!r}, expected 0 or 1")
    return value == "1"


def _positive_integer(name: str, environment: Environment, unit: str = "") -> int:
    """The value of a variable that is set.

    Raises
    ------
    ValueError
        It is not an integer above 0.
    """
    text = environment[name]
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name}: got {text!r}, expected an integer above 0{unit}")
    return int(text)


JIT_MODE = jit_mode()
"""`jit_mode` at import."""

MAY_TUNE = may_tune()
"""`may_tune` at import."""

MAY_OPEN_DOORS = may_open_doors()
"""`may_open_doors` at import."""

MAY_USE_SHIPPED_KERNELS = may_use_shipped_kernels()
"""`may_use_shipped_kernels` at import."""

CACHE_SIZE = cache_size()
"""`cache_size` at import, in bytes."""

COUNTERS_FOLDER = counters_folder()
"""`counters_folder` at import."""

LOG_LEVEL = log_level()
"""`log_level` at import."""
