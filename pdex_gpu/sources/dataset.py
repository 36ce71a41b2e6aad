"""Data as users hand it over -> a source, labels and names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checks import check_label, check_path, kind
from ..errors import (
    ColumnError,
    DataError,
    LayerError,
    OptionError,
    UnsupportedDataError,
    shown,
    unknown,
)
from .base import Source
from .memory import from_array, no_matrix
from .nodes import StoredSource, from_node, is_node


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
    column : callable
        The labels in another column of obs, given its name; raises ColumnError.
    matrix : callable
        A matrix in obsm and the names of its columns (None if it has none), given its name.
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

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_dataset(data: Any, groupby: str | None, layer: str | None = None) -> Dataset:
    """Find matrix, labels and names in what a user handed over.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike, binary file or Dataset
        An AnnData, in memory or backed, or a view of one; the path of an h5ad file or a zarr
        store; an h5ad file opened with ``open(path, "rb")`` or the like, which stays open. A
        dataset is as it is.
    groupby : str or None
        Column of obs that holds the label of each cell; None to leave cells without labels.
    layer : str, optional
        Layer to read in place of X.

    Raises
    ------
    ColumnError, LayerError
        There is no such column or layer.
    DataError, FileFormatError, MissingFileError, UnsupportedDataError
        The data cannot be read; see :mod:`pdex_gpu.errors`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        check_path("data", data)
        return _open_path(os.fspath(data), groupby, layer)  # as it is: a URL is no Path
    if hasattr(data, "read") and hasattr(data, "seek"):
        from .h5ad import open_h5ad

        return open_h5ad(data, groupby, layer)
    # Whoever holds an AnnData has imported anndata; importing it here would cost seconds.
    anndata = sys.modules.get("anndata")
    if anndata is not None and isinstance(data, anndata.AnnData):
        return _from_anndata(data, groupby, layer)
    raise UnsupportedDataError(
        f"Cannot read a {kind(data)}; supported are AnnData objects and "
        f"h5ad files and zarr stores, as paths or open files."
    )


def no_labels(n_cells: int) -> Labels:
    """No cell has a label."""
    return Labels(np.full(n_cells, -1, np.int64), np.empty(0, object))


def sizes_of(labels: Labels) -> dict[Any, int]:
    """Cells of each label that some cell has."""
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.categories))
    return {
        label: n for label, n in zip(labels.categories.tolist(), counts.tolist(), strict=True) if n
    }


def _no_matrix(name: str) -> tuple[Any, Sequence[object] | None]:
    raise ColumnError(unknown("matrix of obsm", name, []))


def _no_column(name: str) -> Labels:
    raise ColumnError(unknown("column of obs", name, []))


def _open_path(path: str, groupby: str | None, layer: str | None) -> Dataset:
    from .zarr_store import is_zarr_path, open_zarr

    if is_zarr_path(path):
        return open_zarr(path, groupby, layer)
    from .h5ad import open_h5ad

    return open_h5ad(path, groupby, layer)


def is_backed(adata: Any) -> bool:
    """Whether `adata` is an AnnData whose X stays in a file."""
    return bool(getattr(adata, "isbacked", False))


def object_array(values: Iterable[Any]) -> np.ndarray:
    """One-dimensional object array of `values`, also where these are sequences themselves."""
    return np.fromiter(values, dtype=object)


def _from_anndata(adata: Any, groupby: str | None, layer: str | None) -> Dataset:
    labels = no_labels(adata.n_obs) if groupby is None else _obs_labels(adata, groupby)
    if layer is not None and layer not in adata.layers:
        # anndata 0.13 lists X among the layers, under None.
        names = [name for name in adata.layers if name is not None]
        raise LayerError(unknown("layer", layer, names))
    where = f"backed by {adata.filename}" if is_backed(adata) else "in memory"
    return Dataset(
        source=_anndata_source(adata, layer),
        labels=labels,
        genes=object_array(str(name) for name in adata.var_names),
        cell_name=lambda row: str(adata.obs_names[row]),
        description=f"AnnData {where}, {'X' if layer is None else f'layer {layer!r}'}",
        column=lambda name: _obs_labels(adata, name),
        matrix=lambda name: _obsm_matrix(adata, name),
    )


def _obsm_matrix(adata: Any, name: str) -> tuple[Any, Sequence[object] | None]:
    if name not in adata.obsm:
        raise ColumnError(unknown("matrix of obsm", name, list(adata.obsm)))
    found = adata.obsm[name]
    if hasattr(found, "columns"):
        return found.to_numpy(), list(found.columns)
    return found, None


def _obs_labels(adata: Any, name: str) -> Labels:
    if name not in adata.obs.columns:
        raise ColumnError(unknown("column of obs", name, list(adata.obs.columns)))
    column = adata.obs[name]
    if column.ndim != 1:
        raise ColumnError(f"obs has several columns {name!r}. Rename all but one.")
    return _pandas_labels(column)


def _anndata_source(adata: Any, layer: str | None) -> Source:
    what = "X" if layer is None else f"layer {layer!r}"
    whole = adata._adata_ref if adata.is_view else adata
    matrix = _matrix(whole, layer)
    if not adata.is_view:
        return _from_any(matrix, what)
    if not _is_stored(matrix):
        return _from_any(_matrix(adata, layer), what)
    from .view import select

    # Private, but without them anndata loads all that is selected. Views of views refer to the
    # first AnnData, too.
    rows = np.arange(whole.n_obs)[adata._oidx]
    columns = np.arange(whole.n_vars)[adata._vidx]
    return select(_from_stored(matrix, what), rows, columns)


def _matrix(adata: Any, layer: str | None) -> Any:
    """X or a layer, not loaded if it is in a file."""
    if layer is not None:
        return adata.layers[layer]
    if not is_backed(adata) or adata.is_view:
        return adata.X
    if not adata.file.is_open:
        adata.file.open()
    if "X" not in adata.file:
        raise no_matrix("X")
    return adata.file["X"]


def _is_stored(matrix: Any) -> bool:
    """Whether this is in a file or store: a node, or what anndata wraps around one."""
    return is_node(getattr(matrix, "group", matrix))


def _from_stored(matrix: Any, what: str) -> StoredSource:
    return from_node(getattr(matrix, "group", matrix), what=what)


def _from_any(matrix: Any, what: str) -> Source:
    """A source over an array, or over the object behind a matrix that anndata left in a file."""
    if _is_stored(matrix):
        return _from_stored(matrix, what)
    if is_dask(matrix):
        from .dask_array import from_dask

        return from_dask(matrix, what=what)
    return from_array(matrix, what=what)


def is_dask(matrix: Any) -> bool:
    """Whether this is a dask array; dask is not imported for it."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(matrix, module.Array)


def _pandas_labels(column: Any) -> Labels:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, categories = column.cat.codes.to_numpy(), column.cat.categories
    else:
        try:
            codes, found = pd.factorize(column)
        except Exception as error:  # of values that cannot be hashed or compared
            raise _no_labels(column.name, column.iloc[0], error) from error
        categories = pd.Index(found)
    labels = categories.tolist()
    for label in labels:
        try:
            check_label("label", label)
        except OptionError as error:
            raise _no_labels(column.name, label, error) from error
    return Labels(codes.astype(np.int64), object_array(labels))


def _no_labels(name: object, value: object, error: Exception) -> DataError:
    return DataError(
        f"Column {name!r} of obs holds what cannot be labels, such as {shown(value)} "
        f"({kind(value)}): {shown(error)}. Convert it, for instance with astype(str)."
    )
