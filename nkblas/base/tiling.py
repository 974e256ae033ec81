"""How a dimension is cut."""

from typing import NamedTuple


class Cut(NamedTuple):
    """One dimension of C cut into register tiles, and those into cache blocks.

    Attributes
    ----------
    size, full : int
        The first `full` tiles have `size` rows (columns).
    rest : int
        Those after them have `rest`.
    tiles : int
        Number of tiles in all.
    block : int
        Tiles in one cache block.
    """

    size: int
    full: int
    rest: int
    tiles: int
    block: int

    def has(self, rest: bool) -> bool:
        """Whether there is a tile of the rest, or of the full size."""
        return self.tiles > self.full if rest else self.full > 0


def cut_evenly(length: int, most: int) -> tuple[int, int, int, int]:
    """Cut a length into the fewest pieces of at most `most`, equal to within one.

    Returns size, full, rest and number of pieces, as in `Cut`.
    """
    pieces = -(-length // most)
    size = -(-length // pieces)
    return size, length - pieces * (size - 1), size - 1, pieces


def cut_whole(length: int, size: int) -> tuple[int, int, int, int]:
    """Cut a length into pieces of `size` and what is left over."""
    full, rest = divmod(length, size)
    return size, full, rest, full + (rest > 0)
