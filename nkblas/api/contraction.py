"""Contractions of two operands, as products of stacks of matrices: planning and execution."""

import functools
from math import prod
from typing import Any, NamedTuple

import numpy as np

from nkblas.base.dtypes import product as product_of

from .gufuncs import matmul
from .operands import Array, DType

numpy_c_einsum = np.einsum._implementation.__globals__["c_einsum"]  # type: ignore[attr-defined]

NO_KERNELS = "there are no generated kernels for its dtype"


@functools.lru_cache
def engine_dtype(a: DType, b: DType) -> DType | None:
    """The dtype of a product, if there are kernels for it."""
    try:
        dtype = np.result_type(a, b)
    except TypeError:
        return None
    return dtype if product_of(dtype.name, dtype.name, dtype.name) else None


LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The labels that NumPy gives to the integers 0, 1, ... of a sublist."""

MAX_CACHED_PLANS = 1024


class Contraction(NamedTuple):
    """``left,right->out`` as a product of stacks of matrices; a label is a character.

    Attributes
    ----------
    left, right, out : str
        The labels of the operands and of the result; ellipses are expanded.
    left_product, right_product : str
        The labels of each operand that take part in the product, each once. NumPy sums over the
        others first.
    batch : str
        Labels of both operands and `out`.
    rows : str
        Labels of `left` and `out` only.
    columns : str
        Labels of `right` and `out` only.
    depth : str
        Labels of both operands, but not of `out`: the product sums over them.
    """

    left: str
    right: str
    out: str
    left_product: str
    right_product: str
    batch: str
    rows: str
    columns: str
    depth: str


@functools.lru_cache(maxsize=256)
def parse(subscripts: str, ndims: tuple[int, int]) -> Contraction | None:
    """Parse subscripts of two operands; None if they are not a matrix product, or are wrong."""
    given, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = given.split(",")
    if len(terms) != 2 or not set("".join((*terms, out)).replace("...", "")) <= set(LABELS):
        return None
    expanded = _expand_ellipses(terms, out, ndims)
    if expanded is None:
        return None
    left, right, ellipsis = expanded
    if arrow:
        if ellipsis and "..." not in out:
            return None
        out = out.replace("...", ellipsis)
    else:
        both = left + right
        once = sorted(x for x in set(both) - set(ellipsis) if both.count(x) == 1)
        out = ellipsis + "".join(once)
    if len(set(out)) != len(out) or not set(out) <= set(left + right):
        return None
    contraction = classify(left, right, out)
    return contraction if contraction.depth else None


def classify(left: str, right: str, out: str) -> Contraction:
    """The contraction of terms without ellipses, each label of `out` being there once."""
    return Contraction(
        left,
        right,
        out,
        left_product="".join(x for x in dict.fromkeys(left) if x in right or x in out),
        right_product="".join(x for x in dict.fromkeys(right) if x in left or x in out),
        batch="".join(x for x in out if x in left and x in right),
        rows="".join(x for x in out if x not in right),
        columns="".join(x for x in out if x not in left),
        depth="".join(x for x in dict.fromkeys(left) if x in right and x not in out),
    )


def _expand_ellipses(
    terms: list[str], out: str, ndims: tuple[int, int]
) -> tuple[str, str, str] | None:
    """Both terms with labels for their ellipses, and the labels of the longer ellipsis.

    None if an ellipsis is wrong or there are not enough labels.
    """
    unused = [label for label in LABELS if label not in "".join((*terms, out))]
    lengths = [
        ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, ndim in zip(terms, ndims, strict=True)
    ]
    longest = max(lengths)
    if min(lengths) < 0 or longest > len(unused):
        return None
    if any(term.count("...") > 1 for term in (*terms, out)):
        return None
    ellipsis = "".join(unused[:longest])
    # the ellipses are aligned at their last dimensions
    left, right = (
        term.replace("...", ellipsis[longest - length :])
        for term, length in zip(terms, lengths, strict=True)
    )
    return (left, right, ellipsis) if (len(left), len(right)) == ndims else None


class StackView(NamedTuple):
    """How to view an array as a stack of matrices.

    Attributes
    ----------
    presum : str
        Subscripts of the `numpy.einsum` call that reduces this operand first: it takes diagonals,
        and sums over labels that no other operand has. Empty if no call is needed.
    batch, rows, columns : tuple of int
        The axes of the stack, and those that are the rows and the columns of a matrix.
    shape : tuple of int
        The shape of the stack: batch dimensions, then one for all rows and one for all columns.
    """

    presum: str
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """The transposition."""
        return self.batch + self.rows + self.columns

    def view(self, x: Array, presum_kwargs: dict[str, Any]) -> Array:
        """The stack of matrices; a copy if the dimensions cannot be merged in place."""
        if self.presum:
            x = numpy_c_einsum(self.presum, x, **presum_kwargs)
        if self.axes != tuple(range(x.ndim)):
            x = x.transpose(self.axes)
        return x if x.shape == self.shape else x.reshape(self.shape)

    def strides(self, x: Array) -> tuple[int, ...] | None:
        """The strides in bytes that view `x`, of the reduced operand; None if a copy is needed."""
        rows, columns = (_merged_stride(x, axes) for axes in (self.rows, self.columns))
        if rows is None or columns is None:
            return None
        return (*(x.strides[axis] for axis in self.batch), rows, columns)


def _merged_stride(x: Array, axes: tuple[int, ...]) -> int | None:
    """The stride of one dimension in place of several; None if there is none."""
    stride = None
    length = 1
    for axis in reversed(axes):
        if x.shape[axis] != 1:
            if stride is None:
                stride = x.strides[axis]
            elif x.strides[axis] != stride * length:
                return None
            length *= x.shape[axis]
    return x.itemsize if stride is None else stride


class ContractionPlan(NamedTuple):
    """How to do a contraction of operands of given dtypes, shapes and strides.

    Attributes
    ----------
    dtype : dtype
        Of the result.
    presum_kwargs : dict
        `dtype` and `casting` of the sums that NumPy does first.
    matmul_kwargs : dict
        `dtype` of the product, where it differs from the one that `matmul` would choose.
    presums_floats : bool
        Whether floats are summed before they are multiplied.
    shape, strides : tuple of int
        Of the result.
    left, right, target : StackView
        Of the operands and of the result.
    """

    dtype: DType
    presum_kwargs: dict[str, Any]
    matmul_kwargs: dict[str, Any]
    presums_floats: bool
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    left: StackView
    right: StackView
    target: StackView

    def allocate_result(self) -> Array:
        """A new array for the result."""
        return np.ndarray(self.shape, self.dtype, strides=self.strides)

    def execute(self, a: Array, b: Array, result: Array) -> bool:
        """Write the result; False if NumPy has to, because sums of the operands are not finite."""
        with np.errstate(all="ignore"):  # NumPy's einsum does not warn
            left = self.left.view(a, self.presum_kwargs)
            right = self.right.view(b, self.presum_kwargs)
            # inf * (1 - 1) is not inf * 1 - inf * 1
            if self.presums_floats and not (np.isfinite(left).all() and np.isfinite(right).all()):
                return False
            target = self.target.view(result, self.presum_kwargs)
            matmul(left, right, out=target, casting="unsafe", **self.matmul_kwargs)
        if target is not result and not np.may_share_memory(target, result):  # it is a copy
            view = result.transpose(self.target.axes)
            view[...] = target.reshape(view.shape)
        return True


_plans: dict[Any, ContractionPlan | str] = {}


def find_plan(
    contraction: Contraction, a: Array, b: Array, out: Any = None, **options: Any
) -> ContractionPlan | str:
    """The cached or a new plan of a contraction: as `plan_contraction`, with its arguments."""
    operands = (a.dtype, a.shape, a.strides, b.dtype, b.shape, b.strides)
    result = None if out is None else (type(out), getattr(out, "dtype", 0), np.shape(out))
    out_strides = getattr(out, "strides", 0)
    key = (contraction, operands, result, out_strides, *sorted(options.items()))
    plan = _plans.get(key)
    if plan is None:
        plan = plan_contraction(contraction, a, b, out, **options)
        if len(_plans) >= MAX_CACHED_PLANS:
            _plans.clear()
        _plans[key] = plan
    return plan


def plan_contraction(
    contraction: Contraction,
    a: Array,
    b: Array,
    out: Any = None,
    dtype: Any = None,
    order: Any = "K",
    casting: Any = "safe",
) -> ContractionPlan | str:
    """A plan of a contraction; or the reason why NumPy has to do it."""
    own_dtype = engine_dtype(a.dtype, b.dtype)
    dtype = own_dtype if dtype is None else np.dtype(dtype)
    if dtype is None or dtype.isbuiltin != 1 or engine_dtype(dtype, dtype) is None:
        return NO_KERNELS
    if not all(np.can_cast(x.dtype, dtype, casting) for x in (a, b)):
        return f"an operand can't be cast to {dtype}"
    terms = (contraction.left, a), (contraction.right, b)
    if not all(_has_equal_diagonals(term, x.shape) for term, x in terms):
        return "a label has two lengths in an operand"
    left, right = contraction.left_product, contraction.right_product
    has_presums = set(contraction.left + contraction.right) != set(left + right)
    sum_dtype = dtype
    if has_presums and dtype == np.float16:  # float16 is rounded once, after the product
        if not all(np.can_cast(x.dtype, dtype) for x in (a, b)):
            return "an operand is rounded to float16 before it is summed"
        sum_dtype = np.dtype(np.float32)
    presum_kwargs = {"dtype": sum_dtype, "casting": casting}
    presum_a = _presum_subscripts(contraction.left, left)
    presum_b = _presum_subscripts(contraction.right, right)
    x = numpy_c_einsum(presum_a, a, **presum_kwargs) if presum_a else a
    y = numpy_c_einsum(presum_b, b, **presum_kwargs) if presum_b else b
    lengths = _label_lengths(contraction, x, y)
    if lengths is None:
        return "a label has two lengths"
    shape = tuple(lengths[label] for label in contraction.out)
    if out is None:
        out = _allocate_like_numpy(contraction, a, b, dtype, order)
    elif type(out) is not np.ndarray or (out.dtype, out.shape) != (dtype, shape):
        return "its out has another dtype, shape or class"
    if _has_strided_dots(contraction, x, y):
        return "it is dot products of vectors that are not contiguous"

    def stack_view(presum: str, array: Array, term: str, rows: str, columns: str) -> StackView:
        batch_axes, row_axes, column_axes = (
            tuple(map(term.index, group)) for group in (contraction.batch, rows, columns)
        )
        batch_shape = (array.shape[axis] for axis in batch_axes)
        matrix_shape = (prod(lengths[label] for label in group) for group in (rows, columns))
        shape = (*batch_shape, *matrix_shape)
        return StackView(presum, batch_axes, row_axes, column_axes, shape)

    # compared with None, a dtype counts as float64
    has_own_dtype = own_dtype is not None and sum_dtype == own_dtype
    matmul_kwargs = {} if has_own_dtype else {"dtype": sum_dtype}
    rows = _sorted_by_stride(contraction.rows, contraction.out, out)
    columns = _sorted_by_stride(contraction.columns, contraction.out, out)
    depth = _sorted_by_stride(contraction.depth, left, x)
    return ContractionPlan(
        dtype,
        presum_kwargs,
        matmul_kwargs=matmul_kwargs,
        presums_floats=has_presums and dtype.kind in "fc",
        shape=shape,
        strides=out.strides,
        left=stack_view(presum_a, x, left, rows, depth),
        right=stack_view(presum_b, y, right, depth, columns),
        target=stack_view("", out, contraction.out, rows, columns),
    )


def _has_equal_diagonals(term: str, shape: tuple[int, ...]) -> bool:
    """Whether the axes of each label have equal lengths. NumPy does not check empty operands."""
    return all(shape[term.index(x)] == length for x, length in zip(term, shape, strict=True))


def _presum_subscripts(term: str, product_term: str) -> str:
    return "" if term == product_term else f"{term}->{product_term}"


def _label_lengths(contraction: Contraction, x: Array, y: Array) -> dict[str, int] | None:
    """The length of each label; None if two differ and cannot be broadcast."""
    lengths = dict(zip(contraction.right_product, y.shape, strict=True))
    for label, length in zip(contraction.left_product, x.shape, strict=True):
        other = lengths.get(label, length)
        if length != other and not (label in contraction.batch and 1 in (length, other)):
            return None
        lengths[label] = other if length == 1 else length
    return lengths


def _has_strided_dots(contraction: Contraction, x: Array, y: Array) -> bool:
    """Whether it is a stack of dot products of vectors that are not contiguous.

    NumPy's iterator follows the memory order of the operands, which is faster then.
    """
    if not contraction.batch or contraction.rows or contraction.columns:
        return False
    return any(
        min(abs(array.strides[term.index(label)]) for label in contraction.depth) != array.itemsize
        for term, array in ((contraction.left_product, x), (contraction.right_product, y))
    )


def _sorted_by_stride(labels: str, term: str, array: Array) -> str:
    """Labels with the longest stride in `array` first.

    In that order they can most often be merged to one dimension of a matrix without a copy.
    """
    strides = dict(zip(term, array.strides, strict=True))
    return "".join(sorted(labels, key=lambda label: -abs(strides[label])))


def _allocate_like_numpy(
    contraction: Contraction, a: Array, b: Array, dtype: Any, order: Any
) -> Array:
    """An array for the result, its axes ordered as NumPy's iterator orders them."""
    terms = ["".join(dict.fromkeys(term)) for term in (contraction.left, contraction.right)]
    a, b = (
        x if term == once else numpy_c_einsum(f"{term}->{once}", x)  # a view
        for term, once, x in zip((contraction.left, contraction.right), terms, (a, b), strict=True)
    )
    labels = contraction.out + "".join(sorted(set("".join(terms)) - set(contraction.out)))
    axes = [[term.find(label) for label in labels] for term in (*terms, contraction.out)]
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
