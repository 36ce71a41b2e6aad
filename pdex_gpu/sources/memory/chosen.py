"""Cells and genes selected from a matrix in memory, range by range: only a range is ever copied."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...utils.parallel import Map
from ..base import (
    Chunk,
    CscChunk,
    CsrChunk,
    DenseChunk,
    Reader,
    Reading,
    Selection,
    Source,
    SourceDefaults,
    State,
)
from ..checks import check_indices
from ..order import ascending

if TYPE_CHECKING:
    from .arrays import CscSource, CsrSource, DenseSource

_BLOCK = 1 << 20  # approximate entries or values that a thread takes at a time
_MARGIN = 1.2  # factor on estimates of entries: a choice


class ChosenInMemory(SourceDefaults):
    """Some cells and genes of a matrix in memory.

    Whole rows of a CSR matrix are not even copied range by range.

    Parameters
    ----------
    matrix : DenseSource, CsrSource or CscSource
    cells : numpy.ndarray, int64, optional
        Ascending, without repeats; all by default.
    genes : numpy.ndarray, int64, optional
        In any order, with repeats; all by default.
    """

    on_device = False
    read_whole = False
    gene_step = 1
    n_bytes = 0

    def __init__(
        self,
        matrix: DenseSource | CsrSource | CscSource,
        cells: np.ndarray | None,
        genes: np.ndarray | None,
    ) -> None:
        self._matrix, self._cells, self._genes = matrix, cells, genes
        self.n_cells = matrix.n_cells if cells is None else len(cells)
        self.n_genes = matrix.n_genes if genes is None else len(genes)
        self.layout, self.dtype = matrix.layout, matrix.dtype
        self.costly_to_cut = matrix.costly_to_cut
        self.in_memory = matrix.layout == "csr" and genes is None
        self.description = matrix.description
        copies = 1 if self.in_memory or matrix.layout == "dense" else 2  # a part, and its copy
        self.bytes_per_entry = copies * matrix.bytes_per_entry
        self._density = self._entries()
        self.nnz = (
            self.n_cells * self.n_genes if self._density is None else int(self._density.sum())
        )

    def _entries(self) -> np.ndarray | None:
        """Return the entries per gene, as if cells were selected at random; None if dense."""
        found = self._matrix.density(map)
        if found is None:
            return None
        found = found if self._genes is None else found[self._genes]
        if self._cells is not None or self._matrix.layout == "csr":
            found = found * (_MARGIN * self.n_cells / max(1, self._matrix.n_cells))
        return found

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        return self._density

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`.base.Source.select`."""
        lines, order = ascending(cells)
        if self._cells is not None:
            lines = self._cells[lines]
        some_cells = None if len(lines) == self._matrix.n_cells else lines
        some_genes = self._genes
        if not np.array_equal(genes, np.arange(self.n_genes)):
            some_genes = genes if some_genes is None else some_genes[genes]
        return Selection(ChosenInMemory(self._matrix, some_cells, some_genes), order)

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`: that of the whole matrix; a view adds the rest."""
        return self._matrix.identity()

    def canonical(self) -> Source:
        """See :meth:`.base.Source.canonical`: a copy of what is selected."""
        return self if self.layout == "dense" else self._copied().canonical()

    def state(self) -> State:
        """See :meth:`.base.Source.state`: that of a copy of what is selected."""
        state = self._copied().state()
        assert state is not None  # it is in memory
        return state

    def _copied(self) -> Source:
        """Return a matrix of its own in memory, with what is selected."""
        make: Any = type(self._matrix)
        with self.open((0, self.n_genes), 0) as reader:
            chunk = reader.read(0)
        if isinstance(chunk, DenseChunk):
            found = make(chunk.values, self._matrix.what)
        elif isinstance(chunk, CscChunk):
            arrays = chunk.data, chunk.indices, chunk.indptr
            found = make(*arrays, self.n_cells, self._matrix.what)
        else:
            lengths = chunk.stops - chunk.starts
            where = _stretches(chunk.starts, lengths)
            arrays = chunk.data[where], chunk.indices[where], _bounds(lengths)
            found = make(*arrays, self.n_genes, self._matrix.what)
        return cast(Source, found)

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`.base.Source.open`."""
        matrix = self._matrix
        if self._genes is None:
            with matrix.open(edges, budget, reading) as reader:
                yield _SomeCells(reader, self._cells, matrix.what, reading)
        elif matrix.layout == "dense":
            yield _DenseGenes(cast("DenseSource", matrix), self._cells, self._genes, edges, reading)
        else:
            with matrix.open((0, matrix.n_genes), budget, reading) as reader:
                whole = _SomeCells(reader, self._cells, matrix.what, reading)
                if matrix.layout == "csr":
                    chunk = whole.read(0)
                    assert isinstance(chunk, CsrChunk)
                    yield _CsrGenes(chunk, self._genes, edges, matrix.what, reading)
                else:
                    columns = _CscGenes(reader.read(0), self._genes, edges)
                    yield _SomeCells(columns, self._cells, matrix.what, reading)


class _SomeCells:
    """A reader of some cells of another's chunks; all if `cells` is None."""

    def __init__(
        self, reader: Reader, cells: np.ndarray | None, what: str, reading: Reading
    ) -> None:
        self._reader, self._cells, self._what, self._reading = reader, cells, what, reading

    def read(self, k: int) -> Chunk:
        """See :meth:`.base.Reader.read`."""
        chunk, cells = self._reader.read(k), self._cells
        if cells is None:
            return chunk
        if isinstance(chunk, CsrChunk):
            starts, stops = chunk.starts[cells], chunk.stops[cells]
            return CsrChunk(
                chunk.data, chunk.indices, starts, stops, chunk.gene_start, chunk.n_genes
            )
        if isinstance(chunk, DenseChunk):
            return DenseChunk(chunk.values[cells], chunk.gene_start)
        return _rows_of_columns(chunk, cells, self._what, self._reading)


def _rows_of_columns(chunk: CscChunk, cells: np.ndarray, what: str, reading: Reading) -> CscChunk:
    """Return some rows of columns; their order within a column stays."""
    from scipy import sparse

    def take(part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b = part
        first, last = int(chunk.indptr[a]), int(chunk.indptr[b])
        indices = chunk.indices[first:last]
        check_indices(indices, chunk.indptr, chunk.n_cells, what, "column", first)
        arrays = chunk.data[first:last], indices, chunk.indptr[a : b + 1] - first
        found = sparse.csc_matrix(arrays, shape=(chunk.n_cells, b - a))[cells]
        return found.data, found.indices, np.diff(found.indptr)

    empty = chunk.data[:0], np.zeros(0, np.int32), np.zeros(0, np.int64)
    found = [*reading.parallel_map(take, _cut(chunk.indptr)), empty]
    data, rows, lengths = (np.concatenate(some) for some in zip(*found, strict=True))
    return CscChunk(data, rows, _bounds(lengths), len(cells), chunk.gene_start)


class _DenseGenes:
    """A reader of some cells and genes of a dense matrix."""

    def __init__(
        self,
        matrix: DenseSource,
        cells: np.ndarray | None,
        genes: np.ndarray,
        edges: Sequence[int],
        reading: Reading,
    ) -> None:
        self._matrix, self._cells, self._genes = matrix, cells, genes
        self._edges, self._reading = edges, reading

    def read(self, k: int) -> DenseChunk:
        """See :meth:`.base.Reader.read`."""
        first, values = self._edges[k], self._matrix.values
        genes, cells = self._genes[first : self._edges[k + 1]], self._cells
        n_cells = self._matrix.n_cells if cells is None else len(cells)
        found = np.empty((n_cells, len(genes)), self._matrix.dtype)  # filled block by block
        step = max(1, _BLOCK // max(1, len(genes)))

        def take(row: int) -> None:
            some = slice(row, row + step)
            rows = values[some] if cells is None else values[cells[some]]
            found[some] = rows[:, genes]

        for _ in self._reading.parallel_map(take, range(0, n_cells, step)):
            pass
        return DenseChunk(found, first)


class _CscGenes:
    """A reader of some columns of a matrix, given as one chunk."""

    def __init__(self, whole: Chunk, genes: np.ndarray, edges: Sequence[int]) -> None:
        assert isinstance(whole, CscChunk)
        self._whole, self._genes, self._edges = whole, genes, edges

    def read(self, k: int) -> CscChunk:
        """See :meth:`.base.Reader.read`."""
        whole, first = self._whole, self._edges[k]
        genes = self._genes[first : self._edges[k + 1]]
        starts, stops = whole.indptr[genes], whole.indptr[genes + 1]
        parts = [slice(0, 0), *map(slice, starts.tolist(), stops.tolist())]
        data, indices = (
            np.concatenate([array[part] for part in parts]) for array in (whole.data, whole.indices)
        )
        return CscChunk(data, indices, _bounds(stops - starts), whole.n_cells, first)


class _CsrGenes:
    """A reader of some genes of rows, given as one chunk: each range looks through all entries."""

    def __init__(
        self,
        whole: CsrChunk,
        genes: np.ndarray,
        edges: Sequence[int],
        what: str,
        reading: Reading,
    ) -> None:
        self._whole, self._genes, self._edges = whole, genes, edges
        self._what, self._reading = what, reading

    def read(self, k: int) -> CsrChunk:
        """See :meth:`.base.Reader.read`."""
        whole, first = self._whole, self._edges[k]
        genes = self._genes[first : self._edges[k + 1]]
        bounds = _bounds(whole.stops - whole.starts)

        def take(part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return self._columns(slice(*part), genes)

        empty = whole.data[:0], np.zeros(0, np.int32), np.zeros(0, np.int64)
        found = [*self._reading.parallel_map(take, _cut(bounds)), empty]
        data, indices, lengths = (np.concatenate(some) for some in zip(*found, strict=True))
        ends = _bounds(lengths)
        return CsrChunk(data, indices + first, ends[:-1], ends[1:], first, len(genes))

    def _columns(self, rows: slice, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from scipy import sparse

        whole = self._whole
        starts = whole.starts[rows]
        lengths = whole.stops[rows] - starts
        bounds = _bounds(lengths)
        where: slice | np.ndarray
        if starts[-1] - starts[0] == bounds[-2]:  # no row in between is left out
            where = slice(int(starts[0]), int(starts[0] + bounds[-1]))
        else:
            where = _stretches(starts, lengths)
        indices = whole.indices[where]
        check_indices(indices, bounds, whole.n_genes, self._what, "row")
        shape = len(lengths), whole.n_genes
        found = sparse.csr_matrix((whole.data[where], indices, bounds), shape=shape)[:, genes]
        return found.data, found.indices, np.diff(found.indptr).astype(np.int64)


def _bounds(lengths: np.ndarray) -> np.ndarray:
    """Return where lines of these lengths begin and end, shape (n + 1,), int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _stretches(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the positions of all entries of lines, line by line."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def _cut(bounds: np.ndarray) -> list[tuple[int, int]]:
    """Cut lines into runs of about as many entries as a thread takes at a time."""
    steps = (bounds[:-1] - bounds[0]) // _BLOCK
    cuts = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(bounds) - 1]
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]
