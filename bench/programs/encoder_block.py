"""The encoder of a transformer in float32: four layers over batches of token sequences."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BATCHES, BATCH, TOKENS, WIDTH, HEADS, LAYERS = 8, 8, 128, 256, 8, 4


class Layer(NamedTuple):
    """The weights of a layer."""

    qkv: Array
    out: Array
    expand: Array
    expand_bias: Array
    contract: Array
    contract_bias: Array


def softmax(x: Array) -> Array:
    """Softmax along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def normalize(x: Array) -> Array:
    """Layer normalization."""
    centred = x - x.mean(axis=-1, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return result


def gelu(x: Array) -> Array:
    """The approximation of GELU with tanh."""
    result: Array = 0.5 * x * (1 + np.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))
    return result


def attention(x: Array, layer: Layer) -> Array:
    """Attention of all heads; x has the shape (batch, tokens, width)."""
    batch, tokens, width = x.shape
    qkv = (x @ layer.qkv).reshape(batch, tokens, 3, HEADS, width // HEADS)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    scores = np.einsum("bhqd,bhkd->bhqk", q, k) * np.float32((width // HEADS) ** -0.5)
    mixed = softmax(scores) @ v
    result: Array = mixed.transpose(0, 2, 1, 3).reshape(batch, tokens, width) @ layer.out
    return result


def encode(x: Array, layers: list[Layer]) -> Array:
    """The output of the last layer."""
    for layer in layers:
        x = x + attention(normalize(x), layer)
        hidden = gelu(normalize(x) @ layer.expand + layer.expand_bias)
        x = x + hidden @ layer.contract + layer.contract_bias
    return normalize(x)


rng = np.random.default_rng(6)


def weights(*shape: int) -> Array:
    """Random weights of a layer."""
    return rng.standard_normal(shape, np.float32) / np.float32(shape[0] ** 0.5)


shapes: list[tuple[int, ...]] = [(WIDTH, n * WIDTH) for n in (3, 1, 4)]
shapes += [(4 * WIDTH,), (4 * WIDTH, WIDTH), (WIDTH,)]
layers = [Layer(*(weights(*shape) for shape in shapes)) for _ in range(LAYERS)]
embedding, head = weights(1000, WIDTH) * 30, weights(WIDTH, 10)
total = np.zeros(10)
for _ in range(BATCHES):
    tokens = rng.integers(0, 1000, (BATCH, TOKENS))
    pooled = encode(embedding[tokens], layers).mean(axis=1)
    total += softmax(pooled @ head).sum(axis=0)
print(f"{total.sum():.4f} sequences, by class: {' '.join(f'{share:.4f}' for share in total)}")
