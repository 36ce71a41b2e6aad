"""Rows of a sparse matrix rechunked into ranges of genes, and the ranges reassembled.

The matrix arrives in blocks of whole rows. Within a block, the entries of range 0 are stored
together, then those of range 1, and so on; within a range they are ordered by row. A range is
therefore one piece of every block. A gene takes one byte if ranges are narrow. A value takes one
byte if each cell has few distinct values, as counts and normalised counts do. An entry then takes
two bytes instead of six or eight.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...utils.parallel import Map
from ..base import CsrChunk
from ..order import in_order

_BYTE = 1 << 8
# Values are replaced by codes only if the lookup tables stay small compared with the values.
_ENTRIES_PER_TABLE_ENTRY = 8


@dataclass(frozen=True)
class Ranges:
    """Ranges of genes, and how genes are encoded within them.

    Attributes
    ----------
    edges : tuple of int
        Range k is ``[edges[k], edges[k + 1])``.
    n_genes : int
        Genes of the matrix.
    index_dtype : numpy.dtype
        Dtype in which genes are stored.
    base : numpy.ndarray, shape (n_ranges,), int64
        Offset subtracted from the genes of each range.
    """

    edges: tuple[int, ...]
    n_genes: int
    index_dtype: np.dtype
    base: np.ndarray

    @classmethod
    def of(cls, edges: Sequence[int], n_genes: int, index_dtype: np.dtype) -> Ranges:
        """Choose the encoding: one byte per gene, relative to its range, if ranges are narrow."""
        edges = tuple(int(edge) for edge in edges)
        if max(np.diff(edges), default=0) <= _BYTE:
            return cls(edges, n_genes, np.dtype(np.uint8), np.array(edges[:-1], np.int64))
        return cls(edges, n_genes, index_dtype, np.zeros(len(edges) - 1, np.int64))

    @property
    def n(self) -> int:
        return len(self.edges) - 1


@dataclass(frozen=True)
class RechunkedBlock:
    """Rows ``[rows.start, rows.stop)``, rechunked; the arrays may be in memory or on disk.

    Attributes
    ----------
    rows : slice
    bounds : numpy.ndarray, shape (n_ranges + 1,), int64
        The wanted entries ``[bounds[k], bounds[k + 1])`` of the block belong to range k.
    n_table : int
        Length of `table`.
    counts : shape (n_ranges * n_rows,), unsigned integer
        Entries of each row in each range.
    values : shape (nnz,)
        The values themselves, or one-byte codes if there is a table.
    indices : shape (nnz,), unsigned integer
        Genes, encoded as :class:`Ranges` describes.
    table : shape (n_table,)
        The distinct values of each row; empty if values are not encoded.
    table_bounds : shape (n_rows + 1,), int64
    """

    rows: slice
    bounds: np.ndarray
    n_table: int
    counts: Any
    values: Any
    indices: Any
    table: Any
    table_bounds: Any

    @property
    def arrays(self) -> tuple[Any, ...]:
        return self.counts, self.values, self.indices, self.table, self.table_bounds


def rechunk_block(
    ranges: Ranges,
    rows: slice,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
    wanted: Container[int],
    seen: np.ndarray,
) -> RechunkedBlock:
    """Rechunk a block of rows: put the entries of each range of genes together.

    Parameters
    ----------
    ranges : Ranges
    rows : slice
    arrays : tuple of numpy.ndarray
        Data, indices and bounds, as :meth:`.base.RowBlocks.block` returns them. Rows
        that are out of order are sorted in place.
    wanted : container of int
        The ranges to keep.
    seen : numpy.ndarray, shape (n_genes,), int64
        Entries per gene; the counts of this block are added.
    """
    from .kernels import copy_pieces, count_pieces

    data, indices, bounds = arrays
    # Genes outside the edges get ranges of their own, which are dropped.
    cuts = np.array([0, *ranges.edges, ranges.n_genes], np.int64)
    is_wanted = np.array([False, *(k in wanted for k in range(ranges.n)), False])
    count_dtype = np.uint16 if ranges.n_genes < 1 << 16 else np.uint32
    counts = np.zeros((len(is_wanted), rows.stop - rows.start), count_dtype)
    counted = np.zeros_like(seen)
    if count_pieces(indices, bounds, cuts, counts, counted) >= 0:  # not in order
        data, indices, bounds = in_order(data, indices, bounds)
        counted[:] = 0
        count_pieces(indices, bounds, cuts, counts, counted)
    seen += counted
    sizes = np.where(is_wanted, counts.sum(axis=1, dtype=np.int64), 0)
    ends = np.cumsum(sizes)
    starts = np.where(is_wanted, ends - sizes, -1)
    values, table, table_bounds = _encoded(data, bounds)
    out_values = np.empty(int(ends[-1]), values.dtype)  # filled by copy_pieces, like the next
    out_indices = np.empty(int(ends[-1]), ranges.index_dtype)
    base = np.concatenate([[0], ranges.base, [0]])
    copy_pieces(values, indices, bounds, counts, starts, base, out_values, out_indices)
    pieces = np.concatenate([[0], ends[1:-1]])
    return RechunkedBlock(
        rows, pieces, len(table), counts[1:-1].ravel(), out_values, out_indices, table, table_bounds
    )


def join_range(
    ranges: Ranges,
    k: int,
    blocks: Sequence[RechunkedBlock],
    dtypes: tuple[np.dtype, np.dtype],
    get: Callable[[Any, int, int], np.ndarray],
    parallel_map: Map,
) -> CsrChunk:
    """Assemble the chunk of range `k`.

    Parameters
    ----------
    ranges : Ranges
    k : int
    blocks : sequence of RechunkedBlock
        Together they cover all cells.
    dtypes : (numpy.dtype, numpy.dtype)
        Dtypes of the returned values and indices.
    get : callable
        Returns items ``[first, last)`` of one array of a block.
    parallel_map : callable
        Spreads the work over threads.
    """
    first, last = ranges.edges[k], ranges.edges[k + 1]
    n_cells = sum(block.rows.stop - block.rows.start for block in blocks)
    sizes = np.array([b.bounds[k + 1] - b.bounds[k] for b in blocks], np.int64)
    places = np.cumsum(sizes) - sizes
    data = np.empty(int(sizes.sum()), dtypes[0])  # filled block by block, like the others
    indices = np.empty(int(sizes.sum()), dtypes[1])
    starts = np.empty(n_cells, np.int64)
    stops = np.empty(n_cells, np.int64)
    base = ranges.base[k]

    def fetch(i: int) -> None:
        block = blocks[i]
        n_rows = block.rows.stop - block.rows.start
        counts = get(block.counts, k * n_rows, (k + 1) * n_rows)
        np.cumsum(counts, dtype=np.int64, out=stops[block.rows])
        stops[block.rows] += places[i]
        starts[block.rows] = stops[block.rows] - counts
        piece = slice(int(places[i]), int(places[i] + sizes[i]))
        a, b = int(block.bounds[k]), int(block.bounds[k + 1])
        values = get(block.values, a, b)
        if block.n_table:
            from .kernels import decode_rows

            table = get(block.table, 0, block.n_table)
            table_bounds = get(block.table_bounds, 0, n_rows + 1)
            decode_rows(values, counts, table, table_bounds, data[piece].view(table.dtype))
        else:
            data[piece] = values
        genes = get(block.indices, a, b)
        np.add(genes, base, out=indices[piece], dtype=indices.dtype, casting="unsafe")

    for _ in parallel_map(fetch, range(len(blocks))):
        pass
    return CsrChunk(data, indices, starts, stops, first, last - first)


def _encoded(data: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode values as one byte each with a lookup table, unless that gains nothing.

    Returns
    -------
    values, table, table_bounds
        The table, and the start of each row in it, are empty if values are not encoded.
    """
    from .kernels import encode_rows

    as_they_are = data, np.empty(0, data.dtype), np.empty(0, np.int64)
    if data.dtype.itemsize < 4:
        return as_they_are
    bits = data.view(f"u{data.dtype.itemsize}")
    codes = np.empty(len(data), np.uint8)  # filled by encode_rows, like the others
    table = np.empty(len(data) // _ENTRIES_PER_TABLE_ENTRY, bits.dtype)
    table_bounds = np.empty(len(bounds), np.int64)
    if not encode_rows(bits, bounds, codes, table, table_bounds):
        return as_they_are
    return codes, table[: table_bounds[-1]].copy(), table_bounds
