"""Sums of squared placements of a contrast; for the method see placements.cu."""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..outputs import Placements
from .comparands import comparands_of, launch_pairs
from .device_api import DeviceArray
from .packed import Slice
from .rank_sums import rank_sums

_TARGETS_PER_BLOCK = 512  # they share the reference keys that a block of threads loads


def placements(part: Slice, contrast: Contrast) -> Placements:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.placements`."""
    shape = contrast.n_targets, part.n_genes
    target, other = part.slot.fetch(queue(part, contrast), shape)
    return Placements(target, other, rank_sums(part, contrast))


def queue(part: Slice, contrast: Contrast) -> list[DeviceArray]:
    """Queue the kernel; return arrays for the sums over target and over reference cells."""
    comparands, stream = comparands_of(part, contrast), part.slot.stream
    target, other = (
        stream.empty(comparands.n_targets * part.n_genes, np.float64) for _ in range(2)
    )
    launch_pairs(
        part,
        "placements",
        "placements",
        comparands,
        target,
        other,
        targets_per_block=_TARGETS_PER_BLOCK,
    )
    return [target, other]
