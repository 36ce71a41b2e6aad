"""Moments of every (group, gene) of a packed block.

Sums do not depend on the order of entries (see `exact_sums`), so the bits depend on nothing but
the values. Second moment by the corrected two-pass algorithm (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import numpy as np

from ...design import Design
from ..contract import Moments
from .exact_sums import add_exactly, extremes, folds, sum_of
from .jit import jit
from .pack import PackedBlock
from .transforms import (
    bound_of_expm1,
    bound_of_log1p,
    expm1_of,
    log1p_of,
    log1p_of_counts,
    look_up,
)
from .wide import two_product

_HUGE = 2.0**900  # beyond, the rounding of the mean is not looked at


def moments(
    block: PackedBlock,
    genes: slice,
    design: Design,
    *,
    centred: bool,
    expm1: bool,
    log1p: bool = False,
) -> Moments:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.moments`."""
    shape = (design.n_groups, genes.stop - genes.start)
    n_expressed = np.diff(block.offsets[:, genes], axis=0).astype(np.int32)
    mean = np.full(shape, np.nan)
    m2 = np.full(shape if centred else (0, 0), np.nan)
    mean_expm1 = np.full(shape, np.nan) if expm1 else None
    mean_log1p = np.full(shape, np.nan) if log1p else None
    where = block.values, block.offsets, genes.start, genes.stop, design.n_cells
    ends = np.full((shape[1], shape[0], 2), np.nan)
    _moments(*where, centred, ends, mean, m2)
    if mean_expm1 is not None:
        _mean_expm1(*where, ends, mean_expm1)
    if mean_log1p is not None and block.values.dtype == np.uint16:
        _mean_of_table(*where, log1p_of_counts(), ends, mean_log1p)
    elif mean_log1p is not None:
        _mean_log1p(*where, ends, mean_log1p)
    return Moments(n_expressed, mean, m2 if centred else None, mean_expm1, mean_log1p)


@jit
def _moments(values, offsets, j0, j1, n_cells, centred, ends, mean, m2):
    """`ends` are the smallest and the largest entry, 0 where there is none."""
    for j in range(j0, j1):
        c = j - j0
        stop = offsets[0, j]
        for g in range(n_cells.size):
            start, stop = stop, offsets[g + 1, j]
            x = values[start:stop]
            n = n_cells[g]
            n_zero = n - x.size
            smallest, largest = 0.0, 0.0
            if x.size > 0:
                smallest, largest = extremes(x)
            ends[c, g, 0] = smallest
            ends[c, g, 1] = largest
            if x.size == 0 or (n_zero == 0 and smallest == largest):
                mean[g, c] = smallest
                if centred:
                    m2[g, c] = 0.0
                continue
            bound = max(abs(smallest), abs(largest))
            first, second = folds(bound, x.size)
            high, low = sum_of(x, first, second)
            mu = (high + low) / n
            mean[g, c] = mu
            if centred:
                # What rounding of the mean left; zero in exact arithmetic.
                product, error = two_product(np.float64(n), mu)
                residual = ((high - product) + low) - error if bound < _HUGE else 0.0
                squares = _squared_deviations(x, smallest, largest, mu)
                m2[g, c] = squares + n_zero * (mu * mu) - residual * residual / n


@jit
def _mean_expm1(values, offsets, j0, j1, n_cells, ends, mean):
    terms = _room(offsets, j0, j1)
    for j in range(j0, j1):
        expm1_of(values[offsets[0, j] : offsets[-1, j]], terms)
        for g in range(n_cells.size):
            bound = bound_of_expm1(ends[j - j0, g, 0], ends[j - j0, g, 1])
            mean[g, j - j0] = _sum_of_group(terms, offsets[:, j], g, bound) / n_cells[g]


@jit
def _mean_log1p(values, offsets, j0, j1, n_cells, ends, mean):
    terms = _room(offsets, j0, j1)
    for j in range(j0, j1):
        log1p_of(values[offsets[0, j] : offsets[-1, j]], terms)
        for g in range(n_cells.size):
            bound = bound_of_log1p(ends[j - j0, g, 0], ends[j - j0, g, 1])
            mean[g, j - j0] = _sum_of_group(terms, offsets[:, j], g, bound) / n_cells[g]


@jit
def _mean_of_table(values, offsets, j0, j1, n_cells, table, ends, mean):
    terms = _room(offsets, j0, j1)
    for j in range(j0, j1):
        look_up(values[offsets[0, j] : offsets[-1, j]], table, terms)
        for g in range(n_cells.size):
            bound = bound_of_log1p(ends[j - j0, g, 0], ends[j - j0, g, 1])
            mean[g, j - j0] = _sum_of_group(terms, offsets[:, j], g, bound) / n_cells[g]


@jit
def _room(offsets, j0, j1):
    """For the terms of a gene."""
    longest = 0
    for j in range(j0, j1):
        longest = max(longest, offsets[-1, j] - offsets[0, j])
    return np.empty(longest, np.float64)


@jit
def _sum_of_group(terms, offsets, g, bound):
    x = terms[offsets[g] - offsets[0] : offsets[g + 1] - offsets[0]]
    first, second = folds(bound, x.size)
    high, low = sum_of(x, first, second)
    return high + low


@jit
def _squared_deviations(x, smallest, largest, mu):
    bound = max(abs(smallest - mu), abs(largest - mu))
    first, second = folds(bound * bound, x.size)
    if first == 0.0:
        total = 0.0
        for i in range(x.size):
            d = np.float64(x[i]) - mu
            total += d * d
        return total
    high = 0.0
    low = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - mu
        square = d * d
        rounded = (square + first) - first
        high = add_exactly(high, rounded)
        low = add_exactly(low, ((square - rounded) + second) - second)
    return high + low
