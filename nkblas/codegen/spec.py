"""`KernelSpec`: what to compile. Plain data, the same wherever it is read, and the store's key."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class KernelSpec:
    """One function of generated code; each subclass is one kind of function.

    Attributes
    ----------
    isa : str
        A name of `nkblas.isa.ISAS`.
    dtype : str
        NumPy's name of the element type.
    """

    isa: str
    dtype: str

    kinds: ClassVar[dict[str, type["KernelSpec"]]] = {}

    def __init_subclass__(cls) -> None:
        KernelSpec.kinds[cls.__name__] = cls

    @property
    def symbol(self) -> str:
        """The function's name: readable, and unique among specs."""
        words = [type(self).__name__.lower()]
        for field in fields(self):
            value = getattr(self, field.name)
            if value is True:
                words.append(field.name)
            elif value is not False:
                # mr and nr read best as 14x32
                joint = "x" if field.name == "nr" else "_"
                words[-1:] = [words[-1] + joint + str(value)]
        return "_".join(words)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, **asdict(self)}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> "KernelSpec":
        record = dict(record)
        return KernelSpec.kinds[record.pop("kind")](**record)


@dataclass(frozen=True)
class Microkernel(KernelSpec):
    """``C[mr, n] (+)= A[mr, k] @ B[k, n]``, the accumulators in registers for the whole k loop.

    ``void (k, a, lda, b, ldb, c, ldc, n, accumulate)``: sizes and leading dimensions are int64, in
    elements. B and C have unit stride along n. A packed panel is an operand like any other: its
    leading dimension is the panel's width.

    Attributes
    ----------
    mr, nr : int
        Rows, and columns: a whole number of vectors.
    a_layout : {"row", "col"}
        Whether A has unit stride along k (a row-major operand in place) or along m (a
        column-major operand in place, or a packed panel).
    masked : bool
        An n-edge: only the first `n` columns of B and C are touched, with `n` in the last vector
        of `nr` columns. Where the ISA has no masks, B is read whole: it must be packed.
    """

    mr: int
    nr: int
    a_layout: str
    masked: bool = False


@dataclass(frozen=True)
class Pack(KernelSpec):
    """Copy `n` <= `width` lines of `k` elements into a panel, `width` elements for each k.

    ``void (n, k, source, lds, panel)`` sets ``panel[p * width + i] = source(i, p)``. What lies
    between `n` and `width` is set to zero, so that a kernel may read whole vectors of it.

    Attributes
    ----------
    width : int
        `mr` or `nr` of the microkernel that reads the panel.
    transposed : bool
        The source has unit stride along k, ``source[i * lds + p]``; otherwise along the panel,
        ``source[p * lds + i]``.
    """

    width: int
    transposed: bool


@dataclass(frozen=True)
class Copy(KernelSpec):
    """``target[i * trs + j * tcs] = source[i * srs + j * scs]``, for strides of every kind.

    ``void (m, n, source, srs, scs, target, trs, tcs)``. It packs operands without a unit stride,
    and moves tiles of such a C.
    """


@dataclass(frozen=True)
class Peak(KernelSpec):
    """As many multiply-adds a cycle as the CPU can do: the yardstick of the benchmarks.

    ``void (steps, out)`` does `chains` independent vector multiply-adds in each of `steps` steps.
    """

    chains: int
