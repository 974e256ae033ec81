"""Products with a few short rows or columns: points times matrices, and dots of any strides."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import COMPLEX, DTYPES, Array

import nkblas
from nkblas.base.families import families
from nkblas.base.problem import Problem
from nkblas.codegen.spec import Dot, DotStack, Stream
from nkblas.planning.cost_model import cheapest_plan
from nkblas.planning.plan import make_plan
from nkblas.planning.schedule import Schedule
from nkblas.runtime import plan_table
from nkblas.runtime.dispatch import available_plan
from nkblas.runtime.kernels import kernels
from nkblas.system.lock import planning_lock

ALL_DTYPES = (*DTYPES, *COMPLEX, "int32", "int64")


@pytest.fixture(autouse=True)
def default_threads() -> Iterator[None]:
    threads = nkblas.get_num_threads()
    yield
    nkblas.set_num_threads(threads)


def integers(*shape: int, dtype: str, seed: int = 0) -> Array:
    """Small integers, whose products and sums are exact in every dtype."""
    generator = np.random.default_rng(seed)
    values = generator.integers(-9, 10, shape).astype(dtype)
    return values + 1j * values[::-1] if dtype in COMPLEX else values


def exact(a: Array, b: Array) -> Array:
    """The product in integers, or in complex numbers of twice the precision."""
    wide: Any = np.complex128 if np.iscomplexobj(a) else np.int64
    return np.einsum("ik,kj->ij", a.astype(wide), b.astype(wide), optimize=False)


def with_leading_dimension(x: Array, gap: int) -> Array:
    """The same matrix in rows of a wider one, whose other elements are not numbers."""
    wide = np.full((x.shape[0], x.shape[1] + gap), np.nan if x.dtype.kind in "fc" else 99, x.dtype)
    wide[:, : x.shape[1]] = x
    return wide[:, : x.shape[1]]


@settings(deadline=None, max_examples=80)
@given(
    rows=st.sampled_from((65, 71, 72, 100, 203)),
    n=st.integers(1, 5),
    k=st.integers(1, 17),
    gap=st.sampled_from((0, 3)),
    is_b_transposed=st.booleans(),
    threads=st.sampled_from((1, 3)),
    dtype=st.sampled_from(ALL_DTYPES),
)
def test_points_times_a_matrix(
    rows: int, n: int, k: int, gap: int, is_b_transposed: bool, threads: int, dtype: str
) -> None:
    a, b = with_leading_dimension(integers(rows, k, dtype=dtype), gap), integers(k, n, dtype=dtype)
    b = np.asfortranarray(b) if is_b_transposed else b
    out = with_leading_dimension(np.zeros((rows, n), dtype), gap)
    nkblas.set_num_threads(threads)
    nkblas.matmul(a, b, out=out)
    vector = nkblas.matmul(a, b[:, 0])
    assert (out == exact(a, b)).all()
    assert (vector == exact(a, b[:, :1])[:, 0]).all()
    if gap:  # nothing is written between the rows
        unwritten = out.base[:, n:] if out.base is not None else out[:, n:]
        assert (np.isnan(unwritten) if unwritten.dtype.kind in "fc" else unwritten == 99).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3])
def test_bits_of_points_do_not_depend_on_strides(n: int, dtype: str) -> None:
    generator = np.random.default_rng(1)
    a = generator.standard_normal((203, 7)).astype(dtype)
    b = generator.standard_normal((7, n)).astype(dtype)
    dense = nkblas.matmul(a, b)
    wide = with_leading_dimension(a, 2)
    assert nkblas.matmul(wide, b).tobytes() == dense.tobytes()
    assert nkblas.matmul(a, with_leading_dimension(b, 4)).tobytes() == dense.tobytes()
    out = with_leading_dimension(np.zeros_like(dense), 5)
    assert nkblas.matmul(a, b, out=out).tobytes() == dense.tobytes()
    for i in (0, 8, 202):
        assert nkblas.matmul(a[i : i + 1].repeat(100, 0), b)[50].tobytes() == dense[i].tobytes()


@settings(deadline=None, max_examples=60)
@given(
    k=st.integers(1, 70),
    strides=st.tuples(*[st.sampled_from((-3, -1, 1, 2, 7))] * 2),
    dtype=st.sampled_from(ALL_DTYPES),
)
def test_dots_of_any_strides(k: int, strides: tuple[int, int], dtype: str) -> None:
    x, y = (
        integers(k * abs(stride), dtype=dtype, seed=i)[:: abs(stride)][:: 1 if stride > 0 else -1]
        for i, stride in enumerate(strides)
    )
    expected = exact(x[None], y[:, None])[0, 0]
    assert nkblas.matmul(x, y) == expected
    assert nkblas.dot(x, y) == expected
    assert nkblas.vdot(x, y) == exact(x.conj()[None], y[:, None])[0, 0]
    c = np.asarray([[2]], dtype)
    factors = {"beta": 1} if np.dtype(dtype).kind == "i" else {"alpha": -2, "beta": 3}
    scaled = factors.get("alpha", 1) * expected + factors["beta"] * 2
    assert nkblas.gemm(x[None], y[:, None], c, **factors)[0, 0] == scaled


def test_plan_of_a_strided_dot() -> None:
    x = np.ones(3000)
    plan = nkblas.explain(x[::3], x[1::3]).plan
    assert plan is not None
    kernel = plan.kernels[0]
    assert isinstance(kernel, Dot)
    assert kernel.a_strided
    assert kernel.b_strided


@settings(deadline=None, max_examples=40)
@given(
    m=st.integers(1, 3),
    n=st.sampled_from((1, 2, 5, 6, 7, 28, 40, 300)),
    k=st.sampled_from((17, 64, 129, 600)),
    dtype=st.sampled_from(ALL_DTYPES),
    beta=st.sampled_from((0, 1)),
    threads=st.sampled_from((1, 3)),
)
def test_few_rows_along_k(m: int, n: int, k: int, dtype: str, beta: int, threads: int) -> None:
    """Dots of several columns at once, where the last columns are fewer."""
    nkblas.set_num_threads(threads)
    a, b = integers(m, k, dtype=dtype), np.asfortranarray(integers(k, n, dtype=dtype))
    c = integers(m, n, dtype=dtype, seed=2)
    assert (nkblas.gemm(a, b, c, beta=beta) == exact(a, b) + beta * c).all()
    assert (
        nkblas.matmul(np.stack([a, a]), np.stack([b.T, b.T]).swapaxes(1, 2)) == exact(a, b)
    ).all()


@pytest.mark.parametrize("dtype", [*DTYPES, "int64"])
@pytest.mark.parametrize("k", [17, 31, 64, 65, 100, 256])
def test_stacks_of_dots_have_the_bits_of_single_ones(k: int, dtype: str) -> None:
    """The kernel for a length and the kernel for any length sum up in the same order."""
    generator = np.random.default_rng(k)
    a, b = ((9 * generator.standard_normal((50, k))).astype(dtype) for _ in range(2))
    problem = nkblas.explain(a[0], b[0]).problem
    assert problem is not None
    best = cheapest_plan(problem, nkblas.cpu)
    general = best._replace(interim=True)
    assert isinstance(best.small(), DotStack)
    assert general.small() is None
    results = []
    for plan in (general, best):
        with planning_lock():
            plan_table.insert(plan)
        results.append(nkblas.vecdot(a, b))
        results.append(np.array([nkblas.dot(x, y) for x, y in zip(a, b, strict=True)]))
    assert len({result.tobytes() for result in results}) == 1


def test_dot_of_a_new_length_compiles_no_kernel_for_it() -> None:
    """Until the kernel for the length is compiled, the one for any length serves."""

    def is_new(problem: Problem) -> bool:
        return not kernels.is_available(cheapest_plan(problem, nkblas.cpu).kernels[-1])

    problems = [Problem("float32", 1, 1, k, "row", "col") for k in range(18, 257)]
    plan = available_plan(next(filter(is_new, problems)))
    assert plan.interim
    assert plan.small() is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("k", [2, 8, 9, 100, 1003])
def test_dots_of_16_bit_floats(k: int, dtype: str) -> None:
    """They are summed up in float32 and rounded once."""
    generator = np.random.default_rng(k)
    x, y = (generator.integers(-9, 10, k).astype(dtype) for _ in range(2))
    exact_sum = int(x.astype(np.int64) @ y.astype(np.int64))
    plan = nkblas.explain(x, y).plan
    assert plan is not None
    assert plan.schedule.kind == "dot"
    assert nkblas.dot(x, y) == np.asarray(exact_sum).astype(dtype)
    assert nkblas.matmul(x, y, dtype=np.float32) == exact_sum
    c = np.asarray([[3]], dtype)
    expected = np.asarray(3 * exact_sum - 6).astype(dtype)
    assert nkblas.gemm(x[None], y[:, None], c, alpha=3, beta=-2)[0, 0] == expected
    stack = nkblas.vecdot(np.stack([x, y]), np.stack([y, y]))
    exact_sums = np.array([exact_sum, int((y.astype(np.int64) ** 2).sum())])
    assert (stack == exact_sums.astype(stack.dtype)).all()


@pytest.mark.parametrize("dtype", [*DTYPES, *COMPLEX])
@pytest.mark.parametrize("m", [65, 67, 69, 72, 97])
def test_rows_of_short_sums_have_equal_bits(m: int, dtype: str) -> None:
    """Equal rows give equal rows, also in the last tile; and products with itself are symmetric."""
    generator = np.random.default_rng(m)
    for k in range(1, 9):
        a = generator.standard_normal((m, k)).astype(dtype)
        b = generator.standard_normal((k, 101)).astype(dtype)
        a[:] = a[0]
        for x in (a, np.asfortranarray(a)):
            product = nkblas.matmul(x, b)
            assert (product == product[0]).all(), k
        x = np.asfortranarray(generator.standard_normal((m, k)).astype(dtype))
        product = nkblas.matmul(x, x.T)
        assert (product == product.T).all(), k


@settings(deadline=None, max_examples=300)
@given(
    m=st.integers(1, 40),
    n=st.integers(65, 90),
    k=st.integers(1, 20),
    mr=st.integers(1, 4),
    dtype=st.sampled_from((*DTYPES, *COMPLEX)),
)
def test_streams_sum_up_all_rows_alike(m: int, n: int, k: int, mr: int, dtype: str) -> None:
    problem = Problem(dtype, m, n, k)
    family = families(dtype, nkblas.cpu.isa)[0]
    nr = 16 * nkblas.cpu.isa.lanes(problem.itemsize)
    schedule = Schedule("stream", mr, nr, k, m, n, family=family.name)
    if not schedule.infeasible_reason(problem, nkblas.cpu):
        plan = make_plan(problem, nkblas.cpu, schedule)
        depths = {kernel.kr for kernel in plan.kernels if isinstance(kernel, Stream)}
        assert len(depths) == 1 or k < min(depths)
