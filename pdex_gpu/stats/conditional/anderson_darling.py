"""Conditional p-values of the two-sample Anderson-Darling statistic A2 in its midrank form.

N = n + m pooled cells, E of which express the gene, lambda = n E / N; see :mod:`.tie_pattern` for
the constants of the pooled pattern. Of the n cells of the smaller sample, x express the gene with
probability h(x) (:mod:`.hypergeometric`). Given x, with d = x - lambda, f = x (E - x) / (E - 1) and
gamma = (N - 1) E / (n m N), A2 is a quadratic form whose cumulants are those of a Gaussian bridge
among the expressing cells with a shift in proportion to d::

    k1 = d**2 c0 + f c1     k2 = 2 f**2 c2 + 4 d**2 f d1     k3 = 8 f**3 c3 + 24 d**2 f**2 d2

    c0 = (N - 1) N / (n m E) [Z > 0] + gamma C0, c_i = gamma**i C_i, d1 = gamma**2 D1,
    d2 = gamma**3 D2

and ``p = sum over x of h(x) P(A2 >= a | x)``, with Pearson III tails. E[A2] is exactly 1 under
permutation. Where lambda is at least 20, x needs no sum: A2 is a sum of chi-squares with cumulants
1, 2 T2 and 8 T3; unless p is below 1e-3, where the skewness of x matters. Few cells are judged by
:mod:`.anderson_darling_tilted`. Where those or few cells express the gene, p is at least the
probability of the allocation seen.

Pairs with A2 below `LEAST` are not judged: there the limiting distribution has p > 0.17, and the
conditional p-value could not be small.

The pattern is the exact one of each pair, or of the pool. If the reference expresses the gene in
many more cells than the target, it is the pattern of the reference: its shares at the pair's own z,
from a table with a step of 1/2 in ``log(e / (z + 1 / (4 E)))``, interpolated by cubics in the
logarithms of the constants.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .anderson_darling_tilted import log_allocation, log_tilted
from .gamma_tails import log_correction, log_tail
from .hypergeometric import log_factorials, log_weight, mode
from .pooled_cells import locate, merge
from .tie_pattern import (
    C0,
    C1,
    C2,
    C3,
    C_TOP,
    D1,
    D2,
    N_CONSTANTS,
    T2,
    T3,
    T_TOP,
    coarsen,
    constants,
)  # fmt: skip

#: Pairs with a smaller A2 are not judged.
LEAST = 1.5

_MANY = 20.0  # expected expressing cells from which x needs no sum
_NEGLIGIBLE = 16.0  # logarithm of a share of p
_STEPS_PER_SD = 16.0  # of the sum over x
_FEW = 20  # cells of the smaller sample that are tilted where p is small
_VERY_FEW = 3  # that are always tilted
_FEW_IN_ALL = 64  # pooled cells that are always tilted
_FEW_EXPRESSING = 64  # up to this many, p is at least the probability of the allocation seen
_LOG_SMALL = math.log(1e-3)
_LOG_TINY = math.log(1e-4)
_SHARED_FROM = 256  # expressing reference cells from which their pattern serves pairs
_SHARED_TIMES = 16  # and times those of the target
_EXACT = 2**53  # float64 holds whole numbers up to this
_STEP = 0.5
_NODES, _CENTRE = 160, 80  # of the table


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
    judged = a2 >= LEAST
    if not judged.any():
        return found
    values, starts, stops = _nonzero(values, starts, stops)
    first = 0 if rest else 1
    n_target = np.asarray(n_cells[first:], np.int64)
    size = int(n_cells.sum() if rest else n_cells[0])
    if not rest:
        common = values[starts[0] : stops[0]]
    elif stops[-1] - starts[0] == (stops - starts).sum():
        common = values[starts[0] : stops[-1]]
    else:
        common = np.concatenate([values[a:b] for a, b in zip(starts, stops, strict=True)])
    most = (stops - starts)[first:].max()
    smallest = min(n_target.min(), size - n_target.max() if pooled else size)
    by_reference = pooled or len(common) >= max(_SHARED_FROM, _SHARED_TIMES * most)
    # Converting all values takes a while, and most genes do not need it.
    needed = not by_reference or smallest <= _FEW or size <= _FEW_IN_ALL
    needed |= len(common) <= _FEW_EXPRESSING
    _judge_gene(
        a2, *_distinct(common), size,
        values.astype(np.float64, copy=False) if needed else np.zeros(0),
        starts[first:], stops[first:], n_target, pooled,
        log_factorials(size + (0 if pooled else int(n_target.max()))), found,
    )  # fmt: skip
    return found


def _nonzero(
    values: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave out zeros, and replace whole numbers that float64 does not hold by their ranks."""
    there = values != 0
    if not there.all():
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
    ordered = np.sort(values)
    first = np.flatnonzero(ordered[1:] != ordered[:-1])
    first = np.concatenate([np.zeros(min(len(values), 1), np.int64), first + 1])
    return ordered[first].astype(np.float64), np.diff(first, append=len(values))


@jit
def _judge_gene(
    a2, distinct, counts, size, values, starts, stops, n_target, pooled, log_factorial, found
):
    """Judge all targets of a gene.

    Parameters
    ----------
    distinct, counts : float64 and int64, shape (n_distinct,)
        Distinct values other than 0 of what targets are compared with, and cells at each.
    values : float64
        May be empty if all targets are judged by that pattern, and none has few cells.
    """
    n_distinct = distinct.size
    n_common = counts.sum()
    longest = 0
    for t in range(n_target.size):
        longest = max(longest, stops[t] - starts[t])
    most = n_distinct + longest
    work = np.empty((6, most + 1))
    merged, own = np.empty(most, np.int64), np.empty(most, np.int64)
    cells, ties = np.empty(most), np.empty(most)
    pattern, pattern_ties = np.empty(n_distinct), np.empty(n_distinct)  # of `common`
    n_pattern = 0
    nodes, known = np.empty((_NODES, N_CONSTANTS)), np.zeros(_NODES, np.bool_)
    its = np.empty(N_CONSTANTS)
    for t in range(n_target.size):
        a = a2[t]
        if not a >= LEAST:
            continue
        n_own = stops[t] - starts[t]
        total = size if pooled else size + n_target[t]
        expressed = n_common if pooled else n_common + n_own
        zeros = total - expressed
        n = min(n_target[t], total - n_target[t])
        n_merged = 0
        shared = pooled or (n_common >= _SHARED_FROM and n_common >= _SHARED_TIMES * n_own)
        if shared:
            if n_pattern == 0:
                for k in range(n_distinct):
                    pattern[k] = counts[k]
                n_pattern = coarsen(pattern, pattern_ties, n_distinct)
                if pooled:
                    constants(pattern, pattern_ties, n_pattern, zeros / total, work, its)
            if not pooled:
                _interpolated(
                    pattern,
                    pattern_ties,
                    n_pattern,
                    n_common,
                    expressed / total,
                    work,
                    nodes,
                    known,
                    its,
                )
        else:
            n_merged = merge(distinct, counts, values[starts[t] : stops[t]], merged, own)
            for k in range(n_merged):
                cells[k] = merged[k]
            constants(cells, ties, coarsen(cells, ties, n_merged), zeros / total, work, its)
        log_p = _log_p(a, n, total, expressed, its, log_factorial)
        tilted = total <= _FEW_IN_ALL or n <= _VERY_FEW or (n <= _FEW and log_p < _LOG_TINY)
        if (tilted or expressed <= _FEW_EXPRESSING) and shared:
            target = values[starts[t] : stops[t]]
            if pooled:
                n_merged = locate(distinct, counts, target, merged, own)
            else:
                n_merged = merge(distinct, counts, target, merged, own)
        if tilted or expressed <= _FEW_EXPRESSING:
            least = log_allocation(
                merged[:n_merged], own[:n_merged], zeros, n_target[t], log_factorial
            )
            log_p = max(log_p, least)
            if tilted:
                log_p = _log_tilted(
                    a, merged[:n_merged], cells, ties, zeros, n, least, log_factorial
                )
        found[t] = log_p


@jit
def _log_tilted(a, merged, room, ties, zeros, n, log_own, log_factorial):
    """Return log p by tilting, for the pooled cells at each distinct value other than 0."""
    for k in range(merged.size):
        room[k] = merged[k]
    n_values = coarsen(room, ties, merged.size)
    for k in range(n_values):
        merged[k] = np.int64(room[k])
    return log_tilted(a * (1.0 - 1e-9), merged[:n_values], zeros, n, log_own, log_factorial)


@jit
def _log_p(a, n, total, expressed, its, log_factorial):
    """Return log p from the constants of the pattern."""
    if np.float64(n) * expressed >= _MANY * total:
        k2, k3 = 2.0 * its[T2], 8.0 * its[T3]
        log_p = log_tail(a, 1.0, k2, k3) + log_correction(a, its[T_TOP], 1.0, k2, k3)
        if log_p > _LOG_SMALL:
            return log_p
    return _log_mixture(a * (1.0 - 1e-9), n, total, expressed, its, log_factorial)


@jit
def _log_mixture(a, n, total, expressed, its, log_factorial):
    """Sum over the number of expressing cells among the n."""
    size, pairs = np.float64(total), np.float64(n) * (total - n)
    silent = total - expressed
    gamma = (size - 1.0) / pairs * (expressed / size)
    c0 = gamma * its[C0]
    if silent > 0:
        c0 += (size - 1.0) * size / (pairs * expressed)
    c1, c2, c3 = gamma * its[C1], gamma**2 * its[C2], gamma**3 * its[C3]
    d1, d2 = gamma**2 * its[D1], gamma**3 * its[D2]
    mean = np.float64(n) * expressed / total
    # Steps far below the standard deviation of x make no difference.
    variance = mean * (silent / size) * ((size - n) / (size - 1.0))
    stride = max(1, np.int64(math.sqrt(variance) / _STEPS_PER_SD))
    least, most = max(0, n - silent), min(n, expressed)
    middle = mode(n, expressed, total)
    sum_of_parts, highest = 0.0, -math.inf
    at = np.int64(middle)  # of the highest part
    for direction in range(2):
        step = stride - 2 * stride * direction
        x = np.int64(middle) - stride * direction
        while least <= x <= most:
            h = log_weight(x, n, expressed, total, log_factorial)
            if sum_of_parts > 0.0 and h < highest + math.log(sum_of_parts) - _NEGLIGIBLE:
                break  # and all beyond, as P is at most 1
            k1, k2, k3 = _cumulants(x, mean, expressed, c0, c1, c2, c3, d1, d2)
            part = h + log_tail(a, k1, k2, k3)
            if part > highest:
                sum_of_parts = sum_of_parts * math.exp(highest - part) + 1.0
                highest = part
                at = x
            elif part > -math.inf:
                sum_of_parts += math.exp(part - highest)
            x += step
    if sum_of_parts == 0.0:  # rounding: A2 is the largest possible
        return max(
            log_weight(least, n, expressed, total, log_factorial),
            log_weight(most, n, expressed, total, log_factorial),
        )
    log_p = highest + math.log(sum_of_parts * stride)
    k1, k2, k3 = _cumulants(at, mean, expressed, c0, c1, c2, c3, d1, d2)
    top = _bridge(at, expressed) * gamma * its[C_TOP]
    return min(log_p + log_correction(a, top, k1, k2, k3), 0.0)


@jit
def _bridge(x, expressed):
    return x * np.float64(expressed - x) / max(expressed - 1.0, 1.0)


@jit
def _cumulants(x, mean, expressed, c0, c1, c2, c3, d1, d2):
    """Return the cumulants of A2 given x."""
    d = (x - mean) ** 2
    f = _bridge(x, expressed)
    k1 = d * c0 + f * c1
    k2 = 2.0 * f * (f * c2 + 2.0 * d * d1)
    return k1, k2, 8.0 * f * f * (f * c3 + 3.0 * d * d2)


@jit
def _interpolated(shared, ties, n_shared, expressed, e, work, nodes, known, its):
    """Compute the constants of the shares of the reference at ``z = 1 - e``, from the table."""
    least = 0.25 / expressed
    place = math.log(e / (1.0 - e + least)) / _STEP
    last = math.floor(-math.log(least) / _STEP)  # here z is still positive
    first = min(math.floor(place) - 1, last - 3)
    for j in range(4):
        node = first + j + _CENTRE
        if not known[node]:
            odds = math.exp((first + j) * _STEP)
            z = max((1.0 - odds * least) / (1.0 + odds), 0.0)
            constants(shared, ties, n_shared, z, work, nodes[node])
            for i in range(N_CONSTANTS):
                nodes[node, i] = math.log(nodes[node, i])
            known[node] = True
    y = place - first
    weights = (
        -(y - 1.0) * (y - 2.0) * (y - 3.0) / 6.0,
        y * (y - 2.0) * (y - 3.0) / 2.0,
        -y * (y - 1.0) * (y - 3.0) / 2.0,
        y * (y - 1.0) * (y - 2.0) / 6.0,
    )
    for i in range(N_CONSTANTS):
        total = 0.0
        for j in range(4):
            total += weights[j] * nodes[first + j + _CENTRE, i]
        its[i] = math.exp(total)
