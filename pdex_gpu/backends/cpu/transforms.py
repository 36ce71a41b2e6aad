"""``expm1`` and ``log1p`` of the entries of a gene, and bounds of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...utils.elementary import LARGEST, PER_LN2, expm1, log1p
from ...utils.float_bits import BIAS, EXPONENT, float_of_bits
from .jit import jit


@jit
def bound_of_expm1(smallest, largest):
    """Bound the magnitude of ``expm1`` between two values, at most 4 times too large."""
    if largest < 1.0:
        return 2.0 * max(min(abs(smallest), 1.0), abs(largest))
    exponent = np.int64(min(largest, LARGEST) * PER_LN2) + 1
    return float_of_bits((min(exponent, BIAS) + BIAS) << EXPONENT)


@jit
def bound_of_log1p(smallest, largest):
    """Bound the magnitude of ``log1p`` between two values, at most 1500 times too large."""
    if smallest <= -1.0:
        return np.inf
    if smallest < -0.5:
        return 1024.0
    return min(2.0 * max(abs(smallest), abs(largest)), 1024.0)


@jit
def expm1_of(x, out):
    """Write ``expm1`` of each value, as float64, to ``out[:x.size]``."""
    for i in range(x.size):
        out[i] = expm1(np.float64(x[i]))


@jit
def log1p_of(x, out):
    """Write ``log1p`` of each value to ``out[:x.size]``: NaN below -1, -inf at -1."""
    for i in range(x.size):
        out[i] = log1p(np.float64(x[i]))


@jit
def look_up(counts, table, out):
    """Write ``table[count]`` of each count to ``out[:counts.size]``."""
    for i in range(counts.size):
        out[i] = table[counts[i]]


@lru_cache(maxsize=1)
def log1p_of_counts() -> np.ndarray:
    """Return ``log1p`` of every uint16, as float64."""
    table = np.full(65536, np.nan)
    log1p_of(np.arange(65536.0), table)
    return table
