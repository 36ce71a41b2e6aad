"""Integers that a file holds as floating-point numbers."""

from __future__ import annotations

import numpy as np

from ..errors import FileFormatError
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
        whole = np.abs(found) < 2.0**53  # NaN is not
        whole &= np.trunc(found) == found
        if not whole.all():
            raise FileFormatError(
                f"{self.name}, {position(where)}: it holds {found[~whole][0]!s}, where whole "
                "numbers belong. Build the matrix again."
            )
        out[...] = found.astype(np.int64)
        return n_bytes
