"""Labels of cells, and levels that combine several columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .naming import joined


@dataclass
class Labels:
    """One label per cell.

    Attributes
    ----------
    codes : numpy.ndarray, shape (n_cells,), int64
        Position in `categories`, -1 where the label is missing.
    categories : numpy.ndarray, shape (n,), object
        Labels as Python objects. For a categorical column in its order, including unused ones;
        for any other column in order of first appearance.
    """

    codes: np.ndarray
    categories: np.ndarray


def no_labels(n_cells: int) -> Labels:
    """Return labels in which no cell has one."""
    return Labels(np.full(n_cells, -1, np.int64), np.empty(0, object))


def sizes_of(labels: Labels) -> dict[Any, int]:
    """Return the number of cells of each label that occurs."""
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.categories))
    return {
        label: n for label, n in zip(labels.categories.tolist(), counts.tolist(), strict=True) if n
    }


def object_array(values: Iterable[Any]) -> np.ndarray:
    """Return a one-dimensional object array of `values`, even if these are sequences themselves."""
    return np.fromiter(values, dtype=object)


@dataclass(frozen=True)
class Levels:
    """A second label of each cell: a stratum, or the level that comparisons are made within.

    Attributes
    ----------
    codes : numpy.ndarray, shape (n_cells,), int64
        Position in `names`, -1 where the label is missing.
    names : sequence
        Levels; for several columns, tuples with one level per column.
    column : str
        Name of the column, or names of several columns, for messages.
    """

    codes: np.ndarray
    names: Sequence[object] | np.ndarray
    column: str


def combined(labels: Sequence[Labels], columns: Sequence[str]) -> Levels:
    """Combine several columns into levels: the combinations that occur, sorted by column."""
    shape = [max(1, len(label.categories)) for label in labels]
    missing = np.any([label.codes < 0 for label in labels], axis=0)
    flat = np.ravel_multi_index([np.maximum(label.codes, 0) for label in labels], shape)
    there, codes = np.unique(np.where(missing, -1, flat), return_inverse=True)
    there, codes = there[there >= 0], codes - np.count_nonzero(there < 0)
    levels = [
        [label.categories[c] for label, c in zip(labels, level, strict=True)]
        for level in np.transpose(np.unravel_index(there, shape)).tolist()
    ]
    order = sorted(range(len(levels)), key=lambda i: [_sort_key(label) for label in levels[i]])
    place = np.full(len(levels) + 1, -1, np.int64)
    place[order] = np.arange(len(levels))
    names = [levels[i][0] if len(labels) == 1 else tuple(levels[i]) for i in order]
    return Levels(place[codes], names, joined(columns, ", "))


def _sort_key(label: object) -> tuple[bool, Any]:
    """Return a sort key: numbers by size first, then everything else by its text."""
    number = isinstance(label, int | float)
    return (not number, label if number else str(label))
