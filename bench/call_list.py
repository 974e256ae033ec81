"""The calls of the suite `calls`. This module is data: it does not import NumPy.

They are calls that NumPy users write: every function of nkblas that NumPy or SciPy has too, with
operands of 1 to 2,000 rows (points and samples: 100,000), and every kind of operand.
"""

from typing import NamedTuple

OPERAND_DTYPES = (
    *("float16", "float32", "float64", "complex64", "complex128"),
    *("bool", "int8", "int32", "int64"),
)
"""Setups make operands with functions of these names: ``float32(2, 3)`` is a random array."""


class CallCase(NamedTuple):
    """One call: the same expression for NumPy and for nkblas, or one for each.

    Attributes
    ----------
    statement : str
        A Python expression. For nkblas it is evaluated while NumPy is patched, with `blas` for
        `nkblas.blas`; for NumPy without the patch, with `blas` for `scipy.linalg.blas`.
    setup : str
        Python statements that make the operands.
    numpy_statement : str
        NumPy's expression, if it is another one.
    """

    statement: str
    setup: str
    numpy_statement: str = ""

    def __str__(self) -> str:
        other = f"  (NumPy: {self.numpy_statement})" if self.numpy_statement else ""
        return f"{self.statement}{other}  {self.setup}".rstrip()


def calls(statement: str, *setups: str, numpy_statement: str = "") -> tuple[CallCase, ...]:
    """The same statement with several setups."""
    return tuple(CallCase(statement, setup, numpy_statement) for setup in setups)


def _level3(
    statement: str, shapes: dict[str, tuple[int, int]], numpy_statement: str = ""
) -> tuple[CallCase, ...]:
    """A function of BLAS level 3 for each of its dtypes, with matrices in Fortran order."""
    dtypes = {"s": "float32", "d": "float64", "c": "complex64", "z": "complex128"}
    return tuple(
        CallCase(
            f"blas.{letter}{statement}",
            "; ".join(f"{x} = {dtype}({n}, {m}).T" for x, (m, n) in shapes.items()),
            numpy_statement,
        )
        for letter, dtype in dtypes.items()
        if not statement.startswith("he") or letter in "cz"
    )


CALLS = (
    # products of two matrices
    *calls(
        "a @ b",
        "a = float64(1, 1); b = float64(1, 1)",
        "a = float32(3, 3); b = float32(3, 3)",
        "a = float64(3, 3); b = float64(3, 3)",
        "a = int64(3, 3); b = int64(3, 3)",
        "a = float64(10, 1000); b = float64(1000, 10)",
        "a = float32(37, 41); b = float32(41, 43)",
        "a = float16(100, 100); b = float16(100, 100)",
        "a = int64(200, 200); b = int64(200, 200)",
        "a = complex64(200, 200); b = complex64(200, 200)",
        "a = float64(500, 500); b = float64(500, 500)",
        "a = float32(128, 768); b = float32(768, 3072)",
        "a = float32(2000, 2000); b = float32(2000, 2000)",
        # of two dtypes
        "a = complex128(3, 3); b = float64(3, 3)",
        "a = float64(200, 200); b = complex128(200, 200)",
        "a = int64(3, 3); b = float64(3, 3)",
        "a = float64(100, 100); b = int64(100, 100)",
        "a = float32(50, 50); b = float64(50, 50)",
        # of strided operands
        "a = float64(60, 40)[::2]; b = float64(80, 50)[::2, ::2]",
        "a = float32(300, 200)[::-1]; b = float32(200, 300)[:, ::-1]",
        "a = float64(20, 20).T; b = float64(20, 20).T",
    ),
    *calls("a.T @ b", "a = float32(300, 20); b = float32(300, 30)"),
    *calls("a @ b.T", "a = float64(2, 3); b = float64(2, 3)"),
    *calls("a @ b @ c", "a = float64(4, 4); b = float64(4, 4); c = float64(4, 4)"),
    *calls(
        "np.matmul(a, b, out=c)",
        "a = float64(4, 4); b = float64(4, 4); c = float64(4, 4)",
        "a = float32(150, 150); b = float32(150, 150); c = float32(150, 150)",
    ),
    *calls("np.matmul(a, b, dtype=np.float64)", "a = float32(20, 20); b = float32(20, 20)"),
    *calls(
        "np.dot(a, b)",
        "a = float64(3, 3); b = float64(3, 3)",
        "a = float32(100, 100); b = float32(100, 100)",
        "a = float64(20, 30, 40); b = float64(40, 50)",
    ),
    *calls("np.dot(a, b, out=c)", "a = float64(8, 8); b = float64(8, 8); c = float64(8, 8)"),
    *calls("np.inner(a, b)", "a = float32(100, 64); b = float32(200, 64)"),
    # a matrix times itself
    *calls(
        "a @ a.T",
        "a = float64(3, 3)",
        "a = float16(128, 128)",
        "a = int64(100, 100)",
        "a = complex128(200, 200)",
        "a = float32(64, 64)",
        "a = float32(1024, 1024)",
        "a = float64(1024, 1024)",
        "a = float64(300, 5000)",
        "a = float64(64, 100000)",
    ),
    *calls(
        "a.T @ a",
        "a = float32(1000, 500)",
        "a = float64(1000, 10)",
        "a = float32(100000, 3)",
    ),
    *calls("a.conj().T @ a", "a = complex128(400, 300)"),
    *calls("np.dot(a.T, a)", "a = float64(200, 50)"),
    *calls("np.tensordot(a, a, axes=([0], [0]))", "a = float32(1000, 500)"),
    *calls('np.einsum("ki,kj->ij", a, a)', "a = float64(300, 100)"),
    *calls("np.linalg.multi_dot([a, a.T, a])", "a = float32(400, 300)"),
    *calls("a @ a.transpose(0, 2, 1)", "a = float32(64, 64, 64)", "a = float64(1000, 3, 4)"),
    *calls("np.cov(a)", "a = float64(3, 100)"),
    *calls("np.cov(a, rowvar=False)", "a = float64(1000, 50)"),
    # matrices times vectors
    *calls(
        "a @ x",
        "a = float64(3, 3); x = float64(3)",
        "a = float32(100, 100); x = float32(100)",
        "a = float32(1000, 500); x = float32(500)",
        "a = complex64(200, 200); x = complex64(200)",
        "a = float64(2000, 2000); x = float64(2000)",
        "a = float32(500, 300)[::-1, ::-1]; x = float32(300)",
        "a = float64(300, 600)[:, ::2]; x = float64(600)[::-2]",
    ),
    *calls(
        "x @ a",
        "x = float64(3); a = float64(3, 3)",
        "x = float32(1000); a = float32(1000, 500)",
    ),
    *calls("a.T @ x", "a = float64(500, 300); x = float64(500)"),
    # dot products
    *calls(
        "np.dot(x, y)",
        "x = float64(3); y = float64(3)",
        "x = float64(1000); y = float64(1000)",
        "x = float16(1000); y = float16(1000)",
        "x = float32(100000); y = float32(100000)",
        "x = float64(200000)[::2]; y = float64(200000)[::2]",
        "x = float32(10000)[::-1]; y = float32(10000)[::-1]",
        "x = float64(); y = float64()",
        "x = 2.5; y = float64(1000)",
        "x = [1.0, 2.0, 3.0]; y = [4.0, 5.0, 6.0]",
    ),
    *calls("np.dot(a[:, 3], a[:, 5])", "a = float64(1000, 10)", "a = float64(100, 10)"),
    *calls("x @ y", "x = float64(3); y = float64(3)"),
    *calls("np.vdot(x, y)", "x = complex128(1000); y = complex128(1000)"),
    # points
    *calls(
        "p @ r",
        "p = float32(100000, 3); r = float32(3, 3)",
        "p = float64(100000, 3); r = float64(3, 3)",
        "p = float32(100, 2); r = float32(2, 2)",
        "p = float32(100000, 3); r = float32(3)",
    ),
    *calls("p @ r.T", "p = float64(10000, 3); r = float64(3, 3)"),
    *calls("r @ p", "r = float32(3, 3); p = float32(3, 100000)"),
    # stacks
    *calls(
        "s @ t",
        "s = float64(1000, 3, 3); t = float64(1000, 3, 3)",
        "s = float32(100, 8, 8); t = float32(100, 8, 8)",
        "s = int64(1000, 3, 3); t = int64(1000, 3, 3)",
        "s = complex64(1000, 2, 2); t = complex64(1000, 2, 2)",
        "s = float32(200, 64, 64); t = float32(200, 64, 1)",
        "s = float64(8, 8, 100).T; t = float64(100, 8, 8)",
        "s = float32(100, 16, 16).mT; t = float32(100, 16, 16).mT",
        "s = np.broadcast_to(float64(16, 16), (100, 16, 16)); t = float64(100, 16, 16)",
    ),
    *calls("s @ a", "s = float32(64, 64, 64); a = float32(64, 64)"),
    *calls(
        "a @ s",
        "a = float32(64, 64); s = float32(64, 64, 64)",
        "a = float64(3, 3); s = float64(1000, 3, 3)",
    ),
    *calls(
        "s @ x",
        "s = float32(64, 64, 64); x = float32(64)",
    ),
    *calls("x @ s", "x = float32(64); s = float32(64, 64, 64)"),
    *calls("q @ k.swapaxes(-1, -2)", "q = float32(8, 12, 128, 64); k = float32(8, 12, 128, 64)"),
    *calls(
        "np.matvec(s, x)",
        "s = float64(100, 30, 40); x = float64(100, 40)",
    ),
    *calls("np.vecmat(x, s)", "x = float32(100, 30); s = float32(100, 30, 40)"),
    *calls(
        "np.vecdot(a, b)",
        "a = float64(1000, 3); b = float64(1000, 3)",
        "a = complex64(100, 100); b = complex64(100, 100)",
    ),
    # einsum
    *calls('np.einsum("ij,j->i", a, x)', "a = float64(3, 3); x = float64(3)"),
    *calls('np.einsum("i,i->", x, y)', "x = float64(3); y = float64(3)"),
    *calls(
        'np.einsum("ij,ij->", a, b)',
        "a = float64(3, 3); b = float64(3, 3)",
        "a = float32(300, 300); b = float32(300, 300)",
    ),
    *calls('np.einsum("ii", a)', "a = float64(3, 3)"),
    *calls('np.einsum("ij->ji", a)', "a = float64(3, 3)"),
    *calls('np.einsum("i,j->ij", x, y)', "x = float64(3); y = float64(3)"),
    *calls(
        'np.einsum("i,ij,j->", x, a, y)',
        "x = float64(3); a = float64(3, 3); y = float64(3)",
    ),
    *calls(
        'np.einsum("nij,nj->ni", s, x)',
        "s = float64(3, 3, 3); x = float64(3, 3)",
        "s = float32(1000, 3, 3); x = float32(1000, 3)",
    ),
    *calls(
        'np.einsum("ij,jk->ik", a, b)',
        "a = float64(3, 3); b = float64(3, 3)",
        "a = complex128(50, 50); b = complex128(50, 50)",
    ),
    *calls('np.einsum("ij,kj", a, b)', "a = int64(20, 20); b = int64(20, 20)"),
    *calls("np.einsum(a, [0, 1], b, [1, 2])", "a = float64(4, 4); b = float64(4, 4)"),
    *calls('np.einsum("ij->i", a)', "a = float32(100, 100)"),
    *calls('np.einsum("ij,ij->i", a, b)', "a = float64(2000, 30); b = float64(2000, 30)"),
    *calls('np.einsum("ij,ij->j", a, b)', "a = float64(1000, 30); b = float64(1000, 30)"),
    *calls('np.einsum("...ij,...j", s, x)', "s = float64(100, 3, 3); x = float64(100, 3)"),
    *calls('np.einsum("bij,bjk->bik", s, t)', "s = float32(50, 20, 20); t = float32(50, 20, 20)"),
    *calls('np.einsum("ijkl,jk->il", s, a)', "s = float64(10, 20, 20, 10); a = float64(20, 20)"),
    *calls(
        'np.einsum("bhid,bhjd->bhij", q, k, optimize=True)',
        "q = float32(8, 12, 128, 64); k = float32(8, 12, 128, 64)",
    ),
    # tensordot, multi_dot, matrix_power, and functions that call products
    *calls("np.tensordot(a, b, axes=1)", "a = float64(3, 3); b = float64(3, 3)"),
    *calls(
        "np.tensordot(s, t, axes=([1, 2], [1, 0]))",
        "s = float32(30, 20, 10); t = float32(10, 20, 40)",
    ),
    *calls(
        "np.linalg.multi_dot([a, b, c])",
        "a = float64(3, 3); b = float64(3, 3); c = float64(3, 3)",
        "a = float64(100, 500); b = float64(500, 10); c = float64(10, 200)",
    ),
    *calls("np.linalg.matrix_power(a, 5)", "a = float64(3, 3)"),
    *calls("np.linalg.matrix_power(a, 10)", "a = float32(100, 100) / 10"),
    *calls("np.linalg.pinv(a)", "a = float64(30, 20)"),
    # lists
    *calls("a @ [1.0, 2.0, 3.0]", "a = float64(3, 3)"),
    *calls("np.matmul(a, b)", "a = float64(3, 3).tolist(); b = float64(3, 3).tolist()"),
    # nkblas's own functions
    *calls(
        "nkblas.matmul(a, b)",
        "a = float64(3, 3); b = float64(3, 3)",
        numpy_statement="np.matmul(a, b)",
    ),
    *calls(
        'nkblas.einsum("ij,j->i", a, x)',
        "a = float64(3, 3); x = float64(3)",
        numpy_statement='np.einsum("ij,j->i", a, x)',
    ),
    *calls(
        "nkblas.tensordot(a, b, 1)",
        "a = float64(3, 3); b = float64(3, 3)",
        numpy_statement="np.tensordot(a, b, 1)",
    ),
    *calls(
        "nkblas.multi_dot([a, b, x])",
        "a = float64(20, 20); b = float64(20, 20); x = float64(20)",
        numpy_statement="np.linalg.multi_dot([a, b, x])",
    ),
    *calls(
        "nkblas.matrix_power(a, 3)",
        "a = float64(3, 3)",
        numpy_statement="np.linalg.matrix_power(a, 3)",
    ),
    # gemm
    *calls(
        "nkblas.gemm(p, p, p, beta=1)",
        "p = float64(3, 3)",
        "p = float32(300, 300)",
        numpy_statement="p @ p + p",
    ),
    *calls(
        "nkblas.gemm(a, b, alpha=2)",
        "a = float64(3, 3); b = float64(3, 3)",
        numpy_statement="2 * (a @ b)",
    ),
    *calls(
        "nkblas.gemm(a, b, trans_a=True)",
        "a = float32(4, 4); b = float32(4, 4)",
        numpy_statement="a.T @ b",
    ),
    *calls(
        "nkblas.gemm(a, a, trans_a=2)",
        "a = complex128(200, 100)",
        numpy_statement="a.conj().T @ a",
    ),
    *calls(
        'nkblas.gemm(a, w, bias=x, activation="relu")',
        "a = float32(8, 64); w = float32(64, 64); x = float32(64)",
        numpy_statement="np.maximum(a @ w + x, 0)",
    ),
    *calls(
        "nkblas.brgemm(s, t)",
        "s = float32(16, 32, 32); t = float32(16, 32, 32)",
        numpy_statement="(s @ t).sum(axis=0)",
    ),
    *calls(
        "nkblas.matmul(a, packed)",
        "a = float32(8, 768); w = float32(768, 768); packed = nkblas.pack(w)",
        numpy_statement="np.matmul(a, w)",
    ),
    # SciPy's BLAS
    *calls(
        "blas.dgemm(1, a, b)",
        "a = float64(3, 3); b = float64(3, 3)",
        "a = float64(200, 200).T; b = float64(200, 200).T",
    ),
    *calls(
        "blas.sgemm(2, a, b, beta=1, c=c, trans_b=1)",
        "a = float32(50, 60); b = float32(40, 60); c = float32(40, 50).T",
    ),
    *calls("blas.zgemm(1, a, b, trans_a=2)", "a = complex128(30, 20); b = complex128(30, 40)"),
    *calls("blas.cgemm(1, a, b)", "a = complex64(4, 4); b = complex64(4, 4)"),
    *calls("blas.dgemv(1, a, x)", "a = float64(3, 3); x = float64(3)"),
    *calls("blas.cgemv(1, a, x)", "a = complex64(60, 40).T; x = complex64(60)"),
    *calls("blas.zgemv(1, a, x, trans=2)", "a = complex128(30, 20); x = complex128(30)"),
    *calls("blas.sgemv(1, a, x, trans=1)", "a = float32(300, 500).T; x = float32(500)"),
    *_level3("gemmt(1, a, b, lower=1)", {"a": (30, 20), "b": (20, 30)}, "np.tril(a @ b)"),
    *_level3("syrk(1, a)", {"a": (30, 20)}),
    *_level3("syr2k(1, a, b, trans=1)", {"a": (20, 30), "b": (20, 30)}),
    *_level3("herk(1, a, lower=1)", {"a": (30, 20)}),
    *_level3("her2k(1, a, b)", {"a": (30, 20), "b": (30, 20)}),
    *_level3("symm(1, a, b)", {"a": (30, 30), "b": (30, 20)}),
    *_level3("hemm(1, a, b, side=1, lower=1)", {"a": (30, 30), "b": (20, 30)}),
    *_level3("trmm(1, a, b, lower=1)", {"a": (30, 30), "b": (30, 20)}),
    *_level3("trsm(1, a, b, side=1, diag=1)", {"a": (8, 8), "b": (20, 8)}),
    *calls("blas.dsyrk(1, a)", "a = float64(3, 3).T", "a = float64(100, 200).T"),
    *calls("blas.dsymm(1, a, b)", "a = float64(200, 200).T; b = float64(200, 200).T"),
    *calls(
        "blas.dtrmm(1, a, b, lower=1)",
        "a = float64(3, 3).T; b = float64(3, 3).T",
        "a = float64(200, 200).T; b = float64(10, 200).T",
    ),
    *calls(
        "blas.strsm(1, a, b, side=1, diag=1)",
        "a = float32(3, 3).T / 3; b = float32(3, 3).T",
        "a = float32(200, 200).T / 200; b = float32(200, 500).T",
    ),
)
