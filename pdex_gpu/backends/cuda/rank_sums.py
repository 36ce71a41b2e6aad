"""Mann-Whitney sums of every (target, gene) of a contrast; for the method see rank_sums.cu."""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..outputs import N_LOWEST, RankSums
from .comparands import comparands_of, launch_pairs
from .device_api import DeviceArray
from .packed import Slice

_TARGETS_PER_BLOCK = 512  # they share the reference keys that a block of threads loads


def rank_sums(part: Slice, contrast: Contrast, *, lowest: bool = False) -> RankSums:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.rank_sums`."""
    shape = contrast.n_targets, part.n_genes
    queued = queue(part, contrast)
    classes = queue_lowest(part, contrast) if lowest else None
    if queued[1].size == queued[0].size:
        u2, ties = part.slot.fetch(queued, shape)
    else:
        (of_genes,) = part.slot.fetch(queued[1:], (1, part.n_genes))
        (u2,) = part.slot.fetch(queued[:1], shape)
        ties = np.broadcast_to(of_genes, shape)
    if classes is None:
        return RankSums(u2, ties)
    n_rows = 1 if contrast.pooled else contrast.n_targets
    (found,) = part.slot.fetch([classes], (n_rows * part.n_genes, N_LOWEST))
    found = found.reshape(n_rows, part.n_genes, N_LOWEST)
    return RankSums(u2, ties, np.broadcast_to(found, (*shape, N_LOWEST)))


def queue(part: Slice, contrast: Contrast) -> list[DeviceArray]:
    """Queue the kernels; return arrays for u2 and ties (one per gene if targets share them)."""
    comparands, stream, n_genes = comparands_of(part, contrast), part.slot.stream, part.n_genes
    u2 = stream.empty(comparands.n_targets * n_genes, np.int64)
    ties = stream.empty(n_genes if comparands.pooled else u2.size, np.float64)
    high, low = (stream.empty(n_genes, np.uint64) for _ in range(2))
    part.run(
        "rank_sums", "reference_ties", n_genes, comparands.keys, comparands.starts, comparands.ends,
        np.int64(comparands.n_cells), high, low, ties if comparands.pooled else None,
    )  # fmt: skip
    if comparands.pooled:
        launch_pairs(
            part,
            "rank_sums",
            "rank_sums_in_pool",
            comparands,
            u2,
            targets_per_block=_TARGETS_PER_BLOCK,
        )
    else:
        launch_pairs(
            part, "rank_sums", "rank_sums", comparands, high, low, u2, ties,
            targets_per_block=_TARGETS_PER_BLOCK,
        )  # fmt: skip
    return [u2, ties]


def queue_lowest(part: Slice, contrast: Contrast) -> DeviceArray:
    """Queue the kernel for the lowest values; return the array, of one row if targets share it."""
    comparands = comparands_of(part, contrast)
    n_pairs = part.n_genes * (1 if comparands.pooled else comparands.n_targets)
    classes = part.slot.stream.empty(n_pairs * N_LOWEST, np.int32)
    part.launch(
        "rank_sums", "lowest_classes", part.slot.shapes.blocks(n_pairs), np.int64(part.n_genes),
        np.int32(part.kind), *comparands.arguments, np.int32(N_LOWEST), classes,
    )  # fmt: skip
    return classes
