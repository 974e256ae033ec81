"""Run the C sources and generated kernels under sanitizers and Valgrind.

Run ``make sanitize``, or ``python tests/tools/sanitize.py`` with the names of steps. For `tests`
and `products` the package is built into ``build/sanitize``, with packing buffers that end at a page
without access (fenced.c): generated code is not instrumented, and this page stops it.
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

from support import ENGINE_SOURCES, ENGINE_WITHOUT_PYTHON, ROOT, THREAD_POOL, TOOLS

import nkblas
from nkblas.base.isa import ISAS

TESTS = ROOT / "tests"
BUILD_DIR = ROOT / "build" / "sanitize"
SITE_DIR = BUILD_DIR / "site"
SANITIZERS = "address,undefined"

MODULES = (
    *("gufuncs", "matmul", "gemm", "fused", "quantized", "brgemm", "packed", "products", "blas"),
    *("einsum", "record", "patch", "plan", "dtypes"),
)
"""Test modules that together reach all C sources."""


class FindingError(Exception):
    """A step has found an error; the message says which."""


def output(command: list[str], **changes: str) -> str:
    """Run a command; its output.

    Raises
    ------
    FindingError
        The command fails.
    """
    environment = {**os.environ, **changes}
    ran = subprocess.run(
        command, env=environment, cwd=BUILD_DIR, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = ran.stdout.decode(errors="replace")
    if ran.returncode:
        raise FindingError(
            f"status {ran.returncode} of {' '.join(map(str, command))}\n{text[-20000:]}"
        )
    return text


def build() -> str:
    """Build the package with AddressSanitizer and UndefinedBehaviorSanitizer."""
    copy = BUILD_DIR / "source"
    shutil.rmtree(BUILD_DIR, ignore_errors=True)
    ignore = shutil.ignore_patterns("*.so", "_engine.c", "__pycache__")
    for name in ("nkblas", "kernels_cache"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    shutil.copy(TOOLS / "fenced.c", copy / "nkblas" / "engine" / "memory.c")
    flags = f"-fsanitize={SANITIZERS} -fno-sanitize-recover=undefined"
    install = [*("-m", "pip", "install", "--quiet", "--no-deps"), "--target", str(SITE_DIR)]
    output(
        [sys.executable, *install, str(copy)],
        CFLAGS=f"{flags} -g -fno-omit-frame-pointer",
        LDFLAGS=flags,
    )
    return f"in {BUILD_DIR}"


def run_sanitized(*arguments: str, fences: str) -> str:
    """Run Python with that build; its output."""
    if not SITE_DIR.exists():
        build()
    names = ("libasan.so", "libubsan.so")
    found = [output(["gcc", f"-print-file-name={name}"]).strip() for name in names]
    return output(
        [sys.executable, *arguments],
        LD_PRELOAD=" ".join(found),
        ASAN_OPTIONS="detect_leaks=0:handle_segv=0:allocator_may_return_null=1",
        UBSAN_OPTIONS="print_stacktrace=1",
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(SITE_DIR),
        NKBLAS_FENCES=fences,
    )


def tests() -> str:
    """Run the tests of the C sources, with these sanitizers."""
    options = [
        *("-q", "-p", "no:cacheprovider", "-o", "addopts="),
        *(f"--rootdir={TESTS}", "-o", f"pythonpath={TOOLS}"),
    ]
    modules = [str(next(TESTS.rglob(f"test_{name}.py"))) for name in MODULES]
    return run_sanitized("-m", "pytest", *options, *modules, fences="behind").splitlines()[-1]


def products() -> str:
    """Run products on fenced operands (guard.py), with fenced packing buffers."""
    lines = []
    for fences in ("behind", "before"):
        seed = {"behind": "1", "before": "2"}[fences]
        command = [str(TOOLS / "guard.py"), "--kernels", "0", "--products", "300", "--seed", seed]
        lines += run_sanitized(*command, fences=fences).splitlines()
    return "\n  ".join(["", *lines])


def threads() -> str:
    """Call the thread pool, and the whole engine, from several threads at once."""
    done = []
    for sanitizer, name, sources in (
        ("thread", "pool", (THREAD_POOL,)),
        ("thread", "engine", ENGINE_WITHOUT_PYTHON),
        (SANITIZERS, "engine", ENGINE_WITHOUT_PYTHON),
    ):
        program = str(BUILD_DIR / f"{name}-{sanitizer}")
        options = ["-std=gnu11", "-O1", "-g", f"-fsanitize={sanitizer}"]
        options += [f"-I{ENGINE_SOURCES}", str(TOOLS / f"{name}.c")]
        output(["gcc", *options, *map(str, sources), "-lm", "-lpthread", "-o", program])
        printed = output([program, "100000"]).strip()
        if printed != "done":
            raise FindingError(printed)
        done.append(f"{name}.c ({sanitizer})")
    return f"100000 jobs of each caller: {', '.join(done)}"


ERROR_REPORT = re.compile(r"(?:^==\d+== .*\n)+?(?=^==\d+== \n)", re.MULTILINE)
NKBLAS_OBJECTS = ("memfd:", "_engine", "_numpy_ext")
"""Names of nkblas's shared objects in Valgrind's reports."""

PYTHON_FRAME = re.compile("_PyEval|cffi_call_python")
"""A frame of the interpreter: an error inside it is not its caller's (CPython's conversion of
numbers has one)."""


def valgrind() -> str:
    """Run products on ordinary memory, on the instruction sets that Valgrind knows."""
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
            path = os.pathsep.join((str(ROOT), str(TOOLS)))
            text = output(
                [*tool, *command], NKBLAS_ISA=isa, PYTHONMALLOC="malloc", PYTHONPATH=path,
                OPENBLAS_NUM_THREADS="1",
            )  # fmt: skip
        inner = [PYTHON_FRAME.split(x)[0] for x in ERROR_REPORT.findall(text)]
        errors = [x for x in inner if any(name in x for name in NKBLAS_OBJECTS)]
        if errors or '"case' in text:
            raise FindingError("\n".join(errors) or text[-5000:])
        lines.append(f"{isa}: {text.splitlines()}")
    return "\n  ".join(["", *lines])


STEPS: dict[str, Callable[[], str]] = {
    step.__name__: step for step in (build, tests, products, threads, valgrind)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", choices=[[], *STEPS], help=", ".join(STEPS))
    failed = 0
    for name in parser.parse_args().steps or STEPS:
        BUILD_DIR.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        try:
            result = STEPS[name]()
        except FindingError as error:
            result, failed = f"FAILED: {error}", failed + 1
        print(f"{name}, {time.perf_counter() - start:.0f} s: {result}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
