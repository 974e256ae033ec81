"""Benchmark of nkblas against NumPy, MKL, PyTorch and JAX: see ``python -m bench --help``."""
