"""Matrix products with the signatures of `scipy.linalg.blas`: BLAS level 3, and ``gemv``.

Arguments, results, memory orders and errors are SciPy's: ``from nkblas import blas`` can replace
``from scipy.linalg import blas``. The first letter of a name is the dtype: float32, float64,
complex64, complex128.

======================================= =========================================================
``{s,d,c,z}gemm``, ``{s,d,c,z}gemv``    product of matrices, of a matrix and a vector
``{s,d,c,z}gemmt``                      one triangle of a product of matrices
``{s,d,c,z}syrk``, ``{c,z}herk``        product of a matrix and its transpose, or its adjoint
``{s,d,c,z}syr2k``, ``{c,z}her2k``      sum of a product and its transpose, or its adjoint
``{s,d,c,z}symm``, ``{c,z}hemm``        product with a symmetric, or a Hermitian matrix
``{s,d,c,z}trmm``, ``{s,d,c,z}trsm``    product with a triangular matrix, and with its inverse
======================================= =========================================================
"""

from nkblas.api.blas_arguments import DTYPES as DTYPES
from nkblas.api.blas_arguments import BlasError as BlasError
from nkblas.api.level2 import make_gemv
from nkblas.api.level3 import make_functions

__all__ = [
    "BlasError",
    *("cgemm", "cgemmt", "cgemv", "chemm", "cher2k", "cherk", "csymm", "csyr2k", "csyrk"),
    *("ctrmm", "ctrsm"),
    *("dgemm", "dgemmt", "dgemv", "dsymm", "dsyr2k", "dsyrk", "dtrmm", "dtrsm"),
    *("sgemm", "sgemmt", "sgemv", "ssymm", "ssyr2k", "ssyrk", "strmm", "strsm"),
    *("zgemm", "zgemmt", "zgemv", "zhemm", "zher2k", "zherk", "zsymm", "zsyr2k", "zsyrk"),
    *("ztrmm", "ztrsm"),
]

sgemv, dgemv, cgemv, zgemv = map(make_gemv, "sdcz")
sgemm, dgemm, cgemm, zgemm = make_functions("gemm")
sgemmt, dgemmt, cgemmt, zgemmt = make_functions("gemmt")
ssyrk, dsyrk, csyrk, zsyrk = make_functions("syrk")
cherk, zherk = make_functions("herk")
ssyr2k, dsyr2k, csyr2k, zsyr2k = make_functions("syr2k")
cher2k, zher2k = make_functions("her2k")
ssymm, dsymm, csymm, zsymm = make_functions("symm")
chemm, zhemm = make_functions("hemm")
strmm, dtrmm, ctrmm, ztrmm = make_functions("trmm")
strsm, dtrsm, ctrsm, ztrsm = make_functions("trsm")
