"""Sorting the segments of a slice; sort.cu says how."""

from __future__ import annotations

import numpy as np

from .base import DeviceArray
from .block import Slice


def sort_slice(part: Slice) -> None:
    """Sort the keys of each (group, gene)."""
    if part.keys.size == 0:
        return
    stream, shapes, tiles = part.lane.stream, part.lane.shapes, part.tiles
    n_groups, n_genes = np.int64(part.n_groups), np.int64(part.n_genes)
    n_warps = part.n_groups * part.n_genes
    part.launch("sort", "sort_warps", shapes.blocks(n_warps, 32), n_groups, n_genes)
    _sort_tiles(part, part.keys, tiles.single, tiles.single.size // 2)
    if tiles.several.size == 0:
        return
    # Back and forth: each pass doubles the runs, and the last one ends in `keys`.
    spare = stream.empty(part.keys.size, part.keys.dtype)
    source, other = (part.keys, spare) if tiles.n_passes % 2 == 0 else (spare, part.keys)
    _sort_tiles(part, source, tiles.several, 0)
    for k in range(tiles.n_passes):
        stream.launch(
            "sort", f"merge_runs_{part.bits}", tiles.several.size // 2 * part.n_genes,
            shapes.n_threads, source, other, part.starts, tiles.several, n_genes,
            np.int64(tiles.size << k), np.int32(tiles.size), shared=_shared(part),
        )  # fmt: skip
        source, other = other, source


def _sort_tiles(part: Slice, to: DeviceArray, items: DeviceArray, n_short: int) -> None:
    if items.size == 0:
        return
    part.lane.stream.launch(
        "sort", f"sort_tiles_{part.bits}", items.size // 2 * part.n_genes,
        part.lane.shapes.n_threads, part.keys, to, part.starts, items, np.int64(n_short),
        np.int64(part.n_genes), np.int32(part.tiles.size), shared=_shared(part),
    )  # fmt: skip


def _shared(part: Slice) -> int:
    return 2 * part.tiles.size * part.keys.dtype.itemsize
