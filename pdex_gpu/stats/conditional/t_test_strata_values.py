"""Small conditional p-values of the t-test over strata, from the pooled values.

As :mod:`.t_test_values` for one stratum, where :mod:`.t_test_strata` fits a tail to four moments:
sums of cells drawn within strata have the saddlepoint approximation of :mod:`.saddlepoint`.

The number of expressing cells that a stratum gives to the target puts the sum into bands, one mean
of the nonzero values apart. Where the sum varies enough within bands to fill the gaps, all values of
all strata, zeros included, are taken at once. Otherwise p is a mean over the numbers of expressing
cells of the strata with such gaps: the saddlepoint for all values says which are likely given the
sum seen, and the tail given each is that of their nonzero values and of the other strata.

p is at least the probability of the allocation seen, a product over strata. If sums are not whole
numbers, half of it is added, which the approximation leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...utils.jit import jit
from .gene_samples import GeneSamples
from .hypergeometric import log_choose, log_factorials, log_weight
from .saddlepoint import log_tail_of_sum
from .t_test import ALTERNATIVES, Side, arrays_of, certain, ends_of, log_add, seen_sum
from .t_test_strata import gather, places_of, sides_of
from .t_test_values import LOG_HALF, moments_do, variance_of_x
from .value_bins import add, bin_edges, bin_range, log_ways, to_nodes

_SMALL = -3.0  # logarithms of p-values below are computed again
_BLOCK = 4096  # pairs whose strata are gathered at once
_FILLED = 0.2  # variance within bands, as a share of their squared distance, that fills the gaps
_OF_WHOLE = 0.25  # what whole numbers, one apart, add to that variance
_UNLIKELY = 8.0  # numbers of expressing cells this much less likely, as a logarithm, do not count
_NOTHING = 7.0  # nor terms below exp(-7) of the largest
_MOST_CASES = 20_000
_ROOM = 1024  # cases still to be added up
_MORE = 12  # groups, at most, that strata are divided into further
_TINY, _ROUNDING = 1e-9, 1e-12

# Of a stratum: its cells, those drawn, and the index of the value 0.
_CELLS, _DRAWN, _AT = range(3)
# Of a case: the logarithm of its probability, what the sum of its groups must reach, b to start
# from, and the number of groups.
_LOG_H, _REST, _TILT, _GROUPS = range(4)


def refine_over_strata(
    log_p: np.ndarray,
    genes: np.ndarray,
    strata: Sequence[tuple[Side, Side, np.ndarray]],
    values: Sequence[Sequence[GeneSamples]],
    alternative: str,
) -> None:
    """Compute small p-values again, in place.

    Parameters
    ----------
    log_p : numpy.ndarray, shape (n_rows, n_genes), float64
        Their natural logarithms by :func:`.t_test_strata.log_p_over_strata`.
    genes : numpy.ndarray, shape (n_genes,), bool
        The genes to be judged. Their values must not be negative.
    strata, alternative
        As for that function.
    values : sequence of sequence of GeneSamples
        The values of each gene, in each stratum.
    """
    sides = [(arrays_of(target), arrays_of(other)) for target, other, _ in strata]
    places = places_of([rows for *_, rows in strata], len(log_p))
    most = 0
    for target, reference in sides:
        most = max(most, int(np.max(target[0], initial=0) + np.max(reference[0], initial=0)))
    table = log_factorials(most)
    small = (log_p < _SMALL) & genes
    for j in np.flatnonzero(small.any(axis=0)).tolist():
        rows = np.flatnonzero(small[:, j])
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            numbers = np.full((len(some), len(strata), 12), np.nan)
            for s, (target, reference) in enumerate(sides):
                gather(target, reference, places[s, some], np.full(len(some), j), numbers[:, s])
            found = log_p[some, j]
            again = np.zeros(len(some), bool)
            _select(numbers, found, again)
            if again.any():
                chosen = found[again]
                _judge(
                    *_values_of([its[j] for its in values]), places[:, some[again]].T.copy(), numbers[again],
                    ALTERNATIVES[alternative], table, chosen,
                )  # fmt: skip
                log_p[some[again], j] = chosen


def _values_of(samples: Sequence[GeneSamples]) -> tuple[np.ndarray, ...]:
    """Return the first arguments of :func:`_judge`, which describe the values of a gene."""
    bits = np.concatenate([np.asarray(its.values, np.float64) for its in samples]).view(np.int64)
    offsets = np.cumsum([0, *(len(its.values) for its in samples)])
    starts, stops = (
        np.concatenate([ends + offset for ends, offset in zip(of, offsets, strict=False)])
        for of in ([its.starts for its in samples], [its.stops for its in samples])
    )
    firsts = np.cumsum([0, *(len(its.starts) for its in samples)])
    shared = np.array([its.pooled for its in samples])
    rest = np.array([its.rest for its in samples])
    first, n_bins = bin_range(bits)
    return bits, starts, stops, firsts, shared, rest, np.array(first), bin_edges(first, n_bins)


@jit
def _select(numbers, log_p, again):
    """Mark the p-values that are computed again."""
    for i in range(log_p.size):
        of_x, enough = 0.0, True
        for s in range(numbers.shape[1]):
            its, others = sides_of(numbers[i, s])
            if its[1] + others[1] > 0.0:  # not NaN
                of_x += variance_of_x(its, others)
                enough = enough and moments_do(its, others, log_p[i])
        again[i] = not (enough or (of_x > 0.0 and certain(log_p[i], of_x)))


@jit
def _judge(
    bits, starts, stops, firsts, shared, rest, first_bin, edges, targets, numbers, alternative,
    log_factorial, log_p,
):  # fmt: skip
    """Write the log p-values of pairs x strata of one gene.

    Sample k of stratum s is ``bits[starts[i]:stops[i]]`` with ``i = firsts[s] + k``; `targets` has
    the number of each target among the targets of its stratum.
    """
    n_pairs, n_strata = targets.shape
    n_bins, first = edges.size - 1, first_bin.item()
    pool = np.zeros((2, n_strata, n_bins), np.int64)  # cells and the sums of their further digits
    own = np.zeros(n_bins, np.int64)
    values, weights = np.zeros((2, n_strata * (n_bins + 1)))
    counts = np.zeros((3, n_strata), np.int64)
    n_nodes = np.zeros(n_strata, np.int64)
    ranges = np.empty((_ROOM, 2, n_strata + _MORE), np.int64)
    drawn, rests = np.empty((_ROOM, 2, n_strata + _MORE)), np.empty((_ROOM, 4))
    for s in range(n_strata):
        for i in range(firsts[s], firsts[s + 1] if rest[s] else firsts[s] + 1):
            add(bits[starts[i] : stops[i]], first, 1, pool[0, s], pool[1, s])
    for i in range(n_pairs):
        atom, centre, others_centre, seen, slack, whole = 0.0, 0.0, 0.0, 0.0, 0.0, True
        at = 0
        for s in range(n_strata):
            its, others = sides_of(numbers[i, s])
            counts[:, s] = 0
            n_nodes[s] = 0
            if not its[1] + others[1] > 0.0:
                continue
            k = firsts[s] + targets[i, s] + (0 if rest[s] else 1)
            chosen = bits[starts[k] : stops[k]]
            cells, digits = pool[0, s], pool[1, s]
            if not shared[s]:
                add(chosen, first, 1, cells, digits)
            total, expressed, n = its[0] + others[0], its[1] + others[1], its[0]
            n_nodes[s] = to_nodes(cells, digits, edges, values[at + 1 :], weights[at + 1 :])
            values[at], weights[at] = 0.0, total - expressed
            atom += log_ways(chosen, first, cells, own, log_factorial)
            if not shared[s]:
                add(chosen, first, -1, cells, digits)
            atom += log_choose(int(total - expressed), int(n - its[1]), log_factorial)
            atom -= log_choose(int(total), int(n), log_factorial)
            counts[_CELLS, s], counts[_DRAWN, s], counts[_AT, s] = int(total), int(n), at
            at += n_nodes[s] + 1
            c, d, e, w = seen_sum(its, others)
            centre, seen, slack, whole = centre + c, seen + d, slack + e, whole and w
            others_centre += c / n * others[0]
        above, below = ends_of(centre, others_centre, seen, slack, whole, alternative)
        found = -np.inf
        for side in range(2):
            end = above if side == 0 else below
            if abs(end) == np.inf:
                continue
            end += centre
            if side == 1:  # the sum of few is small where the sum of all others is large
                end = centre + others_centre - end
                for s in range(n_strata):
                    counts[_DRAWN, s] = counts[_CELLS, s] - counts[_DRAWN, s]
            one = _log_tail(
                values, weights, n_nodes, counts, end, whole, log_factorial, ranges, drawn, rests
            )
            found = log_add(found, one)
        if not whole:
            found = log_add(found, atom + LOG_HALF)
        log_p[i] = min(max(found, atom), 0.0)


@jit
def _log_tail(values, weights, n_nodes, counts, end, whole, log_factorial, ranges, numbers, rests):
    """Return ``log P(S >= end)`` of the sum of the cells drawn within strata.

    `ranges`, `numbers` and `rests` hold the cases still to be added up: the values of each group,
    the cells drawn from it and its a; the log of the probability of the case, what remains of the
    end, b and the number of groups.
    """
    most_groups = ranges.shape[2]
    froms, tos = np.empty((2, most_groups), np.int64)
    taken, guess = np.empty(most_groups), np.empty(most_groups + 1)
    half = 0.5 if whole else 0.0
    filled = _OF_WHOLE if whole else 0.0
    rest = end
    for s in range(n_nodes.size):
        total, at = counts[_CELLS, s], counts[_AT, s]
        drawn = float(counts[_DRAWN, s])
        first, last = at if weights[at] > 0.0 else at + 1, at + n_nodes[s] + 1
        ranges[0, 0, s], ranges[0, 1, s], numbers[0, 0, s] = 0, 0, drawn
        if last - first == 1:  # one value
            rest -= drawn * values[first]
        elif n_nodes[s] > 0:
            ranges[0, 0, s], ranges[0, 1, s] = first, last
            numbers[0, 1, s] = math.log(drawn / (total - drawn))
    rests[0, _LOG_H], rests[0, _REST], rests[0, _TILT] = 0.0, rest, 0.0
    rests[0, _GROUPS] = n_nodes.size
    log_p, size, n_cases = -np.inf, 1, 0
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
            continue
        tail = log_tail_of_sum(
            values, weights, froms[:n], tos[:n], taken[:n], rest, half, guess[: n + 1]
        )
        if tail == -np.inf:
            tail = LOG_HALF + _log_largest(
                values, weights, froms[:n], tos[:n], taken, rest, log_factorial
            )
        if log_h + tail < log_p - _UNLIKELY:
            continue
        group, cut, gap = -1, 0, 0.0
        if -np.inf < tail < 0.0 and n < most_groups:
            group, cut, gap = _widest_gap(values, weights, froms, tos, guess, n, filled)
        if group >= 0:
            more = 0
            if n_cases < _MOST_CASES:
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
    return log_p


@jit
def _log_largest(values, weights, froms, tos, taken, end, log_factorial):
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
    return log_p if end <= 0.0 else -np.inf


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
