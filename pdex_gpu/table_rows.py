"""Which pairs of comparison and gene the rows of a Parquet file are."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .errors import FileFormatError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet


def find_rows(
    file: pyarrow.parquet.ParquetFile,
    comparisons: list[tuple[str, ...]],
    labels: list[str],
    features: np.ndarray,
    shown: str,
) -> np.ndarray:
    """Which pairs have a row, from the labels of the rows: both are in one order.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    comparisons : list of tuple of str
        Labels of each comparison.
    labels : list of str
        Names of their columns.
    features : numpy.ndarray, shape (n_genes,)
        Names may repeat: of genes of one name, a row is the first that is in order.
    shown : str
        What to call the file in an error.

    Returns
    -------
    numpy.ndarray, shape (n_comparisons, n_genes), bool

    Raises
    ------
    FileFormatError
        If a row has other labels, or is out of order.
    """
    walk = _Walk(comparisons, features)
    try:
        for batch in file.iter_batches(columns=[*labels, "feature"]):
            columns = [_decoded(batch.column(name)) for name in labels]
            walk.take(columns, *_decoded(batch.column("feature")))
    except (KeyError, ValueError) as error:
        raise FileFormatError(
            f"The rows of {shown} do not follow its own list of comparisons and genes: another "
            "program changed it. Use the file as pdex_gpu wrote it."
        ) from error
    return walk.kept


class _Walk:
    """Follows the rows of a file through comparisons and genes."""

    def __init__(self, comparisons: list[tuple[str, ...]], features: np.ndarray) -> None:
        self.kept = np.full((len(comparisons), len(features)), False)
        self._comparisons = comparisons
        self._features = features
        self._places: dict[str, list[int]] = {}
        for g, name in enumerate(features):
            self._places.setdefault(name, []).append(g)
        self._unique = len(self._places) == len(features)
        self._t, self._gene = -1, -1  # of the row before

    def take(
        self, columns: list[tuple[np.ndarray, list[str]]], codes: np.ndarray, names: list[str]
    ) -> None:
        """Mark the rows of a batch; KeyError or ValueError if they are not of this table."""
        genes = np.array([self._places[name][0] for name in names], np.int64)[codes]
        new = np.any([np.diff(of_rows) != 0 for of_rows, _ in columns], axis=0)
        if self._unique:  # a comparison may have been asked for twice
            new |= np.diff(genes) <= 0
        for start, stop in pairwise([0, *(np.flatnonzero(new) + 1).tolist(), len(genes)]):
            self._go_to(tuple(names[of_rows[start]] for of_rows, names in columns), genes[start])
            if self._unique:
                self._mark(genes[start:stop])
            else:
                for gene in genes[start:stop]:
                    later = [g for g in self._places[self._features[gene]] if g > self._gene]
                    if not later:
                        raise ValueError(f"{self._features[gene]!r} is out of order")
                    self._mark(np.array(later[:1]))

    def _go_to(self, comparison: tuple[str, ...], gene: int) -> None:
        here = self._t >= 0 and self._comparisons[self._t] == comparison
        if not here or (self._unique and gene <= self._gene):
            self._t, self._gene = self._comparisons.index(comparison, self._t + 1), -1

    def _mark(self, genes: np.ndarray) -> None:
        self.kept[self._t, genes] = True
        self._gene = int(genes[-1])


def _decoded(column: pyarrow.DictionaryArray) -> tuple[np.ndarray, list[str]]:
    return column.indices.to_numpy(), column.dictionary.to_pylist()
