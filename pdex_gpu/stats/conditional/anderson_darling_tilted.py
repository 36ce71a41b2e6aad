"""Tails of A2 for few cells: exact exponential tilting, then Pearson III for what is left.

For few target cells A2 is far from a sum of chi-squares. But it is a sum over distinct values of
functions of the target cells at and above a value (see :mod:`.tie_pattern`). So for any theta, one
recursion over the values gives the moments of A2 under the tilted law, with density proportional to
``exp(theta A2)``, together with the number x of expressing target cells. The tilt is chosen such
that its mean is about the observed a. For each x, a Pearson III distribution with the three tilted
cumulants then replaces the tilted law:

    P(A2 >= a, x) = E[exp(theta A2); x] E*[exp(-theta A2); A2 >= a | x]

The second factor is an incomplete gamma function, because tilting leaves a gamma distribution in
the family. Without a tilt, this is Pearson III with the exact cumulants.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .anderson_darling_exact import terms
from .gamma_tails import erfcx, log_upper_gamma
from .hypergeometric import log_choose
from .just_below import just_below
from .pooled_cells import merge
from .tie_pattern import coarsen

_MOST_STEPS = 12
_MOST_TILT = 500.0  # of exp(theta times a term); more underflows
_MOMENTS = 4
_LEAST_VARIANCE = 1e-12  # relative to the square of the mean


@jit
def _recursion(theta, cells, n_values, weight, expected, n, log_factorial, moments, room):
    """Fill `moments` (n + 1, 4): tilted sums of A2**i by number of target cells; return log scale.

    Goes from the largest value down, without 0: the target cells above a value are known.
    """
    for i in range(_MOMENTS):
        moments[0, i] = 0.0
    moments[0, 0] = 1.0
    scale = 0.0
    most, used = 0, 0  # target cells so far, cells so far
    for k in range(n_values - 1, -1, -1):
        for s in range(min(n, used + cells[k]) + 1):
            for i in range(_MOMENTS):
                room[s, i] = 0.0
        largest = 0.0
        for s in range(most + 1):
            first, last = n - s - expected[k], n - s - 0.5 * min(cells[k], n - s) - expected[k]
            largest = max(largest, first * first, last * last)
        largest *= theta * weight[k]
        for s in range(most + 1):
            m0, m1, m2, m3 = moments[s, 0], moments[s, 1], moments[s, 2], moments[s, 3]
            if m0 == 0.0:
                continue
            for t in range(min(cells[k], n - s) + 1):
                deviation = n - s - 0.5 * t - expected[k]
                q = weight[k] * deviation * deviation
                c = math.exp(theta * q - largest + log_choose(cells[k], t, log_factorial))
                room[s + t, 0] += c * m0
                room[s + t, 1] += c * (m1 + q * m0)
                room[s + t, 2] += c * (m2 + q * (2.0 * m1 + q * m0))
                room[s + t, 3] += c * (m3 + q * (3.0 * m2 + q * (3.0 * m1 + q * m0)))
        used += cells[k]
        most = min(n, used)
        highest = 0.0
        for s in range(most + 1):
            highest = max(highest, room[s, 0])
        for s in range(most + 1):
            for i in range(_MOMENTS):
                moments[s, i] = room[s, i] / highest
        scale += math.log(highest) + largest
    return scale


@jit
def _log_part(a, theta, k1, k2, k3):
    """Return log E*[exp(-theta Q); Q >= a] for cumulants under the tilted law."""
    if k2 <= _LEAST_VARIANCE * k1 * k1:
        return -theta * k1 if a <= k1 * (1.0 + 1e-9) else -math.inf
    spread = math.sqrt(k2)
    if k3 > 1e-3 * k2 * spread:
        scale = 0.5 * k3 / k2
        shape = k2 / (scale * scale)
        start = k1 - shape * scale
        tail = log_upper_gamma(shape, (a - start) * (1.0 / scale + theta))
        return tail - theta * start - shape * math.log1p(theta * scale)
    y = (a - k1 + theta * k2) / (spread * math.sqrt(2.0))
    shift = -theta * k1 + 0.5 * theta * theta * k2
    if y > 0.0:
        return shift - y * y + math.log(0.5 * erfcx(y))
    return shift + math.log(0.5 * math.erfc(y))


@jit
def _log_tilted(a, cells, n_values, zeros, n, log_own, log_factorial):
    """Return log P(A2 >= a) for `n` target cells.

    Where A2 is replaced by a continuous variable, half of the probability of `a` itself is lost.
    The allocation seen makes up for it, as far as it goes.

    Parameters
    ----------
    cells : int64, at least (n_values,)
        Pooled cells at each distinct value other than 0, ascending.
    zeros : int
        Pooled cells with 0.
    n : int
        Cells of one of the samples. The cost is proportional to it, or to its square for values
        with many cells.
    log_own : float
        Log probability of the allocation seen; p is not less.
    """
    weight, expected = np.empty(n_values), np.empty(n_values)
    zero_weight = terms(cells, n_values, zeros, n, weight, expected)
    expressed, steepest = 0, 0.0
    for k in range(n_values):
        expressed += cells[k]
        steepest = max(steepest, weight[k] * max(expected[k], n - expected[k]) ** 2)
    total = expressed + zeros
    mean = np.float64(n) * expressed / total
    least, most = max(0, n - zeros), min(n, expressed)
    for x in range(least, most + 1):
        steepest = max(steepest, zero_weight * (x - mean) ** 2)
    limit = _MOST_TILT / steepest
    moments, room = np.empty((n + 1, _MOMENTS)), np.empty((n + 1, _MOMENTS))
    log_h = np.empty(n + 1)
    for x in range(least, most + 1):
        log_h[x] = log_choose(zeros, n - x, log_factorial) - log_choose(
            total, n, log_factorial
        )  # of the silent cells alone: `moments` count the choices of the expressing ones
    theta, low, high = min(0.4, 0.5 * limit), 0.0, limit
    scale = 0.0
    for _ in range(_MOST_STEPS):
        scale = _recursion(
            theta, cells, n_values, weight, expected, n, log_factorial, moments, room
        )
        highest = -math.inf
        for x in range(least, most + 1):
            if moments[x, 0] > 0.0:
                q = zero_weight * (x - mean) ** 2
                highest = max(highest, theta * q + log_h[x] + math.log(moments[x, 0]))
        s0, s1, s2 = 0.0, 0.0, 0.0
        for x in range(least, most + 1):
            if moments[x, 0] > 0.0:
                q = zero_weight * (x - mean) ** 2
                c = math.exp(theta * q + log_h[x] - highest)
                s0 += c * moments[x, 0]
                s1 += c * (moments[x, 1] + q * moments[x, 0])
                s2 += c * (moments[x, 2] + q * (2.0 * moments[x, 1] + q * moments[x, 0]))
        k1 = s1 / s0
        k2 = max(s2 / s0 - k1 * k1, 0.0)
        if abs(k1 - a) < 0.3 * math.sqrt(k2) or k2 <= 1e-9 * k1 * k1:
            break
        if k1 > a:
            high = theta
        else:
            low = theta
        tried = min(theta + (a - k1) / k2, 3.0 * theta)
        theta = tried if low < tried < high else 0.5 * (low + high)
    sum_of_parts, highest = 0.0, -math.inf
    continuous = True
    for x in range(least, most + 1):
        if moments[x, 0] <= 0.0:
            continue
        q = zero_weight * (x - mean) ** 2
        m1 = moments[x, 1] / moments[x, 0]
        m2 = moments[x, 2] / moments[x, 0]
        m3 = moments[x, 3] / moments[x, 0]
        k2 = m2 - m1 * m1
        k3 = m3 - 3.0 * m1 * m2 + 2.0 * m1 * m1 * m1
        part = scale + theta * q + log_h[x] + math.log(moments[x, 0])
        part += _log_part(a, theta, m1 + q, k2, k3)
        part = min(part, log_h[x] + log_choose(expressed, x, log_factorial))  # at most h(x)
        if part > highest:
            sum_of_parts = sum_of_parts * math.exp(highest - part) + 1.0
            highest = part
            continuous = k2 > _LEAST_VARIANCE * (m1 + q) ** 2
        elif part > -math.inf:
            sum_of_parts += math.exp(part - highest)
    if sum_of_parts == 0.0:
        return log_own
    log_p = highest + math.log(sum_of_parts)
    if continuous:
        log_p += math.log1p(0.5 * math.exp(min(log_own - log_p, 100.0)))
    return min(max(log_p, log_own), 0.0)


@jit
def judge_by_tilting(
    chosen, a2, distinct, counts, values, starts, stops, n_target, total, expressed, included,
    log_factorial, log_p, least,
):  # fmt: skip
    """Judge pairs by tilting; see :func:`.anderson_darling_exact.judge_by_allocations`.

    Parameters
    ----------
    least : float64, shape (n_pairs,)
        Log probability of the allocation seen.
    """
    most = 0
    for i in chosen:
        most = max(most, stops[i] - starts[i])
    most += distinct.size
    merged, own = np.empty(most, np.int64), np.empty(most, np.int64)
    cells, ties = np.empty(most), np.empty(most)
    for i in chosen:
        n_values = merge(distinct, counts, values, starts[i], stops[i], included, merged, own)
        for k in range(n_values):
            cells[k] = merged[k]
        n_values = coarsen(cells, ties, n_values)
        for k in range(n_values):
            merged[k] = np.int64(cells[k])
        zeros, n = total[i] - expressed[i], min(n_target[i], total[i] - n_target[i])
        log_p[i] = _log_tilted(
            just_below(a2[i]), merged, n_values, zeros, n, least[i], log_factorial
        )
