"""Cells and genes selected from a CSC matrix in a file, read range by range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ...utils.parallel import Map
from ..base import CscChunk, Layout, Reader, Reading, Selection, SourceDefaults
from ..order import in_order
from .select_csr import read_lines

if TYPE_CHECKING:
    from .sparse import StoredCsc

_PIECE = 1 << 20  # approximate entries read at a time


class SelectedCsc(SourceDefaults):
    """Some cells and genes of a CSC matrix, in any order.

    Parameters
    ----------
    source : StoredCsc
    rows, columns : numpy.ndarray, int64
        Cells and genes of the matrix.
    """

    in_memory = False
    on_device = False
    costly_to_cut = False
    read_whole = False
    gene_step = 1
    layout: Layout = "csc"

    def __init__(self, source: StoredCsc, rows: np.ndarray, columns: np.ndarray) -> None:
        self._source, self._arrays = source, source.arrays
        self._rows, self.columns = rows, columns
        self.n_cells, self.n_genes = len(rows), len(columns)
        self._all_cells = np.array_equal(rows, np.arange(source.n_cells))
        lengths = np.diff(self._arrays.indptr)[columns]
        self._density = lengths * (len(rows) / max(1, source.n_cells))
        self.nnz = int(self._density.sum())
        self.dtype = source.dtype
        # A range is assembled from pieces: both are in memory for a while.
        self.bytes_per_entry = 2 * (self.dtype.itemsize + self._arrays.index_dtype.itemsize)
        self.n_bytes = int(source.n_bytes * lengths.sum() / max(1, source.nnz))
        self.description = source.description

    def density(self, parallel_map: Map) -> np.ndarray:
        """See :meth:`.base.Source.density`: estimated as if cells were selected at random."""
        return self._density

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        yield _Reader(self, edges, reading)
        self._arrays.check_unchanged()

    def pieces(self, columns: np.ndarray, reading: Reading) -> list[np.ndarray]:
        """Split ascending columns into pieces to read at a time."""
        entry = self._arrays.dtype.itemsize + self._arrays.index_dtype.itemsize
        room = reading.work // (4 * reading.n_threads * entry)  # as read, and as selected by scipy
        steps = self._arrays.indptr[columns] // max(1, min(_PIECE, room))
        return np.split(columns, np.flatnonzero(np.diff(steps)) + 1) if len(columns) else []

    def take(
        self, columns: np.ndarray, reading: Reading
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read data, indices and lengths of ascending columns, for the selected cells only."""
        from scipy import sparse

        data, indices, bounds = in_order(*read_lines(self._arrays, columns, reading))
        if self._all_cells:
            return data, indices, np.diff(bounds)
        shape = (self._arrays.n_cells, len(columns))
        chosen = sparse.csc_matrix((data, indices, bounds), shape=shape)[self._rows]
        chosen.sort_indices()
        return chosen.data, chosen.indices, np.diff(chosen.indptr)

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return self._arrays.identity()

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`.base.Source.select`."""
        chosen = SelectedCsc(self._source, self._rows[cells], self.columns[genes])
        return Selection(chosen, None)

    def canonical(self) -> SelectedCsc:
        """Return self: columns are put in order as they are read."""
        return self


class _Reader:
    """Gene ranges, read on demand."""

    def __init__(self, source: SelectedCsc, edges: Sequence[int], reading: Reading) -> None:
        self._source, self._edges, self._reading = source, edges, reading

    def read(self, k: int) -> CscChunk:
        """See :meth:`Reader.read`."""
        source, reading = self._source, self._reading
        first, last = self._edges[k], self._edges[k + 1]
        unique, places = np.unique(source.columns[first:last], return_inverse=True)
        pieces = list(
            reading.parallel_map(
                lambda some: source.take(some, reading), source.pieces(unique, reading)
            )
        )
        lengths = np.concatenate([np.zeros(0, np.int64), *(piece[2] for piece in pieces)])
        indptr = np.concatenate([[0], np.cumsum(lengths[places])]).astype(np.int64)
        data = np.empty(int(indptr[-1]), source.dtype)  # filled column by column
        indices = np.empty(len(data), np.int32 if source.n_cells < 1 << 31 else np.int64)
        targets = np.argsort(places, kind="stable")  # where each unique column goes, in turn
        ends = np.cumsum(np.bincount(places, minlength=len(unique)))
        column = 0
        while pieces:
            some_data, some_indices, some_lengths = pieces.pop(0)
            at = 0
            for length in some_lengths.tolist():
                for j in targets[ends[column - 1] if column else 0 : ends[column]].tolist():
                    data[indptr[j] : indptr[j + 1]] = some_data[at : at + length]
                    indices[indptr[j] : indptr[j + 1]] = some_indices[at : at + length]
                at += length
                column += 1
        return CscChunk(data, indices, indptr, source.n_cells, first)
