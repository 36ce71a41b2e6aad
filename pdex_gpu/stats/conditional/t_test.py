"""Conditional p-values of the t-test: the permutation distribution of the target's sum.

Given the pooled values, Student's t is a monotone function of S, the sum of the target's values. Of
N = n + m cells, E express the gene; x of them lie in the target, which is hypergeometric, and
``y = E - x`` in the reference. Let mu, s2, g and k be mean, variance, skewness and kurtosis of the
E nonzero values, as a population. Given x, S is the sum of x of them without replacement, with ::

    mean       x mu
    variance   x y s2 / (E - 1)
    skewness   g (E - 2 x) / (E - 2) sqrt((E - 1) / (x y))
    kurtosis   (E - 1) (k (E (E + 1) - 6 x y) + 3 E (x - 1) (y - 1)) / ((E - 2) (E - 3) x y)

(Fisher, Proc. London Math. Soc. 30, 1930; Pitman 1937), and the tail of the beta distribution with
these moments (:mod:`.beta_tails`). The p-value is the mean of the tails over x:

    p = sum over x of h(x) P(|S - E S| >= what was seen | x)

* Where the number of expressing cells varies much, its distribution is smooth, and S over all
  allocations of cells has a tail that the same formulas fit for all N values, zeros included. That
  one tail is taken where ``(log10 p)^2 + 0.3`` is at most the variance of x, which must be 2 or
  more, or if all cells express. Of 100,000 simulated pairs, it is then within 0.01 decades of the
  sum for half of them, and 0.18 too small at most; below 0.05, where the variance is above 2, 0.13.
* In the body, a cheaper rule: with z the deviation of S in standard deviations and k its kurtosis,
  both over all allocations, p is at least ``(1 - z^2)^2 / k`` (Paley and Zygmund 1932). Where that
  is above 0.05, p is that of the normal tail.
* Counts: sums of whole numbers are whole. Where the sums of both samples and those of squares are,
  the tail starts half way to the next possible sum.
* p is at least ``C(N - E, n - x) / C(N, n)``, x being the number seen: the probability that just
  these expressing cells lie in the target.
* Values must not be negative.

Small p-values that four moments do not tell are computed again by :mod:`.t_test_values`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...utils.jit import jit
from .beta_tails import log_tail
from .hypergeometric import log_factorials, mode

#: Sizes, expressing cells, means and sums of second to fourth powers of deviations of a sample.
Side = Sequence[np.ndarray]

ALTERNATIVES = {"two-sided": 0, "greater": 1, "less": -1}
_NOTHING = 7.0  # terms below exp(-7) of the largest are left out
_SMALL = -10.0  # logarithms below this may be below the least one
_SURE = -3.5  # standard deviations; less than this is exceeded in 12 of 13 cases, or more often
_STEP = 0.9  # in standard deviations of a term as a function of x
_LARGE = 0.05  # a p-value certainly not below this is that of the normal tail ...
MANY = 100.0  # ... if there are so many cells
_SMOOTH = 2.0  # least variance of x for a single tail
_LESS = 0.3  # what its p-value must leave of that: p is 0.05 at the least variance
EQUAL = 1e-10  # relative differences below this are rounding
_CONSTANT = 1e-12  # of the squares: nonzero values have one value
_NEARLY_CONSTANT = 1e-6  # of the squares: higher moments of nonzero values have lost their digits
_LN10 = math.log(10.0)
_SQRT_HALF = math.sqrt(0.5)


def log_p_values(target: Side, reference: Side, alternative: str) -> np.ndarray:
    """Return the natural logarithms of conditional p-values of the t-test.

    Parameters
    ----------
    target, reference : sequence of numpy.ndarray
        Numbers of cells (T or 1, 1), of expressing cells, means and sums of second, third and
        fourth powers of deviations from the mean, (T or 1, C).
    alternative : {"two-sided", "less", "greater"}

    Returns
    -------
    numpy.ndarray, shape (T, C), float64
        NaN where all values are equal or a sample has no mean.
    """
    sides = [arrays_of(target), arrays_of(reference)]
    n_rows = max(len(array) for side in sides for array in side)
    found = np.full((n_rows, sides[0][2].shape[1]), np.nan)
    most = int(np.max(sides[0][0], initial=0) + np.max(sides[1][0], initial=0))
    _judge(*sides, ALTERNATIVES[alternative], log_factorials(most), found)
    return found


def arrays_of(side: Side) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(array, np.float64) for array in side)


@jit
def numbers_of(side, t, j):
    """Return the numbers of a pair: size, expressing cells, mean, and sums of powers."""
    n, expressed, mean, m2, m3, m4 = side
    return (
        n[min(t, n.shape[0] - 1), 0], expressed[min(t, expressed.shape[0] - 1), j],
        mean[min(t, mean.shape[0] - 1), j], m2[min(t, m2.shape[0] - 1), j],
        m3[min(t, m3.shape[0] - 1), j], m4[min(t, m4.shape[0] - 1), j],
    )  # fmt: skip


@jit
def pooled(target, reference):
    """Return the mean and the sums of powers of deviations from it, of both samples together."""
    n, _, mean, m2, m3, m4 = target
    m, _, other, r2, r3, r4 = reference
    apart = mean - other
    p, q = m / (n + m) * apart, -n / (n + m) * apart
    second = m2 + r2 + n * p * p + m * q * q
    third = m3 + r3 + 3.0 * (p * m2 + q * r2) + n * p * p * p + m * q * q * q
    fourth = (
        m4 + r4 + 4.0 * (p * m3 + q * r3) + 6.0 * (p * p * m2 + q * q * r2)
        + n * p * p * p * p + m * q * q * q * q
    )  # fmt: skip
    return (n * mean + m * other) / (n + m), second, third, fourth


@jit
def of_expressed(total, expressed, mean, second, third, fourth):
    """Return mean, variance, skewness and kurtosis of the nonzero values among `total`."""
    zeros = total - expressed
    move = mean * zeros / expressed
    square, moved = mean * mean, move * move
    p2 = second - zeros * square
    p3 = third + zeros * square * mean
    p4 = fourth - zeros * square * square
    m2 = p2 - expressed * moved
    of_squares = second + expressed * (mean + move) * (mean + move)
    if not m2 > _CONSTANT * of_squares:
        return mean + move, 0.0, 0.0, 3.0
    variance = m2 / expressed
    if m2 < _NEARLY_CONSTANT * of_squares:
        return mean + move, variance, 0.0, _normal_kurtosis(expressed)
    m3 = p3 - 3.0 * move * p2 + 2.0 * expressed * moved * move
    m4 = p4 - 4.0 * move * p3 + 6.0 * moved * p2 - 3.0 * expressed * moved * moved
    skewness = m3 / expressed / (variance * math.sqrt(variance))
    return mean + move, variance, skewness, m4 / expressed / (variance * variance)


@jit
def _normal_kurtosis(n):
    """Return the expected kurtosis of n values from a normal population, divided by n each."""
    return 3.0 * (n - 1.0) / (n + 1.0)


@jit
def shape_of_sum(x, size, skewness, kurtosis):
    """Return skewness and kurtosis of the sum of x of `size` values, 0 < x < size."""
    y = size - x
    product = x * y
    apart = 0.0 if size == 2.0 else (y - x) / (size - 2.0)
    of_sum = skewness * apart * math.sqrt((size - 1.0) / product)
    if size < 4.0:  # of one value, or of all but one
        return of_sum, kurtosis
    # The formula of the module, as a function of x y.
    factor = (size - 1.0) / (size - 2.0) / (size - 3.0)
    level = factor * (3.0 * size - 6.0 * kurtosis)
    return of_sum, level + factor * size * (kurtosis * (size + 1.0) - 3.0 * (size - 1.0)) / product


@jit
def whole_sum(n, mean, m2):
    """Return whether a sample's sum and sum of squares are whole numbers, and the sum."""
    total = n * mean
    nearest = math.floor(total + 0.5)
    squares = m2 + n * mean * mean
    off = abs(squares - math.floor(squares + 0.5))
    close = abs(total - nearest) <= 1e-8 + 1e-14 * total and off <= 1e-8 + 1e-14 * squares
    return close, nearest


@jit
def seen_sum(target, reference):
    """Return E S, S - E S, the size of rounding errors, and whether sums are whole numbers."""
    n, _, mean, m2, _, _ = target
    m, _, other, r2, _, _ = reference
    whole, total = whole_sum(n, mean, m2)
    others_whole, rest = whole_sum(m, other, r2)
    if whole and others_whole:
        return n * (total + rest) / (n + m), (m * total - n * rest) / (n + m), 1e-9, True
    centre = n * (n * mean + m * other) / (n + m)
    slack = EQUAL * n * m / (n + m) * (mean + other)
    return centre, n * m / (n + m) * (mean - other), slack, False


@jit
def ends_of(centre, others, seen, slack, whole, alternative):
    """Return where the tails of S - E S start, above and below; infinite if they do not count.

    `centre` is E S and `others` the mean of the sum of the reference: values are not negative, so
    neither sum is below 0.
    """
    if alternative == 0:
        above, below = abs(seen) - slack, -abs(seen) + slack
    else:
        above, below = seen - slack, seen + slack
    if whole:
        above = math.ceil(centre + above) - 0.5 - centre
        below = math.floor(centre + below) + 0.5 - centre
    if alternative < 0 or above > others:
        above = np.inf
    if alternative > 0 or centre + below < 0.0:
        below = -np.inf
    return above, below


@jit
def log_add(a, b):
    high, low = max(a, b), min(a, b)
    return high if low == -np.inf else high + math.log1p(math.exp(low - high))


@jit
def both_tails(above, below, deviation, skewness, kurtosis):
    """Return the logarithm of both tails of a sum with these moments, about its mean."""
    log_p = -np.inf
    for sign in (1.0, -1.0):  # one call, which is compiled once
        end = sign * (above if sign > 0.0 else below)
        if end < np.inf:
            log_p = log_add(log_p, log_tail(end / deviation, sign * skewness, kurtosis))
    return log_p


@jit
def surely_large(z, kurtosis):
    """Return whether a two-sided p-value cannot be below 0.05, by Paley and Zygmund's bound."""
    less = 1.0 - z * z
    return less > 0.0 and less * less > _LARGE * kurtosis


@jit
def certain(log_p, of_x):
    """Return whether one tail over all allocations will do; `of_x` is the variance of x."""
    if of_x == 0.0:
        return log_p >= _SMALL
    return of_x >= _SMOOTH and (log_p / _LN10) ** 2 + _LESS <= of_x


@jit
def variance_of_x(target, reference):
    """Return the variance of the number of expressing cells in the target."""
    n, total, expressed = target[0], target[0] + reference[0], target[1] + reference[1]
    return n * (total - n) / (total - 1.0) * (expressed / total) * (1.0 - expressed / total)


@jit
def log_normal_p(z):
    """Return the logarithm of the two-sided p-value of a normal deviate near 0."""
    return math.log(math.erfc(abs(z) * _SQRT_HALF))


@jit
def _judge(target, reference, alternative, log_factorial, found):
    for t in range(found.shape[0]):
        for j in range(found.shape[1]):
            its, others = numbers_of(target, t, j), numbers_of(reference, t, j)
            found[t, j] = _log_p(its, others, alternative, log_factorial)


@jit
def _log_p(target, reference, alternative, log_factorial):
    n, x_seen = target[0], target[1]
    m = reference[0]
    total, expressed = n + m, x_seen + reference[1]
    mean, second, third, fourth = pooled(target, reference)
    if not (second > 0.0 and n > 0.0 and m > 0.0 and expressed > 0.0):
        return np.nan
    silent = total - expressed
    share = n / total
    variance = second / total
    deviation = math.sqrt(n * m / (total - 1.0) * variance)  # of S
    powers = third, fourth
    third /= total * variance * math.sqrt(variance)
    fourth /= total * variance * variance
    skewness, kurtosis = shape_of_sum(n, total, third, fourth)
    if alternative == 0 and total >= MANY:
        z = n * m / total * (target[2] - reference[2]) / deviation
        if surely_large(z, kurtosis):
            return log_normal_p(z)
    centre, seen, slack, whole = seen_sum(target, reference)
    above, below = ends_of(centre, centre / n * m, seen, slack, whole, alternative)
    of_x = n * m / (total - 1.0) * (expressed / total) * (silent / total)  # variance of x
    if of_x >= _SMOOTH or silent == 0.0:
        log_p = min(both_tails(above, below, deviation, skewness, kurtosis), 0.0)
        if certain(log_p, of_x):
            return log_p
    shape = of_expressed(total, expressed, mean, second, powers[0], powers[1])
    counts = int(n), int(expressed), int(total)
    log_p = -np.inf
    for sign in (1.0, -1.0):
        end = sign * (above if sign > 0.0 else below)
        if end < np.inf:
            slope = sign * shape[0] * of_x / (deviation * deviation)
            likely = share * expressed + slope * end
            other = _over_x(sign, end, likely, share, counts, of_x, shape, log_factorial)
            log_p = log_add(log_p, other)
    least = log_least(target, reference, log_factorial)
    return min(max(log_p, least), 0.0)


@jit
def log_least(target, reference, log_factorial):
    """Return the log of the share of allocations with the target's expressing cells as seen."""
    n, m = int(target[0]), int(reference[0])
    left, others_left = n - int(target[1]), m - int(reference[1])
    return (
        log_factorial[left + others_left] - log_factorial[left] - log_factorial[others_left]
        - log_factorial[n + m] + log_factorial[n] + log_factorial[m]
    )  # fmt: skip


@jit
def _over_x(sign, end, likely, share, counts, of_x, shape, log_factorial):
    """Return the log of the mean over x of ``P(sign (S - E S) >= end | x)``.

    Terms rise to one maximum, then fall. The sum starts at `likely`, the mean of x among
    allocations with a sum at `end` if both are normal. Where terms are wider than a step of x,
    every so manieth is added up, which is as good (trapezoidal rule).
    """
    n, expressed, total = counts
    mu, variance, skewness, kurtosis = shape
    silent = total - expressed
    low, high = max(0, n - silent), min(n, expressed)
    middle = mode(n, expressed, total)
    start = int(min(float(high), max(float(low), math.floor(likely + 0.5))))
    step = 1
    within = 0.0
    if variance > 0.0 and 0 < middle < expressed:
        within = middle * (expressed - middle) / (expressed - 1.0) * variance / (mu * mu)
    if within > 0.0 and of_x > 0.0:
        step = max(1, int(_STEP / math.sqrt(1.0 / within + 1.0 / of_x)))
    constant = (
        log_factorial[expressed] + log_factorial[silent] + log_factorial[n]
        + log_factorial[total - n] - log_factorial[total]
    )  # fmt: skip
    largest, added = -np.inf, 0.0
    for direction in (1, -1):
        x = start if direction > 0 else start - step
        before = -np.inf
        while low <= x <= high:
            weight = (
                constant - log_factorial[x] - log_factorial[expressed - x]
                - log_factorial[n - x] - log_factorial[silent - n + x]
            )  # fmt: skip
            if weight < largest - _NOTHING:
                break
            away = end - sign * mu * (x - share * expressed)
            if x == 0 or x == expressed or variance == 0.0:
                term = weight if away <= 0.0 else -np.inf
            else:
                g, k = shape_of_sum(float(x), float(expressed), skewness, kurtosis)
                spread = math.sqrt(x * (expressed - x) / (expressed - 1.0) * variance)
                term = weight
                if away > _SURE * spread:
                    term += log_tail(away / spread, sign * g, k)
            if term > largest:
                added = added * math.exp(largest - term) + 1.0
                largest = term
            elif term > -np.inf:
                added += math.exp(term - largest)
            if term < before and term < largest - _NOTHING:
                break
            before = term
            x += direction * step
    return -np.inf if added == 0.0 else largest + math.log(added * step)
