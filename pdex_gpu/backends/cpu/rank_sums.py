"""Mann-Whitney sums of every target of a packed block against the reference.

Both kernels cost time linear in the entries, whatever the number of groups. Small counts need no
sorting: a table per gene holds, for each count, twice the reference cells below plus those equal;
a second one counts the pooled cells, and each cell added to ``n`` equal ones adds
``(n+1)**3 - (n+1) - (n**3 - n) = 3 n (n + 1)`` to the tie term. All else is sorted once a gene, and
one scan keeps the number of reference cells below.

Sums are int64 and exact. Tie terms outgrow int64 beyond pooled samples of about 2 million cells,
so from there on float64 adds them up, in ascending order of value.
"""

from __future__ import annotations

import numpy as np

from ...design import Design
from ..contract import RankSums
from .jit import jit
from .pack import PackedBlock
from .sort import CODE, CODE_BITS, DIGIT, NOTHING, key_bits, sort_gene

EXACT_TIES = 2_000_000  # pooled cells up to which n**3 fits int64

# A table is worth its size up to this many counts, or a few times the entries.
_TABLE = 4096
_TABLE_PER_ENTRY = 4


def rank_sums(block: PackedBlock, genes: slice, design: Design) -> RankSums:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.rank_sums`."""
    shape = (design.n_groups - 1, genes.stop - genes.start)
    n_cells = design.n_cells
    exact = int(n_cells[0] + n_cells[1:].max()) <= EXACT_TIES
    u2 = np.full(shape, -1, np.int64)
    ties = np.full(shape, np.nan)
    todo = np.arange(genes.start, genes.stop)
    if exact and block.values.dtype == np.uint16:
        sorted_instead = np.zeros(len(todo), np.bool_)
        _rank_counts(
            block.values, block.offsets, genes.start, genes.stop, n_cells, u2, ties, sorted_instead
        )
        todo = todo[sorted_instead]
    if len(todo):
        start, stop = block.offsets[0, todo[0]], block.offsets[-1, todo[-1]]
        bits, mode = key_bits(block.values[start:stop])
        sums = np.zeros(design.n_groups, np.int64 if exact else np.float64)
        _rank_sorted(bits, mode, start, block.offsets, todo, genes.start, n_cells, sums, u2, ties)
    return RankSums(u2, ties)


@jit
def _rank_counts(values, offsets, j0, j1, n_cells, u2, ties, sorted_instead):
    size = 0
    twice_rank = np.empty(size, np.int64)
    pooled = np.empty(size, np.int64)
    reference = np.empty(size, np.int64)
    for j in range(j0, j1):
        c = j - j0
        gene = values[offsets[0, j] : offsets[-1, j]]
        largest = 0
        for i in range(gene.size):
            largest = max(largest, np.int64(gene[i]))
        if largest > _TABLE + _TABLE_PER_ENTRY * gene.size:
            sorted_instead[c] = True
            continue
        if largest >= size:
            size = largest + 1
            twice_rank = np.empty(size, np.int64)
            pooled = np.empty(size, np.int64)
            reference = np.empty(size, np.int64)
        reference[: largest + 1] = 0
        n_nonzero = offsets[1, j] - offsets[0, j]
        for i in range(n_nonzero):
            reference[gene[i]] += 1
        zeros = n_cells[0] - n_nonzero
        below = zeros
        ties_reference = 0
        for v in range(1, largest + 1):
            n = reference[v]
            pooled[v] = n
            twice_rank[v] = 2 * below + n
            below += n
            ties_reference += n * n * n - n
        stop = offsets[1, j]
        for g in range(1, n_cells.size):
            start, stop = stop, offsets[g + 1, j]
            x = values[start:stop]
            u = 0
            gained = 0
            for i in range(x.size):
                v = x[i]
                n = pooled[v]
                pooled[v] = n + 1
                gained += n * (n + 1)
                u += twice_rank[v]
            for i in range(x.size):
                pooled[x[i]] = reference[x[i]]
            target_zeros = n_cells[g] - x.size
            n = zeros + target_zeros
            u2[g - 1, c] = u + target_zeros * zeros
            ties[g - 1, c] = np.float64(ties_reference + 3 * gained + (n * n * n - n))


@jit
def _rank_sorted(bits, mode, start, offsets, todo, gene_start, n_cells, gained, u2, ties):
    n_groups = n_cells.size
    longest = 0
    for j in todo:
        longest = max(longest, offsets[n_groups, j] - offsets[0, j])
    packed = np.empty(longest, np.uint64)
    scratch = np.empty(longest, np.uint64)
    histogram = np.empty(2 << DIGIT, np.uint32)
    bounds = np.empty(n_groups + 1, np.int64)
    u = np.empty(n_groups, np.int64)
    for j in todo:
        first = offsets[0, j]
        for g in range(n_groups + 1):
            bounds[g] = offsets[g, j] - first
        n = bounds[n_groups]
        n_negative = sort_gene(
            bits[first - start : first - start + n], mode, bounds, packed, scratch, histogram
        )
        u[:] = 0
        gained[:] = 0
        below = _scan(packed[:n_negative], 0, u, gained)
        zeros = n_cells[0] - bounds[1]
        _scan(packed[n_negative:n], below + zeros, u, gained)
        for g in range(1, n_groups):
            target_zeros = n_cells[g] - (bounds[g + 1] - bounds[g])
            n = _as(zeros + target_zeros, gained)
            u2[g - 1, j - gene_start] = u[g] + target_zeros * (2 * below + zeros)
            ties[g - 1, j - gene_start] = np.float64(3 * (gained[0] + gained[g]) + (n * n * n - n))


@jit
def _as(n, like):
    return like.dtype.type(n)


@jit
def _scan(packed, below, u, gained):
    """Add sorted entries to `u` and `gained`; returns the reference cells below what follows.

    Within a run of equal values the reference, code 0, comes first, then each target in turn. So
    a target's entry has met all equal reference cells: it stands above `start` and beside
    ``below - start`` of them, and adds ``2 start + (below - start)`` to twice U. It also meets
    the entries of its own group in the run so far. No branch: runs are short and irregular.
    """
    previous = NOTHING
    start = below
    own = 0
    for i in range(packed.size):
        entry = packed[i]
        code = entry & CODE
        start = start if entry >> CODE_BITS == previous >> CODE_BITS else below
        is_reference = np.int64(code == 0)
        own = (1 - is_reference) * (own + 1) if entry == previous else 0
        n = below - start + own  # equal cells met so far in the reference and in this group
        below += is_reference
        u[code] += start + below
        gained[code] += _as(n * (n + 1), gained)
        previous = entry
    return below
