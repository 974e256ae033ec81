"""How fast `nkblas.matmul` is beside its peers: ``python -m bench --help``."""
