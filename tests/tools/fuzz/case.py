"""The finding of a fuzzer."""

from typing import NamedTuple


class Wrong(NamedTuple):
    """A case with a wrong outcome.

    Attributes
    ----------
    case : str
        Suite, seed and number: the argument of ``python -m fuzz --case``.
    why : str
        The fault.
    code : str
        A program that reproduces it; empty if there is none.
    """

    case: str
    why: str
    code: str
