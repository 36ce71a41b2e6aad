"""Finding which pairs of comparison and gene the rows of a Parquet file stand for."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..utils.foreign_errors import reading
from .footer import ADVICE, Footer, changed

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

#: Message for a file whose rows are not those it lists.
OTHER_ROWS = (
    "its rows do not match its own list of comparisons and genes (they were sorted, filtered or "
    "swapped)"
)


def find_rows(file: pyarrow.parquet.ParquetFile, footer: Footer, shown: str) -> np.ndarray:
    """Return which pairs have a row, found from the labels of the rows.

    Rows and pairs have the same order. Where several genes share a name, a row stands for the
    first of them that fits the order.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    footer : Footer
        The metadata of the file.
    shown : str
        Name of the file in error messages.

    Returns
    -------
    numpy.ndarray, shape (n_comparisons, n_genes), bool

    Raises
    ------
    FileFormatError
        If a row has other labels, or is out of order.
    """
    labels = footer.labels
    matcher = _RowMatcher(list(zip(*labels.values(), strict=True)), footer.features)
    try:
        with reading(shown, "pyarrow", "it was damaged", ADVICE):
            for batch in file.iter_batches(columns=[*labels, "feature"]):
                columns = [decoded(batch.column(name)) for name in labels]
                matcher.take(columns, *decoded(batch.column("feature")))
    except OtherRowsError as error:
        raise changed(shown, OTHER_ROWS) from error
    return matcher.kept


class OtherRowsError(Exception):
    """The error for a row that the file does not list, or that is not where it belongs."""


class _RowMatcher:
    """Matches the rows of a file, in their order, to comparisons and genes."""

    def __init__(self, comparisons: list[tuple[str, ...]], features: list[str]) -> None:
        self.kept = np.full((len(comparisons), len(features)), False)
        self._comparisons = comparisons
        self._features = features
        self._places: dict[str, list[int]] = {}
        for g, name in enumerate(features):
            self._places.setdefault(name, []).append(g)
        self._unique = len(self._places) == len(features)
        self._t, self._gene = -1, -1  # of the previous row

    def take(
        self, columns: list[tuple[np.ndarray, list[str]]], codes: np.ndarray, names: list[str]
    ) -> None:
        """Mark the rows of a batch; OtherRowsError if they do not belong to this table."""
        if not len(codes):
            return
        if not all(name in self._places for name in names):
            raise OtherRowsError
        genes = np.array([self._places[name][0] for name in names], np.int64)[codes]
        new = np.any([np.diff(of_rows) != 0 for of_rows, _ in columns], axis=0)
        if self._unique:  # the same comparison may have been asked for twice in a row
            new |= np.diff(genes) <= 0
        for start, stop in pairwise([0, *(np.flatnonzero(new) + 1).tolist(), len(genes)]):
            self._go_to(tuple(names[of_rows[start]] for of_rows, names in columns), genes[start])
            if self._unique:
                self._mark(genes[start:stop])
            else:
                for gene in genes[start:stop]:
                    places = self._places[self._features[gene]]
                    later = bisect_right(places, self._gene)
                    if later == len(places):
                        raise OtherRowsError
                    self._mark(np.array([places[later]]))

    def _go_to(self, comparison: tuple[str, ...], gene: int) -> None:
        here = self._t >= 0 and self._comparisons[self._t] == comparison
        if here and not (self._unique and gene <= self._gene):
            return
        try:
            self._t = self._comparisons.index(comparison, self._t + 1)
        except ValueError as error:
            raise OtherRowsError from error
        self._gene = -1

    def _mark(self, genes: np.ndarray) -> None:
        self.kept[self._t, genes] = True
        self._gene = int(genes[-1])


def decoded(column: pyarrow.DictionaryArray) -> tuple[np.ndarray, list[str]]:
    """Return codes and labels of rows; OtherRowsError if some have none."""
    labels = column.dictionary
    if column.null_count or labels.null_count:
        raise OtherRowsError
    codes: np.ndarray = column.indices.to_numpy()
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(labels):
        raise OtherRowsError
    return codes, labels.to_pylist()
