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
from .pooled_cells import count_runs, merge
from .tie_pattern import N_CONSTANTS, coarsen, constants, room

#: Pairs with a smaller A2 are not judged.
LEAST = 1.5

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
    judged = (a2 >= LEAST).nonzero()[0]
    if not len(judged):
        return found
    values, starts, stops = _nonzero(values, starts, stops)
    if not rest:
        common = values[starts[0] : stops[0]]
    elif stops[-1] - starts[0] == (stops - starts).sum():
        common = values[starts[0] : stops[-1]]
    else:
        common = np.concatenate([values[a:b] for a, b in zip(starts, stops, strict=True)])
    distinct, counts = _distinct(common)
    first = 0 if rest else 1
    a2, n_target = a2[judged], np.asarray(n_cells[first:], np.int64)[judged]
    starts, stops = starts[first:][judged], stops[first:][judged]
    n_own = stops - starts
    added = 0 if pooled else 1  # times the cells of a target
    total = int(n_cells.sum() if rest else n_cells[0]) + added * n_target
    expressed = len(common) + added * n_own
    n = np.minimum(n_target, total - n_target)
    log_factorial = log_factorials(int(total.max()))

    its = np.empty((len(judged), N_CONSTANTS))
    if pooled:
        pattern, ties = counts.astype(np.float64), np.empty(len(counts))
        n_blocks = coarsen(pattern, ties, len(pattern))
        share = 1.0 - expressed[0] / total[0]
        constants(pattern, ties, n_blocks, share, room(n_blocks), its[0])
        its[1:] = its[0]
    else:
        times = _SHARED_TIMES_DISTINCT if 2 * len(distinct) > len(common) else _SHARED_TIMES
        shared = n_own * times <= len(common)
        if len(common) < _SHARED_FROM or len(distinct) == 1:  # which has no pattern of its own
            shared[:] = False
        chosen = shared.nonzero()[0]
        if len(chosen):
            its[chosen] = _interpolated(counts, expressed[chosen] / total[chosen])
        chosen = (~shared).nonzero()[0]
        if len(chosen):
            values = values.astype(np.float64, copy=False)
            _pair_constants(
                chosen, distinct, counts, values, starts, stops, expressed, total, pooled, its
            )
    log_p = np.empty(len(judged))
    log_p_from_constants(a2, n, total, expressed, its, log_factorial, log_p)
    tilted = (total <= _FEW_IN_ALL) | (n <= _VERY_FEW) | ((n <= _FEW) & (log_p < _LOG_TINY))
    few_values = len(distinct) <= _FEW_VALUES
    chosen = tilted | (expressed <= _FEW_EXPRESSING) | (few_values & (log_p < _LOG_SMALL))
    if chosen.any():
        values = values.astype(np.float64, copy=False)
        least = np.full(len(judged), np.nan)
        pairs = (
            a2, distinct, counts, values, starts, stops, n_target, total, expressed, pooled,
            log_factorial, log_p, least,
        )  # fmt: skip
        judge_by_allocations(chosen.nonzero()[0], *pairs)
        left = (tilted & ~np.isnan(least)).nonzero()[0]
        if len(left):
            judge_by_tilting(left, *pairs)
    found[judged] = log_p
    return found


def _nonzero(
    values: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave out zeros, and replace whole numbers that float64 does not hold by their ranks."""
    if len(values) and values.min() <= 0:
        there = values != 0
        before = np.concatenate([[0], np.cumsum(there)])
        values, starts, stops = values[there], before[starts], before[stops]
    if values.dtype.kind in "iu" and len(values) and int(values.max()) > _EXACT:
        values = np.unique(values, return_inverse=True)[1] + 1
    return values, starts, stops


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values as float64, ascending, and how many cells have each."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        counts = np.bincount(values)
        found = np.flatnonzero(counts)
        return found.astype(np.float64), counts[found]
    distinct = np.sort(values).astype(np.float64, copy=False)
    counts = np.empty(len(values), np.int64)
    n_distinct = count_runs(distinct, counts)
    return distinct[:n_distinct], counts[:n_distinct]


def _interpolated(counts: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Return the constants of the pattern of the reference at ``z = 1 - e`` of each pair."""
    least = 0.25 / int(counts.sum())
    pattern, ties = counts.astype(np.float64), np.empty(len(counts))
    n_blocks = coarsen(pattern, ties, len(pattern))
    work = room(n_blocks)
    last = math.floor(-math.log(least) / _STEP)  # here z is still positive
    low, high = (math.log(x / (1.0 - x + least)) / _STEP for x in (e.min(), e.max()))
    first = min(math.floor(low) - 1, last - 3)
    nodes = np.empty((max(min(math.floor(high) + 2, last) - first + 1, 4), N_CONSTANTS))
    for j in range(len(nodes)):
        odds = math.exp((first + j) * _STEP)
        z = max((1.0 - odds * least) / (1.0 + odds), 0.0)
        constants(pattern, ties, n_blocks, z, work, nodes[j])
    found = np.empty((len(e), N_CONSTANTS))
    _interpolate(nodes, first, least, e, found)
    return found


@jit
def _interpolate(nodes, first, least, e, found):
    """Fill `found` by cubics in the logarithms of constants, of which `nodes` has a table.

    Row j of the table is for ``log(e / (1 - e + least)) = (first + j) / 2``.
    """
    for j in range(nodes.shape[0]):
        for k in range(N_CONSTANTS):
            nodes[j, k] = math.log(nodes[j, k])
    for i in range(e.size):
        place = math.log(e[i] / (1.0 - e[i] + least)) / _STEP - first
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
