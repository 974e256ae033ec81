"""Train a neural network on handwritten digits, once on NumPy's matmul and once on nkblas's.

The network (see network.py) is plain NumPy and is handed the function that multiplies matrices. To
use nkblas, hand it ``nkblas.matmul``: nothing else changes. Run it with ``python
examples/digits.py``; it needs scikit-learn, which brings the pictures.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from time import perf_counter
from typing import Any

# For nkblas and NumPy's BLAS. (Before NumPy is imported.)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from compare import table
from network import BATCH, EPOCHS, SIZES, Array, Matmul, Network, load

import nkblas

OTHER_SEEDS = range(1, 8)


class Products:
    """A matmul that keeps the time of each call, and the operands of each kind of product."""

    def __init__(self, matmul: Matmul) -> None:
        self.matmul = matmul
        self.seconds: dict[Any, list[float]] = {}
        self.operands: dict[Any, tuple[Array, Array]] = {}

    def __call__(self, a: Array, b: Array) -> Array:
        start = perf_counter()
        product = self.matmul(a, b)
        seconds = perf_counter() - start
        kind = a.shape, a.strides, b.shape, b.strides
        self.seconds.setdefault(kind, []).append(seconds)
        self.operands[kind] = a, b
        return product

    def first_calls(self) -> float:
        """Seconds that the first call of each kind took, all together."""
        return sum(seconds[0] for seconds in self.seconds.values())

    def other_calls(self) -> float:
        """Seconds that all other calls took."""
        return sum(sum(seconds[1:]) for seconds in self.seconds.values())


def train(matmuls: Sequence[Matmul], seed: int) -> list[list[float]]:
    """Train one network on each matmul, in turns; give the test accuracies after each epoch."""
    x, labels, *test = load()
    networks = [Network(seed, matmul) for matmul in matmuls]
    curves: list[list[float]] = [[] for _ in networks]
    turns = list(zip(networks, curves, strict=True))
    for _ in range(EPOCHS):
        for network, curve in turns:
            network.train_epoch(x, labels)
            curve.append(network.accuracy(*test))
        turns.reverse()
    return curves


START = """
import json
from time import perf_counter
import numpy as np
a = np.ones((128, 64), np.float32)
b = np.ones((64, 256), np.float32)
times = [perf_counter()]
import nkblas
times.append(perf_counter())
for _ in range(2):
    nkblas.matmul(a, b)
    times.append(perf_counter())
print(json.dumps({"times": times, **nkblas.stats()}))
"""


def start(folder: str) -> list[str]:
    """Start nkblas in a process of its own, with its kernels in `folder`, and time that."""
    environment = {**os.environ, "NKBLAS_CACHE_DIR": folder}
    run = subprocess.run(
        [sys.executable, "-c", START], env=environment, check=True, capture_output=True
    )
    report = json.loads(run.stdout)
    cells = [f"{1e3 * seconds:.2f} ms" for seconds in np.diff(report["times"])]
    return [*cells, str(report["kernels_compiled"]), str(report["kernels_loaded"])]


def main() -> int:
    print(f"{nkblas.cpu.brand}, {nkblas.cpu.isa.name}; numpy {np.__version__}")
    print(f"A {'-'.join(map(str, SIZES))} network, float32, {EPOCHS} epochs, batches of {BATCH}\n")

    both = Products(nkblas.matmul), Products(np.matmul)
    curves = train(both, seed=0)
    table(
        ("", "nkblas", "numpy"),
        *(
            (f"test accuracy, epoch {epoch}", *(f"{curve[epoch - 1]:.2%}" for curve in curves))
            for epoch in (1, 5, EPOCHS)
        ),
        ("first product of each kind", *(f"{1e3 * p.first_calls():.1f} ms" for p in both)),
        ("all other products", *(f"{1e3 * p.other_calls():.1f} ms" for p in both)),
    )

    accuracy, *by_seed = (curve[-1] for curve in curves)
    by_seed += (train([np.matmul], seed)[0][-1] for seed in OTHER_SEEDS)
    mean, noise = statistics.mean(by_seed), statistics.stdev(by_seed)
    alike = abs(accuracy - mean) <= 3 * noise
    print(f"Accuracy of NumPy, {len(by_seed)} seeds: {min(by_seed):.2%} to {max(by_seed):.2%},")
    print(f"mean {mean:.2%}, standard deviation {noise:.2%}. nkblas's is {accuracy:.2%}:")
    print(f"{'the same within' if alike else 'NOT the same within'} three standard deviations.\n")

    print("Each kind of product: median time, and the kernels that nkblas ran for it")
    rows: list[tuple[str, ...]] = [("m x n x k", "nkblas", "numpy", "done by", "tile", "kernels")]
    for kind, (a, b) in both[0].operands.items():
        how = nkblas.explain(a, b)
        times = (f"{1e6 * statistics.median(p.seconds[kind]):.1f} us" for p in both)
        tile = "x".join(map(str, how.tile or ()))
        kernel, *others = how.kernels if how.backend == "nkblas" else ("none",)
        rows.append((str(how.problem), *times, how.backend, tile, kernel))
        rows += (("", "", "", "", "", other) for other in others)
    table(*rows)

    fallbacks = nkblas.stats()["fallbacks"]
    print(f"Products that nkblas left to NumPy: {fallbacks} of {nkblas.stats()['calls']}\n")

    with tempfile.TemporaryDirectory() as folder:
        cold, warm = start(folder), start(folder)
    table(
        ("start of a process", "import", "first call", "next call", "compiled", "loaded"),
        ("cold: kernels are compiled", *cold),
        ("warm: they are on the disk", *warm),
    )
    return 0 if alike and not fallbacks else 1


if __name__ == "__main__":
    sys.exit(main())
