"""A row-major matrix read as one range of all genes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

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
    whole = CsrChunk(  # filled block by block
        np.empty(rows.nnz, rows.dtype),
        np.empty(rows.nnz, rows.index_dtype),
        np.empty(rows.n_cells, np.int64),
        np.empty(rows.n_cells, np.int64),
        0,
        rows.n_genes,
    )
    parts = rows.cut(max(1, min(_BLOCK, rows.nnz // (4 * reading.n_threads) + 1)))
    at, step = 0, 2 * reading.n_threads  # so that few blocks wait to be copied
    for first in range(0, len(parts), step):
        some = parts[first : first + step]
        found = list(reading.parallel_map(lambda part: rows.block(part, reading), some))
        ends = at + np.cumsum([len(values) for values, _, _ in found])
        copies = [
            partial(_copy, whole, *one) for one in zip(some, ends.tolist(), found, strict=True)
        ]
        for _ in reading.parallel_map(lambda copy: copy(), copies):
            pass
        at = int(ends[-1])
    return replace(whole, data=whole.data[:at], indices=whole.indices[:at])


def _copy(
    whole: CsrChunk, rows: slice, end: int, block: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """Copy a block of rows to its place, where its entries end at `end`."""
    values, genes, bounds = block
    start = end - len(values)
    whole.data[start:end], whole.indices[start:end] = values, genes
    whole.starts[rows], whole.stops[rows] = start + bounds[:-1], start + bounds[1:]
