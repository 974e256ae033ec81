"""BLAS level 2: ``{s,d,c,z}gemv`` with the signature of `scipy.linalg.blas`."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from .blas_arguments import Arguments, named, with_ndim
from .gemm_call import GemmCall
from .operands import Array, apply_trans


def make_gemv(letter: str) -> Callable[..., Array]:
    """The function for the dtype of a letter."""
    name = f"{letter}gemv"

    def gemv(
        alpha: Any,
        a: Any,
        x: Any,
        beta: Any = 0,
        y: Any = None,
        offx: Any = 0,
        incx: Any = 1,
        offy: Any = 0,
        incy: Any = 1,
        trans: Any = 0,
        overwrite_y: Any = 0,
    ) -> Array:
        alpha = convert.factor("alpha", alpha)
        beta = 0 if beta is None else convert.factor("beta", beta)
        offx, offy = convert.integer("offx", offx), convert.integer("offy", offy)
        incx, incy = convert.integer("incx", incx, 1), convert.integer("incy", incy, 1)
        for increment, value in (("incx", incx), ("incy", incy)):
            if value == 0:
                raise convert.error(increment, 0, "another number")
        trans = convert.choice("trans", trans, (0, 1, 2))
        overwrite = convert.flag("overwrite_y", overwrite_y)
        matrix, conj = apply_trans(convert.array(a, 2), trans)
        m, n = matrix.shape
        vector = convert.vector("x", convert.array(x, 1), n, offx, incx)
        if y is None:
            length = max(0, 1 + offy + (m - 1) * abs(incy))
            result, beta = np.zeros(length, convert.dtype), 0
        else:
            result = convert.result(y, overwrite)
        target = convert.vector("y", with_ndim(result, 1), m, offy, incy)
        if m and n:  # without products, BLAS does not scale y either
            call = GemmCall(matrix, vector[:, None], target[:, None], alpha, beta, conj)
            call.without_overlap().execute()
        return result

    convert = Arguments(name, signature(gemv))
    return named(gemv, name, _DOC.format(**convert.doc_fields()))


_DOC = """Scaled product of a {dtype} matrix and a vector: ``alpha * op(a) @ x + beta * y``.

    The signature is that of `scipy.linalg.blas.{name}`.

    Parameters
    ----------
    alpha : scalar
        With 0, `a` and `x` are not read.
    a : array_like
        A matrix, converted to {dtype}: ``op(a)`` has shape ``(m, n)``.
    x : array_like
        Its `n` elements begin at index `offx`, at distances of ``abs(incx)``.
    beta : scalar, optional
        With 0, the default, the elements of `y` that are overwritten are not read.
    y : array_like, optional
        Its `m` elements begin at index `offy`, at distances of ``abs(incy)``; the other elements
        keep their values. Default: zeros, as many as necessary.
    offx, offy : int, optional
        Index of the first element.
    incx, incy : int, optional
        Increment. If it is negative, the vector consists of the same elements in reverse order.
    trans : {{0, 1, 2}}, optional
        The operation ``op``:

        - 0: none, ``op(a) = a``
        - 1: transpose, ``op(a) = a.T``
        - 2: conjugate transpose, ``op(a) = a.conj().T``
    overwrite_y : bool, optional
        Whether the result may be written to `y`. It is if `y` is a writeable contiguous array of
        {dtype}; it may overlap `a` and `x`.

    Returns
    -------
    ndarray
        All of `y`, {dtype}.

    Raises
    ------
    BlasError
        A vector is too short, or another argument has a value that is not allowed.
    ValueError, TypeError
        An argument cannot be converted.

    See Also
    --------
    nkblas.matvec : products of stacks of matrices and vectors.

    Examples
    --------
    >>> from nkblas import blas
    >>> blas.{name}(2, [[1, 2], [3, 4]], [1, 1]).real
    array([ 6., 14.]{dtype_in_repr})
    """
