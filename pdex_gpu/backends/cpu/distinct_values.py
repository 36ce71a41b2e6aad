"""A sorted gene as distinct values, and where among them each target has cells.

From a target, two-sample statistics need its distinct values, with the reference cells below each
and equal to it. So two tables serve all targets of a gene: a list of *occurrences* (target, value,
cells) by ascending value, and the distinct values of the cells that targets are compared with.
"""

from __future__ import annotations

import numpy as np

from .contrast_entries import longest_gene
from .jit import jit
from .sort import CODE, CODE_BITS, DIGIT, NOTHING, sort_gene


@jit
def sorting_room(gene_bounds):
    """Allocate the arrays that genes are sorted in."""
    longest = longest_gene(gene_bounds)
    packed, scratch = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    return packed, scratch, np.empty(2 << DIGIT, np.uint32)


@jit
def tables(gene_bounds, n_groups):
    """Allocate the arrays that `tabulate` fills.

    Returns
    -------
    equal, middle : float64, shape (longest gene + 2,)
        Cells at each distinct value of the reference, and cells below it plus half of those at it.
        One more entry stands above all values, with no cells at it and all of them below.
    code, at, cells : int64, shape (longest gene + n_groups + 1,)
        Occurrences: group, place, and number of cells of the group that have the value. The place
        is ``2 r + 1`` at distinct value r, and ``2 r`` between values r - 1 and r.
    """
    longest = longest_gene(gene_bounds)
    equal, middle = np.empty(longest + 2, np.float64), np.empty(longest + 2, np.float64)
    n = longest + n_groups + 1
    return equal, middle, np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)


@jit
def tabulate(bits, mode, gene_bounds, c, n_cells, pool, sorting, filled):
    """Sort the entries of gene number c and fill the tables.

    Parameters
    ----------
    bits, mode
        From `key_bits`.
    gene_bounds, n_cells : int64
        Entries and cells of groups, as in `select.Entries`.
    pool : bool
        If true, all groups together are the reference and each is a target; otherwise group 0 is
        the reference.
    sorting, filled : tuple of arrays
        From `sorting_room` and `tables`.

    Returns
    -------
    n_distinct, n_occurrences : int
    """
    bounds = gene_bounds[c] - gene_bounds[c, 0]
    gene = bits[gene_bounds[c, 0] : gene_bounds[c, n_cells.size]]
    packed, scratch, histogram = sorting
    n_negative = sort_gene(gene, mode, bounds, packed, scratch, histogram)
    equal, middle, code, at, cells = filled
    packed = packed[: gene.size]
    negative, positive = packed[:n_negative], packed[n_negative:]
    if pool:
        n_distinct, n_occ, below = _walk_pool(negative, 0, 0, 0, equal, middle, code, at, cells)
        zeros = n_cells.sum() - packed.size
    else:
        n_distinct, n_occ, below = _walk(negative, 0, 0, 0, equal, middle, code, at, cells)
        zeros = n_cells[0] - bounds[1]
    if zeros > 0:
        equal[n_distinct] = zeros
        middle[n_distinct] = below + 0.5 * zeros
    for g in range(0 if pool else 1, n_cells.size):
        target_zeros = n_cells[g] - (bounds[g + 1] - bounds[g])
        if target_zeros > 0:
            code[n_occ] = g
            at[n_occ] = 2 * n_distinct + (zeros > 0)
            cells[n_occ] = target_zeros
            n_occ += 1
    n_distinct += zeros > 0
    below += zeros
    if pool:
        n_distinct, n_occ, below = _walk_pool(
            positive, n_distinct, n_occ, below, equal, middle, code, at, cells
        )
    else:
        n_distinct, n_occ, below = _walk(
            positive, n_distinct, n_occ, below, equal, middle, code, at, cells
        )
    equal[n_distinct] = 0.0
    middle[n_distinct] = below
    return n_distinct, n_occ


@jit
def _walk(packed, n_distinct, n_occ, below, equal, middle, occ_code, occ_at, occ_cells):
    """List the distinct values of group 0 and the occurrences of the others.

    There are no branches, as in the scan of rank_sums: an entry that starts nothing new is written
    where the next one will be.
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
def _walk_pool(packed, n_distinct, n_occ, below, equal, middle, occ_code, occ_at, occ_cells):
    """List the distinct values of all groups together and the occurrences of each group."""
    previous = NOTHING
    tied = 0  # entries of the value so far
    cells = 0  # and of the group
    for i in range(packed.size):
        entry = packed[i]
        same_value = np.int64(entry >> CODE_BITS == previous >> CODE_BITS)
        same = np.int64(entry == previous)
        tied = same_value * tied + 1
        cells = same * cells + 1
        n_distinct += 1 - same_value
        below += 1
        equal[n_distinct - 1] = tied
        middle[n_distinct - 1] = below - 0.5 * tied
        at = n_occ - same
        occ_code[at] = entry & CODE
        occ_at[at] = 2 * n_distinct - 1
        occ_cells[at] = cells
        n_occ = at + 1
        previous = entry
    return n_distinct, n_occ, below
