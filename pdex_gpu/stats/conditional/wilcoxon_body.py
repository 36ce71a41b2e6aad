"""A cheaper p-value of the rank-sum test, for the great majority of pairs, which are no hits.

Good to a few per cent where p is not small. Two ways, by the numbers of cells alone. Where the
values of D for one number x of expressing target cells overlap with those for the next, D is nearly
continuous, and Cornish and Fisher's expansion with the exact first four moments of a sum of scores
drawn without replacement does. Otherwise the sum over x runs in plain arithmetic, its weights by
their ratios, and the tail given x is a symmetric beta distribution with the variance and the
fourth cumulant of U.
"""

from __future__ import annotations

import math

from ...utils.jit import jit
from .hypergeometric import log_weight, mode
from .mann_whitney import beta_deviate, normal_tail

#: D is continuous if its standard deviation given x is this share of the step from x to x + 1, and
#: if skewness and kurtosis are at most these.
_OVERLAP, _SKEW, _KURTOSIS = 0.6, 0.25, 0.15
#: Weights smaller than this share of the sum end it.
_NEGLIGIBLE = 1e-6


@jit
def body_p_value(d, n, m, expressed, alternative, shape, log_factorial):
    """Return the p-value of D = d, which is to be computed more precisely where it is small.

    Parameters
    ----------
    d, n, m, expressed : int
    alternative : int
        -1 less, 0 two-sided, 1 greater.
    shape : numpy.ndarray
        The ties among expressed values, by :func:`.wilcoxon.describe_ties`.
    log_factorial : numpy.ndarray, float64
    """
    total = n + m
    spread = shape[0, 1]
    mean = n * (expressed / total)
    inside = mean * (expressed - mean) / 3.0 * (expressed + 1.0) * spread
    if inside > (_OVERLAP * total) * (_OVERLAP * total):
        deviation, skewness, kurtosis = _moments(n, m, expressed, spread, shape[2, 1])
        if abs(skewness) < _SKEW and abs(kurtosis) < _KURTOSIS:
            if alternative != 0:
                z = (alternative * d - 1.0) / deviation
                return normal_tail(_expanded(z, alternative * skewness, kurtosis))
            z = (abs(d) - 1.0) / deviation
            return min(
                1.0,
                normal_tail(_expanded(z, skewness, kurtosis))
                + normal_tail(_expanded(z, -skewness, kurtosis)),
            )
    return _summed(d, n, total, expressed, alternative, spread, shape[1, 1], log_factorial)


@jit
def _moments(n, m, expressed, spread, skewness):
    """Return the standard deviation, the skewness and the excess kurtosis of D.

    D is the sum of the scores of n of N cells, which are 2 rank - N - 1.
    """
    total, e, z = float(n + m), float(expressed), float(n + m - expressed)
    variance = (e * e - 1.0) / 3.0 * spread  # of scores among expressed values
    third = e * skewness * variance * math.sqrt(variance)
    second, fourth = e * variance, e * 1.8 * variance * variance
    a2 = z * e * e + e * z * z + second
    a3 = e * z * z * z - z * e * e * e + 3.0 * z * second + third
    a4 = z * e**4 + e * z**4 + 6.0 * z * z * second + 4.0 * z * third + fourth
    one = n / total
    two = one * (n - 1.0) / (total - 1.0)
    three = two * (n - 2.0) / (total - 2.0)
    four = three * (n - 3.0) / (total - 3.0)
    mu2 = (one - two) * a2
    mu3 = (one - 3.0 * two + 2.0 * three) * a3
    mu4 = (one - 7.0 * two + 12.0 * three - 6.0 * four) * a4
    mu4 += 3.0 * (two - 2.0 * three + four) * a2 * a2
    deviation = math.sqrt(mu2)
    return deviation, mu3 / (mu2 * deviation), mu4 / (mu2 * mu2) - 3.0


@jit
def _expanded(z, skewness, kurtosis):
    """Return the normal deviate by Cornish and Fisher's expansion."""
    z2 = z * z
    return (
        z
        - skewness * (z2 - 1.0) / 6.0
        - kurtosis * z * (z2 - 3.0) / 24.0
        + skewness * skewness * z * (4.0 * z2 - 7.0) / 36.0
    )


@jit
def _summed(d, n, total, expressed, alternative, spread, half, log_factorial):
    silent = total - expressed
    low, high = max(0, n - silent), min(n, expressed)
    start = mode(n, expressed, total)
    heaviest = math.exp(log_weight(start, n, expressed, total, log_factorial))
    far = abs(d) if alternative == 0 else alternative * d
    p = 0.0
    for way in range(2):
        x, weight = start, heaviest
        if way == 1:
            if x <= low:
                break
            weight *= x * float(silent - n + x) / ((expressed - x + 1.0) * (n - x + 1.0))
            x -= 1
        while True:
            centre = total * x - n * expressed
            if alternative == 0:
                p += weight * (
                    _given(far - centre, x, expressed - x, spread, half)
                    + _given(far + centre, x, expressed - x, spread, half)
                )
            else:
                p += weight * _given(far - alternative * centre, x, expressed - x, spread, half)
            if weight < _NEGLIGIBLE * p and abs(centre) > abs(far) + expressed * min(x, n):
                break
            if way == 0:
                if x >= high:
                    break
                weight *= (expressed - x) * float(n - x) / ((x + 1.0) * (silent - n + x + 1.0))
                x += 1
            else:
                if x <= low:
                    break
                weight *= x * float(silent - n + x) / ((expressed - x + 1.0) * (n - x + 1.0))
                x -= 1
            if weight < 1e-12:
                break
    return min(p, 1.0)


@jit
def _given(d, x, y, spread, half):
    """Return P(D' >= d) for x against y expressing cells."""
    reach = x * y
    if d <= -reach or (d <= 0 and spread == 0.0):
        return 1.0
    if d > reach or spread == 0.0:
        return 0.0
    a = 0.5 * d - (0.5 + (half - 0.5) / x)
    if min(x, y) == 1:
        return min(max(0.5 - a / (math.sqrt(spread) * (x + y)), 0.0), 1.0)
    z = beta_deviate(abs(a) / math.sqrt(spread), x, y)
    return normal_tail(z if a > 0.0 else -z)
