"""Random calls of `gemm`, `brgemm`, `pack` and `blas`, and what their documentation says of them.

The references are NumPy's arithmetic in wider types; nothing of nkblas's is in them.
"""

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg.blas

import nkblas

from .draw import LOW, Draw
from .numpys import Failed, adds_in, describe, distance, equal, finite, outcome, split_out
from .recipe import Array, Call, is_numpys

SMOOTH = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh")
ACTIVATIONS = ("relu", *SMOOTH)
PACKED = ("float32", "float64", "complex64", "complex128", "float16", "int32", "int64")
"""Types with packed matrices of which the same comes as without packing."""


# --- what is drawn ---


def matrices(draw: Draw, count: int = 2) -> "tuple[list[int], list[np.dtype[Any]]]":
    """Lengths m, k, n, and dtypes."""
    return draw.lengths(3), draw.dtypes(count)


def factor(draw: Draw, dtype: "np.dtype[Any]") -> Any:
    """alpha or beta; elements of A may be multiplied by it, and overflow."""
    whole = dtype.kind in "iub" or dtype.name.endswith("int4")
    if draw.mode in ("special", "tiny"):
        return draw.choice((0, 1, 1) if whole else (0, 1, 1, -1))
    if whole:
        return draw.choice((0, 1, 1, 2, 3))
    if dtype.kind == "c" and draw.chance(0.3):
        return draw.choice((1j, 2 - 1j, np.complex64(1 + 1j)))
    return draw.choice((0, 1, 1, -1, 2, 0.5, -1.5, np.float32(2)))


def gemm(draw: Draw) -> Call:
    (m, k, n), dtypes = matrices(draw)
    if draw.chance(0.15):
        dtypes = [np.dtype(draw.choice(("i1", "u1"))) for _ in range(2)]
    turns = [draw.choice((0, 0, 0, 1, True, 2)) for _ in range(2)]
    shapes = [[k, m] if turns[0] else [m, k], [n, k] if turns[1] else [k, n]]
    if draw.chance(0.03):
        draw.choice(shapes)[:] = draw.choice(([], [k], [m + 1, k], [1, m, k]))
    args: list[Any] = [draw.array(x, t) for x, t in zip(shapes, dtypes, strict=True)]
    kwargs: dict[str, Any] = {}
    for name, turn in zip(("trans_a", "trans_b"), turns, strict=True):
        if turn or draw.chance(0.1):
            kwargs[name] = turn
    if draw.chance(0.01):
        kwargs["trans_a"] = draw.choice((3, -1, "T"))
    if all(x.kind in "iu" and x.itemsize == 1 for x in dtypes) and draw.chance(0.6):
        return scaled(draw, args, kwargs, (m, k, n))
    common = dtypes[0]
    if draw.chance(0.4):
        c: Any = draw.array([m, n] if draw.chance(0.95) else [n, m + 1], draw.choice(dtypes))
        if draw.chance(0.5):
            args.append(c)
        else:
            kwargs["c"] = c
        if draw.chance(0.85):
            kwargs["beta"] = factor(draw, common)
    elif draw.chance(0.02):
        kwargs["beta"] = 1
    if draw.chance(0.3):
        kwargs["alpha"] = factor(draw, common)
    layer(draw, kwargs, m, n, common)
    if draw.chance(0.15):
        wider = {"float16": "f4", "bfloat16": "f4", "int8": "i4", "uint8": "i4", "float32": "f8"}
        kwargs["out_dtype"] = np.dtype(wider.get(common.name, common))
        if draw.chance(0.2):
            kwargs["out_dtype"] = draw.dtype()
    add_out(draw, args, kwargs, (m, n), kwargs.get("out_dtype", common))
    alike = dtypes[0] == dtypes[1] and common.name in PACKED and "out_dtype" not in kwargs
    packs = alike and not kwargs.get("trans_b") and draw.chance(0.2)
    return draw.call("packed_gemm" if packs else "gemm", args, kwargs, max(k, 1))


def add_out(
    draw: Draw, args: list[Any], kwargs: dict[str, Any], shape: Any, dtype: "np.dtype[Any]"
) -> None:
    if draw.chance(0.2):
        if dtype.kind == "O":
            dtype = np.dtype("f8")
        near = [x for x in (*args, *kwargs.values()) if isinstance(x, Array) and x.kind == "array"]
        kwargs["out"] = draw.out(list(shape), dtype, near)


def layer(draw: Draw, kwargs: dict[str, Any], m: int, n: int, dtype: "np.dtype[Any]") -> None:
    """A bias, an activation, a residual: each combination has kernels of its own."""
    sums = np.dtype("f4") if dtype.itemsize < 4 and dtype.kind not in "iub" else dtype
    bias, activation, residual = draw.choice(draw.theme.layers)
    if bias:
        shapes = {"columns": ([n], [n], [n], [1, n], [], [1]), "rows": ([m, 1],)}
        shape = draw.choice(shapes[bias]) if draw.chance(0.96) else [n + 1]
        kwargs["bias"] = draw.array(shape, sums if draw.chance(0.8) else draw.dtype())
    if activation:
        kwargs["activation"] = ("clip", -2.0, 3.0) if activation == "clip" else activation
        if draw.chance(0.04):
            kwargs["activation"] = draw.choice(("clip", "nonsense", ("clip", "a", 1), 3, ""))
    if residual:
        shape = [m, n] if draw.chance(0.95) else [n, m + 2]
        kwargs["residual"] = draw.array(shape, dtype if draw.chance(0.9) else draw.dtype())


def scaled(
    draw: Draw, args: list[Any], kwargs: dict[str, Any], lengths: tuple[int, int, int]
) -> Call:
    """Bytes whose sums become floats, or bytes again."""
    m, k, n = lengths
    draw.mode = "rounded"
    kwargs["scale"] = draw.array(
        draw.choice(([n], [n], [1, n], [], [1], [n + 1])), np.dtype(draw.choice(("f4", "f4", "f8")))
    )
    result = np.dtype(draw.choice(("f4", "f4", "i1", "u1")))
    layer(draw, kwargs, m, n, np.dtype("f4"))
    if result.itemsize == 1:
        kwargs["out_dtype"] = result
        if draw.chance(0.6):
            kwargs["zero_point"] = draw.choice((0, 3, 100))
    elif draw.chance(0.02):
        kwargs["zero_point"] = 1
    if draw.chance(0.02):
        kwargs["alpha"] = 2
    add_out(draw, args, kwargs, (m, n), result)
    return draw.call("gemm", args, kwargs, max(k, 1))


def brgemm(draw: Draw) -> Call:
    (m, k, n), dtypes = matrices(draw)
    count = draw.choice((1, 2, 3, 5)) if draw.chance(0.97) else 0
    sides: list[Any] = []
    for shape, dtype in zip(([m, k], [k, n]), dtypes, strict=True):
        if draw.chance(0.02):
            shape[0] += 1
        if draw.chance(0.6):
            sides.append(draw.array([count, *shape], dtype))
        else:
            side = [draw.array(shape, dtype) for _ in range(count + draw.chance(0.02))]
            sides.append(side if draw.chance(0.7) else tuple(side))
    kwargs: dict[str, Any] = {}
    if draw.chance(0.4):
        kwargs["c"] = draw.array([m, n] if draw.chance(0.95) else [m + 1, n], dtypes[0])
    if draw.chance(0.4 if "c" in kwargs else 0.02):
        kwargs["beta"] = factor(draw, dtypes[0])
    add_out(draw, sides, kwargs, (m, n), dtypes[0])
    return draw.call("brgemm", sides, kwargs, max(k * count, 1))


def pack(draw: Draw) -> Call:
    """``a @ nkblas.pack(b, ...)``: the arguments are those of pack, after a."""
    (m, k, n), dtypes = matrices(draw)
    left = [*draw.stack(), m, k] if draw.chance(0.8) else [k]
    right = [k, n]
    if draw.chance(0.03):
        draw.choice((left, right))[:] = draw.choice(([], [k + 1], [k, n, 1], [m, k + 1]))
    a, b = draw.array(left, dtypes[0]), draw.array(right, dtypes[1])
    kwargs: dict[str, Any] = {}
    if dtypes[0] != dtypes[1] or draw.chance(0.1):
        kwargs["a_dtype"] = dtypes[0]
    if draw.chance(0.2):
        wider = {"float16": "f4", "int8": "i4", "uint8": "i4", "bfloat16": "bfloat16"}
        name = dtypes[1].name
        kwargs["dtype"] = np.dtype(wider.get(name, dtypes[1])) if draw.chance(0.8) else draw.dtype()
    return draw.call("pack", [a, b], kwargs, max(k, 1))


def blas(draw: Draw) -> Call:
    letter = draw.choice("sdcz")
    dtype = np.dtype(dict(zip("sdcz", "fdFD", strict=True))[letter])
    if draw.mode == "special":
        draw.mode = "exact"

    def array(shape: list[int]) -> Array:
        own = dtype if draw.chance(0.8) else np.dtype(draw.choice(("f", "d", "h", "F")))
        found = draw.array(shape, own)
        if own.kind == "c" and dtype.kind != "c" and found.kind == "list":
            return found._replace(kind="array")  # SciPy loses count of its references to a dtype
        return found._replace(kind="array") if found.kind in ("masked", "arrayish") else found

    m, k, n = (draw.length() or 1 for _ in range(3))
    numbers = (1, 1, 2, -1, 0.5, 3.0) + ((1j, 1 - 2j) if dtype.kind == "c" else ())
    alpha, beta = draw.choice(numbers), draw.choice((0, *numbers))
    if draw.chance(0.5):
        turns = [draw.choice((0, 0, 1, 2)) for _ in range(2)]
        shapes = [[k, m] if turns[0] else [m, k], [n, k] if turns[1] else [k, n]]
        if draw.chance(0.03):
            shapes[1][0] += 1
        args: list[Any] = [alpha, *map(array, shapes)]
        kwargs: dict[str, Any] = {"trans_a": turns[0], "trans_b": turns[1]}
        if draw.chance(0.6):
            kwargs |= {"beta": beta, "c": array([m, n]), "overwrite_c": draw.choice((0, 1))}
        return draw.call(f"{letter}gemm", args, kwargs, k + 2)
    trans = draw.choice((0, 0, 1, 2))
    kwargs = {"trans": trans, "incx": draw.choice((1, 1, 2, -1, -3)), "offx": draw.choice((0, 2))}
    kwargs |= {"incy": draw.choice((1, 1, 2, -1)), "offy": draw.choice((0, 0, 3))}
    x = 1 + (n - 1) * abs(kwargs["incx"]) + kwargs["offx"] + draw.choice((0, 0, 1, 3))
    y = 1 + (m - 1) * abs(kwargs["incy"]) + kwargs["offy"] + draw.choice((0, 0, 1, 3))
    if draw.chance(0.02):
        x = max(x - 2, 1)
    args = [alpha, array([n, m] if trans else [m, n]), array([x])]
    if draw.chance(0.6):
        kwargs |= {"beta": beta, "y": array([y]), "overwrite_y": draw.choice((0, 1))}
    return draw.call(f"{letter}gemv", args, kwargs, n + 2)


CALLS: dict[str, tuple[float, Callable[[Draw], Call]]] = {
    "gemm": (10, gemm),
    "brgemm": (4, brgemm),
    "pack": (5, pack),
    "blas": (6, blas),
}


# --- what has to come of it ---


class Expected:
    """What a call has to come to: one of some errors, or values."""

    def __init__(self) -> None:
        self.errors: list[type[Exception]] = []
        self.more: set[type[Exception]] = set()
        self.dtype: Any = None
        self.shape: tuple[int, ...] = ()
        self.check: Callable[[np.ndarray], str] = lambda got: ""

    def wants(self, holds: object, error: type[Exception]) -> bool:
        """Note that it has to be an error, unless `holds`."""
        if not holds:
            self.errors.append(error)
        return bool(holds)


def wide(x: np.ndarray) -> np.ndarray:
    x = x if is_numpys(x.dtype) else x.astype("f4")
    return x.astype("G" if x.dtype.kind == "c" else "g")


def times(number: Any, x: np.ndarray) -> np.ndarray:
    """A multiple; a real factor is no complex one, whose 0 would make NaN of infinities."""
    if x.dtype.kind != "c" or isinstance(number, complex):
        return np.asarray(number * x)
    x = x.copy()
    x.real, x.imag = number * x.real, number * x.imag
    return x


def result_type(*operands: Any) -> Any:
    try:
        return np.result_type(*operands)
    except (TypeError, OverflowError):
        return None


def of_gemm(args: list[Any], kwargs: dict[str, Any], call: Call) -> Expected:
    """What `gemm` says that it does."""
    want = Expected()
    a, b = np.asarray(args[0]), np.asarray(args[1])
    c = args[2] if len(args) > 2 else kwargs.get("c")
    alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 0)
    if not want.wants(a.ndim == 2 and b.ndim == 2, ValueError):
        return want
    turns = [kwargs.get(name, 0) for name in ("trans_a", "trans_b")]
    if not want.wants(all(turn in (0, 1, 2) for turn in turns), ValueError):
        return want
    a, b = (
        x if not turn else x.T if turn == 1 or x.dtype.kind != "c" else x.conj().T
        for x, turn in zip((a, b), turns, strict=True)
    )
    want.wants(a.shape[1] == b.shape[0], ValueError)
    if "scale" in kwargs:
        want.wants(c is None and alpha == 1 and beta == 0, TypeError)
        return of_scaled(want, a, b, kwargs, call)
    shape = a.shape[0], b.shape[1]
    if c is None:
        want.wants(beta == 0, ValueError)
    else:
        c = np.asarray(c)
        want.wants(c.shape == shape, ValueError)
    number = [x.item() if hasattr(x, "item") else x for x in (alpha, beta)]
    dtype = result_type(a, b, *([] if c is None else [c]))
    if dtype is not None:
        factors = number
        if dtype.name in LOW:  # which a float of Python's would make float64 of
            factors = [x for x in number if isinstance(x, complex)]
        dtype = result_type(dtype, *factors)
    if not want.wants(dtype is not None, TypeError):
        return want
    if dtype.kind not in "biufc" or not all(is_numpys(x.dtype) for x in call.arrays()):
        want.more = {TypeError}  # they have not everything
    natural = dtype
    if kwargs.get("out_dtype") is not None:
        dtype = np.dtype(kwargs["out_dtype"])
        if dtype.kind not in "biufc":
            want.more = {TypeError}
        if not want.wants(np.can_cast(natural, dtype, "same_kind"), TypeError):
            return want
    want.shape, want.dtype = shape, dtype.newbyteorder("=")
    dtype = want.dtype
    wants_out(want, kwargs.get("out"))
    sums = np.dtype("f4") if dtype.itemsize < 4 and dtype.kind not in "iub" else dtype
    bias, activation, residual = (kwargs.get(x) for x in ("bias", "activation", "residual"))
    wants_layer(want, bias, activation, residual, shape, dtype, sums)
    if want.errors:
        return want
    if dtype.kind not in "fcV":
        want.check = lambda got: of_integers(
            got, a, b, c, number[0], number[1], bias, activation, residual, want.dtype
        )
        return want

    def check(got: np.ndarray) -> str:
        if dtype.kind not in "biufc" and dtype.name not in LOW:
            return ""  # 4 and 6 bits, and float8_e8m0fnu, which has no zero
        if dtype.kind != "c" and natural.kind == "c":
            return ""  # ml_dtypes casts complex numbers to its own
        if dtype.kind == "c" and call.mode == "special" and "c" not in a.dtype.kind + b.dtype.kind:
            return ""  # 0 times what is infinite is in it, or not
        with np.errstate(all="ignore"):
            left, right = wide(a), wide(b)
            if a.dtype != b.dtype or a.dtype.kind in "iub":  # they are rounded to float8
                common = result_type(a, b, dtype) or dtype
                left, right = wide(a.astype(common)), wide(b.astype(common))
            size = moderate = np.zeros(shape, "g")
            value = np.zeros(shape, "G" if dtype.kind == "c" else "g")
            if number[0] != 0:
                value = times(number[0], left @ right)
                size = abs(number[0]) * (abs(left) @ abs(right)).astype("g")
                moderate = abs(number[0]) * (abs(finite(left)) @ abs(finite(right))).astype("g")
            if number[1] != 0:
                added = wide(c)
                value = value + times(number[1], added)
                size = size + abs(number[1] * added)
                moderate = moderate + abs(number[1] * finite(added))
            if dtype.itemsize < 4 and number[1] != 0 and c.dtype.itemsize > dtype.itemsize:
                return ""  # c may be rounded to the result's type first
            return of_layer(
                got, value, size, moderate, call, dtype, sums, bias, activation, residual,
                call.depth + 4.0,
            )  # fmt: skip

    want.check = check
    return want


def wants_out(want: Expected, out: Any) -> None:
    if out is None:
        return
    fits = isinstance(out, np.ndarray) and out.shape == want.shape and out.dtype == want.dtype
    if want.wants(fits, ValueError):
        want.wants(out.flags.writeable, ValueError)


def wants_layer(
    want: Expected,
    bias: Any,
    activation: Any,
    residual: Any,
    shape: tuple[int, int],
    dtype: "np.dtype[Any]",
    sums: "np.dtype[Any]",
) -> None:
    m, n = shape
    if bias is not None:
        bias = np.asarray(bias)
        shapes = ((), (1,), (n,), (1, n), (1, 1), (m, 1))
        want.wants(bias.shape in shapes, ValueError)
        same = bias.dtype == sums or np.can_cast(bias.dtype, sums, "same_kind")
        want.wants(same, TypeError)
    if residual is not None:
        residual = np.asarray(residual)
        want.wants(residual.shape == shape, ValueError)
        same = residual.dtype == dtype or np.can_cast(residual.dtype, dtype, "same_kind")
        want.wants(same, TypeError)
    if activation:
        known = activation in ACTIVATIONS
        if type(activation) is tuple:
            known = activation[0] == "clip"
            if not want.wants(all(isinstance(x, float) for x in activation[1:]), TypeError):
                return
        if want.wants(known, ValueError):
            limited = activation == "relu" or type(activation) is tuple
            want.wants(dtype.kind != "c", TypeError)
            want.wants(dtype.kind not in "iub" or limited, TypeError)


def of_integers(
    got: np.ndarray, a: Any, b: Any, c: Any, alpha: Any, beta: Any, bias: Any, activation: Any,
    residual: Any, dtype: "np.dtype[Any]",
) -> str:  # fmt: skip
    """Results that wrap."""
    if dtype.kind not in "biu":
        return ""
    m, n = got.shape
    with np.errstate(all="ignore"):
        if dtype.kind == "b":
            value = np.matmul(a.astype(dtype), b.astype(dtype)) if alpha else np.zeros((m, n), bool)
            if beta:
                value = value | c.astype(dtype)
        else:
            value = (np.matmul(a.astype(dtype), b.astype(dtype)) * dtype.type(alpha)).astype(dtype)
            if beta:
                value = (value + c.astype(dtype) * dtype.type(beta)).astype(dtype)
        if bias is not None:
            bias = np.asarray(bias).astype(dtype)
            value = (value + bias).astype(dtype)
        if activation == "relu":
            value = np.maximum(value, dtype.type(0))
        elif activation:
            value = np.clip(value.astype("g"), *activation[1:]).astype(dtype)
        if residual is not None:
            value = (value + np.asarray(residual).astype(dtype)).astype(dtype)
    return "" if equal(got, value) else "other integers than those that wrap"


def activated(activation: Any, x: np.ndarray) -> np.ndarray:
    if activation == "relu":
        return np.maximum(x, 0)
    if type(activation) is tuple:
        return np.minimum(np.maximum(x, activation[1]), activation[2])
    if activation == "tanh":
        return np.tanh(x)
    if activation == "gelu":
        tail = np.vectorize(math.erfc, otypes="d")((x * -math.sqrt(0.5)).astype("d"))
        return 0.5 * x * tail
    inner = x
    if activation == "gelu_tanh":
        inner = 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    sigmoid = 1 / (1 + np.exp(-inner))
    return sigmoid if activation == "sigmoid" else x * sigmoid


def of_layer(
    got: np.ndarray, value: Any, size: Any, moderate: Any, call: Call, dtype: "np.dtype[Any]",
    sums: "np.dtype[Any]", bias: Any, activation: Any, residual: Any, terms: float = 0,
) -> str:  # fmt: skip
    """What comes of sums, by a bias, an activation and a residual."""
    terms = terms or call.depth + 2.0
    work = adds_in(dtype)
    eps = float(np.finfo(work).eps)
    flushed = any(x.dtype.name == "bfloat16" for x in call.arrays())
    if bias is not None:
        bias = wide(np.asarray(bias).astype(sums))
        value = value + bias
        size, moderate = size + abs(bias), moderate + abs(finite(bias))
    if activation:
        if activation in SMOOTH and not np.all(np.isfinite(value) & (size < 1e4)):
            return ""  # what they make of infinities and of huge numbers is not said
        value = activated(activation, value)
        # the sums' error goes through it, and it has one of its own
        moderate = 1.2 * moderate + 16 * (abs(finite(value)) + 1e-30) + 1e-36 / eps
        size = 1.2 * size + 16 * abs(value)
    if residual is not None:
        residual = wide(np.asarray(residual).astype(dtype))
        value = value + residual
        size, moderate = size + abs(residual), moderate + abs(finite(residual))
        if got.dtype.itemsize < 4:  # it is rounded before, and after
            step = 0.5 * 2.0 ** -{"float16": 10, "bfloat16": 7}.get(got.dtype.name, 1)
            moderate = moderate + 2 * step / eps / terms * moderate
    return distance(got, value, size, moderate, terms, work, flushed)


def of_scaled(
    want: Expected, a: np.ndarray, b: np.ndarray, kwargs: dict[str, Any], call: Call
) -> Expected:
    """Bytes, whose exact sums are scaled."""
    m, n = a.shape[0], b.shape[1]
    for x in (a, b):
        want.wants(x.dtype.kind in "iu" and x.dtype.itemsize == 1, TypeError)
    out, zero = kwargs.get("out"), kwargs.get("zero_point", 0)
    asked = kwargs.get("out_dtype")
    if asked is None and isinstance(out, np.ndarray):
        asked = out.dtype
    elif asked is None and out is not None:
        want.errors += [ValueError, AttributeError]
        return want
    dtype = np.dtype("f4") if asked is None else np.dtype(asked)
    narrow = dtype.itemsize == 1 and dtype.kind in "iu"
    if not want.wants(narrow or dtype == np.dtype("f4"), TypeError):
        return want
    want.dtype, want.shape = dtype, (m, n)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if narrow else (0, 0)
    want.wants(zero == 0 or (narrow and low <= zero <= high), ValueError)
    bias, activation, residual = (kwargs.get(x) for x in ("bias", "activation", "residual"))
    want.wants(residual is None or not narrow, TypeError)
    scale = np.asarray(kwargs["scale"])
    want.wants(scale.shape in ((), (1,), (n,), (1, n)), ValueError)
    wants_out(want, out)
    single = np.dtype("f4")
    wants_layer(want, bias, activation, residual, (m, n), single, single)
    if want.errors:
        return want

    def check(got: np.ndarray) -> str:
        with np.errstate(all="ignore"):
            sums = np.matmul(a.astype("i8"), b.astype("i8"))
            value = sums.astype("g") * scale.astype("f4").astype("g")
            size = abs(value)
            if not narrow:
                return of_layer(
                    got, value, size, size, call, single, single, bias, activation, residual, 6.0
                )
            if bias is not None:
                added = wide(np.asarray(bias).astype("f4"))
                value, size = value + added, size + abs(added)
            if activation in SMOOTH and not np.all(size < 1e4):
                return ""
            if activation:
                value = activated(activation, value)
            slack = 1e-6 * (size + 16 * abs(value)) + 1e-30
            ends = (
                np.clip(np.rint(value + d) + zero, low, high).astype("i4") for d in (-slack, slack)
            )
            lowest, highest = ends
            good = (lowest <= got) & (got <= highest)
            return "" if np.all(good) else f"{(~good).sum()} of {got.size} are not rounded right"

    want.check = check
    return want


def of_brgemm(args: list[Any], kwargs: dict[str, Any], call: Call) -> Expected:
    """What `brgemm` says that it does."""
    want = Expected()
    sides = []
    for side in args:
        if isinstance(side, np.ndarray):
            if not want.wants(side.ndim == 3, ValueError):
                return want
        elif not isinstance(side, list | tuple):
            want.wants(False, TypeError)
            return want
        sides.append([np.asarray(x) for x in side])
    if not want.wants(len(sides[0]) == len(sides[1]) > 0, ValueError):
        return want
    for side in sides:
        if not want.wants(all(x.ndim == 2 for x in side), ValueError):
            return want
    if not want.wants(result_type(*sides[0], *sides[1]) is not None, TypeError):
        if any(x.dtype.kind in "OMm" for side in sides for x in side):
            want.more = {TypeError}  # or what comes of objects
        return want
    a, b = (np.stack(side) for side in sides)
    if not want.wants(a.shape[2] == b.shape[1], ValueError):
        return want
    c, beta = kwargs.get("c"), kwargs.get("beta", 0)
    want.shape = shape = a.shape[1], b.shape[2]
    number = beta.item() if hasattr(beta, "item") else beta
    if c is None:
        want.wants(beta == 0, ValueError)
    else:
        c = np.asarray(c)
        want.wants(c.shape == shape, ValueError)
    dtype = result_type(a, b, *([] if c is None else [c]))
    if not want.wants(dtype is not None, TypeError):
        return want
    want.dtype = dtype = dtype.newbyteorder("=")
    wants_out(want, kwargs.get("out"))
    if dtype.kind not in "biufc" and dtype.name not in LOW:
        want.errors, want.more = [TypeError], {TypeError}
    if want.errors:
        return want
    left, right = np.concatenate(list(a), axis=1), np.concatenate(list(b), axis=0)
    more = {"c": c, "beta": number} if c is not None else {}
    whole = of_gemm([left, right], {**more}, call)
    want.more = whole.more
    if whole.dtype != dtype:  # a factor of another kind of number: gemm's own rule
        want.errors = [ValueError, TypeError, *whole.errors]
        want.more = {ValueError}
    want.check = whole.check
    return want


def of_pack(a: Any, b: Any, kwargs: dict[str, Any], call: Call) -> Expected:
    """What ``a @ pack(b, ...)`` has to be, if there are kernels for it."""
    want = Expected()
    a, b = np.asarray(a), np.asarray(b)
    if not want.wants(b.ndim == 2, ValueError):
        return want
    own = b.dtype.newbyteorder("=")
    left = np.dtype(kwargs.get("a_dtype", own)).newbyteorder("=")
    asked = kwargs.get("dtype")
    want.more = {TypeError}  # there are not kernels for everything
    want.wants(a.ndim > 0 and a.shape[-1] == b.shape[0], ValueError)
    same = a.dtype.newbyteorder("=") == left or np.can_cast(a.dtype, left)
    want.wants(same, TypeError)
    if want.errors:
        return want
    bytes_ = all(x.kind in "iu" and x.itemsize == 1 for x in (left, own))
    dtype = np.dtype("i4") if bytes_ else None
    if asked is not None:
        dtype = np.dtype(asked)
    elif dtype is None:
        try:
            dtype = np.matmul.resolve_dtypes((left, own, None))[2]
        except TypeError:
            want.errors.append(TypeError)
            return want
    want.dtype = dtype = dtype.newbyteorder("=")
    want.shape = (*a.shape[:-1], b.shape[1])

    def check(got: np.ndarray) -> str:
        x, y = a.astype(left), b.astype(own)
        with np.errstate(all="ignore"):
            if dtype.kind == "b":
                return "" if equal(got, np.matmul(x, y)) else "other truths"
            if dtype.kind in "iu":
                value = np.matmul(x.astype("i8"), y.astype("i8")).astype(dtype)
                return "" if equal(got, value) else "other integers than those that wrap"
            x, y = wide(x), wide(y)
            value, size = x @ y, (abs(x) @ abs(y)).astype("g")
            moderate = (abs(finite(x)) @ abs(finite(y))).astype("g")
            flushed = "bfloat16" in (left.name, own.name)
            return distance(got, value, size, moderate, call.depth, adds_in(dtype), flushed)

    want.check = check
    return want


def multiply_packed(a: Any, b: Any, **kwargs: Any) -> Any:
    """A product with a matrix that was packed, kept and packed again for what was kept."""
    packed = nkblas.pack(b, **kwargs)
    b = np.asarray(b)
    whole = packed.unpack()
    native = b.dtype.newbyteorder("=")
    if whole.dtype != native or not equal(whole, b.astype(native)):
        raise AssertionError("unpack() is not what was packed")
    kept = pickle.loads(pickle.dumps(packed))
    a = np.asarray(a)
    got = a @ packed
    again = nkblas.matmul(a, kept)
    if got.tobytes() != again.tobytes():
        raise AssertionError("what was pickled multiplies otherwise")
    if a.ndim == 2 and got.tobytes() != nkblas.gemm(a, packed).tobytes():
        raise AssertionError("gemm is other than matmul")
    return got


def packed_gemm(a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    """`gemm` with a right operand that is packed before."""
    return nkblas.gemm(a, nkblas.pack(b), *args, **kwargs)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gemm": nkblas.gemm,
    "packed_gemm": packed_gemm,
    "brgemm": nkblas.brgemm,
    "pack": multiply_packed,
}


def as_said(call: Call, memories: list[Any]) -> str:
    """What is wrong with a call; empty: nothing."""
    for_reference = [bytearray(memory) for memory in call.memories]
    args, kwargs = call.arguments(for_reference)
    if call.function == "gemm":
        want = of_gemm(args, kwargs, call)
    elif call.function == "packed_gemm":
        want = of_gemm(args, kwargs, call)
        types = [np.asarray(x).dtype.newbyteorder("=") for x in args[:2]]
        if types != [want.dtype] * 2:  # it was packed for one of these
            want.more = want.more | {TypeError}
    elif call.function == "brgemm":
        want = of_brgemm(args, kwargs, call)
    elif call.function == "pack":
        want = of_pack(*args, kwargs, call)
    else:
        return as_scipy(call, memories)
    args, kwargs = call.arguments(memories)
    got = outcome(FUNCTIONS[call.function], args, kwargs)
    if isinstance(got, Failed):
        expected = (*want.errors, *want.more)
        if want.errors:  # of several mistakes, it is not said which comes first
            expected = ValueError, TypeError
        if expected and issubclass(got.kind, expected):
            return ""
        return f"{got!r}, expected {[x.__name__ for x in expected] or 'a result'}"
    if want.errors and not want.more:
        return f"{describe(got)}, expected one of {[x.__name__ for x in want.errors]}"
    if want.errors:
        return ""
    if not isinstance(got, np.ndarray | np.generic):
        return f"{got!r}, expected an array"
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{describe(got)}, expected {want.dtype} {want.shape}"
    out = kwargs.get("out")
    if out is not None and got is not out:
        return "the result is not `out`"
    return want.check(np.asarray(got))


def as_scipy(call: Call, memories: list[Any]) -> str:
    """`blas` beside `scipy.linalg.blas`."""
    ours, theirs = getattr(nkblas.blas, call.function), getattr(scipy.linalg.blas, call.function)
    for_scipy = [bytearray(memory) for memory in call.memories]
    args, kwargs = call.arguments(for_scipy)
    want = outcome(theirs, args, kwargs)
    args, kwargs = call.arguments(memories)
    got = outcome(ours, args, kwargs)
    if isinstance(want, Failed) or isinstance(got, Failed):
        both = isinstance(want, Failed) and isinstance(got, Failed)
        same = both and issubclass(got.kind, want.kind)
        return "" if same else f"{describe(got)}, expected {describe(want)}"
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        return f"{describe(got)}, expected {describe(want)}"
    if (got.flags.f_contiguous, got.flags.c_contiguous) != (
        want.flags.f_contiguous, want.flags.c_contiguous
    ):  # fmt: skip
        return f"{describe(got)}, expected {describe(want)}"
    if equal(got, want):
        return ""
    contents = [bytearray(memory) for memory in call.memories]

    def sizes(value: Any) -> Any:
        value = np.asarray(value)
        return abs(value.astype("D" if value.dtype.kind == "c" else "d"))

    args, kwargs = call.arguments(contents)
    letter = "z" if got.dtype.kind == "c" else "d"
    double = getattr(scipy.linalg.blas, letter + call.function[1:])
    numbers = ("beta", "c", "y")
    sized = {name: sizes(x) if name in numbers else x for name, x in kwargs.items()}
    size = double(*map(sizes, args), **sized).real.astype("g")
    terms = 2.0 * call.depth
    return distance(got, wide(want), size, size, terms, adds_in(got.dtype))


def outs(call: Call) -> list[Array]:
    """Arrays that a call may write to."""
    if call.function[1:] == "gemm" and call.kwargs.get("overwrite_c"):
        return [call.kwargs["c"]]
    if call.function[1:] == "gemv" and call.kwargs.get("overwrite_y"):
        return [call.kwargs["y"]]
    return split_out(call)[1]
