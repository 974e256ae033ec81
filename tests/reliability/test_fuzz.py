"""Both fuzzers for a few seconds, and that they find what is broken on purpose."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fuzz.__main__ import environment

SEED = 1
CASES = {"api": 1000, "store": 500}
"""What takes a few seconds; most of it, where no kernels are kept, to compile these."""

COMMON = """
import json, sys
from fuzz import {suite}, batch
{fault}
print(json.dumps(batch.run("{suite}", {seed}, 0, {cases}, 60.0)))
"""


@pytest.mark.parametrize("suite", CASES)
def test_fuzz(suite: str) -> None:
    """It tells which cases were wrong, and what runs them again."""
    asked = f"{suite} --seed {SEED} --cases {CASES[suite]}".split()
    command = [sys.executable, "-m", "fuzz", *asked]
    done = subprocess.run(command, env=environment(SEED, 0), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{suite}: {CASES[suite]} cases" in done.stdout
    assert ": 0 wrong" in done.stdout


def wrong(suite: str, fault: str, cases: int) -> list[str]:
    """What a fuzzer finds where a fault is put in."""
    program = COMMON.format(suite=suite, fault=textwrap.dedent(fault), seed=SEED, cases=cases)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(SEED, 0), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [found["why"] for found in json.loads(done.stdout.splitlines()[-1])["wrong"]]


WRAPPED = """
import numpy as np
numpy, nkblas = api.FUNCTIONS["matmul"]
def broken(*args, **kwargs):
    result = nkblas(*args, **kwargs)
    {what}
    return result
api.FUNCTIONS["matmul"] = numpy, broken
"""
LAST = "if result.ndim and result.size: result[(-1,) * result.ndim] += 1"
BYTE = "if type(args[0]) is np.ndarray and args[0].flags.carray: args[0].view('u1').flat[-1] ^= 1"
OUT = "if type(result) is np.ndarray and result.ndim: result = result.copy('F')[..., :]"
RAISE = "if 1 in np.shape(args[0]): raise ValueError('1')"
API = {
    "a number": (WRAPPED.format(what=LAST), "wrong, at"),
    "a byte of an operand": (WRAPPED.format(what=BYTE), "outside of its result"),
    "memory order": (WRAPPED.format(what=OUT), "strides"),
    "an error": (WRAPPED.format(what=RAISE), "ValueError: 1, expected"),
    "a number of gemm": (
        """
        from fuzz import own
        gemm = own.FUNCTIONS["gemm"]
        def broken(*args, **kwargs):
            result = gemm(*args, **kwargs)
            if result.size:
                result[-1, -1] += 3
            return result
        own.FUNCTIONS["gemm"] = broken
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


@pytest.mark.parametrize("name", API)
def test_broken_calls_are_found(name: str) -> None:
    fault, told = API[name]
    assert any(told in why for why in wrong("api", fault, 600))


STORE = {
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
    "verify that takes all plans": (
        """
        from nkblas.planning import measured_plans
        compact = measured_plans.compact
        def broken(name, cpu):
            open(name, "w").close()
            return 1
        measured_plans.compact = broken
        """,
        "away",
    ),
    "verify that leaves what it finds": (
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


@pytest.mark.parametrize("name", STORE)
def test_broken_readers_are_found(name: str) -> None:
    fault, told = STORE[name]
    assert any(told in why for why in wrong("store", fault, 400))


def test_a_process_that_dies_is_told_of(tmp_path: Path) -> None:
    """With the case that it was at."""
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
