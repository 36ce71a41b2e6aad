"""Estimates of the device memory that ranges and slices of genes take, and of how many fit."""

from __future__ import annotations

import numpy as np

from ...design.contrasts import Design
from ...sources.base import Source
from .anderson_darling import CHUNK, SUM_WORDS, SUMS
from .device_matrix import DeviceMatrix
from .launch_config import Shapes

_RESIDENT_SHARE = 0.75  # of device memory, for uploaded ranges; the rest is for slices
_BYTES_PER_PAIR = 80  # counts, places and outputs of one (group, gene)
_BYTES_PER_CELL = 32  # code, order, row pointer, the cell's span in a slice
_SLICE_BYTES_PER_CELL = 18  # the cell's span, a share of the harmonic numbers
_SUM_BYTES = (
    8 * SUM_WORDS * SUMS // CHUNK
)  # per distinct value of a pool: its share of the sums of its chunk
_FEWEST_SLICES = 8  # per packed chunk, so that slots overlap


def most_genes(free: int, source: Source, n_ranges: int) -> int:
    """Return the genes per range of `source` if `n_ranges` ranges share `free` device bytes."""
    room = _RESIDENT_SHARE * free / n_ranges - _BYTES_PER_CELL * source.n_cells
    a_gene = _travel_bytes(source) * source.nnz / max(1, source.n_genes)
    return max(1, min(source.n_genes, int(room / max(1.0, a_gene))))


def _travel_bytes(source: Source) -> int:
    """Return the most bytes that a stored entry takes on the device."""
    value = source.dtype.itemsize
    if source.bytes_per_entry == value:
        return value  # dense
    # In a range of a CSR matrix, genes are counted from the first of the range.
    return value + (2 if source.costly_to_cut and source.n_genes <= 1 << 16 else 4)


def slices(
    entries: np.ndarray, matrix: DeviceMatrix, design: Design, free: int, shapes: Shapes
) -> list[slice]:
    """Split genes into slices; one of several genes fits in its share of the `free` bytes."""
    key = matrix.value_type.bits // 8
    bytes_per_gene = _bytes_per_gene(entries, key, design, shapes)
    room = min(shapes.slice_bytes, free // (2 * shapes.n_slots))
    room -= _SLICE_BYTES_PER_CELL * len(design.order)
    room = min(room, int(bytes_per_gene.sum()) // _FEWEST_SLICES + 1)
    found, start, used = [], 0, 0
    for j, size in enumerate(bytes_per_gene.tolist()):
        if j > start and used + size > room:
            found.append(slice(start, j))
            start, used = j, 0
        used += size
    if len(entries):
        found.append(slice(start, len(entries)))
    return found


def _bytes_per_gene(entries: np.ndarray, key: int, design: Design, shapes: Shapes) -> np.ndarray:
    """Return device bytes per gene of a slice, for a kernel that compares with distinct values.

    Parameters
    ----------
    entries : numpy.ndarray, shape (n_genes,), int64
    key : int
        Bytes per key.
    """
    tile = shapes.tile(key)
    sorting = entries * (key if int(design.n_cells.max()) > tile else 0)  # a merge buffer
    comparing = np.zeros_like(entries)
    for contrast in design.contrasts:
        n_cells = contrast.n_cells.sum() if contrast.one_vs_rest else contrast.n_cells[0]
        most = np.minimum(entries, int(n_cells))
        # Distinct values, and where each starts.
        size = most * (key + 4 + (_SUM_BYTES if contrast.pooled else 0))
        if contrast.one_vs_rest:
            # The pool's buffer has room for all entries of the gene. Sorting may need a second
            # buffer, and the distinct values reuse its memory afterwards.
            size = entries * key + np.maximum(size, entries * np.where(most > tile, key, 0))
        np.maximum(comparing, size, out=comparing)
    return entries * key + sorting + comparing + _BYTES_PER_PAIR * design.n_groups
