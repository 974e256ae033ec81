"""The emulator agrees with the CPU where the CPU has an instruction, and with Intel's manual."""

import ctypes
import faulthandler
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from emulator import Machine, emulated, library
from numpy.typing import NDArray
from support import fenced

import nkblas

Array = NDArray[Any]

if "avx2" not in nkblas.cpu.features:
    pytest.skip("the CPU lacks AVX2's registers", allow_module_level=True)

SIZES = {"word": 2, "dword": 4, "qword": 8, "xmmword": 16, "ymmword": 32, "zmmword": 64}
POINTERS = {size: name for name, size in SIZES.items()}
NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))]


class Form(NamedTuple):
    """The encodings of one instruction, as an assembler takes them.

    Attributes
    ----------
    name : str
    feature : str
        The CPU feature that it requires.
    evex : bool
        Whether it is encoded with EVEX: 32 registers, masks and broadcasts.
    lengths : tuple of int
        Vector lengths in bytes.
    operands : str
        A letter for each operand: "v" a vector, "h" half of one, "q" a quarter, "x" one element in
        16 bytes, "k" a mask. The last operand is a register or memory.
    element : int
        Bytes of an element of the last operand.
    kind : str
        The type of the elements: "integer", "bf16" or "half".
    memory, register : bool
        Whether the last operand may be memory, and whether it may be a register.
    immediates : tuple of int
    """

    name: str
    feature: str
    evex: bool
    lengths: tuple[int, ...]
    operands: str
    element: int
    kind: str
    memory: bool = True
    register: bool = True
    immediates: tuple[int, ...] = ()


VEX_LENGTHS, EVEX_LENGTHS = (16, 32), (16, 32, 64)


def forms() -> Iterator[Form]:
    for name in ("vpdpbusd", "vpdpbusds", "vpdpwssd", "vpdpwssds"):
        yield Form(name, "avx_vnni", False, VEX_LENGTHS, "vvv", 4, "integer")
        yield Form(name, "avx512_vnni", True, EVEX_LENGTHS, "vvv", 4, "integer")
    for size, signs in [("b", ("ss", "su", "uu")), ("w", ("us", "su", "uu"))]:
        for sign, end in itertools.product(signs, ("d", "ds")):
            feature = "avx_vnni_int8" if size == "b" else "avx_vnni_int16"
            name = f"vpdp{size}{sign}{end}"
            yield Form(name, feature, False, VEX_LENGTHS, "vvv", 4, "integer")
            yield Form(name, "avx10_2", True, EVEX_LENGTHS, "vvv", 4, "integer")

    convert = "avx_ne_convert"
    for name in ("vcvtneebf162ps", "vcvtneobf162ps"):
        yield Form(name, convert, False, VEX_LENGTHS, "vv", 2, "bf16", register=False)
    for name in ("vcvtneeph2ps", "vcvtneoph2ps"):
        yield Form(name, convert, False, VEX_LENGTHS, "vv", 2, "half", register=False)
    yield Form("vbcstnebf162ps", convert, False, VEX_LENGTHS, "vx", 2, "bf16", register=False)
    yield Form("vbcstnesh2ps", convert, False, VEX_LENGTHS, "vx", 2, "half", register=False)
    yield Form("vcvtneps2bf16", convert, False, VEX_LENGTHS, "hv", 4, "bf16")
    yield Form("vcvtneps2bf16", "avx512_bf16", True, EVEX_LENGTHS, "hv", 4, "bf16")
    yield Form("vcvtne2ps2bf16", "avx512_bf16", True, EVEX_LENGTHS, "vvv", 4, "bf16")
    yield Form("vdpbf16ps", "avx512_bf16", True, EVEX_LENGTHS, "vvv", 4, "bf16")
    yield Form("vdpphps", "avx10_2", True, EVEX_LENGTHS, "vvv", 4, "half")

    fp16 = "avx512_fp16"
    fused = [f"vf{n}m{o}{i}" for n in ("", "n") for o in ("add", "sub") for i in (132, 213, 231)]
    for name in (*fused, "vadd", "vsub", "vmul", "vdiv", "vmin", "vmax"):
        yield Form(f"{name}ph", fp16, True, EVEX_LENGTHS, "vvv", 2, "half")
        yield Form(f"{name}sh", fp16, True, (16,), "xxx", 2, "half")
    yield Form("vsqrtph", fp16, True, EVEX_LENGTHS, "vv", 2, "half")
    yield Form("vsqrtsh", fp16, True, (16,), "xxx", 2, "half")
    predicates = tuple(range(0, 32, 3))
    yield Form("vcmpph", fp16, True, EVEX_LENGTHS, "kvv", 2, "half", immediates=predicates)
    yield Form("vcmpsh", fp16, True, (16,), "kxx", 2, "half", immediates=predicates)
    yield Form("vcvtph2psx", fp16, True, EVEX_LENGTHS, "vh", 2, "half")
    yield Form("vcvtph2pd", fp16, True, EVEX_LENGTHS, "vq", 2, "half")
    yield Form("vcvtps2phx", fp16, True, EVEX_LENGTHS, "hv", 4, "half")
    yield Form("vcvtpd2ph", fp16, True, EVEX_LENGTHS, "qv", 8, "half")
    for name, element in [("sh2ss", 2), ("sh2sd", 2), ("ss2sh", 4), ("sd2sh", 8)]:
        yield Form(f"vcvt{name}", fp16, True, (16,), "xxx", element, "half")


class Address(NamedTuple):
    """A memory operand in assembly, and its offset in the buffer."""

    text: str
    offset: int


BUFFER = 16384
BASES = ("rax", "rbx", "rcx", "rbp", "rsi", "r8", "r13")
"""Registers that point to byte 8192 of the buffer."""

INDICES = {"r9": 24, "r12": -40, "r15": 3}
ADDRESSES = [
    Address("rax", 8192),
    Address("rbp - 128", 8064),  # a short displacement, in units of the operand in EVEX
    Address("rcx + 64", 8256),
    Address("r8 + 4093", 12285),
    Address("rbx + 8*r9", 8384),
    Address("r13 + 4*r12 + 12", 8044),
    Address("rsi + r15 - 192", 8003),
    Address("2*r10 + 64", 8256),  # no base: r10 is half of a pointer
    Address("rip + data + 5", 5),  # `data`, which the buffer holds too
]


class Case(NamedTuple):
    """One encoding of a form; the last operand is register `source` if `address` is None."""

    form: Form
    length: int
    target: int
    second: int
    source: int
    address: Address | None = None
    broadcast: bool = False
    mask: int = 0
    zeroing: bool = False
    immediate: int = 0

    @property
    def text(self) -> str:
        """The instruction in Intel's syntax."""
        form, operands = self.form, []
        for kind, number in zip(
            form.operands, (self.target, self.second, self.source), strict=False
        ):
            operands.append(f"k{number % 8}" if kind == "k" else self.register(kind, number))
        if len(form.operands) == 2:
            operands[1] = self.register(form.operands[1], self.source)
        if self.mask:
            operands[0] += f"{{k{self.mask}}}" + "{z}" * self.zeroing
        if self.address:
            size = form.element if self.broadcast else self.size
            operands[-1] = f"{POINTERS[size]} ptr [{self.address.text}]"
            if self.broadcast:
                operands[-1] += f"{{1to{self.size // size}}}"
        if form.immediates:
            operands.append(str(self.immediate))
        return f"{'' if form.evex else '{vex} '}{form.name} {', '.join(operands)}"

    def bytes(self, kind: str) -> int:
        return {"v": self.length, "h": self.length // 2, "q": self.length // 4}.get(kind, 16)

    def register(self, kind: str, number: int) -> str:
        if kind == "k":
            return f"k{number % 8}"
        name = {16: "xmm", 32: "ymm", 64: "zmm"}[max(16, self.bytes(kind))]
        return f"{name}{number}"

    @property
    def size(self) -> int:
        """Bytes of the last operand."""
        kind = self.form.operands[-1]
        return self.form.element if kind == "x" else self.bytes(kind)


def cases(form: Form) -> Iterator[Case]:
    """All lengths, kinds of operands and masks; registers and addresses in rotation."""
    registers = itertools.cycle(EVEX_REGISTERS if form.evex else VEX_REGISTERS)
    addresses = itertools.cycle(ADDRESSES)
    immediates = itertools.cycle(form.immediates or (0,))
    masks = [(0, False)]
    if form.evex:
        masks += [(1, False), (6, False)] + [(7, True)] * ("k" not in form.operands)
    broadcasts = form.evex and form.operands[-1] != "x"
    for length, (mask, zeroing) in itertools.product(form.lengths, masks):

        def case(address: Address | None = None, broadcast: bool = False) -> Case:
            numbers = next(registers)
            rest = (mask, zeroing, next(immediates))  # noqa: B023
            return Case(form, length, *numbers, address, broadcast, *rest)  # noqa: B023

        if form.register:
            yield from (case(), case())
        if form.memory:
            yield from (case(next(addresses)) for _ in range(3))
        if broadcasts:
            yield from (case(next(addresses), True) for _ in range(2))


VEX_REGISTERS = [(1, 2, 3), (9, 15, 12), (14, 6, 8), (7, 7, 7)]
EVEX_REGISTERS = [(1, 2, 3), (17, 30, 25), (5, 13, 20), (31, 8, 15), (22, 22, 22)]
FORMS = list(forms())


# ---- assembling and running

VECTORS, VECTOR, MASKED = (32, 64, True) if "avx512bw" in nkblas.cpu.features else (16, 32, False)
SLOT = 128  # bytes of each piece of code
RETURN, NOP = 0xC3, 0x90


def stub() -> str:
    """``void run(Machine *, const void *code)``: call code with the registers of a machine."""
    saved = ["rbx", "rbp", "r12", "r13", "r14", "r15"]
    vectors = [(f"{64 * n}", ("zmm" if MASKED else "ymm") + str(n)) for n in range(VECTORS)]
    move = "vmovdqu64" if MASKED else "vmovdqu"
    masks = [(2048 + 8 * n, f"k{n}") for n in range(8) if MASKED]
    general = [(2112 + 8 * n, name) for n, name in enumerate(NAMES) if name not in ("rsp", "rdi")]
    lines = [f"push {name}" for name in saved]
    lines += ["push rsi", "push rdi"]
    lines += [f"{move} {register}, [rdi + {at}]" for at, register in vectors]
    lines += [f"kmovq {register}, [rdi + {at}]" for at, register in masks]
    lines += [f"mov {name}, [rdi + {at}]" for at, name in general]
    lines += [f"mov rdi, [rdi + {2112 + 8 * 7}]"]
    lines += ["call [rsp + 8]"]
    lines += ["xchg rdi, [rsp]"]
    lines += [f"mov [rdi + {at}], {name}" for at, name in general]
    lines += ["pop rax", f"mov [rdi + {2112 + 8 * 7}], rax"]
    lines += ["pushfq", "pop rax", f"mov [rdi + {2112 + 8 * 17}], rax", "pop rax"]
    lines += [f"{move} [rdi + {at}], {register}" for at, register in vectors]
    lines += [f"kmovq [rdi + {at}], {register}" for at, register in masks]
    lines += [f"pop {name}" for name in reversed(saved)]
    return "\n".join([*lines, "vzeroupper", "ret"])


def assembler() -> str:
    """LLVM's assembler, which knows all these instructions."""
    found = importlib.util.find_spec("llvm")
    assert found is not None
    assert found.submodule_search_locations
    return str(Path(found.submodule_search_locations[0], "bin", "llvm-mc"))


class Code:
    """Assembled pieces of code in executable memory; RIP-relative operands read `data`."""

    def __init__(self, folder: Path, pieces: list[str], data: bytes) -> None:
        source, objects, library = (folder / f"code.{end}" for end in ("s", "o", "so"))
        lines = [".intel_syntax noprefix", ".text", ".globl run, pieces", "run:", stub()]
        lines += [".balign 16", "data:", ".byte " + ",".join(map(str, data))]
        lines += [f".balign {SLOT}", "pieces:"]
        for piece in pieces:
            lines += [piece, "ret", f".balign {SLOT}, 0xCC"]
        source.write_text("\n".join(lines) + "\n")
        features = "-mattr=" + ",".join(f"+{name}" for name in LLVM_FEATURES)
        command = [assembler(), "-triple=x86_64", "-filetype=obj", "-mcpu=diamondrapids", features]
        subprocess.run([*command, source, "-o", objects], check=True)
        subprocess.run(["cc", "-shared", "-nostdlib", objects, "-o", library], check=True)
        self._library = ctypes.CDLL(str(library))
        first = ctypes.addressof(ctypes.c_char.in_dll(self._library, "pieces"))
        self._addresses = {piece: first + SLOT * n for n, piece in enumerate(pieces)}

    def address(self, piece: str) -> int:
        return self._addresses[piece]

    def execute(self, piece: str, machine: Machine) -> None:
        """Run a piece on the CPU; missing instructions raise the emulator's signal."""
        self._library.run(ctypes.byref(machine), ctypes.c_void_p(self._addresses[piece]))

    def faults(self, piece: str, machine: Machine) -> bool:
        """Whether a piece ends a process without the emulator."""
        child = os.fork()
        if not child:
            faulthandler.disable()
            signal.signal(signal.SIGILL, signal.SIG_DFL)
            self.execute(piece, machine)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGILL, -signal.SIGSEGV), piece
        return status != 0

    def emulate(self, piece: str, machine: Machine) -> None:
        """Emulate a piece, instruction by instruction."""
        address = self._addresses[piece]
        while (byte := ctypes.c_uint8.from_address(address).value) != RETURN:
            if byte == NOP:
                address += 1
                continue
            assert machine.emulate(address), piece
            assert address < machine.rip <= address + 15
            address = machine.rip


LLVM_FEATURES = ("amx-fp16", "avxneconvert", "avxvnni", "avxvnniint8", "avxvnniint16")


# ---- definitions in NumPy, on arrays of bytes of the operands: target, second, source


def widened(x: Array, kind: str) -> Array:
    """Exact conversion of bfloat16 or float16 to float32."""
    bits = x.view("u2")
    return (bits.astype("u4") << 16).view("f4") if kind == "bf16" else bits.view("f2").astype("f4")


def flushed(x: Array) -> Array:
    """float32 numbers with denormals replaced by zeros of the same sign."""
    return np.where(abs(x) < np.finfo("f4").smallest_normal, np.copysign(np.float32(0), x), x)


def multiply_add(x: Array, y: Array, z: Array) -> Array:
    """``x y + z`` of float32, rounded once; denormal operands and results count as zero.

    Extended precision represents the sum exactly if it is close to a rounding tie.
    """
    exact = flushed(x).astype("g") * flushed(y) + flushed(z)
    tiny = abs(exact) < np.finfo("f4").smallest_normal * (1 - np.longdouble(2) ** -25)
    return np.where(tiny, np.copysign(0, exact), exact).astype("f4")


def dot_integers(name: str, c: Array, a: Array, b: Array) -> Array:
    """The exact sum of 2 or 4 products and the accumulator; it wraps or saturates."""
    parts = 4 if name[4] == "b" else 2
    left, right = (
        x.view(f"{'i' if sign == 's' else 'u'}{4 // parts}").astype("i8")
        for x, sign in zip((a, b), name[5:7], strict=True)
    )
    total = "i4" if "s" in name[5:7] else "u4"
    sums = c.view(total).astype("i8") + (left * right).reshape(-1, parts).sum(1)
    if name.endswith("ds"):
        sums = sums.clip(np.iinfo(total).min, np.iinfo(total).max)
    return sums.astype("u4")


def dot_floats(kind: str, c: Array, a: Array, b: Array) -> Array:
    """Add the product of the odd elements to the accumulator, then that of the even ones."""
    wide_a, wide_b, sums = widened(a, kind), widened(b, kind), c.view("f4")
    for which in (1, 0):
        sums = multiply_add(wide_a[which::2], wide_b[which::2], sums)
    return sums


def to_bf16(x: Array) -> Array:
    """Round to nearest, ties to even; denormals become zero, a NaN becomes quiet."""
    bits = flushed(x.view("f4")).view("u4").astype("u8")
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    return np.where(np.isnan(x.view("f4")), bits | 0x400000, rounded) >> 16


def fma_half(name: str, c: Array, a: Array, b: Array) -> Array:
    """``+-x y +- z`` of float16, rounded once; digits in the name give the operands' order."""
    one, two, three = (x.view("f2").astype("g") for x in (c, a, b))
    order = next(digits for digits in ("132", "213", "231") if digits in name)
    x, y, z = {
        "132": (one, three, two),
        "213": (two, one, three),
        "231": (two, three, one),
    }[order]
    product = -(x * y) if name.startswith("vfn") else x * y
    return (product - z if "sub" in name else product + z).astype("f2")


ARITHMETIC = {
    "vadd": np.add,
    "vsub": np.subtract,
    "vmul": np.multiply,
    "vdiv": np.divide,
    "vmin": lambda a, b: np.where(a < b, a, b),
    "vmax": lambda a, b: np.where(a > b, a, b),
}
PREDICATES = [
    np.equal,
    np.less,
    np.less_equal,
    lambda a, b: np.isnan(a) | np.isnan(b),
    np.not_equal,
    lambda a, b: ~(a < b),
    lambda a, b: ~(a <= b),
    lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    lambda a, b: ~((a < b) | (a > b)),
    lambda a, b: ~(a >= b),
    lambda a, b: ~(a > b),
    lambda a, b: np.zeros(a.shape, bool),
    lambda a, b: (a < b) | (a > b),
    np.greater_equal,
    np.greater,
    lambda a, b: np.ones(a.shape, bool),
]


def define(case: Case, c: Array, a: Array, b: Array) -> Array:
    """The elements that an instruction computes."""
    name, kind = case.form.name, case.form.kind
    stem = name.removesuffix("ph").removesuffix("sh")
    if kind == "integer":
        return dot_integers(name, c, a, b)
    if name in ("vdpbf16ps", "vdpphps"):
        return dot_floats(kind, c, a, b)
    if name == "vcvtneps2bf16":
        return to_bf16(b).astype("u2")
    if name == "vcvtne2ps2bf16":
        return np.concatenate([to_bf16(b), to_bf16(a)]).astype("u2")
    if name.startswith("vbcst"):
        return widened(np.tile(b, case.length // 4), kind)
    if name.startswith("vcvtne"):
        return widened(b, kind)["o" in name[6:8] :: 2]
    if name.startswith("vcvt"):
        letters = {"ph": "f2", "sh": "f2", "ps": "f4", "ss": "f4", "pd": "f8", "sd": "f8"}
        return b.view(letters[name[4:6]]).astype(letters[name[7:9]])
    if name.startswith("vf"):
        return fma_half(name, c, a, b)
    x, y = a.view("f2"), b.view("f2")
    if stem == "vsqrt":
        return np.sqrt(y)
    if stem == "vcmp":
        return PREDICATES[case.immediate % 16](x, y)
    return ARITHMETIC[stem](x, y).astype("f2")


def expected(case: Case, before: Machine, memory: Array) -> tuple[Array, Array]:
    """The target's elements, and a mask of those that are computed NaNs, of any payload."""
    form, registers = case.form, before.zmm
    scalar = form.operands[-1] == "x" and form.evex
    size = form.element if scalar else case.size
    if case.address is None:
        source = registers[case.source, :size]
    elif case.broadcast:
        one = memory[case.address.offset :][: form.element]
        source = np.tile(one, size // form.element)
    else:
        source = memory[case.address.offset :][:size]
    length = form.element if scalar else case.length
    target, second = (registers[n, :length] for n in (case.target, case.second))
    with np.errstate(all="ignore"):
        elements = define(case, target.copy(), second.copy(), source.copy())
    active = np.ones(elements.size, bool)
    if case.mask:
        active = np.array([before.k[case.mask] >> n & 1 for n in range(elements.size)], bool)
    if form.operands[0] == "k":
        return elements & active, np.zeros(elements.size, bool)
    result = np.zeros(64, "u1").view(elements.dtype)
    if scalar:  # the rest comes from the second operand, for multiply-adds from the target
        rest = case.target if form.name.startswith("vf") else case.second
        result.view("u1")[:16] = registers[rest, :16]
    old = registers[case.target].view(elements.dtype)[: elements.size]
    inactive = np.zeros_like(old) if case.zeroing else old
    result[: elements.size] = np.where(active, elements, inactive)
    is_any_nan = np.zeros(result.size, bool)
    if elements.dtype.kind == "f":
        is_any_nan[: elements.size] = active & np.isnan(elements)
    return result, is_any_nan


# ---- every encoding


SPECIAL = {
    # zeros, denormals, smallest and largest, infinities, NaNs (quiet, signalling), ones
    "bf16": "0000 8000 0001 807f 0080 7f7f ff7f 7f80 ff80 7fc0 ffc5 7f81 ffff 3f80 bf81",
    "half": "0000 8000 0001 83ff 0400 7bff fbff 7c00 fc00 7e00 fe05 7c01 ffff 3c00 bc01",
}


def contents(generator: np.random.Generator, kind: str, size: int) -> Array:
    """Bytes of numbers of similar size, of very different sizes, of any bits, or of `SPECIAL`."""
    bits = generator.integers(0, 1 << 16, size // 2, "u2")
    if kind == "integer":
        extremes = generator.choice(np.array([0, 0x7F, 0x80, 0xFF], "u1"), size)
        return np.where(generator.random(size) < 0.5, extremes, bits.view("u1"))
    fraction, exponent = (0x7F, 7) if kind == "bf16" else (0x3FF, 10)
    least = {"bf16": [126, 90, 0], "half": [14, 8, 0]}[kind]
    spread = {"bf16": [3, 60, 80], "half": [3, 16, 16]}[kind]
    which = generator.integers(0, 5)
    if which == 4:
        special = np.array([int(x, 16) for x in SPECIAL[kind].split()], "u2")
        bits = np.where(
            generator.random(bits.size) < 0.3, generator.choice(special, bits.size), bits
        )
    if which < 3:
        exponents = least[which] + generator.integers(0, spread[which], bits.size, "u2")
        bits = (bits & (0x8000 | fraction)) | exponents << exponent
    return bits.astype("u2").view("u1")


def machine_of(registers: Array, masks: Array, memory: Array) -> Machine:
    machine = Machine()
    machine.zmm[:] = registers
    machine.k[:] = masks.tolist()
    for number, name in enumerate(NAMES):
        machine.gpr[number] = 0x1000 + number
        if name in BASES:
            machine.gpr[number] = memory.ctypes.data + 8192
        if name in INDICES:
            machine.gpr[number] = INDICES[name] % (1 << 64)
    machine.gpr[NAMES.index("r10")] = memory.ctypes.data // 2 + 4096
    return machine


DATA = np.random.default_rng(7).integers(0, 256, 128, "u1")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Code:
    ctypes.CDLL(str(library()))  # from here on it handles illegal instructions
    pieces = [case.text for form in FORMS for case in cases(form)]
    pieces += [*MOVES, *FLAGS, *(known.text for known in KNOWN), *map(tiles, TILES), LOAD]
    pieces += [ROUNDING_MODE, OTHER_ROUNDING_MODE, "ud2", CONFIGURE, *TILE_MOVES.values()]
    pieces += [
        end for piece in (*MISMATCHED_TILES, *INVALID_TILES) for end in (piece, f"{LOAD}; {piece}")
    ]
    pieces += [
        *SINGLE_TILE_MOVES.values(),
        *(SET_INITIAL_STATE + text for text in INITIAL_STATE_USES),
        *FENCED,
    ]
    return Code(tmp_path_factory.mktemp("code"), list(dict.fromkeys(pieces)), DATA.tobytes())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name + "-evex" * form.evex)
def test_encodings(form: Form, code: Code) -> None:
    """Emulation, execution (on the CPU, or through the signal) and definition agree."""
    if form.evex and not MASKED:
        pytest.skip("the CPU lacks AVX-512's registers")
    generator = np.random.default_rng(0)
    buffer = np.zeros(BUFFER + 64, "u1")
    start = -buffer.ctypes.data % 64
    memory = buffer[start : start + BUFFER]
    for case in cases(form):
        registers = np.stack([contents(generator, form.kind, 64) for _ in range(32)])
        registers[VECTORS:] = 0
        registers[:, 2 * VECTORS :] = 0
        masks = generator.integers(0, 1 << 64, 8, "u8") if MASKED else np.zeros(8, "u8")
        memory[:] = contents(generator, form.kind, BUFFER)
        memory[: DATA.size] = DATA
        memory_before = memory.copy()
        before, emulated, executed = (machine_of(registers, masks, memory) for _ in range(3))
        code.emulate(case.text, emulated)
        code.execute(case.text, executed)
        assert np.array_equal(emulated.zmm, executed.zmm), case.text
        assert list(emulated.k) == list(executed.k), case.text
        assert list(emulated.gpr) == list(executed.gpr), case.text
        assert np.array_equal(memory, memory_before), case.text

        values, is_any_nan = expected(case, before, memory)
        others = np.arange(32) != case.target
        if form.operands[0] == "k":
            bits = sum(int(bit) << n for n, bit in enumerate(values))
            assert emulated.k[case.target % 8] == bits, case.text
            others[:] = True
        else:
            got = emulated.zmm[case.target].view(values.dtype)
            bits = f"u{values.dtype.itemsize}"
            same = (got.view(bits) == values.view(bits)) | (is_any_nan & (got != got))
            assert same.all(), (case.text, got[~same], values[~same])
        assert np.array_equal(emulated.zmm[others], before.zmm[others]), case.text


NATIVE = [form for form in FORMS if form.register and form.feature in nkblas.cpu.features]


@pytest.mark.parametrize("form", NATIVE, ids=lambda form: form.name + "-evex" * form.evex)
def test_bits_of_the_cpu(form: Form, code: Code) -> None:
    """Emulation and CPU agree in all bits of thousands of vectors."""
    generator = np.random.default_rng(1)
    vectors = np.concatenate([contents(generator, form.kind, 1 << 12) for _ in range(40)])
    memory = np.zeros(BUFFER, "u1")
    for case in cases(form):
        for _ in range(0 if case.address else 40):
            registers = generator.choice(vectors.reshape(-1, 64), 32)
            registers[VECTORS:] = 0
            registers[:, 2 * VECTORS :] = 0
            masks = generator.integers(0, 1 << 64, 8, "u8") if MASKED else np.zeros(8, "u8")
            emulated, executed = (machine_of(registers, masks, memory) for _ in range(2))
            code.emulate(case.text, emulated)
            code.execute(case.text, executed)
            assert np.array_equal(emulated.zmm, executed.zmm), case.text
            assert list(emulated.k) == list(executed.k), case.text


# ---- moves, and flags


def low(machine: Machine, register: int, size: int = 2) -> Array:
    return machine.zmm[register, :size].copy()


def put(machine: Machine, register: int, values: Array, rest: int | None = None) -> None:
    """Set a register: `values`, then the rest of 16 bytes of another register, then zeros."""
    others = np.zeros(16, "u1") if rest is None else low(machine, rest, 16)
    machine.zmm[register] = 0
    machine.zmm[register, :16] = others
    machine.zmm[register, : values.size] = values


def merged(values: Array, otherwise: Array, chosen: int) -> Array:
    return values if chosen else otherwise


ZEROS = np.zeros(2, "u1")
MOVES = {
    "vmovw xmm20, ecx": lambda m, x, k: put(m, 20, np.array([m.gpr[1] & 0xFFFF], "u2").view("u1")),
    "vmovw xmm2, r9d": lambda m, x, k: put(m, 2, np.array([m.gpr[9] & 0xFFFF], "u2").view("u1")),
    "vmovw edx, xmm25": lambda m, x, k: m.gpr.__setitem__(2, int(low(m, 25).view("u2")[0])),
    "vmovw xmm20, word ptr [r13 + 2]": lambda m, x, k: put(m, 20, x[8194:8196]),
    "vmovw word ptr [rax - 2], xmm19": lambda m, x, k: x.__setitem__(slice(8190, 8192), low(m, 19)),
    "vmovw xmm17, xmm3": lambda m, x, k: put(m, 17, low(m, 3)),
    "vmovd xmm4, xmm18": lambda m, x, k: put(m, 4, low(m, 18, 4)),
    "vmovsh xmm1, xmm2, xmm30": lambda m, x, k: put(m, 1, low(m, 30), 2),
    # the encoding with source and target exchanged
    ".byte 0x62,0xf5,0x6e,0x08,0x11,0xd9  # vmovsh xmm1, xmm2, xmm3": (
        lambda m, x, k: put(m, 1, low(m, 3), 2)
    ),
    "vmovsh xmm21{k1}, xmm2, xmm3": (
        lambda m, x, k: put(m, 21, merged(low(m, 3), low(m, 21), k), 2)
    ),
    "vmovsh xmm21{k1}{z}, xmm22, xmm3": (
        lambda m, x, k: put(m, 21, merged(low(m, 3), ZEROS, k), 22)
    ),
    "vmovsh xmm9, word ptr [rax + 6]": lambda m, x, k: put(m, 9, x[8198:8200]),
    "vmovsh xmm9{k1}, word ptr [rax + 6]": (
        lambda m, x, k: put(m, 9, merged(x[8198:8200], low(m, 9), k))
    ),
    "vmovsh xmm9{k1}{z}, word ptr [rip + data]": (
        lambda m, x, k: put(m, 9, merged(x[:2], ZEROS, k))
    ),
    "vmovsh word ptr [rbx + 8*r9], xmm29": (
        lambda m, x, k: x.__setitem__(slice(8384, 8386), low(m, 29))
    ),
    "vmovsh word ptr [rcx]{k1}, xmm9": (
        lambda m, x, k: x.__setitem__(slice(8192, 8194), merged(low(m, 9), x[8192:8194].copy(), k))
    ),
}
"""Moves, and their effects on a machine and its memory, given the first bit of k1."""


@pytest.mark.skipif(not MASKED, reason="the CPU lacks AVX-512's registers")
@pytest.mark.parametrize("chosen", [0, 1])
@pytest.mark.parametrize("text", MOVES)
def test_moves(text: str, chosen: int, code: Code) -> None:
    generator = np.random.default_rng(0)
    registers = generator.integers(0, 256, (32, 64), "u1")
    masks = np.full(8, 2 + chosen, "u8")
    start = generator.integers(0, 256, BUFFER, "u1")
    start[: DATA.size] = DATA
    memory = start.copy()
    results = []
    for run in (
        code.emulate,
        code.execute,
        lambda text, machine: MOVES[text](machine, memory, chosen),
    ):
        memory[:] = start
        machine = machine_of(registers, masks, memory)
        run(text, machine)
        results.append(
            [machine.zmm.copy(), *map(np.array, (machine.k, machine.gpr)), memory.copy()]
        )
    for others in zip(*results, strict=True):
        assert np.array_equal(others[0], others[1])
        assert np.array_equal(others[0], others[2])


CARRY, PARITY, ZERO = 1, 4, 64
ALL_FLAGS = 1 << 11 | 1 << 7 | ZERO | 1 << 4 | PARITY | CARRY
FLAGS = ("vucomish xmm17, xmm2", "vcomish xmm3, word ptr [rax]")
ONE, TWO, NAN = 0x3C00, 0x4000, 0x7E00


@pytest.mark.skipif(not MASKED, reason="the CPU lacks AVX-512's registers")
@pytest.mark.parametrize("text", FLAGS)
def test_flags(text: str, code: Code) -> None:
    pairs = {(ONE, ONE): ZERO, (ONE, TWO): CARRY, (TWO, ONE): 0, (0, 0x8000): ZERO}
    pairs |= {(ONE, NAN): ZERO | PARITY | CARRY, (NAN, ONE): ZERO | PARITY | CARRY}
    memory = np.zeros(BUFFER, "u1")
    for (x, y), flags in pairs.items():
        for run in (code.emulate, code.execute):
            machine = machine_of(np.zeros((32, 64), "u1"), np.zeros(8, "u8"), memory)
            machine.rflags = ALL_FLAGS
            machine.zmm.view("u2")[[17, 3], 0] = x
            machine.zmm.view("u2")[2, 0] = memory[8192:].view("u2")[0] = y
            run(text, machine)
            assert machine.rflags & ALL_FLAGS == flags


# ---- results that are calculated by hand


class Known(NamedTuple):
    """The first doubleword of xmm0 (the target), xmm1, xmm2, and of xmm0 afterwards."""

    text: str
    target: int
    second: int
    source: int
    result: int


def pair(high: int, low: int) -> int:
    return high << 16 | low


XMM_OPERANDS, ZMM_OPERANDS = "xmm0, xmm1, xmm2", "zmm0, zmm1, zmm2"
B_1, B_2_127, B_2_64, B_TINY, B_DENORMAL = 0x3F80, 0x7F00, 0x5F80, 0x3980, 0x0001
F_1, F_MAX, F_INFINITY = 0x3F800000, 0x7F7FFFFF, 0x7F800000
KNOWN = [
    # bytes: 4 * 255 * -128 = -130560; a sum below -2^31 wraps or saturates
    Known(f"{{vex}} vpdpbusd {XMM_OPERANDS}", 0x80000000, 0xFFFFFFFF, 0x80808080, 0x7FFE0200),
    Known(f"{{vex}} vpdpbusds {XMM_OPERANDS}", 0x80000000, 0xFFFFFFFF, 0x80808080, 0x80000000),
    Known(f"vpdpbsud {XMM_OPERANDS}", 0, 0x80808080, 0xFFFFFFFF, 0xFFFE0200),
    Known(f"vpdpbssd {XMM_OPERANDS}", 0, 0x80808080, 0x80808080, 0x00010000),
    # 4 * 255 * 255 = 260100 = 0x3F804; with two unsigned operands the sum is unsigned
    Known(f"vpdpbuud {XMM_OPERANDS}", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x0003F803),
    Known(f"vpdpbuuds {XMM_OPERANDS}", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
    # 2 * -2^15 * -2^15 = 2^31
    Known(f"{{vex}} vpdpwssd {XMM_OPERANDS}", 0, 0x80008000, 0x80008000, 0x80000000),
    Known(f"{{vex}} vpdpwssds {XMM_OPERANDS}", 0, 0x80008000, 0x80008000, 0x7FFFFFFF),
    # 1 + 2^-24 is a tie and rounds to the even 1, twice: products are not added to each other
    Known(f"vdpbf16ps {XMM_OPERANDS}", F_1, pair(B_TINY, B_TINY), pair(B_TINY, B_TINY), F_1),
    # the odd product first: max + 2^127 overflows to infinity; max - 2^127 would not
    Known(f"vdpbf16ps {XMM_OPERANDS}", F_MAX, pair(B_2_127, 0xFF00), pair(B_1, B_1), F_INFINITY),
    # fused: 2^64 2^64 - max = 2^104, while the product alone is infinite
    Known(f"vdpbf16ps {XMM_OPERANDS}", 0xFF7FFFFF, pair(0, B_2_64), pair(0, B_2_64), 0x73800000),
    # denormal: an input, the accumulator, a result (2^-126 2^-1)
    Known(f"vdpbf16ps {XMM_OPERANDS}", F_1, pair(B_DENORMAL, 0), pair(B_2_127, 0), F_1),
    Known(f"vdpbf16ps {XMM_OPERANDS}", 0x00000001, 0, 0, 0),
    Known(f"vdpbf16ps {XMM_OPERANDS}", 0, pair(0, 0x0080), pair(0, 0x3F00), 0),
    # the same with float16 (2^-12 is 0x0C00), whose denormal inputs keep their value: 2^-24 1
    Known(f"vdpphps {XMM_OPERANDS}", F_1, pair(0x0C00, 0x0C00), pair(0x0C00, 0x0C00), F_1),
    Known(f"vdpphps {XMM_OPERANDS}", 0, pair(0, 0x0001), pair(0, 0x3C00), 0x33800000),
    # to bfloat16: ties to even; overflow to infinity; denormal to zero; a NaN becomes quiet
    Known("{vex} vcvtneps2bf16 xmm0, xmm2", 0, 0, 0x3F808000, 0x3F80),
    Known("{vex} vcvtneps2bf16 xmm0, xmm2", 0, 0, 0x3F818000, 0x3F82),
    Known("{vex} vcvtneps2bf16 xmm0, xmm2", 0, 0, 0x3F808001, 0x3F81),
    Known("{vex} vcvtneps2bf16 xmm0, xmm2", 0, 0, F_MAX, 0x7F80),
    Known("{vex} vcvtneps2bf16 xmm0, xmm2", 0, 0, 0x807FFFFF, 0x8000),
    Known("{vex} vcvtneps2bf16 xmm0, xmm2", 0, 0, 0x7F800001, 0x7FC0),
    # to float16: 65520 is the first to overflow; 2^-25 ties with zero; 1 + 2^-11, 1 + 3 2^-11
    Known("vcvtps2phx xmm0, xmm2", 0, 0, 0x477FF000, 0x7C00),
    Known("vcvtps2phx xmm0, xmm2", 0, 0, 0x477FEFFF, 0x7BFF),
    Known("vcvtps2phx xmm0, xmm2", 0, 0, 0x33000000, 0x0000),
    Known("vcvtps2phx xmm0, xmm2", 0, 0, 0x33000001, 0x0001),
    Known("vcvtps2phx xmm0, xmm2", 0, 0, 0x3F801000, 0x3C00),
    Known("vcvtps2phx xmm0, xmm2", 0, 0, 0x3F803000, 0x3C02),
    # the second operand if neither is less
    Known(f"vminph {XMM_OPERANDS}", 0, 0x8000, 0x0000, 0x0000),
    Known(f"vmaxph {XMM_OPERANDS}", 0, 0x0000, 0x8000, 0x8000),
    # (1 + 2^-10) (1 - 2^-10) - 1 = -2^-20, rounded once; the product alone would be 1
    Known(f"vfmadd231ph {XMM_OPERANDS}", 0xBC00, 0x3C01, 0x3BFE, 0x8010),
]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.text)
def test_known_vectors(known: Known, code: Code) -> None:
    if "{vex}" not in known.text and not MASKED:
        pytest.skip("the CPU lacks AVX-512's registers")
    for run in (code.emulate, code.execute):
        machine = Machine()
        machine.zmm.view("u4")[:3, 0] = known[1:4]
        run(known.text, machine)
        assert machine.zmm.view("u4")[0, 0] == known.result


ROUNDING_MODE = f"vaddph {ZMM_OPERANDS}, {{rn-sae}}"


@pytest.mark.skipif(not MASKED, reason="the CPU lacks AVX-512's registers")
def test_rounding_mode_in_the_instruction(code: Code) -> None:
    """It is encoded in place of the vector length."""
    for run in (code.emulate, code.execute):
        machine = Machine()
        machine.zmm.view("f2")[1] = 1
        machine.zmm.view("f2")[2] = 3 * 2.0**-11
        run(ROUNDING_MODE, machine)
        assert (machine.zmm.view("f2")[0] == 1 + 2.0**-9).all()


# ---- tiles

TILES = ("tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud", "tdpbf16ps", "tdpfp16ps")
LOADS = """
    tileloadd tmm5, [rsi + r8]
    tileloaddt1 tmm2, [rdx + 2*r9 - 4]
    tileloadd tmm7, [rcx + 2*r9]"""
LOAD = f"ldtilecfg [rdi]; {LOADS}"
STORE = "tilestored [rcx + 2*r9], tmm7"


def tiles(name: str) -> str:
    """C += A B: ``void (configuration, A, B + 4, C, stride of A, half the stride of B and C)``.

    The signal handler returns at a nop: the tiles are stored to the thread, and loaded again.
    """
    return f"{LOAD}; {name} tmm7, tmm5, tmm2; nop; {STORE}; tilerelease"


def configuration(m: int, n: int, k: int) -> Array:
    """A tile configuration: C (`m` by `n` doublewords) in tile 7, A (`m` by `k`) in 5, B in 2."""
    data = np.zeros(64, "u1")
    data[0] = 1
    bytes_per_row, rows = data[16:48].view("u2"), data[48:]
    for tile, height, width in [(7, m, n), (5, m, k), (2, k, n)]:
        bytes_per_row[tile], rows[tile] = 4 * width, height
    return data


def multiplied(name: str, c: Array, a: Array, b: Array) -> Array:
    """C + A B by the manual's definition, on bytes as doublewords."""
    k = b.shape[0]
    if name.endswith("d"):
        signed_a, signed_b = (np.dtype("i1" if sign == "s" else "u1") for sign in name[4:6])
        left = a.view(signed_a).astype("i8")
        right = b.view(signed_b).astype("i8").reshape(k, -1, 4)
        right = right.transpose(0, 2, 1).reshape(4 * k, -1)
        return (c.view("u4").astype("i8") + left @ right).astype("u4")
    kind = "bf16" if "bf16" in name else "half"
    sums = []
    for which in (0, 1):
        left, right = widened(a, kind)[:, which::2], widened(b, kind)[:, which::2]
        total = np.zeros((a.shape[0], right.shape[1]), "f4")
        for p in range(k):
            total = multiply_add(left[:, p : p + 1], right[p], total)
        sums.append(total)
    return flushed(flushed(c.view("f4")) + flushed(sums[0] + sums[1]))


AMX = "amx_tile" in nkblas.cpu.features
NEEDED = {"tdpbf16ps": "amx_bf16", "tdpfp16ps": "amx_fp16"}
NATIVE_TILES = [name for name in TILES if NEEDED.get(name, "amx_int8") in nkblas.cpu.features]

SHAPES = [(16, 16, 16), (16, 16, 1), (1, 16, 16), (16, 1, 16), (1, 1, 1), (5, 7, 11), (13, 16, 3)]


def product_of(
    run: Callable[[str, Machine], None],
    name: str,
    shape: tuple[int, int, int],
    a: Array,
    b: Array,
    c: Array,
) -> Array:
    """The result C; A has 16 rows in memory, and so have B and C, with other strides."""
    wanted, result, machine = configuration(*shape), c.copy(), Machine()
    addresses = [x.ctypes.data for x in (wanted, a, b, result)]
    arguments = dict(zip(("rdi", "rsi", "rdx", "rcx"), addresses, strict=True))
    arguments |= {"rdx": addresses[2] + 4, "r8": a.size // 16, "r9": c.size // 32}
    for register, value in arguments.items():
        machine.gpr[NAMES.index(register)] = value
    run(tiles(name), machine)
    return result


def operands_of(
    generator: np.random.Generator, name: str, shape: tuple[int, int, int]
) -> list[Array]:
    """A, B and C, with values in the padding of their rows."""
    kind = {"tdpbf16ps": "bf16", "tdpfp16ps": "half"}.get(name, "integer")
    sums = "bf16" if kind == "half" else kind
    _, n, k = shape
    widths = [(kind, 4 * k + 12), (kind, 4 * n + 24), (sums, 4 * n + 24)]
    return [contents(generator, kind, 16 * width) for kind, width in widths]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", TILES)
def test_tiles(name: str, shape: tuple[int, int, int], code: Code) -> None:
    generator = np.random.default_rng(0)
    m, n, k = shape
    for _ in range(8):
        a, b, c = operands_of(generator, name, shape)
        results = [product_of(run, name, shape, a, b, c) for run in (code.emulate, code.execute)]
        assert np.array_equal(*results)
        rows_a, rows_b = a.reshape(16, -1)[:m, : 4 * k], b.reshape(16, -1)[:k, : 4 * n]
        rows_c, got = c.reshape(16, -1), results[0].reshape(16, -1)
        with np.errstate(all="ignore"):
            product = multiplied(
                name, *map(np.ascontiguousarray, (rows_c[:m, : 4 * n], rows_a, rows_b))
            )
        inside = np.ascontiguousarray(got[:m, : 4 * n]).view(product.dtype)
        assert (
            (inside.view("u4") == product.view("u4")) | (inside != inside) & (product != product)
        ).all()
        got[:m, : 4 * n] = rows_c[:m, : 4 * n]
        assert np.array_equal(got, rows_c)  # the padding is unchanged


@pytest.mark.parametrize("name", NATIVE_TILES)
def test_tiles_as_the_cpu_does(name: str, code: Code) -> None:
    """Emulation and CPU agree in all bits of thousands of rows, in all shapes."""
    generator = np.random.default_rng(1)
    for _ in range(1000):
        m, n, k = map(int, generator.integers(1, 17, 3))
        operands = operands_of(generator, name, (m, n, k))
        emulated, executed = (
            product_of(run, name, (m, n, k), *operands) for run in (code.emulate, code.execute)
        )
        assert np.array_equal(emulated, executed), (m, n, k)


KNOWN_TILES = [
    # unlike vdpbf16ps: first 2^-24 + 2^-24, then 1 + 2^-23
    ("tdpbf16ps", F_1, pair(B_TINY, B_TINY), pair(B_TINY, B_TINY), F_1 + 1),
    ("tdpbf16ps", F_1, pair(B_DENORMAL, 0), pair(B_2_127, 0), F_1),
    ("tdpbf16ps", 0x00000001, 0, 0, 0),
    # fused with an accumulator of zero: a product that overflows is infinite
    ("tdpbf16ps", 0xFF7FFFFF, pair(0, B_2_64), pair(0, B_2_64), F_INFINITY),
    ("tdpfp16ps", 0, pair(0, 0x0001), pair(0, 0x3C00), 0x33800000),
    ("tdpfp16ps", 0x00000001, 0, 0, 0),
    ("tdpbusd", 0x80000000, 0xFFFFFFFF, 0x80808080, 0x7FFE0200),
    ("tdpbsud", 0, 0x80808080, 0xFFFFFFFF, 0xFFFE0200),
    ("tdpbssd", 0, 0x80808080, 0x80808080, 0x00010000),
    ("tdpbuud", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x0003F803),
]


@pytest.mark.parametrize(("name", "target", "a", "b", "result"), KNOWN_TILES)
def test_known_tiles(name: str, target: int, a: int, b: int, result: int, code: Code) -> None:
    wanted = configuration(1, 1, 1)
    for run in (code.emulate, code.execute):
        operands = [np.array([x], "u4") for x in (a, b, target)]
        machine = Machine()
        for register, array in zip(("rdi", "rsi", "rdx", "rcx"), (wanted, *operands), strict=True):
            machine.gpr[NAMES.index(register)] = array.ctypes.data
        machine.gpr[NAMES.index("rdx")] += 4
        run(tiles(name), machine)
        assert operands[2][0] == result


def can_be_configured(data: Array) -> bool:
    """Whether the manual allows a configuration: 8 tiles, each with rows and columns or neither."""
    bytes_per_row, rows = data[16:48].view("u2"), data[48:]
    return data[0] == 0 or bool(
        data[0] == 1
        and not data[2:16].any()
        and (bytes_per_row[:8] <= 64).all()
        and (rows[:8] <= 16).all()
        and ((bytes_per_row > 0) == (rows > 0)).all()
        and not rows[8:].any()
    )


CONFIGURE = "ldtilecfg [rdi]; sttilecfg [rsi]; tilerelease; sttilecfg [rsi + 64]"


def test_configurations(code: Code) -> None:
    """Valid configurations are stored as they were loaded; released tiles have none."""
    for place, value in itertools.product(range(64), (0, 1, 2, 16, 17, 64, 65)):
        wanted, stored = configuration(3, 4, 5), np.full(128, 0xFF, "u1")
        wanted[place] = value
        machine, possible = Machine(), can_be_configured(wanted)
        machine.gpr[7], machine.gpr[6] = wanted.ctypes.data, stored.ctypes.data
        assert machine.emulate(code.address(CONFIGURE)) == possible, (place, value)
        if AMX and value in (1, 17, 65):
            assert code.faults(CONFIGURE, machine) == (not possible), (place, value)
        for run in (code.emulate, code.execute) if possible else ():
            run(CONFIGURE, machine)
            assert np.array_equal(stored[:64], wanted if wanted[0] else np.zeros(64, "u1"))
            assert not stored[64:].any()


TILE_MOVES = {
    what: f"""
    ldtilecfg [rdi]
    {text}
    sttilecfg [rdx]
    tilestored [rcx + r9], tmm7
    ldtilecfg [rdx]  # zeros
    tilestored [rcx + r9 + 2048], tmm7
    tilerelease"""
    for what, text in {
        "load": "tileloadd tmm7, [rsi + r8]",
        "load once": "tileloaddt1 tmm7, [rsi + r8]",
        "store": "tilestored [rsi + r8], tmm7",
        "zero": "tilezero tmm7",
        "multiply": "tdpbssd tmm7, tmm5, tmm2",
    }.items()
}


@pytest.mark.parametrize("what", TILE_MOVES)
def test_moves_of_tiles(what: str, code: Code) -> None:
    """All heights and widths, padded or reversed rows, any start row; no other byte changes."""
    generator = np.random.default_rng(0)
    for m, n in itertools.product(range(1, 17), (1, 2, 7, 16)):
        start, padding, gap = map(int, generator.integers(0, [m, 64, 64]))
        distance, stride = 4 * n + padding, -4 * n - gap
        wanted = configuration(m, n, 3)
        wanted[1] = start
        inside, outside = (generator.integers(0, 256, size, "u1") for size in (2048, 4200))
        results = []
        for run in (code.emulate, code.execute):
            memory = [inside.copy(), outside.copy(), np.zeros(64, "u1")]
            machine = Machine()
            machine.gpr[7], machine.gpr[2] = wanted.ctypes.data, memory[2].ctypes.data
            machine.gpr[6], machine.gpr[8] = memory[0].ctypes.data, distance
            machine.gpr[1], machine.gpr[9] = memory[1].ctypes.data + 2000, stride % (1 << 64)
            run(TILE_MOVES[what], machine)
            results.append(memory)

        tile = np.zeros((m, 4 * n), "u1")
        for r in range(start, m):
            row = inside[distance * r :][: 4 * n]
            if what.startswith("load"):
                tile[r] = row
            if what == "store":
                row[:] = 0
        for r in range(m):
            outside[2000 + stride * r :][: 4 * n] = tile[r]
            outside[4048 + stride * r :][: 4 * n] = 0
        wanted[1] = 0  # an instruction that completes resets it
        for memory in results:
            for got, expected in zip(memory, (inside, outside, wanted), strict=True):
                assert np.array_equal(got, expected), (m, n, start)


MISMATCHED_TILES = [f"{name} tmm7, tmm5, tmm2" for name in TILES]
OTHER_ROUNDING_MODE = f"vaddph {ZMM_OPERANDS}, {{rz-sae}}"
INVALID_TILES = [
    ".byte 0xc4, 0xe2, 0x53, 0x5e, 0xfd  # tdpbssd tmm7, tmm5, tmm5",
    ".byte 0xc4, 0xe2, 0x6b, 0x5e, 0xff  # tdpbssd tmm7, tmm7, tmm2",
    ".byte 0xc4, 0xe2, 0x6b, 0x5e, 0xd5  # tdpbssd tmm2, tmm5, tmm2",
    "tdpbssd tmm7, tmm5, tmm1",  # not configured
    "tilezero tmm1",
    "tileloadd tmm1, [rcx + r9]",
    "tilestored [rcx + r9], tmm1",
    ".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x38  # tileloadd tmm7, [rax], without a byte for the index",
]


def is_emulated_as_on_cpu(piece: str, machine: Machine, code: Code, native: bool) -> bool:
    """Whether an instruction on configured tiles is emulated, rather than faults.

    A CPU that has it (`native`) agrees.
    """
    assert machine.emulate(code.address(LOAD))
    is_emulated = machine.emulate(code.address(piece))
    if native:
        assert code.faults(f"{LOAD}; {piece}", machine) == (not is_emulated), piece
    return is_emulated


@pytest.mark.parametrize("name", TILES)
def test_mismatched_tiles_fault(name: str, code: Code) -> None:
    """Products of tiles whose shapes do not match."""
    operand, machine = np.zeros(1 << 12, "u1"), Machine()
    for number in (1, 2, 6):
        machine.gpr[number] = operand.ctypes.data + 4
    rows_of_b, rows_of_c, bytes_of_a, bytes_of_b, bytes_of_c = 50, 55, 26, 20, 30
    changes = [(0, 1), (rows_of_b, 4), (rows_of_c, 2), (bytes_of_a, 16)]
    changes += [(bytes_of_b, 12), (bytes_of_c, 12), (bytes_of_c, 18)]
    for place, value in changes:
        wanted = configuration(3, 4, 5)
        wanted[place] = value
        machine.gpr[7] = wanted.ctypes.data
        product = f"{name} tmm7, tmm5, tmm2"
        assert is_emulated_as_on_cpu(product, machine, code, name in NATIVE_TILES) == (place == 0)


def test_invalid_tiles_fault(code: Code) -> None:
    """Unconfigured tiles, the same tile as two operands, and unknown instructions."""
    operand, machine, square = np.zeros(1 << 12, "u1"), Machine(), configuration(4, 4, 4)
    for number in (0, 1, 2, 6):
        machine.gpr[number] = operand.ctypes.data + 4
    machine.gpr[7] = square.ctypes.data
    for piece in INVALID_TILES:
        assert not is_emulated_as_on_cpu(piece, machine, code, AMX), piece
    for piece in ("ud2", OTHER_ROUNDING_MODE):
        assert not machine.emulate(code.address(piece)), piece


SINGLE_TILE_MOVES = {
    move: f"ldtilecfg [rdi]; {move}"
    for move in ("tileloadd tmm7, [rsi + r8]", "tilestored [rsi + r8], tmm7")
}


@pytest.mark.parametrize(("place", "value"), [(1, 3), (1, 20), (30, 18)])
@pytest.mark.parametrize("move", SINGLE_TILE_MOVES)
def test_invalid_moves_fault(move: str, place: int, value: int, code: Code) -> None:
    """A start row beyond the tile, and rows that are not whole doublewords."""
    wanted, operand, machine = configuration(3, 4, 5), np.zeros(1 << 10, "u1"), Machine()
    machine.gpr[7], machine.gpr[6] = wanted.ctypes.data, operand.ctypes.data
    code.emulate(SINGLE_TILE_MOVES[move], machine)
    wanted[place] = value
    assert machine.emulate(code.address(SINGLE_TILE_MOVES[move]))
    assert not machine.emulate(machine.rip)
    if AMX:
        assert code.faults(SINGLE_TILE_MOVES[move], machine)


# ---- operands at the end of accessible memory

FENCED = {
    "vpdpbssd zmm0{k1}, zmm1, [rax]": 4,
    "vpdpbssd zmm0{k1}{z}, zmm1, dword ptr [rax]{1to16}": 4,
    "vfmadd231ph zmm0{k1}, zmm1, [rax]": 2,
    "vcvtph2psx zmm0{k1}, ymmword ptr [rax]": 2,
    "vmovsh xmm0{k2}, word ptr [rax + 4096]": 2,
}


@pytest.mark.skipif(not MASKED, reason="the CPU lacks AVX-512's registers")
@pytest.mark.parametrize("text", FENCED)
def test_masked_elements_are_not_read(text: str, code: Code) -> None:
    for count in (1, 5):
        values = fenced(np.arange(count * FENCED[text]), "u1", "C", True)
        machine = Machine()
        machine.k[1], machine.k[2] = (1 << count) - 1, 0
        machine.gpr[0] = values.ctypes.data
        for run in (code.emulate, code.execute):
            run(text, machine)


def test_tiles_are_read_and_written_to_their_end(code: Code) -> None:
    wanted = configuration(3, 4, 5)
    a, b, c = (fenced(np.zeros((m, 4 * k)), "u1", "C", True) for m, k in [(3, 5), (5, 4), (3, 4)])
    machine = Machine()
    for number, array in [(7, wanted), (6, a), (2, b), (1, c)]:
        machine.gpr[number] = array.ctypes.data
    machine.gpr[2] += 4
    machine.gpr[8], machine.gpr[9] = 20, 8
    for run in (code.emulate, code.execute):
        run(tiles("tdpbssd"), machine)


# ---- registers in their initial state: the signal's frame marks them as zero and lacks their bytes

SET_INITIAL_STATE = """
    mov r11, rcx
    mov r10, rdi
    lea rdi, [rsp - 16384]
    mov ecx, 16384 - 64
    mov eax, 0xFF
    rep stosb  # fill the place of the frame
    mov rcx, r11
    mov rdi, r10
    mov eax, 0xE4  # all but SSE
    xor edx, edx
    xrstor [rdi]
    """
INITIAL_STATE_USES = {
    "vmovw xmm20, ecx": (20, "zmm"),
    "vmovw xmm2, ecx": (2, "xmm"),
    "{vex} vpdpbuud ymm5, ymm6, ymm7": (5, "dot"),
    "vpdpbuud zmm21, zmm6, zmm7": (21, "dot"),
    "vcmpph k3, zmm6, zmm6, 0": (3, "k"),
}


@pytest.mark.skipif(not MASKED, reason="the CPU lacks AVX-512's registers")
@pytest.mark.parametrize("text", INITIAL_STATE_USES)
def test_registers_in_initial_state(text: str, code: Code) -> None:
    generator = np.random.default_rng(0)
    buffer = np.zeros(4096, "u1")
    area = -buffer.ctypes.data % 64
    buffer[area + 24 : area + 28].view("u4")[:] = 0x1F80  # the default MXCSR
    machine = Machine()
    machine.zmm[:] = generator.integers(0, 256, (32, 64), "u1")
    machine.gpr[1], machine.gpr[7] = 0x1234, buffer.ctypes.data + area
    expected = machine.zmm[:].copy()
    expected[16:], expected[:, 16:] = 0, 0
    code.execute(SET_INITIAL_STATE + text, machine)
    number, kind = INITIAL_STATE_USES[text]
    masks = [0] * 8
    if kind == "k":
        masks[number] = (1 << 32) - 1
    elif kind == "dot":
        expected[number] = dot_integers("vpdpbuud", *expected[[number, 6, 7]]).view("u1")
    else:
        expected[number] = 0
        expected[number, :2] = 0x34, 0x12
    assert np.array_equal(machine.zmm, expected)
    assert list(machine.k) == masks


# ---- processes

UNLOADED = f"ldtilecfg [rdi]; tdpfp16ps tmm7, tmm5, tmm2; {LOADS}; nop; {STORE}"
UNKNOWN = ".byte 0x62, 0xf6, 0x7d, 0x48, 0xff, 0xc0"  # no CPU has it
PROGRAM = """
import ctypes, faulthandler, os, signal, subprocess, sys, threading
import numpy as np

code, slot = ctypes.CDLL(sys.argv[1]), int(sys.argv[2])
first = ctypes.addressof(ctypes.c_char.in_dll(code, "pieces"))
function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 6)
nothing = [None] * 6
tiles, load, store, illegal, unknown, unloaded = (function(first + n * slot) for n in range(6))

def operands(size):
    wanted = np.zeros(64, "u1")
    wanted[0] = 1
    for tile in (2, 5, 7):
        wanted[16:48].view("u2")[tile], wanted[48 + tile] = 4 * size, size
    random = np.random.default_rng(size)
    a = random.integers(-128, 128, (size, 4 * size), "i1")
    b = random.integers(-128, 128, (4 * size, size), "i1")
    packed = b.reshape(size, 4, size).transpose(0, 2, 1).copy()
    c = random.integers(-128, 128, (size, size), "i4")
    addresses = [x.ctypes.data for x in (wanted, a, packed, c)]
    addresses[2] += 4
    return a, b, c, (*addresses, 4 * size, 2 * size), (wanted, packed)

def multiply(size, rounds=1):
    a, b, c, arguments, alive = operands(size)
    for _ in range(rounds):
        before = c.copy()
        tiles(*arguments)
        assert (c == before + a.astype("i4") @ b).all()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a program that can multiply tiles; a test appends its statements."""
    folder = tmp_path_factory.mktemp("program")
    Code(folder, [tiles("tdpbssd"), LOAD, STORE, "ud2", UNKNOWN, UNLOADED], b"0")
    return [sys.executable, "-c", PROGRAM, str(folder / "code.so"), str(SLOT)]


def run(program: list[str], ending: str) -> "subprocess.CompletedProcess[str]":
    command = program.copy()
    command[2] += ending
    environment = {**os.environ, **emulated()}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


COMPLETES = {
    "once": "multiply(16)",
    "threads, each with its own tiles": """
a, b, c, arguments, alive = operands(7)
before = c.copy()
load(*arguments)
other = threading.Thread(target=multiply, args=(9,))
other.start()
other.join()
c[:] = 0
store(*arguments)
assert (c == before).all()
threads = [threading.Thread(target=multiply, args=(size, 300)) for size in (3, 8, 15, 16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
    "a product of tiles before any load": """
a, b, c, arguments, alive = operands(6)
before = c.copy()
unloaded(*arguments)
assert (c == before).all()
""",
    "a fork": """
multiply(5)
child = os.fork()
multiply(6)
if not child:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
""",
    "a child program": """
if "again" not in sys.argv:
    subprocess.run([sys.executable, *sys.orig_argv[1:], "again"], check=True)
multiply(4)
""",
    "a handler that the program installs": """
faulthandler.enable()
multiply(4)
signal.signal(signal.SIGILL, lambda *arguments: caught.append(arguments))
caught = []
multiply(5)
os.kill(os.getpid(), signal.SIGILL)
assert len(caught) == 1
""",
}


@pytest.mark.parametrize("what", COMPLETES)
def test_program_completes(what: str, program: list[str]) -> None:
    done = run(program, COMPLETES[what] + "\nprint('done')")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("done\n")


DIES = {
    "an illegal instruction": "multiply(3); illegal(*nothing)",
    "an unknown instruction": "multiply(3); unknown(*nothing)",
    "a signal from a process": "multiply(3); os.kill(os.getpid(), signal.SIGILL)",
    "an illegal instruction that is ignored": """
signal.signal(signal.SIGILL, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGILL)
illegal(*nothing)
""",
    "an illegal instruction with a handler": "faulthandler.enable(); illegal(*nothing)",
}


@pytest.mark.parametrize("what", DIES)
def test_program_dies(what: str, program: list[str]) -> None:
    done = run(program, DIES[what] + "\nprint('still there')")
    assert (done.returncode, done.stdout) == (-signal.SIGILL, "")
    assert ("Fatal Python error: Illegal instruction" in done.stderr) == ("handler" in what)
    assert ("can't carry out 62 f6 7d 48 ff\n" in done.stderr) == ("unknown" in what)


def test_harmless() -> None:
    """A program without such instructions is unaffected."""
    done = subprocess.run(
        ["uname", "-s"], env={**os.environ, **emulated()}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Linux\n", "")


def test_environment() -> None:
    changes = emulated(NKBLAS_NUM_THREADS=1)
    assert Path(changes.pop("LD_PRELOAD").split()[0]) == library()
    assert changes == {"NKBLAS_NUM_THREADS": "1"}


def test_hidden() -> None:
    """It exports no other names, which would replace a program's own: it is loaded first."""
    nm = subprocess.run(["nm", "-D", "--defined-only", library()], capture_output=True, text=True)
    names = {line.split()[-1] for line in nm.stdout.splitlines()}
    assert names == {"emulator_emulate", "sigaction", "signal"}
