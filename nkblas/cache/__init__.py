"""Compiled kernels on disk, and the maintenance of the cache folder."""
