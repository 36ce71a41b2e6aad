"""Empirical p-values: a p-value judged against those of comparisons in which nothing differs.

A row's p-value is replaced by the share of null p-values of its class that are at most as large
(Davison and Hinkley 1997, with the row itself counted; pooled over genes as in Storey and
Tibshirani 2003 and Efron 2010, Large-Scale Inference, chapter 6). It is a valid p-value whatever
the test's assumptions, as long as the null comparisons are like the real ones. It cannot be smaller
than one over the number of null p-values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...sinks.checkpoint_sink import StoredRows
from ...utils.parallel import Map

_PAIRS_PER_TASK = 1 << 16


@dataclass(frozen=True, eq=False)
class EmpiricalNull:
    """The null p-values of each class of rows.

    Attributes
    ----------
    class_of_row : numpy.ndarray, shape (n_rows,), int64
    p_values : tuple of numpy.ndarray, float64
        Null p-values of each class, ascending.
    """

    class_of_row: np.ndarray
    p_values: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls, class_of_row: np.ndarray, p_values: Sequence[Sequence[np.ndarray]]
    ) -> EmpiricalNull:
        """Return the null of p-values in any order, given as several arrays for each class."""
        return cls(class_of_row, tuple(np.sort(np.concatenate(its)) for its in p_values))

    def judged(self, p_values: np.ndarray, first: int = 0, parallel_map: Map = map) -> np.ndarray:
        """Return ``(1 + k) / (1 + n)`` for each p-value: `k` of `n` null ones are not larger.

        Parameters
        ----------
        p_values : numpy.ndarray, shape (n, n_genes), float64
        first : int
            Row of the result that the first of `p_values` belongs to.
        parallel_map : callable
            Spreads the work.

        Returns
        -------
        numpy.ndarray, shape (n, n_genes), float64
        """
        found = np.full(p_values.shape, np.nan)

        def some(rows: slice) -> None:
            for row in range(rows.start, rows.stop):
                null = self.p_values[self.class_of_row[first + row]]
                below = np.searchsorted(null, p_values[row], side="right")
                found[row] = (1.0 + below) / (1.0 + len(null))

        n, step = len(p_values), max(1, _PAIRS_PER_TASK // max(1, p_values.shape[1]))
        for _ in parallel_map(some, [slice(r, min(r + step, n)) for r in range(0, n, step)]):
            pass
        return found

    def smallest(self) -> np.ndarray:
        """Return the smallest p-value that rows of each class can get, float64."""
        return np.array([1.0 / (1.0 + len(its)) for its in self.p_values])


class JudgedResults:
    """Stored results whose p-values are judged as they are read.

    Parameters
    ----------
    results : StoredRows
    null : EmpiricalNull
    """

    def __init__(self, results: StoredRows, null: EmpiricalNull) -> None:
        self._results, self._null = results, null
        self.n_rows, self.n_genes = results.n_rows, results.n_genes

    @property
    def ranges(self) -> list[slice]:
        """Return the ranges of genes that were stored together."""
        return self._results.ranges

    def read(self, field: str, rows: slice, parallel_map: Map = map) -> np.ndarray:
        """Read p-values for some rows and all genes."""
        return self._null.judged(self._results.read(field, rows, parallel_map), rows.start)

    def read_range(self, field: str, k: int) -> np.ndarray:
        """Read p-values for all rows and the genes of the `k`-th range."""
        return self._null.judged(self._results.read_range(field, k))
