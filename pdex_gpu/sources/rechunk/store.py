"""A row-major matrix, rechunked as it arrives (:mod:`.ranges`), in memory or on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np

from ..base import CsrChunk, Reading, RowBlocks, UnevenError
from .ranges import Ranges, RechunkedBlock, join_range, rechunk_block
from .scratch import Scratch

_BLOCK = 1 << 22  # maximum entries per block
_SMALLEST_BLOCK = 1 << 16
# Copies of each entry while a block is rechunked: as read, as rechunked, in the decoded chunk.
COPIES = 3
# Factor by which other blocks may exceed the first: a choice. It decides only whether the check of
# free disk space comes before the work; a block that is larger still goes to the scratch file.
_UNEVEN = 1.1


@dataclass(frozen=True)
class _OnDisk:
    """An array in the scratch file."""

    offset: int
    dtype: np.dtype


class RowStore:
    """The ranges of a CSR matrix, read once from front to back; a context manager and a `Reader`.

    Parameters
    ----------
    arrays : RowBlocks
    edges : sequence of int
    budget : int
        Bytes of entries that may be kept in memory.
    reading : Reading
    """

    def __init__(
        self, arrays: RowBlocks, edges: Sequence[int], budget: int, reading: Reading
    ) -> None:
        self._arrays, self._reading = arrays, reading
        self._ranges = Ranges.of(edges, arrays.n_genes, arrays.index_dtype)
        self._wanted = range(self._ranges.n) if reading.wanted is None else reading.wanted
        room = reading.work // (reading.n_threads * COPIES * arrays.bytes_per_entry)
        length = max(_SMALLEST_BLOCK, min(_BLOCK, room, arrays.nnz // (4 * reading.n_threads)))
        self._tasks = arrays.cut(length)
        self._budget, self._used = budget, 0
        self._scratch: Scratch | None = None
        self._blocks: list[RechunkedBlock] = []
        self._seen = np.zeros(arrays.n_genes, np.int64)
        self._lock = threading.Lock()

    def __enter__(self) -> RowStore:
        try:
            # The first block shows how much room is needed: fail at once if there is too little.
            rest = self._tasks[1:]
            for rows in self._tasks[:1]:
                first = self._rechunk(rows)
                n_bytes = sum(array.nbytes for array in first.arrays)
                share = int(self._seen.sum()) / max(1, self._arrays.nnz)
                expected = int(_UNEVEN * n_bytes / share) if rest and share else n_bytes
                if expected > self._budget:
                    self._open_scratch(expected - self._budget)
                self._blocks.append(self._put_away(first))
            self._blocks += self._reading.parallel_map(
                lambda rows: self._put_away(self._rechunk(rows)), rest
            )
            self._check_sizes()
        except BaseException:
            self._close()
            raise
        return self

    def _open_scratch(self, n_bytes: int) -> None:
        if self._scratch is None:
            self._scratch = Scratch(self._reading.scratch, n_bytes)

    def _put_away(self, block: RechunkedBlock) -> RechunkedBlock:
        """Keep a block in memory if there is room; otherwise write it to the scratch file."""
        n_bytes = sum(array.nbytes for array in block.arrays)
        with self._lock:
            if self._used + n_bytes <= self._budget:
                self._used += n_bytes
                return block
            self._open_scratch(n_bytes)
        assert self._scratch is not None
        on_disk = []
        for array in block.arrays:
            on_disk.append(_OnDisk(self._scratch.reserve(array.nbytes), array.dtype))
            self._scratch.write(on_disk[-1].offset, array)
        counts, values, indices, table, table_bounds = on_disk
        return replace(
            block,
            counts=counts,
            values=values,
            indices=indices,
            table=table,
            table_bounds=table_bounds,
        )

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
        """Raise UnevenError if a range exceeds the budget because a sample misled the plan."""
        most = self._reading.most_entries
        if most is None or self._arrays.counted is not None:
            return
        self._arrays.counted = self._seen
        edges = list(self._ranges.edges)
        running = np.concatenate([[0], np.cumsum(self._seen)])[edges]
        if (np.diff(running)[np.diff(edges) > 1] > most).any():
            raise UnevenError("ranges of genes are larger than was estimated")

    def _rechunk(self, rows: slice) -> RechunkedBlock:
        """Read a block and rechunk it."""
        arrays = self._arrays
        seen = np.zeros(arrays.n_genes, np.int64)
        block = arrays.block(rows, self._reading)
        rechunked = rechunk_block(self._ranges, rows, block, self._wanted, seen)
        with self._lock:
            self._seen += seen
        return rechunked

    def read(self, k: int) -> CsrChunk:
        """See :meth:`Reader.read`."""
        dtypes = self._arrays.dtype, self._arrays.index_dtype
        return join_range(
            self._ranges, k, self._blocks, dtypes, self._get, self._reading.parallel_map
        )

    def _get(self, array: np.ndarray | _OnDisk, first: int, last: int) -> np.ndarray:
        if not isinstance(array, _OnDisk):
            return array[first:last]
        assert self._scratch is not None
        out = np.empty(last - first, array.dtype)  # filled by read
        self._scratch.read(array.offset + first * array.dtype.itemsize, out)
        return out
