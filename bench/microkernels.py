"""Microkernels and small-product kernels, called directly: their fractions of the FMA peak."""

from collections.abc import Iterator
from functools import partial

import numpy as np

import nkblas
from nkblas._engine import ffi
from nkblas.base.families import family
from nkblas.codegen import spec
from nkblas.planning.schedule import register_tiles
from nkblas.runtime.kernels import kernels

from .peers import Call
from .results import TileResult
from .roofline import ArithmeticPeak
from .timing import median_ratio, time_interleaved

SMALL_SIDES = (16, 32, 64)
"""The small products that are measured: square matrices with these sides."""


def measure_tiles(dtype: str, seconds: float) -> Iterator[TileResult]:
    """Time the microkernel of each register tile that the planner considers.

    The panels fill half of L2, and k follows from that. The time of a call with k = 0 is
    subtracted: it is the overhead of the call from Python.
    """
    isa = nkblas.cpu.isa.base
    for mr, nr in register_tiles(isa, family(dtype, "fma")):
        k = nkblas.cpu.l2 // 2 // ((mr + nr) * np.dtype(dtype).itemsize)
        kernel = spec.Microkernel(isa.name, dtype, mr, nr, "col")
        call = ffi.cast("nk_microkernel", kernels.load([kernel])[kernel])
        panels = np.ones(k * mr, dtype), np.ones(k * nr, dtype), np.empty(mr * nr, dtype)
        a, b, c = (ffi.cast("void *", x.ctypes.data) for x in panels)
        # neither packing of B, nor prefetch, nor epilogue
        plain = (ffi.NULL, ffi.NULL, 0, 0, ffi.NULL)
        arguments = (a, mr, b, nr, c, nr, nr, 0, *plain)
        flops = 2 * mr * nr * k
        peak = ArithmeticPeak(dtype, flops)
        calls: dict[str, Call] = {
            "call": partial(call, k, *arguments),
            "overhead": partial(call, 0, *arguments),
            "peak": peak,
        }
        times = time_interleaved(calls, seconds, pause=0)
        loop = [x - y for x, y in zip(times["call"], times["overhead"], strict=True)]
        of_peak = median_ratio(times["peak"], loop) * flops / peak.flops
        yield TileResult(dtype, mr, nr, k, of_peak)


def measure_small_kernels(dtype: str, seconds: float) -> Iterator[TileResult]:
    """Time the kernels of whole small products, with operands in L1.

    Each call repeats one product, so that the overhead of the call is negligible.
    """
    for side in SMALL_SIDES:
        kernel = spec.Small(nkblas.cpu.isa.base.name, dtype, side, side, side, "row", "row")
        call = ffi.cast("nk_small", kernels.load([kernel])[kernel])
        arrays = [np.ones((side, side), dtype) for _ in range(3)]
        a, b, c = (ffi.cast("void *", x.ctypes.data) for x in arrays)
        repeats = -(-(128**3) // side**3)
        flops = repeats * 2 * side**3
        peak = ArithmeticPeak(dtype, flops)
        calls: dict[str, Call] = {"call": partial(call, repeats, a, 0, b, 0, c, 0), "peak": peak}
        times = time_interleaved(calls, seconds, pause=0)
        of_peak = median_ratio(times["peak"], times["call"]) * flops / peak.flops
        yield TileResult(dtype, side, side, side, of_peak)
