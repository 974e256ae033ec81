"""An encoder block of a transformer in NumPy, its layers by nkblas: float32, bfloat16 and int8.

The block is BERT's: attention, then two layers with a GELU between them; the input of either is
added to its result, and the sum is normalized. `Block` is plain NumPy but for what it is given: the
layers (see layers.py), and the function that multiplies stacks of matrices. Weights are random, of
the size that trained ones have.

Run it with ``python examples/encoder.py``, on one thread, or with ``OMP_NUM_THREADS=2`` before it
on two; five numbers behind it are other `Sizes`. It needs ml_dtypes, and compares with PyTorch if
that is installed. It ends with status 1 if a result is not as accurate as `ACCURACY` says, or if
nkblas has left a product to NumPy.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

# For nkblas, NumPy's BLAS and PyTorch. (Before NumPy is imported.)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from compare import COLUMNS, Array, Error, columns, in_turns, milliseconds, table
from layers import (
    BFloat16Linear,
    Int8Linear,
    Linear,
    NumPyLinear,
    WatchedLinear,
    layer_norm,
    softmax,
)
from ml_dtypes import bfloat16

import nkblas

ACCURACY = {"float32": 2**-18, "bfloat16": 2**-7, "int8": 2**-5}
"""The error that a block may have, relative to its result, both in the Frobenius norm.

float32
    A number is rounded by 2**-24 of it at most, and errors of a sum of k products grow like the
    square root of k (Higham and Mary, A new approach to probabilistic rounding error analysis,
    2019). For k = 3072 that makes 2**-18.
bfloat16
    A number of 8 bits is rounded by 2**-8 of it at most, and by 0.4 * 2**-8 in the root mean
    square. Both operands of a product are: 0.6 * 2**-8 for each of the products on the way, of
    which what is added in float32 leaves less. The bound is 2 * 2**-8.
int8
    A number is rounded by half a step at most, and by 0.29 steps in the root mean square, where the
    largest number is 127 steps. In a million of normally distributed numbers that one is 5 times
    their root mean square: an error of 1.1 %, and 0.7 % in a column of weights; 1.3 % in the
    product, and more behind a GELU, where large numbers are rarer. The bound is 3.1 %.
"""

LARGEST = 10
"""Times that, of a result's root mean square, any single element may be wrong. In a million of
normally distributed errors the largest is 5 times their root mean square."""


class Sizes(NamedTuple):
    """BERT-base's."""

    batch: int = 4
    length: int = 128
    heads: int = 12
    width: int = 768
    hidden: int = 3072


class Weights(NamedTuple):
    """Of each layer the matrix and the bias, of each normalization the gain and the shift.

    Attributes
    ----------
    qkv, out : (ndarray, ndarray)
        Attention's: what makes q, k and v in one product, q divided by the square root of a head's
        width; and what comes behind the heads.
    up, down : (ndarray, ndarray)
    norms : list of (ndarray, ndarray)
    """

    qkv: tuple[Array, Array]
    out: tuple[Array, Array]
    up: tuple[Array, Array]
    down: tuple[Array, Array]
    norms: list[tuple[Array, Array]]

    @classmethod
    def draw(cls, sizes: Sizes) -> "Weights":
        """The same for the same sizes."""
        random = np.random.default_rng(0)

        def normal(deviation: float, *shape: int) -> Array:
            return random.normal(0, deviation, shape).astype(np.float32)

        def layer(n_in: int, n_out: int) -> tuple[Array, Array]:
            return normal(n_in**-0.5, n_in, n_out), normal(0.1, n_out)

        width, hidden = sizes.width, sizes.hidden
        qkv = layer(width, 3 * width)
        for numbers in qkv:
            numbers[..., :width] /= (width // sizes.heads) ** 0.5
        norms = [(1 + normal(0.2, width), normal(0.1, width)) for _ in range(2)]
        return cls(qkv, layer(width, width), layer(width, hidden), layer(hidden, width), norms)


class Block:
    """An encoder block.

    Parameters
    ----------
    sizes : Sizes
    layers : sequence of four layers
        For q, k and v; behind the heads; up; down.
    norms : list of (ndarray, ndarray)
    matmul : callable
        ``numpy.matmul``, or what does the same.
    """

    def __init__(self, sizes: Sizes, layers: Any, norms: Any, matmul: Any) -> None:
        self.sizes, self.norms, self.matmul = sizes, norms, matmul
        self.qkv, self.out, self.up, self.down = self.layers = list(layers)

    def __call__(self, x: Array) -> Array:
        """From and to a row for each token of each sequence."""
        x = layer_norm(self.out(self.attention(self.qkv(x)), residual=x), *self.norms[0])
        hidden = self.up(x, activation="gelu_tanh")
        return layer_norm(self.down(hidden, residual=x), *self.norms[1])

    def attention(self, qkv: Array) -> Array:
        batch, length, heads, width, _ = self.sizes
        # views, with one matrix of tokens for each sequence and head
        q, k, v = qkv.reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        scores = self.matmul(q, k.swapaxes(-1, -2))
        weights = softmax(scores).astype(v.dtype, copy=False)
        result = np.empty((batch, length, heads, width // heads), v.dtype)
        self.matmul(weights, v, out=result.swapaxes(1, 2), dtype=v.dtype)
        return result.reshape(-1, width)


def numpy_block(sizes: Sizes, dtype: Any) -> Block:
    """By NumPy alone; in float64 the reference."""
    *layers, norms = Weights.draw(sizes)

    def cast(pairs: Any) -> list[list[Array]]:
        return [[array.astype(dtype) for array in pair] for pair in pairs]

    return Block(sizes, (NumPyLinear(*x) for x in cast(layers)), cast(norms), np.matmul)


def float32_block(sizes: Sizes) -> Block:
    *layers, norms = Weights.draw(sizes)
    return Block(sizes, (Linear(*layer) for layer in layers), norms, nkblas.matmul)


def bfloat16_block(sizes: Sizes) -> Block:
    """Every product is one of bfloat16 matrices, attention's two as well.

    All sums are float32, and so are the scores until softmax is done, both normalizations, and what
    is added to the layers' results: x itself is never rounded.
    """
    *layers, norms = Weights.draw(sizes)
    types = bfloat16, np.float32, bfloat16, np.float32  # of the results
    chain = (BFloat16Linear(*layer, dtype) for layer, dtype in zip(layers, types, strict=True))
    return Block(sizes, chain, norms, nkblas.matmul)


def int8_block(sizes: Sizes) -> Block:
    """The four layers are products of int8 matrices; all else is float32, attention's products too.

    How large the inputs of each layer are is seen in a sample (calibration).
    """
    *layers, norms = Weights.draw(sizes)
    watched = [WatchedLinear(*layer) for layer in layers]
    Block(sizes, watched, norms, nkblas.matmul)(tokens(sizes, seed=2))
    both = zip(layers, watched, strict=True)
    return Block(sizes, (Int8Linear(*x, seen.largest) for x, seen in both), norms, nkblas.matmul)


def torch_block(sizes: Sizes, dtype: str) -> Callable[[Array], Array]:
    """By PyTorch: in bfloat16, everything is that, as with ``model.to(torch.bfloat16)``."""
    import torch
    from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

    def tensor(x: Array) -> Any:
        return torch.from_numpy(x).to(getattr(torch, dtype))

    torch.set_num_threads(nkblas.get_num_threads())
    *layers, norms = Weights.draw(sizes)
    qkv, out, up, down = [(tensor(w.T.copy()), tensor(bias)) for w, bias in layers]
    (gain, shift), (gain2, shift2) = [(tensor(gain), tensor(shift)) for gain, shift in norms]
    batch, length, heads, width, _ = sizes

    @torch.inference_mode()
    def block(rows: Array) -> Array:
        x = tensor(rows)
        q, k, v = linear(x, *qkv).view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        heads_done = scaled_dot_product_attention(q, k, v, scale=1)
        attended = linear(heads_done.transpose(1, 2).reshape(-1, width), *out)
        x = layer_norm(x + attended, (width,), gain, shift)
        hidden = gelu(linear(x, *up), approximate="tanh")
        x = layer_norm(x + linear(hidden, *down), (width,), gain2, shift2)
        return x.float().numpy()

    return block


def tokens(sizes: Sizes, seed: int = 1) -> Array:
    """What a block is given: normalized rows."""
    shape = sizes.batch * sizes.length, sizes.width
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def documented_blocks(sizes: Sizes) -> dict[str, Block]:
    """Those that have to be as accurate as `ACCURACY` says, by library and type."""
    return {
        "numpy float32": numpy_block(sizes, np.float32),
        "nkblas float32": float32_block(sizes),
        "nkblas bfloat16": bfloat16_block(sizes),
        "nkblas int8": int8_block(sizes),
    }


def is_accurate(name: str, error: Error) -> bool:
    """Whether it is what `ACCURACY` allows."""
    allowed = ACCURACY[name.split()[1]]
    return error.relative <= allowed and error.largest <= LARGEST * allowed


def main() -> int:
    sizes = Sizes(*map(int, sys.argv[1:]))
    x = tokens(sizes)
    documented = documented_blocks(sizes)
    calls: dict[str, Callable[[], Array]] = {
        name: partial(block, x) for name, block in documented.items()
    }
    if find_spec("torch"):
        for dtype in ("float32", "bfloat16"):
            calls[f"torch {dtype}"] = partial(torch_block(sizes, dtype), x)
    expected = numpy_block(sizes, np.float64)(x.astype(np.float64))

    print(f"{nkblas.cpu.brand}, {nkblas.cpu.isa.name}, threads: {nkblas.get_num_threads()}")
    print(f"An encoder block of a transformer, {sizes}\n")
    times = in_turns(calls)
    errors = {name: Error.of(call(), expected) for name, call in calls.items()}
    rows: list[tuple[str, ...]] = [
        (*COLUMNS, "in products", "error", "allowed", "largest", "allowed")
    ]
    for name, error in errors.items():
        allowed = ACCURACY[name.split()[1]]
        rows.append(
            (
                *columns(name, times),
                milliseconds(times[name].products) if "nkblas" in name else "",
                f"{error.relative:.1e}",
                f"{allowed:.1e}" if name in documented else "",
                f"{error.largest:.1e}",
                f"{LARGEST * allowed:.1e}" if name in documented else "",
            )
        )
    table(*rows)
    wrong = [name for name in documented if not is_accurate(name, errors[name])]
    print(f"Not as accurate as documented: {', '.join(wrong) or 'none'}")
    fallbacks = nkblas.stats()["fallbacks"]
    print(f"Products that nkblas left to NumPy: {fallbacks} of {nkblas.stats()['calls']}\n")
    return 1 if wrong or fallbacks else 0


if __name__ == "__main__":
    sys.exit(main())
