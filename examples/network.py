"""A neural network that learns to read handwritten digits, in NumPy.

Run it with ``python examples/network.py``, or unchanged on nkblas with ``nkblas run --report
examples/network.py``. It requires scikit-learn, which contains the images: 1797 digits of 8x8
pixels.
"""

import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

Array = np.ndarray[Any, Any]
Matmul = Callable[[Array, Array], Array]

SIZES = (64, 256, 128, 10)
BATCH, EPOCHS, TEST = 128, 30, 597
RATE, MOMENTUM = 0.05, 0.9


class Network:
    """A multilayer perceptron (ReLU, softmax, cross-entropy) trained by SGD with momentum."""

    def __init__(self, seed: int, matmul: Matmul = operator.matmul) -> None:
        self.matmul = matmul
        self.random = np.random.default_rng(seed)
        self.layers = [
            (
                self.random.normal(0, (2 / n_in) ** 0.5, (n_in, n_out)).astype(np.float32),
                np.zeros(n_out, np.float32),
            )
            for n_in, n_out in pairwise(SIZES)
        ]
        self.velocities = [(np.zeros_like(w), np.zeros_like(bias)) for w, bias in self.layers]

    def forward(self, x: Array) -> list[Array]:
        """The input of each layer, followed by the scores: the output of the last layer."""
        values = [x]
        for w, bias in self.layers:
            is_hidden = len(values) < len(self.layers)
            x = self.matmul(x, w) + bias
            x = np.maximum(x, 0) if is_hidden else x
            values.append(x)
        return values

    def train_epoch(self, x: Array, labels: Array) -> None:
        """One pass over the training data, in a random order."""
        order = self.random.permutation(len(x))
        for batch in order[: len(x) - len(x) % BATCH].reshape(-1, BATCH):
            self.step(x[batch], labels[batch])

    def step(self, x: Array, labels: Array) -> None:
        """One update with a minibatch: forward pass, backward pass, and descent."""
        *inputs, scores = self.forward(x)
        g = np.exp(scores - scores.max(axis=1, keepdims=True))
        g /= g.sum(axis=1, keepdims=True)
        g[np.arange(len(g)), labels] -= 1
        g /= len(g)  # now the gradient of the loss with respect to the scores
        for layer in reversed(range(len(self.layers))):
            x, (w, _) = inputs[layer], self.layers[layer]
            gradients = self.matmul(x.T, g), g.sum(axis=0)  # x.T is a view, not a copy
            if layer:
                g = self.matmul(g, w.T) * (x > 0)
            for parameter, velocity, gradient in zip(
                self.layers[layer], self.velocities[layer], gradients, strict=True
            ):
                velocity *= MOMENTUM
                velocity -= RATE * gradient
                parameter += velocity

    def accuracy(self, x: Array, labels: Array) -> float:
        """Fraction of the images that are recognized."""
        return float(np.mean(self.forward(x)[-1].argmax(axis=1) == labels))


def load() -> tuple[Array, Array, Array, Array]:
    """Training images and labels, test images and labels."""
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[TEST:], order[:TEST]
    return x[train], labels[train], x[test], labels[test]


def main() -> None:
    train, labels, *test = load()
    network = Network(seed=0)
    for _ in range(EPOCHS):
        network.train_epoch(train, labels)
    print("accuracy", network.accuracy(*test))


if __name__ == "__main__":
    main()
