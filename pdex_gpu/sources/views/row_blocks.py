"""The rows of a source that is read whole, for callers that split the rows themselves."""

from __future__ import annotations

import itertools

import numpy as np

from ..base import Reading, Source
from ..rechunk.blocks import RowBlocks
from ..rechunk.source import RowsSource
from ..stored.dense import StoredDense
from ..stored.sparse import StoredCsr
from .view import take_apart


def rows_of(source: Source) -> RowBlocks:
    """Return the row blocks of a source with ``read_whole``; for a view, those of its source."""
    source, _ = take_apart(source)
    if isinstance(source, StoredCsr):
        return source.arrays
    if isinstance(source, RowsSource):
        return source.rows
    if isinstance(source, StoredDense):
        return _DenseRows(source)
    raise TypeError(f"a {source.description} is not read as a whole")


class _DenseRows:
    """Rows of a dense matrix in a file, without zeros; see :class:`.rechunk.blocks.RowBlocks`."""

    exact = False

    def __init__(self, source: StoredDense) -> None:
        self._source = source
        self.n_cells, self.n_genes = source.n_cells, source.n_genes
        self.nnz = source.nnz  # an upper bound
        self.dtype = source.dtype
        small, middle = self.n_genes <= 1 << 16, self.n_genes < 1 << 31
        self.index_dtype = np.dtype(np.uint16 if small else np.int32 if middle else np.int64)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.counted: np.ndarray | None = None

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.rechunk.blocks.RowBlocks.cut`: no chunk is decoded twice."""
        chunk = self._source.values.chunks[0]
        step = max(1, length // max(1, self.n_genes) // chunk) * chunk
        cuts = [*range(0, self.n_cells, step), self.n_cells]
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.rechunk.blocks.RowBlocks.block`."""
        values = self._source.read(rows, slice(0, self.n_genes), reading)
        stored = values != 0  # NaN counts as stored
        indices = np.nonzero(stored)[1].astype(self.index_dtype)
        bounds = np.concatenate([[0], np.cumsum(np.count_nonzero(stored, axis=1))])
        return values[stored], indices, bounds.astype(np.int64)
