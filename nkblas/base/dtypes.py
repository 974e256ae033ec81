"""Element types, and the combinations of them that nkblas multiplies: `PRODUCTS`.

Signed and unsigned integers of one size are one type where results wrap: their bits are the same.
The engine's C tables are generated from this file (`nkblas.engine.tables`), which therefore imports
nothing of nkblas.
"""

from functools import cache
from typing import Literal, NamedTuple

Kind = Literal["float", "complex", "integer", "bool"]


class DType(NamedTuple):
    """An element type.

    Attributes
    ----------
    short : str
        Its abbreviation, in problems such as ``128x768x3072:f32``.
    itemsize : int
        Bytes of an element.
    kind : {"float", "complex", "integer", "bool"}
    saturates : bool
        Whether results out of range become the nearest number of the type, instead of wrapping.
    signed : bool
        Of integers, whether they can be negative. (Where results wrap, signed and unsigned integers
        of one size are one type, which is listed as signed.)
    """

    short: str
    itemsize: int
    kind: Kind
    saturates: bool = False
    signed: bool = True


class Float8(NamedTuple):
    """A format of 8-bit floating-point numbers; the first bit is the sign.

    Attributes
    ----------
    mantissa : int
        Bits of the mantissa.
    bias : int
        Bias of the exponent.
    special : {"ieee", "fn", "fnuz"}
        Encoding of infinities and NaN: as in IEEE 754; no infinities, and NaN where all bits but
        the sign are 1; no infinities, and NaN in place of -0.
    """

    mantissa: int
    bias: int
    special: Literal["ieee", "fn", "fnuz"]


FLOAT8 = {
    "float8_e3m4": Float8(4, 3, "ieee"),
    "float8_e4m3": Float8(3, 7, "ieee"),
    "float8_e4m3b11fnuz": Float8(3, 11, "fnuz"),
    "float8_e4m3fn": Float8(3, 7, "fn"),
    "float8_e4m3fnuz": Float8(3, 8, "fnuz"),
    "float8_e5m2": Float8(2, 15, "ieee"),
    "float8_e5m2fnuz": Float8(2, 16, "fnuz"),
}
"""The formats of package `ml_dtypes` that NumPy takes for floats."""

DTYPES: dict[str, DType] = {
    "float32": DType("f32", 4, "float"),
    "float64": DType("f64", 8, "float"),
    "complex64": DType("c64", 8, "complex"),
    "complex128": DType("c128", 16, "complex"),
    "float16": DType("f16", 2, "float"),
    "bfloat16": DType("bf16", 2, "float"),
    "bool": DType("bool", 1, "bool"),
    "int8": DType("i8", 1, "integer"),
    "uint8": DType("u8", 1, "integer", signed=False),
    "int16": DType("i16", 2, "integer"),
    "int32": DType("i32", 4, "integer"),
    "int64": DType("i64", 8, "integer"),
    **{name: DType(name.replace("float8_", "f8"), 1, "float") for name in FLOAT8},
    # integers that floats are quantized to
    "qint8": DType("q8", 1, "integer", saturates=True),
    "quint8": DType("qu8", 1, "integer", saturates=True, signed=False),
}

ITEMSIZE = {name: dtype.itemsize for name, dtype in DTYPES.items()}
SHORT = {name: dtype.short for name, dtype in DTYPES.items()}
REAL_PART = {"complex64": "float32", "complex128": "float64"}
"""The dtype of the real and the imaginary part, for complex dtypes."""


def numpy_name(dtype: str) -> str:
    """NumPy's name of a dtype: NumPy has no types of their own for integers that saturate."""
    return dtype.removeprefix("q") if DTYPES[dtype].saturates else dtype


class Types(NamedTuple):
    """The element types of a product's three matrices."""

    a: str
    b: str
    c: str


def _name(a: str, b: str, c: str) -> str:
    return "_".join((a, b, c) if a != b else (a, c) if a != c else (a,))


_SAME_TYPE = [
    name
    for name, dtype in DTYPES.items()
    if dtype.signed and not dtype.saturates and name not in FLOAT8
]
_BYTE_PAIRS = (("int8", "int8"), ("uint8", "uint8"), ("uint8", "int8"), ("int8", "uint8"))
_SCALED_RESULTS = ("float32", *(name for name, dtype in DTYPES.items() if dtype.saturates))
_TYPES = (
    *((name,) * 3 for name in _SAME_TYPE),
    ("float16", "float16", "float32"),
    ("bfloat16", "bfloat16", "float32"),
    *((a, b, "int32") for a, b in _BYTE_PAIRS),
    *((name, name, "float32") for name in FLOAT8),
    *((a, b, c) for c in _SCALED_RESULTS for a, b in _BYTE_PAIRS),
)

PRODUCTS: dict[str, Types] = {_name(*types): Types(*types) for types in _TYPES}
"""The products that have generated kernels; `Problem.dtype` is one of these names."""

PRODUCT_CODE = {name: code for code, name in enumerate(PRODUCTS)}
"""The engine's ``nk_dtype`` of each product: the C enum is generated in this order."""

QUANTIZED = tuple(
    name
    for name, types in PRODUCTS.items()
    if types[:2] in _BYTE_PAIRS and types.c in _SCALED_RESULTS
)
"""Products of bytes whose exact sums are scaled when they are stored (`gemm(scale=...)`)."""

_NAMES = {types: name for name, types in PRODUCTS.items() if name not in QUANTIZED}

UNSCALED = {name: _NAMES[PRODUCTS[name]._replace(c="int32")] for name in QUANTIZED}
"""For each of `QUANTIZED`, the product that it scales: the same panels and the same sums."""

TRANSPOSED = {name: _name(b, a, c) for name, (a, b, c) in PRODUCTS.items()}
"""For each product, the one with A's and B's types exchanged: C.T = B.T @ A.T."""


def product(a: str, b: str, c: str) -> str | None:
    """The name in `PRODUCTS` for matrices of these NumPy types; None if there is none."""
    if (a, b, c) == ("uint8", "uint8", "uint32"):
        c = "int32"
    if a == b == c and a.startswith("uint"):
        a = b = c = a.removeprefix("u")
    return _NAMES.get(Types(a, b, c))


@cache
def short(name: str) -> str:
    """The abbreviation of a product: "f32", "u8_i8_i32"."""
    types = PRODUCTS[name]
    parts = types if types.a != types.b else (types.a, types.c) if types.a != types.c else types[:1]
    return "_".join(SHORT[part] for part in parts)
