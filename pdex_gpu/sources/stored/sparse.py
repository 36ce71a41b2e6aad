"""Sparse matrices in files: CSR and CSC, from arrays that are decoded in parallel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self, cast

import numpy as np

from ...errors import FileFormatError
from ...utils.digest import digest
from ...utils.parallel import Map
from ..base import (
    CscChunk,
    CsrChunk,
    Layout,
    Reader,
    Reading,
    RowBlocks,
    Selection,
    SourceDefaults,
)
from ..checks import check_indices, check_indptr
from ..lazy import LazyEntries
from ..order import SORTED_AT_ONCE, SORTING_BYTES, ascending, close_gaps, cut_lines, put_in_order
from ..rechunk.blocks import index_dtype_for
from ..rechunk.source import RowsSource
from ..rechunk.store import RowStore
from ..rechunk.whole import OneChunk
from .base import Origin, StoredArray, unchanged
from .select_csc import SelectedCsc
from .select_csr import SelectedRows

_PIECE = 1 << 20  # approximate entries read at a time
_CHECKED = 1 << 16  # indices checked and narrowed at a time, if their chunks are not larger
_SAMPLES = 64
_LOST = 16  # this many indices or more, all 0, are checked for never having been written
_CHUNK_DECODES = 4  # how often a chunk may be decoded to keep blocks short


class SparseArrays:
    """Data, indices and indptr of a sparse matrix in a file; indptr is checked and in memory.

    Parameters
    ----------
    data, indices : StoredArray
        One-dimensional.
    indptr : numpy.ndarray
    shape : (int, int)
        Cells and genes.
    by_row : bool
        CSR; otherwise CSC.
    what : str
        What the matrix is, for messages.
    file : Origin, optional
        The file or store that holds all arrays, if known.
    """

    def __init__(
        self,
        data: StoredArray,
        indices: StoredArray,
        indptr: np.ndarray,
        shape: tuple[int, int],
        by_row: bool,
        what: str,
        file: Origin | None,
    ) -> None:
        self.data, self.indices, self.what, self.file = data, indices, what, file
        self.n_cells, self.n_genes = shape
        self.major = "row" if by_row else "column"
        n_major, self.limit = shape if by_row else shape[::-1]
        self.dtype = data.dtype
        self.index_dtype = index_dtype_for(self.limit)
        self.indptr = indptr.astype(np.int64, copy=False)
        n_stored = data.shape[0]
        place = indices.name.removeprefix(f"{what}/indices")  # " of screen.h5ad"
        if indices.shape[0] != n_stored:
            raise FileFormatError(
                f"{what}{place} is malformed: it has {n_stored} data values but {indices.shape[0]} "
                "indices; the numbers must be equal. Copy or write the file again."
            )
        check_indptr(self.indptr, n_major, n_stored, f"{what}/indptr{place}", FileFormatError)
        if self.indptr[-1] != n_stored:
            raise FileFormatError(
                f"{what}/indptr{place} is malformed: it ends at {int(self.indptr[-1])}, but there "
                f"are {n_stored} data values and indices. Copy or write the file again."
            )
        self.nnz = int(self.indptr[-1])
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.n_bytes = data.n_bytes + indices.n_bytes
        self.counted: np.ndarray | None = None  # entries per gene, once all were read
        self.exact = True

    def read(self, first: int, last: int, data: np.ndarray, indices: np.ndarray) -> int:
        """Read the entries ``[first, last)`` into `data` and `indices`, and check the indices.

        Returns the number of bytes read from the file.
        """
        n_bytes = self.data.read((slice(first, last),), data)
        return n_bytes + self.read_indices(first, last, indices)

    def read_indices(self, first: int, last: int, indices: np.ndarray) -> int:
        """Read the indices of the entries ``[first, last)`` and check that they are in range."""
        n_bytes = 0
        # Some chunks at a time, checked and narrowed while they are in the cache.
        chunk = self.indices.chunks[0]
        step = chunk * max(1, _CHECKED // chunk)
        for a in range(first - first % step, last, step):
            a, b = max(a, first), min(a + step, last)
            raw = np.empty(b - a, self.indices.dtype)
            n_bytes += self.indices.read((slice(a, b),), raw)
            self._check(raw, a)
            indices[a - first : b - first] = raw
        return n_bytes

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`."""
        chunk = max(self.data.chunks[0], self.indices.chunks[0])
        if chunk > _CHUNK_DECODES * length:  # each block decodes the chunks it touches
            length = chunk
        ends = np.arange(length, self.nnz + length, length)
        cuts = np.unique(np.searchsorted(self.indptr, ends, side="right") - 1)
        cuts = np.unique(np.concatenate([[0], cuts, [self.n_cells]]))
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(cuts)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        first, last = int(self.indptr[rows.start]), int(self.indptr[rows.stop])
        data = np.empty(last - first, self.dtype)  # filled by read
        indices = np.empty(last - first, self.index_dtype)
        reading.advance(self.read(first, last, data, indices))
        return data, indices, self.indptr[rows.start : rows.stop + 1] - first

    def entries(self, first: int, last: int, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
        """Return data and indices of the entries ``[first, last)``, lazy if `reading` allows it."""
        if reading.lazy:

            def read_data(at: int, out: np.ndarray) -> None:
                where = slice(first + at, first + at + len(out))
                reading.advance(self.data.read((where,), out))

            def read_indices(at: int, out: np.ndarray) -> None:
                reading.advance(self.read_indices(first + at, first + at + len(out), out))

            return cast(
                tuple[np.ndarray, np.ndarray],
                (
                    LazyEntries(last - first, self.dtype, read_data),
                    LazyEntries(last - first, self.index_dtype, read_indices),
                ),
            )
        data = np.empty(last - first, self.dtype)  # filled by load
        indices = np.empty(last - first, self.index_dtype)
        self.load(first, last, reading, data, indices)
        return data, indices

    def sorted_entries(
        self, first: int, last: int, bounds: np.ndarray, reading: Reading
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read the entries ``[first, last)`` in order; return data, indices and line ends.

        See :func:`.order.put_in_order`; `bounds` are the bounds of the lines, relative to `first`.
        """
        data, indices = self.entries(first, last, replace(reading, lazy=False))
        ends = np.empty(len(bounds) - 1, np.int64)  # filled by piece

        def piece(lines: tuple[int, int]) -> None:
            a, b = lines
            begin, end = int(bounds[a]), int(bounds[b])
            here = bounds[a : b + 1] - begin
            ends[a:b] = begin + put_in_order(data[begin:end], indices[begin:end], here)

        for _ in reading.parallel_map(piece, cut_lines(bounds, _PIECE)):
            pass
        return data, indices, ends

    def _check(self, indices: np.ndarray, first: int) -> None:
        name, indptr = self.indices.name, self.indptr
        if not len(indices):
            return
        # Viewed as unsigned, negative indices are large: one pass finds them above the limit.
        unsigned = indices.view(f"u{indices.itemsize}")
        telling = indices.dtype.kind == "u" or self.limit <= np.iinfo(indices.dtype).max
        chunk = self.indices.chunks[0]
        starts = np.maximum(np.arange(-(first % chunk), len(indices), chunk), 0)
        largest = np.maximum.reduceat(unsigned, starts)  # of each chunk
        if not largest.all() and self.limit > 1:
            lengths = np.diff(starts, append=len(indices))
            for k in np.flatnonzero((largest == 0) & (lengths >= _LOST)).tolist():
                self._check_written(first + int(starts[k]), int(lengths[k]))
        if telling and largest.max() < self.limit:
            return
        try:
            check_indices(indices, indptr, self.limit, name, self.major, first, FileFormatError)
        except FileFormatError:
            self.check_unchanged()  # a change takes precedence
            raise

    def _check_written(self, first: int, n: int) -> None:
        """Raise FileFormatError if a line has several of these `n` indices, which are all 0."""
        edges = np.clip(self.indptr, first, first + n)
        if np.diff(edges).max(initial=0) < 2:
            return
        self.check_unchanged()  # a change takes precedence
        raise FileFormatError(
            f"{self.indices.name}, entries {first} to {first + n}: all are 0, so this part was "
            "never written or was lost. Copy or write the file again."
        )

    def load(
        self, first: int, last: int, reading: Reading, data: np.ndarray, indices: np.ndarray
    ) -> None:
        """Read like :meth:`read`, in pieces spread over threads."""

        def piece(bounds: tuple[int, int]) -> None:
            a, b = bounds
            n = self.read(a, b, data[a - first : b - first], indices[a - first : b - first])
            reading.advance(n)

        for _ in reading.parallel_map(piece, self._pieces(first, last)):
            pass

    def _pieces(self, first: int, last: int) -> list[tuple[int, int]]:
        """Cut ``[first, last)`` at the borders of chunks, so that none is decoded twice."""
        chunk = self.data.chunks[0]
        step = max(1, round(min(_PIECE, (last - first) / 16) / chunk)) * chunk
        cuts = [first, *range((first // step + 1) * step, last, step), last]
        return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]

    def density(self, parallel_map: Map) -> np.ndarray:
        """Return the entries per gene, shape (n_genes,), float64.

        For CSR they are estimated from chunks sampled across the file, until all rows were read.
        """
        if self.major == "column":
            return np.diff(self.indptr).astype(np.float64)
        if self.counted is not None:
            return self.counted.astype(np.float64)
        chunk = self.indices.chunks[0]
        n_chunks = -(-self.nnz // chunk)
        some = np.unique(np.linspace(0, max(0, n_chunks - 1), _SAMPLES).astype(np.int64))

        def count(c: int) -> np.ndarray:
            first, last = c * chunk, min((c + 1) * chunk, self.nnz)
            raw = np.empty(last - first, self.indices.dtype)
            self.indices.read((slice(first, last),), raw)
            self._check(raw, first)
            return np.bincount(raw.astype(np.int64, copy=False), minlength=self.n_genes)

        counts = sum(parallel_map(count, some.tolist()), np.zeros(self.n_genes, np.int64))
        return counts * (self.nnz / max(1, counts.sum()))

    def check_unchanged(self) -> None:
        """Raise FileFormatError if the file was changed or removed since it was opened."""
        if self.file is not None:
            self.file.check_unchanged()

    def identity(self) -> dict[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return {
            "matrix": f"{self.major}-major {self.dtype} {self.n_cells} x {self.n_genes}",
            "nonzeros": self.nnz,
            "indptr": digest(self.indptr),
            **({} if self.file is None else self.file.identity()),
        }


class _StoredSparse(SourceDefaults):
    """Base class of the sources for sparse matrices in files.

    Parameters
    ----------
    arrays : SparseArrays
    sorts : bool
        Whether lines that are out of order are sorted, and repeated indices summed, while reading.
        Packing detects whether this is needed: see :meth:`canonical`.
    """

    in_memory = False
    on_device = False
    costly_to_cut = False
    reopens = True
    form: str

    def __init__(self, arrays: SparseArrays, sorts: bool = False) -> None:
        self.arrays, self.sorts = arrays, sorts
        self.n_cells, self.n_genes, self.nnz = arrays.n_cells, arrays.n_genes, arrays.nnz
        self.dtype, self.bytes_per_entry = arrays.dtype, arrays.bytes_per_entry
        self.n_bytes = arrays.n_bytes
        self.description = f"{self.form} {arrays.dtype} in a file"
        self.gene_step = 1

    @property
    def decoded_bytes(self) -> int:
        """See :class:`.base.Source`: indices may be wider in the file than once read."""
        arrays = self.arrays
        return int(self.nnz * (arrays.data.dtype.itemsize + arrays.indices.dtype.itemsize))

    def density(self, parallel_map: Map) -> np.ndarray:
        """See :meth:`.base.Source.density`."""
        return self.arrays.density(parallel_map)

    def identity(self) -> dict[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return self.arrays.identity()

    def canonical(self) -> Self:
        """Return this matrix with its lines put in order as they are read."""
        self.arrays.check_unchanged()
        return self if self.sorts else type(self)(self.arrays, sorts=True)


class StoredCsc(_StoredSparse):
    """A CSC matrix in a file; the entries of a range of genes are contiguous."""

    form = "CSC"
    layout: Layout = "csc"
    read_whole = False
    knows_density = True

    def __init__(self, arrays: SparseArrays, sorts: bool = False) -> None:
        super().__init__(arrays, sorts)
        if sorts and np.diff(arrays.indptr).max(initial=0) > SORTED_AT_ONCE:
            self.bytes_per_entry += SORTING_BYTES

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`.base.Source.select`."""
        return Selection(SelectedCsc(self, cells, genes), None)

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        with unchanged(self.arrays.file):
            yield _CscReader(self.arrays, edges, reading, self.sorts)


class _CscReader:
    """Gene ranges of a CSC matrix, read on demand."""

    def __init__(
        self, arrays: SparseArrays, edges: Sequence[int], reading: Reading, sorts: bool
    ) -> None:
        self._arrays, self._edges, self._reading, self._sorts = arrays, edges, reading, sorts

    def read(self, k: int) -> CscChunk:
        """See :meth:`Reader.read`."""
        arrays = self._arrays
        a, b = self._edges[k], self._edges[k + 1]
        first, last = int(arrays.indptr[a]), int(arrays.indptr[b])
        bounds = arrays.indptr[a : b + 1] - first
        if self._sorts:
            data, indices, ends = arrays.sorted_entries(first, last, bounds, self._reading)
            data, indices, bounds = close_gaps(data, indices, bounds, ends)
        else:
            data, indices = arrays.entries(first, last, self._reading)
        return CscChunk(data, indices, bounds, arrays.n_cells, a)


class StoredCsr(_StoredSparse):
    """A CSR matrix in a file, read once from front to back.

    A row-major file cannot be cut by genes without decoding all of it for each cut.
    """

    form = "CSR"
    layout: Layout = "csr"
    read_whole = True
    costly_to_cut = True

    def rows(self) -> RowBlocks:
        """See :meth:`.base.Source.rows`."""
        return self.arrays

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`.base.Source.select`."""
        lines, order = ascending(cells)
        whole = np.array_equal(genes, np.arange(self.n_genes))
        return Selection(RowsSource(SelectedRows(self, lines, None if whole else genes)), order)

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        arrays = self.arrays
        whole = tuple(edges) == (0, self.n_genes)
        with unchanged(arrays.file):
            if whole and arrays.nnz * arrays.bytes_per_entry <= budget:
                starts, stops = arrays.indptr[:-1], arrays.indptr[1:]
                if self.sorts:
                    data, indices, stops = arrays.sorted_entries(
                        0, arrays.nnz, arrays.indptr, reading
                    )
                else:
                    data, indices = arrays.entries(0, arrays.nnz, reading)
                yield OneChunk(CsrChunk(data, indices, starts, stops, 0, self.n_genes))
            else:
                with RowStore(arrays, edges, budget, reading) as store:
                    yield store
