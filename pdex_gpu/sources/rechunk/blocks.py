"""Numbers that all matrices that arrive in blocks of rows have in common."""

from __future__ import annotations

import numpy as np

from ..order import in_order

# Factor on estimates of entries: a choice. Too high costs some width of ranges, too low a new plan.
MARGIN = 1.2


def index_dtype_for(n: int) -> np.dtype:
    """Return the dtype for indices below `n`: 16 bits where they fit.

    Half of a float32 matrix consists of indices.
    """
    return np.dtype(np.uint16 if n <= 1 << 16 else np.int32 if n < 1 << 31 else np.int64)


def choose_columns(
    data: np.ndarray, indices: np.ndarray, bounds: np.ndarray, n_columns: int, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return some columns of a block of rows, in any order and with repeats.

    Parameters
    ----------
    data, indices, bounds : numpy.ndarray
        As :meth:`.base.RowBlocks.block` returns them.
    n_columns : int
    chosen : numpy.ndarray, int64

    Returns
    -------
    data, indices, bounds : numpy.ndarray
        With indices in order, of the dtype for as many columns as are chosen.
    """
    from scipy import sparse

    shape = (len(bounds) - 1, n_columns)
    found = sparse.csr_matrix((data, indices, bounds), shape=shape)[:, chosen]
    data, indices, bounds = in_order(found.data, found.indices, found.indptr.astype(np.int64))
    return data, indices.astype(index_dtype_for(len(chosen))), bounds
