"""Sources over dense, CSR and CSC arrays in memory. Reading a range copies no values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any, Self

import numpy as np

from ...utils.digest import digest
from ...utils.parallel import Map
from ..base import (
    CscChunk,
    CsrChunk,
    DenseChunk,
    Layout,
    Reading,
    Selection,
    SourceDefaults,
    State,
)
from ..checks import canonical_arrays, check_indptr, native_dtype
from ..chunk_ops import search_rows
from .chosen import ChosenInMemory

# A chunk needs the positions of two edges and shares each with a neighbour. A few more are kept,
# because several threads read neighbouring ranges at the same time.
_CACHED_EDGES = 8
_SAMPLES, _SAMPLE = 64, 1 << 14  # number of stretches of entries, and their length


class InMemory(SourceDefaults):
    """The attributes shared by sources that read nothing from a file."""

    in_memory = True
    on_device = False
    costly_to_cut = False
    read_whole = False
    gene_step = 1
    n_bytes = 0


class _InHostMemory(InMemory):
    """The base of the sources over arrays of the host: some of each can be read without others."""

    def select(self: Any, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`Source.select`."""
        return ChosenInMemory(self, None, None).select(cells, genes)


class DenseSource(_InHostMemory):
    """A dense matrix in memory, with any strides."""

    layout: Layout = "dense"

    def __init__(self, values: np.ndarray, what: str) -> None:
        self.values = values
        self.what = what
        self.dtype = native_dtype(values.dtype, what)
        self.n_cells, self.n_genes = values.shape
        self.nnz = values.size
        self.bytes_per_entry = self.dtype.itemsize
        self.description = f"dense {self.dtype} in memory"

    def state(self) -> State:
        """See :meth:`Source.state`."""
        arrays = {"values": self.values}
        return State(type(self), arrays, {"what": self.what})

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[DenseReader]:
        """See :meth:`Source.open`."""
        return nullcontext(DenseReader(self.values, self.dtype, edges))

    def density(self, parallel_map: Map) -> None:
        """See :meth:`Source.density`: all genes have the same number of entries."""

    def identity(self) -> dict[str, int | str]:
        """See :meth:`Source.identity`."""
        return {"matrix": self.description, "values": digest(self.values)}

    def canonical(self) -> DenseSource:
        """Return this source itself: a dense matrix has no indices."""
        return self


class DenseReader:
    """Reads gene ranges of a dense matrix, as views unless the dtype must change."""

    def __init__(self, values: np.ndarray, dtype: np.dtype, edges: Sequence[int]) -> None:
        self._values = values
        self._dtype = dtype
        self._edges = edges

    def read(self, k: int) -> DenseChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        return DenseChunk(self._values[:, start:stop].astype(self._dtype, copy=False), start)


class _SparseSource(_InHostMemory):
    """The base of the CSR and CSC sources; the major axis is the one that indptr indexes.

    Parameters
    ----------
    data, indices, indptr : numpy.ndarray
    n_minor : int
        Length of the other axis.
    what : str
    """

    major: str
    form: str

    def __init__(
        self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, n_minor: int, what: str
    ) -> None:
        self.n_major, self.n_minor = len(indptr) - 1, n_minor
        check_indptr(indptr, self.n_major, min(len(data), len(indices)), what)
        self._data = data.astype(native_dtype(data.dtype, what), copy=False)
        self._indices = indices
        self._indptr = indptr.astype(np.int64, copy=False)
        self.what = what
        self.nnz = int(indptr[-1])
        self.dtype = self._data.dtype
        self.bytes_per_entry = self.dtype.itemsize + indices.itemsize
        self.description = f"{self.form} {self._data.dtype} in memory"

    def state(self) -> State:
        """See :meth:`Source.state`."""
        arrays = {"data": self._data, "indices": self._indices, "indptr": self._indptr}
        return State(type(self), arrays, {"n_minor": self.n_minor, "what": self.what})

    def density(self, parallel_map: Map) -> np.ndarray:
        """See :meth:`Source.density`; for CSR, estimated from a sample across the matrix."""
        if self.major == "column":
            return np.diff(self._indptr).astype(np.float64)
        starts = np.unique(np.linspace(0, max(0, self.nnz - _SAMPLE), _SAMPLES).astype(np.int64))
        counts = np.zeros(self.n_minor, np.int64)
        for start in starts.tolist():
            some = self._indices[start : min(start + _SAMPLE, self.nnz)]
            within = some[(some >= 0) & (some < self.n_minor)]  # packing refuses the others
            counts += np.bincount(within, minlength=self.n_minor)
        return counts * (self.nnz / max(1, counts.sum()))

    def identity(self) -> dict[str, int | str]:
        """See :meth:`Source.identity`."""
        return {
            "matrix": f"{self.description}, {self.n_major} x {self.n_minor}",
            "values": digest(self._data[: self.nnz], self._indices[: self.nnz], self._indptr),
        }

    def canonical(self) -> Self:
        """Return a copy with sorted, unique indices; raise DataError if one is out of range."""
        arrays = canonical_arrays(
            self._data[: self.nnz].copy(),
            self._indices[: self.nnz].copy(),
            self._indptr.copy(),
            self.n_minor,
            self.what,
            self.major,
        )
        return type(self)(*arrays, self.n_minor, self.what)


class CsrSource(_SparseSource):
    """A row-major sparse matrix in memory; its rows may be unsorted."""

    costly_to_cut = True
    layout: Layout = "csr"
    major, form = "row", "CSR"

    @property
    def n_cells(self) -> int:
        return self.n_major

    @property
    def n_genes(self) -> int:
        return self.n_minor

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[CsrReader]:
        """See :meth:`Source.open`."""
        return nullcontext(CsrReader(self._data, self._indices, self._indptr, self.n_genes, edges))


class CsrReader:
    """Reads gene ranges of a CSR matrix: its own arrays, with a start and a stop per row."""

    def __init__(
        self,
        data: np.ndarray,
        indices: np.ndarray,
        indptr: np.ndarray,
        n_genes: int,
        edges: Sequence[int],
    ) -> None:
        self._data = data
        self._indices = indices
        self._edges = edges
        # Cache a partial, not a method: a cache of the reader's own methods would keep the
        # reader, and with it the matrix, alive until the garbage collector finds the cycle.
        self._positions = lru_cache(maxsize=_CACHED_EDGES)(
            partial(row_positions, indices, indptr, n_genes)
        )

    def read(self, k: int) -> CsrChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        return CsrChunk(
            self._data,
            self._indices,
            self._positions(start),
            self._positions(stop),
            start,
            stop - start,
        )


def row_positions(indices: np.ndarray, indptr: np.ndarray, n_genes: int, edge: int) -> np.ndarray:
    """Return, for each row, where its entries of genes from `edge` on begin.

    The search is :func:`.chunk_ops.search_rows`, so each entry of a row falls into exactly one
    range. The outermost edges take whole rows, including out-of-range indices.

    Returns
    -------
    numpy.ndarray, shape (n_cells,), int64
    """
    if edge <= 0:
        return indptr[:-1]
    if edge >= n_genes:
        return indptr[1:]
    return search_rows(indices, indptr[:-1], indptr[1:], edge)


class CscSource(_SparseSource):
    """A column-major sparse matrix in memory; its columns may be unsorted."""

    layout: Layout = "csc"
    major, form = "column", "CSC"

    @property
    def n_cells(self) -> int:
        return self.n_minor

    @property
    def n_genes(self) -> int:
        return self.n_major

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[CscReader]:
        """See :meth:`Source.open`."""
        return nullcontext(CscReader(self._data, self._indices, self._indptr, self.n_cells, edges))


class CscReader:
    """Reads gene ranges of a CSC matrix: its own arrays, with a slice of indptr."""

    def __init__(
        self,
        data: np.ndarray,
        indices: np.ndarray,
        indptr: np.ndarray,
        n_cells: int,
        edges: Sequence[int],
    ) -> None:
        self._data = data
        self._indices = indices
        self._indptr = indptr
        self._n_cells = n_cells
        self._edges = edges

    def read(self, k: int) -> CscChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        return CscChunk(
            self._data, self._indices, self._indptr[start : stop + 1], self._n_cells, start
        )
