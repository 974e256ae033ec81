"""A new instruction set, family or activation is a row of a table: nothing else has to change.

The rows are made up, but their instructions are not: AVX10.2 has 512-bit products of signed bytes.
"""

from collections.abc import Iterator

import numpy as np
import pytest

import nkblas
from nkblas.base.epilogues import ACTIVATIONS, Activation, Epilogue, parse
from nkblas.base.families import FAMILIES, Family
from nkblas.base.isa import ISA, ISAS, extend_isa
from nkblas.base.problem import Problem
from nkblas.planning.cost_model import ranked_plans
from nkblas.system.toolchain import toolchain

if not toolchain():
    pytest.skip("MLIR is not installed", allow_module_level=True)

from nkblas.codegen import ir
from nkblas.codegen.kernels.activation import ACTIVATION_CODE, ActivationCode
from nkblas.codegen.kernels.nanokernel import NANOKERNELS, VNNIInt8
from nkblas.codegen.lowering import emit, pipeline, verify
from nkblas.codegen.spec import Microkernel

FAMILY = Family("bytes_512", "int8", "int8", "int32", k_step=4, k_group_a=4, k_group_b=4)


class Bytes512(VNNIInt8):
    """``vpdpbssd`` at 512 bits."""

    def dot(self, a: ir.Value, b: ir.Value, sums: ir.Value) -> ir.Value:
        return ir.call_intrinsic("llvm.x86.avx10.vpdpbssd.512", sums.type, sums, a, b)


@pytest.fixture
def isa() -> Iterator[ISA]:
    """A made-up instruction set with a made-up family."""
    families = FAMILIES["int8_int32"]
    row = extend_isa(ISAS["avx512_fp16"], "made_up", "avx10_2", "+avx10.2", FAMILY.name)
    FAMILIES["int8_int32"] = (FAMILY, *families)
    NANOKERNELS[FAMILY.name] = Bytes512
    yield row
    del ISAS[row.name], NANOKERNELS[FAMILY.name]
    FAMILIES["int8_int32"] = families


def test_instruction_set(isa: ISA) -> None:
    """From a problem by way of the planner to the instruction."""
    cpu = nkblas.cpu._replace(isa=isa)
    plans = ranked_plans(Problem("int8_int32", 256, 256, 256), cpu, 1000)
    plan = next(plan for plan in plans if plan.schedule.family == FAMILY.name)
    assert plan.isa is isa
    listing = emit.asm(plan.kernels[0])
    assert "vpdpbssd\tzmm" in listing
    assert isa.row_of("fma") is ISAS["avx512"]  # other kernels are those of the rows below


@pytest.fixture
def cube() -> Iterator[str]:
    """A made-up activation."""
    ACTIVATIONS["cube"] = Activation(lambda x, low, high: x * x * x, is_exact=True)
    ACTIVATION_CODE["cube"] = ActivationCode(
        lambda x, bounds: ir.mul(ir.mul(x, x), x), is_long=False
    )
    yield "cube"
    del ACTIVATIONS["cube"], ACTIVATION_CODE["cube"]


def test_activation(cube: str) -> None:
    """To a kernel that runs, and does what its reference does."""
    epilogue = Epilogue(bias="columns", activation=cube)
    assert parse("columns+cube") == epilogue == Epilogue.from_code(epilogue.code)
    spec = Microkernel(nkblas.cpu.isa.base.name, "float32", 4, 16, "row", epilogue=str(epilogue))
    address, _engine = pipeline.in_memory(spec)
    verify.check(spec, address)
    x = np.array([[1.0, -2.0]], np.float32)
    np.testing.assert_array_equal(nkblas.gemm(x, np.eye(2, dtype="f"), activation=cube), x**3)


def test_activations_have_room_for_a_code() -> None:
    """One too many is noticed, and does not become another flag."""
    names = [f"made_up_{i}" for i in range(256)]
    ACTIVATIONS.update(dict.fromkeys(names, ACTIVATIONS["relu"]))
    try:
        with pytest.raises(ValueError, match="at most 8 bits"):
            _ = Epilogue(activation=names[-1]).code
    finally:
        for name in names:
            del ACTIVATIONS[name]
