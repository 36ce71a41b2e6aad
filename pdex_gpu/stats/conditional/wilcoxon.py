"""The p-value of the Wilcoxon rank-sum test given the number of expressing cells and the ties.

A pair has n target and m reference cells, N = n + m, of which E express the gene; x of these are
target cells, and y = E - x. With D = 2 U - n m, and D' likewise of the x against the y cells,

    D = N x - n E + D'

Given the pooled values, x is hypergeometric (:mod:`.hypergeometric`), so that

    P(D >= d) = sum over x of h(x) P(D' >= d - N x + n E | x)

The two-sided p-value is P(abs(D) >= abs(d)). All numbers are whole, so equal values are equal.

Ties among expressed values. The lowest class of ties, t cells, relates to the expressing cells as
zeros relate to all: with E, x, E - t for N, n, E the same sum gives P(D' >= d'), and so on for the
classes above it. `lowest` has the sizes of the first few; in raw counts of sparse genes these have
nearly all cells. A class is summed over where few cells are above it, where d' is near the end of
its support, or where ties make D' skew. The rest of the tie term goes into the variance of the
cells above, whose skewness is that of classes of geometrically declining sizes. The tail of D' is
that of :mod:`.mann_whitney`.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .hypergeometric import log_factorials, log_weight
from .mann_whitney import log_tail
from .wilcoxon_body import (
    continuous_p_value,
    overlaps,
    skewness_of_geometric,
    summed_p_value,
)

#: Pairs with a larger asymptotic p-value keep it. So do those above the second number where D is
#: nearly continuous and no side has few cells: there the normal approximation is good to 3 %
#: without ties, and with ties as good as :mod:`.wilcoxon_body`.
BODY, BODY_OF_CONTINUOUS = 0.2, 0.1
#: Smaller p-values of :mod:`.wilcoxon_body` are computed by the whole sum; the second number where
#: a side has at most so many cells.
SMALL, SMALL_OF_FEW, FEW = 1e-3, 3e-2, 8

#: Terms this far below the largest one, in logarithms, end a sum.
_NEGLIGIBLE = 6.0
#: Sums run in steps of this share of the standard deviation of their terms. The error of the sum is
#: 2 exp(-2 pi^2 / 1.8^2), 0.5 % of it.
_STEP = 1.8
#: Classes of ties are summed over where x y / E is at most, or D' more skew than this.
_FEW, _SKEW = 8.0, 0.3
#: One class is summed over. There are two if a side has at most so many cells and p is below the
#: second number, or if a side has at most `FEW`; all classes if both. Each multiplies the time.
_SMALL_SIDE, _DEEP = 30, 1e-4
#: Beyond this share of the support of D', the first number is larger.
_END, _FEW_AT_END = 0.5, 30.0

_NO_LOGARITHMS = np.empty((0, 0))

# Rows of the table of ties.
_SPREAD, _HALF, _SKEWNESS = 0, 1, 2
# Rows of the stack of sums: whole numbers, then the others.
_D, _N, _X, _STEP_OF, _START, _LOW, _HIGH = range(7)
_WEIGHT, _LARGEST, _FOUND, _BEFORE = range(4)


@jit
def _above_zero(ties, expressed, lowest):
    """Return the tie term of the expressing cells, without rounding errors."""
    known, above = 0.0, expressed
    for t in lowest:
        known += float(t) * t * t - t
        above -= t
    # Where all classes are known, what is left is rounding.
    return known + (max(ties - known, 0.0) if above > 1 else 0.0)


@jit
def _share(ties, cells):
    """Return the share of the variance of D' that ties take."""
    cube = cells * cells * cells - cells
    return min(max(ties / cube, 0.0), 1.0) if cube > 0.0 else 0.0


@jit
def _half_distance(share, cells):
    """Return half the distance of values of U."""
    return 0.25 + 0.25 * math.sqrt(1.0 + share * cells * cells)


@jit
def describe_ties(total, expressed, ties, lowest, deepest, cells, shape):
    """Fill in the numbers of cells of each level and what ties do to D' there.

    Levels, at most `deepest` from 1 on: all cells, the expressing ones, those above the lowest
    class of ties, and so on. `ties` is the sum of t^3 - t over the values other than zero. Rows of
    `shape`: the variance as a share of the one without ties; half the distance of values of U; the
    skewness of one cell's score.
    Returns the last level.
    """
    cells[0], cells[1] = total, expressed
    ties = _above_zero(ties, expressed, lowest)
    level = 1
    while True:
        e = float(cells[level])
        share = _share(ties, e)
        shape[_SPREAD, level] = 1.0 - share
        shape[_HALF, level] = _half_distance(share, e)
        shape[_SKEWNESS, level] = 0.0
        if share == 0.0 or share == 1.0:
            return level
        shape[_SKEWNESS, level] = skewness_of_geometric(share)
        size = lowest[level - 1] if level <= lowest.size else 0
        if level == deepest or size < 2 or size >= cells[level]:
            return level
        ties -= float(size) * size * size - size
        cells[level + 1] = cells[level] - size
        level += 1


@jit
def _reaches(d, x, n, total, expressed, sign):
    """Return whether ``sign D >= d`` is possible, given x: D' is at most x (E - x)."""
    return d - sign * (total * x - n * expressed) <= x * (expressed - x)


@jit
def _plan(d, n, total, expressed, sign, spread):
    """Return the range of x, where a sum over it starts, near its largest term, and the step.

    The range is empty if no x will do: `high` is below `low`.
    """
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
        if width >= 2.0 and min(start - low, high - start) > 3.0 * width:
            step = int(width)
    if step == 1 and not _reaches(d, start, n, total, expressed, sign):
        # The more extreme x is, the farther D reaches. Start at the first x that will do.
        short, far = start, high if sign > 0 else low
        if not _reaches(d, far, n, total, expressed, sign):
            return 0, -1, 0, 1
        while abs(far - short) > 1:
            x = (far + short) // 2
            if _reaches(d, x, n, total, expressed, sign):
                far = x
            else:
                short = x
        start = far
    return low, high, start, step


@jit
def _log_smooth(d, n, level, last, sign, cells, shape):
    """Return ``log P(sign D' >= d)`` for n of the cells of a level; NaN if that takes a sum."""
    total = cells[level]
    y = total - n
    if n == 0 or y == 0 or (level == last and shape[_SPREAD, level] == 0.0):
        return 0.0 if d <= 0 else -math.inf
    pairs = float(n) * y
    if d > pairs:
        return -math.inf
    if d <= -pairs:
        return 0.0
    skewness = 0.0
    if min(n, y) > 3:
        skewness = sign * shape[_SKEWNESS, level] * (y - n) / math.sqrt(pairs * total)
    if level < last:
        few = _FEW if abs(d) < _END * pairs else _FEW_AT_END
        if level == 0 or pairs <= few * total or abs(skewness) >= _SKEW:
            return math.nan
    half = 0.5 + (shape[_HALF, level] - 0.5) / n
    return log_tail(0.5 * d, n, y, shape[_SPREAD, level], half, skewness)


@jit
def log_upper(d, n, last, sign, cells, shape, whole, sums, log_factorial):
    """Return ``log P(sign D >= d)`` for n of all cells.

    A term of a level's sum may need the sum of the next level. A stack holds the sums begun,
    because numba cannot cache a function that calls itself.

    Parameters
    ----------
    d, n, last, sign : int
    cells, shape : numpy.ndarray
        As :func:`describe_ties` left them.
    whole, sums : numpy.ndarray, shape (7, L + 2), int64; shape (4, L + 2), float64
        Scratch: the stack.
    """
    level = 0
    whole[_D, 0], whole[_N, 0] = d, n
    while True:
        term = _log_smooth(whole[_D, level], whole[_N, level], level, last, sign, cells, shape)
        if term == term:
            level -= 1
            term += sums[_WEIGHT, level]
        else:
            low, high, start, step = _plan(
                whole[_D, level], whole[_N, level], cells[level], cells[level + 1], sign,
                shape[_SPREAD, level + 1],
            )  # fmt: skip
            whole[_LOW, level], whole[_HIGH, level] = low, high
            whole[_START, level], whole[_X, level], whole[_STEP_OF, level] = start, start, step
            sums[_BEFORE, level], sums[_LARGEST, level] = -math.inf, -math.inf
            sums[_FOUND, level] = 0.0
        while True:  # NaN at first: there is no term yet
            ends = False
            if term == term:
                largest = sums[_LARGEST, level]
                if term > largest:
                    sums[_FOUND, level] = sums[_FOUND, level] * math.exp(largest - term) + 1.0
                    sums[_LARGEST, level] = term
                elif term > -math.inf:
                    sums[_FOUND, level] += math.exp(term - largest)
                if term > -math.inf:
                    ends = term <= sums[_BEFORE, level] and term < largest - _NEGLIGIBLE
                else:  # nor can D be reached from less extreme x
                    ends = sign * whole[_STEP_OF, level] < 0
                sums[_BEFORE, level] = term
                whole[_X, level] += whole[_STEP_OF, level]
            x, step = whole[_X, level], whole[_STEP_OF, level]
            if step > 0 and (ends or x > whole[_HIGH, level]):  # turn round
                ends, x, step = False, whole[_START, level] - step, -step
                whole[_X, level], whole[_STEP_OF, level] = x, step
                sums[_BEFORE, level] = -math.inf
            largest = sums[_LARGEST, level]
            if ends or x < whole[_LOW, level]:
                term = largest
                if largest > -math.inf:
                    term = min(0.0, largest + math.log(-step * sums[_FOUND, level]))
                if level == 0:
                    return term
                level -= 1
                term += sums[_WEIGHT, level]
                continue
            n, above, total = whole[_N, level], cells[level + 1], cells[level]
            term = log_weight(x, n, above, total, log_factorial)
            if term > largest - _NEGLIGIBLE:
                sums[_WEIGHT, level] = term
                whole[_D, level + 1] = whole[_D, level] - sign * (total * x - n * above)
                whole[_N, level + 1] = x
                level += 1
                break


@jit
def _log_small(
    p, d, n, m, expressed, ties, lowest, alternative, cells, shape, whole, sums, log_factorial
):  # fmt: skip
    """Return the logarithm of a small p-value, which is about `p`, by the whole sum.

    Parameters
    ----------
    p : float
    d, n, m, expressed : int
    ties : float
        The sum of t^3 - t over the values other than zero.
    lowest : numpy.ndarray, shape (L,), int32
        Numbers of cells at the lowest values above zero; 0 where there are no more.
    alternative : int
        -1 less, 0 two-sided, 1 greater.
    cells, shape, whole, sums : numpy.ndarray
        Scratch; see :func:`log_upper`.
    log_factorial : numpy.ndarray, float64
    """
    few, deep = min(n, m) <= FEW, p < _DEEP
    deepest = 3 if few or (deep and min(n, m) <= _SMALL_SIDE) else 2
    if few and deep:
        deepest = lowest.size + 1
    last = describe_ties(n + m, expressed, ties, lowest, deepest, cells, shape)
    found = -math.inf
    for side in range(2 if alternative == 0 else 1):
        sign = alternative if alternative != 0 else 1 - 2 * side
        one = log_upper(
            abs(d) if alternative == 0 else sign * d, n, last, sign, cells, shape, whole, sums,
            log_factorial,
        )  # fmt: skip
        upper = max(found, one)
        if upper > -math.inf:
            found = min(0.0, upper + math.log1p(math.exp(min(found, one) - upper)))
    return found


@jit
def _judge(
    p_value, log_p, u2, ties, lowest, n, m, of_target, of_reference, judged, alternative,
    log_factorial,
):  # fmt: skip
    # No views of arrays are made here, except for small p-values: numba counts references to them.
    n_levels = lowest.shape[2] + 2
    cells, shape = np.zeros(n_levels, np.int64), np.zeros((3, n_levels))
    whole, sums = np.zeros((7, n_levels), np.int64), np.zeros((4, n_levels))
    classes = np.zeros(lowest.shape[2], np.int64)
    for t in range(p_value.shape[0]):
        n_t, m_t = n[t if len(n) > 1 else 0], m[t if len(m) > 1 else 0]
        few = min(n_t, m_t) <= FEW
        small = SMALL_OF_FEW if few else SMALL
        r = t if len(of_reference) > 1 else 0
        for j in range(p_value.shape[1]):
            if not judged[t if len(judged) > 1 else 0, j] or not p_value[t, j] < BODY:
                continue
            expressed = of_target[t, j] + of_reference[r, j]
            d = u2[t, j] - n_t * m_t
            p = 1.0
            if expressed > 0 and (alternative != 0 or d != 0):
                for k in range(classes.size):
                    classes[k] = lowest[t, j, k]
                silent = float(n_t + m_t - expressed)
                others = ties[t, j] - (silent * silent * silent - silent)
                share = _share(_above_zero(others, expressed, classes), float(expressed))
                p = math.nan
                if overlaps(n_t, m_t, expressed, 1.0 - share):
                    if not few and p_value[t, j] >= BODY_OF_CONTINUOUS:
                        continue
                    p = continuous_p_value(d, n_t, m_t, expressed, alternative, 1.0 - share)
                if p != p:
                    p = summed_p_value(
                        d, n_t, m_t, expressed, alternative, 1.0 - share,
                        _half_distance(share, float(expressed)), log_factorial,
                    )  # fmt: skip
                if not p >= small:
                    found = _log_small(
                        p, d, n_t, m_t, expressed, others, classes, alternative, cells, shape,
                        whole, sums, log_factorial,
                    )  # fmt: skip
                    found = min(found, math.log(small))  # so that p falls as abs(d) grows
                    p_value[t, j] = math.exp(found)
                    if log_p.size > 0:
                        log_p[t, j] = found
                    continue
            p_value[t, j] = p
            if log_p.size > 0:
                log_p[t, j] = math.log(p)


def judge(
    p_value: np.ndarray,
    u2: np.ndarray,
    ties: np.ndarray,
    lowest: np.ndarray,
    n: np.ndarray,
    m: np.ndarray,
    of_target: np.ndarray,
    of_reference: np.ndarray,
    judged: np.ndarray,
    alternative: str,
    log_p: np.ndarray | None = None,
) -> None:
    """Replace asymptotic p-values by conditional ones, in place, but those that are not small.

    Kept are those from :data:`BODY` on, and where D is nearly continuous from
    :data:`BODY_OF_CONTINUOUS` on.

    Parameters
    ----------
    p_value : numpy.ndarray, shape (T, C), float64
        Asymptotic p-values of the same alternative.
    u2, ties : numpy.ndarray, shape (T, C), int64 and float64
        Twice U of the target, and the sum of t^3 - t over all values.
    lowest : numpy.ndarray, shape (T, C, L), int32
        Numbers of cells of the pair at the lowest values above zero; 0 where there are no more.
    n, m : numpy.ndarray, shape (T or 1, 1)
        Numbers of target and reference cells, whole numbers from 1 on.
    of_target, of_reference : numpy.ndarray, shape (T, C) and (T or 1, C), int
        Numbers of cells with a value above zero.
    judged : numpy.ndarray, shape (T or 1, C), bool
        Other p-values stay.
    alternative : {"two-sided", "less", "greater"}
        P(abs(D) >= abs(d)), P(U <= u) or P(U >= u).
    log_p : numpy.ndarray, shape (T, C), float64, optional
        Where p-values are replaced, their natural logarithms are written here.
    """
    sizes = [np.ascontiguousarray(size[:, 0], np.int64) for size in (n, m)]
    cells = [np.ascontiguousarray(side, np.int64) for side in (of_target, of_reference)]
    _judge(
        p_value, _NO_LOGARITHMS if log_p is None else log_p, np.ascontiguousarray(u2),
        np.ascontiguousarray(ties), np.ascontiguousarray(lowest), *sizes, *cells,
        np.ascontiguousarray(judged),
        {"less": -1, "two-sided": 0, "greater": 1}[alternative],
        log_factorials(int(sizes[0].max(initial=1) + sizes[1].max(initial=1))),
    )  # fmt: skip
