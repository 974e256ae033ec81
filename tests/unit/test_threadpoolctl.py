"""threadpoolctl reports and limits nkblas's threads, whichever of the two is imported first."""

import shutil
from pathlib import Path

import pytest
from support import failure, run

import nkblas
from nkblas import _engine

pytest.importorskip("threadpoolctl", minversion="3.2")

PRELUDE = """
import json, sys
import numpy as np

def report(**found):
    print(json.dumps(found))
"""
ORDERS = [("nkblas", "threadpoolctl"), ("threadpoolctl", "nkblas")]
in_both_orders = pytest.mark.parametrize("order", ORDERS, ids=" first, then ".join)


def program(text: str, order: tuple[str, str]) -> dict[str, object]:
    """The report of a program that imports the two in this order."""
    imports = "".join(f"import {name}\n" for name in order)
    found, errors = run(text, prelude=PRELUDE + imports, NKBLAS_NUM_THREADS=3)
    assert errors == ""
    return dict(found)


@in_both_orders
def test_info(order: tuple[str, str]) -> None:
    text = 'report(all=[i for i in threadpoolctl.threadpool_info() if i["prefix"] == "_engine."])'
    assert program(text, order)["all"] == [
        {
            "user_api": "blas",
            "internal_api": "nkblas",
            "prefix": "_engine.",
            "filepath": str(Path(_engine.__file__).resolve()),
            "version": nkblas.__version__,
            "num_threads": 3,
            "threading_layer": "pthreads",
            "architecture": nkblas.cpu.isa.name,
        }
    ]


@in_both_orders
def test_limits(order: tuple[str, str]) -> None:
    """Limits for all libraries, for BLAS, for OpenMP, by prefix, and from `threadpool_info`."""
    text = """
        number = nkblas.get_num_threads
        limits = threadpoolctl.threadpool_limits
        x = np.ones((300, 300))
        found = [number()]
        for arguments in ((1,), (2, "blas"), (1, "openmp"), (None,), ({"_engine.": 5},)):
            with limits(*arguments):
                found.append(number())
                assert (nkblas.matmul(x, x) == 300).all()
            assert number() == 3, arguments
        with limits(2), limits("sequential_blas_under_openmp"):
            found.append(number())
        with limits(1):
            saved = threadpoolctl.threadpool_info()
        with limits(saved):
            found.append(number())
        wrapped = limits.wrap(1)(number) if hasattr(limits, "wrap") else lambda: 1
        found.append(wrapped())
        controller = threadpoolctl.ThreadpoolController().select(internal_api="nkblas")
        with controller.limit(limits=2):
            found.append(number())
        limits(1)
        found.append(number())
        report(found=found)
    """
    assert program(text, order)["found"] == [3, 1, 2, 3, 3, 5, 1, 1, 1, 2, 1]


def test_import_is_unchanged() -> None:
    """The module has its own loader and source, also after `find_spec` and after a reload."""
    text = """
        import importlib, importlib.util, inspect, linecache
        spec = importlib.util.find_spec("threadpoolctl")
        assert spec.loader.get_source("threadpoolctl").startswith('\\"\\"\\"threadpoolctl')
        assert "threadpoolctl" not in sys.modules
        import threadpoolctl
        loader = type(threadpoolctl.__loader__).__name__
        assert threadpoolctl.__spec__.loader is threadpoolctl.__loader__
        assert inspect.getsource(threadpoolctl.threadpool_info).startswith("@")

        def seen():
            return [i["internal_api"] for i in threadpoolctl.threadpool_info()].count("nkblas")

        first = seen()
        importlib.reload(threadpoolctl)
        again = seen()
        del sys.modules["threadpoolctl"]
        import threadpoolctl
        report(loader=loader, seen=[first, again, seen()])
    """
    found, errors = run(text, prelude=PRELUDE + "import nkblas\n")
    assert errors == ""
    assert found == {"loader": "SourceFileLoader", "seen": [1, 1, 1]}


def test_no_threadpoolctl() -> None:
    """Nkblas does not import it, and works where it is not installed or its import is blocked."""
    found, errors = run("report(imported='threadpoolctl' in sys.modules)")
    assert (found, errors) == ({**found, "imported": False}, "")
    missing = """
        import importlib.machinery
        finder = importlib.machinery.PathFinder
        class Without:
            def find_spec(name, path=None, target=None):
                return None if name == "threadpoolctl" else finder.find_spec(name, path, target)
        sys.meta_path[sys.meta_path.index(finder)] = Without
        import nkblas
        import threadpoolctl
    """
    error = failure(missing, prelude=PRELUDE)
    assert error == "ModuleNotFoundError: No module named 'threadpoolctl'"
    found, errors = run(
        "sys.modules['threadpoolctl'] = None; import nkblas; report(ok=True)", prelude=PRELUDE
    )
    assert (found, errors) == ({"ok": True}, "")


def test_unknown_versions() -> None:
    """Its import succeeds without `register`, and with one that fails."""
    for body, warns in (("", False), ("def register(controller): raise OSError('no')", True)):
        text = f"""
            import os, tempfile
            with tempfile.TemporaryDirectory() as folder:
                with open(os.path.join(folder, "threadpoolctl.py"), "w") as file:
                    file.write("class LibController: pass\\n{body}\\nanswer = 42\\n")
                sys.path.insert(0, folder)
                import nkblas, threadpoolctl
            report(answer=threadpoolctl.answer)
        """
        found, errors = run(text, prelude=PRELUDE)
        assert found == {"answer": 42}
        assert ("nkblas can't be registered with threadpoolctl: no" in errors) == warns


def test_another_engine(tmp_path: Path) -> None:
    """A foreign library with the engine's file name is not taken for nkblas."""
    (other,) = {Path(__import__("_ctypes").__file__)}
    copy = shutil.copy(other, tmp_path / "_engine.other.so")
    text = f"""
        import ctypes
        ctypes.CDLL({str(copy)!r})
        paths = [i["filepath"] for i in threadpoolctl.threadpool_info()]
        report(ours=sum(p.endswith("_engine.abi3.so") for p in paths), other={str(copy)!r} in paths)
    """
    found = program(text, ORDERS[0])
    assert found == {"ours": 1, "other": False}
