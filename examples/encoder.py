"""An encoder block of a transformer, with layers of nkblas in float32, bfloat16 and int8.

The block is that of BERT: attention, then two layers with a GELU between them. The input of each
half is added to its output, and the sum is normalized. `Block` is written in NumPy and takes the
layers (see layers.py) and the function that multiplies batches of matrices as arguments. The
weights are random, with the magnitude of trained ones.

Run it with ``python examples/encoder.py``, on one thread, or with ``OMP_NUM_THREADS=2`` on two.
Five numbers as arguments replace the `Sizes`. It requires ml_dtypes, and also runs PyTorch if that
is installed. The exit status is 1 if a result is less accurate than `ACCURACY` documents, or if
nkblas left a product to NumPy.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

# One thread, for nkblas, NumPy's BLAS and PyTorch. (It must be set before NumPy is imported.)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from compare import (
    TIME_HEADINGS,
    Array,
    Error,
    milliseconds,
    print_table,
    time_cells,
    time_interleaved,
)
from layers import (
    BFloat16Linear,
    CalibrationLinear,
    Int8Linear,
    Linear,
    NumPyLinear,
    layer_norm,
    softmax,
)
from ml_dtypes import bfloat16

import nkblas

ACCURACY = {"float32": 2**-18, "bfloat16": 2**-7, "int8": 2**-5}
"""The largest relative error of a block, in the Frobenius norm, for each dtype.

float32
    Rounding changes a number by at most 2**-24 of it. The error of a sum of k products grows with
    the square root of k (Higham and Mary, A new approach to probabilistic rounding error analysis,
    2019), which is 2**-18 for k = 3072.
bfloat16
    Rounding to 8 bits changes a number by at most 2**-8 of it, and by 0.4 * 2**-8 in the root mean
    square. Both operands of a product are rounded, which is 0.6 * 2**-8 for each of the successive
    products; the float32 residuals that are added between them reduce it. The bound is 2 * 2**-8.
int8
    Rounding changes a number by at most half a step, and by 0.29 steps in the root mean square. The
    largest number is 127 steps. Among a million normally distributed numbers the largest is 5 times
    their root mean square: an error of 1.1 %, and 0.7 % in a column of the weights. That is 1.3 %
    in the product, and more after a GELU, where large numbers are rarer. The bound is 3.1 %.
"""

LARGEST_ERROR_FACTOR = 10
"""The largest error of an element, relative to the root mean square of the result, in `ACCURACY`.

Among a million normally distributed errors, the largest is 5 times their root mean square.
"""


class Sizes(NamedTuple):
    """The sizes of a block; the defaults are those of BERT-base."""

    batch: int = 4
    length: int = 128
    heads: int = 12
    width: int = 768
    hidden: int = 3072


class Weights(NamedTuple):
    """The parameters of a block.

    Attributes
    ----------
    qkv, out : (ndarray, ndarray)
        Weights and bias of the layers of attention: the layer that computes q, k and v in one
        product, with q divided by the square root of the width of a head; and the output layer.
    up, down : (ndarray, ndarray)
        Weights and bias of the two other layers.
    norms : list of (ndarray, ndarray)
        Gain and shift of both normalizations.
    """

    qkv: tuple[Array, Array]
    out: tuple[Array, Array]
    up: tuple[Array, Array]
    down: tuple[Array, Array]
    norms: list[tuple[Array, Array]]

    @classmethod
    def draw(cls, sizes: Sizes) -> "Weights":
        """Random parameters; equal sizes give equal parameters."""
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
    layers : iterable of four layers
        In the order of `Weights`: qkv, out, up, down.
    norms : list of (ndarray, ndarray)
        Gain and shift of both normalizations.
    matmul : callable
        ``numpy.matmul``, or a function with its arguments.
    """

    def __init__(self, sizes: Sizes, layers: Any, norms: Any, matmul: Any) -> None:
        self.sizes, self.norms, self.matmul = sizes, norms, matmul
        self.qkv, self.out, self.up, self.down = layers

    def __call__(self, x: Array) -> Array:
        """Apply the block. Input and output have a row for each token of each sequence."""
        x = layer_norm(self.out(self.attention(self.qkv(x)), residual=x), *self.norms[0])
        hidden = self.up(x, activation="gelu_tanh")
        return layer_norm(self.down(hidden, residual=x), *self.norms[1])

    def attention(self, qkv: Array) -> Array:
        batch, length, heads, width, _ = self.sizes
        # views: a batch of matrices, one for each sequence and head
        q, k, v = qkv.reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        scores = self.matmul(q, k.swapaxes(-1, -2))
        weights = softmax(scores).astype(v.dtype, copy=False)
        result = np.empty((batch, length, heads, width // heads), v.dtype)
        self.matmul(weights, v, out=result.swapaxes(1, 2), dtype=v.dtype)
        return result.reshape(-1, width)


def numpy_block(sizes: Sizes, dtype: Any) -> Block:
    """A block computed by NumPy; in float64 it is the reference."""
    *layers, norms = Weights.draw(sizes)

    def cast(pairs: Any) -> list[list[Array]]:
        return [[array.astype(dtype) for array in pair] for pair in pairs]

    return Block(sizes, (NumPyLinear(*x) for x in cast(layers)), cast(norms), np.matmul)


def float32_block(sizes: Sizes) -> Block:
    *layers, norms = Weights.draw(sizes)
    return Block(sizes, (Linear(*layer) for layer in layers), norms, nkblas.matmul)


def bfloat16_block(sizes: Sizes) -> Block:
    """A block with all products in bfloat16, including the two products of attention.

    Sums, the scores up to the result of softmax, normalizations and residuals are float32: x itself
    is never rounded.
    """
    *layers, norms = Weights.draw(sizes)
    out_dtypes = bfloat16, np.float32, bfloat16, np.float32
    linears = (BFloat16Linear(*layer, out) for layer, out in zip(layers, out_dtypes, strict=True))
    return Block(sizes, linears, norms, nkblas.matmul)


def int8_block(sizes: Sizes) -> Block:
    """A block with the four layers in int8; all else is float32, also the products of attention.

    The ranges of the layers' inputs are measured on a sample (calibration).
    """
    *layers, norms = Weights.draw(sizes)
    calibrated = [CalibrationLinear(*layer) for layer in layers]
    Block(sizes, calibrated, norms, nkblas.matmul)(tokens(sizes, seed=2))
    linears = (
        Int8Linear(*layer, calibration.largest)
        for layer, calibration in zip(layers, calibrated, strict=True)
    )
    return Block(sizes, linears, norms, nkblas.matmul)


def torch_block(sizes: Sizes, dtype: str) -> Callable[[Array], Array]:
    """A block computed by PyTorch; all of it in one dtype, as with ``model.to(torch.bfloat16)``."""
    # PyTorch is optional
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
        heads_out = scaled_dot_product_attention(q, k, v, scale=1)
        attended = linear(heads_out.transpose(1, 2).reshape(-1, width), *out)
        x = layer_norm(x + attended, (width,), gain, shift)
        hidden = gelu(linear(x, *up), approximate="tanh")
        x = layer_norm(x + linear(hidden, *down), (width,), gain2, shift2)
        return x.float().numpy()

    return block


def tokens(sizes: Sizes, seed: int = 1) -> Array:
    """Random input of a block: normally distributed rows."""
    shape = sizes.batch * sizes.length, sizes.width
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def documented_blocks(sizes: Sizes) -> dict[str, Block]:
    """The blocks whose accuracy is documented, by library and dtype."""
    return {
        "numpy float32": numpy_block(sizes, np.float32),
        "nkblas float32": float32_block(sizes),
        "nkblas bfloat16": bfloat16_block(sizes),
        "nkblas int8": int8_block(sizes),
    }


def is_accurate(name: str, error: Error) -> bool:
    """Whether an error is within `ACCURACY`."""
    allowed = ACCURACY[name.split()[1]]
    return error.relative <= allowed and error.largest <= LARGEST_ERROR_FACTOR * allowed


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
    exact = numpy_block(sizes, np.float64)(x.astype(np.float64))

    print(f"{nkblas.cpu.brand}, {nkblas.cpu.isa.name}, threads: {nkblas.get_num_threads()}")
    print(f"An encoder block of a transformer, {sizes}\n")
    times = time_interleaved(calls)
    errors = {name: Error.of(call(), exact) for name, call in calls.items()}
    rows: list[tuple[str, ...]] = [
        (*TIME_HEADINGS, "in products", "error", "allowed", "largest", "allowed")
    ]
    for name, error in errors.items():
        allowed = ACCURACY[name.split()[1]]
        rows.append(
            (
                *time_cells(name, times),
                milliseconds(times[name].products) if "nkblas" in name else "",
                f"{error.relative:.1e}",
                f"{allowed:.1e}" if name in documented else "",
                f"{error.largest:.1e}",
                f"{LARGEST_ERROR_FACTOR * allowed:.1e}" if name in documented else "",
            )
        )
    print_table(*rows)
    inaccurate = [name for name in documented if not is_accurate(name, errors[name])]
    print(f"Not as accurate as documented: {', '.join(inaccurate) or 'none'}")
    fallbacks = nkblas.stats()["fallbacks"]
    print(f"Products that nkblas left to NumPy: {fallbacks} of {nkblas.stats()['calls']}\n")
    return 1 if inaccurate or fallbacks else 0


if __name__ == "__main__":
    sys.exit(main())
