"""Sources over matrices on a CUDA device, as rapids-singlecell leaves them in an AnnData.

CuPy is not imported: an array is recognized by ``__cuda_array_interface__``, a sparse matrix by its
format and its parts. A chunk holds the matrix's own values and indices, whole: only the CUDA
backend can read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ...errors import DataError, UnsupportedDataError
from ...utils.digest import digest
from ...utils.parallel import Map
from ..base import (
    Chunk,
    CscChunk,
    CsrChunk,
    DenseChunk,
    Layout,
    Reading,
    Source,
    is_device_array,
)
from ..checks import canonical_arrays, check_indptr, check_two_dimensional, native_dtype
from .arrays import CscSource, CsrSource, InMemory

SUPPORTED = "dense arrays, csr_matrix and csc_matrix"


def from_device(matrix: Any, *, what: str) -> Source:
    """Return the source that reads `matrix` where it is.

    Parameters
    ----------
    matrix : cupy.ndarray, or csr_matrix or csc_matrix of cupyx.scipy.sparse
        Cells x genes. Any object with the same attributes works.
    what : str
        Name of the matrix in messages: ``"X"``, ``"layer 'counts'"``.

    Raises
    ------
    DataError
        `matrix` is not two-dimensional, or its sparse arrays contradict each other.
    UnsupportedDataError
        `matrix` has another format, or its values have a dtype that cannot be used in place.
    """
    if is_device_array(matrix):
        return DeviceDense(matrix, what)
    form = getattr(matrix, "format", None)
    if form == "csr":
        return DeviceCsr(matrix, what)
    if form == "csc":
        return DeviceCsc(matrix, what)
    kind = type(matrix)
    raise UnsupportedDataError(
        f"{what} is a {kind.__module__}.{kind.__qualname__} on a CUDA device. Supported there: "
        f"{SUPPORTED}. Convert it first with its tocsr() method."
    )


def _dtype(array: Any, what: str) -> np.dtype:
    """Return the dtype of a device array; raise UnsupportedDataError unless it works as it is."""
    dtype = np.dtype(array.__cuda_array_interface__["typestr"])
    native = native_dtype(dtype, what)
    if native != dtype:
        raise UnsupportedDataError(
            f"{what} has dtype {dtype} on a CUDA device, where values are used without conversion. "
            "Supported there: bool, integers and floats of 32 or 64 bits in this machine's byte "
            f"order. Convert it first with astype('{native}')."
        )
    return dtype


def _check_vector(array: Any, name: str, what: str) -> None:
    """Raise DataError unless `array` is on the device, one-dimensional and contiguous."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None and len(interface["shape"]) == 1:
        itemsize = np.dtype(interface["typestr"]).itemsize
        if interface.get("strides") in (None, (itemsize,)):
            return
    raise DataError(
        f"{what} is malformed: {name} must be one-dimensional and contiguous, and on the device "
        "like the other parts. Build the matrix again."
    )


def _to_host(array: Any, what: str) -> np.ndarray:
    """Copy a device array to host memory."""
    if not hasattr(array, "get"):
        kind = type(array)
        raise DataError(
            f"{what} must be copied from the CUDA device, but its arrays, of type "
            f"{kind.__module__}.{kind.__qualname__}, have no get() method. Move it to host memory, "
            "or convert it to a CuPy matrix."
        )
    return np.asarray(array.get())


class _WholeReader:
    """A reader of the single chunk of a matrix on a device."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk

    def read(self, k: int) -> Chunk:
        """See :meth:`Reader.read`."""
        return self._chunk


def _whole(chunk: Chunk, edges: Sequence[int]) -> AbstractContextManager[_WholeReader]:
    """Return a reader of `chunk`; raise ValueError unless `edges` are ``[0, n_genes]``."""
    # Not a PdexGpuError: no input leads here, only a plan that ignores `on_device`.
    if tuple(edges) != (0, chunk.n_genes):
        raise ValueError(
            f"a matrix on a device is read as one range, with edges [0, {chunk.n_genes}], not "
            f"{list(edges)}. This is a bug in pdex_gpu."
        )
    return nullcontext(_WholeReader(chunk))


class _OnDevice(InMemory):
    """The base of the sources on a device."""

    on_device = True
    costly_to_cut = True

    def density(self, parallel_map: Map) -> None:
        """See :meth:`Source.density`: not needed, as there is only one range."""


class DeviceDense(_OnDevice):
    """A dense matrix on a device, with any strides."""

    layout: Layout = "dense"

    def __init__(self, values: Any, what: str) -> None:
        shape = tuple(int(n) for n in values.__cuda_array_interface__["shape"])
        check_two_dimensional(shape, what)
        dtype = _dtype(values, what)
        self._values = values
        self.n_cells, self.n_genes = shape
        self.nnz = self.n_cells * self.n_genes
        self.dtype, self.bytes_per_entry = dtype, dtype.itemsize
        self.description = f"dense {dtype} on the device"

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[_WholeReader]:
        """See :meth:`Source.open`; there can be only one range."""
        return _whole(DenseChunk(self._values, 0), edges)

    def identity(self) -> dict[str, int | str]:
        """See :meth:`Source.identity`; this copies the values to host memory."""
        return {"matrix": self.description, "values": digest(_to_host(self._values, "X"))}

    def canonical(self) -> DeviceDense:
        """Return this source itself: a dense matrix has no indices."""
        return self


class _DeviceSparse(_OnDevice):
    """The base of the CSR and CSC sources; the major axis is the one that indptr indexes.

    Only indptr is copied to the host and checked: kernels use its positions unchecked.
    """

    major: str
    form: str

    def __init__(self, matrix: Any, what: str) -> None:
        check_two_dimensional(matrix.shape, what)
        self.n_cells, self.n_genes = (int(n) for n in matrix.shape)
        by_row = self.major == "row"
        n_major, self._n_minor = (
            (self.n_cells, self.n_genes) if by_row else (self.n_genes, self.n_cells)
        )
        self._data, self._indices = matrix.data, matrix.indices
        for name in ("data", "indices", "indptr"):
            _check_vector(getattr(matrix, name), name, what)
        dtype = _dtype(self._data, what)
        index_dtype = np.dtype(self._indices.__cuda_array_interface__["typestr"])
        self._indptr = _to_host(matrix.indptr, what).astype(np.int64)
        n_stored = min(int(self._data.size), int(self._indices.size))
        check_indptr(self._indptr, n_major, n_stored, what)
        self._what = what
        self.nnz = int(self._indptr[-1])
        self.dtype, self.bytes_per_entry = dtype, dtype.itemsize + index_dtype.itemsize
        self.description = f"{self.form} {dtype} on the device"

    def identity(self) -> dict[str, int | str]:
        """See :meth:`Source.identity`; this copies the entries to host memory."""
        entries = [_to_host(a[: self.nnz], self._what) for a in (self._data, self._indices)]
        return {
            "matrix": f"{self.description}, {self.n_cells} x {self.n_genes}",
            "values": digest(*entries, self._indptr),
        }

    def _canonical_arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return data, indices and indptr in host memory, with sorted, unique indices."""
        # Sorted in place, which avoids a second copy of the fetched arrays.
        return canonical_arrays(
            _to_host(self._data[: self.nnz], self._what),
            _to_host(self._indices[: self.nnz], self._what),
            self._indptr.copy(),
            self._n_minor,
            self._what,
            self.major,
        )


class DeviceCsr(_DeviceSparse):
    """A row-major sparse matrix on a device; its rows may be unsorted."""

    layout: Layout = "csr"
    major, form = "row", "CSR"

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[_WholeReader]:
        """See :meth:`Source.open`; there can be only one range."""
        starts, stops = self._indptr[:-1], self._indptr[1:]
        chunk = CsrChunk(self._data, self._indices, starts, stops, 0, self.n_genes)
        return _whole(chunk, edges)

    def canonical(self) -> CsrSource:
        """Return the matrix in host memory, with sorted, unique indices."""
        return CsrSource(*self._canonical_arrays(), self.n_genes, self._what)


class DeviceCsc(_DeviceSparse):
    """A column-major sparse matrix on a device; its columns may be unsorted."""

    layout: Layout = "csc"
    major, form = "column", "CSC"

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[_WholeReader]:
        """See :meth:`Source.open`; there can be only one range."""
        chunk = CscChunk(self._data, self._indices, self._indptr, self.n_cells, 0)
        return _whole(chunk, edges)

    def canonical(self) -> CscSource:
        """Return the matrix in host memory, with sorted, unique indices."""
        return CscSource(*self._canonical_arrays(), self.n_cells, self._what)
