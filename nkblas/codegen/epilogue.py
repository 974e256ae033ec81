"""Epilogues: what becomes of the sums on their way from the accumulators into C.

- ``""``: ``C = sums``, or ``C += sums`` where `accumulate` is not 0.
- ``"scale"``: ``C = alpha * sums + beta * C``; where `accumulate` is not 0, C holds what other
  values of k gave, and it is ``C += alpha * sums``. Where C counts for nothing it is not read.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import ir
from .ir import Value


class Scale(NamedTuple):
    """The parameters of ``"scale"``.

    Attributes
    ----------
    alpha, beta : Value
        Scalars of C's type.
    """

    alpha: Value
    beta: Value

    @classmethod
    def read(cls, scale: Value, element: Any) -> "Scale":
        """From an ``nk_scale``, which holds float64."""
        double = ir.element_type("float64")
        return cls(
            *(ir.convert(ir.load(double, ir.address(scale, i, double)), element) for i in range(2))
        )


def store(
    epilogue: str,
    sums: Sequence[Value],
    places: Sequence[tuple[Value, Value | None]],
    accumulate: Value,
    scale: Value,
    element: Any,
) -> None:
    """Emit the end of a kernel: vectors of sums go to places in C, each an address and a mask."""
    whether, factor = ir.nonzero(accumulate), None
    if epilogue == "scale":
        alpha, beta = Scale.read(scale, element)
        sums = [ir.float_mul(ir.splat(alpha, value.type), value) for value in sums]
        factor = ir.select(whether, ir.one(element), beta)
        whether = ir.float_nonzero(factor)

    def with_c() -> list[Value]:
        found = []
        for value, (place, mask) in zip(sums, places, strict=True):
            c = ir.load(value.type, place, mask)
            if factor is None:
                found.append(ir.float_add(c, value))
            else:
                found.append(ir.fma(ir.splat(factor, value.type), c, value))
        return found

    for value, (place, mask) in zip(ir.when(whether, with_c, sums), places, strict=True):
        ir.store(value, place, mask)
