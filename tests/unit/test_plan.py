"""How plans divide a problem, and the engine's loops under plans the model would not select."""

import os
import re
from itertools import product
from typing import Any, Literal, get_args
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ENGINE_SOURCES

import nkblas
from nkblas._engine import ffi, lib
from nkblas.base.dtypes import DTYPES, ITEMSIZE, PRODUCT_CODE, PRODUCTS, QUANTIZED
from nkblas.base.epilogues import KINDS
from nkblas.base.families import Family, families, row_of
from nkblas.base.problem import Problem
from nkblas.base.tiling import split_evenly, split_with_edge
from nkblas.codegen.spec import Stream
from nkblas.planning import plan as plan_module
from nkblas.planning.cost_model import cheapest_plan, ranked_plans
from nkblas.planning.plan import MAX_KEPT_PANELS, Plan, base_plan, base_tile, make_plan
from nkblas.planning.schedule import MAX_STREAM_ROWS, Schedule
from nkblas.runtime import abi
from nkblas.runtime.kernels import kernels

lengths = st.integers(1, 5000)


@given(lengths, st.integers(1, 64))
def test_split_evenly(length: int, most: int) -> None:
    tile, main_tiles, edge_tile, tiles = split_evenly(length, most)
    assert main_tiles * tile + (tiles - main_tiles) * edge_tile == length
    assert 0 < main_tiles <= tiles == -(-length // most)
    assert tile <= most


@given(lengths, st.integers(1, 64))
def test_split_with_edge(length: int, tile: int) -> None:
    _, main_tiles, edge_tile, tiles = split_with_edge(length, tile)
    assert main_tiles * tile + edge_tile == length
    assert tiles == main_tiles + (edge_tile > 0)
    assert edge_tile < tile


def integer_matrix(shape: tuple[int, int], layout: str, seed: int, dtype: str) -> np.ndarray:
    """A matrix of small integers in the given layout."""
    m, n = shape
    whole = np.random.default_rng(seed).integers(-9, 10, (2 * m, 3 * n))
    if dtype == "bool":
        whole = whole > 4
    view = whole.astype(NUMPY.get(dtype, dtype))[::2, ::3]
    if layout == "strided":
        return view
    return np.array(view, order="C" if layout == "row" else "F")


NUMPY = {"bfloat16": ml_dtypes.bfloat16}


def run(
    plan: Plan,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    alpha_beta: tuple[float, float] = (1, 0),
) -> None:
    """Run a plan on the engine, on one thread."""
    alpha, beta = alpha_beta
    fields = ffi.new(
        "nk_call_args *", {"alpha": alpha, "beta": beta, "a_imag_sign": 1, "c_imag_sign": 1}
    )

    def matrix(x: np.ndarray) -> tuple[Any, int, int]:
        rs, cs = (stride // x.itemsize for stride in x.strides)
        return (ffi.cast("char *", x.ctypes.data), rs, cs)

    c_plan = abi.plan_to_c(plan, kernels.load(plan.kernels))
    assert lib.nk_run_plan(c_plan, matrix(a), matrix(b), matrix(c), 1, (0, 0, 0), fields[0], 1) == 1


Layout = Literal["row", "col", "strided"]
LAYOUTS = st.sampled_from(get_args(Layout))
EPILOGUE = {(1, 0): "", (1, 1): "add"}  # by alpha and beta; "scale" for all others
DTYPES_AND_FAMILIES = [
    (dtype, found)
    for dtype in PRODUCTS
    if dtype not in QUANTIZED  # test_quantized.py has them
    for found in families(dtype, nkblas.cpu.isa)
]
EMULATED = os.environ.get("EMULATED_ISA")  # test_isas runs this module on ISAs that the CPU lacks
if EMULATED:
    DTYPES_AND_FAMILIES = [
        pair for pair in DTYPES_AND_FAMILIES if pair[1].name in nkblas.cpu.isa.families
    ]


@settings(deadline=None, max_examples=60 if EMULATED else 300, derandomize=True)
@given(
    dtype_and_family=st.sampled_from(DTYPES_AND_FAMILIES),
    m=st.integers(1, 60) | st.integers(61, 250),
    n=st.integers(1, 120),
    k=st.integers(1, 40) | st.integers(1, 10).map(lambda steps: 16 * steps),
    a=LAYOUTS,
    b=LAYOUTS,
    c=st.sampled_from(["row", "strided"]),
    pack=st.tuples(st.booleans(), st.booleans()),
    blocks=st.tuples(st.integers(1, 40), st.integers(1, 250), st.integers(1, 90)),
    ir_outside=st.booleans(),
    as_large=st.booleans(),
    alpha_beta=st.sampled_from([(1, 0), (1, 1), (-2, 0), (3, 1), (-1, 2)]),
)
def test_any_plan_is_right(
    dtype_and_family: tuple[str, Family],
    m: int,
    n: int,
    k: int,
    a: Layout,
    b: Layout,
    c: Layout,
    pack: tuple[bool, bool],
    blocks: tuple[int, int, int],
    ir_outside: bool,
    as_large: bool,
    alpha_beta: tuple[int, int],
) -> None:
    """Many cache blocks, both loop orders, each operand packed or in place, every family.

    Panels are kept and packed as those of small operands are, or of large ones.
    """
    dtype, family = dtype_and_family
    types = PRODUCTS[dtype]
    if DTYPES[types.c].kind in ("integer", "bool"):
        alpha_beta = (1, min(alpha_beta[1], 1))
    problem = Problem(dtype, m, n, k, a, b, c, EPILOGUE.get(alpha_beta, "scale"))
    isa = row_of(family, nkblas.cpu.isa)
    mr, nr = base_tile(isa, family)
    kc, mc, nc = blocks
    ir_outside |= family.tile_rows > 0
    schedule = Schedule("tiles", mr, nr, kc, mc, nc, *pack, ir_outside, family=family.name)
    if schedule.infeasible_reason(problem, nkblas.cpu):
        schedule = schedule._replace(pack_a=True, pack_b=True)
    if schedule.infeasible_reason(problem, nkblas.cpu):  # the mask of an edge takes a register
        schedule = schedule._replace(mr=mr - 1)
    plan = make_plan(problem, nkblas.cpu, schedule)
    x, y = integer_matrix((m, k), a, 0, types.a), integer_matrix((k, n), b, 1, types.b)
    whole = np.full((m, 2 * n), 77).astype(NUMPY.get(types.c, types.c))
    out = whole[:, ::2] if c == "strided" else whole[:, :n]
    alpha, beta = alpha_beta
    exact = alpha * (x.astype(complex) @ y.astype(complex))  # exact for small integers
    if beta:
        before = integer_matrix((m, n), c, 2, types.c)
        exact += beta * before.astype(complex)
        out[...] = before
    else:
        out[...] = np.frombuffer(b"\xff" * out.itemsize, out.dtype)[0]  # NaN; it is not read
    plan = plan._replace(has_b_conflicts=as_large)
    with patch.object(plan_module, "MAX_KEPT_PANELS", 0 if as_large else MAX_KEPT_PANELS):
        run(plan, x, y, out, alpha_beta)
    if types.c == "bool":
        expected = exact != 0
    elif DTYPES[types.c].kind == "integer":
        expected = exact.real.astype(np.int64).astype(types.c)
    else:
        part = exact if DTYPES[types.c].kind == "complex" else exact.real
        expected = part.astype(NUMPY.get(types.c, types.c))
    assert np.array_equal(out, expected), plan
    out[...] = np.array(77).astype(whole.dtype)
    assert (whole == np.array(77).astype(whole.dtype)).all()  # nothing else was written


@pytest.mark.parametrize("layouts", list(product(("row", "col"), repeat=2)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_of_small_sizes(dtype: str, layouts: tuple[str, str]) -> None:
    """Those of the base plan, whether operands are dense or not."""
    generator = np.random.default_rng(0)
    for m, n, k in [(2, 2, 2), (3, 3, 3), (4, 4, 4), (9, 3, 5), (7, 5, 8), (8, 8, 8), (17, 21, 33)]:
        best = cheapest_plan(Problem(dtype, m, n, k, *layouts), nkblas.cpu)
        base = base_plan(best, nkblas.cpu)
        assert best.small()
        assert base
        assert not base.small()
        orders = ["C" if layout == "row" else "F" for layout in layouts]
        shapes = (m, k), (k, n)
        dense = [
            np.array(generator.standard_normal(shape), dtype, order=order)
            for shape, order in zip(shapes, orders, strict=True)
        ]
        padded = [
            np.empty((x.shape[0] + 1, x.shape[1] + 1), dtype, o)
            for x, o in zip(dense, orders, strict=True)
        ]
        for x, y in zip(dense, padded, strict=True):
            y[:-1, :-1] = x
        found = set()
        for plan, (a, b) in product((best, base), (dense, [y[:-1, :-1] for y in padded])):
            c = np.empty((m, n), dtype)
            run(plan, a, b, c)
            found.add(c.tobytes())
        assert len(found) == 1, f"{m}x{n}x{k}"


@pytest.mark.parametrize("epilogue", KINDS)
@pytest.mark.parametrize(
    "shape",
    [(50, 60, 70), (300, 200, 1500), (3, 500, 70), (1, 700, 1100), (90, 700, 3), (80, 600, 8)],
)
@pytest.mark.parametrize("dtype", ["float64", "complex64", "float16", "bfloat16"])
def test_plans_of_equal_bits(dtype: str, shape: tuple[int, int, int], epilogue: str) -> None:
    """Plans whose `Plan.bits` are equal have equal results, the base plan included."""
    problem = Problem(dtype, *shape, epilogue=epilogue)
    (m, n, k), generator = shape, np.random.default_rng(0)
    a, b, c = (
        generator.standard_normal(size).astype(NUMPY.get(dtype, dtype))
        for size in ((m, k), (k, n), (m, n))
    )
    found: dict[object, set[bytes]] = {}
    plans = list(ranked_plans(problem, nkblas.cpu, 6))
    base = base_plan(plans[0], nkblas.cpu)
    for plan in (*plans, *filter(None, [base])):
        out = c.copy()
        run(plan, a, b, out, {"": (1, 0), "add": (1, 1), "scale": (0.3, -0.7)}[epilogue])
        found.setdefault(plan.bits, set()).add(out.tobytes())
    assert len(found) <= len(plans)
    assert all(len(results) == 1 for results in found.values())


@pytest.mark.parametrize("k", range(1, 20))
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_streams_past_the_caches_write_c_once(dtype: str, k: int) -> None:
    """A second pass over C would load from memory what the first has stored there."""
    problem = Problem(dtype, 4096, 8192, k)
    family = families(dtype, nkblas.cpu.isa)[0].name
    for rows in range(1, MAX_STREAM_ROWS + 1):
        schedule = Schedule("stream", rows, 256, k, 4096, 8192, family=family, prefetch=True)
        for kernel in make_plan(problem, nkblas.cpu, schedule).kernels:
            if isinstance(kernel, Stream) and kernel.nontemporal:
                assert kernel.kr == k


TABLES = ENGINE_SOURCES / "nk_tables.h"


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_engine_has_the_itemsizes(name: str) -> None:
    code = PRODUCT_CODE[name]
    assert code == getattr(lib, f"NK_{name.upper()}") < lib.NK_DTYPES
    row = re.search(rf"\[NK_{name.upper()}\] = {{{{(.*?)}}", TABLES.read_text())
    assert row
    assert row[1] == ", ".join(str(ITEMSIZE[part]) for part in PRODUCTS[name])


@pytest.mark.parametrize("layout", ["row", "col", "strided"])
def test_packed_blocks_are_bounded(layout: str) -> None:
    """A packed block is bounded however long the operand is."""
    bound = 2 * max(nkblas.cpu.l3, 8 << 20)
    for m, n in ((64, 10**7), (10**7, 64), (10**6, 10**6)):
        plan = cheapest_plan(Problem("float32", m, n, 1024, layout, layout), nkblas.cpu)
        # With ir outside, A has a buffer for a group of 8 panels, if all of A is not kept.
        a_tiles = 8 if plan.schedule.ir_outside else plan.m.block_tiles
        a_block = a_tiles * plan.m.tile * plan.kc
        if plan.keeps_a_panels:
            a_block = m * 1024
        b_block = plan.n.block_tiles * plan.n.tile * plan.kc
        elements = plan.schedule.pack_a * a_block + plan.schedule.pack_b * b_block
        assert 4 * elements <= bound
