"""`Epilogue`: what is applied to a product when it is stored to C, in the same pass.

``C = activation(alpha * A @ B + beta * C + bias) + residual``, with each part present or absent.
For quantized products it is ``C = activation(scales * (A @ B) + bias) + residual`` in float32, or
that rounded to 8-bit integers.

The engine's C constants are generated from this file (`nkblas.engine.tables`), which therefore
imports nothing of nkblas.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

READ_PADDING = 256
"""Elements behind a bias or scales that kernels may read: whole vectors, up to a tile."""

KINDS = ("", "add", "scale")
"""``C = A @ B``, ``C += A @ B``, ``C = alpha * A @ B + beta * C``."""

BIASES = ("", "columns", "rows")
"""No bias, one number for each column of C, one for each row."""


class BitField(NamedTuple):
    """Some bits of an epilogue's code."""

    shift: int
    width: int

    @property
    def mask(self) -> int:
        """These bits, set."""
        return ((1 << self.width) - 1) << self.shift

    def encode(self, value: int) -> int:
        """`value` in these bits.

        Raises
        ------
        ValueError
            It needs more bits.
        """
        if value >> self.width:
            raise ValueError(f"epilogue code: got {value}, expected at most {self.width} bits")
        return value << self.shift

    def decode(self, code: int) -> int:
        """The value that `code` has in these bits."""
        return (code & self.mask) >> self.shift


# The bits of `Epilogue.code`, which is an int16 in the engine's problem.
KIND_BITS = BitField(0, 2)
BIAS_BITS = BitField(2, 2)
RESIDUAL_BITS = BitField(4, 1)
SCALES_BITS = BitField(5, 1)
ACTIVATION_BITS = BitField(6, 8)


class Activation(NamedTuple):
    """An activation function; kernels' code for it is in `nkblas.codegen.kernels.activation`.

    Attributes
    ----------
    reference : callable
        ``reference(x, low, high)`` of an array; the bounds are those of "clip".
    on_integers : bool
        Whether it is defined for integers, too.
    has_bounds : bool
        Whether it takes `low` and `high`.
    is_exact : bool
        Whether kernels give exactly the reference's result.
    """

    reference: Callable[[Array, float, float], Array]
    on_integers: bool = False
    has_bounds: bool = False
    is_exact: bool = False


def _clip(x: Array, low: float, high: float) -> Array:
    if x.dtype.kind not in "iu":
        least, most = low, high
    else:
        least, most = _integer_bounds(x.dtype, low, high)
    result: Array = np.minimum(np.maximum(x, least), most)
    return result


def _integer_bounds(dtype: Any, low: float, high: float) -> tuple[Any, Any]:
    """The least and the greatest integer of a dtype within bounds."""
    # float64 does not hold all integers of 64 bits: the bounds are clamped as Python's integers
    ends = np.iinfo(dtype)
    least = math.ceil(min(max(low, ends.min), ends.max))
    most = math.floor(min(max(high, ends.min), ends.max))
    return dtype.type(least), dtype.type(most)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        result: Array = 1 / (1 + np.exp(-x))
    return result


def _gelu(x: Array, low: float, high: float) -> Array:
    erfc = np.vectorize(math.erfc, otypes="d")
    result: Array = 0.5 * x * erfc(x * -math.sqrt(0.5))
    return result


def _gelu_tanh(x: Array, low: float, high: float) -> Array:
    result: Array = x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return result


ACTIVATIONS: dict[str, Activation] = {
    "": Activation(lambda x, low, high: x, on_integers=True, is_exact=True),
    "relu": Activation(lambda x, low, high: np.maximum(x, 0), on_integers=True, is_exact=True),
    "gelu": Activation(_gelu),
    "gelu_tanh": Activation(_gelu_tanh),
    "silu": Activation(lambda x, low, high: x * _sigmoid(x)),
    "sigmoid": Activation(lambda x, low, high: _sigmoid(x)),
    "tanh": Activation(lambda x, low, high: np.tanh(x)),
    "clip": Activation(_clip, on_integers=True, has_bounds=True, is_exact=True),
}
"""By name. The code of an activation is its index here, in this process only."""


class Epilogue(NamedTuple):
    """As text, the names of its parts joined by ``+``: ``scale+columns+relu``.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    bias : str
        One of `BIASES`.
    activation : str
        A key of `ACTIVATIONS`.
    residual : bool
        Whether a matrix is added last.
    scales : bool
        Whether sums of bytes are multiplied by a factor for each column first, in float32.
    """

    kind: str = ""
    bias: str = ""
    activation: str = ""
    residual: bool = False
    scales: bool = False

    @property
    def is_fused(self) -> bool:
        """Whether there is more than alpha and beta."""
        return self[1:] != Epilogue()[1:]

    @property
    def code(self) -> int:
        """The engine's number for it."""
        return (
            KIND_BITS.encode(KINDS.index(self.kind))
            | BIAS_BITS.encode(BIASES.index(self.bias))
            | RESIDUAL_BITS.encode(self.residual)
            | SCALES_BITS.encode(self.scales)
            | ACTIVATION_BITS.encode(list(ACTIVATIONS).index(self.activation))
        )

    @property
    def fused_code(self) -> int:
        """`code` without the kind."""
        return self.code & ~KIND_BITS.mask

    @classmethod
    def from_code(cls, code: int) -> "Epilogue":
        """The inverse of `code`."""
        return cls(
            KINDS[KIND_BITS.decode(code)],
            BIASES[BIAS_BITS.decode(code)],
            list(ACTIVATIONS)[ACTIVATION_BITS.decode(code)],
            bool(RESIDUAL_BITS.decode(code)),
            bool(SCALES_BITS.decode(code)),
        )

    def __str__(self) -> str:
        scales, residual = self.scales * "scales", self.residual * "residual"
        return "+".join(filter(None, (scales, self.kind, self.bias, self.activation, residual)))


@lru_cache(256)
def parse(text: str) -> Epilogue:
    """The epilogue that a text such as "scale+columns+relu" describes.

    Raises
    ------
    ValueError
        It describes none.
    """
    words = text.split("+") if text else []

    def take(names: tuple[str, ...]) -> str:
        return words.pop(0) if words and words[0] in names else ""

    scales = take(("scales",)) != ""
    parts = take(KINDS), take(BIASES), take(tuple(ACTIVATIONS))
    epilogue = Epilogue(*parts, take(("residual",)) != "", scales)
    if words or str(epilogue) != text:
        raise ValueError(f"epilogue: got {text!r}, expected such as 'scale+columns+relu+residual'")
    return epilogue


@lru_cache(256)
def code_of(text: str) -> int:
    """The engine's number for the epilogue that a text describes."""
    return parse(text).code


@lru_cache(256)
def text_of(code: int) -> str:
    """The inverse of `code_of`."""
    return str(Epilogue.from_code(code))


def apply(
    epilogue: Epilogue,
    x: Array,
    bias: Array | None,
    residual: Array | None,
    bounds: tuple[float, float],
    scales: Array | None = None,
) -> Array:
    """Apply the fused part of an epilogue with NumPy.

    Kernels are verified against it, and it serves where there is no kernel.

    Parameters
    ----------
    epilogue : Epilogue
        Its `kind` is ignored.
    x : ndarray
        Shape ``(m, n)``: the product, with alpha and beta applied.
    bias : ndarray or None
        At least n numbers, or m.
    residual : ndarray or None
        Shape ``(m, n)``.
    bounds : (float, float)
        Those of "clip".
    scales : ndarray or None
        At least n numbers.
    """
    m, n = x.shape
    if scales is not None and epilogue.scales:
        x = x.astype(np.float32) * scales[:n]
    if bias is not None and epilogue.bias:
        x = x + (bias[:n] if epilogue.bias == "columns" else bias[:m, None])
    x = ACTIVATIONS[epilogue.activation].reference(x, *bounds)
    return x + residual if residual is not None and epilogue.residual else x
