"""Datasets, made of the data that users pass: a source, labels and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.labels import Labels
from ..errors import ColumnError, unknown
from .base import Source

if TYPE_CHECKING:
    from .normalized.scaling import Scaling


@dataclass
class Dataset:
    """A matrix with its labels and names; a context manager that closes the file.

    Attributes
    ----------
    source : Source
    labels : Labels
    genes : numpy.ndarray, shape (n_genes,), object
        Names as str, in the order of the matrix.
    cell_name : callable
        Returns the name of a cell, given its row. Read on request: only messages need names.
    description : str
        Where the data come from, for provenance.
    close : callable
        Closes the file if this dataset opened one.
    column : callable
        Returns the labels in another column of obs, given its name; raises ColumnError.
    matrix : callable
        Returns a matrix in obsm and its column names (None if it has none), given its name. For a
        data frame the matrix is a list of its columns, as :class:`.obs_columns.Values`.
    pools : mapping, optional
        With guides: maps each guide's label to the label of the cells it is compared with.
    matrices : callable
        Returns the other matrices of cells x genes: ``"X"``, ``"raw"``, or names of layers.
    var : callable
        Returns the data frame that describes the genes, if it is in memory; otherwise None.
    all_genes : numpy.ndarray, object, optional
        Names of the genes of :meth:`.base.Source.all_genes`; by default those of `genes`.
    cell_names : callable
        Returns the names of all cells, as str.
    scaling : Scaling, optional
        How the counts of `source` are normalised, if they are.
    ready : bool
        Whether the options of a call that choose cells and genes, and normalise, were applied.
    """

    source: Source
    labels: Labels
    genes: np.ndarray
    cell_name: Callable[[int], str]
    description: str
    close: Callable[[], None] = field(default=lambda: None)
    column: Callable[[str], Labels] = field(default=lambda name: _no_column(name))
    matrix: Callable[[str], tuple[Any, Sequence[object] | None]] = field(
        default=lambda name: _no_matrix(name)
    )
    pools: Mapping[object, str] | None = None
    matrices: Callable[[], list[str]] = field(default=list)
    var: Callable[[], Any] = field(default=lambda: None)
    all_genes: np.ndarray | None = None
    cell_names: Callable[[], np.ndarray] = field(default=lambda: np.empty(0, object))
    scaling: Scaling | None = None
    ready: bool = False

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _no_matrix(name: str) -> tuple[Any, Sequence[object] | None]:
    raise ColumnError(unknown("matrix of obsm", name, []))


def _no_column(name: str) -> Labels:
    raise ColumnError(unknown("column of obs", name, []))
