"""The instruction sets that kernels are generated for: one row for each.

A new instruction set is a new row here and, where it multiplies in a new way, a new class in
`nkblas.codegen.kernels.nanokernel` and a line in `nkblas.base.families`. The rest of the package
reads these tables and nothing else.
"""

from typing import NamedTuple


class ISA(NamedTuple):
    """What the generator and the planner need to know of one instruction set.

    Attributes
    ----------
    name : str
        The value of ``NKBLAS_ISA``.
    vector_bits : int
        Width of a vector register, in bits.
    registers : int
        Number of vector registers.
    fused : bool
        Whether multiply and add is one instruction. Where it is two, the product needs a
        register of its own.
    masked : bool
        Whether a vector of elements of 4 or 8 bytes can be loaded and stored in part, for an edge
        that is known only at run time.
    mask_registers : bool
        Whether masks have registers of their own, and any vector can be loaded in part; otherwise
        one takes a vector register.
    requires : tuple of str
        The CPU features (as `nkblas.cpu.features` names them) without which it does not run.
    target : str
        LLVM's name for the target CPU, and after a comma for features that this one lacks.
    families : tuple of str
        The instruction families (`nkblas.base.families`) that it adds to what it extends.
    extends : str
        The row of a set with the same registers that this one adds instructions to, or empty.
        Kernels that need none of them are that one's.
    """

    name: str
    vector_bits: int
    registers: int
    fused: bool
    masked: bool
    mask_registers: bool
    requires: tuple[str, ...]
    target: str
    families: tuple[str, ...]
    extends: str = ""

    def lanes(self, itemsize: int) -> int:
        """Number of elements of `itemsize` bytes in one vector register."""
        return self.vector_bits // 8 // itemsize

    def can_mask(self, itemsize: int) -> bool:
        """Whether vectors of elements of `itemsize` bytes can be loaded and stored in part."""
        return self.mask_registers or (self.masked and itemsize >= 4)

    def row_of(self, family: str) -> "ISA | None":
        """The least capable row of those that this one extends, or itself, with a family."""
        below = ISAS[self.extends].row_of(family) if self.extends else None
        return below or (self if family in self.families else None)

    @property
    def base(self) -> "ISA":
        """The row of vectors of this width and nothing more."""
        return ISAS[self.extends].base if self.extends else self


AVX2 = ("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm")
AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", *AVX2)
EVERYWHERE = ("fma", "complex", "madd")

# From the least to the most capable: the last row whose features the CPU has is the one used.
ISAS: dict[str, ISA] = {}


def _row(
    name: str,
    vector_bits: int,
    registers: int,
    fused: bool,
    masked: bool,
    mask_registers: bool,
    requires: tuple[str, ...],
    target: str,
) -> None:
    ISAS[name] = ISA(
        name,
        vector_bits,
        registers,
        fused,
        masked,
        mask_registers,
        requires,
        target,
        EVERYWHERE if mask_registers else (*EVERYWHERE, "words"),
    )


def _more(extends: str, name: str, requires: str, target: str, families: str) -> None:
    """A row of instructions added to those of another."""
    row = ISAS[extends]
    ISAS[name] = row._replace(
        name=name,
        requires=(*row.requires, *requires.split()),
        target=f"{row.target},{target}",
        families=tuple(families.split()),
        extends=extends,
    )


_row("sse42", 128, 16, False, False, False, ("sse4_2",), "x86-64-v2")
_row("avx2", 256, 16, True, True, False, AVX2, "x86-64-v3")
_more("avx2", "avx2_vnni", "avx_vnni", "+avxvnni,+fast-dpwssd", "vnni")
_more(
    "avx2_vnni",
    "avx_ne_convert",
    "avx_ne_convert avx_vnni_int8",
    "+avxneconvert,+avxvnniint8",
    "ne_convert vnni_int8",
)
_row("avx512", 512, 32, True, True, True, AVX512, "x86-64-v4")
_more("avx512", "avx512_vnni", "avx512_vnni", "+avx512vnni,+fast-dpwssd", "vnni")
_more("avx512_vnni", "avx512_bf16", "avx512_bf16", "+avx512bf16", "bf16")
_more("avx512_bf16", "avx512_fp16", "avx512_fp16", "+avx512fp16", "fp16")
_more(
    "avx512_fp16",
    "amx",
    "amx_tile amx_bf16 amx_int8",
    "+amx-tile,+amx-bf16,+amx-int8",
    "amx",
)
_more("amx", "amx_fp16", "amx_fp16", "+amx-fp16", "amx_fp16")
