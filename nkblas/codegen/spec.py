"""`KernelSpec`: the specification of one generated function, and part of its key in the store.

Specifications are plain data: they are sent to the compile server and stored as JSON
(`to_dict`). They are named tuples, as everywhere in the package: importing `dataclasses` alone
would take longer than importing the rest of nkblas.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

from nkblas.base.dtypes import PRODUCTS
from nkblas.base.families import FAMILIES, Family
from nkblas.base.families import family as family_of

Layout: TypeAlias = Literal["row", "col"]
"""Whether the second or the first dimension of an operand has unit stride."""

PackSource: TypeAlias = Literal["along", "across", "strided"]
"""The unit-stride direction of a packing routine's source: see `Pack`."""


def _symbol(spec: "KernelSpec") -> str:
    """The function's name: readable, and unique to the specification."""
    words = [type(spec).__name__.lower()]
    for field, value in zip(spec._fields, spec, strict=True):
        if value is True:
            words.append(field)
        elif field in ("nr", "kr") or (field in "nk" and isinstance(spec, Small)):  # 14x32
            words[-1] += f"x{value}"
        elif field == "family" and value == spec._field_defaults[field]:
            continue
        elif value not in (False, ""):
            words.append(str(value).replace("+", "_"))
    return "_".join(words)


class Operands(NamedTuple):
    """The dtypes that a kernel reads, accumulates in and writes."""

    a: str
    b: str
    accumulator: str
    c: str


class Microkernel(NamedTuple):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]``, accumulated in registers for the whole k loop.

    ``void (k, a, lda, b, ldb, c, ldc, n, accumulate, panel, line, line_step, lines, args)``: sizes
    and leading dimensions are int64, in elements; `args` is an ``nk_call_args *``. B and C have
    unit stride along n. A packed panel is an operand like any other: its leading dimension is the
    panel's width.

    `k` counts k steps of the family (`Family.k_step`). Panels hold whole steps, with adjacent
    values of k in groups (`Family.k_group_a`, `Family.k_group_b`); operands read in place have to
    have the same groups.

    During the k loop the kernel prefetches into L2 the data that the caller will need next: one
    cache line in each of the first `lines` <= k steps, at `line`, ``line + line_step`` bytes and so
    on. Operands beyond L2 arrive step by step, and no load has to wait for them.

    With tile registers, `n` is any number of columns: B is a sequence of packed panels of nr
    columns. (One call computes many tiles, because the tile registers have to be configured first.)
    `line` and `line_step` are then the rows of A that the next call will read, and `lines` is
    ignored.

    Attributes
    ----------
    isa : str
        A name of `nkblas.base.isa.ISAS`.
    dtype : str
        A name of `nkblas.base.dtypes.PRODUCTS`.
    mr, nr : int
        Rows and columns of the register tile; nr is a whole number of vectors.
    a_layout : {"row", "col"}
        Whether A has unit stride along k (a row-major operand in place) or along m (a
        column-major operand in place, or a packed panel).
    masked : bool
        An edge tile along n: only the first `n` columns of B and C are read and written, where
        column n - 1 is in the last vector of the `nr` columns. On an ISA without masks B is read
        whole, and has to be packed. (With tile registers `n` is arbitrary anyway.)
    packs_b : bool
        Whether the kernel also copies B, which is read in place, into `panel`, of width `nr`.
        Otherwise `panel` is ignored.
    prefetch : bool
        Whether the kernel prefetches B, read in place, into L2, `PREFETCH_DISTANCE_BYTES` ahead
        along all of its rows. For a B beyond L3 where C has so few rows of tiles that `lines` can't
        cover what the next column of tiles reads.
    panel_ahead : bool
        Whether the kernel prefetches B's panel and the one after it into L2. For panels that were
        packed before the call (`nkblas.pack`) and so few rows of C that panels are hardly reused.
    epilogue : str
        An epilogue of `nkblas.base.epilogues`, as text.
    family : str
        The instruction family: a name of `nkblas.base.families`.
    a, b : str
        The dtypes in which the operands are read; empty for those of the product.
    batch_reduce : bool
        Whether the kernel adds up the products of all blocks in `args`: `a` and `b` point to the
        tile's operands in the first block. `lines` is ignored.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    a_layout: Layout
    masked: bool = False
    packs_b: bool = False
    prefetch: bool = False
    panel_ahead: bool = False
    epilogue: str = ""
    family: str = "fma"
    a: str = ""
    b: str = ""
    batch_reduce: bool = False

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)

    @property
    def descriptor(self) -> Family:
        """The descriptor of the instruction family."""
        return family_of(self.dtype, self.family)

    @property
    def types(self) -> Operands:
        """The dtypes of the operands as they are read, of the accumulators and of C."""
        a, b, c = PRODUCTS[self.dtype]
        return Operands(self.a or a, self.b or b, self.descriptor.accumulator, c)


class Stream(NamedTuple):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]`` for any n, reading B once, along its rows.

    The signature is `Microkernel`'s. For a product with so few rows of C that B is read only once.
    The outer loop takes `kr` rows of B at a time, with the `mr` by `kr` elements of A in registers;
    the inner loop runs over all columns. C is loaded and stored once for each `kr` rows of B: with
    `k` > `kr`, `mr` rows of `n` columns should fit L2. `k` is at least 1.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`.
    mr : int
        Rows of C.
    nr : int
        Columns in a step: a whole number of vectors.
    kr : int
        Rows of B in a pass over the columns.
    a_layout : {"row", "col"}
        As in `Microkernel`.
    prefetch : bool
        Whether B is prefetched into L2: for a B beyond L3.
    nontemporal : bool
        Whether C is written by non-temporal stores: for a C beyond L3 and `k` <= `kr`.
    epilogue : str
        As in `Microkernel`.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    kr: int
    a_layout: Layout
    prefetch: bool = False
    nontemporal: bool = False
    epilogue: str = ""

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)


class Dot(NamedTuple):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]`` for operands that both have unit stride along k.

    The signature is `Microkernel`'s, where `ldb` is the stride between columns of B. Accumulators
    are vectors along k. Of a single row and a single column, either may have another stride along
    k, and elements may be narrower than accumulators.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`.
    mr : int
        Rows of C.
    nr : int
        Columns that are computed at once.
    streamed : {"a", "b"}
        The operand in the more distant level of memory.
    prefetch : bool
        Whether that operand is prefetched into L2: for one beyond L3.
    epilogue : str
        As in `Microkernel`.
    a_strided, b_strided : bool
        Whether `lda` (`ldb`) is the operand's stride along k, for `mr` and `nr` 1. Accumulators are
        single elements then.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    streamed: Literal["a", "b"]
    prefetch: bool = False
    epilogue: str = ""
    a_strided: bool = False
    b_strided: bool = False

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)

    @property
    def types(self) -> Operands:
        """The dtypes of the operands, of the accumulators and of C."""
        a, b, c = PRODUCTS[self.dtype]
        # all families of a product accumulate in one dtype
        return Operands(a, b, FAMILIES[self.dtype][0].accumulator, c)


class Small(NamedTuple):
    """``C[m, n] = A[m, k] @ B[k, n]`` of constant size, for each matrix of a stack.

    ``void (count, a, a_stride, b, b_stride, c, c_stride)``: the strides are those between matrices
    of the stack, int64, in elements. The matrices themselves are contiguous: the leading dimension
    of C is n, that of A is k (row) or m (col), and that of B is n (row) or k (col). C is only
    written.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`.
    m, n, k : int
    a_layout, b_layout : {"row", "col"}
        Whether the operand's second or first dimension has unit stride.
    """

    isa: str
    dtype: str
    m: int
    n: int
    k: int
    a_layout: Layout
    b_layout: Layout

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)


class DotStack(NamedTuple):
    """The dot product of two vectors of constant length, for each pair of a stack.

    The signature is `Small`'s. The sums are in the order of `Dot` with one row and one column.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`; the dtype is not complex.
    k : int
    """

    isa: str
    dtype: str
    k: int

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)


class Pack(NamedTuple):
    """Pack `n` <= `width` lines of `k` elements into a panel, `width` elements for each k.

    ``void (n, k, source, line_stride, k_stride, panel)`` sets
    ``panel[p * width + i] = source[i * line_stride + p * k_stride]``; with groups,
    ``panel[(p // group * width + i) * group + p % group]``. A line is a row of A or a column of B.
    Panel columns beyond `n` repeat the last line, so that kernels can read whole vectors whose
    extra lanes raise no other floating-point exceptions than the rest. After the last k come zeros,
    up to a whole k step.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`; the dtype is the source's.
    width : int
        `mr` or `nr` of the microkernel that reads the panel.
    source : {"along", "across", "strided"}
        Where the source has unit stride: along the panel's rows (line_stride is 1); across them,
        that is, along k (k_stride is 1); or in neither direction.
    to : str
        The panel's dtype; empty for the source's.
    group : int
        Adjacent values of k, as `Family.k_group_a` or `Family.k_group_b`.
    step : int
        Values of k in a step, as `Family.k_step`.
    compensation : int
        As `Family.compensation`: if not 0, the panel starts with a row of int32, this factor times
        the sums of the panel's columns.
    """

    isa: str
    dtype: str
    width: int
    source: PackSource
    to: str = ""
    group: int = 1
    step: int = 1
    compensation: int = 0

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self).replace("-", "m")

    @property
    def target(self) -> str:
        """The panel's dtype."""
        return self.to or self.dtype


class Copy(NamedTuple):
    """``target[i * target_rs + j * target_cs] = source[i * source_rs + j * source_cs]``.

    ``void (m, n, source, source_rs, source_cs, target, target_rs, target_cs)``, for any strides. It
    copies tiles between a buffer and a C that has no unit stride.
    """

    isa: str
    dtype: str

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)


class Mirror(NamedTuple):
    """``target[j * target_rs + i] = op(source[i * source_rs + j])``: a transposed copy.

    ``void (m, n, source, source_rs, target, target_rs)``, for matrices with unit stride along their
    rows: `source` is m x n, `target` is n x m. It copies elements of the lower triangle of C to the
    upper one.

    Attributes
    ----------
    isa, dtype : str
    conjugates : bool
        Whether op is the conjugate: C is Hermitian. An imaginary part of 0 keeps its sign.
    """

    isa: str
    dtype: str
    conjugates: bool = False

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)


class Triangular(NamedTuple):
    """A tile of ``X = A @ X`` or ``X = inv(A) @ X`` with a lower triangular A, in place.

    ``void (k, a, a_rs, a_cs, diagonal, x, ldx)``: the rows [k, k + mr) of X are computed, `nr`
    columns of each, from themselves and the k rows before them. `a` is the address of row k of A,
    which may have any strides; its elements beyond the diagonal are not read. `diagonal` holds what
    the mr rows are multiplied by: the elements on A's diagonal, or their inverses.

    Attributes
    ----------
    isa, dtype : str
        The dtype is one of `nkblas.base.problem.NATIVE_DTYPES`, and a float.
    mr, nr : int
        nr is a whole number of vectors.
    solves : bool
        Whether the system is solved, by substitution.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    solves: bool = False

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)


class Peak(NamedTuple):
    """Multiply-adds at the peak rate of the CPU, for the benchmarks to compare with.

    ``void (steps, out)`` does `chains` independent multiply-adds, each of one register, in each of
    `steps` steps. `out` is a buffer of 4 KB, which also holds the operands.

    Attributes
    ----------
    isa, dtype, family : str
        As in `Microkernel`.
    chains : int
    """

    isa: str
    dtype: str
    chains: int
    family: str = "fma"

    @property
    def symbol(self) -> str:
        """Name of the function."""
        return _symbol(self)

    @property
    def descriptor(self) -> Family:
        """The descriptor of the instruction family."""
        return family_of(self.dtype, self.family)

    @property
    def types(self) -> Operands:
        """The dtypes of the operands, of the accumulators and, for C, of the accumulators again."""
        family = self.descriptor
        return Operands(family.a, family.b, family.accumulator, family.accumulator)


KernelSpec: TypeAlias = (
    Microkernel | Stream | Dot | Small | DotStack | Pack | Copy | Mirror | Triangular | Peak
)

_KINDS: dict[str, type[KernelSpec]] = {
    kind.__name__: kind
    for kind in (
        Microkernel,
        Stream,
        Dot,
        Small,
        DotStack,
        Pack,
        Copy,
        Mirror,
        Triangular,
        Peak,
    )
}


def to_dict(spec: KernelSpec) -> dict[str, Any]:
    """`spec` as a dictionary that JSON can hold; `from_dict` is its inverse."""
    return {"kind": type(spec).__name__, **spec._asdict()}


def from_dict(record: dict[str, Any]) -> KernelSpec:
    """The specification that `to_dict` returned `record` for."""
    fields = dict(record)
    return _KINDS[fields.pop("kind")](**fields)
