"""Register tiles and the functions for small sizes by themselves: their share of the FMA peak."""

from collections.abc import Iterator
from functools import partial

import numpy as np

import nkblas
from nkblas import _engine
from nkblas.base.families import family
from nkblas.codegen import spec
from nkblas.planning.schedule import register_tiles
from nkblas.runtime import kernels

from .measure import Peak, interleave, paired
from .peers import Call
from .record import Tile


def measure_tiles(dtype: str, seconds: float) -> Iterator[Tile]:
    """Time each tile that the planner chooses from, on panels that fill half of L2.

    The k loop is as long as that, and what a call with k = 0 takes is subtracted: it is the loop
    that is measured, and not Python's way into it.
    """
    for mr, nr in register_tiles(nkblas.cpu.isa.base, family(dtype, "fma")):
        k = nkblas.cpu.l2 // 2 // ((mr + nr) * np.dtype(dtype).itemsize)
        kernel = spec.Microkernel(nkblas.cpu.isa.base.name, dtype, mr, nr, "col")
        call = _engine.ffi.cast("nk_microkernel", kernels.load([kernel])[kernel])
        a, b, c = np.ones(k * mr, dtype), np.ones(k * nr, dtype), np.empty(mr * nr, dtype)
        operands = [_engine.ffi.cast("void *", x.ctypes.data) for x in (a, b, c)]
        nothing_else = (_engine.ffi.NULL, _engine.ffi.NULL, 0, 0, _engine.ffi.NULL)
        rest = (operands[0], mr, operands[1], nr, operands[2], nr, nr, 0, *nothing_else)
        flops = 2 * mr * nr * k
        peak = Peak(dtype, flops)
        calls: dict[str, Call] = {
            "whole": partial(call, k, *rest),
            "empty": partial(call, 0, *rest),
            "peak": peak,
        }
        times = interleave(calls, seconds, rest=0)
        loop = [whole - empty for whole, empty in zip(times["whole"], times["empty"], strict=True)]
        yield Tile(dtype, mr, nr, k, paired(times["peak"], loop) * flops / peak.flops)


def measure_small(dtype: str, seconds: float) -> Iterator[Tile]:
    """Time the functions for 16, 32 and 64 cubed, each on a stack of one product in L1."""
    for size in (16, 32, 64):
        kernel = spec.Small(nkblas.cpu.isa.base.name, dtype, size, size, size, "row", "row")
        call = _engine.ffi.cast("nk_small", kernels.load([kernel])[kernel])
        arrays = [np.ones((size, size), dtype) for _ in range(3)]
        a, b, c = (_engine.ffi.cast("void *", x.ctypes.data) for x in arrays)
        count = -(-(128**3) // size**3)
        flops = count * 2 * size**3
        peak = Peak(dtype, flops)
        calls: dict[str, Call] = {"whole": partial(call, count, a, 0, b, 0, c, 0), "peak": peak}
        times = interleave(calls, seconds, rest=0)
        share = paired(times["peak"], times["whole"]) * flops / peak.flops
        yield Tile(dtype, size, size, size, share)
