"""The engine's extension module ``nkblas._engine`` (cffi, API mode); run by setup.py."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
SOURCES = ("ask.c", "cpuid.c", "gemm.c", "load.c", "memory.c", "record.c", "table.c", "threads.c")

_, _, rest = (HERE / "nkblas.h").read_text().partition("/* cffi: begin */")
shared, _, _ = rest.partition("/* cffi: end */")

ffi = FFI()
ffi.cdef(
    shared
    + """
    extern int (*nk_ask)(const nk_problem *problem);
    int nk_ask_python(const nk_problem *problem);
    extern "Python+C" int nk_plan_python(const nk_problem *problem);
    """
)
ffi.set_source(
    "nkblas._engine",
    '#include "nkblas.h"',
    sources=[f"nkblas/engine/{name}" for name in SOURCES],
    depends=["nkblas/engine/nkblas.h"],
    include_dirs=["nkblas/engine"],
    libraries=["dl", "pthread"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
)
