"""`brgemm`: a sum of matrix products, of pairs of blocks ("batch-reduce").

The building block of Georganas et al., "High-Performance Deep Learning via a Single Building Block"
(arXiv 1906.06440): the sums stay in registers through all blocks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nkblas import _numpy_ext
from nkblas.base.dtypes import product
from nkblas.system.cpu import cpu

from .gemm import gemm
from .gufuncs import fast_path, register_user_dtypes
from .operands import is_plain, result


@fast_path
def brgemm(
    a_blocks: Any, b_blocks: Any, c: Any = None, *, beta: complex = 0, out: np.ndarray | None = None
) -> np.ndarray:
    """Add up products of pairs of matrices: ``sum(a @ b for a, b in zip(...)) + beta * c``.

    Parameters
    ----------
    a_blocks, b_blocks : array_like or sequence of array_like
        As many left operands of shape ``(m, k)`` as right ones of shape ``(k, n)``: stacks of three
        dimensions, or sequences of matrices that may be anywhere in memory. They are read where
        they are if all of a side lie alike, those of `b_blocks` in rows.
    c : array_like, optional
        Shape ``(m, n)``. With ``beta=0`` it is not read.
    beta : scalar
    out : ndarray, optional
        Where the result goes: shape ``(m, n)`` and the dtype of the result. It may overlap the
        other arguments.

    Returns
    -------
    ndarray
        Shape ``(m, n)``, of the dtype that all operands promote to. It is `out` if that is given.
        Each element is within ``(s * k + 2) * eps`` times the sum of all products' sizes of the
        exact one, for s blocks.

    Raises
    ------
    ValueError
        There are not as many blocks on both sides, or none, a shape does not fit, or `out` has
        another dtype.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> a, b = np.ones((3, 2, 4)), np.ones((3, 4, 2))
    >>> nkblas.brgemm(a, b)
    array([[12., 12.],
           [12., 12.]])
    """
    register_user_dtypes()
    left, right = _blocks("a_blocks", a_blocks), _blocks("b_blocks", b_blocks)
    if len(left) != len(right) or not left:
        raise ValueError(
            f"b_blocks: got {len(right)}, expected as many as in a_blocks, which has {len(left)}, "
            "and at least 1"
        )
    (m, k), n = left[0].shape, right[0].shape[1]
    if right[0].shape[0] != k:
        raise ValueError(
            f"b_blocks: got matrices of shape {right[0].shape}, expected ({k}, n) to be multiplied "
            f"by those of shape {(m, k)} in a_blocks"
        )
    added: tuple[np.ndarray, ...] = () if c is None and beta == 0 else (_c(c, (m, n)),)
    dtype = np.result_type(*left, *right, *added)
    out = result(out, (m, n), dtype)
    place = np.asarray(out)  # whatever a subclass makes of its elements
    target = place if place.flags.carray else np.empty((m, n), dtype)
    if _is_in_place(left, right, target) and beta in (0, 1):
        if any(np.may_share_memory(x, target) for x in (*left, *right)):
            target = np.empty((m, n), dtype)
        if beta:
            target[...] = added[0]
        addresses = np.array([[x.ctypes.data for x in side] for side in (left, right)], np.uintp)
        more = 0, None, None, 0.0, 0.0, addresses
        if _numpy_ext.gemm(1, left[0], right[0], beta, target, 1, 1, *more):
            if target is not place:
                place[...] = target
            return out
    wide, long = np.concatenate(left, axis=1), np.concatenate(right, axis=0)
    return gemm(wide, long, c, beta=beta, out=out)


def _c(c: Any, shape: tuple[int, int]) -> np.ndarray:
    if c is None or np.shape(c) != shape:
        got = "none" if c is None else f"shape {np.shape(c)}"
        raise ValueError(f"c: got {got}, expected shape {shape}")
    return np.asarray(c)


def _blocks(name: str, value: Any) -> list[np.ndarray]:
    """The matrices of a stack or a sequence, all of one shape and type."""
    if isinstance(value, np.ndarray) and value.ndim != 3:
        raise ValueError(f"{name}: got shape {value.shape}, expected a stack of matrices")
    if not isinstance(value, np.ndarray | Sequence):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a stack or a sequence")
    blocks = [np.asarray(block) for block in value]
    for block in blocks:
        if block.ndim != 2 or block.shape != blocks[0].shape:
            raise ValueError(
                f"{name}: got shapes {blocks[0].shape} and {block.shape}, expected matrices of one"
            )
    return blocks


def _is_in_place(left: list[np.ndarray], right: list[np.ndarray], c: np.ndarray) -> bool:
    """Whether kernels can go from block to block, as they lie."""
    # The planner is imported when it is needed: most programs pack nothing, and sum no blocks.
    from nkblas.base.problem import Problem
    from nkblas.planning.schedule import can_reduce_in_place

    a, b = left[0], right[0]
    if 0 in (*a.shape, b.shape[1]) or b.shape[1] == 1 or not is_plain(c, c.dtype):
        return False
    for side in (left, right):
        if not all(is_plain(x, c.dtype) and x.strides == side[0].strides for x in side):
            return False
    name = product(*[c.dtype.name] * 3)
    if name is None or (b.strides[1] != b.itemsize and b.shape[1] > 1):
        return False
    unit = [
        stride == a.itemsize or size == 1 for size, stride in zip(a.shape, a.strides, strict=True)
    ]
    layout = "row" if unit[1] else "col" if unit[0] else "strided"
    problem = Problem(name, a.shape[0], b.shape[1], a.shape[1], layout, batch_reduce=True)
    return can_reduce_in_place(problem, cpu.isa)
