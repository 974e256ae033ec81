"""Covariance, correlation and principal components of a table with many columns.

The uncertainty of the explained variance comes from resampled rows.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SAMPLES, FEATURES, FACTORS = 20_000, 400, 12
RESAMPLES = 5


def explained_variance(covariance: Array) -> Array:
    """Fractions of the variance along the principal components, the largest first."""
    variances = np.linalg.eigvalsh(covariance)[::-1]
    fractions: Array = variances / variances.sum()
    return fractions


rng = np.random.default_rng(0)
loadings = rng.standard_normal((FACTORS, FEATURES))
factors = rng.standard_normal((SAMPLES, FACTORS)) * np.linspace(2, 1, FACTORS)
table = factors @ loadings + rng.standard_normal((SAMPLES, FEATURES)) + 3.0

covariance = np.cov(table, rowvar=False)
correlation = np.corrcoef(table, rowvar=False)

# principal components, the scores of all rows, and what remains of the table without the rest
mean = table.mean(axis=0)
centred = table - mean
variances, directions = np.linalg.eigh(centred.T @ centred / (SAMPLES - 1))
components = directions[:, -FACTORS:]
scores = centred @ components
residual = centred - scores @ components.T

first = []
for _ in range(RESAMPLES):
    counts = rng.multinomial(SAMPLES, np.full(SAMPLES, 1 / SAMPLES))
    shifted = table - counts @ table / SAMPLES
    weighted = counts[:, np.newaxis] * shifted
    first.append(explained_variance(weighted.T @ shifted / (SAMPLES - 1))[0])

strongest = np.abs(correlation - np.eye(FEATURES)).max()
print(f"total variance {np.trace(covariance):.6g}, strongest correlation {strongest:.5f}")
print(f"explained {explained_variance(covariance)[:FACTORS].sum():.6f}", end=", ")
print(f"first component {np.mean(first):.5f}, residual {np.sqrt(np.mean(residual**2)):.5f}")
