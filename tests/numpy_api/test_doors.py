"""Doors: what NumPy's and SciPy's compiled modules call through BLAS runs on nkblas, and back."""

import _ctypes
import ctypes
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import ROOT, exact, integers, run

import nkblas
from nkblas._engine import ffi, lib
from nkblas.api.doors import STATES, _fold

scipy_blas = pytest.importorskip("scipy.linalg.blas")
cython_blas = importlib.import_module("scipy.linalg.cython_blas")

CORE, FBLAS, CYTHON = (
    module.__name__ for module in (np._core._multiarray_umath, scipy_blas._fblas, cython_blas)
)
TYPES = {"float32": "s", "float64": "d"}
RTLD_LAZY = 1
PYTHONPATH = os.pathsep.join(
    map(str, (ROOT, ROOT / "tests" / "tools", ROOT / "tests" / "numpy_api"))
)
"""For programs that import this module."""


@pytest.fixture(autouse=True)
def assert_restored() -> Iterator[None]:
    yield
    nkblas.unpatch()
    of_packages = [x for x in nkblas.Doors() if x.module.startswith(("numpy.", "scipy."))]
    assert {door.state for door in of_packages} <= {"closed", "read-only"}


def require(module: str, routine: str) -> None:
    """Skip a test of a door that this installation of NumPy or SciPy lacks, or protects."""
    with nkblas.patched() as doors:
        found = [door for door in doors if door.module == module and routine in door.symbol]
    states = {door.state for door in found}
    if states != {"open"}:
        pytest.skip(f"{module}: the door of {routine} is {' '.join(states) or 'absent'}")


def calls(module: str, routine: str) -> int:
    doors = (door for door in nkblas.Doors() if door.module == module)
    return sum(door.calls for door in doors if routine in door.symbol)


class Slot(NamedTuple):
    """The memory of a door."""

    path: str
    symbol: str
    address: int
    state: str

    @property
    def content(self) -> bytes:
        return ctypes.string_at(self.address, 8)


def find_slots(path: str = "") -> list[Slot]:
    """The doors of libraries whose path begins like this."""
    array = ffi.new("nk_door[]", 5000)
    count = lib.nk_list_doors(array, 5000)
    slots = [
        Slot(
            ffi.string(door.path).decode(),
            ffi.string(door.symbol).decode(),
            int(ffi.cast("uintptr_t", door.slot)),
            STATES[door.state],
        )
        for door in array[0:count]
    ]
    return [slot for slot in slots if slot.path.startswith(path)]


def contents() -> dict[int, bytes]:
    return {slot.address: slot.content for slot in find_slots()}


# ---- through every door


@pytest.mark.parametrize("dtype", TYPES)
def test_ndarray_dot(dtype: str) -> None:
    routine = f"{TYPES[dtype]}gemm"
    require(CORE, routine)
    a, b = integers(9, 11, dtype=dtype), integers(11, 13, dtype=dtype, seed=1)
    before = calls(CORE, routine), nkblas.stats()
    with nkblas.patched():
        c = a.dot(b)
        assert np.array_equal(c, exact(a, b))
        assert np.array_equal(b.T.dot(a.T), c.T)
        assert np.array_equal(a[::2].dot(b[:, :5]), exact(a[::2], b[:, :5]))
        assert np.array_equal(a.dot(a.T), exact(a, a.T))
    after = calls(CORE, routine), nkblas.stats()
    assert after[0] - before[0] == 3
    assert after[1]["calls"] - before[1]["calls"] >= 3
    assert after[1]["fallbacks"] == before[1]["fallbacks"]
    a.dot(b)
    assert calls(CORE, routine) == after[0]


@pytest.mark.parametrize("dtype", TYPES)
def test_scipy_blas(dtype: str) -> None:
    routine = f"{TYPES[dtype]}gemm"
    require(FBLAS, routine)
    gemm = getattr(scipy_blas, routine)
    a, b = integers(9, 11, dtype=dtype), integers(13, 11, dtype=dtype, seed=1)
    c = integers(9, 13, dtype=dtype, seed=2)
    before = calls(FBLAS, routine)
    with nkblas.patched():
        got = gemm(2, a, b, beta=-3, c=c, trans_b=1)
    assert np.array_equal(got, 2 * exact(a, b.T) - 3 * c)
    assert calls(FBLAS, routine) - before == 1


def cython_gemm() -> Any:
    """`dgemm` of SciPy's Cython interface, as other packages get it."""
    capsule = cython_blas.__pyx_capi__["dgemm"]
    get_name, get_pointer = (
        ctypes.pythonapi.PyCapsule_GetName,
        ctypes.pythonapi.PyCapsule_GetPointer,
    )
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)
    return function(get_pointer(capsule, get_name(capsule)))


def test_cython_blas() -> None:
    require(CYTHON, "dgemm")
    a, b = integers(16, 15), integers(15, 14, seed=1)
    c = np.full((16, 14), np.nan)
    m, n, k = (ctypes.byref(ctypes.c_int(x)) for x in (16, 14, 15))
    one, zero = (ctypes.byref(ctypes.c_double(x)) for x in (1, 0))
    before = calls(CYTHON, "dgemm")
    with nkblas.patched():  # C.T = B.T @ A.T, by columns
        pointers = [x.ctypes.data for x in (b, a, c)]
        cython_gemm()(
            *(b"n", b"n", n, m, k, one, pointers[0], n, pointers[1], k, zero, pointers[2], n)
        )
    assert np.array_equal(c, exact(a, b))
    assert calls(CYTHON, "dgemm") - before == 1


def test_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    require(CYTHON, "dgemm")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 8)) + 30 * rng.integers(0, 2, size=(600, 8))
    estimator = cluster.KMeans(8, init=points[:8], n_init=1, algorithm="lloyd")
    expected = estimator.fit(points)
    centers, labels = expected.cluster_centers_, expected.labels_
    before = calls(CYTHON, "dgemm")
    with nkblas.patched():
        estimator.fit(points)
    assert calls(CYTHON, "dgemm") > before
    assert np.array_equal(estimator.labels_, labels)
    np.testing.assert_allclose(estimator.cluster_centers_, centers)


# ---- open and closed


def test_slots_are_restored() -> None:
    integers(3, 3).dot(integers(3, 3))
    with nkblas.patched():
        pass
    before = contents()
    with nkblas.patched() as doors:
        during = contents()
        open_doors = [door for door in doors if door.state == "open"]
    changed = [address for address in before if before[address] != during[address]]
    assert len(changed) == len(open_doors) > 0
    assert contents() == before


def test_nested_contexts() -> None:
    def is_open() -> bool:
        return "open" in {door.state for door in nkblas.Doors()}

    with nkblas.patched(doors=False):
        assert not is_open()
        with nkblas.patched():
            assert is_open()
        assert not is_open()
        nkblas.patch()
        assert is_open()
        nkblas.patch(doors=False)
        assert not is_open()
        nkblas.patch()
    assert is_open()
    nkblas.unpatch()
    assert not is_open()


def test_environment_keeps_them_closed() -> None:
    program = """
    doors = nkblas.patch()
    a, b = operands(9, 11, 13)
    before = nkblas.stats()["calls"]
    a.dot(b)
    dots = nkblas.stats()["calls"] - before
    a @ b
    report(doors=len(doors), dots=dots, more=nkblas.stats()["calls"] - before - dots)
    """
    closed, _ = run(program, NKBLAS_DOORS="0")
    assert (closed["doors"], closed["dots"], closed["more"]) == (0, 0, 1)


def test_fallbacks_are_counted_once(tmp_path: Path) -> None:
    """NumPy's own loop, which does what nkblas leaves to it, calls BLAS through a door."""
    program = """
    doors = nkblas.patch()
    a, b = operands(9, 11, 13)
    expected = a.astype("d") @ b.astype("d")
    counts = []
    for product in (np.matmul, np.ndarray.dot):
        before, through = nkblas.stats(), sum(door.calls for door in doors)
        np.testing.assert_allclose(product(a, b), expected, rtol=1e-5)
        after = nkblas.stats()
        counts.append([after[name] - before[name] for name in ("calls", "fallbacks")])
        counts[-1].append(sum(door.calls for door in doors) - through)
    report(counts=counts)
    """
    require(CORE, "sgemm")
    never = {"NKBLAS_JIT": "never", "NKBLAS_SHIPPED_KERNELS": "0"}
    found, _ = run(program, **never, NKBLAS_CACHE_DIR=str(tmp_path))
    assert found["counts"] == [[1, 1, 0], [1, 1, 1]]


def test_small_products() -> None:
    """They go on to NumPy's BLAS, which needs less time for them than the engine for its plan."""
    require(CORE, "dgemm")
    a, x = integers(5, 5), integers(5)
    with nkblas.patched():
        before = calls(CORE, "dgem"), nkblas.stats()
        products = a.dot(a), a.dot(x)
        after = calls(CORE, "dgem"), nkblas.stats()
    assert after == (before[0] + 2, before[1])
    assert np.array_equal(products[0], exact(a, a))
    assert np.array_equal(products[1], exact(a, x))


def test_transpose_that_nkblas_lacks() -> None:
    """OpenBLAS has the conjugate without a transpose, as an extension."""
    require(CORE, "zgemm")
    library = ctypes.CDLL(nkblas.get_library())
    x = np.array([[1 + 2j, 3], [-1j, 2 - 1j]])
    c, one = np.zeros((2, 2), complex), np.ones(1, complex)
    n, (a, b, alpha, out) = ctypes.c_int64(2), (y.ctypes.data for y in (x, x, one, c))
    pointers = [ctypes.c_void_p(y) for y in (alpha, a, b, out)]
    call = library.cblas_zgemm64_
    call(101, 114, 111, n, n, n, pointers[0], pointers[1], n, pointers[2], n, pointers[0],
         pointers[3], n)  # fmt: skip
    assert np.array_equal(c, x.conj() @ x)


def test_child_of_a_fork() -> None:
    program = """
    import scipy.linalg.blas as blas
    doors = nkblas.patch()
    a, b = operands(9, 11, 13)
    exact = a @ b

    def check(state):
        before = nkblas.stats()["calls"]
        assert np.array_equal(blas.sgemm(1, a, b), exact) and np.array_equal(a.dot(b), exact)
        found = {x.state for x in doors if x.module == "scipy.linalg._fblas"}
        return found == {state} and nkblas.stats()["calls"] - before == 2 * (state == "open")

    before = check("open")
    child = os.fork()
    if not child:
        ok = check("open")
        nkblas.unpatch()
        os._exit(0 if ok and check("closed") else 1)
    _, status = os.waitpid(child, 0)
    report(status=status, parent=[before, check("open")])
    """
    require(FBLAS, "sgemm")
    found, _ = run(program)
    assert (found["status"], found["parent"]) == (0, [True, True])


def test_engine_that_is_loaded_globally() -> None:
    """Its names are in the search of the loader, then."""
    program = """
    import ctypes
    ctypes.CDLL(nkblas.get_library(), ctypes.RTLD_GLOBAL)
    import scipy.linalg.blas as blas
    a, b = operands(9, 11, 13)

    def calls():
        before = nkblas.stats()["calls"]
        blas.sgemm(1, a, b), a.dot(b)
        return nkblas.stats()["calls"] - before

    counts = [calls()]
    nkblas.patch()
    counts.append(calls())
    nkblas.unpatch()
    report(counts=counts + [calls()])
    """
    require(FBLAS, "sgemm")
    found, _ = run(program)
    assert found["counts"] == [0, 2, 0]


IMPORTS = """
import ctypes

def states(name="scipy.linalg._fblas"):
    found = {x.state for x in nkblas.Doors() if x.module == name and "gemm" in x.symbol}
    return " ".join(sorted(found)) or "unknown"

def dot():
    a, b = operands(9, 11, 13)
    a, b = a.astype("d"), b.astype("d")
    import scipy.linalg.blas as blas
    before = nkblas.stats()["calls"]
    assert np.array_equal(blas.dgemm(1, a, b), a @ b)
    return nkblas.stats()["calls"] - before
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    {
        "after patch": ("nkblas.patch(); import scipy.linalg", "open"),
        "after unpatch": ("nkblas.patch(); nkblas.unpatch(); import scipy.linalg", "unknown"),
        "while patched": ("nkblas.patch(); import scipy.linalg; nkblas.unpatch()", "closed"),
        "before patch": ("import scipy.linalg; nkblas.patch()", "open"),
        "bound before patch": ("dot(); nkblas.patch()", "open"),
        "bound while patched": ("nkblas.patch(); dot(); nkblas.unpatch(); dot()", "closed"),
        "between": (
            "nkblas.patch(); nkblas.unpatch(); import scipy.linalg; nkblas.patch()",
            "open",
        ),
        "again": (
            "nkblas.patch(); import scipy.linalg; nkblas.unpatch(); dot(); nkblas.patch()",
            "open",
        ),
    }.items(),
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_order_of_imports(program: str, expected: tuple[str, str]) -> None:
    require(FBLAS, "dgemm")
    code, state = expected
    found, _ = run(f"{IMPORTS}\n{code}\nreport(state=states())".replace("\n", "\n    "))
    assert found["state"] == state, program


# ---- the import hook


def test_imports_look_as_without_doors() -> None:
    program = """
    import importlib, importlib.metadata, importlib.util, sys
    nkblas.patch()
    found = importlib.util.find_spec("scipy.linalg._fblas")
    import scipy.linalg
    from importlib.machinery import ExtensionFileLoader
    modules = [sys.modules[x] for x in ("scipy.linalg._fblas", "scipy.linalg.cython_blas")]
    specs = [x.__spec__ for x in modules]
    loaders = [x.loader for x in specs] + [x.__loader__ for x in modules]
    assert found.origin == specs[0].origin
    assert isinstance(found.loader, ExtensionFileLoader)
    assert found.loader.get_filename("scipy.linalg._fblas") == found.origin
    other = importlib.util.module_from_spec(found)
    assert type(found.loader) is type(other.__loader__) is ExtensionFileLoader
    reloaded = importlib.reload(modules[1])
    loaders += [reloaded.__spec__.loader, reloaded.__loader__]
    importlib.invalidate_caches()
    report(
        loaders=[type(x) is ExtensionFileLoader for x in loaders],
        version=importlib.metadata.version("scipy") == scipy.__version__,
        finders=len([x for x in sys.meta_path if type(x).__module__.startswith("nkblas.")]),
        missing=importlib.util.find_spec("scipy.linalg.nothing") is None,
    )
    """
    report, _ = run(program)
    assert report["loaders"] == [True] * 6
    assert (report["version"], report["finders"], report["missing"]) == (True, 2, True)


@pytest.mark.parametrize("position", [0, 1])
def test_other_finders(position: int) -> None:
    """One that delegates to all others, too, before or after this one; and one of an old kind."""
    program = f"""
    import importlib.util

    class Old:
        def find_module(self, name, path=None):
            return None

    class Delegating:
        names = []
        def find_spec(self, name, path=None, target=None):
            if not name.startswith("scipy.") or name in self.names:
                return None
            self.names.append(name)
            others = [x for x in sys.meta_path if x is not self and hasattr(x, "find_spec")]
            found = [x.find_spec(name, path, target) for x in others]
            self.names.remove(name)
            return next(filter(None, found), None)

    nkblas.patch()
    sys.meta_path.insert({position}, Delegating())
    if sys.version_info >= (3, 12):
        sys.meta_path.append(Old())
    import scipy.linalg
    states = {{x.state for x in nkblas.Doors() if x.module == "scipy.linalg._fblas"}}
    report(states=sorted(states))
    """
    require(FBLAS, "dgemm")
    report, _ = run(program)
    assert report["states"] == ["open"]


def test_import_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise ImportError("damaged")

    with nkblas.patched():
        spec = importlib.util.find_spec("scipy.linalg._flapack")
        assert spec is not None
        monkeypatch.setattr(ExtensionFileLoader, "create_module", fail)
        with pytest.raises(ImportError, match="damaged"):
            spec.loader.create_module(spec)  # type: ignore[union-attr]
        assert type(spec.loader) is ExtensionFileLoader


# ---- the table


def test_table() -> None:
    with nkblas.patched() as doors:
        integers(9, 11).dot(integers(11, 13))
        text, states = str(doors), {door.state for door in doors}
    assert CORE in text
    assert all(state in text for state in states)
    assert len(doors) == len(list(doors)) == len(doors[:])
    assert doors[0] == next(iter(doors))
    assert f"{len(doors)} " in repr(doors) or len(states) > 1
    if "open" in states and "closed" not in {doors[0].state}:
        assert "gemm" in text


def test_names_in_the_table_are_short() -> None:
    types = "sdcz"
    names = [f"scipy_cblas_{x}{y}64_" for y in ("gemm", "gemv") for x in types]
    assert _fold(names) == "cblas_?{gemm,gemv}64_"
    names = [f"{x}{y}_" for y in ("gemm", "syr2k") for x in types] + ["zherk_", "dgemm_64_"]
    assert _fold(names) == "?{gemm,herk,syr2k}_  ?gemm_64_"


def test_command_line() -> None:
    command = [sys.executable, "-m", "nkblas", "info", "--doors"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert CORE in output
    assert FBLAS in output
    assert CYTHON in output


# ---- libraries of all kinds

compiler = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(not compiler, reason="there is no C compiler")

OTHER_BLAS = """
#include <stddef.h>
int other_calls;
void cblas_dgemm(int order, int ta, int tb, int m, int n, int k, double alpha, const double *a,
                 int lda, const double *b, int ldb, double beta, double *c, int ldc)
{
    other_calls++;
    int rows = order == 101, a_rows = rows == (ta == 111), b_rows = rows == (tb == 111);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0, *x = rows ? &c[i * ldc + j] : &c[i + j * ldc];
            for (int p = 0; p < k; p++)
                sum += a[a_rows ? i * lda + p : i + p * lda]
                       * b[b_rows ? p * ldb + j : p + j * ldb];
            *x = alpha * sum + (beta ? beta * *x : 0);
        }
}
void hook(void) {}
"""

CALLER = """
typedef void gemm(int, int, int, int, int, int, double, const double *, int, const double *, int,
                  double, double *, int);
gemm cblas_dgemm;
#ifdef TABLE
gemm *volatile table[] = {0, cblas_dgemm};
#define cblas_dgemm table[1]
#endif
double call(void)
{
    double a[144], b[144], c[144] = {0};
    for (int i = 0; i < 144; i++)
        a[i] = 2, b[i] = 3;
    cblas_dgemm(101, 111, 111, 12, 12, 12, 1, a, 12, b, 12, 0, c, 12);
    return c[0];
}
"""

KINDS: dict[str, tuple[list[str], str]] = {
    "lazy": (["-Wl,-z,lazy"], "open"),
    "full RELRO": (["-Wl,-z,now,-z,relro"], "read-only"),
    "bound at once": (["-Wl,-z,now,-z,norelro"], "open"),
    "without PLT": (["-fno-plt", "-Wl,-z,norelro"], "open"),
    "without PLT, full RELRO": (["-fno-plt", "-Wl,-z,now,-z,relro"], "read-only"),
    "table": (["-DTABLE"], "open"),
}


class Library:
    """A library that calls the function of another one; it is in a folder of its own."""

    def __init__(self, folder: Path, *flags: str, blas: str = "other") -> None:
        self.folder = folder / "package"
        self.folder.mkdir()
        other = compile_library(folder / f"lib{blas}.so", OTHER_BLAS)
        rpath = f"-Wl,-rpath,{folder}"
        path = compile_library(self.folder / "caller.so", CALLER, *flags, str(other), rpath)
        self.other, self.caller = ctypes.CDLL(str(other)), ctypes.CDLL(str(path), RTLD_LAZY)
        self.caller.call.restype = ctypes.c_double

    def open(self) -> None:
        assert lib.nk_open_doors(os.fsencode(self.folder) + b"\0") == 0

    def keep_open(self) -> None:
        assert lib.nk_keep_doors_open(os.fsencode(self.folder) + b"\0") == 0

    def close(self) -> None:
        lib.nk_close_doors()

    def call(self) -> str:
        """Which library does a product."""
        before = ctypes.c_int.in_dll(self.other, "other_calls").value
        result = self.caller.call()
        is_other = ctypes.c_int.in_dll(self.other, "other_calls").value > before
        assert result == 72
        return "other" if is_other else "nkblas"

    @property
    def slot(self) -> Slot:
        (slot,) = find_slots(f"{self.folder}/")
        return slot

    @property
    def word(self) -> Any:
        """The slot as a number that can be changed."""
        return ctypes.c_size_t.from_address(self.slot.address)

    def address(self, name: str) -> int:
        return ctypes.cast(getattr(self.other, name), ctypes.c_void_p).value or 0


def compile_library(path: Path, source: str, *arguments: str) -> Path:
    command = [compiler or "cc", "-shared", "-fPIC", "-O1", "-o", str(path), "-xc", "-", "-xnone"]
    subprocess.run([*command, *arguments], input=source.encode(), check=True)
    return path


@needs_compiler
@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_libraries(kind: str, is_bound: bool, tmp_path: Path) -> None:
    flags, state = KINDS[kind]
    library = Library(tmp_path, *flags)
    if is_bound:
        assert library.call() == "other"
    library.open()
    library.close()
    before = library.slot.content
    for _ in range(3):
        library.open()
        assert library.slot.state == state
        assert library.call() == ("nkblas" if state == "open" else "other")
        library.close()
        assert library.slot.state == ("closed" if state == "open" else state)
        assert library.slot.content == before
    assert library.call() == "other"


@needs_compiler
def test_symbol_that_is_bound_while_the_door_opens(tmp_path: Path) -> None:
    """Another thread was about to bind it, and closes the door that way."""
    library = Library(tmp_path, "-Wl,-z,lazy")
    library.open()
    for _ in range(2):
        library.word.value = library.address("cblas_dgemm")
        assert library.slot.state == "closed"
        library.keep_open()
        assert library.call() == "nkblas"
    library.close()
    assert library.word.value == library.address("cblas_dgemm")
    library.open()
    library.word.value = library.address("cblas_dgemm")
    library.close()
    library.keep_open()  # they are not open
    assert library.call() == "other"


@needs_compiler
def test_doors_of_others_are_left_alone(tmp_path: Path) -> None:
    library = Library(tmp_path, "-Wl,-z,lazy")
    library.call()
    library.open()
    library.close()
    hook, original = library.address("hook"), library.word.value
    library.word.value = hook
    library.open()
    assert (library.slot.state, library.word.value) == ("foreign", hook)
    library.word.value = original
    library.open()
    assert library.call() == "nkblas"
    library.word.value = hook
    library.close()
    assert (library.slot.state, library.word.value) == ("foreign", hook)


@needs_compiler
def test_other_size_of_integers(tmp_path: Path) -> None:
    library = Library(tmp_path, blas="my_ilp64")
    library.open()
    assert library.slot.state == "unsupported"
    assert library.call() == "other"


@needs_compiler
def test_functions_that_nkblas_lacks(tmp_path: Path) -> None:
    library = Library(tmp_path, "-Dcblas_dgemm=cblas_dfoo", "-Wl,--unresolved-symbols=ignore-all")
    library.open()
    assert not find_slots(f"{library.folder}/")


@needs_compiler
def test_library_that_is_unloaded(tmp_path: Path) -> None:
    """A library whose doors are known stays in memory."""
    library = Library(tmp_path)
    library.open()
    _ctypes.dlclose(library.caller._handle)
    library.close()
    assert library.slot.state == "closed"


# ---- threads

THREAD = """
#include <pthread.h>
typedef void gemm(const char *, const char *, int *, int *, int *, double *, double *, int *,
                  double *, int *, double *, double *, int *);
static gemm *function;
static double a[33 * 33], b[33 * 33], c[33 * 33];
static void *work(void *unused)
{
    int n = 33;
    double one = 1, zero = 0;
    function("n", "n", &n, &n, &n, &one, a, &n, b, &n, &zero, c, &n);
    return unused;
}
double multiply_in_a_thread(void *address)
{
    pthread_t thread;
    function = address;
    for (int i = 0; i < 33 * 33; i++)
        a[i] = 1, b[i] = 2;
    if (pthread_create(&thread, NULL, work, NULL) || pthread_join(thread, NULL))
        return -1;
    return c[33 * 33 - 1];
}
"""


@needs_compiler
def test_thread_of_c_for_which_the_gil_is_held(tmp_path: Path) -> None:
    """It can't wait for a plan: the first product is left to the other BLAS."""
    require(CYTHON, "dgemm")
    compile_library(tmp_path / "thread.so", THREAD, "-pthread")
    program = """
    import ctypes
    from test_doors import cython_gemm
    library = ctypes.PyDLL(os.environ["LIBRARY"])  # it holds the GIL
    library.multiply_in_a_thread.restype = ctypes.c_double
    library.multiply_in_a_thread.argtypes = [ctypes.c_void_p]
    address = ctypes.cast(cython_gemm(), ctypes.c_void_p)
    nkblas.patch()
    results = [library.multiply_in_a_thread(address)]
    first = nkblas.stats()
    results += [library.multiply_in_a_thread(address) for _ in range(3)]
    report(results=results, first=first)
    """
    found, _ = run(program, PYTHONPATH=PYTHONPATH, LIBRARY=tmp_path / "thread.so")
    assert found["results"] == [66] * 4
    assert (found["first"]["calls"], found["first"]["fallbacks"]) == (1, 1)
    assert (found["calls"], found["fallbacks"]) == (4, 1)


CYCLES = """
import ctypes, importlib
import scipy.linalg.blas as blas, scipy.linalg.cython_blas as cython_blas
from test_doors import contents, cython_gemm

MODULES = (
    "scipy.integrate", "scipy.odr", "scipy.optimize", "scipy.sparse.linalg", "scipy.interpolate",
    "scipy.special", "scipy.stats", "scipy.fft", "scipy.ndimage", "scipy.signal", "scipy.spatial",
    "scipy.cluster.hierarchy", "sklearn.utils._cython_blas",
)
x, y = operands(67, 19, 71)
exact = x.astype("d") @ y.astype("d")
wide_x, wide_y = x.astype("d"), y.astype("d")
gemm, stop, faults, rounds = cython_gemm(), False, [], [0] * 8

def by_cython():
    c = np.full((67, 19), np.nan)
    m, n, k = (ctypes.byref(ctypes.c_int(size)) for size in (67, 19, 71))
    one, zero = (ctypes.byref(ctypes.c_double(value)) for value in (1, 0))
    pointers = [array.ctypes.data for array in (wide_y, wide_x, c)]
    gemm(b"n", b"n", n, m, k, one, pointers[0], n, pointers[1], k, zero, pointers[2], n)
    return c

calls = [
    lambda: x.dot(y),
    lambda: wide_x.dot(wide_y),
    lambda: blas.sgemm(1, x, y),
    lambda: blas.dgemm(1, wide_x, wide_y),
    by_cython,
    lambda: np.stack([wide_x.dot(column) for column in wide_y.T], 1),
    lambda: x @ y,
    lambda: np.dot(wide_x, wide_y),
]

def by_scikit_learn():
    wrapped = sys.modules["sklearn.utils._cython_blas"]
    c = np.zeros(x.shape[:1] + y.shape[1:])
    no, rows = wrapped.BLAS_Trans.NoTrans, wrapped.BLAS_Order.RowMajor
    wrapped._gemm_memview(no, no, 1.0, wide_x, wide_y, 0.0, c)
    return c

def work(i):
    while not stop:
        if not np.array_equal(calls[i](), exact):
            faults.append(i)
        rounds[i] += 1

def load():
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        if name.startswith("sklearn"):
            calls[6] = by_scikit_learn
        time.sleep(PAUSE)

[call() for call in calls]
nkblas.patch()
nkblas.unpatch()
[call() for call in calls]
before = contents()
workers = [threading.Thread(target=work, args=[i]) for i in range(8)]
importer = threading.Thread(target=load)
[thread.start() for thread in [*workers, importer]]
begin = time.monotonic()
cycle = 0
while (cycle < COUNT or importer.is_alive()) and time.monotonic() - begin < SECONDS:
    nkblas.patch()
    time.sleep(0.001)
    nkblas.unpatch()
    time.sleep(0.001)
    cycle += 1
seconds = time.monotonic() - begin
importer.join()
stop = True
[thread.join() for thread in workers]
after = contents()
doors = nkblas.Doors()
kept = {address: content for address, content in after.items() if address in before}
report(faults=faults, rounds=rounds, cycles=cycle, same=kept == before,
       new=len(after) - len(kept), states=sorted({x.state for x in doors}), seconds=seconds,
       by_door={x.symbol: x.calls for x in doors if x.calls})
"""


def cycles(count: int, seconds: float) -> Any:
    """Patch and unpatch while 8 threads call through every door and modules are imported."""
    constants = f"COUNT, SECONDS, PAUSE = {count}, {seconds}, {0.1 if count < 500 else 1}\n"
    report, _ = run(constants + CYCLES, PYTHONPATH=PYTHONPATH)
    return report


def test_patch_and_unpatch_while_threads_call() -> None:
    require(FBLAS, "dgemm")
    found = cycles(100, 60)
    assert found["cycles"] >= 100
    assert found["faults"] == []
    assert found["same"]
    assert found["states"] == ["closed"]
    assert found["new"] > 0
    assert min(found["rounds"]) > 0
    assert any("gemm" in name for name in found["by_door"])


if __name__ == "__main__":
    print(json.dumps(cycles(int(sys.argv[1]), float(sys.argv[2])), indent=1))
