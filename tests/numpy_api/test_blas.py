"""`nkblas.blas` and `scipy.linalg.blas`: the same results, orders and errors; SciPy's tests."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import Array, assert_same_blas_result, failure, run, small_integers

import nkblas
from nkblas import blas

scipy = pytest.importorskip("scipy.linalg")

DTYPES = {"s": np.float32, "d": np.float64, "c": np.complex64, "z": np.complex128}
by_letter = pytest.mark.parametrize("letter", DTYPES)

seeds = st.integers(0, 99)
numbers = st.sampled_from([0, 1, -1, 2, 0.5, 1j, 1 - 2j])
orders = st.sampled_from("CF")


def pair(name: str) -> tuple[Callable[..., Array], Callable[..., Array]]:
    return getattr(blas, name), getattr(scipy.blas, name)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(data=st.data(), letter=st.sampled_from("sdcz"))
def test_gemm_equals_scipys(data: st.DataObject, letter: str) -> None:
    ours, theirs = pair(f"{letter}gemm")
    dtype = DTYPES[letter]
    m, n, k = (data.draw(st.integers(1, 40)) for _ in range(3))
    ta, tb = (data.draw(st.sampled_from([0, 1, 2])) for _ in range(2))
    alpha, beta = (data.draw(numbers) for _ in range(2))
    assume(alpha != 0)  # OpenBLAS multiplies by 0, BLAS does not
    if letter in "sd":
        alpha, beta = alpha.real, beta.real
    others = st.sampled_from([dtype, np.int16, np.float32])
    a = small_integers((k, m) if ta else (m, k), data.draw(others), data.draw(orders), 0)
    b = small_integers((n, k) if tb else (k, n), data.draw(others), data.draw(orders), 1)
    shape: Any = (m,) if n == 1 and data.draw(st.booleans()) else (m, n)
    c = small_integers(shape, data.draw(others), data.draw(orders), 2)
    overwrite = data.draw(st.booleans())
    if data.draw(st.booleans()):
        assert_same_blas_result(
            ours(alpha, a, b, trans_b=tb, trans_a=ta), theirs(alpha, a, b, trans_b=tb, trans_a=ta)
        )
        return
    copies = [c.copy("K"), c.copy("K")]
    got, expected = (
        f(alpha, a, b, beta, x, ta, tb, overwrite)
        for f, x in zip((ours, theirs), copies, strict=True)
    )
    assert_same_blas_result(got, expected)
    assert (got is copies[0]) == (expected is copies[1])
    assert np.array_equal(*copies)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(data=st.data(), letter=st.sampled_from("sdcz"))
def test_gemv_equals_scipys(data: st.DataObject, letter: str) -> None:
    ours, theirs = pair(f"{letter}gemv")
    dtype = DTYPES[letter]
    m, n = (data.draw(st.integers(1, 40)) for _ in range(2))
    trans = data.draw(st.sampled_from([0, 1, 2]))
    alpha, beta = (data.draw(numbers) for _ in range(2))
    if letter in "sd":
        alpha, beta = alpha.real, beta.real
    a = small_integers((n, m) if trans else (m, n), dtype, data.draw(orders), 0)
    steps, offsets = st.sampled_from([-3, -1, 1, 2]), st.integers(0, 4)
    options: dict[str, Any] = {"offx": data.draw(offsets), "incx": data.draw(steps)}
    options |= {"offy": data.draw(offsets), "incy": data.draw(steps), "trans": trans}
    more = data.draw(st.integers(0, 3))
    x = small_integers(options["offx"] + (n - 1) * abs(options["incx"]) + 1 + more, dtype, "C", 1)
    y = small_integers(options["offy"] + (m - 1) * abs(options["incy"]) + 1 + more, dtype, "C", 2)
    if data.draw(st.booleans()):
        y = y[:, None]
    if data.draw(st.booleans()):
        assert_same_blas_result(ours(alpha, a, x, **options), theirs(alpha, a, x, **options))
        return
    overwrite = data.draw(st.booleans())
    copies = [y.copy(), y.copy()]
    got, expected = (
        f(alpha, a, x, beta, z, overwrite_y=overwrite, **options)
        for f, z in zip((ours, theirs), copies, strict=True)
    )
    assert_same_blas_result(got, expected)
    assert (got is copies[0]) == (expected is copies[1])
    assert np.array_equal(*copies)


I, J = np.eye(2), np.arange(6.0).reshape(2, 3)  # noqa: E741
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("gemm", (1, I, J), {}),
    ("gemm", (3, [3, 4], [-4]), {}),
    ("gemm", (3, 3, -4), {}),
    ("gemm", (3, np.ones((2, 2, 1)), I), {}),
    ("gemm", (3, np.ones((2, 2, 2)), np.ones((4, 2))), {}),
    ("gemm", ([2.0, 3], I, I), {"trans_a": True, "trans_b": 1.7}),
    ("gemm", (1 + 0j, I, I, None, None), {"trans_a": None}),
    ("gemm", (1, I, I, 1, np.ones((2, 2), ">f8")), {"overwrite_c": 1}),
    ("gemm", (1, I, I, 1, np.ones((4, 4))[::2, ::2]), {"overwrite_c": 1}),
    ("gemm", (2, np.ones((2, 0)), np.ones((0, 3)), 2, np.ones((2, 3))), {}),
    ("gemm", (2, np.ones((0, 2)), I), {}),
    ("gemm", (2, I, np.ones((2, 0))), {}),
    ("gemm", (2, I, I, 0, np.full((2, 2), np.nan)), {}),
    ("gemm", (2, np.array([[1, 2], [3, 4]], object), I), {}),
    ("gemv", (1, J, np.ones((1, 3))), {}),
    ("gemv", (1, J, np.arange(6).reshape(2, 3)), {}),
    ("gemv", (1, [1, 2], [3]), {}),
    ("gemv", (0, J * np.nan, [1, 1, 1], 2, [1, 2]), {}),
    ("gemv", (1, np.ones((2, 0)), [1], 2, [1, 2]), {}),
    ("gemv", (1, J, [1, 1, 1], 1), {"offy": 2, "incy": -2}),
    ("gemv", (1, J, [1, 1, 1], 0, [np.nan, 3, np.nan]), {"incy": 2}),
    # mistakes; complex numbers in a list are one for real dtypes
    ("gemm", (1, [[1j]], [[1]]), {}),
    ("gemv", (1, [[1]], [1j]), {}),
    ("gemm", (1, J, J), {}),
    ("gemm", (1, I, J), {"trans_b": 1}),
    ("gemm", (1, I, I), {"trans_a": 3}),
    ("gemm", (1, I, I), {"trans_b": -1}),
    ("gemm", (1, I, I), {"trans_a": "T"}),
    ("gemm", (1, I, I), {"c": np.ones((3, 3))}),
    ("gemm", (1, I, I), {"c": 3}),
    ("gemm", (None, I, I), {}),
    ("gemm", ([], I, I), {}),
    ("gemm", ("a", I, I), {}),
    ("gemm", (1, I), {}),
    ("gemm", (1, I, I), {"d": 1}),
    ("gemm", (1, I, I, 0, None, 0, 0, 0, 0), {}),
    ("gemm", (1, [], I), {}),
    ("gemv", (1, J, [1, 1]), {}),
    ("gemv", (1, J, [1, 1, 1]), {"incx": 0}),
    ("gemv", (1, J, [1, 1, 1]), {"incy": 0}),
    ("gemv", (1, J, [1, 1, 1]), {"offx": -1}),
    ("gemv", (1, J, [1, 1, 1]), {"incx": 2}),
    ("gemv", (1, J, [1, 1, 1]), {"trans": 4}),
    ("gemv", (1, J, [1, 1, 1], 1, [1]), {}),
    ("gemv", (1, J, [1, 1, 1], 1, [1, 1, 1]), {"offy": 2}),
    ("gemv", (1, np.ones((2, 0)), []), {}),
]


@by_letter
@pytest.mark.parametrize("call", range(len(CALLS)))
def test_calls_equal_scipys(call: int, letter: str) -> None:
    """The result, or the error: its class, and the argument that it names."""
    kind, arguments, options = CALLS[call]
    ours, theirs = pair(letter + kind)
    try:
        expected = theirs(*arguments, **options)
    except Exception as error:
        with pytest.raises(type(error)) as caught:
            ours(*arguments, **options)
        assert re.search(r"\b" + letter + kind + r"\b|complex", str(caught.value))
        if place := re.search(r"failed for (\d\w\w \w+ \w)", str(error)):
            assert place[0] in str(caught.value)
    else:
        assert_same_blas_result(ours(*arguments, **options), expected)


@by_letter
def test_overwriting_an_operand(letter: str) -> None:
    """`c` can be `a` or `b`, `y` can be `x`; a read-only array is copied."""
    dtype = DTYPES[letter]
    gemm, gemv = (getattr(blas, letter + kind) for kind in ("gemm", "gemv"))
    a, x = small_integers((30, 30), dtype, "F", 0), small_integers(30, dtype, "C", 1)
    product, vector = 2 * (a @ a) + a, 2 * (a @ x) + x
    c, y = a.copy("F"), x.copy()
    assert gemm(2, c, c, 1, c, overwrite_c=1) is c
    assert gemv(2, a, y, 1, y, overwrite_y=1) is y
    assert np.array_equal(c, product)
    assert np.array_equal(y, vector)
    before = a.copy()
    a.flags.writeable = False
    assert np.array_equal(gemm(2, a, a, 1, a, overwrite_c=1), product)
    assert np.array_equal(a, before)


def test_products_run_on_the_engine() -> None:
    before = nkblas.stats()
    for letter, dtype in DTYPES.items():
        a = small_integers((20, 30), dtype, "F", 0)
        getattr(blas, f"{letter}gemm")(2, a, a, trans_b=2)
        getattr(blas, f"{letter}gemv")(2, a, a[0], 1, a[:, 0])
    after = nkblas.stats()
    assert after["calls"] - before["calls"] == 8
    assert after["fallbacks"] == before["fallbacks"]


def test_errors_without_scipy() -> None:
    program = """
        assert "scipy" not in sys.modules
        nkblas.blas.dgemm(1, np.ones((2, 3)), np.ones((2, 3)))
    """
    words = "nkblas.blas.BlasError: dgemm: failed for 3rd argument b: got op(b) of shape (2, 3)"
    assert failure(program).startswith(words)


SCIPYS_TESTS = """
    import contextlib
    import pytest
    import scipy.linalg.blas
    from scipy.linalg import _fblas
    replaced = [name for name in nkblas.blas.__all__ if hasattr(_fblas, name)]
    for name in replaced:
        # in a class it must not become a method: SciPy's own does not
        function = staticmethod(getattr(nkblas.blas, name))
        setattr(_fblas, name, function)
        setattr(scipy.linalg.blas, name, function)
    passed = []
    class Count:
        def pytest_runtest_logreport(self, report):
            if report.passed and report.when == "call":
                passed.append(report.nodeid)
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "-c", os.devnull]
    modules = ["scipy.linalg.tests.test_blas", "scipy.linalg.tests.test_fblas"]
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main([*options, "--pyargs", *modules], plugins=[Count()])
    kinds = {name[1:] for name in replaced}
    ours = sum(any(kind in name.lower() for kind in kinds) for name in passed)
    report(code=int(code), replaced=len(replaced), ours=ours)
"""


def test_scipys_own_tests() -> None:
    """`test_blas` and `test_fblas` of the installed SciPy, with its functions replaced."""
    output, errors = run(SCIPYS_TESTS)
    assert output["code"] == 0, errors
    assert output["replaced"] == 34  # seven routines for four dtypes, three for two
    assert output["ours"] >= 100
    assert output["calls"] >= 150
    assert output["fallbacks"] == 0
