"""What the machine is: `nkblas.cpu`.

The CPU's word comes from cpuid (engine/cpuid.c), the system's from XCR0, the affinity mask and the
control group. It costs well under a millisecond and starts nothing.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

from nkblas._engine import ffi, lib
from nkblas.base.isa import ISA, ISAS

from . import config

if TYPE_CHECKING:
    from nkblas._engine import CData

AVX = 0b110  # XCR0: the system saves XMM and YMM,
AVX512 = AVX | 0b1110_0000  # and mask and ZMM registers,
AMX = 0b11 << 17  # and tiles

# name: (feature word, bit, state that the system must save)
FEATURES = {
    "sse4_2": (0, 20, 0),
    "fma": (0, 12, AVX),
    "movbe": (0, 22, 0),
    "avx": (0, 28, AVX),
    "f16c": (0, 29, AVX),
    "bmi1": (2, 3, 0),
    "avx2": (2, 5, AVX),
    "bmi2": (2, 8, 0),
    "avx512f": (2, 16, AVX512),
    "avx512dq": (2, 17, AVX512),
    "avx512cd": (2, 28, AVX512),
    "avx512bw": (2, 30, AVX512),
    "avx512vl": (2, 31, AVX512),
    "avx512_vnni": (3, 11, AVX512),
    "amx_bf16": (4, 22, AMX),
    "avx512_fp16": (4, 23, AVX512),
    "amx_tile": (4, 24, AMX),
    "amx_int8": (4, 25, AMX),
    "avx_vnni": (5, 4, AVX),
    "avx512_bf16": (5, 5, AVX512),
    "amx_fp16": (5, 21, AMX),
    "avx_vnni_int8": (6, 4, AVX),
    "avx_ne_convert": (6, 5, AVX),
    "abm": (8, 5, 0),
}


class CPU(NamedTuple):
    """The CPU that this process runs on.

    Attributes
    ----------
    vendor, brand : str
        As cpuid gives them.
    family, model, stepping : int
    features : frozenset of str
        Instruction-set extensions that the CPU has and the system supports.
    isa : ISA
        The instruction set that kernels are generated for: the best there is, or ``NKBLAS_ISA``.
    l1d, l2, l3 : int
        Bytes of one cache of each level (0: there is none).
    l1d_ways : int
        Associativity of the first level.
    double_pumped : bool
        Whether a 512-bit multiply-add takes both of the 256-bit units (AMD's Zen 4).
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
    """Detect the CPU; `isa_name` (``NKBLAS_ISA``) lowers the instruction set.

    Raises
    ------
    ValueError
        ``NKBLAS_ISA`` names no instruction set, or one that the CPU lacks.
    RuntimeError
        The CPU has none of the instruction sets that nkblas knows.
    """
    raw = ffi.new("nk_cpu *")
    lib.nk_detect(raw)
    features = frozenset(
        name
        for name, (word, bit, state) in FEATURES.items()
        if raw.words[word] >> bit & 1
        and raw.xcr0 & state == state
        and (state != AMX or raw.amx_permitted)
    )
    sizes = [raw.l1d, raw.l2, raw.l3]
    if not sizes[0]:  # some virtual machines hide them from cpuid
        sizes = _cache_sizes_of_the_system()
    return CPU(
        vendor=_text(raw.vendor),
        brand=_text(raw.brand).strip(),
        family=raw.family,
        model=raw.model,
        stepping=raw.stepping,
        features=features,
        isa=_choose_isa(features, isa_name),
        l1d=sizes[0] or 32 << 10,
        l2=sizes[1] or 256 << 10,
        l3=sizes[2],
        l1d_ways=raw.l1d_ways or 8,
        double_pumped=(raw.family, _text(raw.vendor)) == (0x19, "AuthenticAMD"),
        cpus=usable_cpus(),
    )


def _text(characters: "CData") -> str:
    return ffi.string(characters).decode("ascii", "replace")


def _choose_isa(features: frozenset[str], wanted: str) -> ISA:
    possible = {name: isa for name, isa in ISAS.items() if features.issuperset(isa.requires)}
    if not possible:
        raise RuntimeError(f"nkblas needs a CPU with one of {', '.join(ISAS)}; this one has none")
    if not wanted:
        return list(possible.values())[-1]
    if wanted not in ISAS:
        raise ValueError(f"NKBLAS_ISA: got {wanted!r}, expected one of {', '.join(ISAS)}")
    if wanted not in possible:
        missing = ", ".join(sorted(set(ISAS[wanted].requires) - features))
        raise ValueError(
            f"NKBLAS_ISA: got {wanted!r}, but this CPU lacks {missing}; "
            f"it can run {', '.join(possible)}"
        )
    return possible[wanted]


def _read(*path: str) -> str:
    """A small file of the system's; empty if it is not there."""
    try:
        with open(os.path.join(*path)) as file:
            return file.read().strip()
    except OSError:
        return ""


def _cache_sizes_of_the_system() -> list[int]:
    """L1d, L2 and L3 sizes in bytes from sysfs; 0 where it says nothing."""
    sizes = {"1": 0, "2": 0, "3": 0}
    for index in range(8):
        cache = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        size = _read(cache, "size").removesuffix("K")
        if _read(cache, "type") in ("Data", "Unified") and size.isdigit():
            sizes[_read(cache, "level")] = int(size) << 10
    return [sizes["1"], sizes["2"], sizes["3"]]


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity mask, within its control group's quota."""
    allowed = len(os.sched_getaffinity(0))
    granted = quota()
    return allowed if granted is None else max(1, min(allowed, int(-(-granted // 1))))


def quota() -> float | None:
    """CPUs granted by the tightest quota of the control groups (version 2, then 1)."""
    quotas = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = f"/sys/fs/cgroup/{controllers}".rstrip("/")
        names = path.strip("/").split("/")
        for depth in range(len(names) + 1):
            folder = os.path.join(root, *names[:depth])
            if controllers:
                limit = [_read(folder, "cpu.cfs_quota_us"), _read(folder, "cpu.cfs_period_us")]
            else:
                limit = _read(folder, "cpu.max").split()
            if len(limit) == 2 and all(number.isdigit() for number in limit):  # not "max", "-1"
                quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas, default=None)


cpu = detect(config.isa_name())
