"""The products whose rounding errors are measured: kinds of operands, dtypes and shapes."""

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .operands import LAYOUTS, Array, Operands, numpy_dtype
from .suites import Case, parse_dtypes

DTYPES = (
    *("float32", "float64", "complex64", "complex128"),
    *("float16_float32", "bfloat16_float32", "float16", "bfloat16"),
)
"""Abbreviations that `bench.suites.parse_dtypes` reads."""

DEPTHS = (1, 7, 64, 512, 4096, 100_000)
"""Values of k for products of two matrices."""

SHAPES = {
    "matrix": (Case(32, 48, 0), DEPTHS),
    "row": (Case(1, 48, 0), (512, 4096)),
    "long row": (Case(1, 400, 0), (512, 4096)),
    "dots": (Case(1, 48, 0, b=".T"), (512, 4096)),
}
"""For each shape, a case without its k, and the values of k.

Two matrices; a vector times a C-contiguous matrix with few and with many columns; a vector times a
Fortran-contiguous matrix.
"""


def finfo(dtype: np.dtype) -> Any:
    """Machine limits of a float dtype, also of ml_dtypes, or of the parts of a complex one."""
    if dtype.kind in "fc":
        return np.finfo(dtype)
    return import_module("ml_dtypes").finfo(dtype)


class RandomOperands(NamedTuple):
    """Random numbers for the operands of a case.

    Attributes
    ----------
    generator : numpy.random.Generator
    case : Case
    dtype_a, dtype_c : dtype
        Dtypes of both operands and of the result. (The numbers themselves are float64 or
        complex128, and are rounded later.)
    """

    generator: np.random.Generator
    case: Case
    dtype_a: np.dtype
    dtype_c: np.dtype

    def uniform(self, shape: tuple[int, ...], low: float = -1) -> Array:
        """Numbers from `low` to 1; for complex dtypes, both parts are."""
        values = self.generator.uniform(low, 1, shape)
        if self.dtype_a.kind != "c":
            return values
        return values + 1j * self.generator.uniform(low, 1, shape)

    def uniform_pair(self, low: float = -1) -> tuple[Array, Array]:
        """A and B with elements from `low` to 1."""
        m, n, k = self.case[:3]
        a = self.uniform((m, k), low)
        return a, self.uniform((k, n), low)

    def powers_of_2(self, *shape: int) -> Array:
        """Powers of 2 from 2**-20 to 2**20; for float16, from 2**-4 to 2**4."""
        limit = 4 if self.dtype_a.name == "float16" else 20
        return np.exp2(self.generator.integers(-limit, limit + 1, shape))


Pair: TypeAlias = tuple[Array, Array]


def cancelling(random: RandomOperands) -> Pair:
    """Pairs of products of opposite sign, whose sizes differ by 2 eps, in random positions."""
    a, b = random.uniform_pair()
    half = random.case.k // 2
    a = a.astype(random.dtype_a).astype(a.dtype)
    a[:, half : 2 * half] = -(1 + 2 * float(finfo(random.dtype_a).eps)) * a[:, :half]
    b[half : 2 * half] = b[:half]
    order = random.generator.permutation(random.case.k)
    return a[:, order], b[order]


def graded(random: RandomOperands) -> Pair:
    """Rows and columns of both operands, each scaled by a power of 2."""
    (a, b), (m, n, k) = random.uniform_pair(), random.case[:3]
    is_narrow = random.dtype_a.name == "float16"  # two powers would leave its range
    rows, columns = (1, 1) if is_narrow else (random.powers_of_2(m, 1), random.powers_of_2(n))
    return rows * a * random.powers_of_2(k), random.powers_of_2(k, 1) * b * columns


def hilbert(random: RandomOperands) -> Pair:
    """Two Hilbert matrices, the rows of B with alternating signs: slowly converging sums."""
    m, n, k = random.case[:3]
    i, p, j = np.arange(m), np.arange(k), np.arange(n)
    a = 1 / (i[:, None] + p + 1)
    b = np.where(p[:, None] % 2, -1, 1) / (p[:, None] + j + 1)
    return (a * (1 + 0.5j), b * (1 - 0.25j)) if random.dtype_a.kind == "c" else (a, b)


def mixed(random: RandomOperands) -> Pair:
    """Elements that are each scaled by a power of 2."""
    a, b = random.uniform_pair()
    return a * random.powers_of_2(*a.shape), b * random.powers_of_2(*b.shape)


def huge(random: RandomOperands) -> Pair:
    """Operands for which the largest possible |A| @ |B| is just below the largest number of C."""
    a, b = random.uniform_pair()
    terms = random.case.k * (2 if random.dtype_a.kind == "c" else 1)
    max_a, max_c = (float(finfo(dtype).max) for dtype in (random.dtype_a, random.dtype_c))
    limit = min(max_a, (max_c / terms) ** 0.5)
    return 0.99 * limit * a, 0.99 * limit * b


def tiny_results(random: RandomOperands) -> Pair:
    """Normal numbers whose products are subnormal in the dtype of C."""
    a, b = random.uniform_pair()
    scale = float(finfo(random.dtype_c).tiny) ** 0.5 / 8
    return scale * a, scale * b


def tiny_operands(random: RandomOperands) -> Pair:
    """Subnormal numbers times large numbers."""
    a, b = random.uniform_pair()
    tiny = float(finfo(random.dtype_a).tiny)
    return tiny * a, b / tiny**0.5


KINDS: dict[str, Callable[[RandomOperands], Pair]] = {
    "uniform": RandomOperands.uniform_pair,
    "positive": lambda random: random.uniform_pair(0),
    "cancelling": cancelling,
    "graded": graded,
    "Hilbert": hilbert,
    "mixed": mixed,
    "huge": huge,
    "tiny results": tiny_results,
    "tiny operands": tiny_operands,
}
"""Kinds of operands. docs/numerics.md describes them."""


class Task(NamedTuple):
    """One product whose rounding errors are measured.

    Attributes
    ----------
    dtype : str
        Of `DTYPES`.
    kind : str
        Key of `KINDS`.
    shape : str
        Key of `SHAPES`.
    k : int
    """

    dtype: str
    kind: str
    shape: str
    k: int

    @property
    def case(self) -> Case:
        """The case with its k."""
        return SHAPES[self.shape][0]._replace(k=self.k)

    def operands(self) -> Operands:
        """The operands, which are the same in each process."""
        dtype_a, _, dtype_c = map(numpy_dtype, parse_dtypes(self.dtype))
        generator = np.random.default_rng(zlib.crc32(repr(self).encode()))
        a, b = KINDS[self.kind](RandomOperands(generator, self.case, dtype_a, dtype_c))
        a, b = np.ascontiguousarray(a.astype(dtype_a)), LAYOUTS[self.case.b](b.astype(dtype_a))
        out = np.full((self.case.m, self.case.n), np.nan).astype(dtype_c)
        if self.case.m == 1:
            a, out = a[0], out[0]
        return Operands(a, b, out, None, self.case)

    def sample(self) -> tuple[Array, Array]:
        """Rows and columns of the elements whose errors are measured."""
        m, n = self.case.m, self.case.n
        count = min(m * n, max(20, min(500, 500_000 // self.k)))
        indices = np.random.default_rng(self.k).permutation(m * n)[:count]
        return indices // n, indices % n

    def sampled(self, result: Array) -> Array:
        """The elements of a result whose errors are measured."""
        return np.atleast_2d(result)[self.sample()]


def make_tasks(dtypes: tuple[str, ...], depths: tuple[int, ...]) -> Iterator[Task]:
    """All tasks with some dtypes and values of k."""
    for dtype, kind, (shape, (_, shape_depths)) in product(dtypes, KINDS, SHAPES.items()):
        if kind == "tiny results" and dtype == "float16_float32":
            continue  # products of float16 are never subnormal in float32
        for k in shape_depths:
            if k in depths:
                yield Task(dtype, kind, shape, k)
