"""Dense matrices in files, read along their chunks so that no chunk is decoded twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ...utils.parallel import Map
from ..base import DenseChunk, Layout, Reader, Reading, RowBlocks, Selection, SourceDefaults
from ..checks import check_two_dimensional
from ..memory.arrays import DenseReader
from ..order import ascending
from ..rechunk.scratch import Scratch
from .base import Origin, StoredArray, unchanged
from .dense_rows import DenseRows
from .select_dense import SelectedValues

_BAND = 1 << 22  # approximate bytes of rows read at a time


class StoredDense(SourceDefaults):
    """A dense matrix in a file.

    Parameters
    ----------
    values : StoredArray
        Cells x genes.
    what : str
        What the matrix is, for messages.
    file : Origin, optional
        The file or store that holds it, if known.
    """

    in_memory = False
    on_device = False
    costly_to_cut = False
    layout: Layout = "dense"
    knows_density = True
    reopens = True

    def __init__(self, values: StoredArray, what: str, file: Origin | None) -> None:
        check_two_dimensional(values.shape, what)
        self.values, self.what, self._file = values, what, file
        self.dtype = values.dtype
        self.n_cells, self.n_genes = values.shape
        self.nnz = self.n_cells * self.n_genes
        self.bytes_per_entry = self.dtype.itemsize
        self.n_bytes = values.n_bytes
        self.description = f"dense {self.dtype} in a file"
        # Ranges of whole chunks can be read separately, unless each chunk has all genes.
        width = values.chunks[1]
        self.read_whole = width >= self.n_genes
        self.gene_step = 1 if self.read_whole else width

    def density(self, parallel_map: Map) -> None:
        """See :meth:`.base.Source.density`: all genes have equally many entries."""

    def identity(self) -> dict[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return {
            "matrix": f"dense {self.dtype} {self.n_cells} x {self.n_genes}",
            **({} if self._file is None else self._file.identity()),
        }

    def canonical(self) -> StoredDense:
        """Return self: a dense matrix has no indices."""
        return self

    def rows(self) -> RowBlocks | None:
        """See :meth:`.base.Source.rows`."""
        return DenseRows(self) if self.read_whole else None

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection:
        """See :meth:`.base.Source.select`."""
        lines, order = ascending(cells)
        values = SelectedValues(self.values, lines, genes)
        return Selection(StoredDense(values, self.what, values.file), order)

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        # A single range is read directly: it shares no chunk with another range.
        on_chunks = all(edge % self.gene_step == 0 or edge == self.n_genes for edge in edges)
        by_range = on_chunks or len(edges) == 2
        with unchanged(self._file):
            if by_range and not self.read_whole:
                yield _ByRange(self, edges, reading)
            elif self.nnz * self.dtype.itemsize <= budget:
                whole = self._load(slice(0, self.n_cells), slice(0, self.n_genes), reading)
                self.check_unchanged()
                yield DenseReader(whole, self.dtype, edges)
                del whole
            else:
                n_held = min(self.n_cells, budget // max(1, self.n_genes * self.dtype.itemsize))
                n_held -= n_held % self.values.chunks[0]  # so that no chunk is split between both
                n_bytes = (self.n_cells - n_held) * (edges[-1] - edges[0]) * self.dtype.itemsize
                with Scratch(reading.scratch, n_bytes) as scratch:
                    bands = _Bands(self, edges, n_held, reading, scratch)
                    for _ in reading.parallel_map(
                        bands.take, self.bands(bands.n_held, self.n_cells)
                    ):
                        pass
                    self.check_unchanged()
                    yield bands

    def check_unchanged(self) -> None:
        """Raise FileFormatError if the file was changed or removed since it was opened."""
        if self._file is not None:
            self._file.check_unchanged()

    def bands(self, first: int, last: int) -> list[slice]:
        """Cut rows ``[first, last)`` into bands of whole chunks."""
        a_row = self.n_genes * self.dtype.itemsize
        chunk = self.values.chunks[0]
        step = max(1, round(_BAND / a_row / chunk)) * chunk
        cuts = [first, *range((first // step + 1) * step, last, step), last]
        return [slice(a, b) for a, b in itertools.pairwise(cuts) if a < b]

    def _load(self, rows: slice, genes: slice, reading: Reading) -> np.ndarray:
        """Read the values of some rows and genes, decoded in parallel."""
        values = np.empty((rows.stop - rows.start, genes.stop - genes.start), self.dtype)

        def band(some: slice) -> None:
            out = values[some.start - rows.start : some.stop - rows.start]
            reading.advance(self.values.read((some, genes), out))

        for _ in reading.parallel_map(band, self.bands(rows.start, rows.stop)):
            pass
        return values

    def read(self, rows: slice, genes: slice, reading: Reading) -> np.ndarray:
        """Read the values of some rows and genes in the calling thread."""
        values = np.empty((rows.stop - rows.start, genes.stop - genes.start), self.dtype)
        reading.advance(self.values.read((rows, genes), values))
        return values

    def load_genes(self, genes: slice, reading: Reading) -> np.ndarray:
        """Read all cells of some genes."""
        return self._load(slice(0, self.n_cells), genes, reading)

    def load_rows(self, n_rows: int, reading: Reading) -> np.ndarray:
        """Read the first `n_rows` rows, all genes."""
        return self._load(slice(0, n_rows), slice(0, self.n_genes), reading)


class _ByRange:
    """Ranges made of whole chunks, read on demand."""

    def __init__(self, source: StoredDense, edges: Sequence[int], reading: Reading) -> None:
        self._source, self._edges, self._reading = source, edges, reading

    def read(self, k: int) -> DenseChunk:
        """See :meth:`Reader.read`."""
        genes = slice(self._edges[k], self._edges[k + 1])
        return DenseChunk(self._source.load_genes(genes, self._reading), genes.start)


class _Bands:
    """The first rows in memory, the others on disk, stored range by range.

    On disk, each range is a separate row-major matrix.
    """

    def __init__(
        self,
        source: StoredDense,
        edges: Sequence[int],
        n_held: int,
        reading: Reading,
        scratch: Scratch,
    ) -> None:
        self._source, self._edges, self._reading = source, edges, reading
        self.n_held, self._scratch = n_held, scratch
        a_gene = (source.n_cells - n_held) * source.dtype.itemsize
        self._at = [scratch.reserve((b - a) * a_gene) for a, b in itertools.pairwise(edges)]
        self._held = source.load_rows(n_held, reading)

    def _place(self, k: int, row: int) -> int:
        width = self._edges[k + 1] - self._edges[k]
        return self._at[k] + (row - self.n_held) * width * self._source.dtype.itemsize

    def take(self, rows: slice) -> None:
        """Read some rows and write them to the scratch file, cut by range."""
        edges = self._edges
        values = self._source.read(rows, slice(edges[0], edges[-1]), self._reading)
        for k in range(len(edges) - 1):
            if self._reading.wanted is None or k in self._reading.wanted:
                piece = values[:, edges[k] - edges[0] : edges[k + 1] - edges[0]]
                self._scratch.write(self._place(k, rows.start), np.ascontiguousarray(piece))

    def read(self, k: int) -> DenseChunk:
        """See :meth:`Reader.read`."""
        first, last = self._edges[k], self._edges[k + 1]
        source = self._source
        values = np.empty((source.n_cells, last - first), source.dtype)
        values[: self.n_held] = self._held[:, first:last]
        rest = max(1, _BAND // max(1, (last - first) * source.dtype.itemsize))

        def fetch(row: int) -> None:
            self._scratch.read(self._place(k, row), values[row : row + rest])

        for _ in self._reading.parallel_map(fetch, range(self.n_held, source.n_cells, rest)):
            pass
        return DenseChunk(values, first)
