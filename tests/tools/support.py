"""What several test modules need: operands in every memory layout, references, processes."""

import json
import math
import os
import subprocess
import sys
import textwrap
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
ROOT = Path(__file__).parents[2]
"""The source tree."""

ENGINE_SOURCES = ROOT / "nkblas" / "engine"
TOOLS = Path(__file__).parent


class Product(NamedTuple):
    """The dtypes of a product.

    Attributes
    ----------
    a, b : str
        The operands'.
    dtype : str or None
        The result's, where it is asked for; else it is NumPy's choice.
    """

    a: str
    b: str
    dtype: str | None = None

    @property
    def result(self) -> "np.dtype[Any]":
        """The dtype of its result."""
        return result_dtype(np.dtype(self.a), np.dtype(self.b), self.dtype)

    def __call__(self, a: Array, b: Array, **options: Any) -> Any:
        """Have nkblas do it."""
        if self.dtype is not None:
            options["dtype"] = self.dtype
        return nkblas.matmul(a, b, **options)

    def __str__(self) -> str:
        operands = self.a if self.a == self.b else f"{self.a}@{self.b}"
        return operands if self.dtype is None else f"{operands}->{self.dtype}"


# Those whose results are wider than NumPy would have them, or (bfloat16) narrower.
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
    """The dtype that ``np.matmul`` gives a product, unless one is asked for."""
    found: np.dtype[Any] = np.dtype(dtype or np.matmul.resolve_dtypes((a, b, None))[2])
    return found


def sample(*shape: int, dtype: str, seed: int = 0) -> Array:
    """Values for `expected`: small integers; integer types get any, and booleans few that hold."""
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
    """What a product has to be, bit by bit, if float32 holds all of its partial sums.

    Floats are rounded once, from their sum; integers wrap, whatever they are; of booleans it is
    whether any pair holds.
    """
    kind = result_dtype(a.dtype, b.dtype, dtype)
    if kind.kind == "b":
        return np.matmul((a.view("u1") != 0).astype("f"), (b.view("u1") != 0).astype("f")) > 0
    if kind.kind in "iu":
        return np.matmul(a.astype("u8"), b.astype("u8")).astype(kind)
    wide = "complex128" if kind.kind == "c" else "float64"
    sums = np.matmul(a.astype(wide), b.astype(wide))
    narrow = kind.itemsize < 4  # ml_dtypes would round a float64 twice
    return (sums.astype("float32") if narrow else sums).astype(kind)


def assert_exact(got: Array, wanted: Array, what: object = "") -> None:
    """Same dtype, same shape, same values; the sign of zero is free, True is 1."""
    assert got.dtype == wanted.dtype, what
    assert np.shape(got) == np.shape(wanted), what
    if wanted.dtype == bool:
        got, wanted = np.asarray(got).view("u1"), np.asarray(wanted).view("u1")
    wrong = np.argwhere(np.asarray((got != wanted) & ~((got != got) & (wanted != wanted))))
    if len(wrong):
        place = tuple(map(int, wrong[0]))
        of = f"{len(wrong)} of {np.size(wanted)} differ, at {place} first"
        raise AssertionError(f"{what}: {of}: {got[place]}, expected {wanted[place]}")


def outcome(call: Callable[[Any], Any], function: Any) -> Any:
    """What a call comes to: a result or an error."""
    try:
        return call(function)
    except Exception as error:
        return type(error), str(error)


def without_python(function: Any, *args: Any, **options: Any) -> Any:
    """What a call returns that gets by without a line of Python, once its product is planned."""
    function(*args, **options)
    lines: list[str] = []
    sys.setprofile(lambda frame, event, _: lines.append(f"{event} {frame.f_code.co_name}"))
    try:
        found = function(*args, **options)
    finally:
        sys.setprofile(None)
    assert not [line for line in lines if line.startswith("call")], lines
    return found


def assert_same(got: Any, expected: Any) -> None:
    """Type, dtype, shape, memory order and values, or the same error."""
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

    Types of less than 32 bits are summed up in float32, whose eps it is, and rounded once, by at
    most half an eps of their own. The parts of a complex element are sums of 2k real products.
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, sections 3.1 and 3.6: with
    u = eps / 2 the sum of k products has an error of at most k u / (1 - k u) of their sizes.)
    """
    if c.dtype.kind == "c":
        both = np.concatenate([a.real, a.imag], -1), np.concatenate([a.real, -a.imag], -1)
        assert_within_bound(c.real, both[1], np.concatenate([b.real, b.imag], -2))
        assert_within_bound(c.imag, both[0], np.concatenate([b.imag, b.real], -2))
        return
    k, narrow = a.shape[-1], c.dtype.itemsize < 4
    machine: Any = np.finfo("float32" if narrow else c.dtype)
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    product, size = wide_a @ wide_b, abs(wide_a) @ abs(wide_b)
    # what underflows has no relative error: half the smallest number for each product
    bound = k * machine.eps * size + k * machine.smallest_subnormal
    if narrow:
        machine = ml_dtypes.finfo(c.dtype)
        bound += float(machine.eps) / 2 * (abs(product) + bound)
        bound += float(machine.smallest_subnormal) / 2
    error = abs(c.astype(np.longdouble) - product)
    assert (error <= bound).all(), f"error is {np.nanmax(error / bound):.3g} of the bound"


@dataclass(frozen=True)
class Layout:
    """How a matrix lies in its buffer.

    Attributes
    ----------
    order : {"C", "F"}
    steps : (int, int)
        Distance of rows, of columns; backwards if negative.
    pad : int
        Rows and columns of the buffer beyond the matrix.
    shift : int
        Bytes by which elements are out of alignment.
    swapped : bool
        The other byte order.
    """

    order: Order = "C"
    steps: tuple[int, int] = (1, 1)
    pad: int = 0
    shift: int = 0
    swapped: bool = False

    def empty(self, shape: tuple[int, int], dtype: str, fill: float) -> tuple[Array, Array]:
        """A buffer full of `fill`, and the matrix in it."""
        steps = map(abs, self.steps)
        lengths = [size * step + self.pad for size, step in zip(shape, steps, strict=True)]
        kind = np.dtype(dtype).newbyteorder("S" if self.swapped else "=")
        raw = np.zeros(math.prod(lengths) * kind.itemsize + self.shift, np.uint8)
        buffer = raw[self.shift :].view(kind)
        buffer[:] = np.array(fill, dtype)  # of a number alone, ml_dtypes swaps no bytes
        whole = buffer.reshape(lengths, order=self.order)
        return buffer, whole[:: self.steps[0], :: self.steps[1]][: shape[0], : shape[1]]

    def arrange(self, values: Array, dtype: str, fill: float = np.nan) -> Array:
        """A copy of a matrix, with `fill` in whatever lies between its elements."""
        rows, columns = values.shape
        view = self.empty((rows, columns), dtype, fill)[1]
        view[...] = values
        return view


def poison(dtype: str) -> Any:
    """What shows in any result, and in the floating-point flags if there are any."""
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
"""Shapes of stacks and vectors that can be multiplied."""


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
    """Dense matrices, and those with these distances of rows and columns."""
    step = st.sampled_from(steps)
    return st.builds(
        Layout,
        order=st.sampled_from(ORDERS),
        steps=st.tuples(step, step) | st.just((1, 1)),
        pad=st.integers(0, 3),
        shift=st.integers(0, 1),
    )


def fenced(values: Array, dtype: str, order: Order, at_end: bool) -> Array:
    """A copy that ends (begins) where a page begins (ends) that can't be touched."""
    copy = np.array(values, dtype, order=order)
    return Area(copy.nbytes).hold(copy, at_end)


def tile(dtype: str) -> tuple[int, int]:
    """The register tile (mr, nr) of a product that is large in every dimension."""
    square = np.ones((512, 512), dtype)
    found = nkblas.explain(square, square).tile
    assert found is not None
    return found


def environment(**changes: Any) -> dict[str, str]:
    """This process's environment with changes, where ``import nkblas`` finds what it found here."""
    package = str(Path(nkblas.__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **{k: str(v) for k, v in changes.items()}}


PRELUDE = """
import json, os, sys, threading, time
import numpy as np
import nkblas

def operands(m, n, k):
    a = (np.arange(m * k) % 7 - 3).reshape(m, k).astype("float32")
    b = (np.arange(k * n) % 5 - 2).reshape(k, n).astype("float32")
    return a, b

def improve(*shapes):
    "Have the kernels of the best plans now; a product alone makes do with what is there."
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
"""A process that takes longer hangs. On a slow machine that is loaded some take a minute."""


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
    """What a program reported, and its standard error."""
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
