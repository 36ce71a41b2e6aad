"""What an array in a file provides: pieces of it, read and decoded by several threads at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np

Where = tuple[slice, ...]  # starts and stops are given and within the shape


class Origin(Protocol):
    """The file or files that arrays come from, which should not change while they are read."""

    def identity(self) -> Mapping[str, int | str]:
        """What tells this from another, or from itself at another time."""
        ...

    def check_unchanged(self) -> None:
        """Raise FileFormatError if it was written to, replaced or removed since it was opened."""
        ...


class StoredArray(Protocol):
    """An array of one or two dimensions in a file.

    Attributes
    ----------
    name : str
        What this is and where, for messages: ``"X/data of screen.h5ad"``.
    shape : tuple of int
    dtype : numpy.dtype
        In which values are handed out: see :func:`.memory.native_dtype`.
    chunks : tuple of int
        Shape of the pieces that are read and decoded at a time; reading whole ones is best.
    n_bytes : int
        Bytes it takes in the file.
    file : Origin, optional
        What it is read from, where that can be told.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    n_bytes: int

    @property
    def file(self) -> Origin | None: ...

    def read(self, where: Where, out: np.ndarray) -> int:
        """Fill `out` with the items at `where`; safe from several threads.

        `out` may be of another dtype than this array if it holds all values.

        Returns
        -------
        int
            Bytes read from the file.

        Raises
        ------
        FileFormatError
            The file is truncated, damaged, or was changed.
        """
        ...


@contextmanager
def unchanged(file: Origin | None) -> Iterator[None]:
    """Check `file` at the end of the block; a change is the error, too, if there was another."""
    try:
        yield
    except Exception:
        if file is not None:
            file.check_unchanged()
        raise
    if file is not None:
        file.check_unchanged()


def position(where: Where) -> str:
    """Part of an array in words: ``"entries 0 to 10"``."""
    if len(where) == 1:
        return f"entries {where[0].start} to {where[0].stop}"
    (rows, columns) = where
    return f"rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"
