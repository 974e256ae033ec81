"""`Problem`: what the user asked, as far as it decides how to multiply."""

from typing import NamedTuple

DTYPES = ("float32", "float64")  # in the order of the engine's nk_dtype
LAYOUTS = ("row", "col", "strided")  # of nk_layout
ITEMSIZE = {"float32": 4, "float64": 8}


class Problem(NamedTuple):
    """``C[m, n] = A[m, k] @ B[k, n]``.

    Attributes
    ----------
    dtype : str
        NumPy's name of the element type of all three matrices.
    m, n, k : int
    a, b, c : {"row", "col", "strided"}
        Which dimension of the matrix has unit stride: the second, the first, neither.
    """

    dtype: str
    m: int
    n: int
    k: int
    a: str = "row"
    b: str = "row"
    c: str = "row"

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiply and an add for each of m * n * k."""
        return 2 * self.m * self.n * self.k

    def __str__(self) -> str:
        layouts = "".join(
            f" {name}:{layout}"
            for name, layout in (("A", self.a), ("B", self.b), ("C", self.c))
            if layout != "row"
        )
        return f"{self.m}x{self.n}x{self.k}:{self.dtype}{layouts}"
