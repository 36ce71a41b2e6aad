"""Integers that a file or a matrix holds as floating-point numbers, or in the other byte order."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from ..errors import DataError, FileFormatError
from .stored import Origin, StoredArray, Where, position


class WholeNumbers:
    """A stored array of floats read as int64; see :class:`.stored.StoredArray`."""

    def __init__(self, array: StoredArray) -> None:
        self._array = array
        self.name, self.shape, self.chunks = array.name, array.shape, array.chunks
        self.n_bytes = array.n_bytes
        self.dtype = np.dtype(np.int64)

    @property
    def file(self) -> Origin | None:
        """See :class:`.stored.StoredArray`."""
        return self._array.file

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.StoredArray.read`; raises FileFormatError for fractions, too."""
        found = np.empty(out.shape, self._array.dtype)  # filled by read
        n_bytes = self._array.read(where, found)
        fault = _fault(found)
        if fault:
            raise FileFormatError(f"{self.name}, {position(where)}: {fault}")
        out[...] = found.astype(np.int64)
        return n_bytes


def native_integers(values: np.ndarray, what: str) -> np.ndarray:
    """Indices or indptr of a matrix in memory, as integers in this machine's byte order.

    Integers that are so already are handed back as they are; floats become int64.

    Raises
    ------
    DataError
        They are no numbers, or hold a fraction.
    """
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    fault = _fault(values) if values.dtype.kind == "f" else f"it holds {values.dtype} {_END}"
    if fault:
        raise DataError(f"{what} is malformed: {fault}")
    return values.astype(np.int64)


def with_native_integers(matrix: Any, what: str) -> Any:
    """A CSR or CSC matrix of scipy whose indices and indptr compiled code can read."""
    indices = native_integers(matrix.indices, f"{what}/indices")
    indptr = native_integers(matrix.indptr, f"{what}/indptr")
    if indices is matrix.indices and indptr is matrix.indptr:
        return matrix
    return _with(matrix, indices, indptr)


def for_scipy(matrix: Any, what: str) -> Any:
    """The same for scipy, which cuts and converts by pairs of int32 or of int64 alone."""
    matrix = with_native_integers(matrix, what)
    found = {matrix.indices.dtype, matrix.indptr.dtype}
    if found in ({np.dtype(np.int32)}, {np.dtype(np.int64)}):
        return matrix
    return _with(matrix, matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64))


def _with(matrix: Any, indices: np.ndarray, indptr: np.ndarray) -> Any:
    # A constructor would look at all of them again, and choose other types.
    found = copy(matrix)
    found.indices, found.indptr = indices, indptr
    return found


_END = "where whole numbers belong. Build the matrix again."


def _fault(found: np.ndarray) -> str | None:
    whole = np.abs(found.astype(np.float64, copy=False)) < 2.0**53  # NaN is not
    whole &= np.trunc(found) == found
    return None if whole.all() else f"it holds {found[~whole][0]!s}, {_END}"
