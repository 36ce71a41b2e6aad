"""Mann-Whitney sums of every (target, gene) of a contrast; for the method see rank_sums.cu."""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..outputs import RankSums
from .comparands import comparands_of, launch_pairs
from .device_api import DeviceArray
from .packed import Slice

_TARGETS_PER_BLOCK = 512  # they share the reference keys that a block of threads loads


def rank_sums(part: Slice, contrast: Contrast) -> RankSums:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.rank_sums`."""
    shape = contrast.n_targets, part.n_genes
    u2, ties = queue(part, contrast)
    if ties.size == u2.size:
        return RankSums(*part.slot.fetch([u2, ties], shape))
    (of_genes,) = part.slot.fetch([ties], (1, part.n_genes))
    return RankSums(part.slot.fetch([u2], shape)[0], np.broadcast_to(of_genes, shape))


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
