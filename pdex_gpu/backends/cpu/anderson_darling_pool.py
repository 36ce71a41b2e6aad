"""Two-sample Anderson-Darling statistic of every target against the rest of a pool.

The pooled pair of samples is the same for all targets of a gene, the pool, and with it the
places b of its distinct values and their weights w (Scholz and Stephens 1987, eq. 7, 6 and 3). Only
the target's cumulative count m differs, and ``sum(w (n m - b N)**2)``, N the target's cells, is::

    n**2 sum(w m**2)  -  2 n N sum(w b m)  +  N**2 sum(w b**2)

By summation by parts the first two are sums over the steps of m, each the step of m**2 or of m
times the sum of w or of w b from there on. So a pair costs its own distinct values, whatever the
size of the pool.

Where equal cells have places of their own (eq. 3), the reference has a sum of its own; see
`_combined`.

The three sums cancel nearly, by a factor of n or so. Weights therefore become whole numbers of up
to 120 bits, of one scale a gene; all sums are exact, and meet in double-double arithmetic.
``anderson_darling_pool.cu`` gives the same bits for eq. 7 and 6.
"""

from __future__ import annotations

import math

import numpy as np

from ...design import Contrast
from .exact_sums import exponent_of, folds, sum_of
from .jit import jit
from .runs import tables, tabulate
from .select import Entries, longest_gene, reference_cells
from .sort import DIGIT, key_bits, sort_gene
from .variants import CONTINUOUS, MIDRANK, RIGHT
from .wide import add, add_multiple, as_double, times

_HALF = 60  # bits of a weight in the lower of two parts
_LOWER = 2.0**_HALF
_CARRY = np.uint64(1 << _HALF)
_BITS = np.int64(125)  # of a sum of 4 n**2 weights
_ZERO = np.uint64(0)


def anderson_darling_pool(entries: Entries, contrast: Contrast, variant: int) -> np.ndarray:
    """A2 of every (target, gene), shape (T, C), NaN where the pool has one distinct value."""
    bits, mode = key_bits(entries.values)
    a2 = np.full((len(entries.n_cells), len(entries.bounds)), np.nan)
    _anderson_darling_pool(
        bits, mode, entries.bounds, entries.n_cells, reference_cells(contrast),
        contrast.n_pooled, contrast.against == "rest", variant, a2,
    )  # fmt: skip
    return a2[len(a2) - contrast.n_targets :]


@jit
def _anderson_darling_pool(
    bits, mode, gene_bounds, n_cells, n_reference, n_pool, rest, variant, a2
):
    n_groups = n_cells.size
    longest = longest_gene(gene_bounds)
    packed = np.empty(longest, np.uint64)
    scratch = np.empty(longest, np.uint64)
    histogram = np.empty(2 << DIGIT, np.uint32)
    equal, middle, occ_code, occ_at, occ_cells = tables(longest, n_groups)
    met = np.empty(n_groups, np.int64)  # target cells below
    sums_high = np.empty((n_groups, 3), np.int64)
    sums_low = np.empty((n_groups, 3), np.uint64)
    weights = np.empty(longest + 2, np.float64)
    # From each distinct value on: sums of w, of 2 w b and of 2 w d.
    tail_high = np.empty((longest + 3, 3), np.int64)
    tail_low = np.empty((longest + 3, 3), np.uint64)
    squares_high, squares_low = np.empty(3, np.int64), np.empty(3, np.uint64)
    size = np.float64(n_pool)
    places = n_pool if variant == CONTINUOUS else 0
    place_high, place_low = (
        np.empty((places + 1, 3), np.int64),
        np.empty((places + 1, 3), np.uint64),
    )
    scale = 0
    if variant == CONTINUOUS:
        scale = _weigh_places(size, place_high, place_low)
    for c in range(gene_bounds.shape[0]):
        bounds = gene_bounds[c] - gene_bounds[c, 0]
        n = bounds[n_groups]
        gene = bits[gene_bounds[c, 0] : gene_bounds[c, n_groups]]
        n_negative = sort_gene(gene, mode, bounds, packed, scratch, histogram)
        n_distinct, n_occ = tabulate(
            packed[:n], n_negative, bounds, n_cells, rest,
            equal, middle, occ_code, occ_at, occ_cells,
        )  # fmt: skip
        if n_distinct < 2:
            continue
        values = equal[:n_distinct], middle[:n_distinct]
        if variant == CONTINUOUS:
            _tails_of_places(
                *values, place_high, place_low, tail_high, tail_low, squares_high, squares_low
            )
        else:
            scale = _tails(
                *values, size, variant, weights, tail_high, tail_low, squares_high, squares_low
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
            if variant == MIDRANK:
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
            if variant == MIDRANK:
                high, low = add_multiple(
                    high, low, next_square, tail_high[q + 1, 0], tail_low[q + 1, 0]
                )
                other_high, other_low = add_multiple(
                    other_high, other_low, step, tail_high[q + 1, 1], tail_low[q + 1, 1]
                )
            sums_high[g, 0], sums_low[g, 0] = high, low
            sums_high[g, 1], sums_low[g, 1] = other_high, other_low
            if variant == CONTINUOUS:
                sums_high[g, 2], sums_low[g, 2] = add_multiple(
                    sums_high[g, 2], sums_low[g, 2], step, tail_high[q, 2], tail_low[q, 2]
                )
        for g in range(0 if rest else 1, n_groups):
            of_target, of_reference = _combined(
                sums_high[g], sums_low[g], squares_high, squares_low, size, np.float64(n_cells[g]),
                variant,
            )  # fmt: skip
            total = of_target / n_cells[g] + of_reference / n_reference[g]
            factor = (size - 1.0) / (size * size) if variant == MIDRANK else 1.0 / size
            a2[g, c] = math.ldexp(total, -scale - 2) * factor


@jit
def _combined(sums_high, sums_low, squares_high, squares_low, n, n_target, variant):
    """4 ``sum(w (n m - b N)**2)`` of the target, and the same of the reference.

    Where places are those of cells and counts those of runs, the counts of the two samples at a
    place add up to d more than the place, and the reference has ``n d - (n m - b N)``.
    """
    high, low = times(*as_double(sums_high[0], sums_low[0]), n)
    high, low = add(high, low, *times(*as_double(sums_high[1], sums_low[1]), -2.0 * n_target))
    high, low = times(high, low, n)
    square = as_double(squares_high[0], squares_low[0])
    high, low = add(high, low, *times(*times(*square, n_target), n_target))
    if variant != CONTINUOUS:
        return high + low, high + low
    other_high, other_low = times(*as_double(squares_high[1], squares_low[1]), n)
    other_high, other_low = add(
        other_high, other_low, *times(*times(*as_double(sums_high[2], sums_low[2]), n), -2.0)
    )
    other_high, other_low = add(
        other_high, other_low, *times(*as_double(squares_high[2], squares_low[2]), 2.0 * n_target)
    )
    other_high, other_low = add(high, low, *times(other_high, other_low, n))
    return high + low, other_high + other_low


@jit
def _tails(equal, middle, n, variant, weights, tail_high, tail_low, squares_high, squares_low):
    """Sums of weights from each distinct value on; returns their scale."""
    n_values = equal.size
    # By eq. 6 the largest value is left out, where b is n.
    n_terms = n_values - 1 if variant == RIGHT else n_values
    for q in range(n_terms):
        below = middle[q] - 0.5 * equal[q]
        above = n - below - equal[q]
        if variant == RIGHT:
            weights[q] = equal[q] / ((below + equal[q]) * above)
        else:  # b (n - b) - n ties / 4, without what cancels
            weights[q] = equal[q] / (below * above + 0.25 * equal[q] * (below + above))
    first, second = folds(16.0 / n, n)  # they add up to less
    high, low = sum_of(weights[:n_terms], first, second)
    scale = _scale(high + low, n)
    factor = math.ldexp(1.0, scale - _HALF)
    tail_high[n_terms : n_values + 1] = 0
    tail_low[n_terms : n_values + 1] = 0
    squares_high[:] = 0
    squares_low[:] = 0
    for k in range(n_terms):
        q = n_terms - 1 - k
        twice_b = np.int64(2.0 * middle[q] + (equal[q] if variant == RIGHT else 0.0))
        w_high, w_low = _whole(weights[q], factor)
        tail_high[q, 0], tail_low[q, 0] = add_multiple(
            tail_high[q + 1, 0], tail_low[q + 1, 0], 1, w_high, w_low
        )
        w_high, w_low = add_multiple(0, _ZERO, twice_b, w_high, w_low)
        tail_high[q, 1], tail_low[q, 1] = add_multiple(
            tail_high[q + 1, 1], tail_low[q + 1, 1], 1, w_high, w_low
        )
        squares_high[0], squares_low[0] = add_multiple(
            squares_high[0], squares_low[0], twice_b, w_high, w_low
        )
    return scale


@jit
def _weigh_places(n, place_high, place_low):
    """Sums of w, 2 w j and 4 w j^2 over places beneath each, j from 1, all but the last.

    Returns their scale.
    """
    n_places = place_high.shape[0] - 1
    total = 0.0
    for j in range(1, n_places):
        total += 1.0 / (j * (n - j))
    scale = _scale(total, n)
    factor = math.ldexp(1.0, scale - _HALF)
    place_high[0] = 0
    place_low[0] = 0
    for j in range(1, n_places):
        w_high, w_low = _whole(1.0 / (j * (n - j)), factor)
        for power in range(3):
            place_high[j, power], place_low[j, power] = add_multiple(
                place_high[j - 1, power], place_low[j - 1, power], 1, w_high, w_low
            )
            w_high, w_low = add_multiple(0, _ZERO, 2 * j, w_high, w_low)
    place_high[n_places] = place_high[n_places - 1]
    place_low[n_places] = place_low[n_places - 1]
    return scale


@jit
def _tails_of_places(
    equal, middle, place_high, place_low, tail_high, tail_low, squares_high, squares_low
):
    """The like of `_tails` over places, each d beneath the end of its run of equal cells."""
    n_values = equal.size
    tail_high[n_values] = 0
    tail_low[n_values] = 0
    squares_high[:] = 0
    squares_low[:] = 0
    run_high, run_low = np.empty(3, np.int64), np.empty(3, np.uint64)
    for k in range(n_values):
        q = n_values - 1 - k
        start, end = np.int64(middle[q] - 0.5 * equal[q]), np.int64(middle[q] + 0.5 * equal[q])
        for power in range(3):
            run_high[power], run_low[power] = add_multiple(
                place_high[end, power], place_low[end, power],
                -1, place_high[start, power], place_low[start, power],
            )  # fmt: skip
        # w d and w d b, by d = end - b.
        shift_high, shift_low = add_multiple(0, _ZERO, 2 * end, run_high[0], run_low[0])
        shift_high, shift_low = add_multiple(shift_high, shift_low, -1, run_high[1], run_low[1])
        cross_high, cross_low = add_multiple(0, _ZERO, 2 * end, run_high[1], run_low[1])
        cross_high, cross_low = add_multiple(cross_high, cross_low, -1, run_high[2], run_low[2])
        for column in range(2):
            tail_high[q, column], tail_low[q, column] = add_multiple(
                tail_high[q + 1, column], tail_low[q + 1, column],
                1, run_high[column], run_low[column],
            )  # fmt: skip
        tail_high[q, 2], tail_low[q, 2] = add_multiple(
            tail_high[q + 1, 2], tail_low[q + 1, 2], 1, shift_high, shift_low
        )
        # Sums of 4 w b^2, 4 w d^2 and 4 w d b.
        squares_high[0], squares_low[0] = add_multiple(
            squares_high[0], squares_low[0], 1, run_high[2], run_low[2]
        )
        squares_high[2], squares_low[2] = add_multiple(
            squares_high[2], squares_low[2], 1, cross_high, cross_low
        )
        shift_high, shift_low = add_multiple(0, _ZERO, 2 * end, shift_high, shift_low)
        shift_high, shift_low = add_multiple(shift_high, shift_low, -1, cross_high, cross_low)
        squares_high[1], squares_low[1] = add_multiple(
            squares_high[1], squares_low[1], 1, shift_high, shift_low
        )


@jit
def _scale(total, n):
    """The power of two that weights are multiplied by: 4 n**2 times their sum has `_BITS` bits."""
    return _BITS - 3 - exponent_of(n * n * total)


@jit
def _whole(weight, factor):
    """``floor(weight * factor * 2**60)``."""
    upper = weight * factor
    whole = math.floor(upper)
    return add_multiple(0, np.uint64((upper - whole) * _LOWER), np.int64(whole), 0, _CARRY)
