"""The p-value of the Wilcoxon rank-sum test given the number of expressing cells and the ties.

A pair has n target and m reference cells, N = n + m, of which E express the gene; x of these are
target cells, and y = E - x. With D = 2 U - n m, and D' likewise of the x against the y cells,

    D = N x - n E + D'

Given the pooled values, x is hypergeometric (:mod:`.hypergeometric`), so that

    P(D >= d) = sum over x of h(x) P(D' >= d - N x + n E | x)

The two-sided p-value is P(abs(D) >= abs(d)). All numbers are whole, so equal values are equal.

Ties among expressed values. The lowest class of ties, t cells, relates to the expressing cells as
zeros relate to all: with E, x, E - t for N, n, E the same sum gives P(D' >= d'). It is used where
few cells are above the lowest class or it makes D' skew; in raw counts of sparse genes this class
has most of the cells. How large it is does not follow from the tie term alone. Sizes of classes are
taken to decline geometrically, which determines the ratio, and t is at most 1.3 times
``-Z log(Z / N)`` for Z silent cells: no mixture of Poisson distributions has more cells with a
count of 1 than ``-Z log(Z / N)``, by Jensen's inequality. The rest of the tie term goes into the
variance of the cells above. The tail of D' is that of :mod:`.mann_whitney`.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .hypergeometric import log_factorials, log_weight
from .mann_whitney import log_tail
from .wilcoxon_body import body_p_value

#: Pairs with a larger asymptotic p-value keep it.
BODY = 0.2
#: Smaller p-values of :mod:`.wilcoxon_body` are computed by the whole sum; the second number where
#: a side has at most so many cells.
SMALL, SMALL_OF_FEW, FEW = 3e-3, 3e-2, 8

#: Terms this far below the largest one, in logarithms, end a sum.
_NEGLIGIBLE = 14.0
#: So far below the tail on one side, in logarithms, the other side is left out.
_IMPOSSIBLE = 30.0
#: Sums run in steps of this share of the standard deviation of their terms. The error of the sum is
#: exp(-2 pi^2 / 1.2^2), 1e-6 of it.
_STEP = 1.2
#: The lowest class is summed over where x y / E is at most, or D' more skew than this.
_FEW, _SKEW = 8.0, 0.3
#: Largest size of the lowest class, as a multiple of the bound for mixtures of Poisson.
_SLACK = 1.3

_LOG_2 = math.log(2.0)

# Rows of the table of ties.
_SPREAD, _HALF, _SKEWNESS = 0, 1, 2


@jit
def describe_ties(total, expressed, ties, cells, shape):
    """Fill in the numbers of cells of each level and what ties do to D' there.

    Levels: all cells, the expressing ones, those above the lowest class of ties. `ties` is the sum
    of t^3 - t over the values other than zero. Rows of `shape`: the variance as a share of the
    one without ties; half the distance of values of U; the skewness of one cell's score. Returns
    the last level.
    """
    cells[0], cells[1] = total, expressed
    silent = float(total - expressed)
    bound = _SLACK * silent * math.log(total / silent) if silent > 0.0 else 0.0
    lowest = _describe(1, ties, bound, cells, shape)
    if lowest < 2 or lowest >= expressed or shape[_SPREAD, 1] <= 0.0:
        return 1
    size = float(lowest)
    cells[2] = expressed - lowest
    _describe(2, ties - (size * size * size - size), math.inf, cells, shape)
    return 2


@jit
def _describe(level, ties, bound, cells, shape):
    """Describe one level and return the size of its lowest class of ties."""
    e = float(cells[level])
    cube = e * e * e - e
    share = min(max(ties / cube, 0.0), 1.0) if cube > 0.0 else 0.0
    if share < 1.0:  # a cell that differs from all others leaves about 3 / e of the variance
        share = min(share, 1.0 - 3.0 / (e + 1.0))
    shape[_SPREAD, level] = 1.0 - share
    shape[_HALF, level] = 0.25 + 0.25 * math.sqrt(1.0 + share * e * e)
    shape[_SKEWNESS, level] = 0.0
    if share == 0.0 or share == 1.0:
        return 0
    # Sizes E (1 - q) q^k: the sum of their cubes over E^3 is (1 - q)^2 / (1 + q + q^2).
    a, b = 1.0 - share, 2.0 + share
    q = 2.0 * a / (b + math.sqrt(b * b - 4.0 * a * a))
    first = (1.0 - q) * e
    lowest = math.floor(min(first, bound) + 0.5)
    while lowest > 1.0 and lowest * lowest * lowest - lowest > ties:
        lowest -= 1.0
    # The third moment of 2 F - 1, F the midranks over E, for these sizes.
    cubed = (1.0 - q) * (1.0 - q) * (1.0 - q)
    third = cubed * ((1.0 + q) / (1.0 - q * q * q * q) - 1.0 / (1.0 - q * q * q))
    variance = (1.0 - share) / 3.0
    shape[_SKEWNESS, level] = third / (variance * math.sqrt(variance)) * lowest / first
    return int(lowest)


@jit
def _plan(d, n, total, expressed, sign, spread):
    """Return the range of x, where a sum over it starts, near its largest term, and the step."""
    low, high = max(0, n - (total - expressed)), min(n, expressed)
    mean = n * (expressed / total)
    above = mean * (1.0 - expressed / total) * (total - n) / (total - 1.0)  # variance of x
    inside = mean * (expressed - mean) / 3.0 * (expressed + 1.0) * spread
    inside /= float(total) * total
    peak, step = mean, 1
    if above + inside > 0.0:
        peak += sign * d / total * (above / (above + inside))
    start = int(min(max(math.floor(peak + 0.5), low), high))
    if above > 0.0 and inside > 0.0:
        width = _STEP * math.sqrt(above * inside / (above + inside))
        if width >= 2.0 and min(start - low, high - start) > 5.0 * width:
            step = int(width)
    return low, high, start, step


@jit
def _smooth(d, n, level, sign, cells, shape):
    """Return ``log P(sign D' >= d)`` for n of the cells of a level, without a sum."""
    y = cells[level] - n
    if n == 0 or y == 0 or shape[_SPREAD, level] == 0.0:
        return 0.0 if d <= 0 else -math.inf
    skewness = 0.0
    if min(n, y) > 3:
        skewness = sign * _skewness_of_sum(n, level, cells, shape)
    half = 0.5 + (shape[_HALF, level] - 0.5) / n
    return log_tail(0.5 * d, n, y, shape[_SPREAD, level], half, skewness)


@jit
def _skewness_of_sum(n, level, cells, shape):
    y = cells[level] - n
    return shape[_SKEWNESS, level] * (y - n) / math.sqrt(float(n) * y * cells[level])


@jit
def _log_inner(d, n, last, sign, cells, shape, log_factorial):
    """Return ``log P(sign D' >= d)`` for n of the expressing cells."""
    total = cells[1]
    y = total - n
    if n == 0 or y == 0 or last == 1:
        return _smooth(d, n, 1, sign, cells, shape)
    if float(n) * y > _FEW * total and abs(_skewness_of_sum(n, 1, cells, shape)) < _SKEW:
        return _smooth(d, n, 1, sign, cells, shape)
    above = cells[2]
    low, high, start, step = _plan(d, n, total, above, sign, shape[_SPREAD, 2])
    largest, found = -math.inf, 0.0
    for way in range(2):
        x = start if way == 0 else start - step
        before = -math.inf
        while low <= x <= high:
            term = _smooth(d - sign * (total * x - n * above), x, 2, sign, cells, shape)
            if term > -math.inf:
                term += log_weight(x, n, above, total, log_factorial)
            if term > largest:
                found = found * math.exp(largest - term) + 1.0
                largest = term
            elif term > -math.inf:
                found += math.exp(term - largest)
            if term <= before and -math.inf < term < largest - _NEGLIGIBLE:
                break
            before = term
            x += step if way == 0 else -step
    if largest == -math.inf:
        return largest
    return min(0.0, largest + math.log(found * step))


@jit
def log_upper(d, n, last, sign, least, cells, shape, log_factorial):
    """Return ``log P(sign D >= d)`` for n of all cells.

    The sum may end early if its largest term is below `least`.
    """
    total, expressed = cells[0], cells[1]
    low, high, start, step = _plan(d, n, total, expressed, sign, shape[_SPREAD, 1])
    largest, found = -math.inf, 0.0
    for way in range(2):
        x = start if way == 0 else start - step
        before = -math.inf
        while low <= x <= high:
            term = _log_inner(
                d - sign * (total * x - n * expressed), x, last, sign, cells, shape, log_factorial
            )
            if term > -math.inf:
                term += log_weight(x, n, expressed, total, log_factorial)
            if term > largest:
                found = found * math.exp(largest - term) + 1.0
                largest = term
            elif term > -math.inf:
                found += math.exp(term - largest)
            if -math.inf < term < least:  # near the peak already
                return term
            if term <= before and -math.inf < term < largest - _NEGLIGIBLE:
                break
            before = term
            x += step if way == 0 else -step
    if largest == -math.inf:
        return largest
    return min(0.0, largest + math.log(found * step))


@jit
def log_p_value(u2, n, m, expressed, ties, alternative, cells, shape, log_factorial):
    """Return the logarithm of the p-value of a pair.

    Parameters
    ----------
    u2, n, m, expressed : int
    ties : float
        The sum of t^3 - t over all values.
    alternative : int
        -1 less, 0 two-sided, 1 greater.
    cells, shape : numpy.ndarray, shape (3,), int64; shape (3, 3), float64
        Scratch.
    log_factorial : numpy.ndarray, float64
    """
    total, d = n + m, u2 - n * m
    silent = float(total - expressed)
    if expressed == 0 or (alternative == 0 and d == 0):
        return 0.0
    others = ties - (silent * silent * silent - silent)
    last = describe_ties(total, expressed, others, cells, shape)
    p = body_p_value(d, n, m, expressed, alternative, shape, log_factorial)
    small = SMALL_OF_FEW if min(n, m) <= FEW else SMALL
    if p >= small:
        return math.log(p)
    found = _of_both_tails(d, n, alternative, last, cells, shape, log_factorial)
    if last > 1:  # the lowest class may not be what it is taken for
        least = _of_both_tails(d, n, alternative, 1, cells, shape, log_factorial)
        found = max(found, least - _LOG_2)
    return min(found, math.log(small))  # so that p falls as abs(d) grows


@jit
def _of_both_tails(d, n, alternative, last, cells, shape, log_factorial):
    if alternative != 0:
        return log_upper(
            alternative * d, n, last, alternative, -math.inf, cells, shape, log_factorial
        )
    one = log_upper(abs(d), n, last, 1, -math.inf, cells, shape, log_factorial)
    other = log_upper(abs(d), n, last, -1, one - _IMPOSSIBLE, cells, shape, log_factorial)
    upper = max(one, other)
    if upper == -math.inf:
        return upper
    return min(0.0, upper + math.log1p(math.exp(min(one, other) - upper)))


@jit
def _judge(
    p_value, log_p, u2, ties, n, m, of_target, of_reference, judged, alternative, log_factorial
):  # fmt: skip
    cells, shape = np.zeros(3, np.int64), np.zeros((3, 3))
    for t in range(p_value.shape[0]):
        n_t, m_t = n[t if len(n) > 1 else 0], m[t if len(m) > 1 else 0]
        r = t if len(of_reference) > 1 else 0
        for j in range(p_value.shape[1]):
            if not judged[t if len(judged) > 1 else 0, j] or not p_value[t, j] < BODY:
                continue
            expressed = of_target[t, j] + of_reference[r, j]
            found = log_p_value(
                u2[t, j], n_t, m_t, expressed, ties[t, j], alternative, cells, shape, log_factorial
            )
            p_value[t, j] = math.exp(found)
            log_p[t, j] = found


def judge(
    p_value: np.ndarray,
    u2: np.ndarray,
    ties: np.ndarray,
    n: np.ndarray,
    m: np.ndarray,
    of_target: np.ndarray,
    of_reference: np.ndarray,
    judged: np.ndarray,
    alternative: str,
) -> np.ndarray:
    """Replace asymptotic p-values below :data:`BODY` by conditional ones, in place.

    Parameters
    ----------
    p_value : numpy.ndarray, shape (T, C), float64
        Asymptotic p-values of the same alternative.
    u2, ties : numpy.ndarray, shape (T, C), int64 and float64
        Twice U of the target, and the sum of t^3 - t over all values.
    n, m : numpy.ndarray, shape (T or 1, 1)
        Numbers of target and reference cells, whole numbers from 1 on.
    of_target, of_reference : numpy.ndarray, shape (T, C) and (T or 1, C), int
        Numbers of cells with a value above zero.
    judged : numpy.ndarray, shape (T or 1, C), bool
        Other p-values stay.
    alternative : {"two-sided", "less", "greater"}
        P(abs(D) >= abs(d)), P(U <= u) or P(U >= u).

    Returns
    -------
    numpy.ndarray, shape (T, C), float64
        Natural logarithms of the p-values that were replaced; NaN elsewhere.
    """
    sizes = [np.ascontiguousarray(size[:, 0], np.int64) for size in (n, m)]
    log_p = np.full(p_value.shape, np.nan)
    cells = [np.ascontiguousarray(side, np.int64) for side in (of_target, of_reference)]
    _judge(
        p_value, log_p, np.ascontiguousarray(u2), np.ascontiguousarray(ties), *sizes,
        *cells, np.ascontiguousarray(judged),
        {"less": -1, "two-sided": 0, "greater": 1}[alternative],
        log_factorials(int(sizes[0].max(initial=1) + sizes[1].max(initial=1))),
    )  # fmt: skip
    return log_p
