"""Regression with a Gaussian process: the length scale of highest likelihood, and predictions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

TRAIN, TEST, DIMENSIONS, NOISE = 1500, 2000, 6, 0.1
LENGTH_SCALES = (0.7, 1.0, 1.4, 2.0)


def squared_distances(a: Array, b: Array) -> Array:
    """Squared distances between the rows of two arrays."""
    squares = (a**2).sum(axis=1)[:, np.newaxis] + (b**2).sum(axis=1)
    result: Array = np.maximum(squares - 2 * a @ b.T, 0)
    return result


def kernel(a: Array, b: Array, length_scale: float) -> Array:
    """The kernel of radial basis functions."""
    result: Array = np.exp(squared_distances(a, b) / (-2 * length_scale**2))
    return result


def factor(x: Array, length_scale: float) -> Array:
    """The Cholesky factor of the covariance of the observations."""
    covariance = kernel(x, x, length_scale)
    covariance[np.diag_indices(len(x))] += NOISE**2
    return np.linalg.cholesky(covariance)


def log_likelihood(x: Array, y: Array, length_scale: float) -> float:
    """The logarithm of the marginal likelihood."""
    lower = factor(x, length_scale)
    whitened = np.linalg.solve(lower, y)
    constant = len(y) * np.log(2 * np.pi) / 2
    return float(-(whitened @ whitened) / 2 - np.log(np.diag(lower)).sum() - constant)


rng = np.random.default_rng(4)
x = rng.uniform(-2, 2, (TRAIN + TEST, DIMENSIONS))
signal = np.sin(x @ rng.standard_normal(DIMENSIONS)) + 0.5 * x[:, 0] * x[:, 1]
y = signal + NOISE * rng.standard_normal(TRAIN + TEST)
x_train, x_test, y_train = x[:TRAIN], x[TRAIN:], y[:TRAIN]

likelihoods = [log_likelihood(x_train, y_train, scale) for scale in LENGTH_SCALES]
best = LENGTH_SCALES[int(np.argmax(likelihoods))]

lower = factor(x_train, best)
between = kernel(x_train, x_test, best)
whitened = np.linalg.solve(lower, np.column_stack([y_train, between]))
mean = whitened[:, 1:].T @ whitened[:, 0]
variance = 1 - np.einsum("ij,ij->j", whitened[:, 1:], whitened[:, 1:])
error = np.sqrt(np.mean((mean - signal[TRAIN:]) ** 2))
print(f"length scale {best}, log-likelihood {max(likelihoods):.2f}")
print(f"error {error:.5f}, mean variance {variance.mean():.5f}")
