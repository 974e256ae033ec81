"""A batch of cases in a process of its own: ``fuzz.batch SUITE SEED FIRST CASES SECONDS``.

It writes a line of JSON for each case that is wrong, and how many were run; the number of the case
that it is at goes into the file that the environment variable FUZZ_AT names, in case it dies.
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

MOST = 10
"""Wrong cases after which a batch ends."""

LONGEST = 60
"""Seconds after which a case hangs, and the process ends."""

MEMORY = 6 << 30
"""Bytes that a batch may take."""


def run(suite: str, seed: int, first: int, cases: int, seconds: float) -> dict[str, Any]:
    """Run cases of one batch, and report."""
    module = import_module(f".{suite}", __package__)
    runner = module.Cases(seed, first // module.BATCH)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    at = Marker(os.environ.get("FUZZ_AT"))
    end, done, wrong = time.monotonic() + seconds, 0, []
    for number in range(first, first + cases):
        at.put(number)
        signal.alarm(LONGEST)
        try:
            found = runner.run(number)
        except Exception:  # of the fuzzer itself
            found = Wrong(f"{suite} {seed} {number}", traceback.format_exc(), "")
        done += 1
        if found:
            wrong.append(found._asdict())
        if len(wrong) >= MOST or time.monotonic() > end:
            break
    signal.alarm(0)
    return {"cases": done, "wrong": wrong}


class Marker:
    """A number in a file that outlives this process."""

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
    faulthandler.register(signal.SIGALRM, chain=True)  # it tells where a case hangs
    suite, seed, first, cases, seconds = sys.argv[1:]
    print(json.dumps(run(suite, int(seed), int(first), int(cases), float(seconds))))
