"""The libraries that are measured: nkblas and its peers, a module for each."""

from collections.abc import Callable

from .aocl import AOCL
from .contender import AbsentError, Call, Contender, Forms
from .jax import JAX
from .mkl import MKL
from .nkblas import NKBLAS
from .numpy import NumPy
from .openblas import OpenBLAS
from .torch import Torch

__all__ = [
    "AOCL",
    "JAX",
    "MKL",
    "NKBLAS",
    "PEERS",
    "AbsentError",
    "Call",
    "Contender",
    "Forms",
    "NumPy",
    "OpenBLAS",
    "Torch",
]

PEERS: dict[str, Callable[[int], Contender]] = {
    peer.name: peer for peer in (NumPy, OpenBLAS, AOCL, MKL, Torch, JAX)
}
"""Constructors of the peers, by name; the argument is the largest number of threads."""
