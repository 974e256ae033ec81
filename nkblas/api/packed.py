"""`pack`: a right operand that is packed once, and multiplied many times."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from nkblas import _numpy_ext
from nkblas.base.dtypes import ITEMSIZE, PRODUCTS, product
from nkblas.base.families import Family, family

from .fused import accumulator_dtype
from .gufuncs import fast_path, matmul, register_user_dtypes
from .operands import apart, is_plain, plain

FORMAT = 1
"""Version of how panels lie in memory: kept ones of another version can't be read."""

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""

SUPPORTED = (
    "a packed matrix can be the right operand of @, numpy.matmul and nkblas.matmul (with out=, "
    "dtype= and casting=), and b of nkblas.gemm; .unpack() makes an array of it"
)


class PackedLayout(NamedTuple):
    """How a packed B lies in memory: for each block of k, one panel of columns after the other.

    Attributes
    ----------
    product : str
        What it is for: a name of `nkblas.base.dtypes.PRODUCTS`.
    k, n : int
    family, nr, kc
        As in `nkblas.planning.schedule.Panels`.
    panel_dtype : str
        The dtype in the panels.
    """

    product: str
    k: int
    n: int
    family: str
    nr: int
    kc: int
    panel_dtype: str

    @classmethod
    def of(cls, product: str, k: int, n: int) -> "PackedLayout":
        """The layout on this CPU."""
        # The planner is imported when it is needed: most programs pack nothing, and sum no blocks.
        from nkblas.base.problem import Problem
        from nkblas.planning.cost_model import panels_for
        from nkblas.planning.schedule import b_panel_dtype
        from nkblas.system.cpu import cpu

        k_or_1, n_or_1 = max(k, 1), max(n, 1)
        panels = panels_for(product, k_or_1, n_or_1, cpu)
        problem = Problem(product, 1, n_or_1, k_or_1, b="packed")
        held = b_panel_dtype(problem, family(product, panels.family), cpu.isa)
        return cls(product, k, n, *panels, held)

    @property
    def descriptor(self) -> Family:
        """What is to be known of the family."""
        return family(self.product, self.family)

    @property
    def tiles(self) -> int:
        """Panels in a block of k."""
        return -(-self.n // self.nr)

    @property
    def top(self) -> int:
        """Bytes before the first step of a panel: what makes up for shifted operands."""
        return (
            self.nr * ITEMSIZE[self.descriptor.accumulator] if self.descriptor.compensation else 0
        )

    def depths(self) -> Iterator[tuple[int, int, int]]:
        """Each block of k: where it begins and ends, and how many values of k its panels hold."""
        for start in range(0, self.k, self.kc):
            stop = min(self.k, start + self.kc)
            yield start, stop, -(-(stop - start) // self.descriptor.k_step) * self.descriptor.k_step

    def panel_size(self, depth: int) -> int:
        """Bytes of a panel."""
        return self.top + depth * self.nr * ITEMSIZE[self.panel_dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of all panels."""
        return self.tiles * sum(self.panel_size(depth) for _, _, depth in self.depths())

    def blocks(
        self, panels: np.ndarray, dtype: Any
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Views of each block of k, in panels that hold a dtype.

        Where it begins and ends in k; the row before each panel; and the elements, along k in two
        dimensions (the groups, and within them), along n in two (the panels, and within them).
        """
        group, end = self.descriptor.k_group_b, 0
        for start, stop, depth in self.depths():
            begin, end = end, end + self.tiles * self.panel_size(depth)
            block = panels[begin:end].reshape(self.tiles, self.panel_size(depth))
            elements = block[:, self.top :].view(dtype)
            elements = elements.reshape(self.tiles, depth // group, self.nr, group)
            yield start, stop, block[:, : self.top].view(np.int32), elements.transpose(1, 3, 0, 2)


class PackedMatrix(_numpy_ext.PackedOperand):
    """A matrix in the panels that microkernels read: `pack` makes it.

    It can't be changed, and keeps no reference to what it was made of. ``a @ packed``,
    ``numpy.matmul(a, packed)`` and ``nkblas.matmul(a, packed)`` are the product ``a @ b`` of any
    `a` of at least one dimension that can be cast to `a_dtype` safely; a stack is one product with
    more rows. No product raises warnings of overflow or of invalid operations.

    It can be copied and pickled. What was packed for another instruction set is packed again when
    it is unpickled.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
        That of the matrix.
    a_dtype, result_dtype : dtype
        What it is multiplied by, and the dtype of the product.
    layout : PackedLayout
        How it lies in memory.
    """

    ndim = 2

    def __init__(
        self,
        dtypes: "tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]",
        layout: PackedLayout,
        panels: np.ndarray,
    ) -> None:
        self.a_dtype, self.dtype, self.result_dtype = dtypes
        self.layout, self.shape = layout, (layout.k, layout.n)
        index = tuple(PRODUCTS).index(layout.product)
        super().__init__(panels, index, self.a_dtype.num, self.result_dtype.num, *self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its panels."""
        return self._panels.nbytes

    def unpack(self) -> np.ndarray:
        """The matrix that was packed, exactly.

        Returns
        -------
        ndarray
            Shape ``(k, n)``, a new one.
        """
        matrix = np.empty(self.shape, self.dtype)
        values = matrix.view(PRODUCTS[self.layout.product].b) if _wraps(self.dtype) else matrix
        for start, stop, _, elements in self.layout.blocks(self._panels, self._held()):
            groups, group, tiles, nr = elements.shape
            block = elements.reshape(groups * group, tiles * nr)
            values[start:stop] = block[: stop - start, : self.layout.n]
        return matrix

    def _held(self) -> "np.dtype[Any]":
        return _held(self.layout, self.dtype)

    def multiply(self, a: np.ndarray, out: np.ndarray) -> None:
        """``out = a @ self``, where nothing is left to check (see `nkblas.gemm.multiply`)."""
        if not out.size or not self.shape[0]:
            out[...] = 0
        elif not _numpy_ext.gemm(1, a, self, 0, out, 1, 1):
            wide = accumulator_dtype(self.result_dtype)
            with np.errstate(all="ignore"):
                out[...] = np.matmul(a.astype(wide), self.unpack().astype(wide))

    def check(self, a: np.ndarray) -> None:
        """Raise what is wrong with a left operand."""
        if a.ndim == 0 or a.shape[-1] != self.shape[0]:
            raise ValueError(f"a: got shape {a.shape}, expected (..., {self.shape[0]})")
        if a.dtype != self.a_dtype and not np.can_cast(a.dtype, self.a_dtype):
            raise TypeError(
                f"a: got {a.dtype}, expected {self.a_dtype}, which b was packed for, or what can "
                "be cast to it safely"
            )

    def _product(self, a: Any, out: Any, dtype: Any, casting: Any) -> np.ndarray:
        a = np.asarray(a)
        self.check(a)
        if dtype is not None and np.dtype(dtype) != self.result_dtype:
            raise TypeError(
                f"dtype: got {np.dtype(dtype)}, expected {self.result_dtype}, which b was packed "
                "for: nkblas.pack has a dtype, too"
            )
        if a.ndim != 2:  # a stack is one product with more rows, a vector one with a single row
            return self._stacked(a, out, casting)
        if not (a.dtype == self.a_dtype and a.flags.carray):
            a = plain(a, self.a_dtype)
        shape = len(a), self.shape[1]
        if out is None:
            out = np.empty(shape, self.result_dtype)
            self.multiply(a, out)
            return out
        if out.shape != shape:
            raise ValueError(f"out: got shape {out.shape}, expected {shape}")
        if is_plain(out, self.result_dtype) and out.flags.writeable:
            self.multiply(apart(a, out), out)
        else:
            np.copyto(out, self._product(a, None, None, casting), casting)
        return out

    def _stacked(self, a: np.ndarray, out: Any, casting: Any) -> np.ndarray:
        shape = *a.shape[:-1], self.shape[1]
        rows = a.reshape(math.prod(a.shape[:-1]), self.shape[0])
        product = self._product(rows, None, None, casting).reshape(shape)
        if out is None:
            return product
        if out.shape != shape:
            raise ValueError(f"out: got shape {out.shape}, expected {shape}")
        np.copyto(out, product, casting)
        return out

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
        of_products = ufunc is matmul or ufunc is np.matmul
        if not of_products or method != "__call__" or others or inputs[1] is not self:
            self._refuse()
        if isinstance(inputs[0], PackedMatrix):
            self._refuse()
        return self._product(inputs[0], *out, dtype, casting)

    def __array_function__(self, *args: Any) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(SUPPORTED)

    def __rmatmul__(self, a: Any) -> np.ndarray:
        return self._product(a, None, None, "same_kind")

    def __matmul__(self, other: Any) -> NoReturn:
        self._refuse()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("copy=False: a packed matrix can't be had as an array without a copy")
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
        return _restore, (FORMAT, dtypes, tuple(self.layout), self._panels)


def _restore(
    version: int,
    dtypes: "tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]",
    layout: tuple[Any, ...],
    panels: np.ndarray,
) -> PackedMatrix:
    """What was kept, packed for this CPU."""
    if version != FORMAT:
        raise ValueError(
            f"this packed matrix has format {version}, and this version of nkblas reads format "
            f"{FORMAT}: pack it again"
        )
    register_user_dtypes()
    kept = PackedLayout(*layout)
    here = PackedLayout.of(kept.product, kept.k, kept.n)
    if kept == here:
        return PackedMatrix(dtypes, here, _aligned(panels))
    return _pack(PackedMatrix(dtypes, kept, panels).unpack(), dtypes, here)


def _aligned(panels: np.ndarray) -> np.ndarray:
    """The same bytes where vectors like to be: themselves, or a copy."""
    if panels.ctypes.data % ALIGNMENT == 0:
        return panels
    copy = _empty(panels.size)
    copy[:] = panels
    return copy


def _empty(size: int) -> np.ndarray:
    whole = np.empty(size + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + size]


def _wraps(dtype: "np.dtype[Any]") -> bool:
    """Whether an unsigned type may go as the signed one."""
    return dtype.kind == "u"


def _held(layout: PackedLayout, dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    """The dtype in the panels of a matrix of a dtype, as NumPy knows it."""
    return dtype if layout.panel_dtype == dtype.name else np.dtype(layout.panel_dtype)


def pack(b: Any, *, a_dtype: Any = None, dtype: Any = None) -> PackedMatrix:
    """Pack the right operand of matrix products, to multiply many times: weights, say.

    The panels are those for this CPU, and for any number of rows of the left operand. Products have
    the same bits as with `b` itself where both are done by the same instructions in the same blocks
    of k, and are within the same bound always.

    Parameters
    ----------
    b : array_like
        The matrix: shape ``(k, n)``, in any memory layout.
    a_dtype : dtype, optional
        Of what it will be multiplied by; that of `b`, if it is not given. With ``uint8`` for a `b`
        of ``int8`` (or the other way round) the result is int32.
    dtype : dtype, optional
        The result's. If it is not given, it is that of ``numpy.matmul(b, b)``; but of 8-bit
        integers it is int32, in which the product is exact (and can be scaled: see `nkblas.gemm`);
        what wraps modulo 256, as NumPy's does, has to be asked for. Of bfloat16 it is float32, and
        rounded once if bfloat16 is asked for.

    Returns
    -------
    PackedMatrix

    Raises
    ------
    ValueError
        `b` has not two dimensions.
    TypeError
        There are no kernels for products of these dtypes.

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
    wanted = None if dtype is None else np.dtype(dtype).newbyteorder("=")
    dtypes = left, own, _result(left, own) if wanted is None else wanted
    name = product(*(x.name for x in dtypes))
    if name is None:
        raise TypeError(
            "pack: there are no kernels for {} @ {} -> {}; there are for {}".format(
                *dtypes, ", ".join(f"{a} @ {b} -> {c}" for a, b, c in PRODUCTS.values())
            )
        )
    return _pack(b, dtypes, PackedLayout.of(name, *b.shape))


def _result(a: "np.dtype[Any]", b: "np.dtype[Any]") -> "np.dtype[Any]":
    if {a.name, b.name} <= {"int8", "uint8"}:
        return np.dtype(np.int32)
    try:
        result: np.dtype[Any] = matmul.resolve_dtypes((a, b, None))[2]
    except TypeError:
        return np.dtype(object)  # for which there are no kernels
    return result


def _pack(
    b: np.ndarray,
    dtypes: "tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]",
    layout: PackedLayout,
) -> PackedMatrix:
    """`b` in panels, as the family's `nkblas.codegen.spec.Pack` makes them."""
    descriptor, held = layout.descriptor, _held(layout, dtypes[1])
    source = PRODUCTS[layout.product].b
    b = b.astype(dtypes[1], copy=False)
    if source == "bool":
        b = b.view(np.uint8) != 0
    elif _wraps(b.dtype):
        b = b.view(source)
    panels = _empty(layout.nbytes)
    for start, stop, top, elements in layout.blocks(panels, held):
        groups, group, tiles, nr = elements.shape
        # columns beyond n repeat the last one; after the last k come zeros
        block = np.zeros((groups * group, tiles * nr), held)
        block[: stop - start, : layout.n] = b[start:stop]
        block[:, layout.n :] = block[:, layout.n - 1 : layout.n]
        elements[...] = block.reshape(elements.shape)
        if descriptor.compensation:
            sums = block.sum(0, dtype=np.int32) * np.int32(descriptor.compensation)
            top[...] = sums.reshape(tiles, nr)
    panels.flags.writeable = False
    return PackedMatrix(dtypes, layout, panels)
