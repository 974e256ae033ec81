"""NumPy's gufuncs of products on the engine (see engine/gufunc.c)."""

from typing import TYPE_CHECKING

import numpy as np

from . import _gufunc
from ._engine import ffi, lib

_ENGINE = (
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_gemm"))),
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_gemm_scaled"))),
    int(ffi.cast("uintptr_t", lib.nk_counts())),
)

_GUFUNC = """
Parameters, result, broadcasting, casting and errors are those of `numpy.{name}`.
float32 and float64 products run on nkblas; NumPy's own loops do every other dtype.

Parameters
----------
x1, x2 : array_like
    {operands}
out : ndarray, optional
    Where the result goes: shape ``{result}``. It may overlap the inputs.
**kwargs
    `casting`, `order`, `dtype`, `subok`, `signature`, `axes`, `axis` as for any gufunc.

Returns
-------
ndarray
    Shape ``{result}``. Each element is within ``k * eps * sum(|x1| * |x2|)`` of the exact sum of
    products (Higham, Accuracy and Stability of Numerical Algorithms, section 3.5).

Raises
------
ValueError
    The inner dimensions differ, or an operand has too few dimensions.

Examples
--------
>>> import numpy as np, nkblas
"""

_DOCS = {
    "matmul": (
        "Matrix product of two arrays: `numpy.matmul`, on generated kernels.\n",
        "Matrices, or stacks of matrices in the last two dimensions: shapes ``(..., m, k)`` and\n"
        "    ``(..., k, n)``. A vector of shape ``(k,)`` is a row on the left, a column on the\n"
        "    right.",
        "(..., m, n)",
        ">>> nkblas.matmul(np.eye(2), [[1, 2], [3, 4]])\narray([[1., 2.],\n       [3., 4.]])\n",
    ),
    "vecdot": (
        "Dot products of stacks of vectors: `numpy.vecdot`, on generated kernels.\n",
        "Vectors, or stacks of vectors in the last dimension: shapes ``(..., k)``.",
        "(...)",
        ">>> nkblas.vecdot([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])\narray([21., 43.])\n",
    ),
    "matvec": (
        "Products of matrices and vectors: `numpy.matvec`, on generated kernels.\n",
        "Matrices and vectors, or stacks of them: shapes ``(..., m, k)`` and ``(..., k)``.",
        "(..., m)",
        ">>> nkblas.matvec([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])\narray([21., 43.])\n",
    ),
    "vecmat": (
        "Products of vectors and matrices: `numpy.vecmat`, on generated kernels.\n",
        "Vectors and matrices, or stacks of them: shapes ``(..., k)`` and ``(..., k, n)``.",
        "(..., n)",
        ">>> nkblas.vecmat([1.0, 10.0], [[1.0, 2.0], [3.0, 4.0]])\narray([31., 42.])\n",
    ),
}


def _bind(name: str) -> np.ufunc:
    summary, operands, result, example = _DOCS[name]
    doc = summary + _GUFUNC.format(name=name, operands=operands, result=result) + example
    return _gufunc.bind(getattr(np, name), name, doc, *_ENGINE)


matmul = _bind("matmul")
vecdot = _bind("vecdot")
if TYPE_CHECKING or hasattr(np, "matvec"):  # NumPy 2.2 has them
    matvec = _bind("matvec")
    vecmat = _bind("vecmat")

# As `matmul`, for `nkblas.products`: under this name NumPy tells of overflow in `dot`.
stacked_dot = _gufunc.bind(np.matmul, "dot", "", *_ENGINE)
