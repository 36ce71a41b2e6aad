"""A few of the values that a source stores, without reading it."""

from __future__ import annotations

import numpy as np

from .base import Source
from .memory import CscSource, CsrSource, DenseSource
from .stored import Where
from .stored_dense import StoredDense
from .stored_sparse import StoredCsc, StoredCsr

_SAMPLE = 1 << 16


def first_values(source: Source) -> np.ndarray | None:
    """Values from the beginning of what is stored, of any shape: of a file one chunk, about.

    None of a source that would have to be read or computed for it: a view of a file, a dask
    array, a matrix on a device.

    Raises
    ------
    FileFormatError
        The file is truncated or damaged.
    """
    where: Where
    if isinstance(source, StoredCsr | StoredCsc):
        array = source.arrays.data
        where = (slice(0, min(source.nnz, _SAMPLE)),)
    elif isinstance(source, StoredDense):
        array = source.values
        n_genes = min(source.n_genes, array.chunks[1], _SAMPLE)
        n_cells = min(source.n_cells, array.chunks[0], _SAMPLE // max(1, n_genes))
        where = (slice(0, n_cells), slice(0, n_genes))
    elif isinstance(source, CsrSource | CscSource):
        return source.state()[0]["data"][: min(source.nnz, _SAMPLE)]
    elif isinstance(source, DenseSource):
        values = source.state()[0]["values"]
        return values[: max(1, _SAMPLE // max(1, source.n_genes))]
    else:
        return None
    found = np.empty([part.stop for part in where], array.dtype)  # filled by read
    if found.size:
        array.read(where, found)
    return found
