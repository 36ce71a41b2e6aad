"""Cuts at a gene: of the rows of a CSR matrix, and of a chunk into two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .base import Chunk, CscChunk, DenseChunk, is_device_array
from .lazy import loaded


def halves(chunk: Chunk) -> tuple[Chunk, Chunk]:
    """Cut a chunk into its first ``n_genes // 2`` genes and the rest, without copying values.

    Entries of an unsorted row are divided as :func:`search_rows` describes.

    Raises
    ------
    TypeError
        The chunk's arrays are on a device and cannot be searched from the host.
    ValueError
        The chunk has fewer than two genes.
    """
    if is_device_array(chunk.values if isinstance(chunk, DenseChunk) else chunk.data):
        raise TypeError(
            "halves() cuts chunks in host memory; the arrays of this one are on a device"
        )
    n_left = chunk.n_genes // 2
    if n_left == 0:
        raise ValueError(f"a chunk of {chunk.n_genes} genes cannot be cut in two")
    middle = chunk.gene_start + n_left
    if isinstance(chunk, DenseChunk):
        return (
            replace(chunk, values=chunk.values[:, :n_left]),
            replace(chunk, values=chunk.values[:, n_left:], gene_start=middle),
        )
    if isinstance(chunk, CscChunk):
        return (
            replace(chunk, indptr=chunk.indptr[: n_left + 1]),
            replace(chunk, indptr=chunk.indptr[n_left:], gene_start=middle),
        )
    # Lazy entries are needed here, and again for each half.
    chunk = replace(chunk, data=loaded(chunk.data), indices=loaded(chunk.indices))
    cuts = search_rows(chunk.indices, chunk.starts, chunk.stops, middle)
    return (
        replace(chunk, stops=cuts, n_genes=n_left),
        replace(chunk, starts=cuts, gene_start=middle, n_genes=chunk.n_genes - n_left),
    )


def search_rows(
    indices: np.ndarray, starts: np.ndarray, stops: np.ndarray, edge: int
) -> np.ndarray:
    """Find where the entries of genes from `edge` on begin in each row ``[starts[i], stops[i])``.

    This is a binary search in all rows at once. Its steps depend only on the row's bounds and the
    comparisons with `edge`. Even in an unsorted row, the position therefore never decreases as
    `edge` increases, and it stays within the row, so ranges partition each row's entries. If two
    entries are in the wrong order or share a gene, and end up in different ranges, one of them
    lies in a range that does not contain its gene.

    Returns
    -------
    numpy.ndarray, shape (n_cells,), int64
    """
    low, high = starts.copy(), stops.copy()
    rows = np.flatnonzero(low < high)
    while len(rows):
        middle = (low[rows] + high[rows]) >> 1
        below = indices[middle] < edge
        low[rows[below]] = middle[below] + 1
        high[rows[~below]] = middle[~below]
        rows = rows[low[rows] < high[rows]]
    return low
