"""The distinct values of a gene, counted on the host with numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..design.contrasts import Contrast
from .contract import GeneValues


def gene_values(
    samples: Sequence[np.ndarray], n_cells: Sequence[int], contrast: Contrast
) -> GeneValues:
    """Count the distinct values of a gene.

    Parameters
    ----------
    samples : sequence of numpy.ndarray
        Values of each group of ``contrast.groups``; zeros may be left out.
    n_cells : sequence of int
        Cells of each of these groups, those with zeros included.
    contrast : Contrast
    """
    counted = [_counted(*both) for both in zip(samples, n_cells, strict=True)]
    if contrast.one_vs_rest:
        reference, cells = _together(counted)
    else:
        reference, cells = counted[0]
    places, counts = [], []
    if not contrast.pooled:
        for values, n in counted[1:]:
            at = reference.searchsorted(values)
            found = np.zeros(len(values), np.int64)
            inside = at < len(reference)
            found[inside] = reference[at[inside]] == values[inside]
            places.append(2 * at + found)
            counts.append(n)
    bounds = np.zeros(contrast.n_targets + 1, np.int64)
    if places:
        bounds[1:] = np.cumsum([len(place) for place in places])
    none = np.zeros(0, np.int64)
    place, count = np.concatenate([none, *places]), np.concatenate([none, *counts])
    return GeneValues(cells, place, count, bounds, contrast.pooled)


def _counted(sample: np.ndarray, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values of a sample and the number of cells at each."""
    there = sample[sample != 0]
    zeros = np.zeros(n_cells - len(there), there.dtype)
    values, counts = np.unique(np.concatenate([there, zeros]), return_counts=True)
    return values, counts.astype(np.int64)


def _together(
    counted: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    values, at = np.unique(np.concatenate([v for v, _ in counted]), return_inverse=True)
    cells = np.zeros(len(values), np.int64)
    np.add.at(cells, at, np.concatenate([n for _, n in counted]))
    return values, cells


def object_row(found: Sequence[GeneValues]) -> np.ndarray:
    """Return an object array of shape (1, C), which can be sliced by gene like other results."""
    row = np.empty((1, len(found)), object)
    row[0, :] = found
    return row
