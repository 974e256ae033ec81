"""Arrays and calls as recipes: made as often as needed, in any memory, and printed as a program."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from nkblas.codegen.lowering.guard_pages import Area

Live = Any


class Sub(np.ndarray):
    """A subclass that adds nothing."""


class Arrayish:
    """What is no array, and becomes one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


class Array(NamedTuple):
    """An array in one of a call's memories.

    Attributes
    ----------
    memory : int
    dtype : dtype
    shape, strides : tuple of int
    offset : int
        Bytes from the memory's begin to the first element.
    kind : str
        What it is given as: "array", "read-only", "matrix", "masked", "sub", "object", "list",
        "arrayish" or "scalar".
    """

    memory: int
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    kind: str = "array"

    def bare(self, memories: Sequence[Any]) -> np.ndarray:
        """The elements, in NumPy's own class."""
        return np.ndarray(self.shape, self.dtype, memories[self.memory], self.offset, self.strides)

    def live(self, memories: Sequence[Any]) -> Live:
        """What is handed over."""
        array = self.bare(memories)
        if self.kind == "array":
            return array
        if self.kind == "read-only":
            array.flags.writeable = False
            return array
        if self.kind == "matrix":
            return array.view(np.matrix)
        if self.kind == "masked":
            mask = np.arange(array.size).reshape(array.shape) % 3 == 1
            return np.ma.MaskedArray(array, mask)
        if self.kind == "sub":
            return array.view(Sub)
        if self.kind == "object":
            return array.astype(object)
        if self.kind == "list":
            return array.tolist()
        if self.kind == "scalar":
            return array[()]
        return Arrayish(array)

    def code(self) -> str:
        dtype = self.dtype.str if is_numpys(self.dtype) else self.dtype.name
        place = f"{dtype!r}, m{self.memory}, {self.offset}, {self.strides}"
        if self.dtype.byteorder not in "=|" and not is_numpys(self.dtype):
            place = place.replace(repr(dtype), f"np.dtype({dtype!r}).newbyteorder()", 1)
        text = f"np.ndarray({self.shape}, {place})"
        return {
            "array": text,
            "matrix": f"{text}.view(np.matrix)",
            "sub": f"{text}.view(Sub)",
            "object": f"{text}.astype(object)",
            "list": f"{text}.tolist()",
            "scalar": f"{text}[()]",
        }.get(self.kind, f"{text}  # {self.kind}")


def each(function: Callable[[Array], Any], value: Any) -> Any:
    """A value with the arrays in it replaced."""
    if isinstance(value, Array):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(each(function, x) for x in value)
    return value


class Call(NamedTuple):
    """A call of a public function.

    Attributes
    ----------
    function : str
    args, kwargs
        With `Array` for arrays, also in lists and tuples.
    memories : list of bytes
    mode : str
        Which values the arrays have, of `VALUES`.
    depth : int
        How many products an element is the sum of, at most.
    """

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    memories: list[bytes]
    mode: str
    depth: int = 1

    def arguments(self, memories: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Live ones, in memories that hold what `memories` does."""

        def live(array: Array) -> Live:
            return array.live(memories)

        args = [each(live, value) for value in self.args]
        return args, {name: each(live, value) for name, value in self.kwargs.items()}

    def arrays(self) -> list[Array]:
        """All of them."""
        found: list[Array] = []
        for value in (*self.args, *self.kwargs.values()):
            each(found.append, value)
        return found

    def code(self) -> str:
        """A program that makes the call, or about that."""
        places: dict[str, str] = {}

        def text(value: Any) -> str:
            if isinstance(value, Array):
                return places.setdefault(value.code(), f"x{len(places)}")
            if type(value) is list:
                return f"[{', '.join(map(text, value))}]"
            if type(value) is tuple:
                return f"({''.join(text(x) + ', ' for x in value)})"
            return f"np.{value!r}" if isinstance(value, np.dtype) else repr(value)

        args = list(map(text, self.args))
        name = self.function
        if name in ("pack", "packed_gemm"):
            name = {"pack": "matmul", "packed_gemm": "gemm"}[name]
            args[1] = f"nkblas.pack({args[1]})"
        module = "nkblas.blas" if name[1:] in ("gemm", "gemv") else "nkblas"
        given = [*args, *(f"{k}={text(v)}" for k, v in self.kwargs.items())]
        lines = [
            "import ml_dtypes, numpy as np, nkblas",
            *(
                f"m{i} = bytearray.fromhex({bytes(m).hex()!r})"
                if len(m) <= 4096
                else f"m{i} = bytearray({len(m)})  # too long to be printed: see the case"
                for i, m in enumerate(self.memories)
            ),
            *(f"{name} = {code}" for code, name in places.items()),
            f"{module}.{name}({', '.join(given)})",
        ]
        return "\n".join(lines)


# --- values ---

POOL = 1 << 16


def _integers(generator: np.random.Generator, dtype: "np.dtype[Any]", size: int) -> np.ndarray:
    """Small ones, of which sums are exact in every float; any, where they wrap."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return generator.integers(info.min, info.max, size, dtype.newbyteorder("="), endpoint=True)
    if dtype.kind == "b":
        return generator.random(size) < 0.3
    values = generator.integers(-9, 10, size).astype(dtype)
    if dtype.kind == "c":
        values.imag = generator.integers(-9, 10, size)
    return values


def is_numpys(dtype: "np.dtype[Any]") -> bool:
    """Whether a type is NumPy's own."""
    return dtype.num < 256


def _finfo(dtype: "np.dtype[Any]") -> Any:
    return np.finfo(dtype) if is_numpys(dtype) else ml_dtypes.finfo(dtype)


def _reals(
    generator: np.random.Generator, dtype: "np.dtype[Any]", size: int, mode: str
) -> np.ndarray:
    """Floats of a mode, as longdouble or float64."""
    values = generator.standard_normal(size)
    info = _finfo(dtype)
    low, high = int(np.log2(info.smallest_normal)), int(np.log2(info.max))
    if mode == "rounded":
        spread = min(10, (high - 10) // 2) if high > 12 else 1
        return np.ldexp(values, generator.integers(-max(spread, 1), max(spread, 1) + 1, size))
    if mode == "tiny":  # products around the smallest number
        if high > 12:
            return np.ldexp(values, generator.integers(low // 2 - 12, low // 2 + 12, size))
        return np.ldexp(values, generator.integers(low - 3, low + 4, size))
    # "special"
    values = np.ldexp(values, generator.integers(-3, 4, size)).astype(np.longdouble)
    which = generator.random(size)
    smallest, largest = info.smallest_subnormal, info.max
    if dtype.name == "bfloat16":  # whose instructions take subnormal numbers for zero
        smallest = info.smallest_normal
    specials = [np.inf, -np.inf, np.nan, 0.0, -0.0, largest, -largest, smallest, largest / 2]
    for i, special in enumerate(specials):
        values[(which >= i / 100) & (which < (i + 1) / 100)] = special
    return values


def _make(dtype: "np.dtype[Any]", mode: str) -> np.ndarray:
    generator = np.random.default_rng([dtype.num, ord(mode[0])])
    if dtype.name in ("int4", "uint4"):
        return generator.integers(0, 2, POOL).astype(dtype)
    if mode == "exact" or dtype.kind in "iub":
        return _integers(generator, dtype, POOL)
    if dtype.kind not in "fcV" or dtype.type is np.void or dtype.name == "float8_e8m0fnu":
        return np.zeros(POOL, dtype)
    real = np.zeros(0, dtype).real.dtype if dtype.kind == "c" else dtype
    with np.errstate(all="ignore"):
        if dtype.kind == "c":
            values = np.empty(POOL, dtype)
            values.real = _reals(generator, real, POOL, mode)
            values.imag = _reals(generator, real, POOL, mode)
            return values
        values = _reals(generator, dtype, POOL, mode)
        return values.astype("f8").astype(dtype) if not is_numpys(dtype) else values.astype(dtype)


_pools: dict[tuple[Any, str], np.ndarray] = {}

VALUES = ("exact", "rounded", "special", "tiny")
"""Whole numbers; of moderate size; some infinite, NaN or near the largest; near the smallest."""


def values(draw: random.Random, dtype: "np.dtype[Any]", mode: str, size: int) -> np.ndarray:
    """So many values."""
    key = dtype, mode
    pool = _pools.get(key)
    if pool is None:
        native = dtype.newbyteorder("=")
        pool = _pools[key] = _make(native, mode)
    if size > POOL:
        return np.resize(pool, size)
    start = int(draw.random() * (POOL - size))
    return pool[start : start + size]


def poison(dtype: "np.dtype[Any]", length: int) -> bytearray:
    """Bytes that show in a result, if they are read as elements."""
    byte = 0x7F if dtype.kind in "iu" else 0x01 if dtype.kind == "b" else 0xFF
    return bytearray([byte]) * length


# --- memory ---


class Fences:
    """Memories that end, or begin, where no page can be touched."""

    SIZE = 1 << 17
    COUNT = 10

    def __init__(self) -> None:
        self._areas = [Area(self.SIZE) for _ in range(self.COUNT)]

    def hold(self, memories: Sequence[bytes], at_end: int) -> list[Any]:
        """Memories with these contents; bit i of `at_end` is whether the i-th ends at a fence."""
        found: list[Any] = []
        for i, content in enumerate(memories):
            size = len(content)
            if i >= self.COUNT or size > self.SIZE:
                found.append(bytearray(content))
                continue
            begin = self.SIZE - size if at_end >> i & 1 else 0
            part = memoryview(self._areas[i].memory)[begin : begin + size]
            part[:] = content
            found.append(part)
        return found


def reach(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int]:
    """The bytes before the first element, and from there on, that an array takes."""
    low, high = 0, itemsize
    for length, stride in zip(shape, strides, strict=True):
        if length == 0:
            return 0, 0
        if stride < 0:
            low -= stride * (length - 1)
        else:
            high += stride * (length - 1)
    return low, high


def dense(shape: Sequence[int], itemsize: int, order: Sequence[int] = ()) -> tuple[int, ...]:
    """Strides of an array that lies without gaps; the last axis of `order` has the shortest."""
    strides, step = [0] * len(shape), itemsize
    for axis in reversed(order or range(len(shape))):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def is_injective(array: Array) -> bool:
    """Whether no two elements share bytes, as far as sorted strides tell."""
    pairs = sorted(
        (abs(stride), length)
        for stride, length in zip(array.strides, array.shape, strict=True)
        if length > 1
    )
    steps = [(array.dtype.itemsize, 1), *pairs]
    return all(one * count <= two for (one, count), (two, _) in pairwise(steps))
