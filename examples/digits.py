"""Train a neural network on handwritten digits, once with NumPy's matmul and once with nkblas's.

The network (see network.py) is written in NumPy and takes the function that multiplies matrices as
an argument. To use nkblas, pass ``nkblas.matmul``: nothing else changes.

Run it with ``python examples/digits.py``. It requires scikit-learn, which contains the images.
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

# One thread, for nkblas and for NumPy's BLAS. (It must be set before NumPy is imported.)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from compare import print_table
from network import BATCH, EPOCHS, SIZES, Array, Matmul, Network, load

import nkblas

OTHER_SEEDS = range(1, 8)


class TimedMatmul:
    """A matmul that records the times of its calls, by the layout of the operands.

    Attributes
    ----------
    seconds : dict of tuple to list of float
        The times of all calls with equal shapes and strides.
    operands : dict of tuple to (ndarray, ndarray)
        The operands of the last of these calls.
    """

    def __init__(self, matmul: Matmul) -> None:
        self.matmul = matmul
        self.seconds: dict[Any, list[float]] = {}
        self.operands: dict[Any, tuple[Array, Array]] = {}

    def __call__(self, a: Array, b: Array) -> Array:
        start = perf_counter()
        product = self.matmul(a, b)
        seconds = perf_counter() - start
        layout = a.shape, a.strides, b.shape, b.strides
        self.seconds.setdefault(layout, []).append(seconds)
        self.operands[layout] = a, b
        return product

    def first_calls(self) -> float:
        """Total seconds of the first calls with each layout."""
        return sum(seconds[0] for seconds in self.seconds.values())

    def other_calls(self) -> float:
        """Total seconds of all other calls."""
        return sum(sum(seconds[1:]) for seconds in self.seconds.values())


def train(matmuls: Sequence[Matmul], seed: int) -> list[list[float]]:
    """Train a network with each matmul, in turns; return its test accuracy after each epoch."""
    x, labels, *test = load()
    networks = [Network(seed, matmul) for matmul in matmuls]
    accuracies: list[list[float]] = [[] for _ in networks]
    turns = list(zip(networks, accuracies, strict=True))
    for _ in range(EPOCHS):
        for network, of_network in turns:
            network.train_epoch(x, labels)
            of_network.append(network.accuracy(*test))
        turns.reverse()
    return accuracies


START_PROGRAM = """
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


def time_start(cache_folder: str) -> list[str]:
    """Cells of the table of start times: nkblas in a new process with its cache in a folder."""
    environment = {**os.environ, "NKBLAS_CACHE_DIR": cache_folder}
    run = subprocess.run(
        [sys.executable, "-c", START_PROGRAM], env=environment, check=True, capture_output=True
    )
    report = json.loads(run.stdout)
    cells = [f"{1e3 * seconds:.2f} ms" for seconds in np.diff(report["times"])]
    return [*cells, str(report["kernels_compiled"]), str(report["kernels_loaded"])]


def report_training(accuracies: Sequence[Sequence[float]], matmuls: Sequence[TimedMatmul]) -> None:
    """Print accuracies and total times, of nkblas and of NumPy."""
    print_table(
        ("", "nkblas", "numpy"),
        *(
            (f"test accuracy, epoch {epoch}", *(f"{x[epoch - 1]:.2%}" for x in accuracies))
            for epoch in (1, 5, EPOCHS)
        ),
        ("first call of each layout", *(f"{1e3 * x.first_calls():.1f} ms" for x in matmuls)),
        ("all other calls", *(f"{1e3 * x.other_calls():.1f} ms" for x in matmuls)),
    )


def is_as_accurate(accuracy: float, numpy_accuracies: Sequence[float]) -> bool:
    """Whether nkblas's accuracy is within the spread of NumPy's for several seeds; print both."""
    mean, deviation = statistics.mean(numpy_accuracies), statistics.stdev(numpy_accuracies)
    is_within = abs(accuracy - mean) <= 3 * deviation
    lowest, highest = min(numpy_accuracies), max(numpy_accuracies)
    print(f"NumPy's accuracy with {len(numpy_accuracies)} seeds: {lowest:.2%} to {highest:.2%},")
    print(f"mean {mean:.2%}, standard deviation {deviation:.2%}. nkblas's is {accuracy:.2%}:")
    print(f"{'within' if is_within else 'NOT within'} three standard deviations of the mean.\n")
    return is_within


def report_products(ours: TimedMatmul, numpys: TimedMatmul) -> None:
    """Print the times of each product, and the kernels that nkblas ran for it."""
    print("Each product: median times, and the kernels that nkblas ran")
    rows: list[tuple[str, ...]] = [("m x n x k", "nkblas", "numpy", "backend", "tile", "kernels")]
    for layout, (a, b) in ours.operands.items():
        explanation = nkblas.explain(a, b)
        seconds = (statistics.median(x.seconds[layout]) for x in (ours, numpys))
        times = (f"{1e6 * x:.1f} us" for x in seconds)
        tile = "x".join(map(str, explanation.tile or ()))
        is_native = explanation.backend == "nkblas"
        kernel, *others = explanation.kernels if is_native else ("none",)
        rows.append((str(explanation.problem), *times, explanation.backend, tile, kernel))
        rows += (("", "", "", "", "", other) for other in others)
    print_table(*rows)


def main() -> int:
    print(f"{nkblas.cpu.brand}, {nkblas.cpu.isa.name}; numpy {np.__version__}")
    print(f"A {'-'.join(map(str, SIZES))} network, float32, {EPOCHS} epochs, batches of {BATCH}\n")

    ours, numpys = TimedMatmul(nkblas.matmul), TimedMatmul(np.matmul)
    accuracies = train((ours, numpys), seed=0)
    report_training(accuracies, (ours, numpys))

    accuracy, *numpy_accuracies = (of_network[-1] for of_network in accuracies)
    numpy_accuracies += (train([np.matmul], seed)[0][-1] for seed in OTHER_SEEDS)
    is_accurate = is_as_accurate(accuracy, numpy_accuracies)
    report_products(ours, numpys)

    fallbacks = nkblas.stats()["fallbacks"]
    print(f"Products that nkblas left to NumPy: {fallbacks} of {nkblas.stats()['calls']}\n")

    with tempfile.TemporaryDirectory() as folder:
        cold, warm = time_start(folder), time_start(folder)
    print_table(
        ("start of a process", "import", "first call", "next call", "compiled", "loaded"),
        ("cold cache: kernels are compiled", *cold),
        ("warm cache: kernels are loaded", *warm),
    )
    return 0 if is_accurate and not fallbacks else 1


if __name__ == "__main__":
    sys.exit(main())
