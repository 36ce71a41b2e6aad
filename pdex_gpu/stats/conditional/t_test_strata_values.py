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
_MOST_TERMS = 20_000
_TINY, _ROUNDING = 1e-9, 1e-12

# Of a stratum: its cells, those drawn, and the index of the value 0.
_CELLS, _DRAWN, _AT = range(3)


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
            cells, rests = pool[0, s], pool[1, s]
            if not shared[s]:
                add(chosen, first, 1, cells, rests)
            total, expressed, n = its[0] + others[0], its[1] + others[1], its[0]
            n_nodes[s] = to_nodes(cells, rests, edges, values[at + 1 :], weights[at + 1 :])
            values[at], weights[at] = 0.0, total - expressed
            atom += log_ways(chosen, first, cells, own, log_factorial)
            if not shared[s]:
                add(chosen, first, -1, cells, rests)
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
            one = _log_tail(values, weights, n_nodes, counts, end, whole, log_factorial)
            found = log_add(found, one)
        if not whole:
            found = log_add(found, atom + LOG_HALF)
        log_p[i] = min(max(found, atom), 0.0)


@jit
def _log_tail(values, weights, n_nodes, counts, end, whole, log_factorial):
    """Return ``log P(S >= end)`` of the sum of the cells drawn within strata."""
    n_strata = n_nodes.size
    firsts, lasts = np.zeros(n_strata, np.int64), np.zeros(n_strata, np.int64)
    drawn, start = np.zeros(n_strata), np.zeros(n_strata + 1)
    most = 0
    for s in range(n_strata):
        total, at = counts[_CELLS, s], counts[_AT, s]
        first, last = at if weights[at] > 0.0 else at + 1, at + n_nodes[s] + 1
        drawn[s] = counts[_DRAWN, s]
        most = max(most, counts[_DRAWN, s])
        if last - first == 1:  # one value
            end -= drawn[s] * values[first]
        elif n_nodes[s] > 0:
            firsts[s], lasts[s] = first, last
            start[s] = math.log(drawn[s] / (total - drawn[s]))
    half = 0.5 if whole else 0.0
    log_p = log_tail_of_sum(values, weights, firsts, lasts, drawn, end, half, start)
    if log_p == -np.inf or log_p == 0.0:
        return log_p
    splits, low, high = np.zeros((3, n_strata), np.int64)
    log_h, likely = np.empty((n_strata, most + 1)), np.empty((n_strata, most + 1))
    n_terms, gap = _split(
        values, weights, firsts, lasts, drawn, counts, whole, start, log_factorial, splits, low,
        high, log_h, likely,
    )  # fmt: skip
    if n_terms > _MOST_TERMS:  # as if the bands lay on a lattice
        half = 0.5 * gap
        return log_tail_of_sum(values, weights, firsts, lasts, drawn, end - half, half, start)
    if n_terms == 1.0:
        return log_p
    return _mean_over_x(
        values, weights, firsts, lasts, drawn, end, half, start, splits, low, high, log_h, likely
    )


@jit
def _split(
    values, weights, firsts, lasts, drawn, counts, whole, start, log_factorial, splits, low, high,
    log_h, likely,
):  # fmt: skip
    """Split the values of strata where this leaves gaps, and list the numbers x of larger ones.

    The split of a stratum, 0 for none, is where the variance given x is smallest at the
    saddlepoint `start`. Of x from `low` to `high`, `log_h` has the logarithms of probabilities, and
    `likely` what these are given the sum, up to a constant. Returns how many combinations there
    are, and the smallest distance of bands.
    """
    n_strata = drawn.size
    b = start[n_strata]
    inside, gaps, expected = _OF_WHOLE if whole else 0.0, np.zeros(n_strata), np.zeros(n_strata)
    for s in range(n_strata):
        mean, s0, s1, s2 = 0.0, 0.0, 0.0, 0.0
        for k in range(firsts[s], lasts[s]):
            mean += weights[k] * values[k] / counts[_CELLS, s]
        below = np.zeros(3)
        largest = 0.0
        for again in range(2):
            below[:] = 0.0
            for k in range(firsts[s], lasts[s]):
                if again == 1 and k > firsts[s] and below[0] > 0.0 and s0 > below[0]:
                    gap = (s1 - below[1]) / (s0 - below[0]) - below[1] / below[0]
                    between = gap * gap * below[0] * (s0 - below[0]) / s0
                    if between > largest:
                        largest, gaps[s], splits[s] = between, gap, k
                        expected[s] = drawn[s] - below[2]
                p = 1.0 / (1.0 + math.exp(-start[s] - b * (values[k] - mean)))
                v = weights[k] * p * (1.0 - p)
                below[0] += v
                below[1] += v * values[k]
                below[2] += weights[k] * p
                if again == 0:
                    s2 += v * values[k] * values[k]
            s0, s1 = below[0], below[1]
        if s0 > 0.0:
            inside += max(s2 - s1 * s1 / s0 - largest, 0.0)
    n_terms, smallest = 1.0, np.inf
    for s in range(n_strata):
        if not gaps[s] * gaps[s] * _FILLED > inside:
            splits[s] = 0
            continue
        larger = 0.0
        for k in range(splits[s], lasts[s]):
            larger += weights[k]
        total, others, n = counts[_CELLS, s], int(larger), counts[_DRAWN, s]
        smaller, x = total - others, expected[s]
        odds = math.log(max(x, _TINY) * max(smaller - n + x, _TINY))
        odds -= math.log(max(others - x, _TINY) * max(n - x, _TINY))
        largest = -np.inf
        fewest, most = max(0, n - smaller), min(n, others)
        for i in range(fewest, most + 1):
            log_h[s, i] = log_weight(i, n, others, total, log_factorial)
            likely[s, i] = log_h[s, i] + i * odds
            largest = max(largest, likely[s, i])
        for i in range(fewest, most + 1):
            likely[s, i] -= largest
        while likely[s, fewest] < -_UNLIKELY:
            fewest += 1
        while likely[s, most] < -_UNLIKELY:
            most -= 1
        low[s], high[s] = fewest, most
        smallest = min(smallest, gaps[s])
        n_terms *= most - fewest + 1.0
    return n_terms, smallest


@jit
def _mean_over_x(
    values, weights, firsts, lasts, drawn, end, half, start, splits, low, high, log_h, likely
):
    """Return the log of the mean of the tail over the numbers x of split strata."""
    n_strata = drawn.size
    # Strata, or their smaller values; then their larger ones.
    froms, tos = np.zeros((2, 2 * n_strata), np.int64)
    taken, first_guess = np.zeros(2 * n_strata), np.zeros(2 * n_strata + 1)
    cells, sums = np.zeros((2, 2 * n_strata))
    for s in range(n_strata):
        cut = splits[s] if splits[s] > 0 else lasts[s]
        for k in range(firsts[s], lasts[s]):
            g = s if k < cut else n_strata + s
            cells[g] += weights[k]
            sums[g] += weights[k] * values[k]
        froms[s], tos[s] = firsts[s], cut
        taken[s], first_guess[s] = drawn[s], start[s]
        for g in (s, n_strata + s):
            if splits[s] > 0:
                mean = (sums[s] + sums[n_strata + s]) / (cells[s] + cells[n_strata + s])
                first_guess[g] = start[s] + start[n_strata] * (sums[g] / cells[g] - mean)
    first_guess[2 * n_strata] = start[n_strata]
    guess, x = first_guess.copy(), low.copy()
    log_p = -np.inf
    while True:
        weight, share, rest = 0.0, 0.0, end
        for s in range(n_strata):
            if splits[s] > 0:
                weight += log_h[s, x[s]]
                share += likely[s, x[s]]
        if share >= -_UNLIKELY and weight >= log_p - _NOTHING:
            varies = False
            for s in range(n_strata):
                for g in (s, n_strata + s):
                    if splits[s] > 0:
                        froms[g] = firsts[s] if g == s else splits[s]
                        tos[g] = splits[s] if g == s else lasts[s]
                        taken[g] = drawn[s] - x[s] if g == s else x[s]
                        if taken[g] == 0.0 or taken[g] == cells[g] or tos[g] - froms[g] == 1:
                            tos[g] = froms[g]
                            rest -= sums[g] * taken[g] / cells[g]
                    varies = varies or tos[g] > froms[g]
            if varies:
                guess[:] = first_guess
                term = weight + log_tail_of_sum(
                    values, weights, froms, tos, taken, rest, half, guess
                )
            else:
                term = weight if rest <= _ROUNDING * abs(end) else -np.inf
            if term > -np.inf:
                log_p = log_add(log_p, term)
        s = 0
        while s < n_strata:
            if splits[s] > 0:
                x[s] += 1
                if x[s] <= high[s]:
                    break
                x[s] = low[s]
            s += 1
        if s == n_strata:
            return log_p
