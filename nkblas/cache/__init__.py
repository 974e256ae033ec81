"""Kernels on disk: the store, and the maintenance of the cache folder."""
