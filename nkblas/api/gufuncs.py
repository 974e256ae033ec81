"""NumPy's gufuncs of products (matmul, vecdot, matvec, vecmat) on the engine.

The loops are in numpy_ext/gufuncs.c, the fast path of matmul is in numpy_ext/fast_matmul.c.
"""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from nkblas import _numpy_ext
from nkblas._engine import ffi, lib
from nkblas.base.dtypes import FLOAT8, PRODUCT_CODE, PRODUCTS, product
from nkblas.base.epilogues import ACTIVATIONS, Epilogue

_ENGINE = (
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_gemm"))),
    int(ffi.cast("uintptr_t", lib.nk_get_counters())),
    int(ffi.cast("uintptr_t", ffi.addressof(lib, "nk_pass_through"))),
)

P = ParamSpec("P")
R = TypeVar("R")


def fast_path(function: Callable[P, R]) -> Callable[P, R]:
    """Put the fast path of this name, written in C, in front of a function.

    It does the common calls without running Python code; `function` does all others (see
    numpy_ext/fast_path.c). Their rules are the same, which `tests/unit/test_fast_paths.py` checks.
    """
    return with_fast_path(function, function.__name__)


def with_fast_path(
    function: Callable[P, R], name: str | None, numpy_function: Any = None
) -> Callable[P, R]:
    """The function with the fast path `name`, if that is not None.

    If an argument overrides `numpy_function` by ``__array_function__``, that is called instead.
    """
    wrapper: Any = _numpy_ext.make_fast_path(function, name, numpy_function)
    return functools.update_wrapper(wrapper, function)


_GUFUNC = """
Parameters, result, broadcasting, casting and errors are those of `numpy.{name}`.
Every numeric type, and bool, runs on nkblas, except longdouble, clongdouble and object, which run
on NumPy's own loops. {more}

Parameters
----------
x1, x2 : array_like
    {operands}
out : ndarray, optional
    Array for the result: shape ``{result}``. It may overlap the inputs.
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

See Also
--------
numpy.{name}
gemm : Matrix product with alpha, beta and an epilogue.

Examples
--------
>>> import numpy as np, nkblas
"""

_MIXED_TYPES = """

Results that are wider than the operands are computed without a converted copy of the operands:
with ``dtype=numpy.int32`` for 8-bit integers of any signedness, with ``dtype=numpy.float32`` for
float16. Products of `ml_dtypes.bfloat16` are float32, as in NumPy; with ``dtype=bfloat16`` the
float32 sums are rounded once."""

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


def _make_gufunc(name: str) -> np.ufunc:
    """The counterpart of NumPy's gufunc `name`."""
    summary, operands, result, example = _DOCS[name]
    more = _MIXED_TYPES if name == "matmul" else ""
    doc = summary + _GUFUNC.format(name=name, operands=operands, result=result, more=more) + example
    return _numpy_ext.make_gufunc(getattr(np, name), name, doc, *_ENGINE)


matmul = _make_gufunc("matmul")
vecdot = _make_gufunc("vecdot")
if TYPE_CHECKING or hasattr(np, "matvec"):  # since NumPy 2.2
    matvec = _make_gufunc("matvec")
    vecmat = _make_gufunc("vecmat")

dot_gufunc = _numpy_ext.make_gufunc(np.matmul, "dot", "", *_ENGINE)
"""`matmul` under the name that NumPy's warnings of overflow in `dot` have."""

mixed_matmul = _numpy_ext.make_mixed_gufunc()
"""Matrix products whose result type is wider than the operands' (bfloat16: as narrow), for callers
that name a result type."""


def _mixed_product(*args: Any, dtype: Any = None, signature: Any = None, **kwargs: Any) -> Any:
    """Run `mixed_matmul` if `dtype` or `signature` select one of its loops without a cast.

    Otherwise NotImplemented is returned, and NumPy resolves the types.
    """
    if signature is None:
        signature = kwargs.pop("sig", None)
    if len(args) < 2 or not (isinstance(args[0], np.ndarray) and isinstance(args[1], np.ndarray)):
        return NotImplemented
    try:
        result = _mixed_result(args[0].dtype, args[1].dtype, dtype, signature)
    except TypeError:  # an argument is no dtype, or not hashable
        return NotImplemented
    return NotImplemented if result is None else mixed_matmul(*args, dtype=result, **kwargs)


@functools.lru_cache
def _mixed_result(
    a: np.dtype[Any], b: np.dtype[Any], dtype: Any, signature: Any
) -> np.dtype[Any] | None:
    """The result dtype, if `dtype` or `signature` select a loop of `mixed_matmul`."""
    if isinstance(signature, str):
        signature = tuple(signature.replace("->", ""))
    requested = (None, None, dtype) if signature is None else signature
    types = [None if x is None else np.dtype(x) for x in requested]
    if (
        len(types) != 3
        or types[2] is None
        or types[0] not in (None, a)
        or types[1] not in (None, b)
    ):
        return None
    return types[2] if _is_mixed(a.name, b.name, types[2].name) else None


def _is_mixed(a: str, b: str, c: str) -> bool:
    """Whether a product of these types has no loop in `matmul`, only in `mixed_matmul`."""
    name = product(a, b, c)
    if name is None or (c == "float32" and a != "float16"):
        return False
    return name == "bfloat16" or len(set(PRODUCTS[name])) > 1


def register_user_dtypes() -> None:
    """Give the gufuncs loops for the dtypes of `ml_dtypes`, once the program has imported it."""
    global _has_user_dtypes
    module = sys.modules.get("ml_dtypes")
    if module is None or _has_user_dtypes:
        return
    _has_user_dtypes = True
    descriptions = []
    for name in ("bfloat16", *FLOAT8):
        scalar_type = getattr(module, name, None)
        if scalar_type is None:  # older versions of ml_dtypes lack some
            continue
        dtype = np.dtype(scalar_type)
        all_bytes = np.arange(256 if dtype.itemsize == 1 else 0, dtype=np.uint8)
        values = all_bytes.view(dtype).astype(np.float32)
        code = PRODUCT_CODE[f"{name}_float32"]
        descriptions.append((dtype.num, code, values.tobytes()))
    gufuncs = [globals().get(name) for name in (*_DOCS, "dot_gufunc")]
    _numpy_ext.register_user_dtypes(descriptions, tuple(filter(None, gufuncs)))


_has_user_dtypes = False


def _activation_codes(on_integers: bool) -> dict[str, int]:
    """The codes of the activations without bounds, for accumulators of integers or floats."""
    return {
        name: Epilogue(activation=name).code
        for name, activation in ACTIVATIONS.items()
        if name and not activation.has_bounds and (activation.on_integers or not on_integers)
    }


_numpy_ext.register_callbacks(
    register_user_dtypes, _mixed_product, _activation_codes(False), _activation_codes(True)
)
