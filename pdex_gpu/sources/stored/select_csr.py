"""Cells and genes selected from a CSR matrix in a file, read block by block."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...utils.parallel import Map
from ..base import Reading, Selection, Source
from ..order import ascending
from ..rechunk.blocks import MARGIN, choose_columns, index_dtype_for
from ..rechunk.source import RowsSource

if TYPE_CHECKING:
    from .sparse import SparseArrays, StoredCsr


def stretches(lines: np.ndarray, indptr: np.ndarray, gap: int) -> list[np.ndarray]:
    """Split ascending rows (or columns) where more than `gap` entries lie between neighbours."""
    between = indptr[lines[1:]] - indptr[lines[:-1] + 1]
    return np.split(lines, np.flatnonzero(between > gap) + 1) if len(lines) else []


def read_lines(
    arrays: SparseArrays, lines: np.ndarray, reading: Reading
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read data, indices and bounds of some rows (CSR) or columns (CSC), ascending.

    Chunks of the file that contain none of them are not read.
    """
    indptr = arrays.indptr
    lengths = indptr[lines + 1] - indptr[lines]
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    data = np.empty(int(bounds[-1]), arrays.dtype)  # filled stretch by stretch
    indices = np.empty(int(bounds[-1]), arrays.index_dtype)
    at = 0
    for some in stretches(lines, indptr, arrays.data.chunks[0]):
        first, last = int(indptr[some[0]]), int(indptr[some[-1] + 1])
        n = int((indptr[some + 1] - indptr[some]).sum())
        target = slice(at, at + n)
        at += n
        if n == last - first:
            reading.advance(arrays.read(first, last, data[target], indices[target]))
            continue
        all_data = np.empty(last - first, arrays.dtype)  # filled by read
        all_indices = np.empty(last - first, arrays.index_dtype)
        reading.advance(arrays.read(first, last, all_data, all_indices))
        wanted = np.zeros(some[-1] - some[0] + 1, bool)
        wanted[some - some[0]] = True
        mask = np.repeat(wanted, np.diff(indptr[some[0] : some[-1] + 2]))
        data[target], indices[target] = all_data[mask], all_indices[mask]
    return data, indices, bounds


class SelectedRows:
    """Some rows of a CSR matrix; see :class:`.source.SourceRows`.

    Parameters
    ----------
    source : StoredCsr
    lines : numpy.ndarray, int64
        Rows of the matrix, ascending.
    columns : numpy.ndarray, int64, optional
        Columns of the matrix in any order; all by default.
    """

    blocks = None

    def __init__(self, source: StoredCsr, lines: np.ndarray, columns: np.ndarray | None) -> None:
        self._source, self._arrays = source, source.arrays
        arrays = self._arrays
        self._lines, self._columns = lines, columns
        self.n_cells = len(lines)
        self.n_genes = arrays.n_genes if columns is None else len(columns)
        self.exact = columns is None
        self.dtype = arrays.dtype
        self.index_dtype = index_dtype_for(self.n_genes)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.counted: np.ndarray | None = None
        self._n_entries = int((arrays.indptr[lines + 1] - arrays.indptr[lines]).sum())
        most = 1 if columns is None else np.bincount(columns).max(initial=0)
        self._most_repeats = int(most)  # maximum over columns
        self.n_bytes = int(arrays.n_bytes * self._n_entries / max(1, arrays.nnz))
        self.description = source.description

    @property
    def nnz(self) -> int:
        """See :class:`.base.RowBlocks`."""
        if self._columns is None:
            return self._n_entries
        if self.counted is not None:
            return int(self.counted.sum())
        return min(self._n_entries * self._most_repeats, int(MARGIN * self._estimated.sum()) + 1)

    @cached_property
    def _estimated(self) -> np.ndarray:
        return self._density(map)

    def _density(self, parallel_map: Map) -> np.ndarray:
        found = self._arrays.density(parallel_map) * (self._n_entries / max(1, self._arrays.nnz))
        return found if self._columns is None else found[self._columns]

    def density(self, parallel_map: Map) -> np.ndarray:
        """See :meth:`.base.Source.density`."""
        return self._density(parallel_map) if self._columns is None else self._estimated

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.RowBlocks.cut`: counts entries of the file, since all are read."""
        steps = self._arrays.indptr[self._lines] // length
        cuts = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), self.n_cells]
        return [slice(a, b) for a, b in itertools.pairwise(cuts) if a < b]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        data, indices, bounds = read_lines(self._arrays, self._lines[rows], reading)
        if self._columns is None:
            return data, indices, bounds
        return choose_columns(data, indices, bounds, self._arrays.n_genes, self._columns)

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return self._arrays.identity()

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`.base.Source.select`."""
        rows, order = ascending(cells)
        columns = self._columns
        if not np.array_equal(genes, np.arange(self.n_genes)):
            columns = genes if columns is None else columns[genes]
        return Selection(RowsSource(SelectedRows(self._source, self._lines[rows], columns)), order)

    def check_unchanged(self) -> None:
        """See :class:`.source.SourceRows`."""
        self._arrays.check_unchanged()

    def canonical(self) -> Source:
        """Return a source of these rows: they are put in order as they are read."""
        return RowsSource(self)
