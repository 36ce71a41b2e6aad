"""Sources over dense, CSR and CSC arrays in memory. Reading a range copies no values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from ..errors import DataError, PdexGpuError, UnsupportedDataError
from ..pools import Map
from .base import CscChunk, CsrChunk, DenseChunk, Reading, Source, is_device_array
from .digest import digest
from .order import in_order
from .split import search_rows
from .whole_numbers import with_native_integers

SUPPORTED = "numpy arrays, scipy sparse matrices or arrays, and CuPy matrices on a CUDA device"
# A chunk needs the positions of two edges and shares each with a neighbour. A few more are kept,
# because several threads read neighbouring ranges at the same time.
_CACHED_EDGES = 8
_SAMPLES, _SAMPLE = 64, 1 << 14  # number of stretches of entries, and their length


def from_array(matrix: Any, *, what: str) -> Source:
    """Return the source that reads `matrix`.

    Parameters
    ----------
    matrix : numpy.ndarray, numpy.matrix, scipy sparse matrix or array, or a matrix on a device
        Cells x genes. CSR and CSC are used as they are; other sparse formats become CSR. A matrix
        on a CUDA device stays there; see :mod:`.device`.
    what : str
        Name of the matrix in messages: ``"X"``, ``"layer 'counts'"``.

    Raises
    ------
    DataError
        `matrix` is None, not two-dimensional, or its sparse arrays contradict each other.
    UnsupportedDataError
        `matrix` has another type, or its values are not real numbers.
    """
    from scipy import sparse

    if matrix is None:
        raise no_matrix(what)
    if isinstance(matrix, np.ndarray) and not isinstance(matrix, np.ma.MaskedArray):
        check_two_dimensional(matrix.shape, what)
        return DenseSource(np.asarray(matrix), what)
    if sparse.issparse(matrix):
        check_two_dimensional(matrix.shape, what)
        native_dtype(matrix.dtype, what)
        if matrix.format in ("csr", "csc"):
            matrix = with_native_integers(matrix, what)
        if matrix.format == "csc":
            return CscSource(matrix.data, matrix.indices, matrix.indptr, matrix.shape[0], what)
        matrix = matrix.tocsr()
        return CsrSource(matrix.data, matrix.indices, matrix.indptr, matrix.shape[1], what)
    if is_device_array(matrix) or is_device_array(getattr(matrix, "data", None)):
        from .device import from_device

        return from_device(matrix, what=what)
    kind = type(matrix)
    raise UnsupportedDataError(
        f"{what} is a {kind.__module__}.{kind.__qualname__}. Supported: {SUPPORTED}. Convert it "
        "first."
    )


def no_matrix(what: str) -> DataError:
    """Return the error for a missing matrix."""
    return DataError(
        f"{what} is None: there is no matrix to test. Store the expression values in X, "
        f"or name the layer that holds them."
    )


def check_two_dimensional(shape: tuple[int, ...], what: str) -> None:
    """Raise DataError unless `shape` is that of a matrix."""
    if len(shape) != 2:
        raise DataError(f"{what} has shape {shape}; a matrix of cells x genes is needed.")


def native_dtype(dtype: np.dtype, what: str) -> np.dtype:
    """Return the dtype in which values of `dtype` are read: this machine's byte order, no float16.

    Raises UnsupportedDataError if the values are not real numbers of at most 64 bits.
    """
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise UnsupportedDataError(
            f"{what} has dtype {dtype}. Supported: bool, integers and floats of up to 64 bits. "
            "Convert it first, for instance with astype('float64')."
        )
    half = dtype.kind == "f" and dtype.itemsize == 2
    return np.dtype(np.float32 if half else f"{dtype.kind}{dtype.itemsize}")


def check_indptr(
    indptr: np.ndarray,
    n_major: int,
    n_stored: int,
    what: str,
    kind: type[PdexGpuError] = DataError,
) -> None:
    """Raise `kind` unless `indptr` cuts arrays of `n_stored` entries into `n_major` pieces.

    Compiled code reads ``data[indptr[i]:indptr[i + 1]]`` unchecked, so this is the only guard.
    """
    found = _fault_of_indptr(indptr, n_major, n_stored)
    if found:
        raise kind(fault_of_indptr(what, n_major, n_stored, found))


def fault_of_indptr(what: str, n_major: int, n_stored: int, found: str) -> str:
    """Return the message for a malformed indptr; `found` says what is wrong with it."""
    return (
        f"{what} is malformed: indptr must hold {n_major + 1} numbers that rise from 0 to at "
        f"most {n_stored}, the length of data and indices, but {found}. Build the matrix again."
    )


def _fault_of_indptr(indptr: np.ndarray, n_major: int, n_stored: int) -> str | None:
    if len(indptr) != n_major + 1:
        return f"it holds {len(indptr)}"
    if indptr[0] != 0:
        return f"number 0 is {int(indptr[0])}"
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        at = int(falls[0]) + 1
        return f"number {at} is {int(indptr[at])}, after {int(indptr[at - 1])}"
    return f"the last is {int(indptr[-1])}" if indptr[-1] > n_stored else None


def check_indices(
    indices: np.ndarray,
    indptr: np.ndarray,
    limit: int,
    what: str,
    major: str,
    start: int = 0,
    kind: type[PdexGpuError] = DataError,
) -> None:
    """Raise `kind` if any of `indices` lies outside ``[0, limit)``.

    Parameters
    ----------
    indices : numpy.ndarray
        Indices of the entries ``[start, start + len(indices))`` of the matrix.
    indptr : numpy.ndarray
        That of the whole matrix, to find the row or column of the wrong entry.
    limit : int
    what : str
    major : str
        The axis that indptr indexes: "row" or "column".
    start : int
    """
    if len(indices) == 0 or (indices.min() >= 0 and indices.max() < limit):
        return
    bad = int(np.flatnonzero((indices < 0) | (indices >= limit))[0])
    line = int(np.searchsorted(indptr, start + bad, side="right")) - 1
    minor = "column" if major == "row" else "row"
    raise kind(
        f"{what} is malformed: {major} {line} has an entry in {minor} {int(indices[bad])}, but "
        f"there are {limit} {minor}s, counted from 0. Build the matrix again."
    )


def canonical_arrays(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, limit: int, what: str, major: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort indices and sum duplicates, in place; return data, indices and indptr."""
    check_indices(indices, indptr, limit, what, major)
    return in_order(data, indices, indptr)


@runtime_checkable
class MemorySource(Protocol):
    """A source that can be split into arrays and other arguments, and rebuilt elsewhere."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the arrays and the other arguments of the constructor, both by name."""
        ...


class InMemory:
    """The attributes shared by sources that read nothing from a file."""

    in_memory = True
    on_device = False
    costly_to_cut = False
    read_whole = False
    gene_step = 1
    n_bytes = 0


class DenseSource(InMemory):
    """A dense matrix in memory, with any strides."""

    def __init__(self, values: np.ndarray, what: str) -> None:
        self._values = values
        self._what = what
        self.dtype = native_dtype(values.dtype, what)
        self.n_cells, self.n_genes = values.shape
        self.nnz = values.size
        self.bytes_per_entry = self.dtype.itemsize
        self.description = f"dense {self.dtype} in memory"

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See :meth:`MemorySource.state`."""
        arrays = {"values": self._values}
        return arrays, {"what": self._what}

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[DenseReader]:
        """See :meth:`Source.open`."""
        return nullcontext(DenseReader(self._values, self.dtype, edges))

    def density(self, run: Map) -> None:
        """See :meth:`Source.density`: all genes have the same number of entries."""

    def identity(self) -> dict[str, int | str]:
        """See :meth:`Source.identity`."""
        return {"matrix": self.description, "values": digest(self._values)}

    def canonical(self) -> DenseSource:
        """Return this source itself: a dense matrix has no indices."""
        return self


class DenseReader:
    """Reads gene ranges of a dense matrix, as views unless the dtype must change."""

    def __init__(self, values: np.ndarray, dtype: np.dtype, edges: Sequence[int]) -> None:
        self._values = values
        self._dtype = dtype
        self._edges = edges

    def read(self, k: int) -> DenseChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        return DenseChunk(self._values[:, start:stop].astype(self._dtype, copy=False), start)


class _SparseSource(InMemory):
    """The base of the CSR and CSC sources; the major axis is the one that indptr indexes.

    Parameters
    ----------
    data, indices, indptr : numpy.ndarray
    n_minor : int
        Length of the other axis.
    what : str
    """

    major: str
    form: str

    def __init__(
        self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, n_minor: int, what: str
    ) -> None:
        self.n_major, self.n_minor = len(indptr) - 1, n_minor
        check_indptr(indptr, self.n_major, min(len(data), len(indices)), what)
        self._data = data.astype(native_dtype(data.dtype, what), copy=False)
        self._indices = indices
        self._indptr = indptr.astype(np.int64, copy=False)
        self._what = what
        self.nnz = int(indptr[-1])
        self.dtype = self._data.dtype
        self.bytes_per_entry = self.dtype.itemsize + indices.itemsize
        self.description = f"{self.form} {self._data.dtype} in memory"

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See :meth:`MemorySource.state`."""
        arrays = {"data": self._data, "indices": self._indices, "indptr": self._indptr}
        return arrays, {"n_minor": self.n_minor, "what": self._what}

    def density(self, run: Map) -> np.ndarray:
        """See :meth:`Source.density`; for CSR, estimated from a sample across the matrix."""
        if self.major == "column":
            return np.diff(self._indptr).astype(np.float64)
        starts = np.unique(np.linspace(0, max(0, self.nnz - _SAMPLE), _SAMPLES).astype(np.int64))
        counts = np.zeros(self.n_minor, np.int64)
        for start in starts.tolist():
            some = self._indices[start : min(start + _SAMPLE, self.nnz)]
            within = some[(some >= 0) & (some < self.n_minor)]  # packing refuses the others
            counts += np.bincount(within, minlength=self.n_minor)
        return counts * (self.nnz / max(1, counts.sum()))

    def identity(self) -> dict[str, int | str]:
        """See :meth:`Source.identity`."""
        return {
            "matrix": f"{self.description}, {self.n_major} x {self.n_minor}",
            "values": digest(self._data[: self.nnz], self._indices[: self.nnz], self._indptr),
        }

    def canonical(self) -> Self:
        """Return a copy with sorted, unique indices; raise DataError if one is out of range."""
        arrays = canonical_arrays(
            self._data[: self.nnz].copy(),
            self._indices[: self.nnz].copy(),
            self._indptr.copy(),
            self.n_minor,
            self._what,
            self.major,
        )
        return type(self)(*arrays, self.n_minor, self._what)


class CsrSource(_SparseSource):
    """A row-major sparse matrix in memory; its rows may be unsorted."""

    costly_to_cut = True
    major, form = "row", "CSR"

    @property
    def n_cells(self) -> int:
        return self.n_major

    @property
    def n_genes(self) -> int:
        return self.n_minor

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[CsrReader]:
        """See :meth:`Source.open`."""
        return nullcontext(CsrReader(self._data, self._indices, self._indptr, self.n_genes, edges))


class CsrReader:
    """Reads gene ranges of a CSR matrix: its own arrays, with a start and a stop per row."""

    def __init__(
        self,
        data: np.ndarray,
        indices: np.ndarray,
        indptr: np.ndarray,
        n_genes: int,
        edges: Sequence[int],
    ) -> None:
        self._data = data
        self._indices = indices
        self._edges = edges
        # Cache a partial, not a method: a cache of the reader's own methods would keep the
        # reader, and with it the matrix, alive until the garbage collector finds the cycle.
        self._positions = lru_cache(maxsize=_CACHED_EDGES)(
            partial(row_positions, indices, indptr, n_genes)
        )

    def read(self, k: int) -> CsrChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        return CsrChunk(
            self._data,
            self._indices,
            self._positions(start),
            self._positions(stop),
            start,
            stop - start,
        )


def row_positions(indices: np.ndarray, indptr: np.ndarray, n_genes: int, edge: int) -> np.ndarray:
    """Return, for each row, where its entries of genes from `edge` on begin.

    The search is :func:`.split.search_rows`, so each entry of a row falls into exactly one range.
    The outermost edges take whole rows, including out-of-range indices.

    Returns
    -------
    numpy.ndarray, shape (n_cells,), int64
    """
    if edge <= 0:
        return indptr[:-1]
    if edge >= n_genes:
        return indptr[1:]
    return search_rows(indices, indptr[:-1], indptr[1:], edge)


class CscSource(_SparseSource):
    """A column-major sparse matrix in memory; its columns may be unsorted."""

    major, form = "column", "CSC"

    @property
    def n_cells(self) -> int:
        return self.n_minor

    @property
    def n_genes(self) -> int:
        return self.n_major

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[CscReader]:
        """See :meth:`Source.open`."""
        return nullcontext(CscReader(self._data, self._indices, self._indptr, self.n_cells, edges))


class CscReader:
    """Reads gene ranges of a CSC matrix: its own arrays, with a slice of indptr."""

    def __init__(
        self,
        data: np.ndarray,
        indices: np.ndarray,
        indptr: np.ndarray,
        n_cells: int,
        edges: Sequence[int],
    ) -> None:
        self._data = data
        self._indices = indices
        self._indptr = indptr
        self._n_cells = n_cells
        self._edges = edges

    def read(self, k: int) -> CscChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        return CscChunk(
            self._data, self._indices, self._indptr[start : stop + 1], self._n_cells, start
        )
