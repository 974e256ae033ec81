"""The public functions: NumPy's products, `gemm` and its kin, packed matrices, the patch."""
