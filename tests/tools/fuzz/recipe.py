"""Recipes of arrays and calls: they can be made in any memory, and printed as a program."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from nkblas.codegen.lowering.guard_pages import Area

ArrayLike = Any
"""An array, or another object that a function takes as one."""


class Sub(np.ndarray):
    """A trivial subclass."""


class Convertible:
    """An object that is no array but converts to one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


class Array(NamedTuple):
    """The recipe of an array in one of the memories of a call.

    Attributes
    ----------
    memory : int
        Index of the memory.
    dtype : dtype
    shape, strides : tuple of int
    offset : int
        Bytes from the start of the memory to the first element.
    kind : str
        The kind of argument: "array", "read-only", "matrix", "masked", "sub", "object", "list",
        "arrayish" (a `Convertible`) or "scalar".
    """

    memory: int
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    kind: str = "array"

    def bare(self, memories: Sequence[Any]) -> np.ndarray:
        """The array as a plain `ndarray`."""
        return np.ndarray(self.shape, self.dtype, memories[self.memory], self.offset, self.strides)

    def make(self, memories: Sequence[Any]) -> ArrayLike:
        """The argument of the call, of the given kind."""
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
        return Convertible(array)

    def code(self) -> str:
        """A Python expression of the argument."""
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
    """A value with `function` applied to the arrays in it."""
    if isinstance(value, Array):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)(each(function, x) for x in value)
    return value


class Call(NamedTuple):
    """The recipe of a call of a public function.

    Attributes
    ----------
    function : str
    args, kwargs
        The arguments, with an `Array` for each array, also in lists and tuples.
    memories : list of bytes
        The initial contents of the memories.
    mode : str
        The kind of values, one of `VALUES`.
    depth : int
        Upper bound on the number of products that are summed up in an element.
    """

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    memories: list[bytes]
    mode: str
    depth: int = 1

    def arguments(self, memories: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments, in memories that hold the contents of `self.memories`."""

        def make(array: Array) -> ArrayLike:
            return array.make(memories)

        args = [each(make, value) for value in self.args]
        return args, {name: each(make, value) for name, value in self.kwargs.items()}

    def arrays(self) -> list[Array]:
        """The arrays among the arguments."""
        found: list[Array] = []
        for value in (*self.args, *self.kwargs.values()):
            each(found.append, value)
        return found

    def code(self) -> str:
        """A program that makes the call, or a similar one."""
        names: dict[str, str] = {}

        def text(value: Any) -> str:
            if isinstance(value, Array):
                return names.setdefault(value.code(), f"x{len(names)}")
            if type(value) is list:
                return f"[{', '.join(map(text, value))}]"
            if type(value) is tuple:
                return f"({''.join(text(x) + ', ' for x in value)})"
            return f"np.{value!r}" if isinstance(value, np.dtype) else repr(value)

        args = list(map(text, self.args))
        function = self.function
        if function in ("pack", "packed_gemm"):
            function = {"pack": "matmul", "packed_gemm": "gemm"}[function]
            args[1] = f"nkblas.pack({args[1]})"
        module = "nkblas.blas" if function[1:] in ("gemm", "gemv") else "nkblas"
        given = [*args, *(f"{k}={text(v)}" for k, v in self.kwargs.items())]
        lines = [
            "import ml_dtypes, numpy as np, nkblas",
            *(
                f"m{i} = bytearray.fromhex({bytes(m).hex()!r})"
                if len(m) <= 4096
                else f"m{i} = bytearray({len(m)})  # too long to be printed: see the case"
                for i, m in enumerate(self.memories)
            ),
            *(f"{name} = {code}" for code, name in names.items()),
            f"{module}.{function}({', '.join(given)})",
        ]
        return "\n".join(lines)


# --- values ---

POOL_SIZE = 1 << 16
"""Values of each dtype and mode from which arrays take their elements."""


def _draw_integers(generator: np.random.Generator, dtype: "np.dtype[Any]", size: int) -> np.ndarray:
    """Any integers in integer dtypes, which wrap; else small ones, whose sums are exact."""
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
    """Whether a dtype is NumPy's own."""
    return dtype.num < 256


def finfo(dtype: "np.dtype[Any]") -> Any:
    """The limits of a float dtype, NumPy's own or not."""
    if not is_numpys(dtype):
        return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call, unused-ignore]
    return np.finfo(dtype)


def _draw_reals(
    generator: np.random.Generator, dtype: "np.dtype[Any]", size: int, mode: str
) -> np.ndarray:
    """Floats of a mode other than "exact", as longdouble or float64."""
    values = generator.standard_normal(size)
    info = finfo(dtype)
    low, high = int(np.log2(info.smallest_normal)), int(np.log2(info.max))
    if mode == "rounded":
        spread = min(10, (high - 10) // 2) if high > 12 else 1
        return np.ldexp(values, generator.integers(-max(spread, 1), max(spread, 1) + 1, size))
    if mode == "tiny":  # products are near the smallest number
        if high > 12:
            return np.ldexp(values, generator.integers(low // 2 - 12, low // 2 + 12, size))
        return np.ldexp(values, generator.integers(low - 3, low + 4, size))
    # "special"
    values = np.ldexp(values, generator.integers(-3, 4, size)).astype(np.longdouble)
    which = generator.random(size)
    smallest, largest = info.smallest_subnormal, info.max
    if dtype.name == "bfloat16":  # its instructions flush subnormal numbers to zero
        smallest = info.smallest_normal
    specials = [np.inf, -np.inf, np.nan, 0.0, -0.0, largest, -largest, smallest, largest / 2]
    for i, special in enumerate(specials):
        values[(which >= i / 100) & (which < (i + 1) / 100)] = special
    return values


def _make_pool(dtype: "np.dtype[Any]", mode: str) -> np.ndarray:
    generator = np.random.default_rng([dtype.num, ord(mode[0])])
    if dtype.name in ("int4", "uint4"):
        return generator.integers(0, 2, POOL_SIZE).astype(dtype)
    if mode == "exact" or dtype.kind in "iub":
        return _draw_integers(generator, dtype, POOL_SIZE)
    if dtype.kind not in "fcV" or dtype.type is np.void or dtype.name == "float8_e8m0fnu":
        return np.zeros(POOL_SIZE, dtype)
    real = np.zeros(0, dtype).real.dtype if dtype.kind == "c" else dtype
    with np.errstate(all="ignore"):
        if dtype.kind == "c":
            values = np.empty(POOL_SIZE, dtype)
            values.real = _draw_reals(generator, real, POOL_SIZE, mode)
            values.imag = _draw_reals(generator, real, POOL_SIZE, mode)
            return values
        values = _draw_reals(generator, dtype, POOL_SIZE, mode)
        return values.astype("f8").astype(dtype) if not is_numpys(dtype) else values.astype(dtype)


_pools: dict[tuple[Any, str], np.ndarray] = {}

VALUES = ("exact", "rounded", "special", "tiny")
"""Modes: integers; floats of moderate size; some infinities, NaNs and extremes; tiny floats."""


def values(draw: random.Random, dtype: "np.dtype[Any]", mode: str, size: int) -> np.ndarray:
    """`size` values of a dtype and mode."""
    key = dtype, mode
    pool = _pools.get(key)
    if pool is None:
        native = dtype.newbyteorder("=")
        pool = _pools[key] = _make_pool(native, mode)
    if size > POOL_SIZE:
        return np.resize(pool, size)
    start = int(draw.random() * (POOL_SIZE - size))
    return pool[start : start + size]


def poison(dtype: "np.dtype[Any]", length: int) -> bytearray:
    """Bytes that are seen in a result which reads them as elements."""
    byte = 0x7F if dtype.kind in "iu" else 0x01 if dtype.kind == "b" else 0xFF
    return bytearray([byte]) * length


# --- memory ---


class Fences:
    """Memories that end, or begin, at a page without access."""

    SIZE = 1 << 17
    COUNT = 10

    def __init__(self) -> None:
        self._areas = [Area(self.SIZE) for _ in range(self.COUNT)]

    def hold(self, memories: Sequence[bytes], at_end: int) -> list[Any]:
        """Memories with these contents; bit i of `at_end`: memory i ends at the page."""
        found: list[Any] = []
        for i, content in enumerate(memories):
            size = len(content)
            if i >= self.COUNT or size > self.SIZE:
                found.append(bytearray(content))
                continue
            begin = self.SIZE - size if at_end >> i & 1 else 0
            area: Any = self._areas[i].memory
            part = memoryview(area)[begin : begin + size]
            part[:] = content
            found.append(part)
        return found


def reach(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int]:
    """Bytes of an array before its first element, and from its first element on."""
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
    """Strides of an array without gaps; the last axis of `order` has the smallest one."""
    strides, step = [0] * len(shape), itemsize
    for axis in reversed(order or range(len(shape))):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def permuted(array: Array, axes: Sequence[int]) -> Array:
    """A view with only these axes, in this order; it begins at the same element."""
    shape = tuple(array.shape[axis] for axis in axes)
    return array._replace(shape=shape, strides=tuple(array.strides[axis] for axis in axes))


def is_injective(array: Array) -> bool:
    """Whether no two elements share bytes, by a test that may say False of some such arrays."""
    pairs = sorted(
        (abs(stride), length)
        for stride, length in zip(array.strides, array.shape, strict=True)
        if length > 1
    )
    steps = [(array.dtype.itemsize, 1), *pairs]
    return all(one * count <= two for (one, count), (two, _) in pairwise(steps))
