"""Blocks of rows of several matrices, stacked, with their genes put in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..base import CsrChunk, Reading, RowBlocks, Source
from ..order import in_order
from ..rechunk.blocks import MARGIN, index_dtype_for
from .density import Densities
from .part import Part
from .turned import TurnedRows


def rows_of(source: Source) -> RowBlocks | None:
    """Return the rows of a matrix that is stored by rows; otherwise None."""
    if source.in_memory and source.layout != "csc":
        return _MemoryRows(source)
    return source.rows()


class StackedRows:
    """Rows of several matrices, one after the other; see :class:`.base.RowBlocks`.

    Parameters
    ----------
    parts : sequence of Part
        A matrix that is stored by columns is turned first: see :mod:`.turned`.
    n_genes : int
    dtype : numpy.dtype
    sorts : bool
        Whether each row is put in order, and repeated indices are summed.
    densities : Densities
        Of `parts`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        n_genes: int,
        dtype: np.dtype,
        sorts: bool,
        densities: Densities,
    ) -> None:
        self._parts = [_PartRows(part, n_genes, dtype, sorts) for part in parts]
        self._densities = densities
        self._ends = np.cumsum([part.source.n_cells for part in parts])
        self.n_cells, self.n_genes, self.dtype = int(self._ends[-1]), n_genes, dtype
        self.index_dtype = index_dtype_for(n_genes)
        self.bytes_per_entry = dtype.itemsize + self.index_dtype.itemsize
        self.exact = all(part.exact for part in self._parts)
        self.counted: np.ndarray | None = None

    @cached_property
    def _about(self) -> int:
        if all(part.whole for part in self._parts):
            return sum(part.rows.nnz for part in self._parts)
        found = self._densities.of_parts(map)
        return sum(part.nnz(own) for part, own in zip(self._parts, found, strict=True))

    @property
    def nnz(self) -> int:
        """See :class:`.base.RowBlocks`."""
        return self._about if self.counted is None else int(self.counted.sum())

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`: a block is of one matrix."""
        starts = [0, *self._ends[:-1].tolist()]
        return [
            slice(start + rows.start, start + rows.stop)
            for start, part in zip(starts, self._parts, strict=True)
            for rows in part.rows.cut(length)
            if rows.stop > rows.start
        ]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        i = int(np.searchsorted(self._ends, rows.start, side="right"))
        part = self._parts[i]
        start = int(self._ends[i]) - part.rows.n_cells
        return part.block(slice(rows.start - start, rows.stop - start), reading)

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`."""
        for part in self._parts:
            part.rows.check_unchanged()


class _PartRows:
    """Rows of one matrix, with the genes and the dtype of the stacked one."""

    def __init__(self, part: Part, n_genes: int, dtype: np.dtype, sorts: bool) -> None:
        self.rows: RowBlocks = rows_of(part.source) or TurnedRows(part.source)
        self._dtype, self._index_dtype = dtype, index_dtype_for(n_genes)
        kept = part.kept(n_genes)
        self._kept = None if kept.all() else kept
        moved = part.place[kept]
        self._in_order = not sorts and bool((np.diff(moved) > 0).all())
        same = self._kept is None and np.array_equal(moved, np.arange(len(moved)))
        # As wide as what is looked up, so that no more than this is copied.
        self._place = None if same else np.where(kept, part.place, 0).astype(self._index_dtype)
        self.exact = self.rows.exact and self._kept is None

    @property
    def whole(self) -> bool:
        """Return whether it keeps all genes."""
        return self._kept is None

    def nnz(self, density: np.ndarray) -> int:
        """Return the entries of the genes that are kept, given those of all genes."""
        if self._kept is None:
            return self.rows.nnz
        share = density[self._kept].sum() / max(1.0, density.sum())
        return min(self.rows.nnz, int(MARGIN * share * self.rows.nnz) + 1)

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data, indices, bounds = self.rows.block(rows, reading)
        if self._kept is not None:
            chosen = self._kept[indices]
            bounds = np.concatenate([[0], np.cumsum(chosen)])[bounds].astype(np.int64)
            data, indices = data[chosen], indices[chosen]
        data = data.astype(self._dtype, copy=False)
        indices = indices if self._place is None else self._place[indices]
        indices = indices.astype(self._index_dtype, copy=False)
        return (data, indices, bounds) if self._in_order else in_order(data, indices, bounds)


class _MemoryRows:
    """Rows of a CSR or dense matrix in memory; see :class:`.base.RowBlocks`."""

    def __init__(self, source: Source) -> None:
        with source.open([0, source.n_genes], 0) as reader:
            self._chunk = reader.read(0)
        self.n_cells, self.n_genes, self.nnz = source.n_cells, source.n_genes, source.nnz
        self.dtype, self.index_dtype = source.dtype, index_dtype_for(source.n_genes)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.exact = source.layout == "csr"
        self.counted: np.ndarray | None = None

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`."""
        step = max(1, length * self.n_cells // max(1, self.nnz))
        return [slice(a, min(a + step, self.n_cells)) for a in range(0, self.n_cells, step)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        if isinstance(self._chunk, CsrChunk):
            starts, stops = self._chunk.starts[rows], self._chunk.stops[rows]
            bounds = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
            first = starts - bounds[:-1]
            if (first == first[0]).all():  # rows lie one after the other
                part = slice(int(starts[0]), int(stops[-1]))
                return self._chunk.data[part].copy(), self._chunk.indices[part].copy(), bounds
            where = np.arange(bounds[-1]) + np.repeat(first, np.diff(bounds))
            return self._chunk.data[where], self._chunk.indices[where], bounds
        values = self._chunk.values[rows]  # type: ignore[union-attr]
        stored = values != 0  # NaN counts as stored
        bounds = np.concatenate([[0], np.cumsum(np.count_nonzero(stored, axis=1))])
        return values[stored], np.nonzero(stored)[1], bounds.astype(np.int64)

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`: a matrix in memory is not watched."""
