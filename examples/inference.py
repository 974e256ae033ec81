"""The network that reads digits, trained in NumPy, at work: float32, bfloat16 and int8 by nkblas.

The network (see network.py) is trained once. Its weights go into layers of nkblas (see layers.py),
which take a layer in one pass: product, bias and ReLU. Those in bfloat16 and int8 hand on their
results in that type. Run it with ``python examples/inference.py``; it needs scikit-learn, which
brings the pictures, and ml_dtypes, and compares with PyTorch if that is installed. It ends with
status 1 if a network has lost more than `LOSS`, or if nkblas has left a product to NumPy.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

# For nkblas, NumPy's BLAS and PyTorch. (Before NumPy is imported.)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from compare import COLUMNS, Array, Error, columns, in_turns, table
from layers import BFloat16Linear, Int8Linear, Linear, NumPyLinear, WatchedLinear
from ml_dtypes import bfloat16
from network import EPOCHS, SIZES, Network, load

import nkblas

LOSS = {"float32": 0.002, "bfloat16": 0.005, "int8": 0.01}
"""Of the test pictures, the part that may be read differently than in float64.

A picture is, where the scores of two digits are closer together than the errors of both. Errors are
about 2e-7, 0.2 % and 1 % of a score, and training leaves few scores that close together.
"""

Layer = tuple[Array, Array]


def run(layers: Sequence[Callable[..., Array]], x: Array) -> Array:
    """The scores of each picture."""
    *hidden, last = layers
    for layer in hidden:
        x = layer(x, activation="relu")
    return last(x)


def bfloat16_layers(layers: Sequence[Layer]) -> list[BFloat16Linear]:
    types = [bfloat16] * (len(layers) - 1) + [np.float32]
    return [BFloat16Linear(*layer, dtype) for layer, dtype in zip(layers, types, strict=True)]


def int8_layers(layers: Sequence[Layer], sample: Array) -> list[Int8Linear]:
    """How large the numbers between layers get is seen in a sample (calibration)."""
    watched = [WatchedLinear(*layer) for layer in layers]
    run(watched, sample)
    largest = [layer.largest for layer in watched]
    both = zip(layers, largest, [*largest[1:], None], strict=True)  # what comes in, what goes out
    return [Int8Linear(*layer, x, result) for layer, x, result in both]


def torch_network(layers: Sequence[Layer], dtype: str) -> Callable[[Array], Array]:
    """By PyTorch."""
    import torch
    from torch.nn.functional import linear

    def tensor(x: Array) -> Any:
        return torch.from_numpy(x).to(getattr(torch, dtype))

    torch.set_num_threads(nkblas.get_num_threads())
    *hidden, last = [(tensor(w.T.copy()), tensor(bias)) for w, bias in layers]

    @torch.inference_mode()
    def network(pictures: Array) -> Array:
        x = tensor(pictures)
        for layer in hidden:
            x = linear(x, *layer).relu_()
        return linear(x, *last).float().numpy()

    return network


def main() -> int:
    train, labels, test, test_labels = load()
    network = Network(seed=0)
    for _ in range(EPOCHS):
        network.train_epoch(train, labels)

    of = network.layers
    documented: dict[str, Sequence[Callable[..., Array]]] = {
        "numpy float32": [NumPyLinear(*layer) for layer in of],
        "nkblas float32": [Linear(*layer) for layer in of],
        "nkblas bfloat16": bfloat16_layers(of),
        "nkblas int8": int8_layers(of, train),
    }
    calls = {name: partial(run, layers, test) for name, layers in documented.items()}
    if find_spec("torch"):
        for dtype in ("float32", "bfloat16"):
            calls[f"torch {dtype}"] = partial(torch_network(of, dtype), test)
    wide = [NumPyLinear(w.astype(np.float64), bias.astype(np.float64)) for w, bias in of]
    expected = run(wide, test.astype(np.float64))

    print(f"A trained {'-'.join(map(str, SIZES))} network reads {len(test)} digits\n")
    times = in_turns(calls)
    rows: list[tuple[str, ...]] = [
        (*COLUMNS, "accuracy", "other digits", "allowed", "error of scores")
    ]
    wrong = []
    for name, call in calls.items():
        scores = call()
        digits, allowed = scores.argmax(axis=1), LOSS[name.split()[1]]
        others = np.mean(digits != expected.argmax(axis=1))
        rows.append(
            (
                *columns(name, times),
                f"{np.mean(digits == test_labels):.2%}",
                f"{others:.2%}",
                f"{allowed:.2%}" if name in documented else "",
                f"{Error.of(scores, expected).relative:.1e}",
            )
        )
        if name in documented and others > allowed:
            wrong.append(name)
    table(*rows)
    print(f"Not as accurate as documented: {', '.join(wrong) or 'none'}")
    fallbacks = nkblas.stats()["fallbacks"]
    print(f"Products that nkblas left to NumPy: {fallbacks} of {nkblas.stats()['calls']}\n")
    return 1 if wrong or fallbacks else 0


if __name__ == "__main__":
    sys.exit(main())
