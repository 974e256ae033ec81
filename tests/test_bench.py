"""The benchmark: its cases, its contenders, what it measures, and its figures."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from support import DTYPES, environment

import nkblas

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # bench is not installed

from bench import measure, peers, record, report  # noqa: E402
from bench.operands import operands  # noqa: E402
from bench.suites import SUITES, Case  # noqa: E402

KINDS = (
    Case(7, 9, 8),
    Case(70, 90, 80),
    Case(70, 90, 80, a=".T"),
    Case(70, 90, 80, b=".T"),
    Case(7, 9, 8, a=".T", b=".T"),
    Case(70, 90, 80, a="[::2]"),
    Case(70, 90, 80, a="[:, ::2]"),
    Case(7, 9, 8, a="[:, ::2]", b="[:, ::2]"),
    Case(70, 90, 1),
    Case(2, 90, 80),
    Case(70, 2, 80),
    Case(7, 9, 8, batch=5),
    Case(7, 9, 8, batch=5, b=".T"),
    Case(7, 9, 8, batch=5, a=".T", b="[:, ::2]"),
    Case(70, 1, 80),
    Case(70, 1, 80, a=".T"),
    Case(1, 90, 80),
    Case(1, 90, 80, b=".T"),
)
"""One small case of everything that a contender has to tell apart."""


@pytest.fixture(scope="module", params=["nkblas", *peers.PEERS])
def contender(request: pytest.FixtureRequest) -> Iterator[peers.Contender]:
    make = peers.NKBLAS if request.param == "nkblas" else peers.PEERS[request.param]
    try:
        found = make(1)
    except peers.AbsentError as why:
        pytest.skip(f"{request.param}: {why}")
    threads = nkblas.get_num_threads() if hasattr(nkblas, "get_num_threads") else None
    found.use(1)
    yield found
    if threads:
        peers.NKBLAS(1).use(threads)


def shrunk(case: Case) -> Case:
    """The same kind of case, with sides that differ, and are fast to make."""
    return case._replace(m=min(case.m, 30), n=min(case.n, 40), k=min(case.k, 50))


def strides_of(rows: int, columns: int, layout: str) -> tuple[int, int]:
    return {
        "": (columns, 1),
        ".T": (1, rows),
        "[::2]": (2 * columns, 1),
        "[:, ::2]": (2 * columns, 2),
    }[layout]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suite", SUITES)
def test_operands(suite: str, dtype: str) -> None:
    cases = SUITES[suite].cases
    assert len(set(cases)) == len(cases)
    assert len(set(map(str, cases))) == len(cases)
    for case in set(map(shrunk, cases)):
        m, n, k, batch = case[:4]
        a, b, out = operands(case, dtype)
        assert {a.dtype, b.dtype, out.dtype} == {np.dtype(dtype)}
        assert a.size + b.size + out.size == case.elements
        assert out.shape == (a @ b).shape
        assert case.flops == 2 * m * n * k * max(1, batch)
        stack = (batch,) if batch else ()
        for x, rows, columns, layout, vector in (
            (a, m, k, case.a, m == 1),
            (b, k, n, case.b, n == 1),
        ):
            strides = strides_of(rows, columns, layout)
            if vector:
                assert x.shape == (max(rows, columns),)
                assert x.flags.c_contiguous
            else:
                assert x.shape == (*stack, rows, columns)
                assert x.strides[-2:] == tuple(s * x.itemsize for s in strides)
                assert abs(x).max() <= 1


def test_suites_cover_what_they_say() -> None:
    assert all(2 <= side <= 64 for case in SUITES["small"].cases for side in case[:3])
    assert all(case.batch > 1 for case in SUITES["batched"].cases)
    filling = SUITES["batched"].groups["256 KB in float32"]
    assert all(200 << 10 < 4 * case.elements <= 256 << 10 for case in filling)
    assert all(min(case[:3]) <= 16 < 512 <= sorted(case[:3])[1] for case in SUITES["skinny"].cases)
    assert all((case.m == 1) != (case.n == 1) for case in SUITES["gemv"].cases)
    assert all(case.a or case.b for case in SUITES["transposed"].cases)
    assert not SUITES["small"].out
    assert {name for name, suite in SUITES.items() if suite.in_memory} == {"skinny", "gemv"}


@pytest.mark.parametrize("into", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", KINDS, ids=str)
def test_contender(contender: peers.Contender, case: Case, dtype: str, into: bool) -> None:
    a, b, out = operands(case, dtype)
    before = a.copy(), b.copy()
    call = contender.bind(a, b, out, into)
    measure.check({contender.name: call}, case, a, b, out)
    for x, y in zip((a, b), before, strict=True):
        assert np.array_equal(x, y)
    out[...] = 77
    returned = call()
    if into or contender.name == "mkl":
        assert not (out == 77).any()
    else:
        assert (out == 77).all()
        assert not np.shares_memory(np.asarray(returned), out)
    # it is the operands' values at the time of the call that count
    a[...] = 0
    call()
    result = out if returned is None or into else np.asarray(call())
    assert not result.any()


def test_wrong_results_are_found() -> None:
    case = Case(20, 30, 40)
    a, b, out = operands(case, "float32")

    def wrong() -> None:
        np.matmul(a, b, out=out)
        out[3, 4] += 1e-4

    def incomplete() -> None:
        np.matmul(a[:-1], b, out=out[:-1])

    for call in (wrong, incomplete, lambda: a @ b + 1e-3, lambda: None):
        with pytest.raises(ArithmeticError, match="somebody: 20x30x40"):
            measure.check({"somebody": call}, case, a, b, out)
    measure.check({"somebody": lambda: a @ b}, case, a, b, out)
    with pytest.raises(ArithmeticError):  # zero is what it would have to write
        measure.check({"nobody": lambda: None}, case, 0 * a, b, out)


@pytest.mark.parametrize("tune", [True, False])
def test_warm_up(monkeypatch: pytest.MonkeyPatch, tune: bool) -> None:
    """Each case is warmed up before it is timed, where nkblas knows how to."""
    happened: list[Any] = []

    class Recording:
        def __enter__(self) -> "Recording":
            self.calls = nkblas.stats()["calls"]
            return self

        def __exit__(self, *_: object) -> None:
            self.calls = nkblas.stats()["calls"] - self.calls

    def warmup(problems: Recording, *, tune: bool, progress: bool) -> None:
        happened.append((problems.calls, tune, progress))

    monkeypatch.setattr(nkblas, "record", Recording, raising=False)
    monkeypatch.setattr(nkblas, "warmup", warmup, raising=False)
    found = peers.NKBLAS(1, tune)
    assert ("tuned" in found.version) == tune
    found.bind(*operands(Case(7, 9, 8), "float32"), True)
    assert happened == [(1, tune, False)]


def test_read_reads_the_operand(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (1 << 22, 100):
        monkeypatch.setattr(measure.Read, "PART", part)
        for case in (Case(30, 1, 41, a=".T"), Case(31, 1, 41), Case(4, 50, 60), Case(50, 60, 4)):
            largest = max(operands(case, "float64"), key=np.size)
            read = measure.Read(largest)
            read()
            parts = [part for pair in read.pairs for part in pair]
            assert read.bytes == sum(part.nbytes for part in parts)
            assert largest.nbytes - 2 * 8 * part < read.bytes <= largest.nbytes
            values = np.concatenate(parts)
            assert all(np.shares_memory(part, largest) for part in parts)
            assert np.array_equal(values, largest.ravel(order="K")[: values.size], equal_nan=True)


def results(peers_too: bool = True) -> list[record.Result]:
    """Short measurements of one case of each suite's first group and one of its last."""
    contenders: list[peers.Contender] = [peers.NKBLAS(1)]
    if peers_too:
        try:
            contenders.append(peers.OpenBLAS(1))
        except peers.AbsentError as why:
            pytest.skip(str(why))
    found = []
    for name, suite in SUITES.items():
        for case in (suite.cases[0], suite.cases[-1]):
            small = shrunk(case)
            found.append(measure.measure(name, small, "float32", 1, contenders, seconds=0))
    return found


def test_measure() -> None:
    for result in results():
        assert result.plan
        assert not result.fallback
        assert result.out == SUITES[result.suite].out
        assert set(result.gflops) == {"nkblas", "openblas"}
        in_memory = SUITES[result.suite].in_memory
        assert set(result.seconds) == {*result.gflops, "peak", *(["read"] if in_memory else [])}
        assert all(len(times) >= measure.ROUNDS for times in result.seconds.values())
        assert result.medians == {name: median(times) for name, times in result.seconds.items()}
        assert report.best(result) == result.ratios["openblas"]
        consistent(result)


def test_threads_share_the_peak() -> None:
    case = Case(64, 64, 64)
    one, two = (
        measure.measure("square", case, "float32", n, [peers.NKBLAS(1)], seconds=0) for n in (1, 2)
    )
    consistent(one)
    consistent(two)
    assert math.isnan(report.best(one))
    scaling = 2 * two.of_peak["nkblas"] / one.of_peak["nkblas"]
    assert math.isclose(report.scaling({case: one}, two), scaling)
    assert math.isnan(report.scaling({}, two))


def consistent(result: record.Result) -> None:
    """Each figure follows from the seconds: fractions and ratios from those of the same rounds."""
    seconds, medians, case = result.seconds, result.medians, result.case
    size = np.dtype(result.dtype).itemsize

    def ratio(x: str, y: str) -> float:
        return median(p / q for p, q in zip(seconds[x], seconds[y], strict=True))

    at_peak = result.peak * 1e9 * medians["peak"] * result.threads
    for name, speed in result.gflops.items():
        assert math.isclose(speed, case.flops / medians[name] / 1e9)
        assert math.isclose(result.of_peak[name], ratio("peak", name) * case.flops / at_peak)
        if "read" in seconds:
            share = ratio("read", name) * case.elements * size
            share /= result.bandwidth * 1e9 * medians["read"]
            assert math.isclose(result.of_bandwidth[name], share)
        else:
            assert not result.bandwidth
            assert not result.of_bandwidth
    assert result.ratios == {
        name: ratio(name, "nkblas") for name in result.gflops if name != "nkblas"
    }


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


@pytest.mark.parametrize("peers_too", [True, False])
def test_record_and_plots(tmp_path: Path, peers_too: bool) -> None:
    pytest.importorskip("matplotlib")
    from bench.plots import draw, plot

    header = {"cpu": "a CPU", "isa": "avx2", "nkblas": "1.2", "openblas": "3.4", "mkl": "absent"}
    tiles = [record.Tile("float32", 14, 32, 100, 0.5)]
    kept = record.Record(header, results(peers_too), tiles)
    kept.save(str(tmp_path / "new" / "run.json"))
    loaded = record.Record.load(str(tmp_path / "new" / "run.json"))
    assert loaded == kept

    paths = list(plot(loaded, str(tmp_path / "plots")))
    assert [path.name for path in paths] == [f"{suite}-float32-1.png" for suite in SUITES]
    for path in paths:
        width, height = png_size(path)
        assert 1200 < width < 2000
        assert 700 < height < 1600

    figure = draw(loaded.results[-2:], header)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any("transposed" in text and "float32" in text for text in texts)
    assert any("a CPU" in text and "avx2" in text and "nkblas 1.2" in text for text in texts)
    assert any("OpenBLAS 3.4" in text for text in texts) == peers_too
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["nkblas", "OpenBLAS"][: 1 + peers_too]


def bench(*arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=300
    )


def test_command(tmp_path: Path) -> None:
    file = str(tmp_path / "run.json")
    arguments = ["small", "tiles", "--only", "4x4x", "--dtype", "float32", "--threads", "1", "2"]
    arguments += ["--seconds", "0.01", "--peers", "--json", file]
    done = bench(*arguments, OPENBLAS_CORETYPE="Haswell")
    assert done.returncode == 0, done.stderr
    saved = record.Record.load(file)
    assert [(r.case.size, r.threads) for r in saved.results] == [
        (size, threads) for threads in (1, 2) for size in ("4x4x4", "4x4x32")
    ]
    assert {tile.dtype for tile in saved.tiles} == {"float32"}
    assert "OPENBLAS_CORETYPE" in json.loads(Path(file).read_text())["header"]["unset"]
    shown = bench("--from-json", file)
    assert shown.stdout == done.stdout
    assert "geometric mean" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["squares"], "got squares, expected some of square"),
        (["--threads", "0"], "got 0, expected 1 or more"),
        (["--dtype", "int8"], "invalid choice"),
    ],
)
def test_command_refuses(arguments: list[str], message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
