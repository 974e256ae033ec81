"""Checks of calls whose operands share memory, such as a matrix times its own transpose.

The bits of a result are those for operands in separate memories of the same layouts, and a product
of a matrix and its own transpose is symmetric, or Hermitian, to the last bit.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

import nkblas

from .numpy_functions import Failed, equal, outcome, split_out
from .recipe import Array, Call, each, is_numpys

MIN_LENGTH = 5
"""Least m, n and k for which a product is symmetric with any alpha.

For smaller ones `gemm` may multiply the elements of A by alpha, which is exact for powers of 2.
"""

KINDS = ("array", "read-only", "matrix", "sub")
"""Kinds of arguments that are arrays in the memories of the call."""

DTYPE_OPTIONS = {"dtype", "casting", "order", "subok", "signature", "sig", "out", "optimize"}
"""Options that leave the meaning of the axes as it is."""

Labels = Sequence[Hashable]


def check(call: Call, function: Callable[..., Any]) -> str:
    """The fault of a call in which operands share memory; empty: none."""
    args, outs = split_out(call)
    inputs: list[Array] = []
    options = [x for name, x in call.kwargs.items() if name not in ("out", "a", "b")]
    each(inputs.append, [args, options])
    if len({x.memory for x in inputs}) == len(inputs):
        return ""
    before = nkblas.stats()
    got, want = (run(x, function) for x in (call, separated(call)))
    if isinstance(got, Failed) or isinstance(want, Failed):
        same = type(got) is type(want) and (not isinstance(got, Failed) or got.kind is want.kind)
        return "" if same else f"{got!r}, and with copies of the operands {want!r}"
    after = nkblas.stats()
    if after["fallbacks"] > before["fallbacks"] or after["calls"] == before["calls"]:
        return ""  # NumPy's products have other bits, and complex ones may not be symmetric
    if not has_floats(got):
        return ""  # exact
    overlaps = any(x.memory == out.memory for x in inputs for out in outs)
    if not overlaps and not identical(got, want):  # else `out` is replaced by a dense array
        return f"other bits than with copies of the operands: {difference(got, want)}"
    return check_symmetry(call, got)


def difference(got: np.ndarray, want: np.ndarray) -> str:
    """The first of the elements that differ."""
    places = np.argwhere((got != want) & ((got == got) | (want == want)))
    if not len(places):
        return "signs of zeros"
    first = tuple(places[0].tolist())
    return f"{len(places)} of {got.size}, at {first} {got[first]!r} and {want[first]!r}"


def run(call: Call, function: Callable[..., Any]) -> Any:
    """The outcome of a call in new memories: an array, or a `Failed`."""
    args, kwargs = call.arguments([bytearray(memory) for memory in call.memories])
    got = outcome(function, args, kwargs)
    return got if isinstance(got, Failed) else np.array(got)


def separated(call: Call) -> Call:
    """The call with each array in a memory of its own, with the same contents and layout."""
    memories: list[bytes] = []

    def separate(array: Array) -> Array:
        memories.append(call.memories[array.memory])
        return array._replace(memory=len(memories) - 1)

    args = tuple(each(separate, x) for x in call.args)
    kwargs = {name: each(separate, x) for name, x in call.kwargs.items()}
    return call._replace(args=args, kwargs=kwargs, memories=memories)


def has_floats(x: np.ndarray) -> bool:
    return x.dtype.kind in "fc" or not is_numpys(x.dtype)


def identical(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether results have the same bits, except those of NaN."""
    if got.dtype.kind == "c":
        return identical(got.real, want.real) and identical(got.imag, want.imag)
    if not is_numpys(got.dtype):
        got, want = got.astype("f4"), want.astype("f4")
    same_signs = (np.signbit(got) == np.signbit(want)) | (got != got)
    return equal(got, want) and bool(np.all(same_signs))


# ---- symmetry


class Contraction(NamedTuple):
    """A product of two arrays: each axis of the operands and of the result has a label.

    The product sums over the labels that are not in `out`. `is_hermitian`: one of the operands is
    conjugated.
    """

    a: Array
    b: Array
    left: Labels
    right: Labels
    out: Labels
    is_hermitian: bool = False


def check_symmetry(call: Call, got: np.ndarray) -> str:
    """The fault of a result that has to be symmetric, and is not; empty: none."""
    product = contraction(call)
    axes = product and symmetric_axes(product)
    if not product or not axes or got.ndim != len(axes):
        return ""
    mirrored = got.transpose(axes)
    if product.is_hermitian:
        mirrored = mirrored.conj()
    if equal(got, mirrored):
        return ""
    kind = "Hermitian" if product.is_hermitian else "symmetric"
    return f"not {kind}: {difference(got, mirrored)}"


def symmetric_axes(product: Contraction) -> tuple[int, ...]:
    """The order of a result's axes that leaves it as it is; empty: none, or no other order.

    There is one if `b` is `a` with its axes in another order, so that the exchange of the operands
    is an exchange of labels of the result.
    """
    order = axes_in(product.a, product.b)
    partner: dict[Hashable, Hashable] = {}
    for axis, label in zip(order, product.right, strict=False):
        other = product.left[axis]
        if partner.setdefault(label, other) != other or partner.setdefault(other, label) != label:
            return ()
    if any(x != y for x, y in partner.items() if x not in product.out):
        return ()  # the sums have another order
    axes = tuple(product.out.index(partner[x]) for x in product.out) if order else ()
    return axes if axes != tuple(range(len(axes))) else ()


def axes_in(a: Array, b: Array) -> list[int]:
    """The axis of `a` that is each axis of `b`; empty: `b` is not `a` with its axes permuted."""
    if (a.memory, a.offset, a.dtype) != (b.memory, b.offset, b.dtype):
        return []
    rest = list(range(len(a.shape)))
    found: list[int] = []
    for axis in zip(b.shape, b.strides, strict=True):
        same = (i for i in rest if (a.shape[i], a.strides[i]) == axis or a.shape[i] == axis[0] == 1)
        found.append(next(same, -1))
        if found[-1] < 0:
            return []
        rest.remove(found[-1])
    return [] if rest else found


def contraction(call: Call) -> Contraction | None:
    """The contraction that a call is; None: it is another one, or not one of two arrays."""
    args = split_out(call)[0]
    if call.function == "multi_dot":
        args = list(args[0])
    elif call.function == "einsum":
        return einsum_contraction(args)
    elif call.function[1:] == "gemm":
        args = args[1:3]  # after alpha
    arrays = args[:2]
    if len(arrays) < 2 or not all(isinstance(x, Array) and x.kind in KINDS for x in arrays):
        return None
    a, b = arrays
    if call.function[-4:] == "gemm":
        return gemm_contraction(a, b, call)
    if call.function == "tensordot":
        axes = call.kwargs.get("axes", args[2] if len(args) > 2 else 2)
        return tensordot_contraction(a, b, axes)
    if call.function == "matmul":
        stack = list(range(len(a.shape) - 2))
        is_plain = len(a.shape) >= 2 and a.shape[:-2] == b.shape[:-2]
        if not is_plain or not DTYPE_OPTIONS.issuperset(call.kwargs):
            return None
        return Contraction(a, b, [*stack, "m", "k"], [*stack, "k", "n"], [*stack, "m", "n"])
    if call.function in ("dot", "multi_dot", "inner") and len(args) == 2:
        if len(a.shape) != 2 or len(b.shape) != 2:
            return None
        return Contraction(a, b, "mk", "nk" if call.function == "inner" else "kn", "mn")
    return None


def gemm_contraction(a: Array, b: Array, call: Call) -> Contraction | None:
    """The contraction that a call of `gemm` is, if nothing is added to it."""
    added = {"bias", "residual", "scale"} & {k for k, x in call.kwargs.items() if x is not None}
    is_blas = call.function[1:] == "gemm"
    trans = [call.kwargs.get(name, 0) for name in ("trans_a", "trans_b")]
    factors = ("alpha", "beta")
    alpha, beta = (np.asarray(call.kwargs.get(x, 1 - i))[()] for i, x in enumerate(factors))
    if is_blas:
        alpha = call.args[0]
    if added or beta != 0 or len(a.shape) != 2 or len(b.shape) != 2:
        return None
    is_complex = "c" in (a.dtype.kind, np.asarray(alpha).dtype.kind)
    is_hermitian = is_complex and (trans[0] == 2) != (trans[1] == 2)
    if is_hermitian and np.imag(alpha) != 0:
        return None
    is_exact = all(np.frexp(abs(x))[0] in (0, 0.5) for x in (np.real(alpha), np.imag(alpha)))
    if min(*a.shape, *b.shape) < MIN_LENGTH and not (is_exact and alpha.real * alpha.imag == 0):
        return None
    left, right = ("km" if trans[0] else "mk"), ("nk" if trans[1] else "kn")
    return Contraction(a, b, left, right, "mn", bool(is_hermitian))


def tensordot_contraction(a: Array, b: Array, axes: Any) -> Contraction:
    """The contraction that a valid call of `tensordot` is."""
    if isinstance(axes, int):
        axes = range(len(a.shape) - axes, len(a.shape)), range(axes)
    pairs = [(x,) if isinstance(x, int) else tuple(x) for x in axes]
    left: list[Hashable] = [("a", i) for i in range(len(a.shape))]
    right: list[Hashable] = [("b", i) for i in range(len(b.shape))]
    for i, j in zip(*pairs, strict=True):
        right[j] = left[i]
    once = [x for x in left if x not in right], [x for x in right if x not in left]
    return Contraction(a, b, left, right, [*once[0], *once[1]])


def einsum_contraction(args: list[Any]) -> Contraction | None:
    """The contraction that a call of `einsum` is, if it has two operands and no ellipsis."""
    if len(args) != 3 or not isinstance(args[0], str) or "." in args[0]:
        return None
    a, b = args[1:]
    if not all(isinstance(x, Array) and x.kind in KINDS for x in (a, b)):
        return None
    terms, arrow, out = args[0].replace(" ", "").partition("->")
    left, right = terms.split(",")
    if not arrow:
        out = "".join(sorted(x for x in left + right if (left + right).count(x) == 1))
    return Contraction(a, b, left, right, out)
