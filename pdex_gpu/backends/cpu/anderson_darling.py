"""Two-sample Anderson-Darling statistic of every target of a contrast.

A2 (Scholz and Stephens 1987, eq. 7) is a sum over the distinct pooled values. Between two values
of the target its cumulative count is constant. So a pair takes one pass over the reference's
distinct values and one over the target's own, without sorting or searching. The same holds for
their eq. 6.
"""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from .anderson_darling_continuous import anderson_darling_continuous
from .anderson_darling_pool import anderson_darling_pool
from .contrast_entries import longest_gene, select
from .distinct_values import sorting_room, tables, tabulate
from .exact_sums import folds, sum_of
from .jit import jit
from .pack import CpuPackedChunk
from .sort import key_bits

_STRIDE = 16


def anderson_darling(
    packed: CpuPackedChunk, genes: slice, contrast: Contrast, *, variant: str = "midrank"
) -> np.ndarray:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.anderson_darling`."""
    entries = select(packed, genes, contrast)
    if variant == "continuous":
        return anderson_darling_continuous(entries, contrast)
    if contrast.pooled:
        return anderson_darling_pool(entries, contrast, variant == "midrank")
    a2 = np.full((contrast.n_targets, genes.stop - genes.start), np.nan)
    bits, mode = key_bits(entries.values)
    _anderson_darling(bits, mode, entries.bounds, entries.n_cells, variant == "midrank", a2)
    return a2


@jit
def _anderson_darling(bits, mode, gene_bounds, n_cells, midrank, a2):
    n_groups = n_cells.size
    longest = longest_gene(gene_bounds)
    sorting, filled = sorting_room(gene_bounds), tables(gene_bounds, n_groups)
    equal, middle, occ_code, occ_at, occ_cells = filled
    # Occurrences, sorted by target, then by value.
    by_target_at = np.empty(longest + n_groups, np.int64)
    by_target_cells = np.empty(longest + n_groups, np.int64)
    where = np.empty(n_groups + 1, np.int64)
    target_equal = np.zeros(longest + 2, np.float64)  # stays zero between pairs
    target_below = np.empty(longest + 2 + _STRIDE, np.float64)
    own = np.empty((3, longest + 2), np.float64)
    terms = np.empty(2 * longest + 4, np.float64)
    for c in range(a2.shape[1]):
        n_distinct, n_occ = tabulate(bits, mode, gene_bounds, c, n_cells, False, sorting, filled)
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
            at = by_target_at[where[g - 1] : where[g]]
            cells = by_target_cells[where[g - 1] : where[g]]
            n_ref, n_target = np.float64(n_cells[0]), np.float64(n_cells[g])
            a2[g - 1, c] = _pair(
                equal[: n_distinct + 1], middle[: n_distinct + 1], at, cells,
                n_ref, n_target, midrank, target_equal, target_below, own, terms,
            )  # fmt: skip


@jit
def _pair(
    equal, middle, at, cells, n_ref, n_target, midrank, target_equal, target_below, own, terms
):
    """Compute A2 of one pair; `at` and `cells` are the target's occurrences by ascending value.

    `equal` and `middle` end with an entry above all values, with no cells and `n_ref` below it.
    The only branch in the loop over occurrences is that of `_fill`. Divisions come afterwards,
    vectorised. A value adds at most twice its cells times ``n_ref * n_target``; this bounds the
    terms, so that their sum does not depend on their order.
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
    if midrank:
        for q in range(n_distinct):
            t = target_equal[q]
            mid = target_below[q] + 0.5 * t
            terms[q] = _term(equal[q] + t, middle[q] + mid, mid, n, n_target)
        for k in range(n_own):
            terms[n_distinct + k] = _term(own_ties[k], own_b[k], own_m[k], n, n_target)
    else:
        for q in range(n_distinct):
            t = target_equal[q]
            m = target_below[q] + t
            terms[q] = _right_term(equal[q] + t, middle[q] + 0.5 * equal[q] + m, m, n, n_target)
        for k in range(n_own):
            t = own_ties[k]
            terms[n_distinct + k] = _right_term(
                t, own_b[k] + 0.5 * t, own_m[k] + 0.5 * t, n, n_target
            )
    for k in range(at.size):  # back to zero for the next pair
        target_equal[at[k] >> 1] = 0.0
    first, second = folds(4.0 * n_target * n_ref, n)
    high, low = sum_of(terms[:n_terms], first, second)
    total = high + low
    if midrank:
        return total * (n - 1.0) / (n * n) * (1.0 / n_target + 1.0 / n_ref)
    return total / n * (1.0 / n_target + 1.0 / n_ref)


@jit
def _fill(array, start, stop, value):
    """Set ``array[start:stop]`` and up to `_STRIDE` entries beyond, which are written later.

    Stretches are short and irregular, so whole strides cause fewer mispredicted branches.
    """
    for i in range(start, stop, _STRIDE):
        stretch = array[i : i + _STRIDE]
        for q in range(_STRIDE):
            stretch[q] = value


@jit
def _term(ties, b, m, n, n_target):
    difference = n * m - b * n_target
    return ties * (difference * difference) / (b * (n - b) - 0.25 * n * ties)


@jit
def _right_term(ties, b, m, n, n_target):
    difference = n * m - b * n_target
    last = b == n  # left out: 0 / 0
    return ties * (difference * difference) / (1.0 if last else b * (n - b))
