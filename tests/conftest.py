"""Settings that must stand before nkblas is imported."""

import os
import tempfile

# One store for the whole session and its subprocesses: each kernel is compiled once.
if "NKBLAS_CACHE_DIR" not in os.environ:
    _store = tempfile.TemporaryDirectory(prefix="nkblas-tests-")
    os.environ["NKBLAS_CACHE_DIR"] = _store.name

for name in ("NKBLAS_JIT", "NKBLAS_LOG"):
    os.environ.pop(name, None)
