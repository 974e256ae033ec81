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
        elif field == "nr" or (field in "nk" and isinstance(spec, Small)):  # 14x32 reads best
            words[-1] += f"x{value}"
        elif value is not False:
            words.append(str(value))
    return "_".join(words)


class Microkernel(NamedTuple):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]``, the accumulators in registers for the whole k loop.

    ``void (k, a, lda, b, ldb, c, ldc, n, accumulate, panel, line, line_step, lines)``: sizes and
    leading dimensions are int64, in elements. B and C have unit stride along n. A packed panel is
    an operand like any other: its leading dimension is the panel's width.

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
    """

    isa: str
    dtype: str
    mr: int
    nr: int
    a_layout: str
    masked: bool = False
    packs_b: bool = False

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
    a_layout : {"row", "col"}
    """

    isa: str
    dtype: str
    m: int
    n: int
    k: int
    a_layout: str

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


KernelSpec: TypeAlias = Microkernel | Small | Pack | Copy | Peak

KINDS = {kind.__name__: kind for kind in (Microkernel, Small, Pack, Copy, Peak)}


def to_dict(spec: KernelSpec) -> dict[str, Any]:
    """`spec` as JSON can hold it."""
    return {"kind": type(spec).__name__, **spec._asdict()}


def from_dict(record: dict[str, Any]) -> KernelSpec:
    """The spec that `to_dict` made `record` of."""
    fields = dict(record)
    return KINDS[fields.pop("kind")](**fields)
