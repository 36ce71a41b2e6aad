"""Descriptions of how the arrays of a matrix are stored in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StoredLike:
    """The storage of one array.

    Attributes
    ----------
    dtype : numpy.dtype
    chunks : tuple of int or None
        None where the array is not chunked.
    how : object
        A property list for HDF5, keywords of ``create_array`` for zarr; None for gzip in HDF5.
    """

    dtype: np.dtype
    chunks: tuple[int, ...] | None
    how: Any = None

    @property
    def n_items(self) -> int:
        """Return the number of items in a chunk; 0 without chunks."""
        return int(np.prod(self.chunks)) if self.chunks else 0


@dataclass(frozen=True)
class Storage:
    """The storage of a matrix.

    Attributes
    ----------
    form : {"csr_matrix", "csc_matrix", "array"}
    kind : str
        The library: a key of :data:`.formats.LIBRARIES`.
    arrays : dict of str to StoredLike
        ``data`` and ``indices`` of a sparse matrix, ``values`` of a dense one.
    """

    form: str
    kind: str
    arrays: dict[str, StoredLike]
