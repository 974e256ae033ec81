"""The C parts and generated kernels under tools that watch memory and threads.

By hand: ``make sanitize``, or ``python tests/tools/sanitize.py`` with the names of steps.
For the first two, the package is built into ``build/sanitize``, with packing buffers that end
where memory ends (fenced.c); generated code is not instrumented, but that stops it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nkblas
from nkblas.base.isa import ISAS

TOOLS = Path(__file__).parent
TESTS = TOOLS.parent
SOURCES = TESTS.parent
FOLDER = SOURCES / "build" / "sanitize"
SITE = FOLDER / "site"
SANITIZERS = "address,undefined"

MODULES = (
    "gufuncs",
    "matmul",
    "gemm",
    "fused",
    "quantized",
    "brgemm",
    "packed",
    "products",
    "blas",
)
MODULES += ("einsum", "record", "patch", "plan", "dtypes")
"""Tests that reach all of the C parts."""


class FindingError(Exception):
    """What a step has found."""


def output(command: list[str], **changes: str) -> str:
    """What a command says.

    Raises
    ------
    FindingError
        It has another status than 0.
    """
    environment = {**os.environ, **changes}
    ran = subprocess.run(
        command, env=environment, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = ran.stdout.decode(errors="replace")
    if ran.returncode:
        raise FindingError(
            f"status {ran.returncode} of {' '.join(map(str, command))}\n{text[-20000:]}"
        )
    return text


def build() -> str:
    """Build the package with AddressSanitizer and UndefinedBehaviorSanitizer."""
    copy = FOLDER / "source"
    shutil.rmtree(FOLDER, ignore_errors=True)
    ignore = shutil.ignore_patterns("*.so", "_engine.c", "__pycache__")
    for name in ("nkblas", "kernels_cache"):
        shutil.copytree(SOURCES / name, copy / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(SOURCES / name, copy)
    shutil.copy(TOOLS / "fenced.c", copy / "nkblas" / "engine" / "memory.c")
    flags = f"-fsanitize={SANITIZERS} -fno-sanitize-recover=undefined"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(SITE)]
    output([*pip, str(copy)], CFLAGS=f"{flags} -g -fno-omit-frame-pointer", LDFLAGS=flags)
    return f"in {FOLDER}"


def watched(*arguments: str, fences: str) -> str:
    """Run Python on that build."""
    if not SITE.exists():
        build()
    names = ("libasan.so", "libubsan.so")
    found = [output(["gcc", f"-print-file-name={name}"]).strip() for name in names]
    return output(
        [sys.executable, *arguments],
        LD_PRELOAD=" ".join(found),
        ASAN_OPTIONS="detect_leaks=0:handle_segv=0:allocator_may_return_null=1",
        UBSAN_OPTIONS="print_stacktrace=1",
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(SITE),
        NKBLAS_FENCES=fences,
    )


def tests() -> str:
    """The tests of what is in C, under these sanitizers."""
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        f"--rootdir={TESTS}",
        "-o",
        f"pythonpath={TOOLS}",
    ]
    modules = [str(next(TESTS.rglob(f"test_{name}.py"))) for name in MODULES]
    return watched("-m", "pytest", *options, *modules, fences="behind").splitlines()[-1]


def products() -> str:
    """Products on memory that ends where they do (guard.py), with such packing buffers, too."""
    lines = []
    for fences in ("behind", "before"):
        seed = {"behind": "1", "before": "2"}[fences]
        command = [str(TOOLS / "guard.py"), "--kernels", "0", "--products", "300", "--seed", seed]
        lines += watched(*command, fences=fences).splitlines()
    return "\n  ".join(["", *lines])


def threads() -> str:
    """The pool, the table and all of the engine, called by many at once."""
    engine = [SOURCES / "nkblas" / "engine" / f"{x}.c" for x in ("threads", "table", "gemm")]
    engine += [SOURCES / "nkblas" / "engine" / f"{x}.c" for x in ("memory", "record")]
    done = []
    for sanitizer, (name, parts) in (
        ("thread", ("pool", engine[:1])),
        ("thread", ("engine", engine)),
        (SANITIZERS, ("engine", engine)),
    ):
        program = str(FOLDER / f"{name}-{sanitizer}")
        options = ["-std=gnu11", "-O1", "-g", f"-fsanitize={sanitizer}"]
        options += [f"-I{SOURCES / 'nkblas' / 'engine'}", str(TOOLS / f"{name}.c")]
        output(["gcc", *options, *map(str, parts), "-lm", "-lpthread", "-o", program])
        said = output([program, "100000"]).strip()
        if said != "done":
            raise FindingError(said)
        done.append(f"{name}.c ({sanitizer})")
    return f"100000 jobs of each caller: {', '.join(done)}"


BLOCK = re.compile(r"(?:^==\d+== .*\n)+?(?=^==\d+== \n)", re.MULTILINE)
OURS = ("memfd:", "_engine", "_numpy_ext")
PYTHON = re.compile("_PyEval|cffi_call_python")
"""Frames of Python: an error inside of them is none of what called it (CPython's way of reading
numbers is one)."""


def valgrind() -> str:
    """Products on ordinary memory, on the instruction sets that Valgrind knows."""
    if not shutil.which("valgrind"):
        return "NOT RUN: there is no valgrind here (it is a package of that name)"
    lines = []
    for isa in ("sse42", "avx2"):
        if not nkblas.cpu.features.issuperset(ISAS[isa].requires):
            lines.append(f"{isa}: NOT RUN: the CPU lacks it")
            continue
        with tempfile.NamedTemporaryFile() as note:
            note.truncate(1 << 16)
            command = [str(TOOLS / "guard.py"), "--note", note.name, "--kind", "products"]
            command += ["--first", "0", "--last", "150", "--seed", "3", "--only", "nothing"]
            tool = ["valgrind", "--error-limit=no", "--num-callers=20", sys.executable]
            path = os.pathsep.join((str(SOURCES), str(TOOLS)))
            said = output(
                [*tool, *command], NKBLAS_ISA=isa, PYTHONMALLOC="malloc", PYTHONPATH=path,
                OPENBLAS_NUM_THREADS="1",
            )  # fmt: skip
        inner = [PYTHON.split(x)[0] for x in BLOCK.findall(said)]
        errors = [x for x in inner if any(name in x for name in OURS)]
        if errors or '"case' in said:
            raise FindingError("\n".join(errors) or said[-5000:])
        lines.append(f"{isa}: {said.splitlines()}")
    return "\n  ".join(["", *lines])


STEPS: dict[str, Callable[[], str]] = {
    step.__name__: step for step in (build, tests, products, threads, valgrind)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", choices=[[], *STEPS], help=", ".join(STEPS))
    failed = 0
    for name in parser.parse_args().steps or STEPS:
        FOLDER.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        try:
            said = STEPS[name]()
        except FindingError as error:
            said, failed = f"FAILED: {error}", failed + 1
        print(f"{name}, {time.perf_counter() - start:.0f} s: {said}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
