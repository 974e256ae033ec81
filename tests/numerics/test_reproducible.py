"""Reproducibility: changes that leave the bits of a result equal, as docs/numerics.md promises.

The number of threads is tested in tests/reliability/test_threads.py.
"""

import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import COMPLEX, DTYPES, LAYOUTS, ORDERS, Array, Layout, Order, finish, start

import nkblas
from nkblas.base.isa import ISAS
from nkblas.planning.plan import Plan
from nkblas.planning.schedule import stream_depth

FLOATS = (*DTYPES, *COMPLEX, "float16")
SHAPES = [
    (1, 1, 500),  # dot products
    (1, 64, 500),
    (64, 1, 500),
    (2, 40, 700),
    (40, 3, 700),
    (8, 8, 8),  # small-product kernels
    (33, 40, 64),
    (65, 66, 300),  # tiles
    (20, 70, 900),
]

by_dtype = pytest.mark.parametrize("dtype", FLOATS)
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(autouse=True)
def no_fallbacks() -> Iterator[None]:
    before = nkblas.stats()["fallbacks"]
    yield
    assert nkblas.stats()["fallbacks"] == before


def random(*shape: int, dtype: str, seed: int = 0) -> Array:
    """Numbers whose sums depend on the order of summation."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(shape)
    if dtype in COMPLEX:
        values = values + 1j * generator.standard_normal(shape)
    return values.astype(dtype)


def operands(m: int, n: int, k: int, dtype: str) -> tuple[Array, Array]:
    return random(m, k, dtype=dtype), random(k, n, dtype=dtype, seed=1)


def plan_of(a: Array, b: Array) -> Plan:
    found = nkblas.explain(a, b).plan
    assert found is not None
    return found


# Order of summation.

libm = ctypes.CDLL("libm.so.6")
LIBM_FMA: dict[str, Any] = {"float32": libm.fmaf, "float64": libm.fma}
for _name, _type in (("float32", ctypes.c_float), ("float64", ctypes.c_double)):
    LIBM_FMA[_name].restype = _type
    LIBM_FMA[_name].argtypes = [_type] * 3


def dot_in_order(x: Array, y: Array) -> Any:
    """Dot product in the order of k, by fused multiply-adds if the instruction set has them."""
    fma, scalar = LIBM_FMA[x.dtype.name], x.dtype.type
    total = scalar(0)
    for p, q in zip(x, y, strict=True):
        total = scalar(fma(p, q, total)) if nkblas.cpu.isa.fused else scalar(p * q) + total
    return total


def dot_of_block(x: Array, y: Array) -> Any:
    """Dot product of one block of k; for complex numbers, a sum for each part of A's elements."""
    if x.dtype.kind != "c":
        return dot_in_order(x, y)
    real = dot_in_order(x.real, y.real) - dot_in_order(x.imag, y.imag)
    return x.dtype.type(complex(real, dot_in_order(x.imag, y.real) + dot_in_order(x.real, y.imag)))


def element(x: Array, y: Array, lengths: list[int]) -> Any:
    """Element of a row and a column: the sum of its blocks of k, in their order."""
    ends = list(itertools.accumulate(lengths))
    assert ends[-1] == len(x)
    first, *others = (dot_of_block(x[p:q], y[p:q]) for p, q in zip([0, *ends], ends, strict=False))
    return sum(others, first)


def block_lengths(plan: Plan, i: int) -> list[int]:
    """Lengths of the blocks of k for row `i`; a stream kernel takes several rows of B at once."""
    k, kc = plan.problem.k, plan.kc
    if plan.schedule.kind == "stream":
        rows = plan.m.tile if i < plan.m.main_tiles * plan.m.tile else plan.m.edge_tile
        kc = stream_depth(plan.problem, plan.isa, rows, plan.family)
        return [kc] * (k // kc) + [1] * (k % kc)
    return [kc] * (k // kc) + [k % kc] * (k % kc > 0)


@pytest.mark.parametrize("dtype", [*DTYPES, *COMPLEX])
@pytest.mark.parametrize("order", list(itertools.product(ORDERS, ORDERS)), ids="".join)
@pytest.mark.parametrize(
    "shape", [(9, 33, 20), (40, 50, 130), (70, 45, 700), (3, 50, 900), (1, 300, 500)], ids=str
)
def test_elements_are_sums_in_order_of_k(
    shape: tuple[int, int, int], order: tuple[Order, Order], dtype: str
) -> None:
    """Independent of the vector length, the register tile and the packing."""
    a, b = operands(*shape, dtype)
    a, b = a.copy(order[0]), b.copy(order[1])
    plan = plan_of(a, b)
    if plan.schedule.kind == "dot":
        assert min(shape) < 16  # a sum in each lane
        return
    c = nkblas.matmul(a, b)
    m, n, _ = shape
    for i, j in ((0, 0), (m - 1, n - 1), (m // 2, n // 3)):
        assert c[i, j].tobytes() == element(a[i], b[:, j], block_lengths(plan, i)).tobytes(), (i, j)


ISA_PROGRAM = """
    found = []
    for dtype, shape in {cases}:
        m, n, k = shape
        generator = np.random.default_rng(k)
        a, b = generator.standard_normal((m, 2 * k)), generator.standard_normal((2 * k, n))
        if dtype.startswith("c"):
            a, b = a[:, :k] + 1j * a[:, k:], b[:k] + 1j * b[k:]
        a, b = a[:, :k].astype(dtype), b[:k].astype(dtype)
        for a, b in ((a, b), (a.copy("F"), b.copy("F"))):
            plan = nkblas.explain(a, b).plan
            in_order = plan.schedule.kind not in ("dot", "stream")
            found.append([plan.kc if in_order else 0, nkblas.matmul(a, b).tobytes().hex()])
    assert nkblas.stats()["fallbacks"] == 0
    print(json.dumps(found))
"""
SINGLE_BLOCK_SHAPES = [(20, 30, 7), (33, 65, 64), (70, 90, 128)]
"""Shapes whose k is a single block in every plan with register tiles."""
BLOCKED_SHAPES = [(60, 80, 300), (64, 64, 512), (20, 90, 1000), (1, 300, 500)]


@pytest.mark.skipif(
    not nkblas.cpu.features.issuperset(ISAS["avx512"].requires), reason="nkblas.cpu lacks AVX-512"
)
def test_any_vector_length() -> None:
    """AVX2 and AVX-512 give equal bits for equal blocks of k.

    Dot-product kernels are left out: they have a sum in each lane of a vector.
    """
    cases = list(itertools.product((*DTYPES, *COMPLEX), SINGLE_BLOCK_SHAPES + BLOCKED_SHAPES))
    program = ISA_PROGRAM.format(cases=cases)
    started = [start(program, NKBLAS_ISA=isa) for isa in ("avx2", "avx512")]
    avx2, avx512 = (finish(process)[0] for process in started)
    compared = 0
    for (kc, bits), (avx512_kc, avx512_bits), case in zip(
        avx2, avx512, [case for case in cases for _ in range(2)], strict=True
    ):
        if case[1] in SINGLE_BLOCK_SHAPES:
            assert kc == avx512_kc == case[1][2], case
        if kc and kc == avx512_kc:
            assert bits == avx512_bits, case
            compared += 1
    assert compared >= 2 * len(SINGLE_BLOCK_SHAPES) * len((*DTYPES, *COMPLEX))


# Memory layout of operands.


def copy_at(values: Array, order: Order, offset: int) -> Array:
    """A copy that starts `offset` bytes after the start of a cache line."""
    raw = np.zeros(values.nbytes + 128, np.uint8)
    first = -raw.ctypes.data % 64 + offset
    copy = raw[first : first + values.nbytes].view(values.dtype).reshape(values.shape, order=order)
    copy[...] = values
    return copy


@by_dtype
@by_shape
def test_any_alignment(shape: tuple[int, int, int], dtype: str) -> None:
    """Operands and result at each element of a cache line, one of them or all."""
    a, b = operands(*shape, dtype)
    size = a.itemsize
    for orders in itertools.product(ORDERS, ORDERS):
        x, y = a.copy(orders[0]), b.copy(orders[1])
        bits = nkblas.matmul(x, y).tobytes()
        for offset in range(size, 64 + size, size):
            out = copy_at(np.zeros((shape[0], shape[1]), dtype), "C", offset)
            left, right = copy_at(a, orders[0], offset), copy_at(b, orders[1], offset)
            assert nkblas.matmul(left, y).tobytes() == bits, (orders, offset)
            assert nkblas.matmul(x, right).tobytes() == bits, (orders, offset)
            assert nkblas.matmul(left, right, out=out).tobytes() == bits, (orders, offset)


@by_dtype
@pytest.mark.parametrize("layout", ["unaligned", "swapped bytes"])
@by_shape
def test_operands_that_numpy_copies(shape: tuple[int, int, int], layout: str, dtype: str) -> None:
    """NumPy copies to C order, whatever the order of the operand."""
    rows = operands(*shape, dtype)
    bits = nkblas.matmul(*rows).tobytes()
    for orders in itertools.product(ORDERS, ORDERS):
        layouts = [
            Layout(order, shift=LAYOUTS[layout].shift, swapped=LAYOUTS[layout].swapped)
            for order in orders
        ]
        a, b = (x.arrange(values, dtype) for x, values in zip(layouts, rows, strict=True))
        assert nkblas.matmul(a, b).tobytes() == bits, orders


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    st.tuples(st.integers(1, 90), *2 * [st.integers(2, 90)]), st.sampled_from(FLOATS),
    st.tuples(*3 * [st.integers(0, 9)]), st.tuples(*2 * [st.sampled_from(ORDERS)]),
)  # fmt: skip
def test_any_leading_dimension(
    shape: tuple[int, int, int], dtype: str, pads: tuple[int, int, int], orders: tuple[Order, Order]
) -> None:
    """Gaps between rows or columns of the operands, and of the result."""
    m, n, _ = shape
    a, b = operands(*shape, dtype)
    bits = nkblas.matmul(a.copy(orders[0]), b.copy(orders[1])).tobytes()
    x = Layout(orders[0], pad=pads[0] if m > 1 else 0).arrange(a, dtype)
    y = Layout(orders[1], pad=pads[1]).arrange(b, dtype)
    _, out = Layout(pad=pads[2]).empty((m, n), dtype, fill=np.nan)
    assert nkblas.matmul(x, y).tobytes() == bits
    assert nkblas.matmul(x, y, out=out).tobytes() == bits


@by_dtype
@by_shape
def test_transposed(shape: tuple[int, int, int], dtype: str) -> None:
    """A product into a Fortran-ordered `out` is the product of the transposed operands."""
    m, n, _ = shape
    for orders in itertools.product(ORDERS, ORDERS):
        a, b = (x.copy(order) for x, order in zip(operands(*shape, dtype), orders, strict=True))
        out = np.zeros((n, m), dtype)
        nkblas.matmul(a, b, out=out.T)
        assert nkblas.matmul(b.T, a.T).tobytes() == out.tobytes(), orders


# Position of an element in its matrix, and of a product in its batch.


@by_dtype
@by_shape
def test_any_position_in_a_matrix(shape: tuple[int, int, int], dtype: str) -> None:
    """An element depends on the values of its row and its column, not on their indices."""
    m, n, k = shape
    for orders in itertools.product(ORDERS, ORDERS):
        a = np.broadcast_to(random(1, k, dtype=dtype), (m, k)).copy(orders[0])
        b = np.broadcast_to(random(k, 1, dtype=dtype, seed=1), (k, n)).copy(orders[1])
        c = nkblas.matmul(a, b)
        assert c.tobytes() == c[:1, :1].tobytes() * c.size, orders


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    st.integers(1, 9), st.tuples(*3 * [st.integers(1, 70)]), st.sampled_from(FLOATS),
    st.sampled_from(["", "a", "b"]), st.tuples(*2 * [st.booleans()]),
)  # fmt: skip
def test_any_position_in_a_batch(
    count: int, shape: tuple[int, int, int], dtype: str, single: str, transposed: tuple[bool, bool]
) -> None:
    """Each product equals the single product; with a shared matrix, equal products are equal."""
    m, n, k = shape
    a = random(count, m, k, dtype=dtype)
    b = random(count, k, n, dtype=dtype, seed=1)
    a, b = (
        np.ascontiguousarray(x.mT).mT if t else x for x, t in zip((a, b), transposed, strict=True)
    )
    if single:
        a, b = np.broadcast_to(a[:1], a.shape), np.broadcast_to(b[:1], b.shape)
        # equal products: one operand is a single matrix, the other a batch of equal matrices
        a, b = (a[0], b.copy("K")) if single == "a" else (a.copy("K"), b[0])
    c = nkblas.matmul(a, b)
    if single:
        assert c.tobytes() == c[:1].tobytes() * count
        return
    for i in range(count):
        assert nkblas.matmul(a[i], b[i]).tobytes() == c[i].tobytes(), i
        assert nkblas.matmul(a[i : i + 1], b[i : i + 1]).tobytes() == c[i].tobytes(), i


@pytest.mark.parametrize("dtype", [*FLOATS, "bfloat16"])
def test_any_number_of_rows_times_packed(dtype: str) -> None:
    """A row of the result does not depend on the number of rows."""
    n, k = 130, 900
    a, b = operands(150, n, k, dtype)
    packed = nkblas.pack(b)
    c = nkblas.matmul(a, packed)
    for m in (1, 2, 3, 5, 8, 17, 33, 100):
        for first in (0, 150 - m):
            part = nkblas.matmul(a[first : first + m], packed)
            assert part.tobytes() == c[first : first + m].tobytes(), (m, first)
    assert nkblas.matmul(a.reshape(5, 30, k), packed).tobytes() == c.tobytes()


# Processes, and interim plans.

PROCESS_CASES = [("float32", 60, 70, 900), ("float64", 65, 66, 130), ("float32", 1, 700, 500)]
PROCESS_PROGRAM = """
    from hashlib import sha256
    from nkblas.runtime import dispatch
    found, interim_plans = [], 0
    for dtype, m, n, k in {cases}:
        generator = np.random.default_rng(k)
        a = generator.standard_normal((m, k)).astype(dtype)
        b = generator.standard_normal((k, n)).astype(dtype)
        first = nkblas.matmul(a, b)
        plan = nkblas.explain(a, b).plan
        interim_plans += plan.interim
        dispatch.tier_up(plan.problem)
        assert not nkblas.explain(a, b).plan.interim
        assert nkblas.matmul(a, b).tobytes() == first.tobytes(), (dtype, m, n, k)
        found.append(sha256(first.tobytes()).hexdigest())
    report(found=found, interim_plans=interim_plans)
"""


def test_any_process(tmp_path: Path) -> None:
    """An interim plan with a cold cache, the best plan, and a plan with a warm cache."""
    program = PROCESS_PROGRAM.format(cases=PROCESS_CASES)
    cold, _ = finish(start(program, NKBLAS_CACHE_DIR=tmp_path))
    assert cold["interim_plans"] > 0
    assert cold["kernels_compiled"] > 0
    warm, _ = finish(start(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_NUM_THREADS="2"))
    assert warm["interim_plans"] == warm["kernels_compiled"] == 0
    never, _ = finish(start(program, NKBLAS_CACHE_DIR=tmp_path, NKBLAS_JIT="never"))
    assert cold["found"] == warm["found"] == never["found"]
    assert cold["fallbacks"] == warm["fallbacks"] == never["fallbacks"] == 0
