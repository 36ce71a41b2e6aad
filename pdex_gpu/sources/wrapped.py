"""A source that passes everything on to another, for sources that change one thing about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from ..utils.parallel import Map
from .base import LazyBlocks, Reader, Reading, RowBlocks, Selection, Source, State


class WrappedSource:
    """A source that does everything as another one does; a base class.

    Parameters
    ----------
    inner : Source
    """

    def __init__(self, inner: Source) -> None:
        self.inner = inner
        self.dtype, self.bytes_per_entry = inner.dtype, inner.bytes_per_entry
        self.in_memory, self.on_device = inner.in_memory, inner.on_device
        self.costly_to_cut, self.read_whole = inner.costly_to_cut, inner.read_whole
        self.gene_step, self.n_bytes = inner.gene_step, inner.n_bytes
        self.description, self.layout = inner.description, inner.layout
        self.knows_density, self.sorts = inner.knows_density, inner.sorts
        self.reopens = inner.reopens

    @property
    def n_cells(self) -> int:
        """See :class:`.base.Source`."""
        return self.inner.n_cells

    @property
    def n_genes(self) -> int:
        """See :class:`.base.Source`."""
        return self.inner.n_genes

    @property
    def nnz(self) -> int:
        """See :class:`.base.Source`."""
        return self.inner.nnz

    @property
    def decoded_bytes(self) -> int:
        """See :class:`.base.Source`."""
        return self.inner.decoded_bytes

    @property
    def blocks(self) -> LazyBlocks | None:
        """See :class:`.base.Source`."""
        return self.inner.blocks

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[Reader]:
        """See :meth:`.base.Source.open`."""
        return self.inner.open(edges, budget, reading)

    def density(self, run: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        return self.inner.density(run)

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return self.inner.identity()

    def canonical(self) -> Source:
        """See :meth:`.base.Source.canonical`."""
        return self.inner.canonical()

    def rows(self) -> RowBlocks | None:
        """See :meth:`.base.Source.rows`."""
        return self.inner.rows()

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`.base.Source.select`."""
        return self.inner.select(cells, genes)

    def state(self) -> State | None:
        """See :meth:`.base.Source.state`."""
        return self.inner.state()

    def take_apart(self) -> tuple[Source, np.ndarray | None]:
        """See :meth:`.base.Source.take_apart`."""
        return self.inner.take_apart()
