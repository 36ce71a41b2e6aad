"""Effect sizes, from moments and U."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .distributions.log_tails import _log_half_step
from .samples import Sample, SamplePair
from .two_sample.base import Stratum


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
