"""What nkblas tells about itself: `explain`, `stats`, `show_config`."""

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import runtime
from ._engine import ffi, lib
from .dtypes import product
from .isa import ISAS
from .matmul import adopt_new_types, matmul
from .packed import PackedMatrix
from .threads import get_num_threads

# Imported where they are used: `import nkblas` does not need them.
if TYPE_CHECKING:
    from .detect import CPU
    from .plan import Plan
    from .problem import Problem

REJECTED = 3
"""Plans that `explain` shows beside the chosen one."""


def stats() -> dict[str, int]:
    """Counts since the process started.

    Returns
    -------
    dict
        ``calls``: products asked of nkblas, each matrix of a stack by itself. ``fallbacks``:
        those that NumPy did. ``kernels_compiled``: kernels compiled for this process.
        ``kernels_loaded``: kernels that it found in the store.
    """
    from .kernels import kernels

    counts = lib.nk_counts()
    return {
        "calls": counts.calls,
        "fallbacks": counts.fallbacks,
        "kernels_compiled": kernels.compiled,
        "kernels_loaded": kernels.loaded,
    }


class Explanation(NamedTuple):
    """How nkblas does one product; `explain` makes it.

    Attributes
    ----------
    backend : {"nkblas", "numpy"}
        Who does it.
    reason : str
        Why NumPy does it, or why there is no plan; empty otherwise.
    problem : Problem or None
        The product of one pair of matrices (of a stack).
    plan : Plan or None
        ``plan.origin`` says who chose it: the "model", or a measurement, "tuned" on this machine
        or "shipped" with nkblas.
    kernels : tuple of str
        The generated functions that it runs, the main tile's first.
    cache : tuple of str
        Where each of them is now: "process", "store", or "nowhere" (the first call compiles it).
    threads : int
        How many threads do it, where none of them is needed elsewhere.
    awaited : Plan or None
        The better plan for which `plan` only stands by, until its kernels are compiled.
    rejected : tuple of Plan
        What the model would take next, each with its modelled time on one thread.
    """

    backend: str
    reason: str
    problem: "Problem | None" = None
    plan: "Plan | None" = None
    kernels: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    threads: int = 1
    awaited: "Plan | None" = None
    rejected: "tuple[Plan, ...]" = ()

    @property
    def tile(self) -> tuple[int, int] | None:
        """The register tile (mr, nr)."""
        return self.plan.tile if self.plan else None

    def __str__(self) -> str:
        if self.plan is None:
            return f"{self.backend}: {self.reason}"
        lines = [f"{self.backend}: {self.problem}, {self.threads} thread{'s' * (self.threads > 1)}"]
        plans = [("plan", self.plan), ("awaited", self.awaited)]
        for word, plan in [*plans, *(("rejected", other) for other in self.rejected)]:
            if plan is not None:
                origin = f"{plan.origin}{', standing by' * plan.standby}"
                lines.append(f"  {word:8} {duration(plan.nanoseconds):>8}  {plan} ({origin})")
        width = max(map(len, self.kernels))
        places = zip(self.kernels, self.cache, strict=True)
        return "\n".join([*lines, *(f"  {name:{width}}  {where}" for name, where in places)])


def explain(a: Any, b: Any) -> Explanation:
    """Tell how ``nkblas.matmul(a, b)`` is done. Nothing is multiplied or compiled.

    Parameters
    ----------
    a, b : array_like
        As for `matmul`: `b` may be a `PackedMatrix`.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError, TypeError
        `matmul` would not take `a` and `b` either.
    """
    from .plans import plan_for
    from .prepare import in_table, plan_for_now, why_numpy

    a, b = np.asanyarray(a), b if isinstance(b, PackedMatrix) else np.asanyarray(b)
    if 0 in (a.ndim, b.ndim):
        raise ValueError("explain: expected arrays of at least one dimension, got a scalar")
    adopt_new_types()
    if isinstance(b, PackedMatrix):
        b.check(a)
        types: tuple[np.dtype, ...] = b.a_dtype, b.dtype, b.result_dtype
    else:
        types = matmul.resolve_dtypes((a.dtype, b.dtype, None))
    name = product(*(dtype.name for dtype in types))
    if name is None:
        return Explanation("numpy", f"dtype {types[2].name} has no generated kernels")
    problem = _problem(name, types, a, b)
    if 0 in (problem.m, problem.n, problem.k):
        return Explanation("nkblas", "nothing to multiply", problem)
    plan = in_table.get(problem) or plan_for_now(problem)
    awaited = plan_for(problem, runtime.cpu) if plan.standby else None
    packed = isinstance(b, PackedMatrix)  # then a stack is one product
    count = 1 if packed else math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    found = describe(plan, runtime.cpu, awaited, count)
    lost = why_numpy.get(problem, "")
    if not lost and "nowhere" in found.cache and runtime.jit != "first-call":
        missing = found.kernels[found.cache.index("nowhere")]
        lost = f"{missing}: not in the store, and NKBLAS_JIT={runtime.jit}"
    return Explanation("numpy", lost, problem) if lost else found


def describe(
    plan: "Plan", cpu: "CPU", awaited: "Plan | None" = None, count: int = 1
) -> Explanation:
    """The explanation of a plan, for a stack of `count` products."""
    from . import model
    from .kernels import kernels

    most = min(get_num_threads(), len(os.sched_getaffinity(0)))
    # several schedules may come to the same
    ranked = {str(other): other for other in model.ranked(plan.problem, cpu, 8 * REJECTED)}
    chosen = {str(plan), str(awaited)}
    return Explanation(
        "nkblas",
        "",
        plan.problem,
        plan,
        tuple(spec.symbol for spec in plan.kernels),
        tuple(map(kernels.where, plan.kernels)),
        lib.nk_worth_threads(plan.nanoseconds * count, most),
        awaited,
        tuple(other for text, other in ranked.items() if text not in chosen)[:REJECTED],
    )


def duration(nanoseconds: float) -> str:
    """A time to read, in three digits."""
    for unit in ("ns", "us", "ms"):
        if nanoseconds < 999.5:
            return f"{nanoseconds:.3g} {unit}"
        nanoseconds /= 1000
    return f"{nanoseconds:.3g} s"


def _problem(
    name: str, types: tuple[np.dtype, ...], a: np.ndarray, b: "np.ndarray | PackedMatrix"
) -> "Problem":
    """The problem of one pair of matrices, as the engine will see it."""
    from .prepare import DTYPES, from_c

    a = a[(None,) * (a.ndim == 1)]
    if isinstance(b, PackedMatrix):
        a = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    else:
        b = b[(..., *(None,) * (b.ndim == 1))]
    (m, k), (k_of_b, n) = a.shape[-2:], b.shape[-2:]
    if k != k_of_b:
        raise ValueError(f"explain: expected inner dimensions that agree, got {k} and {k_of_b}")
    np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # raises as matmul does

    def matrix(columns: int, strides: tuple[int, ...] | None, dtype: np.dtype) -> Any:
        size = dtype.itemsize
        rs, cs = strides[-2:] if strides else (columns * size, size)
        return ffi.new("nk_matrix *", (ffi.NULL, rs // size, cs // size))

    # What NumPy casts, it casts to row-major copies.
    operands = [
        ffi.new("nk_matrix *", {"packed": 1})
        if isinstance(x, PackedMatrix)
        else matrix(x.shape[-1], x.strides if x.dtype == dtype else None, dtype)
        for x, dtype in zip((a, b), types, strict=False)
    ]
    operands += [matrix(n, None, types[2]), ffi.new("nk_steps *")]
    return from_c(lib.nk_describe(DTYPES.index(name), m, n, k, *operands))


def show_config() -> None:
    """Print what nkblas found, the CPU, the toolchain, the store, and what it lacks."""
    from . import __version__
    from .kernels import kernels
    from .toolchain import find_linker, toolchain

    linker = find_linker()
    lines = {
        "version": __version__,
        "cpu": str(runtime.cpu),
        "isa": f"{runtime.cpu.isa.name} of {', '.join(ISAS)} (NKBLAS_ISA lowers it)",
        "threads": str(get_num_threads()),
        "toolchain": toolchain() or "none",
        "linker": linker[1] if linker else "none",
        "kernels": kernels.store.folder.path,
        "jit": f"{runtime.jit} (NKBLAS_JIT)",
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
    import resource
    import tempfile

    from .compiler import CompileError, python
    from .detect import quota
    from .kernels import kernels
    from .toolchain import LINKERS, find_linker, toolchain

    found = []
    by_numpy = "what the store has no kernels for, NumPy does"
    if runtime.jit == "never":
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
    why_not = kernels.store.folder.why_not_write()
    if why_not:
        where = f"{kernels.store.folder.path}: {why_not}; NKBLAS_CACHE_DIR names another"
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
