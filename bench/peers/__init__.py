"""The libraries that are measured: nkblas and its peers, a module for each."""

from collections.abc import Callable

from .contender import AbsentError, Call, Contender, Forms
from .jax import JAX
from .mkl import MKL
from .nkblas import NKBLAS
from .numpy import NumPy
from .torch import Torch

__all__ = [
    "JAX",
    "MKL",
    "NKBLAS",
    "PEERS",
    "AbsentError",
    "Call",
    "Contender",
    "Forms",
    "NumPy",
    "Torch",
]

PEERS: dict[str, Callable[[int], Contender]] = {
    peer.name: peer for peer in (NumPy, MKL, Torch, JAX)
}
"""Constructors of the peers, by name; the argument is the largest number of threads."""
