"""Tails of Pearson type III distributions and of sums of chi-squares, as logarithms.

A Pearson III distribution is a shifted gamma distribution, which three cumulants determine. All
functions are compiled and return natural logarithms, accurate far below the smallest float64.
"""

from __future__ import annotations

import math

from ...utils.jit import jit

_LARGE_SHAPE = 2e4  # above: uniform asymptotic expansion
_LARGEST_SHAPE = 4e6  # larger ones, of a skewness below 1e-3, are indistinguishable from it
_RIGHT_FROM = 3.0  # above: continued fraction of erfcx
_FRACTION = 20  # its terms: relative error 2e-13
NOTHING = -32.0  # logarithm of a share of p that is left out: 1e-14
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


@jit
def erfcx(x):
    """Return ``exp(x**2) erfc(x)`` for x >= 0."""
    if x < _RIGHT_FROM:
        return math.exp(x * x) * math.erfc(x)
    fraction = x
    for i in range(_FRACTION, 0, -1):  # Laplace's continued fraction, from the inside
        fraction = x + 0.5 * i / fraction
    return 1.0 / (math.sqrt(math.pi) * fraction)


@jit
def log_upper_gamma(shape, x):
    """Return the logarithm of the regularised upper incomplete gamma function Q(shape, x).

    Below ``shape + 1`` by the power series of P, above by the continued fraction of Q (Press et
    al., Numerical Recipes, section 6.2), for large shapes by two terms of the uniform expansion
    (Temme, SIAM J. Math. Anal. 10, 1979). The relative error of the logarithm is at most 1e-9.
    """
    if x <= 0.0:
        return 0.0
    if shape > _LARGE_SHAPE:
        return _uniform(shape, x)
    log_density = shape * math.log(x) - x - math.lgamma(shape)
    if x < shape + 1.0:
        total = term = 1.0 / shape
        k = shape
        while term > total * 1e-13:
            k += 1.0
            term *= x / k
            total += term
        return math.log1p(-min(total * math.exp(log_density), 1.0))
    # Numerators and denominators of two successive fractions; none vanishes where x > shape + 1
    b = x + 1.0 - shape
    above, below, next_above, next_below = 0.0, 1.0, 1.0, b
    for i in range(1, 20_000):
        a = i * (shape - i)
        b += 2.0
        above, next_above = next_above, b * next_above + a * above
        below, next_below = next_below, b * next_below + a * below
        before, now = above * next_below, next_above * below
        if abs(now - before) < 1e-11 * abs(before):
            break
        if abs(next_below) > 1e100:
            above, next_above = above * 1e-100, next_above * 1e-100
            below, next_below = below * 1e-100, next_below * 1e-100
    return log_density + math.log(next_above / next_below)


@jit
def _uniform(shape, x):
    """Return log Q for a large shape."""
    mu = x / shape - 1.0
    eta = math.copysign(math.sqrt(2.0 * max(mu - math.log1p(mu), 0.0)), mu)
    first = -1.0 / 3.0 + eta / 12.0 if abs(eta) < 1e-3 else 1.0 / mu - 1.0 / eta
    if abs(eta) < 0.05:
        second = -1.0 / 540.0 - eta / 288.0
    else:
        second = 1.0 / eta**3 - 1.0 / mu**3 - 1.0 / mu**2 - 1.0 / (12.0 * mu)
    rest = (first + second / shape) / math.sqrt(2.0 * math.pi * shape)
    y = eta * math.sqrt(0.5 * shape)
    if y > 0.0:
        return -y * y + math.log(0.5 * erfcx(y) + rest)
    return math.log(0.5 * math.erfc(y) + math.exp(-y * y) * rest)


@jit
def log_tail(a, k1, k2, k3):
    """Return log P(Q >= a) of the Pearson III distribution with these cumulants, k3 >= 0.

    Without variance, all of it is at `k1`.
    """
    return log_tail_from(a, k1, k2, k3, -math.inf)


@jit
def log_tail_from(a, k1, k2, k3, least):
    """Return :func:`log_tail`, or -inf if Chernoff's bound shows that it is below `least`.

    The bound of both tails of a gamma distribution is ``(x / shape)**shape exp(shape - x)``. 0 is
    returned if the lower tail is negligible by it.
    """
    if k2 <= 1e-14 * k1 * k1:
        return 0.0 if a <= k1 * (1.0 + 1e-9) else -math.inf
    ratio = k2 / max(k3, 0.0)
    shape = 4.0 * k2 * ratio * ratio
    if shape < _LARGEST_SHAPE:
        x = shape + 2.0 * (a - k1) * ratio
    else:  # or no skewness at all
        shape = _LARGEST_SHAPE
        x = shape + (a - k1) * math.sqrt(shape / k2)
    if x > 0.0 and least > -math.inf:
        bound = shape - x + shape * math.log(x / shape)
        if x < shape:
            if bound < NOTHING:
                return 0.0
        elif bound < least:
            return -math.inf
    return log_upper_gamma(shape, x)


@jit
def _log_saddlepoint(a, top, k1, k2, k3):
    """Return log P(Q >= a) by Lugannani and Rice (1980) for ``top * chi2_1`` plus Pearson III.

    The three cumulants are those of the second part; `a` is above the mean of the whole. The
    saddle point solves a quadratic equation.
    """
    scale = 0.5 * k3 / k2
    shape = k2 / (scale * scale)
    above = a - (k1 - shape * scale)
    # top / (1 - 2 top s) + shape scale / (1 - scale s) = above
    two = 2.0 * top
    qa = above * two * scale
    qb = top * scale + shape * scale * two - above * (two + scale)
    qc = above - top - shape * scale
    s = 2.0 * qc / (-qb + math.sqrt(max(qb * qb - 4.0 * qa * qc, 0.0)))
    first, second = 1.0 - two * s, 1.0 - scale * s
    cgf = -0.5 * math.log(first) - shape * math.log(second)
    w = math.sqrt(2.0 * max(s * above - cgf, 0.0))
    curvature = 2.0 * top * top / (first * first) + shape * scale * scale / (second * second)
    u = s * math.sqrt(curvature)
    mills = math.sqrt(0.5 * math.pi) * erfcx(w * math.sqrt(0.5))
    return -0.5 * w * w - _HALF_LOG_2_PI + math.log(mills + 1.0 / u - 1.0 / w)


@jit
def log_correction(a, top, k1, k2, k3):
    """Return what to add to :func:`log_tail` for a sum of weighted chi-squares.

    Pearson III falls too fast in the far tail, where the largest weight `top` decides. The ratio
    of two saddlepoint approximations corrects for this: with ``top * chi2_1`` split off, and
    without. It is 0 below the mean plus half a standard deviation, and where a shift of the
    Gaussian variables dominates: then the rest falls no faster than the part that is split off.
    """
    rest2, rest3 = k2 - 2.0 * top * top, k3 - 8.0 * top * top * top
    if rest2 < 1e-6 * k2 or rest3 < 1e-6 * k3 or a < k1 + 0.5 * math.sqrt(k2):
        return 0.0
    if rest3 > 4.0 * top * rest2:
        return 0.0
    found = 0.0
    for split in range(2):
        if split:
            found = -found
            k1, k2, k3 = k1 - top, rest2, rest3
        found += _log_saddlepoint(a, top if split else 0.0, k1, k2, k3)
    return found
