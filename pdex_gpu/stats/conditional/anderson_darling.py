"""Conditional p-values of the two-sample Anderson-Darling statistic A2 in its midrank form.

E[A2] is exactly 1 under permutation; the constants of the pooled pattern (:mod:`.tie_pattern`)
decide the rest. :mod:`.anderson_darling_mixture` has the formulas. Small p-values
are exact where few allocations are possible (:mod:`.anderson_darling_exact`); otherwise few cells
are judged by :mod:`.anderson_darling_tilted`. Where those or few cells express the gene, p is at
least the probability of the allocation seen.

Pairs with A2 below `LEAST` are not judged: there the limiting distribution has p > 0.17, and the
conditional p-value could not be small.

The pattern is the exact one of each pair, or of the pool. If the reference expresses the gene in
many more cells than the target (8 times as many, or 4 times if most values are distinct, so that
the pattern hardly matters), it is the pattern of the reference: its shares at the pair's own z,
from a table with a step of 1/2 in ``log(e / (z + 1 / (4 E)))``, interpolated by cubics in the
logarithms of the constants.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .anderson_darling_exact import judge_by_allocations
from .anderson_darling_mixture import log_p_from_constants
from .anderson_darling_tilted import judge_by_tilting
from .hypergeometric import log_factorials
from .pooled_cells import count_runs, count_small, merge
from .tie_pattern import N_CONSTANTS, coarsen, constants, room

#: Pairs with a smaller A2 are not judged. It lies below 1.5, which small samples reach exactly, so
#: that rounding does not decide.
LEAST = 1.5 - 1e-9

_FEW = 20  # cells of the smaller sample that are tilted where p is small
_VERY_FEW = 3  # that are always tilted
_FEW_IN_ALL = 64  # pooled cells that are always tilted
_FEW_EXPRESSING = 64  # up to this many, p is at least the probability of the allocation seen
_FEW_VALUES = 16  # distinct values of the reference, with which p may be exact where it is small
_LOG_SMALL, _LOG_TINY = math.log(1e-3), math.log(1e-4)
_SHARED_FROM = 256  # expressing reference cells from which their pattern serves pairs
_SHARED_TIMES = 8  # and times those of the target
_SHARED_TIMES_DISTINCT = 4  # the same, where most values are distinct
_EXACT = 2**53  # float64 holds whole numbers up to this
_STEP = 0.5  # of the table
# What is known of each pair: see :func:`_pairs`.
_START, _STOP, _TARGET, _SMALLER, _TOTAL, _EXPRESSED = range(6)


def log_p_values(
    values: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    n_cells: np.ndarray,
    a2: np.ndarray,
    *,
    pooled: bool,
    rest: bool,
) -> np.ndarray:
    """Return log p of each target of a gene; NaN where it is not judged.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
        Values of the gene, not negative; zeros may be left out.
    starts, stops : numpy.ndarray, shape (n_samples,), int64
        Those of sample i are ``values[starts[i]:stops[i]]``. The first sample is what targets are
        compared with, unless `rest`.
    n_cells : numpy.ndarray, shape (n_samples,), int64
        Number of cells of each sample.
    a2 : numpy.ndarray, shape (n_targets,), float64
        The statistic, NaN where undefined.
    pooled : bool
        Whether the cells that a target is compared with include its own.
    rest : bool
        Whether all samples are targets, each compared with all the others.
    """
    found = np.full(len(a2), np.nan)
    if not len(values):
        return found
    values, starts, stops = _nonzero(values, starts, stops)
    in_a_row, everything = _overview(starts, stops, n_cells)
    if not rest:
        common = values[starts[0] : stops[0]]
    elif in_a_row:
        common = values[starts[0] : stops[-1]]
    else:
        common = np.concatenate([values[a:b] for a, b in zip(starts, stops, strict=True)])
    distinct, counts = _distinct(common)
    log_factorial = log_factorials(everything)
    *pairs, needed = _judge_by_constants(
        a2, starts, stops, n_cells, counts, len(common), pooled, rest, log_factorial, found
    )
    if len(needed):
        own = _collect(needed, values, pairs[2])
        _judge_by_values(needed, *pairs, distinct, counts, own, pooled, log_factorial, found)
    return found


def _nonzero(
    values: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave out zeros, and replace whole numbers that float64 does not hold by their ranks."""
    if _has_zeros(values):
        there = values != 0
        before = np.concatenate([[0], np.cumsum(there)])
        values, starts, stops = values[there], before[starts], before[stops]
    whole = values.dtype.kind in "iu" and values.dtype.itemsize == 8
    if whole and len(values) and int(values.max()) > _EXACT:
        values = np.unique(values, return_inverse=True)[1] + 1
    return values, starts, stops


@jit
def _has_zeros(values):
    found = False
    for i in range(values.size):
        found |= values[i] == 0  # vectorised, as a sum would not be
    return found


@jit
def _overview(starts, stops, n_cells):
    """Return whether samples follow each other, and the number of all cells."""
    in_a_row, n_all = True, 0
    for i in range(n_cells.size):
        in_a_row &= i == 0 or starts[i] == stops[i - 1]
        n_all += n_cells[i]
    return in_a_row, n_all


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values as float64, ascending, and how many cells have each."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return _runs_of_small(values)
    return _runs(np.sort(values))


@jit
def _runs_of_small(values):
    most = values.dtype.type(0)
    for i in range(values.size):
        most = max(most, values[i])
    distinct, counts = np.empty(most + 1), np.empty(most + 1, np.int64)
    n_distinct = count_small(values, most, distinct, counts)
    return distinct[:n_distinct], counts[:n_distinct]


@jit
def _runs(ordered):
    distinct, counts = np.empty(ordered.size), np.empty(ordered.size, np.int64)
    n_distinct = count_runs(ordered, distinct, counts) if ordered.size else 0
    return distinct[:n_distinct], counts[:n_distinct]


@jit
def _judge_by_constants(
    a2, starts, stops, n_cells, counts, n_common, pooled, rest, log_factorial, found
):
    """Fill `found` with log p of the pairs of a gene that share a pattern.

    Other arguments and results are those of :func:`_pairs`.

    Returns
    -------
    log_p : numpy.ndarray, shape (n_pairs,), float64
        What `found` has, by pair.
    needed : numpy.ndarray, int64
        Pairs that must be judged by their values, too.
    """
    judged, statistic, sizes, its, n_shared = _pairs(
        a2, starts, stops, n_cells, counts, n_common, pooled, rest
    )
    log_p = np.empty(judged.size)
    _from_constants(0, n_shared, statistic, sizes, its, log_factorial, log_p)
    for i in range(n_shared):
        found[judged[i]] = log_p[i]
    chosen, _ = _uncertain(sizes[:, :n_shared], counts.size, log_p)
    needed = np.empty(chosen.size + judged.size - n_shared, np.int64)
    needed[: chosen.size] = chosen
    for i in range(n_shared, judged.size):
        needed[chosen.size + i - n_shared] = i
    return judged, statistic, sizes, its, n_shared, log_p, needed


@jit
def _judge_by_values(
    needed, judged, a2, sizes, its, n_shared, log_p, distinct, counts, values, pooled,
    log_factorial, found,
):  # fmt: skip
    """Replace log p of the pairs that :func:`_judge_by_constants` returns as needed.

    Parameters
    ----------
    distinct, counts : float64 and int64
        Distinct values of the reference, or of the pool, ascending, and its cells at each.
    values : float64
        Where `sizes` has them, those of the targets that are needed.
    """
    starts, stops, n_target = sizes[_START], sizes[_STOP], sizes[_TARGET]
    total, expressed = sizes[_TOTAL], sizes[_EXPRESSED]
    if n_shared < judged.size:
        apart = np.arange(n_shared, judged.size)
        _pair_constants(
            apart, distinct, counts, values, starts, stops, expressed, total, pooled, its
        )
        _from_constants(n_shared, judged.size, a2, sizes, its, log_factorial, log_p)
    chosen, tilted = _uncertain(sizes, distinct.size, log_p)
    if chosen.size > 0:
        least = np.full(judged.size, np.nan)
        judge_by_allocations(
            chosen, a2, distinct, counts, values, starts, stops, n_target, total, expressed, pooled,
            log_factorial, log_p, least,
        )  # fmt: skip
        left = (tilted & ~np.isnan(least)).nonzero()[0]
        if left.size > 0:
            judge_by_tilting(
                left, a2, distinct, counts, values, starts, stops, n_target, total, expressed,
                pooled, log_factorial, log_p, least,
            )  # fmt: skip
    for i in needed:
        found[judged[i]] = log_p[i]


@jit
def _from_constants(first, last, a2, sizes, its, log_factorial, log_p):
    """Fill in log p of the pairs from `first` on, before `last`."""
    log_p_from_constants(
        a2[first:last], sizes[_SMALLER][first:last], sizes[_TOTAL][first:last],
        sizes[_EXPRESSED][first:last], its[first:last], log_factorial, log_p[first:last],
    )  # fmt: skip


@jit
def _collect(pairs, values, sizes):
    """Return the values of these targets as float64; `sizes` then tells where they are."""
    n_values = 0
    for i in pairs:
        n_values += sizes[_STOP, i] - sizes[_START, i]
    found, at = np.empty(n_values), 0
    for i in pairs:
        start, stop = sizes[_START, i], sizes[_STOP, i]
        sizes[_START, i] = at
        for k in range(start, stop):
            found[at] = values[k]
            at += 1
        sizes[_STOP, i] = at
    return found


@jit
def _pairs(a2, starts, stops, n_cells, counts, n_common, pooled, rest):
    """Describe the pairs of a gene that are judged, as far as they share a pattern.

    Parameters
    ----------
    a2, starts, stops, n_cells, pooled, rest
        See :func:`log_p_values`.
    counts : int64
        Cells at each distinct value of the reference, or of the pool.
    n_common : int
        Their sum.

    Returns
    -------
    judged : numpy.ndarray, shape (n_pairs,), int64
        Targets. Those whose own pattern counts are the last ones.
    a2 : numpy.ndarray, shape (n_pairs,), float64
    sizes : numpy.ndarray, shape (6, n_pairs), int64
        Of each pair: start and stop of the values of the target, its cells, those of the smaller
        sample, pooled cells, and how many of these express the gene.
    its : numpy.ndarray, shape (n_pairs, 10), float64
        Constants of :mod:`.tie_pattern` of pairs that share a pattern.
    n_shared : int
        How many these are.
    """
    first = 0 if rest else 1
    n_pairs = 0
    for i in range(a2.size):
        n_pairs += a2[i] >= LEAST
    judged, statistic = np.empty(n_pairs, np.int64), np.empty(n_pairs)
    sizes = np.empty((6, n_pairs), np.int64)
    everything = 0
    for i in range(n_cells.size if rest else 1):
        everything += n_cells[i]
    times = _SHARED_TIMES_DISTINCT if 2 * counts.size > n_common else _SHARED_TIMES
    if n_common < _SHARED_FROM or counts.size == 1:  # which has no pattern of its own
        times = 0
    lowest, highest = math.inf, 0.0  # of the shares of expressing cells, with a shared pattern
    n_shared, end = 0, n_pairs
    for i in range(a2.size):
        if not a2[i] >= LEAST:
            continue
        start, stop, n_target = starts[first + i], stops[first + i], n_cells[first + i]
        total, expressed = everything, n_common
        if not pooled:
            total, expressed = everything + n_target, n_common + stop - start
        if not pooled and (times == 0 or (stop - start) * times > n_common):
            end -= 1
            k = end
        else:
            k = n_shared
            n_shared += 1
            lowest = min(lowest, expressed / total)
            highest = max(highest, expressed / total)
        judged[k], statistic[k] = i, a2[i]
        sizes[_START, k], sizes[_STOP, k], sizes[_TARGET, k] = start, stop, n_target
        sizes[_SMALLER, k] = min(n_target, total - n_target)
        sizes[_TOTAL, k], sizes[_EXPRESSED, k] = total, expressed
    its = np.empty((n_pairs, N_CONSTANTS))
    if n_shared > 0:
        pattern, ties = np.empty(counts.size), np.empty(counts.size)
        for i in range(counts.size):
            pattern[i] = counts[i]
        n_blocks = coarsen(pattern, ties, counts.size)
        work = room(n_blocks)
        least = 0.25 / n_common
        last = math.floor(-math.log(least) / _STEP)  # here z is still positive
        below, n_nodes = 0, 1
        if not pooled:
            low = math.floor(math.log(lowest / (1.0 - lowest + least)) / _STEP)
            high = math.floor(math.log(highest / (1.0 - highest + least)) / _STEP)
            below = min(low - 1, last - 3)
            n_nodes = max(min(high + 2, last) - below + 1, 4)
        nodes = np.empty((n_nodes, N_CONSTANTS))
        for j in range(n_nodes):
            if pooled:
                z = 1.0 - lowest
            else:
                odds = math.exp((below + j) * _STEP)
                z = max((1.0 - odds * least) / (1.0 + odds), 0.0)
            constants(pattern, ties, n_blocks, z, work, nodes[j])
        if pooled:
            its[:] = nodes[0]
        else:
            shared = slice(n_shared)
            expressed, total = sizes[_EXPRESSED][shared], sizes[_TOTAL][shared]
            _interpolate(nodes, below, least, expressed, total, its)
    return judged, statistic, sizes, its, n_shared


@jit
def _uncertain(sizes, n_distinct, log_p):
    """Return the pairs whose p-value may be exact or is bounded, and which to tilt if it is not.

    Returns
    -------
    chosen : numpy.ndarray, int64
    tilted : numpy.ndarray, shape (n_pairs,), bool
    """
    n_pairs = sizes.shape[1]
    chosen, n_chosen = np.empty(n_pairs, np.int64), 0
    tilted = np.empty(n_pairs, np.bool_)
    for i in range(n_pairs):
        n = sizes[_SMALLER, i]
        tilted[i] = (
            sizes[_TOTAL, i] <= _FEW_IN_ALL
            or n <= _VERY_FEW
            or (n <= _FEW and log_p[i] < _LOG_TINY)
        )
        few_values = n_distinct <= _FEW_VALUES and log_p[i] < _LOG_SMALL
        if tilted[i] or few_values or sizes[_EXPRESSED, i] <= _FEW_EXPRESSING:
            chosen[n_chosen] = i
            n_chosen += 1
    return chosen[:n_chosen], tilted


@jit
def _interpolate(nodes, first, least, expressed, total, found):
    """Fill `found` by cubics in the logarithms of constants, of which `nodes` has a table.

    Row j of the table is for ``log(e / (1 - e + least)) = (first + j) / 2``.
    """
    for j in range(nodes.shape[0]):
        for k in range(N_CONSTANTS):
            nodes[j, k] = math.log(nodes[j, k])
    for i in range(total.size):
        e = expressed[i] / total[i]
        place = math.log(e / (1.0 - e + least)) / _STEP - first
        low = max(0, min(np.int64(place) - 1, nodes.shape[0] - 4))
        y = place - low
        w0 = -(y - 1.0) * (y - 2.0) * (y - 3.0) / 6.0
        w1 = y * (y - 2.0) * (y - 3.0) / 2.0
        w2 = -y * (y - 1.0) * (y - 3.0) / 2.0
        w3 = y * (y - 1.0) * (y - 2.0) / 6.0
        for k in range(N_CONSTANTS):
            found[i, k] = math.exp(
                w0 * nodes[low, k] + w1 * nodes[low + 1, k]
                + w2 * nodes[low + 2, k] + w3 * nodes[low + 3, k]
            )  # fmt: skip


@jit
def _pair_constants(
    chosen, distinct, counts, values, starts, stops, expressed, total, included, its
):  # fmt: skip
    """Fill `its` with the constants of the pooled pattern of each chosen pair.

    Parameters
    ----------
    chosen : int64
        Pairs among those that other arguments describe.
    distinct, counts, values, included
        See :func:`.pooled_cells.merge`.
    starts, stops, expressed, total : int64, shape (n_pairs,)
        Where the values of the target are, pooled cells that express the gene, and pooled cells.
    its : float64, shape (n_pairs, 10)
    """
    most = 0
    for i in chosen:
        most = max(most, stops[i] - starts[i])
    most += distinct.size
    work = room(most)
    merged, own = np.empty(most, np.int64), np.empty(most, np.int64)
    cells, ties = np.empty(most), np.empty(most)
    for i in chosen:
        n_values = merge(distinct, counts, values, starts[i], stops[i], included, merged, own)
        for k in range(n_values):
            cells[k] = merged[k]
        n_blocks = coarsen(cells, ties, n_values)
        constants(cells, ties, n_blocks, 1.0 - expressed[i] / total[i], work, its[i])
