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
    room = len(entries.values) + n_genes * n_groups if values else 0
    cells = np.empty(room, np.int32)
    target, place, count = (np.empty(0 if contrast.pooled else room, np.int32) for _ in range(3))
    sizes = np.zeros((n_genes if values else 0, 2), np.int64)
    _distances(
        bits, mode, entries.bounds, entries.n_cells, reference_cells(contrast),
        contrast.one_vs_rest, contrast.pooled, above, below, cells, target, place, count, sizes,
    )  # fmt: skip
    first = shape[0] - contrast.n_targets
    found = None
    if values:
        found = object_row(_gene_values(sizes, cells, target, place, count, contrast.pooled))
    return Distances(above[first:], below[first:], found)


def _gene_values(
    sizes: np.ndarray,
    cells: np.ndarray,
    target: np.ndarray,
    place: np.ndarray,
    count: np.ndarray,
    pooled: bool,
) -> list[GeneValues]:
    """Divide counts by gene; they lie one gene after the other."""
    found, start, first = [], 0, 0
    for n, n_of_targets in sizes.tolist():
        its = slice(first, first + n_of_targets)
        found.append(
            GeneValues(cells[start : start + n], target[its], place[its], count[its], pooled)
        )
        start, first = start + n, first + n_of_targets
    return found


@jit
def _distances(
    bits, mode, gene_bounds, n_cells, n_reference, pool, shared, above, below, cells, target,
    place, count, sizes,
):  # fmt: skip
    """Find the distances; `shared` means that a target's cells also count as the reference.

    If `sizes` has any rows, list the distinct values of genes, too, and how many there are: of
    the reference, and of targets.
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
        if sizes.shape[0] == 0:
            continue
        for r in range(n_values):
            cells[start + r] = np.int32(equal[r])
        start += n_values
        sizes[c, 0] = n_values
        if not shared:
            for k in range(n_occ):
                target[first + k] = occ_code[k] - 1  # group 0 is the reference
                place[first + k], count[first + k] = occ_at[k], occ_cells[k]
            first += n_occ
            sizes[c, 1] = n_occ
