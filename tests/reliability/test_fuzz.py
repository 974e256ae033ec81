"""Both fuzzers for a few seconds; and they find faults that are put in on purpose."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fuzz.__main__ import environment

SEED = 1
CASES = {"api": 1000, "store": 500}
"""Cases of each suite. They take a few seconds, with a cold cache mostly for compilation."""

PROGRAM = """
import json, sys
from fuzz import {suite}, batch
{fault}
print(json.dumps(batch.run("{suite}", {seed}, 0, {cases}, 60.0)))
"""


@pytest.mark.parametrize("suite", CASES)
def test_fuzz(suite: str) -> None:
    """No case is wrong, and the counts are printed."""
    arguments = f"{suite} --seed {SEED} --cases {CASES[suite]}".split()
    command = [sys.executable, "-m", "fuzz", *arguments]
    done = subprocess.run(command, env=environment(SEED, 0), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{suite}: {CASES[suite]} cases" in done.stdout
    assert ": 0 wrong" in done.stdout


def wrong(suite: str, fault: str, cases: int) -> list[str]:
    """The messages of a fuzzer on a program with a fault."""
    program = PROGRAM.format(suite=suite, fault=textwrap.dedent(fault), seed=SEED, cases=cases)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(SEED, 0), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [found["why"] for found in json.loads(done.stdout.splitlines()[-1])["wrong"]]


BROKEN_MATMUL = """
import numpy as np
numpy, nkblas = api.FUNCTIONS["matmul"]
def broken(*args, **kwargs):
    result = nkblas(*args, **kwargs)
    {change}
    return result
api.FUNCTIONS["matmul"] = numpy, broken
"""
BROKEN_IF_TRANSPOSED = BROKEN_MATMUL.format(
    change="""
    a, b = args[:2]
    arrays = all(type(x) is np.ndarray and x.ndim == 2 and x.size for x in (a, b, result))
    if arrays and a.shape == b.shape[::-1] and len(a) > 1 and {condition}:
        {change}
    """
)
SAME_ADDRESS = "a.ctypes.data == b.ctypes.data"
SAME_MEMORY = f"{SAME_ADDRESS} and a.strides == b.strides[::-1]"
SAME_VALUES = "np.array_equal(a, b.T)"
USE_FIRST_OPERAND = "result[...] = numpy(a, a.T)"
CHANGE_LAST_BIT = "if result.dtype.kind == 'f': result[0, -1] = np.nextafter(result[0, -1], 0)"
CHANGE_ELEMENT = "if result.ndim and result.size: result[(-1,) * result.ndim] += 1"
CHANGE_OPERAND = (
    "if type(args[0]) is np.ndarray and args[0].flags.carray: args[0].view('u1').flat[-1] ^= 1"
)
CHANGE_ORDER = "if type(result) is np.ndarray and result.ndim: result = result.copy('F')[..., :]"
RAISE_ERROR = "if 1 in np.shape(args[0]): raise ValueError('1')"
API_FAULTS = {
    "a number": (BROKEN_MATMUL.format(change=CHANGE_ELEMENT), "wrong, at"),
    "a byte of an operand": (BROKEN_MATMUL.format(change=CHANGE_OPERAND), "outside of its result"),
    "memory order": (BROKEN_MATMUL.format(change=CHANGE_ORDER), "strides"),
    "any strides taken for a transpose": (
        BROKEN_IF_TRANSPOSED.format(condition=SAME_ADDRESS, change=USE_FIRST_OPERAND),
        "matmul: ",
    ),
    "a bit of a matrix times its own transpose": (
        BROKEN_IF_TRANSPOSED.format(condition=SAME_MEMORY, change=CHANGE_LAST_BIT),
        "other bits than with copies",
    ),
    "a bit of one triangle": (
        BROKEN_IF_TRANSPOSED.format(condition=SAME_VALUES, change=CHANGE_LAST_BIT),
        "not symmetric",
    ),
    "an error": (BROKEN_MATMUL.format(change=RAISE_ERROR), "ValueError: 1, expected"),
    "a number of gemm": (
        """
        from fuzz import nkblas_functions
        gemm = nkblas_functions.FUNCTIONS["gemm"]
        def broken(*args, **kwargs):
            result = gemm(*args, **kwargs)
            if result.size:
                result[-1, -1] += 3
            return result
        nkblas_functions.FUNCTIONS["gemm"] = broken
        """,
        "gemm: ",
    ),
    "planning": (
        """
        from nkblas.runtime import dispatch
        def broken(problem):
            raise ZeroDivisionError
        dispatch._select = broken
        """,
        "nkblas fails: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("name", API_FAULTS)
def test_broken_calls_are_found(name: str) -> None:
    fault, message = API_FAULTS[name]
    assert any(message in why for why in wrong("api", fault, 2000))


STORE_FAULTS = {
    "a library without its digest": (
        """
        import hashlib, json
        from nkblas.cache.store import Store
        def broken(self, key, mark_used=False):
            text, library = self.folder.read(f"{key}.json", f"{key}.so")
            return json.loads(text), library
        Store.read = broken
        """,
        "other bytes",
    ),
    "a plan that can't be run": (
        """
        from nkblas.planning import measured_plans
        from nkblas.planning.schedule import Schedule
        read, infeasible_reason = measured_plans.from_text, Schedule.infeasible_reason
        def broken(*args):
            Schedule.infeasible_reason = lambda *_: ""
            try:
                return read(*args)
            finally:
                Schedule.infeasible_reason = infeasible_reason
        measured_plans.from_text = broken
        """,
        "a plan that can't be run",
    ),
    "verify that removes all plans": (
        """
        from nkblas.planning import measured_plans
        compact = measured_plans.compact
        def broken(name, cpu):
            open(name, "w").close()
            return 1
        measured_plans.compact = broken
        """,
        "removes the plans",
    ),
    "verify that repairs nothing": (
        """
        from nkblas.cache import maintenance
        maintenance._remove_files = lambda fault: fault
        """,
        "and again",
    ),
    "an error of the parser": (
        """
        from nkblas.planning import measured_plans
        parse = measured_plans.parse
        measured_plans.parse = lambda text: parse(text) if ":" in text else {}[text]
        """,
        "KeyError",
    ),
}


@pytest.mark.parametrize("name", STORE_FAULTS)
def test_broken_readers_are_found(name: str) -> None:
    fault, message = STORE_FAULTS[name]
    assert any(message in why for why in wrong("store", fault, 400))


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    """With its current case."""
    (tmp_path / "sitecustomize.py").write_text(
        "import faulthandler, sys, threading\n"
        "if 'fuzz.batch' in sys.orig_argv:\n"
        "    threading.Timer(3, faulthandler._sigsegv).start()\n"
    )
    changes = environment(SEED, 0)
    changes["PYTHONPATH"] += f":{tmp_path}"
    command = [sys.executable, "-m", "fuzz", "store", "--seed", str(SEED), "--seconds", "5"]
    done = subprocess.run(command, env={**changes}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "the process ended with -11" in done.stdout
    assert f"python -m fuzz --case 'store {SEED} " in done.stdout
