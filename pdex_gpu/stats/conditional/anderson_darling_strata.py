"""Conditional p-values of the sum of A2 over strata: cells are allocated within strata.

The strata are independent given their pooled values, so for any theta the law of the sum S, tilted
to a density proportional to ``exp(theta S)``, is that of a sum of independent tilted A2. In each
stratum it is a mixture over the number x of expressing cells in the smaller sample, with three
cumulants of A2 given x. They come from the exact recursion of :mod:`.anderson_darling_tilted` where
cells are few, otherwise from the constants of the tie pattern (:mod:`.anderson_darling_mixture`):
A2 given x is then a Pearson III variable, or ``top * chi2_1`` plus one, see
:func:`.gamma_tails.log_correction`; tilting changes only their scale. Mixtures of strata are
combined by pairs of components; components with close means are merged, with their first three
moments. With theta such that the tilted mean of S is about the observed a,

    P(S >= a) = E[exp(theta S)] E*[exp(-theta S); S >= a]

and the second factor is a sum over components of incomplete gamma functions. A2 of a single stratum
that is above a counts as a: this does not change P(S >= a), but otherwise the largest A2 of a
sparse gene would outweigh all others in the tilted law. Where a stratum has few allocations,
these are the components. p is at least the probability of the allocation seen, a product over
strata, and of its mirror images if the ties are symmetric.

E[S] is the number of strata. Where S exceeds it by less than `LEAST` - 1, p is not small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...utils.jit import jit
from .anderson_darling import LEAST, _distinct, _nonzero
from .anderson_darling_exact import _log_allocation, terms
from .anderson_darling_nodes import NODES, has_mirror, list_allocations, list_nodes, tilt_cells
from .gene_samples import GeneSamples
from .hypergeometric import log_factorials
from .just_below import just_below
from .pooled_cells import merge
from .tie_pattern import N_CONSTANTS, coarsen, constants, room
from .tilted_mixtures import log_sum_of_tails, merge_close, tilt_nodes, weigh

_FEW = 20  # cells, or expressing cells, of a stratum that has the recursion where p is small
_VERY_FEW = 3  # that has it always
_FEW_IN_ALL = 64  # pooled cells that have it always
_LOG_TINY, _LOG_2 = math.log(1e-4), math.log(2.0)
_MOST_STEPS = 20
_MOST_TILT = 500.0  # of exp(theta times a term); more underflows
_MOST, _MOST_OF_ONE = 256, 40  # components of all strata so far, and of the next
_FEW_VALUES = 45  # distinct values of a stratum whose allocations may be few
_NEAR = 0.3  # standard deviations from the tilted mean to a


#: A2 of each (target, gene), NaN where the stratum does not count; the samples of each gene;
#: numbers of target and reference cells, (T or 1, 1); and the row of each target, -1 for none.
StratumOfSamples = tuple[np.ndarray, Sequence[GeneSamples], np.ndarray, np.ndarray, np.ndarray]


@jit
def _judge(
    a2, targets, n_target, n_all, distinct, counts, ends, values, starts, stops, firsts, included,
    log_factorial, log_p,
):  # fmt: skip
    """Fill `log_p` for the pairs of one gene.

    Parameters
    ----------
    a2 : float64, shape (n_pairs,)
        Sums over strata.
    targets, n_target, n_all : int64, shape (n_pairs, n_strata)
        The target of each stratum, -1 for none; its cells, and its pooled cells.
    distinct, counts, ends
        Distinct values of the reference or pool and its cells at each, see
        :func:`.pooled_cells.merge`; those of stratum s end at ``ends[s + 1]``.
    values, starts, stops, firsts
        Of target t in stratum s, ``values[starts[i]:stops[i]]`` with ``i = firsts[s] + t``.
    included : bool, shape (n_strata,)
        Whether the pool includes the cells of the target.
    """
    n_pairs, n_strata = targets.shape
    most, most_cells = 0, 0
    for i in range(n_pairs):
        for s in range(n_strata):
            if targets[i, s] >= 0:
                j = firsts[s] + targets[i, s]
                most = max(most, ends[s + 1] - ends[s] + stops[j] - starts[j])
                most_cells = max(most_cells, min(n_target[i, s], n_all[i, s] - n_target[i, s]))
    merged, own = np.empty(most, np.int64), np.empty(most, np.int64)
    cells, ties = np.empty((n_strata, most)), np.empty(most)
    whole = np.empty((n_strata, most), np.int64)
    weight, expected = np.empty((n_strata, most)), np.empty((n_strata, most))
    work, its = room(most), np.empty(N_CONSTANTS)
    moments, other = np.empty((most_cells + 1, 4)), np.empty((most_cells + 1, 4))
    nodes, parts = np.empty((n_strata, NODES, 5)), np.empty((n_strata, 4, NODES + 1))
    n_nodes, n_parts = np.zeros(n_strata, np.int64), np.zeros(n_strata, np.int64)
    zeros, n_values, n_small = n_nodes.copy(), n_nodes.copy(), n_nodes.copy()
    exactly, tilted = np.zeros(n_strata, np.bool_), np.zeros(n_strata, np.bool_)
    zero_weight, limits = np.zeros(n_strata), np.zeros((2, n_strata))  # of theta: nodes, cells
    mixture = np.empty((4, (_MOST + 1) * (_MOST_OF_ONE + 1) + 1))
    combined = np.empty((4, (_MOST + 1) * (_MOST_OF_ONE + 1) + 1))
    for i in range(n_pairs):
        latest = 0
        a, log_own = just_below(a2[i]), 0.0
        for s in range(n_strata):
            if targets[i, s] < 0:
                continue
            latest = s
            j = firsts[s] + targets[i, s]
            n, total = n_target[i, s], n_all[i, s]
            some = slice(ends[s], ends[s + 1])
            n_blocks = merge(
                distinct[some], counts[some], values, starts[j], stops[j], included[s], merged, own
            )
            expressed = 0
            for k in range(n_blocks):
                expressed += merged[k]
                cells[s, k] = merged[k]
            zeros[s] = total - expressed
            log_own += _log_allocation(merged, own, n_blocks, zeros[s], n, log_factorial)
            if has_mirror(merged, own, n_blocks, zeros[s], n):
                log_own += _LOG_2
            n = min(n, total - n)
            few_values = n_blocks <= _FEW_VALUES
            n_blocks = coarsen(cells[s], ties, n_blocks)
            n_small[s], n_values[s] = n, n_blocks
            exactly[s] = total <= _FEW_IN_ALL or n <= _VERY_FEW
            tilted[s] = exactly[s] or min(n, expressed) <= _FEW
            if tilted[s]:
                steepest = 0.0
                for k in range(n_blocks):
                    whole[s, k] = np.int64(cells[s, k])
                zero_weight[s] = terms(whole[s], n_blocks, zeros[s], n, weight[s], expected[s])
                for k in range(n_blocks):
                    far = max(expected[s, k], n - expected[s, k])
                    steepest = max(steepest, weight[s, k] * far * far)
                mean = np.float64(n) * expressed / total
                far = max(mean - max(0, n - zeros[s]), min(n, expressed) - mean)
                limits[1, s] = _MOST_TILT / max(steepest, zero_weight[s] * far * far)
            n_nodes[s] = 0
            if tilted[s] and few_values:
                n_nodes[s] = list_allocations(
                    whole[s], n_blocks, zeros[s], n, a, weight[s], expected[s], zero_weight[s],
                    log_factorial, nodes[s],
                )  # fmt: skip
                limits[0, s] = math.inf
            if n_nodes[s] > 0:
                exactly[s] = tilted[s] = False
            elif not exactly[s]:
                constants(cells[s], ties, n_blocks, zeros[s] / total, work, its)
                n_nodes[s], limits[0, s] = list_nodes(
                    a, n, total, expressed, its, log_factorial, nodes[s]
                )
        for attempt in range(2):
            if attempt == 1:
                better = False
                for s in range(n_strata):
                    if targets[i, s] >= 0 and tilted[s] and not exactly[s]:
                        exactly[s] = better = True
                if log_p[i] > _LOG_TINY or not better:
                    break
            limit = math.inf
            for s in range(n_strata):
                if targets[i, s] >= 0:
                    limit = min(limit, limits[np.int64(exactly[s]), s])
            theta, low, high = min(0.4, 0.5 * limit), 0.0, limit
            log_scale = 0.0
            for step in range(_MOST_STEPS):
                log_scale, k1, k2 = 0.0, 0.0, 0.0
                for s in range(n_strata):
                    if targets[i, s] < 0:
                        continue
                    if exactly[s]:
                        n_parts[s] = tilt_cells(
                            theta, a, whole[s], n_values[s], zeros[s], n_small[s], weight[s],
                            expected[s], zero_weight[s], log_factorial, moments, other, parts[s],
                        )  # fmt: skip
                    else:
                        tilt_nodes(theta, nodes[s], n_nodes[s], parts[s])
                        n_parts[s] = n_nodes[s]
                    log_part, mean, variance = weigh(parts[s], n_parts[s])
                    log_scale += log_part
                    k1 += mean
                    k2 += variance
                if step == _MOST_STEPS - 1:
                    break
                if abs(k1 - a) < _NEAR * math.sqrt(k2):
                    break
                if k1 > a:
                    high = theta
                else:
                    low = theta
                tried = 0.0
                if k2 > 1e-9 * k1 * k1:  # the mean of a gamma is 1 / (1 / k1 - theta k2 / k1**2)
                    tried = theta + (a - k1) * k1 / (a * k2)
                if not low < tried < high:
                    tried = 0.5 * (low + high) if high < math.inf else 2.0 * theta
                theta = tried
            size = 1
            mixture[0, 0], mixture[1, 0], mixture[2, 0], mixture[3, 0] = 1.0, 0.0, 0.0, 0.0
            for s in range(n_strata):
                if targets[i, s] < 0:
                    continue
                part = parts[s]
                n = merge_close(part, n_parts[s], _MOST_OF_ONE, a, theta, False)
                for j in range(size):
                    for k in range(n):
                        combined[0, j * n + k] = mixture[0, j] * part[0, k]
                        for moment in range(1, 4):
                            combined[moment, j * n + k] = mixture[moment, j] + part[moment, k]
                mixture, combined = combined, mixture
                size = merge_close(mixture, size * n, _MOST, a, theta, s == latest)
            log_p[i] = log_sum_of_tails(a, theta, log_scale, mixture, size, log_own)


def judge_strata(
    shape: tuple[int, int], strata: Sequence[StratumOfSamples], judged: np.ndarray
) -> np.ndarray:
    """Return log p of the sum of A2; NaN where it is not judged because it is not small.

    Parameters
    ----------
    shape : tuple of int
        Numbers of rows and genes.
    strata : sequence of StratumOfSamples
    judged : numpy.ndarray, shape (n_genes,), bool
        The genes to be judged. Their values must not be negative.

    Returns
    -------
    numpy.ndarray, shape `shape`, float64
    """
    log_p = np.full(shape, np.nan)
    total, excess = np.zeros(shape), np.full(shape, -np.inf)
    place = np.full((len(strata), shape[0]), -1, np.int64)
    largest = 1
    for s, (a2, _, n, m, rows) in enumerate(strata):
        used = np.flatnonzero(rows >= 0)
        place[s, rows[used]] = used
        there = ~np.isnan(a2[used])
        total[rows[used]] += np.where(there, a2[used], 0.0)
        before = np.where(there & np.isinf(excess[rows[used]]), 0.0, excess[rows[used]])
        excess[rows[used]] = before + np.where(there, a2[used] - 1.0, 0.0)
        largest = max(largest, int((n + m).max(initial=1)))
    chosen = (excess >= LEAST - 1.0) & judged
    table = log_factorials(largest)
    for c in np.flatnonzero(chosen.any(axis=0)).tolist():
        rows = np.flatnonzero(chosen[:, c])
        found = np.empty(len(rows))
        _judge(total[rows, c], *_gathered(strata, place[:, rows], c), table, found)
        log_p[rows, c] = found
    return log_p


def _gathered(
    strata: Sequence[StratumOfSamples], place: np.ndarray, gene: int
) -> tuple[np.ndarray, ...]:
    """Return the arguments of :func:`_judge` that describe the pairs of a gene.

    `place` has the target of each (stratum, pair), -1 for none.
    """
    targets = place.T.copy()
    n_target, n_all = np.zeros_like(targets), np.zeros_like(targets)
    lists: list[list[np.ndarray]] = [[], [], [], [], []]
    ends, firsts, size, n_samples = [0], [], 0, 0
    for s, (a2, samples, n, m, _) in enumerate(strata):
        its = samples[gene]
        there = targets[:, s] >= 0
        there[there] = ~np.isnan(a2[targets[there, s], gene])
        targets[~there, s] = -1
        t = targets[there, s]
        n_target[there, s] = np.broadcast_to(n, (len(a2), 1))[t, 0]
        n_all[there, s] = np.broadcast_to(n + m, (len(a2), 1))[t, 0]
        values, starts, stops = _nonzero(its.values, its.starts, its.stops)
        if its.rest:
            common = np.concatenate([values[a:b] for a, b in zip(starts, stops, strict=True)])
        else:
            common = values[starts[0] : stops[0]]
        distinct, counts = _distinct(common)
        for made, more in zip(
            lists, (distinct, counts, values, starts + size, stops + size), strict=True
        ):
            made.append(more)
        ends.append(ends[-1] + len(distinct))
        firsts.append(n_samples + (0 if its.rest else 1))
        n_samples += len(starts)
        size += len(values)
    distinct, counts, values, starts, stops = map(np.concatenate, lists)
    included = np.array([samples[gene].pooled for _, samples, *_ in strata])
    return (
        targets, n_target, n_all, distinct, counts.astype(np.int64), np.array(ends),
        values.astype(np.float64), starts, stops, np.array(firsts), included,
    )  # fmt: skip
