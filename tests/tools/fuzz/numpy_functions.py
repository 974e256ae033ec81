"""Random calls of the functions that NumPy has too, and the comparison of their results."""

import string
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .draw import MAX_SELF_WORK, Draw
from .recipe import Array, Call, dense, each, finfo, is_numpys, permuted

CASTING = ("no", "equiv", "safe", "same_kind", "unsafe", "unsafe", "nonsense")
CORES = {
    "matmul": ("mk", "kn", "mn"),
    "vecdot": ("k", "k", ""),
    "matvec": ("mk", "k", "m"),
    "vecmat": ("k", "kn", "n"),
}
"""Core dimensions of the gufuncs: of both operands, and of the result."""

VIEWS = {"matmul": (-1, -2), "vecdot": (-1,), "matvec": (-1,)}
"""Axes of the first operand that fit as the core dimensions of the second one."""

ALIASED = 0.15
"""Share of the calls whose operands are views of one array, such as a matrix and its transpose."""

Draws = Callable[[Draw], Call]


def named(draw: Draw, args: list[Any], names: str) -> dict[str, Any]:
    """Turn some of the last arguments into keyword arguments."""
    kwargs = {}
    while args and draw.chance(0.3):
        kwargs[names[len(args) - 1]] = args.pop()
    return kwargs


def operands(
    draw: Draw, shapes: list[list[int]], alias: "Callable[[Array], Array] | None" = None
) -> list[Array]:
    """Arrays of these shapes.

    The second may be an alias of the first: of the view of it that `alias` returns.
    """
    dtypes = draw.dtypes(len(shapes))
    found = [draw.array(shapes[0], dtypes[0])]
    # the result of dot of a 3-d stack and itself is as large as the square of its size
    is_small = prod(shapes[0]) <= (1 << 14 if len(shapes[0]) <= 2 else 1 << 10)
    for shape, dtype in zip(shapes[1:], dtypes[1:], strict=True):
        if alias and is_small:
            found.append(draw.alias(alias(found[0])))
        elif is_small and draw.chance(0.02):
            found.append(found[0])
        else:
            found.append(draw.array(shape, dtype))
    return found


def view(draw: Draw, core: Sequence[int], count: int = 2) -> "Callable[[Array], Array]":
    """A function that takes a view of an array, for a product with that array.

    The view has the axes `core`, in this order, and mostly those before the last `count` axes.
    """

    def view_of(array: Array) -> Array:
        axes = list(range(len(array.shape)))
        stack, last = axes[:-count], [axes[x] for x in core if -x <= len(axes)]
        if draw.chance(0.1):
            del stack[: 1 + draw.below(2)]
        elif draw.chance(0.1):
            draw.random.shuffle(stack)
        if draw.chance(0.1):
            last.reverse()
        return permuted(array, [*stack, *last])

    return view_of


def mistake(draw: Draw, shapes: list[list[int]]) -> None:
    """Make a dimension of one of the shapes wrong, or remove all its dimensions."""
    shape = draw.choice(shapes)
    if draw.chance(0.3):
        shape[:] = []
    elif shape:
        shape[draw.below(len(shape))] += 1


def numpy_result(function: Any, args: list[Any], kwargs: dict[str, Any], draw: Draw) -> Any:
    """NumPy's result, for its shape and dtype; None if NumPy raises an error."""
    call = Call("", tuple(args), kwargs, draw.memories, "")  # type: ignore[arg-type]
    arrays, named = call.arguments([bytearray(memory) for memory in draw.memories])
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(*arrays, **named))
    except Exception:
        return None


def with_out(draw: Draw, function: Any, args: list[Any], kwargs: dict[str, Any]) -> "Array | Any":
    """An `out` argument for a call; None if NumPy refuses the call anyway."""
    result = numpy_result(function, args, kwargs, draw)
    if result is None or result.dtype.kind == "O":
        return None
    near = [x for x in args if isinstance(x, Array) and x.kind == "array"]
    return draw.out(result.shape, result.dtype, near)


def gufunc(draw: Draw, name: str) -> Call:
    """A random call of a gufunc."""
    cores = CORES[name]
    length = dict(zip("kmn", draw.lengths(3), strict=True))
    shapes = []
    stack = draw.stack()
    alias = None
    if name in VIEWS and draw.chance(ALIASED):
        alias = view(draw, VIEWS[name], len(cores[0]))
        length["m"], length["k"] = draw.self_product()
        length["n"] = length["m"]
        stack = stack if length["m"] not in draw.theme.sides else []
    for core in cores[:2]:
        shape = [length[x] for x in core]
        if name == "matmul" and draw.chance(0.1):
            shape = [length["k"]]  # a vector
        elif draw.chance(0.7):
            own = stack[draw.below(len(stack)) :] if stack and draw.chance(0.3) else stack
            shape = [x if draw.chance(0.8) else 1 for x in own] + shape
        shapes.append(shape)
    if draw.chance(0.04):
        mistake(draw, shapes)
    kwargs: dict[str, Any] = {}
    if draw.chance(0.3):
        gufunc_options(draw, name, shapes, kwargs)
    args: list[Any] = list(operands(draw, shapes, alias))
    if draw.chance(0.2):
        out = with_out(draw, getattr(np, name), args, kwargs)
        if "axes" in kwargs and out is not None and len(kwargs["axes"]) == 2:
            del kwargs["axes"]
        if draw.chance(0.3):
            args.append(out)
        else:
            kwargs["out"] = (out,) if draw.chance(0.3) else out
    if draw.chance(0.003):
        args = args[:1] if draw.chance(0.5) else [*args, *args]
    return draw.call(name, args, kwargs, max(length["k"], 1))


def gufunc_options(draw: Draw, name: str, shapes: list[list[int]], kwargs: dict[str, Any]) -> None:
    """Add random options; some change the shapes of the operands."""
    for _ in range(1 + draw.chance(0.3)):
        chance = draw.random.random()
        if chance < 0.25:
            kwargs["dtype"] = draw.choice((draw.dtype(), draw.dtype(), "f", "d", None))
            if draw.chance(0.6):
                kwargs["casting"] = draw.choice(CASTING)
        elif chance < 0.35:
            kwargs["casting"] = draw.choice(CASTING)
        elif chance < 0.5:
            kwargs["order"] = draw.choice(("C", "F", "A", "K", "K", "X", None))
        elif chance < 0.57:
            kwargs["subok"] = draw.chance(0.3)
        elif chance < 0.67:
            given = signature(draw)
            kwargs["signature" if draw.chance(0.8) else "sig"] = given
        elif chance < 0.85:
            kwargs["axes"] = moved_axes(draw, CORES[name], shapes)
        elif chance < 0.92:
            kwargs["axis"] = draw.choice((0, -1, -2, 1))
            if name == "vecdot":
                move_last_axis(shapes, kwargs["axis"])
        elif chance < 0.97:
            kwargs["keepdims"] = draw.chance(0.7)
        else:
            kwargs[draw.choice(("where", "nonsense", "extobj"))] = True


def signature(draw: Draw) -> Any:
    """A `signature` argument: a tuple of dtypes, or a string."""
    types = [draw.choice(draw.theme.dtypes) for _ in range(3)]
    if draw.chance(0.5):
        types = types[:1] * 3
    given: Any = tuple(x if draw.chance(0.7) else None for x in types)
    if draw.chance(0.3):
        given = "{}{}->{}".format(*(x.char for x in types))
    return given


def move_last_axis(shapes: list[list[int]], axis: int) -> None:
    """Move the last dimension of the shapes to `axis`, where they have it."""
    for shape in shapes:
        if shape and -len(shape) <= axis < len(shape):
            shape.insert(axis % len(shape), shape.pop())


def moved_axes(draw: Draw, cores: tuple[str, ...], shapes: list[list[int]]) -> Any:
    """An `axes` argument; the core dimensions of the operands' shapes are moved accordingly."""
    axes: list[Any] = []
    for core, shape in zip(cores, shapes, strict=False):
        if len(shape) < len(core):
            axes.append(tuple(range(len(shape))))
            continue
        count = len(core)
        places = draw.random.sample(range(len(shape)), count)
        lengths = dict(zip(places, shape[len(shape) - count :], strict=True))
        others = iter(shape[: len(shape) - count])
        shape[:] = [lengths[i] if i in lengths else next(others) for i in range(len(shape))]
        axes.append(tuple(p - len(shape) if draw.chance(0.4) else p for p in places))
    core = cores[2]
    if draw.chance(0.8):
        ndim = max(map(len, shapes)) - max(map(len, cores[:2])) + len(core)
        if ndim >= len(core):
            places = draw.random.sample(range(ndim), len(core))
            axes.append(tuple(places) if draw.chance(0.9) else tuple(p + 1 for p in places))
    if draw.chance(0.05) and axes:
        axes.pop()
    if draw.chance(0.05) and axes:
        axes[draw.below(len(axes))] = draw.choice((0, (0, 1, 2), None, (9,)))
    return [x[0] if type(x) is tuple and len(x) == 1 and draw.chance(0.5) else x for x in axes]


def outer(draw: Draw, aliased: bool) -> tuple[list[int], list[int], int]:
    """Shapes of two stacks for `dot` and `inner`, which multiply all pairs; and k."""
    if aliased:
        m, k = draw.self_product()
        stack = draw.stack()[:1] if m < 8 else []
        return [*stack, m, k], [*stack, k, m], k
    m, k, n = draw.lengths(3)
    a = [*draw.stack()[:2], m, k] if draw.chance(0.75) else [k]
    has_room = len(a) < 3 or (m * n < 1 << 8 and not draw.large)
    b = [*(draw.stack()[:2] if has_room else []), k, n] if draw.chance(0.75) else [k]
    return a, b, k


def dot(draw: Draw) -> Call:
    aliased = draw.chance(ALIASED)
    a, b, k = outer(draw, aliased)
    if draw.chance(0.05):
        draw.choice((a, b))[:] = []
    elif draw.chance(0.04):
        mistake(draw, [a, b])
    args: list[Any] = list(operands(draw, [a, b], view(draw, (-1, -2)) if aliased else None))
    kwargs: dict[str, Any] = {}
    if draw.chance(0.2):
        out = with_out(draw, np.dot, args, {})
        if draw.chance(0.5):
            args.append(out)
        else:
            kwargs["out"] = out
    elif draw.chance(0.05):
        kwargs = named(draw, args, "ab")
    return draw.call("dot", args, kwargs, max(k, 1))


def inner(draw: Draw) -> Call:
    aliased = draw.chance(ALIASED)
    a, b, k = outer(draw, aliased)
    b[-2:] = b[:-3:-1]
    if draw.chance(0.08):
        mistake(draw, [a, b])
    args = operands(draw, [a, b], view(draw, (-2, -1)) if aliased else None)
    return draw.call("inner", args, {}, max(k, 1))


def vdot(draw: Draw) -> Call:
    shape = draw.lengths(1 + draw.below(3), 1 << 10)
    other = list(shape)
    if draw.chance(0.4):
        draw.random.shuffle(other)
    if draw.chance(0.2):
        other = [prod(shape)]
    shapes = [shape, other]
    if draw.chance(0.08):
        mistake(draw, shapes)
    depth = max(prod(shape), 1)
    core = draw.choice(((-2, -1), (-1, -2)))
    alias = view(draw, core) if draw.chance(ALIASED) else None
    return draw.call("vdot", operands(draw, shapes, alias), {}, depth)


def tensordot(draw: Draw) -> Call:
    """A random call of `tensordot`."""
    if draw.chance(ALIASED):
        return tensordot_of_views(draw)
    common = draw.lengths(draw.below(3), 256)
    left, right = (draw.lengths(draw.below(3), 256) for _ in range(2))
    count = len(common)
    axes: Any
    if draw.chance(0.4):
        axes, a, b = count, [*left, *common], [*common, *right]
    else:
        a, b = [*left, *common], [*common, *right]
        a_axes = list(range(len(left), len(a)))
        b_axes = list(range(count))
        order = draw.random.sample(range(count), count)
        a_axes, b_axes = [a_axes[i] for i in order], [b_axes[i] for i in order]
        a, a_axes = shuffle_axes(draw, a, a_axes)
        b, b_axes = shuffle_axes(draw, b, b_axes)
        axes = draw.choice(
            (
                *((a_axes, b_axes), [a_axes, b_axes]),
                *((tuple(a_axes), tuple(b_axes)), [tuple(a_axes), b_axes]),
            )
        )
        if count == 1 and draw.chance(0.5):
            axes = (a_axes[0], b_axes[0])
        if draw.chance(0.04):
            axes = draw.choice((1, 3, (a_axes, b_axes[:-1]), ([0, 0], [0, 0]), -1, "x", (9, 0)))
    if draw.chance(0.04):
        mistake(draw, [a, b])
    args: list[Any] = list(operands(draw, [a, b]))
    if axes == 2 and draw.chance(0.5):
        return draw.call("tensordot", args, {}, max(prod(common), 1))
    depth = max(prod(common), 1)
    if draw.chance(0.5):
        return draw.call("tensordot", [*args, axes], {}, depth)
    return draw.call("tensordot", args, {"axes": axes}, depth)


def tensordot_of_views(draw: Draw) -> Call:
    """A call of `tensordot` for an array and a view of it, over the same axes of both."""
    m, k = draw.self_product()
    free, common = [m], [k]
    if m not in draw.theme.sides:
        for shape in (free, common):
            shape[:0] = draw.choice(([], [], [2], [1], [3]))
    count = len(common)
    axes: Any = count
    array = draw.array([*free, *common], draw.dtype())
    order = [*range(len(free), len(array.shape)), *range(len(free))]
    if draw.chance(0.6):
        places = draw.random.sample(range(len(array.shape)), len(array.shape))
        array = permuted(array, places)
        a_axes = [places.index(len(free) + i) for i in range(count)]
        if draw.chance(0.6):
            order = draw.random.sample(range(len(places)), len(places))
        elif draw.chance(0.7):
            order = list(range(len(places)))
        axes = a_axes, [order.index(x) for x in a_axes]
    args: list[Any] = [array, draw.alias(permuted(array, order))]
    return draw.call("tensordot", args, {"axes": axes}, max(prod(common), 1))


def shuffle_axes(draw: Draw, shape: list[int], axes: list[int]) -> tuple[list[int], list[int]]:
    """A permuted shape, and where the axes are in it."""
    order = draw.random.sample(range(len(shape)), len(shape))
    found = [order.index(axis) for axis in axes]
    if draw.chance(0.3):
        found = [axis - len(shape) for axis in found]
    return [shape[i] for i in order], found


def multi_dot(draw: Draw) -> Call:
    count = draw.choice((2, 3, 3, 4, 5)) if draw.chance(0.97) else draw.choice((0, 1))
    lengths = [draw.length() % 40 for _ in range(count + 1)]
    aliased = draw.chance(ALIASED)
    if aliased:  # a matrix, its transpose, the matrix, ...
        pair = draw.self_product()
        lengths = [pair[i % 2] for i in range(count + 1)]
    shapes = [[x, y] for x, y in pairwise(lengths)]
    if shapes and not aliased and draw.chance(0.3):
        del shapes[0][0]
    if shapes and not aliased and draw.chance(0.3):
        shapes[-1].pop()
    if shapes and draw.chance(0.05):
        mistake(draw, shapes)
    dtypes = draw.dtypes(count) if count else []
    arrays = [draw.array(shape, x) for shape, x in zip(shapes, dtypes, strict=True)]
    if aliased:
        for i in range(1, count):
            arrays[i] = draw.alias(view(draw, (-1, -2))(arrays[i - 1]))
    given: Any = arrays if draw.chance(0.7) else tuple(arrays)
    kwargs = {}
    if draw.chance(0.15):
        result = numpy_result(np.linalg.multi_dot, [given], {}, draw)
        if result is not None and result.dtype.kind != "O":
            kwargs["out"] = draw.out(result.shape, result.dtype, arrays)
    return draw.call("multi_dot", [given], kwargs, max(sum(lengths), 1))


def matrix_power(draw: Draw) -> Call:
    size = draw.length() % 20
    shape = [*draw.stack()[:1], size, size]
    if draw.chance(0.05):
        mistake(draw, [shape])
    power = draw.choice((0, 1, 2, 3, 3, 4, 5, 7, 10, 2.5, -1))
    if power == -1:  # nkblas leaves inverses to NumPy
        power = 1
    depth = max(size * 4 * max(int(power), 1), 1)
    return draw.call("matrix_power", [draw.array(shape, draw.dtype()), power], {}, depth)


def einsum(draw: Draw) -> Call:
    """A random call of `einsum`."""
    count = draw.random.choices((1, 2, 3), (12, 75, 13))[0]
    letters = draw.random.sample(string.ascii_letters, 8)
    lengths = {x: draw.length() or 1 for x in letters}
    aliased = draw.chance(ALIASED)
    if aliased:
        terms, used, arrays = einsum_of_views(draw, letters, lengths)
    else:
        if draw.chance(0.06):  # NumPy reads and writes beyond empty arrays that are not dense
            lengths[letters[0]], draw.only_dense = 0, True
        operand_labels, used = einsum_labels(draw, count, letters[:6], lengths)
        terms, shapes = einsum_terms(draw, operand_labels, lengths)
        dtypes = draw.dtypes(count)
        arrays = [draw.array(shape, x) for shape, x in zip(shapes, dtypes, strict=True)]
        is_repeated = count == 2 and len(shapes[0]) == len(shapes[1]) and draw.chance(0.05)
        if is_repeated and arrays[0].kind == "array":
            arrays[1] = arrays[0]
    out = None
    if draw.chance(0.4 if aliased else 0.75):
        out = einsum_output(draw, terms, used, letters)
    args = einsum_lists(draw, terms, arrays, out) if draw.chance(0.15) else None
    if args is None:
        text = ",".join(terms) if draw.chance(0.9) else ", ".join(terms)
        text = text if out is None else f"{text}->{out}"
        if draw.chance(0.01):  # another character, or one less
            place = draw.below(len(text) + 1)
            text = text[:place] + draw.choice(("", ",", ".", "-", ">", "a")) + text[place + 1 :]
            out = ""
        args = [text, *arrays]
    if draw.chance(0.005):
        args = args[:-1] if draw.chance(0.5) else [*args, arrays[0]]
    kwargs = einsum_options(draw)
    if draw.chance(0.15):
        result = numpy_result(np.einsum, args, kwargs, draw)
        if result is not None and result.dtype.kind != "O":
            kwargs["out"] = draw.out(result.shape, result.dtype, arrays)
    kept = [x for x in used if "".join(terms).count(x) == 1] if out is None else out
    depth = prod(max(lengths[x], 1) for x in used if x not in kept)
    return draw.call("einsum", args, kwargs, 6 * depth)


def einsum_of_views(
    draw: Draw, letters: list[str], lengths: dict[str, int]
) -> tuple[list[str], list[str], list[Array]]:
    """Subscripts, all labels, and operands that are an array and a view of it.

    The view has the axes of the array in any order, and some of them have other labels: those over
    which the product of all pairs is formed.
    """
    ndim = draw.choice((1, 2, 2, 2, 2, 3, 3, 4))
    labels, others = letters[:ndim], letters[ndim : 2 * ndim]
    m, k = draw.self_product()
    for x, y, length in zip(labels, others, (m, k, draw.choice((1, 2, 3)), 2), strict=False):
        lengths[x] = lengths[y] = max(length, 1)
    work = prod(lengths[x] for x in labels)
    renamed = {}
    for x, y in draw.random.sample(list(zip(labels, others, strict=True)), ndim):
        if draw.chance(0.5) and work * lengths[x] <= MAX_SELF_WORK:
            renamed[x] = y
            work *= lengths[x]
    places = draw.random.sample(range(ndim), ndim)
    left = [labels[i] for i in places]
    order = draw.random.sample(range(ndim), ndim) if draw.chance(0.5) else list(range(ndim))
    right = [renamed.get(left[i], left[i]) for i in order]
    array = draw.array([lengths[x] for x in left], draw.dtype())
    arrays = [array, draw.alias(permuted(array, order))]
    return ["".join(left), "".join(right)], list(dict.fromkeys(left + right)), arrays


def einsum_labels(
    draw: Draw, count: int, letters: list[str], lengths: dict[str, int]
) -> tuple[list[list[str]], list[str]]:
    """Labels of each operand, and all labels.

    Some of the `lengths` are reduced to bound their product.
    """
    operand_labels: list[list[str]] = []
    used: list[str] = []
    size = 1
    for i in range(count):
        ndim = draw.below(4) if draw.chance(0.8) else draw.below(6)
        labels: list[str] = []
        for _ in range(ndim):
            if i and used and draw.chance(0.5):
                labels.append(draw.choice(used))
            else:
                labels.append(draw.choice(letters[:4] if draw.chance(0.8) else letters))
            is_repeated = labels[-1] in labels[:-1]
            if is_repeated and (lengths[labels[-1]] > 5 or draw.chance(0.6)):
                labels.pop()
        for x in labels:
            if x not in used:
                while size * lengths[x] > 1 << 13:
                    lengths[x] = draw.choice((1, 2, 3))
                size *= max(lengths[x], 1)
                used.append(x)
        operand_labels.append(labels)
    return operand_labels, used


def einsum_terms(
    draw: Draw, operand_labels: list[list[str]], lengths: dict[str, int]
) -> tuple[list[str], list[list[int]]]:
    """The subscripts and the shape of each operand; some have an ellipsis, some a mistake."""
    terms, shapes = [], []
    for labels in operand_labels:
        shape = [lengths[x] if draw.chance(0.96) else 1 for x in labels]
        if draw.chance(0.02) and shape:
            mistake(draw, [shape])
        text = "".join(labels)
        if draw.chance(0.15):
            place = draw.below(len(labels) + 1)
            text = f"{text[:place]}...{text[place:]}"
            shape[place:place] = draw.choice(([], [2], [3, 2], [2], [1, 2]))
        terms.append(text)
        shapes.append(shape)
    return terms, shapes


def einsum_output(draw: Draw, terms: list[str], used: list[str], letters: list[str]) -> str:
    """The subscripts of the result."""
    picked = [x for x in used if draw.chance(0.5)]
    draw.random.shuffle(picked)
    out = "".join(picked)
    if any("..." in term for term in terms) or draw.chance(0.02):
        place = draw.below(len(out) + 1)
        out = f"{out[:place]}...{out[place:]}"
    if draw.chance(0.02):
        out += draw.choice((*letters, "..", "1", " "))
    return out


def einsum_options(draw: Draw) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if draw.chance(0.3):
        paths = ["einsum_path", (0, 1)], ["einsum_path", (1, 2), (0, 1)], ["einsum_path", (0, 1, 2)]
        limited = ("greedy", 64), ("optimal", 10**6)
        kwargs["optimize"] = draw.choice(
            (True, True, False, "greedy", "optimal", *limited, *paths, "nonsense")
        )
    if draw.chance(0.08):
        kwargs["dtype"] = draw.dtype()
    if draw.chance(0.12):
        kwargs["casting"] = draw.choice(CASTING)
    if draw.chance(0.12):
        kwargs["order"] = draw.choice("CFAKX")
    return kwargs


def einsum_lists(
    draw: Draw, terms: list[str], arrays: list[Array], out: str | None
) -> list[Any] | None:
    """Arguments with lists of numbers as subscripts; None if a label is no letter."""

    def numbers(term: str) -> list[Any] | None:
        found: list[Any] = []
        before, dots, after = term.partition("...")
        for part in (before, dots, after):
            if part == "...":
                found.append(Ellipsis)
                continue
            for x in part:
                if x not in string.ascii_letters:
                    return None
                found.append(string.ascii_letters.index(x))
        return found

    args: list[Any] = []
    for term, array in zip(terms, arrays, strict=True):
        labels = numbers(term)
        if labels is None:
            return None
        args += [array, labels if draw.chance(0.8) else tuple(labels)]
    if out is not None:
        labels = numbers(out)
        if labels is None:
            return None
        args.append(labels)
    return args


CALLS: dict[str, tuple[float, Draws]] = {
    "matmul": (30, lambda draw: gufunc(draw, "matmul")),
    "vecdot": (5, lambda draw: gufunc(draw, "vecdot")),
    "matvec": (5, lambda draw: gufunc(draw, "matvec")),
    "vecmat": (5, lambda draw: gufunc(draw, "vecmat")),
    "dot": (10, dot),
    "inner": (6, inner),
    "vdot": (4, vdot),
    "tensordot": (7, tensordot),
    "multi_dot": (4, multi_dot),
    "matrix_power": (2, matrix_power),
    "einsum": (14, einsum),
}
"""The functions: how often they are called, and how a call is drawn."""


# ---- comparison with NumPy


class Failed:
    """An error that a call has raised."""

    def __init__(self, error: Exception) -> None:
        self.kind, self.text = type(error), str(error)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Failed):
            return False
        return (self.kind, self.text) == (other.kind, other.text)

    def __repr__(self) -> str:
        return f"{self.kind.__name__}: {self.text}"


def outcome(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The result of a call, or a `Failed`."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return Failed(error)


WIDE = {"f": np.longdouble, "c": np.clongdouble}
"""Dtypes of reference results by kind."""

STRUCTURE = ("axes", "axis", "keepdims")
"""Options that are independent of dtypes."""


def describe(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        strides = getattr(value, "strides", ())
        return f"{type(value).__name__} {value.dtype} {value.shape} strides {strides}"
    return repr(value)


def compare_form(got: Any, want: Any) -> str:
    """The fault of the type, dtype, shape or memory order of a result; empty: none."""
    same = type(got) is type(want)
    # numpy.ulonglong may be another name of numpy.uint64
    same = same or (isinstance(got, np.integer) and isinstance(want, np.integer))
    if same and isinstance(want, np.ndarray | np.generic):
        same = got.dtype == want.dtype and got.shape == want.shape
        if same and got.strides != want.strides:
            pairs = zip(got.shape, got.strides, want.strides, strict=True)
            same = got.size == 0 or all(length == 1 or x == y for length, x, y in pairs)
    return "" if same else f"{describe(got)}, expected {describe(want)}"


def equal(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether all elements are equal; NaN equals NaN, and 0 equals -0."""
    if got.dtype == bool:
        got, want = got.view("u1"), want.view("u1")
    same = got == want
    if np.all(same):
        return True
    return bool(np.all(same | ((got != got) & (want != want))))


def real_dtype(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    return np.zeros(0, dtype).real.dtype if dtype.kind == "c" else dtype


def accumulator_dtype(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    """The real dtype in which a product of this dtype accumulates."""
    real = real_dtype(dtype)
    if real.kind in "iub":
        return np.dtype(np.float64)
    return np.dtype(np.float32) if real.itemsize < 4 else real


def compare_rounded(
    got: np.ndarray,
    product: np.ndarray,
    size: np.ndarray,
    finite_size: np.ndarray,
    terms: float,
    sums: "np.dtype[Any]",
    flushed: bool = False,
) -> str:
    """The fault of values that may be rounded; empty: none.

    Parameters
    ----------
    got : ndarray
    product : ndarray
        The reference result, without rounding.
    size, finite_size : ndarray
        Sum of the magnitudes of all addends, and of the finite addends.
    terms : float
        The error bound, in units of ``eps * finite_size``.
    sums : dtype
        Dtype of the accumulator.
    flushed : bool
        Whether subnormal numbers may be flushed to zero.
    """
    if got.dtype.kind == "c":
        parts = (got.real, product.real), (got.imag, product.imag)
        found = (compare_rounded(*part, size, finite_size, terms, sums) for part in parts)
        return next(filter(None, found), "")
    info = finfo(sums)
    smallest = info.smallest_normal if flushed else info.smallest_subnormal
    product, size, finite_size = (
        x.reshape(got.shape) if x.size == got.size else np.broadcast_to(x, got.shape)
        for x in (product, size, finite_size)  # numpy.matrix drops dimensions
    )
    bound = terms * info.eps * finite_size + 2 * terms * smallest
    native = got.dtype.newbyteorder("=")

    def rounded(x: np.ndarray) -> np.ndarray:
        x = x.astype(sums)
        return x.astype("f4").astype(native) if native.itemsize < 4 else x.astype(native)

    low, high = rounded(product - bound), rounded(product + bound)
    # some formats have NaN instead of infinity
    least = np.where((low != low) & (product == product), -np.inf, low.astype("g"))
    most = np.where((high != high) & (product == product), np.inf, high.astype("g"))
    good = (least <= got.astype("g")) & (got.astype("g") <= most)
    good |= (got != got) & ((low != low) | (high != high))
    good |= ~np.isfinite(size) & (got == rounded(product))
    good |= finite_size > info.max / 2  # sums may overflow in some orders
    if np.all(good):
        return ""
    wrong = np.argwhere(~np.asarray(good))
    place = tuple(map(int, wrong[0]))
    at = f"{len(wrong)} of {got.size} wrong, at {place} first: {got[place]!r}"
    return f"{at}, expected {product[place]!r} within {bound[place]:.3g}"


def overflows_alone(got: Any, wanted: Any) -> bool:
    """Whether a sum of ours overflowed where NumPy's, in another order, did not."""
    ours, numpys = np.asarray(got), np.asarray(wanted)
    if not np.issubdtype(ours.dtype, np.inexact):
        return False
    return bool((~np.isfinite(ours) & np.isfinite(numpys)).any())


def finite(x: np.ndarray) -> np.ndarray:
    """An array with infinities and NaNs replaced by zeros."""
    if x.dtype.kind == "c":
        x = x.copy()
        x.real, x.imag = finite(x.real), finite(x.imag)
        return x
    return np.where(np.isfinite(x), x, 0)


def split_out(call: Call) -> tuple[list[Any], list[Array]]:
    """The arguments without `out`, and the arrays that are given as `out`."""
    args = list(call.args)
    out = call.kwargs.get("out")
    found = [*out] if type(out) is tuple else [out]
    if call.function in (*CORES, "dot"):
        args, found = args[:2], args[2:] + found
        args += [call.kwargs[name] for name in "ab" if name in call.kwargs]
    return args, [x for x in found if isinstance(x, Array)]


def with_dense_out(call: Call) -> tuple[Call, Array | None]:
    """The call with a dense `out`, and its own `out` if that has gaps.

    With gaps NumPy's `vecmat` of complex numbers writes to wrong places, and so do other products
    if strides are no multiples of the itemsize.
    """
    outs = split_out(call)[1]
    if call.function not in CORES or len(outs) != 1:
        return call, None
    out = outs[0]
    if out.strides == dense(out.shape, out.dtype.itemsize):
        return call, None
    new = out._replace(
        memory=len(call.memories), offset=0, strides=dense(out.shape, out.dtype.itemsize)
    )
    kwargs, args = dict(call.kwargs), call.args
    if "out" in kwargs:
        kwargs["out"] = new if isinstance(kwargs["out"], Array) else (new,)
    else:
        args = (*args[:2], new)
    memory = bytes(prod(out.shape) * out.dtype.itemsize)
    return call._replace(args=args, kwargs=kwargs, memories=[*call.memories, memory]), out


def product_dtype(
    call: Call, function: Any, inputs: list[Array], contents: list[Any]
) -> "np.dtype[Any]":
    """The dtype of the product, before any conversion to `out`.

    Raises
    ------
    TypeError
        The operands have no common dtype.
    """
    requested = call.kwargs.get("dtype")
    dtypes = [
        np.asarray(x.make(contents)).dtype
        if x.kind in ("list", "object", "scalar")
        else x.dtype.newbyteorder("=")
        for x in inputs
    ]
    common: np.dtype[Any]
    if requested is not None:
        common = np.dtype(requested).newbyteorder("=")
        return common
    if call.function in CORES:
        signature = call.kwargs.get("signature", call.kwargs.get("sig"))
        more = {} if signature is None else {"signature": signature}
        common = function.resolve_dtypes((*dtypes, None), **more)[2]
        return common
    common = np.result_type(*dtypes)
    return common


def compare_without_overlap(
    call: Call, function: Any, args: list[Any], inputs: list[Array], outs: list[Array],
    got: np.ndarray, contents: list[Any],
) -> str:  # fmt: skip
    """Compare with NumPy's result for an `out` that does not overlap the operands.

    `numpy.vecdot` overwrites operands that it has yet to read.
    """
    kwargs = {name: x for name, x in call.kwargs.items() if name != "out"}
    if outs:
        kwargs["out"] = outs[0].bare(contents).copy()
    want = function(*(each(lambda x: x.make(contents), x) for x in args), **kwargs)
    return "" if equal(got, np.asarray(want)) else "other values than NumPy's"


def may_have_no_loop(call: Call) -> bool:
    """Whether a call requests dtypes for which nkblas has a loop, and NumPy perhaps none."""
    if "signature" in call.kwargs or "sig" in call.kwargs:
        return True
    requested = call.kwargs.get("dtype")
    types = [x.dtype for x in call.arrays()]
    if isinstance(requested, np.dtype):
        types.append(requested)
    return not all(map(is_numpys, types))


def compare_with_reference(
    call: Call, function: Any, got: np.ndarray, want: np.ndarray, contents: list[Any]
) -> str:
    """Compare with NumPy's result in wider dtypes; the fault, or empty."""
    args, outs = split_out(call)
    inputs: list[Array] = []
    each(inputs.append, args)
    try:
        common = product_dtype(call, function, inputs, contents)
    except TypeError:
        common = want.dtype
    dtypes = {x.dtype for x in inputs}
    if got.dtype.kind in "SU":
        return ""  # texts of numbers that may differ by rounding
    has_several = len(dtypes) > 1 or len(inputs) > 2
    if has_intermediates(call) and has_several and not all(map(is_numpys, dtypes)):
        return ""  # intermediate results are rounded to the common dtype of two operands
    if has_intermediates(call) and common.kind == "O" and call.mode != "exact":
        return ""  # products before the first one of objects are rounded
    if common.kind not in "fcV":
        return compare_without_overlap(call, function, args, inputs, outs, got, contents)
    with np.errstate(all="ignore"):
        reference = Reference(call, function, args, inputs, outs, common, contents)
        return reference.compare(got, want)


def has_intermediates(call: Call) -> bool:
    """Whether a call may be a sequence of products."""
    return bool(call.function == "multi_dot" or call.kwargs.get("optimize"))


class Reference(NamedTuple):
    """NumPy's results in wide dtypes, of a call whose products are floats.

    Attributes
    ----------
    call : Call
    function : callable
        NumPy's function.
    args : list
        The arguments without `out`.
    inputs, outs : list of Array
    common : dtype
        The dtype of the product.
    contents : list
        The memories of the arrays.
    """

    call: Call
    function: Any
    args: list[Any]
    inputs: list[Array]
    outs: list[Array]
    common: "np.dtype[Any]"
    contents: list[Any]

    @property
    def wide(self) -> "np.dtype[Any]":
        return np.dtype(WIDE["c" if self.common.kind == "c" else "f"])

    def evaluate(self, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """NumPy's result for arguments that are changed by a function."""
        options = {name: x for name, x in self.call.kwargs.items() if name in STRUCTURE}
        if self.call.function == "einsum":
            options["optimize"] = False

        def argument(array: Array) -> np.ndarray:
            x = array.bare(self.contents).astype(self.common)
            return change(x if is_numpys(x.dtype) else x.astype("f4"))

        given = [each(argument, value) for value in self.args]
        named = {name: each(argument, value) for name, value in options.items()}
        if self.outs and self.call.function in CORES:
            named["out"] = np.zeros(self.outs[0].shape, self.wide)
        return np.asarray(self.function(*given, **named))

    @property
    def is_undefined(self) -> bool:
        """Whether infinities may become NaNs: by intermediate results, or by BLAS's alpha."""
        if self.call.mode != "special":
            return False
        is_complex = self.common.kind == "c"
        if len(self.inputs) > 2 or self.call.function == "matrix_power":
            return True
        if has_intermediates(self.call) and is_complex:
            return True
        # NumPy does products itself whose strides are no multiples of the itemsize
        steps = [(step, x.dtype.itemsize) for x in self.inputs for step in x.strides]
        return is_complex and any(step % itemsize for step, itemsize in steps)

    def compare(self, got: np.ndarray, want: np.ndarray) -> str:
        """The fault of a result; empty: none. `want` is NumPy's own result."""
        wide, inputs = self.wide, self.inputs
        size = self.evaluate(lambda x: abs(x.astype(wide)).astype(wide)).real
        finite_size = size
        if not np.all(np.isfinite(size)):
            finite_size = self.evaluate(lambda x: abs(finite(x).astype(wide)).astype(wide)).real
        if self.is_undefined:
            return ""
        terms = float(self.call.depth + (2 if len(inputs) > 2 else 0))
        sums = accumulator_dtype(self.common)
        several = has_intermediates(self.call)
        if several and any(x.dtype != self.common or x.kind != "array" for x in inputs):
            # some products have other dtypes: NumPy's own result is the reference
            product, terms = want, 2 * terms
            dtypes = (self.common, *(x.dtype for x in inputs))
            sums = min(map(accumulator_dtype, dtypes), key=lambda x: x.itemsize)
        else:
            product = self.evaluate(lambda x: x.astype(wide))
        if several and self.call.mode == "special":  # its path may sum up infinities first
            product = np.where(np.isfinite(want), product, want.astype(wide))
        is_of_numpy = got.dtype.kind in "biu"  # ml_dtypes has integers of 2 and 4 bits
        limit = np.iinfo("i1").max if is_of_numpy else 1
        if (is_of_numpy or "int" in got.dtype.name) and not np.all(finite_size < limit):
            return ""  # the conversion of floats that integers can't represent is undefined
        flushed = any(x.dtype.name == "bfloat16" for x in inputs)
        return compare_rounded(got, product, size, finite_size, terms, sums, flushed)


def is_unchanged_outside(
    call: Call, before: bytes, after: Any, memory: int, outs: list[Array]
) -> bool:
    """Whether a memory is unchanged, except in the elements of `outs`."""
    old, new = bytearray(before), bytearray(after)
    if old == new:
        return True
    for contents in (old, new):
        memories = {memory: contents}
        for out in outs:
            if out.memory == memory and all(out.shape):
                view = out._replace(dtype=np.dtype(f"V{out.dtype.itemsize}"))
                view.bare(memories)[...] = np.zeros((), view.dtype)  # type: ignore[arg-type]
    return old == new
