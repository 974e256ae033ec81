"""Environment variables: one module reads them, empty means unset, wrong values are errors."""

import os
import re
from pathlib import Path

import pytest
from support import ROOT, failure, run

from nkblas.system import config

CONFIG = ROOT / "nkblas" / "system" / "config.py"
PASSES_ENVIRONMENT = "compiler_client.py"
"""The module that passes the whole environment on to the compile server."""

NAMES = sorted(set(re.findall(r"NKBLAS_[A-Z]+(?:_[A-Z]+)*", CONFIG.read_text("utf-8"))))


def test_one_module_reads_the_environment() -> None:
    for path in sorted((ROOT / "nkblas").rglob("*.py")):
        if path != CONFIG and path.name != PASSES_ENVIRONMENT:
            assert not re.search(r"\b(environ|getenv)\b", path.read_text("utf-8")), path
    for path in sorted((ROOT / "nkblas").rglob("*.c")):
        assert not re.search(r"\bgetenv\b", path.read_text("utf-8")), path


def test_readme_lists_them() -> None:
    rows = re.findall(r"^\| `(NKBLAS_[A-Z_]+)`", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert sorted(rows) == NAMES


def test_empty_means_unset() -> None:
    empty = dict.fromkeys([*NAMES, "OMP_NUM_THREADS"], "")
    assert config.isa_name(empty) == config.isa_name({})
    assert config.cache_size(empty) == config.cache_size({})
    assert config.jit_mode(empty) == config.jit_mode({})
    assert config.log_level(empty) == config.log_level({})
    assert config.num_threads(5, empty) == config.num_threads(5, {}) == 5
    assert config.cache_folder({**empty, "HOME": "/nowhere"}) == config.cache_folder({})


def test_default_cache_folder_is_that_of_xdg() -> None:
    home = os.path.expanduser("~/.cache/nkblas")
    assert config.cache_folder({}) == config.cache_folder({"XDG_CACHE_HOME": "x/y"}) == home
    assert config.cache_folder({"XDG_CACHE_HOME": "/x/y"}) == "/x/y/nkblas"
    assert config.cache_folder({"XDG_CACHE_HOME": "/x/y", "NKBLAS_CACHE_DIR": "~"}) == (
        os.path.expanduser("~")
    )


def test_empty_variables_of_a_process(tmp_path: Path) -> None:
    empty = {name: "" for name in NAMES if name != "NKBLAS_CACHE_DIR"}
    report, errors = run("multiply((5, 6, 7)); report()", **empty, NKBLAS_CACHE_DIR=tmp_path)
    assert (report["fallbacks"], errors) == (0, "")


@pytest.mark.parametrize("mode", config.JIT_MODES)
def test_jit_modes(mode: str) -> None:
    assert config.jit_mode({"NKBLAS_JIT": mode}) == mode


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NKBLAS_JIT", "sometimes"),
        ("NKBLAS_CACHE_SIZE", "-1"),
        ("NKBLAS_NUM_THREADS", "0"),
        ("NKBLAS_ISA", "mmx"),
        ("NKBLAS_TUNE", "yes"),
        ("NKBLAS_DOORS", "yes"),
        ("NKBLAS_SHIPPED_KERNELS", "yes"),
        ("NKBLAS_LOG", "abc"),
    ],
)
def test_wrong_values(name: str, value: str) -> None:
    """The import fails, and says what was got and what was expected."""
    error = failure("", **{name: value})
    assert error.startswith(f"ValueError: {name}: got {value!r}, expected")


@pytest.mark.parametrize(
    ("arguments", "is_set"),
    [
        (["python", "-m", "nkblas", "run", "x.py"], True),
        (["python", "/usr/bin/nkblas", "run", "x.py"], True),
        (["python", "/usr/bin/nkblas", "info"], False),
        (["python", "x.py", "nkblas", "run"], False),
        (["python"], False),
    ],
)
def test_openblas_spins_briefly_under_nkblas_run(arguments: list[str], is_set: bool) -> None:
    for before in ({}, {"OPENBLAS_THREAD_TIMEOUT": "20"}):
        environment = dict(before)
        with config.openblas_timeout(arguments, environment):
            expected = before or ({"OPENBLAS_THREAD_TIMEOUT": "17"} if is_set else {})
            assert environment == expected
        assert environment == before


def test_cache_size_is_in_mebibytes() -> None:
    assert config.cache_size({"NKBLAS_CACHE_SIZE": "3"}) == 3 << 20
    assert config.cache_size({}) == 1 << 30


def test_openmp_threads() -> None:
    assert config.num_threads(7, {"OMP_NUM_THREADS": "3,2"}) == 3
    assert config.num_threads(7, {"OMP_NUM_THREADS": "3", "NKBLAS_NUM_THREADS": "2"}) == 2
    assert config.num_threads(7, {"OMP_NUM_THREADS": "many"}) == 7
