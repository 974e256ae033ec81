"""Rounding errors: what is multiplied to see them, who multiplies it, and how far off each is."""

import os
import pickle
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nkblas
from nkblas.base.families import FAMILIES
from nkblas.base.isa import ISAS
from nkblas.planning import measured_plans
from nkblas.system.cpu import cpu

from . import peers
from .exact import Sums, sums
from .operands import LAYOUTS, Array, Operands, element
from .suites import Case, types

DTYPES = (
    *("float32", "float64", "complex64", "complex128"),
    *("float16_float32", "bfloat16_float32", "float16", "bfloat16"),
)
DEPTHS = (1, 7, 64, 512, 4096, 100_000)
SHAPES = {
    "matrix": (Case(32, 48, 0), DEPTHS),
    "row": (Case(1, 48, 0), (512, 4096)),
    "long row": (Case(1, 400, 0), (512, 4096)),
    "dots": (Case(1, 48, 0, b=".T"), (512, 4096)),
}
"""Two matrices; a row times short and long rows, and times columns: without k, and its values."""

PLAIN_SUMMATION = "plain summation"
"""One product after the other, each rounded, and so is each sum."""


def machine(dtype: np.dtype) -> Any:
    """The limits of a type, or of a complex one's parts."""
    if dtype.kind in "fc":
        return np.finfo(dtype)
    from ml_dtypes import finfo

    return finfo(dtype)


class Draw(NamedTuple):
    """What operands are drawn from.

    Attributes
    ----------
    generator : numpy.random.Generator
    case : Case
    of_a, of_c : dtype
    """

    generator: np.random.Generator
    case: Case
    of_a: np.dtype
    of_c: np.dtype

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.case.m, self.case.k), (self.case.k, self.case.n)

    def numbers(self, shape: tuple[int, ...], low: float = -1) -> Array:
        """From `low` to 1; both parts, of a complex number."""
        values = self.generator.uniform(low, 1, shape)
        if self.of_a.kind != "c":
            return values
        return values + 1j * self.generator.uniform(low, 1, shape)

    def both(self, low: float = -1) -> tuple[Array, Array]:
        a, b = (self.numbers(shape, low) for shape in self.shapes)
        return a, b

    def powers(self, *shape: int) -> Array:
        """Powers of 2 from 2**-20 to 2**20; for float16, from 2**-4 to 2**4."""
        most = 4 if self.of_a.name == "float16" else 20
        return np.exp2(self.generator.integers(-most, most + 1, shape))


Pair = tuple[Array, Array]


def cancelling(draw: Draw) -> Pair:
    """Each product comes again elsewhere, negative, and off by two digits of the last place."""
    a, b = draw.both()
    half = draw.case.k // 2
    a = a.astype(draw.of_a).astype(a.dtype)
    a[:, half : 2 * half] = -(1 + 2 * float(machine(draw.of_a).eps)) * a[:, :half]
    b[half : 2 * half] = b[:half]
    order = draw.generator.permutation(draw.case.k)
    return a[:, order], b[order]


def graded(draw: Draw) -> Pair:
    """Rows and columns of both operands have sizes of their own."""
    (a, b), (m, n, k) = draw.both(), draw.case[:3]
    narrow = draw.of_a.name == "float16"  # two powers would leave its range
    rows, columns = (1, 1) if narrow else (draw.powers(m, 1), draw.powers(n))
    return rows * a * draw.powers(k), draw.powers(k, 1) * b * columns


def hilbert(draw: Draw) -> Pair:
    """Two Hilbert matrices, the second one with signs in turns: a sum that converges slowly."""
    m, n, k = draw.case[:3]
    i, p, j = np.arange(m), np.arange(k), np.arange(n)
    a = 1 / (i[:, None] + p + 1)
    b = np.where(p[:, None] % 2, -1, 1) / (p[:, None] + j + 1)
    return (a * (1 + 0.5j), b * (1 - 0.25j)) if draw.of_a.kind == "c" else (a, b)


def mixed(draw: Draw) -> Pair:
    """Each element has a size of its own."""
    a, b = draw.both()
    return a * draw.powers(*a.shape), b * draw.powers(*b.shape)


def huge(draw: Draw) -> Pair:
    """|A| @ |B| is below the largest number of C's type by less than a digit of it."""
    a, b = draw.both()
    terms = draw.case.k * (2 if draw.of_a.kind == "c" else 1)
    most = min(float(machine(draw.of_a).max), (float(machine(draw.of_c).max) / terms) ** 0.5)
    return 0.99 * most * a, 0.99 * most * b


def tiny_results(draw: Draw) -> Pair:
    """Normal numbers whose products are subnormal, in C's type."""
    a, b = draw.both()
    size = float(machine(draw.of_c).tiny) ** 0.5 / 8
    return size * a, size * b


def tiny_operands(draw: Draw) -> Pair:
    """Subnormal numbers times large ones."""
    a, b = draw.both()
    tiny = float(machine(draw.of_a).tiny)
    return tiny * a, b / tiny**0.5


KINDS: dict[str, Callable[[Draw], Pair]] = {
    "uniform": Draw.both,
    "positive": lambda draw: draw.both(0),
    "cancelling": cancelling,
    "graded": graded,
    "Hilbert": hilbert,
    "mixed": mixed,
    "huge": huge,
    "tiny results": tiny_results,
    "tiny operands": tiny_operands,
}


class Task(NamedTuple):
    """One product of the report: a kind of operands, types, and a case."""

    dtype: str
    kind: str
    shape: str
    k: int

    @property
    def case(self) -> Case:
        return SHAPES[self.shape][0]._replace(k=self.k)

    def operands(self) -> Operands:
        """The same in every process."""
        of_a, _, of_c = map(element, types(self.dtype))
        generator = np.random.default_rng(zlib.crc32(repr(self).encode()))
        a, b = KINDS[self.kind](Draw(generator, self.case, of_a, of_c))
        a, b = np.ascontiguousarray(a.astype(of_a)), LAYOUTS[self.case.b](b.astype(of_a))
        out = np.full((self.case.m, self.case.n), np.nan).astype(of_c)
        if self.case.m == 1:
            a, out = a[0], out[0]
        return Operands(a, b, out, None, self.case)

    def sample(self) -> tuple[Array, Array]:
        """Rows and columns of the elements that are looked at."""
        m, n = self.case.m, self.case.n
        count = min(m * n, max(20, min(500, 500_000 // self.k)))
        places = np.random.default_rng(self.k).permutation(m * n)[:count]
        return places // n, places % n

    def taken(self, result: Array) -> Array:
        """Those of a result."""
        return np.atleast_2d(result)[self.sample()]


def tasks(dtypes: tuple[str, ...], depths: tuple[int, ...]) -> Iterator[Task]:
    for dtype, kind, (shape, (_, of_shape)) in product(dtypes, KINDS, SHAPES.items()):
        if kind == "tiny results" and dtype == "float16_float32":
            continue  # there are none: products of float16 are normal float32
        for k in of_shape:
            if k in depths:
                yield Task(dtype, kind, shape, k)


class Error(NamedTuple):
    """How far off one contender is on one task.

    Attributes
    ----------
    task : Task
    contender : str
    worst, rms, median : float
        Of |C - AB| / (eps |A||B|), over the elements. (eps is that of what sums are in.)
    of_bound : float
        The largest |C - AB| / bound.
    how : str
        nkblas' plan: kind, family, kc.
    """

    task: Task
    contender: str
    worst: float
    rms: float
    median: float
    of_bound: float
    how: str


def judge(task: Task, contender: str, found: Sums, results: Array, how: str) -> Error:
    of_c = element(types(task.dtype).c)
    of_sums = np.dtype(np.float32) if of_c.itemsize < 4 else of_c
    eps, least = (float(getattr(machine(of_sums), x)) for x in ("eps", "smallest_subnormal"))
    errors, size = found.errors(results), found.size
    # a part of a complex element is a sum of twice as many products, in two chains of k
    bound = task.k * eps * size + found.terms * found.scaled(least)
    if of_c != of_sums:  # rounded, once
        own = machine(of_c)
        bound += float(own.eps) / 2 * (abs(found.exact) + bound)
        bound += found.scaled(float(own.smallest_subnormal)) / 2
    ratios = (errors / (eps * size))[size > 0]
    return Error(
        task,
        contender,
        float(ratios.max()),
        float((ratios**2).mean() ** 0.5),
        float(np.median(ratios)),
        float((errors / bound).max()),
        how,
    )


def isas(dtype: str) -> list[str]:
    """The instruction sets of this CPU on which a product may have other kernels."""
    own = {family.name for family in FAMILIES[dtype]}
    return [
        name
        for name, isa in ISAS.items()
        if nkblas.cpu.features.issuperset(isa.requires)
        and (isa.base.name == name or own.intersection(isa.families))
    ]


def by_nkblas(task: Task) -> tuple[Array, str]:
    """The elements, and how they are made."""
    operands = task.operands()
    with nkblas.record() as shapes, np.errstate(all="ignore"):
        peers.as_numpy(nkblas.matmul, operands.a, operands.b, operands.out, True)()
    (problem,) = shapes
    plan = measured_plans.best_known_plan(problem, cpu)
    how = f"{plan.schedule.kind}, {plan.schedule.family}, kc {plan.kc}"
    return task.taken(operands.out), how


def start(isa: str, chosen: list[Task], path: Path) -> "subprocess.Popen[bytes]":
    """A process that has nkblas do tasks on an instruction set."""
    path.with_suffix(".tasks").write_bytes(pickle.dumps(chosen))
    command = [sys.executable, "-m", "bench.errors", str(path)]
    environment = {**os.environ, "NKBLAS_ISA": isa, "NKBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[1])


def main() -> None:
    """What `start` starts."""
    path = Path(sys.argv[1])
    chosen = pickle.loads(path.with_suffix(".tasks").read_bytes())
    path.write_bytes(pickle.dumps({task: by_nkblas(task) for task in chosen}))


def by_peer(task: Task, peer: peers.Contender) -> Array | None:
    """The elements, if the peer has such a product."""
    operands = task.operands()
    try:
        (call, *_) = peer.bind(operands, True).values()
    except peers.AbsentError:
        return None
    with np.errstate(all="ignore"):
        call()
    return task.taken(operands.out)


def by_plain_summation(task: Task) -> Array:
    """Multiplies and adds in the order of k, in the type that sums are in."""
    a, b, out, _, _ = task.operands()
    rows, columns = task.sample()
    of_sums = np.dtype(np.float32) if out.dtype.itemsize < 4 else out.dtype
    x = np.ascontiguousarray(np.atleast_2d(a)[rows].T.astype(of_sums))
    y = np.ascontiguousarray(b[:, columns].astype(of_sums))
    total = np.zeros(len(rows), of_sums)
    with np.errstate(all="ignore"):
        for p in range(task.k):
            total += x[p] * y[p]
        return total.astype(out.dtype)


def measure(chosen: list[Task], contenders: list[peers.Contender]) -> Iterator[Error]:
    """The errors of all contenders, task by task."""
    with tempfile.TemporaryDirectory(prefix="nkblas-numerics-") as folder:
        ours: dict[str, dict[Task, tuple[Array, str]]] = {}
        for isa in ISAS:
            own = [task for task in chosen if isa in isas(task.dtype)]
            if own:
                path = Path(folder, isa)
                if start(isa, own, path).wait() != 0:
                    raise RuntimeError(f"nkblas on {isa}: the process failed")
                ours[isa] = pickle.loads(path.read_bytes())
        for task in chosen:
            operands = task.operands()
            found = sums(np.atleast_2d(operands.a), operands.b, *task.sample())
            for isa, results in ours.items():
                if task in results:
                    yield judge(task, isa, found, *results[task])
            for peer in contenders:
                theirs = by_peer(task, peer)
                if theirs is not None:
                    yield judge(task, peer.name, found, theirs, "")
            yield judge(task, PLAIN_SUMMATION, found, by_plain_summation(task), "")


if __name__ == "__main__":
    main()
