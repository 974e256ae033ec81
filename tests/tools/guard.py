"""Products on memory that ends where they do: what touches a byte too many ends the process.

By hand: ``make guard``, or ``python tests/tools/guard.py --help``. For each instruction set, a
process runs one case after the other, and notes down which before it does: when it is ended, the
case is known, another process goes on behind it, and others find out by which of its operands it
was.

There are two kinds of cases. *Kernels*: those of some plans are compiled, and checked as all are
before they are stored (see `verify`), where memory ends. *Products* go through a
public function, with operands in such places and in any layout, by the plan that comes first, by
the best one, or by another one; they have to be right, and to leave all other bytes as they were.
"""

import argparse
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, NamedTuple

import numpy as np
from support import (
    COMPLEX,
    DTYPES,
    INTEGERS,
    PRODUCTS,
    Array,
    assert_exact,
    environment,
    expected,
    integers,
    poison,
    sample,
)

import nkblas
from nkblas import blas
from nkblas.api.epilogue_args import accumulator_dtype
from nkblas.api.packed import PackedMatrix
from nkblas.base.dtypes import PRODUCTS as ENGINE
from nkblas.base.dtypes import QUANTIZED
from nkblas.base.epilogues import Epilogue, apply
from nkblas.base.isa import ISAS
from nkblas.base.problem import Problem
from nkblas.codegen.lowering.guard_pages import Area, bounds, extent
from nkblas.planning import cost_model
from nkblas.planning.plan import Plan, base_plan, can_reduce_in_place, make_plan
from nkblas.runtime import abi, plan_table
from nkblas.runtime.kernels import kernels
from nkblas.system.lock import planning_lock

ISA_NAMES = [name for name, isa in ISAS.items() if nkblas.cpu.features.issuperset(isa.requires)]
"""What this CPU can run."""

SHORT = (1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 19, 23, 24, 25, 31, 32, 33, 37, 41)
MIDDLE = (47, 48, 49, 53, 61, 63, 64, 65, 71, 80, 95, 96, 97, 127, 128, 129, 131, 191, 193)
LONG = (255, 256, 257, 300, 383, 385, 511, 513, 700, 1030)
"""One, primes, and what tiles and blocks have as a size, one more and one less."""

WORK = 2e6
"""Multiply-adds of a product at most: NumPy takes a millisecond or two for them."""

CANARY = 0x5A


class Lay(NamedTuple):
    """How an array lies in memory.

    Attributes
    ----------
    axes : tuple of int
        From the one along which elements are furthest apart to the one where they are nearest.
    steps : tuple of int
        Distances along each axis; backwards if negative.
    gaps : tuple of int
        Elements of memory beyond each axis.
    """

    axes: tuple[int, ...]
    steps: tuple[int, ...]
    gaps: tuple[int, ...]

    def arrange(self, values: Array) -> Array:
        """A copy, with what shows in any result between its elements."""
        lengths = [
            length * abs(step) + gap
            for length, step, gap in zip(values.shape, self.steps, self.gaps, strict=True)
        ]
        whole = np.empty([lengths[axis] for axis in self.axes], values.dtype)
        whole[...] = np.array(poison(values.dtype.name), values.dtype)
        view = whole.transpose(np.argsort(self.axes))
        view = view[tuple(slice(None, None, step) for step in self.steps)]
        view = view[tuple(map(slice, values.shape))]
        view[...] = values
        return view


class Draw(random.Random):
    """The draws of one case, all of which its seed decides."""

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def sizes(self, count: int = 3, most: float = WORK) -> list[int]:
        while True:
            found = [
                self.choice(self.choices((SHORT, MIDDLE, LONG), (70, 27, 3))[0])
                for _ in range(count)
            ]
            if prod(found) <= most:
                return found

    def lay(self, ndim: int) -> Lay:
        """Dense in C's order, or in another one, or with something between elements."""
        axes, plain = list(range(ndim)), [1] * ndim
        if self.chance(0.5):
            self.shuffle(axes)
        steps = plain if self.chance(0.6) else [self.choice((1, 1, 2, 3, -1, -2)) for _ in plain]
        gaps = [0] * ndim if self.chance(0.5) else [self.choice((0, 0, 1, 3, 8)) for _ in plain]
        return Lay(tuple(axes), tuple(steps), tuple(gaps))

    def factors(self, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """alpha and beta."""
        if dtype.kind in "iub":
            return 1, self.choice((0, 1))
        numbers = (1, -1, 2, 0.5, *((1j, 1 - 2j) if dtype.kind == "c" else ()))
        return self.choice((1, *numbers)), self.choice((0, 0, *numbers))


DENSE = Lay((0, 1), (1, 1), (0, 0))
COLUMNS = DENSE._replace(axes=(1, 0))
LINE = Lay((0,), (1,), (0,))


class Place(NamedTuple):
    """Where an operand lies: all bytes of its memory, before and now; and what it held before."""

    array: Array
    values: Array
    memory: Array
    before: Array


class Task(NamedTuple):
    """A product to be done.

    Attributes
    ----------
    call : callable
    wanted : ndarray
    out : str
        The operand that it writes; empty: what it returns is all.
    tolerance : float
        Relative, of what is not exact.
    """

    call: Callable[[], Any]
    wanted: Array
    out: str = ""
    tolerance: float = 0


class Case:
    """A product and its operands.

    Parameters
    ----------
    draw : Draw
    tell : callable
        Takes what is known of the case so far, and the names of its operands.
    only : str
        The operand at whose ends memory ends; empty: all.
    """

    def __init__(self, draw: Draw, tell: Callable[[str, list[str]], None], only: str = "") -> None:
        self.draw, self._tell, self._only = draw, tell, only
        self._story: list[str] = []
        self._places: dict[str, Place] = {}

    def tell(self, *descriptor: object) -> None:
        self._story += map(str, descriptor)
        self._tell(" ".join(self._story), list(self._places))

    def place(self, name: str, values: Array, lay: Lay | None = None) -> Array:
        """A copy, where memory ends."""
        at_end = self.draw.chance(0.6)
        lay = self.draw.lay(values.ndim) if lay is None else lay
        array = lay.arrange(values)
        if self._only in ("", name):
            area = Area(bounds(array)[1])
            memory = area.memory
            memory[:] = CANARY
            array = area.hold(array, at_end)
        else:
            memory = extent(array)
        self._places[name] = Place(array, array.copy(), memory, memory.copy())
        strides = [stride // array.itemsize for stride in array.strides]
        end = "end" if at_end else "start"
        self.tell(f"{name}{list(array.shape)}:{array.dtype}:{strides}:{end}")
        return array

    def attempt(self, task: Task) -> None:
        """Do it, and see what came of it.

        Raises
        ------
        AssertionError
            It is wrong, or bytes were written that are none of its result's.
        """
        for place in self._places.values():
            place.memory[:] = place.before
        got = task.call()
        if task.out:
            got = self._places[task.out].array
        got = np.array(got)
        if task.tolerance:
            both = (x.astype(np.float64) for x in (got, task.wanted))
            near = {"rtol": task.tolerance, "atol": task.tolerance, "equal_nan": True}
            assert np.allclose(*both, **near), "wrong"
            assert got.dtype == task.wanted.dtype
        else:
            assert_exact(got, task.wanted)
        for name, place in self._places.items():
            if name == task.out:
                place.array[...] = place.values
            assert np.array_equal(place.memory, place.before), f"bytes around {name} were written"


# ---- products


def total(alpha: Any, a: Array, b: Array, beta: Any, c: Array | None, dtype: Any) -> Array:
    """``alpha * a @ b + beta * c``, exactly, but for what is not to be read."""
    wide = "u8" if dtype.kind in "iu" else "complex128" if dtype.kind == "c" else "float64"
    sums = np.array(alpha).astype(wide) * np.matmul(a.astype(wide), b.astype(wide))
    if beta and c is not None:
        sums = sums + np.array(beta).astype(wide) * c.astype(wide)
    return sums


def rounded(x: Array, dtype: Any) -> Array:
    """What is exact as an element of a result."""
    with np.errstate(all="ignore"):
        narrow = dtype.itemsize < 4 and dtype.kind not in "iub"
        return (x.astype(np.float32) if narrow else x).astype(dtype)


def matmul(case: Case) -> Task:
    """Matrices, stacks of them that are broadcast, vectors; all types."""
    draw, product = case.draw, case.draw.choice(PRODUCTS)
    m, n, k = draw.sizes()
    shapes = [(m, k), (k, n)]
    if draw.chance(0.3):
        m, n, k, i, j = draw.sizes(5, WORK / 10)
        stack = [(i, j), (1, j), (i, 1), (j,), ()]
        shapes = [(*draw.choice(stack), *shape) for shape in ((m, k), (k, n))]
    elif draw.chance(0.3):
        shapes = draw.choice(([(k,), (k, n)], [(m, k), (k,)], [(k,), (k,)], [(m, k), (k, 1)]))
    case.tell("matmul", product)
    a = case.place("a", sample(*shapes[0], dtype=product.a, seed=draw.randrange(99)))
    b = case.place("b", sample(*shapes[1], dtype=product.b, seed=draw.randrange(99)))
    wanted = expected(a, b, product.dtype)
    if wanted.ndim == 0 or draw.chance(0.1):
        return Task(lambda: product(a, b), wanted)
    values = np.full_like(wanted, poison(wanted.dtype.name))
    out = case.place("out", values)
    return Task(lambda: product(a, b, out=out), wanted, "out")


def gemm(case: Case) -> Task:
    """alpha, beta, transposes, a bias, an activation, a residual, packed operands."""
    draw = case.draw
    product = draw.choice([x for x in PRODUCTS if x.a != "bool"])
    dtype = product.result
    m, n, k = draw.sizes()
    floats, packs = dtype.kind == "f" or dtype.name == "bfloat16", draw.chance(0.3)
    trans_a, trans_b = (draw.choice((0, 0, 1, 2)) for _ in range(2))
    trans_b = 0 if packs else trans_b
    signed = dtype.name in ("int32", "int64") and "uint8" not in (product.a, product.b)
    fuses = (floats or signed) and draw.chance(0.6)
    alpha, beta = (1, 0) if fuses and draw.chance(0.7) else draw.factors(dtype)

    def values(name: str, *shape: int) -> Array:
        if fuses:  # integers wrap before an activation, or after it
            return integers(*shape, dtype=name, seed=draw.randrange(99))
        return sample(*shape, dtype=name, seed=draw.randrange(99))

    case.tell("gemm", product, f"alpha={alpha} beta={beta} trans={trans_a}{trans_b}")
    a = case.place("a", values(product.a, *((k, m) if trans_a else (m, k))))
    b = case.place("b", values(product.b, *((n, k) if trans_b else (k, n))))
    right: Any = b
    options: dict[str, Any] = {}
    if packs:
        right = b_panel_dtype(case, nkblas.pack(b, a_dtype=product.a, dtype=dtype))
    elif np.result_type(a, b) != dtype:
        options["out_dtype"] = dtype
    for name, value, usual in (
        ("trans_a", trans_a, 0),
        ("trans_b", trans_b, 0),
        ("alpha", alpha, 1),
    ):
        if value != usual:
            options[name] = value
    c = None
    if beta or draw.chance(0.2):
        fill = values(dtype.name, m, n) if beta else np.full((m, n), poison(dtype.name), dtype)
        c, options["beta"] = case.place("c", fill), beta
        options["c"] = c
    sums = total(alpha, turned(a, trans_a), turned(b, trans_b), beta, c, dtype)
    tolerance = 0.0
    if fuses:
        sums = sums.view("i8") if sums.dtype == "u8" else sums
        sums, tolerance = fuse(case, options, sums, dtype)
    out = "c" if beta and draw.chance(0.3) else "out" if draw.chance(0.8) else ""
    if out:
        empty = np.full((m, n), poison(dtype.name), dtype)
        options["out"] = c if out == "c" else case.place("out", empty)
    return Task(lambda: nkblas.gemm(a, right, **options), rounded(sums, dtype), out, tolerance)


def turned(x: Array, trans: int) -> Array:
    """``op(x)``."""
    return np.conj(x.T) if trans == 2 and x.dtype.kind == "c" else x.T if trans else x


def fuse(case: Case, options: dict[str, Any], sums: Array, dtype: Any) -> tuple[Array, float]:
    """What follows on the sums, with its operands; and how exact that is."""
    draw, (m, n), held = case.draw, sums.shape, accumulator_dtype(dtype)
    which, bias, residual, bounds = "", None, None, (-3.0, 5.0)
    if draw.chance(0.7):
        which = draw.choice(("columns", "rows"))
        values = integers(n if which == "columns" else m, dtype=held.name)
        options["bias"] = case.place("bias", values if which == "columns" else values[:, None])
        bias = values
    inexact = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh") if dtype.kind not in "iu" else ()
    activation = draw.choice(("", "", "relu", "clip", *inexact))
    if activation:
        options["activation"] = ("clip", *bounds) if activation == "clip" else activation
    if draw.chance(0.4):
        residual = options["residual"] = case.place("residual", integers(m, n, dtype=dtype.name))
        residual = residual.astype(sums.dtype)
    epilogue = Epilogue("", which, activation, residual is not None)
    exact = activation not in inexact
    return apply(epilogue, sums, bias, residual, bounds), 0.0 if exact else 2e-2


def b_panel_dtype(case: Case, matrix: PackedMatrix) -> PackedMatrix:
    """A packed matrix whose panels are where memory ends."""
    panels = case.place("panels", matrix._panels, LINE)
    dtypes = matrix.a_dtype, matrix.dtype, matrix.result_dtype
    return PackedMatrix(dtypes, matrix.layout, panels)


def packed(case: Case) -> Task:
    """A matrix, a stack or a vector times what was packed before."""
    draw, product = case.draw, case.draw.choice(PRODUCTS)
    m, n, k = draw.sizes()
    shape = draw.choice(((m, k), (m, k), (k,), (2, -(-m // 3), k)))
    case.tell("packed", product)
    b = sample(k, n, dtype=product.b, seed=draw.randrange(99))
    a = case.place("a", sample(*shape, dtype=product.a, seed=draw.randrange(99)))
    matrix = b_panel_dtype(case, nkblas.pack(b, a_dtype=product.a, dtype=product.result))
    wanted = expected(a, b, product.result)
    if draw.chance(0.2):
        return Task(lambda: a @ matrix, wanted)
    out = case.place("out", np.full_like(wanted, poison(wanted.dtype.name)))
    return Task(lambda: nkblas.matmul(a, matrix, out=out), wanted, "out")


def quantized(case: Case) -> Task:
    """Sums of bytes that are scaled, to float32 or to bytes again."""
    draw = case.draw
    of_a, of_b = (draw.choice(("int8", "uint8")) for _ in range(2))
    dtype = np.dtype(draw.choice(("float32", "int8", "uint8")))
    m, n, k = draw.sizes()
    case.tell("scaled", of_a, of_b, dtype)
    a = case.place("a", sample(m, k, dtype=of_a, seed=draw.randrange(99)))
    b = case.place("b", sample(k, n, dtype=of_b, seed=draw.randrange(99)))
    exponents = integers(n, seed=draw.randrange(99)) - 14
    options: dict[str, Any] = {"scale": case.place("scale", (2.0**exponents).astype("f4"))}
    sums = (a.astype("i8") @ b.astype("i8")).astype("f4")
    x = sums * options["scale"]
    if draw.chance(0.5):
        options["bias"] = case.place("bias", integers(n, dtype="float32") / np.float32(4))
        x = x + options["bias"]
    if draw.chance(0.5):
        options["activation"], x = "relu", np.maximum(x, 0)
    if dtype == np.float32 and draw.chance(0.5):
        options["residual"] = case.place("residual", integers(m, n, dtype="float32"))
        x = x + options["residual"]
    if dtype != np.float32:
        zero, ends = options.setdefault("zero_point", draw.choice((0, 3))), np.iinfo(dtype)
        x = np.clip(np.rint(x) + zero, ends.min, ends.max)
    out = options["out"] = case.place("out", np.full((m, n), poison(dtype.name), dtype))
    assert out is not None
    return Task(lambda: nkblas.gemm(a, b, **options), x.astype(dtype), "out")


def brgemm(case: Case) -> Task:
    """Stacks of blocks, and lists of blocks that are anywhere."""
    draw = case.draw
    dtype = np.dtype(draw.choice((*DTYPES, *DTYPES, *COMPLEX, "float16", *INTEGERS)))
    m, n, k = draw.sizes(most=WORK / 8)
    count = draw.choice((1, 2, 3, 7))
    case.tell("brgemm", dtype, f"count={count}")
    seed = draw.randrange(99)
    a = sample(count, m, k, dtype=dtype.name, seed=seed)
    b = sample(count, k, n, dtype=dtype.name, seed=seed + 1)
    if draw.chance(0.5):
        sides: list[Any] = [case.place(name, x) for name, x in (("a", a), ("b", b))]
    else:
        lays = draw.lay(2), draw.choice((DENSE, DENSE._replace(gaps=(0, 3))))
        sides = [
            [case.place(f"{name}{i}", block, lay) for i, block in enumerate(x)]
            for name, x, lay in (("a", a, lays[0]), ("b", b, lays[1]))
        ]
    options: dict[str, Any] = {}
    c = None
    if draw.chance(0.3):
        c = options["c"] = case.place("c", sample(m, n, dtype=dtype.name, seed=seed + 2))
        options["beta"] = draw.choice((0, 1))
    wide = np.concatenate(list(a), 1), np.concatenate(list(b), 0)
    wanted = rounded(total(1, *wide, options.get("beta", 0), c, dtype), dtype)
    if draw.chance(0.2):
        return Task(lambda: nkblas.brgemm(*sides, **options), wanted)
    lay = draw.choice((DENSE, draw.lay(2)))
    out = case.place("out", np.full((m, n), poison(dtype.name), dtype), lay)
    return Task(lambda: nkblas.brgemm(*sides, out=out, **options), wanted, "out")


NAMES = [x for x in ("dot", "inner", "vdot", "vecdot", "matvec", "vecmat") if hasattr(np, x)]


def vectors(case: Case) -> Task:
    """Vectors, and stacks of them."""
    draw, name = case.draw, case.draw.choice(NAMES)
    dtype = draw.choice((*DTYPES, *DTYPES, *COMPLEX, *COMPLEX, "float16", *INTEGERS))
    k, count = draw.sizes(1)[0], draw.choice((1, 2, 5, 40))
    m = draw.sizes(2, WORK / k / count)[0] if name in ("matvec", "vecmat") else 1
    shapes = {"matvec": [(count, m, k), (k,)], "vecmat": [(k,), (count, k, m)]}.get(
        name, [(k,), (k,)] if name != "vecdot" else [(count, k), (k,)]
    )
    if name in ("dot", "inner") and draw.chance(0.5):
        shapes = [(count, k), (k,)]
    case.tell(name, dtype)
    x, y = (
        case.place(which, sample(*shape, dtype=dtype, seed=draw.randrange(99)))
        for which, shape in zip("ab", shapes, strict=True)
    )
    with np.errstate(all="ignore"):
        wanted = np.asarray(getattr(np, name)(x.copy(), y.copy()))
    function = getattr(nkblas, name)
    if name in ("inner", "vdot") or wanted.ndim == 0 or draw.chance(0.2):
        return Task(lambda: function(x, y), wanted)
    lay = LINE if name == "dot" else None
    out = case.place("out", np.full_like(wanted, poison(dtype)), lay)
    return Task(lambda: function(x, y, out=out), wanted, "out")


def of_blas(case: Case) -> Task:
    """SciPy's functions: into C and y, and into new arrays."""
    draw = case.draw
    letter, dtype = draw.choice(list(blas.DTYPES.items()))
    m, n, k = draw.sizes()
    alpha, beta = draw.factors(dtype)
    trans = draw.choice((0, 1, 2)), draw.choice((0, 1, 2))
    vector, overwrite = draw.chance(0.4), draw.chance(0.7)
    case.tell(f"{letter}ge{'mv' if vector else 'mm'}", f"{alpha=} {beta=} {trans=} {overwrite=}")
    seed = draw.randrange(99)

    a = case.place("a", sample(*((k, m) if trans[0] else (m, k)), dtype=dtype.name, seed=seed))
    if not vector:
        b = case.place("b", sample(*((n, k) if trans[1] else (k, n)), dtype=dtype.name, seed=1))
        c = case.place("c", sample(m, n, dtype=dtype.name, seed=2), draw.choice((COLUMNS, None)))
        wanted = total(alpha, turned(a, trans[0]), turned(b, trans[1]), beta, c, dtype).astype(
            dtype
        )
        inside = overwrite and c.flags.f_contiguous
        function = getattr(blas, f"{letter}gemm")
        arguments = alpha, a, b, beta, c, *trans, overwrite
        return Task(lambda: function(*arguments), wanted, "c" if inside else "")
    incx, incy = (draw.choice((1, 1, 2, -1, -3)) for _ in range(2))
    offx, offy = (draw.choice((0, 0, 3)) for _ in range(2))
    x = case.place("x", sample(offx + 1 + (k - 1) * abs(incx), dtype=dtype.name, seed=3))
    y = case.place("y", sample(offy + 1 + (m - 1) * abs(incy), dtype=dtype.name, seed=4), LINE)
    wanted = y.copy()
    of_x, of_y = (
        v[off :: abs(inc)][:: 1 if inc > 0 else -1]
        for v, off, inc in ((x, offx, incx), (wanted, offy, incy))
    )
    of_y[...] = total(alpha, turned(a, trans[0]), of_x, beta, of_y, dtype).astype(dtype)
    function = getattr(blas, f"{letter}gemv")
    values = alpha, a, x, beta, y, offx, incx, offy, incy, trans[0], overwrite
    return Task(lambda: function(*values), wanted, "y" if overwrite else "")


CALLS = (matmul, matmul, matmul, gemm, gemm, packed, quantized, brgemm, vectors, of_blas)


def run_product(draw: Draw, tell: Callable[[str, list[str]], None], only: str) -> None:
    """Do one product by some plans."""
    case = Case(draw, tell, only)
    threads = draw.choice((1, 2))
    nkblas.set_num_threads(threads)
    case.tell(f"threads={threads}")
    task = draw.choice(CALLS)(case)
    with nkblas.record() as shapes:
        case.attempt(task)
    way = draw.choice(("as it comes", "best", "other", "other"))
    if way == "as it comes":
        return
    for problem in shapes:
        plans = list(cost_model.ranked_plans(problem, nkblas.cpu, 16))
        plans += filter(None, [base_plan(plans[0], nkblas.cpu)])
        plan = plans[0] if way == "best" else draw.choice(plans)
        if draw.chance(0.5):
            plan = plan._replace(nanoseconds=1e7)  # so that threads share it
        case.tell(f"{problem} by {plan.schedule}")
        kernels.load_unlocked(plan.kernels)
        with planning_lock():
            plan_table.insert(plan)
    case.attempt(task)


# ---- kernels


def some_problem(draw: Draw) -> Problem:
    """One that there are kernels for."""
    dtype = draw.choice(list(ENGINE))
    m, n, k = draw.sizes(most=1e12)
    layouts = [draw.choice(("row", "col", "strided")) for _ in range(2)]
    if draw.chance(0.15):
        layouts[1] = "packed"
    c = draw.choice(("row", "row", "row", "strided"))
    types = ENGINE[dtype]
    floats = types.c in ("float16", "bfloat16", "float32", "float64")
    kinds = ("", "", "add", *(("scale",) if floats or types.c in COMPLEX else ()))
    kind = draw.choice(kinds) if dtype not in QUANTIZED else ""
    epilogue = Epilogue(kind, scales=dtype in QUANTIZED)
    if (floats or types.c in ("int32", "int64", "qint8", "quint8")) and draw.chance(0.6):
        exact = ("", "relu", *(("clip",) if dtype in QUANTIZED else ()))
        every = (*exact, "clip", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh")
        epilogue = epilogue._replace(
            bias=draw.choice(("", "columns", "rows")),
            activation=draw.choice(every if floats else exact),
            residual=draw.chance(0.3) and not types.c.startswith("q"),
        )
    problem = Problem(dtype, m, n, k, *layouts, c, str(epilogue))
    if draw.chance(0.1):
        reduces = problem._replace(epilogue="", k=min(k, 700), batch_reduce=True)
        if can_reduce_in_place(reduces, nkblas.cpu.isa):
            return reduces
    return problem


seen: set[Any] = set()


def run_kernels(draw: Draw, tell: Callable[[str, list[str]], None], only: str) -> None:
    """Compile and check the kernels of some plans of a problem that this process has not seen."""
    from nkblas.codegen.loader import open_library
    from nkblas.codegen.lowering import pipeline, verify

    problem = some_problem(draw)
    plans = list(cost_model.ranked_plans(problem, nkblas.cpu, 12))
    chosen = [plans[0], draw.choice(plans), *filter(None, [base_plan(plans[0], nkblas.cpu)])]
    for plan in chosen:
        for spec in plan.kernels:
            if (type(spec), spec) not in seen:
                seen.add((type(spec), spec))
                tell(f"{spec.symbol} of {problem}", [])
                verify.check(spec, open_library(spec, pipeline.shared_library(spec)))


# ---- processes


def spoil(dimension: str) -> None:
    """Have every plan be one for a problem with a row or a column more: is it noticed?"""

    def insert(plan: Plan, *, tier_up_after: int = 0, jit: bool = True) -> None:
        problem = plan.problem
        larger = problem._replace(**{dimension: getattr(problem, dimension) + 1})
        if plan.schedule.kind == "base" or not plan.schedule.infeasible_reason(larger, nkblas.cpu):
            plan = make_plan(larger, nkblas.cpu, plan.schedule)._replace(
                nanoseconds=plan.nanoseconds
            )
        c_plan = abi.plan_to_c(plan, kernels.load(plan.kernels))
        c_plan.problem = abi.problem_to_c(problem)[0]
        plan_table._insert(c_plan)
        plan_table.plans_in_table[problem] = plan

    plan_table.insert = insert


SLOT = 1 << 16
"""Bytes for what a process does just now."""

KINDS = {"kernels": run_kernels, "products": run_product}


def work(options: argparse.Namespace) -> None:
    """Run cases, and write what is found, a line for each, and then what was done."""
    if options.spoil:
        spoil(options.spoil)
    with open(options.note, "r+b") as file:
        note = mmap.mmap(file.fileno(), SLOT)
    found = 0
    for index in range(options.first, options.last):

        def tell(story: str, operands: list[str], index: int = index) -> None:
            text = json.dumps([index, story, operands]).encode()[: SLOT - 1]
            note[: len(text) + 1] = text + b"\0"

        tell("", [])
        draw = Draw(f"{options.seed} {nkblas.cpu.isa.name} {options.kind} {index}")
        try:
            KINDS[options.kind](draw, tell, options.only)
        except Exception as error:
            story = read_note(note)[1]
            print(json.dumps(f"case {index}: {type(error).__name__}: {error}: {story}"), flush=True)
            found += 1
            if found == 20:
                break
    print(json.dumps({**nkblas.stats(), "checked": len(seen)}))


def read_note(note: Any) -> tuple[int, str, list[str]]:
    index, story, operands = json.loads(note[:].partition(b"\0")[0])
    return index, story, operands


class Found(NamedTuple):
    """What came of the cases of a kind, on an instruction set."""

    cases: int
    products: int
    fallbacks: int
    checked: int
    faults: list[str]


def run(isa: str, kind: str, options: argparse.Namespace) -> Found:
    """All cases of a kind on one instruction set."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(SLOT)
        note = mmap.mmap(file.fileno(), SLOT)

        def process(first: int, last: int, only: str = "") -> "subprocess.CompletedProcess[str]":
            command = [sys.executable, __file__, "--note", file.name, "--kind", kind]
            command += ["--first", str(first), "--last", str(last), "--seed", str(options.seed)]
            command += ["--only", only, "--spoil", options.spoil]
            changes = {"NKBLAS_ISA": isa, "OPENBLAS_NUM_THREADS": 1}
            return subprocess.run(
                command, env=environment(**changes), capture_output=True, text=True
            )

        first, last = options.first, getattr(options, kind) + options.first
        faults: list[str] = []
        done = dict.fromkeys(("calls", "fallbacks", "checked"), 0)
        while first < last and len(faults) < 20:
            ran = process(first, last)
            for line in map(json.loads, ran.stdout.splitlines()):
                if isinstance(line, dict):
                    done = {name: done[name] + line[name] for name in done}
                else:
                    faults.append(line)
            if ran.returncode == 0:
                break
            index, story, operands = read_note(note)
            how = f"status {ran.returncode}"
            if ran.returncode < 0:
                how = signal.Signals(-ran.returncode).name
            text = f"case {index}: {how}: {story}"
            if ran.returncode > 0:
                text += f": {ran.stderr[-2000:]}"
            elif operands:
                alone = [x for x in operands if process(index, index + 1, x).returncode]
                text += f"; because of {' '.join(alone) or 'what came before'}"
            faults.append(text)
            first = index + 1
        return Found(last - options.first, *done.values(), faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--isa", nargs="*", default=ISA_NAMES, help="instruction sets (all)")
    parser.add_argument("--kernels", type=int, default=60, help="problems whose kernels are run")
    parser.add_argument("--products", type=int, default=1000, help="products that are done")
    parser.add_argument("--first", type=int, default=0, help="the first case (0)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--spoil", choices=["", "m", "n"], default="", help=spoil.__doc__)
    for name in ("note", "kind", "only"):  # for processes of its own
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.note:
        work(options)
        return 0
    todo = [(isa, kind) for kind in KINDS for isa in options.isa if getattr(options, kind)]
    with ThreadPoolExecutor(options.jobs) as pool:
        found: Iterator[Found] = pool.map(lambda x: run(*x, options), todo)
        faults = 0
        for (isa, kind), each in zip(todo, found, strict=True):
            what = f"{each.checked} kernels" if kind == "kernels" else f"{each.products} products"
            more = f", {each.fallbacks} by NumPy" if each.fallbacks else ""
            print(
                f"{isa}, {kind}: {each.cases} cases, seed {options.seed}: {what}{more}: "
                f"{len(each.faults)} faults",
                flush=True,
            )
            for fault in each.faults:
                print(f"  {fault}", flush=True)
            faults += len(each.faults)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
