"""Simulation of a quantum circuit of 15 qubits: gates are applied to the vector of its state."""

import numpy as np
from numpy.typing import NDArray

State = NDArray[np.complex128]

QUBITS, LAYERS = 15, 300


def rotation(angles: NDArray[np.float64]) -> State:
    """A rotation of one qubit by three angles, a matrix of shape (2, 2)."""
    a, b, c = angles
    z1, z2 = (np.diag(np.exp([-0.5j * x, 0.5j * x])) for x in (a, c))
    y = np.array([[np.cos(b / 2), -np.sin(b / 2)], [np.sin(b / 2), np.cos(b / 2)]])
    result: State = z1 @ y @ z2
    return result


def interaction(angle: float) -> State:
    """The gate exp(-i angle (XX + ZZ) / 2) of two qubits, of shape (2, 2, 2, 2)."""
    x, z = np.array([[0, 1], [1, 0]]), np.diag([1, -1])
    values, vectors = np.linalg.eigh(np.kron(x, x) + np.kron(z, z))
    gate = vectors * np.exp(-0.5j * angle * values) @ vectors.T
    result: State = gate.reshape(2, 2, 2, 2)
    return result


def apply_one(state: State, gate: State, qubit: int) -> State:
    """Apply a gate to one qubit of a state of shape (2, 2, ..., 2)."""
    return np.moveaxis(np.tensordot(gate, state, axes=(1, qubit)), 0, qubit)


def apply_two(state: State, gate: State, first: int, second: int) -> State:
    """Apply a gate to two qubits."""
    result = np.tensordot(gate, state, axes=((2, 3), (first, second)))
    return np.moveaxis(result, (0, 1), (first, second))


def density(state: State, qubit: int) -> State:
    """The reduced density matrix of one qubit."""
    matrix = np.moveaxis(state, qubit, 0).reshape(2, -1)
    result: State = matrix @ matrix.conj().T
    return result


rng = np.random.default_rng(8)
state = np.zeros((2,) * QUBITS, np.complex128)
state[(0,) * QUBITS] = 1
for layer in range(LAYERS):
    for qubit in range(QUBITS):
        state = apply_one(state, rotation(rng.uniform(0, np.pi, 3)), qubit)
    for first in range(layer % 2, QUBITS - 1, 2):
        state = apply_two(state, interaction(rng.uniform(0, 1)), first, first + 1)

densities = np.array([density(state, qubit) for qubit in range(QUBITS)])
purities = np.einsum("qij,qji->q", densities, densities).real
half = state.reshape(2 ** (QUBITS // 2), -1)
schmidt = np.linalg.svd(half, compute_uv=False) ** 2
entropy = -(schmidt * np.log2(schmidt)).sum()
print(f"norm {np.vdot(state, state).real:.6f}, mean purity {purities.mean():.5f}", end=", ")
print(f"entropy of half of the qubits {entropy:.5f} bits")
