"""A matrix times its own transpose: exactly symmetric, and the bits of the full product.

The full product is that of a copy with the same memory order, which shares no memory.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import COMPLEX, DTYPES, ORDERS, Array, Order

import nkblas
from nkblas.base.dtypes import PRODUCTS
from nkblas.base.families import families
from nkblas.base.problem import Problem, parse
from nkblas.planning.cost_model import cheapest_plan, ranked_plans
from nkblas.planning.measured_plans import TUNED, Plans, plan_file, to_line
from nkblas.planning.plan import Plan, make_plan
from nkblas.runtime import plan_table
from nkblas.system.lock import planning_lock

ALL_DTYPES = (*DTYPES, *COMPLEX, "float16", "int8", "uint16", "int32", "int64", "bool")

by_dtype = pytest.mark.parametrize("dtype", ALL_DTYPES)


@pytest.fixture(autouse=True)
def default_threads() -> Iterator[None]:
    threads = nkblas.get_num_threads()
    yield
    nkblas.set_num_threads(threads)


def random(*shape: int, dtype: str, order: Order = "C", seed: int = 0) -> Array:
    """Numbers whose sums depend on the order of summation; integers that wrap."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(shape) * (1 if "float" in dtype or "c" in dtype else 1000)
    if dtype in COMPLEX:
        values = values + 1j * generator.standard_normal(shape)
    integers = values.astype(np.int64) if "float" not in dtype and dtype not in COMPLEX else values
    return np.asarray(integers.astype(dtype), order=order)


def transposed_copy(a: Array) -> Array:
    """``a.T`` in other memory, with the same memory order."""
    return np.swapaxes(np.copy(a, order="K"), -1, -2)


def assert_same_bits(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def problem_of(a: Array, b: Array) -> Problem:
    problem = nkblas.explain(a, b).problem
    assert problem is not None
    return problem


# ---- bits ----


@by_dtype
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", [(2, 3), (17, 40), (65, 64), (97, 16), (131, 300), (260, 1100)])
def test_bits_are_those_of_the_full_product(
    size: tuple[int, int], threads: int, order: Order, dtype: str
) -> None:
    nkblas.set_num_threads(threads)
    a = random(*size, dtype=dtype, order=order)
    with np.errstate(over="ignore"):
        full = nkblas.matmul(a, transposed_copy(a))
        product = nkblas.matmul(a, a.T)
    assert_same_bits(product, full)
    assert_same_bits(product, product.T.copy())


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 140),
    k=st.integers(1, 300),
    order=st.sampled_from(ORDERS),
    dtype=st.sampled_from(("float32", "complex128", "int32")),
    seed=st.integers(0, 9),
)
def test_bits_of_any_size(m: int, k: int, order: Order, dtype: str, seed: int) -> None:
    a = random(m, k, dtype=dtype, order=order, seed=seed)
    product = nkblas.matmul(a, a.T)
    assert_same_bits(product, nkblas.matmul(a, transposed_copy(a)))
    assert (product == product.T).all()


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_integers_are_exact(dtype: str) -> None:
    a = random(150, 90, dtype=dtype)
    assert_same_bits(nkblas.matmul(a, a.T), np.matmul(a, transposed_copy(a)))


@pytest.mark.parametrize("view", ["reversed", "every second", "columns of a wider array"])
def test_strided_operands(view: str) -> None:
    wide = np.arange(150 * 400).reshape(150, 400) % 97 - 48
    a = {"reversed": wide[::-1, ::-1], "every second": wide[:, ::2]}.get(view, wide[:, 3:203])
    assert problem_of(a, a.T).structure == "symmetric"
    assert_same_bits(nkblas.matmul(a, a.T), np.matmul(a, transposed_copy(a)))


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("trans", [{"trans_a": 2}, {"trans_b": 2}])
@pytest.mark.parametrize("alpha", [1, -0.3])
def test_hermitian(alpha: float, trans: dict[str, int], order: Order, dtype: str) -> None:
    a = random(133, 140, dtype=dtype, order=order)
    a[3, :] = a[3, :].real  # imaginary parts of 0
    product = nkblas.gemm(a, a, alpha=alpha, **trans)
    assert_same_bits(product, nkblas.gemm(a, np.copy(a, order="K"), alpha=alpha, **trans))
    assert (product == product.conj().T).all()
    assert (product.diagonal().imag == 0).all()


def test_not_a_number_spreads_as_in_the_full_product() -> None:
    a = random(120, 50, dtype="float32")
    a[100, 3], a[7, 9] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(
            nkblas.matmul(a, a.T), nkblas.matmul(a, transposed_copy(a)), strict=True
        )


# ---- ways to call ----

CALLS: dict[str, Callable[[Array, Array], Any]] = {
    "matmul": nkblas.matmul,
    "dot": nkblas.dot,
    "inner": lambda a, b: nkblas.inner(a, b.T),
    "tensordot": lambda a, b: nkblas.tensordot(a, b, axes=1),
    "tensordot of axes": lambda a, b: nkblas.tensordot(a, b.T, axes=([1], [1])),
    "einsum": lambda a, b: nkblas.einsum("ik,kj->ij", a, b),
    "einsum, transposed": lambda a, b: nkblas.einsum("ik,jk->ij", a, b.T),
    "multi_dot": lambda a, b: nkblas.multi_dot([a, b, np.eye(len(a), dtype=a.dtype)]),
    "gemm": nkblas.gemm,
    "gemm, trans_b": lambda a, b: nkblas.gemm(a, b.T, trans_b=True),
    "gemm, trans_a": lambda a, b: nkblas.gemm(a.T, b, trans_a=True),
    "gemm, alpha and activation": lambda a, b: nkblas.gemm(a, b, alpha=-2, activation="relu"),
    "blas": lambda a, b: nkblas.blas.dgemm(1, a, b),
    "out": lambda a, b: nkblas.matmul(a, b, out=np.full((len(a), len(a)), np.nan)),
    "out in Fortran order": lambda a, b: nkblas.matmul(
        a, b, out=np.full((len(a), len(a)), np.nan, order="F")
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("order", ORDERS)
def test_ways_to_call(order: Order, name: str) -> None:
    """Each is recorded as a symmetric product, once, and gives the full product's bits."""
    a = random(90, 130, dtype="float64", order=order)
    with nkblas.record() as shapes:
        product = CALLS[name](a, a.T)
    assert [count for problem, count in shapes.items() if problem.structure == "symmetric"] == [1]
    with nkblas.record() as shapes:
        full = CALLS[name](a, transposed_copy(a))
    assert not any(problem.structure for problem in shapes)
    assert_same_bits(product, full)


def test_patched() -> None:
    a = random(90, 130, dtype="float64")
    with nkblas.patched(), nkblas.record() as shapes:
        products = [a @ a.T, np.dot(a, a.T), np.inner(a, a), np.einsum("ik,jk->ij", a, a)]
    assert {problem.structure for problem in shapes} == {"symmetric"}
    for product in products:
        assert_same_bits(product, nkblas.matmul(a, transposed_copy(a)))


@pytest.mark.parametrize("threads", [1, 3])
def test_stacks(threads: int) -> None:
    nkblas.set_num_threads(threads)
    a = random(6, 70, 80, dtype="float32")
    expected = np.stack([nkblas.matmul(x, transposed_copy(x)) for x in a])
    assert problem_of(a, np.swapaxes(a, 1, 2)).structure == "symmetric"
    assert_same_bits(nkblas.matmul(a, np.swapaxes(a, 1, 2)), expected)
    backwards = a[::-1]
    assert_same_bits(nkblas.matmul(backwards, np.swapaxes(backwards, 1, 2)), expected[::-1].copy())


def test_addends_that_are_not_symmetric() -> None:
    a, c = random(90, 130, dtype="float64"), random(90, 90, dtype="float64", seed=1)
    residual, bias = random(90, 90, dtype="float64", seed=2), random(90, dtype="float64", seed=3)
    for options in (
        {"c": c, "beta": 1},
        {"c": c, "beta": -0.5, "alpha": 2},
        {"residual": residual},
        {"bias": bias},
        {"bias": bias[:, None], "activation": "tanh"},
    ):
        with nkblas.record() as shapes:
            product = nkblas.gemm(a, a.T, **options)
        assert not any(problem.structure for problem in shapes)
        assert_same_bits(product, nkblas.gemm(a, transposed_copy(a), **options))


def test_operands_that_only_look_alike() -> None:
    memory = random(200, 200, dtype="float64")
    a = memory[:90, :90]
    others = {
        "not transposed": a,
        "one row further": memory[1:91, :90].T,
        "reversed": a[::-1].T,
        "other strides": memory.ravel()[: 90 * 90].reshape(90, 90).T,
    }
    for name, b in others.items():
        assert problem_of(a, b).structure == "", name
        np.testing.assert_allclose(nkblas.matmul(a, b), a.copy() @ b.copy(), rtol=1e-12, atol=1e-10)
    unsigned = np.arange(90 * 90, dtype=np.uint8).reshape(90, 90)
    signed = unsigned.view(np.int8)
    product = nkblas.matmul(unsigned, signed.T, dtype=np.int32)
    assert (product == unsigned.astype(np.int32) @ signed.T.astype(np.int32)).all()


def test_result_over_the_operand() -> None:
    a = random(120, 120, dtype="float64")
    expected = nkblas.matmul(a, transposed_copy(a))
    nkblas.matmul(a, a.T, out=a)
    assert_same_bits(a, expected)


# ---- plans ----


@pytest.mark.parametrize("dtype", [name for name in PRODUCTS if not name.startswith("q")][:12])
def test_plans_compute_a_triangle(dtype: str) -> None:
    """Large products compute little more than half of C, with the full product's bits."""
    # Tile registers take less time for half of a shallow product than mirroring does.
    has_tiles = any(family.tile_rows for family in families(dtype, nkblas.cpu.isa))
    k = 4096 if has_tiles else 300
    for problem in (Problem(dtype, 512, 512, k), Problem(dtype, 512, 512, k, "col")):
        symmetric = problem._replace(structure="symmetric")
        plan, full = (cheapest_plan(x, nkblas.cpu) for x in (symmetric, problem))
        assert plan.bits == full.bits
        assert 0.5 < plan.triangle_fraction < 0.62
        assert plan.nanoseconds < full.nanoseconds
        assert plan.mirror() in plan.kernels
        assert full.triangle_fraction == 1


def test_small_and_shallow_products_compute_all() -> None:
    for m, k in ((8, 8), (40, 40), (500, 3), (5, 5000)):
        plan = cheapest_plan(Problem("float64", m, m, k, structure="symmetric"), nkblas.cpu)
        assert plan.triangle_fraction == 1
        assert plan.mirror() is None


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int8", "float16"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_schedule_gives_the_same_matrix(order: Order, dtype: str) -> None:
    """Schedules of all loop orders, packed or not, in small blocks, on several threads."""
    a = random(150, 70, dtype=dtype, order=order)
    problem = problem_of(a, a.T)
    assert problem.structure == "symmetric"
    full = nkblas.matmul(a, transposed_copy(a))
    best = next(iter(ranked_plans(problem, nkblas.cpu, 1)))
    try:
        for plan in schedules_to_try(best):
            with planning_lock():
                plan_table.insert(plan)
            for threads in (1, 4):
                nkblas.set_num_threads(threads)
                product = nkblas.matmul(a, a.T)
                assert (product == product.T).all(), plan
                np.testing.assert_allclose(
                    product.astype(complex), full.astype(complex), rtol=2e-3, atol=1e-2
                )
    finally:
        with planning_lock():
            plan_table.insert(best)


def schedules_to_try(best: Plan) -> Iterator[Plan]:
    """Legal schedules around the best one, with several cache blocks in each dimension."""
    for pack_a in (False, True):
        for pack_b in (False, True):
            for ir_outside in (False, True):
                schedule = best.schedule._replace(
                    kc=32, mc=37, nc=50, pack_a=pack_a, pack_b=pack_b, ir_outside=ir_outside
                )
                if not schedule.infeasible_reason(best.problem, nkblas.cpu):
                    yield make_plan(best.problem, nkblas.cpu, schedule)


def test_text_of_problems() -> None:
    for text in ("symmetric_90x90x7:f32:rcr", "hermitian_90x90x7:c64:scale"):
        assert str(parse(text)) == text
    for text in ("symmetric_90x80x7:f32", "hermitian_sum_of_9x9x9:c64", "diagonal_9x9x9:f32"):
        with pytest.raises(ValueError, match="problem"):
            parse(text)


def test_tuned_plan_of_the_full_product_serves() -> None:
    symmetric = parse("symmetric_300x300x200:f64:rcr")
    full = symmetric._replace(structure="")
    *_, other = ranked_plans(full, nkblas.cpu, 5)
    line = to_line(other._replace(nanoseconds=1e6)).partition(" ")[2]
    plans = Plans()
    plans.layers[plan_file(nkblas.cpu, TUNED)] = {str(full): line}
    found = plans.find(symmetric, nkblas.cpu)
    assert found is not None
    assert (found.problem, found.schedule) == (symmetric, other.schedule)
    assert found.bits == other.bits
    assert found.nanoseconds == pytest.approx(1e6 * found.triangle_fraction)
    assert found.triangle_fraction < 1
