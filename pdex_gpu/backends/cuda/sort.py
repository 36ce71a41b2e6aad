"""Sorting of the segments of a slice; for the method see sort.cu."""

from __future__ import annotations

import numpy as np

from .device_api import DeviceArray
from .device_matrix import send_small
from .packed import Slice


def sort_slice(part: Slice) -> None:
    """Sort the keys of each (group, gene)."""
    if part.keys.size == 0:
        return
    stream, shapes, tiles = part.slot.stream, part.slot.shapes, part.tiles
    n_groups, n_genes = np.int64(part.n_groups), np.int64(part.n_genes)
    n_warps = part.n_groups * part.n_genes
    part.launch("sort", "sort_warps", shapes.blocks(n_warps, 32), n_groups, n_genes)
    _sort_tiles(part, part.keys, part.keys, part.starts, tiles.single, tiles.single.size // 2)
    if tiles.several.size == 0:
        return
    spare = stream.empty(part.keys.size, part.keys.dtype)
    _sort_long(part, part.keys, part.keys, spare, part.starts, tiles.several, tiles.n_passes)


def sort_pool(
    part: Slice, keys: DeviceArray, pool: DeviceArray, places: DeviceArray, longest: int
) -> None:
    """Sort one segment per gene.

    Parameters
    ----------
    keys, pool : DeviceArray
        Source and destination, at the same places; may be the same array.
    places : DeviceArray, int64
        Where each segment begins and ends, shape (2, n_genes).
    longest : int
        Most keys that a segment can have.
    """
    if longest == 0:
        return
    n_tiles = -(-longest // part.tiles.size)
    n_passes = (n_tiles - 1).bit_length()
    items = np.stack([np.zeros(n_tiles), np.arange(n_tiles)], axis=1).ravel().astype(np.int32)
    spare = part.slot.stream.empty(pool.size if n_passes else 0, pool.dtype)
    _sort_long(part, keys, pool, spare, places, send_small(items, part.slot.stream), n_passes)


def _sort_long(
    part: Slice,
    keys: DeviceArray,
    result: DeviceArray,
    spare: DeviceArray,
    starts: DeviceArray,
    items: DeviceArray,
    n_passes: int,
) -> None:
    """Sort segments of several tiles, from `keys` into `result`, which may be the same array."""
    stream, shapes, size = part.slot.stream, part.slot.shapes, part.tiles.size
    # Passes alternate between two buffers. Each doubles the runs; the last one ends in `result`.
    source, other = (result, spare) if n_passes % 2 == 0 else (spare, result)
    _sort_tiles(part, keys, source, starts, items, 0)
    for k in range(n_passes):
        stream.launch(
            "sort", f"merge_runs_{part.bits}", items.size // 2 * part.n_genes, shapes.n_threads,
            source, other, starts, items, np.int64(part.n_genes), np.int64(size << k),
            np.int32(size), shared=_shared(part),
        )  # fmt: skip
        source, other = other, source


def _sort_tiles(
    part: Slice,
    keys: DeviceArray,
    to: DeviceArray,
    starts: DeviceArray,
    items: DeviceArray,
    n_short: int,
) -> None:
    if items.size == 0:
        return
    part.slot.stream.launch(
        "sort", f"sort_tiles_{part.bits}", items.size // 2 * part.n_genes,
        part.slot.shapes.n_threads, keys, to, starts, items, np.int64(n_short),
        np.int64(part.n_genes), np.int32(part.tiles.size), shared=_shared(part),
    )  # fmt: skip


def _shared(part: Slice) -> int:
    return 2 * part.tiles.size * part.keys.dtype.itemsize
