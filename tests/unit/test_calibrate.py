"""Measured constants of the cost model: the fit, their file, and who measures them when."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import run

import nkblas
from nkblas.base.families import families
from nkblas.base.problem import Problem, parse
from nkblas.inspect import calibrate
from nkblas.planning import measured_costs
from nkblas.planning.cost_model import cost
from nkblas.planning.microarchitecture import COSTS, Costs, machine
from nkblas.planning.search_space import ScheduleSpace
from nkblas.system.cpu import CPU

PROBLEMS = [
    parse(f"{size}:{dtype}")
    for dtype in ("f32", "f64")
    for size in ("256x256x256", "1024x1024x1024", "2048x2048x2048", "128x768x3072", "256x4096x1024")
]


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CPU:
    """The CPU, with an empty cache folder in which nothing was measured."""
    monkeypatch.setenv("NKBLAS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(measured_costs, "_known", {})
    return nkblas.cpu


def slowdown(problem: Problem, costs: Costs, true_costs: Costs) -> float:
    """The time of the plan that `costs` select over that of the best one, if others are true."""
    space = ScheduleSpace(problem, nkblas.cpu, families(problem.dtype, nkblas.cpu.isa)[0])
    times = cost(space, true_costs)
    return float(times[cost(space, costs).argmin()] / times.min())


@pytest.mark.parametrize("name", COSTS)
def test_the_fit_finds_constants_that_select_as_the_true_ones(name: str) -> None:
    true_costs = COSTS[name]
    probes = list(calibrate.make_probes(nkblas.cpu))
    cycles = np.concatenate([cost(probe.space, true_costs) for probe in probes])
    noise = np.exp(0.03 * np.random.default_rng(0).standard_normal(len(cycles)))
    noise[::20] *= 1.5  # another program takes the core
    fitted = calibrate.fit(probes, 0.25e-9 * cycles * noise)
    assert 0.2 < fitted.nanoseconds_per_cycle < 0.32
    ratios = [slowdown(problem, fitted, true_costs) for problem in PROBLEMS]
    typical = [slowdown(problem, calibrate.TYPICAL_COSTS, true_costs) for problem in PROBLEMS]
    assert math.prod(ratios) ** (1 / len(ratios)) < 1.03, (ratios, typical)


def test_probes_cover_all_that_is_fitted() -> None:
    probes = list(calibrate.make_probes(nkblas.cpu))

    def times(costs: Costs) -> Any:
        return np.concatenate([cost(probe.space, costs) for probe in probes])

    before = times(calibrate.TYPICAL_COSTS)
    for name in calibrate.FITTED:
        larger = calibrate.TYPICAL_COSTS._replace(
            **{name: 4 * getattr(calibrate.TYPICAL_COSTS, name)}
        )
        changed = times(larger) > 1.001 * before
        # Loads from L1 may be hidden everywhere, and a large L2 may hold all panels of B.
        if name not in ("b_from_l1", "a_from_l1", "panel_store"):
            assert changed.any(), name
    assert all(len(probe.plans) == len(probe.space) for probe in probes)


def test_measured_times_are_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "SHAPES", ((64, 64, 64), (128, 256, 300)))
    probes = list(calibrate.make_probes(nkblas.cpu))
    seconds = calibrate.measure(probes)
    assert len(seconds) == sum(len(probe.plans) for probe in probes)
    assert np.isfinite(seconds).all()
    assert (seconds > 0).all()


def test_constants_are_saved_and_read(cpu: CPU, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured_costs.constants_of(cpu).microarchitecture in COSTS
    assert not measured_costs.are_measured(cpu)
    measured_costs.save(COSTS["zen5"]._replace(kernel_call=12.34), cpu)
    assert measured_costs.are_measured(cpu)
    in_this_process = measured_costs.constants_of(cpu)
    monkeypatch.setattr(measured_costs, "_known", {})
    as_read = measured_costs.constants_of(cpu)
    assert as_read == in_this_process
    assert as_read.costs.kernel_call == 12.34
    assert as_read.microarchitecture == ""
    assert as_read.date == time.strftime("%Y-%m-%d")


def damaged_texts(text: str) -> dict[str, str]:
    """Texts that are not valid, by what is wrong."""
    return {
        "empty": "",
        "truncated": text[: len(text) // 2],
        "other cache": text.replace("\nl2 ", "\nl2 1"),
        "not a number": text.replace("\npack ", "\npack x"),
        "infinite": text.replace("\npack ", "\npack inf #")
        .replace("inf #", "1e999 #")
        .split(" #")[0],
        "negative": text.replace("\npack ", "\npack -"),
        "binary": "\0\x7f\n" * 9,
    }


@pytest.mark.parametrize("fault", damaged_texts(""))
def test_a_damaged_file_is_ignored(fault: str, cpu: CPU, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_costs.save(COSTS["zen5"], cpu)
    path = Path(measured_costs.costs_file(cpu))
    path.write_text(damaged_texts(path.read_text())[fault])
    monkeypatch.setattr(measured_costs, "_known", {})
    assert measured_costs.constants_of(cpu).microarchitecture
    measured_costs.save(COSTS["zen5"], cpu)  # a new measurement replaces it
    assert measured_costs.are_measured(cpu)


def test_a_file_that_others_can_write_is_ignored(cpu: CPU) -> None:
    measured_costs.save(COSTS["zen5"], cpu)
    Path(measured_costs.costs_file(cpu)).chmod(0o666)
    assert not measured_costs.are_measured(cpu)


def test_instruction_sets_have_constants_of_their_own(cpu: CPU) -> None:
    from nkblas.base.isa import ISAS

    other = cpu._replace(isa=ISAS["sse42"])
    measured_costs.save(COSTS["zen5"], cpu)
    if other != cpu:
        assert not measured_costs.are_measured(other)


PLAN = """
from nkblas.inspect.tune import to_problem
from nkblas.planning.measured_costs import constants_of
from nkblas.planning.cost_model import cheapest_plan
report(plan=str(cheapest_plan(to_problem("999x1001x777:f32"), nkblas.cpu)),
       source=constants_of(nkblas.cpu).microarchitecture)
"""


def test_another_process_plans_with_the_measured_constants(cpu: CPU, tmp_path: Path) -> None:
    before, _ = run(PLAN, NKBLAS_CACHE_DIR=tmp_path)
    # reading an operand in place is so expensive that both are packed
    extreme = COSTS["zen5"]._replace(b_in_place=1e6, a_in_place=0.0, kernel_call=1e5)
    measured_costs.save(extreme, cpu)
    after, _ = run(PLAN, NKBLAS_CACHE_DIR=tmp_path)
    assert before["source"] in COSTS
    assert after["source"] == ""
    assert after["plan"] != before["plan"]


HOT_PROGRAM = """
a, b = operands(96, 130, 200)
for _ in range(3000):
    nkblas.matmul(a, b)
    if nkblas.explain(a, b).plan.interim is False:
        break
import time
time.sleep(1.0)
report(calls=nkblas.stats()["calls"])
"""


def wait_for(path: Path, seconds: float) -> bool:
    """Whether a file appears in time."""
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    return path.exists()


def test_a_machine_is_calibrated_once_in_the_background(tmp_path: Path) -> None:
    path = tmp_path / "plans" / f"{machine(nkblas.cpu)}.costs"
    run(HOT_PROGRAM, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=1)
    assert wait_for(path, 300)  # in the time that no other process wants
    first = path.stat().st_mtime_ns
    run(HOT_PROGRAM.replace("96", "97"), NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=1)
    time.sleep(2)
    assert path.stat().st_mtime_ns == first


def test_no_calibration_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "plans" / f"{machine(nkblas.cpu)}.costs"
    run(HOT_PROGRAM, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_TUNE=0)
    assert not wait_for(path, 3)
