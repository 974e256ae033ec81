"""`nkblas.cpu`: detection agrees with the system."""

import os
from pathlib import Path

import pytest
from support import failure, run

import nkblas
from nkblas.base.isa import ISAS
from nkblas.system import cpu
from nkblas.system.cpu import AMX_STATE, AVX512_STATE, AVX_STATE, FEATURES, Word

# Older systems have no names for these, and Linux has other ones for AVX10
UNNAMED = {
    "amx_bf16",
    "amx_fp16",
    "amx_int8",
    "amx_tile",
    "avx10_1",
    "avx10_2",
    "avx512_bf16",
    "avx512_fp16",
    "avx_ne_convert",
    "avx_vnni",
    "avx_vnni_int8",
}
SUPPORTED = [name for name, isa in ISAS.items() if nkblas.cpu.features.issuperset(isa.requires)]


def system_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    raise AssertionError("no flags in /proc/cpuinfo")


def test_features() -> None:
    flags = system_flags()
    known = set(FEATURES)
    # tiles also need a permission, which the system may refuse
    assert {name for name in flags & known if not name.startswith("amx")} <= nkblas.cpu.features
    assert nkblas.cpu.features <= known
    assert nkblas.cpu.features - UNNAMED <= flags


ALL_STATE = AVX512_STATE | AMX_STATE
WORDS = max(Word) + 1


def words_with(**values: int) -> list[int]:
    """Feature words with these values, the others 0."""
    words = [0] * WORDS
    for name, value in values.items():
        words[Word[name]] = value
    return words


@pytest.mark.parametrize("name", [name for name in FEATURES if not name.startswith("avx10_")])
def test_feature_bit(name: str) -> None:
    """Each feature has its own bit, and needs its registers to be saved by the system."""
    feature = FEATURES[name]
    bit, width = feature.field
    assert width == 1
    words = words_with(**{feature.word.name: 1 << bit})
    assert cpu.usable_features(words, ALL_STATE, amx_permitted=True) == {name}
    for state in (0, AVX_STATE, AVX512_STATE, AMX_STATE):
        expected = {name} if feature.state & ~state == 0 else set()
        assert cpu.usable_features(words, state, amx_permitted=True) == expected
    inverted = words_with(**{feature.word.name: ~(1 << bit) & 0xFFFF_FFFF})
    assert name not in cpu.usable_features(inverted, ALL_STATE, amx_permitted=True)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0x0000_0000, set()),
        (0x0007_0000, set()),  # vector lengths alone
        (0x0007_0001, {"avx10_1"}),
        (0x0007_0002, {"avx10_1", "avx10_2"}),
        (0x0007_0003, {"avx10_1", "avx10_2"}),
        (0x0007_00FF, {"avx10_1", "avx10_2"}),
        (0x0007_0100, set()),  # the version has 8 bits
    ],
)
def test_feature_version(word: int, expected: set[str]) -> None:
    """A CPU with a later version has the features of the earlier ones."""
    words = words_with(LEAF_24_0_EBX=word)
    assert cpu.usable_features(words, ALL_STATE, amx_permitted=True) == expected
    assert cpu.usable_features(words, AVX_STATE, amx_permitted=True) == set()


def test_tiles_need_a_permission() -> None:
    words = [0xFFFF_FFFF] * WORDS
    permitted = cpu.usable_features(words, ALL_STATE, amx_permitted=True)
    refused = cpu.usable_features(words, ALL_STATE, amx_permitted=False)
    assert permitted == set(FEATURES)
    assert permitted - refused == {name for name in FEATURES if name.startswith("amx_")}


def test_names() -> None:
    text = Path("/proc/cpuinfo").read_text()
    assert f": {nkblas.cpu.vendor}\n" in text
    assert nkblas.cpu.brand in text
    for name in ("family", "model", "stepping"):
        assert f": {getattr(nkblas.cpu, name)}\n" in text
    assert nkblas.cpu.isa.name in str(nkblas.cpu)


def system_cache_sizes(cpu: int) -> dict[str, int]:
    names = {"1": "l1d", "2": "l2", "3": "l3"}
    sizes = {}
    for cache in Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*"):
        level, kind, size = (
            (cache / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction" and level in names:
            sizes[names[level]] = int(size.removesuffix("K")) << 10
    return sizes


PINNED = """
    import os
    os.sched_setaffinity(0, {cpus})
    import json, nkblas
    cpu = nkblas.cpu
    print(json.dumps(dict(l1d=cpu.l1d, l2=cpu.l2, l3=cpu.l3, cpus=cpu.cpus)))
"""


def test_caches_and_affinity() -> None:
    """The process is bound to one CPU: on hybrid machines the caches of CPUs differ."""
    cpu = min(os.sched_getaffinity(0))
    report, _ = run(PINNED.format(cpus={cpu}), prelude="")
    assert report.pop("cpus") == 1
    expected = system_cache_sizes(cpu)
    assert {name: report[name] for name in expected} == expected
    assert report["l1d"] > 0


def test_cpus() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= nkblas.cpu.cpus <= len(allowed)
    report, _ = run(PINNED.format(cpus=allowed), prelude="")
    assert report["cpus"] == nkblas.cpu.cpus


QUOTAS = {
    "none": ("max 100000", None),
    "half a CPU": ("50000 100000", 0.5),
    "three": ("300000 100000", 3.0),
    "nonsense": ("text", None),
}


@pytest.mark.parametrize("quota", QUOTAS)
def test_quota(quota: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tightest quota of a control group and of those that contain it."""
    text, expected = QUOTAS[quota]
    files = {
        "/proc/self/cgroup": "0::/outer/inner",
        "/sys/fs/cgroup/outer/cpu.max": text,
        "/sys/fs/cgroup/outer/inner/cpu.max": "400000 100000" if expected else "max 100000",
    }
    monkeypatch.setattr(cpu, "_read_text", lambda *path: files.get(os.path.join(*path), ""))
    assert cpu.cgroup_cpu_quota() == expected
    cpus = len(os.sched_getaffinity(0))
    assert cpu.usable_cpus() == (cpus if expected is None else min(cpus, max(1, int(expected))))


@pytest.mark.parametrize("name", SUPPORTED)
def test_lower_isa(name: str) -> None:
    program = """
    multiply((5, 6, 7), (20, 40, 9))
    a = np.ones((20, 20), "float32")
    isa = nkblas.cpu.isa
    report(isa=[isa.name, isa.vector_bits, isa.registers], kernels=nkblas.explain(a, a).kernels)
    """
    report, _ = run(program, NKBLAS_ISA=name)
    assert report["isa"] == [name, ISAS[name].vector_bits, ISAS[name].registers]
    assert report["fallbacks"] == 0
    assert report["kernels"]
    base = ISAS[name].base.name  # float32 needs none of the additions
    assert all(f"_{base}_" in kernel for kernel in report["kernels"])


def test_default_isa_is_the_most_capable() -> None:
    report, _ = run("report(isa=nkblas.cpu.isa.name)", NKBLAS_ISA="")
    assert report["isa"] == SUPPORTED[-1]


def test_unknown_isa() -> None:
    error = failure("", NKBLAS_ISA="avx1024")
    assert error.startswith("ValueError: NKBLAS_ISA")
    assert all(word in error for word in ("'avx1024'", *ISAS))


@pytest.mark.parametrize("name", list(ISAS)[1:])
def test_isa_that_the_cpu_lacks(name: str) -> None:
    """On a CPU that has the features of all less capable ISAs and no others."""
    lower = list(ISAS)[: list(ISAS).index(name)]
    features = frozenset(feature for isa in lower for feature in ISAS[isa].requires)
    assert cpu._select_isa(features, "").name == lower[-1]
    with pytest.raises(ValueError, match="NKBLAS_ISA") as error:
        cpu._select_isa(features, name)
    missing = set(ISAS[name].requires) - features
    assert all(word in str(error.value) for word in (repr(name), *lower, *missing))


def test_cpu_without_any_isa() -> None:
    with pytest.raises(RuntimeError, match=next(iter(ISAS))):
        cpu._select_isa(frozenset(), "")


IMPORT = """
    import json, sys
    import numpy
    before, started = set(sys.modules), []
    events = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec")
    sys.addaudithook(lambda event, arguments: started.append(event) if event in events else None)
    import nkblas
    new = set(sys.modules) - before
    roots = sorted({name.partition(".")[0] for name in new})
    print(json.dumps({"roots": roots, "started": started}))
"""


def test_import_is_light() -> None:
    report, _ = run(IMPORT, prelude="")
    assert "nkblas" in report["roots"]
    assert not {"mlir", "subprocess", "cffi", "logging", "dataclasses"} & set(report["roots"])
    assert report["started"] == []
