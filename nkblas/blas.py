"""Matrix products with the signatures of `scipy.linalg.blas`, which this module can stand for."""

from nkblas.api.blas import BlasError, cgemm, cgemv, dgemm, dgemv, sgemm, sgemv, zgemm, zgemv

__all__ = ["BlasError", "cgemm", "cgemv", "dgemm", "dgemv", "sgemm", "sgemv", "zgemm", "zgemv"]
