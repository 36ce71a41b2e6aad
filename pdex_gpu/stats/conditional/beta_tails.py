"""The tail of a distribution of a bounded sum, from its first four moments, as logarithms.

Sums of values drawn without replacement are bounded. Pearson's type I, the beta distribution on an
interval, is bounded too, has four parameters, and is exact for values from a normal population: the
permutation distribution of a correlation with normal values is a beta distribution, which is why
Student's t holds (Pitman, J. Roy. Statist. Soc. Suppl. 4, 1937). Its limits are type III, a gamma
distribution, and the normal distribution. Tails heavier than those of type III are not fitted: type
III has the larger p-values near the mean and the smaller ones far away.

For ``a, b >= 1/2`` the tail of Beta(a, b) at u is that of the normal distribution at ::

    r* = w + log(v / w) / w,   w^2 / 2 = a log(p / u) + b log(q / (1 - u))
    v = (u - p) sqrt((a + b) / (p q)),   p = a / (a + b),  q = 1 - p

to first order (Barndorff-Nielsen, Biometrika 73, 1986; Temme, SIAM J. Math. Anal. 13, 1982). Worst
errors seen for p above 1e-9: 1 % of p for a and b from 4 on; near the end of the distribution 11 %
from 1 on and 19 % at 0.6. The continued fraction of the incomplete beta function (DLMF 8.17.22)
serves for smaller parameters.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit

_MOST = 1e7  # of a + b: beyond this, the distribution is as good as of type III or normal
_LEAST = 1e-3  # of a + b: nearly two values
_FAR = 12.0  # deviates from which the normal tail has its asymptotic series
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF = math.sqrt(0.5)
_TERMS = 1000


@jit
def log_normal_tail(z):
    """Return ``log P(Z > z)`` for the standard normal distribution, to 1e-10 of itself."""
    if z < _FAR:
        return math.log(0.5 * math.erfc(z * _SQRT_HALF))
    y = 1.0 / (z * z)
    series = y * (-1.0 + y * (3.0 + y * (-15.0 + y * (105.0 + y * (-945.0 + y * 10395.0)))))
    return -0.5 * z * z - math.log(z) - _LOG_SQRT_2PI + math.log1p(series)


@jit
def log_tail(z, skewness, kurtosis):
    """Return ``log P(Z >= z)`` of the fitted distribution of mean 0 and variance 1.

    Parameters
    ----------
    z : float64
    skewness, kurtosis : float64
        The kurtosis of a normal distribution is 3. It is raised to ``skewness**2 + 1``, which no
        distribution undercuts, and lowered to that of type III, ``3 + 1.5 * skewness**2``.

    Returns
    -------
    float64
        -infinity beyond the upper end of the fitted distribution.
    """
    square = skewness * skewness
    size = _MOST  # a + b
    below = 6.0 + 3.0 * square - 2.0 * kurtosis
    above = 6.0 * (kurtosis - square - 1.0)
    if above < _MOST * below:
        size = max(above / below, _LEAST)
    moved = (size + 2.0) * (size + 2.0) * square
    rest = 16.0 * (size + 1.0)
    share = math.sqrt(moved / (moved + rest))
    small = 0.5 * (rest / (moved + rest)) / (1.0 + share)  # of a + b, the smaller parameter
    p, q = small, 1.0 - small
    if skewness < 0.0:
        p, q = q, p
    step = z * math.sqrt(p * q / (size + 1.0))
    if step <= -p:
        return 0.0
    if step >= q:
        return -np.inf
    if small * size < 0.5:
        return _log_beta_tail(p + step, q - step, p * size, q * size)
    half = -size * (p * math.log1p(step / p) + q * math.log1p(-step / q))
    w = math.copysign(math.sqrt(2.0 * max(half, 0.0)), step)
    if abs(w) > 1e-4:
        w += math.log(step * math.sqrt(size / (p * q)) / w) / w
    else:
        w += (q - p) / (3.0 * math.sqrt(size * p * q))
    return log_normal_tail(w)


@jit
def _log_beta_tail(u, v, a, b):
    """Return ``log P(U > u)`` for Beta(a, b), ``v = 1 - u``, by the continued fraction."""
    log_u = math.log(u) if u < 0.5 else math.log1p(-v)
    log_v = math.log(v) if v < 0.5 else math.log1p(-u)
    common = a * log_u + b * log_v + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    far = v < (b + 1.0) / (a + b + 2.0)
    x, first, second = (v, b, a) if far else (u, a, b)
    log_part = common - math.log(first) + math.log(_fraction(x, first, second))
    if far:
        return min(log_part, 0.0)
    return math.log(max(1.0 - math.exp(log_part), 1e-300))


@jit
def _fraction(x, a, b):
    """Return the continued fraction of the incomplete beta function, by Lentz's algorithm."""
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _TERMS):
        term = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        d = 1.0 / (1.0 + term * d)
        c = 1.0 + term / c
        value *= d * c
        term = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        d = 1.0 / (1.0 + term * d)
        c = 1.0 + term / c
        value *= d * c
        if abs(d * c - 1.0) < 1e-11:
            break
    return value
