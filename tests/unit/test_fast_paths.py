"""The C rules of the fast paths and the Python rules of the general functions agree.

Random calls go to a fast path in front of a function that does nothing. If the fast path does a
call, the bits of the result and all memory are those of the general function; if not, nothing has
changed that the general function reads.
"""

import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import LAYOUTS, Array, outcome, poison, run, sample, without_python

import nkblas
from nkblas import _numpy_ext, blas

NOT_DONE = object()


class Call(NamedTuple):
    """The arguments of a call."""

    args: tuple[Any, ...]
    options: dict[str, Any]

    def on(self, function: Callable[..., Any]) -> Any:
        """The result, or the type and text of the error."""
        return outcome(lambda f: f(*self.args, **self.options), function)

    def arrays(self) -> list[Array]:
        values = [*self.args, *self.options.values()]
        for value in values.copy():
            values += value if isinstance(value, list | tuple) else []
        return [x for x in values if isinstance(x, np.ndarray)]

    def memory(self) -> list[bytes]:
        """All memory of the arrays, with the gaps between their elements."""
        contents = []
        for array in self.arrays():
            if array.dtype.char in "gGO":  # bytes include padding, which is arbitrary, or addresses
                contents.append(repr(array.tolist()).encode())
                continue
            while isinstance(array.base, np.ndarray):
                array = array.base
            contents.append(array.tobytes())
        return contents


def is_done_as_in_python(name: str, function: Any, make: Callable[[], Call]) -> bool:
    """Whether the fast path does a call; it has to do it as the general function.

    `make` makes the arguments, with equal values in other memory each time.
    """
    call, reference = make(), make()
    before = call.memory()
    assert reference.memory() == before
    got = call.on(_numpy_ext.make_fast_path(lambda *_, **__: NOT_DONE, name, None))
    is_done = got is not NOT_DONE
    if not is_done:
        if call.memory() == before:
            return False
        got = call.on(function.__wrapped__)  # the engine refused the product after C was set
    expected = reference.on(function.__wrapped__)
    assert type(got) is type(expected), (got, expected)
    if isinstance(expected, tuple):
        assert got == expected
        return is_done
    assert (got.dtype, got.shape, got.strides) == (expected.dtype, expected.shape, expected.strides)
    assert got.tobytes() == expected.tobytes(), (got, expected)
    is_argument = [x is got for x in call.arrays()]
    assert is_argument == [x is expected for x in reference.arrays()]
    assert call.memory() == (reference.memory() if any(is_argument) else before)
    return is_done


def done(
    name: str, function: Any, make: Callable[["Draws"], Callable[[], Call]], calls: int
) -> float:
    """Check random calls; the fraction of them that the fast path does."""
    count = 0
    for seed in range(calls):
        make_arguments = make(Draws(seed))
        try:
            count += is_done_as_in_python(name, function, make_arguments)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {make_arguments()}") from error
    return count / calls


# ---- what is drawn ----

DTYPES = (
    *("float32", "float64", "complex64", "complex128", "float16", "bfloat16"),
    *("int8", "uint8", "int32", "int64", "uint64"),
)
OTHER_DTYPES = (*DTYPES, "bool", "longdouble", "uint16", "float8_e5m2")
FACTORS = (1, 1, 1.0, 2, -1, 0.5, 0, True, np.float64(2), np.nan)
OTHER_FACTORS = (
    *(3.0, -0.0, np.inf, False, 1j, 2 - 1j, 1 + 0j, 0j, 1e300, 2**70, 10**400),
    *(np.float32(0.5), np.int64(1), np.int8(1), np.bool_(True), np.complex64(1j), np.float16(2)),
    *(np.longdouble(2), np.array(2.0), np.ones(1), np.str_("1"), np.datetime64(1, "s"), None, "1"),
)
OTHER_TRANS = (1.0, np.int64(1), None, 3, -1, "T", 2**70)


class Draws(random.Random):
    """Random arguments."""

    def flag(self, percent: int) -> bool:
        return self.randrange(100) < percent

    def mostly(self, usual: Any, *others: Any) -> Any:
        return self.choice(others) if self.flag(20) else usual

    def lengths(self, count: int) -> list[int]:
        """Equal ones often, so that an array fits in the place of another."""
        values = [self.choice((1, 2, 3, 5, 5, 3, 3, self.mostly(3, 0))) for _ in range(count)]
        return values[:1] * count if self.flag(40) else values

    def factor(self) -> Any:
        return self.choice(OTHER_FACTORS if self.flag(20) else FACTORS)

    def trans(self) -> Any:
        return self.choice(OTHER_TRANS if self.flag(5) else (0, 1, 2, True, False))

    def scaling(self) -> dict[str, Any]:
        values = {"alpha": self.factor, "beta": self.factor}
        values |= {"trans_a": self.trans, "trans_b": self.trans}
        return {name: draw() for name, draw in values.items() if self.flag(50)}

    def array(self, shape: tuple[int, ...], dtype: str, layout: str = "") -> Callable[[], Any]:
        """How to make an array; sometimes a list, or of another shape, type or class."""
        seed, form = self.random(), "array"
        if self.flag(1):
            shape = (*shape[:-1], shape[-1] + 1)
        if self.flag(5):
            dtype = self.choice(OTHER_DTYPES)
        if self.flag(5):
            form = self.choice(("list", "list", "subclass", "row of a stack"))
        layout = layout or self.mostly("rows", *LAYOUTS)

        def make() -> Any:
            array: Any = sample(*shape, dtype=dtype, seed=int(seed * 1000))
            if len(shape) == 2 and 0 not in shape:
                array = LAYOUTS[layout].arrange(array, dtype, fill=poison(dtype))
            if form == "list":
                return array.tolist()
            if form == "row of a stack":
                return array[None]
            return array.view(np.matrix) if form == "subclass" and array.ndim == 2 else array

        return make


def is_transposed(trans: Any) -> bool:
    return trans in (1, 2, 3, -1, "T")


def first(value: Any) -> Any:
    """The first row or block of an array or a list."""
    return value[0] if isinstance(value, np.ndarray | list) and len(value) else value


def backwards(value: Any) -> Any:
    return value[::-1] if isinstance(value, np.ndarray | list) else value


def gemm_call(draw: Draws) -> Callable[[], Call]:
    (m, n, k), options, dtype = draw.lengths(3), draw.scaling(), draw.choice(DTYPES)
    is_quantized = draw.flag(15)
    if is_quantized:
        dtype, options = draw.choice(("int8", "uint8")), options if draw.flag(50) else {}
    a = draw.array((k, m) if is_transposed(options.get("trans_a")) else (m, k), dtype)
    b = draw.array((n, k) if is_transposed(options.get("trans_b")) else (k, n), dtype)
    c, residual = draw.array((m, n), dtype), draw.array((m, n), dtype)
    own_out = draw.array((m, n), draw.mostly(dtype, "int32", "float32"))
    has_c, is_positional = draw.flag(90 if "beta" in options else 10), draw.flag(50)
    which_c = draw.mostly("c", "a", "b", "backwards a", None)
    outs = ("out", "out", "out", "c", "c", "backwards c", "a", "residual", "read-only")
    which_out = draw.choice(outs)
    out_dtype = draw.choice((dtype, dtype, "int32", "float32", ">f4", "bool", "no dtype"))
    has_out, has_dtype, has_residual, is_packed = (draw.flag(x) for x in (30, 10, 8, 8))
    more = {"bias": draw.choice((0.5, 2, range(n), range(n)))} if draw.flag(10) else {}
    more |= {"activation": draw.choice(("relu", "tanh", "?"))} if draw.flag(10) else {}
    more |= {"scale": draw.choice((0.5, np.float32(2), 2.0, 2, None))} if is_quantized else {}
    more |= {"zero_point": draw.mostly(3, 0, 300, None)} if draw.flag(4) else {}

    def make() -> Call:
        left, right = a(), b()
        arrays = {"a": left, "b": right, "c": c(), "out": own_out(), "residual": residual()}
        arrays["backwards a"], arrays["read-only"] = backwards(left), own_out()
        added = arrays.get(which_c)
        arrays["c"], arrays["backwards c"] = added, backwards(added)
        if isinstance(arrays["read-only"], np.ndarray):
            arrays["read-only"].flags.writeable = False
        given = options | more
        given |= {"out": arrays[which_out]} if has_out else {}
        given |= {"out_dtype": out_dtype} if has_dtype else {}
        given |= {"residual": arrays["residual"]} if has_residual else {}
        if isinstance(given.get("bias"), range):
            given["bias"] = np.array(given["bias"], dtype)
        if is_packed:
            right = outcome(lambda pack: pack(right), nkblas.pack)
        if has_c and is_positional:
            return Call((left, right, added), given)
        return Call((left, right), given | ({"c": added} if has_c else {}))

    return make


def blas_gemm_call(dtype: str) -> Callable[[Draws], Callable[[], Call]]:
    def call(draw: Draws) -> Callable[[], Call]:
        (m, n, k), options = draw.lengths(3), draw.scaling()
        alpha = options.pop("alpha", 1.0)
        a = draw.array((k, m) if is_transposed(options.get("trans_a")) else (m, k), dtype)
        b = draw.array((n, k) if is_transposed(options.get("trans_b")) else (k, n), dtype)
        c = draw.array((m, n), dtype, draw.mostly("columns", *LAYOUTS))
        which_c = draw.mostly("c", None, "a", "b", "backwards a")
        overwrite, is_writeable = draw.mostly(1, None, 0, True, 1.5), draw.flag(90)

        def make() -> Call:
            arrays = {"a": a(), "b": b(), "c": c()}
            if isinstance(arrays["c"], np.ndarray):
                arrays["c"].flags.writeable = is_writeable
            arrays["backwards a"] = backwards(arrays["a"])
            given = options | {"overwrite_c": overwrite}
            args = (alpha, arrays["a"], arrays["b"])
            if "beta" in given and "trans_b" in given:
                return Call((*args, given.pop("beta"), arrays.get(which_c)), given)
            return Call(args, given | ({"c": arrays[which_c]} if which_c else {}))

        return make

    return call


def blas_gemv_call(dtype: str) -> Callable[[Draws], Callable[[], Call]]:
    def call(draw: Draws) -> Callable[[], Call]:
        (m, n), options = draw.lengths(2), draw.scaling()
        alpha = options.pop("alpha", 1.0)
        options = {
            "trans" if x == "trans_a" else x: y for x, y in options.items() if x != "trans_b"
        }
        a = draw.array((n, m) if is_transposed(options.get("trans")) else (m, n), dtype)
        for name in ("offx", "offy"):
            options |= {name: draw.mostly(0, 1, 2, -1, None, 2**40)} if draw.flag(30) else {}
        for name in ("incx", "incy"):
            options |= {name: draw.mostly(1, 2, -1, -2, 0, None, 2**40)} if draw.flag(30) else {}
        x = draw.array((n + draw.mostly(0, 5, 9), draw.mostly(1, 2)), dtype)
        y = draw.array((m + draw.mostly(0, 5, 9), draw.mostly(1, 2)), dtype)
        which_y = draw.mostly("y", None, "x", "backwards x", "row of a")
        overwrite, is_column = draw.mostly(1, None, 0, True), draw.flag(10)

        def make() -> Call:
            arrays = {"a": a(), "x": x(), "y": y()}
            for name in "xy":
                if isinstance(arrays[name], np.ndarray) and not is_column:
                    arrays[name] = arrays[name][..., :1].reshape(-1)
            arrays |= {"backwards x": backwards(arrays["x"]), "row of a": first(arrays["a"])}
            given = options | {"overwrite_y": overwrite}
            given |= {"y": arrays[which_y]} if which_y else {}
            return Call((alpha, arrays["a"], arrays["x"]), given)

        return make

    return call


def level3_call(name: str) -> Callable[[Draws], Callable[[], Call]]:
    """Calls of a routine with a triangle."""
    kind, dtype = name[1:], blas.DTYPES[name[0]].name
    signature = inspect.signature(getattr(blas, name))
    is_in_place, is_square = kind in ("trmm", "trsm"), kind in ("symm", "hemm", "trmm", "trsm")

    def call(draw: Draws) -> Callable[[], Call]:
        options = {x: draw.trans() for x in ("trans", "trans_a", "trans_b") if draw.flag(50)}
        options |= {x: draw.mostly(1, 0, True, None, 2, -1) for x in ("side", "lower", "diag")}
        options = {x: y for x, y in options.items() if x in signature.parameters}
        m, n = draw.lengths(2)
        if is_square:
            size = n if options.get("side") in (1, True) else m
            a, b = draw.array((size, size), dtype), draw.array((m, n), dtype)
        else:
            trans = is_transposed(options.get("trans", options.get("trans_a")))
            trans_b = not is_transposed(options.get("trans_b")) if kind == "gemmt" else trans
            a, b = (draw.array((n, m) if x else (m, n), dtype) for x in (trans, trans_b))
        c = draw.array((m, n) if is_square else (m, m), dtype, draw.mostly("columns", *LAYOUTS))
        which_c = draw.mostly("c", None, "a", "b", "backwards a")
        overwrite = draw.choice((1, True, 1, 0, False, 0, draw.choice((None, 1.5))))
        options["overwrite_b" if is_in_place else "overwrite_c"] = overwrite
        alpha, beta, has_beta = draw.factor(), draw.factor(), draw.flag(60)

        def make() -> Call:
            arrays = {"a": a(), "b": b(), "c": c()}
            arrays["backwards a"] = backwards(arrays["a"])
            if is_in_place and which_c in ("a", "backwards a"):
                arrays["b"] = arrays[which_c]
            operands = [arrays[x] for x in "ab" if x in signature.parameters]
            given = dict(options)
            if not is_in_place:
                given |= {"c": arrays[which_c]} if which_c else {}
                given |= {"beta": beta} if has_beta else {}
            return Call((alpha, *operands), given)

        return make

    return call


def brgemm_call(draw: Draws) -> Callable[[], Call]:
    (m, n, k), dtype = draw.lengths(3), draw.choice(DTYPES[:6])
    count = draw.choice((1, 2, 3))
    left = [draw.array((m, k), dtype, "rows") for _ in range(count if draw.flag(95) else 0)]
    right = [draw.array((k, n), dtype, "rows") for _ in range(count)]
    c, own_out = draw.array((m, n), dtype), draw.array((m, n), dtype)
    which_c = draw.choice((None, "c", "c", "c", "block"))
    which_out = draw.choice(
        (None, None, None, "c", "c", "out", "block", "last block", "backwards c")
    )
    options = {"beta": draw.choice((0, 1, 1.0, True, draw.factor()))} if draw.flag(70) else {}
    is_stack = draw.flag(50)

    def make() -> Call:
        blocks = [[x() for x in side] for side in (left, right)]
        arrays = {"c": c(), "out": own_out(), "block": first(blocks[0])}
        arrays["last block"] = first(backwards(blocks[1]))
        arrays["c"] = arrays.get(which_c)
        arrays["backwards c"] = backwards(arrays["c"])
        given = options | ({"out": arrays[which_out]} if which_out else {})
        if is_stack:
            stacks = outcome(lambda stack: [stack(side) for side in blocks], np.array)
            blocks = stacks if isinstance(stacks, list) else blocks
        return Call((*blocks, arrays["c"]), given)

    return make


# ---- the tests ----


@np.errstate(all="raise")
def test_gemm() -> None:
    assert done("gemm", nkblas.gemm, gemm_call, 4000) > 0.2


@pytest.mark.parametrize("letter", "sdcz")
@np.errstate(all="raise")
def test_blas(letter: str) -> None:
    dtype = blas.DTYPES[letter].name
    for kind, make in (("gemm", blas_gemm_call), ("gemv", blas_gemv_call)):
        name = letter + kind
        assert done(name, getattr(blas, name), make(dtype), 800) > 0.2


LEVEL3 = [x for x in blas.__all__ if x != "BlasError" and x[1:] not in ("gemm", "gemv")]


@pytest.mark.parametrize("name", LEVEL3)
@np.errstate(all="raise")
def test_level3(name: str) -> None:
    assert done(name, getattr(blas, name), level3_call(name), 400) > 0.05


@np.errstate(all="raise")
def test_brgemm() -> None:
    assert done("brgemm", nkblas.brgemm, brgemm_call, 1000) > 0.05


A = sample(3, 3, dtype="float64")
BYTES, STACK = sample(3, 3, dtype="int8"), sample(2, 3, 3, dtype="float64", seed=1)
UNALIGNED = LAYOUTS["unaligned"].arrange(A, "float64")
WITHOUT_PYTHON: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = [
    (nkblas.gemm, (A, A, A), {"beta": 1}, A @ A + A),
    (nkblas.gemm, (A, A), {"c": A, "beta": -1, "out": np.ones((3, 3), order="F")}, A @ A - A),
    (nkblas.gemm, (A, A, np.ones((3, 3), "i2")), {"beta": 2}, A @ A + 2),
    (nkblas.gemm, (A, A.tolist(), A.tolist()), {"beta": 0.5}, A @ A + A / 2),
    (nkblas.gemm, (A.astype("f4"), UNALIGNED), {"alpha": np.float32(0.5)}, A @ A / 2),
    (nkblas.gemm, (A, A * 1j), {"alpha": 2j, "trans_a": True, "trans_b": 2}, 2 * A.T @ (A.T + 0j)),
    (
        nkblas.gemm,
        (BYTES, BYTES, np.ones((3, 3), "i4")),
        {"beta": 1},
        BYTES.astype("i4") @ BYTES + 1,
    ),
    (nkblas.gemm, (A, nkblas.pack(A), A), {"beta": 1, "trans_a": 1}, A.T @ A + A),
    (nkblas.gemm, (A, A, A), {"beta": 2, "bias": A[0], "residual": A}, A @ A + 3 * A + A[0]),
    (blas.dgemm, (1, A, A, 0.5, A), {"trans_a": 1}, A.T @ A + A / 2),
    (blas.dgemv, (2, A, A[0], 1j, np.ones(3)), {"incx": -1}, 2 * A @ A[0, ::-1]),
    (nkblas.brgemm, (STACK, STACK, A), {"beta": 1}, (STACK @ STACK).sum(0) + A),
]


@pytest.mark.parametrize("call", range(len(WITHOUT_PYTHON)))
def test_calls_without_python(call: int) -> None:
    function, args, options, expected = WITHOUT_PYTHON[call]
    got = without_python(function, *args, **options)
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


def test_fallbacks(tmp_path: Path) -> None:
    """Without kernels NumPy does the product, C is added once, and the counts are Python's."""
    program = """
        from nkblas import blas

        def check(gemm, dgemm, dgemv, brgemm):
            a, before = np.arange(9.0).reshape(3, 3), nkblas.stats()
            c, columns, y = np.ones((3, 3)), np.ones((3, 3), order="F"), np.ones(3)
            assert gemm(a, a, c, beta=2, out=c) is c
            assert np.array_equal(c, a @ a + 2)
            out = np.zeros((3, 3))
            assert gemm(a, a.tolist(), c, alpha=2, beta=1, trans_a=1, out=out) is out
            assert np.array_equal(out, 2 * a.T @ a + c)
            assert dgemm(1, a, a, 2, columns, overwrite_c=1) is columns
            assert np.array_equal(columns, a @ a + 2)
            assert dgemv(1, a, a[0], 2, y, overwrite_y=1) is y
            assert np.array_equal(y, a @ a[0] + 2)
            assert np.array_equal(brgemm([a], [a], a, beta=1), a @ a + a)
            after = nkblas.stats()
            return [after[name] - before[name] for name in ("calls", "fallbacks")]

        functions = nkblas.gemm, blas.dgemm, blas.dgemv, nkblas.brgemm
        report(fast=check(*functions), general=check(*(f.__wrapped__ for f in functions)))
    """
    counts, _ = run(program, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=tmp_path)
    assert counts["fast"] == counts["general"]
    assert counts["fast"][0] == counts["fast"][1] > 0
