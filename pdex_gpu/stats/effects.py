"""Effect sizes and their confidence intervals, from moments, U and placements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from .distributions.log_tails import _log_half_step
from .samples import Sample, SamplePair
from .two_sample.base import Stratum
from .two_sample.t_test import standard_error

# From this df on, quantiles of Student's t are evaluated as a polynomial in 1 / df.
_FITTED_FROM, _DEGREE, _MOST_LEVEL = 8.0, 16, 0.9999
_FEW = 1000


def fraction(sample: Sample) -> np.ndarray:
    """Return the fraction of cells with a nonzero value; NaN without cells."""
    with np.errstate(invalid="ignore"):
        found: np.ndarray = sample.n_expressed / sample.n
    return found


def auroc(u2: np.ndarray, n_target: np.ndarray, n_reference: np.ndarray) -> np.ndarray:
    """Return U / (n m): how often a target cell exceeds a reference cell; ties count half."""
    return u2 * 0.5 / (n_target * n_reference)


def auroc_over_strata(
    u2: Sequence[np.ndarray], strata: Sequence[Stratum], shape: tuple[int, int]
) -> np.ndarray:
    """Return the mean AUROC over strata, with the weights of van Elteren's test."""
    total, most = np.zeros(shape), np.zeros((shape[0], 1))
    for its, stratum in zip(u2, strata, strict=True):
        n, m = stratum.sides.target.n, stratum.sides.reference.n
        used, rows = stratum.rows >= 0, stratum.rows[stratum.rows >= 0]
        total[rows] += (its * 0.5 / (n + m + 1.0))[used]
        most[rows] += np.broadcast_to(n * m / (n + m + 1.0), (len(used), 1))[used]
    with np.errstate(invalid="ignore"):  # there may be no stratum with both sides
        found: np.ndarray = total / most
        return found


def auroc_interval(
    u2: np.ndarray,
    of_target: np.ndarray,
    of_reference: np.ndarray,
    n_target: np.ndarray,
    n_reference: np.ndarray,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return DeLong's confidence interval of the AUROC, clipped to [0, 1].

    It is NaN with fewer than two cells per side. The variance is the sum over both sides of the
    variance of the placements divided by the number of cells (DeLong, DeLong and Clarke-Pearson
    1988).
    """
    n, m = n_target, n_reference
    mean = auroc(u2, n, m)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_target = of_target / (4.0 * m * m) - n * mean * mean
        of_reference = of_reference / (4.0 * n * n) - m * mean * mean
        variance = of_target / ((n - 1.0) * n) + of_reference / ((m - 1.0) * m)
    # With a single cell, placements have no variance; rounding can turn 0 / 0 into a number.
    variance = np.where((n > 1.0) & (m > 1.0), np.maximum(variance, 0.0), np.nan)
    reach = _normal_quantile(level) * np.sqrt(variance)
    return np.maximum(mean - reach, 0.0), np.minimum(mean + reach, 1.0)


def mean_interval(sides: SamplePair, variance: str, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence interval of the difference of means, by Student's t.

    The variance is that of the test.
    """
    error, df = standard_error(sides, variance)
    return around(sides.target.mean - sides.reference.mean, error, df, level)


def around(
    middle: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval ``middle -+ t error`` with t the quantile of Student's t with `df`."""
    reach = _student_quantile(np.asarray(df, np.float64), level) * error
    return middle - reach, middle + reach


def _student_quantile(df: np.ndarray, level: float) -> np.ndarray:
    """Return the upper end of the central interval of Student's t, from scipy or a fit to it.

    The fit is a polynomial in 1 / df. Its worst relative difference from `scipy.special.stdtrit` is
    6e-15, for levels up to 0.9999.
    """
    if df.size < _FEW or level > _MOST_LEVEL:
        return np.asarray(special.stdtrit(df, 0.5 + 0.5 * level))
    found: np.ndarray = _fitted_quantile(level)(1.0 / np.maximum(df, _FITTED_FROM))
    small = ~(df >= _FITTED_FROM)
    found[small] = special.stdtrit(df[small], 0.5 + 0.5 * level)
    return found


@lru_cache(maxsize=64)
def _fitted_quantile(level: float) -> np.polynomial.Chebyshev:
    nodes = 0.5 * (1.0 - np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1)))
    nodes /= _FITTED_FROM
    values = special.stdtrit(1.0 / nodes, 0.5 + 0.5 * level)
    return np.polynomial.Chebyshev.fit(nodes, values, _DEGREE, domain=[0.0, 1.0 / _FITTED_FROM])


def cohens_d(sides: SamplePair) -> np.ndarray:
    """Return the difference of means over the pooled standard deviation (Cohen 1988).

    It is NaN where that standard deviation is 0.
    """
    target, reference = sides.target, sides.reference
    assert target.m2 is not None
    assert reference.m2 is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((target.m2 + reference.m2) / (target.n + reference.n - 2.0))
    return standardised(target.mean - reference.mean, spread)


def cohens_d_over_strata(
    effect: np.ndarray, error: np.ndarray, strata: Sequence[Stratum]
) -> np.ndarray:
    """Return :func:`cohens_d` over strata, from the fixed effect and its standard error."""
    weights = np.zeros((len(effect), 1))
    for stratum in strata:
        n, m = stratum.sides.target.n, stratum.sides.reference.n
        used = stratum.rows >= 0
        its = np.broadcast_to(n * m / (n + m), (len(used), 1))[used]
        weights[stratum.rows[used]] += its
    return standardised(effect, error * np.sqrt(weights))


def standardised(difference: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return ``difference / spread``, or NaN where the spread is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(spread > 0.0, difference / spread, np.nan)
    return found


def hedges_correction(df: np.ndarray) -> np.ndarray:
    """Return the factor that makes Cohen's d unbiased (Hedges 1981).

    It is ``Γ(df/2) / (sqrt(df/2) Γ((df - 1)/2))``.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.exp(_log_half_step((df - 1.0) / 2.0))
        found: np.ndarray = np.where(df > 1.0, ratio / np.sqrt(df / 2.0), np.nan)
    return found


def _normal_quantile(level: float) -> float:
    return float(special.ndtri(0.5 + 0.5 * level))
