"""Recipes of small calls: how the C code does a call of known operands, without Python.

`make_recipe` is called for the first call of each kind: a function, its subscripts or axes, and the
dtypes, shapes, strides and alignment of its operands. The C code (numpy_ext/recipes.c)
keeps the recipe, and executes it for all further calls of the kind.
"""

import sys
from math import prod
from typing import Any, NamedTuple

import numpy as np

from nkblas import _numpy_ext
from nkblas.system.log import log

from .contraction import (
    NO_KERNELS,
    ContractionPlan,
    StackView,
    classify,
    find_plan,
    numpy_c_einsum,
    parse,
    plan_contraction,
)
from .operands import Array, DType, is_native_aligned
from .products import numpy_implementations

StackDimension = tuple[int, int, int, int]
"""A length and the strides of A, B and C."""

Axes = tuple[int, ...]

MAX_SUMMED = 256
"""The longest sums of an operand alone that are products with a vector of ones, which is kept."""


class OperandRecipe(NamedTuple):
    """How an operand becomes a stack of matrices.

    Attributes
    ----------
    presum : str or None
        Subscripts of a NumPy call that reduces it first.
    ones : ndarray or None
        A vector that a matrix is multiplied with instead, which sums its rows.
    matrix : tuple of int
        The shape and the strides of this matrix.
    copy : tuple of int or None
        The transposition of a contiguous copy of the result's dtype, if one is needed.
    """

    presum: str | None = None
    ones: Array | None = None
    matrix: tuple[int, int, int, int] = (0, 0, 0, 0)
    copy: Axes | None = None


class Recipe(NamedTuple):
    """A contraction on the engine. Strides are in elements, except those of the result.

    Attributes
    ----------
    type : int
        NumPy's number of the result's dtype.
    presums_floats : bool
        As in `ContractionPlan`.
    lengths : tuple of int
        m, n, k.
    strides : tuple of int
        Row and column strides of A, B and C.
    stack : tuple of int
        A `StackDimension` after the other, from the outermost to the innermost; at least one.
    shape, result_strides : tuple of int
        Of the result.
    a, b : OperandRecipe
    target : tuple of int or None
        The transposition from the result to C, if C is a contiguous array that is copied to it.
    """

    type: int
    presums_floats: bool
    lengths: tuple[int, int, int]
    strides: tuple[int, ...]
    stack: tuple[int, ...]
    shape: tuple[int, ...]
    result_strides: tuple[int, ...]
    a: OperandRecipe
    b: OperandRecipe
    target: Axes | None


ByNumPy = bool
"""In place of a recipe: NumPy's function does the call, which counts as a fallback or not."""


def _in_elements(strides: tuple[int, ...], dtype: DType) -> tuple[int, ...]:
    return tuple(stride // dtype.itemsize for stride in strides)


def _contiguous_strides(shape: tuple[int, ...], dtype: DType) -> tuple[int, ...]:
    return _in_elements(np.empty(shape, dtype).strides, dtype)


def _stack_strides(view: StackView, x: Array, dtype: DType) -> tuple[tuple[int, ...], Axes | None]:
    """The strides of a stack, and a transposition if it has to be a contiguous copy of `x`."""
    strides = view.strides(x) if is_native_aligned(x, dtype) else None
    if strides is None:
        return _contiguous_strides(view.shape, dtype), view.axes
    return _in_elements(strides, dtype), None


def _as_stack(
    view: StackView, x: Array, plan: ContractionPlan
) -> tuple[OperandRecipe, tuple[int, ...]]:
    """The recipe of an operand, and the strides of the stack that it becomes."""
    sums = _row_sums(view, x, plan.dtype) if view.presum else None
    if sums is not None:
        return sums, _contiguous_strides(view.shape, plan.dtype)
    if view.presum:
        x = numpy_c_einsum(view.presum, x, **plan.presum_kwargs)
    strides, copy = _stack_strides(view, x, plan.dtype)
    return OperandRecipe(view.presum or None, copy=copy), strides


def _row_sums(view: StackView, x: Array, dtype: DType) -> OperandRecipe | None:
    """A short sum as a product of a matrix and ones, with results in the order of the stack."""
    term, out = view.presum.split("->")
    if len(set(term)) != len(term) or not is_native_aligned(x, dtype):
        return None
    rows = tuple(term.index(out[axis]) for axis in view.axes)
    columns = tuple(axis for axis in range(x.ndim) if axis not in rows)
    shape = tuple(prod(x.shape[axis] for axis in group) for group in (rows, columns))
    matrix = StackView("", (), rows, columns, shape)
    strides = matrix.strides(x)
    if strides is None or shape[1] > MAX_SUMMED:
        return None
    m, k = shape
    rs, cs = _in_elements(strides, dtype)
    return OperandRecipe(ones=np.ones(k, dtype), matrix=(m, k, rs, cs))


def _stack_dimensions(
    plan: ContractionPlan, a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]
) -> tuple[StackDimension, ...]:
    """The dimensions of a stack: adjacent ones are merged where that is possible."""
    merged: list[StackDimension] = []
    for i, length in enumerate(plan.target.shape[:-2]):
        if length == 1:
            continue
        views = ((plan.left, a), (plan.right, b), (plan.target, c))
        x, y, z = (0 if view.shape[i] == 1 else strides[i] for view, strides in views)
        if merged and merged[-1][1:] == (length * x, length * y, length * z):
            length = length * merged.pop()[0]
        merged.append((length, x, y, z))
    return tuple(merged) or ((1, 0, 0, 0),)


def _from_plan(plan: ContractionPlan, a: Array, b: Array, out: Any = None) -> Recipe | None:
    """The recipe that does what the plan does; None if only Python code can."""
    is_cast_safe = all(np.can_cast(x.dtype, plan.dtype) for x in (a, b))  # others raise warnings
    is_rounded_once = plan.presum_kwargs["dtype"] == plan.dtype
    if not is_cast_safe or not is_rounded_once or not a.size or not b.size:
        return None
    result = plan.allocate_result() if out is None else out
    left, a_strides = _as_stack(plan.left, a, plan)
    right, b_strides = _as_stack(plan.right, b, plan)
    c_strides, target = _stack_strides(plan.target, result, plan.dtype)
    stack = _stack_dimensions(plan, a_strides, b_strides, c_strides)
    m, n = plan.target.shape[-2:]
    return Recipe(
        plan.dtype.num,
        plan.presums_floats,
        (m, n, plan.left.shape[-1]),
        (*a_strides[-2:], *b_strides[-2:], *c_strides[-2:]),
        tuple(x for dimension in stack for x in dimension),
        plan.shape,
        plan.strides,
        left,
        right,
        target,
    )


# ---- the functions ----


def _einsum(subscripts: str, *arrays: Array, options: dict[str, Any]) -> Recipe | ByNumPy | None:
    if len(arrays) == 1:
        return False
    if len(arrays) > 2:
        log("info", "NumPy does c_einsum: more than two operands, and optimize=False", once=True)
        return True
    a, b = arrays
    contraction = parse(subscripts, (a.ndim, b.ndim))
    if contraction is None:
        return False
    plan = find_plan(contraction, a, b, **options)
    if isinstance(plan, str):
        log("info", f"NumPy does c_einsum: {plan}", once=True)
        return True
    return _from_plan(plan, a, b, options.get("out"))


def _of_terms(
    left: str, right: str, out: str, a: Array, b: Array, name: str = ""
) -> Recipe | ByNumPy | None:
    """The recipe of a product whose result is C-contiguous.

    Operands are repeated along the first labels of their terms, those without a dimension. `name`
    is of a function that leaves dtypes without kernels to NumPy, and counts that as a fallback.
    """
    terms, given = (left, right), (a, b)
    a, b = (x[(None,) * (len(term) - x.ndim)] for term, x in zip(terms, given, strict=True))
    plan = plan_contraction(classify(left, right, out), a, b, order="C")
    if name and plan == NO_KERNELS:
        log("info", f"NumPy does {name}: {plan}", once=True)
        return True
    recipe = None if isinstance(plan, str) else _from_plan(plan, a, b)
    if recipe is None or any(
        how.copy is not None and len(how.copy) > x.ndim
        for how, x in zip((recipe.a, recipe.b), given, strict=True)
    ):
        return None  # the C code has no repeated operand that it could copy
    return recipe


def _dot(a: Array, b: Array) -> Recipe | ByNumPy | None:
    """Each matrix of a stack `b` computes its own columns of the result."""
    rows, depth, stack, column = _distinct(a.ndim - 1, 1, max(b.ndim - 2, 0), min(b.ndim - 1, 1))
    left, right = stack + rows + depth, stack + depth + column
    return _of_terms(left, right, rows + stack + column, a, b, "dot")


def _inner(a: Array, b: Array) -> Recipe | ByNumPy | None:
    rows, columns, depth = _distinct(a.ndim - 1, b.ndim - 1, 1)
    return _of_terms(rows + depth, columns + depth, rows + columns, a, b, "inner")


def _vdot(a: Array, b: Array) -> Recipe | ByNumPy | None:
    if a.shape != b.shape:
        return None
    (depth,) = _distinct(a.ndim)
    return _of_terms(depth, depth, "", a, b, "vdot")


def _tensordot(axes: Any, a: Array, b: Array) -> Recipe | ByNumPy | None:
    """`axes` is an int, or a pair of ints or of sequences of ints."""
    if isinstance(axes, int):
        if axes > min(a.ndim, b.ndim):
            return None
        axes = tuple(range(-axes, 0)), tuple(range(axes))
    pair = [(x,) if isinstance(x, int) else tuple(x) for x in axes]
    try:
        axes_a, axes_b = (
            [range(x.ndim)[axis] for axis in one] for one, x in zip(pair, (a, b), strict=True)
        )
    except IndexError:
        return None
    has_duplicates = any(len(set(one)) != len(one) for one in (axes_a, axes_b))
    # one element alone is left to NumPy's dot
    if has_duplicates or len(axes_a) != len(axes_b) or a.size <= 1 or b.size <= 1:
        return None
    depth, rows, columns = _distinct(len(axes_a), a.ndim - len(axes_a), b.ndim - len(axes_b))
    left = _term(a.ndim, axes_a, depth, rows)
    right = _term(b.ndim, axes_b, depth, columns)
    return _of_terms(left, right, rows + columns, a, b)


def _term(ndim: int, axes: list[int], labels: str, others: str) -> str:
    """The term with these labels at these axes, and the others in order at the others."""
    labels_of = dict(zip(axes, labels, strict=True))
    rest = iter(others)
    return "".join(labels_of[axis] if axis in labels_of else next(rest) for axis in range(ndim))


def _distinct(*counts: int) -> list[str]:
    """Groups of the given numbers of labels; no label is in two groups."""
    labels = iter(map(chr, range(ord("a"), ord("a") + sum(counts))))
    return ["".join(next(labels) for _ in range(count)) for count in counts]


_CORES = {
    "matmul": ("mk", "kn"),
    "vecdot": ("k", "k"),
    "matvec": ("mk", "k"),
    "vecmat": ("k", "kn"),
}


def _gufunc(name: str, a: Array, b: Array) -> Recipe | ByNumPy | None:
    """Stacks in one dimension; the order of more dimensions is NumPy's choice."""
    cores = list(_CORES[name])
    if name == "matmul":
        cores = [core if x.ndim > 1 else "k" for core, x in zip(cores, (a, b), strict=True)]
    loops = [x.ndim - len(core) for x, core in zip((a, b), cores, strict=True)]
    if min(loops) < 0 or max(loops) > 1:
        return None
    stack = "x" * max(loops)
    left, right = cores
    out = (left + right).replace("k", "")
    return _of_terms(stack + left, stack + right, stack + out, a, b)


_PRODUCTS = {"dot": _dot, "inner": _inner, "vdot": _vdot}


def make_recipe(
    name: str, what: Any, options: dict[str, Any] | None, *arrays: Array
) -> Recipe | ByNumPy | None:
    """The recipe of a call of the function `name`; None: its general function does the call.

    `what` is what else the call depends on: the subscripts of einsum, the axes of tensordot.
    `options` are keyword arguments of einsum.
    """
    if sys.is_finalizing():  # the interpreter ends: nothing can be imported any more
        return name not in (*_CORES, "tensordot") or None
    try:
        if name == "einsum":
            return _einsum(what, *arrays, options=options or {})
        if name == "tensordot":
            return _tensordot(what, *arrays)
        return _PRODUCTS[name](*arrays) if name in _PRODUCTS else _gufunc(name, *arrays)
    except (TypeError, ValueError):  # in the general function NumPy raises its own error
        return None


_numpy_ext.register_planner(make_recipe, {**numpy_implementations, "einsum": numpy_c_einsum})
