"""Conditional p-values of van Elteren's test: cells are allocated within strata.

With D = 2 U - n m of a stratum of N = n + m cells, see :mod:`.wilcoxon`, the statistic is

    S = sum over strata of D / (N + 1)

D is the sum of scores of n cells drawn without replacement, see :mod:`.drawn_scores`.

* Smooth, not far in the tail: cumulants of strata add up, and give a tail of :mod:`.beta_tails`.
* Smooth, far in the tail: the saddlepoint approximation of :mod:`.drawn_scores`.
* Few cells express, so that S lies in bands around the numbers of expressing target cells: p is
  the mean, over the number X of expressing cells and the number Y of those above the lowest class,
  in the targets of all strata, of the tail given X and Y. Probabilities and the first four moments
  of S given X and Y are combined stratum by stratum; numbers that the saddlepoint makes unlikely
  are left out.

* Small p-values where strata have few cells: the tail of :mod:`.drawn_sums` of the scores of
  :mod:`.score_classes`, which know four classes of ties above zero.

p is at least the probability that just the expressing cells seen lie in the targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...utils.jit import jit
from .beta_tails import log_tail as log_beta_tail
from .drawn_scores import (
    ABOVE,
    EXPRESSED,
    FIRST,
    N_FIELDS,
    NODES,
    OF_REFERENCE,
    OF_TARGET,
    SCORES,
    SECOND,
    SPREAD,
    SPREAD_OF_ALL,
    THETA,
    WEIGHT,
    log_saddlepoint_tail,
    moments_of_scores,
    represent,
    solve,
)  # fmt: skip
from .drawn_sums import log_tail, room
from .hypergeometric import log_choose, log_factorials, log_weight
from .score_classes import MOST_CLASSES, list_classes
from .t_test import log_add, shape_of_sum
from .wilcoxon import BODY, describe_ties

#: Twice U, the sum of t^3 - t over all values, numbers of cells of target and reference, numbers of
#: expressing cells of both, and the row of each target, -1 for none.
StratumOfRanks = Sequence[np.ndarray]

#: Logarithms of p-values below come from classes of ties, if strata have no more cells together.
_SMALL, _FEW = -3.0, 300.0
_LOWEST = 4  # classes of ties above zero that are known
_BLOCK = 4096  # pairs whose strata are gathered at once
#: S is smooth if its standard deviation given the numbers of expressing cells is this share of the
#: distance of bands: they then change the density by at most 4 %.
_OVERLAP = 0.45
#: The beta distribution reaches as many standard deviations, times the cube root of the number of
#: cells and the fourth root of the variance of X, which must be at least the third number.
_OF_CELLS, _OF_X, _LEAST_OF_X = 1.3, 2.1, 4.0
#: Numbers of expressing cells further away, in standard deviations, are left out, and pairs of X,
#: Y with a smaller probability, as a share of the bound of the saddlepoint.
_REACH, _NEGLIGIBLE = 4.5, 1e-5
#: Variances of X and Y from which the moments of S given X do without Y.
_MANY, _COARSE = 10.0, 2.0
_MOST_CELLS, _MOST_STEPS = 8192, 400_000
_ROUNDING, _CONSTANT = 1e-9, 1e-11
_LOG_2 = math.log(2.0)
_LOG_2PI = math.log(2.0 * math.pi)

# Least and largest number of expressing cells in the target, and of those above the lowest class.
_X_LOW, _X_HIGH, _Y_LOW, _Y_HIGH = range(N_FIELDS, N_FIELDS + 4)
# Twice U, expressing target cells, and half the distance of values of the stratum's part of S.
_U2, _X, _HALF = range(N_FIELDS + 4, N_FIELDS + 7)
_FIELDS = N_FIELDS + 7
_CLASSES = 6  # where the sizes of the lowest classes of ties start


@jit
def _whole(strata, scores, counts, n_strata, sums):
    """Write moments of S to the first cell of `sums`; return up to where they serve, perhaps 0."""
    k2, k3, k4, of_x, inside, cells, silent = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(n_strata):
        its = strata[s]
        n, m, e, w = its[OF_TARGET], its[OF_REFERENCE], its[EXPRESSED], its[WEIGHT]
        total = n + m
        _, variance, skewness, kurtosis = moments_of_scores(its, scores[s], counts[s], 0.0)
        if not variance > 0.0:
            continue
        g, k = shape_of_sum(n, total, skewness, kurtosis)
        part = w * w * n * m / (total - 1.0) * variance
        k2 += part
        k3 += g * part * math.sqrt(part)
        k4 += (k - 3.0) * part * part
        of_x += n * m / (total - 1.0) * (e / total) * (1.0 - e / total)
        inside += _inside(its, n * e / total)
        cells += min(n, m)
        silent += total - e
    sums[0, 0], sums[1, 0], sums[2, 0], sums[3, 0] = 1.0, 0.0, k2, k3
    sums[4, 0] = k4 + 3.0 * k2 * k2
    far = _OF_CELLS * cells ** (1.0 / 3.0)
    if silent > 0.0:
        if of_x < _LEAST_OF_X or inside < _OVERLAP * _OVERLAP:
            return 0.0
        far = min(far, _OF_X * of_x**0.25)
    return far * math.sqrt(k2)


@jit
def _inside(its, x):
    """Return the variance of a stratum's part of S, given x expressing cells in the target."""
    e, w = its[EXPRESSED], its[WEIGHT]
    return w * w * x * max(e - x, 0.0) * (e + 1.0) / 3.0 * its[SPREAD_OF_ALL]


@jit
def _limit(strata, scores, counts, n_strata, t):
    """Write the numbers x and y of each stratum that matter, and return whether S is smooth."""
    inside, silent, all_x, all_y = 0.0, 0.0, 0.0, 0.0
    for s in range(n_strata):
        its = strata[s]
        f = its[OF_TARGET] / (its[OF_TARGET] + its[OF_REFERENCE])
        x, of_x, none, y, of_y = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(int(its[SCORES])):
            u = its[THETA] + t * its[WEIGHT] * scores[s, i]
            odds = f / (1.0 - f) * math.exp(min(u, 500.0))
            p = odds / (1.0 + odds)
            v = counts[s, i] * p * (1.0 - p)
            if i < its[FIRST]:
                none += v
            else:
                x += counts[s, i] * p
                of_x += v
            if i >= its[SECOND]:
                y += counts[s, i] * p
                of_y += v
        inside += _inside(its, x)
        zeros = its[OF_TARGET] + its[OF_REFERENCE] - its[EXPRESSED]
        silent += zeros
        low, high = max(0.0, its[OF_TARGET] - zeros), min(its[OF_TARGET], its[EXPRESSED])
        of_x *= none / max(of_x + none, 1e-250)
        all_x += of_x
        reach = 1.0 + _REACH * math.sqrt(of_x)
        its[_X_LOW] = min(max(low, math.floor(x - reach)), high)
        its[_X_HIGH] = max(min(high, math.ceil(x + reach)), low)
        its[_Y_LOW], its[_Y_HIGH] = 0.0, 0.0
        if its[SECOND] > its[FIRST]:
            all_y += of_y
            reach = 1.0 + _REACH * math.sqrt(of_y)
            its[_Y_LOW] = max(0.0, math.floor(y - reach))
            its[_Y_HIGH] = min(high, its[ABOVE], math.ceil(y + reach))
    if all_x > _MANY or all_y > _COARSE:
        for s in range(n_strata):
            strata[s, _Y_LOW], strata[s, _Y_HIGH] = 0.0, 0.0
            strata[s, SECOND] = strata[s, FIRST]
    return silent == 0.0 or inside > _OVERLAP * _OVERLAP


@jit
def _combine(strata, scores, counts, n_strata, least, log_factorial, sums, old):
    """Write probabilities of X and Y and raw moments of S times these; return how many, or 0.

    Rows of `sums` are the probabilities and the moments; 0 where there are too many numbers.
    Probabilities below `least` are left out.
    """
    wide, deep, n_steps = 1, 1, 0
    for s in range(n_strata):
        its = strata[s]
        more_x, more_y = int(its[_X_HIGH] - its[_X_LOW]), int(its[_Y_HIGH] - its[_Y_LOW])
        n_steps += (more_x + 1) * (more_y + 1) * wide * deep
        wide += more_x
        deep += more_y
    if wide * deep > _MOST_CELLS or n_steps > _MOST_STEPS:
        return 0
    for k in range(5):
        for i in range(wide * deep):
            sums[k, i] = 0.0
    sums[0, 0] = 1.0
    width = 1
    for s in range(n_strata):
        its = strata[s]
        for k in range(5):
            for i in range(width * deep):
                old[k, i] = sums[k, i]
                sums[k, i] = 0.0
        n, e, w, above = its[OF_TARGET], its[EXPRESSED], its[WEIGHT], its[ABOVE]
        total = n + its[OF_REFERENCE]
        two = its[SECOND] > its[FIRST]
        size = above if two else e
        centre, variance, skewness, kurtosis = moments_of_scores(
            its, scores[s], counts[s], its[SECOND]
        )
        lowest = scores[s, int(its[FIRST])]
        zero = scores[s, 0] if its[FIRST] > 0.0 else 0.0
        for x in range(int(its[_X_LOW]), int(its[_X_HIGH]) + 1):
            log_h = log_weight(x, int(n), int(e), int(total), log_factorial)
            fewest, most = 0, 0
            if two:
                fewest = max(int(its[_Y_LOW]), x - int(e - above))
                most = min(int(its[_Y_HIGH]), x)
            for y in range(fewest, most + 1):
                h, z = log_h, x
                first = (n - x) * zero
                if two:
                    h += log_weight(y, x, int(above), int(e), log_factorial)
                    z = y
                    first += (x - y) * lowest
                first = w * (first + z * centre)
                h = math.exp(h)
                if h < least:
                    continue
                k2, c3, c4 = 0.0, 0.0, 0.0
                if 0 < z < size and variance > 0.0:
                    k2 = w * w * z * (size - z) / (size - 1.0) * variance
                    g, k = shape_of_sum(float(z), size, skewness, kurtosis)
                    c3, c4 = g * k2 * math.sqrt(k2), k * k2 * k2
                r2 = first * first + k2
                r3 = c3 + first * (3.0 * k2 + first * first)
                r4 = c4 + first * (4.0 * c3 + first * (6.0 * k2 + first * first))
                move = (x - int(its[_X_LOW])) * deep + (y - int(its[_Y_LOW]) if two else 0)
                for i in range(width * deep):
                    b0 = old[0, i]
                    if b0 * h > least:
                        b1, b2, b3 = old[1, i], old[2, i], old[3, i]
                        sums[0, i + move] += h * b0
                        sums[1, i + move] += h * (b1 + b0 * first)
                        sums[2, i + move] += h * (b2 + 2.0 * b1 * first + b0 * r2)
                        sums[3, i + move] += h * (b3 + 3.0 * (b2 * first + b1 * r2) + b0 * r3)
                        sums[4, i + move] += h * (
                            old[4, i] + 4.0 * (b3 * first + b1 * r3) + 6.0 * b2 * r2 + b0 * r4
                        )
        width += int(its[_X_HIGH] - its[_X_LOW])
    return wide * deep


@jit
def _mean_of_tails(sums, n_cells, a, half):
    """Return the log of the mean of P(S >= a) over the cells of `sums`."""
    log_p = -np.inf
    for i in range(n_cells):
        p = sums[0, i]
        if not p > 0.0:
            continue
        mean, r2 = sums[1, i] / p, sums[2, i] / p
        square = mean * mean
        variance = r2 - square
        term = -np.inf
        if variance <= _CONSTANT * (1.0 + r2):
            if mean >= a - _ROUNDING * (1.0 + abs(a)):
                term = 0.0
        else:
            r3, r4 = sums[3, i] / p, sums[4, i] / p
            deviation = math.sqrt(variance)
            c3 = r3 - mean * (3.0 * r2 - 2.0 * square)
            c4 = r4 - 4.0 * mean * r3 + square * (6.0 * r2 - 3.0 * square)
            end = (a - min(half, deviation) - mean) / deviation
            term = log_beta_tail(end, c3 / (variance * deviation), c4 / (variance * variance))
        if term > -np.inf:
            log_p = log_add(log_p, math.log(p) + term)
    return min(log_p, 0.0)


@jit
def _log_upper(a, half, sign, strata, scores, counts, n_strata, log_factorial, sums, old, found):
    """Return ``log P(sign S >= a)``."""
    for s in range(n_strata):
        represent(strata[s], scores[s], counts[s], sign)
    n_cells = 1
    if a - half > _whole(strata, scores, counts, n_strata, sums):
        solved = solve(a - half, strata, scores, counts, n_strata, a / sums[2, 0], found)
        smooth = _limit(strata, scores, counts, n_strata, found[0])
        n_cells = 0
        if not smooth:
            least = _NEGLIGIBLE * math.exp(-found[1])
            n_cells = _combine(strata, scores, counts, n_strata, least, log_factorial, sums, old)
        if n_cells == 0:
            return log_saddlepoint_tail(found, half) if solved else -found[1] - _LOG_2PI
    return _mean_of_tails(sums, n_cells, a, half)


@jit
def _describe(numbers, strata, lowest, cells, shape):
    """Fill in the strata of a pair that have expressing cells, and return how many these are."""
    n_strata = 0
    for s in range(numbers.shape[0]):
        n, m = numbers[s, 0], numbers[s, 1]
        e = numbers[s, 4] + numbers[s, 5]
        if not (n > 0.0 and m > 0.0 and e > 0.0):
            continue
        silent = n + m - e
        others = numbers[s, 3] - (silent * silent * silent - silent)
        lowest[0] = int(numbers[s, _CLASSES])
        last = describe_ties(int(n + m), int(e), others, lowest, lowest.size + 1, cells, shape)
        its = strata[n_strata]
        its[OF_TARGET], its[OF_REFERENCE], its[EXPRESSED] = n, m, e
        its[WEIGHT] = 1.0 / (n + m + 1.0)
        its[_U2], its[_X] = numbers[s, 2], numbers[s, 4]
        its[ABOVE], its[SPREAD], its[SPREAD_OF_ALL] = cells[last], shape[0, last], shape[0, 1]
        its[_HALF] = its[WEIGHT] * (1.0 + (2.0 * shape[1, last] - 1.0) / n)
        n_strata += 1
    return n_strata


@jit
def _list_strata(numbers, classes, begins, ends):
    """List the scores of all strata, and their cells, to the rows of `classes`."""
    at = 0
    for s in range(numbers.shape[0]):
        n, m = numbers[s, 0], numbers[s, 1]
        e = numbers[s, 4] + numbers[s, 5]
        begins[s] = ends[s] = at
        if n > 0.0 and m > 0.0 and e > 0.0:
            at += list_classes(
                n + m, e, numbers[s, 3], numbers[s, _CLASSES:], classes[0, at:], classes[1, at:]
            )
            ends[s] = at


@jit
def _judge(numbers, alternative, log_factorial, log_asymptotic, log_p):
    """Write the log p-values of pairs x strata, of which the asymptotic ones are known.

    Numbers of a stratum: n, m, 2 U, ties, x, expressing others, cells at the lowest values.
    """
    n_all = numbers.shape[1]
    strata = np.zeros((n_all, _FIELDS))
    scores, counts = np.zeros((n_all, NODES)), np.zeros((n_all, NODES))
    cells, shape, found = np.zeros(3, np.int64), np.zeros((3, 3)), np.zeros(4)
    lowest = np.zeros(1, np.int32)
    sums, old = np.zeros((5, _MOST_CELLS)), np.zeros((5, _MOST_CELLS))
    classes, work = np.empty((2, n_all * MOST_CLASSES)), room(n_all)
    begins, ends = np.zeros((2, n_all), np.int64)
    drawn = np.zeros(n_all)
    for i in range(log_p.size):
        n_strata = _describe(numbers[i], strata, lowest, cells, shape)
        seen, least, half, top, bottom = 0.0, 0.0, np.inf, 0.0, 0.0
        untied, equal, few, listed = True, True, 0.0, False
        for s in range(n_strata):
            its = strata[s]
            n, m, e, w = its[OF_TARGET], its[OF_REFERENCE], its[EXPRESSED], its[WEIGHT]
            seen += w * (its[_U2] - n * m)
            top += w * m * min(n, e)
            bottom += w * n * min(m, e)
            half = min(half, its[_HALF])
            few += n + m
            least += log_choose(int(n + m - e), int(n - its[_X]), log_factorial)
            least -= log_choose(int(n + m), int(n), log_factorial)
            untied = untied and n + m == e and its[SPREAD] == 1.0
            equal = equal and w == strata[0, WEIGHT]
        if n_strata == 0 or (alternative == 0 and seen == 0.0):
            log_p[i] = 0.0
            continue
        if untied and alternative == 0:  # the mirror image is as far away
            least += _LOG_2
        log_p[i] = -np.inf
        for sign in (1.0, -1.0):
            a = abs(seen) if alternative == 0 else sign * seen
            end = top if sign > 0.0 else bottom
            if alternative * sign < 0.0 or a > end * (1.0 + _ROUNDING):
                continue
            # Sums of multiples of 1 / (N + 1) are denser if N differs, except near the end.
            step = half
            if not equal:
                step *= (1.0 + (n_strata - 1.0) * max(a / end, 0.0) ** 8) / n_strata
            one = _log_upper(
                a, step, sign, strata, scores, counts, n_strata, log_factorial, sums, old, found
            )
            if few <= _FEW and min(one, log_asymptotic[i]) < _SMALL:
                if not listed:
                    _list_strata(numbers[i], classes, begins, ends)
                    listed = True
                middle = 0.0
                for s in range(n_all):
                    n, m = numbers[i, s, 0], numbers[i, s, 1]
                    drawn[s] = n if sign > 0.0 else m
                    if ends[s] > begins[s]:
                        middle += drawn[s]
                one, _ = log_tail(
                    classes[0], classes[1], begins, ends, drawn, middle + a * (1.0 - _ROUNDING),
                    step, step * step if equal else 0.0, log_factorial, work,
                )  # fmt: skip
            log_p[i] = log_add(log_p[i], one)
        log_p[i] = min(max(log_p[i], least), 0.0)


def judge_strata(
    p_value: np.ndarray, strata: Sequence[StratumOfRanks], judged: np.ndarray, alternative: str
) -> np.ndarray:
    """Replace asymptotic p-values below :data:`.wilcoxon.BODY` by conditional ones, in place.

    Parameters
    ----------
    p_value : numpy.ndarray, shape (n_rows, n_genes), float64
        Asymptotic p-values of the same alternative.
    strata : sequence of tuple of numpy.ndarray
        Of each stratum with T targets: twice U and the sum of t^3 - t over all values, (T, C);
        numbers of cells at the lowest values above zero, (T, C, 1 or more); numbers of target and
        reference cells, (T or 1, 1); numbers of expressing target and reference cells, (T, C) and
        (T or 1, C); the row of each target, -1 for none.
    judged : numpy.ndarray, shape (n_genes,), bool
        Other p-values stay.
    alternative : {"two-sided", "less", "greater"}

    Returns
    -------
    numpy.ndarray, shape (n_rows, n_genes), float64
        Natural logarithms of the p-values that were replaced; NaN elsewhere.
    """
    log_p = np.full(p_value.shape, np.nan)
    places = []
    for stratum in strata:
        place = np.full(len(p_value), -1, np.int64)
        place[stratum[-1][stratum[-1] >= 0]] = np.flatnonzero(stratum[-1] >= 0)
        places.append(place)
    largest = [int(s[3].max(initial=1) + s[4].max(initial=1)) for s in strata]
    table = log_factorials(max(largest, default=1))
    which = {"less": -1, "two-sided": 0, "greater": 1}[alternative]
    at, genes = np.nonzero((p_value < BODY) & judged)
    for start in range(0, len(at), _BLOCK):
        rows, columns = at[start : start + _BLOCK], genes[start : start + _BLOCK]
        numbers = np.full((len(rows), len(strata), _CLASSES + _LOWEST), np.nan)
        for s, (u2, ties, lowest, n, m, of_target, of_reference, _) in enumerate(strata):
            t = places[s][rows]
            there = t >= 0
            t, j = t[there], columns[there]
            numbers[there, s, _CLASSES:] = 0.0
            known = [lowest[..., k] for k in range(min(_LOWEST, lowest.shape[-1]))]
            for k, array in enumerate((n, m, u2, ties, of_target, of_reference, *known)):
                shared = np.minimum(t, len(array) - 1), np.minimum(j, array.shape[1] - 1)
                numbers[there, s, k] = array[shared]
        found = np.empty(len(rows))
        with np.errstate(divide="ignore"):
            log_asymptotic = np.log(p_value[rows, columns])
        _judge(numbers, which, table, log_asymptotic, found)
        log_p[rows, columns] = found
        p_value[rows, columns] = np.exp(found)
    return log_p
