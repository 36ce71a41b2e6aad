"""Checks of the arrays of a matrix: dtypes, shapes, row pointers and indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError, LayerError, PdexGpuError, UnsupportedDataError, listing
from .order import in_order


def no_matrix(what: str) -> DataError:
    """Return the error for a missing matrix."""
    return DataError(
        f"{what} is None: there is no matrix to test. Store the expression values in X, "
        f"or name the layer that holds them."
    )


def no_raw(where: str, others: Sequence[str]) -> LayerError:
    """Return the error for a missing raw; `others` are the matrices that there are."""
    return LayerError(
        f"raw=True asks for raw, but {where} has none. It has {listing(others)}; name a layer with "
        "layer=, or leave out raw= to use X."
    )


def no_modality(name: str, where: str) -> LayerError:
    """Return the error for a modality of data that have none."""
    return LayerError(
        f"modality={name!r} names a part of a MuData, but {where} is a single matrix. Leave out "
        "modality=."
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
