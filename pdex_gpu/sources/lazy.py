"""Entries in a file that are read and decoded only when they are sliced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class LazyEntries:
    """A vector in a file, for callers that copy pieces of it elsewhere from several threads.

    Parameters
    ----------
    size : int
    dtype : numpy.dtype
    read : callable
        Fills an array of `dtype` with the entries from a given position on.
    """

    ndim = 1

    def __init__(self, size: int, dtype: np.dtype, read: Callable[[int, np.ndarray], None]) -> None:
        self.size, self.dtype, self._read = size, dtype, read

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, where: slice) -> np.ndarray:
        first, last, _ = where.indices(self.size)
        out = np.empty(last - first, self.dtype)  # filled by read
        self._read(first, out)
        return out


def loaded(entries: Any) -> np.ndarray:
    """Return the entries as an array; read them now if they are lazy."""
    return entries[:] if isinstance(entries, LazyEntries) else entries
