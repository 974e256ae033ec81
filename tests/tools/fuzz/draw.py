"""Random choices of a case: lengths, dtypes, layouts, arrays."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from .recipe import Array, Call, dense, is_injective, poison, reach, values

FLOATS = ("float32", "float64")
OTHER_DTYPES = (
    *("complex64", "complex128", "float16", "bool"),
    *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")),
)
LOW_PRECISION = (
    "bfloat16",
    *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz"),
)
UNUSUAL_DTYPES = (
    *("longdouble", "clongdouble", "M8[s]", "m8[s]"),
    *("int4", "uint4", "float8_e8m0fnu", "float6_e2m3fn"),
)
OBJECTS, TEXTS = ("object",), ("S2", "U2")
"""They are not used in the same case: a Python number times a Python string repeats the string. For
the same reason there is no "V4": `numpy.dot` of it and of integers multiplies objects."""


def dtype_of(name: str) -> "np.dtype[Any]":
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


ALL_DTYPES = [dtype_of(name) for name in (*FLOATS, *OTHER_DTYPES, *LOW_PRECISION)]
RARE_DTYPES = [[dtype_of(name) for name in (*UNUSUAL_DTYPES, *more)] for more in (OBJECTS, TEXTS)]
LENGTHS = (2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 23, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65)
LONG_LENGTHS = (79, 80, 96, 97, 127, 128, 129, 200, 255, 257, 300)
SIDES = (64, 65, 66, 72, 80, 95, 96, 97, 112, 127, 128, 129, 144, 160, 191, 192, 193, 200)
"""Rows of a matrix of several register tiles that is multiplied by its own transpose."""

MAX_SELF_WORK = 1 << 20
"""Multiplications of such a product."""

MAX_WORK = 1 << 14
"""Multiplications of an ordinary product, approximately."""

MAX_LARGE_WORK = 1 << 22
"""Multiplications of a product that several threads share."""


class Theme(NamedTuple):
    """The lengths, dtypes and fused layers of a batch: few, so that few kernels are compiled.

    `sides` are lengths of several register tiles, for products of a matrix and its own transpose.
    """

    lengths: tuple[int, ...]
    sides: tuple[int, ...]
    dtypes: "tuple[np.dtype[Any], ...]"
    layers: tuple[tuple[str, str, bool], ...]

    @classmethod
    def of(cls, seed: int, batch: int) -> "Theme":
        draw = random.Random(f"{seed}/{batch}")
        a, b, c = draw.sample(LENGTHS, 3)
        if draw.random() < 0.3:
            c = draw.choice(LONG_LENGTHS)
        lengths = (0, 1, 1, *3 * [a], *3 * [b], c, draw.choice(LENGTHS[:6]))
        sides = draw.choice(SIDES), draw.randrange(64, 201)
        dtypes = draw.choices((*map(dtype_of, FLOATS), *ALL_DTYPES), k=4)
        layers = [
            (
                draw.choice(("", "columns", "columns", "rows")),
                draw.choice(("", "relu", "clip", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh")),
                draw.random() < 0.3,
            )
            for _ in range(2)
        ]
        return cls(lengths, sides, tuple(dtypes), (*[("", "", False)] * 3, *layers))


class Draw:
    """The choices of one case, and the memories of its arrays."""

    def __init__(self, seed: str, theme: Theme) -> None:
        self.random = random.Random(seed)
        self.theme = theme
        self.memories: list[bytearray] = []
        self.mode = self.random.choices(("exact", "rounded", "special", "tiny"), (55, 30, 9, 6))[0]
        self.rare = self.choice(RARE_DTYPES)
        self.large = self.chance(0.004)
        """Whether the matrices are large, or many."""
        self.many = self.large and self.chance(0.4)
        self.only_dense = False
        """Whether all arrays are dense, and in C order."""

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def below(self, limit: int) -> int:
        """A random integer in [0, limit)."""
        return int(self.random.random() * limit)

    def choice(self, options: Sequence[Any]) -> Any:
        return options[int(self.random.random() * len(options))]

    def length(self) -> int:
        large = self.large and not self.many
        found: int = self.choice(LONG_LENGTHS if large else self.theme.lengths)
        return found

    def lengths(self, count: int, limit: int = MAX_WORK) -> list[int]:
        """`count` lengths whose product is at most about `limit`."""
        if self.large and limit == MAX_WORK:
            limit = MAX_WORK if self.many else MAX_LARGE_WORK
        found: list[int] = []
        for _ in range(count):
            length = self.length()
            while length > limit:
                length = self.choice((1, 2, 3))
            limit //= max(length, 1)
            found.append(length)
        self.random.shuffle(found)
        return found

    def self_product(self) -> tuple[int, int]:
        """The lengths m and k of a matrix that is multiplied by its own transpose."""
        is_large = self.chance(0.1)
        m = self.choice(self.theme.sides) if is_large else self.length()
        limit = (MAX_SELF_WORK if is_large else 2 * MAX_WORK) // max(m * m, 1)
        k = self.length()
        while k > max(limit, 1):
            k = self.choice((1, 2, 3)) if limit < 16 else 1 + self.below(limit)
        return m, k

    def stack(self) -> list[int]:
        """The stack dimensions before those of a matrix."""
        if self.many:
            return [self.choice((40, 100, 300))]
        if self.large:
            return [2] if self.chance(0.2) else []
        if self.chance(0.6):
            return []
        return [
            self.choice((1, 2, 3, 3, 5)) if self.chance(0.96) else 0
            for _ in range(1 + self.below(3))
        ]

    def dtype(self) -> "np.dtype[Any]":
        chance = self.random.random()
        found: np.dtype[Any]
        if chance < 0.88:
            found = self.choice(self.theme.dtypes)
        elif chance < 0.985:
            found = self.choice(ALL_DTYPES)
        else:
            found = self.choice(self.rare)
        return found

    def dtypes(self, count: int = 2) -> "list[np.dtype[Any]]":
        """Dtypes of operands, which are mostly the same."""
        first = self.dtype()
        return [first] + [first if self.chance(0.8) else self.dtype() for _ in range(count - 1)]

    # --- arrays ---

    def layout(
        self, shape: Sequence[int], dtype: "np.dtype[Any]", overlaps: bool = True
    ) -> tuple[tuple[int, ...], int, int]:
        """Strides, the offset of the first element, and the size of the memory, all in bytes.

        With `overlaps` a dimension may have a stride of 0.
        """
        ndim, itemsize = len(shape), dtype.itemsize
        chance = self.random.random()
        if chance < 0.5 or ndim == 0 or self.only_dense:
            strides = dense(shape, itemsize)
        else:
            order = list(range(ndim))
            if ndim >= 2 and self.chance(0.7):
                i = ndim - 2 if self.chance(0.7) else self.below(ndim - 1)
                order[i], order[ndim - 1] = order[ndim - 1], order[i]
            elif self.chance(0.3):
                self.random.shuffle(order)
            found, step = [0] * ndim, itemsize
            is_dense = chance < 0.7
            for axis in reversed(order):
                factor = 1 if is_dense else self.choice((1, 1, 1, 1, 2, 3, -1, -1, -2))
                found[axis] = factor * step
                step *= abs(factor) * max(shape[axis], 1)
                if not is_dense and self.chance(0.3):
                    step += itemsize * (1 + self.below(4))
                if overlaps and not is_dense and self.chance(0.07):
                    found[axis] = 0
                elif not is_dense and self.chance(0.01) and itemsize > 1:
                    step += itemsize // 2  # rows are misaligned
            strides = tuple(found)
        low, high = reach(shape, strides, itemsize)
        return strides, low, max(low + high, itemsize)  # as in NumPy, empty arrays have memory

    def array(
        self,
        shape: Sequence[int],
        dtype: "np.dtype[Any]",
        kinds: bool = True,
        overlaps: bool = True,
        swapped: bool = True,
    ) -> Array:
        """An array of random values, in a memory of its own."""
        if swapped and dtype.itemsize > 1 and self.chance(0.03):
            dtype = dtype.newbyteorder()
        strides, offset, size = self.layout(shape, dtype, overlaps)
        shift = 0
        if dtype.itemsize > 1 and 0 not in shape and self.chance(0.03):
            shift = self.choice((1, dtype.itemsize // 2))
        if dtype.kind == "O":  # only NumPy may allocate memory for objects
            return self._object(shape, dtype)
        memory = poison(dtype, size + 2 * shift)
        found = Array(len(self.memories), dtype, tuple(shape), strides, offset + shift)
        self.memories.append(memory)
        if size:
            count = 1
            for length in shape:
                count *= length
            view = found.bare(self.memories)
            with np.errstate(all="ignore"):
                view[...] = values(self.random, dtype, self.mode, count).reshape(shape)
        return self.as_kind(found) if kinds else found

    def _object(self, shape: Sequence[int], dtype: "np.dtype[Any]") -> Array:
        found = self.array(shape, np.dtype("i8"), kinds=False)
        return found._replace(kind="object")

    def as_kind(self, array: Array) -> Array:
        if self.chance(0.88) or array.kind != "array":
            return array
        kinds = ["read-only", "sub", "masked", "list", "arrayish"]
        if len(array.shape) == 2:
            kinds.append("matrix")
        if not array.shape:
            kinds.append("scalar")
        return array._replace(kind=self.choice(kinds))

    def alias(self, view: Array) -> Array:
        """A view of an array's memory, as it is or with a small difference.

        The difference is a shift by rows or columns, reversed axes, other strides, or another dtype
        of the same size; or the view is of a copy of the memory, whose complex numbers may be
        conjugated. The memory grows for the view, and has other values then.
        """
        view = view._replace(kind="object" if view.kind == "object" else "array")
        itemsize = view.dtype.itemsize
        given = view
        has_whole_steps = not any(step % itemsize for step in view.strides)
        if has_whole_steps and view.shape and view.kind == "array" and self.chance(0.4):
            with_other_steps = self._reversed, self._restrided, self._restrided
            change = self.choice((*with_other_steps, self._shifted, self._recast, self._copied))
            view = change(view)
        low, high = reach(view.shape, view.strides, itemsize)
        if view.offset < low:
            view = view._replace(offset=low + (view.offset - low) % itemsize)
        memory = self.memories[view.memory]
        missing = max(view.offset + high - len(memory), 0)
        if missing:
            memory.extend(bytes(missing + -(len(memory) + missing) % 16))
        if missing or (view != given and view.memory == given.memory):  # it may read gaps
            self._refill(view)
        return view

    def _shifted(self, view: Array) -> Array:
        step = self.choice(view.strides) * self.choice((1, 1, 1, 2, -1))
        return view._replace(offset=view.offset + step)

    def _reversed(self, view: Array) -> Array:
        strides, offset = list(view.strides), view.offset
        for axis, length in enumerate(view.shape):
            if self.chance(0.6):
                offset += strides[axis] * max(length - 1, 0)
                strides[axis] *= -1
        return view._replace(strides=tuple(strides), offset=offset)

    def _restrided(self, view: Array) -> Array:
        itemsize, strides = view.dtype.itemsize, list(view.strides)
        axis = self.below(len(strides))
        if self.chance(0.5):
            order = self.random.sample(range(len(strides)), len(strides))
            return view._replace(strides=dense(view.shape, itemsize, order))
        strides[axis] += self.choice((itemsize, -itemsize, strides[axis], -strides[axis]))
        return view._replace(strides=tuple(strides))

    def _recast(self, view: Array) -> Array:
        dtype = view.dtype
        if dtype.kind not in "iu":  # other bytes may be signaling NaN
            return view
        other = np.dtype(f"{'i' if dtype.kind == 'u' else 'u'}{dtype.itemsize}")
        return view._replace(dtype=self.choice((other, dtype.newbyteorder())))

    def _copied(self, view: Array) -> Array:
        memory = self.memories[view.memory][:]
        self.memories.append(memory)
        start, itemsize = view.offset % view.dtype.itemsize, view.dtype.itemsize
        if view.dtype.kind == "c" and self.chance(0.5):
            elements = np.frombuffer(memory, view.dtype, (len(memory) - start) // itemsize, start)
            np.conjugate(elements, out=elements)
        return view._replace(memory=len(self.memories) - 1)

    def _refill(self, view: Array) -> None:
        """Replace the elements of a whole memory by other ones."""
        memory, dtype = self.memories[view.memory], view.dtype
        start = view.offset % dtype.itemsize
        count = (len(memory) - start) // dtype.itemsize
        with np.errstate(all="ignore"):
            elements = values(self.random, dtype, self.mode, count).astype(dtype)
        memory[start : start + count * dtype.itemsize] = elements.tobytes()

    def out(self, shape: Sequence[int], dtype: "np.dtype[Any]", near: Sequence[Array]) -> Any:
        """An `out` argument for a result of this shape and dtype; it mostly fits."""
        chance = self.random.random()
        if chance < 0.02:
            return self.choice((None, 3, [1.0]))
        if self.chance(0.06):
            shape = [self.choice((2, 3)), *shape]
        elif self.chance(0.06):
            shape = [length + (self.chance(0.5)) for length in shape]
        if self.chance(0.15):
            dtype = self.dtype()
            if dtype.kind == "O":
                dtype = np.dtype("f8")
        if near and self.chance(0.25):
            return self.overlapping(shape, dtype, self.choice(near))
        found = self.array(shape, dtype, kinds=False, overlaps=False)
        if self.chance(0.08):
            kinds = ["read-only", "sub", "masked"] + ["matrix"] * (len(shape) == 2)
            found = found._replace(kind=self.choice(kinds))
        return found

    def overlapping(self, shape: Sequence[int], dtype: "np.dtype[Any]", other: Array) -> Array:
        """An array that overlaps another one, in the same memory, which grows for it."""
        same = tuple(shape) == other.shape and dtype == other.dtype and self.chance(0.4)
        if same and is_injective(other):
            return other._replace(kind="array")
        memory = self.memories[other.memory]
        strides, offset, size = self.layout(shape, dtype, overlaps=False)
        start = self.below(len(memory) + 1)
        start -= (start - other.offset) % dtype.itemsize if self.chance(0.9) else 0
        start = max(start, 0)
        memory.extend(poison(dtype, max(start + size - len(memory), 0)))
        memory.extend(bytes(-len(memory) % 16))  # the same alignment at either end of an area
        return Array(other.memory, dtype, tuple(shape), strides, start + offset)

    def call(
        self, function: str, args: Sequence[Any], kwargs: dict[str, Any], depth: int = 1
    ) -> Call:
        memories = [bytes(memory) for memory in self.memories]
        return Call(function, tuple(args), kwargs, memories, self.mode, depth)
