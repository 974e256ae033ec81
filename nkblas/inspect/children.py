"""What the children of a program did: ``nkblas run --report`` and ``--record`` add it up.

Each process that counts has a file in a folder of its parent's, which is mapped in the place of its
counters (engine/counters.c): nothing is lost if it is killed, or ends without exit functions, as
the workers of `multiprocessing` do.
"""

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from typing import NamedTuple

from nkblas._engine import ffi, lib
from nkblas.base.problem import Problem
from nkblas.runtime.abi import problem_from_c
from nkblas.system import config

from .record import Recording

PAGE = 4096


class Totals(NamedTuple):
    """What some processes did together.

    Attributes
    ----------
    processes : int
        Those that multiplied.
    stats : Counter of str
        The sums of `nkblas.stats`.
    recording : Recording
        Their products, with the seconds that these took.
    """

    processes: int
    stats: "Counter[str]"
    recording: Recording


class Children:
    """The children that this process starts from now on, their children, and so on."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="nkblas-counters-")
        config.patch_children(self.folder)
        lib.nk_count_in_files(os.fsencode(self.folder), False)  # those that are forked

    def collect(self) -> Totals:
        """What they have done, some of which may still run; the folder is removed."""
        totals = Totals(0, Counter(), Recording())
        for name in sorted(os.listdir(self.folder)):
            with contextlib.suppress(OSError), open(f"{self.folder}/{name}", "rb") as file:
                totals = _add(totals, file.read())
        shutil.rmtree(self.folder, ignore_errors=True)
        return totals


def _add(totals: Totals, content: bytes) -> Totals:
    """The totals with those of a process's file."""
    table_size = lib.NK_FILE_RECORDS
    header, records = ffi.new("nk_counter_file *"), ffi.new("nk_record[]", 2 * table_size)
    record_size = ffi.sizeof("nk_record")
    if len(content) < PAGE + 2 * table_size * record_size:
        return totals  # it was about to begin
    ffi.memmove(header, content, ffi.sizeof("nk_counter_file"))
    if header.record_size != record_size:
        return totals  # another version of nkblas
    ffi.memmove(records, content[PAGE:], 2 * table_size * record_size)
    counts = {
        name: getattr(header.now, name) - getattr(header.before, name)
        for name in ("calls", "fallbacks", "kernels_compiled", "kernels_loaded")
    }
    products: dict[Problem, int] = {}
    seconds: dict[Problem, float] = {}
    for i in range(table_size):
        now, before = records[i], records[i + table_size]
        if now.products > before.products:
            problem = problem_from_c(now.problem)
            products[problem] = now.products - before.products
            seconds[problem] = 1e-9 * (now.nanoseconds - before.nanoseconds)
    stats = totals.stats + Counter(counts)
    recording = totals.recording.plus(products, seconds)
    return Totals(totals.processes + (counts["calls"] > 0), stats, recording)
