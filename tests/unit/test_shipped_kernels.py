"""Kernels that are installed with the package: which they are, and that nothing else is needed."""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import run

import nkblas
from nkblas.base.dtypes import PRODUCTS, QUANTIZED
from nkblas.base.families import families
from nkblas.base.problem import Layout, Problem
from nkblas.cache import shipped
from nkblas.cache.shipped import MANIFEST, ShippedKernels, library_name
from nkblas.codegen.spec import DotStack, KernelSpec, Small, Stream
from nkblas.planning.cost_model import cheapest_plan, ranked_plans
from nkblas.planning.plan import base_plan
from nkblas.planning.shipped_kernels import (
    INEXACT_DTYPES,
    LAYOUTS,
    TYPICAL_CPUS,
    shipped_kernels,
)
from nkblas.system import config
from nkblas.system.cpu import CPU
from release import kernels as release_kernels

SIDE = 6
"""The side of the matrices whose kernels are made here."""

ISA = nkblas.cpu.isa.base


@pytest.fixture(scope="module")
def specs() -> list[KernelSpec]:
    """The kernels that are shipped for the CPU's registers."""
    return shipped_kernels(ISA)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of a package with a few of them, made as all are."""
    plan = cheapest_plan(Problem("float32", SIDE, SIDE, SIDE), nkblas.cpu)
    patch = pytest.MonkeyPatch()
    patch.setattr(release_kernels, "shipped_kernels", lambda isa: list(plan.kernels))
    patch.setattr(config, "MAY_USE_SHIPPED_KERNELS", True)
    path = tmp_path_factory.mktemp("package")
    options = argparse.Namespace(folder=path, dtype=[], processes=1)
    digests = release_kernels.make(ISA, options)
    manifest = {"sources": shipped.sources_hash(), "libraries": digests}
    (path / MANIFEST).write_text(json.dumps(manifest))
    yield path
    patch.undo()


def spec_of(folder: Path) -> KernelSpec:
    """A kernel in the folder."""
    plan = cheapest_plan(Problem("float32", SIDE, SIDE, SIDE), nkblas.cpu)
    assert (folder / library_name(plan.kernels[0])).exists()
    return plan.kernels[0]


def test_symbols_are_unique(specs: list[KernelSpec]) -> None:
    """A library finds its kernels by them."""
    assert len({spec.symbol for spec in specs}) == len(specs)


@pytest.mark.skipif(not ISA.fused, reason="base kernels alone are shipped for this instruction set")
@pytest.mark.parametrize(
    "cpu", [*TYPICAL_CPUS, nkblas.cpu], ids=lambda cpu: cpu.brand or cpu.vendor
)
def test_plans_of_any_size_need_no_compiler(specs: list[KernelSpec], cpu: CPU) -> None:
    """Except kernels for one size alone, and non-temporal stores: tiles have the same bits."""
    cpu = cpu._replace(isa=ISA)
    generator, found = random.Random(0), set(specs)
    lengths = [*range(1, 40), 50, 63, 64, 100, 127, 300, 511, 1000, 2048]
    layouts: list[Layout] = list(LAYOUTS)
    missing = set()
    for _ in range(1500):
        m, n, k = generator.choices(lengths, k=3)
        a, b = generator.choices(layouts, k=2)
        problem = Problem(generator.choice(INEXACT_DTYPES), m, n, k, a, b)
        for plan in ranked_plans(problem, cpu, 1):
            needed = plan._replace(interim=True).kernels
            missing |= {
                spec.symbol
                for spec in needed
                if not isinstance(spec, Small | DotStack)
                and not (isinstance(spec, Stream) and spec.nontemporal)
                and spec not in found
            }
    assert not missing


@pytest.mark.parametrize("dtype", [name for name in PRODUCTS if name not in QUANTIZED])
def test_base_plans_need_no_compiler(dtype: str, specs: list[KernelSpec]) -> None:
    """Those of the instruction families that this CPU has, in the libraries of their sets."""
    rows = {ISA.name: specs}
    for family in families(dtype, nkblas.cpu.isa):
        plans = (
            plan
            for plan in ranked_plans(Problem(dtype, 300, 200, 100), nkblas.cpu, 200)
            if plan.family == family
        )
        plan = next(plans, None)
        base = base_plan(plan, nkblas.cpu) if plan else None
        for spec in base.kernels if base else ():
            if spec.isa not in rows:
                row = next(row for row in (nkblas.cpu.isa, plan.isa) if row.name == spec.isa)
                rows[spec.isa] = shipped_kernels(row)
            assert spec in rows[spec.isa], spec.symbol


def test_libraries_are_found(folder: Path) -> None:
    assert ShippedKernels(str(folder)).find(spec_of(folder))


@pytest.mark.parametrize("damage", ["library", "absent", "sources", "manifest", "empty"])
def test_damaged_libraries_count_as_absent(folder: Path, tmp_path: Path, damage: str) -> None:
    spec = spec_of(folder)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    library, manifest = tmp_path / library_name(spec), tmp_path / MANIFEST
    if damage == "library":
        content = bytearray(library.read_bytes())
        content[len(content) // 2] ^= 1
        library.write_bytes(content)
    elif damage == "absent":
        library.unlink()
    elif damage == "sources":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sources": "0"}))
    else:
        manifest.write_text("" if damage == "empty" else '{"libraries": 3}')
    assert ShippedKernels(str(tmp_path)).find(spec) is None


@pytest.mark.parametrize("jit", ["first-call", "never"])
def test_a_cold_process_compiles_nothing(folder: Path, tmp_path: Path, jit: str) -> None:
    """With no folder that it could write to."""
    program = f"""
        from nkblas.cache.shipped import ShippedKernels
        from nkblas.runtime.kernels import kernels
        kernels._shipped = ShippedKernels({str(folder)!r})
        multiply(({SIDE}, {SIDE}, {SIDE}))
        report()
    """
    changes = {"NKBLAS_JIT": jit, "NKBLAS_SHIPPED_KERNELS": 1, "NKBLAS_CACHE_DIR": tmp_path / "x"}
    (tmp_path / "x").write_text("a file, where a folder would be")
    stats, errors = run(program, **changes)
    assert (stats["kernels_compiled"], stats["fallbacks"], errors) == (0, 0, "")
    assert stats["kernels_loaded"] > 0


def test_without_mlir(tmp_path: Path) -> None:
    """NumPy does what needs a kernel that is not shipped; no process is started to compile it."""
    program = """
        from nkblas.codegen import compiler_client
        from nkblas.runtime import kernels
        kernels.toolchain = lambda: ""
        compiler_client.Server.start = None  # not called
        multiply((30, 40, 50))
        a, b = operands(30, 40, 50)
        print(nkblas.explain(a, b), file=sys.stderr)
        report()
    """
    stats, errors = run(program, NKBLAS_CACHE_DIR=tmp_path)
    assert stats["fallbacks"] > 0
    assert stats["kernels_compiled"] == 0
    assert "mlir is not installed" in errors
