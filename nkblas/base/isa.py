"""The instruction sets that kernels are generated for: a row of `ISAS` for each.

A new instruction set is a row here and, where it multiplies in a new way, a class in
`nkblas.codegen.kernels.nanokernel` and a descriptor in `nkblas.base.families`. The rest of the
package reads these tables: it compares no names.
"""

from typing import NamedTuple


class ISA(NamedTuple):
    """An instruction set, as the planner and the code generator see it.

    Attributes
    ----------
    name : str
        The value of ``NKBLAS_ISA``.
    vector_bits : int
        Width of a vector register.
    registers : int
        Number of vector registers.
    fused : bool
        Whether multiply-add is one instruction. Where it is two, the product needs a register.
    masked : bool
        Whether a vector of elements of 4 or 8 bytes can be loaded and stored partially, as an edge
        requires whose length is known at run time only.
    mask_registers : bool
        Whether masks have registers of their own, and vectors of any element size can be loaded and
        stored partially. Otherwise a mask takes a vector register.
    requires : tuple of str
        The CPU features (`nkblas.system.cpu.FEATURES`) without which it does not run.
    target_cpu, target_features : str
        What LLVM compiles for: a CPU, and features added to it.
    families : tuple of str
        The instruction families (`nkblas.base.families`) that it adds to the row that it extends.
    extends : str
        Name of the row with the same registers that this one adds instructions to; empty if there
        is none. A kernel that needs none of the additions is the extended row's.
    schedule_cpu : str
        The CPU whose scheduling model LLVM orders instructions by; empty for `target_cpu`'s.
    """

    name: str
    vector_bits: int
    registers: int
    fused: bool
    masked: bool
    mask_registers: bool
    requires: tuple[str, ...]
    target_cpu: str
    target_features: str
    families: tuple[str, ...]
    extends: str = ""
    schedule_cpu: str = ""

    def lanes(self, itemsize: int) -> int:
        """Number of elements of `itemsize` bytes in one vector register."""
        return self.vector_bits // 8 // itemsize

    def can_mask(self, itemsize: int) -> bool:
        """Whether vectors of elements of `itemsize` bytes can be loaded and stored partially."""
        return self.mask_registers or (self.masked and itemsize >= 4)

    def row_of(self, family: str) -> "ISA | None":
        """The least capable row, among this one and those that it extends, that has `family`."""
        below = ISAS[self.extends].row_of(family) if self.extends else None
        return below or (self if family in self.families else None)

    @property
    def converts_float16(self) -> bool:
        """Whether one instruction converts float16 to float32, or back."""
        return "f16c" in self.requires

    @property
    def base(self) -> "ISA":
        """The row that this one extends directly or indirectly, and that extends none."""
        return ISAS[self.extends].base if self.extends else self


_AVX2 = ("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm")
_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", *_AVX2)
_VECTOR_FAMILIES = ("fma", "complex", "madd")

ISAS: dict[str, ISA] = {}
"""By name, from the least to the most capable: the last row whose features the CPU has is used."""


def add_isa(isa: ISA) -> ISA:
    """Add a row to `ISAS`, as the most capable one."""
    ISAS[isa.name] = isa
    return isa


def extend_isa(
    extended: ISA,
    name: str,
    requires: str,
    target_features: str,
    families: str,
    *,
    schedule_cpu: str = "",
) -> ISA:
    """Add a row of instructions added to those of another row.

    Parameters
    ----------
    extended : ISA
    name : str
    requires, target_features, families : str
        What it adds to those of `extended`: separated by spaces, commas, spaces.
    schedule_cpu : str, optional
        As in `ISA`; it is not inherited.
    """
    features = ",".join(filter(None, (extended.target_features, target_features)))
    return add_isa(
        extended._replace(
            name=name,
            requires=(*extended.requires, *requires.split()),
            target_features=features,
            families=tuple(families.split()),
            extends=extended.name,
            schedule_cpu=schedule_cpu,
        )
    )


add_isa(
    ISA(
        name="sse42",
        vector_bits=128,
        registers=16,
        fused=False,
        masked=False,
        mask_registers=False,
        requires=("sse4_2",),
        target_cpu="x86-64-v2",
        target_features="",
        families=(*_VECTOR_FAMILIES, "words"),
    )
)

_avx2 = add_isa(
    ISA(
        name="avx2",
        vector_bits=256,
        registers=16,
        fused=True,
        masked=True,
        mask_registers=False,
        requires=_AVX2,
        target_cpu="x86-64-v3",
        target_features="",
        families=(*_VECTOR_FAMILIES, "words"),
    )
)
_avx2_vnni = extend_isa(_avx2, "avx2_vnni", "avx_vnni", "+avxvnni,+fast-dpwssd", "vnni")
extend_isa(
    _avx2_vnni,
    "avx_ne_convert",
    "avx_ne_convert avx_vnni_int8",
    "+avxneconvert,+avxvnniint8",
    "ne_convert vnni_int8",
    schedule_cpu="sierraforest",  # one of the CPUs that have it
)

_avx512 = add_isa(
    ISA(
        name="avx512",
        vector_bits=512,
        registers=32,
        fused=True,
        masked=True,
        mask_registers=True,
        requires=_AVX512,
        target_cpu="x86-64-v4",
        target_features="",
        families=_VECTOR_FAMILIES,
    )
)
_vnni = extend_isa(_avx512, "avx512_vnni", "avx512_vnni", "+avx512vnni,+fast-dpwssd", "vnni")
_bf16 = extend_isa(_vnni, "avx512_bf16", "avx512_bf16", "+avx512bf16", "bf16")
_fp16 = extend_isa(_bf16, "avx512_fp16", "avx512_fp16", "+avx512fp16", "fp16")
_amx = extend_isa(
    _fp16, "amx", "amx_tile amx_bf16 amx_int8", "+amx-tile,+amx-bf16,+amx-int8", "amx"
)
extend_isa(_amx, "amx_fp16", "amx_fp16", "+amx-fp16", "amx_fp16")
