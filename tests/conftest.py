"""Environment variables, set before nkblas is imported."""

import os
import tempfile

# One cache for all tests and their subprocesses: each kernel is compiled once.
if "NKBLAS_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="nkblas-tests-")
    os.environ["NKBLAS_CACHE_DIR"] = _cache.name

for name in ("NKBLAS_JIT", "NKBLAS_LOG"):
    os.environ.pop(name, None)

# Shipped kernels (`make kernels`) are not used: many tests count the kernels that are compiled.
os.environ.setdefault("NKBLAS_SHIPPED_KERNELS", "0")

# No test's time or plan depends on what is measured meanwhile, except in those that test it.
os.environ["NKBLAS_TUNE"] = "0"
