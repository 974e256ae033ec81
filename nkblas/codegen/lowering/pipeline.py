"""From a spec to a shared library's bytes: builder, MLIR passes, LLVM, the system's linker.

`build` → `lower` → LLVM → `link`.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from mlir import ir as mlir
from mlir.execution_engine import ExecutionEngine
from mlir.passmanager import PassManager

from nkblas.base.isa import ISA, ISAS
from nkblas.codegen import ir
from nkblas.codegen.kernels import dot, microkernel, packing, small, stream
from nkblas.codegen.spec import Copy, Dot, KernelSpec, Microkernel, Pack, Peak, Small, Stream
from nkblas.system.toolchain import LINKERS, find_linker

PIPELINE = (
    "builtin.module(canonicalize,cse,convert-scf-to-cf,expand-strided-metadata,lower-affine,"
    "convert-vector-to-llvm{enable-x86vector},convert-to-llvm{dynamic=true},"
    "reconcile-unrealized-casts)"
)

SECTION = ".text.nkblas"
"""The section of generated functions. The execution engine adds wrappers outside of it, which the
linker drops."""

MULTIPLY = "i64 ptr i64 ptr i64 ptr i64 i64 i64 ptr ptr i64 i64 ptr"

SIGNATURES = {
    Microkernel: MULTIPLY,
    Stream: MULTIPLY,
    Dot: MULTIPLY,
    Small: "i64 ptr i64 ptr i64 ptr i64",
    Pack: "i64 i64 ptr i64 i64 ptr",
    Copy: "i64 i64 ptr i64 i64 ptr i64 i64",
    Peak: "i64 ptr",
}


class NotLinkedError(RuntimeError):
    """No shared library can be made: there is no linker, it fails, there is no place for files."""


def _scheduling(spec: KernelSpec, isa: ISA) -> dict[str, str | None]:
    """The CPU whose latencies LLVM orders instructions for, if it is not the target's.

    Where multiply and add are two instructions that take long, it would draw the products so far
    ahead of the sums that registers run out; a CPU does that by itself. With few registers and
    fused instructions, the target's own order is the one that needs fewer.
    """
    if isa.schedule_cpu:
        return {"tune-cpu": isa.schedule_cpu}
    products_apart = isinstance(spec, Microkernel | Peak) and spec.descriptor.is_unfused(isa)
    return {"tune-cpu": "generic"} if isa.mask_registers or products_apart else {}


def build(spec: KernelSpec, name: str = "") -> Any:
    """The MLIR module of one kernel, in a context of its own; `name` is its function's."""
    isa = ISAS[spec.isa]
    with mlir.Context(), mlir.Location.unknown():
        module = mlir.Module.create()
        types = [{"i64": ir.i64, "ptr": ir.ptr}[name]() for name in SIGNATURES[type(spec)].split()]
        with mlir.InsertionPoint(module.body):
            entry = ir.create_function(
                name or spec.symbol,
                types,
                section=SECTION,
                attributes={
                    "target-cpu": isa.target_cpu,
                    "target-features": isa.target_features,  # and none of the host's
                    "prefer-vector-width": str(isa.vector_bits),
                    **_scheduling(spec, isa),
                    # the engine's wrappers would each be compiled with a copy of it
                    "noinline": None,
                },
            )
        with mlir.InsertionPoint(entry):
            arguments = list(entry.arguments)
            if isinstance(spec, Microkernel):
                microkernel.build(spec, isa, arguments)
            elif isinstance(spec, Small):
                small.build(spec, isa, ir.element_type(spec.dtype), arguments)
            elif isinstance(spec, Stream):
                stream.build(spec, isa, ir.element_type(spec.dtype), arguments)
            elif isinstance(spec, Dot):
                dot.build(spec, isa, ir.element_type(spec.dtype), arguments)
            elif isinstance(spec, Pack):
                packing.build(spec, isa, arguments)
            elif isinstance(spec, Copy):
                packing.build_copy(spec, arguments)
            elif isinstance(spec, Peak):
                microkernel.build_peak(spec, isa, arguments)
            ir.return_()
        module.operation.verify()
    return module


def lower(module: Any) -> None:
    """Bring a module to the LLVM dialect, in place."""
    with module.context:
        PassManager.parse(PIPELINE).run(module.operation)


def _engine(module: Any) -> Any:
    lower(module)
    return ExecutionEngine(module, opt_level=3, enable_object_dump=True, enable_pic=True)


def in_memory(spec: KernelSpec) -> tuple[int, Any]:
    """One kernel compiled in this process: its address, and the engine that keeps it there."""
    # The engine's look-up is for its own wrappers, and finds them by this prefix.
    engine = _engine(build(spec, f"_mlir_{spec.symbol}"))
    return engine.raw_lookup(spec.symbol), engine


def link(objects: Path, symbol: str) -> Path:
    """Link an object file to a shared library that exports `symbol` and nothing else.

    Raises
    ------
    NotLinkedError
        The machine has none of `nkblas.system.toolchain.LINKERS`, or the one that it has fails.
    """
    target = objects.with_suffix(".so")
    exports = objects.with_suffix(".map")
    exports.write_text(f"{{ global: {symbol}; local: *; }};\n")
    options = ["--gc-sections", "--strip-all", f"--version-script={exports}"]
    options += ["-z", "noexecstack", "-z", "noseparate-code"]
    linker = find_linker()
    if linker is None:
        raise NotLinkedError(f"no linker: none of {', '.join(LINKERS)} is in PATH")
    name, path = linker
    if name == "cc":
        options = ["-nostdlib", *(part for o in options for part in ("-Xlinker", o))]
    command = [path, "-shared", *options, "-o", str(target), str(objects)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotLinkedError(f"{' '.join(command)}: {done.stderr.strip()}")
    return target


def object_file(spec: KernelSpec, folder: str) -> Path:
    """The object file of one kernel, in a folder; its function is in `SECTION`."""
    path = Path(folder, f"{spec.symbol}.o")
    engine = _engine(build(spec))
    engine.raw_lookup(spec.symbol)  # compiles
    engine.dump_to_object_file(str(path))
    return path


def shared_library(spec: KernelSpec) -> bytes:
    """The shared library of one kernel; it exports ``spec.symbol``.

    Raises
    ------
    NotLinkedError
        There is none; the kernel can still be had `in_memory`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="nkblas-") as folder:
            return link(object_file(spec, folder), spec.symbol).read_bytes()
    except OSError as error:
        raise NotLinkedError(f"no place for temporary files: {error}") from None
