"""Sources over arrays in memory, of the host or of a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UnsupportedDataError
from ..base import Source, is_device_array
from ..checks import check_two_dimensional, native_dtype, no_matrix
from ..whole_numbers import with_native_integers
from .arrays import CscSource, CsrSource, DenseSource

SUPPORTED = "numpy arrays, scipy sparse matrices or arrays, and CuPy matrices on a CUDA device"


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
