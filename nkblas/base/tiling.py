"""How one dimension of a matrix is divided into tiles."""

from typing import NamedTuple


class Tiling(NamedTuple):
    """One dimension of C divided into register tiles, and those into cache blocks.

    Attributes
    ----------
    tile : int
        Rows (columns) of each of the first `main_tiles` tiles.
    main_tiles : int
    edge_tile : int
        Rows (columns) of each of the other tiles.
    tiles : int
        Number of all tiles.
    block_tiles : int
        Tiles in one cache block.
    """

    tile: int
    main_tiles: int
    edge_tile: int
    tiles: int
    block_tiles: int

    def has(self, edge: bool) -> bool:
        """Whether there is an edge tile, or a main tile."""
        return self.tiles > self.main_tiles if edge else self.main_tiles > 0


def split_evenly(length: int, most: int) -> tuple[int, int, int, int]:
    """Divide a length into the fewest tiles of at most `most`, equal to within one.

    Returns
    -------
    tile, main_tiles, edge_tile, tiles : int
        As in `Tiling`.
    """
    tiles = -(-length // most)
    tile = -(-length // tiles)
    return tile, length - tiles * (tile - 1), tile - 1, tiles


def split_with_edge(length: int, tile: int) -> tuple[int, int, int, int]:
    """Divide a length into tiles of `tile`, and one edge tile for the remainder.

    Returns
    -------
    tile, main_tiles, edge_tile, tiles : int
        As in `Tiling`.
    """
    main_tiles, edge_tile = divmod(length, tile)
    return tile, main_tiles, edge_tile, main_tiles + (edge_tile > 0)
