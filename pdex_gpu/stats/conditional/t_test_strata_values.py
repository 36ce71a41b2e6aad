"""Small conditional p-values of the t-test over strata, from the pooled values.

As :mod:`.t_test_values` for one stratum, where :mod:`.t_test_strata` fits a tail to four moments:
sums of cells drawn within strata have the tail of :mod:`.drawn_sums`.

p is at least the probability of the allocation seen, a product over strata. If sums are not whole
numbers, half of it is added where the approximation leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...utils.jit import jit
from .drawn_sums import log_tail, room
from .gene_samples import GeneSamples
from .hypergeometric import log_choose, log_factorials
from .t_test import (
    ALTERNATIVES,
    Side,
    arrays_of,
    certain,
    ends_of,
    log_add,
    pooled,
    seen_sum,
    variance_of_x,
)
from .t_test_strata import gather, places_of, sides_of
from .t_test_values import LOG_HALF, SMALL, moments_do
from .value_bins import add, bin_edges, bin_range, log_ways, to_nodes

_LARGEST = -3.0  # logarithms of p-values below are computed again ...
_HEAVY = 0.3  # ... unless S has a smaller fourth cumulant than this, in squared variances
_ROUNDING = 1e-6  # of logarithms
_BLOCK = 4096  # pairs whose strata are gathered at once


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
    small = (log_p < _LARGEST) & genes
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
                chosen, targets = found[again], places[:, some[again]].T.copy()
                _judge(
                    *_values_of([its[j] for its in values]), targets, numbers[again],
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
    """Mark the p-values that are computed again.

    The fourth cumulant of S is also small if one sample has most large values, or if strata cancel;
    `heavy` therefore is that of a small target.
    """
    for i in range(log_p.size):
        of_x, variance, heavy, enough = 0.0, 0.0, 0.0, True
        for s in range(numbers.shape[1]):
            its, others = sides_of(numbers[i, s])
            _, second, _, fourth = pooled(its, others)
            if second > 0.0:  # not NaN
                of_x += variance_of_x(its, others)
                size = its[0] + others[0]
                cells = its[0] * others[0] / size
                variance += cells * second / size
                heavy += cells * max(fourth / size - 3.0 * (second / size) ** 2, 0.0)
                enough = enough and moments_do(its, others, log_p[i], 0.0)
        if heavy <= _HEAVY * variance * variance:
            enough = enough or log_p[i] >= SMALL or (of_x > 0.0 and certain(log_p[i], of_x))
        again[i] = not enough


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
    begins, ends = np.zeros((2, n_strata), np.int64)
    sizes, drawn = np.zeros((2, n_strata))
    work = room(n_strata)
    for s in range(n_strata):
        for i in range(firsts[s], firsts[s + 1] if rest[s] else firsts[s] + 1):
            add(bits[starts[i] : stops[i]], first, 1, pool[0, s], pool[1, s])
    for i in range(n_pairs):
        atom, centre, others_centre, seen, slack, whole = 0.0, 0.0, 0.0, 0.0, 0.0, True
        at = 0
        for s in range(n_strata):
            its, others = sides_of(numbers[i, s])
            begins[s] = ends[s] = at
            if not its[1] + others[1] > 0.0:
                continue
            k = firsts[s] + targets[i, s] + (0 if rest[s] else 1)
            chosen = bits[starts[k] : stops[k]]
            cells, digits = pool[0, s], pool[1, s]
            if not shared[s]:
                add(chosen, first, 1, cells, digits)
            total, expressed, n = its[0] + others[0], its[1] + others[1], its[0]
            n_nodes = to_nodes(cells, digits, edges, values[at + 1 :], weights[at + 1 :])
            values[at], weights[at] = 0.0, total - expressed
            atom += log_ways(chosen, first, cells, own, log_factorial)
            if not shared[s]:
                add(chosen, first, -1, cells, digits)
            atom += log_choose(int(total - expressed), int(n - its[1]), log_factorial)
            atom -= log_choose(int(total), int(n), log_factorial)
            begins[s] = at if total > expressed else at + 1
            at += n_nodes + 1
            ends[s], sizes[s], drawn[s] = at, total, n
            c, d, e, w = seen_sum(its, others)
            centre, seen, slack, whole = centre + c, seen + d, slack + e, whole and w
            others_centre += c / n * others[0]
        above, below = ends_of(centre, others_centre, seen, slack, whole, alternative)
        found, at_end, half = -np.inf, -np.inf, 0.5 if whole else 0.0
        for side in range(2):
            end = above if side == 0 else below
            if abs(end) == np.inf:
                continue
            end += centre
            if side == 1:  # the sum of few is small where the sum of all others is large
                end = centre + others_centre - end
                drawn[:] = sizes - drawn
            one, at = log_tail(
                values,
                weights,
                begins,
                ends,
                drawn,
                end + half,
                half,
                half * half,
                log_factorial,
                work,
            )
            found, at_end = log_add(found, one), log_add(at_end, at)
        if not whole and at_end < atom - _ROUNDING:
            found = log_add(found, atom + LOG_HALF)
        log_p[i] = min(max(found, atom), 0.0)
