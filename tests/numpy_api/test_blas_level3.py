"""BLAS level 3 in `nkblas.blas`: errors within bounds, and SciPy's results, orders and errors.

The reference sums in extended precision. Elements that must not be read are NaN.
"""

import inspect
import itertools
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import (
    LAYOUTS,
    Array,
    assert_same_blas_result,
    failure,
    run,
    small_integers,
    without_python,
)

import nkblas
from nkblas import blas
from nkblas.api.level3_call import Level3Call

DTYPES = {"s": np.float32, "d": np.float64, "c": np.complex64, "z": np.complex128}
SUMS = ("gemmt", "syrk", "herk", "syr2k", "her2k")
WITH_SQUARE = ("symm", "hemm", "trmm", "trsm")
IN_PLACE = ("trmm", "trsm")
HERMITIAN = ("herk", "her2k", "hemm")
KINDS = (*SUMS, *WITH_SQUARE)
NAMES = [letter + kind for kind in KINDS for letter in ("cz" if kind in HERMITIAN else "sdcz")]
SIZES = (1, 2, 3, 5, 7, 8, 13, 31, 33, 63, 64, 65, 97, 127, 129, 130)


def options_of(name: str) -> dict[str, tuple[int, ...]]:
    """The options of a routine, and their values."""
    kind, is_complex = name[1:], name[0] in "cz"
    trans = (0, 1, 2) if not is_complex else (0, 2) if kind in HERMITIAN else (0, 1)
    if kind == "gemmt":
        return {"trans_a": (0, 1, 2), "trans_b": (0, 1, 2), "lower": (0, 1)}
    if kind in SUMS:
        return {"trans": trans, "lower": (0, 1)}
    if kind in IN_PLACE:
        return {"side": (0, 1), "lower": (0, 1), "trans_a": (0, 1, 2), "diag": (0, 1)}
    return {"side": (0, 1), "lower": (0, 1)}


# ---- the reference ----


def op(x: Array, trans: int) -> Array:
    return x if trans == 0 else x.T if trans == 1 else x.T.conj()


def is_in_triangle(n: int, lower: int) -> Array:
    i, j = np.ogrid[:n, :n]
    return np.asarray(i >= j if lower else i <= j)


class Case(NamedTuple):
    """A call, with its operands in the routine's dtype.

    Attributes
    ----------
    c : ndarray or None
        None: the call has no `c`.
    """

    name: str
    options: dict[str, int]
    alpha: complex
    a: Array
    b: Array | None
    beta: complex = 0
    c: Array | None = None

    @property
    def kind(self) -> str:
        return self.name[1:]

    def arguments(self) -> dict[str, Any]:
        given = {"alpha": self.alpha, "a": self.a, **self.options}
        if self.b is not None:
            given["b"] = self.b
        if self.c is not None:
            given |= {"beta": self.beta, "c": self.c}
        return given

    def square(self) -> Array:
        """The matrix that a square `a` stands for, in extended precision."""
        n, lower = len(self.a), self.options["lower"]
        a = self.a.astype(np.clongdouble if self.name[0] in "cz" else np.longdouble)
        stored = np.where(is_in_triangle(n, lower), a, 0)
        if self.kind in IN_PLACE:
            if self.options["diag"]:
                np.fill_diagonal(stored, 1)
            return op(stored, self.options["trans_a"])
        if self.kind == "hemm":
            np.fill_diagonal(stored, stored.diagonal().real)
        other = stored.T.conj() if self.kind == "hemm" else stored.T
        return np.where(is_in_triangle(n, lower), stored, other)

    def products(self) -> list[tuple[complex, Array, Array]]:
        """Factors and operands of the products that are added up."""
        wide = np.clongdouble if self.name[0] in "cz" else np.longdouble
        if self.kind in WITH_SQUARE:
            square, other = self.square(), np.asarray(self.b).astype(wide)
            pair = (other, square) if self.options["side"] else (square, other)
            return [(self.alpha, *pair)]
        a = self.a.astype(wide)
        b = a if self.b is None else self.b.astype(wide)
        if self.kind == "gemmt":
            pair = op(a, self.options["trans_a"]), op(b, self.options["trans_b"])
            return [(self.alpha, *pair)]
        transpose = 2 if self.kind in HERMITIAN else 1
        trans = (transpose, 0) if self.options["trans"] else (0, transpose)
        alpha = self.alpha.real if self.kind == "herk" else self.alpha
        first = alpha, op(a, trans[0]), op(b, trans[1])
        if self.kind in ("syrk", "herk"):
            return [first]
        other_alpha = alpha.conjugate() if self.kind == "her2k" else alpha
        return [first, (other_alpha, op(b, trans[0]), op(a, trans[1]))]

    def added(self) -> Array | None:
        """``beta * c``, if there is something to add."""
        beta = self.beta.real if self.kind in ("herk", "her2k") else self.beta
        if self.c is None or beta == 0:
            return None
        c = self.c.astype(np.clongdouble if self.name[0] in "cz" else np.longdouble)
        if self.kind in ("herk", "her2k"):
            np.fill_diagonal(c, c.diagonal().real)
        return c * beta


def check(case: Case, got: Array) -> None:
    """The standard bound of a sum of products for each element, and what stays as it was."""
    assert got.dtype == DTYPES[case.name[0]]
    assert got.flags.f_contiguous
    eps, tiny = np.finfo(got.dtype).eps, np.finfo(got.dtype).tiny
    if case.kind == "trsm":
        assert backward_error(case, got) <= 1
        return
    value, size, k = np.zeros(got.shape, np.clongdouble), np.zeros(got.shape, np.longdouble), 0
    if case.alpha != 0:
        for alpha, left, right in case.products():
            value, size = (
                value + alpha * (left @ right),
                size + abs(alpha) * (abs(left) @ abs(right)),
            )
            k += left.shape[1]
    added = case.added()
    if added is not None:
        value, size = value + added, size + abs(added)
    # a complex product, and a factor, have a few roundings more
    bound = (2 if got.dtype.kind == "c" else 1) * (k + 4) * (eps * size + tiny)
    is_written: Array = np.ones(got.shape, bool)
    if case.kind in SUMS:
        is_written = is_in_triangle(len(got), case.options["lower"])
        before = np.zeros_like(got) if case.c is None else case.c
        assert np.array_equal(got[~is_written], before[~is_written], equal_nan=True)
        if case.kind in HERMITIAN and (k > 0 or case.beta.real != 1):
            assert (got.diagonal().imag == 0).all()
    wrong = ~(abs(got - value) <= bound) & is_written
    if case.kind in HERMITIAN and case.kind in SUMS:
        diagonal = abs(got.diagonal().real - value.diagonal().real) <= bound.diagonal()
        np.fill_diagonal(wrong, ~diagonal)
    assert not wrong.any(), (np.argwhere(wrong)[0], got[wrong][0], value[wrong][0])


def backward_error(case: Case, x: Array) -> float:
    """The residual of a solution over its bound ``c n eps |op(a)| |x|``, at most 1.

    Substitution, in any order, solves the equations of a triangle whose elements are changed by at
    most n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, theorem 8.5, with
    u = eps / 2), and alpha adds a rounding of the right-hand side. In complex arithmetic the
    constant is larger (lemma 3.5).
    """
    (alpha, left, right), *_ = case.products()
    square = right if case.options["side"] else left
    b = np.asarray(case.b).astype(square.dtype)
    wide, n = x.astype(square.dtype), len(square)
    pair = (wide, square) if case.options["side"] else (square, wide)
    residual = abs(pair[0] @ pair[1] - alpha * b)
    size = abs(pair[0]) @ abs(pair[1]) + abs(alpha * b)
    eps, tiny = np.finfo(x.dtype).eps, np.finfo(x.dtype).tiny
    bound = (4 if x.dtype.kind == "c" else 1) * (n + 2) * (eps * size + tiny)
    return float((residual / bound).max(initial=0))


# ---- operands ----


def random_matrix(generator: Any, shape: tuple[int, int], dtype: Any) -> Array:
    values = generator.uniform(-1, 1, shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * generator.uniform(-1, 1, shape)
    return np.asarray(values.astype(dtype))


def poison_unread(kind: str, options: dict[str, int], a: Array) -> None:
    """Set all elements of a square `a` that must not be read to NaN."""
    n = len(a)
    a[~is_in_triangle(n, options["lower"])] = np.nan
    if options.get("diag"):
        np.fill_diagonal(a, np.nan)
    if kind == "hemm":
        a[np.arange(n), np.arange(n)] = a.diagonal().real + complex(0, np.nan)


def make_case(
    name: str,
    options: dict[str, int],
    sizes: tuple[int, int],
    alpha: complex,
    beta: complex,
    has_c: bool,
    seed: int = 0,
) -> Case:
    """Random operands for a routine; `sizes` are n and k of a sum, m and n of others."""
    generator, kind, dtype = np.random.default_rng(seed), name[1:], DTYPES[name[0]]
    if name[0] in "sd":
        alpha, beta = alpha.real, beta.real
    if kind in WITH_SQUARE:
        b = random_matrix(generator, sizes, dtype)
        n = sizes[1 if options["side"] else 0]
        a = random_matrix(generator, (n, n), dtype)
        if kind == "trsm":  # the solutions must not overflow
            a /= max(n, 1) if options["diag"] else 1
            diagonal = np.arange(n)
            a[diagonal, diagonal] = np.where(a.diagonal().real < 0, -1, 1) * n**0.5 + a.diagonal()
        poison_unread(kind, options, a)
        c = random_matrix(generator, sizes, dtype) if has_c and kind not in IN_PLACE else None
    else:
        (n, k), trans = sizes, options.get("trans", options.get("trans_a"))
        a = random_matrix(generator, (k, n) if trans else (n, k), dtype)
        has_b = kind in ("gemmt", "syr2k", "her2k")
        if kind == "gemmt":
            b = random_matrix(generator, (n, k) if options["trans_b"] else (k, n), dtype)
        else:
            b = random_matrix(generator, a.shape, dtype)
        c = random_matrix(generator, (n, n), dtype) if has_c else None
        if c is not None:
            c[~is_in_triangle(n, options["lower"])] = np.nan
        if c is not None and kind in HERMITIAN:
            c[np.arange(n), np.arange(n)] = c.diagonal().real + complex(0, np.nan)
        return Case(name, options, alpha, a, b if has_b else None, beta, c)
    if c is not None and beta == 0:
        c[...] = np.nan
    return Case(name, options, alpha, a, b, beta, c)


def all_options(name: str) -> Iterator[dict[str, int]]:
    choices = options_of(name)
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


FACTORS = tuple(itertools.product((0, 1, -0.5 + 0.75j), (0, 1, 2 - 0.25j)))
"""Pairs of alpha and beta."""


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", NAMES)
def test_every_option(name: str) -> None:
    """All options with all sizes at which kernels have edges; each pair of factors in turn."""
    turn = itertools.cycle(FACTORS)
    for i, n in enumerate(SIZES):
        others = (n, SIZES[-1 - i], 4)
        for j, options in enumerate(all_options(name)):
            alpha, beta = next(turn)
            sizes = (n, others[j % 3]) if j % 2 else (others[j % 3], n)
            case = make_case(name, options, sizes, alpha, beta, has_c=j % 4 != 3)
            check(case, getattr(blas, name)(**case.arguments()))


@np.errstate(all="ignore")
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_of_factors(name: str) -> None:
    for options, (alpha, beta) in itertools.product(all_options(name), FACTORS):
        case = make_case(name, options, (9, 6), alpha, beta, has_c=True)
        check(case, getattr(blas, name)(**case.arguments()))


PATHS = ("fast path", "general", "numpy")


@np.errstate(all="ignore")
@pytest.mark.parametrize("path", PATHS)
@settings(
    deadline=None,
    max_examples=250,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_any_call(data: st.DataObject, name: str, path: str, monkeypatch: Any) -> None:
    """Random sizes, options, factors, memory orders and strides; `c` may be overwritten."""
    if path == "numpy":
        monkeypatch.setattr(Level3Call, "run_on_engine", lambda self: False)
    options = {x: data.draw(st.sampled_from(y), x) for x, y in options_of(name).items()}
    size = st.one_of(st.integers(0, 130), st.integers(0, 10))
    numbers = st.sampled_from([0, 1, -1, 0.5, 2 + 1j, -1.5j])
    alpha, beta = data.draw(numbers), data.draw(numbers)
    seed, sizes = data.draw(st.integers(0, 99)), (data.draw(size), data.draw(size))
    case = make_case(name, options, sizes, alpha, beta, data.draw(st.booleans()), seed)
    given = case.arguments()
    for operand in "abc":
        if operand in given and given[operand].size:
            layout = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))]
            given[operand] = layout.arrange(given[operand], given[operand].dtype)
    target = "b" if name[1:] in IN_PLACE else "c"
    overwrite = data.draw(st.booleans())
    given[f"overwrite_{target}"] = overwrite
    copies = {x: y.copy() for x, y in given.items() if isinstance(y, np.ndarray)}
    function = getattr(blas, name)
    got = (function.__wrapped__ if path != "fast path" else function)(**given)
    check(case, got)
    for operand, before in copies.items():
        if got is given[operand]:
            assert overwrite
        else:
            assert np.array_equal(given[operand], before, equal_nan=True)


# ---- trsm ----


def triangle_of(kind: str, n: int, generator: Any, dtype: Any) -> Array:
    """A lower triangle that is hard to solve."""
    a = np.tril(random_matrix(generator, (n, n), dtype))
    if kind == "graded":  # condition 2^40 (2^20), rows and columns of very different sizes
        exponents = (
            generator.integers(-10, 11, (2, n))
            if a.itemsize < 8
            else generator.integers(-20, 21, (2, n))
        )
        scale = 2.0**exponents
        np.fill_diagonal(a, a.diagonal() + 2)
        return np.asarray((a * scale[0][:, None] * scale[1]).astype(dtype))
    if kind == "kahan":
        cosine, sine = np.cos(1.2), np.sin(1.2)
        a = np.tril(np.full((n, n), -cosine), -1) + np.eye(n)
        return np.asarray((a * sine ** np.arange(n)).astype(dtype))
    if kind == "tiny diagonal":  # half of the elements on the diagonal nearly vanish
        a /= n
        np.fill_diagonal(a, np.where(generator.random(n) < 0.5, 1, 1e-2))
        return a
    np.fill_diagonal(a, a.diagonal() + 1)  # "random": the condition grows exponentially
    return a


@pytest.mark.parametrize("letter", DTYPES)
@pytest.mark.parametrize("kind", ["random", "graded", "kahan", "tiny diagonal"])
def test_backward_error_of_ill_conditioned_triangles(kind: str, letter: str) -> None:
    """Within the bound, and no worse than SciPy's, whose error is a fraction of it."""
    scipy = pytest.importorskip("scipy.linalg.blas")
    name, dtype = f"{letter}trsm", DTYPES[letter]
    worst, scipys = 0.0, 0.0
    for n in (5, 16, 33, 64, 100, 130):
        generator = np.random.default_rng(n)
        lower = triangle_of(kind, n, generator, dtype)
        for side, is_lower, trans in itertools.product((0, 1), (0, 1), (0, 1)):
            options = {"side": side, "lower": is_lower, "trans_a": trans, "diag": 0}
            b = random_matrix(generator, (9, n) if side else (n, 9), dtype)
            case = Case(name, options, 1.5, lower if is_lower else lower.T.copy(), b)
            with np.errstate(all="ignore"):
                x, reference = (
                    f(**case.arguments()) for f in (getattr(blas, name), getattr(scipy, name))
                )
            if not np.isfinite(reference).all():
                continue
            worst = max(worst, backward_error(case, x))
            scipys = max(scipys, backward_error(case, reference))
    assert worst <= 1
    assert worst <= 2 * scipys + 0.05, (worst, scipys)


@pytest.mark.parametrize("letter", DTYPES)
def test_zero_on_the_diagonal(letter: str) -> None:
    """Infinities or NaN, in the rows that depend on it; with `diag`, it is not read."""
    dtype = DTYPES[letter]
    a = np.array([[2, 0, 0], [1, 0, 0], [1, 1, 4]], dtype)
    got = getattr(blas, f"{letter}trsm")(1, a, np.ones((3, 2), dtype), lower=1)
    assert (got[0] == 0.5).all()
    assert not np.isfinite(got[1:]).any()
    got = getattr(blas, f"{letter}trsm")(1, a, np.ones((3, 2), dtype), lower=1, diag=1)
    assert np.array_equal(got, np.array([[1, 1], [0, 0], [0, 0]], dtype))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("letter", DTYPES)
def test_infinities_stay_in_their_rows(letter: str, path: str, monkeypatch: Any) -> None:
    """Zeros of the other triangle multiply nothing."""
    if path == "numpy":
        monkeypatch.setattr(Level3Call, "run_on_engine", lambda self: False)
    dtype, n = DTYPES[letter], 20
    a, b = np.tril(np.ones((n, n), dtype)), np.ones((n, 3), dtype)
    b[13] = np.nan
    for kind in IN_PLACE:
        got = getattr(blas, letter + kind)(1, a, b, lower=1)
        assert np.isfinite(got[:13]).all(), kind
        assert np.isnan(got[13:]).all(), kind
        got = getattr(blas, letter + kind)(1, a.T, b)
        assert np.isfinite(got[14:]).all(), kind
        assert np.isnan(got[:14]).all(), kind


# ---- beside SciPy ----


@settings(deadline=None, max_examples=600, derandomize=True)
@given(data=st.data(), name=st.sampled_from([x for x in NAMES if not x.endswith("gemmt")]))
def test_equals_scipys(data: st.DataObject, name: str) -> None:
    """The result, its order, and which argument it is written to, of operands of any type."""
    scipy = pytest.importorskip("scipy.linalg.blas")
    kind, dtype = name[1:], DTYPES[name[0]]
    options = {x: data.draw(st.sampled_from(y), x) for x, y in options_of(name).items()}
    sizes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    numbers = st.sampled_from([1, -1, 2, 0.5, 1j, 1 - 2j])
    alpha, beta, has_c = data.draw(numbers), data.draw(numbers), data.draw(st.booleans())
    case = make_case(name, options, sizes, alpha, beta, has_c)
    given = case.arguments()
    for seed, operand in enumerate("abc"):
        if operand in given:
            other = data.draw(st.sampled_from([dtype, dtype, np.int16, np.float32, ">f8"]))
            order = data.draw(st.sampled_from("CF"))
            given[operand] = small_integers(given[operand].shape, other, "C", seed, largest=3).copy(
                order
            )
    if kind == "trsm":
        np.fill_diagonal(given["a"], 2)  # the solution is exact
    target = "b" if kind in IN_PLACE else "c"
    given[f"overwrite_{target}"] = data.draw(st.booleans())
    if target in given and given[target].shape[1] == 1 and data.draw(st.booleans()):
        given[target] = given[target][:, 0].copy()
    results = []
    for module in (blas, scipy):
        copies = {x: y.copy("K") if isinstance(y, np.ndarray) else y for x, y in given.items()}
        got = getattr(module, name)(**copies)
        results.append((got, got is copies.get(target), copies.get(target)))
    (ours, is_ours, our_target), (theirs, is_theirs, their_target) = results
    assert_same_blas_result(ours, theirs, equal_nan=True)
    assert is_ours == is_theirs
    if our_target is not None:
        assert np.array_equal(our_target, their_target)


I, J, L = np.eye(2), np.arange(6.0).reshape(2, 3), [[2.0, 0], [1, 4]]  # noqa: E741
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("syrk", (1, J), {}),
    ("syrk", (1, [1, 2]), {"lower": True}),
    ("syrk", (1, 3), {}),
    ("syrk", (1, [1], 1, [1]), {}),
    ("syrk", ([2.0, 3], J, None, None, None, None), {}),
    ("syrk", (1, np.ones((2, 2, 2))), {}),
    ("syrk", (2, np.ones((2, 0)), 3, I), {}),
    ("syrk", (0, J * np.nan, 3, I), {}),
    ("syrk", (0, J, 0, I), {}),
    ("syrk", (1, J, 1, np.ones((2, 2), ">f8")), {"overwrite_c": 1}),
    ("syrk", (1, J, 1, np.ones((4, 4))[::2, ::2]), {"overwrite_c": 1}),
    ("syrk", (np.float16(2), np.array([[1, 2], [3, 4]], object)), {"lower": 1.5}),
    ("syr2k", (1, J, J), {"lower": 1}),
    ("syr2k", (1, J, np.ones((4, 3))), {}),
    ("syr2k", (1, J, np.ones((2, 5))), {"trans": 1}),
    ("herk", (2, J, 3, I), {}),
    ("her2k", (2 - 1j, J, J + 1j, 3j, I * (1 + 1j)), {"lower": 1}),
    ("herk", (1, np.zeros((2, 0)), 1, I * 1j), {}),
    ("herk", (1, np.zeros((2, 0)), 2, I * 1j), {}),
    ("herk", (1 + 5j, J, 1 + 5j, I * (1 + 1j)), {}),
    ("symm", (1, I, J), {}),
    ("symm", (1, J, np.ones((3, 2))), {}),
    ("symm", (1, J.T, np.ones((2, 3))), {"side": 1}),
    ("symm", (1, [[2]], [[1, 2]]), {}),
    ("hemm", (1, [[1 + 1j, 2], [3, 4j]], J), {"lower": 1}),
    ("symm", (1, np.ones((2, 2)), np.ones((2, 0))), {}),
    ("trmm", (1, I, J), {}),
    ("trmm", (1, np.arange(20.0).reshape(5, 4), J), {"lower": 1}),
    ("trmm", (1, 2, [1, 2, 3], 1), {}),
    ("trmm", (1, np.ones((2, 2)), np.ones((2, 0))), {}),
    ("trmm", (1, np.ones((0, 0)), np.ones((0, 2))), {}),
    ("trmm", (0, I * np.nan, J * np.nan), {}),
    ("trmm", (1, I, np.ones((2, 2, 2))), {}),
    ("trmm", (1, I, J, None, None, None, None), {}),
    ("trsm", (2, L, J), {"lower": 1}),
    ("trsm", (2, L, J.T, 1, 1, 1, 1), {}),
    ("trsm", (1, 2, 5), {}),
    ("trsm", (0, I * np.nan, J * np.nan), {}),
    ("trsm", (1, np.ones((0, 0)), np.ones((0, 2))), {}),
    ("trsm", (1, I, np.ones((2, 1, 2))), {"overwrite_b": 1}),
    # mistakes
    ("syrk", (1, [[1j]]), {}),
    ("syrk", (1, J), {"trans": 3}),
    ("syrk", (1, J), {"lower": 2}),
    ("syrk", (1, J), {"trans": "T"}),
    ("syrk", (1, J), {"c": np.ones((3, 3))}),
    ("syrk", (1, J), {"c": [1, 2]}),
    ("syrk", (1, J), {"b": J}),
    ("syrk", (None, J), {}),
    ("syrk", ([], J), {}),
    ("syrk", ("a", J), {}),
    ("syrk", (1,), {}),
    ("syrk", (1, J), {"alpha": 1}),
    ("syrk", (1, J, 0, None, 0, 0, 0, 0), {}),
    ("syrk", (1, J), {"overwrite_c": None}),
    ("syrk", (1, J), {"overwrite_c": 1.0}),
    ("syr2k", (1, J, J.T), {}),
    ("syr2k", (1, J, I), {}),
    ("symm", (1, J, J), {}),
    ("symm", (1, I, J), {"side": 1}),
    ("symm", (1, I, J), {"side": 2}),
    ("symm", (1, I, J), {"lower": -1}),
    ("symm", (1, I, J, 1, I), {}),
    ("trmm", (1, J, J), {}),
    ("trmm", (1, np.ones((1, 1)), J), {}),
    ("trmm", (1, np.ones((3, 4)), J), {"side": 1}),
    ("trmm", (1, I, J), {"side": 1}),
    ("trmm", (1, I, J), {"side": 2}),
    ("trmm", (1, I, J), {"lower": 2}),
    ("trmm", (1, I, J), {"trans_a": 3}),
    ("trmm", (1, I, J), {"diag": 2}),
    ("trmm", (1, I, J), {"beta": 2}),
    ("trsm", (1, J, J), {}),
    ("trsm", (1, np.eye(3), J), {}),
    ("trsm", (1, I, J), {"side": 1}),
    ("trsm", (1, I, J), {"diag": -1}),
    ("trsm", (1, I), {}),
]
# LAPACK's error handler prints a line to standard error, and SciPy returns c: nkblas raises
NOT_SCIPYS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("csyrk", (1, J), {"trans": 2}, "3rd keyword trans: got 2, expected 0 or 1"),
    ("zherk", (1, J), {"trans": 1}, "3rd keyword trans: got 1, expected 0 or 2"),
    ("zher2k", (1, J, J), {"trans": 1}, "3rd keyword trans: got 1, expected 0 or 2"),
    ("dsyr2k", (1, J, J[:1]), {}, "3rd argument b: got op(b) of shape (1, 3), expected (2, 3)"),
    ("dsymm", (1, J.T, I), {}, "2nd argument a: got shape (3, 2), expected (2, 2)"),
    ("dgemmt", (1, J, J), {}, "3rd argument b: got op(b) of shape (2, 3), expected (3, 2)"),
    ("sgemmt", (1, J, J.T), {"lower": 2}, "5th keyword lower: got 2, expected 0 or 1"),
]


@pytest.mark.parametrize("letter", DTYPES)
@pytest.mark.parametrize("call", range(len(CALLS)))
def test_calls_equal_scipys(call: int, letter: str) -> None:
    """The result, or the error: its class, and the argument that it names."""
    scipy = pytest.importorskip("scipy.linalg.blas")
    kind, arguments, options = CALLS[call]
    name = letter + kind
    if name not in NAMES:
        return
    ours, theirs = getattr(blas, name), getattr(scipy, name)
    if letter in "cz" and options.get("trans") == 1 and kind.startswith("he"):
        options = options | {"trans": 2}
    try:
        expected = theirs(*arguments, **options)
    except Exception as error:
        with pytest.raises(type(error)) as caught:
            ours(*arguments, **options)
        assert re.search(r"\b" + name + r"\b|complex", str(caught.value))
        if place := re.search(r"failed for (\d\w\w \w+ \w+)", str(error)):
            assert place[0] in str(caught.value)
    else:
        assert_same_blas_result(ours(*arguments, **options), expected, equal_nan=True)


@pytest.mark.parametrize("call", range(len(NOT_SCIPYS)))
def test_mistakes_that_scipy_lets_pass(call: int) -> None:
    name, arguments, options, words = NOT_SCIPYS[call]
    with pytest.raises(blas.BlasError, match=re.escape(f"{name}: failed for {words}")):
        getattr(blas, name)(*arguments, **options)


# ---- memory, and where it runs ----


@pytest.mark.parametrize("letter", DTYPES)
def test_overwriting_an_operand(letter: str) -> None:
    """A result in the place of an operand, and one that overlaps it."""
    dtype, n = DTYPES[letter], 30
    a = np.asfortranarray(np.tril(small_integers((n, n), dtype, "C", 0, largest=3)))
    np.fill_diagonal(a, 1)
    symmetric = a + np.tril(a, -1).T
    for kind, expected in (
        ("syrk", np.tril(2 * a @ a.T + a)),
        ("syr2k", np.tril(4 * a @ a.T + a)),
        ("gemmt", np.tril(2 * a @ a + a)),
        ("symm", 2 * symmetric @ a + a),
        ("trmm", 2 * a @ a),
        ("trsm", 2 * np.eye(n)),
    ):
        function, c = getattr(blas, letter + kind), a.copy("F")
        operands = (c,) if kind == "syrk" else (c, c)
        if kind in IN_PLACE:
            got = function(2, *operands, lower=1, overwrite_b=1)
        else:
            got = function(2, *operands, 1, c, lower=1, overwrite_c=1)
        assert got is c, kind
        assert np.array_equal(got, expected), kind
        before = a.copy("F")
        before.flags.writeable = False
        operands = (before,) if kind == "syrk" else (before, before)
        target = {"overwrite_b": 1} if kind in IN_PLACE else {"overwrite_c": 1, "beta": 1}
        if kind not in IN_PLACE:
            target["c"] = before
        got = function(2, *operands, lower=1, **target)
        assert np.array_equal(got, expected), kind
        assert np.array_equal(before, a), kind


def test_calls_run_on_the_engine_without_python() -> None:
    for name in NAMES:
        kind, dtype = name[1:], DTYPES[name[0]]
        options = {x: y[-1] for x, y in options_of(name).items()}
        case = make_case(name, options, (20, 20), 2, 1, has_c=True)
        function, given = getattr(blas, name), case.arguments()
        function(**given)
        before = nkblas.stats()
        check(case, without_python(function, **given))
        after = nkblas.stats()
        calls = 2 * (2 if kind in ("syr2k", "her2k") else 1)  # without_python does it twice
        assert after["calls"] - before["calls"] == calls, name
        assert after["fallbacks"] == before["fallbacks"], (name, dtype)


def test_calls_write_to_c_without_python() -> None:
    for name in NAMES:
        if name[1:] not in IN_PLACE:
            options = {x: y[-1] for x, y in options_of(name).items()}
            case = make_case(name, options, (20, 20), 2, 0, has_c=True)
            assert case.c is not None
            c = case.c.copy("F")
            given = {**case.arguments(), "c": c, "overwrite_c": 1}
            got = without_python(getattr(blas, name), **given)
            assert got is c, name
            check(case, got)


def test_signatures_of_functions() -> None:
    """Those that SciPy's docstrings tell, and names, modules and docs of all functions."""
    scipy = pytest.importorskip("scipy.linalg.blas")
    for name in NAMES:
        function: Callable[..., Array] = getattr(blas, name)
        assert (function.__name__, function.__module__) == (name, "nkblas.blas")
        assert name in (function.__doc__ or "")
        assert pickle.loads(pickle.dumps(function)) is function
        if not name.endswith("gemmt"):
            required, optional = re.findall(
                r"= \w+\(([^)[]*),\[([^]]*)\]", getattr(scipy, name).__doc__
            )[0]
            parameters = inspect.signature(function).parameters
            assert [*parameters] == f"{required},{optional}".split(",")


def test_errors_without_scipy() -> None:
    program = """
        assert "scipy" not in sys.modules
        nkblas.blas.dtrsm(1, np.ones((2, 3)), np.ones((2, 3)))
    """
    words = "nkblas.blas.BlasError: dtrsm: failed for 2nd argument a: got shape (2, 3)"
    assert failure(program).startswith(words)


WITHOUT_KERNELS = """
    from nkblas import blas

    a = np.tril(np.arange(-12, 13).reshape(5, 5) % 4 - 1.0)
    np.fill_diagonal(a, 1)
    b, c = np.arange(15.0).reshape(5, 3) % 7, np.ones((5, 5), order="F")
    mirrored = a + np.tril(a, -1).T
    results = {
        "gemmt": (blas.dgemmt(2, a, a, 3, c, lower=1), np.tril(2 * a @ a + 2) + 1),
        "syrk": (blas.dsyrk(2, b, 3, c), np.triu(2 * b @ b.T + 2) + 1),
        "herk": (blas.zherk(2, b * 1j, lower=1), np.tril(2 * b @ b.T)),
        "syr2k": (blas.dsyr2k(2, b, b, 3, c, overwrite_c=1), np.triu(4 * b @ b.T + 2) + 1),
        "her2k": (blas.zher2k(1 + 1j, b, b, lower=1), np.tril(2 * b @ b.T)),
        "symm": (blas.dsymm(2, a, b, lower=1), 2 * mirrored @ b),
        "hemm": (blas.zhemm(2, a, b, lower=1), 2 * mirrored @ b),
        "trmm": (blas.dtrmm(2, a, b.T, side=1, lower=1), 2 * b.T @ a),
        "trsm": (blas.dtrsm(2, a, a @ b, lower=1), 2 * b),
    }
    wrong = [name for name, (got, expected) in results.items() if not (got == expected).all()]
    report(wrong=wrong)
"""


def test_without_kernels(tmp_path: Path) -> None:
    """NumPy does the products, and they are counted."""
    output, _ = run(WITHOUT_KERNELS, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=tmp_path)
    assert output["wrong"] == []
    assert output["fallbacks"] == output["calls"] >= 11
