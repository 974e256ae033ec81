"""Nanokernels: the smallest group of instructions that does one k-step of a register tile.

One class for each instruction family. A microkernel is composed of them (see `compose`) and knows
nothing of the instructions inside. The scheme is that of *Library Liberation* (arXiv 2511.13764).
"""

from collections.abc import Callable, Sequence
from typing import Any

from . import ir
from .ir import Value


class Nanokernel:
    """One instruction family.

    Attributes
    ----------
    k_step : int
        How many values of k one step eats (the VNNI factor).
    """

    k_step = 1

    def __init__(self, vector_type: Any) -> None:
        self.vector_type = vector_type

    def zero(self) -> Value:
        """An empty accumulator."""
        return ir.zero(self.vector_type)

    def load_a(self, source: Value) -> Value:
        """One element of A, in every lane."""
        raise NotImplementedError

    def load_b(self, source: Value, mask: Value | None) -> Value:
        """One vector of B; `mask` always has its first lane."""
        raise NotImplementedError

    def multiply_add(self, a: Value, b: Value, accumulator: Value) -> Value:
        raise NotImplementedError


class FMA(Nanokernel):
    """Broadcast an element of A, load a vector of B, multiply and add. float32 and float64."""

    def load_a(self, source: Value) -> Value:
        return ir.splat(ir.load(self.vector_type.element_type, source), self.vector_type)

    def load_b(self, source: Value, mask: Value | None) -> Value:
        if mask is None:
            return ir.load(self.vector_type, source)
        # Lanes beyond the edge repeat the first one: with zeros, infinity in A would raise the
        # invalid flag for a product that nobody asked for.
        return ir.load(self.vector_type, source, mask, otherwise=self.load_a(source))

    def multiply_add(self, a: Value, b: Value, accumulator: Value) -> Value:
        return ir.fma(a, b, accumulator)


def compose(
    nanokernel: Nanokernel,
    load_a: Callable[[int], Value],
    load_b: Callable[[int], Value],
    tile: Sequence[Sequence[Value]],
) -> list[list[Value]]:
    """One k-step of a whole tile, in the order that needs the fewest registers.

    The smaller slice of the two operands is held; the other passes through one register. With at
    least as many rows as vectors, all of B's vectors are loaded and each element of A feeds a row
    of multiply-adds; otherwise the other way round.

    Parameters
    ----------
    load_a, load_b : callable
        Row ``i`` of A's slice; vector ``j`` of B's.
    tile : rows of accumulators

    Returns
    -------
    The new accumulators, in rows.
    """
    rows, vectors = range(len(tile)), range(len(tile[0]))
    new = [list(row) for row in tile]
    if len(rows) >= len(vectors):
        held = [load_b(j) for j in vectors]
        for i in rows:
            a = load_a(i)
            for j in vectors:
                new[i][j] = nanokernel.multiply_add(a, held[j], tile[i][j])
    else:
        held = [load_a(i) for i in rows]
        for j in vectors:
            b = load_b(j)
            for i in rows:
                new[i][j] = nanokernel.multiply_add(held[i], b, tile[i][j])
    return new
