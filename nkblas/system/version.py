"""The version of nkblas. (It is not in `base`: a release alone makes no kernel anew.)"""

__version__ = "0.1.0"
