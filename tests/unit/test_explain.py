"""`nkblas.explain`, `nkblas.stats` and `nkblas.show_config`."""

from typing import Any

import numpy as np
import pytest
from support import DTYPES, Array, integers, run

import nkblas
from nkblas.inspect.explain import format_time


def ones(*shape: int, dtype: Any = "float32") -> Array:
    return np.ones(shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("a", "b", "problem"),
    [
        ((5, 6), (6, 7), (5, 7, 6)),
        ((3, 5, 6), (6, 7), (15, 7, 6)),  # a stack times one matrix is one product
        ((5, 6), (3, 6, 7), (5, 7, 6)),
        ((3, 5, 6), (3, 6, 7), (5, 7, 6)),
        ((3, 5, 6), (6,), (1, 15, 6)),
        ((6,), (6, 7), (1, 7, 6)),
        ((5, 6), (6,), (1, 5, 6)),  # the engine takes a vector for a row
        ((6,), (6,), (1, 1, 6)),
        ((300, 200), (200, 100), (300, 100, 200)),
    ],
)
def test_explain(
    a: tuple[int, ...], b: tuple[int, ...], problem: tuple[int, int, int], dtype: str
) -> None:
    found = nkblas.explain(ones(*a, dtype=dtype), ones(*b, dtype=dtype))
    assert found.backend == "nkblas"
    assert found.reason == ""
    assert found.problem is not None
    assert (found.problem.m, found.problem.n, found.problem.k) == problem
    assert found.problem.dtype == dtype
    assert found.plan is not None
    assert found.tile == found.plan.tile
    assert found.threads >= 1
    mr, nr = found.tile
    vectors = -(-nr // nkblas.cpu.isa.lanes(np.dtype(dtype).itemsize))
    assert found.plan.family.fits(nkblas.cpu.isa, mr, vectors)

    text = str(found)
    words = [found.backend, dtype, f"{mr}x{nr}", *found.kernels, "x".join(map(str, problem))]
    assert all(word in text for word in words), text


def test_explain_sees_layouts() -> None:
    a, b = ones(40, 50), ones(50, 60)
    problems = {
        nkblas.explain(*operands).problem
        for operands in ((a, b), (np.asfortranarray(a), b), (a, np.asfortranarray(b)))
    }
    assert len(problems) == 3


def test_explain_sees_a_matrix_times_itself() -> None:
    a = ones(300, 400)
    assert str(nkblas.explain(a, a.T).problem).startswith("symmetric_300x300x400")
    assert "lower triangle" in str(nkblas.explain(a.T, a))
    assert "lower triangle" not in str(nkblas.explain(a, a.T.copy()))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((40, 30), (30, 50)),
        ((40, 30), (30,)),
        ((30,), (30, 50)),
        ((4, 40, 30), (30, 50)),
        ((40, 30), (4, 30, 50)),
        ((4, 40, 30), (4, 30, 50)),
        ((2, 4, 40, 30), (4, 30, 50)),
        ((4, 40, 30), (30,)),
        ((30,), (4, 30, 50)),
        ((4, 1, 30), (1, 30, 50)),
    ],
)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_explain_agrees_with_record(
    a: tuple[int, ...], b: tuple[int, ...], is_transposed: bool
) -> None:
    x, y = ones(*a), ones(*b)
    if is_transposed:
        x, y = (z.swapaxes(-1, -2).copy().swapaxes(-1, -2) if z.ndim > 1 else z for z in (x, y))
    with nkblas.record() as shapes:
        nkblas.matmul(x, y)
    assert list(shapes) == [nkblas.explain(x, y).problem]


@pytest.mark.parametrize("dtype", ["object", "longdouble", "clongdouble"])
def test_explain_numpy(dtype: str) -> None:
    found = nkblas.explain(ones(3, 4, dtype=dtype), ones(4, 5, dtype=dtype))
    assert found.backend == "numpy"
    assert np.dtype(dtype).name in found.reason
    assert found.tile is None
    assert found.plan is None
    assert found.reason in str(found)


def test_explain_agrees_with_matmul() -> None:
    """On the backend of a product, for each pair of dtypes."""
    for x in "?bBHifdDegG":
        for y in "?bBHifdDegG":
            a, b = ones(3, 4, dtype=x), ones(4, 5, dtype=y)
            backend = nkblas.explain(a, b).backend
            before = nkblas.stats()["fallbacks"]
            nkblas.matmul(a, b)
            assert nkblas.stats()["fallbacks"] - before == (backend == "numpy"), x + y


def test_explain_accepts_operands_of_matmul() -> None:
    assert nkblas.explain([[1.0, 2.0]], [[3.0], [4.0]]).backend == "nkblas"
    assert nkblas.explain([[1, 2]], [[3], [4]]).backend == "nkblas"


@pytest.mark.parametrize(
    ("a", "b"),
    [(ones(2, 3), ones(2, 3)), (ones(2), ones(3)), (1.0, ones(2, 2)), (ones(2, 2), 1.0)],
)
def test_explain_refuses_operands_like_matmul(a: Any, b: Any) -> None:
    for function in (nkblas.matmul, nkblas.explain):
        with pytest.raises(ValueError, match="dimension"):
            function(a, b)


def test_explain_refuses_stacks_that_do_not_broadcast() -> None:
    for function in (nkblas.matmul, nkblas.explain):
        with pytest.raises(ValueError, match="broadcast"):
            function(ones(2, 2, 2), ones(3, 2, 2))


def test_explain_empty_operands() -> None:
    for shape_a, shape_b in (((0, 3), (3, 4)), ((3, 0), (0, 4)), ((3, 4), (4, 0))):
        found = nkblas.explain(ones(*shape_a), ones(*shape_b))
        assert found.backend == "nkblas"
        assert str(found)


def test_explain_has_no_effect(tmp_path: Any) -> None:
    """It compiles and multiplies nothing; it says where the kernels are before and after."""
    program = """
    a = np.ones((5, 6), "float32")
    b = np.ones((6, 7), "float32")
    before = str(nkblas.explain(a, b))
    stats = nkblas.stats()
    mlir = "mlir" in sys.modules
    nkblas.matmul(a, b)
    report(before=before, stats=list(stats.values()), mlir=mlir,
           after=str(nkblas.explain(a, b)))
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path)
    assert report["stats"] == [0, 0, 0, 0]
    assert not report["mlir"]
    assert report["before"] != report["after"]
    assert "nowhere" in report["before"]
    assert "nowhere" not in report["after"]
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path)
    assert "store" in report["before"]


def test_explain_rejected() -> None:
    """Other plans, the cheapest first."""
    found = nkblas.explain(ones(300, 200), ones(200, 100))
    assert found.plan is not None
    best = found.awaited or found.plan
    texts = [str(plan) for plan in (found.plan, best, *found.rejected)]
    assert len(found.rejected) == 3
    assert len(set(texts)) == 4 + (found.awaited is not None)
    times = [plan.nanoseconds for plan in found.rejected]
    assert times == sorted(times)
    assert best.nanoseconds <= times[0]
    assert {plan.problem for plan in found.rejected} == {found.problem}
    assert all(text in str(found) for text in texts)
    assert str(found).count("rejected") == 3


def test_explain_interim_plan(tmp_path: Any) -> None:
    """The best plan is awaited until it replaces the interim plan."""
    program = """
    import re
    from nkblas.planning import measured_plans
    from nkblas.runtime import dispatch
    a, b = operands(300, 100, 200)
    reports = []
    for step in (lambda: None, lambda: nkblas.matmul(a, b), lambda: improve((300, 100, 200))):
        step()
        found = nkblas.explain(a, b)
        best = measured_plans.best_known_plan(found.problem, nkblas.cpu)
        reports.append([found.plan == best, found.awaited == best, found.awaited is None,
                        "interim" in str(found), "awaited" in str(found)])
    report(reports=reports)
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path)
    interim = [False, True, False, True, True]
    assert report["reports"] == [interim, interim, [True, False, True, False, False]]


def test_explain_tuned(tmp_path: Any) -> None:
    """A measured plan, with its measured time; the model's best plan is rejected."""
    program = """
    from nkblas.planning import cost_model, measured_plans
    from nkblas.base.problem import parse
    problem = parse("300x100x200:f32")
    best, *others = cost_model.ranked_plans(problem, nkblas.cpu, 30)
    other = next(plan for plan in others if str(plan) != str(best))
    measured_plans.measured.save(other._replace(nanoseconds=4321.0), nkblas.cpu)
    improve((300, 100, 200))
    a, b = operands(300, 100, 200)
    found = nkblas.explain(a, b)
    report(origin=found.plan.origin, plan=str(found.plan), other=str(other), best=str(best),
           rejected=list(map(str, found.rejected)), text=str(found))
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path)
    assert report["origin"] == "tuned"
    assert report["plan"] == report["other"]
    assert f"4.32 us  {report['plan']} (tuned)" in report["text"]
    assert report["rejected"][0] == report["best"]
    assert report["plan"] not in report["rejected"]


def test_explain_with_jit_in_the_background(tmp_path: Any) -> None:
    """NumPy does the first product."""
    program = """
    a = np.ones((5, 6), "float32")
    found = nkblas.explain(a, a.T)
    nkblas.matmul(a, a.T)
    report(backend=found.backend, reason=found.reason)
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_JIT="background")
    assert report["fallbacks"] == 1
    assert report["backend"] == "numpy"
    assert "NKBLAS_JIT=background" in report["reason"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0.5, "0.5 ns"), (999.4, "999 ns"), (999.6, "1 us"), (12345, "12.3 us"), (7.3e6, "7.3 ms"),
     (2e9, "2 s"), (4e12, "4e+03 s")],
)  # fmt: skip
def test_format_time(nanoseconds: float, text: str) -> None:
    assert format_time(nanoseconds) == text


def test_explain_without_jit(tmp_path: Any) -> None:
    program = """
    a = np.ones((5, 6), "float32")
    before = nkblas.explain(a, a.T)
    nkblas.matmul(a, a.T)
    after = nkblas.explain(a, a.T)
    report(backends=[before.backend, after.backend], reasons=[before.reason, after.reason])
    """
    report, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_JIT="never")
    assert report["backends"] == ["numpy", "numpy"]
    assert all("NKBLAS_JIT=never" in reason for reason in report["reasons"])
    assert report["fallbacks"] == 1


def test_stats() -> None:
    before = nkblas.stats()
    assert set(before) == {"calls", "fallbacks", "kernels_compiled", "kernels_loaded"}
    nkblas.matmul(ones(2, 3, 4), ones(4, 5))
    nkblas.matmul(ones(2, 2, 3, 4, dtype="g"), ones(4, 5, dtype="g"))
    after = nkblas.stats()
    assert after["calls"] - before["calls"] == 2 + 4
    assert after["fallbacks"] - before["fallbacks"] == 4
    after["calls"] = -1
    assert nkblas.stats()["calls"] >= 0


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    a = integers(4, 4)
    nkblas.matmul(a, a)
    nkblas.show_config()
    text = capsys.readouterr().out
    assert all(word in text for word in (nkblas.__version__, nkblas.cpu.isa.name, np.__version__))
