"""Two-sample Anderson-Darling statistic of every target of a packed block.

A2 (Scholz and Stephens 1987, eq. 7) is a sum over the distinct pooled values. Between two values
of the target its cumulative count stands still, so one pass over the reference's distinct values
and one over the target's own serve a pair: no sorting and no search a pair.
"""

from __future__ import annotations

import numpy as np

from ...design import Design
from .jit import jit
from .pack import PackedBlock
from .sort import DIGIT, key_bits, sort_gene

_CODE_BITS = np.uint64(32)
_CODE = np.uint64(0xFFFFFFFF)


def anderson_darling(block: PackedBlock, genes: slice, design: Design) -> np.ndarray:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.anderson_darling`."""
    a2 = np.full((design.n_groups - 1, genes.stop - genes.start), np.nan)
    start, stop = block.offsets[0, genes.start], block.offsets[-1, genes.stop - 1]
    bits, mode = key_bits(block.values[start:stop])
    _anderson_darling(bits, mode, start, block.offsets, genes.start, design.n_cells, a2)
    return a2


@jit
def _anderson_darling(bits, mode, start, offsets, j0, n_cells, a2):
    n_groups = n_cells.size
    longest = 0
    for c in range(a2.shape[1]):
        longest = max(longest, offsets[n_groups, j0 + c] - offsets[0, j0 + c])
    packed = np.empty(longest + 1, np.uint64)
    scratch = np.empty(longest, np.uint64)
    histogram = np.empty(2 << DIGIT, np.uint32)
    bounds = np.empty(n_groups + 1, np.int64)
    # Distinct reference values (zero among them): cells equal, and cells below plus half those.
    equal = np.empty(longest + 1, np.float64)
    middle = np.empty(longest + 1, np.float64)
    # Occurrences (target, value, cells), by ascending value, then sorted by target.
    occ_code = np.empty(longest + n_groups, np.int64)
    occ_at = np.empty(longest + n_groups, np.int64)
    occ_cells = np.empty(longest + n_groups, np.int64)
    by_target_at = np.empty(longest + n_groups, np.int64)
    by_target_cells = np.empty(longest + n_groups, np.int64)
    where = np.empty(n_groups + 1, np.int64)
    target_equal = np.empty(longest + 1, np.float64)
    target_below = np.empty(longest + 1, np.float64)
    terms = np.empty(longest + 1, np.float64)
    for c in range(a2.shape[1]):
        first = offsets[0, j0 + c]
        for g in range(n_groups + 1):
            bounds[g] = offsets[g, j0 + c] - first
        n = bounds[n_groups]
        n_negative = sort_gene(
            bits[first - start : first - start + n], mode, bounds, packed, scratch, histogram
        )
        n_distinct, n_occ, below = _walk(
            packed, 0, n_negative, 0, 0, 0, equal, middle, occ_code, occ_at, occ_cells
        )
        zeros = n_cells[0] - bounds[1]
        if zeros > 0:
            equal[n_distinct] = zeros
            middle[n_distinct] = below + 0.5 * zeros
        for g in range(1, n_groups):
            target_zeros = n_cells[g] - (bounds[g + 1] - bounds[g])
            if target_zeros > 0:
                occ_code[n_occ] = g
                occ_at[n_occ] = 2 * n_distinct + (zeros > 0)
                occ_cells[n_occ] = target_zeros
                n_occ += 1
        n_distinct += zeros > 0
        n_distinct, n_occ, below = _walk(
            packed, n_negative, n, n_distinct, n_occ, below + zeros,
            equal, middle, occ_code, occ_at, occ_cells,
        )  # fmt: skip

        where[:] = 0
        for k in range(n_occ):
            where[occ_code[k] + 1] += 1
        for g in range(n_groups):
            where[g + 1] += where[g]
        for k in range(n_occ):
            at = where[occ_code[k]]
            by_target_at[at] = occ_at[k]
            by_target_cells[at] = occ_cells[k]
            where[occ_code[k]] = at + 1
        # where[g] is now the end of target g, and where[g - 1] its start.
        for g in range(1, n_groups):
            a2[g - 1, c] = _pair(
                equal[:n_distinct], middle[:n_distinct],
                by_target_at[where[g - 1] : where[g]], by_target_cells[where[g - 1] : where[g]],
                np.float64(n_cells[0]), np.float64(n_cells[g]),
                target_equal, target_below, terms,
            )  # fmt: skip


@jit
def _walk(packed, i, stop, n_distinct, n_occ, below, equal, middle, occ_code, occ_at, occ_cells):
    """List the distinct reference values and the targets' occurrences in ``packed[i:stop]``.

    An occurrence stands at ``2 r + 1`` if it equals reference value r, at ``2 r`` if it lies
    beneath r and above r - 1.
    """
    while i < stop:
        key = packed[i] >> _CODE_BITS
        c = 0
        while i < stop and packed[i] == key << _CODE_BITS:  # code 0: the reference
            c += 1
            i += 1
        place = 2 * n_distinct
        if c > 0:
            place += 1
            equal[n_distinct] = c
            middle[n_distinct] = below + 0.5 * c
            n_distinct += 1
            below += c
        while i < stop and packed[i] >> _CODE_BITS == key:
            entry = packed[i]
            t = 0
            while i < stop and packed[i] == entry:
                t += 1
                i += 1
            occ_code[n_occ] = np.int64(entry & _CODE)
            occ_at[n_occ] = place
            occ_cells[n_occ] = t
            n_occ += 1
    return n_distinct, n_occ, below


@jit
def _pair(equal, middle, at, cells, n_ref, n_target, target_equal, target_below, terms):
    """A2 of one pair; `at` and `cells` are the target's occurrences by ascending value."""
    n = n_ref + n_target
    n_distinct = equal.size
    r = 0
    m = 0.0  # target cells below
    total = 0.0
    only_target = 0
    for k in range(at.size):
        upto = at[k] >> 1
        t = np.float64(cells[k])
        for q in range(r, upto):
            target_below[q] = m
            target_equal[q] = 0.0
        r = upto
        if at[k] & 1:
            target_below[r] = m
            target_equal[r] = t
            r += 1
        else:  # a value that the reference does not have, beneath its value r
            below = n_ref if r == n_distinct else middle[r] - 0.5 * equal[r]
            total += _term(t, below + m + 0.5 * t, m + 0.5 * t, n, n_target)
            only_target += 1
        m += t
    for q in range(r, n_distinct):
        target_below[q] = m
        target_equal[q] = 0.0
    if n_distinct + only_target < 2:
        return np.nan
    for q in range(n_distinct):  # apart from the sum, so that it is vectorised
        t = target_equal[q]
        mid = target_below[q] + 0.5 * t
        terms[q] = _term(equal[q] + t, middle[q] + mid, mid, n, n_target)
    whole = n_distinct - n_distinct % 4
    s0 = total
    s1 = 0.0
    s2 = 0.0
    s3 = 0.0
    for q in range(0, whole, 4):
        s0 += terms[q]
        s1 += terms[q + 1]
        s2 += terms[q + 2]
        s3 += terms[q + 3]
    for q in range(whole, n_distinct):
        s0 += terms[q]
    return ((s0 + s1) + (s2 + s3)) * (n - 1.0) / (n * n) * (1.0 / n_target + 1.0 / n_ref)


@jit
def _term(ties, b, m, n, n_target):
    difference = n * m - b * n_target
    return ties * (difference * difference) / (b * (n - b) - 0.25 * n * ties)
