"""The public functions: NumPy's products, `gemm` and its variants, packed matrices, the patch."""
