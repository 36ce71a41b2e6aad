"""Moments of every (group, gene) of a slice; moments.cu says how."""

from __future__ import annotations

import numpy as np

from ..contract import Moments
from .base import DeviceArray
from .block import Slice


def moments(part: Slice, *, centred: bool, expm1: bool) -> Moments:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.moments`."""
    arrays = queue(part, centred=centred, expm1=expm1)
    found = iter(part.lane.fetch(arrays, (part.n_groups, part.n_genes)))
    return Moments(
        next(found),
        next(found),
        next(found) if centred else None,
        next(found) if expm1 else None,
    )


def queue(part: Slice, *, centred: bool, expm1: bool) -> list[DeviceArray]:
    """Queue the kernel; number of entries, mean and what was asked for, as they will be."""
    stream, shapes = part.lane.stream, part.lane.shapes
    size = part.n_groups * part.n_genes
    n_expressed = stream.empty(size, np.int32)
    mean = stream.empty(size, np.float64)
    m2 = stream.empty(size, np.float64) if centred else None
    mean_expm1 = stream.empty(size, np.float64) if expm1 else None
    part.launch(
        "moments", "moments", shapes.blocks(size, 32), part.n_cells, np.int64(part.n_groups),
        np.int64(part.n_genes), np.int32(part.kind), n_expressed, mean, m2, mean_expm1,
    )  # fmt: skip
    return [array for array in (n_expressed, mean, m2, mean_expm1) if array is not None]
