"""`Problem`: a matrix product, as far as the selection of a plan depends on it."""

import re
from typing import Literal, NamedTuple, cast

from . import epilogues
from .dtypes import ITEMSIZE, PRODUCTS, QUANTIZED, Types, short

Layout = Literal["row", "col", "strided", "packed"]

LAYOUTS: tuple[Layout, ...] = ("row", "col", "strided", "packed")
"""Unit stride along the second dimension, the first, neither; B's panels. In the order of the
engine's ``nk_layout``."""

Structure = Literal["", "symmetric", "hermitian", "lower", "upper", "triangular"]

STRUCTURES: tuple[Structure, ...] = ("", "symmetric", "hermitian", "lower", "upper", "triangular")
"""In the order of the engine's ``nk_structure``; see `Problem.structure`."""

TRIANGLES: tuple[Structure, ...] = ("lower", "upper")

NATIVE_DTYPES = ("float32", "float64", "complex64", "complex128", "int32", "int64")
"""Products whose elements are multiplied as they are, and accumulated in their own type."""

_BATCH_REDUCE = "sum_of_"

# compiled when it is first needed, as most processes parse no problem
_PATTERN = r"(\d+)x(\d+)x(\d+):(\w+?)(?::([rcs])([rcsp])([rs]))?(?::([a-z_+]+))?"


class Problem(NamedTuple):
    """``C[m, n] = A[m, k] @ B[k, n]``.

    Its text is m, n, k and the dtype: ``128x768x3072:f32``. A suffix such as ``:crr`` has the
    layouts of A, B and C where they are not all row-major: ``c`` for column-major, ``s`` for an
    operand without unit stride, ``p`` for a packed B. ``:add``, ``:scale`` and ``:columns+relu``
    are epilogues. The prefix ``sum_of_`` marks a batch-reduce, ``symmetric_``, ``lower_``, … a
    structure.

    Attributes
    ----------
    dtype : str
        A name of `nkblas.base.dtypes.PRODUCTS`: NumPy's name of the element type of all three
        matrices, or a combination of types.
    m, n, k : int
    a, b, c : {"row", "col", "strided"}
        Layout of the matrix: unit stride along its second dimension, its first, or neither. `b` may
        also be "packed": the caller has packed its panels (see `nkblas.pack`).
    epilogue : str
        What is applied when the product is stored to C, as in `nkblas.base.epilogues`: "" for
        nothing, "add" for ``C += A @ B``, "scale" for ``C = alpha * A @ B + beta * C``,
        "columns+relu", …
    batch_reduce : bool
        Whether C is the sum of the products of any number of blocks A and B.
    structure : {"", "symmetric", "hermitian", "lower", "upper", "triangular"}
        "symmetric" and "hermitian": B is A's transpose (conjugate transpose), in the same memory,
        so that C equals its own. Its bits are those of the product without structure. "lower" and
        "upper": only this triangle of C is computed and stored. "triangular": a block of a product
        with a triangular A, or of a system, in place; m = k.
    """

    dtype: str
    m: int
    n: int
    k: int
    a: Layout = "row"
    b: Layout = "row"
    c: Layout = "row"
    epilogue: str = ""
    batch_reduce: bool = False
    structure: Structure = ""

    @property
    def types(self) -> Types:
        """The element types of A, B and C."""
        return PRODUCTS[self.dtype]

    @property
    def itemsize(self) -> int:
        """Bytes of an element of C."""
        return ITEMSIZE[self.types.c]

    @property
    def is_native(self) -> bool:
        """Whether elements are multiplied as they are, and accumulated in their own type."""
        return self.dtype in NATIVE_DTYPES

    @property
    def flops(self) -> int:
        """Multiplications and additions of real numbers."""
        return (8 if "complex" in self.dtype else 2) * self.m * self.n * self.k

    def __str__(self) -> str:
        layouts = "".join(layout[0] for layout in (self.a, self.b, self.c))
        sizes = f"{self.m}x{self.n}x{self.k}:{short(self.dtype)}"
        parts = [sizes, layouts if layouts != "rrr" else "", self.epilogue]
        prefix = f"{self.structure}_" if self.structure else self.batch_reduce * _BATCH_REDUCE
        return prefix + ":".join(filter(None, parts))


def parse(text: str) -> Problem:
    """The problem that a text such as ``128x768x3072:f32`` or ``64x64x64:float64:crr`` describes.

    Raises
    ------
    ValueError
        It describes none.
    """
    structures = [x for x in STRUCTURES[1:] if text.startswith(f"{x}_")]
    structure = structures[0] if structures else ""
    batch_reduce = text.startswith(_BATCH_REDUCE)
    prefix = f"{structure}_" if structure else _BATCH_REDUCE
    match = re.fullmatch(_PATTERN, text.removeprefix(prefix))
    names = {name: dtype for dtype in PRODUCTS for name in (dtype, short(dtype))}
    for bits in (8, 16, 32, 64):
        names[f"uint{bits}"] = names[f"u{bits}"] = f"int{bits}"
    epilogue = None
    if match is not None and match[4] in names and 0 not in map(int, match.group(1, 2, 3)):
        try:
            epilogue = epilogues.parse(match[8] or "")
        except ValueError:
            epilogue = None
    if match is None or epilogue is None:
        raise ValueError(
            f"problem: got {text!r}, expected MxNxK:DTYPE such as 128x768x3072:f32 with a dtype "
            f"of {', '.join(PRODUCTS)}"
        )
    layout_of = {layout[0]: layout for layout in LAYOUTS}
    a, b, c = (layout_of[letter or "r"] for letter in match.group(5, 6, 7))
    m, n, k = map(int, match.group(1, 2, 3))
    dtype = names[cast(str, match[4])]
    if epilogue.scales != (dtype in QUANTIZED):
        wanted = "with" if dtype in QUANTIZED else "without"
        raise ValueError(f"problem: got {text!r}, expected {dtype} {wanted} scales")
    if structure and m != n:
        raise ValueError(f"problem: got {text!r}, expected a square C of a {structure} product")
    return Problem(dtype, m, n, k, a, b, c, str(epilogue), batch_reduce, structure)
