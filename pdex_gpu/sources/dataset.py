"""Datasets, made of the data that users pass: a source, labels and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.labels import Labels, object_array
from ..errors import ColumnError, unknown
from .base import Source

if TYPE_CHECKING:
    from .normalized.scaling import Scaling


@dataclass(frozen=True)
class GuideCounts:
    """The UMIs of guides in cells; a pair that is not listed has none.

    Attributes
    ----------
    ids, names : numpy.ndarray, shape (n_guides,), object
        As str; both may identify a guide in other files.
    cells, guides : numpy.ndarray, shape (n,), int64
        The cell and the guide of each count. A pair may occur several times.
    umis : numpy.ndarray, shape (n,)
    place : str
        Where they come from, for messages.
    """

    ids: np.ndarray
    names: np.ndarray
    cells: np.ndarray
    guides: np.ndarray
    umis: np.ndarray
    place: str


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
    cell_names : callable, optional
        Returns the names of all cells as str, shape (n_cells,), object; see
        :meth:`all_cell_names`.
    close : callable
        Closes the file if this dataset opened one.
    column : callable
        Returns the labels in another column of obs, given its name; raises ColumnError.
    var_column : callable
        Returns a column of var as labels, given its name; raises ColumnError.
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
    scaling : Scaling, optional
        How the counts of `source` are normalised, if they are.
    guide_counts : callable, optional
        Reads the UMIs of the guides that the data themselves count; None if they count none.
    symbols : numpy.ndarray, shape (n_genes,), object, optional
        Symbols of `genes` as str, if the call asks for them.
    ready : bool
        Whether the options of a call that choose cells and genes, and normalise, were applied.
    """

    source: Source
    labels: Labels
    genes: np.ndarray
    cell_name: Callable[[int], str]
    description: str
    cell_names: Callable[[], np.ndarray] | None = None
    close: Callable[[], None] = field(default=lambda: None)
    column: Callable[[str], Labels] = field(default=lambda name: _no_column(name))
    var_column: Callable[[str], Labels] = field(default=lambda name: _no_column(name, "var"))
    matrix: Callable[[str], tuple[Any, Sequence[object] | None]] = field(
        default=lambda name: _no_matrix(name)
    )
    pools: Mapping[object, str] | None = None
    matrices: Callable[[], list[str]] = field(default=list)
    var: Callable[[], Any] = field(default=lambda: None)
    all_genes: np.ndarray | None = None
    scaling: Scaling | None = None
    guide_counts: Callable[[], GuideCounts | None] | None = None
    symbols: np.ndarray | None = None
    ready: bool = False

    def all_cell_names(self) -> np.ndarray:
        """Return the names of all cells as str, shape (n_cells,), object."""
        if self.cell_names is not None:
            return self.cell_names()
        return object_array(self.cell_name(row) for row in range(self.source.n_cells))

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _no_matrix(name: str) -> tuple[Any, Sequence[object] | None]:
    raise ColumnError(unknown("matrix of obsm", name, []))


def _no_column(name: str, frame: str = "obs") -> Labels:
    raise ColumnError(unknown(f"column of {frame}", name, []))
