"""Benjamini-Hochberg adjustment on the device; for the method see benjamini_hochberg.cu."""

from __future__ import annotations

import numpy as np

from ...utils.arrays import nan_filled
from ...utils.parallel import Map
from .device_api import Stream
from .device_matrix import send_small
from .launch_config import Shapes
from .staging import Staging


def benjamini_hochberg(
    p_value: np.ndarray,
    stream: Stream,
    staging: Staging,
    shapes: Shapes,
    parallel_map: Map,
    *,
    n_tests: int | None,
    n_smaller: int,
    ceiling: float,
) -> np.ndarray:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.benjamini_hochberg`."""
    flat = np.ascontiguousarray(p_value, np.float64).reshape(-1)
    fdr = nan_filled((flat.size, 1), parallel_map).reshape(-1)
    if flat.size == 0:
        return fdr.reshape(p_value.shape)
    n, n_threads, tile = flat.size, shapes.n_threads, shapes.tile(8)
    bits = flat.view(np.uint64)  # bits of non-negative numbers sort as the numbers do
    p, keys, spare = (stream.empty(n, np.uint64) for _ in range(3))
    staging.send(lambda first, last: (bits[first:last],), (p,), parallel_map)
    # To the sorting kernels, the p-values are one segment of one gene.
    starts = send_small(np.array([0, n], np.int64), stream)
    n_tiles = -(-n // tile)
    tiles = np.stack([np.zeros(n_tiles, np.int32), np.arange(n_tiles, dtype=np.int32)], axis=1)
    items = send_small(tiles.ravel(), stream)
    shared = shapes.shared_bytes
    stream.launch(
        "sort", "sort_tiles_64", n_tiles, n_threads, p, keys, starts, items, np.int64(0),
        np.int64(1), np.int32(tile), shared=shared,
    )  # fmt: skip
    for k in range((n_tiles - 1).bit_length()):
        stream.launch(
            "sort", "merge_runs_64", n_tiles, n_threads, keys, spare, starts, items, np.int64(1),
            np.int64(tile << k), np.int32(tile), shared=shared,
        )  # fmt: skip
        keys, spare = spare, keys
    del spare
    adjusted, least = stream.empty(n, np.float64), stream.empty(n_tiles, np.float64)
    size = np.int64(n), np.int64(tile)
    ranks = np.int64(n if n_tests is None else n_tests), np.int64(n_smaller)
    minima = 8 * n_threads
    stream.launch(
        "benjamini_hochberg", "adjust", n_tiles, n_threads, keys, *size, *ranks, adjusted, least,
        shared=minima,
    )  # fmt: skip
    stream.launch(
        "benjamini_hochberg", "least_above", 1, n_threads, least, np.int64(n_tiles),
        np.float64(ceiling), shared=minima,
    )  # fmt: skip
    stream.launch(
        "benjamini_hochberg", "gather", shapes.blocks(n), n_threads, p, keys, adjusted, least, *size
    )
    staging.receive(p, fdr.view(np.uint64), stream, parallel_map)
    return fdr.reshape(p_value.shape)
