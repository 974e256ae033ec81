"""`Problem`: what the user asked, as far as it decides how to multiply."""

import re
from typing import NamedTuple

from . import epilogues
from .dtypes import ITEMSIZE, PRODUCTS, QUANTIZED, Types, short

LAYOUTS = ("row", "col", "strided", "packed")  # of nk_layout

NATIVE_DTYPES = ("float32", "float64", "complex64", "complex128", "int32", "int64")

PATTERN = re.compile(r"(\d+)x(\d+)x(\d+):(\w+?)(?::([rcs])([rcsp])([rs]))?(?::([a-z_+]+))?")

SUM = "sum_of_"


class Problem(NamedTuple):
    """``C[m, n] = A[m, k] @ B[k, n]``.

    As text, ``128x768x3072:f32`` is m, n, k and the dtype; ``:crr`` after it says that A has
    columns (B and C rows), ``s`` stands for an operand without unit stride, and ``p`` for a B that
    was packed before; ``:add``, ``:scale`` and ``:columns+relu`` are epilogues. ``sum_of_`` before
    it all says that it reduces.

    Attributes
    ----------
    dtype : str
        NumPy's name of the element type of all three matrices, or another name of
        `nkblas.base.dtypes.PRODUCTS`.
    m, n, k : int
    a, b, c : {"row", "col", "strided"}
        Which dimension of the matrix has unit stride: the second, the first, neither. `b` may also
        be "packed": its panels are there (see `nkblas.pack`).
    epilogue : str
        What becomes of the product on its way into C, as `nkblas.base.epilogues` has it: nothing,
        "add" for ``C += A @ B``, "scale" for ``C = alpha * A @ B + beta * C``, "columns+relu", …
    batch_reduce : bool
        Whether it is a sum of such products, of any number of blocks A and B ("batch-reduce").
    """

    dtype: str
    m: int
    n: int
    k: int
    a: str = "row"
    b: str = "row"
    c: str = "row"
    epilogue: str = ""
    batch_reduce: bool = False

    @property
    def types(self) -> Types:
        """The element types."""
        return PRODUCTS[self.dtype]

    @property
    def itemsize(self) -> int:
        """Bytes of an element of C."""
        return ITEMSIZE[self.types.c]

    @property
    def is_native(self) -> bool:
        """Whether an element is multiplied as it is, and summed up in its own type."""
        return self.dtype in NATIVE_DTYPES

    @property
    def flops(self) -> int:
        """Multiplies and adds: one of each for each of m * n * k; of complex numbers, four."""
        return (8 if "complex" in self.dtype else 2) * self.m * self.n * self.k

    def __str__(self) -> str:
        layouts = "".join(layout[0] for layout in (self.a, self.b, self.c))
        text = f"{self.m}x{self.n}x{self.k}:{short(self.dtype)}"
        parts = [text, layouts if layouts != "rrr" else "", self.epilogue]
        return self.batch_reduce * SUM + ":".join(filter(None, parts))


def parse(text: str) -> Problem:
    """The problem that a text like ``128x768x3072:f32`` or ``64x64x64:float64:crr`` names.

    Raises
    ------
    ValueError
        It names none.
    """
    found = PATTERN.fullmatch(text.removeprefix(SUM))
    dtypes = {name: dtype for dtype in PRODUCTS for name in (dtype, short(dtype))}
    for bits in (8, 16, 32, 64):
        dtypes[f"uint{bits}"] = dtypes[f"u{bits}"] = f"int{bits}"
    good = found is not None and found[4] in dtypes and 0 not in map(int, found.group(1, 2, 3))
    ending = epilogues.Epilogue()
    if found is not None and good:
        try:
            ending = epilogues.parse(found[8] or "")
        except ValueError:
            good = False
    if found is None or not good:
        raise ValueError(
            f"problem: got {text!r}, expected MxNxK:DTYPE such as 128x768x3072:f32 with a dtype "
            f"of {', '.join(PRODUCTS)}"
        )
    letters = {layout[0]: layout for layout in LAYOUTS}
    a, b, c = (letters[letter or "r"] for letter in found.group(5, 6, 7))
    m, n, k = map(int, found.group(1, 2, 3))
    dtype = dtypes[found[4]]
    if ending.scales != (dtype in QUANTIZED):
        wanted = "with" if dtype in QUANTIZED else "without"
        raise ValueError(f"problem: got {text!r}, expected {dtype} {wanted} scales")
    epilogue = str(ending)
    return Problem(dtypes[found[4]], m, n, k, a, b, c, epilogue, text.startswith(SUM))
