"""Builders of kernels' bodies: one module for each kind of kernel, and nanokernels."""
