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
from .sort import CODE, CODE_BITS, DIGIT, NOTHING, key_bits, sort_gene

_STRIDE = 16


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
    packed = np.empty(longest, np.uint64)
    scratch = np.empty(longest, np.uint64)
    histogram = np.empty(2 << DIGIT, np.uint32)
    bounds = np.empty(n_groups + 1, np.int64)
    # Distinct reference values (zero among them): cells equal, and cells below plus half those.
    equal = np.empty(longest + 2, np.float64)
    middle = np.empty(longest + 2, np.float64)
    # Occurrences (target, value, cells), by ascending value, then sorted by target.
    occ_code = np.empty(longest + n_groups + 1, np.int64)
    occ_at = np.empty(longest + n_groups + 1, np.int64)
    occ_cells = np.empty(longest + n_groups + 1, np.int64)
    by_target_at = np.empty(longest + n_groups, np.int64)
    by_target_cells = np.empty(longest + n_groups, np.int64)
    where = np.empty(n_groups + 1, np.int64)
    target_equal = np.zeros(longest + 2, np.float64)  # zero between pairs
    target_below = np.empty(longest + 2 + _STRIDE, np.float64)
    own = np.empty((3, longest + 2), np.float64)
    terms = np.empty(2 * longest + 4, np.float64)
    for c in range(a2.shape[1]):
        first = offsets[0, j0 + c]
        for g in range(n_groups + 1):
            bounds[g] = offsets[g, j0 + c] - first
        n = bounds[n_groups]
        n_negative = sort_gene(
            bits[first - start : first - start + n], mode, bounds, packed, scratch, histogram
        )
        n_distinct, n_occ, below = _walk(
            packed[:n_negative], 0, 0, 0, equal, middle, occ_code, occ_at, occ_cells
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
            packed[n_negative:n], n_distinct, n_occ, below + zeros,
            equal, middle, occ_code, occ_at, occ_cells,
        )  # fmt: skip

        equal[n_distinct] = 0.0
        middle[n_distinct] = n_cells[0]

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
                equal[: n_distinct + 1], middle[: n_distinct + 1],
                by_target_at[where[g - 1] : where[g]], by_target_cells[where[g - 1] : where[g]],
                np.float64(n_cells[0]), np.float64(n_cells[g]),
                target_equal, target_below, own, terms,
            )  # fmt: skip


@jit
def _walk(packed, n_distinct, n_occ, below, equal, middle, occ_code, occ_at, occ_cells):
    """List the distinct reference values and the targets' occurrences in sorted entries.

    An occurrence stands at ``2 r + 1`` if it equals reference value r, at ``2 r`` if it lies
    beneath r and above r - 1. No branch, as in the scan of rank_sums: an entry that starts
    nothing new is written where the next one will be.
    """
    previous = NOTHING
    shared = 0  # whether the reference has the value
    cells = 0  # equal entries so far
    for i in range(packed.size):
        entry = packed[i]
        code = entry & CODE
        same_value = np.int64(entry >> CODE_BITS == previous >> CODE_BITS)
        same = np.int64(entry == previous)
        is_reference = np.int64(code == 0)  # first among equals
        cells = same * cells + 1
        shared = is_reference | (same_value & shared)
        n_distinct += is_reference & (1 - same)
        at = n_distinct - is_reference
        equal[at] = cells
        below += is_reference
        middle[at] = below - 0.5 * cells
        at = n_occ - (same & (1 - is_reference))
        occ_code[at] = code
        occ_at[at] = 2 * (n_distinct - shared) + shared
        occ_cells[at] = cells
        n_occ = at + 1 - is_reference
        previous = entry
    return n_distinct, n_occ, below


@jit
def _pair(equal, middle, at, cells, n_ref, n_target, target_equal, target_below, own, terms):
    """A2 of one pair; `at` and `cells` are the target's occurrences by ascending value.

    `equal` and `middle` end with an entry above all values: no cells, and `n_ref` beneath it.
    The loop over occurrences has no branch but that of `_fill`; what takes divisions is done
    afterwards, vectorised.
    """
    n = n_ref + n_target
    n_distinct = equal.size - 1
    own_ties, own_b, own_m = own[0], own[1], own[2]
    n_own = 0  # values that the reference does not have
    r = 0
    m = 0.0  # target cells below
    for k in range(at.size):
        upto = at[k] >> 1
        tied = at[k] & 1
        t = np.float64(cells[k])
        _fill(target_below, r, upto + 1, m)
        target_equal[upto] = t * tied
        mid = m + 0.5 * t
        own_ties[n_own] = t
        own_b[n_own] = middle[upto] - 0.5 * equal[upto] + mid
        own_m[n_own] = mid
        n_own += 1 - tied
        r = upto + tied
        m += t
    _fill(target_below, r, n_distinct, m)
    n_terms = n_distinct + n_own
    if n_terms < 2:
        target_equal[0] = 0.0
        return np.nan
    for q in range(n_distinct):
        t = target_equal[q]
        mid = target_below[q] + 0.5 * t
        terms[q] = _term(equal[q] + t, middle[q] + mid, mid, n, n_target)
    for k in range(n_own):
        terms[n_distinct + k] = _term(own_ties[k], own_b[k], own_m[k], n, n_target)
    for k in range(at.size):  # back to zero for the next pair
        target_equal[at[k] >> 1] = 0.0
    total = _sum(terms, n_terms)
    return total * (n - 1.0) / (n * n) * (1.0 / n_target + 1.0 / n_ref)


@jit
def _sum(terms, n):
    """Sum of ``terms[:n]``, n > 0, by folding the array, which is vectorised; overwrites it."""
    while n > 1:
        half = n // 2
        rest = n - half
        upper = terms[rest:n]
        for q in range(half):
            terms[q] += upper[q]
        n = rest
    return terms[0]


@jit
def _fill(array, start, stop, value):
    """Set ``array[start:stop]`` and up to `_STRIDE` entries beyond, which are written later.

    Stretches are short and irregular: whole strides cost fewer mispredicted branches.
    """
    for i in range(start, stop, _STRIDE):
        stretch = array[i : i + _STRIDE]
        for q in range(_STRIDE):
            stretch[q] = value


@jit
def _term(ties, b, m, n, n_target):
    difference = n * m - b * n_target
    return ties * (difference * difference) / (b * (n - b) - 0.25 * n * ties)
