"""Sums of squared placements of every target of a contrast.

A target value with t cells that is above b reference cells and equal to e adds
``t (2 b + e)**2``. A reference cell with c of the n target cells below it, and none equal, has
twice the placement ``h = 2 (n - c)``. Along the reference cells a target value lowers this in two
steps: from h below the value to ``h - t`` at it, and on to ``h - 2 t`` above it. So it adds
``b (h**2 - (h - t)**2) + (b + e) ((h - t)**2 - (h - 2 t)**2)`` to the sum of squares. Sums are
exact whole numbers.
"""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Contrast
from ..outputs import Placements, RankSums
from .contrast_entries import select
from .distinct_values import sorting_room, tables, tabulate
from .int128 import add_multiple, add_product, as_float
from .jit import jit
from .pack import CpuPackedChunk
from .sort import key_bits


def placements(packed: CpuPackedChunk, genes: slice, contrast: Contrast) -> Placements:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.placements`."""
    entries = select(packed, genes, contrast)
    bits, mode = key_bits(entries.values)
    shape = (len(entries.n_cells), genes.stop - genes.start)
    of_target, of_reference = np.full(shape, np.nan), np.full(shape, np.nan)
    u2, ties = np.full(shape, -1, np.int64), np.full(shape, np.nan)
    _placements(
        bits, mode, entries.bounds, entries.n_cells, contrast.one_vs_rest,
        contrast.pooled, of_target, of_reference, u2, ties,
    )  # fmt: skip
    first = shape[0] - contrast.n_targets
    sums = RankSums(u2[first:], ties[first:])
    return Placements(of_target[first:], of_reference[first:], sums)


@jit
def _placements(bits, mode, gene_bounds, n_cells, pool, shared, of_target, of_reference, u2, ties):
    """Compute the sums; `shared` means that a target's cells also count as the reference."""
    n_groups = n_cells.size
    sorting, filled = sorting_room(gene_bounds), tables(gene_bounds, n_groups)
    equal, middle, occ_code, occ_at, occ_cells = filled
    met = np.empty(n_groups, np.int64)  # target cells below
    plain = np.empty(n_groups, np.int64)  # sum of twice the placements
    # Sums of squares of both samples, and tie terms in excess of the reference's own.
    high = np.empty((3, n_groups), np.int64)
    low = np.empty((3, n_groups), np.uint64)
    for c in range(gene_bounds.shape[0]):
        n_distinct, n_occ = tabulate(bits, mode, gene_bounds, c, n_cells, pool, sorting, filled)
        alone = 0, np.uint64(0)  # tie term of the reference itself
        for r in range(n_distinct):
            e = np.int64(equal[r])
            alone = add_product(*alone, e * e - 1, e)
        met[:] = 0
        plain[:] = 0
        high[:] = 0
        low[:] = 0
        for k in range(n_occ):
            g = occ_code[k]
            r = occ_at[k] >> 1
            t = occ_cells[k]
            own = met[g]
            met[g] = own + t
            below = np.int64(middle[r] - 0.5 * equal[r]) - shared * own
            upto = np.int64(middle[r] + 0.5 * equal[r] * (2 * (occ_at[k] & 1) - 1)) - shared * (
                own + t
            )
            placed = below + upto
            plain[g] += t * placed
            beside = np.int64(equal[r]) * (occ_at[k] & 1) * (1 - shared)
            together = beside + t
            # (together**3 - together) - (beside**3 - beside)
            high[2, g], low[2, g] = add_product(
                high[2, g], low[2, g],
                t * (1 - shared), together * together + beside * (together + beside) - 1,
            )  # fmt: skip
            high[0, g], low[0, g] = add_product(high[0, g], low[0, g], t * placed, placed)
            twice = 4 * (n_cells[g] - own)
            high[1, g], low[1, g] = add_product(high[1, g], low[1, g], below, t * (twice - t))
            high[1, g], low[1, g] = add_product(high[1, g], low[1, g], upto, t * (twice - 3 * t))
        for g in range(n_groups):
            of_target[g, c] = as_float(high[0, g], low[0, g])
            of_reference[g, c] = as_float(high[1, g], low[1, g])
            u2[g, c] = plain[g]
            ties[g, c] = as_float(*add_multiple(*alone, 1, high[2, g], low[2, g]))
