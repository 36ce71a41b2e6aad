"""The tail of a sum of cells drawn within strata, by saddlepoints where it is smooth.

The saddlepoint approximation of :mod:`.saddlepoint` takes the sum to be continuous, or a multiple
of a number. Sums of few cells may be neither. A zero among values near 1, or one value of 50 among
small ones, puts the sum into bands. Then a stratum is divided in two, its smaller and its larger
values: given how many of its cells come from either, which is hypergeometric, these are strata of
their own. The tail is the mean over that number of tails in which the bands have gone, and each of
them may be divided again.

Gaps are judged at the saddlepoint. The distance of bands is the difference of the means of both
parts; the width of a band is the variance of the sum given the numbers drawn from the parts.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .hypergeometric import log_choose, log_weight
from .saddlepoint import log_tail_of_sum
from .t_test import log_add

_FILLED = 0.2  # variance within bands, as a share of their squared distance, that fills the gaps
_UNLIKELY = 8.0  # cases that add less than exp(-8) of the sum so far are not divided
_NOTHING = 7.0  # cases less likely than exp(-7) of the sum so far do not count
_MOST_CASES = 20_000
_ROOM = 1024  # cases still to be added up
_MORE = 12  # groups, at most, that strata are divided into further
_TINY, _ROUNDING = 1e-9, 1e-12
_NEAR = 1e-8  # relative: sums this near `end` lie there

# Of a case: the logarithm of its probability, what the sum of its groups must reach, b to start
# from, and the number of groups.
_LOG_H, _REST, _TILT, _GROUPS = range(4)


@jit
def room(n_strata):
    """Return working memory of :func:`log_tail` for as many strata."""
    shape = _ROOM, 2, n_strata + _MORE
    return np.empty(shape, np.int64), np.empty(shape), np.empty((_ROOM, 4))


@jit
def log_tail(values, weights, firsts, lasts, drawn, end, half, filled, log_factorial, work):
    """Return ``log P(S >= end)`` of the sum of the cells drawn within strata.

    Parameters
    ----------
    values, weights : numpy.ndarray, float64
        Distinct values of each stratum, ascending, and the number of cells at each.
    firsts, lasts : numpy.ndarray, shape (n_strata,), int64
        Those of stratum s are ``values[firsts[s]:lasts[s]]``; strata without any do not count.
    drawn : numpy.ndarray, shape (n_strata,), float64
        Cells drawn, at least one and not all.
    end, half : float64
        The smallest sum that counts, and half the distance of possible sums, 0 if these are
        continuous.
    filled : float64
        What the distance of possible sums adds to the variance within bands: the square of `half`
        where sums are multiples of a number.
    log_factorial : numpy.ndarray
    work : tuple of numpy.ndarray
        Of :func:`room`.

    Returns
    -------
    log_p, log_at_end : float64
        The second one is the part of it from sums known to equal `end`. If `half` is 0, other sums
        equal to `end` are counted with half their probability.
    """
    # The cases still to be added up: the values of each group; the cells drawn and a of each.
    ranges, numbers, rests = work
    most_groups = ranges.shape[2]
    froms, tos = np.empty((2, most_groups), np.int64)
    taken, guess = np.empty(most_groups), np.empty(most_groups + 1)
    rest = end
    for s in range(drawn.size):
        first, last = firsts[s], lasts[s]
        ranges[0, 0, s], ranges[0, 1, s], numbers[0, 0, s] = first, last, drawn[s]
        if last - first == 1:  # one value
            rest -= drawn[s] * values[first]
            ranges[0, 0, s] = last
        elif last > first:
            total = 0.0
            for k in range(first, last):
                total += weights[k]
            numbers[0, 1, s] = math.log(drawn[s] / (total - drawn[s]))
    rests[0, _LOG_H], rests[0, _REST], rests[0, _TILT] = 0.0, rest, 0.0
    rests[0, _GROUPS] = drawn.size
    log_p, log_at_end, size, n_cases = -np.inf, -np.inf, 1, 0
    while size > 0:
        size -= 1
        n_cases += 1
        log_h, rest, n = rests[size, _LOG_H], rests[size, _REST], int(rests[size, _GROUPS])
        if log_h < log_p - _NOTHING:
            continue
        varies = False
        for g in range(n):
            froms[g], tos[g] = ranges[size, 0, g], ranges[size, 1, g]
            taken[g], guess[g] = numbers[size, 0, g], numbers[size, 1, g]
            varies = varies or froms[g] < tos[g]
        guess[n] = rests[size, _TILT]
        if not varies:
            if rest <= _ROUNDING * abs(end):
                log_p = log_add(log_p, log_h)
                if rest >= -_NEAR * abs(end):
                    log_at_end = log_add(log_at_end, log_h)
            continue
        tail = log_tail_of_sum(
            values, weights, froms[:n], tos[:n], taken[:n], rest - half, half, guess[: n + 1]
        )
        if tail == -np.inf:
            tail = _log_largest(
                values, weights, froms[:n], tos[:n], taken, rest, _ROUNDING * abs(end),
                log_factorial,
            )  # fmt: skip
            log_p = log_add(log_p, log_h + tail)
            log_at_end = log_add(log_at_end, log_h + tail)
            continue
        group, cut, gap = -1, 0, 0.0
        if tail < 0.0 and log_h + tail >= log_p - _UNLIKELY:  # others are many, but not divided
            group, cut, gap = _widest_gap(values, weights, froms, tos, guess, n, filled)
        if group >= 0:
            more = 0
            if n_cases < _MOST_CASES and n < most_groups:
                more = _divide(
                    values, weights, froms, tos, taken, guess, n, group, cut, log_h, rest,
                    log_factorial, ranges, numbers, rests, size,
                )  # fmt: skip
            if more > 0:
                size += more
                continue
            # As if the bands lay on a lattice.
            wide = 0.5 * gap
            tail = log_tail_of_sum(
                values, weights, froms[:n], tos[:n], taken[:n], rest - wide, wide, guess[: n + 1]
            )
        log_p = log_add(log_p, log_h + tail)
    return log_p, log_at_end


@jit
def _log_largest(values, weights, froms, tos, taken, end, rounding, log_factorial):
    """Return the log of the probability of the largest sum, -infinity if it is below `end`."""
    log_p = 0.0
    for g in range(froms.size):
        left, cells = int(taken[g]), 0
        drawn = left
        for k in range(tos[g] - 1, froms[g] - 1, -1):
            its = int(weights[k])
            cells += its
            number = min(left, its)
            left -= number
            end -= number * values[k]
            log_p += log_choose(its, number, log_factorial)
        if cells > 0:
            log_p -= log_choose(cells, drawn, log_factorial)
    return log_p if end <= rounding else -np.inf


@jit
def _widest_gap(values, weights, froms, tos, guess, n, inside):
    """Return a group whose values leave gaps in the sum, where to divide it, and the distance.

    Each group has a best place to divide it: where the variance of the sum given the number of its
    larger values is smallest, for cells drawn as at the saddlepoint. `inside` and these variances
    together fill the gaps; the group is -1 if they do.
    """
    widest, group, cut = 0.0, -1, 0
    for g in range(n):
        first, last = froms[g], tos[g]
        if last - first < 2:
            continue
        cells, mean = 0.0, 0.0
        for k in range(first, last):
            cells += weights[k]
            mean += weights[k] * values[k]
        mean /= cells
        s0, s1, s2 = 0.0, 0.0, 0.0
        v = np.empty(last - first)
        for k in range(first, last):
            p = 1.0 / (1.0 + math.exp(-guess[g] - guess[n] * (values[k] - mean)))
            its = weights[k] * p * (1.0 - p)
            v[k - first] = its
            s0 += its
            s1 += its * values[k]
            s2 += its * values[k] * values[k]
        below, sum_below, most, gap, at = 0.0, 0.0, 0.0, 0.0, 0
        for k in range(first + 1, last):
            below += v[k - 1 - first]
            sum_below += v[k - 1 - first] * values[k - 1]
            above = s0 - below
            if below > 0.0 and above > 0.0:
                apart = (s1 - sum_below) / above - sum_below / below
                between = apart * apart * below * above / s0
                if between > most:
                    most, gap, at = between, apart, k
        if most > 0.0:
            inside += max(s2 - s1 * s1 / s0 - most, 0.0)
            if gap > widest:
                widest, group, cut = gap, g, at
    if widest * widest * _FILLED > inside:
        return group, cut, widest
    return -1, 0, 0.0


@jit
def _divide(
    values, weights, froms, tos, taken, guess, n, group, cut, log_h, rest, log_factorial, ranges,
    numbers, rests, size,
):  # fmt: skip
    """List a case for each likely number x of larger values, the likeliest last.

    Returns how many there are, 0 if there is no room for them.
    """
    cells, sums, expected = np.zeros(2), np.zeros(2), 0.0
    for k in range(froms[group], tos[group]):
        part = int(k >= cut)
        cells[part] += weights[k]
        sums[part] += weights[k] * values[k]
    mean = (sums[0] + sums[1]) / (cells[0] + cells[1])
    for k in range(cut, tos[group]):
        logit = guess[group] + guess[n] * (values[k] - mean)
        expected += weights[k] / (1.0 + math.exp(-logit))
    smaller, larger, drawn = int(cells[0]), int(cells[1]), int(taken[group])
    odds = 0.0
    if guess[n] > 0.0:  # otherwise what is likely is so whatever the sum
        odds += math.log(max(expected, _TINY) * max(smaller - drawn + expected, _TINY))
        odds -= math.log(max(larger - expected, _TINY) * max(drawn - expected, _TINY))
    low, high = max(0, drawn - smaller), min(drawn, larger)
    own = np.empty(high - low + 1)
    largest = -np.inf
    for x in range(low, high + 1):
        own[x - low] = log_weight(x, drawn, larger, smaller + larger, log_factorial)
        largest = max(largest, own[x - low] + x * odds)
    fewest = low
    while own[low - fewest] + low * odds < largest - _UNLIKELY:
        low += 1
    while own[high - fewest] + high * odds < largest - _UNLIKELY:
        high -= 1
    if size + high - low + 1 > rests.shape[0]:
        return 0
    first_size = size
    while low <= high:
        x = high
        if own[low - fewest] + low * odds < own[high - fewest] + high * odds:
            x = low
            low += 1
        else:
            high -= 1
        rests[size, _LOG_H], rests[size, _TILT] = log_h + own[x - fewest], guess[n]
        rests[size, _GROUPS] = n + 1
        left = rest
        for g in range(n):
            ranges[size, 0, g], ranges[size, 1, g] = froms[g], tos[g]
            numbers[size, 0, g], numbers[size, 1, g] = taken[g], guess[g]
        for part in range(2):
            g = group if part == 0 else n
            number = float(drawn - x if part == 0 else x)
            first, last = (froms[group], cut) if part == 0 else (cut, tos[group])
            if number == 0.0 or number == cells[part] or last - first == 1:
                left -= sums[part] * number / cells[part]
                first = last
            ranges[size, 0, g], ranges[size, 1, g] = first, last
            numbers[size, 0, g] = number
            numbers[size, 1, g] = guess[group] + guess[n] * (sums[part] / cells[part] - mean)
        rests[size, _REST] = left
        size += 1
    return size - first_size
