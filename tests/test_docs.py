"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import numpy as np
import pytest

import nkblas

MODULES = [
    name
    for _, name, _ in pkgutil.iter_modules(nkblas.__path__, "nkblas.")
    if name != "nkblas.__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    # doctest looks past gufuncs and other functions in C
    others = {x.__name__: x.__doc__ for x in vars(module).values() if isinstance(x, np.ufunc)}
    found = doctest.DocTestFinder().find(module, globs={})
    parser = doctest.DocTestParser()
    found += [
        parser.get_doctest(text, {}, f"{name}.{function}", None, 0)
        for function, text in others.items()
        if text
    ]
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_public_functions_have_examples() -> None:
    for name in nkblas.__all__:
        thing = getattr(nkblas, name)
        assert isinstance(thing, ModuleType) or thing.__doc__, name
    family = ["dot", "einsum", "inner", "matmul", "matrix_power", "multi_dot", "patch", "patched"]
    for name in (*family, "tensordot", "vdot", "vecdot", "record"):
        assert ">>>" in getattr(nkblas, name).__doc__, name
