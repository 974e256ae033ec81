"""Topics of documents by non-negative matrix factorization with multiplicative updates."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DOCUMENTS, WORDS, TOPICS, STEPS = 2000, 1500, 30, 120


def update(left: Array, right: Array, target: Array) -> Array:
    """One step of Lee and Seung's rule for `left`, with ``left @ right`` near `target`."""
    result: Array = left * (target @ right.T) / (left @ (right @ right.T) + 1e-12)
    return result


rng = np.random.default_rng(15)
topics = rng.random((TOPICS, WORDS)) ** 12
mixtures = rng.random((DOCUMENTS, TOPICS)) ** 6
counts = rng.poisson(2000 * mixtures @ topics / TOPICS).astype(np.float64)

w = rng.random((DOCUMENTS, TOPICS)) + 0.1
h = rng.random((TOPICS, WORDS)) + 0.1
norm = np.linalg.norm(counts)
errors = []
for step in range(STEPS):
    w = update(w, h, counts)
    h = update(h.T, w.T, counts.T).T
    if step % 10 == 9:
        errors.append(np.linalg.norm(counts - w @ h) / norm)

strength = w.sum(axis=0) * h.sum(axis=1)
share = np.sort(strength)[::-1] / strength.sum()
print(f"relative error {errors[0]:.5f}, at the end {errors[-1]:.5f}", end=", ")
print(f"largest topics {share[0]:.4f} {share[1]:.4f}")
