"""The command line ``nkblas``."""
