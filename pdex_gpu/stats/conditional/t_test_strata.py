"""Conditional p-values of the t-test over strata: cells are allocated within strata.

The effect of the target in a linear model with one effect per stratum is a multiple of the sum over
strata of ``S - E S``, see :mod:`.t_test`. The cumulants of independent sums add up, so one tail is
fitted to the first four. It is taken where :mod:`.t_test` would take it, by the variance of X, the
number of expressing cells in the targets of all strata; and so is the normal tail in the body.

Elsewhere the p-value is again a mean over X. The probability of X and the first four moments of the
sum, given X, are exact: those of strata are combined one by one, for all pairs of numbers of
expressing cells. Where there are more than a million of these pairs, the one tail remains; p is
then below ``10**-sqrt(variance of X)``, and the variance is large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...utils.jit import jit
from .hypergeometric import log_factorials, log_weight
from .t_test import (
    ALTERNATIVES,
    MANY,
    Side,
    arrays_of,
    both_tails,
    certain,
    ends_of,
    log_add,
    log_least,
    log_normal_p,
    numbers_of,
    of_expressed,
    pooled,
    seen_sum,
    shape_of_sum,
    surely_large,
    variance_of_x,
)

_BLOCK = 4096  # pairs whose strata are gathered at once
_MOST_STEPS = 1_000_000
_CONSTANT = 1e-12

# What is added up over strata: E S, S - E S, the second to fourth cumulant of S, rounding errors,
# the variance of x, the number of strata where sums are not whole, the number of cells, and the
# mean of the reference's sum.
_CENTRE, _SEEN, _K2, _K3, _K4, _SLACK, _OF_X, _BROKEN, _CELLS, _OTHERS = range(10)


def log_p_over_strata(
    strata: Sequence[tuple[Side, Side, np.ndarray]], n_rows: int, n_genes: int, alternative: str
) -> np.ndarray:
    """Return the natural logarithms of conditional p-values over strata.

    Parameters
    ----------
    strata : sequence of (Side, Side, numpy.ndarray)
        Target and reference as for :func:`.t_test.log_p_values`, and the row of each target, -1
        for none.
    n_rows, n_genes : int
    alternative : {"two-sided", "less", "greater"}

    Returns
    -------
    numpy.ndarray, shape (n_rows, n_genes), float64
        NaN where the sum cannot vary, or a sample has no mean.
    """
    found = np.full((n_rows, n_genes), np.nan)
    added = np.zeros((10, n_rows, n_genes))
    sides = [(arrays_of(target), arrays_of(other), rows) for target, other, rows in strata]
    most = 0
    for target, reference, rows in sides:
        _add(target, reference, rows, added)
        most = max(most, int(np.max(target[0], initial=0) + np.max(reference[0], initial=0)))
    which = ALTERNATIVES[alternative]
    unsure = np.zeros((n_rows, n_genes), bool)
    _of_cumulants(added, which, found, unsure)
    at, genes = np.nonzero(unsure)
    table = log_factorials(most)
    places = places_of([rows for *_, rows in sides], n_rows)
    for start in range(0, len(at), _BLOCK):
        block = slice(start, start + _BLOCK)
        numbers = np.full((len(at[block]), len(sides), 12), np.nan)
        for s, (target, reference, _) in enumerate(sides):
            gather(target, reference, places[s, at[block]], genes[block], numbers[:, s])
        some = added[:, at[block], genes[block]]
        log_p = found[at[block], genes[block]]
        _convolve(numbers, np.ascontiguousarray(some), which, table, log_p)
        found[at[block], genes[block]] = log_p
    return found


def places_of(rows: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
    """Return which target of each stratum a row has, -1 for none, shape (n_strata, n_rows)."""
    places = np.full((len(rows), n_rows), -1, np.int64)
    for place, its in zip(places, rows, strict=True):
        place[its[its >= 0]] = np.flatnonzero(its >= 0)
    return places


@jit
def _add(target, reference, rows, added):
    for t in range(rows.size):
        row = rows[t]
        if row < 0:
            continue
        for j in range(added.shape[2]):
            its, others = numbers_of(target, t, j), numbers_of(reference, t, j)
            n, m = its[0], others[0]
            size = n + m
            centre, seen, slack, whole = seen_sum(its, others)
            added[_CELLS, row, j] += size
            added[_CENTRE, row, j] += centre
            added[_OTHERS, row, j] += centre / n * m
            added[_SEEN, row, j] += seen
            added[_SLACK, row, j] += slack
            if not whole:
                added[_BROKEN, row, j] += 1.0
            _, second, third, fourth = pooled(its, others)
            if not second > 0.0:
                added[_K2, row, j] += second  # 0, or NaN
                continue
            added[_OF_X, row, j] += variance_of_x(its, others)
            variance = second / size
            skewness = third / size / (variance * math.sqrt(variance))
            kurtosis = fourth / size / (variance * variance)
            skewness, kurtosis = shape_of_sum(n, size, skewness, kurtosis)
            k2 = n * m / (size - 1.0) * variance
            added[_K2, row, j] += k2
            added[_K3, row, j] += skewness * k2 * math.sqrt(k2)
            added[_K4, row, j] += (kurtosis - 3.0) * k2 * k2


@jit
def _ends(added, alternative):
    whole = added[_BROKEN] == 0.0
    return ends_of(
        added[_CENTRE], added[_OTHERS], added[_SEEN], added[_SLACK], whole, alternative
    )  # fmt: skip


@jit
def _of_cumulants(added, alternative, found, unsure):
    for row in range(found.shape[0]):
        for j in range(found.shape[1]):
            its = added[:, row, j]
            k2 = its[_K2]
            if not k2 > 0.0:
                continue
            skewness = its[_K3] / (k2 * math.sqrt(k2))
            kurtosis = 3.0 + its[_K4] / (k2 * k2)
            if alternative == 0 and its[_CELLS] >= MANY:
                z = its[_SEEN] / math.sqrt(k2)
                if surely_large(z, kurtosis):
                    found[row, j] = log_normal_p(z)
                    continue
            above, below = _ends(its, alternative)
            log_p = min(both_tails(above, below, math.sqrt(k2), skewness, kurtosis), 0.0)
            found[row, j] = log_p
            unsure[row, j] = not certain(log_p, its[_OF_X])


@jit
def gather(target, reference, places, genes, numbers):
    """Write the numbers of the stratum of each pair; they stay NaN where it has none."""
    for i in range(places.size):
        if places[i] >= 0:
            its = numbers_of(target, places[i], genes[i])
            others = numbers_of(reference, places[i], genes[i])
            for k in range(6):
                numbers[i, k] = its[k]
                numbers[i, 6 + k] = others[k]


@jit
def _convolve(numbers, added, alternative, log_factorial, log_p):
    for i in range(log_p.size):
        n_steps, widest, least = 0, 1, 0.0
        for s in range(numbers.shape[1]):
            if not numbers[i, s, 0] >= 0.0:
                continue
            its, others = sides_of(numbers[i, s])
            low, high = _support(its, others)
            widest += high - low
            n_steps += (high - low + 1) * widest
            least += log_least(its, others, log_factorial)
        if n_steps <= _MOST_STEPS:
            sums = np.zeros((5, widest))
            sums[0, 0] = 1.0
            width = 1
            for s in range(numbers.shape[1]):
                if numbers[i, s, 0] >= 0.0:
                    its, others = sides_of(numbers[i, s])
                    width = _combine(its, others, log_factorial, sums, width)
            above, below = _ends(added[:, i], alternative)
            log_p[i] = _mean_of_tails(sums, above, below)
        log_p[i] = min(max(log_p[i], least), 0.0)


@jit
def sides_of(values):
    return (
        (values[0], values[1], values[2], values[3], values[4], values[5]),
        (values[6], values[7], values[8], values[9], values[10], values[11]),
    )


@jit
def _support(target, reference):
    """Return the smallest and the largest number of expressing cells in the target."""
    n, m = int(target[0]), int(reference[0])
    expressed = int(target[1] + reference[1])
    return max(0, expressed - m), min(n, expressed)


@jit
def _combine(target, reference, log_factorial, sums, width):
    """Add a stratum to probabilities of X and raw moments of the sum times these."""
    n, total = target[0], target[0] + reference[0]
    expressed = target[1] + reference[1]
    mean, second, third, fourth = pooled(target, reference)
    low, high = _support(target, reference)
    old = sums[:, :width].copy()
    new_width = width + high - low
    sums[:, :new_width] = 0.0
    mu, variance, skewness, kurtosis = 0.0, 0.0, 0.0, 3.0
    if expressed > 0.0:
        mu, variance, skewness, kurtosis = of_expressed(
            total, expressed, mean, second, third, fourth
        )
    for x in range(low, high + 1):
        weight = math.exp(log_weight(x, int(n), int(expressed), int(total), log_factorial))
        first = mu * (x - n / total * expressed)
        k2, c3, c4 = 0.0, 0.0, 0.0  # central moments
        if 0 < x < expressed:
            g, k = shape_of_sum(float(x), expressed, skewness, kurtosis)
            k2 = x * (expressed - x) / (expressed - 1.0) * variance
            c3, c4 = g * k2 * math.sqrt(k2), k * k2 * k2
        square = first * first
        r1, r2 = first, square + k2
        r3 = c3 + first * (3.0 * k2 + square)
        r4 = c4 + 4.0 * first * c3 + square * (6.0 * k2 + square)
        for i in range(width):
            w, a, b, c, d = old[0, i], old[1, i], old[2, i], old[3, i], old[4, i]
            to = i + x - low
            sums[0, to] += weight * w
            sums[1, to] += weight * (a + w * r1)
            sums[2, to] += weight * (b + 2.0 * a * r1 + w * r2)
            sums[3, to] += weight * (c + 3.0 * b * r1 + 3.0 * a * r2 + w * r3)
            sums[4, to] += weight * (d + 4.0 * c * r1 + 6.0 * b * r2 + 4.0 * a * r3 + w * r4)
    return new_width


@jit
def _mean_of_tails(sums, above, below):
    """Return the log of the mean over X of the probability of both tails."""
    log_p = -np.inf
    for i in range(sums.shape[1]):
        w = sums[0, i]
        if not w > 0.0:
            continue
        mean, r2, r3, r4 = sums[1, i] / w, sums[2, i] / w, sums[3, i] / w, sums[4, i] / w
        square = mean * mean
        variance = r2 - square
        if variance <= _CONSTANT * r2:
            term = 0.0 if mean >= above or mean <= below else -np.inf
        else:
            c3 = r3 - mean * (3.0 * r2 - 2.0 * square)
            c4 = r4 - 4.0 * mean * r3 + square * (6.0 * r2 - 3.0 * square)
            g, k = c3 / (variance * math.sqrt(variance)), c4 / (variance * variance)
            term = min(both_tails(above - mean, below - mean, math.sqrt(variance), g, k), 0.0)
        if term > -np.inf:
            log_p = log_add(log_p, math.log(w) + term)
    return log_p
