"""The instruction sets that kernels are generated for: one row for each.

A new instruction set is a new row here and, where it multiplies in a new way, a new class in
`nkblas.codegen.nanokernel`. The rest of the package reads this table and nothing else.
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
        Whether a vector can be loaded and stored in part, for an edge that is known only at
        run time.
    mask_registers : bool
        Whether masks have registers of their own; otherwise one takes a vector register.
    requires : tuple of str
        The CPU features (as `nkblas.cpu.features` names them) without which it does not run.
    target : str
        LLVM's name for the target CPU.
    """

    name: str
    vector_bits: int
    registers: int
    fused: bool
    masked: bool
    mask_registers: bool
    requires: tuple[str, ...]
    target: str

    def lanes(self, itemsize: int) -> int:
        """Number of elements of `itemsize` bytes in one vector register."""
        return self.vector_bits // 8 // itemsize

    def registers_needed(self, mr: int, vectors: int, edge: bool = False) -> int:
        """Vector registers that a tile of `mr` rows by `vectors` vectors needs.

        The accumulators, the smaller of the two operands' slices of one k-step, and one element
        of the other (see `nkblas.codegen.nanokernel.compose`); one more for the product where
        multiply and add are two instructions. The mask of an `edge` takes one, and so does what
        is blended with it, unless the element's register is still free.
        """
        needed = mr * vectors + min(mr, vectors) + 1 + (not self.fused)
        if edge and self.masked and not self.mask_registers:
            needed += 1 + (mr < vectors)
        return needed


AVX2 = ("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm")

# From the least to the most capable: the last row whose features the CPU has is the one used.
ISAS = {
    isa.name: isa
    for isa in (
        ISA("sse42", 128, 16, False, False, False, ("sse4_2",), "x86-64-v2"),
        ISA("avx2", 256, 16, True, True, False, AVX2, "x86-64-v3"),
        ISA(
            "avx512",
            512,
            32,
            True,
            True,
            True,
            ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", *AVX2),
            "x86-64-v4",
        ),
    )
}
