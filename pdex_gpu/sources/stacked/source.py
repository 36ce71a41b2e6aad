"""A source over several matrices, one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np

from ...utils.parallel import Map
from ..base import Layout, Reader, Reading, RowBlocks, Selection, Source, SourceDefaults
from ..order import ascending
from ..rechunk.blocks import index_dtype_for
from ..rechunk.store import RowStore
from ..rechunk.whole import OneChunk, read_whole, unchanged_rows
from .columns import columns_in_order, open_columns
from .density import Densities
from .part import Part
from .rows import StackedRows


class StackedSource(SourceDefaults):
    """Cells of several matrices, in order; a gene that a matrix lacks is 0 there.

    If all matrices are stored by columns, ranges of each are read and stacked. Otherwise blocks of
    rows are: :mod:`.rows`.

    Parameters
    ----------
    parts : sequence of Part
        At least one.
    n_genes, n_all_genes : int
        Genes of this matrix; and with those that it leaves out.
    dtype : numpy.dtype
    sorts : bool
        See :class:`.base.Source`.
    densities : Densities, optional
        Of `parts`, if something is known already.
    """

    in_memory = False
    on_device = False

    def __init__(
        self,
        parts: Sequence[Part],
        n_genes: int,
        n_all_genes: int,
        dtype: np.dtype,
        sorts: bool = False,
        densities: Densities | None = None,
    ) -> None:
        self.parts, self.n_genes, self._n_all = parts, n_genes, n_all_genes
        self.dtype, self.sorts = dtype, sorts
        self._densities = Densities(parts, n_all_genes) if densities is None else densities
        self.n_cells = sum(part.source.n_cells for part in parts)
        self.n_bytes = sum(part.source.n_bytes for part in parts)
        self.reopens = all(part.source.reopens for part in parts)
        found = [columns_in_order(part, n_genes) for part in parts]
        columns = [one for one in found if one is not None]
        self._columns = columns if len(columns) == len(parts) else None
        kinds = list(dict.fromkeys(part.source.description for part in parts))
        self.description = f"{len(parts):,} matrices stacked: {', '.join(kinds)}"
        self.read_whole = self._columns is None
        self.costly_to_cut = self.read_whole
        self.gene_step = 1
        if self._columns is None:
            self.layout: Layout = "csr"
            self._nnz = 0  # see nnz
            self.bytes_per_entry = dtype.itemsize + index_dtype_for(n_genes).itemsize
            return
        sources = [one.source for one in self._columns]
        self.knows_density = all(source.knows_density for source in sources)
        if all(source.layout == "dense" for source in sources):
            self.layout, own = "dense", dtype.itemsize
            self._nnz = self.n_cells * n_genes
            self.gene_step = max(source.gene_step for source in sources)
        else:
            self.layout = "csc"
            own = dtype.itemsize + index_dtype_for(self.n_cells).itemsize
            self._nnz = sum(source.nnz for source in sources)
        # A range is stacked from pieces: both are in memory for a while.
        self.bytes_per_entry = own + max(source.bytes_per_entry for source in sources)

    @cached_property
    def _rows(self) -> StackedRows | None:
        if self._columns is not None:
            return None
        return StackedRows(self.parts, self.n_genes, self.dtype, self.sorts, self._densities)

    @property
    def nnz(self) -> int:
        """See :class:`.base.Source`."""
        return self._nnz if self._rows is None else self._rows.nnz

    @property
    def decoded_bytes(self) -> int:
        """See :class:`.base.Source`."""
        return sum(part.source.decoded_bytes for part in self.parts)

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        if self.layout == "dense":
            return None
        if self._rows is not None and self._rows.counted is not None:
            return self._rows.counted.astype(np.float64)
        return self._densities.joined(self.n_genes, parallel_map)

    def identity(self) -> dict[str, int | str]:
        """See :meth:`.base.Source.identity`: that of each matrix, under its name."""
        return {
            f"{part.name}: {name}": value
            for part in self.parts
            for name, value in part.source.identity().items()
        }

    def canonical(self) -> StackedSource:
        """See :meth:`.base.Source.canonical`."""
        if self.sorts:
            return self
        parts = [replace(part, source=part.source.canonical()) for part in self.parts]
        return StackedSource(parts, self.n_genes, self._n_all, self.dtype, sorts=True)

    def rows(self) -> RowBlocks | None:
        """See :meth:`.base.Source.rows`."""
        return self._rows

    def all_genes(self) -> Source:
        """See :meth:`.base.Source.all_genes`."""
        if self.n_genes == self._n_all:
            return self
        n_all = self._n_all
        return StackedSource(self.parts, n_all, n_all, self.dtype, self.sorts, self._densities)

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`.base.Source.select`; genes may not repeat."""
        lines, order = ascending(cells)
        place, n_all = None, self._n_all
        if not np.array_equal(genes, np.arange(self.n_genes)):
            if len(np.unique(genes)) < len(genes):
                return None
            place = np.full(n_all + 1, -1, np.int64)  # the last one is for place -1
            place[genes] = np.arange(len(genes))
            n_all = len(genes)
        parts, first = [], 0
        for part in self.parts:
            last = first + part.source.n_cells
            mine = lines[np.searchsorted(lines, first) : np.searchsorted(lines, last)] - first
            first = last
            source: Source | None = part.source
            if len(mine) < part.source.n_cells:
                source = _some_cells(part.source, mine) if len(mine) else part.source
            if source is None:
                return None
            if len(mine):
                moved = part.place if place is None else place[part.place]
                parts.append(Part(part.name, source, moved))
        if not parts:
            return None
        found = StackedSource(parts, len(genes), n_all, self.dtype, self.sorts)
        return Selection(found, order)

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`.base.Source.open`."""
        if self._columns is not None:
            with open_columns(self._columns, edges, self.dtype, reading) as reader:
                yield reader
            return
        rows = self._rows
        assert rows is not None  # the matrices are not all stored by columns
        whole = tuple(edges) == (0, self.n_genes) and rows.exact
        with unchanged_rows(rows):
            if whole and rows.nnz * rows.bytes_per_entry <= budget:
                yield OneChunk(read_whole(rows, reading))
                return
            with RowStore(rows, edges, budget, reading) as store:
                rows.check_unchanged()
                yield store


def _some_cells(source: Source, cells: np.ndarray) -> Source | None:
    """Return a source of some cells, ascending; None if the others cannot be skipped."""
    found = source.select(cells, np.arange(source.n_genes))
    return found.source if found is not None and found.order is None else None
