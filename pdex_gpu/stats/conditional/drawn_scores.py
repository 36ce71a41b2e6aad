"""Sums of scores drawn without replacement within strata, and their saddlepoint.

A stratum has N cells with scores c, of which the target's n cells are drawn. Draws without
replacement are independent draws, given their number. The tail of the weighted sum over strata is
the saddlepoint approximation for conditional distributions (Skovgaard, J. Appl. Probab. 24, 1987),
with one parameter for the sum and one for the number of draws of each stratum.

The scores are those of ranks, 2 rank - N - 1. A few values stand for them: those of the silent
cells, of the lowest class of ties, and nodes of Gauss and Legendre's rule for the cells above,
whose variance is that given the ties.
"""

from __future__ import annotations

import math

from ...utils.jit import jit
from .beta_tails import log_normal_tail

#: Largest number of values that stand for the scores of a stratum.
NODES = 12

#: Cells of the dense panel of nodes, as a multiple of those of the smaller side.
_END = 1.15
_CONSTANT = 1e-11
_LOG_2 = math.log(2.0)

# Five nodes and weights of Gauss and Legendre on (-1, 1).
_AT = (-0.906179845938664, -0.538469310105683, 0.0, 0.538469310105683, 0.906179845938664)
_GAUSS = (
    0.236926885056189, 0.478628670499366, 0.568888888888889, 0.478628670499366, 0.236926885056189,
)  # fmt: skip

# What is kept of a stratum: cells of target and reference, expressing cells of both, the weight of
# D, cells above the lowest class (all expressing ones if there is none), the variance of their
# scores and of all expressing cells' as a share of that without ties, the number of nodes, that of
# the first expressing one, and of the first one above the lowest class.
OF_TARGET, OF_REFERENCE, EXPRESSED, WEIGHT, ABOVE, SPREAD, SPREAD_OF_ALL = range(7)
SCORES, FIRST, SECOND = range(7, 10)
# The saddlepoint of a stratum, a step of it, and what a step depends on.
THETA, _STEP, _TRIED, _SLOPE, _MISSING = range(10, 15)
N_FIELDS = 15


@jit
def represent(its, scores, counts, sign):
    """Write values of ``sign D`` that stand for the scores of a stratum, and their cells.

    Nodes are denser at the end that the cells of the smaller side come from.
    """
    n, m, e = its[OF_TARGET], its[OF_REFERENCE], its[EXPRESSED]
    above, spread = its[ABOVE], its[SPREAD]
    silent = n + m - e
    k = 0
    if silent > 0.0:
        scores[0], counts[0] = -sign * e, silent
        k = 1
    its[FIRST] = k
    if above < e:
        scores[k], counts[k] = sign * (silent - above), e - above
        k += 1
    its[SECOND] = k
    centre = sign * (n + m - above)
    variance = (above * above - 1.0) * spread / 3.0
    if variance <= 0.0:
        scores[k], counts[k] = centre, above
        its[SCORES] = k + 1
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
            counts[k] = 0.5 * _GAUSS[i % 5] * share * above
            k += 1
    its[SCORES] = k


@jit
def moments_of_scores(its, scores, counts, start):
    """Return mean, variance, skewness and kurtosis of the scores from node `start` on."""
    first, last = int(start), int(its[SCORES])
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
def solve(a, strata, scores, counts, n_strata, start, found):
    """Find the saddlepoint for S = a by Newton's method, from `start` on.

    With f = n / N, scores c and g cells of each, the sum over strata of ``sum of g log(1 - f + f
    exp(theta + t c)) - theta n``, less t a, is smallest there. Writes t, minus that smallest value,
    the curvature along t, and the logarithm of the product of curvatures along theta over those at
    0, to `found`. Returns whether there is one.
    """
    t, lowest, step, length = 0.0, 1e-9, start, 1.0
    for s in range(n_strata):
        strata[s, THETA] = 0.0
        strata[s, _STEP] = 0.0
    for _ in range(60):
        at = t + length * step
        value, gap, curvature, ratio, missing = -at * a, a, 0.0, 0.0, 0.0
        for s in range(n_strata):
            its = strata[s]
            n, w = its[OF_TARGET], its[WEIGHT]
            f = n / (n + its[OF_REFERENCE])
            theta = its[THETA] + length * its[_STEP]
            k0, k1, kt, k2, kt2, ktt = -theta * n, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(int(its[SCORES])):
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
            strata[s, THETA] = strata[s, _TRIED]
            strata[s, _STEP] = strata[s, _MISSING] - strata[s, _SLOPE] * step
        if gap * gap < 1e-7 * curvature and missing < 1e-4:
            return True
    return False


@jit
def log_saddlepoint_tail(found, half):
    """Return the log of the tail from a saddlepoint, for values 2 `half` apart."""
    t, r = found[0], math.sqrt(2.0 * max(found[1], 0.0))
    if r < 1e-3:
        return -_LOG_2
    log_v = math.log(math.sinh(min(half * abs(t), 300.0)) / half)
    log_v += 0.5 * (math.log(found[2]) + found[3])
    away = r + (log_v - math.log(r)) / r
    return log_normal_tail(away if t > 0.0 else -away)
