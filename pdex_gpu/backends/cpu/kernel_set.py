"""The numba kernel set; see :class:`pdex_gpu.backends.contract.KernelSet`."""

from __future__ import annotations

import numpy as np

from ..outputs import GroupValues
from .anderson_darling import anderson_darling
from .benjamini_hochberg import benjamini_hochberg
from .kolmogorov_smirnov import kolmogorov_smirnov
from .moments import moments
from .pack import CpuPackedChunk, native_dtype, pack
from .placements import placements
from .rank_sums import rank_sums

name = "cpu"
scales_rows = True

__all__ = [
    "anderson_darling",
    "benjamini_hochberg",
    "entries",
    "kolmogorov_smirnov",
    "moments",
    "name",
    "pack",
    "packed_bytes",
    "placements",
    "rank_sums",
    "scales_rows",
]


def entries(packed: CpuPackedChunk, gene: int) -> GroupValues:
    """Return the values of each group in a gene; see the contract."""
    bounds = packed.offsets[:, gene]
    return GroupValues(packed.values[bounds[0] : bounds[-1]], bounds - bounds[0])


def packed_bytes(n_cells: int, n_entries: float, dtype: np.dtype) -> float:
    """Return an upper bound on the bytes of a packed gene; see the contract."""
    return float(native_dtype(dtype).itemsize) * n_entries
