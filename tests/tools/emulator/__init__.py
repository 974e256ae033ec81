"""An emulator of the instructions that the CPU lacks, so that every kernel can be tested.

A shared library (its sources are beside this file) handles the signal of an illegal instruction:
it emulates the instruction on the saved registers, and steps over it. Preloaded into a process it
does so in that process and in its child processes::

    subprocess.run(command, env={**os.environ, **emulated()})

Instructions that the CPU has are executed by the CPU. `Machine` is for tests of the emulator.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCES = sorted(Path(__file__).parent.glob("*.c"))

# The library is for this machine only: with `native` a multiply-add is one instruction.
OPTIONS = ["-std=gnu11", "-O3", "-march=native", "-ffp-contract=off"]
OPTIONS += ["-fPIC", "-fvisibility=hidden", "-shared"]

_folder: Any = None  # a temporary folder, removed at the end of the process


@functools.cache
def library() -> Path:
    """The path of the shared library, which each process compiles once.

    Raises
    ------
    RuntimeError
        There is no C compiler, or the compilation fails.
    """
    global _folder
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("the emulator needs a C compiler: none of cc, gcc, clang is in PATH")
    _folder = tempfile.TemporaryDirectory(prefix="nkblas-emulator-")
    path = Path(_folder.name, "emulator.so")
    command = [compiler, *OPTIONS, *map(str, SOURCES), "-o", str(path), "-lm", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return path


def emulated(**changes: Any) -> dict[str, str]:
    """Environment variables with which a program can use instructions that the CPU lacks.

    Parameters
    ----------
    **changes
        More variables.
    """
    preload = " ".join(filter(None, (str(library()), os.environ.get("LD_PRELOAD"))))
    return {"LD_PRELOAD": preload, **{name: str(value) for name, value in changes.items()}}


class Machine(ctypes.Structure):
    """The registers on which the emulator works: `machine` in emulator.h."""

    _fields_ = [
        ("_zmm", ctypes.c_uint8 * (32 * 64)),
        ("k", ctypes.c_uint64 * 8),
        ("gpr", ctypes.c_uint64 * 16),  # rax rcx rdx rbx rsp rbp rsi rdi r8 ...
        ("rip", ctypes.c_uint64),
        ("rflags", ctypes.c_uint64),
        ("_signal", ctypes.c_uint32 * 3),  # used by the signal handler only
    ]

    @property
    def zmm(self) -> NDArray[np.uint8]:
        """The vector registers: a view, of shape (32, 64)."""
        return np.ctypeslib.as_array(self._zmm).reshape(32, 64)

    def emulate(self, address: int) -> bool:
        """Emulate the instruction at an address; False if it is not known."""
        self.rip = address
        return bool(ctypes.CDLL(str(library())).emulator_emulate(ctypes.byref(self)))
