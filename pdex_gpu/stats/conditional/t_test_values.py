"""Small conditional p-values of the t-test from the pooled values themselves, not their moments.

:mod:`.t_test` fits a tail to four moments. Where few cells of a sample express the gene or values
have heavy tails, this is not good enough for small p-values. Those are computed again here, from
the pooled values: the tail of :mod:`.drawn_sums`, for one stratum.

The allocation seen has a probability of its own: that of choosing as many cells of each value as
the target has. The p-value is at least that. If sums are not whole numbers, the approximation is
one for continuous sums, which counts about half of it; the other half is added.
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
    numbers_of,
    of_expressed,
    pooled,
    seen_sum,
    variance_of_x,
)
from .value_bins import add, bin_edges, bin_range, log_ways, to_nodes

SMALL = -5.5  # logarithms of p-values below are computed again ...
_MANY_CELLS = 12.0  # ... unless both samples have so many cells,
_REACH = 16.0  # times these, at most, is the square of the logarithm ...
_FURTHEST = 784.0  # ... or this: p is 1e-12,
_MANY_EXPRESSING = 256.0  # so many cells express,
_LIGHT = 4.0  # tails are no heavier: the kurtosis of nonzero values;
_MANY_EXPECTED = 40.0  # or so many are expected in the smaller sample
_EXCESS = 0.2  # and the kurtosis above 3 is at most this times its cells
_ROUNDING = 1e-6  # of logarithms
LOG_HALF = float(np.log(0.5))


def refine(
    log_p: np.ndarray,
    genes: np.ndarray,
    values: Sequence[GeneSamples],
    target: Side,
    reference: Side,
    alternative: str,
) -> None:
    """Compute small p-values again, in place.

    Parameters
    ----------
    log_p : numpy.ndarray, shape (T, C), float64
        Their natural logarithms by :func:`.t_test.log_p_values`.
    genes : numpy.ndarray, shape (C,), bool
        The genes to be judged. Their values must not be negative.
    values : sequence of GeneSamples
        The values of each gene.
    target, reference, alternative
        As for :func:`.t_test.log_p_values`.
    """
    sides = arrays_of(target), arrays_of(reference)
    most = int(np.max(sides[0][0], initial=0) + np.max(sides[1][0], initial=0))
    table = log_factorials(most)
    again = np.zeros(log_p.shape, bool)
    _select(*sides, genes, log_p, again)
    for j in np.flatnonzero(again.any(axis=0)).tolist():
        its = values[j]
        bits = np.ascontiguousarray(its.values, np.float64).view(np.int64)
        first, n_bins = bin_range(bits)
        _judge(
            bits, its.starts, its.stops, its.pooled, its.rest, first, bin_edges(first, n_bins),
            *sides, j, ALTERNATIVES[alternative], table, again, log_p,
        )  # fmt: skip


@jit
def _select(target, reference, genes, log_p, again):
    """Mark the p-values that are computed again."""
    for t in range(log_p.shape[0]):
        for j in range(log_p.shape[1]):
            if not (genes[j] and log_p[t, j] < SMALL):
                continue
            its, others = numbers_of(target, t, j), numbers_of(reference, t, j)
            of_x = variance_of_x(its, others)
            sure = of_x > 0.0 and certain(log_p[t, j], of_x)
            again[t, j] = not (sure or moments_do(its, others, log_p[t, j], _EXCESS))


@jit
def _judge(
    bits, starts, stops, shared, rest, first, edges, target, reference, j, alternative,
    log_factorial, again, log_p,
):  # fmt: skip
    n_bins = edges.size - 1
    cells, rests, own = np.zeros((3, n_bins), np.int64)
    values, weights = np.zeros(n_bins + 1), np.zeros(n_bins + 1)
    firsts, lasts, drawn, work = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), room(1)
    offset = 0 if rest else 1
    for i in range(starts.size if rest else 1):
        add(bits[starts[i] : stops[i]], first, 1, cells, rests)
    n_nodes = 0
    for t in range(log_p.shape[0]):
        if not again[t, j]:
            continue
        its, others = numbers_of(target, t, j), numbers_of(reference, t, j)
        n, total = its[0], its[0] + others[0]
        expressed = its[1] + others[1]
        chosen = bits[starts[t + offset] : stops[t + offset]]
        if not shared:
            add(chosen, first, 1, cells, rests)
        if not shared or n_nodes == 0:
            n_nodes = to_nodes(cells, rests, edges, values[1:], weights[1:])
        weights[0] = total - expressed
        atom = log_ways(chosen, first, cells, own, log_factorial)
        if not shared:
            add(chosen, first, -1, cells, rests)
        atom += log_choose(int(total - expressed), int(n - its[1]), log_factorial)
        atom -= log_choose(int(total), int(n), log_factorial)
        centre, seen, slack, whole = seen_sum(its, others)
        above, below = ends_of(
            centre, centre / n * others[0], seen, slack, whole, alternative
        )  # fmt: skip
        found, at_end, half = -np.inf, -np.inf, 0.5 if whole else 0.0
        firsts[0], lasts[0] = 0 if total > expressed else 1, n_nodes + 1
        for side in range(2):
            end = above if side == 0 else below
            if abs(end) == np.inf:
                continue
            end += centre
            drawn[0] = n
            if side == 1:  # the sum of few is small where the sum of all others is large
                end = centre / n * total - end
                drawn[0] = total - n
            one, at = log_tail(
                values,
                weights,
                firsts,
                lasts,
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
        log_p[t, j] = min(max(found, atom), 0.0)


@jit
def moments_do(target, reference, log_p, excess):
    """Return whether four moments are enough for the tail.

    `excess` is what the kurtosis above 3 may be, as a share of the smaller sample's cells, where
    many of them express.
    """
    n, m, expressed = target[0], reference[0], target[1] + reference[1]
    smaller = min(n, m)
    far = min(log_p * log_p, _FURTHEST) > _REACH * smaller
    if smaller < _MANY_CELLS or expressed < _MANY_EXPRESSING or far:
        return False
    kurtosis = of_expressed(n + m, expressed, *pooled(target, reference))[3]
    many = smaller * expressed >= _MANY_EXPECTED * (n + m)
    return kurtosis <= _LIGHT or (many and kurtosis - 3.0 <= excess * smaller)
