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
where the skewness of x matters. Where lambda is at least 12, this holds for p above 1e-2: there it
was never more than 0.13 decades off the sum, and half of the time less than 0.01.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .gamma_tails import NOTHING, log_correction, log_tail, log_tail_from
from .hypergeometric import log_weight, mode
from .just_below import just_below
from .tie_pattern import C0, C1, C2, C3, C_TOP, D1, D2, T2, T3, T_TOP

# Expected expressing cells from which x needs no sum, unless p is below 1e-2, and below 1e-3.
_MANY, _VERY_MANY = 12.0, 20.0
_LOG_SMALL, _LOG_VERY_SMALL = math.log(1e-2), math.log(1e-3)
_NEGLIGIBLE = 14.0  # logarithm of a share of p
# Terms of the sum over x stand for this many standard deviations of x, and of A2 given x.
_OF_X, _OF_A2 = 0.5, 5.0


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
        mean = np.float64(n[i]) * expressed[i] / total[i]
        if mean >= _MANY:
            k2, k3 = 2.0 * c[T2], 8.0 * c[T3]
            found[i] = log_tail(a, 1.0, k2, k3) + log_correction(a, c[T_TOP], 1.0, k2, k3)
            if found[i] > (_LOG_VERY_SMALL if mean >= _VERY_MANY else _LOG_SMALL):
                continue
        found[i] = _log_mixture(just_below(a), n[i], total[i], expressed[i], c, log_factorial)


@jit
def scaled_constants(n, total, expressed, its):
    """Return gamma and the constants of the cumulants of A2 given x: c0 to c3, d1, d2."""
    size, pairs = np.float64(total), np.float64(n) * (total - n)
    silent = total - expressed
    gamma = (size - 1.0) / pairs * (expressed / size)
    c0 = gamma * its[C0]
    if silent > 0:
        c0 += (size - 1.0) * size / (pairs * expressed)
    c1, c2, c3 = gamma * its[C1], gamma**2 * its[C2], gamma**3 * its[C3]
    d1, d2 = gamma**2 * its[D1], gamma**3 * its[D2]
    return gamma, c0, c1, c2, c3, d1, d2


@jit
def _log_mixture(a, n, total, expressed, its, log_factorial):
    """Sum over the number of expressing cells among the n.

    The sum goes outwards from the most likely x, in steps of a part of the standard deviation of x:
    h(x) P(A2 >= a | x) is so smooth that every `step`-th term stands for as many.
    """
    gamma, c0, c1, c2, c3, d1, d2 = scaled_constants(n, total, expressed, its)
    size, silent = np.float64(total), total - expressed
    mean = np.float64(n) * expressed / total
    deviation = math.sqrt(mean * (silent / size) * ((size - n) / (size - 1.0)))
    # P rises from next to 0 to next to 1 within a standard deviation of A2 given x.
    spread = _bridge(mean, expressed) * math.sqrt(2.0 * c2)
    width = 0.5 * spread / math.sqrt(a * c0)
    step = max(1, np.int64(min(_OF_X * deviation, _OF_A2 * width)))
    least, most = max(0, n - silent), min(n, expressed)
    middle = np.int64(mode(n, expressed, total))
    log_h = log_weight(middle, n, expressed, total, log_factorial)
    k1, k2, k3 = _cumulants(np.float64(middle), mean, expressed, c0, c1, c2, c3, d1, d2)
    highest, at = log_h + log_tail(a, k1, k2, k3), middle  # the highest part, and its x
    sum_of_parts = 1.0 if highest > -math.inf else 0.0
    # What the sum is at least: its parts next to where the mean of A2 given x is a.
    floor = highest
    off = math.sqrt(max(a - _bridge(mean, expressed) * c1, 0.0) / c0) / step
    for direction in range(2):
        sign = 1 - 2 * direction
        n_steps = (most - middle if sign > 0 else middle - least) // step
        x = middle + sign * step * (np.int64(off) if off < n_steps else n_steps)
        k1, k2, k3 = _cumulants(np.float64(x), mean, expressed, c0, c1, c2, c3, d1, d2)
        log_h = log_weight(x, n, expressed, total, log_factorial)
        floor = max(floor, log_h + log_tail(a, k1, k2, k3))
    for direction in range(2):
        sign = 1 - 2 * direction
        x = middle + sign * step
        while least <= x <= most:
            log_h = log_weight(x, n, expressed, total, log_factorial)
            if log_h < floor + NOTHING:
                break
            k1, k2, k3 = _cumulants(np.float64(x), mean, expressed, c0, c1, c2, c3, d1, d2)
            part = log_h + log_tail_from(a, k1, k2, k3, floor + NOTHING - log_h)
            if part > highest:
                sum_of_parts = sum_of_parts * math.exp(highest - part) + 1.0
                highest, at = part, x
            elif part > -math.inf:
                sum_of_parts += math.exp(part - highest)
            if log_h < highest and log_h < highest + math.log(sum_of_parts) - _NEGLIGIBLE:
                break  # and all beyond, as P is at most 1
            x += sign * step
    if sum_of_parts == 0.0:  # rounding: A2 is the largest possible
        log_h = log_weight(least, n, expressed, total, log_factorial)
        return max(log_h, log_weight(most, n, expressed, total, log_factorial))
    log_p = highest + math.log(sum_of_parts * step)
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
