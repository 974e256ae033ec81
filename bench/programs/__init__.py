"""Whole NumPy programs, run as plain Python and under ``nkblas run``."""
