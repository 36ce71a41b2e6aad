"""Cells and genes selected from a matrix, in any order and with repeats.

A matrix is read in stored order, skipping what is not selected. Then the cells are put in the order
of the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ...errors import UnsupportedDataError
from ...utils.digest import digest
from ...utils.parallel import Map
from ..base import (
    Chunk,
    CscChunk,
    CsrChunk,
    LazyBlocks,
    NotCanonicalError,
    Reader,
    Reading,
    RowBlocks,
    Selection,
    Source,
    SourceDefaults,
    State,
)


def select(source: Source, rows: np.ndarray, columns: np.ndarray) -> Source:
    """Return a source with some cells and genes of another.

    Parameters
    ----------
    source : Source
        It must be able to skip the other cells and genes: see :meth:`.base.Source.select`.
    rows, columns : numpy.ndarray, int64
        Cells and genes of `source`, in the order of the view.

    Raises
    ------
    UnsupportedDataError
        `source` is always read with all of its cells and genes.
    """
    all_rows = np.array_equal(rows, np.arange(source.n_cells))
    all_columns = np.array_equal(columns, np.arange(source.n_genes))
    if all_rows and all_columns:
        return source
    found = source.select(rows, columns)
    if found is None:
        raise UnsupportedDataError(
            f"Cells and genes cannot be selected from a matrix stored as {source.description}: it "
            "is always read whole. Select them first (adata[cells, genes].copy()), and pass the "
            "result."
        )
    return _view(source, found, digest(rows, columns))


def repeat(source: Source, rows: np.ndarray) -> Source:
    """Return a source with some cells of another, in any order and as often as `rows` says.

    No entry of a CSR matrix in memory is copied; other matrices are copied one range at a time.
    """
    if np.array_equal(rows, np.arange(source.n_cells)) and source.reopens:
        return source
    columns = np.arange(source.n_genes)
    found = source.select(rows, columns)
    if found is None:
        return _view(source, Selection(source, rows), digest(rows))
    return _view(source, found, digest(rows, columns))


def reordered(source: Source, rows: np.ndarray) -> Source:
    """Return a source as :func:`repeat` does, which reads what `source` reads: no cell is skipped.

    What was made of the rows of `source`, such as files of rechunked rows, serves for this too.
    """
    return _view(source, Selection(source, rows), digest(rows))


def _view(source: Source, found: Selection, selection: str) -> _View:
    """Return a view of what was selected from `source`, which may be a view itself."""
    inner, order = found.source, found.order
    if isinstance(inner, _View):
        order = inner.order if order is None else inner.cells_at(order)
        inner = inner.inner
    if isinstance(source, _View):
        selection = f"{source.selection}, {selection}"
    return _View(inner, order, selection)


def change_stored(source: Source, change: Callable[[Source, np.ndarray | None], Source]) -> Source:
    """Return a source with another matrix in place of the one that is stored.

    Parameters
    ----------
    source : Source
        A view, or the matrix itself.
    change : callable
        Returns a source of the same shape as the stored one, given that one and the cell of it for
        each cell of the view (None if they are the same).
    """
    if not isinstance(source, _View):
        return change(source, None)
    return _View(change(source.inner, source.order), source.order, source.selection)


def in_order(chunk: Chunk, order: np.ndarray) -> Chunk:
    """Return a chunk with cell ``order[i]`` in row i."""
    if isinstance(chunk, CscChunk):
        return _repeated_columns(chunk, order)
    if isinstance(chunk, CsrChunk):  # entries stay, cells may share them
        scale = chunk.scale
        if scale is not None:
            scale = replace(scale, divisors=scale.divisors[order])
        return replace(chunk, starts=chunk.starts[order], stops=chunk.stops[order], scale=scale)
    return replace(chunk, values=chunk.values[order])


class _View(SourceDefaults):
    """A source whose cells are put in the order of a view.

    Parameters
    ----------
    inner : Source
        If it reads a file, its cells are ascending and without repeats.
    order : numpy.ndarray, optional
        Cell of `inner` for each cell of the view; None if they are the same.
    selection : str
        Digest that distinguishes this view from others of the same matrix.
    """

    on_device = False

    def __init__(self, inner: Source, order: np.ndarray | None, selection: str) -> None:
        self.inner, self.order, self.selection = inner, order, selection
        self.in_memory = inner.in_memory and order is None
        self.n_cells = inner.n_cells if order is None else len(order)
        self.n_genes, self.dtype = inner.n_genes, inner.dtype
        self.read_whole, self.gene_step = inner.read_whole, inner.gene_step
        self.costly_to_cut = inner.costly_to_cut
        self.n_bytes = inner.n_bytes
        self.description = f"view of {inner.description}"
        self._repeats = 1.0 if order is None else len(order) / max(1, inner.n_cells)
        self.layout, self.sorts = inner.layout, inner.sorts
        self.bytes_per_entry = inner.bytes_per_entry
        if order is not None and inner.layout == "dense" and not inner.in_memory:
            # A dense range is copied when its cells are put in order; sparse rows need not move.
            self.bytes_per_entry = max(inner.bytes_per_entry, 2 * inner.dtype.itemsize)

    @property
    def nnz(self) -> int:
        """See :class:`.base.Source`."""
        return int(self.inner.nnz * self._repeats)

    @property
    def blocks(self) -> LazyBlocks | None:
        """See :class:`.base.Source`."""
        return self.inner.blocks

    def rows(self) -> RowBlocks | None:
        """See :meth:`.base.Source.rows`."""
        return self.inner.rows()

    def cells_at(self, rows: np.ndarray) -> np.ndarray:
        """Return the cell of `inner` in each of some rows of the view."""
        return rows if self.order is None else self.order[rows]

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`.base.Source.select`."""
        if self.order is None or not np.array_equal(cells, np.arange(self.n_cells)):
            return self.inner.select(self.cells_at(cells), genes)
        found = self.inner.select(np.arange(self.inner.n_cells), genes)
        if found is None or found.order is None:
            return None if found is None else Selection(found.source, self.order)
        return Selection(found.source, found.order[self.order])

    def state(self) -> State | None:
        """See :meth:`.base.Source.state`."""
        return self.inner.state() if self.order is None else None

    def take_apart(self) -> tuple[Source, np.ndarray | None]:
        """See :meth:`.base.Source.take_apart`."""
        return self.inner, self.order

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        if reading.most_entries is not None:
            most = reading.most_entries / max(1.0, self._repeats)
            reading = replace(reading, most_entries=most)
        with self.inner.open(edges, budget, reading) as reader:
            yield reader if self.order is None else _Ordered(reader, self.order)

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        found = self.inner.density(parallel_map)
        return None if found is None else found * self._repeats

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return {**self.inner.identity(), "selected cells and genes": self.selection}

    def canonical(self) -> Source:
        """See :meth:`.base.Source.canonical`."""
        inner = self.inner.canonical()
        return self if inner is self.inner else _View(inner, self.order, self.selection)


class _Ordered:
    """A reader of ranges with their cells in the order of a view."""

    def __init__(self, reader: Reader, order: np.ndarray) -> None:
        self._reader, self._order = reader, order

    def read(self, k: int) -> Chunk:
        """See :meth:`Reader.read`."""
        return in_order(self._reader.read(k), self._order)


def _repeated_columns(chunk: CscChunk, order: np.ndarray) -> CscChunk:
    """Return the columns of a chunk with cell ``order[i]`` in row i."""
    places = np.argsort(order, kind="stable")  # rows of each cell, ascending
    counts = np.bincount(order, minlength=chunk.n_cells)
    firsts = np.cumsum(counts) - counts
    stretch = slice(int(chunk.indptr[0]), int(chunk.indptr[-1]))
    cells = chunk.indices[stretch].astype(np.int64)
    if len(cells) and (cells.min() < 0 or cells.max() >= chunk.n_cells):
        raise NotCanonicalError("indices are out of range")
    times = counts[cells]
    ends = np.cumsum(times)
    which = np.repeat(np.arange(len(cells)), times)  # source entry of each new entry
    nth = np.arange(len(which)) - (ends - times)[which]
    rows = places[firsts[cells[which]] + nth]
    bounds = np.concatenate([[0], ends])[chunk.indptr - chunk.indptr[0]]
    genes = np.repeat(np.arange(chunk.n_genes), np.diff(bounds))
    sorting = np.lexsort((rows, genes))
    return CscChunk(
        chunk.data[stretch][which[sorting]], rows[sorting], bounds, len(order), chunk.gene_start
    )
