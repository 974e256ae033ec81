"""Gaussian-process regression in NumPy (Rasmussen and Williams, algorithm 2.1).

Run it with ``python examples/gaussian_process.py``, or unchanged on nkblas with ``nkblas run
--report examples/gaussian_process.py``.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SAMPLES, TEST, FEATURES, NOISE = 600, 200, 8, 0.1


def kernel(x: Array, y: Array, length: float) -> Array:
    """Squared-exponential covariances of all pairs, whose distances come from a product."""
    squares = np.einsum("ij,ij->i", x, x)[:, None] + np.einsum("ij,ij->i", y, y) - 2 * x @ y.T
    return np.exp(-0.5 * np.maximum(squares, 0) / length**2)


def fit(x: Array, y: Array, length: float) -> tuple[Array, Array, float]:
    """Cholesky factor of the covariance matrix, weights, and log marginal likelihood."""
    factor = np.linalg.cholesky(kernel(x, x, length) + NOISE**2 * np.eye(len(x)))
    weights = np.linalg.solve(factor.T, np.linalg.solve(factor, y))
    log_likelihood = -0.5 * np.dot(y, weights) - np.log(np.diag(factor)).sum()
    return factor, weights, log_likelihood - 0.5 * len(x) * np.log(2 * np.pi)


def main() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (SAMPLES + TEST, FEATURES))
    truth = np.sin(x[:, 0]) + 0.5 * np.cos(2 * x[:, 1]) + x[:, 2] * x[:, 3]
    y = truth + NOISE * random.normal(size=len(x))
    x, test_x, y = x[:SAMPLES], x[SAMPLES:], y[:SAMPLES]

    lengths = (0.5, 1.0, 2.0, 4.0)
    length = max(lengths, key=lambda length: fit(x, y, length)[2])
    factor, weights, likelihood = fit(x, y, length)
    cross_covariance = kernel(test_x, x, length)
    mean = cross_covariance.dot(weights)
    half = np.linalg.solve(factor, cross_covariance.T)
    deviation = np.sqrt(np.maximum(1 - np.einsum("ij,ij->j", half, half), 0))
    print("length", length)
    print("likelihood", likelihood)
    print("error", np.sqrt(np.mean((mean - truth[SAMPLES:]) ** 2)))
    print("deviation", deviation.mean())
    print("prediction", *mean[:5])


if __name__ == "__main__":
    main()
