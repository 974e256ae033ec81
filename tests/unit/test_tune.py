"""The tuner and `nkblas.warmup`: the search, plan files, and the progress bar."""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DTYPES, run

import nkblas
from nkblas.base.problem import Problem, parse
from nkblas.inspect import tune
from nkblas.inspect.benchmark import Benchmark, sample_of
from nkblas.inspect.progress import Progress
from nkblas.inspect.record import Recording
from nkblas.planning import cost_model
from nkblas.planning.measured_plans import Plans, from_text, machine, to_line
from nkblas.planning.plan import Plan, make_plan, without_duplicates
from nkblas.runtime import plan_table


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ("128x768x3072:f32", Problem("float32", 128, 768, 3072)),
        ("5x6x7:float64", Problem("float64", 5, 6, 7)),
        ("5x6x7:f64:crr", Problem("float64", 5, 6, 7, "col")),
        ("5x6x7:f64:scale", Problem("float64", 5, 6, 7, epilogue="scale")),
        ("5x6x7:f64:add", Problem("float64", 5, 6, 7, epilogue="add")),
        ("5x6x7:f32:ccr:scale", Problem("float32", 5, 6, 7, "col", "col", epilogue="scale")),
        ("5x6x7:f32:scs", Problem("float32", 5, 6, 7, "strided", "col", "strided")),
        ((5, 6, 7, "float32"), Problem("float32", 5, 6, 7)),
        ((5, np.int64(6), 7, np.float64), Problem("float64", 5, 6, 7)),
        (Problem("float32", 5, 6, 7), Problem("float32", 5, 6, 7)),
        ("5x1x7:f32", Problem("float32", 1, 5, 7, "row", "col")),  # a single column is transposed
    ],
)
def test_forms_of_a_problem(form: Any, problem: Problem) -> None:
    assert tune.to_problem(form) == problem
    assert tune.to_problem(str(problem)) == problem


@pytest.mark.parametrize(
    "form", ["", "5x6", "0x5x6:f32", "5x6x7:f128", "5x6x7:f32:rr", "ax6x7:f32"]
)
def test_invalid_texts(form: str) -> None:
    with pytest.raises(ValueError, match="expected MxNxK:DTYPE"):
        nkblas.warmup([form], progress=False)


@pytest.mark.parametrize("form", [3, None, object()])
def test_invalid_types(form: Any) -> None:
    with pytest.raises(TypeError, match="problems: got"):
        nkblas.warmup([form], progress=False)


def test_problems_are_canonical() -> None:
    for m, n, k in ((5, 6, 7), (1, 6, 7), (5, 1, 7), (1, 1, 7), (5, 6, 1), (1, 1, 1)):
        a, b = np.ones((m, k), "float32"), np.ones((k, n), "float32")
        assert tune.to_problem((m, n, k, "float32")) == nkblas.explain(a, b).problem


def test_lines_of_plan_files() -> None:
    for text in ("128x768x3072:f32", "1000x900x800:f64", "5x6x7:f32:ccs"):
        plan = next(cost_model.ranked_plans(parse(text), nkblas.cpu, 1))
        name, _, rest = to_line(plan).partition(" ")
        assert name == text
        again = from_text(parse(text), rest, nkblas.cpu)
        assert again.schedule == plan.schedule
        assert again.nanoseconds == pytest.approx(plan.nanoseconds, rel=0.01)
    for change, message in (
        (("mr=", "mr=9"), "needs too many registers"),
        (("kind=", "kind=x"), "kind: got x"),
        (("kc=", "kc=-"), "above 0"),
        ((" ns=", " n="), "expected name=number"),
    ):
        with pytest.raises(ValueError, match=message):
            from_text(parse(text), rest.replace(*change), nkblas.cpu)


class FakeBenchmark:
    """A benchmark with given times of plans, and random noise."""

    def __init__(self, times: dict[Plan, float], noise: float) -> None:
        self.times, self.noise = times, noise
        self.random = np.random.default_rng(0)

    def next_operands(self, plan: Plan) -> None:
        pass

    def seconds(self, plan: Plan) -> float:
        return self.times[plan] * self.random.uniform(1, 1 + self.noise)

    whole_seconds = seconds


def some_candidates() -> list[Plan]:
    ranked = cost_model.ranked_plans(Problem("float32", 500, 500, 500), nkblas.cpu, 20)
    return without_duplicates(ranked)


def test_the_fastest_candidate_wins() -> None:
    plans = some_candidates()
    for fastest in (0, 3, len(plans) - 1):
        times = dict.fromkeys(plans, 1.5) | {plans[fastest]: 1.0}
        benchmark: Any = FakeBenchmark(times, noise=0.02)
        ranked = tune.successive_halving(benchmark, plans, time.monotonic() + 60)
        assert ranked[0] == plans[fastest]
        winner = tune.confirm_winner(benchmark, plans[0], plans[fastest])
        assert winner.schedule == plans[fastest].schedule


def test_in_doubt_the_models_choice_stays() -> None:
    """Noise alone, however loud, does not replace it; nor does a plan that is not faster."""
    first, other = some_candidates()[:2]
    replaced = 0
    for noise in (0.0, 0.05, 0.5, 3.0) * 5:
        benchmark: Any = FakeBenchmark({first: 1.0, other: 1.0}, noise)
        replaced += tune.confirm_winner(benchmark, first, other).schedule != first.schedule
    assert replaced <= 2
    benchmark = FakeBenchmark({first: 1.0, other: 1.3}, noise=0.5)
    assert tune.confirm_winner(benchmark, first, other).schedule == first.schedule


@pytest.mark.parametrize("dtype", DTYPES)
def test_find_best(dtype: str) -> None:
    start = time.monotonic()
    plan = tune.find_best(Problem(dtype, 60, 70, 80), seconds=0.5)
    assert time.monotonic() - start < 10
    assert not plan.schedule.infeasible_reason(plan.problem, nkblas.cpu)
    assert 100 < plan.nanoseconds < 1e6  # 672,000 operations


LARGE_PROBLEMS = ("2501x2300x2100:f32", "2048x3000x2048:f64:ccr", "1700x5500x1900:f16")

CACHE_BLOCKS = ((200, 300, 300), (10_000, 10_000, 10_000), (100, 250, 10_000), (1500, 300, 10_000))
"""mc, kc, nc."""


def large_plans() -> list[Plan]:
    """Plans of large products with all loop orders, and few and many cache blocks."""
    plans = []
    for problem in map(parse, LARGE_PROBLEMS):
        for schedule in (plan.schedule for plan in cost_model.ranked_plans(problem, nkblas.cpu, 6)):
            for mc, kc, nc in CACHE_BLOCKS:
                changed = schedule._replace(mc=mc, kc=kc, nc=nc)
                for ir_outside in {schedule.ir_outside, True}:
                    changed = changed._replace(ir_outside=ir_outside)
                    if not changed.infeasible_reason(problem, nkblas.cpu):
                        plans.append(make_plan(problem, nkblas.cpu, changed))
    return plans


def test_parts_of_a_large_product() -> None:
    """Work, and blocks that are packed once, add up to those of the whole product."""
    sampled = 0
    for plan in large_plans():
        sample = sample_of(plan)
        if sample is None:
            continue
        sampled += 1
        for part in sample.parts:
            assert (part.tile, part.kc) == (plan.tile, plan.kc)
            assert part.schedule._replace(mc=0, nc=0, kc=0) == plan.schedule._replace(
                mr=part.m.tile, nr=part.n.tile, mc=0, nc=0, kc=0
            )
            assert part.problem.flops < plan.problem.flops
        first, second = (float(part.problem.flops) for part in sample.parts)
        assert sample.extrapolate((first, second)) == pytest.approx(plan.problem.flops, rel=0.12)
        fixed = 7e9  # a cost of each part that does not depend on its length, such as packing
        whole = sample.extrapolate((first + fixed, second + fixed))
        expected = plan.problem.flops + sample.repeats * fixed
        assert whole == pytest.approx(expected, rel=0.12)
    assert sampled > 15
    assert sample_of(make_plan(parse("900x900x900:f32"), nkblas.cpu, plan.schedule)) is None


def test_large_products_are_measured_by_parts() -> None:
    """In much less time than a product takes, and about right."""
    plan = cost_model.cheapest_plan(parse("2048x3000x2048:f32"), nkblas.cpu)
    benchmark = Benchmark(plan.problem)
    benchmark.seconds(plan)
    start = time.process_time()
    estimate = min(benchmark.seconds(plan) for _ in range(3))
    elapsed = time.process_time() - start
    wholes = [benchmark.whole_seconds(plan) for _ in range(3)]  # others may use the CPUs
    assert elapsed < 3 * wholes[0]
    assert 0.2 < estimate / min(wholes) < 5


WARMUP = """
    nkblas.warmup(["60x70x80:f32", (8, 9, 10, "float32")], progress=False, {options})
    stats = nkblas.stats()
    multiply((60, 70, 80), (8, 9, 10))
    plan = nkblas.explain(*operands(60, 70, 80)).plan
    report(origin=plan.origin, interim=plan.interim, compiled=stats["kernels_compiled"])
"""


def test_warmup(tmp_path: Path) -> None:
    """Products after it run tuned plans and compile nothing, in this process and the next one."""
    report, _ = run(WARMUP.format(options="seconds=0.5"), NKBLAS_CACHE_DIR=tmp_path)
    assert report["kernels_compiled"] == report["compiled"] > 0
    assert (report["origin"], report["interim"], report["fallbacks"]) == ("tuned", False, 0)
    (plan_file,) = tmp_path.glob("plans/*.txt")
    lines = plan_file.read_text()
    assert [line.split()[0] for line in lines.splitlines()] == ["60x70x80:f32", "8x9x10:f32"]

    report, _ = run(WARMUP.format(options="seconds=0.5"), NKBLAS_CACHE_DIR=tmp_path)
    assert report["kernels_compiled"] == 0
    assert report["origin"] == "tuned"
    assert plan_file.read_text() == lines  # nothing is measured again
    run(WARMUP.format(options="seconds=0.5, force=True"), NKBLAS_CACHE_DIR=tmp_path)
    assert plan_file.read_text().startswith(lines)
    assert len(plan_file.read_text().splitlines()) == 4


def test_warmup_without_tuning(tmp_path: Path) -> None:
    report, _ = run(WARMUP.format(options="tune=False"), NKBLAS_CACHE_DIR=tmp_path)
    assert report["kernels_compiled"] == report["compiled"] > 0
    assert (report["origin"], report["interim"]) == ("model", False)
    assert not list(tmp_path.glob("plans/*"))


def test_an_interrupted_warmup_continues(tmp_path: Path) -> None:
    program = """
    from nkblas.inspect import tune
    original, started = tune.find_best, []

    def find_best(problem, seconds):
        started.append(str(problem))
        if len(started) == 2 and {interrupted}:
            raise KeyboardInterrupt
        return original(problem, seconds)

    tune.find_best = find_best
    try:
        tune.warmup(["5x6x7:f32", "6x7x8:f32", "7x8x9:f32"], progress=False, seconds=0.2)
    except KeyboardInterrupt:
        pass
    report(started=started)
    """
    first, _ = run(program.format(interrupted=True), NKBLAS_CACHE_DIR=tmp_path)
    assert first["started"] == ["5x6x7:f32", "6x7x8:f32"]
    second, _ = run(program.format(interrupted=False), NKBLAS_CACHE_DIR=tmp_path)
    assert second["started"] == ["6x7x8:f32", "7x8x9:f32"]


def test_warmup_of_a_recording() -> None:
    a = np.ones((9, 8), "float32")
    with nkblas.record() as shapes:
        nkblas.matmul(a, a.T)
    assert isinstance(shapes, Recording)
    nkblas.warmup(shapes, tune=False, progress=False)
    assert (
        plan_table.plans_in_table[
            Problem("float32", 9, 9, 8, "row", "col", structure="symmetric")
        ].interim
        is False
    )


def test_tuned_plans_come_before_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem("float32", 60, 70, 80)
    one, two = list(cost_model.ranked_plans(problem, nkblas.cpu, 2))
    monkeypatch.setenv("NKBLAS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("nkblas.planning.measured_plans.shipped_folder", lambda: str(tmp_path))
    plans = Plans()
    assert plans.find(problem, nkblas.cpu) is None
    (tmp_path / f"{machine(nkblas.cpu)}.txt").write_text(f"# shipped\n{to_line(one)}")
    found = Plans().find(problem, nkblas.cpu)
    assert found is not None
    assert (found.origin, found.schedule) == ("shipped", one.schedule)
    plans = Plans()
    plans.save(two, nkblas.cpu)
    for reader in (plans, Plans()):
        found = reader.find(problem, nkblas.cpu)
        assert found is not None
        assert (found.origin, found.schedule) == ("tuned", two.schedule)


def test_the_model_is_fast() -> None:
    """The benchmarks test how good its plans are."""
    problems = [Problem("float32", m, 300, 200) for m in range(1, 101)]
    cost_model.cheapest_plan(problems[0], nkblas.cpu)
    times = []
    for problem in problems:
        start = time.perf_counter()
        cost_model.cheapest_plan(problem, nkblas.cpu)
        times.append(time.perf_counter() - start)
    assert sorted(times)[50] < 2e-3  # ten times as long as it takes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress() -> None:
    for stream, writes in ((io.StringIO(), 2), (Terminal(), 5)):
        with Progress("plans", 4, True, stream) as progress:
            for step in range(4):
                progress.step(f"step {step}")
        text = stream.getvalue()
        assert text.count("plans") == writes
        assert "4/4" in text
        assert "step 3" in text
    for is_shown, total in ((False, 3), (True, 0)):
        stream = io.StringIO()
        with Progress("plans", total, is_shown, stream) as progress:
            progress.step()
        assert stream.getvalue() == ""
