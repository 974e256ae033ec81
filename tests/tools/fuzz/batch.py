"""Run a batch of cases in this process: ``python -m fuzz.batch SUITE SEED FIRST CASES SECONDS``.

It prints a line of JSON with the wrong cases and the number of cases. The number of the current
case goes into the file that the environment variable FUZZ_AT names, for the case that this process
dies.
"""

import faulthandler
import json
import mmap
import os
import resource
import signal
import sys
import time
import traceback
from importlib import import_module
from typing import Any

from .case import Wrong

MAX_WRONG = 10
"""Wrong cases after which a batch ends."""

CASE_SECONDS = 60
"""Time-out of a case; it ends the process."""

MAX_ADDRESSES = 6 << 30
"""Bytes of addresses that a batch may take."""


def run(suite: str, seed: int, first: int, cases: int, seconds: float) -> dict[str, Any]:
    """Run cases of one batch; their number, and those that are wrong."""
    module = import_module(f".{suite}", __package__)
    runner = module.Cases(seed, first // module.BATCH)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))
    marker = Marker(os.environ.get("FUZZ_AT"))
    end, done, wrong = time.monotonic() + seconds, 0, []
    for number in range(first, first + cases):
        marker.put(number)
        signal.alarm(CASE_SECONDS)
        try:
            found = runner.run(number)
        except Exception:  # an error of the fuzzer itself
            found = Wrong(f"{suite} {seed} {number}", traceback.format_exc(), "")
        done += 1
        if found:
            wrong.append(found._asdict())
        if len(wrong) >= MAX_WRONG or time.monotonic() > end:
            break
    signal.alarm(0)
    return {"cases": done, "wrong": wrong}


class Marker:
    """Writes a number to a file that outlives this process."""

    def __init__(self, path: str | None) -> None:
        self._map: Any = None
        if path:
            with open(path, "r+b") as file:
                self._map = mmap.mmap(file.fileno(), 8)

    def put(self, number: int) -> None:
        if self._map is not None:
            self._map[:] = number.to_bytes(8, "little")


if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)  # it prints where a case hangs
    suite, seed, first, cases, seconds = sys.argv[1:]
    print(json.dumps(run(suite, int(seed), int(first), int(cases), float(seconds))))
