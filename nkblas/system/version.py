"""The version of nkblas."""

# Not in `base`, whose files are part of the kernel key: a release alone recompiles no kernel.
__version__ = "0.1.0"
