"""Kolmogorov-Smirnov distances of every target of a contrast.

Between two values of the target its distribution is constant and the other can only rise. So the
largest excess of the target occurs at one of its own values, and its largest lag just below one.
"""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..contract import Distances, GeneValues
from ..gene_values import object_row
from .contrast_entries import reference_cells, select
from .distinct_values import sorting_room, tables, tabulate
from .jit import jit
from .pack import CpuPackedChunk
from .sort import key_bits


def kolmogorov_smirnov(
    packed: CpuPackedChunk, genes: slice, contrast: Contrast, *, values: bool = False
) -> Distances:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.kolmogorov_smirnov`."""
    entries = select(packed, genes, contrast)
    bits, mode = key_bits(entries.values)
    n_genes, n_groups = genes.stop - genes.start, len(entries.n_cells)
    shape = n_groups, n_genes
    above, below = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    # Room for every entry, and for the zeros of every group.
    room = len(entries.values) + n_genes * (n_groups + 1) if values else 0
    cells, place, count = (np.empty(room, np.int64) for _ in range(3))
    bounds = np.zeros((n_genes if values else 0, n_groups + 1), np.int64)
    n_distinct = np.zeros(n_genes, np.int64)
    _distances(
        bits, mode, entries.bounds, entries.n_cells, reference_cells(contrast),
        contrast.one_vs_rest, contrast.pooled, above, below, n_distinct, cells, place, count,
        bounds,
    )  # fmt: skip
    first = shape[0] - contrast.n_targets
    found = None
    if values:
        its = bounds[:, first:] if not contrast.pooled else np.zeros_like(bounds[:, first:])
        found = object_row(_gene_values(n_distinct, cells, place, count, its, contrast.pooled))
    return Distances(above[first:], below[first:], found)


def _gene_values(
    n_distinct: np.ndarray,
    cells: np.ndarray,
    place: np.ndarray,
    count: np.ndarray,
    bounds: np.ndarray,
    pooled: bool,
) -> list[GeneValues]:
    """Divide counts by gene; they lie one gene after the other."""
    found, start, first = [], 0, 0
    for c, n in enumerate(n_distinct.tolist()):
        n_of_targets = int(bounds[c, -1])
        its = slice(first, first + n_of_targets)
        found.append(
            GeneValues(cells[start : start + n], place[its], count[its], bounds[c], pooled)
        )
        start, first = start + n, first + n_of_targets
    return found


@jit
def _distances(
    bits, mode, gene_bounds, n_cells, n_reference, pool, shared, above, below, n_distinct, cells,
    place, count, bounds,
):  # fmt: skip
    """Find the distances; `shared` means that a target's cells also count as the reference.

    If `bounds` has any rows, list the distinct values of genes, too.
    """
    n_groups = n_cells.size
    sorting, filled = sorting_room(gene_bounds), tables(gene_bounds, n_groups)
    equal, middle, occ_code, occ_at, occ_cells = filled
    met = np.empty(n_groups, np.int64)  # target cells below
    largest = np.empty((2, n_groups), np.int64)
    start, first = 0, 0
    for c in range(gene_bounds.shape[0]):
        n_values, n_occ = tabulate(bits, mode, gene_bounds, c, n_cells, pool, sorting, filled)
        met[:] = 0
        largest[:] = 0
        for k in range(n_occ):
            g = occ_code[k]
            r = occ_at[k] >> 1
            own = met[g]
            upto = own + occ_cells[k]
            met[g] = upto
            reference_below = np.int64(middle[r] - 0.5 * equal[r]) - shared * own
            reference_upto = (
                np.int64(middle[r] + 0.5 * equal[r] * (2 * (occ_at[k] & 1) - 1)) - shared * upto
            )
            excess = n_reference[g] * upto - n_cells[g] * reference_upto
            lag = n_cells[g] * reference_below - n_reference[g] * own
            largest[0, g] = max(largest[0, g], excess)
            largest[1, g] = max(largest[1, g], lag)
        above[:, c] = largest[0]
        below[:, c] = largest[1]
        if bounds.shape[0] == 0:
            continue
        n_distinct[c] = n_values
        for r in range(n_values):
            cells[start + r] = np.int64(equal[r])
        start += n_values
        if not shared:
            _by_group(
                occ_code[:n_occ], occ_at, occ_cells, bounds[c], met, place[first:], count[first:]
            )
            first += n_occ


@jit
def _by_group(code, at, cells, bounds, filled, place, count):
    """List occurrences group by group; `filled` is working memory."""
    bounds[:] = 0
    for k in range(code.size):
        bounds[code[k] + 1] += 1
    for g in range(1, bounds.size):
        bounds[g] += bounds[g - 1]
    filled[:] = bounds[:-1]
    for k in range(code.size):
        to = filled[code[k]]
        filled[code[k]] += 1
        place[to], count[to] = at[k], cells[k]
