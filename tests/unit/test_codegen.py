"""Generated machine code: its instructions, registers and exports, its results and its checks."""

import ctypes
import faulthandler
import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
from machine_code import (
    Instruction,
    disassemble,
    function,
    innermost_loops,
    library,
    objdump,
    touching_stack,
)
from support import DTYPES, Array, Order, exact, fenced, integers

import nkblas
from nkblas import _engine
from nkblas.base.families import Family
from nkblas.base.families import family as family_of
from nkblas.base.isa import ISAS
from nkblas.base.problem import NATIVE_DTYPES
from nkblas.codegen.kernels.small import pieces
from nkblas.codegen.kernels.small import tiles as small_tiles
from nkblas.codegen.lowering import verify
from nkblas.codegen.spec import (
    Copy,
    Dot,
    DotStack,
    KernelSpec,
    Microkernel,
    Mirror,
    Pack,
    Peak,
    Small,
    Stream,
    from_dict,
    to_dict,
)
from nkblas.planning.schedule import (
    MAX_STREAM_ROWS,
    has_spare_register,
    max_vectors,
    register_tiles,
    stream_shape,
)

BASES = [name for name, isa in ISAS.items() if isa.base is isa]
CASES = list(itertools.product(BASES, DTYPES))
by_isa_and_dtype = pytest.mark.parametrize(("isa", "dtype"), CASES, ids=map("-".join, CASES))


SPECS: list[KernelSpec] = [
    spec
    for isa, dtype in CASES
    for spec in (
        Microkernel(isa, dtype, 4, 16, "row", False),
        Microkernel(isa, dtype, 4, 16, "col", True),
        Microkernel(isa, dtype, 4, 16, "row", packs_b=True),
        Microkernel(isa, dtype, 4, 16, "row", prefetch=True),
        Microkernel(isa, dtype, 4, 16, "row", True, epilogue="scale"),
        Stream(isa, dtype, 2, 16, 4, "row"),
        Stream(isa, dtype, 2, 16, 4, "row", epilogue="scale"),
        Stream(isa, dtype, 1, 16, 6, "col", True, False),
        Stream(isa, dtype, 2, 16, 3, "row", False, True),
        Dot(isa, dtype, 1, 8, "b"),
        Dot(isa, dtype, 3, 4, "a", True),
        Dot(isa, dtype, 3, 4, "a", epilogue="scale"),
        Dot(isa, dtype, 1, 1, "b", a_strided=True),
        Dot(isa, dtype, 1, 1, "b", a_strided=True, b_strided=True),
        Small(isa, dtype, 5, 7, 3, "row", "row"),
        Small(isa, dtype, 17, 33, 21, "col", "row"),
        Small(isa, dtype, 17, 33, 21, "row", "col"),
        Small(isa, dtype, 2, 2, 2, "row", "col"),
        Pack(isa, dtype, 16, "across"),
        Pack(isa, dtype, 5, "across"),
        Pack(isa, dtype, 16, "along"),
        Pack(isa, dtype, 16, "strided"),
        Copy(isa, dtype),
        Mirror(isa, dtype),
        Peak(isa, dtype, 10),
    )
]


NO_PANEL_LINES_ARGS = (_engine.ffi.NULL, _engine.ffi.NULL, 0, 0, _engine.ffi.NULL)
"""The last arguments of a microkernel that does not pack, prefetch lines or scale."""


class Loop(NamedTuple):
    """An innermost loop that multiplies.

    Attributes
    ----------
    multiplies, adds : int
        Number of vector instructions; a fused one counts as both.
    stack : list of Instruction
        The instructions that read or write the stack.
    prefetches, stores : int
        Number of prefetches, and of vectors stored.
    masked : bool
        Whether it has masked loads or stores.
    """

    multiplies: int
    adds: int
    stack: list[Instruction]
    prefetches: int
    stores: int
    masked: bool


def k_loops(code: list[Instruction]) -> list[Loop]:
    """The innermost loops of a microkernel that multiply: with and without prefetches.

    LLVM may unroll a small loop by two.
    """
    stack = touching_stack(code)
    found = []
    for body in innermost_loops(code):
        fused, multiplies, adds, prefetches = (
            sum(bool(re.match(pattern, x.name)) for x in body)
            for pattern in (r"vfmadd\w+p[sd]$", r"v?mulp[sd]$", r"v?addp[sd]$", "prefetch")
        )
        stores = sum(
            bool(re.match(r"v?mov[au]p[sd] \w*word ptr", f"{x.name} {x.operands}")) for x in body
        )
        touching = [x for x in body if x in stack]
        if fused or multiplies:
            masked = any(re.search(r"maskmov|\{k\d\}", f"{x.name} {x.operands}") for x in body)
            counts = multiplies + fused, adds + fused
            found.append(Loop(*counts, touching, prefetches, stores, masked))
    return found


def fma(dtype: str) -> Family:
    """The descriptor of the family "fma"."""
    return family_of(dtype, "fma")


def microkernels(isa: str, dtype: str, a_layout: str) -> list[Microkernel]:
    """Every main tile, the flat tiles of few rows of C, and the widest edge tiles of any plan.

    Main tiles also pack B. An epilogue follows the k loop: of the specs that need the most
    registers, there is one with an epilogue.
    """
    lanes = ISAS[isa].lanes(np.dtype(dtype).itemsize)
    main = [
        Microkernel(isa, dtype, mr, nr, a_layout)
        for mr, nr in register_tiles(ISAS[isa], fma(dtype))
    ]
    spare = [spec for spec in main if has_spare_register(ISAS[isa], fma(dtype), spec.mr, spec.nr)]
    found = {*main, *(spec._replace(packs_b=True) for spec in spare)}
    flat = [(mr, max_vectors(ISAS[isa], mr, fma(dtype)) * lanes) for mr in range(1, 9)]
    found |= {Microkernel(isa, dtype, *tile, a_layout, prefetch=True) for tile in flat}
    found |= {spec._replace(epilogue="scale") for spec in found if spec.packs_b or spec.prefetch}
    max_nr = max(spec.nr for spec in found)
    for n in range(lanes - 1, max_nr, lanes):  # one column less than whole vectors
        for mr, nr in register_tiles(ISAS[isa], fma(dtype), n):
            columns = -(-(n % nr) // lanes) * lanes
            for rows in {mr, max(1, mr - 1)}:
                found.add(Microkernel(isa, dtype, rows, columns, a_layout, masked=True))
    return sorted(found)


@pytest.mark.parametrize("a_layout", ["row", "col"])
@by_isa_and_dtype
def test_no_spill_in_the_k_loop(isa: str, dtype: str, a_layout: str) -> None:
    """A k loop has the multiply-adds of whole k steps, and does not access the stack."""
    specs = microkernels(isa, dtype, a_layout)
    functions = disassemble(specs)
    lanes = ISAS[isa].lanes(np.dtype(dtype).itemsize)
    wrong = []
    for spec in specs:
        products = spec.mr * spec.nr // lanes
        loops = k_loops(functions[spec.symbol])
        if not loops:
            wrong.append(f"{spec.symbol}: no k loop")
        for loop in loops:
            if loop.multiplies % products or loop.adds % products:
                wrong.append(f"{spec.symbol}: {loop.multiplies} products, expected {products}")
            if loop.stack:
                wrong.append(f"{spec.symbol}: {len(loop.stack)} spills, like {loop.stack[0]}")
    assert not wrong, "\n".join(wrong)


def streams(isa: str, dtype: str, a_layout: str = "row") -> list[Stream]:
    """The stream kernels of all plans."""
    lanes = ISAS[isa].lanes(np.dtype(dtype).itemsize)
    found = []
    for mr in range(1, MAX_STREAM_ROWS + 1):
        vectors, kr = stream_shape(ISAS[isa], mr, fma(dtype))
        found.append(Stream(isa, dtype, mr, vectors * lanes, kr, a_layout))
    return found


def dots(isa: str, dtype: str) -> list[Dot]:
    """The widest dot kernels for each number of rows, their transposes, and narrow ones."""
    row = ISAS[isa]
    found = {Dot(isa, dtype, 1, nr, "b") for nr in range(1, 10)}
    for mr in (2, 3, 4):
        fitting = [
            n for n in range(mr, 9) if fma(dtype).registers_needed(row, mr, n) <= row.registers
        ]
        for nr in fitting[-1:]:
            found |= {Dot(isa, dtype, mr, nr, "b"), Dot(isa, dtype, nr, mr, "a")}
    return sorted(found)


@pytest.mark.parametrize("options", [False, True])
@by_isa_and_dtype
def test_no_spill_in_streams_and_dots(isa: str, dtype: str, options: bool) -> None:
    """Loops over whole vectors read no vector from the stack, and write nothing to it.

    Without any option, and with all options that take registers. An address may be read from the
    stack. The loops at the edges, of one vector, may spill.
    """
    lanes = ISAS[isa].lanes(np.dtype(dtype).itemsize)
    found: list[Stream | Dot] = [*streams(isa, dtype), *streams(isa, dtype, "col")]
    specs = [*found, *dots(isa, dtype)]
    if options:
        specs = [spec._replace(prefetch=True, epilogue="scale") for spec in specs]
    functions = disassemble(specs)
    wrong = []
    for spec in specs:
        step = spec.mr * spec.nr if isinstance(spec, Dot) else spec.mr * spec.nr // lanes * spec.kr
        loops = k_loops(functions[spec.symbol])
        if not any(x.multiplies == x.adds and x.multiplies % step == 0 for x in loops):
            wrong.append(f"{spec.symbol}: no loop of whole steps")
        for loop in [x for x in loops if not x.masked]:
            vectors = [x for x in loop.stack if re.search("[xyz]mm", x.operands)]
            written = [x for x in loop.stack if re.match("[a-z ]*\\[r", x.operands)]
            spills = vectors + [x for x in written if x.name != "cmp"]
            # A stream may read beta from memory, which it needs once.
            if len(spills) > (isinstance(spec, Stream) and spec.epilogue == "scale"):
                wrong.append(f"{spec.symbol}: {len(spills)} spills, like {spills[0]}")
    assert not wrong, "\n".join(wrong)


# Operands and instructions of later instruction sets, which the code for each one must not have.
LATER = {
    "sse42": r"^v|[yz]mm",
    "avx2": r"zmm|\{k[0-7]\}|\{1to|[xy]mm(1[6-9]|[23][0-9])",
    "avx512": r"tmm|^(vdpbf16|vpdp|v\w+ph\b)",
}


@by_isa_and_dtype
def test_code_keeps_to_its_instruction_set(isa: str, dtype: str) -> None:
    """Code does not depend on the CPU that compiles it: libraries may be used on another one."""
    specs = [spec for spec in SPECS if (spec.isa, spec.dtype) == (isa, dtype)]
    for symbol, code in disassemble(specs).items():
        later = [x for x in code if re.search(LATER[isa], f"{x.name} {x.operands}")]
        assert not later, f"{symbol}: {later[0]}"


def test_spills_are_seen() -> None:
    """The test for spills finds those of 36 accumulators in 16 registers."""
    too_large = Microkernel("avx2", "float32", 12, 24, "row", False)
    for spec in (too_large, too_large._replace(isa="sse42", nr=12)):
        functions = disassemble([spec])
        for loop in k_loops(functions[spec.symbol]):
            assert loop.multiplies == loop.adds == 36
            assert loop.stack


@by_isa_and_dtype
def test_prefetches_and_stores_of_k_loops(isa: str, dtype: str) -> None:
    """A k loop prefetches one of the caller's lines in each step, as long as there are any.

    With `packs_b` it stores each vector of B, and prefetches the cache lines of a row, which may be
    one more than the row fills. With `prefetch` it prefetches as many lines as a row fills.
    """
    lanes = ISAS[isa].lanes(np.dtype(dtype).itemsize)
    mr, nr = register_tiles(ISAS[isa], fma(dtype))[1]
    basic = Microkernel(isa, dtype, mr, nr, "row")
    packing, ahead = basic._replace(packs_b=True), basic._replace(prefetch=True)
    functions = disassemble([basic, packing, ahead])
    vectors, row = nr // lanes, -(-nr * np.dtype(dtype).itemsize // 64) + 1
    for spec, stores, prefetches in ((basic, 0, 0), (packing, vectors, row), (ahead, 0, row - 1)):
        with_lines, rest = k_loops(functions[spec.symbol])
        assert (with_lines.stores, with_lines.prefetches) == (stores, prefetches + 1)
        assert (rest.stores, rest.prefetches) == (stores, prefetches)


@by_isa_and_dtype
def test_tiles_fit_the_registers(isa: str, dtype: str) -> None:
    """Tiles fit the registers by an independent count, which is that of the family."""
    row = ISAS[isa]
    lanes = row.vector_bits // 8 // np.dtype(dtype).itemsize
    found = register_tiles(row, fma(dtype))
    assert len(found) == len(set(found)) > 1
    for mr, nr in found:
        vectors, rest = divmod(nr, lanes)
        assert rest == 0
        needed = mr * vectors + min(mr, vectors) + (1 if row.fused else 2)
        assert needed == fma(dtype).registers_needed(row, mr, vectors) <= row.registers


def test_libraries_export_only_their_function() -> None:
    for spec in SPECS:
        table = [line.split() for line in objdump("-T", str(library(spec))).splitlines()]
        exported = [words[-1] for words in table if "DF" in words or "DO" in words]
        assert exported == [spec.symbol]
        if isinstance(spec, Microkernel | Stream | Dot):
            assert not any(x.name == "call" for x in disassemble([spec])[spec.symbol])


def test_specs_survive_json_and_have_unique_symbols() -> None:
    assert [from_dict(to_dict(spec)) for spec in SPECS] == SPECS
    assert [type(from_dict(to_dict(spec))) for spec in SPECS] == list(map(type, SPECS))
    assert len({spec.symbol for spec in SPECS}) == len(SPECS)


RUNNABLE = [name for name in BASES if nkblas.cpu.features.issuperset(ISAS[name].requires)]


@pytest.mark.parametrize("isa", RUNNABLE)
def test_verification_rejects_kernels_of_other_specs(isa: str) -> None:
    """Verification accepts the kernel of a spec, and rejects those of similar specs.

    Their results are wrong, or they access a guard page.
    """
    microkernel = Microkernel(isa, "float32", 4, 16, "row", False)
    pack = Pack(isa, "float32", 16, "along")
    small = Small(isa, "float32", 5, 8, 3, "row", "row")
    tiny = Small(isa, "float32", 2, 2, 2, "row", "row")
    stream = Stream(isa, "float32", 2, 16, 3, "row")
    dot = Dot(isa, "float32", 1, 8, "b")
    of_complex = [spec._replace(dtype="complex64") for spec in (small, stream, dot)]
    impostors: dict[KernelSpec, KernelSpec] = {
        of_complex[0]: of_complex[0]._replace(k=2),
        of_complex[1]: of_complex[1]._replace(mr=1),
        of_complex[2]: of_complex[2]._replace(mr=2),
        **{spec._replace(epilogue="scale"): spec for spec in of_complex[1:]},
        microkernel: microkernel._replace(mr=3),
        microkernel._replace(masked=True): microkernel,
        microkernel._replace(a_layout="col"): microkernel,
        microkernel._replace(packs_b=True): microkernel,
        microkernel._replace(dtype="float64"): microkernel._replace(dtype="float64", nr=8),
        small: small._replace(m=4),
        small._replace(n=9): small,
        small._replace(a_layout="col"): small,
        small._replace(b_layout="col"): small,
        tiny: tiny._replace(b_layout="col"),
        tiny._replace(a_layout="col"): tiny,
        microkernel._replace(epilogue="scale"): microkernel,
        stream._replace(epilogue="scale"): stream,
        dot._replace(epilogue="scale"): dot,
        stream: stream._replace(mr=1),
        stream._replace(a_layout="col"): stream,
        stream._replace(nontemporal=True): stream._replace(mr=1),
        dot: dot._replace(mr=2),
        dot._replace(mr=2): dot,
        dot._replace(nr=1, a_strided=True): dot._replace(nr=1),
        pack: pack._replace(source="across"),
        pack._replace(width=15): pack,
        pack._replace(source="across"): pack._replace(source="across", width=17),
        pack._replace(source="strided"): pack,
    }
    for right, wrong in impostors.items():
        assert verdict(right, right) == "right"
        assert verdict(right, wrong) in ("wrong", "fault"), f"{wrong.symbol} for {right.symbol}"


def verdict(spec: KernelSpec, other: KernelSpec) -> str:
    """The result of verifying the function of `other` against `spec`, in a process of its own."""
    function(other)
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        try:
            verify.check(spec, function(other))
            os._exit(0)
        except verify.WrongKernelError as error:
            os._exit(1 if spec.symbol in str(error) else 2)
        finally:
            os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "right", 1: "wrong", -signal.SIGSEGV: "fault"}.get(status, f"status {status}")


def overrunning(isa: str) -> Iterator[tuple[KernelSpec, KernelSpec]]:
    """A spec, and one whose kernel also reads or writes beyond the operands of the first."""
    lanes = ISAS[isa].lanes(4)
    tile = Microkernel(isa, "float32", 4, 2 * lanes, "row")
    yield tile._replace(mr=3), tile
    yield tile._replace(nr=lanes), tile
    yield tile._replace(masked=True), tile
    stream = Stream(isa, "float32", 2, 2 * lanes, 3, "row")
    yield stream._replace(mr=1), stream
    yield Dot(isa, "float32", 1, 2, "b"), Dot(isa, "float32", 2, 2, "b")
    for layouts in LAYOUTS:
        for size in ((5, 7, 3), (2, 2, 2), (17, 33, 21)):
            small = Small(isa, "float32", *size, *layouts)
            yield small, small._replace(m=small.m + 1)
            yield small, small._replace(n=small.n + 1)
            yield small, small._replace(k=small.k + 1)
    for source in ("along", "across", "strided"):
        yield Pack(isa, "float32", 15, source), Pack(isa, "float32", 16, source)
    yield Copy(isa, "float32"), Copy(isa, "float64")
    yield Mirror(isa, "float32"), Mirror(isa, "float64")
    yield DotStack(isa, "float32", 20), DotStack(isa, "float32", 21)


@pytest.mark.parametrize("isa", RUNNABLE)
def test_verification_rejects_overruns(isa: str) -> None:
    """A kernel that accesses memory beyond its operands is wrong, or ends the process."""
    faults = 0
    for right, overrun in overrunning(isa):
        found = verdict(right, overrun)
        assert found in ("wrong", "fault"), f"{overrun.symbol} for {right.symbol}: {found}"
        faults += found == "fault"
    assert faults > 20


@by_isa_and_dtype
def test_every_tile_multiplies_right(isa: str, dtype: str) -> None:
    if isa not in RUNNABLE:
        pytest.skip(f"nkblas.cpu lacks {isa}")
    for mr, nr in register_tiles(ISAS[isa], fma(dtype)):
        for a_layout in ("row", "col"):
            spec = Microkernel(isa, dtype, mr, nr, a_layout, True, packs_b=True)
            verify.check(spec, function(spec))


# 1, primes, whole vectors and one element more or less, unrolled or not; then few columns
SMALL = [(1, 1, 1), (2, 3, 5), (4, 4, 4), (5, 6, 7), (8, 8, 8), (7, 9, 17), (16, 15, 16)]
SMALL += [(1, 64, 64), (64, 1, 64), (13, 31, 2), (33, 34, 35), (64, 64, 64)]
SMALL += [(2, 2, 2), (3, 3, 3), (9, 4, 7), (17, 2, 3), (5, 1, 6), (4, 2, 1), (10, 3, 5), (4, 4, 9)]

LAYOUTS = list(itertools.product(("row", "col"), repeat=2))


@pytest.mark.parametrize(("a_layout", "b_layout"), LAYOUTS)
@by_isa_and_dtype
def test_small_sizes_multiply_right(isa: str, dtype: str, a_layout: str, b_layout: str) -> None:
    """Stacks of integers multiply exactly, without accesses between or beyond the matrices."""
    if isa not in RUNNABLE:
        pytest.skip(f"nkblas.cpu lacks {isa}")
    for m, n, k in SMALL if a_layout == b_layout else SMALL[1::2]:
        spec = Small(isa, dtype, m, n, k, a_layout, b_layout)
        address = function(spec)
        verify.check(spec, address)
        call = _engine.ffi.cast("nk_small", address)
        a, b = integers(2, m, k), integers(2, k, n, seed=1)
        for at_end in (False, True):
            c = fenced(np.full((2, m, n), np.nan), dtype, "C", at_end)
            operands = [
                fenced(x if layout == "row" else x.swapaxes(1, 2), dtype, "C", at_end)
                for x, layout in ((a, a_layout), (b, b_layout))
            ]
            stacks = [
                (_engine.ffi.cast("void *", x.ctypes.data), x[0].size) for x in (*operands, c)
            ]
            call(2, *itertools.chain(*stacks))
            assert (c == exact(a, b)).all(), f"{spec.symbol} {at_end=}"


@pytest.mark.parametrize("isa", BASES)
def test_every_small_size_has_tiles(isa: str) -> None:
    """Tiles cover C, also for dtypes that have registers for one vector of C only."""
    for dtype, (m, n, k) in itertools.product(NATIVE_DTYPES, SMALL):
        found = small_tiles(Small(isa, dtype, m, n, k, "row", "row"), ISAS[isa])
        assert sum(height * count for height, count in found.rows) == m
        live = [sum(piece.live for piece in group) * count for group, count in found.columns]
        assert sum(live) == n


@pytest.mark.parametrize("b_layout", ["row", "col"])
@by_isa_and_dtype
def test_no_spill_in_small_sizes(isa: str, dtype: str, b_layout: str) -> None:
    """No spill, whether k is unrolled or a loop.

    A B that is contiguous along k is transposed to a buffer on the stack: each vector of its rows
    may be stored there once (a few of the last rows twice), and none in a k loop.
    """
    sizes = (2, 3, 4, 5, 8, 12, 16, 24, 32, 48, 64)
    specs = [Small(isa, dtype, size, size, size, "row", b_layout) for size in sizes]
    functions = disassemble(specs)
    for spec in specs:
        code = functions[spec.symbol]
        stack = [x for x in touching_stack(code) if re.search(r"[xyz]mm", x.operands)]
        if spec.b_layout == "col":
            stack = [x for x in stack if re.match(r"\w+ ptr", x.operands)]  # stores
            loops = [x for loop in k_loops(code) for x in loop.stack if x in stack]
            if spec.k > 24:
                assert not loops, f"{spec.symbol}: {len(loops)} spills, like {loops[0]}"
            rows = (spec.k + 3) * len(pieces(spec.n, ISAS[isa], np.dtype(dtype).itemsize))
            assert len(stack) <= rows, f"{spec.symbol}: {len(stack)} vectors stored"
        else:
            assert not stack, f"{spec.symbol}: {len(stack)} spills, like {stack[0]}"


@by_isa_and_dtype
def test_small_sizes_have_little_code(isa: str, dtype: str) -> None:
    """The code does not grow with the size: it is compiled while the user waits."""
    sizes = [(16, 16, 16), (33, 34, 35), (63, 61, 64), (64, 6, 60), (64, 64, 64)]
    specs = [
        Small(isa, dtype, *size, *layouts) for size, layouts in itertools.product(sizes, LAYOUTS)
    ]
    for symbol, code in disassemble(specs).items():
        assert len(code) < 1500, f"{symbol}: {len(code)} instructions"


INVALID, DIVISION, OVERFLOW, UNDERFLOW = 1, 4, 8, 16  # <fenv.h> on x86


@by_isa_and_dtype
def test_lanes_beyond_an_edge_raise_nothing(isa: str, dtype: str) -> None:
    """Lanes beyond an edge multiply no infinity by zero, which would raise the invalid flag."""
    if isa not in RUNNABLE:
        pytest.skip(f"nkblas.cpu lacks {isa}")
    libm = ctypes.CDLL("libm.so.6")
    for n, b_layout in itertools.product(range(1, 20), ("row", "col")):
        spec = Small(isa, dtype, 3, n, 4, "row", b_layout)
        call = _engine.ffi.cast("nk_small", function(spec))
        for infinite in ([0], [1], [2], [3], [0, 1, 2, 3]):
            a, b, c = np.ones((3, 4), dtype), np.zeros((4, n), dtype), np.empty((3, n), dtype)
            a[:, infinite], b[infinite] = np.inf, 1
            b = b if b_layout == "row" else np.ascontiguousarray(b.T)
            operands = [_engine.ffi.cast("void *", x.ctypes.data) for x in (a, b, c)]
            libm.feclearexcept(INVALID)
            call(1, operands[0], 0, operands[1], 0, operands[2], 0)
            assert not libm.fetestexcept(INVALID), f"{spec.symbol} {infinite}"
            assert np.isposinf(c).all()


Multiply = Callable[..., None]


def compiled(spec: Stream | Dot) -> Multiply:
    """The kernel as a function of contiguous matrices, A and B in the orders of `orders`."""
    kernel = _engine.ffi.cast("nk_microkernel", function(spec))

    def multiply(a: Array, b: Array, c: Array, accumulate: bool) -> None:
        (m, k), n = a.shape, b.shape[1]
        by_column = isinstance(spec, Stream) and spec.a_layout == "col"
        pa, pb, pc = (_engine.ffi.cast("void *", x.ctypes.data) for x in (a, b, c))
        kernel(
            k, pa, m if by_column else k, pb, k if isinstance(spec, Dot) else n, pc, n, n,
            accumulate, *NO_PANEL_LINES_ARGS,
        )  # fmt: skip

    return multiply


def orders(spec: Stream | Dot) -> tuple[Order, Order]:
    """The memory orders of A and B that a kernel takes."""
    if isinstance(spec, Dot):
        return "C", "F"
    return "F" if spec.a_layout == "col" else "C", "C"


def sizes_around_vectors(spec: Stream | Dot) -> Iterator[tuple[int, int]]:
    """Pairs of n and k around whole vectors, steps and groups of rows."""
    lanes = ISAS[spec.isa].lanes(np.dtype(spec.dtype).itemsize)
    if isinstance(spec, Dot):
        lengths = {1, 2, lanes - 1, lanes, lanes + 1, 8 * lanes + 1, 9 * lanes - 1, 211}
        return ((spec.nr, k) for k in sorted(lengths - {0}))
    columns = {1, 2, lanes - 1, lanes + 1, spec.nr, spec.nr + 1, 3 * spec.nr - 1, 97} - {0}
    depths = {1, spec.kr - 1, spec.kr, spec.kr + 1, 2 * spec.kr, 31} - {0}
    return itertools.product(sorted(columns), sorted(depths))


def streaming(isa: str, dtype: str) -> list[Stream | Dot]:
    """Stream and dot kernels of all shapes, each option on one of them."""
    if isa not in RUNNABLE:
        pytest.skip(f"nkblas.cpu lacks {isa}")
    first, *others = streams(isa, dtype)
    nontemporal = [first._replace(nontemporal=True), others[2]._replace(nontemporal=True)]
    found = [first._replace(prefetch=True), *others, *streams(isa, dtype, "col")[2:4], *nontemporal]
    *most, last = dots(isa, dtype)
    return [*found, *most, last._replace(prefetch=True)]


@by_isa_and_dtype
def test_streams_and_dots_are_exact(isa: str, dtype: str) -> None:
    """Integers multiply exactly in all sizes around a vector, on guarded operands."""
    for spec in streaming(isa, dtype):
        multiply = compiled(spec)
        a_order, b_order = orders(spec)
        for n, k in sizes_around_vectors(spec):
            a, b, c = integers(spec.mr, k), integers(k, n, seed=1), integers(spec.mr, n, seed=2)
            for at_end, accumulate in itertools.product((False, True), repeat=2):
                # a C that must not be read is NaN
                before = c if accumulate else np.full(c.shape, np.nan)
                got = fenced(before, dtype, "C", at_end)
                multiply(
                    fenced(a, dtype, a_order, at_end),
                    fenced(b, dtype, b_order, at_end),
                    got,
                    accumulate,
                )
                expected = exact(a, b) + (c if accumulate else 0)
                assert (got == expected).all(), f"{spec.symbol} {n=} {k=} {at_end=} {accumulate=}"


@by_isa_and_dtype
def test_streams_and_dots_raise_no_floating_point_exceptions(isa: str, dtype: str) -> None:
    """Products of infinities raise none, and the lanes beyond an edge must not either."""
    libm = ctypes.CDLL("libm.so.6")
    signaling = np.array([0x7F800001], "u4").view("f4")
    if dtype == "float64":
        signaling = np.array([0x7FF0000000000001], "u8").view("f8")
    for spec in streaming(isa, dtype):
        multiply = compiled(spec)
        a_order, b_order = orders(spec)
        for n, k in sizes_around_vectors(spec):
            a = np.full((spec.mr, k), np.inf, dtype, order=a_order)
            b = np.full((k, n), np.inf, dtype, order=b_order)
            c = np.empty((spec.mr, n), dtype)
            c.view(f"u{c.itemsize}")[...] = signaling.view(f"u{c.itemsize}")
            libm.feclearexcept(INVALID | DIVISION | OVERFLOW | UNDERFLOW)
            multiply(a, b, c, accumulate=False)
            raised = libm.fetestexcept(INVALID | DIVISION | OVERFLOW | UNDERFLOW)
            assert raised == 0, f"{spec.symbol} {n=} {k=}: {raised}"
            assert (c == np.inf).all()


@by_isa_and_dtype
def test_bits_of_dots_do_not_depend_on_alignment(isa: str, dtype: str) -> None:
    """The bits are the same for any alignment of the operands and of their lines."""
    if isa not in RUNNABLE:
        pytest.skip(f"nkblas.cpu lacks {isa}")
    size = np.dtype(dtype).itemsize
    lanes = ISAS[isa].lanes(size)
    generator = np.random.default_rng(0)
    for spec in dots(isa, dtype):
        kernel = _engine.ffi.cast("nk_microkernel", function(spec))
        for k in (1, lanes - 1, lanes + 1, 9 * lanes + 3):
            a, b = (generator.standard_normal((lines, k)) for lines in (spec.mr, spec.nr))
            found = set()
            for shift, pad in itertools.product(range(lanes), (0, 1)):
                ld = -(-k // lanes) * lanes + pad
                (pa, _a), (pb, _b) = (
                    shifted(x.astype(dtype), ld, 3 * shift % lanes if x is a else shift)
                    for x in (a, b)
                )
                c = np.empty((spec.mr, spec.nr), dtype)
                pc = _engine.ffi.cast("void *", c.ctypes.data)
                kernel(k, pa, ld, pb, ld, pc, spec.nr, spec.nr, 0, *NO_PANEL_LINES_ARGS)
                found.add(c.tobytes())
            assert len(found) == 1, f"{spec.symbol} {k=}"


def shifted(lines: Array, ld: int, shift: int) -> tuple[object, Array]:
    """The address of a copy that starts `shift` elements after a cache line, and its buffer."""
    buffer = np.full(lines.shape[0] * ld + 128, np.nan, lines.dtype)
    start = -buffer.ctypes.data % 64 // buffer.itemsize + shift
    np.lib.stride_tricks.as_strided(
        buffer[start:], lines.shape, (ld * buffer.itemsize, buffer.itemsize)
    )[...] = lines
    return _engine.ffi.cast("void *", buffer[start:].ctypes.data), buffer
