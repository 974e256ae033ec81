"""Paths and random walks on a graph, by powers of matrices.

Integer powers of the adjacency matrix count paths; powers of the transition matrix have the
probabilities of a random walk.
"""

import numpy as np

NODES, LINKS, LENGTH = 400, 6, 10
STATES, HORIZON = 700, 200

rng = np.random.default_rng(11)
adjacency = np.zeros((NODES, NODES), np.int64)
for node in range(NODES):
    adjacency[node, rng.choice(NODES, LINKS, replace=False)] = 1

paths = np.linalg.matrix_power(adjacency, LENGTH)
closed = np.trace(paths)
distance, reached = np.full((NODES, NODES), -1), np.eye(NODES, dtype=np.int64)
for step in range(6):
    distance[(reached > 0) & (distance < 0)] = step
    reached = ((reached @ adjacency + reached) > 0).astype(np.int64)
print(f"{paths.sum()} paths of {LENGTH} links, {closed} closed", end=", ")
print(f"mean distance {distance[distance > 0].mean():.5f}")

transition = rng.random((STATES, STATES)) ** 8 + 0.3 * np.eye(STATES)
transition /= transition.sum(axis=1, keepdims=True)
after = np.linalg.matrix_power(transition, 50)
start = np.zeros(STATES)
start[0] = 1
walk = [start]
for _ in range(HORIZON):
    walk.append(walk[-1] @ transition)
stationary = walk[-1]

# mean times until the walk reaches one of the first ten states
inner = np.eye(STATES - 10) - transition[10:, 10:]
times = np.linalg.solve(inner, np.ones(STATES - 10))
gap = np.abs(np.array(walk) - stationary).sum(axis=1)
fundamental = np.linalg.inv(np.eye(STATES) - transition + stationary)
kemeny = np.trace(fundamental)
print(f"stationary {stationary.max():.6f} {np.abs(after - stationary).max() < 1e-9}", end=", ")
print(f"mean time {times.mean():.4f}, Kemeny {kemeny:.4f}, gap {gap[1]:.5f}")
