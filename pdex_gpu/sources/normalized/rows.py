"""Rows of counts that are scaled as they arrive, whatever they are stored in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...utils.parallel import Map
from ..base import Reading, RowBlocks
from ..order import in_order
from ..rechunk.blocks import MARGIN, choose_columns, index_dtype_for
from .scaling import Scaling


class ScaledRows:
    """Rows of counts, scaled; see :class:`.base.RowBlocks`.

    A block holds whole rows, so their totals are known as soon as it is read.

    Parameters
    ----------
    rows : RowBlocks
        The counts, of all genes.
    scaling : Scaling
        Its totals are filled in as rows are read.
    form : int
        What is made of a ratio: see :mod:`.kernels`.
    """

    def __init__(self, rows: RowBlocks, scaling: Scaling, form: int) -> None:
        self._rows, self._scaling, self.form = rows, scaling, form
        self.n_cells, self.n_genes, self.exact = rows.n_cells, rows.n_genes, rows.exact
        self.dtype, self.index_dtype = np.dtype(np.float64), rows.index_dtype
        self.bytes_per_entry = self.dtype.itemsize + rows.index_dtype.itemsize

    @property
    def nnz(self) -> int:
        """See :class:`.base.RowBlocks`."""
        return self._rows.nnz

    @property
    def counted(self) -> np.ndarray | None:
        """See :class:`.base.RowBlocks`."""
        return self._rows.counted

    @counted.setter
    def counted(self, entries: np.ndarray | None) -> None:
        self._rows.counted = entries

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`."""
        return self._rows.cut(length)

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`."""
        self._rows.check_unchanged()

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`; indices are in order, and repeated ones summed."""
        from .kernels import FINE, RATIO, scale_rows

        data, indices, bounds = in_order(*self._rows.block(rows, reading))
        values, scaling = data.astype(np.float64), self._scaling
        if scaling.column is None:
            self._add_up(rows, data, indices, bounds)
        target = np.nan if self.form == RATIO else scaling.find_target()
        divisors = scaling.divisors[rows]
        at = scale_rows(values, bounds[:-1], bounds[1:], divisors, target, self.form)
        if at != FINE:  # that value is as it was
            raise scaling.refused(float(data[at]), rows.start + _row(bounds, at), int(indices[at]))
        return values, indices, bounds

    def add_up(self, rows: slice, reading: Reading) -> None:
        """Read a block only for the totals of its cells."""
        data, indices, bounds = self._rows.block(rows, reading)
        self._add_up(rows, data, indices, bounds)

    def _add_up(
        self, rows: slice, values: np.ndarray, indices: np.ndarray, bounds: np.ndarray
    ) -> None:
        from .kernels import FINE, add_rows

        scaling = self._scaling
        totals = np.empty(len(bounds) - 1)  # filled by add_rows
        at = add_rows(values, bounds[:-1], bounds[1:], totals)
        if at != FINE:
            cell = rows.start + _row(bounds, at)
            raise scaling.refused(float(values[at]), cell, int(indices[at]))
        scaling.set_totals(rows, totals)


class ScaledGenes:
    """Some genes of scaled rows, in any order and with repeats; see :class:`.base.RowBlocks`.

    The rows are scaled by the totals of all their genes before some genes are chosen.

    Parameters
    ----------
    rows : ScaledRows
    genes : numpy.ndarray, int64
    density : callable
        Returns the entries of each gene of `rows`; see :meth:`.base.Source.density`.
    """

    exact = False

    def __init__(
        self, rows: ScaledRows, genes: np.ndarray, density: Callable[[Map], np.ndarray]
    ) -> None:
        self._rows, self._genes, self._density = rows, genes, density
        self.n_cells, self.n_genes = rows.n_cells, len(genes)
        self.dtype, self.index_dtype = rows.dtype, index_dtype_for(len(genes))
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.counted: np.ndarray | None = None

    @property
    def nnz(self) -> int:
        """See :class:`.base.RowBlocks`."""
        if self.counted is not None:
            return int(self.counted.sum())
        return int(MARGIN * self._density(map).sum()) + 1

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`: counts entries of all genes, since all are read."""
        return self._rows.cut(length)

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`."""
        self._rows.check_unchanged()

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        data, indices, bounds = self._rows.block(rows, reading)
        return choose_columns(data, indices, bounds, self._rows.n_genes, self._genes)


def _row(bounds: np.ndarray, at: int) -> int:
    """Return the row of an entry."""
    return int(np.searchsorted(bounds, at, side="right")) - 1
