"""Confidence intervals cell by cell, as :mod:`pdex_gpu.stats.intervals` describes them."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def auroc_interval(
    x: np.ndarray, y: np.ndarray, level: float, signed: bool = False
) -> tuple[float, float]:
    """Interval of the AUROC of one gene, x of the target and y of the reference.

    `signed` says whether other cells of the gene have negative values.
    """
    if len(x) < 2 or len(y) < 2:
        return math.nan, math.nan
    over = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    pool = np.concatenate([x, y])
    z, size = stats.norm.ppf(0.5 + level / 2), len(pool)
    ranks = stats.rankdata(pool) / size
    # The variance of a rank among all cells, as the Wilcoxon test has it.
    null = max(ranks.var(ddof=1), 1 / (4 * size))
    lowest = not signed and pool.min() >= 0
    zeros = [float(np.mean(side == 0)) if lowest else 0.0 for side in (x, y)]
    factor = 4 * null / (max(np.count_nonzero(pool), 1) / size if lowest else 1.0)
    reaches = []
    for placed, least in ((over.mean(1), zeros[1] / 2), (1 - over.mean(0), zeros[0] / 2)):
        mean = placed.mean()
        classic = z * placed.std(ddof=1) / math.sqrt(len(placed))
        low, high = _score_limits(mean, least, 1.0, z * z * factor / len(placed))
        reaches.append((max(classic, mean - low), max(classic, high - mean)))
    low, high = _square_and_add(over.mean(), *reaches)
    return max(0.0, low), min(1.0, high)


def mean_interval(
    x: np.ndarray, y: np.ndarray, level: float, signed: bool = False
) -> tuple[float, float]:
    """Interval of the difference of means of one gene."""
    return mean_interval_over_strata([(x, y)], level, signed)


def mean_interval_over_strata(
    strata: list[tuple[np.ndarray, np.ndarray]], level: float, signed: bool = False
) -> tuple[float, float]:
    """Interval of the effect in ``x ~ stratum + target``; every stratum has both sides."""
    sides = [np.concatenate(parts) for parts in zip(*strata, strict=True)]
    pool = np.concatenate(sides)
    weights = np.array([len(x) * len(y) / (len(x) + len(y)) for x, y in strata])
    apart = np.array([x.mean() - y.mean() for x, y in strata])
    effect = np.clip(weights @ apart / weights.sum(), apart.min(), apart.max())
    df = len(pool) - len(strata) - 1
    inside = sum(_squares(part) for parts in strata for part in parts)
    pooled = (inside + weights @ (apart - effect) ** 2) / max(df, 1)
    if min(map(len, sides)) < 2 or pooled == 0:
        return math.nan, math.nan
    # Of each side: the variance of its weighted mean by its own cells, and in units of a cell's.
    shares = weights / weights.sum()
    own, per_cell, freedom = [], [], []
    for parts in zip(*strata, strict=True):
        per_cell.append(sum(c * c / len(part) for c, part in zip(shares, parts, strict=True)))
        freedom.append(sum(len(part) - 1 for part in parts))
        squares = sum(map(_squares, parts))
        own.append(per_cell[-1] * squares / freedom[-1] if freedom[-1] else math.nan)
    welch = sum(own) ** 2 / sum(v * v / k for v, k in zip(own, freedom, strict=True) if v or k)
    t = stats.t.ppf(0.5 + level / 2, welch)
    score = stats.t.ppf(0.5 + level / 2, df) ** 2
    reaches = []
    for side, variance, share in zip(sides, own, per_cell, strict=True):
        classic, mean = t * math.sqrt(variance), side.mean()
        if not signed and pool.min() >= 0:
            low, high = _poisson_limits(mean, score * pooled / pool.mean() * share)
            reaches.append((np.fmax(classic, mean - low), np.fmax(classic, high - mean)))
        else:
            reaches.append((np.fmax(classic, math.sqrt(score * pooled * share)),) * 2)
    return _square_and_add(effect, *reaches)


def _squares(values: np.ndarray) -> float:
    return float(((values - values.mean()) ** 2).sum())


def _square_and_add(middle, target, reference):
    return (
        middle - math.sqrt(target[0] ** 2 + reference[1] ** 2),
        middle + math.sqrt(target[1] ** 2 + reference[0] ** 2),
    )


def _score_limits(mean: float, low: float, high: float, c: float) -> tuple[float, float]:
    """Both a with ``(mean - a)^2 = c (a - low) (high - a)``, where the variance reaches mean."""
    roots = np.roots([1 + c, -2 * mean - c * (low + high), mean**2 + c * low * high])
    return float(min(roots.real)), float(max(roots.real))


def _poisson_limits(mean: float, c: float) -> tuple[float, float]:
    """Both a with ``(mean - a)^2 = c a``."""
    top = float(max(np.roots([1.0, -2 * mean - c, mean**2]).real))
    return mean * mean / top, top
