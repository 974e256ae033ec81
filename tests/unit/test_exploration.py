"""Plans that improve while a program runs: the decision of a trial, and what programs see of it."""

import math
from pathlib import Path

import numpy as np
import pytest
from support import run

import nkblas
from nkblas._engine import ffi, lib
from nkblas.base.problem import parse
from nkblas.planning import cost_model
from nkblas.planning.plan import Plan
from nkblas.runtime import exploration
from nkblas.runtime.abi import canonical

TRIALS = 1500
"""Simulated trials for each kind of noise."""


def won(ratio: float, noise: np.random.Generator, spread: float, outliers: float) -> bool:
    """Whether a challenger of this true time, over the present plan's, is kept; with noisy clocks.

    Each time has log-normal noise, and some times are several times as long.
    """
    trial = ffi.new("nk_trial *")
    while trial.verdict == lib.NK_UNDECIDED:
        times = np.exp(spread * noise.standard_normal(2))
        times *= np.where(noise.random(2) < outliers, 1 + 3 * noise.random(2), 1)
        lib.nk_trial_add(trial, float(ratio * times[0] / times[1]))
    return exploration.is_faster(trial)


@pytest.mark.parametrize(("spread", "outliers"), [(0.01, 0), (0.05, 0.02), (0.2, 0.1), (0.5, 0.3)])
def test_a_loser_is_never_kept(spread: float, outliers: float) -> None:
    noise = np.random.default_rng(0)
    for ratio in (1.03, 1.1, 1.3):
        kept = sum(won(ratio, noise, spread, outliers) for _ in range(TRIALS))
        assert kept <= 1, (ratio, kept)


def test_an_equal_plan_is_hardly_ever_kept() -> None:
    noise = np.random.default_rng(1)
    kept = sum(won(1.0, noise, 0.1, 0.05) for _ in range(TRIALS))
    assert kept < 0.01 * TRIALS


def test_a_winner_is_mostly_kept() -> None:
    noise = np.random.default_rng(2)
    assert sum(won(0.9, noise, 0.03, 0.02) for _ in range(200)) > 180
    assert sum(won(0.7, noise, 0.1, 0.05) for _ in range(200)) > 180


def test_a_much_slower_challenger_loses_at_once() -> None:
    trial = ffi.new("nk_trial *")
    lib.nk_trial_add(trial, 3.5)
    assert trial.verdict == lib.NK_LOST
    trial = ffi.new("nk_trial *")
    for _ in range(3):
        assert trial.verdict == lib.NK_UNDECIDED
        lib.nk_trial_add(trial, 1.1)
    assert trial.verdict == lib.NK_LOST


@pytest.mark.parametrize(
    "size", ["512x512x512:f32", "300x401x502:f64", "1024x96x700:f32:crr", "130x999x257:c64"]
)
def test_candidates_have_the_bits_of_the_plan(size: str) -> None:
    plan = cost_model.cheapest_plan(canonical(parse(size)), nkblas.cpu)
    found = exploration.candidates(plan)
    assert len(found) <= exploration.MAX_CANDIDATES
    assert plan not in found
    assert len(set(found)) == len(found)
    for candidate in found:
        assert candidate.bits == plan.bits
        assert candidate.nanoseconds <= exploration.MAX_RELATIVE_COST * plan.nanoseconds


def test_which_plans_are_explored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploration.config, "MAY_TUNE", True)
    plan = cost_model.cheapest_plan(parse("300x300x300:f32"), nkblas.cpu)
    products = exploration.products_until_exploration(plan)
    assert products == math.ceil(exploration.START_NS / plan.nanoseconds)

    def is_explored(changed: Plan) -> bool:
        return exploration.products_until_exploration(changed) > 0

    assert not is_explored(plan._replace(origin="tuned"))
    assert not is_explored(plan._replace(origin="shipped"))
    assert not is_explored(plan._replace(interim=True))
    assert not is_explored(plan._replace(nanoseconds=100.0))
    assert not is_explored(plan._replace(problem=plan.problem._replace(structure="symmetric")))
    monkeypatch.setattr(exploration.config, "MAY_TUNE", False)
    assert not is_explored(plan)


# The present plan calls a microkernel for each row; the only candidate is the model's choice, or
# the other way round. Both have one block of k, and so the same bits.
PROGRAM = """
from nkblas.base.problem import parse
from nkblas.planning import cost_model
from nkblas.planning.plan import make_plan
from nkblas.runtime import background, exploration, plan_table
from nkblas.runtime.kernels import kernels
from nkblas.system.lock import planning_lock

exploration.START_NS = 1e6
a, b = operands(240, 224, 96)
good = cost_model.cheapest_plan(nkblas.explain(a, b).problem, nkblas.cpu)
bad = make_plan(good.problem, nkblas.cpu, good.schedule._replace(mr=1, kc=good.kc))
bad = bad._replace(nanoseconds=good.nanoseconds)
assert bad.bits == good.bits
present, other = {order}
exploration.candidates = lambda plan: (other,)
with planning_lock():
    kernels.load([*good.kernels, *bad.kernels])
    plan_table.insert(present, tier_up_after=exploration.products_until_exploration(present))

expected = None
def multiply_often(seconds):
    global expected
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            c = nkblas.matmul(a, b)
            if expected is None:
                expected = c
            assert np.array_equal(c, expected)
        state = exploration._explorations.get(good.problem)
        if state and not state.challenger and not state.candidates:
            break
"""

REPORT = """
plan = plan_table.plans_in_table[good.problem]
state = exploration._explorations.get(good.problem)
report(is_good=plan.schedule == good.schedule, origin=plan.origin, explored=state is not None,
       spent=state.spent if state else 0, total=state.calls * present.nanoseconds if state else 1,
       text=str(nkblas.explain(a, b)))
"""


def test_a_better_plan_is_adopted_and_kept(tmp_path: Path) -> None:
    program = PROGRAM.replace("{order}", "bad, good") + "multiply_often(60)\n" + REPORT
    outcome, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=1, NKBLAS_NUM_THREADS=1)
    assert outcome["is_good"]
    assert outcome["origin"] == "tuned"
    assert "(tuned)" in outcome["text"]
    again = "a, b = operands(240, 224, 96)\nnkblas.matmul(a, b)\n"
    again += "report(origin=nkblas.explain(a, b).plan.origin)"
    later, _ = run(again, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=1)
    assert later["origin"] == "tuned"


def test_a_worse_plan_is_dropped(tmp_path: Path) -> None:
    program = PROGRAM.replace("{order}", "good, bad") + "multiply_often(60)\n" + REPORT
    outcome, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=1, NKBLAS_NUM_THREADS=1)
    assert outcome["is_good"]
    assert outcome["origin"] == "tuned"  # it is known to be better


def test_several_threads_explore_together(tmp_path: Path) -> None:
    body = """
threads = [threading.Thread(target=multiply_often, args=(30,)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    program = PROGRAM.replace("{order}", "bad, good") + body + REPORT
    outcome, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=1, NKBLAS_NUM_THREADS=2)
    assert outcome["fallbacks"] == 0
    assert outcome["explored"]


def test_nothing_is_explored_without_permission(tmp_path: Path) -> None:
    program = PROGRAM.replace("{order}", "bad, good") + "multiply_often(1)\n" + REPORT
    outcome, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=0)
    assert not outcome["explored"]
    assert not outcome["is_good"]
    assert outcome["origin"] == "model"


def test_a_child_explores_on_its_own(tmp_path: Path) -> None:
    body = """
multiply_often(0.3)
child = os.fork()
if child == 0:
    multiply_often(5)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
multiply_often(30)
"""
    program = PROGRAM.replace("{order}", "bad, good") + body + REPORT
    outcome, _ = run(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=1, NKBLAS_NUM_THREADS=1)
    assert outcome["is_good"]
