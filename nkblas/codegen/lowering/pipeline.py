"""From a specification to machine code: `build`, then `lower`, LLVM and `link`.

`build` emits a module of MLIR. `lower` takes it through MLIR's passes to the LLVM dialect, LLVM's
execution engine compiles it to an object file, and `link` makes that a shared library with the
system's linker.
"""

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlir import ir as mlir
from mlir.execution_engine import ExecutionEngine
from mlir.passmanager import PassManager

from nkblas.base.isa import ISA, ISAS
from nkblas.codegen import ir
from nkblas.codegen.ir import Value
from nkblas.codegen.kernels import (
    dot,
    microkernel,
    mirror,
    packing,
    peak,
    small,
    stream,
    triangular,
)
from nkblas.codegen.spec import (
    Copy,
    Dot,
    DotStack,
    KernelSpec,
    Microkernel,
    Mirror,
    Pack,
    Peak,
    Small,
    Stream,
    Triangular,
)
from nkblas.system.toolchain import LINKERS, find_linker

PIPELINE = (
    "builtin.module(canonicalize,cse,convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "convert-vector-to-llvm{enable-x86vector},convert-to-llvm{dynamic=true},"
    "reconcile-unrealized-casts)"
)
"""MLIR's passes."""

SECTION = ".text.nkblas"
"""The section of generated functions. The execution engine adds wrappers outside of it, which the
linker drops."""


class _Kind(NamedTuple):
    """How to build one type of specification.

    Attributes
    ----------
    build : callable
        ``build(spec, isa, arguments)`` emits the body of the function; `spec` has that type.
    signature : str
        The types of the function's arguments: keys of `_ARGUMENT_TYPES`.
    """

    build: Callable[[Any, ISA, list[Value]], None]
    signature: str


_ARGUMENT_TYPES = {"i64": ir.i64, "ptr": ir.ptr}

_MICROKERNEL_SIGNATURE = "i64 ptr i64 ptr i64 ptr i64 i64 i64 ptr ptr i64 i64 ptr"

_KINDS: dict[type[KernelSpec], _Kind] = {
    Microkernel: _Kind(microkernel.build, _MICROKERNEL_SIGNATURE),
    Stream: _Kind(stream.build, _MICROKERNEL_SIGNATURE),
    Dot: _Kind(dot.build, _MICROKERNEL_SIGNATURE),
    Small: _Kind(small.build, "i64 ptr i64 ptr i64 ptr i64"),
    DotStack: _Kind(dot.build_stack, "i64 ptr i64 ptr i64 ptr i64"),
    Pack: _Kind(packing.build, "i64 i64 ptr i64 i64 ptr"),
    Copy: _Kind(packing.build_copy, "i64 i64 ptr i64 i64 ptr i64 i64"),
    Mirror: _Kind(mirror.build, "i64 i64 ptr i64 ptr i64"),
    Triangular: _Kind(triangular.build, "i64 ptr i64 i64 ptr ptr i64"),
    Peak: _Kind(peak.build, "i64 ptr"),
}


class NotLinkedError(RuntimeError):
    """No shared library can be made.

    There is no linker, the linker fails, or temporary files can't be written.
    """


def _scheduling_attributes(spec: KernelSpec, isa: ISA) -> dict[str, str | None]:
    """The attribute that names the CPU whose latencies LLVM orders instructions for.

    It is empty for the target CPU's own. Where multiply and add are two instructions of a high
    latency, the target's scheduling model moves the products so far ahead of the sums that
    registers run out; a CPU reorders them by itself. With few registers and fused instructions, the
    target's own order needs fewer registers.
    """
    if isa.schedule_cpu:
        return {"tune-cpu": isa.schedule_cpu}
    is_unfused = isinstance(spec, Microkernel | Peak) and spec.descriptor.is_unfused(isa)
    return {"tune-cpu": "generic"} if isa.mask_registers or is_unfused else {}


def build(spec: KernelSpec, name: str = "") -> Any:
    """Build the MLIR module of one kernel, in a context of its own.

    The function is named `name`, or ``spec.symbol`` if that is empty.
    """
    isa, kind = ISAS[spec.isa], _KINDS[type(spec)]
    with mlir.Context(), mlir.Location.unknown():
        module = mlir.Module.create()
        types = [_ARGUMENT_TYPES[word]() for word in kind.signature.split()]
        with mlir.InsertionPoint(module.body):
            entry = ir.create_function(
                name or spec.symbol,
                types,
                section=SECTION,
                attributes={
                    "target-cpu": isa.target_cpu,
                    "target-features": isa.target_features,  # and none of the host's
                    "prefer-vector-width": str(isa.vector_bits),
                    **_scheduling_attributes(spec, isa),
                    # The execution engine's wrappers would each be compiled with a copy of it.
                    "noinline": None,
                },
            )
        with mlir.InsertionPoint(entry):
            kind.build(spec, isa, list(entry.arguments))
            ir.return_()
        module.operation.verify()
    return module


def lower(module: Any) -> None:
    """Lower a module to the LLVM dialect, in place."""
    with module.context:
        PassManager.parse(PIPELINE).run(module.operation)


def _compile(module: Any) -> Any:
    """An execution engine with the module, which compiles it at the first look-up."""
    lower(module)
    return ExecutionEngine(module, opt_level=3, enable_object_dump=True, enable_pic=True)


def in_memory(spec: KernelSpec) -> tuple[int, Any]:
    """Compile one kernel in this process.

    Returns
    -------
    address : int
    engine : ExecutionEngine
        The kernel is valid as long as the engine lives.
    """
    # The engine looks up its own wrappers, by this prefix.
    engine = _compile(build(spec, f"_mlir_{spec.symbol}"))
    return engine.raw_lookup(spec.symbol), engine


def link(objects: Sequence[Path], symbols: Sequence[str]) -> Path:
    """Link object files to a shared library that exports `symbols` and nothing else.

    It is beside the first object file, with its name.

    Raises
    ------
    NotLinkedError
        None of `nkblas.system.toolchain.LINKERS` is installed, or the linker fails.
    """
    target = objects[0].with_suffix(".so")
    exports = objects[0].with_suffix(".map")
    exports.write_text(f"{{ global: {'; '.join(symbols)}; local: *; }};\n")
    options = ["--gc-sections", "--strip-all", f"--version-script={exports}"]
    options += ["-z", "noexecstack", "-z", "noseparate-code"]
    linker = find_linker()
    if linker is None:
        raise NotLinkedError(f"no linker: none of {', '.join(LINKERS)} is in PATH")
    name, path = linker
    if name == "cc":
        options = ["-nostdlib", *(part for o in options for part in ("-Xlinker", o))]
    command = [path, "-shared", *options, "-o", str(target), *map(str, objects)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotLinkedError(f"{' '.join(command)}: {done.stderr.strip()}")
    return target


def object_file(spec: KernelSpec, folder: str) -> Path:
    """Compile one kernel to an object file in `folder`; its function is in `SECTION`."""
    path = Path(folder, f"{spec.symbol}.o")
    engine = _compile(build(spec))
    engine.raw_lookup(spec.symbol)  # compiles
    engine.dump_to_object_file(str(path))
    return path


def shared_library(spec: KernelSpec) -> bytes:
    """Compile and link one kernel; the shared library exports ``spec.symbol``.

    Raises
    ------
    NotLinkedError
        The kernel can still be compiled `in_memory`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="nkblas-") as folder:
            return link([object_file(spec, folder)], [spec.symbol]).read_bytes()
    except OSError as error:
        raise NotLinkedError(f"can't write temporary files: {error}") from None
