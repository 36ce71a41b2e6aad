"""The exact distribution of the Mann-Whitney U statistic without ties."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def survival(m: int, n: int) -> np.ndarray:
    """Return ``P(U >= u)`` for u = 0 ... m n, for samples of m and n without ties.

    The number of arrangements with U = u is the coefficient of ``q**u`` in the Gaussian binomial
    ``prod_{i=1..m} (1 - q**(n + i)) / (1 - q**i)`` (Mann and Whitney 1947). Coefficients are
    integers of any size throughout, so probabilities are right to the last bit.

    Returns
    -------
    numpy.ndarray, shape (m n + 1,), float64, read-only
    """
    total, ways = math.comb(m + n, m), _ways(m, n)
    half, dtype = len(ways) - 1, ways.dtype
    up_to = np.cumsum(ways, dtype=dtype)  # arrangements with U <= u, for u up to half of m n
    sf = np.full(m * n + 1, np.nan)
    lower = np.arange(half + 1)
    sf[m * n - lower] = _ratio(up_to, total)  # U and m n - U have the same distribution
    below = np.concatenate([np.zeros(1, dtype), up_to[:-1]])
    sf[lower] = _ratio(total - below, total)
    sf.setflags(write=False)
    return sf


@lru_cache(maxsize=8)
def _ways(m: int, n: int) -> np.ndarray:
    """Count the arrangements with U = u, for u = 0 ... m n // 2.

    The counts are Python integers where int64 is too small.
    """
    # No intermediate coefficient exceeds the total in size: each step yields a Gaussian binomial,
    # or one times (1 - q**k).
    dtype = np.int64 if math.comb(m + n, m) < 2**61 else object
    half = m * n // 2
    ways = np.zeros(half + 1, dtype=dtype)
    ways[0] = 1
    for i in range(1, m + 1):
        k = n + i
        if k <= half:
            ways[k:] = ways[k:] - ways[:-k]
        for start in range(min(i, half + 1)):
            ways[start::i] = np.cumsum(ways[start::i], dtype=dtype)
    return ways


def _ratio(counts: np.ndarray, total: int) -> np.ndarray:
    if counts.dtype == object:
        return np.array([int(c) / total for c in counts])  # correctly rounded
    return counts / total


def log10_survival(m: int, n: int, u: int) -> float:
    """Return ``log10 P(U >= u)``, also where the probability underflows; m is at most n."""
    total, ways = math.comb(m + n, m), _ways(m, n)
    upper = m * n - u  # by symmetry, P(U >= u) = P(U <= upper)
    half = len(ways) - 1
    if upper <= half:
        return math.log10(sum(map(int, ways[: upper + 1]))) - math.log10(total)
    return math.log10(total - sum(map(int, ways[:u]))) - math.log10(total)
