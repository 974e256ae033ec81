"""Tables and plain data: element types, instruction sets, families, epilogues, problems.

No module here imports anything of nkblas but its neighbours. Kernels depend on this folder: it is
part of their keys in the cache.
"""
