"""Sorting the segments of a slice; sort.cu says how."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import DeviceArray
from .block import Slice
from .matrix import send_small

SORTED_BY_WARP = 512  # WARP_MOST in sort.cu


def sort_slice(part: Slice, longest: Sequence[int] | np.ndarray) -> None:
    """Sort the keys of each (group, gene).

    Parameters
    ----------
    part : Slice
    longest : sequence of int, shape (n_groups,)
        The most entries that a gene can have in each group: its cells.
    """
    if part.keys.size == 0:
        return
    n_segments = part.n_groups * part.n_genes
    shapes, stream = part.lane.shapes, part.lane.stream
    n_genes = np.int64(part.n_genes)
    n_groups = np.int64(part.n_groups)
    part.launch("sort", "sort_warps", shapes.blocks(n_segments, 32), n_groups, n_genes)
    tile = shapes.tile(part.bits // 8)
    shared = 2 * tile * part.bits // 8
    longest = np.asarray(longest)
    one_tile = np.flatnonzero((longest > SORTED_BY_WARP) & (longest <= tile))
    beyond = np.flatnonzero(longest > tile)
    if len(one_tile):
        _sort_tiles(part, part.keys, [(int(g), 0) for g in one_tile], len(one_tile), tile, shared)
    if not len(beyond):
        return
    # Back and forth: each pass doubles the runs, and the last one ends in `keys`.
    n_tiles = -(-longest // tile)
    n_passes = int(n_tiles.max() - 1).bit_length()
    spare = stream.empty(part.keys.size, part.keys.dtype)
    source, other = (part.keys, spare) if n_passes % 2 == 0 else (spare, part.keys)
    tiles = [(int(g), k) for g in beyond for k in range(n_tiles[g])]
    items = _sort_tiles(part, source, tiles, 0, tile, shared)
    for k in range(n_passes):
        stream.launch(
            "sort", f"merge_runs_{part.bits}", len(tiles) * part.n_genes, shapes.n_threads,
            source, other, part.starts, items, n_genes, np.int64(tile << k), np.int32(tile),
            shared=shared,
        )  # fmt: skip
        source, other = other, source


def _sort_tiles(
    part: Slice,
    to: DeviceArray,
    tiles: list[tuple[int, int]],
    n_short: int,
    tile: int,
    shared: int,
) -> DeviceArray:
    items = send_small(np.array(tiles, np.int32).ravel(), part.lane.stream)
    part.lane.stream.launch(
        "sort", f"sort_tiles_{part.bits}", len(tiles) * part.n_genes, part.lane.shapes.n_threads,
        part.keys, to, part.starts, items, np.int64(n_short), np.int64(part.n_genes),
        np.int32(tile), shared=shared,
    )  # fmt: skip
    return items
