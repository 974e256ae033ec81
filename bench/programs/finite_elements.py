"""A loaded elastic beam of hexahedral finite elements, solved by conjugate gradients.

The stiffness matrices of all elements are integrated as stacks, and are multiplied by the
displacements of their nodes in each iteration; the matrix of the beam is not assembled.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CELLS, YOUNG, POISSON = (40, 10, 10), 200.0, 0.3


def elasticity() -> Array:
    """The matrix of an isotropic material, from strains to stresses."""
    lame = YOUNG * POISSON / ((1 + POISSON) * (1 - 2 * POISSON))
    shear = YOUNG / (2 * (1 + POISSON))
    matrix = np.diag([2 * shear] * 3 + [shear] * 3)
    matrix[:3, :3] += lame
    return matrix


def stiffness(nodes: Array) -> Array:
    """Stiffness matrices (elements, 24, 24) of elements with nodes (elements, 8, 3)."""
    material = elasticity()
    matrices = np.zeros((len(nodes), 24, 24))
    corners = 2.0 * np.array(list(product((0, 1), repeat=3))) - 1
    for point in corners / np.sqrt(3):
        factors = 1 + corners * point
        shape_gradients = corners * np.prod(factors, axis=1, keepdims=True) / factors / 8
        jacobian = shape_gradients.T @ nodes
        gradients = np.linalg.solve(
            jacobian, np.broadcast_to(shape_gradients.T, (len(nodes), 3, 8))
        )
        b = np.zeros((len(nodes), 6, 24))
        for i, (j, k) in enumerate(((0, 1), (1, 2), (2, 0))):
            b[:, i, i::3] = gradients[:, i]
            b[:, 3 + i, j::3], b[:, 3 + i, k::3] = gradients[:, k], gradients[:, j]
        matrices += (b.mT @ material @ b) * np.linalg.det(jacobian)[:, np.newaxis, np.newaxis]
    return matrices


rng = np.random.default_rng(12)
counts = np.array(CELLS) + 1
grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 3)
numbers = np.arange(len(grid)).reshape(counts)
offsets = list(product((0, 1), repeat=3))
ends = [tuple(slice(o, o + n) for o, n in zip(offset, CELLS, strict=True)) for offset in offsets]
elements = np.stack([numbers[end].ravel() for end in ends], axis=1)
positions = grid + rng.uniform(-0.15, 0.15, grid.shape)
unknowns = (3 * elements[:, :, np.newaxis] + np.arange(3)).reshape(len(elements), 24)
matrices = stiffness(positions[elements])

free = np.repeat(grid[:, 0] > 0, 3).astype(np.float64)
load = np.zeros(3 * len(grid))
load[2::3][grid[:, 0] == CELLS[0]] = -0.01


def multiply(x: Array) -> Array:
    """The product of the beam's matrix and displacements, element by element."""
    forces = np.einsum("eij,ej->ei", matrices, x[unknowns])
    result: Array = free * np.bincount(unknowns.ravel(), forces.ravel(), len(x))
    return result


diagonal = np.bincount(unknowns.ravel(), np.einsum("eii->ei", matrices).ravel())
x, residual = np.zeros_like(load), load.copy()
direction = z = residual / diagonal
tolerance = 1e-6 * np.linalg.norm(load)
while np.linalg.norm(residual) > tolerance:
    image = multiply(direction)
    step = (residual @ z) / (direction @ image)
    x, last = x + step * direction, residual @ z
    residual = residual - step * image
    z = residual / diagonal
    direction = z + (residual @ z) / last * direction
print(f"deflection {x[2::3].min():.5f}, energy {load @ x / 2:.6f}")
