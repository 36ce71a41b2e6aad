"""Rows of a matrix that is stored by columns.

It is read once by columns, cut by cells, and kept in the scratch folder. Only a matrix that is
stacked with others that are stored by rows is read in this way.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from ..base import CscChunk, CsrChunk, DenseChunk, Reading, Source
from ..checks import check_indices
from ..rechunk.blocks import MARGIN, index_dtype_for
from ..rechunk.store import RowStore

_ENTRIES = 1 << 18  # approximate entries of the cells that are kept together


def columns_of(chunk: CscChunk | DenseChunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return data, cells and bounds of the columns of a chunk, without the zeros of a dense one."""
    if isinstance(chunk, DenseChunk):
        values = chunk.values.T
        stored = values != 0  # NaN counts as stored
        bounds = np.concatenate([[0], np.cumsum(np.count_nonzero(stored, axis=1))])
        return values[stored], np.nonzero(stored)[1], bounds.astype(np.int64)
    part = slice(int(chunk.indptr[0]), int(chunk.indptr[-1]))
    return chunk.data[part], chunk.indices[part], chunk.indptr - part.start


class TurnedRows:
    """Rows of a matrix that is stored by columns; see :class:`.base.RowBlocks`."""

    exact = False

    def __init__(self, source: Source) -> None:
        self._source = source
        self.n_cells, self.n_genes = source.n_cells, source.n_genes
        self.nnz = source.nnz if source.knows_density else int(MARGIN * source.nnz) + 1
        self.dtype, self.index_dtype = source.dtype, index_dtype_for(source.n_genes)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.counted: np.ndarray | None = None
        self._step = max(1, _ENTRIES * self.n_cells // max(1, self.nnz))
        self._edges = [*range(0, self.n_cells, self._step), self.n_cells]
        self._store: RowStore | None = None
        self._lock = threading.Lock()

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`."""
        step = self._step * max(1, length // _ENTRIES)
        return [slice(a, min(a + step, self.n_cells)) for a in range(0, self.n_cells, step)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`; `rows` begin and end where :meth:`cut` cuts."""
        store = self._turned(reading)
        first, last = (int(np.searchsorted(self._edges, at)) for at in (rows.start, rows.stop))
        parts = [self._rows(store.read(k)) for k in range(first, last)]
        lengths = np.concatenate([np.diff(bounds) for _, _, bounds in parts])
        return (
            np.concatenate([data for data, _, _ in parts]),
            np.concatenate([genes for _, genes, _ in parts]).astype(self.index_dtype, copy=False),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )

    def _turned(self, reading: Reading) -> RowStore:
        """Return the matrix cut by cells; the first caller reads it."""
        with self._lock:
            if self._store is None:
                # Other threads read other matrices, or wait: nothing is spread over threads.
                alone = replace(
                    reading, parallel_map=map, n_threads=1, work=reading.work // reading.n_threads,
                    wanted=None, most_entries=None, lazy=False,
                )  # fmt: skip
                store = RowStore(_Columns(self._source), self._edges, 0, alone)
                store.__enter__()
                weakref.finalize(self, store.__exit__, None, None, None)
                self._store = store
            return self._store

    def _rows(self, chunk: CsrChunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turn a chunk of all genes x some cells."""
        from scipy import sparse

        cells = chunk.indices.astype(np.int64) - chunk.gene_start
        bounds = np.concatenate([[0], chunk.stops])  # genes lie one after the other
        shape = (chunk.n_genes, self.n_genes)
        found = sparse.csc_matrix((chunk.data, cells, bounds), shape=shape).tocsr()
        return found.data, found.indices, found.indptr.astype(np.int64)

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`; it is checked whenever columns are read."""


class _Columns:
    """Columns of a matrix as rows of genes x cells; see :class:`.base.RowBlocks`."""

    exact = False

    def __init__(self, source: Source) -> None:
        self._source = source
        self.n_cells, self.n_genes = source.n_genes, source.n_cells
        self.nnz, self.dtype = source.nnz, source.dtype
        self.index_dtype = index_dtype_for(self.n_genes)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.counted: np.ndarray | None = None

    @cached_property
    def _running(self) -> np.ndarray:
        density = self._source.density(map)
        each = np.full(self.n_cells, float(self.n_genes)) if density is None else density
        return np.concatenate([[0.0], np.cumsum(each)])

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`: along the chunks of the file."""
        ends = np.arange(length, self._running[-1] + length, length)
        step = self._source.gene_step
        cuts = np.searchsorted(self._running, ends, side="right") - 1
        cuts = np.minimum(-(-cuts // step) * step, self.n_cells)
        cuts = np.unique(np.concatenate([[0], cuts, [self.n_cells]]))
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(cuts)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        edges: Sequence[int] = [rows.start, rows.stop]
        with self._source.open(edges, 0, reading) as reader:
            chunk = reader.read(0)
        assert not isinstance(chunk, CsrChunk)  # it is not stored by rows
        data, cells, bounds = columns_of(chunk)
        check_indices(cells, bounds, self.n_genes, self._source.description, "column")
        return data, cells.astype(self.index_dtype, copy=False), bounds

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`; opening the source checks it."""
