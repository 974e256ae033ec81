"""Whether two outputs of a program agree, apart from rounding errors."""

import math
import re

NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")

RELATIVE_TOLERANCE = 1e-3
"""How far numbers may be apart: they are printed with few digits."""


def disagreement(output: str, expected: str) -> str:
    """The first difference of two outputs; empty if they agree.

    Numbers agree if they are equal within `RELATIVE_TOLERANCE`, or both not finite; the text around
    them must be the same.
    """
    if NUMBER.sub("#", output) != NUMBER.sub("#", expected):
        return f"got {output!r}, expected {expected!r}"
    pairs = zip(NUMBER.findall(output), NUMBER.findall(expected), strict=True)
    for got, wanted in pairs:
        if not math.isclose(float(got), float(wanted), rel_tol=RELATIVE_TOLERANCE):
            return f"got {got}, expected {wanted} in {expected!r}"
    return ""
