"""The compiled parts and the data files; everything else is in pyproject.toml."""

import runpy
from pathlib import Path

import numpy
from setuptools import Distribution, Extension, find_packages, setup

runpy.run_path("nkblas/engine/tables.py")["write"]()


class DistributionWithData(Distribution):
    """A distribution whose data files are in an editable installation, too."""

    has_data = Distribution.has_data_files  # the name that setuptools looks for there


setup(
    distclass=DistributionWithData,
    package_dir={"nkblas.kernels_cache": "kernels_cache"},
    packages=[*find_packages(include=["nkblas", "nkblas.*"]), "nkblas.kernels_cache"],
    package_data={
        "nkblas": ["py.typed", "*.pyi"],
        "nkblas.engine": ["*.h", "*.pyi"],
        "nkblas.cblas": ["nkblas_cblas.h"],
        "nkblas.kernels_cache": ["*"],
    },
    include_package_data=False,  # of C, wheels have the headers alone
    # into site-packages, which Python searches for .pth files: a wheel has a folder for each scheme
    data_files=[("../purelib", ["startup/nkblas_patch.pth", "startup/nkblas_patch.py"])],
    cffi_modules=["nkblas/engine/build.py:ffi"],
    ext_modules=[
        Extension(
            "nkblas._numpy_ext",
            sources=sorted(map(str, Path("nkblas/numpy_ext").glob("*.c"))),
            depends=[
                "nkblas/numpy_ext/numpy_ext.h",
                "nkblas/engine/nkblas.h",
                "nkblas/engine/nk_tables.h",
            ],
            include_dirs=["nkblas/engine", numpy.get_include()],
            define_macros=[("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")],
            extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
        )
    ],
)
