"""Run fuzzers: ``python -m fuzz [api store] [--cases N] [--seconds S] [--seed N] [--jobs N]``.

It prints every case that is wrong, and in the end how many were run; the status is 1 if one was
wrong. ``python -m fuzz --case "api 7 12345"`` runs a single one.
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

from .case import Wrong

SUITES = ("api", "store")
ISAS = ("", "", "", "sse42", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx")
"""As which CPU a batch runs; the first is this one. One that it can't be is this one, too."""

SILENCE = 120.0
"""Seconds after which a batch that should have ended is stopped."""


def batches(suite: str, seed: int, first: int, cases: int) -> Iterator[tuple[int, int]]:
    """The first case of each process, and how many it has."""
    size = batch_of(suite)
    while cases > 0:
        count = min(cases, size - first % size)
        yield first, count
        first, cases = first + count, cases - count


def batch_of(suite: str) -> int:
    """Cases of a batch."""
    size: int = import_module(f".{suite}", __package__).BATCH
    return size


def environment(seed: int, batch: int) -> dict[str, str]:
    """What changes from batch to batch: the instruction set and the number of threads."""
    draw = random.Random(f"{seed}/{batch}")
    isa = draw.choice(ISAS)
    changes = {"NKBLAS_NUM_THREADS": draw.choice("1123"), "PYTHONWARNINGS": "ignore"}
    if isa and _runs(isa):
        changes["NKBLAS_ISA"] = isa
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}


def _runs(isa: str) -> bool:
    from nkblas import cpu
    from nkblas.base.isa import ISAS as KNOWN

    return isa in KNOWN and cpu.features.issuperset(KNOWN[isa].requires)


def run(suite: str, seed: int, first: int, cases: int, end: float) -> dict[str, Any]:
    """A batch, in a process; if it dies or hangs, that is what is wrong with its last case."""
    seconds = max(end - time.monotonic(), 0.1)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:  # it goes even if the process dies
        at = Path(folder, "at")
        at.write_bytes(bytes(8))
        changes = {"FUZZ_AT": str(at), "TMPDIR": folder}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", f"{__package__}.batch", suite),
                *map(str, (seed, first, cases, seconds)),
            ],
            env={**environment(seed, first // batch_of(suite)), **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            output, errors = process.communicate(timeout=seconds + SILENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler tells where it is
            output, errors = process.communicate()
        if process.returncode == 0:
            found: dict[str, Any] = json.loads(output.splitlines()[-1])
            return found
        number = int.from_bytes(at.read_bytes(), "little")
    why = f"the process ended with {process.returncode}\n{errors}"
    wrong = Wrong(f"{suite} {seed} {number}", why, "")
    return {"cases": max(number - first, 0), "wrong": [wrong._asdict()]}


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m fuzz", description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES), help=", ".join(SUITES))
    parser.add_argument("--cases", type=int, default=10**9, help="of each suite")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each suite")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--case", help='run one again: "api 7 12345"')
    options = parser.parse_args(arguments)
    if options.case:
        suite, seed, number = options.case.split()
        found = run(suite, int(seed), int(number), 1, time.monotonic() + 60)
        return report(suite, found["wrong"])
    print(f"seed {options.seed}", flush=True)
    return max(
        fuzz(suite, options.seed, options.first, options.cases, options.seconds, options.jobs)
        for suite in options.suites
    )


def fuzz(suite: str, seed: int, first: int, cases: int, seconds: float, jobs: int) -> int:
    """Run a suite, and tell what came of it."""
    start = time.monotonic()
    end = start + seconds
    done, wrong = 0, 0
    next_case = first

    def work(batch: tuple[int, int]) -> dict[str, Any] | None:
        if time.monotonic() > end:
            return None
        return run(suite, seed, *batch, end)

    with ThreadPoolExecutor(jobs) as pool:
        todo = batches(suite, seed, first, cases)
        running: list[Any] = []
        for batch in todo:
            running.append(pool.submit(work, batch))
            next_case = sum(batch)
            if len(running) < jobs and time.monotonic() < end:
                continue
            found = running.pop(0).result()
            if found is None:
                break
            done += found["cases"]
            wrong += len(found["wrong"])
            report(suite, found["wrong"])
        for one in running:
            found = one.result() or {"cases": 0, "wrong": []}
            done += found["cases"]
            wrong += len(found["wrong"])
            report(suite, found["wrong"])
    rate = done / max(time.monotonic() - start, 1e-9)
    print(
        f"{suite}: {done} cases with seed {seed} from {first} up to {next_case}, "
        f"{rate:.0f} in a second: {wrong} wrong",
        flush=True,
    )
    return int(wrong > 0)


def report(suite: str, wrong: list[dict[str, str]]) -> int:
    for found in wrong:
        print(f"--- {found['case']}: {found['why']}\n{found['code']}", flush=True)
        print(f"again, in tests/tools: python -m fuzz --case '{found['case']}'\n", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
