"""`nkblas.pack`. `test_isas` runs this module on every ISA."""

import copy
import ctypes
import doctest
import itertools
import operator
import pickle
import re
import sys
from typing import Any

import numpy as np
import pytest
from support import (
    DTYPES,
    LAYOUTS,
    PRODUCTS,
    Array,
    Product,
    assert_exact,
    assert_within_bound,
    expected,
    integers,
    run,
    sample,
    without_python,
)

import nkblas
from nkblas.api import packed as module
from nkblas.api.packed import FORMAT, PackedLayout
from nkblas.base.dtypes import PRODUCTS as ENGINE
from nkblas.base.families import families
from nkblas.base.problem import Problem, parse
from nkblas.codegen.spec import Pack
from nkblas.planning.cost_model import panels_for
from nkblas.planning.plan import pack_kernel
from nkblas.runtime.kernels import kernels

by_product = pytest.mark.parametrize("product", PRODUCTS, ids=str)


def packed(product: Product, b: Array) -> nkblas.PackedMatrix:
    return nkblas.pack(b, a_dtype=product.a, dtype=product.result)


def edges(product: Product) -> list[tuple[int, int, int]]:
    """Single elements, primes, one column more than a panel, several k blocks."""
    nr = packed(product, np.zeros((64, 512), product.b)).layout.nr
    return [(1, 1, 1), (2, nr + 1, 31), (5, 1, 7), (33, 2 * nr - 1, 67), (40, 3, 2100)]


@by_product
def test_products(product: Product) -> None:
    """With the best plans."""
    before, cases, problems = nkblas.stats()["fallbacks"], [], []
    for m, n, k in edges(product):
        a, b = sample(m, k, dtype=product.a), sample(k, n, dtype=product.b, seed=1)
        right = packed(product, b)
        assert right.dtype == b.dtype
        assert_exact(right.unpack(), b, b.shape)
        problem = nkblas.explain(a, right).problem
        assert problem is not None
        assert problem.b == "packed"
        problems.append(problem)
        cases.append((a, right, expected(a, b, product.result)))
    nkblas.warmup(problems, tune=False, progress=False)
    for (a, right, wanted), problem in zip(cases, problems, strict=True):
        assert_exact(a @ right, wanted, problem)
    assert nkblas.stats()["fallbacks"] == before


@pytest.mark.parametrize("dtype", ["float32", "complex128", "float16", "int16"])
def test_new_shapes(dtype: str) -> None:
    """With interim plans too; A is in row-major, column-major and strided layout."""
    for m, n, k in ((2, 100, 41), (35, 130, 50), (9, 3, 1100), (13, 90, 17)):
        a, b = sample(m, 2 * k, dtype=dtype)[:, ::2], sample(k, n, dtype=dtype, seed=1)
        right = nkblas.pack(b)
        for left in (a, a.copy("C"), a.copy("F")):
            assert_exact(left @ right, expected(a, b), (m, n, k))


@pytest.mark.parametrize("dtype", [*DTYPES, "complex64", "float16", "bfloat16"])
def test_error_bound(dtype: str) -> None:
    generator = np.random.default_rng(0)
    for m, n, k in ((3, 70, 1500), (50, 33, 300)):
        a, b = (generator.standard_normal(s).astype(dtype) for s in ((m, k), (k, n)))
        assert_within_bound(a @ nkblas.pack(b), a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits(dtype: str) -> None:
    """For any number of threads, and those of the unpacked B in the same k blocks."""
    generator = np.random.default_rng(0)
    for m, n, k in ((1, 900, 700), (6, 700, 1100), (130, 700, 500)):
        a, b = (generator.standard_normal(s).astype(dtype) for s in ((m, k), (k, n)))
        right = nkblas.pack(b)
        results = []
        for threads in (1, 2):
            before = nkblas.get_num_threads()
            nkblas.set_num_threads(threads)
            results += [a @ right for _ in range(3)]
            nkblas.set_num_threads(before)
        assert all(np.array_equal(x, results[0]) for x in results)
        best = nkblas.explain(a, b).plan
        assert best is not None
        schedule = best.schedule
        if schedule.kind == "tiles" and (best.kc, schedule.family) == right.layout[5:3:-2]:
            assert np.array_equal(nkblas.matmul(a, b), results[0])


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        (dtype, name)
        for dtype in ("float32", "int8", "bool", "complex64", "bfloat16")
        for name, layout in LAYOUTS.items()
        if dtype != "bfloat16" or not layout.swapped  # ml_dtypes has no other byte order
    ],
)
def test_layouts(dtype: str, layout: str) -> None:
    arranged = LAYOUTS[layout]
    a, b = sample(9, 37, dtype=dtype), sample(37, 21, dtype=dtype, seed=1)
    right = nkblas.pack(arranged.arrange(b, dtype, 0))
    assert_exact(right.unpack(), b, layout)
    assert_exact(arranged.arrange(a, dtype, 0) @ right, expected(a, b, right.result_dtype), layout)


@by_product
def test_panels_equal_those_of_the_packing_kernel(product: Product) -> None:
    """Bit by bit, with compensation, for every family of this ISA."""
    k, n = 75, 53
    b = sample(k, n, dtype=product.b)
    name = packed(product, b).layout.product
    for descriptor in families(name, nkblas.cpu.isa):
        lanes = descriptor.lanes(nkblas.cpu.isa)
        layout = PackedLayout(name, k, n, descriptor.name, 2 * lanes, k, descriptor.b)
        dtypes = (np.dtype(product.a), np.dtype(product.b), product.result)
        made = module._pack(b, dtypes, layout)
        spec: Any = pack_kernel(nkblas.cpu.isa, name, descriptor, "b", 2 * lanes, "along")
        assert isinstance(spec, Pack)
        address = kernels.load((spec,))[spec]
        kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)(address)
        size = made.nbytes // layout.panels_per_block
        buffer = module._allocate_panels(size)
        for j in range(layout.panels_per_block):
            columns = np.ascontiguousarray(b[:, j * layout.nr : (j + 1) * layout.nr])
            width = columns.shape[1]
            kernel(width, k, columns.ctypes.data, 1, width, buffer.ctypes.data)
            assert np.array_equal(buffer, made._panels[j * size : (j + 1) * size]), descriptor
        assert_exact(made.unpack(), b, descriptor)


@pytest.mark.parametrize("shape", [(0, 0, 0), (0, 3, 2), (3, 0, 2), (3, 4, 0), (1, 1, 0)])
def test_empty(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    right = nkblas.pack(np.ones((k, n), "f"))
    assert right.shape == (k, n)
    assert np.array_equal(np.ones((m, k), "f") @ right, np.zeros((m, n), "f") + k)
    assert right.unpack().shape == (k, n)
    assert pickle.loads(pickle.dumps(right)).shape == (k, n)


def test_stacks_and_vectors() -> None:
    b = integers(7, 5)
    right = nkblas.pack(b)
    for shape in ((7,), (1, 7), (3, 2, 7), (2, 3, 4, 7), (0, 3, 7), (3, 0, 7)):
        a = integers(*shape, seed=1)
        assert_exact(a @ right, a @ b, shape)
    a = integers(4, 7, 3).transpose(2, 0, 1)  # its rows cannot be merged in place
    assert_exact(a @ right, a @ b)
    assert_exact(integers(2, 7).tolist() @ right, integers(2, 7) @ b)


def test_operands_that_can_be_cast() -> None:
    right = nkblas.pack(np.eye(3, 4, dtype="f"))
    for dtype in ("i1", "u2", "e", "?", ">f4"):
        a = np.ones((2, 3), dtype)
        assert_exact(a @ right, a.astype("f") @ np.eye(3, 4, dtype="f"), dtype)
    with pytest.raises(TypeError, match="a: got float64, expected float32"):
        np.ones((2, 3)) @ right


@pytest.mark.parametrize("order", ["C", "F"])
def test_out(order: Any) -> None:
    a, b = integers(3, 7, dtype="f"), integers(7, 5, dtype="f", seed=1)
    right, wanted = nkblas.pack(b), integers(3, 7, dtype="f") @ b
    for out in (
        np.empty((3, 5), "f", order=order),
        np.empty((6, 15), "f", order=order)[::-2, ::3],
        np.empty((3, 5), "d", order=order),
        np.empty((3, 5), ">f4", order=order),
    ):
        for function in (np.matmul, nkblas.matmul):
            out[...] = np.nan
            assert function(a, right, out=out) is out
            assert np.array_equal(out, wanted)
    stack = np.empty((2, 5, 3), "f", order=order).swapaxes(1, 2)
    assert np.matmul(np.stack([a, a]), right, out=stack) is stack
    assert np.array_equal(stack, [wanted, wanted])
    square = integers(5, 5, dtype="f")
    wanted = square @ square
    assert np.array_equal(np.matmul(square, nkblas.pack(square), out=square), wanted)
    with pytest.raises(ValueError, match=re.escape("out: got shape (3, 4), expected (3, 5)")):
        np.matmul(a, right, out=np.empty((3, 4), "f"))
    with pytest.raises(TypeError, match=r"Cannot cast array data from dtype.*float32.*int32"):
        np.matmul(a, right, out=np.empty((3, 5), "i"))
    with pytest.raises(ValueError, match="read-only"):
        np.matmul(a, right, out=np.broadcast_to(np.float32(0), (3, 5)))
    square = integers(5, 5, dtype="f")
    assert np.array_equal(nkblas.matmul(square, nkblas.pack(square), out=square), wanted)
    with pytest.raises(ValueError, match="read-only"):
        nkblas.matmul(a, right, out=np.broadcast_to(np.float32(0), (3, 5)))


@pytest.mark.parametrize(
    "product", [p for p in PRODUCTS if p.a in ("float32", "bool", "bfloat16", "int8")], ids=str
)
def test_fast_paths(product: Product) -> None:
    a, b = sample(9, 40, dtype=product.a), sample(40, 33, dtype=product.b, seed=1)
    right, wanted = packed(product, b), expected(a, b, product.result)
    for call in (np.matmul, nkblas.matmul, operator.matmul):
        assert_exact(without_python(call, a, right), wanted)
        assert_exact(without_python(call, a[3], right), wanted[3])
    out = np.empty((9, 33), product.result)
    assert without_python(nkblas.matmul, a, right, out=out) is out
    assert_exact(out, wanted)
    assert_exact(right.__array_ufunc__(np.matmul, "__call__", a, right), wanted)
    if product.a != "bool":
        assert_exact(without_python(nkblas.gemm, a, right), wanted)


@pytest.mark.parametrize(
    ("of_a", "of_b", "result"),
    [
        ("int8", "int8", "int8"),
        ("uint8", "uint8", "uint8"),
        ("uint8", "int8", "float32"),
        ("int8", "uint8", "int8"),
    ],
)
def test_quantized(of_a: str, of_b: str, result: str) -> None:
    """From the same panels; the scales are powers of two, so nothing is rounded twice."""
    before = nkblas.stats()["fallbacks"]
    for m, n, k in ((1, 33, 70), (9, 40, 4200)):
        a, b = sample(m, k, dtype=of_a), sample(k, n, dtype=of_b, seed=1)
        right, sums = nkblas.pack(b, a_dtype=of_a), expected(a, b, "int32")
        assert_exact(a @ right, sums)
        x = sums.astype("f") * (scale := np.float32(2.0) ** -np.arange(8, 8 + n, dtype="f"))
        ends = None if result == "float32" else np.iinfo(result)
        wanted = x if ends is None else np.clip(np.rint(x), ends.min, ends.max).astype(result)
        assert_exact(nkblas.gemm(a, right, scale=scale, out_dtype=result), wanted, (m, n, k))
    assert nkblas.stats()["fallbacks"] == before


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [*DTYPES, "complex64"])
def test_gemm(dtype: str, order: Any) -> None:
    for m, n, k in ((1, 9, 5), (5, 1, 9), (20, 90, 300), (40, 40, 1100)):
        a, b = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1)
        c = np.array(integers(m, n, dtype=dtype, seed=2), order=order)
        right = nkblas.pack(b)
        for alpha, beta in ((1, 0), (1, 1), (0.5, -2), (0, 3)):
            wanted = alpha * (a @ b) + beta * c
            assert np.array_equal(nkblas.gemm(a, right, c, alpha=alpha, beta=beta), wanted)
            left = a.T.copy()
            got = nkblas.gemm(left, right, c, alpha=alpha, beta=beta, trans_a=True, out=c.copy("K"))
            assert np.array_equal(got, wanted)
    with pytest.raises(ValueError, match=re.escape("trans_b: got True")):
        nkblas.gemm(a, right, trans_b=True)
    with pytest.raises(ValueError, match="b: got op"):
        nkblas.gemm(a[:, 1:], right)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_epilogues(dtype: str) -> None:
    """The same results as with the unpacked matrix."""
    for m, n, k in ((1, 90, 70), (20, 33, 300)):
        a, b = sample(m, k, dtype=dtype), sample(k, n, dtype=dtype, seed=1)
        right = nkblas.pack(b)
        result = right.result_dtype
        bias, residual = integers(n, dtype=result.name), integers(m, n, dtype=result.name, seed=2)
        for options in (
            {"bias": bias, "activation": "relu"},
            {"bias": bias[:m, None], "residual": residual},
            {"activation": ("clip", -9, 40), "residual": residual, "alpha": 1},
        ):
            wanted = nkblas.gemm(a, b, out_dtype=result, **options)
            assert_exact(nkblas.gemm(a, right, **options), wanted, options)


def test_gemm_of_integers() -> None:
    a, b = sample(9, 70, dtype="int8"), sample(70, 40, dtype="int8", seed=1)
    right, wanted = nkblas.pack(b), expected(a, b, "int32")
    assert_exact(nkblas.gemm(a, right), wanted)
    assert_exact(nkblas.gemm(a, right, wanted, beta=1), 2 * wanted)
    assert_exact(nkblas.gemm(a, right, wanted, alpha=3, beta=2, out_dtype="i4"), 5 * wanted)
    with pytest.raises(TypeError, match="out_dtype: got float64, expected int32"):
        nkblas.gemm(a, right, alpha=0.5)
    with pytest.raises(TypeError, match="a: got int16, expected int8"):
        nkblas.gemm(a.astype("i2"), right)


def test_dtypes() -> None:
    """Default dtypes, and dtypes without kernels."""
    for dtype, result in (("int8", "int32"), ("uint8", "int32"), ("bfloat16", "float32")):
        assert nkblas.pack(np.ones((2, 2), dtype)).result_dtype == result
    for product in PRODUCTS:
        if product.dtype is None and np.dtype(product.a).itemsize > 1:
            right = nkblas.pack(np.ones((2, 2), product.b))
            assert (right.a_dtype, right.result_dtype) == (product.a, product.result)
    assert nkblas.pack(np.ones((2, 2), "i1"), a_dtype="u1").result_dtype == "int32"
    assert nkblas.pack(np.ones((2, 2), "i1"), dtype="i1").result_dtype == "int8"
    for dtype in ("O", "longdouble", "M8[s]", "S3"):
        with pytest.raises(TypeError, match="pack: there are no kernels for"):
            nkblas.pack(np.zeros((2, 2), dtype))
    for more in ({"a_dtype": "f8"}, {"dtype": "f8"}, {"a_dtype": "i1"}):
        with pytest.raises(TypeError, match="pack: there are no kernels for"):
            nkblas.pack(np.zeros((2, 2), "f"), **more)
    for shape in ((), (3,), (2, 3, 4)):
        with pytest.raises(ValueError, match="expected a matrix"):
            nkblas.pack(np.zeros(shape))


def test_attributes_and_unsupported_operations() -> None:
    b = np.eye(3, dtype="f")
    right = nkblas.pack(b)
    with pytest.raises((AttributeError, TypeError)):
        b @ nkblas.PackedMatrix.__new__(nkblas.PackedMatrix)  # it has no panels
    assert (right.shape, right.ndim, right.dtype) == ((3, 3), 2, "float32")
    assert right.nbytes >= b.nbytes
    assert "3x3 float32" in repr(right)
    assert np.array_equal(np.asarray(right), b)
    assert np.array(right, "d").dtype == "float64"
    b[...] = 7
    assert np.array_equal(right.unpack(), np.eye(3))
    for call in (
        lambda: right @ b,
        lambda: right @ right,
        lambda: np.add(b, right),
        lambda: b + right,
        lambda: np.matmul(b, right, axes=[(0, 1)] * 3),
        lambda: np.dot(b, right),
        lambda: nkblas.dot(b, right),
    ):
        with pytest.raises(TypeError, match=re.escape("right operand of @")):
            call()
    with pytest.raises(TypeError, match="dtype: got float64, expected float32"):
        np.matmul(b, right, dtype="d")
    assert np.matmul(b, right, dtype="f").dtype == "float32"
    for wrong in (np.float32(1), b[:, :2], b[0, :2]):
        with pytest.raises(ValueError, match=r"a: got shape .*, expected \(..., 3\)"):
            np.matmul(wrong, right)
    with pytest.raises(ValueError, match="copy"):
        np.array(right, copy=False)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bfloat16"])
def test_copies(dtype: str) -> None:
    a, b = sample(5, 40, dtype=dtype), sample(40, 90, dtype=dtype, seed=1)
    right = nkblas.pack(b)
    for again in (copy.copy(right), copy.deepcopy(right), pickle.loads(pickle.dumps(right))):
        assert (again.layout, repr(again)) == (right.layout, repr(right))
        assert_exact(again.unpack(), b)
        assert_exact(a @ again, a @ right)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "bool", "bfloat16"])
def test_pickles_with_other_panels_are_packed_again(dtype: str) -> None:
    """Panels of another family, width and depth."""
    b = sample(40, 90, dtype=dtype)
    right = nkblas.pack(b)
    name = right.layout.product
    descriptor = families(name, nkblas.cpu.isa)[-1]
    other = PackedLayout(
        name, 40, 90, descriptor.name, 7 * descriptor.lanes(nkblas.cpu.isa), 16, descriptor.b
    )
    dtypes = right.a_dtype, right.dtype, right.result_dtype
    kept = pickle.dumps(module._pack(b, dtypes, other))
    again = pickle.loads(kept)
    assert again.layout == right.layout
    assert_exact(again.unpack(), b)
    with pytest.raises(ValueError, match="pack it again"):
        module._unpickle(FORMAT + 1, dtypes, tuple(other), right._panels)


def test_from_another_isa() -> None:
    code = """
        import base64, pickle
        b = np.arange(12000).reshape(100, 120).astype("f")
        report(kept=base64.b64encode(pickle.dumps(nkblas.pack(b))).decode())
    """
    import base64

    kept, _ = run(code, NKBLAS_ISA="sse42")
    again = pickle.loads(base64.b64decode(kept["kept"]))
    b = np.arange(12000).reshape(100, 120).astype("f")
    assert again.layout == nkblas.pack(b).layout
    assert np.array_equal(again.unpack(), b)


def test_without_kernels(tmp_path: Any) -> None:
    """NumPy does each product once, and rounds once."""
    code = """
        import ml_dtypes
        for dtype, wide in (("f", "d"), ("e", "d"), ("b", "i"), ("bfloat16", "d"), ("?", "?")):
            a = (np.arange(12) % 5 - 2).reshape(3, 4).astype(dtype)
            b = (np.arange(20) % 7 - 3).reshape(4, 5).astype(dtype)
            assert np.array_equal(a @ nkblas.pack(b), a.astype(wide) @ b.astype(wide)), dtype
        w = nkblas.pack(np.eye(4))
        nkblas.gemm(np.eye(4), w, np.eye(4), alpha=2, beta=1)
        a, b = np.arange(12, dtype="b").reshape(3, 4), np.arange(20, dtype="b").reshape(4, 5)
        scaled = nkblas.gemm(a, nkblas.pack(b), scale=0.25)
        assert np.array_equal(scaled, (a.astype("i") @ b) / 4)
        report()
    """
    counts, _ = run(code, NKBLAS_JIT="never", NKBLAS_CACHE_DIR=tmp_path)
    assert counts["fallbacks"] == counts["calls"] >= 6
    assert counts["kernels_compiled"] == 0


def test_text_and_recording() -> None:
    problem = Problem("int8_int32", 3, 50, 70, "row", "packed")
    assert str(problem) == "3x50x70:i8_i32:rpr"
    assert parse(str(problem)) == problem
    a, b = sample(3, 70, dtype="int8"), sample(70, 50, dtype="int8")
    right = nkblas.pack(b)
    with nkblas.record() as shapes:
        a @ right
        np.stack([a, a]) @ right
    assert dict(shapes) == {problem: 1, problem._replace(m=6): 1}
    nkblas.warmup(["3x50x70:i8_i32:rpr"], progress=False, seconds=0.3)
    found = nkblas.explain(a, right)
    assert (found.backend, found.problem) == ("nkblas", problem)
    assert found.plan is not None
    assert found.plan.origin == "tuned"
    assert_exact(a @ right, expected(a, b, "int32"))
    with pytest.raises(ValueError, match="a: got shape"):
        nkblas.explain(a[:, 1:], right)
    for wrong in ("3x50x70:f32:prr", "3x50x70:f32:rrp"):
        with pytest.raises(ValueError, match="got"):
            parse(wrong)


def test_layout_is_deterministic() -> None:
    for name, (k, n) in itertools.product(ENGINE, ((1, 1), (300, 40), (4096, 4096))):
        layout = PackedLayout.for_this_cpu(name, k, n)
        panels_for.cache_clear()
        assert layout == PackedLayout.for_this_cpu(name, k, n)


def test_examples() -> None:
    assert doctest.testmod(sys.modules["nkblas.api.packed"]).failed == 0
