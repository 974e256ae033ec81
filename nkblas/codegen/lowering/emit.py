"""The forms of a kernel between MLIR and machine code, as text (``nkblas inspect``)."""

import re
import subprocess
import tempfile

from mlir.dialects import llvm

from nkblas.codegen.spec import KernelSpec
from nkblas.system.toolchain import find_disassembler

from . import pipeline


def mlir(spec: KernelSpec) -> str:
    """The module that the builder emits."""
    return str(pipeline.build(spec))


def lowered(spec: KernelSpec) -> str:
    """The module after `pipeline.PIPELINE`, in the LLVM dialect."""
    module = pipeline.build(spec)
    pipeline.lower(module)
    return str(module)


def llvm_ir(spec: KernelSpec) -> str:
    """LLVM IR, before LLVM's optimizations."""
    module = pipeline.build(spec)
    pipeline.lower(module)
    with module.context:
        return str(llvm.translate_module_to_llvmir(module.operation))


def asm(spec: KernelSpec) -> str:
    """The machine code of the function, disassembled.

    Raises
    ------
    FileNotFoundError
        No disassembler is installed.
    """
    program = find_disassembler()
    if program is None:
        raise FileNotFoundError("no disassembler: neither llvm-objdump nor objdump is in PATH")
    options = ["-d", "-M", "intel", "--no-show-raw-insn", f"--section={pipeline.SECTION}"]
    if "llvm-objdump" in program:
        options += ["--no-leading-addr", "--symbolize-operands"]
    with tempfile.TemporaryDirectory(prefix="nkblas-") as folder:
        command = [program, *options, str(pipeline.object_file(spec, folder))]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, _, code = listing.partition(f"section {pipeline.SECTION}:")
    return re.sub(r"^ +\t", "\t", code.strip("\n"), flags=re.MULTILINE)


FORMS = {"mlir": mlir, "lowered": lowered, "llvm": llvm_ir, "asm": asm}
"""The functions by the names of ``nkblas inspect --emit``."""
