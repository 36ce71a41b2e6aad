"""Mann-Whitney sums of every target of a contrast.

All kernels take time linear in the entries, for any number of groups. Small counts need no
sorting: a table per gene holds, for each count, twice the reference cells below it plus those equal
to it. A second table counts the pooled cells; each cell added to ``n`` equal ones adds
``(n+1)**3 - (n+1) - (n**3 - n) = 3 n (n + 1)`` to the tie term. All other values are sorted once
per gene, and one scan tracks the number of reference cells below.

Where a target is compared with the rest of a pool that contains its own cells, these are counted
with the others. They contribute the ``n**2`` of a sample against itself, which is subtracted; the
ties are those of the pool.

If asked for, the cells at the lowest values above zero are read from the table of pooled counts, or
from the first of the sorted entries.

Sums are exact. Tie terms outgrow int64 for pooled samples of more than about 2 million cells. From
there on, an int64 is added to a 128-bit number before it overflows, and a tie term is rounded to
float64 once.
"""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..outputs import N_LOWEST, RankSums
from .contrast_entries import longest_gene, select
from .int128 import add_multiple, add_product, as_float
from .jit import jit
from .pack import CpuPackedChunk
from .sort import CODE, CODE_BITS, DIGIT, NOTHING, key_bits, sort_gene

NARROW = 2_000_000  # most pooled cells for which n**3 fits int64
MOST_GAINED = 2**63 - 1  # by an int64 before it is added to 128 bits

# A table is worth its size up to this many counts, plus a few per entry.
_TABLE = 4096
_TABLE_PER_ENTRY = 4


def rank_sums(
    packed: CpuPackedChunk, genes: slice, contrast: Contrast, *, lowest: bool = False
) -> RankSums:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.rank_sums`."""
    entries = select(packed, genes, contrast)
    values, bounds, n_cells = entries.values, entries.bounds, entries.n_cells
    n_genes = genes.stop - genes.start
    own_ties = not contrast.pooled  # one tie term per pair, otherwise per gene
    narrow = contrast.n_pooled <= NARROW
    u2 = np.full((contrast.n_targets, n_genes), -1, np.int64)
    shape = contrast.n_targets if own_ties else 1, n_genes
    ties = np.full(shape, np.nan)
    classes = np.zeros((*shape, N_LOWEST if lowest else 0), np.int32)
    todo = np.arange(n_genes)
    if narrow and values.dtype == np.uint16:
        sorted_instead = np.zeros(n_genes, np.bool_)
        if own_ties:
            _rank_counts(values, bounds, n_cells, u2, ties, classes, sorted_instead)
        else:
            first = contrast.first_target
            _rank_counts_pooled(values, bounds, n_cells, first, u2, ties, classes, sorted_instead)
        todo = todo[sorted_instead]
    if len(todo):
        bits, mode = key_bits(values)
        # An entry adds less than n_pooled**2.
        step = len(bits) + 1 if narrow else max(1, MOST_GAINED // contrast.n_pooled**2)
        if contrast.one_vs_rest:
            _rank_sorted_rest(bits, mode, bounds, todo, n_cells, step, u2, ties, classes)
        else:
            _rank_sorted(
                bits, mode, bounds, todo, n_cells, own_ties, narrow, step, u2, ties, classes
            )
    found = np.broadcast_to(classes, (*u2.shape, N_LOWEST)) if lowest else None
    return RankSums(u2, np.broadcast_to(ties, u2.shape), found)


@jit
def _largest(x):
    largest = 0
    for i in range(x.size):
        largest = max(largest, np.int64(x[i]))
    return largest


@jit
def _rank_counts(values, bounds, n_cells, u2, ties, classes, sorted_instead):
    size = 0
    twice_rank = np.empty(size, np.int64)
    pooled = np.empty(size, np.int64)
    reference = np.empty(size, np.int64)
    for c in range(bounds.shape[0]):
        gene = values[bounds[c, 0] : bounds[c, -1]]
        largest = _largest(gene)
        if largest > _TABLE + _TABLE_PER_ENTRY * gene.size:
            sorted_instead[c] = True
            continue
        if largest >= size:
            size = largest + 1
            twice_rank = np.empty(size, np.int64)
            pooled = np.empty(size, np.int64)
            reference = np.empty(size, np.int64)
        reference[: largest + 1] = 0
        n_nonzero = bounds[c, 1] - bounds[c, 0]
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
        stop = bounds[c, 1]
        for g in range(1, n_cells.size):
            start, stop = stop, bounds[c, g + 1]
            x = values[start:stop]
            u = 0
            gained = 0
            for i in range(x.size):
                v = x[i]
                n = pooled[v]
                pooled[v] = n + 1
                gained += n * (n + 1)
                u += twice_rank[v]
            _lowest_counts(pooled[: largest + 1], classes[g - 1, c])
            for i in range(x.size):
                pooled[x[i]] = reference[x[i]]
            target_zeros = n_cells[g] - x.size
            n = zeros + target_zeros
            u2[g - 1, c] = u + target_zeros * zeros
            ties[g - 1, c] = np.float64(ties_reference + 3 * gained + (n * n * n - n))


@jit
def _lowest_counts(cells, classes):
    """Fill in the numbers of cells at the lowest counts above zero, from a table of all counts."""
    found = 0
    for v in range(1, cells.size):
        if found == classes.size:
            break
        if cells[v] > 0:
            classes[found] = cells[v]
            found += 1


@jit
def _rank_counts_pooled(values, bounds, n_cells, first, u2, ties, classes, sorted_instead):
    """Rank targets against a pool.

    Targets are the groups from `first` on. The pool is the groups before it, or all if there are
    none.
    """
    size = 0
    pooled = np.empty((4, size), np.int64)
    twice_rank = np.empty(size, np.int64)
    n_in_pool = first if first > 0 else n_cells.size
    n_pool = n_cells[:n_in_pool].sum()
    for c in range(bounds.shape[0]):
        gene = values[bounds[c, 0] : bounds[c, -1]]
        largest = _largest(gene)
        if largest > _TABLE + _TABLE_PER_ENTRY * gene.size:
            sorted_instead[c] = True
            continue
        if largest >= size:
            size = largest + 1
            pooled = np.empty((4, size), np.int64)
            twice_rank = np.empty(size, np.int64)
        pooled[:, : largest + 1] = 0
        pool = values[bounds[c, 0] : bounds[c, n_in_pool]]
        whole = pool.size - pool.size % 4
        for i in range(0, whole, 4):  # four tables: equal counts are frequent and would stall
            pooled[0, pool[i]] += 1
            pooled[1, pool[i + 1]] += 1
            pooled[2, pool[i + 2]] += 1
            pooled[3, pool[i + 3]] += 1
        for i in range(whole, pool.size):
            pooled[0, pool[i]] += 1
        zeros = n_pool - pool.size
        below = zeros
        ties_pool = zeros * zeros * zeros - zeros
        for v in range(1, largest + 1):
            n = (pooled[0, v] + pooled[1, v]) + (pooled[2, v] + pooled[3, v])
            pooled[0, v] = n
            twice_rank[v] = 2 * below + n
            below += n
            ties_pool += n * n * n - n
        ties[0, c] = np.float64(ties_pool)
        _lowest_counts(pooled[0, : largest + 1], classes[0, c])
        stop = bounds[c, first]
        for g in range(first, n_cells.size):
            start, stop = stop, bounds[c, g + 1]
            x = values[start:stop]
            u = 0
            for i in range(x.size):
                u += twice_rank[x[i]]
            u2[g - first, c] = u + (n_cells[g] - x.size) * zeros - n_cells[g] * n_cells[g]


@jit
def _rank_sorted(bits, mode, bounds, todo, n_cells, own_ties, narrow, step, u2, ties, classes):
    """Rank targets against group 0, or if not `own_ties`, against its cells outside the target.

    Unless sums are `narrow`, an int64 adds up tie terms of at most `step` entries.
    """
    n_groups = n_cells.size
    longest = longest_gene(bounds)
    packed = np.empty(longest, np.uint64)
    scratch = np.empty(longest, np.uint64)
    histogram = np.empty(2 << DIGIT, np.uint32)
    u = np.empty(n_groups, np.int64)
    gained = np.empty(n_groups, np.int64)
    high, low = np.zeros(n_groups, np.int64), np.zeros(n_groups, np.uint64)
    begun, latest = np.empty(n_groups, np.int64), np.empty(n_groups, np.uint64)
    among = np.empty(n_groups, np.int64)
    for c in todo:
        at = bounds[c] - bounds[c, 0]
        n = at[n_groups]
        n_negative = sort_gene(
            bits[bounds[c, 0] : bounds[c, n_groups]], mode, at, packed, scratch, histogram
        )
        u[:] = 0
        gained[:] = 0
        if not narrow:
            high[:] = 0
            low[:] = 0
        below = _scan(packed[:n_negative], 0, narrow, step, u, gained, high, low)
        zeros = n_cells[0] - at[1]
        _scan(packed[n_negative:n], below + zeros, narrow, step, u, gained, high, low)
        if classes.shape[2] > 0:
            if own_ties:
                _lowest_of_pairs(packed[n_negative:n], begun, latest, among, classes[:, c])
            else:
                _lowest_of_pool(packed[n_negative:n], True, classes[0, c])
        if not own_ties:
            if narrow:
                high[0], low[0] = add_product(0, _NONE, gained[0], 3)
            ties[0, c] = _with_zeros(high[0], low[0], zeros)
        for g in range(1, n_groups):
            target_zeros = n_cells[g] - (at[g + 1] - at[g])
            u2[g - 1, c] = u[g] + target_zeros * (2 * below + zeros)
            if own_ties and narrow:
                n = zeros + target_zeros
                ties[g - 1, c] = np.float64(3 * (gained[0] + gained[g]) + (n * n * n - n))
            elif own_ties:
                both = add_multiple(high[0], low[0], 1, high[g], low[g])
                ties[g - 1, c] = _with_zeros(*both, zeros + target_zeros)
            else:
                u2[g - 1, c] -= n_cells[g] * n_cells[g]


_NONE = np.uint64(0)


@jit
def _with_zeros(high, low, n):
    """Return a tie term plus that of n zeros, as float64."""
    high, low = add_product(high, low, n * n - 1, n)
    return as_float(high, low)


@jit
def _scan(packed, below, narrow, step, u, gained, high, low):
    """Add sorted entries to `u` and `gained`; return the reference cells below what follows.

    `gained` is a third of the tie term. Unless `narrow`, it ends as 0 and the whole tie term has
    been added to ``(high, low)``.

    Within a run of equal values the reference, code 0, comes first, then each target in turn. So
    all equal reference cells precede a target's entry: it is above `start` of them and equal to
    ``below - start``, and adds ``2 start + (below - start)`` to twice U. It also meets the earlier
    entries of its own group in the run. There is no branch, as runs are short and irregular.
    """
    previous = NOTHING
    start = below
    own = 0
    for begin in range(0, packed.size, step):
        part = packed[begin : begin + step]
        for i in range(part.size):
            entry = part[i]
            code = entry & CODE
            start = start if entry >> CODE_BITS == previous >> CODE_BITS else below
            is_reference = np.int64(code == 0)
            own = (1 - is_reference) * (own + 1) if entry == previous else 0
            n = below - start + own  # equal cells met so far in the reference and in this group
            below += is_reference
            u[code] += start + below
            gained[code] += n * (n + 1)
            previous = entry
        if not narrow:
            for g in range(gained.size):
                high[g], low[g] = add_product(high[g], low[g], gained[g], 3)
                gained[g] = 0
    return below


@jit
def _lowest_of_pairs(packed, begun, latest, among, classes):
    """Fill in the cells of each pair at its lowest values; `packed` are sorted entries above zero.

    Entries after the reference's last counted value cannot change a pair's lowest classes. Most
    targets have no entry before it: their classes are those of the reference. The classes of the
    others, which are `among` these entries, must be 0 before.

    `begun`, `latest` and `among` are scratch, with an element per target: how many classes it has
    (-1 for the reference's), the value of the last one, and the targets that have an entry.
    """
    n_targets, n_classes = classes.shape
    of_reference = np.zeros(n_classes, np.int32)
    begun[:] = -1
    found, n_among, end = 0, 0, 0
    value = NOTHING
    while end < packed.size:
        t = np.int64(packed[end] & CODE) - 1
        if t < 0:
            if packed[end] >> CODE_BITS != value:
                if found == n_classes:
                    break
                found += 1
                value = packed[end] >> CODE_BITS
            of_reference[found - 1] += 1
        elif begun[t] < 0:
            begun[t] = 0
            latest[t] = NOTHING
            among[n_among] = t
            n_among += 1
        end += 1
    for t in range(n_targets):
        if begun[t] < 0:
            for k in range(n_classes):
                classes[t, k] = of_reference[k]
    found, i = 0, 0
    while i < end:
        value = packed[i] >> CODE_BITS
        t = np.int64(packed[i] & CODE) - 1
        if t < 0:
            for q in range(n_among):
                t = among[q]
                if begun[t] < n_classes:
                    classes[t, begun[t]] = of_reference[found]
                    latest[t] = value
                    begun[t] += 1
            i += of_reference[found]
            found += 1
            continue
        if latest[t] == value:
            classes[t, begun[t] - 1] += 1
        elif begun[t] < n_classes:
            classes[t, begun[t]] = 1
            latest[t] = value
            begun[t] += 1
        i += 1


@jit
def _lowest_of_pool(packed, only_first, classes):
    """Fill in the cells of a pool at its lowest values: of all groups, or of the first alone."""
    begun = 0
    latest = NOTHING
    for i in range(packed.size):
        if only_first and packed[i] & CODE != 0:
            continue
        value = packed[i] >> CODE_BITS
        if value != latest:
            if begun == classes.size:
                break
            begun += 1
            latest = value
        classes[begun - 1] += 1


@jit
def _rank_sorted_rest(bits, mode, bounds, todo, n_cells, step, u2, ties, classes):
    """Rank each group against all others; int64 adds up tie terms of at most `step` entries."""
    n_groups = n_cells.size
    n_pool = n_cells.sum()
    longest = longest_gene(bounds)
    packed = np.empty(longest, np.uint64)
    scratch = np.empty(longest, np.uint64)
    histogram = np.empty(2 << DIGIT, np.uint32)
    u = np.empty(n_groups, np.int64)
    for c in todo:
        at = bounds[c] - bounds[c, 0]
        n = at[n_groups]
        n_negative = sort_gene(
            bits[bounds[c, 0] : bounds[c, n_groups]], mode, at, packed, scratch, histogram
        )
        u[:] = 0
        zeros = n_pool - n
        starts = scratch.view(np.int64)  # the sort no longer needs it
        tied = _scan_pool(packed[:n_negative], 0, step, starts, u, 0, _NONE)
        tied = _scan_pool(packed[n_negative:n], n_negative + zeros, step, starts, u, *tied)
        ties[0, c] = _with_zeros(*tied, zeros)
        _lowest_of_pool(packed[n_negative:n], False, classes[0, c])
        for g in range(n_groups):
            own_zeros = n_cells[g] - (at[g + 1] - at[g])
            u2[g, c] = u[g] + own_zeros * (2 * n_negative + zeros) - n_cells[g] * n_cells[g]


@jit
def _scan_pool(packed, below, step, starts, u, high, low):
    """Add to `u`, for each entry, twice the number of all entries below it plus that of its equals.

    That is the cells below its run plus those not above it. The forward pass finds the first,
    with `below` cells ahead of the entries, and the backward pass the second. Returns
    ``(high, low)`` with the tie term added.
    """
    previous = NOTHING
    start = below
    for begin in range(0, packed.size, step):
        part, starts_of_part = packed[begin : begin + step], starts[begin : begin + step]
        gained = 0  # a third of the tie term
        for i in range(part.size):
            value = part[i] >> CODE_BITS
            position = below + begin + i
            start = start if value == previous else position
            met = position - start
            gained += met * (met + 1)
            starts_of_part[i] = start
            previous = value
        high, low = add_product(high, low, gained, 3)
    following = NOTHING
    end = below + packed.size
    for k in range(packed.size):
        i = packed.size - 1 - k
        entry = packed[i]
        value = entry >> CODE_BITS
        end = end if value == following else below + i + 1
        u[entry & CODE] += starts[i] + end
        following = value
    return high, low
