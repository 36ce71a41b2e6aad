"""Moments of every (group, gene) of a packed chunk.

Sums do not depend on the order of entries (see `exact_sums`), so the bits depend only on the
values. The second moment uses the corrected two-pass algorithm (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Design
from ...utils.float_bits import BIAS, EXPONENT, float_of_bits
from ..contract import SAFE_EXPONENT
from ..outputs import Moments
from .exact_sums import add_exactly, exponent_of, extremes, folds, sum_of
from .int128 import two_product
from .jit import jit
from .pack import CpuPackedChunk
from .transforms import bound_of_expm1, bound_of_log1p, expm1_of, log1p_of, log1p_of_counts, look_up

_SAFE = SAFE_EXPONENT
_STEP = 2 * SAFE_EXPONENT


def moments(
    packed: CpuPackedChunk,
    genes: slice,
    design: Design,
    *,
    centred: bool,
    expm1: bool,
    log1p: bool = False,
    higher: bool = False,
) -> Moments:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.moments`."""
    shape = (design.n_groups, genes.stop - genes.start)
    n_expressed = np.diff(packed.offsets[:, genes], axis=0).astype(np.int32)
    mean = np.full(shape, np.nan)
    m2 = np.full(shape if centred else (0, 0), np.nan)
    mean_expm1 = np.full(shape, np.nan) if expm1 else None
    mean_log1p = np.full(shape, np.nan) if log1p else None
    m3, m4 = (np.full(shape, np.nan) if higher else None for _ in range(2))
    where = packed.values, packed.offsets, genes.start, genes.stop, design.n_cells
    ends = np.full((shape[1], shape[0], 2), np.nan)
    # Values of other dtypes can be squared and added unscaled.
    exponent = np.zeros(shape if packed.values.dtype == np.float64 else (0, 0), np.int32)
    _moments(*where, centred, ends, mean, m2, exponent)
    if m3 is not None:
        _higher(*where, ends, mean, exponent, m3, m4)
    if mean_expm1 is not None:
        _mean_expm1(*where, ends, mean_expm1)
    if mean_log1p is not None and packed.values.dtype == np.uint16:
        _mean_of_table(*where, log1p_of_counts(), ends, mean_log1p)
    elif mean_log1p is not None:
        _mean_log1p(*where, ends, mean_log1p)
    return Moments.unscaled(
        n_expressed,
        mean,
        m2 if centred else None,
        exponent if exponent.size else None,
        mean_expm1=mean_expm1,
        mean_log1p=mean_log1p,
        m3=m3,
        m4=m4,
    )


@jit
def _moments(values, offsets, j0, j1, n_cells, centred, ends, mean, m2, exponent):
    """Compute means, second moments and `ends`: the smallest and largest entry, 0 if there is none.

    Mean and second moment are of values over ``2**exponent``; if `exponent` is empty, it is 0.
    """
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
            factor = 1.0
            if exponent.size > 0 and x.size > 0:
                scale = _scale_exponent(max(abs(smallest), abs(largest)))
                exponent[g, c] = scale
                factor = float_of_bits((BIAS - scale) << EXPONENT)
            if x.size == 0 or (n_zero == 0 and smallest == largest):
                mean[g, c] = smallest * factor
                if centred:
                    m2[g, c] = 0.0
                continue
            if factor == 1.0:
                mu, squares = _of_group(x, n, smallest, largest, centred)
            else:
                mu, squares = _of_group(
                    _times(x, factor), n, smallest * factor, largest * factor, centred
                )
            mean[g, c] = mu
            if centred:
                m2[g, c] = squares


@jit
def _scale_exponent(bound):
    """See :func:`pdex_gpu.backends.contract.scale_exponent`."""
    exponent = exponent_of(bound)
    scale = (abs(exponent) + _SAFE - 1) // _STEP * _STEP
    return scale if exponent > 0 else -scale


@jit
def _times(x, factor):
    found = np.empty(x.size, np.float64)
    for i in range(x.size):
        found[i] = x[i] * factor
    return found


@jit
def _of_group(x, n, smallest, largest, centred):
    """Return the mean and, if asked for, the second moment of the entries `x` of `n` cells."""
    bound = max(abs(smallest), abs(largest))
    first, second = folds(bound, x.size)
    high, low = sum_of(x, first, second)
    mu = (high + low) / n
    if not centred:
        return mu, 0.0
    # Sum of deviations due to rounding of the mean; zero in exact arithmetic.
    product, error = two_product(np.float64(n), mu)
    residual = ((high - product) + low) - error
    squares = _squared_deviations(x, smallest, largest, mu)
    return mu, squares + (n - x.size) * (mu * mu) - residual * residual / n


@jit
def _higher(values, offsets, j0, j1, n_cells, ends, mean, exponent, m3, m4):
    """Compute third and fourth moments of values over ``2**exponent``, about `mean`."""
    for j in range(j0, j1):
        c = j - j0
        stop = offsets[0, j]
        for g in range(n_cells.size):
            start, stop = stop, offsets[g + 1, j]
            x = values[start:stop]
            n_zero = n_cells[g] - x.size
            smallest, largest = ends[c, g, 0], ends[c, g, 1]
            if x.size == 0 or (n_zero == 0 and smallest == largest):
                m3[g, c], m4[g, c] = 0.0, 0.0
                continue
            mu = mean[g, c]
            factor = 1.0
            if exponent.size > 0:
                factor = float_of_bits((BIAS - np.int64(exponent[g, c])) << EXPONENT)
            bound = max(abs(smallest * factor - mu), abs(largest * factor - mu))
            cubes, fourths = _higher_deviations(x, factor, mu, bound)
            m3[g, c] = cubes - n_zero * (mu * mu * mu)
            m4[g, c] = fourths + n_zero * (mu * mu * (mu * mu))


@jit
def _higher_deviations(x, factor, mu, bound):
    """Return the sums of third and fourth powers of deviations, none larger than `bound`."""
    first, second = folds(bound * bound * bound, x.size)
    third, fourth = folds(bound * bound * (bound * bound), x.size)
    cubes, cubes_left, fourths, fourths_left = 0.0, 0.0, 0.0, 0.0
    for i in range(x.size):
        d = np.float64(x[i]) * factor - mu
        square = d * d
        power = square * d
        rounded = (power + first) - first
        cubes = add_exactly(cubes, rounded)
        cubes_left = add_exactly(cubes_left, ((power - rounded) + second) - second)
        power = square * square
        rounded = (power + third) - third
        fourths = add_exactly(fourths, rounded)
        fourths_left = add_exactly(fourths_left, ((power - rounded) + fourth) - fourth)
    return cubes + cubes_left, fourths + fourths_left


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
    """Allocate room for the terms of a gene."""
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
    high = 0.0
    low = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - mu
        square = d * d
        rounded = (square + first) - first
        high = add_exactly(high, rounded)
        low = add_exactly(low, ((square - rounded) + second) - second)
    return high + low
