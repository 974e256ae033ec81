"""`gemm` with bias, activation and residual, against float64 or exact integers."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TOOLS, run, without_python

import nkblas
from nkblas.base import epilogues
from nkblas.base.epilogues import ACTIVATIONS, BIASES, KINDS, Epilogue
from nkblas.base.isa import ISAS
from nkblas.base.problem import Problem, parse
from nkblas.codegen.loader import load_kernel
from nkblas.codegen.lowering import pipeline, verify
from nkblas.codegen.spec import Microkernel

ml_dtypes = pytest.importorskip("ml_dtypes")

FLOATS = ["float32", "float64", "float16", "bfloat16"]
INTEGERS = ["int32", "int64", "int8"]
WITHOUT_BOUNDS = [name for name, x in ACTIVATIONS.items() if name and not x.has_bounds]
NAMES = [None, *WITHOUT_BOUNDS, ("clip", -0.5, 1.5)]


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes="d")(x)


DEFINITIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    ("clip", -0.5, 1.5): lambda x: np.clip(x, -0.5, 1.5),
}
"""The textbook definitions."""

MAX_SLOPE = 1.2
"""Upper bound of the derivative of all activations."""


def draw(generator: np.random.Generator, dtype: np.dtype[Any], *shape: int) -> np.ndarray:
    if dtype.kind == "i":
        return generator.integers(-9, 10, shape).astype(dtype)
    return generator.uniform(-1, 1, shape).astype(dtype)


def check_floats(
    dtype: np.dtype[Any], a: Any, b: Any, activation: Any, bias: Any, residual: Any, got: Any
) -> None:
    """Check against the error bounds of the sums, of the activation and of the final rounding."""
    wide = [None if x is None else x.astype(np.float64) for x in (a, b, bias, residual)]
    x, y, added, more = wide
    total, size = x @ y, abs(x) @ abs(y)
    if added is not None:
        total, size = total + added, size + abs(added)
    eps_sum = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    eps = float(ml_dtypes.finfo(dtype).eps)
    expected = DEFINITIONS[activation](total)
    error = MAX_SLOPE * (x.shape[1] + 2) * eps_sum * size + 4 * eps_sum * (1 + abs(expected))
    if more is not None:
        expected = expected + more
    assert got.dtype == dtype
    rounding = eps * abs(expected) + (1e-7 if dtype == np.float16 else 0)  # subnormal numbers
    assert (abs(got.astype(np.float64) - expected) <= error + rounding).all()


@pytest.mark.parametrize("activation", NAMES, ids=str)
@pytest.mark.parametrize("name", FLOATS)
def test_floats(name: str, activation: Any) -> None:
    """Edge tiles, several k blocks, vectors, both kinds of bias, every layout."""
    dtype, generator = dtype_of(name), np.random.default_rng(1)
    for i, (m, n, k) in enumerate([(37, 70, 23), (1, 65, 300), (50, 1, 17), (33, 40, 1500)]):
        a, b = draw(generator, dtype, m, k), draw(generator, dtype, k, n)
        columns, rows = draw(generator, dtype, n), draw(generator, dtype, m, 1)
        residual = draw(generator, dtype, m, n)
        for j, (bias, more) in enumerate([(columns, None), (rows, residual)]):
            out = np.empty((m, n), dtype, order="CF"[(i + j) % 2])
            x = np.asfortranarray(a) if j else a
            got = nkblas.gemm(
                x, b, bias=bias, activation=activation, residual=more, out=out, out_dtype=dtype
            )
            assert got is out
            check_floats(dtype, a, b, activation, bias, more, got)


@pytest.mark.parametrize("name", FLOATS)
def test_fast_path(name: str) -> None:
    """It has the bits of the general path, for packed matrices too."""
    general: Any = nkblas.gemm.__wrapped__  # type: ignore[attr-defined]
    dtype, generator = dtype_of(name), np.random.default_rng(7)
    a, b, residual = (draw(generator, dtype, *s) for s in ((9, 64), (64, 40), (9, 40)))
    bias = draw(generator, dtype_of("float64" if name == "float64" else "float32"), 40)
    for right in (b, nkblas.pack(b, dtype=dtype)):
        for options in (
            {},
            {"bias": bias, "activation": "relu"},
            {"bias": 0.25, "residual": residual, "out_dtype": dtype},
            {"activation": "tanh", "out": np.empty((9, 40), dtype), "residual": None},
        ):
            got = without_python(nkblas.gemm, a, right, **options)
            assert got.tobytes() == general(a, right, **options).tobytes()
            added = None if "bias" not in options else np.full(40, options["bias"])
            more = options.get("residual")
            check_floats(dtype, a, b, options.get("activation"), added, more, got)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str) -> None:
    dtype, generator = dtype_of(name), np.random.default_rng(2)
    for m, n, k in [(37, 70, 23), (1, 65, 300), (50, 1, 17)]:
        a, b, bias, residual, c = (
            draw(generator, dtype, *shape) for shape in ((m, k), (k, n), (n,), (m, n), (m, n))
        )
        with np.errstate(over="ignore"):
            total = np.matmul(a, b) + c + bias  # it wraps
            for activation, expected in (
                (None, total),
                ("relu", np.maximum(total, 0)),
                (("clip", -5, 7), np.clip(total, -5, 7)),
            ):
                got = nkblas.gemm(
                    a, b, c, beta=1, bias=bias, activation=activation, residual=residual
                )
                assert got.dtype == dtype
                assert np.array_equal(got, expected + residual)


def check_rounded_once(name: str) -> None:
    """Check results of NumPy's fallback: there is nothing to multiply, or there are no kernels."""
    dtype, generator = dtype_of(name), np.random.default_rng(4)
    for k, alpha in ((0, 1), (5, 0), (5, -0.7)):
        a, b, c = (
            generator.standard_normal(shape).astype(dtype) for shape in ((40, k), (k, 30), (40, 30))
        )
        bias = generator.standard_normal(30).astype("f4")
        for right in (b, nkblas.pack(b, dtype=dtype)) if k else (b,):
            got = nkblas.gemm(a, right, c, alpha=alpha, beta=-1.3, bias=bias, activation="relu")
            x, y, z = (matrix.astype("f8") for matrix in (a, b, c))
            exact = np.maximum(alpha * x @ y - 1.3 * z + bias, 0)
            assert np.count_nonzero(got != exact.astype("f4").astype(dtype)) <= 2


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_narrow_floats_are_rounded_once(name: str) -> None:
    check_rounded_once(name)


def test_narrow_floats_are_rounded_once_without_kernels(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    program = (
        "from test_epilogue import check_rounded_once as f; f('float16'); f('bfloat16'); report()"
    )
    report, _ = run(
        program, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=tmp_path, PYTHONPATH=f"{tests}:{TOOLS}"
    )
    assert report["kernels_compiled"] == 0 < report["fallbacks"]


@pytest.mark.parametrize("name", ["int64", "uint64"])
def test_clipped_integers_are_exact(name: str) -> None:
    """float64 cannot represent all of them."""
    dtype, large = np.dtype(name), 2**60 + 1
    a, residual = np.ones((2, 2), dtype), np.full((2, 2), large, dtype)
    got = nkblas.gemm(a, a, activation=("clip", 0.5, 1.5), residual=residual)
    assert np.array_equal(got, residual + dtype.type(1))
    got = nkblas.gemm(a, a, bias=dtype.type(large), activation=("clip", -np.inf, np.inf))
    assert np.array_equal(got, residual + dtype.type(2))
    got = nkblas.gemm(a, a, bias=dtype.type(large), activation=("clip", 0, 2.0**63))
    assert np.array_equal(got, residual + dtype.type(2))


def test_wider_results() -> None:
    generator = np.random.default_rng(3)
    a, b = (generator.integers(-128, 128, (40, 40), np.int8) for _ in range(2))
    bias = generator.integers(-(10**6), 10**6, 40, np.int32)
    got = nkblas.gemm(a, b, bias=bias, activation="relu", out_dtype=np.int32)
    assert np.array_equal(got, np.maximum(a.astype(np.int64) @ b + bias, 0))
    x = a.astype(np.float16)
    got = nkblas.gemm(x, x, bias=bias[:1] / 7, activation="tanh", out_dtype=np.float32)
    assert np.allclose(got, np.tanh(x.astype(float) @ x + bias[0] / 7), atol=1e-6)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    shape=st.tuples(st.integers(0, 40), st.integers(0, 70), st.integers(0, 30)),
    alpha=st.sampled_from([1, 0, -2]),
    beta=st.sampled_from([0, 1, 0.5]),
    bias=st.sampled_from([None, "columns", "rows", "one"]),
    residual=st.booleans(),
    relu=st.booleans(),
    complex_=st.booleans(),
)
def test_any_shape(
    shape: tuple[int, int, int],
    alpha: float,
    beta: float,
    bias: str | None,
    residual: bool,
    relu: bool,
    complex_: bool,
) -> None:
    """Dimensions of length 0 too, and calls without kernels: complex numbers, alpha = 0."""
    (m, n, k), generator = shape, np.random.default_rng(4)
    dtype = np.complex128 if complex_ else np.float64
    activation = "relu" if relu and not complex_ else None

    def matrix(*size: int) -> np.ndarray:
        return generator.integers(-9, 10, size).astype(dtype)

    a, b, c, more = matrix(m, k), matrix(k, n), matrix(m, n), matrix(m, n)
    added = {None: None, "columns": matrix(n), "rows": matrix(m, 1), "one": matrix()}[bias]
    expected = alpha * (a @ b) + beta * c
    if added is not None:
        expected = expected + added
    if activation:
        expected = np.maximum(expected, 0)
    if residual:
        expected = expected + more
    got = nkblas.gemm(
        a,
        b,
        c,
        alpha=alpha,
        beta=beta,
        bias=added,
        activation=activation,
        residual=more if residual else None,
    )
    assert np.array_equal(got, expected)


def test_residual_that_is_out() -> None:
    """Also if the sums of the first k blocks are stored to `out`."""
    generator = np.random.default_rng(5)
    a, b, x = (
        generator.integers(-4, 5, s).astype("f4") for s in ((60, 3000), (3000, 50), (60, 50))
    )
    expected = np.maximum(a @ b + 1, 0) + x
    assert nkblas.gemm(a, b, bias=1, activation="relu", residual=x, out=x) is x
    assert np.array_equal(x, expected)


def test_nan_and_infinity() -> None:
    column = np.ones((1, 1), "f4")
    row = np.array([[np.nan, np.inf, -1e30, -0.0, 1e30]], "f4")
    for activation in NAMES:
        got = nkblas.gemm(column, row, activation=activation)[0]
        assert np.isnan(got[0])
        assert not np.isnan(got[1:]).any()
        with np.errstate(over="ignore"):
            expected = DEFINITIONS[activation](row[0, 3:].astype(float))
        assert np.allclose(got[3:], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracy(dtype: type) -> None:
    """Within a few ulps of x; for "sigmoid" and "tanh" of the result."""
    generator = np.random.default_rng(8)
    tiny = 10.0 ** generator.uniform(-30, -1, 200) * generator.choice([-1, 1], 200)
    x = np.concatenate([np.linspace(-30, 30, 5001), tiny, [-1e30, -300, 300]]).astype(dtype)
    wide = x.astype(np.longdouble)
    with np.errstate(over="ignore", under="ignore"):
        sigmoid = 1 / (1 + np.exp(-wide))
        inner = np.sqrt(np.longdouble(2) / np.pi) * (wide + np.longdouble(0.044715) * wide**3)
        expected = {
            "gelu": np.array([v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.tolist()]),
            "gelu_tanh": wide / (1 + np.exp(-2 * inner)),
            "silu": wide * sigmoid,
            "sigmoid": sigmoid,
            "tanh": np.tanh(wide),
        }
    for activation, values in expected.items():
        got = nkblas.gemm(np.ones((1, 1), dtype), x[None], activation=activation)[0]
        # for x < -9 gelu is almost 0; the error may be as large as at -9
        size = abs(values if activation in ("sigmoid", "tanh") else np.maximum(x, -9))
        error = abs(got - values)
        assert (error <= 3 * np.finfo(dtype).eps * size + np.finfo(dtype).tiny).all(), activation


def test_many_threads_have_the_same_bits() -> None:
    generator = np.random.default_rng(6)
    a, b, bias = (generator.standard_normal(s).astype("f4") for s in ((300, 200), (200, 500), 500))
    before = nkblas.get_num_threads()
    try:
        found = set()
        for threads in (1, 2, 3):
            nkblas.set_num_threads(threads)
            found.add(nkblas.gemm(a, b, bias=bias, activation="gelu").tobytes())
        assert len(found) == 1
    finally:
        nkblas.set_num_threads(before)


def test_concurrent_calls() -> None:
    """Each call has its own bias."""
    a, b = np.ones((4, 8), "f4"), np.ones((8, 100), "f4")
    wrong = []

    def work(number: int) -> None:
        bias = np.full(100, number, "f4")
        wrong.extend(1 for _ in range(200) if (nkblas.gemm(a, b, bias=bias) != 8 + number).any())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"bias": np.zeros(4)}, ValueError, "bias: got shape .4,., expected .3,. for columns"),
        ({"bias": np.zeros((3, 2))}, ValueError, "bias: got shape"),
        ({"bias": np.zeros(3, complex)}, TypeError, "bias: got complex128, expected"),
        ({"residual": np.zeros((3, 3))}, ValueError, r"residual: got shape \(3, 3\), expected"),
        ({"activation": "swish"}, ValueError, "activation: got 'swish', expected one of relu"),
        ({"activation": "clip"}, ValueError, "activation: got 'clip'"),
        ({"activation": ("clip", "a", 1)}, TypeError, "activation: got"),
        ({"activation": 7}, ValueError, "activation: got 7"),
    ],
)
def test_mistakes(arguments: dict[str, Any], error: type, text: str) -> None:
    a, b = np.ones((2, 5)), np.ones((5, 3))
    for right in (b, nkblas.pack(b)):
        with pytest.raises(error, match=text):
            nkblas.gemm(a, right, **arguments)


def test_unsupported_activations() -> None:
    with pytest.raises(TypeError, match="activation: got tanh for int64"):
        nkblas.gemm(np.ones((2, 2), np.int64), np.ones((2, 2), np.int64), activation="tanh")
    with pytest.raises(TypeError, match="activation: got relu for complex128"):
        nkblas.gemm(np.ones((2, 2), complex), np.ones((2, 2)), activation="relu")


def test_texts_and_codes() -> None:
    every = [
        Epilogue(kind, bias, activation, residual)
        for kind in KINDS
        for bias in BIASES
        for activation in ACTIVATIONS
        for residual in (False, True)
    ]
    assert len({epilogue.code for epilogue in every}) == len(every)
    for epilogue in every:
        assert epilogues.parse(str(epilogue)) == Epilogue.from_code(epilogue.code) == epilogue
        problem = Problem("float32", 3, 4, 5, epilogue=str(epilogue))
        assert parse(str(problem)) == problem
    with pytest.raises(ValueError, match=r"epilogue: got 'relu.scale'"):
        epilogues.parse("relu+scale")


@pytest.mark.parametrize("isa", [name for name, isa in ISAS.items() if not isa.extends])
def test_every_width(isa: str) -> None:
    """Kernels for each vector width, with and without masks."""
    if not nkblas.cpu.features.issuperset(ISAS[isa].requires):
        pytest.skip(f"nkblas.cpu lacks {isa}")
    for epilogue in ("columns+gelu", "scale+rows+sigmoid+residual", "clip", "columns+tanh"):
        for dtype, nr in (("float32", 32), ("float64", 16)):
            spec = Microkernel(isa, dtype, 3, nr, "col", masked=isa != "sse42", epilogue=epilogue)
            verify.check(spec, load_kernel(spec, pipeline.shared_library(spec)))
