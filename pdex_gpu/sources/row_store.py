"""A CSR matrix split by ranges of genes as it arrives: in memory while there is room, then on disk.

The matrix comes in blocks of whole rows. Of each block the entries of range 0 are kept together,
then those of range 1, ...; within a range by row. So a range is a piece of every block. A gene
takes a byte where ranges are narrow, and a value does where a cell has few distinct ones, as counts
and normalised counts have: two bytes in place of six or eight.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from .base import CsrChunk, NotCanonicalError, Reading, UnevenError
from .rows import RowBlocks
from .scratch import Scratch

_BLOCK = 1 << 22  # entries of a block, at most
_SMALLEST_BLOCK = 1 << 16
# Of each entry of a block in work: as read, as split, and the decoded chunk around it.
_COPIES = 3
_BYTE = 1 << 8
# Values are numbered if the tables that tell what the numbers mean stay small beside them.
_ENTRIES_PER_TABLE_ENTRY = 8
_UNEVEN = 1.1  # how much larger than the first block others may be


@dataclass(frozen=True)
class _OnDisk:
    """An array in the scratch file."""

    offset: int
    dtype: np.dtype


@dataclass(frozen=True)
class _Block:
    """Rows ``[rows.start, rows.stop)``, split.

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
        Genes, counted from the first of the range if all ranges are narrow.
    table : shape (n_table,)
        The distinct values of each row; empty if values are as they are.
    table_bounds : shape (n_rows + 1,), int64
    """

    rows: slice
    bounds: np.ndarray
    n_table: int
    counts: np.ndarray | _OnDisk
    values: np.ndarray | _OnDisk
    indices: np.ndarray | _OnDisk
    table: np.ndarray | _OnDisk
    table_bounds: np.ndarray | _OnDisk


@dataclass(frozen=True)
class _Split:
    """A block before it is put away: rows, bounds, and the arrays as `_Block` has them."""

    rows: slice
    bounds: np.ndarray
    arrays: tuple[np.ndarray, ...]


class RowStore:
    """The ranges of a CSR matrix, read front to back once; a context manager and a `Reader`.

    Parameters
    ----------
    arrays : RowBlocks
    edges : sequence of int
    budget : int
        Bytes of entries to keep in memory.
    reading : Reading
    """

    def __init__(
        self, arrays: RowBlocks, edges: Sequence[int], budget: int, reading: Reading
    ) -> None:
        self._arrays, self._edges, self._reading = arrays, edges, reading
        n_ranges = len(edges) - 1
        # Genes outside the edges get ranges of their own, which are left out.
        self._cuts = np.array([0, *edges, arrays.n_genes], np.int64)
        wanted = range(n_ranges) if reading.wanted is None else reading.wanted
        self._wanted = np.array([False, *(k in wanted for k in range(n_ranges)), False])
        fits_byte = all(edges[k + 1] - edges[k] <= _BYTE for k in range(n_ranges))
        self._index_dtype = np.dtype(np.uint8) if fits_byte else arrays.index_dtype
        self._base = np.zeros(n_ranges + 2, np.int64)
        if fits_byte:  # genes counted from the first of the range take a byte
            self._base[1:-1] = edges[:-1]
        self._count_dtype = np.dtype(np.uint16 if arrays.n_genes < 1 << 16 else np.uint32)
        room = reading.work // (reading.n_threads * _COPIES * arrays.bytes_per_entry)
        length = max(_SMALLEST_BLOCK, min(_BLOCK, room, arrays.nnz // (4 * reading.n_threads)))
        self._tasks = arrays.cut(length)
        self._budget, self._used = budget, 0
        self._scratch: Scratch | None = None
        self._blocks: list[_Block] = []
        self._seen = np.zeros(arrays.n_genes, np.int64)
        self._lock = threading.Lock()

    def __enter__(self) -> RowStore:
        try:
            # The first block tells how much all will take: too little room is told at once.
            rest = self._tasks[1:]
            for rows in self._tasks[:1]:
                first = self._split(rows)
                n_bytes = sum(array.nbytes for array in first.arrays)
                share = int(self._seen.sum()) / max(1, self._arrays.nnz)
                expected = int(_UNEVEN * n_bytes / share) if rest and share else n_bytes
                if expected > self._budget:
                    self._open_scratch(expected - self._budget)
                self._blocks.append(self._put_away(first))
            self._blocks += self._reading.run(lambda rows: self._put_away(self._split(rows)), rest)
            self._check_sizes()
        except BaseException:
            self._close()
            raise
        return self

    def _open_scratch(self, n_bytes: int) -> None:
        if self._scratch is None:
            self._scratch = Scratch(self._reading.scratch, n_bytes)

    def _put_away(self, split: _Split) -> _Block:
        """Keep a block in memory if there is room, else write it to the scratch file."""
        n_bytes = sum(array.nbytes for array in split.arrays)
        n_table = len(split.arrays[3])
        with self._lock:
            if self._used + n_bytes <= self._budget:
                self._used += n_bytes
                return _Block(split.rows, split.bounds, n_table, *split.arrays)
            self._open_scratch(n_bytes)
        assert self._scratch is not None
        kept = []
        for array in split.arrays:
            kept.append(_OnDisk(self._scratch.reserve(array.nbytes), array.dtype))
            self._scratch.write(kept[-1].offset, array)
        return _Block(split.rows, split.bounds, n_table, *kept)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._scratch is not None:
            self._scratch.__exit__(None, None, None)

    def _check_sizes(self) -> None:
        """Raise UnevenError if a range is too large for the budget: a sample misled the plan."""
        most = self._reading.most_entries
        if most is None or self._arrays.counted is not None:
            return
        self._arrays.counted = self._seen
        running = np.concatenate([[0], np.cumsum(self._seen)])[list(self._edges)]
        if (np.diff(running)[np.diff(self._edges) > 1] > most).any():
            raise UnevenError("ranges of genes are larger than was estimated")

    def _split(self, rows: slice) -> _Split:
        """Read a block and split it."""
        from .split_rows import copy_pieces, count_pieces

        arrays = self._arrays
        data, indices, bounds = arrays.block(rows, self._reading)
        counts = np.zeros((len(self._wanted), rows.stop - rows.start), self._count_dtype)
        seen = np.zeros(arrays.n_genes, np.int64)
        if count_pieces(indices, bounds, self._cuts, counts, seen) >= 0:
            raise NotCanonicalError("gene indices are unsorted or repeated")
        with self._lock:
            self._seen += seen
        sizes = np.where(self._wanted, counts.sum(axis=1, dtype=np.int64), 0)
        ends = np.cumsum(sizes)
        starts = np.where(self._wanted, ends - sizes, -1)
        values, table, table_bounds = _encoded(data, bounds)
        split = np.empty(int(ends[-1]), values.dtype)  # filled by copy_pieces, as the next
        split_indices = np.empty(int(ends[-1]), self._index_dtype)
        copy_pieces(values, indices, bounds, counts, starts, self._base, split, split_indices)
        del data, values, indices
        kept = (counts[1:-1].ravel(), split, split_indices, table, table_bounds)
        pieces = np.concatenate([[0], ends[1:-1]])
        return _Split(rows, pieces, kept)

    def read(self, k: int) -> CsrChunk:
        """See :meth:`Reader.read`."""
        arrays = self._arrays
        first, last = self._edges[k], self._edges[k + 1]
        sizes = np.array([b.bounds[k + 1] - b.bounds[k] for b in self._blocks], np.int64)
        places = np.cumsum(sizes) - sizes
        data = np.empty(int(sizes.sum()), arrays.dtype)  # filled block by block, as the others
        indices = np.empty(int(sizes.sum()), arrays.index_dtype)
        starts = np.empty(arrays.n_cells, np.int64)
        stops = np.empty(arrays.n_cells, np.int64)

        def fetch(i: int) -> None:
            block = self._blocks[i]
            n_rows = block.rows.stop - block.rows.start
            counts = self._get(block.counts, k * n_rows, (k + 1) * n_rows)
            np.cumsum(counts, dtype=np.int64, out=stops[block.rows])
            stops[block.rows] += places[i]
            starts[block.rows] = stops[block.rows] - counts
            piece = slice(int(places[i]), int(places[i] + sizes[i]))
            a, b = int(block.bounds[k]), int(block.bounds[k + 1])
            values = self._get(block.values, a, b)
            if block.n_table:
                from .split_rows import decode_rows

                table = self._get(block.table, 0, block.n_table)
                table_bounds = self._get(block.table_bounds, 0, n_rows + 1)
                decode_rows(values, counts, table, table_bounds, data[piece].view(table.dtype))
            else:
                data[piece] = values
            genes = self._get(block.indices, a, b)
            base = self._base[k + 1]
            np.add(genes, base, out=indices[piece], dtype=indices.dtype, casting="unsafe")

        for _ in self._reading.run(fetch, range(len(self._blocks))):
            pass
        return CsrChunk(data, indices, starts, stops, first, last - first)

    def _get(self, array: np.ndarray | _OnDisk, first: int, last: int) -> np.ndarray:
        if not isinstance(array, _OnDisk):
            return array[first:last]
        assert self._scratch is not None
        out = np.empty(last - first, array.dtype)  # filled by read
        self._scratch.read(array.offset + first * array.dtype.itemsize, out)
        return out


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
