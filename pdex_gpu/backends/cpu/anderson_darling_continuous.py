"""Two-sample Anderson-Darling statistic that counts equal cells one by one.

Scholz and Stephens 1987, eq. 3, has a term for each place j of the n pooled cells of a pair, except
the last. Of the target's N cells, m come up to the end of the run of equal cells that contains j::

    S = sum((n m - j N)**2 / (j (n - j))),     A2 = (S of the target / N + S of the other) / n

Equal cells have different places, but share the count of cells up to the end of their run. So the
counts of the two samples do not add up to the place, and each sample needs its own sum.

As ``1 / (j (n - j)) = (1 / j + 1 / (n - j)) / n``, sums over places are differences of harmonic
numbers H. As m changes only at the sample's values, summation by parts leaves ::

    S = N**2 (n h - (n - 1)) - n sum((change of m**2) (H(a) + v) - 2 N (change of m) v)

over the sample's values, with a pooled cells below the value, ``h = H(n - 1)`` and
``v = h - H(n - 1 - a)``. In a pool the other sample has too many values for this. There its S is
the S of the target plus::

    sum(w (2 n (j N - n m) e + n**2 e**2)),     w = 1 / (j (n - j)),

with e the cells of the run of j that come after j. Take a run of l cells with a cells below it, r
above, c = a + l, ``f = H(c) - H(a)`` and ``g = H(r + l - 1) - H(r)``. Its sums are
``n w e = c f - 1 - r g``, ``w j e = l - 1 - r g`` and ``n w e**2 = c**2 f + r**2 g - l n + r``;
those that contain m are again taken by parts.

These sums nearly cancel. Therefore harmonic numbers are scaled to whole numbers, and all sums are
exact. ``anderson_darling_continuous.cu`` gives the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from ...design.contrasts import Contrast
from .contrast_entries import Entries, longest_gene
from .distinct_values import sorting_room, tables, tabulate
from .int128 import HALF_BITS, add_multiple, two_product, whole
from .int192 import ZERO, as_float, minus, multiple, plus, widened
from .jit import jit
from .sort import key_bits


def anderson_darling_continuous(entries: Entries, contrast: Contrast) -> np.ndarray:
    """Return A2 of each (target, gene), shape (T, C); NaN where the pair has one distinct value."""
    bits, mode = key_bits(entries.values)
    a2 = np.full((len(entries.n_cells), len(entries.bounds)), np.nan)
    # Harmonic numbers have up to 6 bits before the binary point, and S has three factors up to n.
    scale = min(118, 188 - 3 * int(contrast.n_pooled).bit_length())
    harmonic = _harmonic_numbers(contrast.n_pooled, scale)
    where = bits, mode, entries.bounds, entries.n_cells
    if contrast.pooled:
        _in_pool(*where, contrast.n_pooled, contrast.one_vs_rest, *harmonic, scale, a2)
    else:
        _against_reference(*where, *harmonic, scale, a2)
    return a2[len(a2) - contrast.n_targets :]


@jit
def _harmonic_numbers(n, scale):
    """Return ``2**scale H(k)`` for k up to n, as high and low parts."""
    high, low = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.uint64)
    factor = math.ldexp(1.0, scale - HALF_BITS)
    for i in range(1, n + 1):
        # 1 / i as the sum of two float64
        q = 1.0 / i
        p, e = two_product(q, np.float64(i))
        rest = ((1.0 - p) - e) / i
        x, y = add_multiple(high[i - 1], low[i - 1], 1, *whole(q, factor))
        x, y = add_multiple(x, y, 1 if rest > 0.0 else -1, *whole(abs(rest), factor))
        high[i], low[i] = x, y
    return high, low


@jit
def _change(own, t, n_sample, a, n, high, low):
    """Return what a value adds to the sum in S.

    It has t of the n_sample cells, `own` of them below it, and a pooled cells below it.
    """
    v_high, v_low = add_multiple(high[n - 1], low[n - 1], -1, high[n - 1 - a], low[n - 1 - a])
    both_high, both_low = add_multiple(v_high, v_low, 1, high[a], low[a])
    return minus(
        multiple(widened(both_high, both_low), np.uint64(t * (2 * own + t))),
        multiple(widened(v_high, v_low), np.uint64(2 * n_sample * t)),
    )


@jit
def _power_of_two(exponent):
    return widened(np.int64(1) << (exponent - 64), np.uint64(0))


@jit
def _sum_by_parts(changes, n_sample, n, high, low, scale):
    """Return S of a sample, times ``2**scale``."""
    one = _power_of_two(scale)
    s = minus(
        multiple(widened(high[n - 1], low[n - 1]), np.uint64(n)), multiple(one, np.uint64(n - 1))
    )
    return minus(multiple(s, np.uint64(n_sample * n_sample)), multiple(changes, np.uint64(n)))


@jit
def _rounded(s, n, scale):
    """Return S as a float64; it is 0 or at least 1 / n**2."""
    found = math.ldexp(as_float(s), -scale)
    return 0.0 if found < 0.5 / (np.float64(n) * n) else found


@jit
def _against_reference(bits, mode, gene_bounds, n_cells, high, low, scale, a2):
    n_groups = n_cells.size
    sorting, filled = sorting_room(gene_bounds), tables(gene_bounds, n_groups)
    equal, middle, occ_code, occ_at, occ_cells = filled
    n_reference = n_cells[0]
    # Per group: cells so far, distinct values of the reference that are done, and sums.
    met, done = np.empty(n_groups, np.int64), np.empty(n_groups, np.int64)
    alone = np.empty(n_groups, np.int64)  # distinct values that the reference does not have
    own_sum, other_sum = np.empty((n_groups, 3), np.uint64), np.empty((n_groups, 3), np.uint64)
    for c in range(gene_bounds.shape[0]):
        n_distinct, n_occ = tabulate(bits, mode, gene_bounds, c, n_cells, False, sorting, filled)
        met[:] = 0
        done[:] = 0
        alone[:] = 0
        own_sum[:] = 0
        other_sum[:] = 0
        for k in range(n_occ):
            g = occ_code[k]
            r = occ_at[k] >> 1
            shared = occ_at[k] & 1
            t = occ_cells[k]
            n = n_reference + n_cells[g]
            _add_reference(
                done[g], r + shared, met[g], n_reference, n, equal, middle, high, low, other_sum[g]
            )
            done[g] = r + shared
            a = np.int64(middle[r] - 0.5 * equal[r]) + met[g]
            _add_to(own_sum[g], _change(met[g], t, n_cells[g], a, n, high, low))
            met[g] += t
            alone[g] += 1 - shared
        for g in range(1, n_groups):
            if n_distinct + alone[g] < 2:
                continue
            n = n_reference + n_cells[g]
            _add_reference(
                done[g], n_distinct, met[g], n_reference, n, equal, middle, high, low, other_sum[g]
            )
            of_target = _sum_by_parts(_load(own_sum[g]), n_cells[g], n, high, low, scale)
            of_reference = _sum_by_parts(_load(other_sum[g]), n_reference, n, high, low, scale)
            total = _rounded(of_target, n, scale) / n_cells[g]
            total += _rounded(of_reference, n, scale) / n_reference
            a2[g, c] = total / n


@jit
def _add_reference(start, stop, met, n_reference, n, equal, middle, high, low, total):
    """Add the changes at the reference's values [start, stop), with `met` target cells below."""
    for r in range(start, stop):
        below = np.int64(middle[r] - 0.5 * equal[r])
        t = np.int64(equal[r])
        _add_to(total, _change(below, t, n_reference, below + met, n, high, low))


@jit
def _load(x):
    return x[0], x[1], x[2]


@jit
def _add_to(total, x):
    """Add `x` to a number in an array."""
    total[0], total[1], total[2] = plus(_load(total), x)


@jit
def _in_pool(bits, mode, gene_bounds, n_cells, n, rest, high, low, scale, a2):
    n_groups = n_cells.size
    longest = longest_gene(gene_bounds)
    sorting, filled = sorting_room(gene_bounds), tables(gene_bounds, n_groups)
    equal, middle, occ_code, occ_at, occ_cells = filled
    met = np.empty(n_groups, np.int64)
    own_sum, tied_sum = np.empty((n_groups, 3), np.uint64), np.empty((n_groups, 3), np.uint64)
    below = np.zeros((longest + 2, 3), np.uint64)  # sums of n w e below each distinct value
    for c in range(gene_bounds.shape[0]):
        n_distinct, n_occ = tabulate(bits, mode, gene_bounds, c, n_cells, rest, sorting, filled)
        if n_distinct < 2:
            continue
        all_wje, all_wee = ZERO, ZERO
        for q in range(n_distinct):
            a, ties = np.int64(middle[q] - 0.5 * equal[q]), np.int64(equal[q])
            nwe, wje, wee = _of_ties(a, ties, n, high, low, scale)
            below[q + 1, 0], below[q + 1, 1], below[q + 1, 2] = plus(_load(below[q]), nwe)
            all_wje = plus(all_wje, wje)
            all_wee = plus(all_wee, wee)
        all_nwe = _load(below[n_distinct])
        met[:] = 0
        own_sum[:] = 0
        tied_sum[:] = 0
        for k in range(n_occ):
            g = occ_code[k]
            q = occ_at[k] >> 1
            t = occ_cells[k]
            a = np.int64(middle[q] - 0.5 * equal[q])
            _add_to(own_sum[g], _change(met[g], t, n_cells[g], a, n, high, low))
            _add_to(tied_sum[g], multiple(_load(below[q]), np.uint64(t)))
            met[g] += t
        for g in range(0 if rest else 1, n_groups):
            s = _sum_by_parts(_load(own_sum[g]), n_cells[g], n, high, low, scale)
            # Sum of m n w e, minus N times the sum of w j e.
            tied = multiple(minus(all_nwe, all_wje), np.uint64(n_cells[g]))
            tied = minus(tied, _load(tied_sum[g]))
            other = plus(s, multiple(minus(all_wee, plus(tied, tied)), np.uint64(n)))
            total = _rounded(s, n, scale) / n_cells[g]
            total += _rounded(other, n, scale) / (n - n_cells[g])
            a2[g, c] = total / n


@jit
def _of_ties(a, ties, n, high, low, scale):
    """Return the sums over a run of n w e, w j e and n w e**2, times ``2**scale``."""
    if ties < 2:
        return ZERO, ZERO, ZERO
    c = a + ties
    r = n - c
    one = _power_of_two(scale)
    cf = multiple(widened(*add_multiple(high[c], low[c], -1, high[a], low[a])), np.uint64(c))
    upto = r + ties - 1
    rg = multiple(widened(*add_multiple(high[upto], low[upto], -1, high[r], low[r])), np.uint64(r))
    squares = plus(multiple(cf, np.uint64(c)), multiple(rg, np.uint64(r)))
    # ties * n - r is not negative.
    return (
        minus(minus(cf, one), rg),
        minus(multiple(one, np.uint64(ties - 1)), rg),
        minus(squares, multiple(one, np.uint64(ties * n - r))),
    )
