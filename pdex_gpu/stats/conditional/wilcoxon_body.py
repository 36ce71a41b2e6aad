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
from .mann_whitney import beta_deviate, beta_shape, normal_tail

#: D is continuous if its standard deviation s given x is this share of the step to x + 1 (the
#: steps then change p by about exp(-2 pi^2 s^2) / pi of the probability of one x), and if skewness
#: and kurtosis are at most these.
_OVERLAP, _SKEW, _KURTOSIS = 0.45, 0.25, 0.15
#: Weights smaller than this share of the sum end it.
_NEGLIGIBLE = 1e-4
#: Tails given x beyond the root of so many variances are 0 or 1.
_FAR = 25.0


@jit
def overlaps(n, m, expressed, spread):
    """Return whether the values of D for one x overlap with those for the next."""
    total = n + m
    mean = n * (expressed / total)
    inside = mean * (expressed - mean) / 3.0 * (expressed + 1.0) * spread
    return inside > (_OVERLAP * total) * (_OVERLAP * total)


@jit
def continuous_p_value(d, n, m, expressed, alternative, spread):
    """Return the p-value of D = d where values of D overlap; NaN where D is too skew for that.

    Parameters
    ----------
    d, n, m, expressed : int
    alternative : int
        -1 less, 0 two-sided, 1 greater.
    spread : float
        The variance of D' as a share of the one without ties.
    """
    deviation, skewness, kurtosis = _moments(n, m, expressed, spread)
    if not (abs(skewness) < _SKEW and abs(kurtosis) < _KURTOSIS):
        return math.nan
    if alternative != 0:
        z = (alternative * d - 1.0) / deviation
        return normal_tail(_expanded(z, alternative * skewness, kurtosis))
    z = (abs(d) - 1.0) / deviation
    return min(
        1.0,
        normal_tail(_expanded(z, skewness, kurtosis))
        + normal_tail(_expanded(z, -skewness, kurtosis)),
    )


@jit
def skewness_of_geometric(share):
    """Return the skewness of midranks for classes of E (1 - q) q^k cells.

    The sum of their cubes over E^3, the share of variance lost, is (1 - q)^2 / (1 + q + q^2).
    """
    a, b = 1.0 - share, 2.0 + share
    q = 2.0 * a / (b + math.sqrt(b * b - 4.0 * a * a))
    # The third moment of 2 F - 1, F the midranks over E.
    cubed = (1.0 - q) * (1.0 - q) * (1.0 - q)
    third = cubed * ((1.0 + q) / (1.0 - q * q * q * q) - 1.0 / (1.0 - q * q * q))
    variance = (1.0 - share) / 3.0
    return third / (variance * math.sqrt(variance))


@jit
def _moments(n, m, expressed, spread):
    """Return the standard deviation, the skewness and the excess kurtosis of D.

    D is the sum of the scores of n of N cells, which are 2 rank - N - 1.
    """
    total, e, z = float(n + m), float(expressed), float(n + m - expressed)
    variance = (e * e - 1.0) / 3.0 * spread  # of scores among expressed values
    third = 0.0
    if 0.0 < spread < 1.0:
        third = e * skewness_of_geometric(1.0 - spread) * variance * math.sqrt(variance)
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
def summed_p_value(d, n, m, expressed, alternative, spread, half, log_factorial):
    """Return the p-value of D = d by the sum over x.

    Parameters
    ----------
    d, n, m, expressed : int
    alternative : int
        -1 less, 0 two-sided, 1 greater.
    spread, half : float
        The variance of D' as a share of the one without ties, and half the distance of values of U.
    log_factorial : numpy.ndarray, float64
    """
    total = n + m
    silent = total - expressed
    low, high = max(0, n - silent), min(n, expressed)
    start = mode(n, expressed, total)
    heaviest = math.exp(log_weight(start, n, expressed, total, log_factorial))
    far = abs(d) if alternative == 0 else alternative * d
    sign = 1 if alternative == 0 else alternative
    stretch = 1.0 / math.sqrt(spread) if spread > 0.0 else 0.0
    p = 0.0
    for way in range(2):
        x, weight = start, heaviest
        while True:
            if way == 0 or x < start:
                y = expressed - x
                reach = x * y
                shift = 0.5 + (half - 0.5) / max(x, 1)
                distant = _FAR / 12.0 * reach * (expressed + 1.0)
                centre = sign * (total * x - n * expressed)
                for side in range(2 if alternative == 0 else 1):
                    # D' has to be at least this, given x.
                    least = far - centre if side == 0 else far + centre
                    if least > reach:
                        continue
                    if least <= -reach or stretch == 0.0:
                        p += weight if least <= 0 else 0.0
                        continue
                    a = (0.5 * least - shift) * stretch
                    if a * a > distant:
                        p += weight if a < 0.0 else 0.0
                    elif min(x, y) == 1:
                        p += weight * min(max(0.5 - a / expressed, 0.0), 1.0)
                    else:
                        z = beta_deviate(abs(a), beta_shape(x, y))
                        p += weight * normal_tail(z if a > 0.0 else -z)
                if weight < _NEGLIGIBLE * p or weight < 1e-12:
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
    return min(p, 1.0)
