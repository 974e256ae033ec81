"""Element types, and the combinations of them that products have.

Signed and unsigned integers of a size are one type where results wrap: their bits are the same.
"""

from typing import NamedTuple


class DType(NamedTuple):
    """An element type.

    Attributes
    ----------
    short : str
        Its name in texts.
    itemsize : int
        Bytes.
    kind : {"float", "complex", "integer", "bool"}
    """

    short: str
    itemsize: int
    kind: str


DTYPES = {
    "float32": DType("f32", 4, "float"),
    "float64": DType("f64", 8, "float"),
    "complex64": DType("c64", 8, "complex"),
    "complex128": DType("c128", 16, "complex"),
    "float16": DType("f16", 2, "float"),
    "bfloat16": DType("bf16", 2, "float"),
    "bool": DType("bool", 1, "bool"),
    "int8": DType("i8", 1, "integer"),
    "uint8": DType("u8", 1, "integer"),
    "int16": DType("i16", 2, "integer"),
    "int32": DType("i32", 4, "integer"),
    "int64": DType("i64", 8, "integer"),
}


class Float8(NamedTuple):
    """A format of 8-bit floats; the sign is the first bit.

    Attributes
    ----------
    mantissa : int
        Bits of the mantissa.
    bias : int
        Of the exponent.
    special : {"ieee", "fn", "fnuz"}
        What is no number: as in IEEE 754; nothing infinite, and NaN where all other bits are set;
        nothing infinite, and NaN in the place of -0.
    """

    mantissa: int
    bias: int
    special: str


FLOAT8 = {
    "float8_e3m4": Float8(4, 3, "ieee"),
    "float8_e4m3": Float8(3, 7, "ieee"),
    "float8_e4m3b11fnuz": Float8(3, 11, "fnuz"),
    "float8_e4m3fn": Float8(3, 7, "fn"),
    "float8_e4m3fnuz": Float8(3, 8, "fnuz"),
    "float8_e5m2": Float8(2, 15, "ieee"),
    "float8_e5m2fnuz": Float8(2, 16, "fnuz"),
}
"""Those of the package `ml_dtypes` that NumPy takes for floats."""

DTYPES.update({name: DType(name.replace("float8_", "f8"), 1, "float") for name in FLOAT8})

DTYPES["qint8"] = DType("q8", 1, "integer")
DTYPES["quint8"] = DType("qu8", 1, "integer")
"""8-bit integers that saturate: what floats are rounded to (quantization)."""


def numpy_name(dtype: str) -> str:
    """What NumPy calls the elements: those that saturate are no type of their own there."""
    return dtype.removeprefix("q")


ITEMSIZE = {name: dtype.itemsize for name, dtype in DTYPES.items()}
SHORT = {name: dtype.short for name, dtype in DTYPES.items()}
REAL = {"complex64": "float32", "complex128": "float64"}
"""What a part of a complex number is."""


class Types(NamedTuple):
    """The element types of a product's three matrices."""

    a: str
    b: str
    c: str


# In the order of the engine's nk_dtype.
PRODUCTS = {
    **{
        name: Types(name, name, name)
        for name in DTYPES
        if ITEMSIZE[name] > 1 or name in ("bool", "int8")
    },
    "float16_float32": Types("float16", "float16", "float32"),
    "bfloat16_float32": Types("bfloat16", "bfloat16", "float32"),
    "int8_int32": Types("int8", "int8", "int32"),
    "uint8_int32": Types("uint8", "uint8", "int32"),
    "uint8_int8_int32": Types("uint8", "int8", "int32"),
    "int8_uint8_int32": Types("int8", "uint8", "int32"),
    **{f"{name}_float32": Types(name, name, "float32") for name in FLOAT8},
    **{
        "_".join((a, b, c) if a != b else (a, c)): Types(a, b, c)
        for c in ("float32", "qint8", "quint8")
        for a, b in (("int8", "int8"), ("uint8", "uint8"), ("uint8", "int8"), ("int8", "uint8"))
    },
}
"""The products that there are kernels for: `Problem.dtype` is one of the names."""


_NAMES = {types: name for name, types in PRODUCTS.items()}

QUANTIZED = tuple(
    name
    for name, types in PRODUCTS.items()
    if types.a in ("int8", "uint8") and types.c in ("float32", "qint8", "quint8")
)
"""Those whose sums, exact, are scaled on their way into C (see `nkblas.api.quantized`)."""

for _name in QUANTIZED:
    del _NAMES[PRODUCTS[_name]]

UNSCALED = {name: _NAMES[PRODUCTS[name]._replace(c="int32")] for name in QUANTIZED}
"""The product that each of these scales: with the same panels, and the same sums."""


def product(a: str, b: str, c: str) -> str | None:
    """The name in `PRODUCTS` for matrices of NumPy's types of these names, if there is one."""
    if (a, b, c) == ("uint8", "uint8", "uint32"):
        c = "int32"
    if a == b == c and a.startswith("uint"):
        a = b = c = a.removeprefix("u")
    return _NAMES.get(Types(a, b, c))


def short(name: str) -> str:
    """A name of `PRODUCTS` in short: "f32", "u8_i8_i32"."""
    types = PRODUCTS[name]
    parts = types if types.a != types.b else (types.a, types.c) if types.a != types.c else types[:1]
    return "_".join(SHORT[part] for part in parts)
