"""Text generation by a transformer in float32: a token at a time, with cached keys and values."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

PROMPT, NEW_TOKENS, VOCABULARY = 32, 256, 4000
WIDTH, HEADS, LAYERS = 384, 6, 6
HEAD_WIDTH = WIDTH // HEADS


class Layer:
    """A layer with its cache of keys and values."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.qkv = weights(rng, WIDTH, 3 * WIDTH)
        self.out = weights(rng, WIDTH, WIDTH)
        self.expand = weights(rng, WIDTH, 4 * WIDTH)
        self.contract = weights(rng, 4 * WIDTH, WIDTH)
        self.keys = np.zeros((HEADS, PROMPT + NEW_TOKENS, HEAD_WIDTH), np.float32)
        self.values = np.zeros_like(self.keys)

    def __call__(self, x: Array, position: int) -> Array:
        """The layer's output for new tokens of shape (tokens, width), from a position on."""
        end = position + len(x)
        qkv = (normalize(x) @ self.qkv).reshape(len(x), 3, HEADS, HEAD_WIDTH)
        q, k, v = qkv.transpose(1, 2, 0, 3)
        self.keys[:, position:end], self.values[:, position:end] = k, v
        scores = q @ self.keys[:, :end].mT / np.float32(HEAD_WIDTH**0.5)
        future = np.arange(end) > np.arange(position, end)[:, np.newaxis]
        scores[:, future] = -np.inf
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = powers / powers.sum(axis=-1, keepdims=True) @ self.values[:, :end]
        x = x + mixed.transpose(1, 0, 2).reshape(len(x), WIDTH) @ self.out
        result: Array = x + np.maximum(normalize(x) @ self.expand, 0) @ self.contract
        return result


def weights(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Random weights of a linear layer."""
    return rng.standard_normal((rows, columns), np.float32) / np.float32(WIDTH**0.5)


def normalize(x: Array) -> Array:
    """Normalization by the root mean square."""
    result: Array = x / np.sqrt(np.einsum("ij,ij->i", x, x) / WIDTH + 1e-6)[:, np.newaxis]
    return result


rng = np.random.default_rng(7)
layers = [Layer(rng) for _ in range(LAYERS)]
embedding = rng.standard_normal((VOCABULARY, WIDTH), np.float32)
head = 4 * weights(rng, VOCABULARY, WIDTH)
tokens = list(rng.integers(0, VOCABULARY, PROMPT))
x, log_likelihood = embedding[tokens], 0.0
for _ in range(NEW_TOKENS):
    position = len(tokens) - len(x)
    for layer in layers:
        x = layer(x, position)
    logits = np.dot(head, normalize(x)[-1])
    tokens.append(int(logits.argmax()))
    log_likelihood -= float(np.log(np.exp(logits - logits.max()).sum()))
    x = embedding[tokens[-1:]]
print(f"log-likelihood {log_likelihood:.4f}, last tokens {' '.join(map(str, tokens[-8:]))}")
