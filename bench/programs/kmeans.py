"""Clusters of points by Lloyd's algorithm (k-means), with distances from a matrix product."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINTS, DIMENSIONS, CLUSTERS, STEPS = 50_000, 64, 50, 25


def squared_distances(points: Array, centres: Array) -> Array:
    """Squared distances from each point to each centre."""
    squares = np.einsum("ij,ij->i", points, points)[:, np.newaxis]
    result: Array = squares - 2 * points @ centres.T + np.einsum("ij,ij->i", centres, centres)
    return result


def spread_centres(points: Array, rng: np.random.Generator) -> Array:
    """Initial centres, each with a probability by its distance from those before (k-means++)."""
    centres = points[:1]
    for _ in range(CLUSTERS - 1):
        nearest = squared_distances(points, centres[-8:]).min(axis=1).clip(0)
        chosen = rng.choice(len(points), p=nearest / nearest.sum())
        centres = np.vstack([centres, points[chosen]])
    return centres


rng = np.random.default_rng(14)
middles = 3 * rng.standard_normal((CLUSTERS, DIMENSIONS))
points = middles[rng.integers(0, CLUSTERS, POINTS)]
points += rng.standard_normal((POINTS, DIMENSIONS))
centres = spread_centres(points[::10], rng)
for _ in range(STEPS):
    labels = squared_distances(points, centres).argmin(axis=1)
    members = (labels[:, np.newaxis] == np.arange(CLUSTERS)).astype(np.float64)
    counts = members.sum(axis=0)
    means = members.T @ points / np.maximum(counts, 1)[:, np.newaxis]
    centres = np.where(counts[:, np.newaxis] > 0, means, centres)

distances = squared_distances(points, centres)
inertia = distances.min(axis=1).sum()
print(f"inertia {inertia:.6g}, largest cluster of {counts.max():.0f} points")
