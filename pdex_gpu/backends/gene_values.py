"""The distinct values of a gene, counted on the host with numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..design.contrasts import Contrast
from .contract import GeneValues, GroupValues


def gene_values(entries: GroupValues, n_cells: np.ndarray, contrast: Contrast) -> GeneValues:
    """Count the distinct values of a gene.

    Parameters
    ----------
    entries : GroupValues
        Values of each group of the design; zeros may be left out.
    n_cells : numpy.ndarray, shape (n,), int64
        Cells of each of ``contrast.groups``, those with zeros included.
    contrast : Contrast
    """
    order = np.full(len(entries), -1)
    order[contrast.groups] = np.arange(len(contrast.groups))
    group = np.repeat(order, np.diff(entries.bounds))
    kept = (group >= 0) & (entries.values != 0)
    values, group = entries.values[kept], group[kept]
    zeros = n_cells - np.bincount(group, minlength=len(n_cells))
    with_zeros = np.flatnonzero(zeros)
    # One entry for all zeros of a group.
    values = np.append(values, np.zeros(len(with_zeros), values.dtype))
    count = np.append(np.ones(len(group), np.int64), zeros[with_zeros])
    group = np.append(group, with_zeros)
    its = slice(None) if contrast.one_vs_rest else group == 0
    reference, _, cells = _distinct(values[its], np.zeros_like(group[its]), count[its])
    if contrast.pooled:
        none = np.zeros(0, np.int32)
        return GeneValues(cells, none, none, none, contrast.pooled)
    its = group > 0
    # Targets keep their order in the design, so a stable sort keeps it among equal values.
    values, target, count = _distinct(values[its], group[its] - 1, count[its])
    place = reference.searchsorted(values) + reference.searchsorted(values, "right")
    return GeneValues(
        cells, target.astype(np.int32), place.astype(np.int32), count, contrast.pooled
    )


def _distinct(
    values: np.ndarray, group: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct values of each group, ascending, their groups and their counts.

    Equal values are given in the order of their groups.
    """
    order = np.argsort(values, kind="stable")
    values, group = values[order], group[order]
    is_first = np.ones(len(values), bool)
    is_first[1:] = (values[1:] != values[:-1]) | (group[1:] != group[:-1])
    first = np.flatnonzero(is_first)
    if not len(first):
        return values, group, np.zeros(0, np.int32)
    return values[first], group[first], np.add.reduceat(count[order], first).astype(np.int32)


def object_row(found: Sequence[GeneValues]) -> np.ndarray:
    """Return an object array of shape (1, C), which can be sliced by gene like other results."""
    row = np.empty((1, len(found)), object)
    row[0, :] = found
    return row
