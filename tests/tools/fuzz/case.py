"""What a fuzzer finds."""

from typing import NamedTuple


class Wrong(NamedTuple):
    """A case that is not as it must be.

    Attributes
    ----------
    case : str
        The suite, the seed and the number: what ``python -m fuzz`` runs again with ``--case``.
    why : str
    code : str
        A program that shows it; empty if there is none.
    """

    case: str
    why: str
    code: str
