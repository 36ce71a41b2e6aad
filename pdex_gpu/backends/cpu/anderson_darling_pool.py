"""Two-sample Anderson-Darling statistic of every target against the rest of a pool.

The pooled pair of samples is the pool itself, the same for all targets of a gene. So are the
places b of its distinct values and their weights w (Scholz and Stephens 1987, eq. 7 and 6). Only
the target's cumulative count m differs. With N target cells, ``sum(w (n m - b N)**2)`` is::

    n**2 sum(w m**2)  -  2 n N sum(w b m)  +  N**2 sum(w b**2)

By summation by parts, the first two become sums over the steps of m. Each term is the step of
m**2 or of m, times the sum of w or of w b from there on. So the cost of a pair depends on the
target's distinct values, not on the size of the pool.

The three sums nearly cancel, by a factor of about n. Therefore weights become whole numbers of up
to 120 bits, with one scale per gene. All sums are exact, and are combined in double-double
arithmetic. ``anderson_darling_pool.cu`` gives the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from ...design.contrasts import Contrast
from .contrast_entries import Entries, longest_gene, reference_cells
from .distinct_values import sorting_room, tables, tabulate
from .exact_sums import exponent_of, folds, sum_of
from .int128 import HALF_BITS, add, add_multiple, as_double, times, whole
from .jit import jit
from .sort import key_bits

_BITS = np.int64(125)  # of 4 n**2 times the sum of weights
_ZERO = np.uint64(0)


def anderson_darling_pool(entries: Entries, contrast: Contrast, midrank: bool) -> np.ndarray:
    """Return A2 of each (target, gene), shape (T, C); NaN where the pool has one distinct value."""
    bits, mode = key_bits(entries.values)
    a2 = np.full((len(entries.n_cells), len(entries.bounds)), np.nan)
    _anderson_darling_pool(
        bits, mode, entries.bounds, entries.n_cells, reference_cells(contrast),
        contrast.n_pooled, contrast.one_vs_rest, midrank, a2,
    )  # fmt: skip
    return a2[len(a2) - contrast.n_targets :]


@jit
def _anderson_darling_pool(
    bits, mode, gene_bounds, n_cells, n_reference, n_pool, rest, midrank, a2
):
    n_groups = n_cells.size
    longest = longest_gene(gene_bounds)
    sorting, filled = sorting_room(gene_bounds), tables(gene_bounds, n_groups)
    equal, middle, occ_code, occ_at, occ_cells = filled
    met = np.empty(n_groups, np.int64)  # target cells below
    sums_high = np.empty((n_groups, 2), np.int64)
    sums_low = np.empty((n_groups, 2), np.uint64)
    weights = np.empty(longest + 2, np.float64)
    # From each distinct value on: sums of w and of 2 w b.
    tail_high = np.empty((longest + 3, 2), np.int64)
    tail_low = np.empty((longest + 3, 2), np.uint64)
    size = np.float64(n_pool)
    for c in range(gene_bounds.shape[0]):
        n_distinct, n_occ = tabulate(bits, mode, gene_bounds, c, n_cells, rest, sorting, filled)
        if n_distinct < 2:
            continue
        scale, square_high, square_low = _tails(
            equal[:n_distinct], middle[:n_distinct], size, midrank, weights, tail_high, tail_low
        )
        met[:] = 0
        sums_high[:] = 0
        sums_low[:] = 0
        for k in range(n_occ):
            g = occ_code[k]
            q = occ_at[k] >> 1
            t = occ_cells[k]
            own = met[g]
            met[g] = own + t
            # Steps of 2 m, and of its square.
            if midrank:
                # Half of the cells count from the value on, all of them from the next one on.
                step, square = t, t * (4 * own + t)
                next_square = t * (4 * own + 3 * t)
            else:
                step, square = 2 * t, 4 * t * (2 * own + t)
            high, low = sums_high[g, 0], sums_low[g, 0]
            high, low = add_multiple(high, low, square, tail_high[q, 0], tail_low[q, 0])
            other_high, other_low = sums_high[g, 1], sums_low[g, 1]
            other_high, other_low = add_multiple(
                other_high, other_low, step, tail_high[q, 1], tail_low[q, 1]
            )
            if midrank:
                high, low = add_multiple(
                    high, low, next_square, tail_high[q + 1, 0], tail_low[q + 1, 0]
                )
                other_high, other_low = add_multiple(
                    other_high, other_low, step, tail_high[q + 1, 1], tail_low[q + 1, 1]
                )
            sums_high[g, 0], sums_low[g, 0] = high, low
            sums_high[g, 1], sums_low[g, 1] = other_high, other_low
        for g in range(0 if rest else 1, n_groups):
            total = _combined(
                sums_high[g], sums_low[g], square_high, square_low, size, np.float64(n_cells[g])
            )
            total = math.ldexp(total, -scale - 2)
            if total < 0.5 / (size * size):
                total = 0.0  # the smallest nonzero value is 1 / n**2
            total = total / n_cells[g] + total / n_reference[g]
            factor = (size - 1.0) / (size * size) if midrank else 1.0 / size
            a2[g, c] = total * factor


@jit
def _combined(sums_high, sums_low, square_high, square_low, n, n_target):
    """Return 4 ``sum(w (n m - b N)**2)``."""
    high, low = times(*as_double(sums_high[0], sums_low[0]), n)
    high, low = add(high, low, *times(*as_double(sums_high[1], sums_low[1]), -2.0 * n_target))
    high, low = times(high, low, n)
    square = as_double(square_high, square_low)
    high, low = add(high, low, *times(*times(*square, n_target), n_target))
    return high + low


@jit
def _tails(equal, middle, n, midrank, weights, tail_high, tail_low):
    """Sum w and 2 w b from each distinct value on; return the scale and 4 ``sum(w b**2)``."""
    n_values = equal.size
    # Eq. 6 leaves out the largest value, where b is n.
    n_terms = n_values if midrank else n_values - 1
    for q in range(n_terms):
        below = middle[q] - 0.5 * equal[q]
        above = n - below - equal[q]
        if midrank:  # b (n - b) - n ties / 4, without cancellation
            weights[q] = equal[q] / (below * above + 0.25 * equal[q] * (below + above))
        else:
            weights[q] = equal[q] / ((below + equal[q]) * above)
    first, second = folds(16.0 / n, n)  # weights add up to less than 16
    high, low = sum_of(weights[:n_terms], first, second)
    scale = _scale(high + low, n)
    factor = math.ldexp(1.0, scale - HALF_BITS)
    tail_high[n_terms : n_values + 1] = 0
    tail_low[n_terms : n_values + 1] = 0
    square_high, square_low = np.int64(0), _ZERO
    for k in range(n_terms):
        q = n_terms - 1 - k
        twice_b = np.int64(2.0 * middle[q] + (0.0 if midrank else equal[q]))
        w_high, w_low = whole(weights[q], factor)
        tail_high[q, 0], tail_low[q, 0] = add_multiple(
            tail_high[q + 1, 0], tail_low[q + 1, 0], 1, w_high, w_low
        )
        w_high, w_low = add_multiple(0, _ZERO, twice_b, w_high, w_low)
        tail_high[q, 1], tail_low[q, 1] = add_multiple(
            tail_high[q + 1, 1], tail_low[q + 1, 1], 1, w_high, w_low
        )
        square_high, square_low = add_multiple(square_high, square_low, twice_b, w_high, w_low)
    return scale, square_high, square_low


@jit
def _scale(total, n):
    """Return the exponent of the scale of weights: 4 n**2 times their sum then has `_BITS` bits."""
    return _BITS - 3 - exponent_of(n * n * total)
