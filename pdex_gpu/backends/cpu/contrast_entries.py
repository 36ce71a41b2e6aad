"""The entries of a contrast's groups, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...design.contrasts import Contrast
from .jit import jit
from .pack import CpuPackedChunk


@dataclass(frozen=True)
class Entries:
    """Entries of some groups in some genes.

    Attributes
    ----------
    values : numpy.ndarray, shape (n,)
        Nonzero values, as packed.
    bounds : numpy.ndarray, shape (C, n_groups + 1), int64
        Entries of group g in gene c are ``values[bounds[c, g]:bounds[c, g + 1]]``.
    n_cells : numpy.ndarray, shape (n_groups,), int64
    """

    values: np.ndarray
    bounds: np.ndarray
    n_cells: np.ndarray


def select(packed: CpuPackedChunk, genes: slice, contrast: Contrast) -> Entries:
    """Select the entries of a contrast's groups in some genes, ordered as ``contrast.groups``.

    They are a view of the chunk if the groups follow each other in the design, otherwise a copy.
    """
    n_cells = np.ascontiguousarray(contrast.n_cells, np.int64)
    span = contrast.span
    if span is not None:
        offsets = packed.offsets[span.start : span.stop + 1, genes]
        start, stop = offsets[0, 0], offsets[-1, -1]
        return Entries(packed.values[start:stop], np.ascontiguousarray(offsets.T - start), n_cells)
    offsets = packed.offsets[:, genes]
    starts = np.ascontiguousarray(offsets[contrast.groups].T)
    sizes = offsets[contrast.groups + 1].T - starts
    bounds = np.zeros((starts.shape[0], starts.shape[1] + 1), np.int64)
    ends = np.cumsum(sizes).reshape(sizes.shape)
    bounds[:, 1:] = ends
    bounds[1:, 0] = ends[:-1, -1]
    values = np.empty(bounds[-1, -1], packed.values.dtype)  # filled by the next line
    _copy(packed.values, starts, bounds, values)
    return Entries(values, bounds, n_cells)


@jit
def _copy(values, starts, bounds, out):
    for c in range(starts.shape[0]):
        for g in range(starts.shape[1]):
            first = bounds[c, g]
            n = bounds[c, g + 1] - first
            source = values[starts[c, g] : starts[c, g] + n]
            target = out[first : first + n]
            for i in range(n):
                target[i] = source[i]


@jit
def longest_gene(bounds):
    """Return the largest number of entries of any gene."""
    longest = 0
    for c in range(bounds.shape[0]):
        longest = max(longest, bounds[c, -1] - bounds[c, 0])
    return longest


def reference_cells(contrast: Contrast) -> np.ndarray:
    """Count the cells that each group is compared with, shape (n_groups,); 0 for non-targets."""
    others = np.zeros(len(contrast.groups), np.int64)
    others[len(others) - contrast.n_targets :] = contrast.n_reference
    return others
