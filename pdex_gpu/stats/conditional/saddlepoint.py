"""The tail of a sum of values drawn without replacement, by a saddlepoint approximation.

Let l_k of N cells have the value v_k, and let each be chosen with probability p_k,
``log(p_k / (1 - p_k)) = a + b v_k``, independently. Given that n are chosen, the sum S of their
values has the permutation distribution if b = 0. With a and b such that n cells and a sum of s are
expected, and ::

    w**2 / 2 = a n + b s - sum of l_k log(1 + exp(a + b v_k)) - log(N**N / (n**n (N - n)**(N - n)))
    u = b sqrt(D N / (n (N - n)))

D being the determinant of the covariance of number and sum, ``P(S >= s)`` is the tail of the normal
distribution at ``w + log(u / w) / w`` (Robinson, Ann. Probab. 10, 1982; Skovgaard, J. Appl. Probab.
24, 1987; Booth and Butler, Biometrika 77, 1990). If sums are multiples of 2 h, s is moved by h,
and ``sinh(h b) / h`` takes the place of b in u.

Where cells are drawn within strata, b is common to them and each has an a of its own. With s0, s1
and s2 the variance of number, covariance and variance of the sum of a stratum, D is the product of
all s0 times the sum of ``s2 - s1**2 / s0``.

Far from the mean, ``s0`` is at least ``1 / (2 pi)`` here, and b times the standard deviation of S
at least its root, so that P is at most Chernoff's bound.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .beta_tails import log_normal_tail

_MOST_STEPS = 60
_LARGEST_STEP = 3.0  # of a + b v
_DONE = 1e-8  # decrement of Newton's method
_NEAR = 0.02  # deviates below this are those of the normal distribution
_LEAST = 0.5 / math.pi
_AT_END = 1e-9  # relative: sums this near the largest one are the largest one
_S0, _SLOPE, _MISSING = range(3)


@jit
def log_tail_of_sum(values, weights, firsts, lasts, chosen, end, half, start):
    """Return ``log P(S >= end)`` of the sum of cells that are drawn within strata.

    Parameters
    ----------
    values, weights : numpy.ndarray, float64
        Distinct values of each stratum, ascending, and the number of cells at each.
    firsts, lasts : numpy.ndarray, shape (n_strata,), int64
        Those of stratum s are ``values[firsts[s]:lasts[s]]``; strata without any do not count.
    chosen : numpy.ndarray, shape (n_strata,), float64
        Cells drawn, at least one and not all.
    end, half : float64
        The sum to be reached; and half the distance of possible sums, where these are multiples of
        a number and `end` lies half way between two, or 0 where sums are continuous.
    start : numpy.ndarray, shape (n_strata + 1,), float64
        a of each stratum, for values less their mean, and b, to start from; those found take their
        place.

    Returns
    -------
    float64
        -infinity if `end` is the largest sum or beyond, 0 if it is the smallest or below.
    """
    n_strata = chosen.size
    work, cells, means = np.empty((3, n_strata)), np.empty(n_strata), np.empty(n_strata)
    largest, smallest, away = 0.0, 0.0, end
    for s in range(n_strata):
        its = slice(firsts[s], lasts[s])
        if firsts[s] == lasts[s]:
            continue
        total, mean = 0.0, 0.0
        for k in range(firsts[s], lasts[s]):
            total += weights[k]
            mean += weights[k] * values[k]
        cells[s], means[s] = total, mean / total
        away -= chosen[s] * means[s]
        high, low = _extreme(values[its], weights[its], chosen[s])
        largest += high
        smallest += low
    if end <= smallest:
        return 0.0
    if end >= largest - _AT_END * abs(largest):
        return -np.inf
    curvature = 0.0
    for _ in range(_MOST_STEPS):
        b = start[n_strata]
        added, curvature = -away, 0.0
        for s in range(n_strata):
            if firsts[s] == lasts[s]:
                continue
            a, mean = start[s], means[s]
            number, s0, s1, s2 = -chosen[s], 0.0, 0.0, 0.0
            sum_of_moved = 0.0
            for k in range(firsts[s], lasts[s]):
                moved = values[k] - mean
                p = 1.0 / (1.0 + math.exp(-a - b * moved))
                w = weights[k] * p
                number += w
                sum_of_moved += w * moved
                w *= 1.0 - p
                s0 += w
                w *= moved
                s1 += w
                s2 += w * moved
            s0 = max(s0, 1e-250)
            slope = s1 / s0
            work[_S0, s], work[_SLOPE, s], work[_MISSING, s] = s0, slope, number
            added += sum_of_moved - slope * number
            curvature += s2 - slope * s1
        if not curvature > 0.0:
            break
        step_b = -added / curvature
        steepest, decrement = 0.0, step_b * step_b * curvature
        for s in range(n_strata):
            if firsts[s] == lasts[s]:
                continue
            s0, number = work[_S0, s], work[_MISSING, s]
            decrement += number * number / s0
            step = -number / s0 - work[_SLOPE, s] * step_b
            work[_MISSING, s] = step
            low = abs(step + step_b * (values[firsts[s]] - means[s]))
            high = abs(step + step_b * (values[lasts[s] - 1] - means[s]))
            steepest = max(steepest, low, high)
        part = min(1.0, _LARGEST_STEP / steepest) if steepest > 0.0 else 1.0
        for s in range(n_strata):
            if firsts[s] < lasts[s]:
                start[s] += part * work[_MISSING, s]
        start[n_strata] += part * step_b
        if decrement < _DONE:
            break
    b = start[n_strata]
    exponent, log_ratio = b * away, 0.0
    floor = 0.0  # what the least s0 add
    for s in range(n_strata):
        if firsts[s] == lasts[s]:
            continue
        share = chosen[s] / cells[s]
        exponent += start[s] * chosen[s]
        exponent -= chosen[s] * math.log(share) + (cells[s] - chosen[s]) * math.log1p(-share)
        for k in range(firsts[s], lasts[s]):
            logit = start[s] + b * (values[k] - means[s])
            exponent -= weights[k] * (max(logit, 0.0) + math.log1p(math.exp(-abs(logit))))
        log_ratio += math.log(work[_S0, s] / (chosen[s] * (1.0 - share)))
        floor += max(0.0, math.log(_LEAST / work[_S0, s]))
    w = math.copysign(math.sqrt(2.0 * max(exponent, 0.0)), b)
    if abs(w) < _NEAR:
        return log_normal_tail(w)
    rate = math.sinh(half * b) / half if half > 0.0 else b
    moved = rate * rate * max(curvature, 0.0)
    if w > 1.0:
        moved = max(moved, _LEAST)
        log_ratio += floor
    log_u = 0.5 * (math.log(max(moved, 1e-300)) + log_ratio)
    return log_normal_tail(w + (log_u - math.log(abs(w))) / w)


@jit
def _extreme(values, weights, chosen):
    """Return the largest and the smallest sum."""
    largest, smallest = 0.0, 0.0
    left, k = chosen, values.size - 1
    while left > 0.0:
        taken = min(left, weights[k])
        largest += taken * values[k]
        left -= taken
        k -= 1
    left, k = chosen, 0
    while left > 0.0:
        taken = min(left, weights[k])
        smallest += taken * values[k]
        left -= taken
        k += 1
    return largest, smallest
