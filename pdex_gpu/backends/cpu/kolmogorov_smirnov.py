"""Kolmogorov-Smirnov distances of every target of a contrast.

Between two values of the target its distribution is constant and the other can only rise. So the
largest excess of the target occurs at one of its own values, and its largest lag just below one.
"""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..contract import Distances
from .contrast_entries import reference_cells, select
from .distinct_values import sorting_room, tables, tabulate
from .jit import jit
from .pack import CpuPackedChunk
from .sort import key_bits


def kolmogorov_smirnov(packed: CpuPackedChunk, genes: slice, contrast: Contrast) -> Distances:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.kolmogorov_smirnov`."""
    entries = select(packed, genes, contrast)
    bits, mode = key_bits(entries.values)
    shape = (len(entries.n_cells), genes.stop - genes.start)
    above, below = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    _distances(
        bits, mode, entries.bounds, entries.n_cells, reference_cells(contrast),
        contrast.one_vs_rest, contrast.pooled, above, below,
    )  # fmt: skip
    first = shape[0] - contrast.n_targets
    return Distances(above[first:], below[first:])


@jit
def _distances(bits, mode, gene_bounds, n_cells, n_reference, pool, shared, above, below):
    """Find the distances; `shared` means that a target's cells also count as the reference."""
    n_groups = n_cells.size
    sorting, filled = sorting_room(gene_bounds), tables(gene_bounds, n_groups)
    equal, middle, occ_code, occ_at, occ_cells = filled
    met = np.empty(n_groups, np.int64)  # target cells below
    largest = np.empty((2, n_groups), np.int64)
    for c in range(gene_bounds.shape[0]):
        _, n_occ = tabulate(bits, mode, gene_bounds, c, n_cells, pool, sorting, filled)
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
