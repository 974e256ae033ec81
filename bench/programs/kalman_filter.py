"""Kalman filters of many targets at once: positions are observed, motion is estimated.

States have a position and a velocity (4 numbers), or an acceleration, too (6 numbers).
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TARGETS, STEPS, TIME_STEP = 2000, 250, 0.05


def motion_model(order: int) -> tuple[Array, Array, Array]:
    """Transition, process noise and observation matrices of two coordinates."""
    steps = [
        [TIME_STEP ** (j - i) / math.factorial(j - i) if j >= i else 0.0 for j in range(order)]
        for i in range(order)
    ]
    transition = np.kron(np.array(steps), np.eye(2))
    disturbance = np.array([[TIME_STEP ** (order - i)] for i in range(order)])
    noise = np.kron(disturbance @ disturbance.T, np.eye(2)) + 1e-6 * np.eye(2 * order)
    return transition, noise, np.eye(2, 2 * order)


def track(observations: Array, order: int, sigma: Array) -> tuple[Array, Array]:
    """Filter all targets; returns the last states and their covariances.

    Parameters
    ----------
    observations : ndarray of shape (steps, targets, 2)
    order : int
        The number of derivatives in a state.
    sigma : ndarray of shape (targets,)
        Standard deviations of the observations.
    """
    f, q, h = motion_model(order)
    identity = np.eye(2 * order)
    r = sigma[:, np.newaxis, np.newaxis] ** 2 * np.eye(2)
    state = np.zeros((observations.shape[1], 2 * order, 1))
    covariance = np.broadcast_to(10 * identity, (len(state), 2 * order, 2 * order))
    for z in observations:
        state = f @ state
        covariance = f @ covariance @ f.T + q
        gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + r)
        state = state + gain @ (z[:, :, np.newaxis] - h @ state)
        rest = identity - gain @ h
        covariance = rest @ covariance @ rest.mT + gain @ r @ gain.mT
    return state[:, :, 0], covariance


rng = np.random.default_rng(5)
time = TIME_STEP * np.arange(1, STEPS + 1)[:, np.newaxis, np.newaxis]
velocity, acceleration = rng.standard_normal((2, TARGETS, 2))
position = velocity * time + 0.1 * acceleration * time**2
sigma = rng.uniform(0.1, 0.5, TARGETS)
observed = position + sigma[:, np.newaxis] * rng.standard_normal(position.shape)

for order in (2, 3):
    states, covariances = track(observed, order, sigma)
    error = np.sqrt(np.mean((states[:, :2] - position[-1]) ** 2))
    spread = np.sqrt(np.trace(covariances, axis1=1, axis2=2)).mean()
    print(f"{2 * order} numbers a state: error {error:.5f}, spread {spread:.5f}")
