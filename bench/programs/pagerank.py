"""PageRank of a dense graph by power iteration, and personalised ranks for a block of users."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PAGES, USERS, DAMPING, BLOCK = 4000, 64, 0.85, 500

rng = np.random.default_rng(13)
popularity = rng.pareto(1.5, PAGES).astype(np.float32)
links = rng.random((PAGES, PAGES), np.float32) < 0.005 * popularity  # from rows to columns
np.fill_diagonal(links, True)
transition = links / links.sum(axis=1, dtype=np.float32, keepdims=True)

# ranks in float64, with the transposed matrix: transition.T @ ranks
matrix = transition.T.astype(np.float64)
ranks = np.full(PAGES, 1 / PAGES)
change = 1.0
while change > 1e-12:
    last = ranks
    ranks = DAMPING * (matrix @ ranks) + (1 - DAMPING) / PAGES
    ranks /= ranks.sum()
    change = float(np.abs(ranks - last).sum())

# ranks in float32: a row vector times the matrix
quick = np.full(PAGES, 1 / PAGES, np.float32)
for _ in range(40):
    quick = np.float32(DAMPING) * np.dot(quick, transition) + np.float32((1 - DAMPING) / PAGES)

# one column for each user, who starts on pages of their own; a block of rows at a time
starts = np.zeros((PAGES, USERS), np.float32)
for user in range(USERS):
    starts[rng.choice(PAGES, 5, replace=False), user] = 1 / 5
personal = starts
for _ in range(40):
    spread = np.empty_like(personal)
    for first in range(0, PAGES, BLOCK):
        rows = slice(first, first + BLOCK)
        np.matmul(transition[:, rows].T, personal, out=spread[rows])
    personal = np.float32(DAMPING) * spread + np.float32(1 - DAMPING) * starts

best = np.argsort(ranks)[-3:]
print(f"best pages {' '.join(map(str, best))}: {' '.join(f'{x:.6f}' for x in ranks[best])}")
print(f"{quick.max():.6f} in float32, best personal ranks {personal.max(axis=0).mean():.6f}")
