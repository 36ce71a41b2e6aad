"""Kolmogorov-Smirnov distances of a contrast; for the method see kolmogorov_smirnov.cu."""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..outputs import Distances
from .comparands import comparands_of, launch_pairs
from .device_api import DeviceArray
from .packed import Slice

_TARGETS_PER_BLOCK = 512  # they share the reference keys that a block of threads loads


def kolmogorov_smirnov(part: Slice, contrast: Contrast) -> Distances:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.kolmogorov_smirnov`."""
    return Distances(*part.slot.fetch(queue(part, contrast), (contrast.n_targets, part.n_genes)))


def queue(part: Slice, contrast: Contrast) -> list[DeviceArray]:
    """Queue the kernel; return the arrays that will hold `above` and `below`."""
    comparands, stream = comparands_of(part, contrast), part.slot.stream
    above, below = (stream.empty(comparands.n_targets * part.n_genes, np.int64) for _ in range(2))
    launch_pairs(
        part, "kolmogorov_smirnov", "kolmogorov_smirnov", comparands, above, below,
        targets_per_block=_TARGETS_PER_BLOCK,
    )  # fmt: skip
    return [above, below]
