"""Tiles for sorting groups whose segments may be too long for a warp.

The numbers of cells decide which groups these are: a gene has at most as many entries in a group
as the group has cells. So nothing must come back from the device before it sorts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .device_api import DeviceArray, Stream
from .device_matrix import send_small

SORTED_BY_WARP = 512  # WARP_MOST in sort.cu


@dataclass(frozen=True)
class Tiles:
    """Pairs (group, tile), int32, for sort_tiles and merge_runs in sort.cu.

    Attributes
    ----------
    size : int
        Keys per tile.
    single : DeviceArray
        Groups whose segments fit in one tile.
    several : DeviceArray
        All tiles of the groups whose segments may not fit in one.
    n_passes : int
        Passes that merge runs of tiles pairwise.
    """

    size: int
    single: DeviceArray
    several: DeviceArray
    n_passes: int


def plan_tiles(n_cells: np.ndarray, size: int, stream: Stream) -> Tiles:
    """Return the tiles of `size` keys for groups of `n_cells` cells."""
    n_tiles = -(-n_cells // size)
    single = np.flatnonzero((n_cells > SORTED_BY_WARP) & (n_tiles == 1))
    beyond = np.flatnonzero(n_tiles > 1)
    tiles = [np.stack([np.full(n_tiles[g], g), np.arange(n_tiles[g])], axis=1) for g in beyond]
    return Tiles(
        size,
        send_small(np.stack([single, 0 * single], axis=1).ravel().astype(np.int32), stream),
        send_small(np.concatenate([np.empty((0, 2)), *tiles]).ravel().astype(np.int32), stream),
        int(n_tiles.max() - 1).bit_length(),
    )
