"""Integers stored as floating-point numbers or in the other byte order."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from ..errors import DataError


def native_integers(values: np.ndarray, what: str) -> np.ndarray:
    """Return indices or indptr of a matrix in memory as integers in native byte order.

    Native integers are returned as they are; floats become int64.

    Raises
    ------
    DataError
        They are not numbers, or hold a fraction.
    """
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    fault = _fault(values) if values.dtype.kind == "f" else f"it holds {values.dtype} {_END}"
    if fault:
        raise DataError(f"{what} is malformed: {fault}")
    return values.astype(np.int64)


def with_native_integers(matrix: Any, what: str) -> Any:
    """Return a scipy CSR or CSC matrix whose indices and indptr compiled code can read."""
    indices = native_integers(matrix.indices, f"{what}/indices")
    indptr = native_integers(matrix.indptr, f"{what}/indptr")
    if indices is matrix.indices and indptr is matrix.indptr:
        return matrix
    return _with(matrix, indices, indptr)


def for_scipy(matrix: Any, what: str) -> Any:
    """Return the matrix with both index arrays int32 or both int64, as scipy requires."""
    matrix = with_native_integers(matrix, what)
    found = {matrix.indices.dtype, matrix.indptr.dtype}
    if found in ({np.dtype(np.int32)}, {np.dtype(np.int64)}):
        return matrix
    return _with(matrix, matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64))


def _with(matrix: Any, indices: np.ndarray, indptr: np.ndarray) -> Any:
    # A constructor would check all indices again, and choose other dtypes.
    found = copy(matrix)
    found.indices, found.indptr = indices, indptr
    return found


_END = "instead of whole numbers. Build the matrix again."


def _fault(found: np.ndarray) -> str | None:
    whole = np.abs(found.astype(np.float64, copy=False)) < 2.0**53  # False for NaN
    whole &= np.trunc(found) == found
    return None if whole.all() else f"it holds {found[~whole][0]!s} {_END}"
