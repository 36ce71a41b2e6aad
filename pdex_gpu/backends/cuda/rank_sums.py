"""Mann-Whitney sums of every (target, gene) of a slice; rank_sums.cu says how."""

from __future__ import annotations

import numpy as np

from ..contract import RankSums
from .base import DeviceArray
from .block import Slice
from .shapes import Shapes

_TARGETS_A_BLOCK = 512  # share what a block of threads loads of the reference


def rank_sums(part: Slice) -> RankSums:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.rank_sums`."""
    return RankSums(*part.lane.fetch(queue(part), (part.n_groups - 1, part.n_genes)))


def queue(part: Slice) -> list[DeviceArray]:
    """Queue the kernels; u2 and ties as they will be."""
    stream, shapes = part.lane.stream, part.lane.shapes
    n_targets, n_genes = part.n_groups - 1, part.n_genes
    high, low = (stream.empty(n_genes, np.uint64) for _ in range(2))
    part.launch("rank_sums", "reference_ties", n_genes, np.int64(n_genes), high, low)
    u2 = stream.empty(n_targets * n_genes, np.int64)
    ties = stream.empty(n_targets * n_genes, np.float64)
    n_parts = parts_of_targets(n_targets, _TARGETS_A_BLOCK, shapes)
    part.launch(
        "rank_sums", "rank_sums", n_genes * n_parts, part.n_cells, np.int64(part.n_groups),
        np.int64(n_genes), np.int32(part.kind), np.int32(n_parts),
        np.int32(shapes.shared_bytes // (part.bits // 8)), high, low, u2, ties,
        shared=shapes.shared_bytes,
    )  # fmt: skip
    return [u2, ties]


def parts_of_targets(n_targets: int, a_block: int, shapes: Shapes) -> int:
    """Blocks of threads that share out the targets of a gene, about `a_block` each."""
    return max(1, n_targets // max(a_block, shapes.n_threads // 32))
