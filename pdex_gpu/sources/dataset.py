"""Data as users hand it over -> a source, labels and names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ColumnError, LayerError, UnsupportedDataError, unknown
from .base import Source
from .memory import from_array, no_matrix


@dataclass
class Labels:
    """A label for each cell.

    Attributes
    ----------
    codes : numpy.ndarray, shape (n_cells,), int64
        Position in `categories`, -1 where the label is missing.
    categories : numpy.ndarray, shape (n,), object
        Labels as Python objects: those of a categorical column in its order, unused ones
        included; of any other column in order of first appearance.
    """

    codes: np.ndarray
    categories: np.ndarray


@dataclass
class Dataset:
    """A matrix with its labels and names; a context manager, which closes the file.

    Attributes
    ----------
    source : Source
    labels : Labels
    genes : numpy.ndarray, shape (n_genes,), object
        Names as str, in matrix order.
    cell_name : callable
        The name of a cell, given its row. Names are read when asked for: only messages need any.
    description : str
        Where the data come from, for provenance.
    close : callable
        Closes the file if this dataset opened one.
    """

    source: Source
    labels: Labels
    genes: np.ndarray
    cell_name: Callable[[int], str]
    description: str
    close: Callable[[], None] = field(default=lambda: None)

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_dataset(data: Any, groupby: str, layer: str | None = None) -> Dataset:
    """Find matrix, labels and names in what a user handed over.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike or Dataset
        An AnnData, in memory or backed, or the path of an h5ad file; a dataset is as it is.
    groupby : str
        Column of obs that holds the label of each cell.
    layer : str, optional
        Layer to read in place of X.

    Raises
    ------
    ColumnError, LayerError
        There is no such column or layer.
    DataError, FileFormatError, FileNotFoundError, UnsupportedDataError
        The data cannot be read; see :mod:`pdex_gpu.errors`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        from .h5ad import open_h5ad

        return open_h5ad(data, groupby, layer)
    # Whoever holds an AnnData has imported anndata; importing it here would cost seconds.
    anndata = sys.modules.get("anndata")
    if anndata is not None and isinstance(data, anndata.AnnData):
        return _from_anndata(data, groupby, layer)
    kind = type(data)
    raise UnsupportedDataError(
        f"Cannot read a {kind.__module__}.{kind.__qualname__}; supported are AnnData objects and "
        f"paths of h5ad files."
    )


def is_backed(adata: Any) -> bool:
    """Whether `adata` is an AnnData whose X stays in a file."""
    return bool(getattr(adata, "isbacked", False))


def object_array(values: Iterable[Any]) -> np.ndarray:
    """One-dimensional object array of `values`, also where these are sequences themselves."""
    return np.fromiter(values, dtype=object)


def _from_anndata(adata: Any, groupby: str, layer: str | None) -> Dataset:
    if groupby not in adata.obs.columns:
        raise ColumnError(unknown("column of obs", groupby, list(adata.obs.columns)))
    column = adata.obs[groupby]
    if column.ndim != 1:
        raise ColumnError(f"obs has several columns {groupby!r}. Rename all but one.")
    if layer is not None and layer not in adata.layers:
        # anndata 0.13 lists X among the layers, under None.
        names = [name for name in adata.layers if name is not None]
        raise LayerError(unknown("layer", layer, names))
    where = f"backed by {adata.filename}" if is_backed(adata) else "in memory"
    return Dataset(
        source=_anndata_source(adata, layer),
        labels=_pandas_labels(column),
        genes=object_array(str(name) for name in adata.var_names),
        cell_name=lambda row: str(adata.obs_names[row]),
        description=f"AnnData {where}, {'X' if layer is None else f'layer {layer!r}'}",
    )


def _anndata_source(adata: Any, layer: str | None) -> Source:
    if layer is not None:
        return _from_any(adata.layers[layer], f"layer {layer!r}")
    if not is_backed(adata) or adata.is_view:
        return _from_any(adata.X, "X")
    if not adata.file.is_open:
        adata.file.open()
    if "X" not in adata.file:
        raise no_matrix("X")
    return _from_any(adata.file["X"], "X")


def _from_any(matrix: Any, what: str) -> Source:
    """A source over an array, or over the HDF5 object behind a matrix that anndata left there."""
    node = getattr(matrix, "group", matrix)
    h5py = sys.modules.get("h5py")
    if h5py is not None and isinstance(node, h5py.Dataset | h5py.Group):
        from .hdf5 import from_hdf5

        return from_hdf5(node, what=what)
    return from_array(matrix, what=what)


def _pandas_labels(column: Any) -> Labels:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, categories = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, found = pd.factorize(column)
        categories = pd.Index(found)
    return Labels(codes.astype(np.int64), object_array(categories.tolist()))
