"""The numba kernel set; see :class:`pdex_gpu.backends.contract.KernelSet`."""

from __future__ import annotations

import numpy as np

from .anderson_darling import anderson_darling
from .fdr import benjamini_hochberg
from .kolmogorov_smirnov import kolmogorov_smirnov
from .moments import moments
from .pack import native_dtype, pack
from .placements import placements
from .rank_sums import rank_sums

name = "cpu"

__all__ = [
    "anderson_darling",
    "benjamini_hochberg",
    "kolmogorov_smirnov",
    "moments",
    "name",
    "pack",
    "packed_bytes",
    "placements",
    "rank_sums",
]


def packed_bytes(n_cells: int, n_entries: float, dtype: np.dtype) -> float:
    """Bytes of a packed gene at most; see the contract."""
    return float(native_dtype(dtype).itemsize) * n_entries
