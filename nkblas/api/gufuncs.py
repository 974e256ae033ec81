"""NumPy's gufuncs of products on the engine (see engine/gufunc.c)."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from nkblas import _numpy_ext
from nkblas._engine import ffi, lib
from nkblas.base.dtypes import FLOAT8, PRODUCTS, product
from nkblas.base.epilogues import ACTIVATIONS, Epilogue

_ENGINE = (
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_gemm"))),
    int(ffi.cast("uintptr_t", lib.nk_get_counters())),
)

P = ParamSpec("P")
R = TypeVar("R")


def fast_path(function: Callable[P, R]) -> Callable[P, R]:
    """Have plain operands done without a line of Python (see engine/gufunc.c)."""
    quick: Any = _numpy_ext.make_fast_path(function, function.__name__)
    return functools.update_wrapper(quick, function)


_GUFUNC = """
Parameters, result, broadcasting, casting and errors are those of `numpy.{name}`.
All types of numbers run on nkblas but for longdouble and clongdouble, bool among them; NumPy's own
loops do the others. {more}

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

_TYPES = """

Results that are wider than the operands are made without a copy of these in the wider type: with
``dtype=numpy.int32`` those of 8-bit integers of any signs, with ``dtype=numpy.float32`` those of
float16. Products of `ml_dtypes.bfloat16` are float32, as NumPy has it; with ``dtype=bfloat16`` the
sums, in float32, are rounded once."""

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
    more = _TYPES if name == "matmul" else ""
    doc = summary + _GUFUNC.format(name=name, operands=operands, result=result, more=more) + example
    return _numpy_ext.make_gufunc(getattr(np, name), name, doc, *_ENGINE)


matmul = _bind("matmul")
vecdot = _bind("vecdot")
if TYPE_CHECKING or hasattr(np, "matvec"):  # NumPy 2.2 has them
    matvec = _bind("matvec")
    vecmat = _bind("vecmat")

# As `matmul`, for `nkblas.api.products`: under this name NumPy tells of overflow in `dot`.
dot_gufunc = _numpy_ext.make_gufunc(np.matmul, "dot", "", *_ENGINE)

mixed_matmul = _numpy_ext.make_mixed_gufunc()


def _mixed_product(*args: Any, dtype: Any = None, signature: Any = None, **kwargs: Any) -> Any:
    """The product of two arrays as `dtype` or `signature` ask for it, if no operand is cast."""
    if signature is None:
        signature = kwargs.pop("sig", None)
    if len(args) < 2 or not (isinstance(args[0], np.ndarray) and isinstance(args[1], np.ndarray)):
        return NotImplemented
    try:
        result = _mixed_result(args[0].dtype, args[1].dtype, dtype, signature)
    except TypeError:  # neither a dtype, nor hashable
        return NotImplemented
    return NotImplemented if result is None else mixed_matmul(*args, dtype=result, **kwargs)


@functools.lru_cache
def _mixed_result(
    a: np.dtype[Any], b: np.dtype[Any], dtype: Any, signature: Any
) -> np.dtype[Any] | None:
    """The dtype that is asked for, if it is that of one of `mixed_matmul`."""
    if isinstance(signature, str):
        signature = tuple(signature.replace("->", ""))
    wanted = (None, None, dtype) if signature is None else signature
    types = [None if x is None else np.dtype(x) for x in wanted]
    if (
        len(types) != 3
        or types[2] is None
        or types[0] not in (None, a)
        or types[1] not in (None, b)
    ):
        return None
    return types[2] if _is_mixed(a.name, b.name, types[2].name) else None


def _is_mixed(a: str, b: str, c: str) -> bool:
    """Whether a product is one of those that `matmul` does not make where nobody asks."""
    name = product(a, b, c)
    if name is None or (c == "float32" and a != "float16"):
        return False
    return name == "bfloat16" or len(set(PRODUCTS[name])) > 1


def register_user_dtypes() -> None:
    """Have the engine do the products of `ml_dtypes`' floats, once a program has them."""
    global _adopted
    module = sys.modules.get("ml_dtypes")
    if module is None or _adopted:
        return
    _adopted = True
    ours = [globals().get(name) for name in (*_DOCS, "dot_gufunc")]
    found = [getattr(module, name, None) for name in ("bfloat16", *FLOAT8)]  # some came later
    types = [None if x is None else np.dtype(x) for x in found]
    numbers = np.zeros((len(FLOAT8), 256), np.float32)
    for row, dtype in zip(numbers, types[1:], strict=True):
        if dtype is not None:
            row[:] = np.arange(256, dtype=np.uint8).view(dtype)
    _numpy_ext.register_user_dtypes(
        tuple(-1 if x is None else x.num for x in types),
        numbers.tobytes(),
        tuple(filter(None, ours)),
    )


_adopted = False


_numpy_ext.register_callbacks(
    register_user_dtypes,
    _mixed_product,
    *(
        {
            name: Epilogue(activation=name).code
            for name, activation in ACTIVATIONS.items()
            if name and not activation.has_bounds and (activation.on_integers or not integers)
        }
        for integers in (False, True)
    ),
)
