"""Scatter plots as counts of points in the bins of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Ranges:
    """The smallest and largest x, and the largest y, of several scatter plots.

    Parameters
    ----------
    n : int
        Number of plots.
    """

    def __init__(self, n: int) -> None:
        self._low, self._high = np.full(n, np.inf), np.full(n, -np.inf)
        self._top = np.full(n, -np.inf)

    def widen(self, x: np.ndarray, y: np.ndarray, among: np.ndarray) -> None:
        """Include the points selected by `among`; all have shape (m, n), one column per plot."""
        low = np.min(x, axis=0, where=among, initial=np.inf)
        high = np.max(x, axis=0, where=among, initial=-np.inf)
        top = np.max(y, axis=0, where=among, initial=-np.inf)
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        np.maximum(self._top, top, out=self._top)

    def limits(self) -> np.ndarray:
        """Return left, right and top of each grid, shape (n, 3), float32; extents are above 0."""
        empty = self._low > self._high
        low, high, top = (
            np.where(empty, value, found)
            for value, found in ((-1.0, self._low), (1.0, self._high), (1.0, self._top))
        )
        narrow = high - low < 1e-3
        low, high = np.where(narrow, low - 0.5, low), np.where(narrow, high + 0.5, high)
        return np.stack([low, high, np.maximum(top, 1e-3)], axis=1).astype(np.float32)


def in_bins(x: np.ndarray, y: np.ndarray, limits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the bin of each point.

    Parameters
    ----------
    x, y : numpy.ndarray, shape (n,), float64
        Points; those outside the grid count in the bins at its edge.
    limits : numpy.ndarray, shape (n, 3), float32
        Left, right and top of each point's grid. Its bottom is 0.
    shape : tuple of int
        Numbers of bins along x and along y.

    Returns
    -------
    numpy.ndarray, shape (n,), int64
        Bin numbers; bins are numbered along x, from the lowest row up.
    """
    left, right, top = limits.T.astype(np.float64)
    column = np.clip(((x - left) / (right - left) * shape[0]).astype(np.int64), 0, shape[0] - 1)
    row = np.clip((y / top * shape[1]).astype(np.int64), 0, shape[1] - 1)
    return row * shape[0] + column


@dataclass(frozen=True)
class Background:
    """The nonzero counts in the bins of several grids.

    Attributes
    ----------
    limits : numpy.ndarray, shape (n, 3), float32
        Left, right and top of each grid; the bottom is 0.
    ends : numpy.ndarray, shape (n,), int64
        Where the bins of each grid end.
    bins, counts : numpy.ndarray, shape (n_bins,), int64
        Bin numbers, ascending within a grid, and the numbers of points in them.
    shape : tuple of int
        Numbers of bins along x and along y.
    """

    limits: np.ndarray
    ends: np.ndarray
    bins: np.ndarray
    counts: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, dense: np.ndarray, limits: np.ndarray, shape: tuple[int, int]) -> Background:
        """Make a background from counts of shape (n, bins per grid)."""
        grid, bins = np.nonzero(dense)
        ends = np.cumsum(np.bincount(grid, minlength=len(dense)))
        return cls(limits, ends, bins, dense[grid, bins].astype(np.int64), shape)

    @classmethod
    def joined(cls, parts: Sequence[Background], shape: tuple[int, int]) -> Background:
        """Concatenate several backgrounds."""
        if not parts:
            return cls.of(np.zeros((0, shape[0] * shape[1])), np.zeros((0, 3), np.float32), shape)
        sizes = [np.diff(part.ends, prepend=0) for part in parts]
        return cls(
            np.concatenate([part.limits for part in parts]),
            np.cumsum(np.concatenate(sizes)),
            np.concatenate([part.bins for part in parts]),
            np.concatenate([part.counts for part in parts]),
            shape,
        )
