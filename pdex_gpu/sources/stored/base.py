"""Protocols of arrays in files, whose pieces several threads read and decode at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np

Where = tuple[slice, ...]  # start and stop are always set and lie within the shape


class Origin(Protocol):
    """The file or files that arrays come from; they must not change while they are read."""

    def identity(self) -> Mapping[str, int | str]:
        """Return facts that distinguish this origin from others, and from other versions of it."""
        ...

    def check_unchanged(self) -> None:
        """Raise FileFormatError if it was modified, replaced or removed since it was opened."""
        ...


class StoredArray(Protocol):
    """An array of one or two dimensions in a file.

    Attributes
    ----------
    name : str
        Name and location, for messages: ``"X/data of screen.h5ad"``.
    shape : tuple of int
    dtype : numpy.dtype
        Dtype of the values as read: see :func:`.sources.checks.native_dtype`.
    chunks : tuple of int
        Shape of the pieces that are decoded at a time; it is best to read whole ones.
    n_bytes : int
        Size in the file.
    file : Origin, optional
        What it is read from, if known.
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

        `out` may have a different dtype if that can hold all values.

        Returns
        -------
        int
            Bytes read from the file.

        Raises
        ------
        FileFormatError
            The file is truncated or damaged, or was changed.
        """
        ...


@contextmanager
def unchanged(file: Origin | None) -> Iterator[None]:
    """Check `file` at the end of the block; a change takes precedence over other errors."""
    try:
        yield
    except Exception:
        if file is not None:
            file.check_unchanged()
        raise
    if file is not None:
        file.check_unchanged()


def position(where: Where) -> str:
    """Describe part of an array in words: ``"entries 0 to 10"``."""
    if len(where) == 1:
        return f"entries {where[0].start} to {where[0].stop}"
    (rows, columns) = where
    return f"rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop}"
