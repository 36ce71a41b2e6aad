"""Cells and genes selected from a matrix in a file, in any order and with repeats.

A matrix is read in stored order, skipping what is not selected. Then the cells are put in the order
of the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

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
    Source,
    SourceDefaults,
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
    TypeError
        `source` is always read with all of its cells and genes. No input leads here.
    """
    all_rows = np.array_equal(rows, np.arange(source.n_cells))
    all_columns = np.array_equal(columns, np.arange(source.n_genes))
    if all_rows and all_columns:
        return source
    found = source.select(rows, columns)
    if found is None:
        raise TypeError(f"a {source.description} cannot be read in part")
    return _View(found.source, found.order, digest(rows, columns))


def repeat(source: Source, rows: np.ndarray) -> Source:
    """Return a source with some cells of another, in any order and as often as `rows` says.

    No entry of a CSR matrix in memory is copied; other matrices are copied one range at a time.
    """
    if np.array_equal(rows, np.arange(source.n_cells)) and source.reopens:
        return source
    columns = np.arange(source.n_genes)
    found = source.select(rows, columns)
    if found is None:
        return _View(source, rows, digest(rows))
    return _View(found.source, found.order, digest(rows, columns))


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
        return replace(chunk, starts=chunk.starts[order], stops=chunk.stops[order])
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

    in_memory = False
    on_device = False

    def __init__(self, inner: Source, order: np.ndarray | None, selection: str) -> None:
        self.inner, self.order, self.selection = inner, order, selection
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
