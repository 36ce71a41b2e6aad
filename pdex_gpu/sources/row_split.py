"""Rows of a sparse matrix split by ranges of genes, and a range put together from such splits.

The matrix comes in blocks of whole rows. Of each block the entries of range 0 are kept together,
then those of range 1, ...; within a range by row. So a range is a piece of every block. A gene
takes a byte where ranges are narrow, and a value does where a cell has few distinct ones, as counts
and normalised counts have: two bytes in place of six or eight.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..pools import Map
from .base import CsrChunk
from .order import in_order

_BYTE = 1 << 8
# Values are numbered if the tables that tell what the numbers mean stay small beside them.
_ENTRIES_PER_TABLE_ENTRY = 8


@dataclass(frozen=True)
class Ranges:
    """Ranges of genes, and how genes are written within them.

    Attributes
    ----------
    edges : tuple of int
        Range k is ``[edges[k], edges[k + 1])``.
    n_genes : int
        Of the matrix.
    index_dtype : numpy.dtype
        Of genes as they are kept.
    base : numpy.ndarray, shape (n_ranges,), int64
        What is subtracted from the genes of a range.
    """

    edges: tuple[int, ...]
    n_genes: int
    index_dtype: np.dtype
    base: np.ndarray

    @classmethod
    def of(cls, edges: Sequence[int], n_genes: int, index_dtype: np.dtype) -> Ranges:
        """Genes counted from the first of their range take a byte, if all ranges are narrow."""
        edges = tuple(int(edge) for edge in edges)
        if max(np.diff(edges), default=0) <= _BYTE:
            return cls(edges, n_genes, np.dtype(np.uint8), np.array(edges[:-1], np.int64))
        return cls(edges, n_genes, index_dtype, np.zeros(len(edges) - 1, np.int64))

    @property
    def n(self) -> int:
        return len(self.edges) - 1


@dataclass(frozen=True)
class SplitBlock:
    """Rows ``[rows.start, rows.stop)``, split; the arrays may be wherever they are kept.

    Attributes
    ----------
    rows : slice
    bounds : numpy.ndarray, shape (n_ranges + 1,), int64
        Entries of range k are ``[bounds[k], bounds[k + 1])`` of those kept of the block.
    n_table : int
        Entries of `table`.
    counts : shape (n_ranges * n_rows,), unsigned integer
        Entries of each row in each range.
    values : shape (nnz,)
        As they are, or as numbers of one byte if there is a table.
    indices : shape (nnz,), unsigned integer
        Genes, as :class:`Ranges` says.
    table : shape (n_table,)
        The distinct values of each row; empty if values are as they are.
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


def split_block(
    ranges: Ranges,
    rows: slice,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
    wanted: Container[int],
    seen: np.ndarray,
) -> SplitBlock:
    """Split a block of rows.

    Parameters
    ----------
    ranges : Ranges
    rows : slice
    arrays : tuple of numpy.ndarray
        Data, indices and bounds, as :meth:`.rows.RowBlocks.block` gives them. Rows that are out of
        order are sorted in place.
    wanted : container of int
        The ranges that are kept.
    seen : numpy.ndarray, shape (n_genes,), int64
        Entries of each gene, added to here.
    """
    from .split_rows import copy_pieces, count_pieces

    data, indices, bounds = arrays
    # Genes outside the edges get ranges of their own, which are left out.
    cuts = np.array([0, *ranges.edges, ranges.n_genes], np.int64)
    kept = np.array([False, *(k in wanted for k in range(ranges.n)), False])
    count_dtype = np.uint16 if ranges.n_genes < 1 << 16 else np.uint32
    counts = np.zeros((len(kept), rows.stop - rows.start), count_dtype)
    counted = np.zeros_like(seen)
    if count_pieces(indices, bounds, cuts, counts, counted) >= 0:  # not in order
        data, indices, bounds = in_order(data, indices, bounds)
        counted[:] = 0
        count_pieces(indices, bounds, cuts, counts, counted)
    seen += counted
    sizes = np.where(kept, counts.sum(axis=1, dtype=np.int64), 0)
    ends = np.cumsum(sizes)
    starts = np.where(kept, ends - sizes, -1)
    values, table, table_bounds = _encoded(data, bounds)
    split = np.empty(int(ends[-1]), values.dtype)  # filled by copy_pieces, as the next
    split_indices = np.empty(int(ends[-1]), ranges.index_dtype)
    base = np.concatenate([[0], ranges.base, [0]])
    copy_pieces(values, indices, bounds, counts, starts, base, split, split_indices)
    pieces = np.concatenate([[0], ends[1:-1]])
    return SplitBlock(
        rows, pieces, len(table), counts[1:-1].ravel(), split, split_indices, table, table_bounds
    )


def join_range(
    ranges: Ranges,
    k: int,
    blocks: Sequence[SplitBlock],
    dtypes: tuple[np.dtype, np.dtype],
    get: Callable[[Any, int, int], np.ndarray],
    run: Map,
) -> CsrChunk:
    """The chunk of range `k`.

    Parameters
    ----------
    ranges : Ranges
    k : int
    blocks : sequence of SplitBlock
        They cover all cells.
    dtypes : (numpy.dtype, numpy.dtype)
        Of the values and indices to give.
    get : callable
        Gives items ``[first, last)`` of an array of a block.
    run : callable
        Spreads the work.
    """
    first, last = ranges.edges[k], ranges.edges[k + 1]
    n_cells = sum(block.rows.stop - block.rows.start for block in blocks)
    sizes = np.array([b.bounds[k + 1] - b.bounds[k] for b in blocks], np.int64)
    places = np.cumsum(sizes) - sizes
    data = np.empty(int(sizes.sum()), dtypes[0])  # filled block by block, as the others
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
            from .split_rows import decode_rows

            table = get(block.table, 0, block.n_table)
            table_bounds = get(block.table_bounds, 0, n_rows + 1)
            decode_rows(values, counts, table, table_bounds, data[piece].view(table.dtype))
        else:
            data[piece] = values
        genes = get(block.indices, a, b)
        np.add(genes, base, out=indices[piece], dtype=indices.dtype, casting="unsafe")

    for _ in run(fetch, range(len(blocks))):
        pass
    return CsrChunk(data, indices, starts, stops, first, last - first)


def _encoded(data: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values as one byte each, with a table of what they mean; as they are if that gains nothing.

    Returns
    -------
    values, table, table_bounds
        The table, and where each row begins in it, are empty if values are as they are.
    """
    from .split_rows import encode_rows

    as_they_are = data, np.empty(0, data.dtype), np.empty(0, np.int64)
    if data.dtype.itemsize < 4:
        return as_they_are
    bits = data.view(f"u{data.dtype.itemsize}")
    codes = np.empty(len(data), np.uint8)  # filled by encode_rows, as the others
    table = np.empty(len(data) // _ENTRIES_PER_TABLE_ENTRY, bits.dtype)
    table_bounds = np.empty(len(bounds), np.int64)
    if not encode_rows(bits, bounds, codes, table, table_bounds):
        return as_they_are
    return codes, table[: table_bounds[-1]].copy(), table_bounds
