"""A row-major matrix read as one range of all genes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..base import CsrChunk, Reading, RowBlocks

_BLOCK = 1 << 21  # approximate entries that a thread reads at a time


class OneChunk:
    """All genes as one range, already read; see :class:`.base.Reader`."""

    def __init__(self, chunk: CsrChunk) -> None:
        self._chunk = chunk

    def read(self, k: int) -> CsrChunk:
        """See :meth:`.base.Reader.read`."""
        return self._chunk


@contextmanager
def unchanged_rows(rows: RowBlocks) -> Iterator[None]:
    """Check the file at the end of the block; a change takes precedence over other errors."""
    try:
        yield
    finally:
        rows.check_unchanged()


def read_whole(rows: RowBlocks, reading: Reading) -> CsrChunk:
    """Read all rows into one chunk; their number of entries is exact, or more if some repeat."""
    data = np.empty(rows.nnz, rows.dtype)  # filled by block
    indices = np.empty(rows.nnz, rows.index_dtype)
    parts = rows.cut(max(1, min(_BLOCK, rows.nnz // (4 * reading.n_threads) + 1)))
    starts = np.empty(rows.n_cells, np.int64)
    stops = np.empty(rows.n_cells, np.int64)

    at = 0
    step = 2 * reading.n_threads  # so that few blocks wait to be copied
    for first in range(0, len(parts), step):
        some = parts[first : first + step]
        found = reading.parallel_map(lambda part: rows.block(part, reading), some)
        for part, (values, genes, bounds) in zip(some, found, strict=True):
            data[at : at + len(values)] = values
            indices[at : at + len(values)] = genes
            starts[part], stops[part] = at + bounds[:-1], at + bounds[1:]
            at += len(values)
    return CsrChunk(data[:at], indices[:at], starts, stops, 0, rows.n_genes)
