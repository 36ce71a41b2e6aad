"""Distributions of p-values: numbers below levels, histograms and quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

_MEDIAN_CHI2 = special.chdtri(1.0, 0.5)  # 0.4549

#: Nominal levels at which p-values are counted.
LEVELS = (0.05, 0.01, 0.001, 0.0001)
N_BINS = 20
_N_QUANTILES = 400
_BYTES_PER_PASS = 1 << 26


@dataclass(frozen=True, eq=False)
class Distribution:
    """The distribution of the p-values of informative tests, uniform for a perfect test.

    Attributes
    ----------
    n_tests : int
    n_below : numpy.ndarray, shape (4,), int64
        Number of p-values at or below each of `LEVELS`.
    inflation : float
        Genomic control's lambda (Devlin and Roeder 1999): the median of the chi-square(1)
        quantiles of the p-values, over the median of that distribution, 0.4549. Above 1 the middle
        p-values are too small, below 1 too large. It says nothing about small p-values, which
        decide what is found: see `excess`. NaN without tests.
    ks_distance : float
        Largest distance of the distribution function from the diagonal, 0 to 1; NaN without tests.
    histogram : numpy.ndarray, shape (20,), int64
        Number of p-values in bins of width 0.05.
    """

    n_tests: int
    n_below: np.ndarray
    inflation: float
    ks_distance: float
    histogram: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        """Return observed over expected numbers of p-values at or below each of `LEVELS`.

        Shape (4,), float64; NaN without tests.
        """
        with np.errstate(invalid="ignore"):
            found: np.ndarray = self.n_below / (self.n_tests * np.array(LEVELS))
        return found


def distribution(p_values: np.ndarray) -> Distribution:
    """Describe p-values, shape (n,), float64, ascending."""
    n = len(p_values)
    histogram = np.histogram(p_values, N_BINS, (0.0, 1.0))[0].astype(np.int64)
    n_below = np.searchsorted(p_values, LEVELS, side="right").astype(np.int64)
    if n == 0:
        return Distribution(0, n_below, np.nan, np.nan, histogram)
    middle = special.chdtri(1.0, p_values[[(n - 1) // 2, n // 2]])
    return Distribution(
        n, n_below, float(middle.mean() / _MEDIAN_CHI2), _ks_distance(p_values), histogram
    )


def _ks_distance(p_values: np.ndarray) -> float:
    n, found = len(p_values), 0.0
    step = _BYTES_PER_PASS // 8
    for start in range(0, n, step):
        p = p_values[start : start + step]
        below = np.arange(start, start + len(p)) / n
        found = max(found, float(np.max(p - below)), float(np.max(below + 1.0 / n - p)))
    return found


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Order statistics of p-values, thinned, for a QQ plot.

    Attributes
    ----------
    ranks : numpy.ndarray, shape (n,), int64
        Ascending from 1 (the smallest p-value), about evenly spaced on a logarithmic scale.
    expected : numpy.ndarray, shape (n,), float64
        ``-log10((rank - 0.5) / n_tests)``.
    observed : numpy.ndarray, shape (n,), float64
        ``-log10`` of the p-values; for p-values that underflow, of the smallest number above 0.
    n_tests : int
    """

    ranks: np.ndarray
    expected: np.ndarray
    observed: np.ndarray
    n_tests: int

    def band(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the band that each order statistic lies in with this probability, in -log10.

        For n independent uniform variables, the k-th smallest has the distribution
        Beta(k, n + 1 - k).

        Returns
        -------
        tuple of numpy.ndarray, shape (n,), float64
            Lower and upper end.
        """
        tail = (1.0 - level) / 2.0
        after = self.n_tests + 1.0 - self.ranks
        high = -np.log10(special.betaincinv(self.ranks, after, tail))
        low = -np.log10(special.betaincinv(self.ranks, after, 1.0 - tail))
        return low, high


def quantiles(p_values: np.ndarray) -> Quantiles:
    """Thin the order statistics of p-values, shape (n,), float64, ascending."""
    n = len(p_values)
    ranks = np.arange(1, n + 1, dtype=np.int64)
    if n > _N_QUANTILES:
        ranks = np.unique(np.rint(np.geomspace(1, n, _N_QUANTILES)).astype(np.int64))
    observed = -np.log10(np.maximum(p_values[ranks - 1], np.nextafter(0.0, 1.0)))
    return Quantiles(ranks, -np.log10((ranks - 0.5) / max(n, 1)), observed + 0.0, n)
