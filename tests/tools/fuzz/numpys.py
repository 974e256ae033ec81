"""Random calls of the functions that are NumPy's too, and what is to be the same as with NumPy."""

import string
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from .draw import Draw
from .recipe import Array, Call, dense, each, is_numpys

CASTING = ("no", "equiv", "safe", "same_kind", "unsafe", "unsafe", "nonsense")
CORES = {
    "matmul": ("mk", "kn", "mn"),
    "vecdot": ("k", "k", ""),
    "matvec": ("mk", "k", "m"),
    "vecmat": ("k", "kn", "n"),
}


def named(draw: Draw, args: list[Any], names: str) -> dict[str, Any]:
    """Give some of the last arguments by their names."""
    kwargs = {}
    while args and draw.chance(0.3):
        kwargs[names[len(args) - 1]] = args.pop()
    return kwargs


def operands(draw: Draw, shapes: list[list[int]]) -> list[Array]:
    """Arrays of these shapes; the second may be another view of the first."""
    dtypes = draw.dtypes(len(shapes))
    first = draw.array(shapes[0], dtypes[0])
    found = [first]
    # dot of a stack of three dimensions and itself has a result as large as both, multiplied
    few = prod(first.shape) <= (1 << 12 if len(first.shape) <= 2 else 1 << 10)
    for shape, dtype in zip(shapes[1:], dtypes[1:], strict=True):
        if few and draw.chance(0.05) and len(first.shape) >= 2 and first.kind == "array":
            found.append(draw.turned(first))
        elif few and draw.chance(0.02):
            found.append(first)
        else:
            found.append(draw.array(shape, dtype))
    return found


def mistake(draw: Draw, shapes: list[list[int]]) -> None:
    """Have a dimension of one of the shapes wrong, or none at all."""
    shape = draw.choice(shapes)
    if draw.chance(0.3):
        shape[:] = []
    elif shape:
        shape[draw.below(len(shape))] += 1


def natural(function: Any, args: list[Any], kwargs: dict[str, Any], draw: Draw) -> Any:
    """What NumPy makes of it: a result, of which shape and dtype count, or None."""
    call = Call("", tuple(args), kwargs, draw.memories, "")  # type: ignore[arg-type]
    live, named = call.arguments([bytearray(memory) for memory in draw.memories])
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(*live, **named))
    except Exception:
        return None


def with_out(draw: Draw, function: Any, args: list[Any], kwargs: dict[str, Any]) -> "Array | Any":
    """An `out` for a call; None if NumPy refuses it anyhow."""
    result = natural(function, args, kwargs, draw)
    if result is None or result.dtype.kind == "O":
        return None
    near = [x for x in args if isinstance(x, Array) and x.kind == "array"]
    return draw.out(result.shape, result.dtype, near)


def gufunc(draw: Draw, name: str) -> Call:
    cores = CORES[name]
    length = dict(zip("kmn", draw.lengths(3), strict=True))
    shapes = []
    stack = draw.stack()
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
    args: list[Any] = list(operands(draw, shapes))
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
    cores = CORES[name]
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
            types = [draw.choice(draw.theme.dtypes) for _ in range(3)]
            if draw.chance(0.5):
                types = types[:1] * 3
            given: Any = tuple(x if draw.chance(0.7) else None for x in types)
            if draw.chance(0.3):
                given = "{}{}->{}".format(*(x.char for x in types))
            kwargs["signature" if draw.chance(0.8) else "sig"] = given
        elif chance < 0.85:
            kwargs["axes"] = moved(draw, cores, shapes)
        elif chance < 0.92:
            kwargs["axis"] = draw.choice((0, -1, -2, 1))
            if name == "vecdot":
                for shape in shapes:  # so that it is the axis to sum over
                    axis = kwargs["axis"]
                    if shape and -len(shape) <= axis < len(shape):
                        shape.insert(axis % len(shape), shape.pop())
        elif chance < 0.97:
            kwargs["keepdims"] = draw.chance(0.7)
        else:
            kwargs[draw.choice(("where", "nonsense", "extobj"))] = True


def moved(draw: Draw, cores: tuple[str, ...], shapes: list[list[int]]) -> Any:
    """Axes for the cores of the operands, whose shapes change for it, and of the result."""
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


def outer(draw: Draw) -> tuple[list[int], list[int], int]:
    """Shapes of stacks that are all multiplied with each other, and k."""
    m, k, n = draw.lengths(3)
    a = [*draw.stack()[:2], m, k] if draw.chance(0.75) else [k]
    small = len(a) < 3 or (m * n < 1 << 8 and not draw.large)
    b = [*(draw.stack()[:2] if small else []), k, n] if draw.chance(0.75) else [k]
    return a, b, k


def dot(draw: Draw) -> Call:
    a, b, k = outer(draw)
    if draw.chance(0.05):
        draw.choice((a, b))[:] = []
    elif draw.chance(0.04):
        mistake(draw, [a, b])
    args: list[Any] = list(operands(draw, [a, b]))
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
    a, b, k = outer(draw)
    b[-2:] = b[:-3:-1]
    if draw.chance(0.08):
        mistake(draw, [a, b])
    return draw.call("inner", operands(draw, [a, b]), {}, max(k, 1))


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
    return draw.call("vdot", operands(draw, shapes), {}, depth)


def tensordot(draw: Draw) -> Call:
    common = draw.lengths(draw.below(3), 256)
    left, right = (draw.lengths(draw.below(3), 256) for _ in range(2))
    count = len(common)
    axes: Any
    if draw.chance(0.4):
        axes, a, b = count, [*left, *common], [*common, *right]
    else:
        a, b = [*left, *common], [*common, *right]
        of_a = list(range(len(left), len(a)))
        of_b = list(range(count))
        order = draw.random.sample(range(count), count)
        of_a, of_b = [of_a[i] for i in order], [of_b[i] for i in order]
        a, of_a = _shuffled(draw, a, of_a)
        b, of_b = _shuffled(draw, b, of_b)
        axes = draw.choice(
            ((of_a, of_b), [of_a, of_b], (tuple(of_a), tuple(of_b)), [tuple(of_a), of_b])
        )
        if count == 1 and draw.chance(0.5):
            axes = (of_a[0], of_b[0])
        if draw.chance(0.04):
            axes = draw.choice((1, 3, (of_a, of_b[:-1]), ([0, 0], [0, 0]), -1, "x", (9, 0)))
    if draw.chance(0.04):
        mistake(draw, [a, b])
    args: list[Any] = list(operands(draw, [a, b]))
    if axes == 2 and draw.chance(0.5):
        return draw.call("tensordot", args, {}, max(prod(common), 1))
    depth = max(prod(common), 1)
    if draw.chance(0.5):
        return draw.call("tensordot", [*args, axes], {}, depth)
    return draw.call("tensordot", args, {"axes": axes}, depth)


def _shuffled(draw: Draw, shape: list[int], axes: list[int]) -> tuple[list[int], list[int]]:
    order = draw.random.sample(range(len(shape)), len(shape))
    found = [order.index(axis) for axis in axes]
    if draw.chance(0.3):
        found = [axis - len(shape) for axis in found]
    return [shape[i] for i in order], found


def multi_dot(draw: Draw) -> Call:
    count = draw.choice((2, 3, 3, 4, 5)) if draw.chance(0.97) else draw.choice((0, 1))
    lengths = [draw.length() % 40 for _ in range(count + 1)]
    shapes = [[x, y] for x, y in pairwise(lengths)]
    if shapes and draw.chance(0.3):
        del shapes[0][0]
    if shapes and draw.chance(0.3):
        shapes[-1].pop()
    if shapes and draw.chance(0.05):
        mistake(draw, shapes)
    dtypes = draw.dtypes(count) if count else []
    arrays = [draw.array(shape, x) for shape, x in zip(shapes, dtypes, strict=True)]
    given: Any = arrays if draw.chance(0.7) else tuple(arrays)
    kwargs = {}
    if draw.chance(0.15):
        result = natural(np.linalg.multi_dot, [given], {}, draw)
        if result is not None and result.dtype.kind != "O":
            kwargs["out"] = draw.out(result.shape, result.dtype, arrays)
    return draw.call("multi_dot", [given], kwargs, max(sum(lengths), 1))


def matrix_power(draw: Draw) -> Call:
    size = draw.length() % 20
    shape = [*draw.stack()[:1], size, size]
    if draw.chance(0.05):
        mistake(draw, [shape])
    power = draw.choice((0, 1, 2, 3, 3, 4, 5, 7, 10, 2.5, -1))
    if power == -1:  # an inverse: NumPy's own
        power = 1
    depth = max(size * 4 * max(int(power), 1), 1)
    return draw.call("matrix_power", [draw.array(shape, draw.dtype()), power], {}, depth)


def einsum(draw: Draw) -> Call:
    count = draw.random.choices((1, 2, 3), (5, 85, 10))[0]
    letters = draw.random.sample(string.ascii_letters, 6)
    # never 0: NumPy reads and writes beyond empty arrays, where strides are not plain
    lengths = {x: draw.length() or 1 for x in letters}
    terms, shapes = [], []
    size = 1
    used: list[str] = []
    for i in range(count):
        ndim = draw.below(4) if draw.chance(0.8) else draw.below(6)
        term = []
        for _ in range(ndim):
            if i and used and draw.chance(0.5):
                term.append(draw.choice(used))
            else:
                term.append(draw.choice(letters[:4] if draw.chance(0.8) else letters))
            if term[-1] in term[:-1] and (lengths[term[-1]] > 5 or draw.chance(0.6)):
                term.pop()
        for x in term:
            if x not in used:
                while size * lengths[x] > 1 << 13:
                    lengths[x] = draw.choice((1, 2, 3))
                size *= max(lengths[x], 1)
                used.append(x)
        shapes.append(term)
    for i, term in enumerate(shapes):
        shape = [lengths[x] if draw.chance(0.985) else 1 for x in term]
        if draw.chance(0.02) and shape:
            mistake(draw, [shape])
        text = "".join(term)
        if draw.chance(0.15):  # an ellipsis
            place = draw.below(len(term) + 1)
            text = f"{text[:place]}...{text[place:]}"
            shape[place:place] = draw.choice(([], [2], [3, 2], [2], [1, 2]))
        terms.append(text)
        shapes[i] = shape
    out = None
    if draw.chance(0.75):
        picked = [x for x in used if draw.chance(0.5)]
        draw.random.shuffle(picked)
        out = "".join(picked)
        if any("..." in term for term in terms) or draw.chance(0.02):
            place = draw.below(len(out) + 1)
            out = f"{out[:place]}...{out[place:]}"
        if draw.chance(0.02):
            out += draw.choice((*letters, "..", "1", " "))
    arrays = [draw.array(shape, x) for shape, x in zip(shapes, draw.dtypes(count), strict=True)]
    if (
        count == 2
        and draw.chance(0.05)
        and arrays[0].kind == "array"
        and len(shapes[1]) == len(shapes[0])
    ):
        arrays[1] = arrays[0]
    args = _as_lists(draw, terms, arrays, out) if draw.chance(0.15) else None
    if args is None:
        text = ",".join(terms) if draw.chance(0.9) else ", ".join(terms)
        args = [text if out is None else f"{text}->{out}", *arrays]
    kwargs: dict[str, Any] = {}
    if draw.chance(0.3):
        kwargs["optimize"] = draw.choice(
            (True, False, "greedy", "optimal", ["einsum_path", (0, 1)])
        )
    if draw.chance(0.08):
        kwargs["dtype"] = draw.dtype()
    if draw.chance(0.12):
        kwargs["casting"] = draw.choice(CASTING)
    if draw.chance(0.12):
        kwargs["order"] = draw.choice("CFAKX")
    if draw.chance(0.15):
        result = natural(np.einsum, args, kwargs, draw)
        if result is not None and result.dtype.kind != "O":
            kwargs["out"] = draw.out(result.shape, result.dtype, arrays)
    return draw.call("einsum", args, kwargs, max(size * 6, 1))


def _as_lists(
    draw: Draw, terms: list[str], arrays: list[Array], out: str | None
) -> list[Any] | None:
    """Labels as numbers."""

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


CALLS: dict[str, tuple[float, Callable[[Draw], Call]]] = {
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


# --- the same as NumPy ---


class Failed:
    """An error that a call came to."""

    def __init__(self, error: Exception) -> None:
        self.kind, self.text = type(error), str(error)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Failed):
            return False
        return (self.kind, self.text) == (other.kind, other.text)

    def __repr__(self) -> str:
        return f"{self.kind.__name__}: {self.text}"


def outcome(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What a call comes to: a result or an error."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return Failed(error)


WIDE = {"f": np.longdouble, "c": np.clongdouble}
STRUCTURE = ("axes", "axis", "keepdims")
"""Arguments that are no matter of types."""


def describe(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        strides = getattr(value, "strides", ())
        return f"{type(value).__name__} {value.dtype} {value.shape} strides {strides}"
    return repr(value)


def form(got: Any, want: Any) -> str:
    """What is wrong with the type, dtype, shape or memory order of a result; empty: nothing."""
    same = type(got) is type(want)
    # numpy.ulonglong may be numpy.uint64 by another name
    same = same or (isinstance(got, np.integer) and isinstance(want, np.integer))
    if same and isinstance(want, np.ndarray | np.generic):
        same = got.dtype == want.dtype and got.shape == want.shape
        if same and got.strides != want.strides:
            pairs = zip(got.shape, got.strides, want.strides, strict=True)
            same = got.size == 0 or all(length == 1 or x == y for length, x, y in pairs)
    return "" if same else f"{describe(got)}, expected {describe(want)}"


def equal(got: np.ndarray, want: np.ndarray) -> bool:
    """Element by element; NaN is NaN, and 0 is -0."""
    if got.dtype == bool:
        got, want = got.view("u1"), want.view("u1")
    same = got == want
    if np.all(same):
        return True
    return bool(np.all(same | ((got != got) & (want != want))))


def real_of(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    return np.zeros(0, dtype).real.dtype if dtype.kind == "c" else dtype


def adds_in(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    """The real type of the sums of a product in this type."""
    real = real_of(dtype)
    if real.kind in "iub":
        return np.dtype(np.float64)
    return np.dtype(np.float32) if real.itemsize < 4 else real


def distance(
    got: np.ndarray,
    product: np.ndarray,
    size: np.ndarray,
    moderate: np.ndarray,
    terms: float,
    sums: "np.dtype[Any]",
    flushed: bool = False,
) -> str:
    """What is wrong with values that may be rounded; empty: nothing.

    Parameters
    ----------
    got : ndarray
    product : ndarray
        What is right, but for rounding.
    size, moderate : ndarray
        The sum of the sizes of what was added up; and but for infinite ones.
    terms : float
        How many eps the error may be, of `size`.
    sums : dtype
        What it was added up in.
    flushed : bool
        Whether subnormal numbers may be taken for zero.
    """
    if got.dtype.kind == "c":
        parts = (got.real, product.real), (got.imag, product.imag)
        found = (distance(*part, size, moderate, terms, sums) for part in parts)
        return next(filter(None, found), "")
    info = np.finfo(sums)
    smallest = info.smallest_normal if flushed else info.smallest_subnormal
    product, size, moderate = (
        x.reshape(got.shape) if x.size == got.size else np.broadcast_to(x, got.shape)
        for x in (product, size, moderate)  # numpy.matrix drops dimensions
    )
    bound = terms * info.eps * moderate + 2 * terms * smallest
    native = got.dtype.newbyteorder("=")

    def rounded(x: np.ndarray) -> np.ndarray:
        x = x.astype(sums)
        return x.astype("f4").astype(native) if native.itemsize < 4 else x.astype(native)

    low, high = rounded(product - bound), rounded(product + bound)
    # some formats have nothing infinite, but NaN
    least = np.where((low != low) & (product == product), -np.inf, low.astype("g"))
    most = np.where((high != high) & (product == product), np.inf, high.astype("g"))
    good = (least <= got.astype("g")) & (got.astype("g") <= most)
    good |= (got != got) & ((low != low) | (high != high))
    good |= ~np.isfinite(size) & (got == rounded(product))
    good |= moderate > info.max / 2  # sums may overflow in some orders
    if np.all(good):
        return ""
    wrong = np.argwhere(~np.asarray(good))
    place = tuple(map(int, wrong[0]))
    at = f"{len(wrong)} of {got.size} wrong, at {place} first: {got[place]!r}"
    return f"{at}, expected {product[place]!r} within {bound[place]:.3g}"


def finite(x: np.ndarray) -> np.ndarray:
    """An array with zeros for what is infinite or NaN."""
    if x.dtype.kind == "c":
        x = x.copy()
        x.real, x.imag = finite(x.real), finite(x.imag)
        return x
    return np.where(np.isfinite(x), x, 0)


def split_out(call: Call) -> tuple[list[Any], list[Array]]:
    """The arguments without `out`, and what is given as that."""
    args = list(call.args)
    out = call.kwargs.get("out")
    found = [*out] if type(out) is tuple else [out]
    if call.function in (*CORES, "dot"):
        args, found = args[:2], args[2:] + found
        args += [call.kwargs[name] for name in "ab" if name in call.kwargs]
    return args, [x for x in found if isinstance(x, Array)]


def with_dense_out(call: Call) -> tuple[Call, Array | None]:
    """A call whose `out` lies dense, and the one that it had, if that has gaps.

    Of complex numbers NumPy's `vecmat` writes elsewhere then, and other products if elements lie
    apart by parts of elements.
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


def works_in(
    call: Call, function: Any, inputs: list[Array], contents: list[Any]
) -> "np.dtype[Any]":
    """The dtype of the product, whatever becomes of it.

    Raises
    ------
    TypeError
        There is none.
    """
    asked = call.kwargs.get("dtype")
    dtypes = [
        np.asarray(x.live(contents)).dtype
        if x.kind in ("list", "object", "scalar")
        else x.dtype.newbyteorder("=")
        for x in inputs
    ]
    if asked is not None:
        return np.dtype(asked).newbyteorder("=")
    if call.function in CORES:
        signature = call.kwargs.get("signature", call.kwargs.get("sig"))
        more = {} if signature is None else {"signature": signature}
        found: np.dtype[Any] = function.resolve_dtypes((*dtypes, None), **more)[2]
        return found
    return np.result_type(*dtypes)


def alone(
    call: Call, function: Any, args: list[Any], inputs: list[Array], outs: list[Array],
    got: np.ndarray, contents: list[Any],
) -> str:  # fmt: skip
    """Compare with NumPy's result where `out` does not overlap the operands.

    `numpy.vecdot` writes where it has yet to read.
    """
    kwargs = {name: x for name, x in call.kwargs.items() if name != "out"}
    if outs:
        kwargs["out"] = outs[0].bare(contents).copy()
    again = function(*(each(lambda x: x.live(contents), x) for x in args), **kwargs)
    return "" if equal(got, np.asarray(again)) else "other values than NumPy's"


def is_more(call: Call) -> bool:
    """Whether types are asked for that NumPy may have no loop for, and nkblas has one."""
    if "signature" in call.kwargs or "sig" in call.kwargs:
        return True
    asked = call.kwargs.get("dtype")
    types = [x.dtype for x in call.arrays()]
    if isinstance(asked, np.dtype):
        types.append(asked)
    return not all(map(is_numpys, types))


def reference(
    call: Call, function: Any, got: np.ndarray, want: np.ndarray, contents: list[Any]
) -> str:
    """Compare with what NumPy finds with wider types; what is wrong, or nothing."""
    args, outs = split_out(call)
    inputs: list[Array] = []
    each(inputs.append, args)
    try:
        common = works_in(call, function, inputs, contents)
    except TypeError:
        common = want.dtype
    several = call.function == "multi_dot" or call.kwargs.get("optimize")
    if (
        several
        and len({x.dtype for x in inputs}) > 1
        and not all(is_numpys(x.dtype) for x in inputs)
    ):
        return ""  # it is rounded in between, to whatever two of them promote to
    if common.kind not in "fcV":
        return alone(call, function, args, inputs, outs, got, contents)
    wide = np.dtype(WIDE["c" if common.kind == "c" else "f"])
    structure = {name: x for name, x in call.kwargs.items() if name in STRUCTURE}
    if call.function == "einsum":
        structure["optimize"] = False

    def evaluate(change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        def live(array: Array) -> np.ndarray:
            x = array.bare(contents).astype(common)
            return change(x if is_numpys(x.dtype) else x.astype("f4"))

        given = [each(live, value) for value in args]
        named = {name: each(live, value) for name, value in structure.items()}
        if outs and call.function in CORES:
            named["out"] = np.zeros(outs[0].shape, wide)
        return np.asarray(function(*given, **named))

    with np.errstate(all="ignore"):
        size = evaluate(lambda x: abs(x.astype(wide)).astype(wide)).real
        moderate = size
        if not np.all(np.isfinite(size)):
            moderate = evaluate(lambda x: abs(finite(x).astype(wide)).astype(wide)).real
        terms = float(call.depth + (2 if len(inputs) > 2 else 0))
        sums = adds_in(common)
        flushed = any(x.dtype.name == "bfloat16" for x in inputs)
        more_than_one = len(inputs) > 2 or call.function == "matrix_power"
        if call.mode == "special" and (more_than_one or (several and common.kind == "c")):
            return ""  # what is between may overflow; BLAS's alpha makes NaN of infinities
        apart = any(step % x.dtype.itemsize for x in inputs for step in x.strides)
        if apart and call.mode == "special" and common.kind == "c":
            return ""  # the same: NumPy multiplies what lies parts of elements apart
        dtypes = [x.dtype for x in inputs]
        if several and any(x.dtype != common or x.kind != "array" for x in inputs):
            # some of it is made in other types: NumPy's own result is the measure
            product, terms = want, 2 * terms
            sums = min((adds_in(x) for x in (common, *dtypes)), key=lambda x: x.itemsize)
        else:
            product = evaluate(lambda x: x.astype(wide))
        if several and call.mode == "special":  # its path may sum up infinities first
            product = np.where(np.isfinite(want), product, want.astype(wide))
        if got.dtype.kind in "biu" and not np.all(moderate < np.iinfo("i1").max):
            return ""  # what integers become of floats that they do not hold is not defined
        return distance(got, product, size, moderate, terms, sums, flushed)


def outside(call: Call, before: bytes, after: Any, memory: int, outs: list[Array]) -> bool:
    """Whether a memory holds what it did, but for the elements of `outs`."""
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
