"""Data whose counts are normalised while they are read, as a call asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..design.labels import Labels
from ..errors import DataError, ScaleWarning, UnsupportedDataError, warn
from ..sources.base import Source
from ..sources.dataset import Dataset
from ..sources.options import MEDIAN, DataOptions


def normalised(dataset: Dataset, options: DataOptions) -> Dataset:
    """Return the data with each cell's counts over its total, or over its size factor.

    Raises
    ------
    ColumnError
        There is no such column of totals or size factors.
    DataError
        A total or size factor is missing, not a number, negative, or a size factor is 0.
    UnsupportedDataError
        The matrix is on a device.
    """
    if options.normalize is None:
        return dataset
    from ..sources.normalized.scaling import Scaling
    from ..sources.normalized.source import scaled
    from ..sources.views.view import change_stored

    if dataset.source.on_device:
        raise UnsupportedDataError(
            f"normalize= works in host memory, but {options.choice.what} is on a CUDA device "
            f"({dataset.source.description}). Move the matrix with .get(), or normalise it there."
        )
    column, target = options.divisors, options.target_sum
    given = None if column is None else _divisors(dataset, column, options)
    genes = dataset.genes if dataset.all_genes is None else dataset.all_genes
    made: list[Scaling] = []

    def change(stored: Source, order: np.ndarray | None) -> Source:
        scaling = Scaling.by_totals(stored.n_cells, target, options.takes_log1p)
        rows = np.arange(dataset.source.n_cells)
        if order is not None:  # the row of the view for each stored cell
            rows = np.full(stored.n_cells, -1, np.int64)
            rows[order] = np.arange(len(order))
        if given is not None:
            scaling.divisors[:] = given[rows]
        scaling.column = column
        scaling.what = options.choice.what
        scaling.cell_name = lambda cell: dataset.cell_name(int(rows[cell]))
        scaling.gene_name = lambda gene: str(genes[gene])
        made.append(scaling)
        return scaled(stored, scaling)

    source = change_stored(dataset.source, change)
    return replace(dataset, source=source, scaling=made[0])


def warn_of_empty_cells(dataset: Dataset) -> None:
    """Warn of cells whose total is 0, once the matrix was read."""
    scaling = dataset.scaling
    if scaling is not None and scaling.n_empty:
        warn(
            f"{scaling.n_empty:,} of {scaling.n_cells:,} cells have a total of 0, so their "
            "normalised values are 0, too. They still count as cells of their groups. Leave them "
            "out with cells= (--cells), or remove them.",
            ScaleWarning,
        )


def _divisors(dataset: Dataset, column: str, options: DataOptions) -> np.ndarray:
    """Return the totals or size factors in a column of obs, shape (n_cells,), float64."""
    option = "totals" if options.totals is not None else "normalize"
    found = _numbers(dataset.column(column))
    zero_fits = option == "totals"  # a cell without counts has that total
    wrong = ~(np.isfinite(found) & ((found >= 0.0) if zero_fits else (found > 0.0)))
    if wrong.any():
        cell = int(np.argmax(wrong))
        what = "total that is not negative" if zero_fits else "size factor above 0"
        raise DataError(
            f"{option}={column!r}: column {column!r} of obs is {found[cell]:g} in cell "
            f"{dataset.cell_name(cell)!r} (row {cell}), and in {int(wrong.sum()):,} of "
            f"{len(found):,} cells there is no {what}. Every cell needs one: fill in the column, "
            f"remove these cells, or pass normalize=1e4 or normalize={MEDIAN!r} without totals=, "
            "which adds up the counts of each cell."
        )
    return found


def _numbers(labels: Labels) -> np.ndarray:
    """Return a column of obs as numbers; NaN where there is none."""

    def number(value: object) -> float:
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return np.nan

    categories = np.array([*map(number, labels.categories.tolist()), np.nan])
    return categories[labels.codes]  # the last one is for code -1
