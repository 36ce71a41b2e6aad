"""Sources over open HDF5 objects, as anndata writes them: dense, CSR and CSC.

Memory stays within the budget, and a CSR matrix is read from the file front to back once: a file
that is row-major cannot be cut by genes without decompressing all of it for each cut.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from typing import Any

import h5py
import numpy as np

from ..errors import FileFormatError, PdexGpuError, UnsupportedDataError
from .base import CscChunk, CsrChunk, DenseChunk, Reader, Reading, Source
from .memory import (
    CscSource,
    CsrSource,
    canonical_arrays,
    check_indices,
    check_indptr,
    check_two_dimensional,
    native_dtype,
)

SUPPORTED = "array, csr_matrix and csc_matrix"
_BLOCK_ENTRIES = 1 << 22  # entries read at a time, at most
# What an entry takes while it is grouped by range is about 64 bytes (value, index, row, order and
# range, some of them twice); a quarter of the budget is plenty for that.
_BUDGET_PER_BLOCK_ENTRY = 4 * 64

_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def from_hdf5(node: h5py.Dataset | h5py.Group, *, what: str) -> Source:
    """The source that reads the matrix at `node`, which has to stay open.

    Parameters
    ----------
    node : h5py.Dataset or h5py.Group
        A dense dataset, or a group with data, indices and indptr.
    what : str
        What the matrix is, for messages: ``"X"``, ``"layer 'counts'"``.

    Raises
    ------
    FileFormatError
        Parts of the matrix are missing, or it cannot be read.
    UnsupportedDataError
        The encoding is not one of array, csr_matrix and csc_matrix, or the values are not real
        numbers.
    """
    encoding = encoding_of(node)
    if isinstance(node, h5py.Dataset):
        if encoding not in ("", "array"):
            raise _unsupported(encoding, what)
        return Hdf5Dense(node, what)
    if encoding not in ("csr_matrix", "csc_matrix"):
        raise _unsupported(encoding, what)
    parts = _SparseParts(node, encoding == "csr_matrix", what)
    return Hdf5Csr(parts) if encoding == "csr_matrix" else Hdf5Csc(parts)


def encoding_of(node: h5py.Dataset | h5py.Group) -> str:
    """The node's encoding-type, "" where it has none.

    Sparse groups older than encoding types say ``h5sparse_format: csr`` instead.
    """
    old = node.attrs.get("h5sparse_format")
    if old is not None:
        return f"{_text(old)}_matrix"
    return _text(node.attrs.get("encoding-type", ""))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _unsupported(encoding: str, what: str) -> UnsupportedDataError:
    return UnsupportedDataError(
        f"{what} has the encoding {encoding or 'none'!r}; supported are {SUPPORTED}. "
        f"Write the file again with one of these."
    )


def _is_vector(node: Any, kinds: str) -> bool:
    return isinstance(node, h5py.Dataset) and node.ndim == 1 and node.dtype.kind in kinds


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn h5py's errors into a FileFormatError that says what was being read."""
    try:
        yield
    except PdexGpuError:
        raise
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise FileFormatError(
            f"{what} cannot be read: the file is truncated or damaged, or was written with a "
            f"compression filter that is not installed (the package hdf5plugin has most). "
            f"HDF5 says: {error}"
        ) from error


class Hdf5Dense:
    """A dense dataset of an HDF5 file."""

    in_memory = False
    on_device = False
    costly_to_cut = False

    def __init__(self, dataset: h5py.Dataset, what: str) -> None:
        check_two_dimensional(dataset.shape or (), what)
        self._dataset = dataset
        self.dtype = native_dtype(dataset.dtype, what)
        self._what = what
        self.n_cells, self.n_genes = (int(n) for n in dataset.shape)
        self.nnz = self.n_cells * self.n_genes
        self.bytes_per_entry = self.dtype.itemsize
        self.description = f"dense {self.dtype} in HDF5"

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        yield _DenseReader(self._dataset, self.dtype, edges, self._what)

    def canonical(self) -> Hdf5Dense:
        """Itself: a dense matrix has no indices."""
        return self


class _DenseReader:
    """Gene ranges of a dense dataset, read when asked for."""

    def __init__(
        self, dataset: h5py.Dataset, dtype: np.dtype, edges: Sequence[int], what: str
    ) -> None:
        self._dataset = dataset
        self._dtype = dtype
        self._edges = edges
        self._what = what
        self._lock = threading.Lock()

    def read(self, k: int) -> DenseChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        with self._lock, reading(f"{self._what}, genes {start} to {stop}"):
            values = self._dataset[:, start:stop]
        return DenseChunk(values.astype(self._dtype, copy=False), start)


class _SparseParts:
    """Data, indices and indptr of a sparse group, checked, with indptr in memory.

    Parameters
    ----------
    group : h5py.Group
    by_row : bool
        CSR; otherwise CSC.
    what : str
    """

    def __init__(self, group: h5py.Group, by_row: bool, what: str) -> None:
        unusable = [
            name
            for name, kinds in (("data", "buifcOSV"), ("indices", "iu"), ("indptr", "iu"))
            if not _is_vector(group.get(name), kinds)
        ]
        shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
        if unusable or shape is None:
            raise FileFormatError(
                f"{what} is a sparse matrix without usable {', '.join(unusable) or 'shape'}: "
                f"not laid out as anndata writes it."
            )
        self.n_cells, self.n_genes = (int(n) for n in shape)
        self.what = what
        self.major = "row" if by_row else "column"
        n_major, self.limit = (
            (self.n_cells, self.n_genes) if by_row else (self.n_genes, self.n_cells)
        )
        self.data: h5py.Dataset = group["data"]
        self._indices: h5py.Dataset = group["indices"]
        self.dtype = native_dtype(self.data.dtype, what)
        # Genes in 16 bits where they fit: a backed matrix is copied anyhow, and half the bytes
        # of a float32 matrix are indices.
        small = by_row and self.limit <= 1 << 16
        self.index_dtype = np.dtype(
            np.uint16 if small else np.int32 if self.limit < 1 << 31 else np.int64
        )
        with reading(f"{what}, indptr"):
            self.indptr: np.ndarray = group["indptr"][:].astype(np.int64, copy=False)
        n_stored = min(self.data.shape[0], self._indices.shape[0])
        check_indptr(self.indptr, n_major, n_stored, what)
        self.nnz = int(self.indptr[-1])
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.description = f"{'CSR' if by_row else 'CSC'} {self.dtype} in HDF5"

    def entries(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Data and indices of the entries ``[start, stop)``; the indices are within range."""
        with reading(f"{self.what}, entries {start} to {stop} of {self.nnz}"):
            data = self.data[start:stop]
            indices = self._indices[start:stop]
        check_indices(indices, self.indptr, self.limit, self.what, self.major, start)
        return data.astype(self.dtype, copy=False), indices.astype(self.index_dtype, copy=False)

    def blocks(self, length: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """All entries front to back, about `length` at a time.

        Yields the number of the block's first entry, its data and its indices.
        """
        # Whole HDF5 chunks, so that none is decompressed twice.
        chunk = int(self.data.chunks[0]) if self.data.chunks else 1
        length = max(1, length // chunk) * chunk
        for start in range(0, self.nnz, length):
            yield start, *self.entries(start, min(start + length, self.nnz))

    def load(self) -> _Arrays:
        """The whole matrix."""
        data = np.empty(self.nnz, self.dtype)
        indices = np.empty(self.nnz, self.index_dtype)
        for start, some_data, some_indices in self.blocks(_BLOCK_ENTRIES):
            data[start : start + len(some_data)] = some_data
            indices[start : start + len(some_data)] = some_indices
        return data, indices, self.indptr

    def load_canonical(self) -> _Arrays:
        """The whole matrix with sorted, unique indices."""
        data, indices, indptr = self.load()
        return canonical_arrays(data, indices, indptr.copy(), self.limit, self.what, self.major)


class _Hdf5Sparse:
    """What the sources over sparse groups have in common."""

    in_memory = False
    on_device = False
    costly_to_cut = False

    def __init__(self, parts: _SparseParts) -> None:
        self._parts = parts
        self.n_cells = parts.n_cells
        self.n_genes = parts.n_genes
        self.nnz = parts.nnz
        self.dtype, self.bytes_per_entry = parts.dtype, parts.bytes_per_entry
        self.description = parts.description


class Hdf5Csc(_Hdf5Sparse):
    """A CSC group of an HDF5 file: a range of genes is one stretch of it."""

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`."""
        yield _CscReader(self._parts, edges)

    def canonical(self) -> CscSource:
        """The matrix, loaded, with sorted and unique indices."""
        return CscSource(*self._parts.load_canonical(), self.n_cells, self._parts.what)


class _CscReader:
    """Gene ranges of a CSC group, read when asked for."""

    def __init__(self, parts: _SparseParts, edges: Sequence[int]) -> None:
        self._parts = parts
        self._edges = edges
        self._lock = threading.Lock()

    def read(self, k: int) -> CscChunk:
        """See :meth:`Reader.read`."""
        start, stop = self._edges[k], self._edges[k + 1]
        indptr = self._parts.indptr[start : stop + 1]
        with self._lock:
            data, indices = self._parts.entries(int(indptr[0]), int(indptr[-1]))
        return CscChunk(data, indices, indptr - indptr[0], self._parts.n_cells, start)


class Hdf5Csr(_Hdf5Sparse):
    """A CSR group of an HDF5 file, read once whatever the number of ranges."""

    costly_to_cut = True

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`Source.open`.

        Holds the matrix in memory if there is one range, or if it takes at most half the budget.
        Otherwise its entries go, grouped by range, to a scratch file in the folder that
        :func:`tempfile.gettempdir` names.
        """
        parts = self._parts
        if len(edges) == 2 or self.nnz * self.bytes_per_entry <= budget // 2:
            loaded = CsrSource(*parts.load(), self.n_genes, parts.what)
            with loaded.open(edges, budget) as reader:
                yield reader
            return
        # Without a name, so that nothing is left behind even if the process is killed.
        with tempfile.TemporaryFile(prefix="pdex_gpu_") as file:
            yield _write_scratch(parts, edges, budget, file)

    def canonical(self) -> CsrSource:
        """The matrix, loaded, with sorted and unique indices."""
        return CsrSource(*self._parts.load_canonical(), self.n_genes, self._parts.what)


@dataclass(frozen=True)
class _Block:
    """Where a block of consecutive entries lies in the scratch file, grouped by range.

    Attributes
    ----------
    data_at, indices_at, counts_at : int
        Offsets in bytes of the block's data, of its indices, and of an array (ranges x rows) of
        the entries each row has in each range.
    bounds : numpy.ndarray, shape (n_ranges + 1,), int64
        Entries ``[bounds[k], bounds[k + 1])`` of the block belong to range ``k``.
    rows : slice
        Rows that the block has entries of; the outer ones may go on in the neighbouring blocks.
    """

    data_at: int
    indices_at: int
    counts_at: int
    bounds: np.ndarray
    rows: slice


def _write_scratch(
    parts: _SparseParts, edges: Sequence[int], budget: int, file: BufferedRandom
) -> _ScratchReader:
    """Copy the entries of a CSR group to `file`, each block of them grouped by range."""
    n_ranges = len(edges) - 1
    # A table from gene to range; genes that the edges leave out go to a range of their own, the
    # last, which is not written. In 16 bits a stable argsort is a radix sort.
    small = n_ranges < 1 << 16
    range_of = np.full(parts.n_genes, n_ranges, np.uint16 if small else np.int32)
    for k in range(n_ranges):
        range_of[edges[k] : edges[k + 1]] = k
    count_dtype = np.dtype(
        np.uint16 if np.diff(parts.indptr).max(initial=0) < 1 << 16 else np.int64
    )
    blocks = []
    length = min(_BLOCK_ENTRIES, max(1, budget // _BUDGET_PER_BLOCK_ENTRY))
    for start, data, indices in parts.blocks(length):
        stop = start + len(data)
        first = int(np.searchsorted(parts.indptr, start, side="right")) - 1
        last = int(np.searchsorted(parts.indptr, stop, side="left"))
        cuts = parts.indptr[first : last + 1].clip(start, stop)
        rows = np.repeat(np.arange(last - first), np.diff(cuts))

        which = range_of[indices]
        order = np.argsort(which, kind="stable")
        bounds = np.zeros(n_ranges + 1, np.int64)
        np.cumsum(np.bincount(which, minlength=n_ranges)[:n_ranges], out=bounds[1:])
        order = order[: bounds[-1]]
        rows = rows[order]
        data_at = _append(file, data[order])
        indices_at = _append(file, indices[order])
        counts_at = file.tell()
        for k in range(n_ranges):
            counts = np.bincount(rows[bounds[k] : bounds[k + 1]], minlength=last - first)
            _append(file, counts.astype(count_dtype))
        blocks.append(_Block(data_at, indices_at, counts_at, bounds, slice(first, last)))
    return _ScratchReader(parts, edges, file, blocks, count_dtype)


def _append(file: BufferedRandom, array: np.ndarray) -> int:
    """Write `array` at the end of `file` and return the offset where it begins."""
    at = file.tell()
    try:
        file.write(array.data)
    except OSError as error:
        error.add_note(
            f"while writing a scratch file to {tempfile.gettempdir()}. Set TMPDIR to a folder "
            f"with room for a copy of the matrix, or raise the memory budget."
        )
        raise
    return at


class _ScratchReader:
    """Gene ranges of a matrix that :func:`_write_scratch` has written."""

    def __init__(
        self,
        parts: _SparseParts,
        edges: Sequence[int],
        file: BufferedRandom,
        blocks: Sequence[_Block],
        count_dtype: np.dtype,
    ) -> None:
        self._parts = parts
        self._edges = edges
        self._file = file
        self._blocks = blocks
        self._count_dtype = count_dtype
        self._lock = threading.Lock()

    def read(self, k: int) -> CsrChunk:
        """See :meth:`Reader.read`."""
        parts = self._parts
        nnz = sum(int(block.bounds[k + 1] - block.bounds[k]) for block in self._blocks)
        data = np.empty(nnz, parts.dtype)
        indices = np.empty(nnz, parts.index_dtype)
        counts = np.zeros(parts.n_cells, np.int64)
        done = 0
        for block in self._blocks:
            start, stop = (int(bound) for bound in block.bounds[k : k + 2])
            n_rows = block.rows.stop - block.rows.start
            some_counts = np.empty(n_rows, self._count_dtype)
            part = slice(done, done + stop - start)
            self._read_into(data[part], block.data_at, start)
            self._read_into(indices[part], block.indices_at, start)
            self._read_into(some_counts, block.counts_at, k * n_rows)
            counts[block.rows] += some_counts
            done = part.stop
        stops = np.cumsum(counts)
        start, stop = self._edges[k], self._edges[k + 1]
        return CsrChunk(data, indices, stops - counts, stops, start, stop - start)

    def _read_into(self, array: np.ndarray, at: int, skip: int) -> None:
        """Fill `array` from the array of its dtype that begins at byte `at`, `skip` items in."""
        if not array.size:
            return
        with self._lock:
            self._file.seek(at + skip * array.itemsize)
            # A buffered file reads on until the view is full or the file ends.
            length = self._file.readinto(array.data.cast("B"))
        if length != array.nbytes:
            raise OSError("A scratch file of pdex_gpu ended early; was its disk taken away?")
