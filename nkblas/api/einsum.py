"""`nkblas.einsum`: NumPy's code for an `optimize` path, and `c_einsum` for each contraction."""

from typing import Any

import numpy as np

from .contraction import LABELS, find_plan, numpy_c_einsum, parse
from .gufuncs import with_fast_path
from .products import fall_back, numpy_implementations, overridable_as, rebind_products, tensordot

numpy_implementations["c_einsum"] = numpy_c_einsum


def as_subscripts(operands: tuple[Any, ...]) -> tuple[str, list[Any]] | None:
    """The subscripts and the arrays of a call, in either form; None if it has another one."""
    if isinstance(operands[0], str):
        return operands[0], list(operands[1:])
    arrays, sublists = list(operands[:-1:2]), list(operands[1::2])
    out = [operands[-1]] if len(operands) % 2 else []
    try:
        terms = [
            "".join("..." if x is Ellipsis else LABELS[x] for x in one if x is Ellipsis or x >= 0)
            for one in (*sublists, *out)
        ]
    except (IndexError, TypeError, ValueError):  # an array in the place of a list
        return None
    given = ",".join(terms[: len(sublists)])
    return (f"{given}->{terms[-1]}" if out else given), arrays


def _c_einsum(*operands: Any, out: Any = None, **kwargs: Any) -> Any:
    """Replacement of NumPy's `c_einsum`, which does one contraction: on the engine if possible."""
    if out is not None:
        kwargs["out"] = out
    parsed = as_subscripts(operands) if operands else None
    known = {"out", "dtype", "order", "casting"}
    if parsed is None or len(parsed[1]) < 2 or not known.issuperset(kwargs):
        return numpy_c_einsum(*operands, **kwargs)
    subscripts, arrays = parsed
    if len(arrays) > 2:
        reason = "more than two operands, and optimize=False"
        return fall_back("c_einsum", reason, *operands, **kwargs)
    a, b = np.asarray(arrays[0]), np.asarray(arrays[1])
    contraction = parse(subscripts, (a.ndim, b.ndim))
    if contraction is None:
        return numpy_c_einsum(*operands, **kwargs)
    try:
        plan = find_plan(contraction, a, b, **kwargs)
    except (TypeError, ValueError) as error:  # NumPy raises its own error
        plan = str(error)
    if isinstance(plan, str):
        return fall_back("c_einsum", plan, *operands, **kwargs)
    result = plan.allocate_result() if out is None else out
    if not plan.execute(a, b, result):
        reason = "a label of one operand alone, and numbers that are not finite"
        return fall_back("c_einsum", reason, *operands, **kwargs)
    return out if out is not None else result if result.ndim else result[()]


c_einsum = with_fast_path(_c_einsum, "einsum")

_einsum = rebind_products(np.einsum, "bmm_einsum", c_einsum=c_einsum, tensordot=tensordot)


@overridable_as(np.einsum)
def einsum(*operands: Any, out: Any = None, optimize: Any = False, **kwargs: Any) -> Any:
    """Einstein summation: `numpy.einsum`, on generated kernels.

    Parameters, result and errors are those of `numpy.einsum`. Contractions of two operands that
    sum over a common label, of dtypes that `matmul` runs on nkblas, run as stacks of matrix
    products. NumPy does all others, among them those of more than two operands, unless `optimize`
    contracts two at a time.

    Parameters
    ----------
    *operands : str and array_like
        The subscripts, such as ``"ij,jk->ik"``, and the arrays; or each array followed by the list
        of its labels.
    out : ndarray, optional
        Array to write the result to.
    optimize : {False, True, "greedy", "optimal"} or list, optional
        As for `numpy.einsum`: the order in which pairs are contracted.
    **kwargs
        `dtype`, `order`, `casting`.

    Returns
    -------
    ndarray or scalar

    Raises
    ------
    ValueError
        The subscripts do not fit the arrays.

    See Also
    --------
    tensordot, matmul

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.einsum("ij,kj->ki", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 10.0]])
    array([[21., 43.]])
    """
    return _einsum(*operands, out=out, optimize=optimize, **kwargs)
