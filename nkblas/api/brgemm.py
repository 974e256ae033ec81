"""`brgemm`: a sum of matrix products, of pairs of blocks (batch-reduce GEMM).

The building block of Georganas et al., "High-Performance Deep Learning via a Single Building Block"
(arXiv 1906.06440): the accumulators stay in registers from block to block.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nkblas.base.dtypes import product
from nkblas.system.cpu import cpu

from .gemm import gemm
from .gemm_call import GemmCall
from .gufuncs import fast_path, register_user_dtypes
from .operands import Array, DType, Output, check_out, is_native_aligned

if TYPE_CHECKING:
    from nkblas.base.problem import Layout


@fast_path
def brgemm(
    a_blocks: Any, b_blocks: Any, c: Any = None, *, beta: complex = 0, out: Array | None = None
) -> Array:
    """Sum of products of pairs of matrices: ``sum(a @ b for a, b in zip(...)) + beta * c``.

    Parameters
    ----------
    a_blocks, b_blocks : array_like or sequence of array_like
        Equally many left operands of shape ``(m, k)`` and right operands of shape ``(k, n)``:
        stacks with three dimensions, or sequences of matrices anywhere in memory. They are read in
        place if all blocks of an operand have the same strides, and those of `b_blocks` contiguous
        rows; else they are concatenated.
    c : array_like, optional
        Shape ``(m, n)``. With ``beta=0`` it is not read.
    beta : scalar, optional
    out : ndarray, optional
        Array to write the result to: shape ``(m, n)`` and the dtype of the result. It may overlap
        the other arguments.

    Returns
    -------
    ndarray
        Shape ``(m, n)``; `out` if that is given. Its dtype is the one that all operands promote to.
        For s blocks, each element is within ``(s * k + 2) * eps * (sum(abs(a) @ abs(b)) + abs(beta
        * c))`` of the exact result.

    Raises
    ------
    ValueError
        The numbers of blocks differ or are 0, a shape does not fit, or `out` has another dtype.
    TypeError
        The blocks are neither an array nor a sequence.

    See Also
    --------
    gemm : one product, with alpha, transposes and an epilogue.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> a, b = np.ones((3, 2, 4)), np.ones((3, 4, 2))
    >>> nkblas.brgemm(a, b)
    array([[12., 12.],
           [12., 12.]])
    """
    register_user_dtypes()
    left, right = _to_blocks("a_blocks", a_blocks), _to_blocks("b_blocks", b_blocks)
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
    addends = [] if c is None and beta == 0 else [_to_addend(c, (m, n))]
    dtype = np.result_type(*left, *right, *addends)
    result = check_out(out, (m, n), dtype)
    if beta in (0, 1) and _can_reduce_in_place(left, right, dtype):
        output = Output.prepare(result, dtype, row_major=True)
        if any(np.may_share_memory(x, output.target) for x in (*left, *right)):
            output = output._replace(target=np.empty((m, n), dtype))
        if beta:
            output.target[...] = addends[0]
        blocks = np.array([[x.ctypes.data for x in side] for side in (left, right)], np.uintp)
        call = GemmCall(left[0], right[0], output.target, beta=beta, blocks=blocks)
        if call.run_on_engine():
            return output.finish()
    return gemm(np.concatenate(left, axis=1), np.concatenate(right), c, beta=beta, out=result)


def _to_blocks(name: str, value: Any) -> list[Array]:
    """The matrices of a stack or a sequence; all have one shape."""
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


def _to_addend(c: Any, shape: tuple[int, int]) -> Array:
    if c is None or np.shape(c) != shape:
        got = "none" if c is None else f"shape {np.shape(c)}"
        raise ValueError(f"c: got {got}, expected shape {shape}")
    return np.asarray(c)


def _can_reduce_in_place(left: list[Array], right: list[Array], dtype: DType) -> bool:
    """Whether kernels for `dtype` can read the blocks where they are, one after the other."""
    # Imported late: most programs need no planner, and its import takes time.
    from nkblas.base.problem import Problem
    from nkblas.planning.schedule import can_reduce_in_place

    a, b = left[0], right[0]
    if 0 in (*a.shape, b.shape[1]) or b.shape[1] == 1 or b.strides[1] != b.itemsize:
        return False
    for blocks in (left, right):
        if not all(is_native_aligned(x, dtype) and x.strides == blocks[0].strides for x in blocks):
            return False
    name = product(*[dtype.name] * 3)
    if name is None:
        return False
    rows_are_contiguous = a.strides[1] == a.itemsize or a.shape[1] == 1
    columns_are_contiguous = a.strides[0] == a.itemsize or a.shape[0] == 1
    layout: Layout = "strided"
    if rows_are_contiguous or columns_are_contiguous:
        layout = "row" if rows_are_contiguous else "col"
    problem = Problem(name, a.shape[0], b.shape[1], a.shape[1], layout, batch_reduce=True)
    return can_reduce_in_place(problem, cpu.isa)
