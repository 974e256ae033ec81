"""The CBLAS and Fortran interface: a C library calls each name, from threads of its own.

The library is generated from the prototypes of the public header, so that these are tested, too.
"""

import ctypes
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import Array, run

import nkblas

THREADS = 4
HEADER = Path(nkblas.get_include()) / "nkblas_cblas.h"
PROTOTYPES = dict(re.findall(r"void (\w+)\(([^)]*)\);", HEADER.read_text()))
DTYPES = {"s": np.float32, "d": np.float64, "c": np.complex64, "z": np.complex128}
C_TYPES = {"s": "float", "d": "double", "c": "float", "z": "double"}
FIELDS = ("order", "trans", "trans_a", "trans_b", "side", "uplo", "diag")
SIZES = ("m", "n", "k", "lda", "ldb", "ldc", "incx", "incy")
BUFFERS = ("a", "b", "c", "x", "y")
LETTERS = {111: "N", 112: "t", 113: "C", 121: "U", 122: "l", 131: "n", 132: "U", 141: "L", 142: "r"}


class Arguments(ctypes.Structure):
    """All arguments that routines have."""

    _fields_ = (
        *((name, ctypes.c_int) for name in FIELDS),
        *((name, ctypes.c_int64) for name in SIZES),
        *((name, ctypes.c_double * 2) for name in ("alpha", "beta")),
        *((name, ctypes.c_void_p) for name in BUFFERS),
    )


def letter_of(routine: str) -> str:
    """The letter of a routine's dtype."""
    return routine.removeprefix("cblas_")[0]


def kind_of(routine: str) -> str:
    """The routine without prefix, letter and suffix."""
    return re.sub(r"(64)?_$", "", routine.removeprefix("cblas_").removesuffix("_64_"))[1:]


def argument(parameter: str, letter: str) -> str:
    """The C expression for a parameter, given its declaration."""
    type_, name = re.fullmatch(r"(.*?)(\w+)", parameter.strip()).groups()  # type: ignore[union-attr]
    type_ = type_.strip()
    if name in ("alpha", "beta"):
        if type_ != "const void *":
            return f"({type_})x->{name}[0]"
        real = C_TYPES[letter]
        return f"(const {real}[]){{({real})x->{name}[0], ({real})x->{name}[1]}}"
    if type_ == "const char *":
        return f"letter(x->{name})"
    if type_ in ("const int32_t *", "const int64_t *"):
        integer = type_.split()[1]
        return f"(const {integer}[]){{({integer})x->{name}}}"
    return f"x->{name}"


def write_library(path: Path) -> None:
    """The C source of the library."""
    fields = [f"int {', '.join(FIELDS)};", f"int64_t {', '.join(SIZES)};"]
    fields += ["double alpha[2], beta[2];", f"void *{', *'.join(BUFFERS)};"]
    letters = "".join(f'case {n}: return "{x}";' for n, x in LETTERS.items())
    lines = [
        '#include "nkblas_cblas.h"',
        "#include <pthread.h>",
        f"typedef struct {{ {' '.join(fields)} }} arguments;",
        f'static const char *letter(int x) {{ switch (x) {{ {letters} }} return "?"; }}',
    ]
    for routine, parameters in PROTOTYPES.items():
        values = [argument(p, letter_of(routine)) for p in parameters.split(",")]
        call = f"{routine}({', '.join(values)}); return 0;"
        lines.append(f"void *call_{routine}(void *p) {{ arguments *x = p; (void)x; {call} }}")
    lines.append(
        f"""
        int in_threads(void *(*call)(void *), arguments *x)
        {{
            pthread_t threads[{THREADS}];
            int failed = 0;
            for (int i = 0; i < {THREADS}; i++)
                failed |= pthread_create(&threads[i], 0, call, &x[i]);
            for (int i = 0; i < {THREADS}; i++)
                failed |= pthread_join(threads[i], 0);
            return failed;
        }}"""
    )
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("cblas")
    write_library(folder / "calls.c")
    command = ["gcc", "-std=c11", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-I"]
    command += [nkblas.get_include(), "-o", "calls.so", "calls.c", nkblas.get_library()]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "calls.so"))


# ---- a call and its reference ----


class Case(NamedTuple):
    """The arguments of a call, the memory that they point to as it is and was, and its result."""

    arguments: Arguments
    memory: dict[str, Array]
    before: dict[str, Array]
    target: Array
    expected: Array
    bound: Array


def op(x: Array, trans: int) -> Array:
    return x if trans == 111 else x.T if trans == 112 else x.T.conj()


def triangle(x: Array, uplo: int) -> Array:
    return np.triu(x) if uplo == 121 else np.tril(x)


def wide(x: Array) -> Array:
    return x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble)


class Random:
    """Makes cases of a routine."""

    def __init__(self, routine: str, seed: int, longest: int = 40) -> None:
        self.routine, self.kind = routine, kind_of(routine)
        self.dtype = np.dtype(DTYPES[letter_of(routine)])
        self.rng = np.random.default_rng(seed)
        self.longest = longest
        self.memory: dict[str, Array] = {}
        self.arguments = Arguments()

    def choose(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def numbers(self, *shape: int) -> Array:
        x = self.rng.standard_normal(shape)
        if self.dtype.kind == "c":
            x = x + 1j * self.rng.standard_normal(shape)
        return x.astype(self.dtype)

    def factor(self, name: str, real: bool = False) -> complex:
        value = self.choose(0.0, 1.0, -1.0, 0.75)
        if self.dtype.kind == "c" and not real and self.rng.random() < 0.5:
            value += 0.5j
        value = complex(value)
        setattr(self.arguments, name, (value.real, value.imag))
        return value if self.dtype.kind == "c" else value.real

    def matrix(self, name: str, rows: int, columns: int, ld_name: str = "") -> Array:
        """A matrix in memory of the routine's order, with a leading dimension; a view of it."""
        is_row_major = self.arguments.order == 101
        outer, inner = (rows, columns) if is_row_major else (columns, rows)
        ld = max(1, inner) + int(self.choose(0, 3))
        setattr(self.arguments, ld_name or f"ld{name}", ld)
        memory = self.numbers(max(outer, 1), ld)
        self.memory[name] = memory
        setattr(self.arguments, name, memory.ctypes.data)
        view = memory[:outer, :inner]
        return view if is_row_major else view.T

    def vector(self, name: str, n: int) -> Array:
        inc = int(self.choose(-2, -1, 1, 3))
        setattr(self.arguments, f"inc{name}", inc)
        memory = self.numbers(max(n, 1), abs(inc))
        self.memory[name] = memory
        setattr(self.arguments, name, memory.ctypes.data)
        return memory[:n, 0][:: 1 if inc > 0 else -1]

    def case(self) -> Case:
        x, is_cblas = self.arguments, self.routine.startswith("cblas_")
        x.order = self.choose(101, 102) if is_cblas else 102
        x.m, x.n, x.k = (int(self.rng.integers(0, self.longest)) for _ in range(3))
        x.uplo, x.diag, x.side = self.choose(121, 122), self.choose(131, 132), self.choose(141, 142)
        x.trans_a, x.trans_b = self.choose(111, 112, 113), self.choose(111, 112, 113)
        is_hermitian = self.kind in ("herk", "her2k")
        is_complex = self.dtype.kind == "c"
        x.trans = x.trans_a
        if self.kind[:2] in ("sy", "he"):
            x.trans = self.choose(111, 113) if is_hermitian else self.choose(111, 112)
            if not is_complex:
                x.trans = x.trans_a
        if self.kind in ("trmm", "trsm"):
            x.trans = x.trans_a
        result = getattr(self, f"_{self.kind}")(x)
        if x.alpha[0] == x.alpha[1] == 0:
            self.memory["a"][...] = np.nan  # it is not read
        before = {name: array.copy() for name, array in self.memory.items()}
        return Case(x, self.memory, before, *result)

    def hide(self, c: Array, beta: complex) -> None:
        """Make a C that is not read NaN."""
        if beta == 0:
            c[...] = np.nan

    def _sums(self, left: Array, right: Array, c: Array, alpha: Any, beta: Any) -> tuple[Any, ...]:
        left, right = wide(left), wide(right)
        old = wide(c) if beta != 0 else np.zeros(c.shape)
        eps = np.finfo(self.dtype).eps * (4 if self.dtype.kind == "c" else 1)
        scale = abs(alpha) * (np.abs(left) @ np.abs(right)) + abs(beta) * np.abs(old)
        return alpha * (left @ right) + beta * old, (left.shape[1] + 4) * eps * scale

    def _only(self, uplo: int, c: Array, expected: Array, bound: Array) -> tuple[Any, ...]:
        """Elements outside the triangle keep their bits."""
        inside = triangle(np.ones(c.shape), uplo) > 0
        c[~inside] = 7
        return c, np.where(inside, expected, wide(c)), np.where(inside, bound, 0)

    def _gemm(self, x: Arguments) -> tuple[Any, ...]:
        a = self.matrix("a", *((x.m, x.k) if x.trans_a == 111 else (x.k, x.m)))
        b = self.matrix("b", *((x.k, x.n) if x.trans_b == 111 else (x.n, x.k)))
        c = self.matrix("c", x.m, x.n)
        alpha, beta = self.factor("alpha"), self.factor("beta")
        self.hide(c, beta)
        return c, *self._sums(op(a, x.trans_a), op(b, x.trans_b), c, alpha, beta)

    def _gemmt(self, x: Arguments) -> tuple[Any, ...]:
        x.m = x.n
        c, expected, bound = self._gemm(x)
        return self._only(x.uplo, c, expected, bound)

    def _gemv(self, x: Arguments) -> tuple[Any, ...]:
        a = op(self.matrix("a", x.m, x.n), x.trans)
        rows, columns = a.shape
        v, y = self.vector("x", columns), self.vector("y", rows)
        alpha, beta = self.factor("alpha"), self.factor("beta")
        if x.m == 0 or x.n == 0:
            return y, wide(y), np.zeros(y.shape)
        self.hide(y, beta)
        return y, *self._sums(a, v, y, alpha, beta)

    def _rank_k(self, x: Arguments, is_hermitian: bool) -> tuple[Any, ...]:
        a = op(self.matrix("a", *((x.n, x.k) if x.trans == 111 else (x.k, x.n))), x.trans)
        c = self.matrix("c", x.n, x.n)
        alpha, beta = self.factor("alpha", is_hermitian), self.factor("beta", is_hermitian)
        right = a.T.conj() if is_hermitian else a.T
        if (alpha == 0 or x.k == 0) and beta == 1:
            return c, wide(c), np.zeros(c.shape)
        self.hide(c, beta)
        expected, bound = self._sums(a, right, c, alpha, beta)
        if is_hermitian:
            np.fill_diagonal(expected, expected.diagonal().real)
        return self._only(x.uplo, c, expected, bound)

    def _syrk(self, x: Arguments) -> tuple[Any, ...]:
        return self._rank_k(x, False)

    def _herk(self, x: Arguments) -> tuple[Any, ...]:
        return self._rank_k(x, True)

    def _rank_2k(self, x: Arguments, is_hermitian: bool) -> tuple[Any, ...]:
        shape = (x.n, x.k) if x.trans == 111 else (x.k, x.n)
        a, b = (op(self.matrix(name, *shape), x.trans) for name in "ab")
        c = self.matrix("c", x.n, x.n)
        alpha, beta = self.factor("alpha"), self.factor("beta", is_hermitian)
        if (alpha == 0 or x.k == 0) and beta == 1:
            return c, wide(c), np.zeros(c.shape)
        transpose = (lambda y: y.T.conj()) if is_hermitian else (lambda y: y.T)
        second = np.conj(alpha) if is_hermitian else alpha
        left = np.concatenate((alpha * wide(a), second * wide(b)), axis=1)
        right = np.concatenate((transpose(b), transpose(a)), axis=0)
        self.hide(c, beta)
        expected, bound = self._sums(left, right, c, 1, beta)
        if is_hermitian:
            np.fill_diagonal(expected, expected.diagonal().real)
        return self._only(x.uplo, c, expected, 2 * bound)

    def _syr2k(self, x: Arguments) -> tuple[Any, ...]:
        return self._rank_2k(x, False)

    def _her2k(self, x: Arguments) -> tuple[Any, ...]:
        return self._rank_2k(x, True)

    def _symmetric(self, x: Arguments, is_hermitian: bool) -> tuple[Any, ...]:
        side = x.m if x.side == 141 else x.n
        stored = self.matrix("a", side, side)
        b, c = self.matrix("b", x.m, x.n), self.matrix("c", x.m, x.n)
        alpha, beta = self.factor("alpha"), self.factor("beta")
        own = wide(triangle(stored, x.uplo))
        other = own - np.diag(own.diagonal())
        full = own + (other.T.conj() if is_hermitian else other.T)
        if is_hermitian:
            np.fill_diagonal(full, full.diagonal().real)
        stored[triangle(np.ones(stored.shape), x.uplo) == 0] = np.nan
        self.hide(c, beta)
        left, right = (full, b) if x.side == 141 else (b, full)
        return c, *self._sums(left, right, c, alpha, beta)

    def _symm(self, x: Arguments) -> tuple[Any, ...]:
        return self._symmetric(x, False)

    def _hemm(self, x: Arguments) -> tuple[Any, ...]:
        return self._symmetric(x, True)

    def _triangular(self, x: Arguments) -> tuple[Array, Array, complex]:
        side = x.m if x.side == 141 else x.n
        stored = self.matrix("a", side, side)
        stored[...] /= max(side, 1)
        stored[np.arange(side), np.arange(side)] += 1
        own = wide(triangle(stored, x.uplo))
        stored[triangle(np.ones(stored.shape), x.uplo) == 0] = np.nan
        if x.diag == 132:
            np.fill_diagonal(own, 1)
            np.fill_diagonal(stored, np.nan)
        b = self.matrix("b", x.m, x.n)
        return op(own, x.trans), b, self.factor("alpha")

    def _trmm(self, x: Arguments) -> tuple[Any, ...]:
        a, b, alpha = self._triangular(x)
        left, right = (a, b) if x.side == 141 else (b, a)
        return b, *self._sums(left, right, b, alpha, 0)

    def _trsm(self, x: Arguments) -> tuple[Any, ...]:
        """The matrices are well-conditioned: the forward error is bounded, too."""
        a, b, alpha = self._triangular(x)
        right = alpha * wide(b)
        transposed = x.side == 142
        matrix, right = (a.T, right.T) if transposed else (a, right)
        solution = solve(matrix, right)
        eps = np.finfo(self.dtype).eps * (8 if self.dtype.kind == "c" else 2)
        norm = np.abs(solution).max(initial=0) * (len(matrix) + 4) * 4
        bound = np.full(solution.shape, eps * norm)
        return (b, solution.T, bound.T) if transposed else (b, solution, bound)


def solve(a: Array, b: Array) -> Array:
    """Substitution in extended precision, for a triangular matrix of either kind."""
    x = np.zeros_like(b)
    is_lower = not np.any(np.triu(a, 1))
    for i in range(len(a)) if is_lower else reversed(range(len(a))):
        x[i] = (b[i] - a[i] @ x) / a[i, i]
    return x


def check(routine: str, case: Case) -> None:
    """The result is right, and no other memory has changed."""
    call = routine, {name: getattr(case.arguments, name) for name in (*FIELDS, *SIZES)}
    assert np.all(np.abs(wide(case.target) - case.expected) <= case.bound), call
    case.target[...] = 0
    after = {name: array.tobytes() for name, array in case.memory.items()}
    for name, array in case.memory.items():
        array[...] = case.before[name]
    case.target[...] = 0
    assert after == {name: array.tobytes() for name, array in case.memory.items()}, call


# ---- the tests ----


def test_all_routines_are_there() -> None:
    kinds = ("gemm", "gemv", "gemmt", "syrk", "syr2k", "symm", "trmm", "trsm")
    names = [letter + kind for letter in "sdcz" for kind in kinds]
    names += [letter + kind for letter in "cz" for kind in ("herk", "her2k", "hemm")]
    expected = {f"cblas_{x}{y}" for x in names for y in ("", "64_")}
    expected |= {x + y for x in names for y in ("_", "_64_")}
    assert set(PROTOTYPES) == expected


@pytest.mark.parametrize("routine", PROTOTYPES)
def test_from_threads_of_c(library: ctypes.CDLL, routine: str) -> None:
    for seed in range(6):
        cases = [Random(routine, THREADS * seed + i).case() for i in range(THREADS)]
        arguments = (Arguments * THREADS)(*(case.arguments for case in cases))
        assert library.in_threads(getattr(library, f"call_{routine}"), arguments) == 0
        for case in cases:
            check(routine, case)


@pytest.mark.parametrize("routine", ["cblas_dgemm", "ssyrk_", "ztrsm_64_"])
def test_by_a_caller_with_the_gil(library: ctypes.CDLL, routine: str) -> None:
    function = getattr(ctypes.PyDLL(library._name), f"call_{routine}")
    for seed in range(20):
        case = Random(routine, 1000 + seed, longest=90).case()
        function(ctypes.byref(case.arguments))
        check(routine, case)


WRONG_ARGUMENTS: dict[str, dict[str, tuple[int, int]]] = {
    "gemm": {
        "trans_a": (-1, 1), "trans_b": (-1, 2), "m": (-1, 3), "n": (-1, 4), "k": (-1, 5),
        "lda": (4, 8), "ldb": (4, 10), "ldc": (4, 13),
    },
    "gemv": {
        "trans": (-1, 1), "m": (-1, 2), "n": (-1, 3), "lda": (4, 6), "incx": (0, 8),
        "incy": (0, 11),
    },
    "gemmt": {
        "uplo": (-1, 1), "trans_a": (-1, 2), "trans_b": (-1, 3), "n": (-1, 4), "k": (-1, 5),
        "lda": (4, 8), "ldb": (4, 10), "ldc": (4, 13),
    },
    "syrk": {
        "uplo": (-1, 1), "trans": (-1, 2), "n": (-1, 3), "k": (-1, 4), "lda": (4, 7),
        "ldc": (4, 10),
    },
    "syr2k": {
        "uplo": (-1, 1), "trans": (-1, 2), "n": (-1, 3), "k": (-1, 4), "lda": (4, 7),
        "ldb": (4, 9), "ldc": (4, 12),
    },
    "symm": {
        "side": (-1, 1), "uplo": (-1, 2), "m": (-1, 3), "n": (-1, 4), "lda": (4, 7),
        "ldb": (4, 9), "ldc": (4, 12),
    },
    "trsm": {
        "side": (-1, 1), "uplo": (-1, 2), "trans": (-1, 3), "diag": (-1, 4), "m": (-1, 5),
        "n": (-1, 6), "lda": (4, 9), "ldb": (4, 11),
    },
}  # fmt: skip
"""By routine and argument: a wrong value, and the argument's number in Fortran's call."""
SAME_ARGUMENTS = {"herk": "syrk", "her2k": "syr2k", "hemm": "symm", "trmm": "trsm"}


def call_with(library: ctypes.CDLL, routine: str, **changes: int) -> Array:
    """C after a call with 5 x 5 matrices, which hold 7, and these arguments."""
    x = Arguments(102, 111, 111, 111, 141, 121, 131, 5, 5, 5, 5, 5, 5, 1, 1, (1, 0), (0, 0))
    memory = {name: np.full((5, 5), 7, DTYPES[letter_of(routine)]) for name in BUFFERS}
    for name, array in memory.items():
        setattr(x, name, array.ctypes.data)
    for name, value in changes.items():
        setattr(x, name, value)
    getattr(library, f"call_{routine}")(ctypes.byref(x))
    target = {"gemv": "y", "trmm": "b", "trsm": "b"}.get(kind_of(routine), "c")
    return memory[target]


@pytest.mark.parametrize("routine", PROTOTYPES)
def test_wrong_arguments(
    library: ctypes.CDLL, capfd: pytest.CaptureFixture[str], routine: str
) -> None:
    """A line on stderr, with the routine and the number of the argument; C is unchanged."""
    kind = kind_of(routine)
    for name, (value, number) in WRONG_ARGUMENTS[SAME_ARGUMENTS.get(kind, kind)].items():
        c = call_with(library, routine, **{name: value})
        number_there = number + routine.startswith("cblas_")
        expected = f"nkblas: {routine}: argument {number_there} has an illegal value\n"
        assert capfd.readouterr().err == expected
        assert np.all(c == 7), name


def test_wrong_order(library: ctypes.CDLL, capfd: pytest.CaptureFixture[str]) -> None:
    c = call_with(library, "cblas_dgemm64_", order=7)
    assert capfd.readouterr().err == "nkblas: cblas_dgemm64_: argument 1 has an illegal value\n"
    assert np.all(c == 7)


@pytest.mark.parametrize(("routine", "trans"), [("csyrk_", 113), ("zsyr2k_", 113), ("cherk_", 112)])
def test_transposes_that_complex_routines_lack(
    library: ctypes.CDLL, capfd: pytest.CaptureFixture[str], routine: str, trans: int
) -> None:
    call_with(library, routine, trans=trans)
    assert capfd.readouterr().err == f"nkblas: {routine}: argument 2 has an illegal value\n"


def test_unaligned_operands(library: ctypes.CDLL) -> None:
    """They are done by plain loops: C code may have packed structs."""
    x = np.random.default_rng(0).integers(-5, 5, (2, 6, 6)).astype(np.float64)
    bytes_ = np.zeros(8 * 36 * 3 + 1, np.uint8)
    a, b, c = (bytes_[1 + 288 * i : 289 + 288 * i] for i in range(3))
    a[:], b[:] = x[0].view(np.uint8).ravel(), x[1].view(np.uint8).ravel()
    arguments = Arguments(101, 111, 111, 111, 141, 121, 131, 6, 6, 6, 6, 6, 6, 1, 1, (1, 0), (0, 0))
    arguments.a, arguments.b, arguments.c = (y.ctypes.data for y in (a, b, c))
    library.call_cblas_dgemm(ctypes.byref(arguments))
    assert np.array_equal(c.copy().view(np.float64).reshape(6, 6), x[0] @ x[1])


CALLERS = r"""
#include <nkblas_cblas.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

extern void *PyExc_ValueError;
void PyErr_SetString(void *, const char *);
int PyErr_ExceptionMatches(void *);
void PyErr_Clear(void);

int multiply(int n) /* whether the result is right */
{
    double *a = malloc(sizeof *a * n * n), *c = malloc(sizeof *c * n * n);
    int right = 1;
    for (int i = 0; i < n * n; i++)
        a[i] = i % 7 - 3;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, a, n, a, n, 0, c, n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int p = 0; p < n; p++)
                sum += a[i * n + p] * a[j * n + p];
            right &= sum == c[i * n + j];
        }
    free(a), free(c);
    return right;
}
int multiply_with_exception(int n) /* whether it is right and the exception still there */
{
    PyErr_SetString(PyExc_ValueError, "the caller's");
    int right = multiply(n) && PyErr_ExceptionMatches(PyExc_ValueError);
    PyErr_Clear();
    return right;
}
int multiply_interrupted(int n) { raise(SIGINT); return multiply(n); }
static void at_exit(void) { printf("{\"is_right\": %d}", multiply(109)); }
void multiply_at_exit(void) { atexit(at_exit); }
static void *multiply_on(void *x)
{
    for (int n = 2;; n = n % 100 + 1)
        if (!multiply(n))
            abort();
    return x;
}
void start_multiplying(void) { pthread_t t; pthread_create(&t, 0, multiply_on, 0); }
"""


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that calls with new problems in all states of the interpreter."""
    folder = tmp_path_factory.mktemp("callers")
    (folder / "callers.c").write_text(CALLERS)
    command = ["gcc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-I"]
    command += [nkblas.get_include(), "-o", "callers.so", "callers.c", nkblas.get_library()]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "callers.so")


def test_by_a_caller_with_an_exception(callers: str) -> None:
    """Planning runs Python code, which leaves it alone."""
    assert ctypes.PyDLL(callers).multiply_with_exception(103)


@pytest.mark.parametrize(("library_type", "n"), [(ctypes.CDLL, 101), (ctypes.PyDLL, 107)])
def test_interrupt_before_planning(
    library_type: type[ctypes.CDLL], n: int, callers: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The product is right, and Python gets the exception when C returns."""
    function, results = library_type(callers).multiply_interrupted, []

    def multiply() -> None:
        results.append(function(n))
        for _ in range(1000):
            results.append(1)

    with pytest.raises(KeyboardInterrupt):
        multiply()
    assert all(results)
    assert capfd.readouterr().err == ""


def test_after_the_interpreter(callers: str) -> None:
    """Plain loops do what is not planned yet."""
    program = f"import ctypes, nkblas; ctypes.CDLL({callers!r}).multiply_at_exit()"
    output, errors = run(program, prelude="")
    assert output == {"is_right": 1}
    assert errors == ""


def test_while_the_interpreter_ends(callers: str) -> None:
    for delay in (0, 0.05, 0.2):
        program = f"""
        import ctypes, time, nkblas
        ctypes.CDLL({callers!r}).start_multiplying()
        time.sleep({delay})
        print("{{}}")
        """
        assert run(program, prelude="") == ({}, "")


def test_beside_another_blas(tmp_path: Path) -> None:
    """Functions of the same names that are loaded globally, and first, are not called."""
    names = ("nk_gemm", "nk_blas_run", "dgemm_", "cblas_dgemm", "cblas_xerbla")
    lines = ["void abort(void);", *(f"void {name}(void) {{ abort(); }}" for name in names)]
    (tmp_path / "blas.c").write_text("\n".join(lines))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "blas.so", "blas.c"], cwd=tmp_path, check=True)
    program = f"""
    import ctypes
    ctypes.CDLL({str(tmp_path / "blas.so")!r}, ctypes.RTLD_GLOBAL)
    """
    output, _ = run(textwrap.dedent(program) + WITHOUT_KERNELS, prelude="")
    assert output["fallbacks"] == 0


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_header_in_cpp(tmp_path: Path) -> None:
    source = """
    #include <nkblas_cblas.h>
    void multiply(const double *a, double *c)
    {
        cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, 1, 1, 1, 1, a, 1, a, 1, 0, c, 1);
        cblas_dgemm64_(CblasColMajor, CblasNoTrans, CblasTrans, 1, 1, 1, 1, a, 1, a, 1, 0, c, 1);
    }
    """
    (tmp_path / "call.cpp").write_text(source)
    command = ["g++", "-Wall", "-Wextra", "-pedantic", "-Werror", "-shared", "-fPIC", "-I"]
    command += [nkblas.get_include(), "-o", "call.so", "call.cpp", nkblas.get_library()]
    subprocess.run(command, cwd=tmp_path, check=True)
    ctypes.CDLL(str(tmp_path / "call.so"))  # all names are found, as C's


WITHOUT_KERNELS = """
import ctypes, json, numpy as np, nkblas
library = ctypes.CDLL(nkblas.get_library())
rng = np.random.default_rng(0)
a, b = np.tril(rng.integers(1, 5, (9, 9))).astype(float), rng.integers(-5, 5, (9, 4)).astype(float)
pointer, double = lambda x: ctypes.c_void_p(x.ctypes.data), ctypes.c_double
full = a + np.tril(a, -1).T
c, product, system = np.zeros((9, 4)), b.copy(), a @ b
one, two, zero, of_a = double(1), double(2), double(0), pointer(a)
library.cblas_dsymm(101, 141, 122, 9, 4, two, of_a, 9, pointer(b), 4, zero, pointer(c), 4)
library.cblas_dtrmm(101, 141, 122, 111, 131, 9, 4, one, of_a, 9, pointer(product), 4)
library.cblas_dtrsm(101, 141, 122, 111, 131, 9, 4, one, of_a, 9, pointer(system), 4)
assert np.array_equal(c, 2 * full @ b) and np.array_equal(product, a @ b)
assert np.allclose(system, b, atol=1e-12)
c = np.zeros((9, 9))
library.cblas_dsyrk(101, 121, 111, 9, 4, one, pointer(b), 4, zero, pointer(c), 9)
assert np.array_equal(c, np.triu(b @ b.T))
print(json.dumps(nkblas.stats()))
"""


def test_without_kernels(tmp_path: Path) -> None:
    """Where there is no other BLAS either, plain loops do it."""
    output, _ = run(WITHOUT_KERNELS, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=tmp_path)
    assert output["fallbacks"] == 4
