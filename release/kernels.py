"""Make the kernels that a package ships: ``python -m release.kernels`` (``make kernels``).

Each is compiled and verified as any other kernel; those of an instruction set and a dtype become
one library in ``kernels_cache``. Instructions that the CPU lacks are emulated, if it has the
registers; else the set is left out.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from nkblas.base.isa import ISA, ISAS
from nkblas.cache.shipped import MANIFEST, library_name
from nkblas.cache.store import sources_hash
from nkblas.codegen.loader import Library
from nkblas.codegen.lowering import pipeline, verify
from nkblas.codegen.spec import KernelSpec
from nkblas.planning.shipped_kernels import shipped_kernels
from nkblas.system.cpu import CPU, cpu

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "kernels_cache"

KERNELS_PER_PROCESS = 500
"""Kernels after which a compiling process is replaced: the compiler's memory grows."""


def main() -> None:
    """Make the libraries of all instruction sets, or of some."""
    parser = argparse.ArgumentParser(prog="release.kernels", description=__doc__)
    parser.add_argument("--isa", nargs="+", choices=ISAS, default=list(ISAS), metavar="ISA")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="(default: kernels_cache)")
    parser.add_argument("--dtype", nargs="+", default=[], help="of operands (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    for path in options.folder.glob("*-*.so"):
        path.unlink()
    digests: dict[str, str] = {}
    for name in options.isa:
        if is_emulated(ISAS[name], cpu) and not os.environ.get("LD_PRELOAD"):
            digests |= in_emulator(name, options)
        elif cpu.features.issuperset(ISAS[name].base.requires):
            digests |= make(ISAS[name], options)
        else:
            print(f"{name}: left out, this CPU lacks its registers", file=sys.stderr)
    text = json.dumps({"sources": sources_hash(), "libraries": digests}, indent=1, sort_keys=True)
    (options.folder / MANIFEST).write_text(text + "\n")
    size = sum(path.stat().st_size for path in options.folder.glob("*.so"))
    print(f"{len(digests)} libraries, {size / 1e6:.1f} MB")


def is_emulated(isa: ISA, cpu: CPU) -> bool:
    """Whether the CPU has the registers of an instruction set, and lacks instructions."""
    has_registers = cpu.features.issuperset(isa.base.requires)
    return has_registers and not cpu.features.issuperset(isa.requires)


def in_emulator(name: str, options: argparse.Namespace) -> dict[str, str]:
    """Make the libraries of one instruction set in a process in which it is emulated."""
    sys.path.insert(0, str(ROOT / "tests" / "tools"))
    from emulator import emulated  # only where it is needed: it is compiled

    with tempfile.TemporaryDirectory(prefix="nkblas-") as folder:
        command = [sys.executable, "-m", "release.kernels", "--isa", name, "--folder", folder]
        command += ["--dtype", *options.dtype] if options.dtype else []
        subprocess.run(command, env={**os.environ, **emulated()}, cwd=ROOT, check=True)
        digests: dict[str, str] = json.loads(Path(folder, MANIFEST).read_bytes())["libraries"]
        for library in digests:
            (options.folder / library).write_bytes(Path(folder, library).read_bytes())
    return digests


def make(isa: ISA, options: argparse.Namespace) -> dict[str, str]:
    """Make the libraries of one instruction set; returns the digest of each."""
    by_library: defaultdict[str, list[KernelSpec]] = defaultdict(list)
    for spec in shipped_kernels(isa):
        if not options.dtype or spec.dtype in options.dtype:
            by_library[library_name(spec)].append(spec)
    batches = [
        specs[i : i + KERNELS_PER_PROCESS]
        for specs in by_library.values()
        for i in range(0, len(specs), KERNELS_PER_PROCESS)
    ]
    digests = {}
    with (
        tempfile.TemporaryDirectory(prefix="nkblas-") as folder,
        ProcessPoolExecutor(options.processes, max_tasks_per_child=1) as pool,
    ):
        list(pool.map(partial(compile_all, folder=folder), batches))
        libraries = pool.map(partial(link, folder=folder), by_library.values())
        for name, library in zip(by_library, libraries, strict=True):
            (options.folder / name).write_bytes(library)
            digests[name] = hashlib.sha256(library).hexdigest()
            kernels = len(by_library[name])
            print(f"{name}: {kernels} kernels, {len(library) / 1e3:.0f} kB", flush=True)
    return digests


def compile_all(specs: list[KernelSpec], folder: str) -> None:
    """Compile kernels to object files."""
    for spec in specs:
        try:
            pipeline.object_file(spec, folder)
        except Exception as error:  # MLIR's can't be sent to another process
            raise RuntimeError(f"{spec.symbol}: {error}") from None


def link(specs: list[KernelSpec], folder: str) -> bytes:
    """Link the objects of kernels to one library, and verify each kernel in it."""
    symbols = [spec.symbol for spec in specs]
    library = pipeline.link([Path(folder, f"{symbol}.o") for symbol in symbols], symbols)
    content = library.read_bytes()
    loaded = Library(library.name, content)
    for spec in specs:
        address = loaded.find(spec)
        assert address is not None, spec.symbol
        verify.check(spec, address)
    return content


if __name__ == "__main__":
    main()
