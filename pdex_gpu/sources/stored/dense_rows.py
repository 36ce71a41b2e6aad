"""Rows of a dense matrix in a file, without its zeros."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from ..base import Reading
from ..rechunk.blocks import index_dtype_for

if TYPE_CHECKING:
    from .dense import StoredDense


class DenseRows:
    """Rows of a dense matrix in a file, without zeros; see :class:`.base.RowBlocks`."""

    exact = False

    def __init__(self, source: StoredDense) -> None:
        self._source = source
        self.n_cells, self.n_genes = source.n_cells, source.n_genes
        self.nnz = source.nnz  # an upper bound
        self.dtype = source.dtype
        self.index_dtype = index_dtype_for(self.n_genes)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.counted: np.ndarray | None = None

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`: no chunk is decoded twice."""
        chunk = self._source.values.chunks[0]
        step = max(1, length // max(1, self.n_genes) // chunk) * chunk
        cuts = [*range(0, self.n_cells, step), self.n_cells]
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        values = self._source.read(rows, slice(0, self.n_genes), reading)
        stored = values != 0  # NaN counts as stored
        indices = np.nonzero(stored)[1].astype(self.index_dtype)
        bounds = np.concatenate([[0], np.cumsum(np.count_nonzero(stored, axis=1))])
        return values[stored], indices, bounds.astype(np.int64)

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`."""
        self._source.check_unchanged()
