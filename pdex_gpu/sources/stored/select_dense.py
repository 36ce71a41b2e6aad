"""Cells and genes selected from a dense matrix in a file, presented as a stored array."""

from __future__ import annotations

import itertools

import numpy as np

from .base import Origin, StoredArray, Where

_PIECE = 1 << 22  # approximate bytes read at a time


class SelectedValues:
    """Some rows and columns of a stored array; see :class:`.stored.base.StoredArray`.

    Parameters
    ----------
    values : StoredArray
        Two-dimensional.
    rows : numpy.ndarray, int64
        Ascending.
    columns : numpy.ndarray, int64
        In any order.
    """

    def __init__(self, values: StoredArray, rows: np.ndarray, columns: np.ndarray) -> None:
        self._values, self._rows, self._columns = values, rows, columns
        self.name, self.dtype = values.name, values.dtype
        self.shape: tuple[int, ...] = (len(rows), len(columns))
        n_columns = values.shape[1]
        # A chunk is as wide here as the number of columns selected in it. Columns in another order
        # than the file's must be read all at once; otherwise each range would read every chunk.
        in_order = bool((columns[1:] >= columns[:-1]).all())
        share = len(columns) / max(1, n_columns)
        width = max(1, round(values.chunks[1] * share)) if in_order else len(columns)
        self.chunks: tuple[int, ...] = (values.chunks[0], max(1, width))
        self.n_bytes = int(values.n_bytes * share * len(rows) / max(1, values.shape[0]))

    @property
    def file(self) -> Origin | None:
        """See :class:`.stored.base.StoredArray`."""
        return self._values.file

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.base.StoredArray.read`."""
        rows, columns = self._rows[where[0]], self._columns[where[1]]
        if out.size == 0:
            return 0
        unique, places = np.unique(columns, return_inverse=True)
        n_bytes = 0
        step = self._step()
        for some in _split(rows, self._band(step), self._values.chunks[0]):
            lines = slice(int(some[0]), int(some[-1]) + 1)
            found = np.empty((len(some), len(unique)), self.dtype)  # filled stretch by stretch
            at = 0
            for several in _split(unique, step, self._values.chunks[1]):
                part = slice(int(several[0]), int(several[-1]) + 1)
                piece = np.empty((lines.stop - lines.start, part.stop - part.start), self.dtype)
                n_bytes += self._values.read((lines, part), piece)
                picked = piece[np.ix_(some - lines.start, several - part.start)]
                found[:, at : at + len(several)] = picked
                at += len(several)
            first = int(np.searchsorted(rows, some[0]))
            out[first : first + len(some)] = found[:, places]
        return n_bytes

    def _step(self) -> int:
        """Return the columns to read at a time: one chunk, or several if chunks are small."""
        width = self._values.chunks[1]
        full = _PIECE // (self._values.chunks[0] * self.dtype.itemsize)
        return max(1, full // width) * width

    def _band(self, width: int) -> int:
        """Return the rows to read at a time."""
        chunk = self._values.chunks[0]
        return max(1, _PIECE // (width * self.dtype.itemsize) // chunk) * chunk


def _split(lines: np.ndarray, step: int, gap: int) -> list[np.ndarray]:
    """Split ascending numbers where they pass a multiple of `step` or jump by more than `gap`."""
    cut = (np.diff(lines // step) > 0) | (np.diff(lines) > gap)
    cuts = [0, *(np.flatnonzero(cut) + 1).tolist(), len(lines)]
    return [lines[a:b] for a, b in itertools.pairwise(cuts)]
