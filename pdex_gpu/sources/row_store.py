"""A CSR matrix split by ranges of genes as it arrives: in memory while there is room, then on disk.

The matrix comes in blocks of whole rows. Of each block the entries of range 0 are kept together,
then those of range 1, ...; within a range by row. So a range is a piece of every block.
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


@dataclass(frozen=True)
class _Block:
    """Rows ``[rows.start, rows.stop)``, split.

    Attributes
    ----------
    rows : slice
    bounds : numpy.ndarray, shape (n_ranges + 1,), int64
        Entries of range k are ``[bounds[k], bounds[k + 1])`` of those kept of the block.
    counts : numpy.ndarray or int
        Entries of each row in each range, shape (n_ranges, n_rows); or their offset on disk.
    data_at, indices_at : int
        In memory: position of the block's first entry, twice; on disk: offsets.
    """

    rows: slice
    bounds: np.ndarray
    counts: np.ndarray | int
    data_at: int
    indices_at: int

    @property
    def in_memory(self) -> bool:
        return not isinstance(self.counts, int)


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
        self._disk_index = np.dtype(np.uint8) if fits_byte else arrays.index_dtype
        self._base = np.zeros(n_ranges + 2, np.int64)
        self._disk_base = self._base.copy()
        if fits_byte:  # genes counted from the first of the range take a byte
            self._disk_base[1:-1] = edges[:-1]
        self._count_dtype = np.dtype(np.uint16 if arrays.n_genes < 1 << 16 else np.uint32)
        room = reading.work // (reading.n_threads * _COPIES * arrays.bytes_per_entry)
        length = max(_SMALLEST_BLOCK, min(_BLOCK, room, arrays.nnz // (4 * reading.n_threads)))
        self._tasks = arrays.cut(length)
        most = arrays.nnz if arrays.exact else arrays.n_cells * arrays.n_genes
        n_held = min(most, budget // arrays.bytes_per_entry)
        self._data = np.empty(n_held, arrays.dtype)  # filled block by block
        self._indices = np.empty(n_held, arrays.index_dtype)
        self._n_used = 0
        self._scratch: Scratch | None = None
        self._misled = False  # whether there are more entries than was estimated
        self._n_on_disk = max(0, arrays.nnz - n_held) + length  # about
        if arrays.nnz > n_held:
            self._scratch = self._open_scratch()  # told before reading if it has too little room
        self._blocks: list[_Block] = []
        self._seen = np.zeros(arrays.n_genes, np.int64)
        self._lock = threading.Lock()

    def _open_scratch(self) -> Scratch:
        arrays = self._arrays
        entries = self._n_on_disk * (arrays.dtype.itemsize + self._disk_index.itemsize)
        rows = arrays.n_cells * len(self._wanted) * self._count_dtype.itemsize
        return Scratch(self._reading.scratch, entries + rows)

    def _reserve(self, n: int) -> int | None:
        """Where `n` entries go in memory; None if they go to the scratch file."""
        with self._lock:
            if self._n_used + n <= len(self._data):
                self._n_used += n
                return self._n_used - n
            if self._scratch is None:
                self._scratch = self._open_scratch()
                self._misled = True
        return None

    def __enter__(self) -> RowStore:
        try:
            self._blocks = list(self._reading.run(self._take, self._tasks))
            self._check_sizes()
        except BaseException:
            self._close()
            raise
        return self

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
        if self._misled or (np.diff(running)[np.diff(self._edges) > 1] > most).any():
            raise UnevenError("ranges of genes are larger than was estimated")

    def _take(self, rows: slice) -> _Block:
        """Read a block, split it and put it away."""
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
        counts_wanted = counts[1:-1]
        pieces = np.concatenate([[0], ends[1:-1]])
        at = self._reserve(int(ends[-1]))
        if at is not None:
            there = slice(at, at + int(ends[-1]))
            copy_pieces(
                data, indices, bounds, counts, starts, self._base, self._data[there],
                self._indices[there],
            )  # fmt: skip
            return _Block(rows, pieces, counts_wanted.copy(), at, at)
        assert self._scratch is not None
        out_data = np.empty(int(ends[-1]), arrays.dtype)  # filled by copy_pieces
        out_indices = np.empty(int(ends[-1]), self._disk_index)
        copy_pieces(data, indices, bounds, counts, starts, self._disk_base, out_data, out_indices)
        del data, indices
        offsets = []
        for array in (out_data, out_indices, counts_wanted):
            offsets.append(self._scratch.reserve(array.nbytes))
            self._scratch.write(offsets[-1], array)
        return _Block(rows, pieces, offsets[2], offsets[0], offsets[1])

    def read(self, k: int) -> CsrChunk:
        """See :meth:`Reader.read`."""
        arrays = self._arrays
        first, last = self._edges[k], self._edges[k + 1]
        sizes = np.array([b.bounds[k + 1] - b.bounds[k] for b in self._blocks], np.int64)
        places = np.cumsum(sizes) - sizes
        counts = np.empty(arrays.n_cells, self._count_dtype)  # blocks have every row
        if self._scratch is None:  # in place
            data, indices = self._data, self._indices
            places = np.array([b.data_at + b.bounds[k] for b in self._blocks], np.int64)
        else:
            data = np.empty(int(sizes.sum()), arrays.dtype)  # filled piece by piece
            indices = np.empty(int(sizes.sum()), arrays.index_dtype)
        starts = np.empty(arrays.n_cells, np.int64)

        def fetch(i: int) -> None:
            block = self._blocks[i]
            some = counts[block.rows]
            if isinstance(block.counts, int):
                self._read_disk(block.counts, k * len(some), some)
            else:
                some[...] = block.counts[k]
            ends = np.cumsum(some, dtype=np.int64)
            starts[block.rows] = places[i] + ends - some
            if self._scratch is None:
                return
            piece = slice(int(places[i]), int(places[i] + sizes[i]))
            skip = int(block.bounds[k])
            if block.in_memory:
                there = slice(block.data_at + skip, block.data_at + skip + int(sizes[i]))
                data[piece] = self._data[there]
                indices[piece] = self._indices[there]
                return
            self._read_disk(block.data_at, skip, data[piece])
            if self._disk_index == arrays.index_dtype:
                self._read_disk(block.indices_at, skip, indices[piece])
            else:
                narrow = np.empty(int(sizes[i]), self._disk_index)
                self._read_disk(block.indices_at, skip, narrow)
                np.add(narrow, first, out=indices[piece], dtype=indices.dtype, casting="unsafe")

        for _ in self._reading.run(fetch, range(len(self._blocks))):
            pass
        return CsrChunk(data, indices, starts, starts + counts, first, last - first)

    def _read_disk(self, at: int, skip: int, out: np.ndarray) -> None:
        assert self._scratch is not None
        self._scratch.read(at + skip * out.itemsize, out)
