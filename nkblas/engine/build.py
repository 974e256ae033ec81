"""The extension module ``nkblas._engine`` (cffi, API mode); run by setup.py."""

import runpy
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
CBLAS = HERE.parent / "cblas"
FOLDERS = (HERE, CBLAS)
tables = runpy.run_path(str(HERE / "tables.py"))
tables["write"]()


def declarations(header: Path) -> str:
    """The declarations between the two marker lines of a header (`tables.BEGIN`, `tables.END`)."""
    _, _, rest = header.read_text().partition(tables["BEGIN"])
    return rest.partition(tables["END"])[0]


ffi = FFI()
ffi.cdef(
    declarations(HERE / "nk_tables.h")
    + declarations(HERE / "nkblas.h")
    + declarations(CBLAS / "doors.h")
    + """
    extern int (*nk_miss_handler)(const nk_problem *problem);
    int nk_call_python_miss_handler(const nk_problem *problem);
    extern "Python+C" int nk_python_miss_handler(const nk_problem *problem);
    """
)
ffi.set_source(
    "nkblas._engine",
    '#include "nkblas.h"\n#include "doors.h"',
    sources=[f"nkblas/{x.parent.name}/{x.name}" for y in FOLDERS for x in sorted(y.glob("*.c"))],
    depends=[f"nkblas/{x.parent.name}/{x.name}" for y in FOLDERS for x in y.glob("*.h")],
    include_dirs=["nkblas/engine", "nkblas/cblas"],
    libraries=["dl", "pthread"],
    # dgemm_ and its like mean nkblas's own, whatever BLAS the process has loaded globally
    extra_link_args=["-Wl,-Bsymbolic"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
)
