"""What nkblas finds on this machine, and what it lacks: `nkblas.show_config`, ``nkblas info``."""

import resource
import tempfile

import numpy as np

from nkblas import __version__
from nkblas.base.isa import ISAS
from nkblas.codegen.compiler_client import CompileError, python
from nkblas.runtime.kernels import kernels
from nkblas.runtime.threads import get_num_threads
from nkblas.system import config
from nkblas.system.cpu import cpu, quota
from nkblas.system.toolchain import LINKERS, find_linker, toolchain


def show_config() -> None:
    """Print what nkblas found, the CPU, the toolchain, the store, and what it lacks."""

    linker = find_linker()
    lines = {
        "version": __version__,
        "cpu": str(cpu),
        "isa": f"{cpu.isa.name} of {', '.join(ISAS)} (NKBLAS_ISA lowers it)",
        "threads": str(get_num_threads()),
        "toolchain": toolchain() or "none",
        "linker": linker[1] if linker else "none",
        "kernels": kernels.store.folder.path,
        "jit": f"{config.JIT_MODE} (NKBLAS_JIT)",
        "numpy": np.__version__,
    }
    print("\n".join(f"{name:9}  {value}" for name, value in lines.items()))
    for lack in lacks():
        print(f"{'lacking':9}  {lack}")


FIRST, EACH, MEMORY = "0.5 s", "0.1 s", "250 MB"
"""To start the compiler, to compile a kernel; and what it takes up in the process itself."""

ADDRESSES = 400 << 20
"""Bytes of addresses that the compiler takes up, with its libraries."""


def lacks() -> list[str]:
    """What this machine or this environment lacks, and what each of that costs."""

    found = []
    by_numpy = "what the store has no kernels for, NumPy does"
    if config.JIT_MODE == "never":
        found.append(f"leave to compile (NKBLAS_JIT=never): {by_numpy}")
    if not toolchain():
        found.append(f"MLIR (python -m pip install nkblas brings it): {by_numpy}")
    try:
        python()
    except CompileError as error:
        found.append(f"{error}: {by_numpy}")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < ADDRESSES:
        have, need = limit >> 20, ADDRESSES >> 20
        found.append(f"memory (ulimit -v: {have} MiB; the compiler needs {need}): {by_numpy}")

    in_memory = f"each process compiles its own kernels: {FIRST}, then {EACH} for each"
    infeasible_reason = kernels.store.folder.unwritable_reason()
    if infeasible_reason:
        where = f"{kernels.store.folder.path}: {infeasible_reason}; NKBLAS_CACHE_DIR names another"
        found.append(f"a folder to keep kernels in ({where}): {in_memory}; no plan is kept")
    if not find_linker():
        found.append(f"a linker ({', '.join(LINKERS)} in PATH): {in_memory}, and {MEMORY}")
    try:
        tempfile.gettempdir()
    except OSError:
        found.append(f"a folder for temporary files (TMPDIR): {in_memory}, and {MEMORY}")

    granted = quota()
    if granted is not None and granted < 1:
        slower = f"one thread, and all takes {1 / granted:.2g} times as long, compiling too"
        found.append(f"a whole CPU (the control group grants {granted:.2g}): {slower}")
    return found
