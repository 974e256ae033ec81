"""The extension module ``nkblas._engine`` (cffi, API mode); run by setup.py."""

import runpy
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
tables = runpy.run_path(str(HERE / "tables.py"))
tables["write"]()


def declarations(name: str) -> str:
    """The declarations between the two marker lines of a header (`tables.BEGIN`, `tables.END`)."""
    _, _, rest = (HERE / name).read_text().partition(tables["BEGIN"])
    return rest.partition(tables["END"])[0]


ffi = FFI()
ffi.cdef(
    declarations("nk_tables.h")
    + declarations("nkblas.h")
    + """
    extern int (*nk_miss_handler)(const nk_problem *problem);
    int nk_call_python_miss_handler(const nk_problem *problem);
    extern "Python+C" int nk_python_miss_handler(const nk_problem *problem);
    """
)
ffi.set_source(
    "nkblas._engine",
    '#include "nkblas.h"',
    sources=[f"nkblas/engine/{path.name}" for path in sorted(HERE.glob("*.c"))],
    depends=[f"nkblas/engine/{path.name}" for path in HERE.glob("*.h")],
    include_dirs=["nkblas/engine"],
    libraries=["dl", "pthread"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
)
