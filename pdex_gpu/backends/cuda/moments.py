"""Moments of every (group, gene) of a slice; for the method see moments.cu."""

from __future__ import annotations

import numpy as np

from ..outputs import Moments
from .device_api import DeviceArray
from .dtypes import FLOATING
from .packed import Slice


def moments(
    part: Slice, *, centred: bool, expm1: bool, log1p: bool = False, higher: bool = False
) -> Moments:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.moments`."""
    arrays = queue(part, centred=centred, expm1=expm1, log1p=log1p, higher=higher)
    found = iter(part.slot.fetch(arrays, (part.n_groups, part.n_genes)))
    n_expressed, mean = next(found), next(found)
    m2 = next(found) if centred else None
    optional = ("mean_expm1", expm1), ("mean_log1p", log1p), ("m3", higher), ("m4", higher)
    more = {name: next(found) for name, asked in optional if asked}
    return Moments.unscaled(n_expressed, mean, m2, next(found, None), **more)


def queue(
    part: Slice, *, centred: bool, expm1: bool, log1p: bool = False, higher: bool = False
) -> list[DeviceArray]:
    """Queue the kernels; return arrays for entry counts, means and what was asked for.

    For float64 keys the exponent comes last; their mean and further moments are scaled by it.
    """
    stream, shapes = part.slot.stream, part.slot.shapes
    size = part.n_groups * part.n_genes
    n_expressed = stream.empty(size, np.int32)
    mean = stream.empty(size, np.float64)
    m2 = stream.empty(size, np.float64) if centred else None
    mean_expm1 = stream.empty(size, np.float64) if expm1 else None
    mean_log1p = stream.empty(size, np.float64) if log1p else None
    m3, m4 = (stream.empty(size, np.float64) if higher else None for _ in range(2))
    # Values of all other types can be squared and added unscaled.
    exponent = stream.empty(size, np.int32) if (part.kind, part.bits) == (FLOATING, 64) else None
    given = part.n_cells, np.int64(part.n_groups), np.int64(part.n_genes), np.int32(part.kind)
    n_blocks = shapes.blocks(size, 32)
    part.launch("moments", "moments", n_blocks, *given, n_expressed, mean, m2, mean_expm1,
                exponent)  # fmt: skip
    if mean_log1p is not None:
        part.launch("moments", "mean_log1p", n_blocks, *given, mean_log1p)
    if m3 is not None:
        part.launch("moments", "higher_moments", n_blocks, *given, mean, exponent, m3, m4)
    arrays = n_expressed, mean, m2, mean_expm1, mean_log1p, m3, m4, exponent
    return [array for array in arrays if array is not None]
