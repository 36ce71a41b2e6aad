"""How much device memory ranges and slices of genes take, and how many fit."""

from __future__ import annotations

import numpy as np

from ...design import Design
from ...sources.base import Source
from .matrix import DeviceMatrix
from .shapes import Shapes

_RESIDENT_SHARE = 0.75  # of the device for uploaded ranges, the rest for slices in work
_BYTES_PER_PAIR = 64  # counts, places and outputs of one (group, gene)
_BYTES_PER_CELL = 32  # code, order, row pointer, the cell's span in a slice
_FEWEST_SLICES = 8  # of a block, so that lanes overlap


def most_genes(free: int, source: Source, n_ranges: int) -> int:
    """Genes of a range of `source`, `n_ranges` of which lie on a device with `free` bytes."""
    room = _RESIDENT_SHARE * free / n_ranges - _BYTES_PER_CELL * source.n_cells
    a_gene = _travel_bytes(source) * source.nnz / max(1, source.n_genes)
    return max(1, min(source.n_genes, int(room / max(1.0, a_gene))))


def _travel_bytes(source: Source) -> int:
    """Bytes of a stored entry on the device, at most."""
    value = source.dtype.itemsize
    if source.bytes_per_entry == value:
        return value  # dense
    # Within a range of a CSR matrix genes are counted from its first.
    return value + (2 if source.costly_to_cut and source.n_genes <= 1 << 16 else 4)


def slices(
    entries: np.ndarray, matrix: DeviceMatrix, design: Design, free: int, shapes: Shapes
) -> list[slice]:
    """Consecutive slices of genes, each within its share of the `free` bytes if it has several."""
    key = matrix.value_type.bits // 8
    longest = int(design.n_cells.max())
    spare = key if longest > shapes.tile(key) else 0  # a second buffer to merge to
    reference = np.minimum(entries, int(design.n_cells[0])) * (key + 4)  # its distinct values
    bytes_a_gene = entries * (key + spare) + reference + _BYTES_PER_PAIR * design.n_groups
    room = min(shapes.slice_bytes, free // (2 * shapes.n_lanes)) - 16 * len(design.order)
    room = min(room, int(bytes_a_gene.sum()) // _FEWEST_SLICES + 1)
    found, start, used = [], 0, 0
    for j, size in enumerate(bytes_a_gene.tolist()):
        if j > start and used + size > room:
            found.append(slice(start, j))
            start, used = j, 0
        used += size
    if len(entries):
        found.append(slice(start, len(entries)))
    return found
