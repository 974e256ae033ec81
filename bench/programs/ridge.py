"""Ridge regression by the normal equations: a path of penalties, chosen by cross-validation."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SAMPLES, FEATURES, TARGETS, FOLDS = 10_000, 600, 4, 8
ALPHAS = np.logspace(-1, 5, 13)


def fit_path(gram: Array, moments: Array) -> Array:
    """Coefficients for each penalty: an array of shape (penalties, features, targets)."""
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ moments
    return np.stack([vectors @ (rotated / (values + alpha)[:, np.newaxis]) for alpha in ALPHAS])


rng = np.random.default_rng(1)
mixing = np.eye(FEATURES) + rng.standard_normal((FEATURES, FEATURES)) / 25
x = rng.standard_normal((SAMPLES, FEATURES)) @ mixing
truth = rng.standard_normal((FEATURES, TARGETS)) * (rng.random((FEATURES, 1)) < 0.2)
y = x @ truth + 15 * rng.standard_normal((SAMPLES, TARGETS))

folds = np.array_split(rng.permutation(SAMPLES), FOLDS)
errors = np.zeros((FOLDS, len(ALPHAS)))
for i in range(FOLDS):
    train = np.concatenate(folds[:i] + folds[i + 1 :])
    x_train, y_train = x[train], y[train]
    x_test, y_test = x[folds[i]], y[folds[i]]
    path = fit_path(x_train.T @ x_train, x_train.T @ y_train)
    predictions = x_test @ path
    errors[i] = np.mean((predictions - y_test) ** 2, axis=(1, 2))

best = int(errors.mean(axis=0).argmin())
penalty = ALPHAS[best] * np.eye(FEATURES)
coefficients = np.linalg.solve(x.T @ x + penalty, x.T @ y)
residual = y - x @ coefficients
r2 = 1 - (residual**2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
print(f"best penalty {ALPHAS[best]:.4g}, cross-validated error {errors.mean(axis=0)[best]:.4f}")
print(f"R2 {r2:.5f}, norm of the coefficients {np.linalg.norm(coefficients):.5f}")
