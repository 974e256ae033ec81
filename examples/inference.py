"""Inference with the network that reads digits: float32, bfloat16 and int8 layers of nkblas.

The network (see network.py) is trained once with NumPy. Its weights are then used in layers of
nkblas (see layers.py), which compute product, bias and ReLU in a single pass. Hidden bfloat16 and
int8 layers return results of the same dtype.

Run it with ``python examples/inference.py``. It requires scikit-learn, which contains the images,
and ml_dtypes, and also runs PyTorch if that is installed. The exit status is 1 if a network reads
more digits differently than `ALLOWED_DIFFERENCES` documents, or if nkblas left a product to NumPy.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

# One thread, for nkblas, NumPy's BLAS and PyTorch. (It must be set before NumPy is imported.)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from compare import TIME_HEADINGS, Array, Error, print_table, time_cells, time_interleaved
from layers import BFloat16Linear, CalibrationLinear, Int8Linear, Linear, NumPyLinear
from ml_dtypes import bfloat16
from network import EPOCHS, SIZES, Network, load

import nkblas

ALLOWED_DIFFERENCES = {"float32": 0.002, "bfloat16": 0.005, "int8": 0.01}
"""Fraction of the test images that may be read differently than in float64, for each dtype.

An image is read differently if the scores of two digits differ by less than the errors of both. The
errors are about 2e-7, 0.2 % and 1 % of a score, and a trained network gives few such scores.
"""

Layer = tuple[Array, Array]


def run(layers: Sequence[Callable[..., Array]], x: Array) -> Array:
    """The scores of each image."""
    *hidden, last = layers
    for layer in hidden:
        x = layer(x, activation="relu")
    return last(x)


def bfloat16_layers(layers: Sequence[Layer]) -> list[BFloat16Linear]:
    """Layers in bfloat16; the result of the last one is float32."""
    out_dtypes = [bfloat16] * (len(layers) - 1) + [np.float32]
    return [BFloat16Linear(*layer, dtype) for layer, dtype in zip(layers, out_dtypes, strict=True)]


def int8_layers(layers: Sequence[Layer], sample: Array) -> list[Int8Linear]:
    """Layers in int8, whose ranges are measured on a sample (calibration)."""
    calibrated = [CalibrationLinear(*layer) for layer in layers]
    run(calibrated, sample)
    inputs = [layer.largest for layer in calibrated]
    results = [*inputs[1:], None]
    return [
        Int8Linear(*layer, largest, largest_result)
        for layer, largest, largest_result in zip(layers, inputs, results, strict=True)
    ]


def torch_network(layers: Sequence[Layer], dtype: str) -> Callable[[Array], Array]:
    """The network computed by PyTorch."""
    # PyTorch is optional
    import torch
    from torch.nn.functional import linear

    def tensor(x: Array) -> Any:
        return torch.from_numpy(x).to(getattr(torch, dtype))

    torch.set_num_threads(nkblas.get_num_threads())
    *hidden, last = [(tensor(w.T.copy()), tensor(bias)) for w, bias in layers]

    @torch.inference_mode()
    def network(images: Array) -> Array:
        x = tensor(images)
        for layer in hidden:
            x = linear(x, *layer).relu_()
        return linear(x, *last).float().numpy()

    return network


def train() -> list[Layer]:
    """Weights and biases of a trained network."""
    images, labels, _, _ = load()
    network = Network(seed=0)
    for _ in range(EPOCHS):
        network.train_epoch(images, labels)
    return network.layers


def main() -> int:
    train_images, _, test_images, test_labels = load()
    trained = train()
    documented: dict[str, Sequence[Callable[..., Array]]] = {
        "numpy float32": [NumPyLinear(*layer) for layer in trained],
        "nkblas float32": [Linear(*layer) for layer in trained],
        "nkblas bfloat16": bfloat16_layers(trained),
        "nkblas int8": int8_layers(trained, train_images),
    }
    calls = {name: partial(run, layers, test_images) for name, layers in documented.items()}
    if find_spec("torch"):
        for dtype in ("float32", "bfloat16"):
            calls[f"torch {dtype}"] = partial(torch_network(trained, dtype), test_images)
    float64_layers = [
        NumPyLinear(w.astype("float64"), bias.astype("float64")) for w, bias in trained
    ]
    exact = run(float64_layers, test_images.astype(np.float64))

    print(f"A trained {'-'.join(map(str, SIZES))} network reads {len(test_images)} digits\n")
    times = time_interleaved(calls)
    rows: list[tuple[str, ...]] = [
        (*TIME_HEADINGS, "accuracy", "differences", "allowed", "error of scores")
    ]
    inaccurate = []
    for name, call in calls.items():
        scores = call()
        digits, allowed = scores.argmax(axis=1), ALLOWED_DIFFERENCES[name.split()[1]]
        differences = np.mean(digits != exact.argmax(axis=1))
        rows.append(
            (
                *time_cells(name, times),
                f"{np.mean(digits == test_labels):.2%}",
                f"{differences:.2%}",
                f"{allowed:.2%}" if name in documented else "",
                f"{Error.of(scores, exact).relative:.1e}",
            )
        )
        if name in documented and differences > allowed:
            inaccurate.append(name)
    print_table(*rows)
    print(f"Not as accurate as documented: {', '.join(inaccurate) or 'none'}")
    fallbacks = nkblas.stats()["fallbacks"]
    print(f"Products that nkblas left to NumPy: {fallbacks} of {nkblas.stats()['calls']}\n")
    return 1 if inaccurate or fallbacks else 0


if __name__ == "__main__":
    sys.exit(main())
