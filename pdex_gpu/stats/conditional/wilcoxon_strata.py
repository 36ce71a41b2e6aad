"""Conditional p-values of van Elteren's test: cells are allocated within strata.

With D = 2 U - n m of a stratum of N = n + m cells, see :mod:`.wilcoxon`, the statistic is

    S = sum over strata of D / (N + 1)

D is the sum of the scores 2 rank - N - 1 of n cells, drawn without replacement. A few values stand
for the scores of a stratum: those of the silent cells, of the lowest class of ties, and nodes of
Gauss and Legendre's rule for the cells above, whose variance is that given the ties.

* Smooth and not far in the tail: the cumulants of strata add up, and the tail is that of the beta
  distribution with these moments (:mod:`.beta_tails`).
* Smooth, far in the tail: draws without replacement are independent draws given their number. The
  tail is the saddlepoint approximation for conditional distributions (Skovgaard, J. Appl. Probab.
  24, 1987), with one parameter for S and one for the number of draws of each stratum.
* Few cells express, so that S lies in bands around the numbers of expressing target cells: p is
  the mean, over the number X of expressing cells and the number Y of those above the lowest class,
  in the targets of all strata, of the tail given X and Y. Probabilities and the first four moments
  of S given X and Y are combined stratum by stratum; numbers that the saddlepoint makes unlikely
  are left out.

p is at least the probability that just the expressing cells seen lie in the targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...utils.jit import jit
from .beta_tails import log_normal_tail, log_tail
from .hypergeometric import log_choose, log_factorials, log_weight
from .t_test import log_add, shape_of_sum
from .wilcoxon import BODY, describe_ties

#: Twice U, the sum of t^3 - t over all values, numbers of cells of target and reference, numbers of
#: expressing cells of both, and the row of each target, -1 for none.
StratumOfRanks = Sequence[np.ndarray]

_BLOCK = 4096  # pairs whose strata are gathered at once
_NODES = 12
#: S is smooth if its standard deviation given the numbers of expressing cells is this share of the
#: distance of bands: they then change the density by at most 4 %.
_OVERLAP = 0.45
#: Largest standard deviation of S for the beta distribution, as a multiple of the cube root of the
#: number of cells, and of the fourth root of the variance of X, which must be at least 4.
_OF_CELLS, _OF_X, _LEAST_OF_X = 1.3, 2.1, 4.0
#: Numbers of expressing cells further away, in standard deviations, are left out, and pairs of X,
#: Y with a smaller probability, as a share of the bound of the saddlepoint.
_REACH, _NEGLIGIBLE = 4.5, 1e-5
#: Variances of X and Y from which the moments of S given X do without Y.
_MANY, _COARSE = 10.0, 2.0
_MOST_CELLS, _MOST_STEPS = 8192, 400_000
#: Cells of the dense panel of nodes, as a multiple of those of the smaller side.
_END = 1.15
_ROUNDING = 1e-9
_CONSTANT = 1e-11
_LOG_2 = math.log(2.0)
_LOG_2PI = math.log(2.0 * math.pi)

# Five nodes and weights of Gauss and Legendre on (-1, 1).
_AT = (-0.906179845938664, -0.538469310105683, 0.0, 0.538469310105683, 0.906179845938664)
_WEIGHT = (
    0.236926885056189, 0.478628670499366, 0.568888888888889, 0.478628670499366, 0.236926885056189,
)  # fmt: skip

# What is kept of a stratum: cells of target and reference, expressing cells of both, the weight of
# D, cells above the lowest class (all expressing ones if there is none), the variance of their
# scores and of all expressing cells' as a share of that without ties, the number of nodes, that of
# the first expressing one, and of the first one above the lowest class.
_N, _M, _E, _W, _ABOVE, _SPREAD, _SPREAD_ALL, _SCORES, _FIRST, _SECOND = range(10)
# The saddlepoint of a stratum, a step of it, and what a step depends on.
_THETA, _STEP, _TRIED, _SLOPE, _MISSING = range(10, 15)
# Least and largest number of expressing cells in the target, and of those above the lowest class.
_X_LOW, _X_HIGH, _Y_LOW, _Y_HIGH = range(15, 19)
# Twice U, expressing target cells, and half the distance of values of the stratum's part of S.
_U2, _X, _HALF = range(19, 22)
_N_FIELDS = 22


@jit
def _represent(its, scores, counts, sign):
    """Write values of ``sign D`` that stand for the scores of a stratum, and their cells.

    Nodes are denser at the end that the cells of the smaller side come from.
    """
    n, m, e, above, spread = its[_N], its[_M], its[_E], its[_ABOVE], its[_SPREAD]
    silent = n + m - e
    k = 0
    if silent > 0.0:
        scores[0], counts[0] = -sign * e, silent
        k = 1
    its[_FIRST] = k
    if above < e:
        scores[k], counts[k] = sign * (silent - above), e - above
        k += 1
    its[_SECOND] = k
    centre = sign * (n + m - above)
    variance = (above * above - 1.0) * spread / 3.0
    if variance <= 0.0:
        scores[k], counts[k] = centre, above
        its[_SCORES] = k + 1
        return
    # Nodes u times (inner + outer u^16): the ties narrow the body, but not the ends.
    inner, outer = math.sqrt(spread), 0.0
    if 0.5 < spread < 1.0:
        a, b, c = 1.0 / 3.0 - 2.0 / 19.0 + 1.0 / 35.0, 1.0 / 19.0 - 1.0 / 35.0, 1.0 / 35.0
        inner = (-b + math.sqrt(b * b - a * (c - spread / 3.0))) / a
        outer = 1.0 - inner
    reach = math.sqrt(above * above - 1.0)
    if above <= 8.0:
        for i in range(int(above)):
            u = (2.0 * i + 1.0 - above) / reach
            scores[k], counts[k] = centre + reach * math.sqrt(spread) * u, 1.0
            k += 1
    else:
        dense = min(0.5, _END * min(n, m) / above)
        end = 1.0 if n <= m else -1.0
        for i in range(10):
            share = dense if i < 5 else 1.0 - dense
            u = (end if i < 5 else -end) * (1.0 - share) + share * _AT[i % 5]
            scores[k] = centre + reach * u * (inner + outer * u**16)
            counts[k] = 0.5 * _WEIGHT[i % 5] * share * above
            k += 1
    its[_SCORES] = k


@jit
def _moments(its, scores, counts, start):
    """Return mean, variance, skewness and kurtosis of the scores from node `start` on."""
    first, last = int(start), int(its[_SCORES])
    size, mean = 0.0, 0.0
    for i in range(first, last):
        size += counts[i]
        mean += counts[i] * scores[i]
    mean /= size
    m2, m3, m4 = 0.0, 0.0, 0.0
    for i in range(first, last):
        away = scores[i] - mean
        part = counts[i] * away * away
        m2 += part
        m3 += part * away
        m4 += part * away * away
    m2 /= size
    if not m2 > _CONSTANT:
        return mean, 0.0, 0.0, 3.0
    return mean, m2, m3 / size / (m2 * math.sqrt(m2)), m4 / size / (m2 * m2)


@jit
def _whole(strata, scores, counts, n_strata, sums):
    """Write the moments of S to the first cell of `sums`; return the largest deviation they serve.

    That is 0 where S is not smooth.
    """
    k2, k3, k4, of_x, inside, cells, silent = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(n_strata):
        its = strata[s]
        n, m, e, w = its[_N], its[_M], its[_E], its[_W]
        total = n + m
        _, variance, skewness, kurtosis = _moments(its, scores[s], counts[s], 0.0)
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
    e, w = its[_E], its[_W]
    return w * w * x * max(e - x, 0.0) * (e + 1.0) / 3.0 * its[_SPREAD_ALL]


@jit
def _solve(a, strata, scores, counts, n_strata, start, found):
    """Find the saddlepoint for S = a by Newton's method, from `start` on.

    With f = n / N, scores c and g cells of each, the sum over strata of ``sum of g log(1 - f + f
    exp(theta + t c)) - theta n``, less t a, is smallest there. Writes t, minus that smallest value,
    the curvature along t, and the logarithm of the product of curvatures along theta over those at
    0, to `found`. Returns whether there is one.
    """
    t, lowest, step, length = 0.0, 1e-9, start, 1.0
    for s in range(n_strata):
        strata[s, _THETA] = 0.0
        strata[s, _STEP] = 0.0
    for _ in range(60):
        at = t + length * step
        value, gap, curvature, ratio, missing = -at * a, a, 0.0, 0.0, 0.0
        for s in range(n_strata):
            its = strata[s]
            n, w = its[_N], its[_W]
            f = n / (n + its[_M])
            theta = its[_THETA] + length * its[_STEP]
            k0, k1, kt, k2, kt2, ktt = -theta * n, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(int(its[_SCORES])):
                c, g = w * scores[s, i], counts[s, i]
                u = theta + at * c
                rest = math.exp(-abs(u))
                if u > 0.0:
                    one = f + (1.0 - f) * rest
                    p = f / one
                    k0 += g * u
                else:
                    one = 1.0 - f + f * rest
                    p = f * rest / one
                k0 += g * math.log(one)
                v = g * p * (1.0 - p)
                k1 += g * p
                kt += g * p * c
                k2 += v
                kt2 += v * c
                ktt += v * c * c
            value += k0
            k2 = max(k2, 1e-250)
            slope = kt2 / k2
            its[_TRIED], its[_SLOPE], its[_MISSING] = theta, slope, (n - k1) / k2
            gap -= kt + slope * (n - k1)
            curvature += ktt - slope * kt2
            ratio += math.log(k2 / (n * (1.0 - f)))
            missing = max(missing, abs(n - k1) / n)
        if value > lowest + 1e-9 and length > 1e-4:
            length *= 0.5
            continue
        t, lowest, length = at, value, 1.0
        found[0], found[1], found[2], found[3] = t, -value, curvature, ratio
        if not curvature > 1e-200:
            return False
        step = gap / curvature
        for s in range(n_strata):
            strata[s, _THETA] = strata[s, _TRIED]
            strata[s, _STEP] = strata[s, _MISSING] - strata[s, _SLOPE] * step
        if gap * gap < 1e-7 * curvature and missing < 1e-4:
            return True
    return False


@jit
def _log_saddlepoint_tail(found, half):
    """Return the log of the tail from a saddlepoint, for values 2 `half` apart."""
    t, r = found[0], math.sqrt(2.0 * max(found[1], 0.0))
    if r < 1e-3:
        return -_LOG_2
    log_v = math.log(math.sinh(min(half * abs(t), 300.0)) / half)
    log_v += 0.5 * (math.log(found[2]) + found[3])
    away = r + (log_v - math.log(r)) / r
    return log_normal_tail(away if t > 0.0 else -away)


@jit
def _limit(strata, scores, counts, n_strata, t):
    """Write the numbers x and y of each stratum that matter, and return whether S is smooth."""
    inside, silent, all_x, all_y = 0.0, 0.0, 0.0, 0.0
    for s in range(n_strata):
        its = strata[s]
        f = its[_N] / (its[_N] + its[_M])
        x, of_x, none, y, of_y = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(int(its[_SCORES])):
            u = its[_THETA] + t * its[_W] * scores[s, i]
            odds = f / (1.0 - f) * math.exp(min(u, 500.0))
            p = odds / (1.0 + odds)
            v = counts[s, i] * p * (1.0 - p)
            if i < its[_FIRST]:
                none += v
            else:
                x += counts[s, i] * p
                of_x += v
            if i >= its[_SECOND]:
                y += counts[s, i] * p
                of_y += v
        inside += _inside(its, x)
        zeros = its[_N] + its[_M] - its[_E]
        silent += zeros
        low, high = max(0.0, its[_N] - zeros), min(its[_N], its[_E])
        of_x *= none / max(of_x + none, 1e-250)
        all_x += of_x
        reach = 1.0 + _REACH * math.sqrt(of_x)
        its[_X_LOW] = min(max(low, math.floor(x - reach)), high)
        its[_X_HIGH] = max(min(high, math.ceil(x + reach)), low)
        its[_Y_LOW], its[_Y_HIGH] = 0.0, 0.0
        if its[_SECOND] > its[_FIRST]:
            all_y += of_y
            reach = 1.0 + _REACH * math.sqrt(of_y)
            its[_Y_LOW] = max(0.0, math.floor(y - reach))
            its[_Y_HIGH] = min(high, its[_ABOVE], math.ceil(y + reach))
    if all_x > _MANY or all_y > _COARSE:
        for s in range(n_strata):
            strata[s, _Y_LOW], strata[s, _Y_HIGH] = 0.0, 0.0
            strata[s, _SECOND] = strata[s, _FIRST]
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
        n, e, w, above = its[_N], its[_E], its[_W], its[_ABOVE]
        total = n + its[_M]
        two = its[_SECOND] > its[_FIRST]
        size = above if two else e
        centre, variance, skewness, kurtosis = _moments(its, scores[s], counts[s], its[_SECOND])
        lowest = scores[s, int(its[_FIRST])]
        zero = scores[s, 0] if its[_FIRST] > 0.0 else 0.0
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
            term = log_tail(end, c3 / (variance * deviation), c4 / (variance * variance))
        if term > -np.inf:
            log_p = log_add(log_p, math.log(p) + term)
    return min(log_p, 0.0)


@jit
def _log_upper(a, half, sign, strata, scores, counts, n_strata, log_factorial, sums, old, found):
    """Return ``log P(sign S >= a)``."""
    for s in range(n_strata):
        _represent(strata[s], scores[s], counts[s], sign)
    n_cells = 1
    if a - half > _whole(strata, scores, counts, n_strata, sums):
        solved = _solve(a - half, strata, scores, counts, n_strata, a / sums[2, 0], found)
        smooth = _limit(strata, scores, counts, n_strata, found[0])
        n_cells = 0
        if not smooth:
            least = _NEGLIGIBLE * math.exp(-found[1])
            n_cells = _combine(strata, scores, counts, n_strata, least, log_factorial, sums, old)
        if n_cells == 0:
            return _log_saddlepoint_tail(found, half) if solved else -found[1] - _LOG_2PI
    return _mean_of_tails(sums, n_cells, a, half)


@jit
def _describe(numbers, strata, cells, shape):
    """Fill in the strata of a pair that have expressing cells, and return how many these are."""
    n_strata = 0
    for s in range(numbers.shape[0]):
        n, m = numbers[s, 0], numbers[s, 1]
        e = numbers[s, 4] + numbers[s, 5]
        if not (n > 0.0 and m > 0.0 and e > 0.0):
            continue
        silent = n + m - e
        others = numbers[s, 3] - (silent * silent * silent - silent)
        last = describe_ties(int(n + m), int(e), others, cells, shape)
        its = strata[n_strata]
        its[_N], its[_M], its[_E], its[_W] = n, m, e, 1.0 / (n + m + 1.0)
        its[_U2], its[_X] = numbers[s, 2], numbers[s, 4]
        its[_ABOVE], its[_SPREAD], its[_SPREAD_ALL] = cells[last], shape[0, last], shape[0, 1]
        its[_HALF] = its[_W] * (1.0 + (2.0 * shape[1, last] - 1.0) / n)
        n_strata += 1
    return n_strata


@jit
def _judge(numbers, alternative, log_factorial, log_p):
    """Write the log p-values of pairs x strata x (n, m, 2 U, ties, x, expressing others)."""
    n_all = numbers.shape[1]
    strata = np.zeros((n_all, _N_FIELDS))
    scores, counts = np.zeros((n_all, _NODES)), np.zeros((n_all, _NODES))
    cells, shape, found = np.zeros(3, np.int64), np.zeros((3, 3)), np.zeros(4)
    sums, old = np.zeros((5, _MOST_CELLS)), np.zeros((5, _MOST_CELLS))
    for i in range(log_p.size):
        n_strata = _describe(numbers[i], strata, cells, shape)
        seen, least, half, top, bottom = 0.0, 0.0, np.inf, 0.0, 0.0
        untied, equal = True, True
        for s in range(n_strata):
            its = strata[s]
            n, m, e, w = its[_N], its[_M], its[_E], its[_W]
            seen += w * (its[_U2] - n * m)
            top += w * m * min(n, e)
            bottom += w * n * min(m, e)
            half = min(half, its[_HALF])
            least += log_choose(int(n + m - e), int(n - its[_X]), log_factorial)
            least -= log_choose(int(n + m), int(n), log_factorial)
            untied = untied and n + m == e and its[_SPREAD] == 1.0
            equal = equal and w == strata[0, _W]
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
        numbers of target and reference cells, (T or 1, 1); numbers of expressing target and
        reference cells, (T, C) and (T or 1, C); the row of each target, -1 for none.
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
    largest = [int(s[2].max(initial=1) + s[3].max(initial=1)) for s in strata]
    table = log_factorials(max(largest, default=1))
    which = {"less": -1, "two-sided": 0, "greater": 1}[alternative]
    at, genes = np.nonzero((p_value < BODY) & judged)
    for start in range(0, len(at), _BLOCK):
        rows, columns = at[start : start + _BLOCK], genes[start : start + _BLOCK]
        numbers = np.full((len(rows), len(strata), 6), np.nan)
        for s, (u2, ties, n, m, of_target, of_reference, _) in enumerate(strata):
            t = places[s][rows]
            there = t >= 0
            t, j = t[there], columns[there]
            for k, array in enumerate((n, m, u2, ties, of_target, of_reference)):
                shared = np.minimum(t, len(array) - 1), np.minimum(j, array.shape[1] - 1)
                numbers[there, s, k] = array[shared]
        found = np.empty(len(rows))
        _judge(numbers, which, table, found)
        log_p[rows, columns] = found
        p_value[rows, columns] = np.exp(found)
    return log_p
