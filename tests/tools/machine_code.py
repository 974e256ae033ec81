"""Compiled kernels for tests: to call them, and to inspect their disassembly."""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from nkblas.codegen import loader
from nkblas.codegen.lowering import pipeline
from nkblas.codegen.spec import KernelSpec

_folder = tempfile.TemporaryDirectory(prefix="nkblas-kernels-")


# Typed caches: specs are tuples, and specs of different types may be equal.
@functools.lru_cache(maxsize=None, typed=True)
def library(spec: KernelSpec) -> Path:
    """The shared library of a kernel, which is compiled once."""
    path = Path(_folder.name, f"{spec.symbol}.so")
    with path.open("xb") as file:
        file.write(pipeline.shared_library(spec))
    return path


@functools.lru_cache(maxsize=None, typed=True)
def function(spec: KernelSpec) -> int:
    """The address of a kernel's function."""
    return loader.load_kernel(spec, library(spec).read_bytes())


class Instruction(NamedTuple):
    """One line of a disassembly, in Intel's syntax."""

    address: int
    name: str
    operands: str


def objdump(*arguments: str) -> str:
    """The output of LLVM's or the system's objdump."""
    package = find_spec("llvm")
    folders = package.submodule_search_locations if package else None
    path = f"{folders[0]}/bin" if folders else None
    program = shutil.which("llvm-objdump", path=path) or shutil.which("objdump")
    assert program, "neither llvm-objdump nor objdump is installed"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def disassemble(specs: Iterable[KernelSpec]) -> dict[str, list[Instruction]]:
    """The instructions of each kernel's function, by its symbol."""
    listing = objdump("-d", "--no-show-raw-insn", "-M", "intel", *map(str, map(library, specs)))
    functions: dict[str, list[Instruction]] = {}
    for line in listing.splitlines():
        if label := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            code = functions.setdefault(label[1], [])
        elif found := re.match(r"\s*([0-9a-f]+):\s+(?:{vex}\s+)?([a-z]\w*)\s*([^#]*)", line):
            code.append(Instruction(int(found[1], 16), found[2], found[3]))
    return functions


def innermost_loops(code: list[Instruction]) -> Iterator[list[Instruction]]:
    """The code from the target of each backward jump to the jump, if it contains no other loop."""
    spans = []
    for jump in code:
        target = re.match(r"(0x)?([0-9a-f]+)\b", jump.operands)
        if jump.name.startswith("j") and target and int(target[2], 16) <= jump.address:
            spans.append((int(target[2], 16), jump.address))
    for start, end in spans:
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in spans):
            yield [x for x in code if start <= x.address <= end]


def touching_stack(code: list[Instruction]) -> list[Instruction]:
    """The instructions that read or write the stack."""
    has_frame = any(x.name == "mov" and x.operands.strip() == "rbp, rsp" for x in code)
    stack = r"\[(rsp|rbp)\b" if has_frame else r"\[rsp\b"
    return [x for x in code if re.search(stack, x.operands) and x.name != "lea"]
