"""Index arrays that a file stores as floats, read as integers."""

from __future__ import annotations

import numpy as np

from ...errors import FileFormatError
from ..whole_numbers import fault_of_integers
from .base import Origin, StoredArray, Where, position


class WholeNumbers:
    """A stored array of floats read as int64; see :class:`.stored.base.StoredArray`."""

    def __init__(self, array: StoredArray) -> None:
        self._array = array
        self.name, self.shape, self.chunks = array.name, array.shape, array.chunks
        self.n_bytes = array.n_bytes
        self.dtype = np.dtype(np.int64)

    @property
    def file(self) -> Origin | None:
        """See :class:`.stored.base.StoredArray`."""
        return self._array.file

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.base.StoredArray.read`; also raises FileFormatError for fractions."""
        found = np.empty(out.shape, self._array.dtype)  # filled by read
        n_bytes = self._array.read(where, found)
        fault = fault_of_integers(found)
        if fault:
            raise FileFormatError(f"{self.name}, {position(where)}: {fault}")
        out[...] = found.astype(np.int64)
        return n_bytes
