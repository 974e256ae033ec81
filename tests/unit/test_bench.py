"""The benchmark: its cases, its contenders, what it measures, and its figures."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

import numpy as np
import pytest
from support import ROOT, environment

import nkblas

sys.path.append(str(ROOT))  # bench is not installed

from bench import __main__ as command
from bench import measure, peers, record, report
from bench.check import Expected, approximate, eps, exact
from bench.operands import Operands, element, operands
from bench.suites import ACTIVATIONS, DTYPES, REAL_PART, SUITES, Case, types

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
    Case(70, 90, 80, activation="relu"),
    Case(70, 90, 80, a=".T", activation="gelu"),
    Case(70, 90, 80, b=".T", activation="gelu_tanh"),
    Case(70, 90, 80, activation="relu", packed=True),
    Case(70, 90, 80, packed=True),
    Case(1, 90, 80, packed=True),
    Case(7, 9, 8, batch=5, batch_reduce=True),
    Case(70, 90, 80, batch=5, a=".T", batch_reduce=True),
)
"""One small case of everything that a contender has to tell apart."""


def lacks(contender: str, case: Case) -> str:
    """Why it must be absent; empty if it must not."""
    if contender == "mkl" and case.activation:
        return "has no layers"
    if contender == "jax" and (case.activation or case.batch_reduce):
        return "is measured on products only"
    return "has no strided arrays" if contender == "jax" and "::2" in str(case) else ""


HERE = [x for x in DTYPES if "bfloat16" not in x or find_spec("ml_dtypes")]
OTHERS = [x for x in HERE if x not in REAL_PART]

OTHER_KINDS = (
    Case(70, 90, 80),
    Case(7, 9, 8, a=".T", b=".T"),
    Case(70, 90, 80, a="[:, ::2]"),
    Case(7, 9, 8, batch=5),
    Case(70, 1, 80),
    Case(1, 90, 80, b=".T"),
)
"""The same for dtypes beyond float32 and float64."""

HAVE = {
    "nkblas": set(HERE),
    "numpy": set(HERE),
    "mkl": {"complex64", "complex128", "float16", "float16_float32", "bfloat16_float32"},
    "torch": {"complex64", "complex128", "float16", "bfloat16", "int8_int32", "int16", "int64"},
    "jax": set(HERE),
}
"""By contender: dtypes of single products without strides for which it must not be absent."""


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


@pytest.mark.parametrize("dtype", HERE)
@pytest.mark.parametrize("suite", SUITES)
def test_operands(suite: str, dtype: str) -> None:
    cases = SUITES[suite].cases
    assert len(set(cases)) == len(cases)
    assert len(set(map(str, cases))) == len(cases)
    for case in set(map(shrunk, cases)):
        m, n, k, batch = case[:4]
        a, b, out, bias, _ = operands(case, dtype)
        assert tuple(x.dtype.name for x in (a, b, out)) == types(dtype)
        assert a.size + b.size + out.size == case.elements
        assert out.shape == (a @ b).shape[case.batch_reduce :]
        assert (bias is not None) == bool(case.activation)
        if bias is not None:
            assert (bias.dtype, bias.shape) == (out.dtype, (n,))
        each = 8 if "complex" in dtype else 2  # real ones
        assert case.flops(dtype) == each * m * n * k * max(1, batch)
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
                if x.dtype.kind not in "iub" and not case.activation:
                    assert abs(x).max() <= 2**0.5


def test_types() -> None:
    assert types("int8") == ("int8", "int8", "int8")
    assert types("int8_int32") == ("int8", "int8", "int32")
    assert types("uint8_int8_int32") == ("uint8", "int8", "int32")
    assert [str(types(x)) for x in ("int8", "int8_int32", "uint8_int8_int32")] == [
        "int8",
        "int8 -> int32",
        "uint8, int8 -> int32",
    ]
    assert len(set(DTYPES)) == len(DTYPES)


def test_integers_have_their_whole_range() -> None:
    a, b, *_ = operands(Case(50, 60, 70), "uint8_int8_int32")
    assert (a.min(), a.max(), b.min(), b.max()) == (0, 255, -128, 127)
    a, b, *_ = operands(Case(50, 60, 70), "bool")
    assert 0.4 < (a @ b).mean() < 0.6


def test_suites_cover_what_they_say() -> None:
    assert all(2 <= side <= 64 for case in SUITES["small"].cases for side in case[:3])
    assert all(case.batch > 1 for case in SUITES["batched"].cases)
    filling = SUITES["batched"].groups["256 KB in float32"]
    assert all(200 << 10 < 4 * case.elements <= 256 << 10 for case in filling)
    assert all(min(case[:3]) <= 16 < 512 <= sorted(case[:3])[1] for case in SUITES["skinny"].cases)
    assert all((case.m == 1) != (case.n == 1) for case in SUITES["gemv"].cases)
    assert all(case.a or case.b for case in SUITES["transposed"].cases)
    assert not SUITES["small"].out
    in_memory = {name for name, suite in SUITES.items() if suite.in_memory}
    assert in_memory == {"skinny", "gemv", "packed"}
    for name in ACTIVATIONS:
        layers = [x for x in SUITES["layers"].cases if x.activation == name]
        assert [x.product for x in layers] == list(SUITES["paper"].cases)
    assert all(case.packed for case in SUITES["packed"].cases)
    assert all(case.batch_reduce and case.batch == 16 for case in SUITES["brgemm"].cases)


def test_expressions() -> None:
    for case, text in (
        (Case(2, 3, 4), ""),
        (Case(2, 3, 4, a=".T"), "a.T @ b"),
        (Case(2, 3, 4, batch=5, b=".T"), "a @ b.mT"),
        (Case(2, 3, 4, activation="relu"), "relu(a @ b + bias)"),
        (Case(2, 3, 4, packed=True), "a @ pack(b)"),
        (Case(2, 3, 4, b=".T", activation="gelu", packed=True), "gelu(a @ pack(b.T) + bias)"),
        (Case(2, 3, 4, batch=5, a=".T", batch_reduce=True), "sum(a.mT @ b)"),
    ):
        assert case.expression == text


@pytest.mark.parametrize("layout", ["", ".T", "[::2]", "[:, ::2]"])
def test_own_weights(layout: str) -> None:
    one = operands(Case(7, 9, 8, b=layout, packed=True), "float32")
    other = one.with_own_weights()
    assert np.array_equal(one.b, other.b)
    assert one.b.strides == other.b.strides
    assert not np.shares_memory(one.b, other.b)
    assert all(x is y for x, y in zip(one[:1] + one[2:], other[:1] + other[2:], strict=True))


def test_layers_have_sums_around_1() -> None:
    for k in (50, 2000):
        a, b, *_ = operands(Case(40, 50, k, activation="relu"), "float32")
        assert 0.9 < (a @ b).std() < 1.1


@pytest.mark.parametrize("into", [True, False])
@pytest.mark.parametrize("dtype", REAL_PART)
@pytest.mark.parametrize("case", KINDS, ids=str)
def test_contender(contender: peers.Contender, case: Case, dtype: str, into: bool) -> None:
    everything = operands(case, dtype)
    a, b, out, bias, _ = everything
    before = a.copy(), b.copy(), None if bias is None else bias.copy()
    try:
        forms = contender.bind(everything, into)
    except peers.AbsentError as why:
        assert str(why) == lacks(contender.name, case)
        return
    assert not lacks(contender.name, case)
    for name, call in forms.items():
        verify(contender, call, everything)
        for x, y in zip((a, b, bias), before, strict=True):
            assert np.array_equal(x, y)
        out[...] = 77
        returned = call()
        always_new = contender.name == "jax" or name.startswith("packed")
        if contender.name == "mkl" or (into and not always_new):
            assert not (out == 77).any()
        else:
            assert (out == 77).all()
            assert not np.shares_memory(np.asarray(returned), out)
    # it is the operands' values at the time of the call that count, but for copies
    a[...] = a[::-1].copy() / 2
    for name, call in forms.items():
        side_by_side = case.batch_reduce and (contender.name == "numpy" or name.startswith("one"))
        if contender.name == "jax" or side_by_side:
            with pytest.raises(ArithmeticError):
                verify(contender, call, everything)
        else:
            verify(contender, call, everything)


def test_torch_has_every_form() -> None:
    """Those that are private as well, in the version that is measured."""
    try:
        torch = peers.Torch(1)
    except peers.AbsentError as why:
        pytest.skip(str(why))
    forms = torch.bind(operands(Case(70, 90, 80, activation="gelu"), "float32"), True)
    assert list(forms) == ["addmm", "linear", "packed by oneDNN", "packed by MKL"]


# Calls of nkblas and NumPy are the same for every dtype: each has two of the cases, in turn.
IN_TURN = [
    (case, dtype)
    for i, case in enumerate(OTHER_KINDS)
    for j, dtype in enumerate(OTHERS)
    if i % 3 == j % 3
]


@pytest.mark.parametrize(("case", "dtype"), IN_TURN, ids=str)
@pytest.mark.parametrize("contender", ["nkblas", "numpy"], indirect=True)
def test_any_dtype(contender: peers.Contender, case: Case, dtype: str) -> None:
    check_other_dtype(contender, case, dtype)


@pytest.mark.parametrize("dtype", OTHERS)
@pytest.mark.parametrize("case", OTHER_KINDS, ids=str)
@pytest.mark.parametrize("contender", ["mkl", "torch", "jax"], indirect=True)
def test_contender_of_other_dtypes(contender: peers.Contender, case: Case, dtype: str) -> None:
    check_other_dtype(contender, case, dtype)


def check_other_dtype(contender: peers.Contender, case: Case, dtype: str) -> None:
    everything = operands(case, dtype)
    a, _, out, *_ = everything
    try:
        (call,) = contender.bind(everything, True).values()
    except peers.AbsentError:
        assert dtype not in HAVE[contender.name] or case.batch or "::2" in str(case)
        return
    verify(contender, call, everything)
    if contender.name != "jax":
        a[...] = 0
        call()
        assert not out.any()


def verify(contender: peers.Contender, call: peers.Call, everything: Operands) -> None:
    out = everything.out
    try:
        Expected(everything).verify(call)
    except ArithmeticError:
        features = set(nkblas.cpu.features)
        # where 16 bits are too few for sums of two products, MKL saturates
        saturates = out.dtype == np.int32 and not {"avx512_vnni", "avx_vnni"} & features
        # where the CPU can, it adds up in float16
        rounds = out.dtype == np.float16 and "avx512_fp16" in features
        if contender.name != "mkl" or not (saturates or rounds):
            raise


def test_wrong_results_are_found() -> None:
    everything = operands(Case(20, 30, 40), "float32")
    a, b, out, *_ = everything
    expected = Expected(everything)

    def wrong() -> None:
        np.matmul(a, b, out=out)
        out[3, 4] += 1e-4

    def incomplete() -> None:
        np.matmul(a[:-1], b, out=out[:-1])

    for call in (wrong, incomplete, lambda: a @ b + 1e-3, lambda: None):
        with pytest.raises(ArithmeticError, match="bound"):
            expected.verify(call)
    expected.verify(lambda: a @ b)
    with pytest.raises(ArithmeticError, match="type float64, expected float32"):
        expected.verify(lambda: (a @ b).astype(np.float64))
    with pytest.raises(ArithmeticError):  # zero is what it would have to write
        Expected(everything._replace(a=0 * a)).verify(lambda: None)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_wrong_layers_are_found(activation: str) -> None:
    everything = operands(Case(20, 30, 40, activation=activation), "float32")
    a, b, _, bias, _ = everything
    functions = {name: ACTIVATION_OF[name] for name in ACTIVATIONS}
    function = functions.pop(activation)
    expected = Expected(everything)
    expected.verify(lambda: function(a @ b + bias))
    wrong = [
        lambda: function(a @ b),
        lambda: a @ b + bias,
        lambda: function(a @ b) + bias,
        *(lambda other=other: other(a @ b + bias) for other in functions.values()),
    ]
    for call in wrong:
        with pytest.raises(ArithmeticError, match="bound"):
            expected.verify(call)


ACTIVATION_OF: dict[str, Any] = {
    "relu": lambda x: x.clip(0),
    "gelu": lambda x: x * np.float32([[NormalDist().cdf(y) for y in row] for row in x.tolist()]),
    "gelu_tanh": lambda x: x / (1 + np.exp(-((8 / np.pi) ** 0.5) * (x + 0.044715 * x**3))),
}
"""Written in another way than where they are checked."""


@pytest.mark.parametrize("dtype", ["float32", "int8_int32"])
def test_wrong_sums_are_found(dtype: str) -> None:
    everything = operands(Case(20, 30, 40, batch=3, batch_reduce=True), dtype)
    a, b, out, *_ = everything
    expected = Expected(everything)
    expected.verify(lambda: np.matmul(a, b, dtype=out.dtype).sum(0, dtype=out.dtype))
    with pytest.raises(
        ArithmeticError, match="exact product" if dtype == "int8_int32" else "bound"
    ):
        expected.verify(lambda: np.matmul(a, b, dtype=out.dtype)[:2].sum(0, dtype=out.dtype))


@pytest.mark.parametrize("dtype", ["int8", "bool", "uint8_int8_int32", "int64"])
def test_wrong_integers_are_found(dtype: str) -> None:
    everything = operands(Case(20, 30, 40), dtype)
    a, b, out, *_ = everything
    expected = Expected(everything)

    def right() -> None:
        np.matmul(a, b, out=out, dtype=out.dtype)

    def wrong() -> None:
        right()
        out[3, 4] ^= 1

    def incomplete() -> None:
        np.matmul(a[:-1], b, out=out[:-1], dtype=out.dtype)

    expected.verify(right)
    for call in (wrong, incomplete, lambda: None):
        with pytest.raises(ArithmeticError, match="exact"):
            expected.verify(call)


@pytest.mark.parametrize("dtype", [x for x in HERE if "int" in x] + ["uint16", "uint32", "uint64"])
@pytest.mark.parametrize("values", ["random", "least", "greatest", "opposite"])
def test_exact(dtype: str, values: str) -> None:
    """Beside Python's own integers."""
    a, b, out, *_ = operands(Case(5, 7, 3000), dtype)
    if values != "random":
        a[...] = np.iinfo(a.dtype).max if values == "greatest" else np.iinfo(a.dtype).min
        b[...] = np.iinfo(b.dtype).min if values == "least" else np.iinfo(b.dtype).max
    bits = 8 * out.dtype.itemsize
    product = (a.astype(object) @ b.astype(object)) % 2**bits
    if out.dtype.kind == "i":
        product = (product + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    result = exact(a, b, out.dtype)
    assert result.dtype == out.dtype
    assert result.tolist() == product.tolist()


def test_exact_truth() -> None:
    a, b, out, *_ = operands(Case(50, 60, 70), "bool")
    assert np.array_equal(exact(a, b, out.dtype), (a[:, :, None] & b).any(axis=1))


@pytest.mark.parametrize("dtype", [x for x in HERE if "int" not in x and x != "bool"])
def test_bound(dtype: str) -> None:
    """A product that is rounded once passes; one that is rounded at each step does not."""
    a, b, out, *_ = operands(Case(10, 20, 50), dtype)
    product, bound = approximate(a, b, out.dtype)
    is_complex = out.dtype.kind == "c"
    wide = np.clongdouble if is_complex else np.longdouble
    once = (a.astype(wide) @ b.astype(wide)).astype(out.dtype)
    assert (abs(once.astype(wide) - product) <= bound).all()

    narrower = {"float64": "float32", "float32": "float16"}
    parts = np.empty(0, a.dtype).real.dtype
    narrow = np.dtype(narrower.get(parts.name, parts))

    def rounded(x: Any) -> Any:
        if is_complex:
            return x.real.astype(narrow) + 1j * x.imag.astype(narrow)
        return x.astype(narrow).astype(np.float64)

    total = np.zeros((10, 20))
    for i in range(50):
        total = rounded(total + a[:, i : i + 1].astype(product.dtype) * b[i].astype(product.dtype))
    assert (abs(total - product) > bound).any()


def test_eps() -> None:
    for name in ("float16", "float32", "float64"):
        assert eps(element(name)) == np.finfo(name).eps
    if "bfloat16" in HERE:
        assert eps(element("bfloat16")) == 2**-7


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
    found.bind(operands(Case(7, 9, 8), "float32"), True)
    assert happened == [(1, tune, False)]


def test_read_reads_the_operand(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (1 << 22, 100):
        monkeypatch.setattr(measure.Read, "PART", part)
        for case in (Case(30, 1, 41, a=".T"), Case(31, 1, 41), Case(4, 50, 60), Case(50, 60, 4)):
            largest = max(operands(case, "float64")[:3], key=np.size)
            read = measure.Read(largest)
            read()
            parts = [part for pair in read.pairs for part in pair]
            assert read.bytes == sum(part.nbytes for part in parts)
            assert largest.nbytes - 2 * 8 * part < read.bytes <= largest.nbytes
            values = np.concatenate(parts)
            assert all(np.shares_memory(part, largest) for part in parts)
            assert np.array_equal(values, largest.ravel(order="K")[: values.size], equal_nan=True)
    other = measure.Read(operands(Case(4, 500, 600), "int8").b)  # not BLAS's: others in its place
    assert 500 * 600 - 2 * 4 * 100 < other.bytes <= 500 * 600
    assert all(part.dtype == np.float32 for pair in other.pairs for part in pair)


class Fake:
    """A contender that does what the test says."""

    version = "1"

    def __init__(self, name: str, bind: Any) -> None:
        self.name = name
        self.bind = bind

    def use(self, threads: int) -> None:
        pass


def unable(*_: object) -> peers.Call:
    raise peers.AbsentError("has no such thing")


UNABLE = Fake("mkl", unable)
WRONG = Fake("torch", lambda operands, into: {"": lambda: operands.out.fill(0)})


def results(peers_too: bool = True) -> list[record.Result]:
    """Short measurements of one case of each suite's first group and one of its last."""
    contenders: list[peers.Contender] = [peers.NKBLAS(1)]
    if peers_too:
        try:
            contenders.append(peers.NumPy(1))
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
        is_plain = not (result.case.activation or result.case.packed or result.case.batch_reduce)
        assert bool(result.plan) == is_plain
        assert bool(result.over_product) == (result.case.product != result.case)
        assert not result.fallback
        assert not result.absent
        assert result.out == SUITES[result.suite].out
        assert set(result.gflops) == {"nkblas", "numpy"}
        in_memory = SUITES[result.suite].in_memory
        beside = {"peak", *["read"] * in_memory, *["product"] * bool(result.over_product)}
        assert set(result.seconds) == {*result.gflops, *beside}
        assert all(len(times) >= measure.ROUNDS for times in result.seconds.values())
        assert result.medians == {name: median(times) for name, times in result.seconds.items()}
        assert report.best(result) == result.ratios["numpy"]
        consistent(result)


@pytest.mark.parametrize("dtype", ["complex64", "int8", "uint8_int8_int32", "bool"])
def test_measure_dtypes(dtype: str) -> None:
    contenders = [peers.NKBLAS(1), Fake("numpy", peers.NumPy.bind.__get__(peers.NumPy))]
    result = measure.measure("dtypes", Case(70, 90, 80), dtype, 1, contenders, seconds=0)
    assert set(result.ratios) == {"numpy"}
    assert "peak" in result.seconds
    consistent(result)


def test_the_absent_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    contenders = [peers.NKBLAS(1), UNABLE, WRONG]
    case = Case(7, 9, 8)
    found = [measure.measure("dtypes", case, x, 1, contenders, seconds=0) for x in ("int8", "bool")]
    for result in found:
        assert result.absent == {
            "mkl": "has no such thing",
            "torch": "its product is not the exact product",
        }
        assert set(result.gflops) == {"nkblas"}
        assert math.isnan(report.ratio("mkl", result))
        assert 0 < report.of_roof("nkblas", result) < 1
    assert list(report.tables(found)) == found
    printed = capsys.readouterr().out
    assert "mkl: has no such thing (all)" in printed
    assert report.reasons([*found, found[0]._replace(absent={})])[0].endswith("(int8; bool)")
    (line,) = [line for line in printed.splitlines() if line.split()[:1] == ["int8"]]
    assert line.split()[3:6] == ["-", "-", "-"]  # two peers, the best of them
    with pytest.raises(ArithmeticError, match="exact"):
        measure.measure("dtypes", case, "int8", 1, [Fake("nkblas", WRONG.bind)], seconds=0)


@pytest.mark.parametrize("dtype", HERE)
def test_numpy_has_its_limit(dtype: str) -> None:
    """A product without a BLAS is not waited for if it is large."""
    bind = peers.NumPy.bind.__get__(peers.NumPy)
    small = operands(Case(1, 2, 1 << 19), dtype)
    large = small._replace(out=np.broadcast_to(small.out[:1], (1 << 10,)))
    bind(small, False)
    if "float32" in dtype or dtype in ("float64", "complex64", "complex128", "bfloat16"):
        bind(large, False)
    else:
        with pytest.raises(peers.AbsentError, match="too long"):
            bind(large, False)


def test_who_takes_too_long_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(operands: Operands, into: bool) -> peers.Forms:
        a, b, out, *_ = operands
        return {"": lambda: (time.sleep(2e-2), np.matmul(a, b, out=out))}

    everything = operands(Case(7, 9, 8), "int8")
    for longest, absent in ((1e-2, {"mkl": "takes too long"}), (10, {})):
        monkeypatch.setattr(measure, "LONGEST", longest)
        contenders = [Fake("nkblas", bind), Fake("mkl", bind)]
        calls, forms, found = measure.bind(contenders, everything, True, rest=0)
        assert found == absent
        assert calls.keys() == {"nkblas", "mkl"} - absent.keys()
        assert not forms


def test_the_fastest_form_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = False

    def bind(operands: Operands, into: bool) -> peers.Forms:
        a, b, out, *_ = operands
        multiply = partial(np.matmul, a, b, out=out)
        slow: peers.Forms = {"slow": lambda: (time.sleep(1e-3), multiply())}
        return slow | {"fast": multiply} | ({"wrong": lambda: out.fill(0)} if wrong else {})

    contenders = [peers.NKBLAS(1), Fake("mkl", bind)]
    case = Case(7, 9, 8)
    result = measure.measure("square", case, "float32", 1, contenders, seconds=0)
    assert set(result.forms) == {"mkl"}
    assert result.forms["mkl"]["fast"] < 1e-3 < result.forms["mkl"]["slow"]
    assert result.medians["mkl"] < 1e-3
    assert report.forms([result, result]) == ["mkl: fast (2)"]
    wrong = True
    result = measure.measure("square", case, "float32", 1, contenders, seconds=0)
    assert result.absent == {"mkl": "its product is outside of the error bound"}
    assert not result.forms


def test_own_product_is_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    contenders = [peers.NKBLAS(1)]
    found = [
        measure.measure("layers", Case(7, 9, 8, activation=name), "float32", 1, contenders, 0)
        for name in ("relu", "gelu")
    ]
    assert list(report.tables(found)) == found
    printed = capsys.readouterr().out
    assert [report.table(x)[1] for x in found] == ["float32 relu", "float32 gelu"]
    assert printed.count("own product\n") == 2
    lines = [line for line in printed.splitlines() if line.split()[:1] == ["7x9x8"]]
    assert [line.split()[-1] for line in lines] == [f"{x.over_product:.3f}" for x in found]


def test_slow_contenders_are_timed_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SLOW", 5e-3)
    calls = {"fast": 0, "slow": 0}

    def fast() -> None:
        calls["fast"] += 1
        measure.pause(3e-4)

    def slow() -> None:
        calls["slow"] += 1
        time.sleep(2e-2)

    times = measure.interleave({"slow": slow, "fast": fast}, seconds=0, rest=0)
    assert len(times["slow"]) == measure.FEWEST
    assert calls["slow"] == measure.FEWEST + 1
    assert len(times["fast"]) == measure.ROUNDS
    assert measure.paired(times["slow"], times["fast"]) == median(
        times["slow"][i] / times["fast"][i] for i in range(measure.FEWEST)
    )
    # where all are slow, none is
    times = measure.interleave({"slow": slow, "other": slow}, seconds=0, rest=0)
    assert {len(values) for values in times.values()} == {measure.ROUNDS}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dtype", "int8", "float32", "--threads", "1", "2"],
        ["--activation", "gelu_tanh", "--dtype", "int8", "float32"],
    ],
)
def test_runs_are_ordered_by_table(arguments: list[str]) -> None:
    options = command.parse(arguments)
    found = list(command.runs(options))
    assert len(set(found)) == len(found)
    tables = [
        table
        for table, _ in groupby(
            (suite, case.size if SUITES[suite].by_dtype else dtype, threads)
            for suite, case, dtype, threads in found
        )
    ]
    assert len(set(tables)) == len(tables)
    assert {suite for suite, *_ in found} == set(SUITES)
    dtypes = {dtype for suite, _, dtype, _ in found if suite == "square"}
    assert dtypes == (set(REAL_PART) if not arguments else {"int8", "float32"})
    if not arguments:
        assert {dtype for suite, _, dtype, _ in found if suite == "dtypes"} == set(HERE)
    activations = {case.activation for suite, case, *_ in found if suite == "layers"}
    assert activations == ({"gelu_tanh"} if "gelu_tanh" in arguments else {"relu", "gelu"})


def test_threads_share_the_peak() -> None:
    case = Case(64, 64, 64)
    one, two = (
        measure.measure("square", case, "float32", n, [peers.NKBLAS(1)], seconds=0) for n in (1, 2)
    )
    consistent(one)
    consistent(two)
    assert math.isnan(report.best(one))
    scaling = 2 * two.of_peak["nkblas"] / one.of_peak["nkblas"]
    assert math.isclose(report.scaling({str(case): one}, two), scaling)
    assert math.isnan(report.scaling({}, two))


def consistent(result: record.Result) -> None:
    """Each figure follows from the seconds: fractions and ratios from those of the same rounds."""
    seconds, medians = result.seconds, result.medians
    flops = result.case.flops(result.dtype)

    def ratio(x: str, y: str) -> float:
        return median(p / q for p, q in zip(seconds[x], seconds[y], strict=False))

    for name, speed in result.gflops.items():
        assert math.isclose(speed, flops / medians[name] / 1e9)
        if "peak" in seconds:
            at_peak = result.peak * 1e9 * medians["peak"] * result.threads
            assert math.isclose(result.of_peak[name], ratio("peak", name) * flops / at_peak)
        else:
            assert not result.peak
            assert not result.of_peak
        if "read" in seconds:
            arrays = operands(result.case, result.dtype)[:3]
            share = ratio("read", name) * sum(x.nbytes for x in arrays)
            share /= result.bandwidth * 1e9 * medians["read"]
            assert math.isclose(result.of_bandwidth[name], share)
        else:
            assert not result.bandwidth
            assert not result.of_bandwidth
    if "product" in seconds:
        assert result.over_product == ratio("product", "nkblas")
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

    header = {"cpu": "a CPU", "isa": "avx2", "nkblas": "1.2", "numpy": "3.4", "mkl": "absent"}
    tiles = [record.Tile("float32", 14, 32, 100, 0.5)]
    kept = record.Record(header, results(peers_too), tiles)
    kept.save(str(tmp_path / "new" / "run.json"))
    loaded = record.Record.load(str(tmp_path / "new" / "run.json"))
    assert loaded == kept

    constants = {
        "dtypes": ["30x40x50", "1x40x50"],
        "layers": ["float32-relu", "float32-gelu_tanh"],
    }
    paths = list(plot(loaded, str(tmp_path / "plots")))
    assert [path.name for path in paths] == [
        f"{suite}-{constant}-1.png"
        for suite in SUITES
        for constant in constants.get(suite, ["float32"])
    ]
    for path in paths:
        width, height = png_size(path)
        assert 1200 < width < 2000
        assert 700 < height < 1600

    figure = draw([x for x in loaded.results if x.suite == "transposed"], header)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any("transposed" in text and "float32" in text for text in texts)
    assert any("a CPU" in text and "avx2" in text and "nkblas 1.2" in text for text in texts)
    assert any("NumPy 3.4" in text for text in texts) == peers_too
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["nkblas", "NumPy"][: 1 + peers_too]


def test_plot_of_layers() -> None:
    pytest.importorskip("matplotlib")
    from bench.plots import draw

    case = Case(7, 9, 8, activation="relu")
    found = [measure.measure("layers", case, "float32", 1, [peers.NKBLAS(1), UNABLE], seconds=0)]
    figure = draw(found, {"cpu": "a CPU", "isa": "avx2", "nkblas": "1.2", "mkl": "3"})
    (own,) = [x for x in figure.axes[1].get_lines() if "own product" in str(x.get_label())]
    assert list(own.get_ydata()) == [found[0].over_product]


def test_plot_of_dtypes() -> None:
    pytest.importorskip("matplotlib")
    from bench.plots import draw

    contenders = [peers.NKBLAS(1), UNABLE]
    dtypes = ["float32", "int8_int32"]
    found = [measure.measure("dtypes", Case(7, 9, 8), x, 1, contenders, seconds=0) for x in dtypes]
    figure = draw(found, {"cpu": "a CPU", "isa": "avx2", "nkblas": "1.2", "mkl": "3"})
    above, below = figure.axes
    assert [text.get_text() for text in below.get_xticklabels()] == ["float32", "int8 -> int32"]
    line = above.get_lines()[0]
    assert line.get_label() == "nkblas"
    assert list(line.get_ydata()) == [result.gflops["nkblas"] for result in found]


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
        (["--dtype", "int7"], "invalid choice"),
    ],
)
def test_command_refuses(arguments: list[str], message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
