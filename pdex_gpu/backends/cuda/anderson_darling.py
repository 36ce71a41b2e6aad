"""Two-sample Anderson-Darling statistics of a slice; anderson_darling.cu says how."""

from __future__ import annotations

import numpy as np

from .base import DeviceArray
from .block import Slice
from .matrix import send_small
from .rank_sums import parts_of_targets

_TARGETS_A_BLOCK = 64  # nothing is loaded for all of them, so blocks may be small


def anderson_darling(part: Slice, n_reference: int) -> np.ndarray:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.anderson_darling`.

    `n_reference` is the number of reference cells.
    """
    return part.lane.fetch([queue(part, n_reference)], (part.n_groups - 1, part.n_genes))[0]


def queue(part: Slice, n_reference: int) -> DeviceArray:
    """Queue the kernels; A2 as it will be."""
    stream, shapes = part.lane.stream, part.lane.shapes
    n_targets, n_genes = part.n_groups - 1, part.n_genes
    bounds = np.minimum(part.entries, n_reference)  # reference entries a gene, at most
    places = send_small(np.concatenate([[0], np.cumsum(bounds)]).astype(np.int64), stream)
    distinct = stream.empty(int(bounds.sum()), part.keys.dtype)
    first = stream.empty(distinct.size + n_genes, np.int32)
    n_distinct = stream.empty(n_genes, np.int32)
    part.launch(
        "anderson_darling", "distinct_values", n_genes, places, np.int64(n_genes), distinct,
        first, n_distinct, shared=32 * 4,
    )  # fmt: skip
    a2 = stream.empty(n_targets * n_genes, np.float64)
    n_parts = parts_of_targets(n_targets, _TARGETS_A_BLOCK, shapes)
    part.launch(
        "anderson_darling", "anderson_darling", n_genes * n_parts, part.n_cells,
        np.int64(part.n_groups), np.int64(n_genes), np.int32(part.kind), np.int32(n_parts),
        places, distinct, first, n_distinct, a2,
    )  # fmt: skip
    return a2
