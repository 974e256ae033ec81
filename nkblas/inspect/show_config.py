"""What nkblas found on this machine, and what is missing: `nkblas.show_config`, ``nkblas info``."""

import resource
import tempfile
from collections.abc import Iterator

import numpy as np

from nkblas.base.isa import ISAS
from nkblas.codegen.compiler_client import CompileError, python
from nkblas.runtime.kernels import kernels
from nkblas.runtime.threads import get_num_threads
from nkblas.system import config
from nkblas.system.cpu import cgroup_cpu_quota, cpu
from nkblas.system.toolchain import LINKERS, find_linker, toolchain
from nkblas.system.version import __version__

START_TIME, KERNEL_TIME = "0.5 s", "0.1 s"
"""How long the start of the compiler takes, and the compilation of a kernel."""

COMPILER_MEMORY = "250 MB"
"""Memory of a process that has the compiler in itself."""

COMPILER_ADDRESS_SPACE = 400 << 20
"""Bytes of address space that the compiler and its libraries take."""


def show_config() -> None:
    """Print the configuration: CPU, threads, toolchain and store; and what the machine lacks."""
    linker = find_linker()
    rows = {
        "version": __version__,
        "cpu": str(cpu),
        "isa": f"{cpu.isa.name} of {', '.join(ISAS)} (NKBLAS_ISA lowers it)",
        "threads": str(get_num_threads()),
        "toolchain": toolchain() or "none",
        "linker": linker[1] if linker else "none",
        "shipped": f"{len(kernels.shipped.digests)} libraries of kernels in the package",
        "kernels": kernels.store.folder.path,
        "jit": f"{config.JIT_MODE} (NKBLAS_JIT)",
        "numpy": np.__version__,
    }
    print("\n".join(f"{name:9}  {value}" for name, value in rows.items()))
    for limitation in limitations():
        print(f"{'lacking':9}  {limitation}")


def limitations() -> Iterator[str]:
    """What this machine or this environment lacks, each with its cost."""
    yield from _compiler_limitations()
    yield from _storage_limitations()
    quota = cgroup_cpu_quota()
    if quota is not None and quota < 1:
        cost = f"one thread, and everything, compilation too, takes {1 / quota:.2g} times as long"
        yield f"a whole CPU (the control group grants {quota:.2g}): {cost}"


def _compiler_limitations() -> Iterator[str]:
    """Why no kernel can be compiled."""
    cost = "NumPy does the products for which there are no kernels in the package or the store"
    if config.JIT_MODE == "never":
        yield f"permission to compile (NKBLAS_JIT=never): {cost}"
    if not toolchain():
        yield f"MLIR (python -m pip install nkblas installs it): {cost}"
    try:
        python()
    except CompileError as error:
        yield f"{error}: {cost}"
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < COMPILER_ADDRESS_SPACE:
        sizes = f"{limit >> 20} MiB; the compiler needs {COMPILER_ADDRESS_SPACE >> 20}"
        yield f"memory (ulimit -v: {sizes}): {cost}"


def _storage_limitations() -> Iterator[str]:
    """Why no kernel can be stored."""
    cost = f"each process compiles its own kernels: {START_TIME}, then {KERNEL_TIME} for each"
    folder = kernels.store.folder
    unwritable_reason = folder.unwritable_reason()
    if unwritable_reason:
        detail = f"{folder.path}: {unwritable_reason}; NKBLAS_CACHE_DIR can name another"
        yield f"a folder to keep kernels in ({detail}): {cost}; no tuned plan is kept"
    if not find_linker():
        yield f"a linker ({', '.join(LINKERS)} in PATH): {cost}, and {COMPILER_MEMORY}"
    try:
        tempfile.gettempdir()
    except OSError:
        yield f"a folder for temporary files (TMPDIR): {cost}, and {COMPILER_MEMORY}"
