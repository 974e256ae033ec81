"""`pack`: pack a right operand once, to multiply it many times."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from nkblas import _numpy_ext
from nkblas.base.dtypes import ITEMSIZE, PRODUCT_CODE, PRODUCTS, product
from nkblas.base.families import Family, family

from .epilogue_args import accumulator_dtype
from .gemm_call import GemmCall
from .gufuncs import fast_path, matmul, register_user_dtypes
from .operands import Array, DType, Output, as_native_aligned

OperandDTypes = tuple[DType, DType, DType]
"""The dtypes of A, of B as the user passed it, and of the result."""

FORMAT = 1
"""Version of the panels' memory layout in pickles; other versions cannot be read."""

PANEL_ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""

SUPPORTED = (
    "a packed matrix can be the right operand of @, numpy.matmul and nkblas.matmul (with out=, "
    "dtype= and casting=), and b of nkblas.gemm; .unpack() makes an array of it"
)


class KBlock(NamedTuple):
    """Views of the panels of one k block.

    Attributes
    ----------
    start, stop : int
        The rows of B that it holds.
    compensation : ndarray
        int32, shape ``(panels, nr)``, or ``(panels, 0)`` for families without compensation.
    elements : ndarray
        Shape ``(groups, k_group, panels, nr)``: the first two dimensions are k, the others n.
    """

    start: int
    stop: int
    compensation: Array
    elements: Array


class PackedLayout(NamedTuple):
    """Memory layout of a packed B: for each k block, its panels of `nr` columns in order.

    Attributes
    ----------
    product : str
        The product that B is packed for: a name of `nkblas.base.dtypes.PRODUCTS`.
    k, n : int
        B's shape.
    family, nr, kc
        As in `nkblas.planning.schedule.Panels`.
    panel_dtype : str
        The dtype of the elements in the panels.
    """

    product: str
    k: int
    n: int
    family: str
    nr: int
    kc: int
    panel_dtype: str

    @classmethod
    def for_this_cpu(cls, product: str, k: int, n: int) -> "PackedLayout":
        """The layout that this CPU's kernels read."""
        # Imported late: most programs need no planner, and its import takes time.
        from nkblas.base.problem import Problem
        from nkblas.planning.cost_model import panels_for
        from nkblas.planning.schedule import b_panel_dtype
        from nkblas.system.cpu import cpu

        k_or_1, n_or_1 = max(k, 1), max(n, 1)
        panels = panels_for(product, k_or_1, n_or_1, cpu)
        problem = Problem(product, 1, n_or_1, k_or_1, b="packed")
        panel_dtype = b_panel_dtype(problem, family(product, panels.family), cpu.isa)
        return cls(product, k, n, *panels, panel_dtype)

    @property
    def descriptor(self) -> Family:
        """The descriptor of the instruction family."""
        return family(self.product, self.family)

    @property
    def panels_per_block(self) -> int:
        """Number of panels in a k block."""
        return -(-self.n // self.nr)

    @property
    def compensation_bytes(self) -> int:
        """Bytes of the row of compensation (see `Family.compensation`) before each panel."""
        if not self.descriptor.compensation:
            return 0
        return self.nr * ITEMSIZE[self.descriptor.accumulator]

    def k_ranges(self) -> Iterator[tuple[int, int, int]]:
        """For each k block: start and stop in k, and the depth of its panels, with padding."""
        k_step = self.descriptor.k_step
        for start in range(0, self.k, self.kc):
            stop = min(self.k, start + self.kc)
            yield start, stop, -(-(stop - start) // k_step) * k_step

    def panel_bytes(self, depth: int) -> int:
        """Bytes of a panel with `depth` values of k."""
        return self.compensation_bytes + depth * self.nr * ITEMSIZE[self.panel_dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of all panels."""
        return self.panels_per_block * sum(self.panel_bytes(depth) for *_, depth in self.k_ranges())

    def k_blocks(self, panels: Array, dtype: DType) -> Iterator[KBlock]:
        """Views of each k block in a buffer of panels with elements of `dtype`."""
        group, end = self.descriptor.k_group_b, 0
        for start, stop, depth in self.k_ranges():
            panel_bytes = self.panel_bytes(depth)
            begin, end = end, end + self.panels_per_block * panel_bytes
            block = panels[begin:end].reshape(self.panels_per_block, panel_bytes)
            compensation = block[:, : self.compensation_bytes].view(np.int32)
            elements = block[:, self.compensation_bytes :].view(dtype)
            elements = elements.reshape(self.panels_per_block, depth // group, self.nr, group)
            yield KBlock(start, stop, compensation, elements.transpose(1, 3, 0, 2))


class PackedMatrix(_numpy_ext.PackedOperand):
    """A right operand in the panels that microkernels read; `pack` makes it.

    It is immutable, and independent of the array that it was packed from. ``a @ packed``,
    ``numpy.matmul(a, packed)`` and ``nkblas.matmul(a, packed)`` give the product ``a @ b`` for an
    `a` with at least one dimension whose dtype can be cast to `a_dtype` safely; a stack `a` is one
    product with more rows. Overflow and invalid operations raise no warnings.

    It can be copied and pickled. A pickle from a CPU with another instruction set is packed again
    when it is loaded.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
        The dtype of the matrix.
    a_dtype, result_dtype : dtype
        The dtypes of the left operand and of the product.
    layout : PackedLayout
        The memory layout of the panels.

    See Also
    --------
    pack
    """

    ndim = 2

    def __init__(self, dtypes: OperandDTypes, layout: PackedLayout, panels: Array) -> None:
        self.a_dtype, self.dtype, self.result_dtype = dtypes
        self.layout, self.shape = layout, (layout.k, layout.n)
        index = PRODUCT_CODE[layout.product]
        super().__init__(panels, index, self.a_dtype.num, self.result_dtype.num, *self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the panels."""
        return self._panels.nbytes

    def unpack(self) -> Array:
        """The matrix that was packed, exactly.

        Returns
        -------
        ndarray
            A new array of shape ``(k, n)``.
        """
        matrix = np.empty(self.shape, self.dtype)
        values = matrix
        if self.dtype.kind == "u":  # the panels hold the same bits as signed integers
            values = matrix.view(PRODUCTS[self.layout.product].b)
        for block in self.layout.k_blocks(self._panels, _panel_dtype(self.layout, self.dtype)):
            groups, group, panels, nr = block.elements.shape
            rows = block.elements.reshape(groups * group, panels * nr)
            values[block.start : block.stop] = rows[: block.stop - block.start, : self.layout.n]
        return matrix

    def check(self, a: Array) -> None:
        """Check a left operand.

        Raises
        ------
        ValueError
            Its shape does not fit.
        TypeError
            Its dtype cannot be cast to `a_dtype` safely.
        """
        if a.ndim == 0 or a.shape[-1] != self.shape[0]:
            raise ValueError(f"a: got shape {a.shape}, expected (..., {self.shape[0]})")
        if a.dtype != self.a_dtype and not np.can_cast(a.dtype, self.a_dtype):
            raise TypeError(
                f"a: got {a.dtype}, expected {self.a_dtype}, which b was packed for, or a dtype "
                "that can be cast to it safely"
            )

    def _multiply(self, a: Any, out: Any, dtype: Any, casting: Any) -> Array:
        """``a @ self``, with the arguments of `numpy.matmul`."""
        a = np.asarray(a)
        self.check(a)
        if dtype is not None and np.dtype(dtype) != self.result_dtype:
            raise TypeError(
                f"dtype: got {np.dtype(dtype)}, expected {self.result_dtype}, which b was packed "
                "for: nkblas.pack has a dtype, too"
            )
        shape = *a.shape[:-1], self.shape[1]
        if out is not None and out.shape != shape:
            raise ValueError(f"out: got shape {out.shape}, expected {shape}")
        # a stack is one product with more rows, a vector one with a single row
        rows = math.prod(a.shape[:-1])
        left = as_native_aligned(a.reshape(rows, self.shape[0]), self.a_dtype)
        result = np.empty(shape, self.result_dtype) if out is None else out
        output = Output.prepare(result, self.result_dtype, row_major=a.ndim != 2)
        call = GemmCall(left, self, output.target.reshape(rows, self.shape[1]))
        if out is not None:
            call = call.without_overlap()
        if not call.run_on_engine():  # `execute` would call nkblas's matmul, and come back here
            wide = accumulator_dtype(self.result_dtype)
            with np.errstate(all="ignore"):
                call.c[...] = np.matmul(call.a.astype(wide), self.unpack().astype(wide))
        return output.finish(casting)

    @fast_path
    def __array_ufunc__(
        self,
        ufunc: np.ufunc,
        method: str,
        *inputs: Any,
        out: tuple[Any, ...] = (None,),
        dtype: Any = None,
        casting: Any = "same_kind",
        **others: Any,
    ) -> Any:
        is_matmul = ufunc is matmul or ufunc is np.matmul
        if not is_matmul or method != "__call__" or others or inputs[1] is not self:
            self._refuse()
        if isinstance(inputs[0], PackedMatrix):
            self._refuse()
        return self._multiply(inputs[0], *out, dtype, casting)

    def __array_function__(self, *args: Any) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(SUPPORTED)

    def __rmatmul__(self, a: Any) -> Array:
        return self._multiply(a, None, None, "same_kind")

    def __matmul__(self, other: Any) -> NoReturn:
        self._refuse()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("copy=False: a packed matrix cannot become an array without a copy")
        matrix = self.unpack()
        return matrix if dtype is None else matrix.astype(dtype, copy=False)

    def __repr__(self) -> str:
        layout = self.layout
        k, n = self.shape
        return (
            f"<PackedMatrix: {k}x{n} {self.dtype} for {self.a_dtype} @ {self.dtype} -> "
            f"{self.result_dtype}, family {layout.family}, panels of {layout.kc}x{layout.nr}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        dtypes = self.a_dtype, self.dtype, self.result_dtype
        return _unpickle, (FORMAT, dtypes, tuple(self.layout), self._panels)


def _unpickle(
    version: int, dtypes: OperandDTypes, layout: tuple[Any, ...], panels: Array
) -> PackedMatrix:
    """The pickled matrix; packed again if the panels are not those of this CPU."""
    if version != FORMAT:
        raise ValueError(
            f"this packed matrix has format {version}, and this version of nkblas reads format "
            f"{FORMAT}: pack it again"
        )
    register_user_dtypes()
    pickled = PackedLayout(*layout)
    current = PackedLayout.for_this_cpu(pickled.product, pickled.k, pickled.n)
    if pickled == current:
        return PackedMatrix(dtypes, current, _align(panels))
    return _pack(PackedMatrix(dtypes, pickled, panels).unpack(), dtypes, current)


def _align(panels: Array) -> Array:
    """The panels themselves if they are aligned, else a copy that is."""
    if panels.ctypes.data % PANEL_ALIGNMENT == 0:
        return panels
    copy = _allocate_panels(panels.size)
    copy[:] = panels
    return copy


def _allocate_panels(nbytes: int) -> Array:
    buffer = np.empty(nbytes + PANEL_ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % PANEL_ALIGNMENT
    return buffer[start : start + nbytes]


def _panel_dtype(layout: PackedLayout, dtype: DType) -> DType:
    """NumPy's dtype of the elements in the panels of a matrix of `dtype`."""
    return dtype if layout.panel_dtype == dtype.name else np.dtype(layout.panel_dtype)


def pack(b: Any, *, a_dtype: Any = None, dtype: Any = None) -> PackedMatrix:
    """Pack the right operand of matrix products, such as weights, to multiply it many times.

    The panels are for this CPU and for any number of rows of the left operand. Products have the
    same bits as those with `b` itself if both use the same instructions and the same k blocks; they
    are always within the same error bound.

    Parameters
    ----------
    b : array_like
        The matrix: shape ``(k, n)``, in any memory layout.
    a_dtype : dtype, optional
        The dtype of the left operands; default: that of `b`. With ``uint8`` for a `b` of ``int8``,
        and vice versa, the result is int32.
    dtype : dtype, optional
        The result's dtype. Default: that of ``numpy.matmul(b, b)``, with two exceptions. For 8-bit
        integers it is int32, in which the product is exact (and can be scaled: see `nkblas.gemm`);
        pass an 8-bit dtype for products that wrap modulo 256 as NumPy's do. For bfloat16 it is
        float32; pass bfloat16 for products that are rounded to it, once.

    Returns
    -------
    PackedMatrix

    Raises
    ------
    ValueError
        `b` does not have two dimensions.
    TypeError
        There are no kernels for products of these dtypes.

    See Also
    --------
    matmul, gemm : the functions that take a packed matrix.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> w = nkblas.pack(np.array([[1, 2], [3, 4]], np.int8))
    >>> np.array([[100, 100]], np.int8) @ w
    array([[400, 600]], dtype=int32)
    """
    b = np.asarray(b)
    if b.ndim != 2:
        raise ValueError(f"b: got shape {b.shape}, expected a matrix")
    register_user_dtypes()
    own = b.dtype.newbyteorder("=")
    left = own if a_dtype is None else np.dtype(a_dtype).newbyteorder("=")
    result = _default_result(left, own) if dtype is None else np.dtype(dtype).newbyteorder("=")
    name = product(left.name, own.name, result.name)
    if name is None:
        available = ", ".join(f"{a} @ {b} -> {c}" for a, b, c in PRODUCTS.values())
        raise TypeError(
            f"pack: there are no kernels for {left} @ {own} -> {result}; there are for {available}"
        )
    return _pack(b, (left, own, result), PackedLayout.for_this_cpu(name, *b.shape))


def _default_result(a: DType, b: DType) -> DType:
    if {a.name, b.name} <= {"int8", "uint8"}:
        return np.dtype(np.int32)
    try:
        result: DType = matmul.resolve_dtypes((a, b, None))[2]
    except TypeError:
        return np.dtype(object)  # which has no kernels
    return result


def _pack(b: Array, dtypes: OperandDTypes, layout: PackedLayout) -> PackedMatrix:
    """`b` in panels, like those that the family's `nkblas.codegen.spec.Pack` fills."""
    panel_dtype = _panel_dtype(layout, dtypes[1])
    source = PRODUCTS[layout.product].b
    b = b.astype(dtypes[1], copy=False)
    if source == "bool":
        b = b.view(np.uint8) != 0
    elif b.dtype.kind == "u":  # the same bits as signed integers, and unsigned bytes stay so
        b = b.view(source)
    panels = _allocate_panels(layout.nbytes)
    for block in layout.k_blocks(panels, panel_dtype):
        groups, group, count, nr = block.elements.shape
        # columns beyond n repeat the last one; rows beyond k are zeros
        rows = np.zeros((groups * group, count * nr), panel_dtype)
        rows[: block.stop - block.start, : layout.n] = b[block.start : block.stop]
        rows[:, layout.n :] = rows[:, layout.n - 1 : layout.n]
        block.elements[...] = rows.reshape(block.elements.shape)
        if layout.descriptor.compensation:
            sums = rows.sum(0, dtype=np.int32) * np.int32(layout.descriptor.compensation)
            block.compensation[...] = sums.reshape(count, nr)
    panels.flags.writeable = False
    return PackedMatrix(dtypes, layout, panels)
