"""Helpers of several test modules: operands in every memory layout, references, processes."""

import json
import math
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import nkblas
from nkblas.codegen.lowering.guard_pages import Area

Array = NDArray[Any]
Order = Literal["C", "F"]

ORDERS: tuple[Order, ...] = ("C", "F")
DTYPES = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u"))
FLOAT8 = (
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
)
GUARD = 77.0
"""The value of elements that a product must not change."""

ROOT = Path(__file__).parents[2]
"""The source tree."""

ENGINE_SOURCES = ROOT / "nkblas" / "engine"
THREAD_POOL = ENGINE_SOURCES / "thread_pool.c"
ENGINE_WITHOUT_PYTHON = (
    THREAD_POOL,
    *(ENGINE_SOURCES / f"{name}.c" for name in ("dispatch", "macrokernel", "partition")),
    *(ENGINE_SOURCES / f"{name}.c" for name in ("counters", "plan_table", "memory", "record")),
    *(ENGINE_SOURCES / f"{name}.c" for name in ("panels", "similar_plan", "trial", "triangle")),
    *(ENGINE_SOURCES / f"{name}.c" for name in ("expand", "level3", "reference", "triangular")),
)
"""The C sources that a C program needs to call the engine."""

TOOLS = Path(__file__).parent


class Product(NamedTuple):
    """The dtypes of a product.

    Attributes
    ----------
    a, b : str
        The operands' dtypes.
    dtype : str or None
        The result's dtype if the caller requests one, else it is NumPy's choice.
    """

    a: str
    b: str
    dtype: str | None = None

    @property
    def result(self) -> "np.dtype[Any]":
        """The dtype of its result."""
        return result_dtype(np.dtype(self.a), np.dtype(self.b), self.dtype)

    def __call__(self, a: Array, b: Array, **options: Any) -> Any:
        """Multiply with nkblas."""
        if self.dtype is not None:
            options["dtype"] = self.dtype
        return nkblas.matmul(a, b, **options)

    def __str__(self) -> str:
        operands = self.a if self.a == self.b else f"{self.a}@{self.b}"
        return operands if self.dtype is None else f"{operands}->{self.dtype}"


MIXED = (
    Product("float16", "float16", "float32"),
    Product("bfloat16", "bfloat16", "float32"),
    Product("bfloat16", "bfloat16", "bfloat16"),
    Product("int8", "int8", "int32"),
    Product("uint8", "uint8", "int32"),
    Product("uint8", "uint8", "uint32"),
    Product("uint8", "int8", "int32"),
    Product("int8", "uint8", "int32"),
)
"""Products whose results are wider than NumPy's, or (bfloat16) narrower."""

PRODUCTS = (
    *(Product(x, x) for x in (*DTYPES, *COMPLEX, "float16", "bfloat16", "bool", *INTEGERS)),
    *(Product(x, x) for x in FLOAT8),
    *MIXED,
)


def integers(*shape: int, dtype: str = "float64", seed: int = 0) -> Array:
    """Small integers: sums of a few thousand of their products are exact in any order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def exact(a: Array, b: Array) -> Array:
    """The product of matrices of small integers; float64 holds all of its partial sums."""
    product: Array = np.matmul(a.astype("float64"), b.astype("float64"))
    return product


def result_dtype(a: "np.dtype[Any]", b: "np.dtype[Any]", dtype: Any = None) -> "np.dtype[Any]":
    """The requested dtype of a product, else the one that ``np.matmul`` gives it."""
    result: np.dtype[Any] = np.dtype(dtype or np.matmul.resolve_dtypes((a, b, None))[2])
    return result


def sample(*shape: int, dtype: str, seed: int = 0) -> Array:
    """Operands for `expected`: small integers, any value of integer dtypes, few True."""
    generator, kind = np.random.default_rng(seed), np.dtype(dtype)
    if kind.kind == "b":
        return generator.random(shape) < 0.1
    if kind.kind in "iu":
        return generator.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, True)
    values = generator.integers(-9, 10, shape).astype(kind)
    if kind.kind == "c":
        values.imag = generator.integers(-9, 10, shape)
    return values


def expected(a: Array, b: Array, dtype: Any = None) -> Array:
    """The exact bits of a product of which float32 holds all partial sums.

    Floats are rounded once, from their sum. Integers wrap. A boolean result is True if any pair of
    elements is True.
    """
    kind = result_dtype(a.dtype, b.dtype, dtype)
    sums: Array
    if kind.kind == "b":
        sums = np.matmul((a.view("u1") != 0).astype("f"), (b.view("u1") != 0).astype("f"))
        return sums > 0
    wide = "u8" if kind.kind in "iu" else "complex128" if kind.kind == "c" else "float64"
    sums = np.matmul(a.astype(wide), b.astype(wide))
    if kind.kind not in "iu" and kind.itemsize < 4:  # ml_dtypes would round a float64 twice
        sums = sums.astype("float32")
    return sums.astype(kind)


def assert_exact(got: Array, wanted: Array, what: object = "") -> None:
    """Assert the same dtype, shape and values; the sign of zero is ignored, True is 1."""
    assert got.dtype == wanted.dtype, what
    assert np.shape(got) == np.shape(wanted), what
    if wanted.dtype == bool:
        got, wanted = np.asarray(got).view("u1"), np.asarray(wanted).view("u1")
    wrong = np.argwhere(np.asarray((got != wanted) & ~((got != got) & (wanted != wanted))))
    if len(wrong):
        first = tuple(map(int, wrong[0]))
        count = f"{len(wrong)} of {np.size(wanted)} differ, at {first} first"
        raise AssertionError(f"{what}: {count}: {got[first]}, expected {wanted[first]}")


def outcome(call: Callable[[Any], Any], function: Any) -> Any:
    """The result of a call, or the type and text of its error."""
    try:
        return call(function)
    except Exception as error:
        return type(error), str(error)


def without_python(function: Any, *args: Any, **options: Any) -> Any:
    """The result of a call, which must run no Python code once its product is planned."""
    function(*args, **options)
    lines: list[str] = []
    sys.setprofile(lambda frame, event, _: lines.append(f"{event} {frame.f_code.co_name}"))
    try:
        result = function(*args, **options)
    finally:
        sys.setprofile(None)
    assert not [line for line in lines if line.startswith("call")], lines
    return result


def assert_same(got: Any, expected: Any) -> None:
    """Assert the same type, dtype, shape, memory order and values, or the same error."""
    assert type(got) is type(expected)
    if isinstance(expected, tuple):
        assert got == expected
        return
    assert np.shape(got) == np.shape(expected)
    if isinstance(expected, np.ndarray | np.generic):
        assert got.dtype == expected.dtype
        assert got.strides == expected.strides
    np.testing.assert_array_equal(got, expected)
    if isinstance(expected, np.ma.MaskedArray):
        assert np.array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(expected))


def assert_within_bound(c: Array, a: Array, b: Array) -> None:
    """``|C - AB| <= k eps (|A| |B|)``, element by element, with AB in extended precision.

    Types of less than 32 bits accumulate in float32, and eps is that of float32; the result is
    rounded once, by at most half an eps of its own dtype. The parts of a complex element are sums
    of 2k real products.
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, sections 3.1 and 3.6: with
    u = eps / 2 the sum of k products has an error of at most k u / (1 - k u) of their sizes.)
    """
    if c.dtype.kind == "c":
        for_real, for_imag = (np.concatenate([a.real, part], -1) for part in (-a.imag, a.imag))
        assert_within_bound(c.real, for_real, np.concatenate([b.real, b.imag], -2))
        assert_within_bound(c.imag, for_imag, np.concatenate([b.imag, b.real], -2))
        return
    k, narrow = a.shape[-1], c.dtype.itemsize < 4
    machine: Any = np.finfo("float32" if narrow else c.dtype)
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    product, size = wide_a @ wide_b, abs(wide_a) @ abs(wide_b)
    # an underflow has no relative error, but half the smallest number for each product
    bound = k * machine.eps * size + k * machine.smallest_subnormal
    if narrow:
        machine = ml_dtypes.finfo(c.dtype)  # type: ignore[no-untyped-call, unused-ignore]
        bound += float(machine.eps) / 2 * (abs(product) + bound)
        bound += float(machine.smallest_subnormal) / 2
    error = abs(c.astype(np.longdouble) - product)
    assert (error <= bound).all(), f"error is {np.nanmax(error / bound):.3g} of the bound"


@dataclass(frozen=True)
class Layout:
    """The layout of a matrix in its buffer.

    Attributes
    ----------
    order : {"C", "F"}
    steps : (int, int)
        Distance of successive rows and of successive columns; negative: in reverse order.
    pad : int
        Rows and columns of the buffer beyond the matrix.
    shift : int
        Bytes by which elements are misaligned.
    swapped : bool
        Whether the byte order is not the native one.
    """

    order: Order = "C"
    steps: tuple[int, int] = (1, 1)
    pad: int = 0
    shift: int = 0
    swapped: bool = False

    def empty(self, shape: tuple[int, int], dtype: str, fill: float) -> tuple[Array, Array]:
        """A buffer filled with `fill`, and the matrix in it."""
        distances = map(abs, self.steps)
        lengths = [size * step + self.pad for size, step in zip(shape, distances, strict=True)]
        kind = np.dtype(dtype).newbyteorder("S" if self.swapped else "=")
        raw = np.zeros(math.prod(lengths) * kind.itemsize + self.shift, np.uint8)
        buffer = raw[self.shift :].view(kind)
        buffer[:] = np.array(fill, dtype)  # ml_dtypes would not swap the bytes of a Python number
        whole = buffer.reshape(lengths, order=self.order)
        return buffer, whole[:: self.steps[0], :: self.steps[1]][: shape[0], : shape[1]]

    def arrange(self, values: Array, dtype: str, fill: float = np.nan) -> Array:
        """A copy of a matrix, with `fill` in the gaps between its elements."""
        rows, columns = values.shape
        view = self.empty((rows, columns), dtype, fill)[1]
        view[...] = values
        return view


def poison(dtype: str) -> Any:
    """A value that is seen in any result which reads it, and in the floating-point flags."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return True
    if kind.kind in "iu":
        return np.iinfo(kind).max
    return np.nan if np.isnan(np.array(np.inf, kind)) else np.inf


STACKS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((5, 1, 6, 7), (4, 7, 3)),
    ((6, 7), (2, 3, 7, 3)),
    ((3, 6, 7), (7,)),
    ((7,), (3, 7, 5)),
    ((7,), (7, 5)),
    ((6, 7), (7,)),
    ((7,), (7,)),
    ((1, 1, 1), (1, 1, 1)),
]
"""Pairs of shapes of stacks and vectors that can be multiplied."""


LAYOUTS = {
    "rows": Layout(),
    "columns": Layout("F"),
    "padded rows": Layout(pad=3),
    "padded columns": Layout("F", pad=3),
    "every other row": Layout(steps=(2, 1)),
    "every third column": Layout(steps=(1, 3)),
    "every other of both": Layout("F", steps=(2, 2)),
    "rows backwards": Layout(steps=(-1, 1)),
    "columns backwards": Layout(steps=(1, -1)),
    "all backwards": Layout("F", steps=(-2, -1)),
    "unaligned": Layout(shift=1),
    "swapped bytes": Layout(swapped=True),
}


def layouts(*steps: int) -> st.SearchStrategy[Layout]:
    """Layouts of dense matrices, and of matrices with these distances of rows and columns."""
    step = st.sampled_from(steps)
    return st.builds(
        Layout,
        order=st.sampled_from(ORDERS),
        steps=st.tuples(step, step) | st.just((1, 1)),
        pad=st.integers(0, 3),
        shift=st.integers(0, 1),
    )


def fenced(values: Array, dtype: str, order: Order, at_end: bool) -> Array:
    """A copy that ends, or begins, at a page without access."""
    copy = np.array(values, dtype, order=order)
    return Area(copy.nbytes).copy_in(copy, at_end)


def tile(dtype: str) -> tuple[int, int]:
    """The register tile (mr, nr) of a product that is large in every dimension."""
    square = np.ones((512, 512), dtype)
    register_tile = nkblas.explain(square, square).tile
    assert register_tile is not None
    return register_tile


def environment(**changes: Any) -> dict[str, str]:
    """The environment of a child process: with changes, and with this process's nkblas.

    ``TEST_PROCESS`` tells the processes that it starts from all others.
    """
    package = str(Path(nkblas.__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": path, "TEST_PROCESS": uuid.uuid4().hex}
    return {**os.environ, **own, **{name: str(value) for name, value in changes.items()}}


PRELUDE = """
import json, os, sys, threading, time
import numpy as np
import nkblas

def operands(m, n, k):
    a = (np.arange(m * k) % 7 - 3).reshape(m, k).astype("float32")
    b = (np.arange(k * n) % 5 - 2).reshape(k, n).astype("float32")
    return a, b

def improve(*shapes):
    "Compile the kernels of the best plans now; a product may use an interim plan."
    from nkblas.runtime import dispatch
    for shape in shapes:
        dispatch.tier_up(nkblas.explain(*operands(*shape)).problem)

def multiply(*shapes):
    for m, n, k in shapes:
        a, b = operands(m, n, k)
        assert np.array_equal(nkblas.matmul(a, b), a.astype("d") @ b.astype("d")), (m, n, k)

def report(**more):
    print(json.dumps({**nkblas.stats(), **more}))
"""


HANG_SECONDS = 300
"""Time-out of a process; some take a minute on a slow machine under load."""


def start(
    program: str, *options: str, prelude: str = PRELUDE, **changes: Any
) -> "subprocess.Popen[str]":
    """Start Python on a program, with changes to the environment."""
    return subprocess.Popen(
        [sys.executable, *options, "-c", prelude + textwrap.dedent(program)],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[Any, str]:
    """Wait for a program, which must succeed; its report and its standard error."""
    try:
        output, errors = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(output), errors


def run(program: str, *options: str, prelude: str = PRELUDE, **changes: Any) -> tuple[Any, str]:
    """Start a program and `finish` it."""
    return finish(start(program, *options, prelude=prelude, **changes))


def failure(program: str, prelude: str = PRELUDE, **changes: Any) -> str:
    """The last line of the standard error of a program that ends with an exception."""
    process = start(program, prelude=prelude, **changes)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 1, errors
    return errors.splitlines()[-1]


def small_integers(shape: Any, dtype: Any, order: Any, seed: int, largest: int = 5) -> Array:
    """Random integers, so small that results are exact; complex ones have them as parts."""
    generator = np.random.default_rng(seed)
    values = np.zeros(shape, dtype, order)
    values.real = generator.integers(-largest, largest + 1, shape)
    if values.dtype.kind == "c":
        values.imag = generator.integers(-largest, largest + 1, shape)
    return values


def assert_same_blas_result(ours: Array, theirs: Array, *, equal_nan: bool = False) -> None:
    """Arrays of the same type, dtype, shape, contiguity and values; strides may differ."""
    assert type(ours) is type(theirs)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    assert ours.flags.c_contiguous == theirs.flags.c_contiguous
    assert np.array_equal(ours, theirs, equal_nan=equal_nan)
