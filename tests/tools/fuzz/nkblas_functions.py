"""Random calls of `gemm`, `brgemm`, `pack` and `blas`, and checks of their documented behaviour.

The references are NumPy's arithmetic in wider types; no code of nkblas is in them.
"""

import math
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg.blas

import nkblas

from .draw import LOW_PRECISION, Draw
from .numpy_functions import (
    Draws,
    Failed,
    accumulator_dtype,
    compare_rounded,
    describe,
    equal,
    finite,
    outcome,
    split_out,
    view,
)
from .recipe import Array, Call, finfo, is_numpys, permuted

SMOOTH = ("gelu", "gelu_tanh", "silu", "sigmoid", "tanh")
ACTIVATIONS = ("relu", *SMOOTH)
PACKED = ("float32", "float64", "complex64", "complex128", "float16", "int32", "int64")
"""Dtypes for which a packed matrix gives the same result as an unpacked one."""


# ---- random calls


def matrices(draw: Draw, count: int = 2) -> "tuple[list[int], list[np.dtype[Any]]]":
    """Lengths m, k, n, and dtypes of operands."""
    return draw.lengths(3), draw.dtypes(count)


def factor(draw: Draw, dtype: "np.dtype[Any]") -> Any:
    """A value of alpha or beta; elements of A may be multiplied by it, and overflow."""
    whole = dtype.kind in "iub" or dtype.name.endswith("int4")
    if draw.mode in ("special", "tiny"):
        return draw.choice((0, 1, 1) if whole else (0, 1, 1, -1))
    if whole:
        return draw.choice((0, 1, 1, 2, 3))
    if dtype.kind == "c" and draw.chance(0.3):
        return draw.choice((1j, 2 - 1j, np.complex64(1 + 1j)))
    return draw.choice((0, 1, 1, -1, 2, 0.5, -1.5, np.float32(2)))


def gemm(draw: Draw) -> Call:
    """A random call of `gemm`."""
    (m, k, n), dtypes = matrices(draw)
    if draw.chance(0.15):
        dtypes = [np.dtype(draw.choice(("i1", "u1"))) for _ in range(2)]
    aliased = draw.chance(0.25)
    if aliased:
        m, k = draw.self_product()
        n, dtypes = m, dtypes[:1] * 2
    args, kwargs = gemm_operands(draw, (m, k, n), dtypes, aliased)
    if all(x.kind in "iu" and x.itemsize == 1 for x in dtypes) and draw.chance(0.6):
        return scaled(draw, args, kwargs, (m, k, n))
    common = dtypes[0]
    add_c(draw, args, kwargs, (m, n), dtypes)
    if draw.chance(0.3):
        kwargs["alpha"] = factor(draw, common)
    add_layer(draw, kwargs, m, n, common)
    if draw.chance(0.15):
        wider = {"float16": "f4", "bfloat16": "f4", "int8": "i4", "uint8": "i4", "float32": "f8"}
        kwargs["out_dtype"] = np.dtype(wider.get(common.name, common))
        if draw.chance(0.2):
            kwargs["out_dtype"] = draw.dtype()
    add_out(draw, args, kwargs, (m, n), kwargs.get("out_dtype", common))
    can_pack = dtypes[0] == dtypes[1] and common.name in PACKED and "out_dtype" not in kwargs
    packs = can_pack and not kwargs.get("trans_b") and draw.chance(0.2)
    return draw.call("packed_gemm" if packs else "gemm", args, kwargs, max(k, 1))


def gemm_operands(
    draw: Draw, lengths: tuple[int, int, int], dtypes: "list[np.dtype[Any]]", aliased: bool
) -> tuple[list[Any], dict[str, Any]]:
    """A and B, and how they are transposed. If `aliased`, op(B) is the transpose of op(A)."""
    m, k, n = lengths
    trans = [draw.choice((0, 0, 0, 1, True, 2)) for _ in range(2)]
    shapes = [[k, m] if trans[0] else [m, k], [n, k] if trans[1] else [k, n]]
    if draw.chance(0.03):
        draw.choice(shapes)[:] = draw.choice(([], [k], [m + 1, k], [1, m, k]))
    args: list[Any] = [draw.array(x, t) for x, t in zip(shapes, dtypes, strict=True)]
    if aliased:
        args[1] = aliased_b(draw, args[0], trans)
    kwargs: dict[str, Any] = {}
    for name, value in zip(("trans_a", "trans_b"), trans, strict=True):
        if value or draw.chance(0.1):
            kwargs[name] = value
    if draw.chance(0.01):
        kwargs["trans_a"] = draw.choice((3, -1, "T"))
    return args, kwargs


def aliased_b(draw: Draw, a: Array, trans: list[int]) -> Array:
    """A view of A: op(B) is the transpose of op(A)."""
    return draw.alias(view(draw, (-2, -1) if bool(trans[0]) != bool(trans[1]) else (-1, -2))(a))


def add_c(
    draw: Draw, args: list[Any], kwargs: dict[str, Any], shape: tuple[int, int],
    dtypes: "list[np.dtype[Any]]",
) -> None:  # fmt: skip
    """Perhaps add C, as an argument or by name, and beta."""
    m, n = shape
    if draw.chance(0.4):
        c: Any = draw.array([m, n] if draw.chance(0.95) else [n, m + 1], draw.choice(dtypes))
        if args[0].shape == shape and draw.chance(0.3):
            c = draw.alias(args[0])
        if draw.chance(0.5):
            args.append(c)
        else:
            kwargs["c"] = c
        if draw.chance(0.85):
            kwargs["beta"] = factor(draw, dtypes[0])
    elif draw.chance(0.02):
        kwargs["beta"] = 1


def add_out(
    draw: Draw, args: list[Any], kwargs: dict[str, Any], shape: Any, dtype: "np.dtype[Any]"
) -> None:
    """Perhaps add `out`."""
    if draw.chance(0.2):
        if dtype.kind == "O":
            dtype = np.dtype("f8")
        near = [x for x in (*args, *kwargs.values()) if isinstance(x, Array) and x.kind == "array"]
        kwargs["out"] = draw.out(list(shape), dtype, near)


def add_layer(draw: Draw, kwargs: dict[str, Any], m: int, n: int, dtype: "np.dtype[Any]") -> None:
    """Add one of the theme's layers: each combination of its parts has kernels of its own."""
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
    """A random call of `gemm` with scales: bytes to floats, or to bytes."""
    m, k, n = lengths
    draw.mode = "rounded"
    kwargs["scale"] = draw.array(
        draw.choice(([n], [n], [1, n], [], [1], [n + 1])), np.dtype(draw.choice(("f4", "f4", "f8")))
    )
    result = np.dtype(draw.choice(("f4", "f4", "i1", "u1")))
    add_layer(draw, kwargs, m, n, np.dtype("f4"))
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
    """A random call of `brgemm`."""
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
    """A random call of ``a @ nkblas.pack(b, ...)``; the keyword arguments are those of `pack`."""
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
    """A random call of gemm or gemv of `nkblas.blas`."""
    letter = draw.choice("sdcz")
    dtype = np.dtype(dict(zip("sdcz", "fdFD", strict=True))[letter])
    if draw.mode == "special":
        draw.mode = "exact"

    def array(shape: list[int]) -> Array:
        own = dtype if draw.chance(0.8) else np.dtype(draw.choice(("f", "d", "h", "F")))
        found = draw.array(shape, own)
        if own.kind == "c" and dtype.kind != "c" and found.kind == "list":
            return found._replace(kind="array")  # SciPy miscounts references to a dtype
        return found._replace(kind="array") if found.kind in ("masked", "arrayish") else found

    m, k, n = (draw.length() or 1 for _ in range(3))
    aliased = draw.chance(0.3)
    if aliased:
        m, k = (x or 1 for x in draw.self_product())
        n = m
    numbers = (1, 1, 2, -1, 0.5, 3.0) + ((1j, 1 - 2j) if dtype.kind == "c" else ())
    alpha, beta = draw.choice(numbers), draw.choice((0, *numbers))
    if draw.chance(0.5):
        trans_a, trans_b = (draw.choice((0, 0, 1, 2)) for _ in range(2))
        shapes = [[k, m] if trans_a else [m, k], [n, k] if trans_b else [k, n]]
        if draw.chance(0.03):
            shapes[1][0] += 1
        args: list[Any] = [alpha, *map(array, shapes)]
        if aliased:
            args[2] = aliased_b(draw, args[1], [trans_a, trans_b])
        kwargs: dict[str, Any] = {"trans_a": trans_a, "trans_b": trans_b}
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
    if aliased and len(args[1].shape) == 2:
        args[2] = draw.alias(permuted(args[1], [draw.below(2)])._replace(shape=(x,)))
    if draw.chance(0.6):
        kwargs |= {"beta": beta, "y": array([y]), "overwrite_y": draw.choice((0, 1))}
    return draw.call(f"{letter}gemv", args, kwargs, n + 2)


CALLS: dict[str, tuple[float, Draws]] = {
    "gemm": (10, gemm),
    "brgemm": (4, brgemm),
    "pack": (5, pack),
    "blas": (6, blas),
}
"""The functions: how often they are called, and how a call is drawn."""


# ---- expected results


class Expected:
    """The documented outcome of a call: one of some errors, or a result.

    Attributes
    ----------
    errors : list of type
        Errors of mistakes in the arguments. If there are any, the call must raise an error.
    allowed : set of type
        Errors that the call may raise, where nkblas has no kernels.
    dtype, shape
        Those of the result.
    check : callable
        The fault of a result's values; empty: none.
    """

    def __init__(self) -> None:
        self.errors: list[type[Exception]] = []
        self.allowed: set[type[Exception]] = set()
        self.dtype: Any = None
        self.shape: tuple[int, ...] = ()
        self.check: Callable[[np.ndarray], str] = lambda got: ""

    def require(self, holds: object, error: type[Exception]) -> bool:
        """Note an error of the call, unless a condition holds; whether it does."""
        if not holds:
            self.errors.append(error)
        return bool(holds)


class Layer(NamedTuple):
    """The operations that follow a product."""

    bias: Any
    activation: Any
    residual: Any

    @classmethod
    def of(cls, kwargs: dict[str, Any]) -> "Layer":
        return cls(*(kwargs.get(name) for name in cls._fields))


def wide(x: np.ndarray) -> np.ndarray:
    """An array in extended precision."""
    x = x if is_numpys(x.dtype) else x.astype("f4")
    return x.astype("G" if x.dtype.kind == "c" else "g")


def times(number: Any, x: np.ndarray) -> np.ndarray:
    """A multiple. A real factor stays real: a complex one would turn infinities into NaNs."""
    if x.dtype.kind != "c" or isinstance(number, complex):
        return np.asarray(number * x)
    x = x.copy()
    x.real, x.imag = number * x.real, number * x.imag
    return x


def result_type(*operands: Any) -> Any:
    """The common dtype; None if there is none."""
    try:
        return np.result_type(*operands)
    except (TypeError, OverflowError):
        return None


class Gemm(NamedTuple):
    """The operands of ``alpha * a @ b + beta * c`` and the layer that follows.

    A and B are transposed; alpha and beta are Python numbers. `natural` is the common dtype of the
    operands, `dtype` the result's, and `sums` the accumulator's.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray | None
    alpha: Any
    beta: Any
    layer: Layer
    natural: "np.dtype[Any]"
    dtype: "np.dtype[Any]"
    call: Call

    @property
    def sums(self) -> "np.dtype[Any]":
        return sum_dtype(self.dtype)

    def check(self, got: np.ndarray) -> str:
        """The fault of a result; empty: none."""
        if self.dtype.kind not in "fcV":
            return compare_integers(got, self)
        if self.is_undefined:
            return ""
        with np.errstate(all="ignore"):
            value, size, finite_size = self.reference()
            c_itemsize = 0 if self.c is None or self.beta == 0 else self.c.dtype.itemsize
            if self.dtype.itemsize < min(4, c_itemsize):
                return ""  # c may be rounded to the result's dtype first
            terms = self.call.depth + 4.0
            return compare_layer(
                got, value, size, finite_size, self.call, self.dtype, self.sums, self.layer, terms
            )

    @property
    def is_undefined(self) -> bool:
        """Whether the result is not defined by the documentation."""
        if self.dtype.kind not in "biufc" and self.dtype.name not in LOW_PRECISION:
            return True  # 4 and 6 bits, and float8_e8m0fnu, which has no zero
        if self.dtype.kind != "c":
            return self.natural.kind == "c"  # ml_dtypes casts complex numbers to its own dtypes
        # 0 times infinity may be a part of it
        has_complex = "c" in self.a.dtype.kind + self.b.dtype.kind
        return self.call.mode == "special" and not has_complex

    def reference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The exact values, and the sums of the magnitudes of all and of the finite addends."""
        a, b = self.a, self.b
        left, right = wide(a), wide(b)
        if a.dtype != b.dtype or a.dtype.kind in "iub":  # they are rounded to float8
            common = result_type(a, b, self.dtype) or self.dtype
            left, right = wide(a.astype(common)), wide(b.astype(common))
        shape = a.shape[0], b.shape[1]
        size = finite_size = np.zeros(shape, "g")
        value = np.zeros(shape, "G" if self.dtype.kind == "c" else "g")
        if self.alpha != 0:
            value = times(self.alpha, left @ right)
            size = abs(self.alpha) * (abs(left) @ abs(right)).astype("g")
            finite_size = abs(self.alpha) * (abs(finite(left)) @ abs(finite(right))).astype("g")
        if self.beta != 0 and self.c is not None:
            added = wide(self.c)
            value = value + times(self.beta, added)
            size = size + abs(self.beta * added)
            finite_size = finite_size + abs(self.beta * finite(added))
        return value, size, finite_size


def sum_dtype(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    """The dtype of the sums of `gemm`, which a bias has too."""
    return np.dtype("f4") if dtype.itemsize < 4 and dtype.kind not in "iub" else dtype


def transposed(x: np.ndarray, trans: int) -> np.ndarray:
    """``op(x)``."""
    if not trans:
        return x
    return x.T if trans == 1 or x.dtype.kind != "c" else x.conj().T


def expect_gemm(args: list[Any], kwargs: dict[str, Any], call: Call) -> Expected:
    """The documented outcome of `gemm`."""
    want = Expected()
    a, b = np.asarray(args[0]), np.asarray(args[1])
    c = args[2] if len(args) > 2 else kwargs.get("c")
    alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 0)
    if not want.require(a.ndim == 2 and b.ndim == 2, ValueError):
        return want
    trans = [kwargs.get(name, 0) for name in ("trans_a", "trans_b")]
    if not want.require(all(x in (0, 1, 2) for x in trans), ValueError):
        return want
    a, b = transposed(a, trans[0]), transposed(b, trans[1])
    want.require(a.shape[1] == b.shape[0], ValueError)
    if "scale" in kwargs:
        want.require(c is None and alpha == 1 and beta == 0, TypeError)
        return expect_scaled(want, a, b, kwargs, call)
    want.shape = shape = a.shape[0], b.shape[1]
    if c is None:
        want.require(beta == 0, ValueError)
    else:
        c = np.asarray(c)
        want.require(c.shape == shape, ValueError)
    alpha, beta = (x.item() if hasattr(x, "item") else x for x in (alpha, beta))
    natural = gemm_dtype(a, b, c, alpha, beta)
    if not want.require(natural is not None, TypeError):
        return want
    if not require_dtype(want, natural, kwargs.get("out_dtype"), call):
        return want
    require_out(want, kwargs.get("out"))
    layer = Layer.of(kwargs)
    require_layer(want, layer, shape, want.dtype, sum_dtype(want.dtype))
    if not want.errors:
        want.check = Gemm(a, b, c, alpha, beta, layer, natural, want.dtype, call).check
    return want


def gemm_dtype(a: np.ndarray, b: np.ndarray, c: np.ndarray | None, alpha: Any, beta: Any) -> Any:
    """The common dtype of the operands and factors of `gemm`; None if there is none."""
    dtype = result_type(a, b, *([] if c is None else [c]))
    if dtype is None:
        return None
    factors = [alpha, beta]
    if dtype.name in LOW_PRECISION:  # with a Python float the common dtype would be float64
        factors = [x for x in factors if isinstance(x, complex)]
    return result_type(dtype, *factors)


def require_dtype(want: Expected, natural: "np.dtype[Any]", out_dtype: Any, call: Call) -> bool:
    """Set the dtype of a result, and the errors of dtypes without kernels; False if it can't be."""
    if natural.kind not in "biufc" or not all(is_numpys(x.dtype) for x in call.arrays()):
        want.allowed = {TypeError}  # nkblas has no kernels for some of them
    dtype = natural
    if out_dtype is not None:
        dtype = np.dtype(out_dtype)
        if dtype.kind not in "biufc":
            want.allowed = {TypeError}
        if not want.require(np.can_cast(natural, dtype, "same_kind"), TypeError):
            return False
    want.dtype = dtype.newbyteorder("=")
    return True


def require_out(want: Expected, out: Any) -> None:
    """Note the errors of an `out` that does not fit."""
    if out is None:
        return
    fits = isinstance(out, np.ndarray) and out.shape == want.shape and out.dtype == want.dtype
    if want.require(fits, ValueError):
        want.require(out.flags.writeable, ValueError)


def require_layer(
    want: Expected, layer: Layer, shape: tuple[int, int], dtype: "np.dtype[Any]",
    sums: "np.dtype[Any]",
) -> None:  # fmt: skip
    """Note the errors of a layer that does not fit."""
    m, n = shape
    if layer.bias is not None:
        bias = np.asarray(layer.bias)
        shapes = ((), (1,), (n,), (1, n), (1, 1), (m, 1))
        want.require(bias.shape in shapes, ValueError)
        same = bias.dtype == sums or np.can_cast(bias.dtype, sums, "same_kind")
        want.require(same, TypeError)
    if layer.residual is not None:
        residual = np.asarray(layer.residual)
        want.require(residual.shape == shape, ValueError)
        same = residual.dtype == dtype or np.can_cast(residual.dtype, dtype, "same_kind")
        want.require(same, TypeError)
    if layer.activation:
        require_activation(want, layer.activation, dtype)


def require_activation(want: Expected, activation: Any, dtype: "np.dtype[Any]") -> None:
    """Note the errors of an activation."""
    is_known = activation in ACTIVATIONS
    if type(activation) is tuple:
        is_known = activation[0] == "clip"
        if not want.require(all(isinstance(x, float) for x in activation[1:]), TypeError):
            return
    if want.require(is_known, ValueError):
        has_integer_kernel = activation == "relu" or type(activation) is tuple
        want.require(dtype.kind != "c", TypeError)
        want.require(dtype.kind not in "iub" or has_integer_kernel, TypeError)


def compare_integers(got: np.ndarray, gemm: Gemm) -> str:
    """The fault of integers that wrap, or of booleans; empty: none."""
    dtype, layer = gemm.dtype, gemm.layer
    if dtype.kind not in "biu":
        return ""
    with np.errstate(all="ignore"):
        a, b = gemm.a.astype(dtype), gemm.b.astype(dtype)
        c = None if gemm.c is None or not gemm.beta else gemm.c.astype(dtype)
        if dtype.kind == "b":
            value = np.matmul(a, b) if gemm.alpha else np.zeros(got.shape, bool)
            if c is not None:
                value = value | c
        else:
            value = (np.matmul(a, b) * dtype.type(gemm.alpha)).astype(dtype)
            if c is not None:
                value = (value + c * dtype.type(gemm.beta)).astype(dtype)
        if layer.bias is not None:
            value = (value + np.asarray(layer.bias).astype(dtype)).astype(dtype)
        if layer.activation == "relu":
            value = np.maximum(value, dtype.type(0))
        elif layer.activation:
            value = np.clip(value.astype("g"), *layer.activation[1:]).astype(dtype)
        if layer.residual is not None:
            value = (value + np.asarray(layer.residual).astype(dtype)).astype(dtype)
    return "" if equal(got, value) else "wrong integers"


def activated(activation: Any, x: np.ndarray) -> np.ndarray:
    """The values of an activation."""
    result: np.ndarray
    if activation == "relu":
        result = np.maximum(x, 0)
    elif type(activation) is tuple:
        result = np.minimum(np.maximum(x, activation[1]), activation[2])
    elif activation == "tanh":
        result = np.tanh(x)
    elif activation == "gelu":
        tail = np.vectorize(math.erfc, otypes="d")((x * -math.sqrt(0.5)).astype("d"))
        result = 0.5 * x * tail
    else:
        inner = x
        if activation == "gelu_tanh":
            inner = 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        sigmoid = 1 / (1 + np.exp(-inner))
        result = sigmoid if activation == "sigmoid" else x * sigmoid
    return result


def compare_layer(
    got: np.ndarray, value: Any, size: Any, finite_size: Any, call: Call, dtype: "np.dtype[Any]",
    sums: "np.dtype[Any]", layer: Layer, terms: float,
) -> str:  # fmt: skip
    """The fault of a result that is a layer applied to sums; empty: none."""
    eps = float(finfo(accumulator_dtype(dtype)).eps)
    flushed = any(x.dtype.name == "bfloat16" for x in call.arrays())
    if layer.bias is not None:
        bias = wide(np.asarray(layer.bias).astype(sums))
        value = value + bias
        size, finite_size = size + abs(bias), finite_size + abs(finite(bias))
    if layer.activation:
        if layer.activation in SMOOTH and not np.all(np.isfinite(value) & (size < 1e4)):
            return ""  # their results for infinities and huge numbers are not documented
        value = activated(layer.activation, value)
        # the sums' error is propagated, and the activation has an error of its own
        finite_size = 1.2 * finite_size + 16 * (abs(finite(value)) + 1e-30) + 1e-36 / eps
        size = 1.2 * size + 16 * abs(value)
    if layer.residual is not None:
        residual = wide(np.asarray(layer.residual).astype(dtype))
        value = value + residual
        size, finite_size = size + abs(residual), finite_size + abs(finite(residual))
        if got.dtype.itemsize < 4:  # the sum is rounded before and after the residual is added
            step = 0.5 * 2.0 ** -{"float16": 10, "bfloat16": 7}.get(got.dtype.name, 1)
            finite_size = finite_size + 2 * step / eps / terms * finite_size
    return compare_rounded(got, value, size, finite_size, terms, accumulator_dtype(dtype), flushed)


def expect_scaled(
    want: Expected, a: np.ndarray, b: np.ndarray, kwargs: dict[str, Any], call: Call
) -> Expected:
    """The documented outcome of `gemm` with scales."""
    m, n = a.shape[0], b.shape[1]
    for x in (a, b):
        want.require(x.dtype.kind in "iu" and x.dtype.itemsize == 1, TypeError)
    out, zero = kwargs.get("out"), kwargs.get("zero_point", 0)
    requested = kwargs.get("out_dtype")
    if requested is None and isinstance(out, np.ndarray):
        requested = out.dtype
    elif requested is None and out is not None:
        want.errors += [ValueError, AttributeError]
        return want
    dtype = np.dtype("f4") if requested is None else np.dtype(requested)
    narrow = dtype.itemsize == 1 and dtype.kind in "iu"
    if not want.require(narrow or dtype == np.dtype("f4"), TypeError):
        return want
    want.dtype, want.shape = dtype, (m, n)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if narrow else (0, 0)
    want.require(zero == 0 or (narrow and low <= zero <= high), ValueError)
    layer = Layer.of(kwargs)
    want.require(layer.residual is None or not narrow, TypeError)
    scale = np.asarray(kwargs["scale"])
    want.require(scale.shape in ((), (1,), (n,), (1, n)), ValueError)
    require_out(want, out)
    single = np.dtype("f4")
    require_layer(want, layer, (m, n), single, single)
    if want.errors:
        return want

    def check(got: np.ndarray) -> str:
        with np.errstate(all="ignore"):
            sums = np.matmul(a.astype("i8"), b.astype("i8"))
            value = sums.astype("g") * scale.astype("f4").astype("g")
            size = abs(value)
            if not narrow:
                return compare_layer(got, value, size, size, call, single, single, layer, 6.0)
            if layer.bias is not None:
                added = wide(np.asarray(layer.bias).astype("f4"))
                value, size = value + added, size + abs(added)
            if layer.activation in SMOOTH and not np.all(size < 1e4):
                return ""
            if layer.activation:
                value = activated(layer.activation, value)
            slack = 1e-6 * (size + 16 * abs(value)) + 1e-30
            lowest, highest = (
                np.clip(np.rint(value + d) + zero, low, high).astype("i4") for d in (-slack, slack)
            )
            good = (lowest <= got) & (got <= highest)
            return "" if np.all(good) else f"{(~good).sum()} of {got.size} are not rounded right"

    want.check = check
    return want


def expect_brgemm(args: list[Any], kwargs: dict[str, Any], call: Call) -> Expected:
    """The documented outcome of `brgemm`."""
    want = Expected()
    sides = brgemm_blocks(want, args)
    if want.errors:
        return want
    if not want.require(result_type(*sides[0], *sides[1]) is not None, TypeError):
        if any(x.dtype.kind in "OMm" for side in sides for x in side):
            want.allowed = {TypeError}  # or NumPy's result for objects
        return want
    a, b = (np.stack(side) for side in sides)
    if not want.require(a.shape[2] == b.shape[1], ValueError):
        return want
    c, beta = kwargs.get("c"), kwargs.get("beta", 0)
    want.shape = shape = a.shape[1], b.shape[2]
    beta = beta.item() if hasattr(beta, "item") else beta
    if c is None:
        want.require(beta == 0, ValueError)
    else:
        c = np.asarray(c)
        want.require(c.shape == shape, ValueError)
    dtype = result_type(a, b, *([] if c is None else [c]))
    if not want.require(dtype is not None, TypeError):
        return want
    want.dtype = dtype = dtype.newbyteorder("=")
    require_out(want, kwargs.get("out"))
    if dtype.kind not in "biufc" and dtype.name not in LOW_PRECISION:
        want.errors, want.allowed = [TypeError], {TypeError}
    if want.errors:
        return want
    left, right = np.concatenate(list(a), axis=1), np.concatenate(list(b), axis=0)
    options = {"c": c, "beta": beta} if c is not None else {}
    whole = expect_gemm([left, right], options, call)
    want.allowed = whole.allowed
    if whole.dtype != dtype:  # a factor of another kind of number: gemm's own rule
        want.errors = [ValueError, TypeError, *whole.errors]
        want.allowed = {ValueError}
    want.check = whole.check
    return want


def brgemm_blocks(want: Expected, args: list[Any]) -> list[list[np.ndarray]]:
    """The blocks of A and of B; the first error of the arguments is noted."""
    sides: list[list[np.ndarray]] = []
    for side in args:
        if isinstance(side, np.ndarray):
            if not want.require(side.ndim == 3, ValueError):
                return sides
        elif not want.require(isinstance(side, list | tuple), TypeError):
            return sides
        sides.append([np.asarray(x) for x in side])
    if not want.require(len(sides[0]) == len(sides[1]) > 0, ValueError):
        return sides
    for side in sides:
        if not want.require(all(x.ndim == 2 for x in side), ValueError):
            break
    return sides


def expect_pack(a: Any, b: Any, kwargs: dict[str, Any], call: Call) -> Expected:
    """The documented outcome of ``a @ pack(b, ...)``, if there are kernels for it."""
    want = Expected()
    a, b = np.asarray(a), np.asarray(b)
    if not want.require(b.ndim == 2, ValueError):
        return want
    own = b.dtype.newbyteorder("=")
    left = np.dtype(kwargs.get("a_dtype", own)).newbyteorder("=")
    requested = kwargs.get("dtype")
    want.allowed = {TypeError}  # nkblas has no kernels for some dtypes
    want.require(a.ndim > 0 and a.shape[-1] == b.shape[0], ValueError)
    same = a.dtype.newbyteorder("=") == left or np.can_cast(a.dtype, left)
    want.require(same, TypeError)
    if want.errors:
        return want
    are_bytes = all(x.kind in "iu" and x.itemsize == 1 for x in (left, own))
    dtype = np.dtype("i4") if are_bytes else None
    if requested is not None:
        dtype = np.dtype(requested)
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
                return "" if equal(got, np.matmul(x, y)) else "wrong booleans"
            if dtype.kind in "iu":
                value = np.matmul(x.astype("i8"), y.astype("i8")).astype(dtype)
                return "" if equal(got, value) else "wrong integers"
            x, y = wide(x), wide(y)
            value, size = x @ y, (abs(x) @ abs(y)).astype("g")
            finite_size = (abs(finite(x)) @ abs(finite(y))).astype("g")
            flushed = "bfloat16" in (left.name, own.name)
            sums = accumulator_dtype(dtype)
            return compare_rounded(got, value, size, finite_size, call.depth, sums, flushed)

    want.check = check
    return want


def multiply_packed(a: Any, b: Any, **kwargs: Any) -> Any:
    """A product with a packed matrix, which is also unpacked, and pickled.

    Raises
    ------
    AssertionError
        The unpacked matrix, or the product with the pickled one, is different.
    """
    packed = nkblas.pack(b, **kwargs)
    b = np.asarray(b)
    whole = packed.unpack()
    native = b.dtype.newbyteorder("=")
    if whole.dtype != native or not equal(whole, b.astype(native)):
        raise AssertionError("unpack() differs from the packed matrix")
    pickled = pickle.loads(pickle.dumps(packed))
    a = np.asarray(a)
    got = a @ packed
    again = nkblas.matmul(a, pickled)
    if got.tobytes() != again.tobytes():
        raise AssertionError("the product with the pickled matrix is different")
    if a.ndim == 2 and got.tobytes() != nkblas.gemm(a, packed).tobytes():
        raise AssertionError("gemm differs from matmul")
    return got


def packed_gemm(a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    """`gemm` with a packed right operand."""
    return nkblas.gemm(a, nkblas.pack(b), *args, **kwargs)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gemm": nkblas.gemm,
    "packed_gemm": packed_gemm,
    "brgemm": nkblas.brgemm,
    "pack": multiply_packed,
}


def function_of(call: Call) -> Callable[..., Any]:
    """The function that a call is of."""
    function: Callable[..., Any]
    function = FUNCTIONS.get(call.function) or getattr(nkblas.blas, call.function)
    return function


def check(call: Call, memories: list[Any]) -> str:
    """Make a call; its fault, or empty."""
    if call.function not in FUNCTIONS:
        return compare_with_scipy(call, memories)
    want = expect(call)
    args, kwargs = call.arguments(memories)
    got = outcome(function_of(call), args, kwargs)
    if isinstance(got, Failed):
        expected: tuple[type[Exception], ...] = (*want.errors, *want.allowed)
        if want.errors:  # which of several mistakes is reported is not documented
            expected = ValueError, TypeError
        if expected and issubclass(got.kind, expected):
            return ""
        return f"{got!r}, expected {[x.__name__ for x in expected] or 'a result'}"
    if want.errors:
        names = [x.__name__ for x in want.errors]
        return "" if want.allowed else f"{describe(got)}, expected one of {names}"
    if not isinstance(got, np.ndarray | np.generic):
        return f"{got!r}, expected an array"
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{describe(got)}, expected {want.dtype} {want.shape}"
    out = kwargs.get("out")
    if out is not None and got is not out:
        return "the result is not `out`"
    return want.check(np.asarray(got))


def expect(call: Call) -> Expected:
    """The documented outcome of a call."""
    args, kwargs = call.arguments([bytearray(memory) for memory in call.memories])
    if call.function == "brgemm":
        return expect_brgemm(args, kwargs, call)
    if call.function == "pack":
        return expect_pack(args[0], args[1], kwargs, call)
    want = expect_gemm(args, kwargs, call)
    if call.function == "packed_gemm":
        types = [np.asarray(x).dtype.newbyteorder("=") for x in args[:2]]
        if types != [want.dtype] * 2:  # the matrix was packed for one of these dtypes
            want.allowed = want.allowed | {TypeError}
    return want


def compare_with_scipy(call: Call, memories: list[Any]) -> str:
    """Compare `nkblas.blas` with `scipy.linalg.blas`; the fault, or empty."""
    ours, theirs = function_of(call), getattr(scipy.linalg.blas, call.function)
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

    def magnitudes(value: Any) -> Any:
        value = np.asarray(value)
        return abs(value.astype("D" if value.dtype.kind == "c" else "d"))

    args, kwargs = call.arguments(contents)
    letter = "z" if got.dtype.kind == "c" else "d"
    double = getattr(scipy.linalg.blas, letter + call.function[1:])
    numbers = ("beta", "c", "y")
    sized = {name: magnitudes(x) if name in numbers else x for name, x in kwargs.items()}
    size = double(*map(magnitudes, args), **sized).real.astype("g")
    terms = 2.0 * call.depth
    return compare_rounded(got, wide(want), size, size, terms, accumulator_dtype(got.dtype))


def outs(call: Call) -> list[Array]:
    """The arrays that a call may write to."""
    if call.function[1:] == "gemm" and call.kwargs.get("overwrite_c"):
        return [call.kwargs["c"]]
    if call.function[1:] == "gemv" and call.kwargs.get("overwrite_y"):
        return [call.kwargs["y"]]
    return split_out(call)[1]
