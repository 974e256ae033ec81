"""Measured limits of the machine: the arithmetic peak of one core, and the memory bandwidth."""

from typing import TYPE_CHECKING

import numpy as np

import nkblas
from nkblas._engine import ffi
from nkblas.base.dtypes import product
from nkblas.base.families import families, row_of
from nkblas.codegen import spec
from nkblas.runtime.kernels import kernels

from .operands import Array, numpy_dtype, random_array
from .suites import parse_dtypes

if TYPE_CHECKING:
    from nkblas._engine import CData


class ArithmeticPeak:
    """A generated kernel that only multiplies and adds registers.

    It uses the first instruction family that `nkblas.base.families` lists for the dtype and this
    CPU.

    Parameters
    ----------
    dtype : str
        Abbreviation that `bench.suites.parse_dtypes` reads.
    flops : int
        Approximate number of operations of a call. With as many operations as the product that it
        is compared with, both take about as long. Few operations are increased to `MIN_STEPS`
        steps, so that the overhead of the call is negligible.

    Attributes
    ----------
    flops : int
        Actual number of operations of a call.
    """

    VECTOR_CHAINS = 12
    """Accumulators of independent sums: enough for two units with a latency of up to six cycles."""

    MIN_STEPS = 30_000
    BUFFER_BYTES = 4096

    def __init__(self, dtype: str, flops: int) -> None:
        name = product(*parse_dtypes(dtype))
        assert name is not None, f"nkblas has no kernels for {dtype}"
        family = families(name, nkblas.cpu.isa)[0]
        isa = row_of(family, nkblas.cpu.isa)
        chains = 4 if family.tile_rows else self.VECTOR_CHAINS // family.accumulator_registers
        accumulators = chains * family.lanes(isa) * max(1, family.tile_rows)
        flops_per_step = (8 if "complex" in name else 2) * accumulators * family.k_step
        self._steps = max(self.MIN_STEPS, flops // flops_per_step)
        self.flops = self._steps * flops_per_step
        peak = spec.Peak(isa.name, name, chains, family.name)
        self._kernel: CData = ffi.cast("nk_peak", kernels.load([peak])[peak])
        # Random operands: on zeros, some CPUs draw less power and raise their clock.
        element = numpy_dtype(parse_dtypes(dtype).a)
        count = self.BUFFER_BYTES // element.itemsize
        values = random_array(np.random.default_rng(0), element, (count,), 1)
        self._values = values.view(np.uint8)
        self._buffer = np.empty(self.BUFFER_BYTES, np.uint8)
        self._pointer: CData = ffi.cast("void *", self._buffer.ctypes.data)

    def __call__(self) -> None:
        self._buffer[...] = self._values  # the kernel overwrites it with sums, which would grow
        self._kernel(self._steps, self._pointer)


class MemoryRead:
    """A read of an operand, with the threads of NumPy's BLAS.

    It computes dot products of adjacent chunks of the operand: among sums, maxima, dot products and
    matrix-vector products, dot products read fastest, from L2 to memory. A product that writes much
    can't reach this bandwidth, since memory is read before it is written.

    Parameters
    ----------
    operand : ndarray
        The array to read: the one that the products read, so that both read the same memory.

    Attributes
    ----------
    bytes : int
        Bytes that a call reads.
    """

    MAX_CHUNK_ELEMENTS = 1 << 22  # chunks 256 MB apart were read a third slower

    def __init__(self, operand: Array) -> None:
        flat = operand.ravel(order="K")  # a view: no operand of these suites has gaps
        if flat.dtype.char not in "fdFD":  # not a type of BLAS: read as many bytes of float32
            flat = np.ones(flat.nbytes // 4, np.float32)
        chunk = min(self.MAX_CHUNK_ELEMENTS, flat.size // 2)
        starts = range(0, flat.size - 2 * chunk + 1, 2 * chunk)
        self.pairs = [(flat[i : i + chunk], flat[i + chunk : i + 2 * chunk]) for i in starts]
        self.bytes = 2 * chunk * len(self.pairs) * flat.itemsize

    def __call__(self) -> None:
        for pair in self.pairs:
            np.dot(*pair)
