"""`KernelSpec`: what to compile. Plain data, the same wherever it is read, and the store's key.

Named tuples, here and in all of the package: `dataclasses` alone would take longer to import than
the rest of nkblas.
"""

from typing import Any, NamedTuple, TypeAlias


def _symbol(spec: "KernelSpec") -> str:
    """The function's name: readable, and different for every spec."""
    words = [type(spec).__name__.lower()]
    for field, value in zip(spec._fields, spec, strict=True):
        if value is True:
            words.append(field)
        elif field in ("nr", "kr") or (field in "nk" and isinstance(spec, Small)):  # 14x32
            words[-1] += f"x{value}"
        elif value not in (False, ""):
            words.append(str(value))
    return "_".join(words)


class Microkernel(NamedTuple):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]``, the accumulators in registers for the whole k loop.

    ``void (k, a, lda, b, ldb, c, ldc, n, accumulate, panel, line, line_step, lines, scale)``:
    sizes and leading dimensions are int64, in elements. B and C have unit stride along n. A packed
    panel is an operand like any other: its leading dimension is the panel's width.

    Meanwhile it fetches into L2 what the caller will need next: in each of its first `lines` <= k
    steps one cache line, those at `line`, ``line + line_step`` and so on. So what is far away comes
    in bit by bit, and no load has to wait for it.

    Attributes
    ----------
    isa : str
        A name of `nkblas.isa.ISAS`.
    dtype : str
        NumPy's name of the element type.
    mr, nr : int
        Rows, and columns: a whole number of vectors.
    a_layout : {"row", "col"}
        Whether A has unit stride along k (a row-major operand in place) or along m (a
        column-major operand in place, or a packed panel).
    masked : bool
        An n-edge: only the first `n` columns of B and C are touched, with `n` in the last vector
        of `nr` columns. Where the ISA has no masks, B is read whole: it must be packed.
    packs_b : bool
        Whether it also copies B, which lies in place, into `panel`, of width `nr`. Otherwise
        `panel` means nothing.
    prefetch : bool
        Whether it fetches a B in place ahead, into L2, along all of its rows: for one beyond L3,
        of which there are too few tiles in a column to fetch those of the next, line by line.
    epilogue : str
        What becomes of the sums on their way into C: see `nkblas.codegen.epilogue`.
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    a_layout: str
    masked: bool = False
    packs_b: bool = False
    prefetch: bool = False
    epilogue: str = ""

    @property
    def symbol(self) -> str:
        return _symbol(self)


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

    ``void (n, k, source, ls, ps, panel)`` sets ``panel[p * width + i] = source[i * ls + p * ps]``.
    Columns of the panel beyond `n` repeat the last line, so that a kernel may read whole vectors:
    what it computes there has the same exceptions as the rest.

    Attributes
    ----------
    isa, dtype : str
        As in `Microkernel`.
    width : int
        `mr` or `nr` of the microkernel that reads the panel.
    source : {"along", "across", "strided"}
        Where the source has unit stride: along the panel (`ls` is 1), across it, along k (`ps` is
        1), or nowhere.
    """

    isa: str
    dtype: str
    width: int
    source: str

    @property
    def symbol(self) -> str:
        return _symbol(self)


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

    ``void (steps, out)`` does `chains` independent vector multiply-adds in each of `steps` steps.
    """

    isa: str
    dtype: str
    chains: int

    @property
    def symbol(self) -> str:
        return _symbol(self)


KernelSpec: TypeAlias = Microkernel | Stream | Dot | Small | Pack | Copy | Peak

KINDS = {kind.__name__: kind for kind in (Microkernel, Stream, Dot, Small, Pack, Copy, Peak)}


def to_dict(spec: KernelSpec) -> dict[str, Any]:
    """`spec` as JSON can hold it."""
    return {"kind": type(spec).__name__, **spec._asdict()}


def from_dict(record: dict[str, Any]) -> KernelSpec:
    """The spec that `to_dict` made `record` of."""
    fields = dict(record)
    return KINDS[fields.pop("kind")](**fields)
