"""Plans that the engine applies to all sizes of a class are those that the planner would select."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Array, integers

import nkblas
from nkblas._engine import ffi, lib
from nkblas.base.isa import ISAS
from nkblas.base.problem import Problem
from nkblas.planning import cost_model
from nkblas.runtime import abi, dispatch, plan_table
from nkblas.runtime.kernels import kernels
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock

SIZES = st.integers(17, 700)


def test_classes_are_intervals() -> None:
    """Each class has the sizes up to its largest one, but for those that are alone."""
    largest = [lib.nk_size_class(size) for size in range(1, 5000)]
    for size, of_class in enumerate(largest, 1):
        assert size <= of_class <= 1.25 * size
        assert lib.nk_size_class(of_class) == of_class
        is_alone = size <= 32 or size % 32 == 0
        assert is_alone == (largest.count(size) == 1 and of_class == size)
    shared = [x for x in largest if x % 32 and x > 32]
    assert shared == sorted(shared)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([x for x in ISAS if x in ("avx2", "avx512")]), SIZES, SIZES, st.data())
def test_schedules_of_a_class_are_equal(isa: str, n: int, k: int, data: st.DataObject) -> None:
    """The planner selects one schedule for all sizes of a class, and the same kernels."""
    b = data.draw(st.sampled_from(("row", "col")))
    m = data.draw(st.integers(1, 16))
    dtype = data.draw(st.sampled_from(("float32", "float64", "complex64")))
    machine = cpu._replace(isa=ISAS[isa])
    problem = Problem(dtype, m, n, k, b=b)
    plan = cost_model.cheapest_plan(problem, machine)
    for size in plan.sizes_in_classes:
        own = getattr(problem, size)
        last = lib.nk_size_class(own)
        members = [x for x in range(own // 2, last + 1) if lib.nk_size_class(x) == last]
        other = problem._replace(**{size: data.draw(st.sampled_from(members))})
        other_plan = cost_model.cheapest_plan(other, machine)
        assert other_plan.schedule == plan.schedule
        assert other_plan.kc == other.k
        assert set(other_plan.kernels) == set(plan.kernels)
        assert size in other_plan.sizes_in_classes


@pytest.mark.parametrize("b", ["row", "col"])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_engine_divides_as_the_planner(b: str, m: int, dtype: str) -> None:
    """What the engine makes of the plan of a class is the plan that the planner would insert."""
    found = 0
    for (n, k), (more_n, more_k) in itertools.product(
        [(80 + 1, 70), (64, 97), (200, 300), (333, 64)], [(0, 0), (5, 0), (0, 7), (2, 0)]
    ):
        first = Problem(dtype, m, n, k, b=b)  # type: ignore[arg-type]
        other = first._replace(n=n + more_n, k=k + more_k)
        with planning_lock():
            lib.nk_table_clear()
            plan_table.plans_in_table.clear()
            kernels.load(cost_model.cheapest_plan(first, cpu).kernels)
            dispatch.insert_available_plan(first)
            similar = ffi.new("nk_plan *")
            entry = lib.nk_find_similar(abi.problem_to_c(other), similar)
            if entry == ffi.NULL:
                continue
            found += 1
            plan = cost_model.cheapest_plan(other, cpu)
            expected = abi.plan_to_c(plan, kernels.load(plan.kernels))
        for x, y in ((similar.n, expected.n), (similar.m, expected.m)):
            fields = ("tile", "main_tiles", "edge_tile", "tiles", "block_tiles")
            assert [getattr(x, f) for f in fields] == [getattr(y, f) for f in fields]
        assert (
            ffi.buffer(ffi.addressof(similar, "problem"))[:]
            == (ffi.buffer(ffi.addressof(expected, "problem"))[:])
        )
        assert (similar.kc, similar.is_memory_bound) == (expected.kc, expected.is_memory_bound)
        assert (similar.spans_columns, similar.ir_outside) == (
            expected.spans_columns,
            expected.ir_outside,
        )
        for i, j in itertools.product((0, 1), (0, 1)):
            kernel = expected.microkernel[i][j]
            assert kernel in (ffi.NULL, similar.microkernel[i][j], similar.microkernel[i][0])
        assert (similar.copy, similar.small) == (expected.copy, expected.small)
    assert found or m > 1


def test_growing_matrices_run_without_python() -> None:
    """Other sizes of a class need no Python, and have exact results."""
    vector = integers(1, 64, dtype="f")
    problems = Problem("float32", 1, 97, 64, b="col"), Problem("float32", 1, 64, 97)
    nkblas.warmup(problems, tune=False, progress=False)
    for size in (97, 99, 103, 107, 109):
        keys = integers(size, 64, dtype="f")
        scores, planned = missed(vector, keys.T)
        mixed, also_planned = missed(scores, keys)
        assert np.array_equal(scores, vector.astype(int) @ keys.T.astype(int))
        assert np.array_equal(mixed, scores.astype(int) @ keys.astype(int))
        assert size == 97 or not (planned or also_planned)


def missed(a: Array, b: Array) -> tuple[Array, bool]:
    """A product, and whether the engine asked for its plan."""
    functions: list[str] = []
    sys.setprofile(lambda frame, event, _: functions.append(frame.f_code.co_name))
    try:
        product = nkblas.matmul(a, b)
    finally:
        sys.setprofile(None)
    return product, "_handle_miss" in functions
