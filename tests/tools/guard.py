"""Check products on fenced memory: an access beyond an operand ends the process.

Run ``make guard``, or ``python tests/tools/guard.py --help``. For each instruction set a process
runs the cases in turn, and writes each into a shared note before it starts. When the process is
ended, the note names the case; a new process continues behind it, and further processes find the
operand by fencing one at a time.

There are two kinds of cases. *Kernels*: the kernels of some plans are compiled, and verified on
fenced memory as every kernel is before it is stored (see `verify`). *Products*: a public function
is called with fenced operands in any layout, by the plan that comes first, the best one, or another
one. The result must be right, and all other bytes must be unchanged.
"""

import argparse
import inspect
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
from nkblas.base.dtypes import PRODUCTS as ENGINE_PRODUCTS
from nkblas.base.dtypes import QUANTIZED
from nkblas.base.epilogues import Epilogue, apply
from nkblas.base.isa import ISAS
from nkblas.base.problem import Layout, Problem
from nkblas.codegen.lowering.guard_pages import Area, bounds, extent
from nkblas.planning import cost_model
from nkblas.planning.plan import Plan, base_plan, make_plan
from nkblas.planning.schedule import can_reduce_in_place
from nkblas.runtime import abi, plan_table
from nkblas.runtime.kernels import kernels
from nkblas.system.lock import planning_lock

ISA_NAMES = [name for name, isa in ISAS.items() if nkblas.cpu.features.issuperset(isa.requires)]
"""The instruction sets that this CPU can run."""

SHORT_LENGTHS = (
    1,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    11,
    13,
    15,
    16,
    17,
    19,
    23,
    24,
    25,
    31,
    32,
    33,
    37,
    41,
)
MIDDLE_LENGTHS = (47, 48, 49, 53, 61, 63, 64, 65, 71, 80, 95, 96, 97, 127, 128, 129, 131, 191, 193)
LONG_LENGTHS = (255, 256, 257, 300, 383, 385, 511, 513, 700, 1030)
"""Lengths of m, n and k: 1, primes, and sizes of tiles and blocks, plus and minus 1."""

MAX_MULTIPLY_ADDS = 2e6
"""Largest product: NumPy takes a millisecond or two for it."""

CANARY = 0x5A
"""Fills the memory around an operand."""


class MemoryLayout(NamedTuple):
    """The layout of an array in memory.

    Attributes
    ----------
    axes : tuple of int
        The axes in order of decreasing stride.
    steps : tuple of int
        Distance of successive elements along each axis; negative: in reverse order.
    gaps : tuple of int
        Unused elements behind each axis.
    """

    axes: tuple[int, ...]
    steps: tuple[int, ...]
    gaps: tuple[int, ...]

    def arrange(self, values: Array) -> Array:
        """A copy in this layout, with `poison` between its elements."""
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


Note = Callable[[str, list[str]], None]
"""Records the description of a case so far, and the names of its operands."""


class Draw(random.Random):
    """The random choices of one case, reproducible by its seed."""

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def sizes(self, count: int = 3, limit: float = MAX_MULTIPLY_ADDS) -> list[int]:
        """Lengths whose product is at most `limit`."""
        while True:
            found = [
                self.choice(
                    self.choices((SHORT_LENGTHS, MIDDLE_LENGTHS, LONG_LENGTHS), (70, 27, 3))[0]
                )
                for _ in range(count)
            ]
            if prod(found) <= limit:
                return found

    def layout(self, ndim: int) -> MemoryLayout:
        """A layout: dense or with gaps, in C order or another one."""
        axes, ones = list(range(ndim)), [1] * ndim
        if self.chance(0.5):
            self.shuffle(axes)
        steps = ones if self.chance(0.6) else [self.choice((1, 1, 2, 3, -1, -2)) for _ in ones]
        gaps = [0] * ndim if self.chance(0.5) else [self.choice((0, 0, 1, 3, 8)) for _ in ones]
        return MemoryLayout(tuple(axes), tuple(steps), tuple(gaps))

    def factors(self, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """Values of alpha and beta."""
        if dtype.kind in "iub":
            return 1, self.choice((0, 1))
        numbers = (1, -1, 2, 0.5, *((1j, 1 - 2j) if dtype.kind == "c" else ()))
        return self.choice((1, *numbers)), self.choice((0, 0, *numbers))


DENSE = MemoryLayout((0, 1), (1, 1), (0, 0))
COLUMNS = DENSE._replace(axes=(1, 0))
DENSE_VECTOR = MemoryLayout((0,), (1,), (0,))


class Operand(NamedTuple):
    """An operand in fenced memory.

    Attributes
    ----------
    array, values : ndarray
        The operand, and a copy of its values.
    memory, memory_before : ndarray
        All bytes of its memory, and a copy of them.
    """

    array: Array
    values: Array
    memory: Array
    memory_before: Array


class Task(NamedTuple):
    """A call and its result.

    Attributes
    ----------
    call : callable
    wanted : ndarray
        The right result.
    out : str
        The operand that the call writes to; empty: it returns a new array.
    tolerance : float
        Relative error that is allowed; 0: the result is exact.
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
    note : callable
        Takes the description of the case so far, and the names of its operands.
    only : str
        The only operand that is fenced; empty: all.
    """

    def __init__(self, draw: Draw, note: Note, only: str = "") -> None:
        self.draw, self._note, self._only = draw, note, only
        self._description: list[str] = []
        self._operands: dict[str, Operand] = {}

    def describe(self, *words: object) -> None:
        """Append to the description of the case."""
        self._description += map(str, words)
        self._note(" ".join(self._description), list(self._operands))

    def place(self, name: str, values: Array, layout: MemoryLayout | None = None) -> Array:
        """A copy in fenced memory, in a random layout if none is given."""
        at_end = self.draw.chance(0.6)
        layout = self.draw.layout(values.ndim) if layout is None else layout
        array = layout.arrange(values)
        if self._only in ("", name):
            area = Area(bounds(array)[1])
            memory = area.memory
            memory[:] = CANARY
            array = area.copy_in(array, at_end)
        else:
            memory = extent(array)
        self._operands[name] = Operand(array, array.copy(), memory, memory.copy())
        strides = [stride // array.itemsize for stride in array.strides]
        end = "end" if at_end else "start"
        self.describe(f"{name}{list(array.shape)}:{array.dtype}:{strides}:{end}")
        return array

    def attempt(self, task: Task) -> None:
        """Make the call, and check the result and the memory.

        Raises
        ------
        AssertionError
            The result is wrong, or bytes outside the result were written.
        """
        for operand in self._operands.values():
            operand.memory[:] = operand.memory_before
        got = task.call()
        if task.out:
            got = self._operands[task.out].array
        got = np.array(got)
        if task.tolerance:
            wide, wanted = got.astype(np.float64), task.wanted.astype(np.float64)
            tolerance = task.tolerance
            assert np.allclose(wide, wanted, tolerance, tolerance, equal_nan=True), "wrong"
            assert got.dtype == task.wanted.dtype
        else:
            assert_exact(got, task.wanted)
        for name, operand in self._operands.items():
            if name == task.out:
                operand.array[...] = operand.values
            is_unchanged = np.array_equal(operand.memory, operand.memory_before)
            assert is_unchanged, f"bytes around {name} were written"


# ---- products


def total(alpha: Any, a: Array, b: Array, beta: Any, c: Array | None, dtype: Any) -> Array:
    """``alpha * a @ b + beta * c``, exactly; C is not read if beta is 0."""
    wide = "u8" if dtype.kind in "iu" else "complex128" if dtype.kind == "c" else "float64"
    sums: Array = np.array(alpha).astype(wide) * np.matmul(a.astype(wide), b.astype(wide))
    if beta and c is not None:
        sums = sums + np.array(beta).astype(wide) * c.astype(wide)
    return sums


def rounded(x: Array, dtype: Any) -> Array:
    """Exact values, rounded to the dtype of a result."""
    with np.errstate(all="ignore"):
        narrow = dtype.itemsize < 4 and dtype.kind not in "iub"
        return (x.astype(np.float32) if narrow else x).astype(dtype)


def matmul(case: Case) -> Task:
    """`nkblas.matmul`: matrices, stacks with broadcasting, vectors; all dtypes."""
    draw, product = case.draw, case.draw.choice(PRODUCTS)
    m, n, k = draw.sizes()
    shapes: list[tuple[int, ...]] = [(m, k), (k, n)]
    if draw.chance(0.3):
        m, n, k, i, j = draw.sizes(5, MAX_MULTIPLY_ADDS / 10)
        stack = [(i, j), (1, j), (i, 1), (j,), ()]
        shapes = [(*draw.choice(stack), *shape) for shape in ((m, k), (k, n))]
    elif draw.chance(0.3):
        choices: tuple[list[tuple[int, ...]], ...] = (
            [(k,), (k, n)],
            [(m, k), (k,)],
            [(k,), (k,)],
            [(m, k), (k, 1)],
        )
        shapes = draw.choice(choices)
    case.describe("matmul", product)
    a = case.place("a", sample(*shapes[0], dtype=product.a, seed=draw.randrange(99)))
    b = case.place("b", sample(*shapes[1], dtype=product.b, seed=draw.randrange(99)))
    wanted = expected(a, b, product.dtype)
    if wanted.ndim == 0 or draw.chance(0.1):
        return Task(lambda: product(a, b), wanted)
    values = np.full_like(wanted, poison(wanted.dtype.name))
    out = case.place("out", values)
    return Task(lambda: product(a, b, out=out), wanted, "out")


def gemm(case: Case) -> Task:
    """`nkblas.gemm`: alpha, beta, transposes, a fused layer, packed operands."""
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
        if fuses:  # small: integers may wrap before an activation or after it
            return integers(*shape, dtype=name, seed=draw.randrange(99))
        return sample(*shape, dtype=name, seed=draw.randrange(99))

    case.describe("gemm", product, f"alpha={alpha} beta={beta} trans={trans_a}{trans_b}")
    a = case.place("a", values(product.a, *((k, m) if trans_a else (m, k))))
    b = case.place("b", values(product.b, *((n, k) if trans_b else (k, n))))
    right: Any = b
    options: dict[str, Any] = {}
    if packs:
        right = with_fenced_panels(case, nkblas.pack(b, a_dtype=product.a, dtype=dtype))
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
    sums = total(alpha, transposed(a, trans_a), transposed(b, trans_b), beta, c, dtype)
    tolerance = 0.0
    if fuses:
        sums = sums.view("i8") if sums.dtype == "u8" else sums
        sums, tolerance = fuse(case, options, sums, dtype)
    out = "c" if beta and draw.chance(0.3) else "out" if draw.chance(0.8) else ""
    if out:
        empty = np.full((m, n), poison(dtype.name), dtype)
        options["out"] = c if out == "c" else case.place("out", empty)
    return Task(lambda: nkblas.gemm(a, right, **options), rounded(sums, dtype), out, tolerance)


def transposed(x: Array, trans: int) -> Array:
    """``op(x)``."""
    return np.conj(x.T) if trans == 2 and x.dtype.kind == "c" else x.T if trans else x


def fuse(case: Case, options: dict[str, Any], sums: Array, dtype: Any) -> tuple[Array, float]:
    """Add a bias, an activation and a residual; the result, and its tolerance."""
    draw, (m, n), accumulator = case.draw, sums.shape, accumulator_dtype(dtype)
    bias_kind, bias, residual, clip_bounds = "", None, None, (-3.0, 5.0)
    if draw.chance(0.7):
        bias_kind = draw.choice(("columns", "rows"))
        values = integers(n if bias_kind == "columns" else m, dtype=accumulator.name)
        options["bias"] = case.place("bias", values if bias_kind == "columns" else values[:, None])
        bias = values
    inexact = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh") if dtype.kind not in "iu" else ()
    activation = draw.choice(("", "", "relu", "clip", *inexact))
    if activation:
        options["activation"] = ("clip", *clip_bounds) if activation == "clip" else activation
    if draw.chance(0.4):
        residual = options["residual"] = case.place("residual", integers(m, n, dtype=dtype.name))
        residual = residual.astype(sums.dtype)
    epilogue = Epilogue("", bias_kind, activation, residual is not None)
    tolerance = 2e-2 if activation in inexact else 0.0
    return apply(epilogue, sums, bias, residual, clip_bounds), tolerance


def with_fenced_panels(case: Case, matrix: PackedMatrix) -> PackedMatrix:
    """A packed matrix with its panels in fenced memory."""
    panels = case.place("panels", matrix._panels, DENSE_VECTOR)
    dtypes = matrix.a_dtype, matrix.dtype, matrix.result_dtype
    return PackedMatrix(dtypes, matrix.layout, panels)


def packed(case: Case) -> Task:
    """`nkblas.pack`: a matrix, a stack or a vector times a packed matrix."""
    draw, product = case.draw, case.draw.choice(PRODUCTS)
    m, n, k = draw.sizes()
    shape = draw.choice(((m, k), (m, k), (k,), (2, -(-m // 3), k)))
    case.describe("packed", product)
    b = sample(k, n, dtype=product.b, seed=draw.randrange(99))
    a = case.place("a", sample(*shape, dtype=product.a, seed=draw.randrange(99)))
    matrix = with_fenced_panels(case, nkblas.pack(b, a_dtype=product.a, dtype=product.result))
    wanted = expected(a, b, product.result)
    if draw.chance(0.2):
        return Task(lambda: a @ matrix, wanted)
    out = case.place("out", np.full_like(wanted, poison(wanted.dtype.name)))
    return Task(lambda: nkblas.matmul(a, matrix, out=out), wanted, "out")


def quantized(case: Case) -> Task:
    """`nkblas.gemm` of bytes with scales, to float32 or to bytes."""
    draw = case.draw
    a_dtype, b_dtype = (draw.choice(("int8", "uint8")) for _ in range(2))
    dtype = np.dtype(draw.choice(("float32", "int8", "uint8")))
    m, n, k = draw.sizes()
    case.describe("scaled", a_dtype, b_dtype, dtype)
    a = case.place("a", sample(m, k, dtype=a_dtype, seed=draw.randrange(99)))
    b = case.place("b", sample(k, n, dtype=b_dtype, seed=draw.randrange(99)))
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
    """`nkblas.brgemm`: stacks of blocks, and lists of blocks in any memory."""
    draw = case.draw
    dtype = np.dtype(draw.choice((*DTYPES, *DTYPES, *COMPLEX, "float16", *INTEGERS)))
    m, n, k = draw.sizes(limit=MAX_MULTIPLY_ADDS / 8)
    count = draw.choice((1, 2, 3, 7))
    case.describe("brgemm", dtype, f"count={count}")
    seed = draw.randrange(99)
    a = sample(count, m, k, dtype=dtype.name, seed=seed)
    b = sample(count, k, n, dtype=dtype.name, seed=seed + 1)
    if draw.chance(0.5):
        sides: list[Any] = [case.place(name, x) for name, x in (("a", a), ("b", b))]
    else:
        layouts = draw.layout(2), draw.choice((DENSE, DENSE._replace(gaps=(0, 3))))
        sides = [
            [case.place(f"{name}{i}", block, layout) for i, block in enumerate(x)]
            for name, x, layout in (("a", a, layouts[0]), ("b", b, layouts[1]))
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
    layout = draw.choice((DENSE, draw.layout(2)))
    out = case.place("out", np.full((m, n), poison(dtype.name), dtype), layout)
    return Task(lambda: nkblas.brgemm(*sides, out=out, **options), wanted, "out")


VECTOR_FUNCTIONS = [
    x for x in ("dot", "inner", "vdot", "vecdot", "matvec", "vecmat") if hasattr(np, x)
]


def vectors(case: Case) -> Task:
    """Functions of vectors, and of stacks of vectors."""
    draw, name = case.draw, case.draw.choice(VECTOR_FUNCTIONS)
    dtype = draw.choice((*DTYPES, *DTYPES, *COMPLEX, *COMPLEX, "float16", *INTEGERS))
    k, count = draw.sizes(1)[0], draw.choice((1, 2, 5, 40))
    m = draw.sizes(2, MAX_MULTIPLY_ADDS / k / count)[0] if name in ("matvec", "vecmat") else 1
    shapes = {"matvec": [(count, m, k), (k,)], "vecmat": [(k,), (count, k, m)]}.get(
        name, [(k,), (k,)] if name != "vecdot" else [(count, k), (k,)]
    )
    if name in ("dot", "inner") and draw.chance(0.5):
        shapes = [(count, k), (k,)]
    case.describe(name, dtype)
    x, y = (
        case.place(letter, sample(*shape, dtype=dtype, seed=draw.randrange(99)))
        for letter, shape in zip("ab", shapes, strict=True)
    )
    with np.errstate(all="ignore"):
        wanted = np.asarray(getattr(np, name)(x.copy(), y.copy()))
    function = getattr(nkblas, name)
    if name in ("inner", "vdot") or wanted.ndim == 0 or draw.chance(0.2):
        return Task(lambda: function(x, y), wanted)
    layout = DENSE_VECTOR if name == "dot" else None
    out = case.place("out", np.full_like(wanted, poison(dtype)), layout)
    return Task(lambda: function(x, y, out=out), wanted, "out")


def blas_product(case: Case) -> Task:
    """`nkblas.blas`: gemm and gemv, into C and y, and into new arrays."""
    draw = case.draw
    letter, dtype = draw.choice(list(blas.DTYPES.items()))
    m, n, k = draw.sizes()
    alpha, beta = draw.factors(dtype)
    trans = draw.choice((0, 1, 2)), draw.choice((0, 1, 2))
    vector, overwrite = draw.chance(0.4), draw.chance(0.7)
    case.describe(
        f"{letter}ge{'mv' if vector else 'mm'}", f"{alpha=} {beta=} {trans=} {overwrite=}"
    )
    seed = draw.randrange(99)

    a = case.place("a", sample(*((k, m) if trans[0] else (m, k)), dtype=dtype.name, seed=seed))
    if not vector:
        b = case.place("b", sample(*((n, k) if trans[1] else (k, n)), dtype=dtype.name, seed=1))
        c = case.place("c", sample(m, n, dtype=dtype.name, seed=2), draw.choice((COLUMNS, None)))
        wanted = total(
            alpha, transposed(a, trans[0]), transposed(b, trans[1]), beta, c, dtype
        ).astype(dtype)
        in_place = overwrite and c.flags.f_contiguous
        function = getattr(blas, f"{letter}gemm")
        arguments = alpha, a, b, beta, c, *trans, overwrite
        return Task(lambda: function(*arguments), wanted, "c" if in_place else "")
    incx, incy = (draw.choice((1, 1, 2, -1, -3)) for _ in range(2))
    offx, offy = (draw.choice((0, 0, 3)) for _ in range(2))
    x = case.place("x", sample(offx + 1 + (k - 1) * abs(incx), dtype=dtype.name, seed=3))
    y = case.place(
        "y", sample(offy + 1 + (m - 1) * abs(incy), dtype=dtype.name, seed=4), DENSE_VECTOR
    )
    wanted = y.copy()
    of_x, of_y = (
        v[off :: abs(inc)][:: 1 if inc > 0 else -1]
        for v, off, inc in ((x, offx, incx), (wanted, offy, incy))
    )
    of_y[...] = total(alpha, transposed(a, trans[0]), of_x, beta, of_y, dtype).astype(dtype)
    function = getattr(blas, f"{letter}gemv")
    values = alpha, a, x, beta, y, offx, incx, offy, incy, trans[0], overwrite
    return Task(lambda: function(*values), wanted, "y" if overwrite else "")


def blas_triangle(case: Case) -> Task:
    """`nkblas.blas`: the functions with a triangle, with NaN in the other one."""
    draw = case.draw
    letter, dtype = draw.choice(list(blas.DTYPES.items()))
    kinds = ["gemmt", "syrk", "syr2k", "symm", "trmm", "trsm"]
    kind = draw.choice(kinds + (["herk", "her2k", "hemm"] if letter in "cz" else []))
    function = getattr(blas, letter + kind)
    alpha, beta = draw.factors(dtype)
    names = inspect.signature(function).parameters.keys() & {"side", "lower", "trans", "diag"}
    options = {name: draw.choice((0, 1)) for name in sorted(names)}
    overwrite = draw.chance(0.7)
    case.describe(letter + kind, f"{alpha=} {beta=} {options} {overwrite=}")
    make = triangle_of_product if kind in kinds[:3] or kind[:3] == "her" else product_with_square
    values, wanted = make(draw, kind, dtype, alpha, beta, options)
    target = "b" if kind in ("trmm", "trsm") else "c"
    arrays = {
        name: case.place(name, array, draw.choice((COLUMNS, None)) if name == target else None)
        for name, array in values.items()
    }
    given = {**options, **arrays, f"overwrite_{target}": overwrite}
    given |= {"beta": beta} if target == "c" else {}
    in_place = overwrite and arrays[target].flags.f_contiguous
    return Task(lambda: function(alpha, **given), wanted, target if in_place else "")


def other_triangle(n: int, options: dict[str, int]) -> Array:
    """Which elements of an n x n matrix are not in the triangle."""
    stored: Array = np.tri(n, dtype=bool)
    return ~stored if options["lower"] else ~stored.T


def triangle_of_product(
    draw: Draw, kind: str, dtype: Any, alpha: Any, beta: Any, options: dict[str, int]
) -> tuple[dict[str, Array], Array]:
    """Operands, and the exact result."""
    n, k = draw.sizes(2)
    trans, seed = options.get("trans", 0), draw.randrange(99)
    transpose = 1
    if kind.startswith("he"):
        transpose, beta = 2, np.real(beta)
        options["trans"] = 2 * trans
    shape = (k, n) if trans else (n, k)
    a, b, c = (
        sample(*x, dtype=dtype.name, seed=seed + i) for i, x in enumerate((shape, shape, (n, n)))
    )
    if transpose == 2:
        np.fill_diagonal(c, c.diagonal().real)
    other = other_triangle(n, options)
    c[other] = np.nan
    values = {"a": a, "b": b, "c": c}
    left, right = (transposed(a, transpose), b) if trans else (a, transposed(b, transpose))
    if kind in ("syrk", "herk"):
        del values["b"]
        alpha = np.real(alpha) if kind == "herk" else alpha
        right = a if trans else transposed(a, transpose)
        sums = total(alpha, left, right, beta, c, dtype)
    elif kind == "gemmt":
        values["b"] = right
        sums = total(alpha, left, right, beta, c, dtype)
    else:
        sums = total(alpha, left, right, 0, None, dtype)
        sums = sums + transposed(sums, transpose) + (beta * c if beta else 0)
    return values, np.where(other, c, sums).astype(dtype)


def product_with_square(
    draw: Draw, kind: str, dtype: Any, alpha: Any, beta: Any, options: dict[str, int]
) -> tuple[dict[str, Array], Array]:
    """Operands, and the exact result. Solutions are exact, too: a triangle has few elements."""
    m, n = draw.sizes(2, MAX_MULTIPLY_ADDS / 300)
    size, trans, seed = n if options["side"] else m, 0, draw.randrange(99)
    a, b, c = (
        sample(*x, dtype=dtype.name, seed=seed + i)
        for i, x in enumerate(((size, size), (m, n), (m, n)))
    )
    other = other_triangle(size, options)
    if kind in ("symm", "hemm"):
        a = np.where(other, transposed(a, 2 if kind == "hemm" else 1), a)
        if kind == "hemm":
            np.fill_diagonal(a, a.diagonal().real)
    else:
        options["trans_a"] = trans = draw.choice((0, 1, 2))
        if kind == "trsm":
            a[abs(np.subtract.outer(range(size), range(size))) != 1] = 0
            a = np.sign(a.real).astype(dtype)
            np.fill_diagonal(a, draw.choice((1, 2, -0.5)))
        a[other] = 0
        if options["diag"]:
            np.fill_diagonal(a, 1)
    op_a = transposed(a, trans)
    left, right = (b, op_a) if options["side"] else (op_a, b)
    values = {"a": a.copy(), "b": b}
    values["a"][other] = np.nan
    if options.get("diag"):
        np.fill_diagonal(values["a"], np.nan)
    if kind == "trsm":
        values["b"] = total(1, left, right, 0, None, dtype).astype(dtype)
        return values, np.asarray(alpha * b, dtype)
    if kind == "trmm":
        return values, total(alpha, left, right, 0, None, dtype).astype(dtype)
    values["c"] = c
    return values, total(alpha, left, right, beta, c, dtype).astype(dtype)


FUNCTIONS = (
    *(matmul, matmul, matmul, gemm, gemm, packed, quantized, brgemm, vectors, blas_product),
    blas_triangle,
)


def run_product(draw: Draw, note: Note, only: str) -> None:
    """Check one product, by the plan that comes first and perhaps by another one."""
    case = Case(draw, note, only)
    threads = draw.choice((1, 2))
    nkblas.set_num_threads(threads)
    case.describe(f"threads={threads}")
    task = draw.choice(FUNCTIONS)(case)
    with nkblas.record() as shapes:
        case.attempt(task)
    second_plan = draw.choice(("none", "best", "other", "other"))
    if second_plan == "none":
        return
    for problem in shapes:
        plans = list(cost_model.ranked_plans(problem, nkblas.cpu, 16))
        plans += filter(None, [base_plan(plans[0], nkblas.cpu)])
        plan = plans[0] if second_plan == "best" else draw.choice(plans)
        if draw.chance(0.5):
            plan = plan._replace(nanoseconds=1e7)  # long enough for several threads
        case.describe(f"{problem} by {plan.schedule}")
        kernels.load_unlocked(plan.kernels)
        with planning_lock():
            plan_table.insert(plan)
    case.attempt(task)


# ---- kernels


def draw_problem(draw: Draw) -> Problem:
    """A problem that has kernels."""
    dtype = draw.choice(list(ENGINE_PRODUCTS))
    m, n, k = draw.sizes(limit=1e12)
    layouts: tuple[Layout, ...] = ("row", "col", "strided")
    a_layout, b_layout = draw.choice(layouts), draw.choice(layouts)
    if draw.chance(0.15):
        b_layout = "packed"
    c_layouts: tuple[Layout, ...] = ("row", "row", "row", "strided")
    c = draw.choice(c_layouts)
    types = ENGINE_PRODUCTS[dtype]
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
    problem = Problem(dtype, m, n, k, a_layout, b_layout, c, str(epilogue))
    if draw.chance(0.1):
        reduces = problem._replace(epilogue="", k=min(k, 700), batch_reduce=True)
        if can_reduce_in_place(reduces, nkblas.cpu.isa):
            return reduces
    return problem


verified: set[Any] = set()
"""The kernels that this process has verified."""


def run_kernels(draw: Draw, note: Note, only: str) -> None:
    """Compile and verify those kernels of some plans that this process has not verified yet."""
    # MLIR is for these cases only
    from nkblas.codegen.loader import load_kernel
    from nkblas.codegen.lowering import pipeline, verify

    problem = draw_problem(draw)
    plans = list(cost_model.ranked_plans(problem, nkblas.cpu, 12))
    chosen = [plans[0], draw.choice(plans), *filter(None, [base_plan(plans[0], nkblas.cpu)])]
    for plan in chosen:
        for spec in plan.kernels:
            if (type(spec), spec) not in verified:
                verified.add((type(spec), spec))
                note(f"{spec.symbol} of {problem}", [])
                verify.check(spec, load_kernel(spec, pipeline.shared_library(spec)))


# ---- processes


def spoil(dimension: str) -> None:
    """Insert plans for a problem with one more row or column: these faults must be found."""

    def insert(
        plan: Plan,
        *,
        tier_up_after: int = 0,
        jit: bool = True,
        trial: plan_table.Trial | None = None,
    ) -> None:
        problem = plan.problem
        larger = problem._replace(**{dimension: getattr(problem, dimension) + 1})
        panels = cost_model.prepacked_panels(larger, nkblas.cpu)
        schedule = plan.schedule
        if schedule.kind == "base" or not schedule.infeasible_reason(larger, nkblas.cpu, panels):
            plan = make_plan(larger, nkblas.cpu, plan.schedule)._replace(
                nanoseconds=plan.nanoseconds
            )
        c_plan = abi.plan_to_c(plan, kernels.load(plan.kernels))
        c_plan.problem = abi.problem_to_c(problem)[0]
        plan_table._insert(c_plan)
        plan_table.plans_in_table[problem] = plan

    plan_table.insert = insert


NOTE_BYTES = 1 << 16
"""Size of the shared note on the case that a process runs."""

KINDS: dict[str, Callable[[Draw, Note, str], None]] = {
    "kernels": run_kernels,
    "products": run_product,
}


def work(options: argparse.Namespace) -> None:
    """Run cases; print a line of JSON for each fault, and in the end one with counts."""
    if options.spoil:
        spoil(options.spoil)
    with open(options.note, "r+b") as file:
        shared_note = mmap.mmap(file.fileno(), NOTE_BYTES)
    found = 0
    for index in range(options.first, options.last):

        def note(description: str, operands: list[str], index: int = index) -> None:
            text = json.dumps([index, description, operands]).encode()[: NOTE_BYTES - 1]
            shared_note[: len(text) + 1] = text + b"\0"

        note("", [])
        draw = Draw(f"{options.seed} {nkblas.cpu.isa.name} {options.kind} {index}")
        try:
            KINDS[options.kind](draw, note, options.only)
        except Exception as error:
            description = read_note(shared_note)[1]
            fault = f"case {index}: {type(error).__name__}: {error}: {description}"
            print(json.dumps(fault), flush=True)
            found += 1
            if found == MAX_FAULTS:
                break
    print(json.dumps({**nkblas.stats(), "checked": len(verified)}))


def read_note(note: Any) -> tuple[int, str, list[str]]:
    """The number and the description of the case, and the names of its operands."""
    index, description, operands = json.loads(note[:].partition(b"\0")[0])
    return index, description, operands


MAX_FAULTS = 20
"""Faults after which the cases of a kind end."""


class Found(NamedTuple):
    """The outcome of the cases of a kind on an instruction set."""

    cases: int
    products: int
    fallbacks: int
    checked: int
    faults: list[str]


def run(isa: str, kind: str, options: argparse.Namespace) -> Found:
    """Run all cases of a kind on one instruction set, in as many processes as it takes."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(NOTE_BYTES)
        note = mmap.mmap(file.fileno(), NOTE_BYTES)

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
        counts = dict.fromkeys(("calls", "fallbacks", "checked"), 0)
        while first < last and len(faults) < MAX_FAULTS:
            ran = process(first, last)
            for line in map(json.loads, ran.stdout.splitlines()):
                if isinstance(line, dict):
                    counts = {name: counts[name] + line[name] for name in counts}
                else:
                    faults.append(line)
            if ran.returncode == 0:
                break
            index, description, operands = read_note(note)
            how = f"status {ran.returncode}"
            if ran.returncode < 0:
                how = signal.Signals(-ran.returncode).name
            text = f"case {index}: {how}: {description}"
            if ran.returncode > 0:
                text += f": {ran.stderr[-2000:]}"
            elif operands:
                causes = [x for x in operands if process(index, index + 1, x).returncode]
                text += f"; because of {' '.join(causes) or 'an earlier case'}"
            faults.append(text)
            first = index + 1
        calls, fallbacks, checked = counts.values()
        return Found(last - options.first, calls, fallbacks, checked, faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases (0)")
    parser.add_argument("--isa", nargs="*", default=ISA_NAMES, help="instruction sets (all)")
    parser.add_argument(
        "--kernels", type=int, default=60, help="problems whose kernels are verified"
    )
    parser.add_argument("--products", type=int, default=1000, help="number of products")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (0)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--spoil", choices=["", "m", "n"], default="", help=spoil.__doc__)
    for name in ("note", "kind", "only"):  # for the child processes
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.note:
        work(options)
        return 0
    todo = [(isa, kind) for kind in KINDS for isa in options.isa if getattr(options, kind)]
    with ThreadPoolExecutor(options.jobs) as pool:
        found: Iterator[Found] = pool.map(lambda x: run(x[0], x[1], options), todo)
        faults = 0
        for (isa, kind), each in zip(todo, found, strict=True):
            count = f"{each.checked} kernels" if kind == "kernels" else f"{each.products} products"
            by_numpy = f", {each.fallbacks} by NumPy" if each.fallbacks else ""
            print(
                f"{isa}, {kind}: {each.cases} cases, seed {options.seed}: {count}{by_numpy}: "
                f"{len(each.faults)} faults",
                flush=True,
            )
            for fault in each.faults:
                print(f"  {fault}", flush=True)
            faults += len(each.faults)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
