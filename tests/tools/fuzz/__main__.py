"""Run fuzzers: ``python -m fuzz [api store] [--cases N] [--seconds S] [--seed N] [--jobs N]``.

It prints each wrong case, and the number of cases at the end; the exit status is 1 if a case was
wrong. ``python -m fuzz --case "api 7 12345"`` runs a single case.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from nkblas import cpu
from nkblas.base.isa import ISAS as KNOWN_ISAS

from .case import Wrong

SUITES = ("api", "store")
ISAS = ("", "", "", "sse42", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
"""Values of NKBLAS_ISA for the batches; empty, or missing on this CPU: it is not set."""

GRACE_SECONDS = 120.0
"""Time that a batch may take beyond its own limit before it is stopped."""


def batches(suite: str, seed: int, first: int, cases: int) -> Iterator[tuple[int, int]]:
    """The first case and the number of cases of each process."""
    size = batch_size(suite)
    while cases > 0:
        count = min(cases, size - first % size)
        yield first, count
        first, cases = first + count, cases - count


def batch_size(suite: str) -> int:
    """Cases of a batch that share its theme."""
    size: int = import_module(f".{suite}", __package__).BATCH
    return size


def environment(seed: int, batch: int) -> dict[str, str]:
    """The environment of a batch: a random instruction set and number of threads."""
    draw = random.Random(f"{seed}/{batch}")
    isa = draw.choice(ISAS)
    changes = {"NKBLAS_NUM_THREADS": draw.choice("1123"), "PYTHONWARNINGS": "ignore"}
    if isa and can_run(isa):
        changes["NKBLAS_ISA"] = isa
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}


def can_run(isa: str) -> bool:
    return isa in KNOWN_ISAS and cpu.features.issuperset(KNOWN_ISAS[isa].requires)


def run(suite: str, seed: int, first: int, cases: int, end: float) -> dict[str, Any]:
    """Run a batch in a process; if that dies or hangs, its current case is wrong."""
    seconds = max(end - time.monotonic(), 0.1)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:  # removed even if the process dies
        marker = Path(folder, "current-case")
        marker.write_bytes(bytes(8))
        changes = {"FUZZ_AT": str(marker), "TMPDIR": folder}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", f"{__package__}.batch", suite),
                *map(str, (seed, first, cases, seconds)),
            ],
            env={**environment(seed, first // batch_size(suite)), **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            output, errors = process.communicate(timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler prints where it is
            output, errors = process.communicate()
        if process.returncode == 0:
            found: dict[str, Any] = json.loads(output.splitlines()[-1])
            return found
        number = int.from_bytes(marker.read_bytes(), "little")
    why = f"the process ended with {process.returncode}\n{errors}"
    wrong = Wrong(f"{suite} {seed} {number}", why, "")
    return {"cases": max(number - first, 0), "wrong": [wrong._asdict()]}


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m fuzz", description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES), help=", ".join(SUITES))
    parser.add_argument("--cases", type=int, default=10**9, help="cases of each suite")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds for each suite (60)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (1)")
    parser.add_argument("--case", help='run one case: "api 7 12345"')
    options = parser.parse_args(arguments)
    if options.case:
        suite, seed, number = options.case.split()
        found = run(suite, int(seed), int(number), 1, time.monotonic() + 60)
        return report(found["wrong"])
    print(f"seed {options.seed}", flush=True)
    return max(
        fuzz(suite, options.seed, options.first, options.cases, options.seconds, options.jobs)
        for suite in options.suites
    )


def fuzz(suite: str, seed: int, first: int, cases: int, seconds: float, jobs: int) -> int:
    """Run a suite, and print the wrong cases and the counts; 1 if a case was wrong."""
    start = time.monotonic()
    end = start + seconds
    next_case = first

    def work(batch: tuple[int, int]) -> dict[str, Any] | None:
        if time.monotonic() > end:
            return None
        return run(suite, seed, *batch, end)

    with ThreadPoolExecutor(jobs) as pool:
        running: list[Any] = []
        finished: list[dict[str, Any]] = []

        def finish_oldest() -> bool:
            found = running.pop(0).result()
            if found is not None:
                finished.append(found)
                report(found["wrong"])
            return found is not None

        for batch in batches(suite, seed, first, cases):
            running.append(pool.submit(work, batch))
            next_case = sum(batch)
            is_full = len(running) >= jobs or time.monotonic() >= end
            if is_full and not finish_oldest():
                break
        while running:
            finish_oldest()
    done = sum(found["cases"] for found in finished)
    wrong = sum(len(found["wrong"]) for found in finished)
    rate = done / max(time.monotonic() - start, 1e-9)
    print(
        f"{suite}: {done} cases with seed {seed} from {first} up to {next_case}, "
        f"{rate:.0f} in a second: {wrong} wrong",
        flush=True,
    )
    return int(wrong > 0)


def report(wrong: list[dict[str, str]]) -> int:
    """Print wrong cases; 1 if there are any."""
    for found in wrong:
        print(f"--- {found['case']}: {found['why']}\n{found['code']}", flush=True)
        print(f"again, in tests/tools: python -m fuzz --case '{found['case']}'\n", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
