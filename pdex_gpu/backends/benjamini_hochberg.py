"""Benjamini-Hochberg on the host, for backends without a kernel or without room for one."""

from __future__ import annotations

import numpy as np

from ..utils.parallel import Map


def benjamini_hochberg(
    p_value: np.ndarray,
    parallel_map: Map,
    *,
    n_tests: int | None = None,
    n_smaller: int = 0,
    ceiling: float = 1.0,
) -> np.ndarray:
    """Adjust as ``scipy.stats.false_discovery_control`` does, in the same order of operations."""
    flat = p_value.ravel()
    order = np.argsort(flat)
    adjusted = np.arange(n_smaller + 1, n_smaller + flat.size + 1, dtype=np.float64)
    np.divide(flat.size if n_tests is None else n_tests, adjusted, out=adjusted)
    adjusted *= flat[order]
    np.minimum.accumulate(adjusted[::-1], out=adjusted[::-1])
    fdr = np.full(flat.size, np.nan)
    fdr[order] = np.minimum(adjusted, ceiling, out=adjusted)
    return fdr.reshape(p_value.shape)
