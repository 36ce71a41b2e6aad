"""Tails of A2 from the constants of the pooled tie pattern.

The n cells of the smaller of two samples hold x of the E expressing cells, with probability h(x)
(:mod:`.hypergeometric`); lambda = n E / N is the mean of x. Given x, with d = x - lambda,
f = x (E - x) / (E - 1) and gamma = (N - 1) E / (n m N), A2 is a quadratic form whose cumulants are
those of a Gaussian bridge among the expressing cells with a shift in proportion to d::

    k1 = d**2 c0 + f c1     k2 = 2 f**2 c2 + 4 d**2 f d1     k3 = 8 f**3 c3 + 24 d**2 f**2 d2

    c0 = (N - 1) N / (n m E) [Z > 0] + gamma C0, c_i = gamma**i C_i, d1 = gamma**2 D1,
    d2 = gamma**3 D2

and ``p = sum over x of h(x) P(A2 >= a | x)``, with Pearson III tails. Where lambda is at least 20,
x needs no sum: A2 is a sum of chi-squares with cumulants 1, 2 T2 and 8 T3; unless p is below 1e-3,
where the skewness of x matters.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .gamma_tails import log_correction, log_tail
from .hypergeometric import log_weight, mode
from .tie_pattern import C0, C1, C2, C3, C_TOP, D1, D2, T2, T3, T_TOP

_MANY = 20.0  # expected expressing cells from which x needs no sum
_LOG_SMALL = math.log(1e-3)
_NEGLIGIBLE = 14.0  # logarithm of a share of p
_PANEL = 1.0  # standard deviations of x, or of A2 given x
_SHORTEST = 1.0 / 16.0  # of them that a panel has at least


@jit
def log_p_from_constants(a2, n, total, expressed, its, log_factorial, found):
    """Fill `found` with log p of each pair.

    Parameters
    ----------
    a2 : float64, shape (n_pairs,)
    n, total, expressed : int64, shape (n_pairs,)
        Cells of the smaller sample, pooled cells, and how many of these express the gene.
    its : float64, shape (n_pairs, 10)
        Constants of :mod:`.tie_pattern`.
    """
    for i in range(a2.size):
        a, c = a2[i], its[i]
        if np.float64(n[i]) * expressed[i] >= _MANY * total[i]:
            k2, k3 = 2.0 * c[T2], 8.0 * c[T3]
            found[i] = log_tail(a, 1.0, k2, k3) + log_correction(a, c[T_TOP], 1.0, k2, k3)
            if found[i] > _LOG_SMALL:
                continue
        found[i] = _log_mixture(a * (1.0 - 1e-9), n[i], total[i], expressed[i], c, log_factorial)


@jit
def _log_mixture(a, n, total, expressed, its, log_factorial):
    """Sum over the number of expressing cells among the n.

    The sum goes outwards from the most likely x in panels, in which log P(A2 >= a | x) is a
    parabola through both ends and the middle. Panels are so short that this makes no difference.
    """
    size, pairs = np.float64(total), np.float64(n) * (total - n)
    silent = total - expressed
    gamma = (size - 1.0) / pairs * (expressed / size)
    c0 = gamma * its[C0]
    if silent > 0:
        c0 += (size - 1.0) * size / (pairs * expressed)
    c1, c2, c3 = gamma * its[C1], gamma**2 * its[C2], gamma**3 * its[C3]
    d1, d2 = gamma**2 * its[D1], gamma**3 * its[D2]
    mean = np.float64(n) * expressed / total
    deviation = math.sqrt(mean * (silent / size) * ((size - n) / (size - 1.0)))
    # P rises from next to 0 to next to 1 within a standard deviation of A2 given x.
    spread = _bridge(mean, expressed) * math.sqrt(2.0 * c2)
    panel = 1
    if spread > 1e-5 * a:
        width = min(deviation, 0.5 * spread / math.sqrt(a * c0))
        panel = max(1, np.int64(max(_PANEL * width, _SHORTEST * deviation)))
    least, most = max(0, n - silent), min(n, expressed)
    middle = np.int64(mode(n, expressed, total))
    k1, k2, k3 = _cumulants(np.float64(middle), mean, expressed, c0, c1, c2, c3, d1, d2)
    at_middle = log_tail(a, k1, k2, k3)
    log_h = log_weight(middle, n, expressed, total, log_factorial)
    highest, at = log_h + at_middle, middle  # the highest part of the sum, and its x
    sum_of_parts = 1.0 if highest > -math.inf else 0.0
    for direction in range(2):
        sign = 1 - 2 * direction
        x, start = middle, at_middle
        while True:
            left = most - x if direction == 0 else x - least
            if left == 0:
                break
            length = min(panel, left)
            # Without expressing cells in one of the samples, P is 0 or 1.
            end = x + sign * length
            if end == 0 or end == expressed:
                length -= 1
            if length < 2 or start == -math.inf:
                length = 1
            centre, stop = 0.0, 0.0
            for j in range(2):
                if j == 1 or length > 1:
                    place = x + sign * length * (0.5 + 0.5 * j)
                    k1, k2, k3 = _cumulants(place, mean, expressed, c0, c1, c2, c3, d1, d2)
                    centre, stop = stop, log_tail(a, k1, k2, k3)
            for i in range(1, length + 1):
                log_p = stop
                if i < length:
                    y = 2.0 * i / length
                    log_p = (
                        0.5 * (y - 1.0) * (y - 2.0) * start
                        - y * (y - 2.0) * centre
                        + 0.5 * y * (y - 1.0) * stop
                    )
                log_h = log_weight(x + sign * i, n, expressed, total, log_factorial)
                part = log_h + min(log_p, 0.0)
                if part > highest:
                    sum_of_parts = sum_of_parts * math.exp(highest - part) + 1.0
                    highest, at = part, x + sign * i
                elif part > -math.inf:
                    sum_of_parts += math.exp(part - highest)
            x += sign * length
            start = stop
            if sum_of_parts > 0.0 and log_h < highest + math.log(sum_of_parts) - _NEGLIGIBLE:
                break  # and all beyond, as P is at most 1
    if sum_of_parts == 0.0:  # rounding: A2 is the largest possible
        log_h = log_weight(least, n, expressed, total, log_factorial)
        return max(log_h, log_weight(most, n, expressed, total, log_factorial))
    log_p = highest + math.log(sum_of_parts)
    k1, k2, k3 = _cumulants(np.float64(at), mean, expressed, c0, c1, c2, c3, d1, d2)
    top = _bridge(np.float64(at), expressed) * gamma * its[C_TOP]
    return min(log_p + log_correction(a, top, k1, k2, k3), 0.0)


@jit
def _bridge(x, expressed):
    return x * (expressed - x) / max(expressed - 1.0, 1.0)


@jit
def _cumulants(x, mean, expressed, c0, c1, c2, c3, d1, d2):
    """Return the cumulants of A2 given x."""
    d = (x - mean) ** 2
    f = _bridge(x, expressed)
    k1 = d * c0 + f * c1
    k2 = 2.0 * f * (f * c2 + 2.0 * d * d1)
    return k1, k2, 8.0 * f * f * (f * c3 + 3.0 * d * d2)
