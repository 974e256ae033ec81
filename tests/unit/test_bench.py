"""The benchmark: cases, contenders, measurements, reports and figures."""

import ast
import json
import math
import os
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
from bench import __main__ as command
from bench import binding, calls, measure, peers, report, roofline, timing
from bench.call_list import CALLS, OPERAND_DTYPES, CallCase
from bench.operands import Operands, make_operands, numpy_dtype
from bench.peers.cblas import CBLAS
from bench.reference import Reference, eps, exact_product, product_and_bound
from bench.results import BenchmarkRun, CallResult, Result, TileResult
from bench.suites import ACTIVATIONS, DTYPES, REAL_DTYPES, SUITES, Case, parse_dtypes

REAL_CASES = (
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
"""A small case of each kind that contenders treat differently."""


BLAS_NAMES = ("openblas", "aocl", "mkl")


def reason_for_absence(contender: str, case: Case) -> str:
    """Why a contender must not support a case; empty if it must."""
    if contender in BLAS_NAMES and case.activation:
        return "has no layers"
    if contender == "jax" and (case.activation or case.batch_reduce):
        return "is measured on products only"
    return "has no strided arrays" if contender == "jax" and "::2" in str(case) else ""


AVAILABLE_DTYPES = [x for x in DTYPES if "bfloat16" not in x or find_spec("ml_dtypes")]
OTHER_DTYPES = [x for x in AVAILABLE_DTYPES if x not in REAL_DTYPES]

OTHER_CASES = (
    Case(70, 90, 80),
    Case(7, 9, 8, a=".T", b=".T"),
    Case(70, 90, 80, a="[:, ::2]"),
    Case(7, 9, 8, batch=5),
    Case(70, 1, 80),
    Case(1, 90, 80, b=".T"),
)
"""The cases for dtypes other than float32 and float64."""

SUPPORTED_DTYPES = {
    "nkblas": set(AVAILABLE_DTYPES),
    "numpy": set(AVAILABLE_DTYPES),
    "openblas": {"complex64", "complex128"},
    "aocl": {"complex64", "complex128"},
    "mkl": {"complex64", "complex128", "float16", "float16_float32", "bfloat16_float32"},
    "torch": {"complex64", "complex128", "float16", "bfloat16", "int8_int32", "int16", "int64"},
    "jax": set(AVAILABLE_DTYPES),
}
"""Dtypes of single contiguous products that each contender must support."""


@pytest.fixture(scope="module", params=["nkblas", *peers.PEERS])
def contender(request: pytest.FixtureRequest) -> Iterator[peers.Contender]:
    make = peers.NKBLAS if request.param == "nkblas" else peers.PEERS[request.param]
    try:
        found = make(1)
    except peers.AbsentError as error:
        pytest.skip(f"{request.param}: {error}")
    threads = nkblas.get_num_threads() if hasattr(nkblas, "get_num_threads") else None
    found.set_num_threads(1)
    yield found
    if threads:
        peers.NKBLAS(1).set_num_threads(threads)


def shrink(case: Case) -> Case:
    """A small case of the same kind, with three different sides."""
    return case._replace(m=min(case.m, 30), n=min(case.n, 40), k=min(case.k, 50))


def expected_strides(rows: int, columns: int, layout: str) -> tuple[int, int]:
    return {
        "": (columns, 1),
        ".T": (1, rows),
        "[::2]": (2 * columns, 1),
        "[:, ::2]": (2 * columns, 2),
    }[layout]


@pytest.mark.parametrize("dtype", AVAILABLE_DTYPES)
@pytest.mark.parametrize("suite", SUITES)
def test_operands(suite: str, dtype: str) -> None:
    cases = SUITES[suite].cases
    assert len(set(cases)) == len(cases)
    assert len(set(map(str, cases))) == len(cases)
    for case in set(map(shrink, cases)):
        m, n, k, batch = case[:4]
        a, b, out, bias, _ = make_operands(case, dtype)
        assert tuple(x.dtype.name for x in (a, b, out)) == parse_dtypes(dtype)
        assert a.size + b.size + out.size == case.elements
        assert out.shape == (a @ b).shape[case.batch_reduce :]
        assert (bias is not None) == bool(case.activation)
        if bias is not None:
            assert (bias.dtype, bias.shape) == (out.dtype, (n,))
        flops_per_term = 8 if "complex" in dtype else 2
        assert case.flops(dtype) == flops_per_term * m * n * k * max(1, batch)
        batch_shape = (batch,) if batch else ()
        for x, rows, columns, layout, is_vector in (
            (a, m, k, case.a, m == 1),
            (b, k, n, case.b, n == 1),
        ):
            strides = expected_strides(rows, columns, layout)
            if is_vector:
                assert x.shape == (max(rows, columns),)
                assert x.flags.c_contiguous
            else:
                assert x.shape == (*batch_shape, rows, columns)
                assert x.strides[-2:] == tuple(s * x.itemsize for s in strides)
                if x.dtype.kind not in "iub" and not case.activation:
                    assert abs(x).max() <= 2**0.5


def test_types() -> None:
    assert parse_dtypes("int8") == ("int8", "int8", "int8")
    assert parse_dtypes("int8_int32") == ("int8", "int8", "int32")
    assert parse_dtypes("uint8_int8_int32") == ("uint8", "int8", "int32")
    assert [str(parse_dtypes(x)) for x in ("int8", "int8_int32", "uint8_int8_int32")] == [
        "int8",
        "int8 -> int32",
        "uint8, int8 -> int32",
    ]
    assert len(set(DTYPES)) == len(DTYPES)


def test_integers_have_their_full_range() -> None:
    a, b, *_ = make_operands(Case(50, 60, 70), "uint8_int8_int32")
    assert (a.min(), a.max(), b.min(), b.max()) == (0, 255, -128, 127)
    a, b, *_ = make_operands(Case(50, 60, 70), "bool")
    assert 0.4 < (a @ b).mean() < 0.6


def test_suites_match_their_descriptions() -> None:
    assert all(2 <= side <= 64 for case in SUITES["small"].cases for side in case[:3])
    assert all(case.batch > 1 for case in SUITES["batched"].cases)
    filling = SUITES["batched"].groups["256 KB in float32"]
    assert all(200 << 10 < 4 * case.elements <= 256 << 10 for case in filling)
    assert all(min(case[:3]) <= 16 < 512 <= sorted(case[:3])[1] for case in SUITES["skinny"].cases)
    assert all((case.m == 1) != (case.n == 1) for case in SUITES["gemv"].cases)
    assert all(case.a or case.b for case in SUITES["transposed"].cases)
    assert not SUITES["small"].uses_out
    may_be_memory_bound = {name for name, suite in SUITES.items() if suite.may_be_memory_bound}
    assert may_be_memory_bound == {"skinny", "gemv", "packed"}
    for name in ACTIVATIONS:
        layers = [x for x in SUITES["layers"].cases if x.activation == name]
        assert [x.plain_product for x in layers] == list(SUITES["paper"].cases)
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
def test_copy_of_b(layout: str) -> None:
    original = make_operands(Case(7, 9, 8, b=layout, packed=True), "float32")
    copy = original.with_copy_of_b()
    assert np.array_equal(original.b, copy.b)
    assert original.b.strides == copy.b.strides
    assert not np.shares_memory(original.b, copy.b)
    assert all(x is y for x, y in zip(original, copy._replace(b=original.b), strict=True))


def test_layers_have_sums_around_1() -> None:
    for k in (50, 2000):
        a, b, *_ = make_operands(Case(40, 50, k, activation="relu"), "float32")
        assert 0.9 < (a @ b).std() < 1.1


@pytest.mark.parametrize("use_out", [True, False])
@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("case", REAL_CASES, ids=str)
def test_contender(contender: peers.Contender, case: Case, dtype: str, use_out: bool) -> None:
    operands = make_operands(case, dtype)
    a, b, out, bias, _ = operands
    before = a.copy(), b.copy(), None if bias is None else bias.copy()
    reason = reason_for_absence(contender.name, case)
    if reason:
        with pytest.raises(peers.AbsentError, match=f"^{reason}$"):
            contender.bind(operands, use_out)
        return
    forms = contender.bind(operands, use_out)
    for name, call in forms.items():
        verify(contender, call, operands)
        for x, y in zip((a, b, bias), before, strict=True):
            assert np.array_equal(x, y)
        out[...] = 77
        returned = call()
        ignores_out = contender.name == "jax" or name.startswith("packed by")
        if isinstance(contender, CBLAS) or (use_out and not ignores_out):
            assert not (out == 77).any()
        else:
            assert (out == 77).all()
            assert not np.shares_memory(np.asarray(returned), out)
    # the call uses the values at the time of the call, except where operands were copied
    a[...] = a[::-1].copy() / 2
    for name, call in forms.items():
        concatenates = case.batch_reduce and (contender.name == "numpy" or name.startswith("one"))
        if contender.name == "jax" or concatenates:
            with pytest.raises(ArithmeticError):
                verify(contender, call, operands)
        else:
            verify(contender, call, operands)


def test_torch_has_every_form() -> None:
    """The pinned version of PyTorch also has the private functions."""
    try:
        torch = peers.Torch(1)
    except peers.AbsentError as error:
        pytest.skip(str(error))
    forms = torch.bind(make_operands(Case(70, 90, 80, activation="gelu"), "float32"), True)
    assert list(forms) == ["addmm", "linear", "packed by oneDNN", "packed by MKL"]


# nkblas and NumPy are called in the same way for every dtype: two of the cases for each dtype.
ALTERNATING = [
    (case, dtype)
    for i, case in enumerate(OTHER_CASES)
    for j, dtype in enumerate(OTHER_DTYPES)
    if i % 3 == j % 3
]


@pytest.mark.parametrize(("case", "dtype"), ALTERNATING, ids=str)
@pytest.mark.parametrize("contender", ["nkblas", "numpy"], indirect=True)
def test_any_dtype(contender: peers.Contender, case: Case, dtype: str) -> None:
    check_other_dtype(contender, case, dtype)


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
@pytest.mark.parametrize("case", OTHER_CASES, ids=str)
@pytest.mark.parametrize("contender", [*BLAS_NAMES, "torch", "jax"], indirect=True)
def test_contender_of_other_dtypes(contender: peers.Contender, case: Case, dtype: str) -> None:
    check_other_dtype(contender, case, dtype)


def check_other_dtype(contender: peers.Contender, case: Case, dtype: str) -> None:
    operands = make_operands(case, dtype)
    a, _, out, *_ = operands
    try:
        (call,) = contender.bind(operands, True).values()
    except peers.AbsentError:
        assert dtype not in SUPPORTED_DTYPES[contender.name] or case.batch or "::2" in str(case)
        return
    verify(contender, call, operands)
    if contender.name != "jax":
        a[...] = 0
        call()
        assert not out.any()


def verify(contender: peers.Contender, call: peers.Call, operands: Operands) -> None:
    out = operands.out
    try:
        Reference(operands).verify(call)
    except ArithmeticError:
        features = set(nkblas.cpu.features)
        # without VNNI, MKL adds two products in 16 bits, and saturates
        saturates = out.dtype == np.int32 and not {"avx512_vnni", "avx_vnni"} & features
        # with AVX512-FP16, MKL accumulates in float16
        rounds = out.dtype == np.float16 and "avx512_fp16" in features
        if contender.name != "mkl" or not (saturates or rounds):
            raise


def test_wrong_results_are_found() -> None:
    operands = make_operands(Case(20, 30, 40), "float32")
    a, b, out, *_ = operands
    expected = Reference(operands)

    def wrong() -> None:
        np.matmul(a, b, out=out)
        out[3, 4] += 1e-4

    def incomplete() -> None:
        np.matmul(a[:-1], b, out=out[:-1])

    for call in (wrong, incomplete, lambda: a @ b + 1e-3, lambda: None):
        with pytest.raises(ArithmeticError, match="bound"):
            expected.verify(call)
    expected.verify(lambda: a @ b)
    with pytest.raises(ArithmeticError, match="dtype float64, expected float32"):
        expected.verify(lambda: (a @ b).astype(np.float64))
    with pytest.raises(ArithmeticError):  # also where the correct result is zero
        Reference(operands._replace(a=0 * a)).verify(lambda: None)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_wrong_layers_are_found(activation: str) -> None:
    operands = make_operands(Case(20, 30, 40, activation=activation), "float32")
    a, b, _, bias, _ = operands
    functions = {name: ALTERNATIVE_ACTIVATIONS[name] for name in ACTIVATIONS}
    function = functions.pop(activation)
    expected = Reference(operands)
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


ALTERNATIVE_ACTIVATIONS: dict[str, Any] = {
    "relu": lambda x: x.clip(0),
    "gelu": lambda x: x * np.float32([[NormalDist().cdf(y) for y in row] for row in x.tolist()]),
    "gelu_tanh": lambda x: x / (1 + np.exp(-((8 / np.pi) ** 0.5) * (x + 0.044715 * x**3))),
}
"""Implementations that are independent of `bench.reference`."""


@pytest.mark.parametrize("dtype", ["float32", "int8_int32"])
def test_wrong_sums_are_found(dtype: str) -> None:
    operands = make_operands(Case(20, 30, 40, batch=3, batch_reduce=True), dtype)
    a, b, out, *_ = operands
    expected = Reference(operands)
    expected.verify(lambda: np.matmul(a, b, dtype=out.dtype).sum(0, dtype=out.dtype))
    with pytest.raises(ArithmeticError, match="not exact" if dtype == "int8_int32" else "bound"):
        expected.verify(lambda: np.matmul(a, b, dtype=out.dtype)[:2].sum(0, dtype=out.dtype))


@pytest.mark.parametrize("dtype", ["int8", "bool", "uint8_int8_int32", "int64"])
def test_wrong_integers_are_found(dtype: str) -> None:
    operands = make_operands(Case(20, 30, 40), dtype)
    a, b, out, *_ = operands
    expected = Reference(operands)

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


@pytest.mark.parametrize(
    "dtype", [x for x in AVAILABLE_DTYPES if "int" in x] + ["uint16", "uint32", "uint64"]
)
@pytest.mark.parametrize("values", ["random", "least", "greatest", "opposite"])
def test_exact_product(dtype: str, values: str) -> None:
    """Compared with Python's integers."""
    a, b, out, *_ = make_operands(Case(5, 7, 3000), dtype)
    if values != "random":
        a[...] = np.iinfo(a.dtype).max if values == "greatest" else np.iinfo(a.dtype).min
        b[...] = np.iinfo(b.dtype).min if values == "least" else np.iinfo(b.dtype).max
    bits = 8 * out.dtype.itemsize
    product = (a.astype(object) @ b.astype(object)) % 2**bits
    if out.dtype.kind == "i":
        product = (product + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    result = exact_product(a, b, out.dtype)
    assert result.dtype == out.dtype
    assert result.tolist() == product.tolist()


def test_exact_product_of_bool() -> None:
    a, b, out, *_ = make_operands(Case(50, 60, 70), "bool")
    assert np.array_equal(exact_product(a, b, out.dtype), (a[:, :, None] & b).any(axis=1))


@pytest.mark.parametrize("dtype", [x for x in AVAILABLE_DTYPES if "int" not in x and x != "bool"])
def test_bound(dtype: str) -> None:
    """A product that is rounded once is within the bound; one rounded at each step is not."""
    a, b, out, *_ = make_operands(Case(10, 20, 50), dtype)
    product, bound = product_and_bound(a, b, out.dtype)
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
        assert eps(numpy_dtype(name)) == np.finfo(name).eps
    if "bfloat16" in AVAILABLE_DTYPES:
        assert eps(numpy_dtype("bfloat16")) == 2**-7


@pytest.mark.parametrize("tune", [True, False])
def test_warm_up(monkeypatch: pytest.MonkeyPatch, tune: bool) -> None:
    """Each case is warmed up before it is timed, if the version of nkblas has `warmup`."""
    calls: list[Any] = []

    class Recording:
        def __enter__(self) -> "Recording":
            self.calls = nkblas.stats()["calls"]
            return self

        def __exit__(self, *_: object) -> None:
            self.calls = nkblas.stats()["calls"] - self.calls

    def warmup(problems: Recording, *, tune: bool, progress: bool) -> None:
        calls.append((problems.calls, tune, progress))

    monkeypatch.setattr(nkblas, "record", Recording, raising=False)
    monkeypatch.setattr(nkblas, "warmup", warmup, raising=False)
    found = peers.NKBLAS(1, tune)
    assert ("tuned" in found.version) == tune
    found.bind(make_operands(Case(7, 9, 8), "float32"), True)
    assert calls == [(1, tune, False)]


def test_memory_read_covers_the_operand(monkeypatch: pytest.MonkeyPatch) -> None:
    for chunk in (1 << 22, 100):
        monkeypatch.setattr(roofline.MemoryRead, "MAX_CHUNK_ELEMENTS", chunk)
        for case in (Case(30, 1, 41, a=".T"), Case(31, 1, 41), Case(4, 50, 60), Case(50, 60, 4)):
            largest = max(make_operands(case, "float64")[:3], key=np.size)
            read = roofline.MemoryRead(largest)
            read()
            chunks = [x for pair in read.pairs for x in pair]
            assert read.bytes == sum(x.nbytes for x in chunks)
            assert largest.nbytes - 2 * 8 * chunk < read.bytes <= largest.nbytes
            values = np.concatenate(chunks)
            assert all(np.shares_memory(x, largest) for x in chunks)
            assert np.array_equal(values, largest.ravel(order="K")[: values.size], equal_nan=True)
    # BLAS can't read int8: as many bytes of float32 are read instead
    substitute = roofline.MemoryRead(make_operands(Case(4, 500, 600), "int8").b)
    assert 500 * 600 - 2 * 4 * 100 < substitute.bytes <= 500 * 600
    assert all(x.dtype == np.float32 for pair in substitute.pairs for x in pair)


class FakeContender:
    """A contender whose `bind` is defined by the test."""

    version = "1"

    def __init__(self, name: str, bind: Any) -> None:
        self.name = name
        self.bind = bind

    def set_num_threads(self, threads: int) -> None:
        pass


def raise_absent(*_: object) -> peers.Call:
    raise peers.AbsentError("has no such function")


ABSENT = FakeContender("mkl", raise_absent)
WRONG_CONTENDER = FakeContender(
    "torch", lambda operands, use_out: {"": lambda: operands.out.fill(0)}
)


def measure_all_suites(with_numpy: bool = True) -> list[Result]:
    """Short measurements of the first and the last case of each suite, both shrunk."""
    contenders: list[peers.Contender] = [peers.NKBLAS(1)]
    if with_numpy:
        try:
            contenders.append(peers.NumPy(1))
        except peers.AbsentError as error:
            pytest.skip(str(error))
    found = []
    for name, suite in SUITES.items():
        for case in (suite.cases[0], suite.cases[-1]):
            small = shrink(case)
            found.append(measure.measure(name, small, "float32", 1, contenders, seconds=0))
    return found


def test_measure() -> None:
    for result in measure_all_suites():
        is_plain = not (result.case.activation or result.case.packed or result.case.batch_reduce)
        assert bool(result.plan) == is_plain
        assert bool(result.over_product) == (result.case.plain_product != result.case)
        assert not result.fallback
        assert not result.absent
        assert result.out == SUITES[result.suite].uses_out
        assert set(result.gflops) == {"nkblas", "numpy"}
        may_be_memory_bound = SUITES[result.suite].may_be_memory_bound
        yardsticks = {
            "peak",
            *["read"] * may_be_memory_bound,
            *["product"] * bool(result.over_product),
        }
        assert set(result.seconds) == {*result.gflops, *yardsticks}
        assert all(len(times) >= timing.MIN_ROUNDS for times in result.seconds.values())
        assert result.medians == {name: median(times) for name, times in result.seconds.items()}
        assert report.speedup_over_best_peer(result) == result.ratios["numpy"]
        check_consistency(result)


@pytest.mark.parametrize("dtype", ["complex64", "int8", "uint8_int8_int32", "bool"])
def test_measure_dtypes(dtype: str) -> None:
    contenders = [peers.NKBLAS(1), FakeContender("numpy", peers.NumPy.bind.__get__(peers.NumPy))]
    result = measure.measure("dtypes", Case(70, 90, 80), dtype, 1, contenders, seconds=0)
    assert set(result.ratios) == {"numpy"}
    assert "peak" in result.seconds
    check_consistency(result)


def test_absent_peers_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    contenders = [peers.NKBLAS(1), ABSENT, WRONG_CONTENDER]
    case = Case(7, 9, 8)
    found = [measure.measure("dtypes", case, x, 1, contenders, seconds=0) for x in ("int8", "bool")]
    for result in found:
        assert result.absent == {
            "mkl": "has no such function",
            "torch": "its result is not exact",
        }
        assert set(result.gflops) == {"nkblas"}
        assert math.isnan(report.speedup("mkl", result))
        assert 0 < report.roofline_fraction("nkblas", result) < 1
    assert list(report.print_tables(found)) == found
    printed = capsys.readouterr().out
    assert "mkl: has no such function (all)" in printed
    assert report.absence_notes([*found, found[0]._replace(absent={})])[0].endswith("(int8; bool)")
    (line,) = [line for line in printed.splitlines() if line.split()[:1] == ["int8"]]
    assert line.split()[3:6] == ["-", "-", "-"]  # two peers, and the best peer
    with pytest.raises(ArithmeticError, match="exact"):
        measure.measure(
            "dtypes", case, "int8", 1, [FakeContender("nkblas", WRONG_CONTENDER.bind)], seconds=0
        )


@pytest.mark.parametrize("dtype", AVAILABLE_DTYPES)
def test_numpy_skips_large_products_without_a_blas(dtype: str) -> None:
    """A product that would take seconds in NumPy's own loops is not measured."""
    bind = peers.NumPy.bind.__get__(peers.NumPy)
    small = make_operands(Case(1, 2, 1 << 19), dtype)
    large = small._replace(out=np.broadcast_to(small.out[:1], (1 << 10,)))
    bind(small, False)
    if "float32" in dtype or dtype in ("float64", "complex64", "complex128", "bfloat16"):
        bind(large, False)
    else:
        with pytest.raises(peers.AbsentError, match="too long"):
            bind(large, False)


def test_peers_that_take_too_long_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(operands: Operands, use_out: bool) -> peers.Forms:
        a, b, out, *_ = operands
        return {"": lambda: (time.sleep(2e-2), np.matmul(a, b, out=out))}

    operands = make_operands(Case(7, 9, 8), "int8")
    for max_seconds, absent in ((1e-2, {"mkl": "takes too long"}), (10, {})):
        monkeypatch.setattr(binding, "MAX_PEER_SECONDS", max_seconds)
        contenders = [FakeContender("nkblas", bind), FakeContender("mkl", bind)]
        bound, found = measure.bind_contenders(contenders, operands, "int8", True, pause=0)
        assert found == absent
        assert bound.keys() == {"nkblas", "mkl"} - absent.keys()
        assert not any(x.forms for x in bound.values())


def test_the_fastest_form_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    has_wrong_form = False

    def bind(operands: Operands, use_out: bool) -> peers.Forms:
        a, b, out, *_ = operands
        multiply = partial(np.matmul, a, b, out=out)
        slow: peers.Forms = {"slow": lambda: (time.sleep(1e-3), multiply())}
        return (
            slow | {"fast": multiply} | ({"wrong": lambda: out.fill(0)} if has_wrong_form else {})
        )

    contenders = [peers.NKBLAS(1), FakeContender("mkl", bind)]
    case = Case(7, 9, 8)
    result = measure.measure("square", case, "float32", 1, contenders, seconds=0)
    assert set(result.forms) == {"mkl"}
    assert result.forms["mkl"]["fast"] < 1e-3 < result.forms["mkl"]["slow"]
    assert result.medians["mkl"] < 1e-3
    assert report.form_notes([result, result]) == ["mkl: fast (2)"]
    has_wrong_form = True
    result = measure.measure("square", case, "float32", 1, contenders, seconds=0)
    assert result.absent == {"mkl": "its result is outside the error bound"}
    assert not result.forms


def test_plain_product_is_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    contenders = [peers.NKBLAS(1)]
    found = [
        measure.measure("layers", Case(7, 9, 8, activation=name), "float32", 1, contenders, 0)
        for name in ("relu", "gelu")
    ]
    assert list(report.print_tables(found)) == found
    printed = capsys.readouterr().out
    assert [report.table_key(x)[1] for x in found] == ["float32 relu", "float32 gelu"]
    assert printed.count("nkblas's a @ b\n") == 2
    lines = [line for line in printed.splitlines() if line.split()[:1] == ["7x9x8"]]
    assert [line.split()[-1] for line in lines] == [f"{x.over_product:.3f}" for x in found]


def test_slow_contenders_are_timed_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SLOW_SECONDS", 5e-3)
    calls = {"fast": 0, "slow": 0}

    def fast() -> None:
        calls["fast"] += 1
        timing.busy_wait(3e-4)

    def slow() -> None:
        calls["slow"] += 1
        time.sleep(2e-2)

    times = timing.time_interleaved({"slow": slow, "fast": fast}, seconds=0, pause=0)
    assert len(times["slow"]) == timing.SLOW_ROUNDS
    assert calls["slow"] == timing.SLOW_ROUNDS + 1
    assert len(times["fast"]) == timing.MIN_ROUNDS
    assert timing.median_ratio(times["slow"], times["fast"]) == median(
        times["slow"][i] / times["fast"][i] for i in range(timing.SLOW_ROUNDS)
    )
    # the limit is relative to the fastest call
    times = timing.time_interleaved({"slow": slow, "other": slow}, seconds=0, pause=0)
    assert {len(values) for values in times.values()} == {timing.MIN_ROUNDS}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dtype", "int8", "float32", "--threads", "1", "2"],
        ["--activation", "gelu_tanh", "--dtype", "int8", "float32"],
    ],
)
def test_selected_cases_are_ordered_by_table(arguments: list[str]) -> None:
    options = command.parse_arguments(arguments)
    found = list(command.selected_cases(options))
    assert len(set(found)) == len(found)
    tables = [
        table
        for table, _ in groupby(
            (suite, case.size if SUITES[suite].rows_are_dtypes else dtype, threads)
            for suite, case, dtype, threads in found
        )
    ]
    assert len(set(tables)) == len(tables)
    assert {suite for suite, *_ in found} == set(SUITES)
    dtypes = {dtype for suite, _, dtype, _ in found if suite == "square"}
    assert dtypes == (set(REAL_DTYPES) if not arguments else {"int8", "float32"})
    if not arguments:
        assert {dtype for suite, _, dtype, _ in found if suite == "dtypes"} == set(AVAILABLE_DTYPES)
    activations = {case.activation for suite, case, *_ in found if suite == "layers"}
    assert activations == ({"gelu_tanh"} if "gelu_tanh" in arguments else {"relu", "gelu"})


def test_threads_share_the_peak() -> None:
    case = Case(64, 64, 64)
    one, two = (
        measure.measure("square", case, "float32", n, [peers.NKBLAS(1)], seconds=0) for n in (1, 2)
    )
    check_consistency(one)
    check_consistency(two)
    assert math.isnan(report.speedup_over_best_peer(one))
    scaling = 2 * two.of_peak["nkblas"] / one.of_peak["nkblas"]
    assert math.isclose(report.thread_scaling({str(case): one}, two), scaling)
    assert math.isnan(report.thread_scaling({}, two))


def check_consistency(result: Result) -> None:
    """All figures follow from the seconds; fractions and ratios are taken within rounds."""
    seconds, medians = result.seconds, result.medians
    flops = result.case.flops(result.dtype)

    def median_ratio(x: str, y: str) -> float:
        return median(p / q for p, q in zip(seconds[x], seconds[y], strict=False))

    for name, speed in result.gflops.items():
        assert math.isclose(speed, flops / medians[name] / 1e9)
        if "peak" in seconds:
            at_peak = result.peak * 1e9 * medians["peak"] * result.threads
            assert math.isclose(result.of_peak[name], median_ratio("peak", name) * flops / at_peak)
        else:
            assert not result.peak
            assert not result.of_peak
        if "read" in seconds:
            arrays = make_operands(result.case, result.dtype)[:3]
            fraction = median_ratio("read", name) * sum(x.nbytes for x in arrays)
            fraction /= result.bandwidth * 1e9 * medians["read"]
            assert math.isclose(result.of_bandwidth[name], fraction)
        else:
            assert not result.bandwidth
            assert not result.of_bandwidth
    if "product" in seconds:
        assert result.over_product == median_ratio("product", "nkblas")
    assert result.ratios == {
        name: median_ratio(name, "nkblas") for name in result.gflops if name != "nkblas"
    }


# ---- the suite `calls` ----


@pytest.fixture
def untuned_plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads and plan files of this process are as before afterwards."""
    monkeypatch.setattr(calls.measured, "layers", dict(calls.measured.layers))
    threads = nkblas.get_num_threads()
    yield
    nkblas.set_num_threads(threads)


SOME_CALLS = (
    CallCase("a @ a.T", "a = float32(30, 40)"),
    CallCase("np.matmul(a, b, out=c)", "a = int64(4, 5); b = int64(5, 6); c = int64(4, 6)"),
    CallCase("np.dot(x, y)", "x = [1.0, 2.0]; y = complex64(2)"),
    CallCase("nkblas.gemm(a, a, a, beta=1)", "a = float16(9, 9)", "a @ a + a"),
    CallCase("blas.dgemv(2, a, x)", "a = float64(5, 7).T[::-1]; x = float64(10)[::2]"),
)


def test_calls_cover_the_public_functions() -> None:
    """Every function of nkblas that NumPy or SciPy has is called, under their name or its own."""
    called = {part for case in CALLS for part in case.statement.replace("(", ".").split(".")}
    others = {"get_include", "record", "show_config"}  # NumPy's have nothing but the name in common
    functions = {x for x in nkblas.__all__ if hasattr(np, x) or hasattr(np.linalg, x)} - others
    assert functions >= {"matmul", "einsum", "multi_dot"}
    assert called >= {*functions, "gemm", "brgemm", *nkblas.blas.__all__} - {"BlasError"}
    used = {name for name in OPERAND_DTYPES if any(f"{name}(" in case.setup for case in CALLS)}
    assert used >= {"float16", "float32", "float64", "complex64", "complex128", "int64"}


def names(source: str, context: type[ast.expr_context]) -> set[str]:
    """The variables that some Python source reads (`ast.Load`) or sets (`ast.Store`)."""
    nodes = ast.walk(ast.parse(source))
    return {x.id for x in nodes if isinstance(x, ast.Name) and isinstance(x.ctx, context)}


def test_calls_are_valid_and_distinct() -> None:
    assert len(set(map(str, CALLS))) == len(CALLS)
    for case in CALLS:
        variables = names(case.setup, ast.Store)
        assert names(case.setup, ast.Load) - variables <= {"np", "nkblas", *OPERAND_DTYPES}
        statements = (case.statement, case.numpy_statement or case.statement)
        for statement in statements:
            compile(statement, "statement", "eval")
            assert names(statement, ast.Load) <= {"np", "nkblas", "blas", *variables}
        assert "nkblas" not in statements[1]
        assert variables == names("; ".join(statements), ast.Load) - {"np", "nkblas", "blas"}


def test_operands_of_calls() -> None:
    case = CallCase("", "a = float32(3, 5); x = float64(); b = int8(300, 500); c = bool(3)[::-1]")
    first, second = calls.make_operands(case), calls.make_operands(case)
    for name, dtype, shape in (
        ("a", "float32", (3, 5)),
        ("x", "float64", ()),
        ("b", "int8", (300, 500)),
        ("c", "bool", (3,)),
    ):
        x, y = first[name], second[name]
        assert (x.dtype.name, x.shape) == (dtype, shape)
        assert np.array_equal(x, y)
        assert not np.shares_memory(x, y)
        if name != "c":
            assert x.flags.c_contiguous
            assert x.ctypes.data % (4096 if name == "b" else 64) == 16
    assert first["b"].min() == -128
    assert first["b"].max() == 127


@pytest.mark.usefixtures("untuned_plans")
def test_measure_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(calls.measure_calls(SOME_CALLS, seconds=0))
    assert [x.case for x in found] == [x for x in SOME_CALLS if calls.is_installed(x)]
    for result in found:
        seconds = result.seconds
        assert set(seconds) == {"numpy", "nkblas"}
        assert all(len(times) >= timing.MIN_ROUNDS for times in seconds.values())
        assert result.medians == {name: median(times) for name, times in seconds.items()}
        assert result.ratio == median(map(float.__truediv__, *seconds.values()))
        assert not result.fallback
    assert nkblas.get_num_threads() == 1
    monkeypatch.setattr(calls, "HAS_SCIPY", False)
    monkeypatch.delattr(np, "matvec", raising=False)
    absent = [x.statement for x in CALLS if not calls.is_installed(x)]
    assert {x.partition("(")[0] for x in absent} >= {"blas.dgemm", "np.matvec", "np.vecmat"}
    assert all(x.startswith(("blas.", "np.matvec(", "np.vecmat(")) for x in absent)


@pytest.mark.usefixtures("untuned_plans")
def test_calls_do_not_use_tuned_plans() -> None:
    """A plan that was tuned before, in this process or another, is replaced."""
    case = CallCase("a @ b", "a = float32(33, 34); b = float32(34, 35)")
    a, b = (calls.make_operands(case)[name] for name in "ab")
    nkblas.warmup(["33x35x34:f32"], progress=False, seconds=0.1)
    assert nkblas.explain(a, b).plan.origin == "tuned"
    assert len(list(calls.measure_calls([case], seconds=0))) == 1
    assert nkblas.explain(a, b).plan.origin != "tuned"


def test_only_samples_of_nkblas_are_patched() -> None:
    a = np.ones((3, 3))
    for timer, expected in ((calls.CallTimer, 0), (calls.PatchedTimer, 7)):
        before = nkblas.stats()["calls"]
        assert timer("a @ a", {"a": a}).timeit(7) > 0
        assert nkblas.stats()["calls"] - before == expected
    before = nkblas.stats()["calls"]
    a @ a
    assert nkblas.stats()["calls"] == before


def test_times_of_calls_are_cpu_time() -> None:
    """Time in which other processes have the core does not count, nor does sleep."""
    for timer in (calls.CallTimer, calls.PatchedTimer):
        assert timer("sleep(0.05)", {"sleep": time.sleep}).timeit(2) < 0.05
        assert timer("wait(0.02)", {"wait": timing.busy_wait}).timeit(1) > 0.002


@pytest.mark.parametrize(
    ("statement", "numpy_statement", "message"),
    [
        ("a @ b", "a @ b + 1", "is not NumPy's"),
        ("c @ d", "c @ d + 1e-3", "is not NumPy's"),
        ("c @ d", "(c @ d).astype(np.float64)", "got .*float32.* expected .*float64"),
        ("c @ d", "(c @ d).T[:1]", "got .*4, 4.* expected .*1, 4"),
        ("x @ x", "np.asarray(x @ x)", "got .*float32.* expected .*ndarray"),
        ("e", "np.matmul(c, d, out=e)", "is not NumPy's"),  # as if nkblas left `out` unwritten
        ("c * np.nan", "c", "is not NumPy's"),
    ],
)
def test_wrong_calls_are_found(statement: str, numpy_statement: str, message: str) -> None:
    setup = "a = int64(4, 4); b = int64(4, 4); x = float32(9); c = float32(4, 4); d = float32(4, 4)"
    case = CallCase(statement, f"{setup}; e = float32(4, 4)", numpy_statement)
    with pytest.raises(ArithmeticError, match=message):
        calls.measure_call(case, seconds=0)


def make_call_result(ratio: float, fallback: bool = False) -> CallResult:
    case = CallCase(f"a @ {ratio}", "a = float64(3)")
    medians = {"numpy": 2e-6 * ratio, "nkblas": 2e-6}
    seconds = {name: [value] for name, value in medians.items()}
    return CallResult(case, fallback, ratio, medians, seconds)


@pytest.mark.parametrize("only_losing", [False, True])
def test_calls_are_reported_worst_first(
    capsys: pytest.CaptureFixture[str], only_losing: bool
) -> None:
    found = [make_call_result(x, fallback=x == 0.5) for x in (1.0, 0.5, 4.0, 0.94, 0.95, 0.125)]
    report.print_calls(found, only_losing)
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if " @ " in line]
    expected = ["0.125", "0.5", "0.94", "0.95", "1.0", "4.0"]
    assert [row.split(" @ ")[1].split()[0] for row in rows] == expected[: 3 if only_losing else 6]
    assert " ".join(rows[1].split()) == (
        "0.50 1.00 us 2.00 us a @ 0.5 a = float64(3) (fallback to NumPy)"
    )
    mean = report.geometric_mean([x.ratio for x in found])
    assert [" ".join(line.split()) for line in lines[-3:]] == [
        f"{mean:.2f} geometric mean of 6 calls",
        "3 below 0.95",
        "2 at least 1",
    ]
    report.print_calls([], only_losing)
    assert not capsys.readouterr().out


def test_format_of_times() -> None:
    for seconds, text in (
        (3.04e-7, "0.30 us"),
        (9.994e-6, "9.99 us"),
        (9.996e-6, "10.0 us"),
        (99.96e-6, "100 us"),
        (999.4e-6, "999 us"),
        (999.6e-6, "1.00 ms"),
        (1.5, "1500 ms"),
    ):
        assert report.format_seconds(seconds) == text


def test_selected_calls() -> None:
    def selected(*arguments: str) -> list[CallCase]:
        return command.selected_calls(command.parse_arguments(["calls", *arguments]))

    assert selected() == list(CALLS)
    assert selected("--only", "einsum") == [x for x in CALLS if "einsum" in x.statement]
    halves = selected("--dtype", "float16", "complex64")
    assert 2 < len(halves) < 20
    assert all("float16(" in x.setup or "complex64(" in x.setup for x in halves)


@pytest.mark.parametrize("numpy_is_loaded", [True, False])
def test_openblas_is_held_to_an_instruction_set(
    monkeypatch: pytest.MonkeyPatch, numpy_is_loaded: bool
) -> None:
    """The process restarts if NumPy has loaded OpenBLAS with other values."""
    restarts: list[object] = []
    monkeypatch.setattr(os, "execv", lambda *arguments: restarts.append(arguments))
    if not numpy_is_loaded:
        monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    assert command.set_openblas_overrides("Haswell") == ["OPENBLAS_L2_SIZE"]
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OPENBLAS_L2_SIZE" not in os.environ
    assert len(restarts) == numpy_is_loaded
    assert command.set_openblas_overrides("Haswell") == []  # after the restart
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    assert len(restarts) == numpy_is_loaded
    assert command.set_openblas_overrides("") == ["OPENBLAS_CORETYPE"]
    assert "OPENBLAS_CORETYPE" not in os.environ


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


@pytest.mark.parametrize("with_numpy", [True, False])
def test_record_and_plots(tmp_path: Path, with_numpy: bool) -> None:
    pytest.importorskip("matplotlib")
    from bench.plots import draw, plot

    header = {"cpu": "a CPU", "isa": "avx2", "nkblas": "1.2", "numpy": "3.4", "mkl": "absent"}
    tiles = [TileResult("float32", 14, 32, 100, 0.5)]
    found = [make_call_result(0.5)]
    saved = BenchmarkRun(header, measure_all_suites(with_numpy), tiles, found)
    saved.save(str(tmp_path / "new" / "run.json"))
    loaded = BenchmarkRun.load(str(tmp_path / "new" / "run.json"))
    assert loaded == saved

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
    assert any("NumPy 3.4" in text for text in texts) == with_numpy
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["nkblas", "NumPy"][: 1 + with_numpy]


def test_plot_of_layers() -> None:
    pytest.importorskip("matplotlib")
    from bench.plots import draw

    case = Case(7, 9, 8, activation="relu")
    found = [measure.measure("layers", case, "float32", 1, [peers.NKBLAS(1), ABSENT], seconds=0)]
    figure = draw(found, {"cpu": "a CPU", "isa": "avx2", "nkblas": "1.2", "mkl": "3"})
    (line,) = [x for x in figure.axes[1].get_lines() if "nkblas's a @ b" in str(x.get_label())]
    assert list(line.get_ydata()) == [found[0].over_product]


def test_plot_of_dtypes() -> None:
    pytest.importorskip("matplotlib")
    from bench.plots import draw

    contenders = [peers.NKBLAS(1), ABSENT]
    dtypes = ["float32", "int8_int32"]
    found = [measure.measure("dtypes", Case(7, 9, 8), x, 1, contenders, seconds=0) for x in dtypes]
    figure = draw(found, {"cpu": "a CPU", "isa": "avx2", "nkblas": "1.2", "mkl": "3"})
    upper, lower = figure.axes
    assert [text.get_text() for text in lower.get_xticklabels()] == ["float32", "int8 -> int32"]
    line = upper.get_lines()[0]
    assert line.get_label() == "nkblas"
    assert list(line.get_ydata()) == [result.gflops["nkblas"] for result in found]


def run_bench(*arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=300
    )


def test_command(tmp_path: Path) -> None:
    file = str(tmp_path / "run.json")
    arguments = ["small", "tiles", "--only", "4x4x", "--dtype", "float32", "--threads", "1", "2"]
    arguments += ["--seconds", "0.01", "--peers", "--json", file]
    done = run_bench(*arguments, OPENBLAS_CORETYPE="Haswell")
    assert done.returncode == 0, done.stderr
    saved = BenchmarkRun.load(file)
    assert [(r.case.size, r.threads) for r in saved.results] == [
        (size, threads) for threads in (1, 2) for size in ("4x4x4", "4x4x32")
    ]
    assert {tile.dtype for tile in saved.tiles} == {"float32"}
    assert "OPENBLAS_CORETYPE" in json.loads(Path(file).read_text())["header"]["unset"]
    shown = run_bench("--from-json", file)
    assert shown.stdout == done.stdout
    assert "geometric mean" in shown.stdout


def test_command_of_calls(tmp_path: Path) -> None:
    file = str(tmp_path / "run.json")
    arguments = ["calls", "--only", "a = float64(3, 3); x", "--seconds", "0.01", "--json", file]
    isa = ["--isa", "avx2"] if {"avx2", "fma"} <= set(nkblas.cpu.features) else []
    done = run_bench(*arguments, *isa, OPENBLAS_CORETYPE="Prescott")
    assert done.returncode == 0, done.stderr
    saved = BenchmarkRun.load(file)
    assert {x.case.statement for x in saved.calls} >= {"a @ x", 'np.einsum("ij,j->i", a, x)'}
    assert "modelled plans" in saved.header["nkblas"]
    assert "OPENBLAS_CORETYPE" in saved.header.get("unset", "") or isa
    if isa:
        assert saved.header["isa"] == "avx2"
        assert "Haswell" in saved.header["numpy"]
    shown = run_bench("--from-json", file)
    assert shown.stdout == done.stdout
    losing = run_bench("--from-json", file, "--losing").stdout
    count = sum(x.ratio < report.LOSING_RATIO for x in saved.calls)
    assert sum(" us " in line for line in losing.splitlines()) == count
    assert f"\n{count:6}  below 0.95\n" in losing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["squares"], "got squares, expected some of square"),
        (["--threads", "0"], "got 0, expected 1 or more"),
        (["--dtype", "int7"], "invalid choice"),
    ],
)
def test_command_rejects_wrong_arguments(arguments: list[str], message: str) -> None:
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
