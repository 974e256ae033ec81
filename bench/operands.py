"""The operands of a case, laid out as its label says."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .suites import Case

Array = np.ndarray[Any, Any]

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "": lambda x: x,
    ".T": lambda x: np.ascontiguousarray(x.mT).mT,
    "[::2]": lambda x: np.repeat(x, 2, axis=-2)[..., ::2, :],
    "[:, ::2]": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
}
"""From a contiguous array in C order to the same values in another layout."""


def operands(case: Case, dtype: str) -> tuple[Array, Array, Array]:
    """A, B, and a C to write the product to."""
    generator = np.random.default_rng(case.elements)
    stack = (case.batch,) if case.batch else ()

    def matrix(rows: int, columns: int, layout: str) -> Array:
        values = generator.uniform(-1, 1, (*stack, rows, columns)).astype(dtype, copy=False)
        return LAYOUTS[layout](values)

    a, b = matrix(case.m, case.k, case.a), matrix(case.k, case.n, case.b)
    out = np.empty((*stack, case.m, case.n), dtype)
    if case.m == 1:
        a, out = a[..., 0, :], out[..., 0, :]
    if case.n == 1:
        b, out = b[..., 0], out[..., 0]
    return a, b, out
