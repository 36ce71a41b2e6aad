"""Ranges of genes of several matrices that are stored by columns, stacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ..base import Chunk, CscChunk, CsrChunk, DenseChunk, NotCanonicalError, Reader, Reading, Source
from ..rechunk.blocks import index_dtype_for
from .part import Part
from .turned import columns_of


@dataclass(frozen=True)
class PartColumns:
    """The genes of one matrix that the stacked one has, in its order.

    Attributes
    ----------
    source : Source
    genes : numpy.ndarray, int64
        The gene of the stacked matrix for each gene of `source`, ascending.
    """

    source: Source
    genes: np.ndarray


def columns_in_order(part: Part, n_genes: int) -> PartColumns | None:
    """Return the genes of a matrix in the order of the stacked one; None if it must be turned."""
    if part.source.rows() is not None or (part.source.in_memory and part.source.layout != "csc"):
        return None
    chosen = np.flatnonzero(part.kept(n_genes))
    chosen = chosen[np.argsort(part.place[chosen])]
    genes = part.place[chosen]
    if np.array_equal(chosen, np.arange(part.source.n_genes)):
        return PartColumns(part.source, genes)
    found = part.source.select(np.arange(part.source.n_cells), chosen)
    if found is None or found.order is not None or found.source.read_whole:
        return None
    return PartColumns(found.source, genes)


@contextmanager
def open_columns(
    parts: Sequence[PartColumns], edges: Sequence[int], dtype: np.dtype, reading: Reading
) -> Iterator[Reader]:
    """Open all matrices, each for its genes of every range."""
    # Either matrices are spread over threads, or pieces of each.
    spread = len(parts) >= reading.n_threads
    each = replace(reading, lazy=False)
    if spread:
        each = replace(each, parallel_map=map, n_threads=1)
    with ExitStack() as stack:
        own = [np.searchsorted(part.genes, edges).tolist() for part in parts]
        readers = [
            stack.enter_context(part.source.open(mine, 0, each))
            for part, mine in zip(parts, own, strict=True)
        ]
        yield _Stacking(parts, own, readers, edges, dtype, reading if spread else each, spread)


class _Stacking:
    """A reader that stacks what it reads of each matrix."""

    def __init__(
        self,
        parts: Sequence[PartColumns],
        own: Sequence[list[int]],
        readers: Sequence[Reader],
        edges: Sequence[int],
        dtype: np.dtype,
        reading: Reading,
        spread: bool,
    ) -> None:
        self._parts, self._own, self._readers = parts, own, readers
        self._edges, self._dtype = edges, dtype
        self._map = reading.parallel_map if spread else map
        ends = np.cumsum([part.source.n_cells for part in parts]).tolist()
        self._starts, self._n_cells = [0, *ends[:-1]], ends[-1]
        self._dense = all(part.source.layout == "dense" for part in parts)

    def read(self, k: int) -> Chunk:
        """See :meth:`.base.Reader.read`."""
        if self._dense:
            return self._read_dense(k)
        found = list(self._map(lambda i: self._columns(i, k), range(len(self._parts))))
        first, width = self._edges[k], self._edges[k + 1] - self._edges[k]
        lengths = np.zeros(width, np.int64)
        for _, _, bounds, places in found:
            lengths[places] += np.diff(bounds)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        data = np.empty(int(indptr[-1]), self._dtype)  # filled matrix by matrix
        cells = np.empty(len(data), index_dtype_for(self._n_cells))
        at = indptr[:-1].copy()
        from .kernels import copy_columns

        for i in range(len(found)):
            values, indices, bounds, places = found[i]
            found[i] = ()  # free what is copied
            limit = self._parts[i].source.n_cells
            start = self._starts[i]
            if not copy_columns(values, indices, bounds, places, at, start, limit, data, cells):
                raise NotCanonicalError("indices are out of range")
        return CscChunk(data, cells, indptr, self._n_cells, first)

    def _columns(self, i: int, k: int) -> tuple[np.ndarray, ...]:
        """Read data, cells, bounds and places of the columns of one matrix."""
        own = self._own[i]
        places = self._parts[i].genes[own[k] : own[k + 1]] - self._edges[k]
        if not len(places):
            empty = np.empty(0, np.int64)
            return np.empty(0, self._dtype), empty, np.zeros(1, np.int64), places
        chunk = self._readers[i].read(k)
        assert not isinstance(chunk, CsrChunk)  # see columns_in_order
        data, cells, bounds = columns_of(chunk)
        return data.astype(self._dtype, copy=False), cells, bounds, places

    def _read_dense(self, k: int) -> DenseChunk:
        first, width = self._edges[k], self._edges[k + 1] - self._edges[k]
        values = np.zeros((self._n_cells, width), self._dtype)

        def read(i: int) -> None:
            own, part = self._own[i], self._parts[i]
            places = part.genes[own[k] : own[k + 1]] - first
            if len(places):
                chunk = self._readers[i].read(k)
                assert isinstance(chunk, DenseChunk)
                start = self._starts[i]
                rows = slice(start, start + part.source.n_cells)
                into = slice(None) if len(places) == width else places
                values[rows, into] = chunk.values

        for _ in self._map(read, range(len(self._parts))):
            pass
        return DenseChunk(values, first)
