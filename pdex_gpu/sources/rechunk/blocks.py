"""A row-major sparse matrix that arrives in blocks of rows, from any kind of storage."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..base import Reading

# Factor on estimates of entries: a choice. Too high costs some width of ranges, too low a new plan.
MARGIN = 1.2


class RowBlocks(Protocol):
    """The input of :class:`.rechunk.store.RowStore`, which splits it.

    Attributes
    ----------
    n_cells, n_genes : int
    nnz : int
        Entries; an estimate, multiplied by :data:`MARGIN`, unless `exact` or counted.
    exact : bool
    dtype, index_dtype : numpy.dtype
    bytes_per_entry : int
    counted : numpy.ndarray, shape (n_genes,), or None
        Entries per gene; set once all rows were read.
    """

    n_cells: int
    n_genes: int
    exact: bool
    dtype: np.dtype
    index_dtype: np.dtype
    bytes_per_entry: int
    counted: np.ndarray | None

    @property
    def nnz(self) -> int: ...

    def cut(self, length: int) -> list[slice]:
        """Cut all rows into blocks of about `length` entries each."""
        ...

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read data, indices (of `dtype` and `index_dtype`, in range) and bounds of a block.

        Row i of the block has the entries ``[bounds[i], bounds[i + 1])``; bounds are int64. Must be
        safe to call from several threads.
        """
        ...
