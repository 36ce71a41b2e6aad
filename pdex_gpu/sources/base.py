"""The interface of a source: a matrix of cells x genes, read as ranges of genes.

A source never computes with values and never checks them: a kernel set does, when it packs a chunk.

If the source is on a device (:attr:`Source.on_device`), the values and indices of a chunk are
arrays with ``__cuda_array_interface__``; everything else is numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from ..errors import DataError, PdexGpuError
from ..utils.parallel import Map


@dataclass(frozen=True)
class DenseChunk:
    """Genes ``[gene_start, gene_start + n_genes)`` of a dense matrix.

    Attributes
    ----------
    values : numpy.ndarray or device array, shape (n_cells, n_genes), any numeric dtype, any strides
    gene_start : int
    """

    values: np.ndarray
    gene_start: int

    @property
    def n_genes(self) -> int:
        return int(self.values.shape[1])


@dataclass(frozen=True)
class RowScale:
    """What the values of each row of counts become: ``log1p(target * (count / divisor))``.

    The formula is that of :func:`.normalized.kernels.scaled`.

    Attributes
    ----------
    divisors : numpy.ndarray, shape (n_cells,), float64
    target : float
    form : int
        See :mod:`.normalized.kernels`.
    """

    divisors: np.ndarray
    target: float
    form: int


@dataclass(frozen=True)
class CsrChunk:
    """Genes ``[gene_start, gene_start + n_genes)`` of a row-major sparse matrix.

    The entries of cell ``i`` in this range are ``data[starts[i]:stops[i]]``, their genes
    ``indices[starts[i]:stops[i]]`` (absolute: subtract ``gene_start`` for the gene in the chunk).

    Attributes
    ----------
    data : numpy.ndarray, device array or LazyEntries, shape (nnz,), any numeric dtype
    indices : numpy.ndarray, device array or LazyEntries, shape (nnz,), integer
        Gene of each entry, counted from the first gene of the whole matrix.
    starts, stops : numpy.ndarray, shape (n_cells,), int64
    gene_start, n_genes : int
    scale : RowScale, optional
        `data` are counts, and this makes float64 values of them. Only if the reader asked for such
        chunks: see :attr:`Reading.unscaled`.
    """

    data: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    gene_start: int
    n_genes: int
    scale: RowScale | None = None


@dataclass(frozen=True)
class CscChunk:
    """Genes ``[gene_start, gene_start + n_genes)`` of a column-major sparse matrix.

    The entries of gene ``gene_start + j`` are ``data[indptr[j]:indptr[j + 1]]``, their cells
    ``indices[indptr[j]:indptr[j + 1]]``.

    Attributes
    ----------
    data : numpy.ndarray, device array or LazyEntries, shape (nnz,), any numeric dtype
    indices : numpy.ndarray, device array or LazyEntries, shape (nnz,), integer
    indptr : numpy.ndarray, shape (n_genes + 1,), int64
    n_cells, gene_start : int
    """

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    n_cells: int
    gene_start: int

    @property
    def n_genes(self) -> int:
        return len(self.indptr) - 1


Chunk = DenseChunk | CsrChunk | CscChunk

#: The kind of chunk that a source is read as.
Layout = Literal["dense", "csr", "csc"]


class State(NamedTuple):
    """What a source is rebuilt from in another process: ``make(**arrays, **facts)``.

    Attributes
    ----------
    make : callable
        Pickled by its name.
    arrays : dict of str to numpy.ndarray
    facts : dict of str to object
        The other arguments.
    """

    make: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def is_device_array(array: object) -> bool:
    """Return whether `array` is on a CUDA device, regardless of the package that made it."""
    return hasattr(array, "__cuda_array_interface__")


class NotCanonicalError(DataError):
    """Indices of a sparse chunk are unsorted, repeated or out of range.

    Raised when a chunk is packed; the engine then asks the source for :meth:`Source.canonical`.
    """


@dataclass(frozen=True)
class Reading:
    """Settings for reading a source.

    Attributes
    ----------
    parallel_map : callable
        Spreads reading, decompressing and copying over threads.
    advance : callable
        Called with the number of further bytes read from the file.
    scratch : pathlib.Path, optional
        Folder for data that do not fit in memory; by default the system's temporary folder.
    wanted : container of int, optional
        The ranges that will be read; by default all.
    n_threads : int
        Number of threads that `run` uses.
    work : int
        Bytes of buffers for reading.
    most_entries : float, optional
        Most entries that the plan has room for in a range of several genes.
    lazy : bool
        Whether a chunk may hold :class:`.lazy.LazyEntries`, read while being copied to a device.
    unscaled : bool
        Whether a CSR chunk may hold counts and a :class:`RowScale`, applied while being packed.
    """

    parallel_map: Map = map
    advance: Callable[[int], None] = lambda _: None
    scratch: Path | None = None
    wanted: Container[int] | None = None
    n_threads: int = 1
    work: int = 1 << 27
    most_entries: float | None = None
    lazy: bool = False
    unscaled: bool = False


class UnevenError(PdexGpuError):
    """A range of genes holds more entries than estimated when the work was planned.

    Raised once the file has been read: :meth:`Source.density` is then exact, for a new plan.
    """


class RowBlocks(Protocol):
    """A row-major sparse matrix that arrives in blocks of rows, from any kind of storage.

    Attributes
    ----------
    n_cells, n_genes : int
    nnz : int
        Entries; an estimate with a margin (:data:`.rechunk.blocks.MARGIN`) unless `exact` or
        counted.
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

    def check_unchanged(self) -> None:
        """Raise FileFormatError if the file or store was changed since it was opened."""
        ...


class LazyBlocks(Protocol):
    """A grid of blocks that other processes can compute, such as those of a dask array."""

    n_cells: int
    n_genes: int

    def part(self, rows: slice, columns: slice) -> tuple[Any, list[Any]]:
        """Return the layout and the delayed values of the blocks covering `rows` and `columns`."""
        ...


@dataclass(frozen=True)
class Selection:
    """Some cells and genes of a source.

    Attributes
    ----------
    source : Source
    order : numpy.ndarray, shape (n_selected,), int64, or None
        Cell of `source` for each selected cell; None if they are the same.
    """

    source: Source
    order: np.ndarray | None


class Source(Protocol):
    """A matrix of cells x genes that can be read in ranges of genes.

    A new kind of source can inherit from :class:`SourceDefaults`, and then only has to define the
    attributes and methods that are not defined there.

    Attributes
    ----------
    n_cells, n_genes : int
    nnz : int
        Stored entries (dense: cells x genes).
    dtype : numpy.dtype
        Dtype of the values as read.
    bytes_per_entry : int
        Bytes that a stored entry takes in memory once read (value and index).
    in_memory : bool
        True if reading a range costs no copy, so that the budget need not count it.
    on_device : bool
        True if the arrays of its chunks are on a CUDA device, where only the CUDA backend can
        read them. Such a source is read as one range.
    costly_to_cut : bool
        True if every cut needs a search in all rows (CSR), so that few ranges are best if they
        fit in memory.
    read_whole : bool
        True if all of it must be read before the first range is complete. The budget must then
        hold all of it; what does not fit goes to the scratch folder.
    gene_step : int
        Ranges are best cut at multiples of this.
    n_bytes : int
        Bytes to read from a file; 0 in memory.
    description : str
        Short description for provenance and messages: ``"CSR float32 in memory"``.
    layout : {"dense", "csr", "csc"}
        The kind of chunk that it is read as. In a "csc" chunk the entries of a gene lie together.
    decoded_bytes : int
        Bytes of the entries as decoded from the file; 0 in memory.
    knows_density : bool
        True if :meth:`density` is exact and reads nothing from a file.
    sorts : bool
        True if lines that are out of order are put in order while reading, because
        :meth:`canonical` was called.
    reopens : bool
        True if it reads a matrix in a file as it is there, so that another process that opens the
        same file has the same matrix.
    blocks : LazyBlocks or None
        The blocks that it is computed from, if other processes can compute them.
    """

    dtype: np.dtype
    bytes_per_entry: int
    in_memory: bool
    on_device: bool
    costly_to_cut: bool
    read_whole: bool
    gene_step: int
    n_bytes: int
    description: str
    layout: Layout
    knows_density: bool
    sorts: bool
    reopens: bool

    @property
    def n_cells(self) -> int: ...

    @property
    def n_genes(self) -> int: ...

    @property
    def nnz(self) -> int: ...

    @property
    def decoded_bytes(self) -> int: ...

    @property
    def blocks(self) -> LazyBlocks | None: ...

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[Reader]:
        """Prepare to read the ranges ``[edges[k], edges[k + 1])``.

        At most `budget` bytes of entries are kept in memory between ranges.
        """
        ...

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """Return the stored entries per gene, shape (n_genes,), float64; None if all are equal.

        They may be estimates. May read some of the file.
        """
        ...

    def identity(self) -> Mapping[str, int | str]:
        """Return facts that identify these data, by their values and not only their shape."""
        ...

    def canonical(self) -> Source:
        """Return this source with sorted, unique indices; raise DataError if that is impossible."""
        ...

    def rows(self) -> RowBlocks | None:
        """Return the rows in blocks if the source is read whole; otherwise None.

        The rows are in stored order; see :meth:`take_apart`.
        """
        ...

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """Return a source of some cells and genes that skips the others while reading.

        Parameters
        ----------
        cells, genes : numpy.ndarray, int64
            In any order; both may repeat.

        Returns
        -------
        Selection or None
            None if this source can skip nothing. Otherwise it has no cells but the selected ones.
        """
        ...

    def all_genes(self) -> Source:
        """Return the matrix with the genes that it leaves out, after its own genes.

        Cells are normalised by the totals of all these genes.
        """
        ...

    def state(self) -> State | None:
        """Return what the source can be rebuilt from in another process.

        Returns
        -------
        State or None
            None if the source is more than arrays in memory.
        """
        ...

    def take_apart(self) -> tuple[Source, np.ndarray | None]:
        """Return the source with its cells in stored order, and where each cell lies there.

        Returns
        -------
        source : Source
        order : numpy.ndarray, shape (n_cells,), int64, or None
            Cell of `source` for each cell of this one; None if they are the same.
        """
        ...


class SourceDefaults:
    """A base for sources: abilities that a source lacks unless it says otherwise."""

    knows_density = False
    sorts = False
    reopens = False

    @property
    def decoded_bytes(self: Source) -> int:
        """See :class:`Source`: as many bytes as the entries take in memory."""
        return 0 if self.in_memory else int(self.nnz * self.bytes_per_entry)

    @property
    def blocks(self) -> LazyBlocks | None:
        """See :class:`Source`."""
        return None

    def rows(self) -> RowBlocks | None:
        """See :meth:`Source.rows`."""
        return None

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`Source.select`."""
        return None

    def all_genes(self: Source) -> Source:
        """See :meth:`Source.all_genes`: none is left out."""
        return self

    def state(self) -> State | None:
        """See :meth:`Source.state`."""
        return None

    def take_apart(self: Source) -> tuple[Source, np.ndarray | None]:
        """See :meth:`Source.take_apart`."""
        return self, None


class Reader(Protocol):
    """An open source; :meth:`read` may be called from several threads at once."""

    def read(self, k: int) -> Chunk:
        """Read the chunk of range ``k`` of the edges given to :meth:`Source.open`."""
        ...
