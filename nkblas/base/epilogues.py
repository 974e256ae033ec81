"""`Epilogue`: what becomes of a product on its way into C, in one pass over it.

``C = activation(alpha * A @ B + beta * C + bias) + residual``, each part of it or none; of products
of bytes ``C = activation(scales * (A @ B) + bias) + residual``, in float32, or that rounded.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from nkblas._engine import lib

KINDS = ("", "add", "scale")
"""Nothing, ``C += A @ B``, or alpha and beta; as nk_epilogue numbers them, and the others."""

BIASES = ("", "columns", "rows")
"""None, a number for each column of C, or for each row."""

ACTIVATIONS = ("", "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "clip")

ROOM = lib.NK_ROOM
"""Elements that may be read behind a bias: whole vectors, up to a tile."""


class Epilogue(NamedTuple):
    """As text, the names of its parts with ``+`` between them: ``scale+columns+relu``.

    Attributes
    ----------
    kind : str
        Of `KINDS`.
    bias : str
        Of `BIASES`.
    activation : str
        Of `ACTIVATIONS`.
    residual : bool
        Whether a matrix is added in the end.
    scales : bool
        Whether it begins with a factor for each column, which makes floats of sums of bytes.
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
        """The number that the engine has for it."""
        kind, bias = KINDS.index(self.kind), BIASES.index(self.bias) * lib.NK_BIAS_OF_COLUMNS
        more = self.residual * lib.NK_RESIDUAL | self.scales * lib.NK_SCALES
        code: int = kind | bias | more | ACTIVATIONS.index(self.activation) * lib.NK_RELU
        return code

    @property
    def fused(self) -> int:
        """The same without the kind."""
        code: int = self.code & ~lib.NK_KIND
        return code

    @classmethod
    def of_code(cls, code: int) -> "Epilogue":
        """What `code` gives for it."""
        bias = (code & lib.NK_BIAS) // lib.NK_BIAS_OF_COLUMNS
        activation = (code & lib.NK_ACTIVATION) // lib.NK_RELU
        names = KINDS[code & lib.NK_KIND], BIASES[bias], ACTIVATIONS[activation]
        return cls(*names, bool(code & lib.NK_RESIDUAL), bool(code & lib.NK_SCALES))

    def __str__(self) -> str:
        scales, residual = self.scales * "scales", self.residual * "residual"
        return "+".join(filter(None, (scales, self.kind, self.bias, self.activation, residual)))


def parse(text: str) -> Epilogue:
    """The epilogue that a text stands for.

    Raises
    ------
    ValueError
        It stands for none.
    """
    words = text.split("+") if text else []

    def one_of(names: tuple[str, ...]) -> str:
        return words.pop(0) if words and words[0] in names else ""

    scales = one_of(("scales",)) != ""
    names = one_of(KINDS), one_of(BIASES), one_of(ACTIVATIONS)
    found = Epilogue(*names, one_of(("residual",)) != "", scales)
    if words or str(found) != text:
        raise ValueError(f"epilogue: got {text!r}, expected such as 'scale+columns+relu+residual'")
    return found


def apply(
    epilogue: Epilogue,
    x: np.ndarray,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    bounds: tuple[float, float],
    scales: np.ndarray | None = None,
) -> np.ndarray:
    """What is fused, done by NumPy: the reference, and for what has no kernels.

    Parameters
    ----------
    epilogue : Epilogue
    x : ndarray
        Shape ``(m, n)``: what alpha and beta have left.
    bias : ndarray or None
        At least n numbers, or m.
    residual : ndarray or None
        Shape ``(m, n)``.
    bounds : (float, float)
        Of "clip".
    scales : ndarray or None
        At least n numbers.
    """
    m, n = x.shape
    if scales is not None and epilogue.scales:
        x = x.astype(np.float32) * scales[:n]
    if bias is not None and epilogue.bias:
        x = x + (bias[:n] if epilogue.bias == "columns" else bias[:m, None])
    x = _activated(epilogue.activation, x, bounds)
    return x + residual if residual is not None and epilogue.residual else x


def _whole(bounds: tuple[float, float], dtype: Any) -> tuple[Any, Any]:
    """The integers of a dtype that bounds leave: floats do not hold all of 64 bits."""
    ends = np.iinfo(dtype)
    low, high = (
        round_(min(max(bound, ends.min), ends.max))
        for round_, bound in zip((math.ceil, math.floor), bounds, strict=True)
    )
    return dtype.type(low), dtype.type(high)


def _activated(name: str, x: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    if name == "relu":
        return np.maximum(x, 0)
    if name == "clip":
        low, high = bounds if x.dtype.kind not in "iu" else _whole(bounds, x.dtype)
        return np.minimum(np.maximum(x, low), high)
    if name == "tanh":
        return np.tanh(x)
    if name == "gelu":
        return 0.5 * x * np.vectorize(math.erfc, otypes="d")(x * -math.sqrt(0.5))
    if name:
        cubic = x + 0.044715 * x**3
        inner = 2 * math.sqrt(2 / math.pi) * cubic if name == "gelu_tanh" else x
        with np.errstate(over="ignore"):
            sigmoid = 1 / (1 + np.exp(-inner))
        return sigmoid if name == "sigmoid" else x * sigmoid
    return x
