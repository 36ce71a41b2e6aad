"""Confidence intervals of the AUROC and of differences of means, for sparse genes as well.

Both estimates are differences between what the target's cells say and what the reference's cells
say. Each side has a reach below its estimate, `l`, and one above it, `u`: the larger of that of the
classic variance (DeLong's, Welch's) and that of a score interval. The sides are put together by
square-and-add,

    low = d - sqrt(l_target^2 + u_reference^2),   high = d + sqrt(u_target^2 + l_reference^2)

(Newcombe 1998, Statist. Med. 17, 873; Zou and Donner 2008, Statist. Med. 27, 1693, who call it
MOVER). With the classic variances alone, this is DeLong's and Welch's interval, so intervals are
never shorter than these.

Variances of few expressing cells are too small, and 0 if no cell of the target expresses the gene.
A score interval (Wilson 1927) does not depend on them: it holds every value that the estimate does
not contradict, given the variance that the value implies. Where zero is the smallest value, a side
that expresses less varies less; its variance is proportional to the expression, with a factor
estimated from both sides. For one expressing cell among few, this is Wilson's interval of a
fraction and the score interval of a Poisson mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from .interval_kernels import auroc_limits, chebyshev, mean_limits, welch_df
from .samples import SamplePair
from .two_sample.base import Stratum

# From this df on, quantiles of Student's t are evaluated as a polynomial in 1 / df.
_FITTED_FROM, _DEGREE, _MOST_LEVEL = 8.0, 16, 0.9999

_Interval = tuple[np.ndarray, np.ndarray]


def auroc_interval(
    u2: np.ndarray,
    placements: tuple[np.ndarray, np.ndarray],
    ties: np.ndarray,
    sides: SamplePair,
    level: float,
) -> _Interval:
    """Return the confidence interval of the AUROC, inside [0, 1] and never of zero width.

    The classic reach of a side is DeLong's: the normal quantile times the standard error of the
    mean placement of its cells (DeLong, DeLong and Clarke-Pearson 1988). The score reach assumes
    that the variance of placements is ``k (A - a) (1 - A)``. `a` is the least possible AUROC, that
    of a side in which no cell expresses the gene: half the fraction of zeros on the other side. `k`
    makes the variance at ``(A, a)`` of the null hypothesis that of the Wilcoxon test, with its
    correction for ties. Where a gene has negative values, ``a`` is 0.

    Parameters
    ----------
    u2 : numpy.ndarray, shape (n_targets, n_genes), float64
        Twice the statistic U.
    placements : tuple of numpy.ndarray, shape (n_targets, n_genes), float64
        Sums of squares of twice the placements of target and reference cells.
    ties : numpy.ndarray, shape (n_targets, n_genes), float64
        Sum of ``t^3 - t`` over the distinct values of both sides.
    sides : SamplePair
    level : float
        Above 0 and below 1.

    Returns
    -------
    tuple of numpy.ndarray, shape (n_targets, n_genes), float64
        Lower and upper limit; NaN if a side has fewer than two cells.

    Notes
    -----
    Perme and Manevski (2019, Stat. Methods Med. Res. 28, 3755) compare intervals of the AUROC:
    DeLong's covers well except near 0 and 1 and in small groups. Newcombe (2006, Statist. Med. 25,
    559) recommends score intervals there; his variances are those of continuous values, with which
    the intervals of sparse genes would be much too wide.
    """
    shape = u2.shape
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    pair = sides.target, sides.reference
    auroc_limits(
        np.ascontiguousarray(u2),
        _of_both([np.asarray(found, np.float64) for found in placements], shape),
        np.ascontiguousarray(ties, np.float64),
        _of_both([sample.n_expressed for sample in pair], shape),
        _per_target([sample.n for sample in pair], shape),
        _signed(sides.negative, shape),
        float(special.ndtri(0.5 + 0.5 * level)),
        low,
        high,
    )
    return low, high


@dataclass(frozen=True)
class _Side:
    """What the interval of a difference of means takes from a side; shapes broadcast.

    Attributes
    ----------
    n : numpy.ndarray
        Number of cells; over strata, the number to which the variance of the mean corresponds.
    variance : numpy.ndarray
        Variance of a cell's value, NaN if unknown.
    df : numpy.ndarray
        Degrees of freedom of `variance`.
    mean : numpy.ndarray
    """

    n: np.ndarray
    variance: np.ndarray
    df: np.ndarray
    mean: np.ndarray


def mean_interval(
    sides: SamplePair, means: tuple[np.ndarray, np.ndarray], level: float
) -> _Interval:
    """Return the confidence interval of the difference of means.

    The classic reach of a side is Welch's, ``t s / sqrt(n)`` with Welch's degrees of freedom. The
    score reach assumes that the variance of a cell is ``D mean``, with the index of dispersion `D`
    that both sides share: their pooled variance over the mean of all cells. Its quantile is that of
    Student's t with ``n + m - 2`` df. Where a gene has negative values, the variance is the pooled
    one whatever the mean. The interval excludes 0 only where Welch's test rejects at that level.

    Parameters
    ----------
    sides : SamplePair
        With squared deviations. Their means may lack a constant.
    means : tuple of numpy.ndarray
        The means of target and reference.
    level : float
        Above 0 and below 1.

    Returns
    -------
    tuple of numpy.ndarray, shape (n_targets, n_genes), float64
        Lower and upper limit; NaN if a side has fewer than two cells, or if neither has variance.
    """
    target, reference = sides.target, sides.reference
    assert target.m2 is not None
    assert reference.m2 is not None
    df = target.n + reference.n - 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (target.m2 + reference.m2) / df
        of_target = _Side(target.n, target.m2 / (target.n - 1.0), target.n - 1.0, means[0])
        of_reference = _Side(
            reference.n, reference.m2 / (reference.n - 1.0), reference.n - 1.0, means[1]
        )
    return _mean_interval(
        target.mean - reference.mean,
        of_target,
        of_reference,
        (target.n, reference.n),
        pooled,
        df,
        sides.negative,
        level,
    )


def mean_interval_over_strata(
    fixed_effect: tuple[np.ndarray, np.ndarray, np.ndarray],
    strata: Sequence[Stratum],
    n_cells: tuple[np.ndarray, np.ndarray],
    means: tuple[np.ndarray, np.ndarray],
    level: float,
) -> _Interval:
    """Return the confidence interval of the target's effect in ``x ~ stratum + target``.

    It is :func:`mean_interval` with the pooled variance of that model. A side's own variance is
    that within its strata, together; its number of cells is that to which the variance of its
    weighted mean corresponds.

    Parameters
    ----------
    fixed_effect : tuple of numpy.ndarray
        The effect, its standard error and its df (:func:`.two_sample.t_test.fixed_effect`).
    strata : sequence of Stratum
    n_cells, means : tuple of numpy.ndarray
        Numbers of cells and means of target and reference, over all strata.
    level : float

    Returns
    -------
    tuple of numpy.ndarray, shape (n_rows, n_genes), float64
        Lower and upper limit; NaN if a side has fewer than two cells, or if neither has variance.
    """
    effect, error, df = fixed_effect
    n_rows, n_genes = effect.shape
    weights = np.zeros((n_rows, 1))
    # Of target and reference: squared weights over cells, squared deviations and their df.
    shrink, freedom = np.zeros((2, n_rows, 1)), np.zeros((2, n_rows, 1))
    m2 = np.zeros((2, n_rows, n_genes))
    for stratum in strata:
        used, rows = stratum.rows >= 0, stratum.rows[stratum.rows >= 0]
        pair = stratum.sides.target, stratum.sides.reference
        w = (pair[0].n * pair[1].n / (pair[0].n + pair[1].n))[used]
        weights[rows] += w
        for k, sample in enumerate(pair):
            assert sample.m2 is not None
            cells = np.broadcast_to(sample.n, (len(used), 1))[used]
            shrink[k, rows] += w * w / cells
            freedom[k, rows] += cells - 1.0
            m2[k, rows] += np.broadcast_to(sample.m2, (len(used), n_genes))[used]
    with np.errstate(divide="ignore", invalid="ignore"):
        target, reference = (
            _Side(weights**2 / shrink[k], m2[k] / freedom[k], freedom[k], means[k])
            for k in range(2)
        )
        pooled = error**2 * weights
    negative = [s.sides.negative for s in strata if s.sides.negative is not None]
    return _mean_interval(
        effect,
        target,
        reference,
        n_cells,
        pooled,
        df,
        np.any(negative, axis=0) if negative else None,
        level,
    )


def _mean_interval(
    difference: np.ndarray,
    target: _Side,
    reference: _Side,
    n_cells: tuple[np.ndarray, np.ndarray],
    pooled: np.ndarray,
    df: np.ndarray,
    negative: np.ndarray | None,
    level: float,
) -> _Interval:
    """Return the interval, given the pooled variance, its df, and the number of cells."""
    shape = difference.shape
    sides = target, reference
    variance = _of_both([side.variance for side in sides], shape)
    n = _per_target([side.n for side in sides], shape)
    freedom = np.full(shape, np.nan)
    welch_df(variance, n, _per_target([side.df for side in sides], shape), freedom)
    score = _student_quantile(np.asarray(df, np.float64), level) ** 2
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    mean_limits(
        np.ascontiguousarray(difference),
        variance,
        _of_both([side.mean for side in sides], shape),
        np.ascontiguousarray(np.broadcast_to(pooled, shape)),
        _student_quantile(freedom, level),
        np.ascontiguousarray(np.broadcast_to(score, (shape[0], 1))[:, 0]),
        n,
        _per_target(n_cells, shape),
        _signed(negative, shape),
        low,
        high,
    )
    return low, high


def _of_both(values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Stack the values of both sides, shape (2, n_targets, n_genes), float64."""
    found = np.full((2, *shape), np.nan)
    found[0], found[1] = values
    return found


def _per_target(values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Stack what both sides have per target, shape (2, n_targets), float64."""
    return _of_both(values, (shape[0], 1))[:, :, 0].copy()


def _signed(negative: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape[1], bool) if negative is None else np.ascontiguousarray(negative)


def _student_quantile(df: np.ndarray, level: float) -> np.ndarray:
    """Return the upper end of the central interval of Student's t, from scipy or a fit to it.

    The fit is a polynomial in 1 / df. Its worst relative difference from `scipy.special.stdtrit` is
    6e-15, for levels up to 0.9999.
    """
    if level > _MOST_LEVEL:
        return np.asarray(special.stdtrit(df, 0.5 + 0.5 * level))
    found = np.full(df.shape, np.nan)
    flat = np.ascontiguousarray(df).reshape(-1)
    chebyshev(flat, _fitted_quantile(level), _FITTED_FROM, found.reshape(-1))
    small = ~(df >= _FITTED_FROM)
    found[small] = special.stdtrit(df[small], 0.5 + 0.5 * level)
    return found


@lru_cache(maxsize=64)
def _fitted_quantile(level: float) -> np.ndarray:
    """Return the coefficients of the fit, a Chebyshev series in 1 / df."""
    nodes = 0.5 * (1.0 - np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1)))
    nodes /= _FITTED_FROM
    values = special.stdtrit(1.0 / nodes, 0.5 + 0.5 * level)
    fit = np.polynomial.Chebyshev.fit(nodes, values, _DEGREE, domain=[0.0, 1.0 / _FITTED_FROM])
    return np.asarray(fit.coef)
