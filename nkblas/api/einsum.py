"""`nkblas.einsum`: sums over two operands are products of stacks of matrices.

NumPy's own code follows an `optimize` path; here is what it calls for each contraction. Operands
are transposed and reshaped to matrices, and the result lies in memory as NumPy would have it.
"""

import functools
import string
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .gufuncs import matmul
from .products import (
    NO_KERNELS,
    Array,
    engine_dtype,
    left_to_numpy,
    like,
    numpys,
    rebuilt,
    tensordot,
)

numpys["c_einsum"] = np.einsum._implementation.__globals__["c_einsum"]  # type: ignore[attr-defined]

LABELS = string.ascii_uppercase + string.ascii_lowercase  # for the numbers 0, 1, … of a sublist


class Contraction(NamedTuple):
    """``left,right->out`` as a product of stacks of matrices; labels are characters.

    Attributes
    ----------
    left, right, out : str
    diagonal : (str, str)
        The labels of each operand that matter, once: others are summed over beforehand.
    stack, rows, columns, depth : str
        Labels of both operands and `out`; of `left` and `out`; of `right` and `out`; of both
        operands alone.
    """

    left: str
    right: str
    out: str
    diagonal: tuple[str, str]
    stack: str
    rows: str
    columns: str
    depth: str


@functools.lru_cache(maxsize=256)
def parse(subscripts: str, ndims: tuple[int, int]) -> Contraction | None:
    """The contraction that subscripts ask for; None if it is no product, or is a mistake."""
    given, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = given.split(",")
    if len(terms) != 2 or not set("".join((*terms, out)).replace("...", "")) <= set(LABELS):
        return None
    # An ellipsis stands for as many labels as it takes, those of both operands from the right.
    free = [label for label in LABELS if label not in subscripts]
    extra = [
        ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, ndim in zip(terms, ndims, strict=True)
    ]
    most = max(extra)
    if min(extra) < 0 or most > len(free) or any(x.count("...") > 1 for x in (*terms, out)):
        return None
    dots = "".join(free[:most])
    left, right = (
        term.replace("...", dots[most - count :]) for term, count in zip(terms, extra, strict=True)
    )
    if (len(left), len(right)) != ndims:
        return None
    if arrow:
        if most and "..." not in out:
            return None
        out = out.replace("...", dots)
    else:
        both = left + right
        out = dots + "".join(sorted(x for x in set(both) - set(dots) if both.count(x) == 1))
    if len(set(out)) != len(out) or not set(out) <= set(left + right):
        return None
    depth = [x for x in dict.fromkeys(left) if x in right and x not in out]
    if not depth:
        return None
    diagonal = tuple(
        "".join(x for x in dict.fromkeys(one) if x in other or x in out)
        for one, other in ((left, right), (right, left))
    )
    return Contraction(
        left,
        right,
        out,
        (diagonal[0], diagonal[1]),
        "".join(x for x in out if x in left and x in right),
        "".join(x for x in out if x not in right),
        "".join(x for x in out if x not in left),
        "".join(depth),
    )


def as_subscripts(operands: tuple[Any, ...]) -> tuple[str, list[Any]] | None:
    """The subscripts and the arrays of a call; None if it has another form."""
    if isinstance(operands[0], str):
        return operands[0], list(operands[1:])
    arrays, lists = list(operands[:-1:2]), list(operands[1::2])
    out = [operands[-1]] if len(operands) % 2 else []
    try:
        terms = [
            "".join("..." if x is Ellipsis else LABELS[x] for x in one if x is Ellipsis or x >= 0)
            for one in (*lists, *out)
        ]
    except (IndexError, TypeError):
        return None
    given = ",".join(terms[: len(lists)])
    return (f"{given}->{terms[-1]}" if out else given), arrays


def c_einsum(*operands: Any, out: Any = None, **kwargs: Any) -> Any:
    """NumPy's function of this name, which does one contraction, on the engine if it can be."""
    if out is not None:
        kwargs["out"] = out
    found = as_subscripts(operands) if operands else None
    known = {"out", "dtype", "order", "casting"}
    if found is None or len(found[1]) < 2 or not known.issuperset(kwargs):
        return numpys["c_einsum"](*operands, **kwargs)
    subscripts, given = found
    if len(given) > 2:
        reason = "more than two operands, and optimize=False"
        return left_to_numpy("c_einsum", reason, *operands, **kwargs)
    a, b = np.asarray(given[0]), np.asarray(given[1])
    contraction = parse(subscripts, (a.ndim, b.ndim))
    if contraction is None:
        return numpys["c_einsum"](*operands, **kwargs)
    try:
        recipe = recipe_for(contraction, a, b, **kwargs)
    except (TypeError, ValueError) as error:  # NumPy says it in its own words
        recipe = str(error)
    if isinstance(recipe, str):
        return left_to_numpy("c_einsum", recipe, *operands, **kwargs)
    result = recipe.new() if out is None else out
    if not recipe.follow(a, b, result):
        reason = "a label of one operand alone, and numbers that are not finite"
        return left_to_numpy("c_einsum", reason, *operands, **kwargs)
    return out if out is not None else result if result.ndim else result[()]


class View(NamedTuple):
    """An array as a stack of matrices.

    Attributes
    ----------
    reduce : str
        Subscripts that NumPy does first: a diagonal, a sum over a label of one operand alone.
    axes : tuple of int
        The stack's, the rows', the columns'.
    shape : tuple of int
        Then one dimension for all rows, and one for all columns.
    """

    reduce: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, x: Array, how: dict[str, Any]) -> Array:
        if self.reduce:
            x = numpys["c_einsum"](self.reduce, x, **how)
        if self.axes != tuple(range(x.ndim)):
            x = x.transpose(self.axes)
        return x if x.shape == self.shape else x.reshape(self.shape)


class Recipe(NamedTuple):
    """How to do a contraction of operands of given dtypes, shapes and strides.

    Attributes
    ----------
    dtype : dtype
        Of the result.
    how : dict
        The dtype and the casting rule for what is summed up beforehand.
    asked : dict
        What `matmul` has to be told of the dtype: it makes another one of the operands' own.
    sums : bool
        Whether floats are summed up before they are multiplied.
    shape, strides : tuple of int
        Of the result.
    left, right, target : View
    """

    dtype: np.dtype[Any]
    how: dict[str, Any]
    asked: dict[str, Any]
    sums: bool
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    left: View
    right: View
    target: View

    def new(self) -> Array:
        """An array for the result."""
        return np.ndarray(self.shape, self.dtype, strides=self.strides)

    def follow(self, a: Array, b: Array, result: Array) -> bool:
        """Do it; False if it must not be done so."""
        with np.errstate(all="ignore"):  # as NumPy's
            left, right = self.left.of(a, self.how), self.right.of(b, self.how)
            # inf * (1 - 1) is not inf * 1 - inf * 1
            if self.sums and not (np.isfinite(left).all() and np.isfinite(right).all()):
                return False
            target = self.target.of(result, self.how)
            matmul(left, right, out=target, casting="unsafe", **self.asked)
        if target is not result and not np.may_share_memory(target, result):  # it is a copy
            view = result.transpose(self.target.axes)
            view[...] = target.reshape(view.shape)
        return True


_recipes: dict[Any, Recipe | str] = {}


def recipe_for(
    asked: Contraction,
    a: Array,
    b: Array,
    out: Any = None,
    dtype: Any = None,
    order: Any = "K",
    casting: Any = "safe",
) -> Recipe | str:
    """How to do a contraction, or why it is nothing for the engine."""
    place = None if out is None else (type(out), getattr(out, "dtype", 0), np.shape(out))
    strides = getattr(out, "strides", 0)
    operands = (a.dtype, a.shape, a.strides, b.dtype, b.shape, b.strides)
    key = (asked, operands, place, strides, dtype, order, casting)
    found = _recipes.get(key)
    if found is None:
        found = _make(asked, a, b, out, dtype, order, casting)
        if len(_recipes) >= RECIPES:
            _recipes.clear()
        _recipes[key] = found
    return found


RECIPES = 1024
"""That are kept, of those found last."""


def _make(
    asked: Contraction, a: Array, b: Array, out: Any, dtype: Any, order: Any, casting: Any
) -> Recipe | str:
    own = engine_dtype(a.dtype, b.dtype)
    dtype = own if dtype is None else np.dtype(dtype)
    if dtype is None or dtype.isbuiltin != 1 or engine_dtype(dtype, dtype) is None:
        return NO_KERNELS
    if not all(np.can_cast(x.dtype, dtype, casting) for x in (a, b)):
        return f"an operand can't be cast to {dtype}"
    left, right = asked.diagonal
    summed = set(asked.left + asked.right) - set(left + right)
    work = dtype
    if summed and dtype == np.float16:  # it is rounded once, in the end
        if not all(np.can_cast(x.dtype, dtype) for x in (a, b)):
            return "an operand is rounded to float16, and then summed up"
        work = np.dtype(np.float32)
    how = {"dtype": work, "casting": casting}
    reduces = [
        "" if term == kept else f"{term}->{kept}"
        for term, kept in zip((asked.left, asked.right), asked.diagonal, strict=True)
    ]
    given = a, b
    a, b = (
        numpys["c_einsum"](reduce, x, **how) if reduce else x
        for reduce, x in zip(reduces, given, strict=True)
    )
    lengths = dict(zip(right, b.shape, strict=True))
    for label, length in zip(left, a.shape, strict=True):
        other = lengths.get(label, length)
        if length != other and not (label in asked.stack and 1 in (length, other)):
            return "a label that is summed over has two lengths"
        lengths[label] = other if length == 1 else length
    shape = tuple(lengths[label] for label in asked.out)
    if out is None:
        out = _new(asked, *given, dtype, order)
    elif type(out) is not np.ndarray or (out.dtype, out.shape) != (dtype, shape):
        return "its out has another dtype, shape or class"

    if asked.stack and not asked.rows and not asked.columns:
        # dot products: NumPy goes through the operands in the order in which they lie
        for term, x in ((left, a), (right, b)):
            if min(abs(x.strides[term.index(label)]) for label in asked.depth) != x.itemsize:
                return "it is dot products of vectors that lie across each other"

    def by_steps(group: str, term: str, x: Array) -> str:
        """The labels of a group, those with long steps in `x` first: next to each other they are
        one dimension of a matrix, and most often without a copy."""
        steps = dict(zip(term, x.strides, strict=True))
        return "".join(sorted(group, key=lambda label: -abs(steps[label])))

    def view(reduce: str, x: Array, term: str, *dimensions: str) -> View:
        axes = tuple(term.index(label) for label in asked.stack + "".join(dimensions))
        whole = (prod(lengths[label] for label in part) for part in dimensions)
        return View(reduce, axes, (*(x.shape[axis] for axis in axes[: len(asked.stack)]), *whole))

    rows = by_steps(asked.rows, asked.out, out)
    columns = by_steps(asked.columns, asked.out, out)
    depth = by_steps(asked.depth, left, a)
    return Recipe(
        dtype,
        how,
        {} if own is not None and work == own else {"dtype": work},
        bool(summed) and dtype.kind in "fc",
        shape,
        out.strides,
        view(reduces[0], a, left, rows, depth),
        view(reduces[1], b, right, depth, columns),
        view("", out, asked.out, rows, columns),
    )


def _new(asked: Contraction, a: Array, b: Array, dtype: Any, order: Any) -> Array:
    """An array for the result, its axes ordered as NumPy's iterator orders them."""
    terms = ["".join(dict.fromkeys(term)) for term in (asked.left, asked.right)]
    a, b = (
        x if term == once else numpys["c_einsum"](f"{term}->{once}", x)  # a view
        for term, once, x in zip((asked.left, asked.right), terms, (a, b), strict=True)
    )
    labels = asked.out + "".join(sorted(set("".join(terms)) - set(asked.out)))
    axes = [[term.find(label) for label in labels] for term in (*terms, asked.out)]
    iterator = np.nditer(
        (a, b, None),
        flags=["external_loop", "buffered", "delay_bufalloc", "reduce_ok", "zerosize_ok"],
        op_flags=[["readonly"], ["readonly"], ["readwrite", "allocate", "no_broadcast"]],
        op_dtypes=[dtype] * 3,
        order=order,
        casting="unsafe",
        op_axes=axes,
    )
    result: Array = iterator.operands[2]
    return result


_einsum = rebuilt(np.einsum, "bmm_einsum", c_einsum=c_einsum, tensordot=tensordot)


@like(np.einsum)
def einsum(*operands: Any, out: Any = None, optimize: Any = False, **kwargs: Any) -> Any:
    """Sums of products in Einstein's notation: `numpy.einsum`, on generated kernels.

    Parameters, result and errors are those of `numpy.einsum`. Contractions of two operands of
    dtypes that `matmul` does, which sum over a common label, run on nkblas as stacks of products.
    NumPy does the others; among them are all of more than two operands, unless `optimize` says to
    contract them two at a time.

    Parameters
    ----------
    *operands : str and array_like
        The subscripts, such as ``"ij,jk->ik"``, and as many arrays; or each array with the list
        of its labels.
    out : ndarray, optional
        Where the result goes.
    optimize : {False, True, "greedy", "optimal"} or list
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

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> nkblas.einsum("ij,kj->ki", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 10.0]])
    array([[21., 43.]])
    """
    return _einsum(*operands, out=out, optimize=optimize, **kwargs)
