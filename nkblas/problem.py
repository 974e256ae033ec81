"""`Problem`: what the user asked, as far as it decides how to multiply."""

import re
from typing import NamedTuple

from .dtypes import ITEMSIZE, PRODUCTS, Types, short

LAYOUTS = ("row", "col", "strided", "packed")  # of nk_layout
EPILOGUES = ("", "add", "scale")  # of nk_epilogue

PLAIN = ("float32", "float64", "complex64", "complex128", "int32", "int64")

PATTERN = re.compile(r"(\d+)x(\d+)x(\d+):(\w+?)(?::([rcs])([rcsp])([rs]))?(?::(add|scale))?")


class Problem(NamedTuple):
    """``C[m, n] = A[m, k] @ B[k, n]``.

    As text, ``128x768x3072:f32`` is m, n, k and the dtype; ``:crr`` after it says that A has
    columns (B and C rows), ``s`` stands for an operand without unit stride, and ``p`` for a B that
    was packed before; ``:add`` and ``:scale`` are epilogues.

    Attributes
    ----------
    dtype : str
        NumPy's name of the element type of all three matrices, or another name of
        `nkblas.dtypes.PRODUCTS`.
    m, n, k : int
    a, b, c : {"row", "col", "strided"}
        Which dimension of the matrix has unit stride: the second, the first, neither. `b` may also
        be "packed": its panels are there (see `nkblas.pack`).
    epilogue : {"", "add", "scale"}
        What becomes of the product on its way into C: nothing, ``C += A @ B``, or
        ``C = alpha * A @ B + beta * C``.
    """

    dtype: str
    m: int
    n: int
    k: int
    a: str = "row"
    b: str = "row"
    c: str = "row"
    epilogue: str = ""

    @property
    def types(self) -> Types:
        """The element types."""
        return PRODUCTS[self.dtype]

    @property
    def itemsize(self) -> int:
        """Bytes of an element of C."""
        return ITEMSIZE[self.types.c]

    @property
    def is_plain(self) -> bool:
        """Whether an element is multiplied as it is, and summed up in its own type."""
        return self.dtype in PLAIN

    @property
    def flops(self) -> int:
        """Multiplies and adds: one of each for each of m * n * k; of complex numbers, four."""
        return (8 if "complex" in self.dtype else 2) * self.m * self.n * self.k

    def __str__(self) -> str:
        layouts = "".join(layout[0] for layout in (self.a, self.b, self.c))
        text = f"{self.m}x{self.n}x{self.k}:{short(self.dtype)}"
        parts = [text, layouts if layouts != "rrr" else "", self.epilogue]
        return ":".join(filter(None, parts))


def parse(text: str) -> Problem:
    """The problem that a text like ``128x768x3072:f32`` or ``64x64x64:float64:crr`` names.

    Raises
    ------
    ValueError
        It names none.
    """
    found = PATTERN.fullmatch(text)
    dtypes = {name: dtype for dtype in PRODUCTS for name in (dtype, short(dtype))}
    for bits in (8, 16, 32, 64):
        dtypes[f"uint{bits}"] = dtypes[f"u{bits}"] = f"int{bits}"
    if found is None or found[4] not in dtypes or 0 in map(int, found.group(1, 2, 3)):
        raise ValueError(
            f"problem: got {text!r}, expected MxNxK:DTYPE such as 128x768x3072:f32 with a dtype "
            f"of {', '.join(PRODUCTS)}"
        )
    letters = {layout[0]: layout for layout in LAYOUTS}
    a, b, c = (letters[letter or "r"] for letter in found.group(5, 6, 7))
    m, n, k = map(int, found.group(1, 2, 3))
    return Problem(dtypes[found[4]], m, n, k, a, b, c, found[8] or "")
