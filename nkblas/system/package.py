"""Where the package's own files are."""

import os
from functools import cache

from nkblas import _engine

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The package's folder."""


@cache
def shipped_folder() -> str:
    """The folder ``kernels_cache`` with shipped plans and kernels; empty if there is none.

    In a source tree it is beside the package.
    """
    folders = (os.path.join(parent, "kernels_cache") for parent in (PACKAGE, f"{PACKAGE}/.."))
    return next(filter(os.path.isdir, folders), "")


def get_include() -> str:
    """The folder of the header ``nkblas_cblas.h``, for the option ``-I`` of a C compiler.

    It declares the routines of the library (see `get_library`).

    Returns
    -------
    str
        Absolute path.
    """
    return os.path.join(PACKAGE, "cblas")


def get_library() -> str:
    """The shared library with nkblas's BLAS routines, for C, Fortran and Cython code.

    It exports the product routines of BLAS (gemm, gemv) and all of level 3, gemmt included, for
    CBLAS (``cblas_dgemm``) and for Fortran (``dgemm_``); with 64-bit integers they have the suffix
    ``64_``. Link it by its path, or open it with ``dlopen``, in a process that has imported nkblas.

    Returns
    -------
    str
        Absolute path.

    See Also
    --------
    get_include : the folder of the header.

    Examples
    --------
    >>> import ctypes, numpy as np, nkblas
    >>> dgemm = ctypes.CDLL(nkblas.get_library()).cblas_dgemm
    >>> a, c = np.array([[1.0, 2.0], [3.0, 4.0]]), np.empty((2, 2))
    >>> address = lambda x: ctypes.c_void_p(x.ctypes.data)
    >>> one, zero = ctypes.c_double(1), ctypes.c_double(0)
    >>> dgemm.restype = None
    >>> dgemm(101, 111, 111, 2, 2, 2, one, address(a), 2, address(a), 2, zero, address(c), 2)
    >>> c
    array([[ 7., 10.],
           [15., 22.]])
    """
    return os.path.abspath(_engine.__file__)
