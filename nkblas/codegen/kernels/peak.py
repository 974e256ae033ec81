"""The kernel of `nkblas.codegen.spec.Peak`: independent multiply-adds on registers alone."""

from nkblas.base.isa import ISA
from nkblas.codegen import ir
from nkblas.codegen.ir import Value
from nkblas.codegen.spec import Peak

from .nanokernel import NANOKERNELS


def build(spec: Peak, isa: ISA, arguments: list[Value]) -> None:
    """Emit the body of `spec`'s function."""
    steps, out = arguments
    family = spec.descriptor
    nanokernel = NANOKERNELS[spec.family](isa, family, family.a, family.b)
    rows = family.tile_rows or 1
    row_stride = ir.const_i64(0 if family.tile_rows else family.k_group_a)
    registers = family.accumulator_registers
    is_integer = family.is_unfused(isa) and ir.is_integer(nanokernel.vector_type)

    a = nanokernel.load_a(out, rows, row_stride)
    b = nanokernel.load_b(out, None, ir.const_i64(0), 0)

    def step(_: Value, iter_args: list[Value]) -> list[Value]:
        new: list[Value] = []
        for i in range(0, len(iter_args), registers):
            chain = tuple(iter_args[i : i + registers])
            # A product of integers that is the same in all chains would be computed once.
            x = ir.bitcast(a.type, iter_args[i - 1]) if is_integer else a
            new += nanokernel.multiply_add(x, b, chain)
        return new

    chains = [value for _ in range(spec.chains) for value in nanokernel.zero_accumulator(rows)]
    if is_integer:  # equal chains would become one
        addresses = [ir.gep(out, nanokernel.vector_type, i) for i in range(len(chains))]
        chains = [ir.load(x.type, address) for x, address in zip(chains, addresses, strict=True)]
    chains = ir.for_loop(steps, chains, step)
    if nanokernel.uses_tile_registers:
        for chain in chains:
            lanes = ir.const_i64(nanokernel.lanes)
            nanokernel.store_accumulators([[(chain,)]], rows, out, lanes)
        return
    total = chains[0]
    for other in chains[1:]:
        total = ir.add(total, ir.bitcast(total.type, other))
    ir.store(total, out)
