"""Environment variables: the one module that reads them.

Each function reads its variable when it is called, and takes an empty one for unset. What shapes
the whole process (instruction set, threads, JIT mode, cache size) is read once, at the import of
nkblas; the cache folder and the log level are read each time they are needed.
"""

import os
from collections.abc import Mapping
from typing import Literal, get_args

Environment = Mapping[str, str]

JITMode = Literal["first-call", "background", "never"]
JIT_MODES: tuple[JITMode, ...] = get_args(JITMode)


def isa_name(environment: Environment = os.environ) -> str:
    """``NKBLAS_ISA``: the instruction set to run as; empty for the best that the CPU has."""
    return environment.get("NKBLAS_ISA", "")


def num_threads(cpus: int, environment: Environment = os.environ) -> int:
    """``NKBLAS_NUM_THREADS``, else ``OMP_NUM_THREADS``, else `cpus`: threads for one product.

    Raises
    ------
    ValueError
        ``NKBLAS_NUM_THREADS`` is not an integer above 0.
    """
    if environment.get("NKBLAS_NUM_THREADS"):
        return _positive_integer("NKBLAS_NUM_THREADS", environment)
    # OpenMP's may be a list, one for each nesting level; what OpenMP ignores is ignored here too.
    openmp = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(openmp) if openmp.isdecimal() and int(openmp) > 0 else cpus


def cache_folder(environment: Environment = os.environ) -> str:
    """``NKBLAS_CACHE_DIR``, else the user's cache folder: where kernels and plans are kept."""
    chosen = environment.get("NKBLAS_CACHE_DIR")
    if chosen:
        return os.path.abspath(chosen)
    import platformdirs  # takes 1 ms to import: only when the default is needed

    return platformdirs.user_cache_dir("nkblas", appauthor=False)


def cache_size(environment: Environment = os.environ) -> int:
    """``NKBLAS_CACHE_SIZE``, in MiB: the bytes that all kernels in the cache may take.

    Raises
    ------
    ValueError
        It is not an integer above 0.
    """
    if not environment.get("NKBLAS_CACHE_SIZE"):
        return 1 << 30
    return _positive_integer("NKBLAS_CACHE_SIZE", environment, " (MiB)") << 20


def jit_mode(environment: Environment = os.environ) -> JITMode:
    """``NKBLAS_JIT``: when kernels are compiled.

    Raises
    ------
    ValueError
        It is none of `JIT_MODES`.
    """
    mode = environment.get("NKBLAS_JIT") or JIT_MODES[0]
    if mode not in JIT_MODES:
        raise ValueError(f"NKBLAS_JIT: got {mode!r}, expected one of {', '.join(JIT_MODES)}")
    return mode


def log_level(environment: Environment = os.environ) -> str:
    """``NKBLAS_LOG``: the least severe level to print on standard error; empty for none."""
    return environment.get("NKBLAS_LOG", "").upper()


def _positive_integer(name: str, environment: Environment, unit: str = "") -> int:
    text = environment[name]
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name}: got {text!r}, expected an integer above 0{unit}")
    return int(text)


JIT_MODE = jit_mode()
CACHE_SIZE = cache_size()
