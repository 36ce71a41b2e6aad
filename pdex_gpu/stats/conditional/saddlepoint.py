"""The tail of a sum of values drawn without replacement, by a saddlepoint approximation.

Let l_k of N cells have the value v_k, and let each be chosen with probability p_k,
``log(p_k / (1 - p_k)) = a + b v_k``, independently. Given that n are chosen, the sum S of their
values has the permutation distribution if b = 0. With a and b such that n cells and a sum of s are
expected, and ::

    w**2 / 2 = a n + b s - sum of l_k log(1 + exp(a + b v_k)) - log(N**N / (n**n (N - n)**(N - n)))
    u = b sqrt(D N / (n (N - n)))

D being the determinant of the covariance of number and sum, ``P(S >= s)`` is the tail of the normal
distribution at ``w + log(u / w) / w`` (Robinson, Ann. Probab. 10, 1982; Skovgaard, J. Appl. Probab.
24, 1987; Booth and Butler, Biometrika 77, 1990). For whole numbers s is moved by 1/2, and
``2 sinh(b / 2)`` takes the place of b in u.

Far from the mean, ``b sqrt(D)`` is at least ``1 / (2 pi)`` here, so that P is at most Chernoff's
bound.
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


@jit
def log_tail_of_sum(values, weights, chosen, end, whole, start):
    """Return ``log P(S >= end)`` of the sum of `chosen` cells.

    Parameters
    ----------
    values, weights : numpy.ndarray, float64
        Distinct values, ascending, and the number of cells at each.
    chosen, end : float64
    whole : bool
        Whether sums are whole numbers and `end` lies half way between two.
    start : numpy.ndarray, shape (2,), float64
        a and b to start from; those found take their place.

    Returns
    -------
    float64
        -infinity if `end` is the largest sum or beyond, 0 if it is the smallest or below.
    """
    total, mean = 0.0, 0.0
    for k in range(values.size):
        total += weights[k]
        mean += weights[k] * values[k]
    mean /= total
    largest, smallest = _extreme(values, weights, chosen)
    if end <= smallest:
        return 0.0
    if end >= largest - _AT_END * abs(largest):
        return -np.inf
    share = chosen / total
    away = end - chosen * mean
    a, b = start
    det = 0.0
    for _ in range(_MOST_STEPS):
        number, added = -chosen, -away
        s0, s1, s2 = 0.0, 0.0, 0.0
        for k in range(values.size):
            moved = values[k] - mean
            p = 1.0 / (1.0 + math.exp(-a - b * moved))
            w = weights[k] * p
            number += w
            added += w * moved
            w *= 1.0 - p
            s0 += w
            w *= moved
            s1 += w
            s2 += w * moved
        det = s0 * s2 - s1 * s1
        if not det > 0.0:
            break
        step_a, step_b = (s1 * added - s2 * number) / det, (s1 * number - s0 * added) / det
        low = abs(step_a + step_b * (values[0] - mean))
        high = abs(step_a + step_b * (values[-1] - mean))
        part = min(1.0, _LARGEST_STEP / max(low, high))
        a += part * step_a
        b += part * step_b
        if -(step_a * number + step_b * added) < _DONE:
            break
    start[0], start[1] = a, b
    exponent = a * chosen + b * away
    exponent -= chosen * math.log(share) + (total - chosen) * math.log1p(-share)
    for k in range(values.size):
        logit = a + b * (values[k] - mean)
        exponent -= weights[k] * (max(logit, 0.0) + math.log1p(math.exp(-abs(logit))))
    w = math.copysign(math.sqrt(2.0 * max(exponent, 0.0)), b)
    if abs(w) < _NEAR:
        return log_normal_tail(w)
    rate = 2.0 * math.sinh(0.5 * b) if whole else b
    moved = rate * math.sqrt(max(det, 0.0))
    if w > 1.0:
        moved = max(moved, _LEAST)
    return log_normal_tail(w + math.log(moved / (w * math.sqrt(chosen * (1.0 - share)))) / w)


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
