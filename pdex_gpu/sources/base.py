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
from typing import Protocol

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
    """

    data: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    gene_start: int
    n_genes: int


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
    run : callable
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
    """

    run: Map = map
    advance: Callable[[int], None] = lambda _: None
    scratch: Path | None = None
    wanted: Container[int] | None = None
    n_threads: int = 1
    work: int = 1 << 27
    most_entries: float | None = None
    lazy: bool = False


class UnevenError(PdexGpuError):
    """A range of genes holds more entries than estimated when the work was planned.

    Raised once the file has been read: :meth:`Source.density` is then exact, for a new plan.
    """


class Source(Protocol):
    """A matrix of cells x genes that can be read in ranges of genes.

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

    @property
    def n_cells(self) -> int: ...

    @property
    def n_genes(self) -> int: ...

    @property
    def nnz(self) -> int: ...

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[Reader]:
        """Prepare to read the ranges ``[edges[k], edges[k + 1])``.

        At most `budget` bytes of entries are kept in memory between ranges.
        """
        ...

    def density(self, run: Map) -> np.ndarray | None:
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


class Reader(Protocol):
    """An open source; :meth:`read` may be called from several threads at once."""

    def read(self, k: int) -> Chunk:
        """Read the chunk of range ``k`` of the edges given to :meth:`Source.open`."""
        ...
