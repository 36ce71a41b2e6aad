"""Sources over dask arrays: lines of blocks are computed once, one per thread at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from ...utils.parallel import Map
from ..allowed import Allowed
from ..base import CscChunk, Layout, Reader, Reading, Selection, Source, SourceDefaults
from ..detect import is_dask
from ..order import ascending
from ..rechunk.blocks import MARGIN, index_dtype_for
from ..rechunk.source import RowsSource
from .blocks import DaskBlocks

_DENSE = 1 << 25  # most bytes of blocks computed together, as dense matrices


class DaskArrays:
    """Dask arrays."""

    def claims(self, matrix: Any) -> bool:
        """See :meth:`.formats.MatrixCode.claims`."""
        return is_dask(matrix)

    def open(self, matrix: Any, what: str, allow: Allowed) -> Source:
        """See :meth:`.formats.MatrixCode.open`."""
        return from_dask(matrix, what=what)


def from_dask(array: Any, *, what: str) -> Source:
    """Return the source that reads a dask array.

    Parameters
    ----------
    array : dask.array.Array
        Cells x genes, made of numpy arrays or scipy sparse matrices.
    what : str
        Name of the matrix in messages: ``"X"``, ``"layer 'counts'"``.

    Raises
    ------
    DataError, UnsupportedDataError
        See :class:`.dask_arrays.blocks.DaskBlocks`.
    """
    blocks = DaskBlocks(array, what)
    share = [
        int(np.diff(edges).max(initial=0)) / max(1, n)
        for edges, n in (
            (blocks.row_edges, blocks.n_cells),
            (blocks.column_edges, blocks.n_genes),
        )
    ]
    # Read along the axis with more pieces, so that little is in memory at a time.
    return _DaskColumns(blocks) if share[1] < share[0] else RowsSource(_DaskRows(blocks))


class _Facts:
    """Facts about a dask array, obtained without computing all of it.

    Parameters
    ----------
    blocks : DaskBlocks
    axis : int
        Axis along which it is read: 0 by rows, 1 by columns.
    """

    def __init__(self, blocks: DaskBlocks, axis: int) -> None:
        self._blocks, self._axis = blocks, axis
        self.n_cells, self.n_genes = blocks.n_cells, blocks.n_genes
        self.dtype, self.n_bytes = blocks.dtype, blocks.n_bytes
        self.description = f"dask array {blocks.dtype}"
        self.counted: np.ndarray | None = None

    @property
    def blocks(self) -> DaskBlocks:
        """See :class:`.base.Source`."""
        return self._blocks

    @cached_property
    def _sample(self) -> tuple[np.ndarray, str]:
        return self.blocks.sample(self._axis)

    @property
    def nnz(self) -> int:
        """See :class:`.base.Source`."""
        if self.counted is not None:
            return int(self.counted.sum())
        return int(np.ceil(MARGIN * self._sample[0].sum()))

    def density(self, parallel_map: Map) -> np.ndarray:
        """See :meth:`.base.Source.density`."""
        return self._sample[0]

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`: dask's name of it and a sample of its values."""
        return {
            "matrix": f"{self.description} {self.n_cells} x {self.n_genes}",
            "name of the dask array": str(self.blocks.array.name),
            "values of some blocks": self._sample[1],
        }

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`.base.Source.select`."""
        array = self._blocks.array
        rows, order = ascending(cells)
        if len(rows) < self.n_cells:
            array = array[rows]
        if not np.array_equal(genes, np.arange(self.n_genes)):
            array = array[:, genes]
        return Selection(from_dask(array, what=self._blocks.what), order)


class _DaskRows(_Facts):
    """A dask array read by rows of blocks; see :class:`.source.SourceRows`."""

    exact = False

    def __init__(self, blocks: DaskBlocks) -> None:
        super().__init__(blocks, 0)
        self.index_dtype = index_dtype_for(self.n_genes)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`: no block is computed twice."""
        entries = length * self.n_cells // max(1, self.nnz)
        most = max(1, min(entries, _DENSE // max(1, self.n_genes * self.dtype.itemsize)))
        cuts = [0]
        for edge, following in zip(
            self.blocks.row_edges[1:], [*self.blocks.row_edges[2:], np.inf], strict=True
        ):
            if edge > cuts[-1] and following - cuts[-1] > most:
                cuts.append(int(edge))
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        matrix = self.blocks.compute(rows, slice(0, self.n_genes))
        reading.advance((rows.stop - rows.start) * self.n_genes * self.dtype.itemsize)
        return (
            matrix.data,
            matrix.indices.astype(self.index_dtype, copy=False),
            matrix.indptr.astype(np.int64, copy=False),
        )

    def check_unchanged(self) -> None:
        """See :class:`.source.SourceRows`: a dask array does not change."""

    def canonical(self) -> Source:
        """Return a source over these rows: indices are sorted when blocks are computed."""
        return RowsSource(self)


class _DaskColumns(_Facts, SourceDefaults):
    """A dask array read by columns of blocks, computed when a range of genes is requested."""

    in_memory = False
    on_device = False
    costly_to_cut = False
    read_whole = False
    layout: Layout = "csc"

    def __init__(self, blocks: DaskBlocks) -> None:
        super().__init__(blocks, 1)
        self.gene_step = int(np.diff(blocks.column_edges).max(initial=1))
        # A range is assembled from blocks: both are in memory for a while.
        self.bytes_per_entry = 2 * (self.dtype.itemsize + np.dtype(np.int32).itemsize)

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        yield _Reader(self.blocks, edges, reading)

    def canonical(self) -> _DaskColumns:
        """Return this source itself: indices are sorted when blocks are computed."""
        return self


class _Reader:
    """Reads gene ranges from columns of blocks."""

    def __init__(self, blocks: DaskBlocks, edges: Sequence[int], reading: Reading) -> None:
        self._blocks, self._edges, self._reading = blocks, edges, reading

    def read(self, k: int) -> CscChunk:
        """See :meth:`Reader.read`."""
        from scipy import sparse

        blocks, advance = self._blocks, self._reading.advance
        first, last = self._edges[k], self._edges[k + 1]
        inner = blocks.column_edges[(blocks.column_edges > first) & (blocks.column_edges < last)]
        cuts = np.unique([first, *inner, last]).tolist()

        def take(part: slice) -> Any:
            matrix = blocks.compute(slice(0, blocks.n_cells), part)
            begin = int(blocks.column_edges[blocks.column_edges <= part.start][-1])
            advance(blocks.n_cells * (part.stop - part.start) * blocks.dtype.itemsize)
            return matrix[:, part.start - begin : part.stop - begin].tocsc()

        parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        found = list(self._reading.parallel_map(take, parts))
        matrix = found[0] if len(found) == 1 else sparse.hstack(found, "csc")
        return CscChunk(
            matrix.data,
            matrix.indices,
            matrix.indptr.astype(np.int64),
            blocks.n_cells,
            first,
        )
