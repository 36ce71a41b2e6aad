"""What a source provides: a matrix of cells x genes, read as ranges of genes.

A source never computes and never checks values: a kernel set does, when it packs a chunk.

Where the source is on a device (:attr:`Source.on_device`), values and indices of a chunk are arrays
with ``__cuda_array_interface__``; all else is numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError, PdexGpuError
from ..pools import Map


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
    ``indices[starts[i]:stops[i]]`` (absolute, so minus ``gene_start`` within the chunk).

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
    """Whether `array` lies on a CUDA device, whichever package made it."""
    return hasattr(array, "__cuda_array_interface__")


class NotCanonicalError(DataError):
    """Indices of a sparse chunk are unsorted, repeated or out of range.

    Raised when a chunk is packed; the engine then asks the source for :meth:`Source.canonical`.
    """


@dataclass(frozen=True)
class Reading:
    """How a source is to be read.

    Attributes
    ----------
    run : callable
        Spreads reading, decompressing and copying over threads.
    advance : callable
        Told how many more bytes of the file were read.
    scratch : pathlib.Path, optional
        Folder for what does not fit in memory; the system's temporary one by default.
    wanted : container of int, optional
        The ranges that will be read; by default all.
    n_threads : int
        Threads that `run` spreads over.
    work : int
        Bytes of buffers to use while reading.
    most_entries : float, optional
        Entries of a range of several genes that the plan has room for.
    lazy : bool
        Whether a chunk may hold :class:`.lazy.LazyEntries`, read while they are copied to a device.
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
    """A range of genes holds more than was estimated when the work was planned.

    Raised when a file was read once; :meth:`Source.density` is exact then, for another plan.
    """


class Source(Protocol):
    """A matrix of cells x genes that can be read by ranges of genes.

    Attributes
    ----------
    n_cells, n_genes : int
    nnz : int
        Stored entries (dense: cells x genes).
    dtype : numpy.dtype
        Of the values as they are read.
    bytes_per_entry : int
        Bytes a stored entry takes in memory once read (value and index).
    in_memory : bool
        True if reading a range costs no copy, so that the budget need not count it.
    on_device : bool
        True if the arrays of its chunks lie on a CUDA device, which only the CUDA backend can
        read. Such a source is read as one range.
    costly_to_cut : bool
        True if every cut takes a search in all rows (CSR), so that few ranges are best where there
        is room for them.
    read_whole : bool
        True if all of it has to be read before the first range is complete, so that the budget
        has to hold it, or the scratch folder what does not fit.
    gene_step : int
        Ranges are best cut at multiples of this.
    n_bytes : int
        Bytes to read from a file; 0 in memory.
    description : str
        What this is, for provenance and messages: ``"CSR float32 in memory"``.
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
        """Stored entries a gene, shape (n_genes,), float64, perhaps estimated; None if all equal.

        May read some of the file.
        """
        ...

    def identity(self) -> Mapping[str, int | str]:
        """What tells these data from others: from other values, not only from another shape."""
        ...

    def canonical(self) -> Source:
        """This source with sorted, unique indices; raises DataError if that cannot be had."""
        ...


class Reader(Protocol):
    """An open source; :meth:`read` may be called from several threads at once."""

    def read(self, k: int) -> Chunk:
        """The chunk of range ``k`` of the edges given to :meth:`Source.open`."""
        ...
