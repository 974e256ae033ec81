"""`KernelSpec`: what to compile. Plain data, the same wherever it is read, and the store's key.

Named tuples, here and in all of the package: `dataclasses` alone would take longer to import than
the rest of nkblas.
"""

from typing import Any, NamedTuple, TypeAlias

from nkblas.base.dtypes import PRODUCTS
from nkblas.base.families import Family
from nkblas.base.families import family as family_of


def _symbol(spec: "KernelSpec") -> str:
    """The function's name: readable, and different for every spec."""
    words = [type(spec).__name__.lower()]
    for field, value in zip(spec._fields, spec, strict=True):
        if value is True:
            words.append(field)
        elif field in ("nr", "kr") or (field in "nk" and isinstance(spec, Small)):  # 14x32
            words[-1] += f"x{value}"
        elif value not in (False, "") and (field, value) != ("family", "fma"):
            words.append(str(value).replace("+", "_"))
    return "_".join(words)


class Operands(NamedTuple):
    """The dtypes that a kernel reads, adds up and writes."""

    a: str
    b: str
    accumulator: str
    c: str


class Microkernel(NamedTuple):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]``, the accumulators in registers for the whole k loop.

    ``void (k, a, lda, b, ldb, c, ldc, n, accumulate, panel, line, line_step, lines, scale)``:
    sizes and leading dimensions are int64, in elements. B and C have unit stride along n. A packed
    panel is an operand like any other: its leading dimension is the panel's width.

    With tile registers, n is any number of columns: B is one packed panel of nr columns after the
    other. (It is one call for many tiles, since these registers have to be configured first.) Then
    `line` and `line_step` are the rows of A that the next call will read; `lines` means nothing.

    Here k counts steps of the family. Panels hold whole steps, with values of k in groups (see
    `nkblas.base.families`); so does what is read in place.

    Meanwhile it fetches into L2 what the caller will need next: in each of its first `lines` <= k
    steps one cache line, those at `line`, `line_step` bytes later and so on. So what is far away
    comes in bit by bit, and no load has to wait for it.

    Attributes
    ----------
    isa : str
        A name of `nkblas.base.isa.ISAS`.
    dtype : str
        A name of `nkblas.base.dtypes.PRODUCTS`.
    mr, nr : int
        Rows, and columns: a whole number of vectors.
    a_layout : {"row", "col"}
        Whether A has unit stride along k (a row-major operand in place) or along m (a
        column-major operand in place, or a packed panel).
    masked : bool
        An n-edge: only the first `n` columns of B and C are touched, with `n` in the last vector
        of `nr` columns. Where the ISA has no masks, B is read whole: it must be packed. (With tile
        registers, any `n` will do.)
    packs_b : bool
        Whether it also copies B, which lies in place, into `panel`, of width `nr`. Otherwise
        `panel` means nothing.
    prefetch : bool
        Whether it fetches a B in place ahead, into L2, along all of its rows: for one beyond L3,
        of which there are too few tiles in a column to fetch those of the next, line by line.
    panel_ahead : bool
        Whether it fetches B's panel, and behind it the next one, into L2: for panels that were
        packed before, and so few rows that they are hardly read again.
    epilogue : str
        What becomes of the sums on their way into C: see `nkblas.codegen.kernels.epilogue`.
    family : str
        The instructions: a name of `nkblas.base.families`.
    a, b : str
        The dtypes that the operands have where they are read, if it is not the product's.
    batch_reduce : bool
        Whether it adds up the products of all blocks that `scale` has: `a` and `b` are where the
        tile's operands are in the first of them. `lines` means nothing.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    a_layout: str
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
        return _symbol(self)

    @property
    def descriptor(self) -> Family:
        """What is to be known of the family."""
        return family_of(self.dtype, self.family)

    @property
    def types(self) -> Operands:
        a, b, c = PRODUCTS[self.dtype]
        return Operands(self.a or a, self.b or b, self.descriptor.accumulator, c)


class Stream(NamedTuple):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]`` for any n, along the rows of B.

    A function like `Microkernel`'s, for a product that has too few rows for B to be read more than
    once: it takes `kr` rows of B at a time, with their `mr` by `kr` elements of A in registers,
    and goes through all of their columns. C comes and goes for every `kr` rows: where `k` is above
    `kr`, `mr` rows of `n` columns should fit L2. `k` is at least 1.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`.
    mr : int
        Rows of C.
    nr : int
        Columns in a step: a whole number of vectors.
    kr : int
        Rows of B that are taken at once.
    a_layout : {"row", "col"}
        As in `Microkernel`.
    prefetch : bool
        Whether B is fetched ahead, into L2: for a B beyond L3.
    nontemporal : bool
        Whether C goes past the caches: for a C beyond L3 and a `k` up to `kr`.
    epilogue : str
        As in `Microkernel`.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    kr: int
    a_layout: str
    prefetch: bool = False
    nontemporal: bool = False
    epilogue: str = ""

    @property
    def symbol(self) -> str:
        return _symbol(self)


class Dot(NamedTuple):
    """``C[mr, nr] (+)= A[mr, k] @ B[k, nr]`` with both operands along k.

    A function like `Microkernel`'s, but B has unit stride along k, and `ldb` is the distance of
    its columns. `n` means nothing: there are `nr` columns. Accumulators are vectors along k.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`.
    mr, nr : int
        Rows and columns of C.
    streamed : {"a", "b"}
        The operand that comes from further away than the other.
    prefetch : bool
        Whether that operand is fetched ahead, into L2: for one beyond L3.
    epilogue : str
        As in `Microkernel`.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    streamed: str
    prefetch: bool = False
    epilogue: str = ""

    @property
    def symbol(self) -> str:
        return _symbol(self)


class Small(NamedTuple):
    """``C[m, n] = A[m, k] @ B[k, n]`` of one size, for each matrix of a stack.

    ``void (count, a, as, b, bs, c, cs)``: `as`, `bs`, `cs` are the distances from one matrix of
    the stack to the next, int64, in elements. The matrices themselves are dense: the leading
    dimension of B and C is n, that of A is k (row) or m (col). C is only written.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`.
    m, n, k : int
    a_layout, b_layout : {"row", "col"}
        Which dimension of the operand has unit stride: its second, or its first.
    """

    isa: str
    dtype: str
    m: int
    n: int
    k: int
    a_layout: str
    b_layout: str

    @property
    def symbol(self) -> str:
        return _symbol(self)


class Pack(NamedTuple):
    """Copy `n` <= `width` lines of `k` elements into a panel, `width` elements for each k.

    ``void (n, k, source, ls, ps, panel)`` sets ``panel[p * width + i] = source[i * ls + p * ps]``;
    or, in groups, ``panel[(p // group * width + i) * group + p % group]``. Columns of the panel
    beyond `n` repeat the last line, so that a kernel may read whole vectors: what it computes there
    has the same exceptions as the rest. After the last k come zeros, up to a whole step.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`; the dtype is the source's.
    width : int
        `mr` or `nr` of the microkernel that reads the panel.
    source : {"along", "across", "strided"}
        Where the source has unit stride: along the panel (`ls` is 1), across it, along k (`ps` is
        1), or nowhere.
    to : str
        The panel's dtype, if it is another one.
    group, step : int
        As in `nkblas.base.families.Family`.
    compensation : int
        Not 0: before the panel comes a row of int32, so many times the sums of its columns.
    """

    isa: str
    dtype: str
    width: int
    source: str
    to: str = ""
    group: int = 1
    step: int = 1
    compensation: int = 0

    @property
    def symbol(self) -> str:
        return _symbol(self).replace("-", "m")

    @property
    def target(self) -> str:
        return self.to or self.dtype


class Copy(NamedTuple):
    """``target[i * trs + j * tcs] = source[i * srs + j * scs]``, for strides of every kind.

    ``void (m, n, source, srs, scs, target, trs, tcs)``. It moves tiles of a C without rows.
    """

    isa: str
    dtype: str

    @property
    def symbol(self) -> str:
        return _symbol(self)


class Peak(NamedTuple):
    """As many multiply-adds a cycle as the CPU can do: the yardstick of the benchmarks.

    ``void (steps, out)`` does `chains` independent multiply-adds, of a register each, in each of
    `steps` steps. `out` has room for 4 KB, and holds what is multiplied.

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
        return _symbol(self)

    @property
    def descriptor(self) -> Family:
        return family_of(self.dtype, self.family)

    @property
    def types(self) -> Operands:
        return Operands(
            self.descriptor.a,
            self.descriptor.b,
            self.descriptor.accumulator,
            self.descriptor.accumulator,
        )


KernelSpec: TypeAlias = Microkernel | Stream | Dot | Small | Pack | Copy | Peak

KINDS = {kind.__name__: kind for kind in (Microkernel, Stream, Dot, Small, Pack, Copy, Peak)}


def to_dict(spec: KernelSpec) -> dict[str, Any]:
    """`spec` as JSON can hold it."""
    return {"kind": type(spec).__name__, **spec._asdict()}


def from_dict(record: dict[str, Any]) -> KernelSpec:
    """The spec that `to_dict` made `record` of."""
    fields = dict(record)
    return KINDS[fields.pop("kind")](**fields)
