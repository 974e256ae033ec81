"""Every instruction family on every instruction set: its machine code and its results."""

import re

import pytest
from machine_code import disassemble, function, innermost_loops, touching_stack

import nkblas
from nkblas.base.dtypes import DTYPES, FLOAT8, ITEMSIZE, PRODUCTS, QUANTIZED
from nkblas.base.families import Family, families
from nkblas.base.isa import ISAS
from nkblas.codegen.lowering import verify
from nkblas.codegen.spec import KernelSpec, Microkernel
from nkblas.planning.plan import base_kernel, pack_kernel
from nkblas.planning.schedule import register_tiles

# float8 formats differ in constants alone (digits, infinities): all are tested with the widest
# vectors, elsewhere one with infinities, one without, and one without -0.
TYPICAL_FLOAT8 = ("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz")

CASES = [
    (name, dtype, family)
    for name, isa in ISAS.items()
    for dtype in PRODUCTS
    if dtype not in QUANTIZED  # the same kernels but for the epilogue: test_quantized has them
    for family in families(dtype, isa)
    if family.name in isa.families
    and (
        PRODUCTS[dtype].a not in FLOAT8 or isa.mask_registers or PRODUCTS[dtype].a in TYPICAL_FLOAT8
    )
]
IDS = [f"{isa}-{dtype}-{family.name}" for isa, dtype, family in CASES]
by_family = pytest.mark.parametrize(("isa", "dtype", "family"), CASES, ids=IDS)

# By family and dtype of the accumulators (complex: of the product), an instruction of every k loop.
INSTRUCTIONS = {
    ("fma", "float32"): r"v?(fmadd...|mul)ps",
    ("fma", "float64"): r"v?(fmadd...|mul)pd",
    ("fma", "int32"): r"v?pmulld",
    ("fma", "int64"): r"v?pmul(lq|udq)",
    ("words", "int64"): r"v?pmuludq",
    ("complex", "complex64"): r"v?(fmadd...|mul)ps",
    ("complex", "complex128"): r"v?(fmadd...|mul)pd",
    ("fp16", "float32"): r"vcvtph2psx",
    ("bf16", "float32"): r"vdpbf16ps",
    ("ne_convert", "float32"): r"vbcstne(bf16|sh)2ps|vcvtne[eo](bf16|ph)2ps",
    ("madd", "int32"): r"v?pmaddwd",
    ("vnni", "int32"): r"vpdp(bus|wss)d",
    ("vnni_int8", "int32"): r"vpdpb(ss|su|uu)d",
    ("amx", "float32"): r"tdpbf16ps",
    ("amx", "int32"): r"tdpb(ss|su|us|uu)d",
    ("amx_fp16", "float32"): r"tdpfp16ps",
}


def kernels(isa: str, dtype: str, family: Family) -> list[Microkernel]:
    """Two tiles, on panels and on operands in place, main tiles and edge tiles."""
    row, types = ISAS[isa], PRODUCTS[dtype]
    found = []
    for mr, nr in register_tiles(row, family)[:2]:
        packed = base_kernel(row, dtype, family, "")._replace(mr=mr, nr=nr)
        found += [packed, packed._replace(mr=max(1, mr - 1), masked=True)]
        if DTYPES[types.c].kind in ("float", "complex"):
            found.append(packed._replace(epilogue="scale"))
        if (family.converts_on_load and row.fused) or types.a == family.a:
            found.append(packed._replace(a="", a_layout="row"))
            if family.k_step == 1 and row.can_mask(ITEMSIZE[types.b]):
                found.append(packed._replace(a="", b="", a_layout="row"))
    return list(dict.fromkeys(found))


@by_family
def test_k_loop_has_the_instruction_and_no_spill(isa: str, dtype: str, family: Family) -> None:
    specs = kernels(isa, dtype, family)
    functions = disassemble(specs)
    pattern = INSTRUCTIONS[family.name, family.accumulator if family.name != "complex" else dtype]
    for spec in specs:
        code = functions[spec.symbol]
        stack = touching_stack(code)
        least = 1 if family.tile_rows else spec.mr  # one instruction for each row
        loops = [
            body
            for body in innermost_loops(code)
            if sum(bool(re.fullmatch(pattern, x.name)) for x in body) >= least
            and sum(x.name.startswith("j") for x in body) == 1  # not a loop of the epilogue
        ]
        assert loops, f"{spec.symbol}: no loop with {pattern}"
        for body in loops:
            # Addresses may be spilled, vectors may not.
            spills = [x for x in body if x in stack and re.search("[xyzt]mm", x.operands)]
            assert not spills, f"{spec.symbol}: {spills[0]}"
        configured = sum(x.name == "ldtilecfg" for x in code)
        assert configured == (1 if family.tile_rows else 0), spec.symbol


@by_family
def test_products_are_right(isa: str, dtype: str, family: Family) -> None:
    if not nkblas.cpu.features.issuperset(ISAS[isa].requires):
        pytest.skip(f"nkblas.cpu lacks {isa}: test_isas emulates it")
    row = ISAS[isa]
    specs: list[KernelSpec] = list(kernels(isa, dtype, family))
    for operand, width in zip("ab", register_tiles(row, family)[0], strict=True):
        for source in ("along", "across", "strided"):
            specs.append(pack_kernel(row, dtype, family, operand, width, source))
    for spec in specs:
        verify.check(spec, function(spec))
