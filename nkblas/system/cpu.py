"""The CPU that this process runs on: `nkblas.cpu`.

Features and caches come from cpuid (engine/cpuid.c), the register state that the system saves from
XCR0, and the number of CPUs from the affinity mask and the control groups. Detection takes well
under a millisecond and starts no process.
"""

import os
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from nkblas._engine import ffi, lib
from nkblas.base.isa import ISA, ISAS

from . import config

if TYPE_CHECKING:
    from nkblas._engine import CData

AVX_STATE = 0b110
"""Bits of XCR0: the system saves the XMM and YMM registers."""

AVX512_STATE = AVX_STATE | 0b1110_0000
"""Bits of XCR0: also mask and ZMM registers."""

AMX_STATE = 0b11 << 17
"""Bits of XCR0: the system saves the tile registers, of a process that it has granted their use."""

AMD, INTEL = "AuthenticAMD", "GenuineIntel"
"""Vendor strings."""

DOUBLE_PUMPED_FAMILY = 0x19
"""AMD's family of Zen 3, which has no AVX-512, and Zen 4, whose vector units have 256 bits."""


class Word(IntEnum):
    """Feature words: indices into ``nk_cpu.words``, named by leaf, sub-leaf and register."""

    LEAF_1_ECX = lib.NK_LEAF_1_ECX
    LEAF_7_0_EBX = lib.NK_LEAF_7_0_EBX
    LEAF_7_0_ECX = lib.NK_LEAF_7_0_ECX
    LEAF_7_0_EDX = lib.NK_LEAF_7_0_EDX
    LEAF_7_1_EAX = lib.NK_LEAF_7_1_EAX
    LEAF_7_1_EDX = lib.NK_LEAF_7_1_EDX
    LEAF_24_0_EBX = lib.NK_LEAF_24_0_EBX
    LEAF_EXTENDED_1_ECX = lib.NK_LEAF_EXTENDED_1_ECX


class Feature(NamedTuple):
    """How cpuid reports a feature: a bit, or a bit field with a version number.

    Attributes
    ----------
    word : Word
    field : (int, int)
        The lowest bit of the field, and its width in bits.
    at_least : int
        The least value of the field with which the CPU has the feature.
    state : int
        Bits of XCR0: the register state that the system must save.
    """

    word: Word
    field: tuple[int, int]
    at_least: int = 1
    state: int = 0

    def is_usable(self, words: Sequence[int], saved_state: int) -> bool:
        """Whether the CPU has the feature and the system saves its registers.

        Parameters
        ----------
        words : sequence of int
            Feature words, indexed by `Word`.
        saved_state : int
            XCR0.
        """
        lowest_bit, width = self.field
        value = words[self.word] >> lowest_bit & (1 << width) - 1
        return value >= self.at_least and saved_state & self.state == self.state


def _bit(word: Word, bit: int, state: int = 0) -> Feature:
    """A feature that one bit reports."""
    return Feature(word, field=(bit, 1), state=state)


FEATURES = {
    "sse4_2": _bit(Word.LEAF_1_ECX, 20),
    "fma": _bit(Word.LEAF_1_ECX, 12, AVX_STATE),
    "movbe": _bit(Word.LEAF_1_ECX, 22),
    "avx": _bit(Word.LEAF_1_ECX, 28, AVX_STATE),
    "f16c": _bit(Word.LEAF_1_ECX, 29, AVX_STATE),
    "bmi1": _bit(Word.LEAF_7_0_EBX, 3),
    "avx2": _bit(Word.LEAF_7_0_EBX, 5, AVX_STATE),
    "bmi2": _bit(Word.LEAF_7_0_EBX, 8),
    "avx512f": _bit(Word.LEAF_7_0_EBX, 16, AVX512_STATE),
    "avx512dq": _bit(Word.LEAF_7_0_EBX, 17, AVX512_STATE),
    "avx512cd": _bit(Word.LEAF_7_0_EBX, 28, AVX512_STATE),
    "avx512bw": _bit(Word.LEAF_7_0_EBX, 30, AVX512_STATE),
    "avx512vl": _bit(Word.LEAF_7_0_EBX, 31, AVX512_STATE),
    "avx512_vnni": _bit(Word.LEAF_7_0_ECX, 11, AVX512_STATE),
    "amx_bf16": _bit(Word.LEAF_7_0_EDX, 22, AMX_STATE),
    "avx512_fp16": _bit(Word.LEAF_7_0_EDX, 23, AVX512_STATE),
    "amx_tile": _bit(Word.LEAF_7_0_EDX, 24, AMX_STATE),
    "amx_int8": _bit(Word.LEAF_7_0_EDX, 25, AMX_STATE),
    "avx_vnni": _bit(Word.LEAF_7_1_EAX, 4, AVX_STATE),
    "avx512_bf16": _bit(Word.LEAF_7_1_EAX, 5, AVX512_STATE),
    "amx_fp16": _bit(Word.LEAF_7_1_EAX, 21, AMX_STATE),
    "avx_vnni_int8": _bit(Word.LEAF_7_1_EDX, 4, AVX_STATE),
    "avx_ne_convert": _bit(Word.LEAF_7_1_EDX, 5, AVX_STATE),
    # A CPU without AVX10 reads 0; one with version 2 has all of version 1, at 512 bits too.
    "avx10_1": Feature(Word.LEAF_24_0_EBX, field=(0, 8), at_least=1, state=AVX512_STATE),
    "avx10_2": Feature(Word.LEAF_24_0_EBX, field=(0, 8), at_least=2, state=AVX512_STATE),
    "abm": _bit(Word.LEAF_EXTENDED_1_ECX, 5),
}
"""The features that a row of `nkblas.base.isa` may require, by the names that Linux gives them."""


class CPU(NamedTuple):
    """The CPU that this process runs on.

    Attributes
    ----------
    vendor, brand : str
        As cpuid reports them.
    family, model, stepping : int
    features : frozenset of str
        Those of `FEATURES` that the CPU has and the system supports.
    isa : ISA
        The instruction set that kernels are generated for: the most capable that the CPU has, or
        the value of ``NKBLAS_ISA``.
    l1d, l2, l3 : int
        Bytes of one cache of each level (0: there is none).
    l1d_ways : int
        Associativity of the first level.
    double_pumped : bool
        Whether a 512-bit multiply-add occupies both of the 256-bit units (AMD's Zen 4).
    cpus : int
        CPUs that this process may use, by affinity and control-group quota.
    """

    vendor: str
    brand: str
    family: int
    model: int
    stepping: int
    features: frozenset[str]
    isa: ISA
    l1d: int
    l2: int
    l3: int
    l1d_ways: int
    double_pumped: bool
    cpus: int

    def __str__(self) -> str:
        caches = ", ".join(
            f"{name} {size >> 10} KiB"
            for name, size in (("L1d", self.l1d), ("L2", self.l2), ("L3", self.l3))
        )
        return f"{self.brand or self.vendor}: {self.isa.name}, {caches}, {self.cpus} CPUs"


def detect(isa_name: str = "") -> CPU:
    """Detect the CPU.

    Parameters
    ----------
    isa_name : str
        The instruction set to use (``NKBLAS_ISA``); empty for the most capable one.

    Raises
    ------
    ValueError
        `isa_name` is no instruction set, or one that the CPU lacks.
    RuntimeError
        The CPU has none of the instruction sets that nkblas knows.
    """
    raw = ffi.new("nk_cpu *")
    lib.nk_detect(raw)
    vendor = _to_text(raw.vendor)
    features = usable_features(raw.words, raw.xcr0, bool(raw.amx_permitted))
    l1d, l2, l3 = raw.l1d, raw.l2, raw.l3
    if not l1d:  # some virtual machines hide the caches from cpuid
        l1d, l2, l3 = _cache_sizes_from_sysfs()
    return CPU(
        vendor=vendor,
        brand=_to_text(raw.brand).strip(),
        family=raw.family,
        model=raw.model,
        stepping=raw.stepping,
        features=features,
        isa=_select_isa(features, isa_name),
        l1d=l1d or 32 << 10,
        l2=l2 or 256 << 10,
        l3=l3,
        l1d_ways=raw.l1d_ways or 8,
        double_pumped=vendor == AMD and raw.family == DOUBLE_PUMPED_FAMILY,
        cpus=usable_cpus(),
    )


def usable_features(words: Sequence[int], xcr0: int, amx_permitted: bool) -> frozenset[str]:
    """Names of the `FEATURES` that the CPU has and whose register state the system saves.

    Parameters
    ----------
    words : sequence of int
        Feature words, indexed by `Word`.
    xcr0 : int
        Register state that the system saves.
    amx_permitted : bool
        Whether the system has granted this process the use of the tile registers.
    """
    saved_state = xcr0 if amx_permitted else xcr0 & ~AMX_STATE
    return frozenset(
        name for name, feature in FEATURES.items() if feature.is_usable(words, saved_state)
    )


def _to_text(characters: "CData") -> str:
    return ffi.string(characters).decode("ascii", "replace")


def _select_isa(features: frozenset[str], name: str) -> ISA:
    """The instruction set `name`, or if that is empty the most capable one that can run."""
    supported = {isa.name: isa for isa in ISAS.values() if features.issuperset(isa.requires)}
    if not supported:
        raise RuntimeError(f"nkblas needs a CPU with one of {', '.join(ISAS)}; this one has none")
    if not name:
        return list(supported.values())[-1]
    if name not in ISAS:
        raise ValueError(f"NKBLAS_ISA: got {name!r}, expected one of {', '.join(ISAS)}")
    if name not in supported:
        missing = ", ".join(sorted(set(ISAS[name].requires) - features))
        raise ValueError(
            f"NKBLAS_ISA: got {name!r}, but this CPU lacks {missing}; "
            f"it can run {', '.join(supported)}"
        )
    return supported[name]


def _read_text(*path: str) -> str:
    """Contents of a file of procfs, sysfs or cgroupfs; empty if it can't be read."""
    try:
        with open(os.path.join(*path)) as file:
            return file.read().strip()
    except OSError:
        return ""


def _cache_sizes_from_sysfs() -> tuple[int, int, int]:
    """L1d, L2 and L3 sizes in bytes from sysfs; 0 for a level that it does not list."""
    sizes = {"1": 0, "2": 0, "3": 0}
    for index in range(8):
        cache = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        size = _read_text(cache, "size").removesuffix("K")
        if _read_text(cache, "type") in ("Data", "Unified") and size.isdigit():
            sizes[_read_text(cache, "level")] = int(size) << 10
    return sizes["1"], sizes["2"], sizes["3"]


def usable_cpus() -> int:
    """Number of CPUs that this process may use: its affinity mask, within `cgroup_cpu_quota`."""
    cpus = len(os.sched_getaffinity(0))
    quota = cgroup_cpu_quota()
    return cpus if quota is None else max(1, min(cpus, int(-(-quota // 1))))


def cgroup_cpu_quota() -> float | None:
    """CPUs that the tightest quota of the control groups (version 2, then 1) grants.

    Returns
    -------
    float or None
        None if there is no quota.
    """
    quotas = []
    for line in _read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        is_version_1 = controllers != ""
        if is_version_1 and "cpu" not in controllers.split(","):
            continue
        root = f"/sys/fs/cgroup/{controllers}".rstrip("/")
        names = path.strip("/").split("/")
        for depth in range(len(names) + 1):
            folder = os.path.join(root, *names[:depth])
            if is_version_1:
                limit = [_read_text(folder, f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                limit = _read_text(folder, "cpu.max").split()
            if len(limit) == 2 and all(number.isdigit() for number in limit):  # not "max", "-1"
                quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas, default=None)


cpu = detect(config.isa_name())
"""Detected when nkblas is imported."""
