"""The docstrings of BLAS level 3: what each routine does, and what its parameters mean."""

from textwrap import fill, indent
from typing import NamedTuple

from .blas_arguments import Arguments

_WIDTH = 92


class Text(NamedTuple):
    """What is said of one routine.

    Attributes
    ----------
    summary : str
        The first line; ``{dtype}`` is the name of the dtype.
    shapes : str
        What `a` and `b` are.
    example : str
        Arguments that give a real result.
    rows : tuple of str
        The rows of that result.
    result : str
        The shape of the result.
    details : str
        A paragraph after the first line.
    see_also : str
    origin : str
        Whose signature it has.
    """

    summary: str
    shapes: str
    example: str
    rows: tuple[str, ...]
    result: str
    details: str = ""
    see_also: str = ""
    origin: str = "The signature is that of `scipy.linalg.blas.{name}`."


_RANK_K = "Shape ``(n, k)``, or ``(k, n)`` with `trans`."
_ONE_TRIANGLE = "One triangle is computed; the other one has the values of `c`, or zeros."
_WITH_SQUARE = (
    "`b` has shape ``(m, n)``; `a` has shape ``(m, m)``, or ``(n, n)`` on the right, and its other "
    "triangle is not read"
)
_IS_REAL = "`beta` is real, and so is the diagonal: imaginary parts in it are not read."

_TEXTS = {
    "gemm": Text(
        "Scaled product of {dtype} matrices: ``alpha * op(a) @ op(b) + beta * c``.",
        "``op(a)`` has shape ``(m, k)``, ``op(b)`` has shape ``(k, n)``.",
        "2, [[1, 2], [3, 4]], [[1], [1]]",
        ("[ 6.]", "[14.]"),
        "(m, n)",
        see_also="nkblas.gemm : the same product for all dtypes, with an epilogue.",
    ),
    "gemmt": Text(
        "One triangle of a product of {dtype} matrices: ``alpha * op(a) @ op(b) + beta * c``.",
        "``op(a)`` has shape ``(n, k)``, ``op(b)`` has shape ``(k, n)``.",
        "1, [[1, 2], [3, 4]], [[1, 0], [0, 1]], lower=1",
        ("[1., 0.]", "[3., 4.]"),
        "(n, n)",
        _ONE_TRIANGLE,
        origin="SciPy lacks it; LAPACK has it as `gemmtr`, since 3.12.1, MKL as `gemmt`.",
    ),
    "syrk": Text(
        "Product of a {dtype} matrix and its transpose: ``alpha * a @ a.T + beta * c``.",
        _RANK_K,
        "1, [[1, 2], [3, 4]], lower=1",
        ("[ 5.,  0.]", "[11., 25.]"),
        "(n, n)",
        f"{_ONE_TRIANGLE} With `trans`, it is ``alpha * a.T @ a + beta * c``.",
    ),
    "herk": Text(
        "Product of a {dtype} matrix and its adjoint: ``alpha * a @ a.conj().T + beta * c``.",
        _RANK_K,
        "1, [[1, 2j], [3, 4j]]",
        ("[ 5., 11.]", "[ 0., 25.]"),
        "(n, n)",
        f"{_ONE_TRIANGLE} With `trans`, it is ``alpha * a.conj().T @ a + beta * c``. `alpha` is "
        f"real. {_IS_REAL}",
    ),
    "syr2k": Text(
        "Symmetric sum of {dtype} products: ``alpha * (a @ b.T + b @ a.T) + beta * c``.",
        _RANK_K,
        "1, [[1, 2], [3, 4]], [[1, 0], [0, 1]], lower=1",
        ("[2., 0.]", "[5., 8.]"),
        "(n, n)",
        f"{_ONE_TRIANGLE} With `trans`, it is ``alpha * (a.T @ b + b.T @ a) + beta * c``.",
    ),
    "her2k": Text(
        "Hermitian sum of {dtype} products: ``p + p.conj().T + beta * c``.",
        _RANK_K,
        "1, [[1, 2], [3, 4]], [[1, 0], [0, 1]], lower=1",
        ("[2., 0.]", "[5., 8.]"),
        "(n, n)",
        "The product ``p`` is ``alpha * a @ b.conj().T`` or, with `trans`, ``alpha * a.conj().T @ "
        f"b``. {_ONE_TRIANGLE} {_IS_REAL}",
    ),
    "symm": Text(
        "Product with a symmetric {dtype} matrix `a`: ``alpha * a @ b + beta * c``.",
        f"{_WITH_SQUARE}.",
        "1, [[1, 0], [2, 3]], [[1], [1]], lower=1",
        ("[3.]", "[5.]"),
        "(m, n)",
        "With `side`, it is ``alpha * b @ a + beta * c``.",
    ),
    "hemm": Text(
        "Product with a Hermitian {dtype} matrix `a`: ``alpha * a @ b + beta * c``.",
        f"{_WITH_SQUARE}, nor are the imaginary parts of the diagonal.",
        "1, [[1, 0], [2, 3]], [[1], [1]], lower=1",
        ("[3.]", "[5.]"),
        "(m, n)",
        "With `side`, it is ``alpha * b @ a + beta * c``.",
    ),
    "trmm": Text(
        "Product with a triangular {dtype} matrix `a`: ``alpha * op(a) @ b``.",
        f"{_WITH_SQUARE}.",
        "1, [[1, 0], [2, 3]], [[1], [1]], lower=1",
        ("[1.]", "[5.]"),
        "(m, n)",
        "With `side`, it is ``alpha * b @ op(a)``.",
    ),
    "trsm": Text(
        "Solution of equations with a triangular {dtype} matrix `a`: ``op(a) @ x = alpha * b``.",
        f"{_WITH_SQUARE}.",
        "1, [[1, 0], [2, 4]], [[1], [4]], lower=1",
        ("[1. ]", "[0.5]"),
        "(m, n)",
        "With `side`, it is that of ``x @ op(a) = alpha * b``. Zeros on the diagonal give "
        "infinities or NaN.",
    ),
}

_FLAG = "{{0, 1}}, optional"
_OP = (
    "{{0, 1, 2}}, optional",
    "The operation ``op``: 0 for none, 1 for the transpose, 2 for the conjugate transpose.",
)
_PARAMETERS = {
    "alpha": ("scalar", "With 0, the operands are not read."),
    "a": ("array_like", "Converted to {dtype}. {shapes} A vector is a matrix with one column."),
    "beta": ("scalar, optional", "With 0, the default, `c` is not read."),
    "c": ("array_like, optional", "Shape ``{result}``; default: zeros."),
    "trans": (
        "{{{trans}}}, optional",
        "0: the right operand of a product is transposed; otherwise the left one is.",
    ),
    "trans_a": _OP,
    "side": (_FLAG, "1: `a` is on the right."),
    "lower": (_FLAG, "Which triangle it is: 0 for the upper one, 1 for the lower one."),
    "diag": (_FLAG, "1: the elements on the diagonal of `a` are 1, and are not read."),
    "overwrite_b": (
        "int, optional",
        "Whether the result may be written to `b`. It is if `b` is a writeable array of {dtype} in "
        "Fortran order; it may overlap `a`.",
    ),
    "overwrite_c": (
        "int, optional",
        "Whether the result may be written to `c`. It is if `c` is a writeable array of {dtype} in "
        "Fortran order; it may overlap the operands.",
    ),
}
"""Type and meaning. The pairs `a` and `b`, `trans_a` and `trans_b` are described together."""


_PAIRS = {"a": "b", "trans_a": "trans_b"}

_REST = """
Returns
-------
ndarray
    Shape ``{result}``, {dtype}, in Fortran order.

Raises
------
BlasError
    Shapes do not fit, or an option has another value.
ValueError, TypeError
    An argument cannot be converted{or_shape}.
{see_also}
Examples
--------
>>> from nkblas import blas
>>> blas.{name}({example}).real
array([{rows}]{dtype_in_repr})
"""


def document(kind: str, convert: Arguments, trans: tuple[int, ...]) -> str:
    """The docstring of a routine, for the name and the dtype of `convert`.

    `trans` are the values of the option of that name.
    """
    text, names = _TEXTS[kind], [*convert.required, *convert.optional]
    see_also = f"\nSee Also\n--------\n{text.see_also}\n" if text.see_also else ""
    fields = {
        **convert.doc_fields(),
        "shapes": text.shapes,
        "result": text.result,
        "trans": ", ".join(map(str, trans)),
        "or_shape": ", or `c` has another shape" if "c" in names else "",
        "see_also": see_also,
        "example": text.example,
        "rows": f",\n{' ' * 7}".join(text.rows),
    }
    parts = [text.summary.format(**fields), ""]
    if text.details:
        parts += [fill(text.details, _WIDTH), ""]
    parts += [text.origin.format(**fields), "", "Parameters", "----------"]
    for name in names:
        if name not in _PAIRS.values():
            pair = _PAIRS.get(name)
            form, meaning = (part.format(**fields) for part in _PARAMETERS[name])
            parts.append(f"{name}, {pair} : {form}" if pair in names else f"{name} : {form}")
            parts.append(indent(fill(meaning, _WIDTH), " " * 4))
    return "\n".join(parts) + "\n" + _REST.format(**fields)
