"""Programs that know nothing of nkblas run on it unchanged, with the same results."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import environment

EXAMPLES = Path(__file__).parents[1] / "examples"


def lines(*command: str) -> tuple[dict[str, list[float]], str]:
    """What a program prints, a name and numbers in each line; and its standard error."""
    done = subprocess.run(
        [sys.executable, *command], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    printed = (line.split() for line in done.stdout.splitlines())
    return {name: list(map(float, numbers)) for name, *numbers in printed}, done.stderr


@pytest.mark.parametrize("name", ["network", "pca_ridge", "gaussian_process"])
def test_example(name: str) -> None:
    if name != "gaussian_process":
        pytest.importorskip("sklearn")
    program = os.fspath(EXAMPLES / f"{name}.py")
    expected, _ = lines(program)
    results, errors = lines("-m", "nkblas", "run", "--report", program)
    assert results.keys() == expected.keys()
    for key, values in expected.items():
        # rounding sets the training off on another path to as good a network
        tolerance = 0.01 if name == "network" else 1e-6
        assert results[key] == pytest.approx(values, rel=tolerance), key
    summary = re.search(
        r"nkblas: (\d+) products on generated kernels in .*, (\d+) by NumPy", errors
    )
    assert summary is not None
    assert int(summary[1]) > 100
    assert int(summary[2]) < 0.01 * int(summary[1])
