"""The examples in docstrings, in README and in the other pages run."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support import ROOT, environment

import nkblas

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if BLOCK.search(page.read_text("utf-8"))
]

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(nkblas.__path__, "nkblas.")
    if name not in ("nkblas.__main__", "nkblas.engine.build")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    # doctest does not find gufuncs
    ufuncs = {x.__name__: x.__doc__ for x in vars(module).values() if isinstance(x, np.ufunc)}
    examples = doctest.DocTestFinder().find(module, globs={})
    parser = doctest.DocTestParser()
    examples += [
        parser.get_doctest(text, {}, f"{name}.{function}", None, 0)
        for function, text in ufuncs.items()
        if text
    ]
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    for test in examples:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_public_functions_have_examples() -> None:
    for name in nkblas.__all__:
        value = getattr(nkblas, name)
        assert isinstance(value, ModuleType) or value.__doc__, name
    products = ["dot", "einsum", "inner", "matmul", "matrix_power", "multi_dot", "patch", "patched"]
    for name in (*products, "tensordot", "vdot", "vecdot", "record"):
        assert ">>>" in getattr(nkblas, name).__doc__, name


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the pages: other tests must not use the plans that these tune."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page: Path, cache: Path, tmp_path: Path) -> None:
    """The code blocks of a page, one after the other, are a program."""
    blocks = BLOCK.findall(page.read_text("utf-8"))
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks), "utf-8")
    command = [sys.executable, os.fspath(program)]
    changed = environment(NKBLAS_CACHE_DIR=cache)
    done = subprocess.run(command, cwd=tmp_path, env=changed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
