"""The numba kernel set; see :class:`pdex_gpu.backends.contract.KernelSet`."""

from __future__ import annotations

from .anderson_darling import anderson_darling
from .fdr import benjamini_hochberg
from .moments import moments
from .pack import pack
from .rank_sums import rank_sums

name = "cpu"

__all__ = [
    "anderson_darling",
    "benjamini_hochberg",
    "moments",
    "name",
    "pack",
    "packed_bytes",
    "rank_sums",
]


def packed_bytes(n_cells: int, n_entries: float) -> float:
    """Bytes of a packed gene at most; see the contract."""
    return 8.0 * n_entries
