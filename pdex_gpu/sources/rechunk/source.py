"""A source whose rows arrive in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from ...utils.parallel import Map
from ..base import (
    Layout,
    LazyBlocks,
    Reader,
    Reading,
    RowBlocks,
    Selection,
    Source,
    SourceDefaults,
)
from .store import RowStore


class SourceRows(RowBlocks, Protocol):
    """Rows from which a complete source can be built.

    Attributes
    ----------
    description : str
    n_bytes : int
        Approximate number of bytes to read.
    blocks : LazyBlocks or None
        See :class:`.base.Source`.
    """

    description: str
    n_bytes: int

    @property
    def blocks(self) -> LazyBlocks | None: ...

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        ...

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        ...

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`.base.Source.select`."""
        ...

    def canonical(self) -> Source:
        """See :meth:`.base.Source.canonical`."""
        ...


class RowsSource(SourceDefaults):
    """Rows read once from front to back and rechunked into ranges of genes."""

    in_memory = False
    on_device = False
    costly_to_cut = False
    read_whole = True
    gene_step = 1
    layout: Layout = "csr"

    def __init__(self, rows: SourceRows) -> None:
        self._rows = rows
        self.n_cells, self.n_genes = rows.n_cells, rows.n_genes
        self.dtype, self.bytes_per_entry = rows.dtype, rows.bytes_per_entry
        self.n_bytes, self.description = rows.n_bytes, rows.description

    @property
    def nnz(self) -> int:
        """See :class:`.base.Source`."""
        return self._rows.nnz

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        with RowStore(self._rows, edges, budget, reading) as store:
            self._rows.check_unchanged()
            yield store

    @property
    def blocks(self) -> LazyBlocks | None:
        """See :class:`.base.Source`."""
        return self._rows.blocks

    def rows(self) -> RowBlocks:
        """See :meth:`.base.Source.rows`."""
        return self._rows

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        counted = self._rows.counted
        return self._rows.density(parallel_map) if counted is None else counted.astype(np.float64)

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return self._rows.identity()

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`.base.Source.select`."""
        return self._rows.select(cells, genes)

    def canonical(self) -> Source:
        """See :meth:`.base.Source.canonical`."""
        return self._rows.canonical()
