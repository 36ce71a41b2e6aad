"""False discovery rate."""

from __future__ import annotations

import numpy as np


def benjamini_hochberg(p_value: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values over all entries of an array.

    The same numbers as ``scipy.stats.false_discovery_control(p, method="bh")``: the running
    minimum, from the largest p-value down, of ``p * n / rank`` (Benjamini and Hochberg 1995).

    Parameters
    ----------
    p_value : numpy.ndarray, any shape, float64, values in [0, 1]

    Returns
    -------
    numpy.ndarray, same shape, float64
    """
    flat = p_value.ravel()
    order = np.argsort(flat)
    adjusted = flat[order]
    adjusted *= len(flat) / np.arange(1, len(flat) + 1)
    descending = adjusted[::-1]
    np.minimum.accumulate(descending, out=descending)
    fdr = np.full_like(flat, np.nan)
    fdr[order] = np.minimum(adjusted, 1.0)
    return fdr.reshape(p_value.shape)
