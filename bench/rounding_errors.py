"""Rounding errors of nkblas on each instruction set, of its peers, and of plain summation."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import nkblas
from nkblas.base.families import FAMILIES
from nkblas.base.isa import ISAS
from nkblas.planning import measured_plans
from nkblas.system.cpu import cpu

from .error_tasks import Task, finfo
from .exact_sums import ExactSums, exact_sums
from .operands import Array, numpy_dtype
from .peers import AbsentError, Contender
from .peers.contender import matmul_call
from .suites import parse_dtypes

PLAIN_SUMMATION = "plain summation"
"""Recursive summation in the order of k: each product and each sum is rounded."""


class ErrorResult(NamedTuple):
    """The errors of one contender on one task.

    Attributes
    ----------
    task : Task
    contender : str
        The name of a peer, the instruction set that nkblas ran on, or `PLAIN_SUMMATION`.
    worst, rms, median : float
        Maximum, root mean square and median over the elements of |C - AB| / (eps |A||B|), with the
        eps of the accumulator.
    of_bound : float
        Maximum of |C - AB| / bound.
    how : str
        Kind, family and kc of nkblas's plan; empty for others.
    """

    task: Task
    contender: str
    worst: float
    rms: float
    median: float
    of_bound: float
    how: str


def accumulator_dtype(result: np.dtype) -> np.dtype:
    """The dtype of the sums for a dtype of the result."""
    return np.dtype(np.float32) if result.itemsize < 4 else result


def evaluate(
    task: Task, contender: str, reference: ExactSums, results: Array, how: str
) -> ErrorResult:
    """Errors of the sampled elements of a result."""
    dtype = numpy_dtype(parse_dtypes(task.dtype).c)
    accumulator = accumulator_dtype(dtype)
    eps = float(finfo(accumulator).eps)
    least = float(finfo(accumulator).smallest_subnormal)
    errors, abs_product = reference.errors(results), reference.abs_product
    # A part of a complex element is a sum of 2 k products, in two chains of k.
    bound = task.k * eps * abs_product + reference.terms * reference.scale(least)
    if dtype != accumulator:  # the sum is rounded once
        limits = finfo(dtype)
        bound += float(limits.eps) / 2 * (abs(reference.high) + bound)
        bound += reference.scale(float(limits.smallest_subnormal)) / 2
    ratios = (errors / (eps * abs_product))[abs_product > 0]
    return ErrorResult(
        task,
        contender,
        worst=float(ratios.max()),
        rms=float((ratios**2).mean() ** 0.5),
        median=float(np.median(ratios)),
        of_bound=float((errors / bound).max()),
        how=how,
    )


def isas(dtype: str) -> list[str]:
    """The instruction sets of this CPU for which a product may have different kernels."""
    own_families = {family.name for family in FAMILIES[dtype]}
    return [
        name
        for name, isa in ISAS.items()
        if nkblas.cpu.features.issuperset(isa.requires)
        and (isa.base.name == name or own_families.intersection(isa.families))
    ]


def run_nkblas(task: Task) -> tuple[Array, str]:
    """The sampled elements of nkblas's result, and its plan."""
    operands = task.operands()
    with nkblas.record() as problems, np.errstate(all="ignore"):
        matmul_call(nkblas.matmul, operands.a, operands.b, operands.out, True)()
    (problem,) = problems
    plan = measured_plans.best_known_plan(problem, cpu)
    how = f"{plan.schedule.kind}, {plan.schedule.family}, kc {plan.kc}"
    return task.sampled(operands.out), how


def run_nkblas_on(isa: str, tasks: list[Task], path: Path) -> dict[Task, tuple[Array, str]]:
    """Run `run_nkblas` for tasks in a process on an instruction set.

    `path` is a file for the results; the tasks are passed in another file beside it.

    Raises
    ------
    RuntimeError
        The process failed.
    """
    path.with_suffix(".tasks").write_bytes(pickle.dumps(tasks))
    command = [sys.executable, "-m", "bench.rounding_errors", str(path)]
    environment = {**os.environ, "NKBLAS_ISA": isa, "NKBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1])
    if done.returncode != 0:
        raise RuntimeError(f"nkblas on {isa}: the process failed")
    results: dict[Task, tuple[Array, str]] = pickle.loads(path.read_bytes())
    return results


def main() -> None:
    """The process that `run_nkblas_on` starts."""
    path = Path(sys.argv[1])
    tasks: list[Task] = pickle.loads(path.with_suffix(".tasks").read_bytes())
    path.write_bytes(pickle.dumps({task: run_nkblas(task) for task in tasks}))


def run_peer(task: Task, peer: Contender) -> Array | None:
    """The sampled elements of a peer's result, or None if it does not support the product."""
    operands = task.operands()
    try:
        (call, *_) = peer.bind(operands, True).values()
    except AbsentError:
        return None
    with np.errstate(all="ignore"):
        call()
    return task.sampled(operands.out)


def run_plain_summation(task: Task) -> Array:
    """The sampled elements by recursive summation, in the dtype of the accumulator."""
    a, b, out, _, _ = task.operands()
    rows, columns = task.sample()
    accumulator = accumulator_dtype(out.dtype)
    x = np.ascontiguousarray(np.atleast_2d(a)[rows].T.astype(accumulator))
    y = np.ascontiguousarray(b[:, columns].astype(accumulator))
    total = np.zeros(len(rows), accumulator)
    with np.errstate(all="ignore"):
        for p in range(task.k):
            total += x[p] * y[p]
        return total.astype(out.dtype)


def measure(tasks: list[Task], peers: list[Contender]) -> Iterator[ErrorResult]:
    """The errors of all contenders, task by task."""
    results: dict[str, dict[Task, tuple[Array, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="nkblas-numerics-") as folder:
        for isa in ISAS:
            own_tasks = [task for task in tasks if isa in isas(task.dtype)]
            if own_tasks:
                results[isa] = run_nkblas_on(isa, own_tasks, Path(folder, isa))
    for task in tasks:
        operands = task.operands()
        reference = exact_sums(np.atleast_2d(operands.a), operands.b, *task.sample())
        for isa, of_isa in results.items():
            if task in of_isa:
                yield evaluate(task, isa, reference, *of_isa[task])
        for peer in peers:
            result = run_peer(task, peer)
            if result is not None:
                yield evaluate(task, peer.name, reference, result, "")
        yield evaluate(task, PLAIN_SUMMATION, reference, run_plain_summation(task), "")


if __name__ == "__main__":
    main()
