"""Datasets, made of the data that users pass: a source, labels and names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checks import check_label, check_path, kind
from ..errors import (
    ColumnError,
    DataError,
    LabelError,
    LayerError,
    OptionError,
    UnsupportedDataError,
    shown,
    unknown,
)
from .allowed import Allowed
from .base import Source
from .columns import Column, Values, as_labels, as_values, native_labels
from .columns import Labels as Labels
from .columns import object_array as object_array
from .memory import from_array, no_matrix
from .multimodal import is_multimodal, many_modalities
from .nodes import StoredSource, from_node, is_node
from .text import decode_texts
from .whole_numbers import for_scipy


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
        data frame the matrix is a list of its columns, as :class:`.columns.Values`.
    pools : mapping, optional
        With guides: maps each guide's label to the label of the cells it is compared with.
    matrices : callable
        Returns the other matrices of cells x genes: ``"X"``, ``"raw"``, or names of layers.
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

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_dataset(
    data: Any, groupby: str | None, layer: str | None = None, allow: Allowed = frozenset()
) -> Dataset:
    """Find the matrix, labels and names in the data that a user passed.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike, binary file or Dataset
        An AnnData, in memory or backed, or a view of one; the path of an h5ad file or a zarr
        store; an h5ad file opened with ``open(path, "rb")`` or the like, which stays open. A
        Dataset is returned as it is.
    groupby : str or None
        Column of obs that holds the label of each cell; None to leave cells without labels.
    layer : str, optional
        Layer to read instead of X.
    allow : frozenset of str
        See :mod:`.allowed`.

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
        return _open_path(os.fspath(data), groupby, layer, allow)  # not as a Path: it may be a URL
    if hasattr(data, "read") and hasattr(data, "seek"):
        from .h5ad import open_h5ad

        return open_h5ad(data, groupby, layer, allow)
    # A caller with an AnnData has imported anndata; importing it here would cost seconds.
    anndata = sys.modules.get("anndata")
    if anndata is not None and isinstance(data, anndata.AnnData):
        return _from_anndata(data, groupby, layer, allow)
    if is_multimodal(data):
        raise many_modalities(data)
    raise UnsupportedDataError(
        f"Cannot read a {kind(data)}. Supported: AnnData objects, and h5ad files and zarr stores "
        "as paths or open files."
    )


def no_labels(n_cells: int) -> Labels:
    """Return labels in which no cell has one."""
    return Labels(np.full(n_cells, -1, np.int64), np.empty(0, object))


def sizes_of(labels: Labels) -> dict[Any, int]:
    """Return the number of cells of each label that occurs."""
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.categories))
    return {
        label: n for label, n in zip(labels.categories.tolist(), counts.tolist(), strict=True) if n
    }


def _no_matrix(name: str) -> tuple[Any, Sequence[object] | None]:
    raise ColumnError(unknown("matrix of obsm", name, []))


def _no_column(name: str) -> Labels:
    raise ColumnError(unknown("column of obs", name, []))


def _open_path(path: str, groupby: str | None, layer: str | None, allow: Allowed) -> Dataset:
    from .zarr_store import is_zarr_path, open_zarr

    if is_zarr_path(path):
        return open_zarr(path, groupby, layer, allow)
    from .h5ad import open_h5ad

    return open_h5ad(path, groupby, layer, allow)


def is_backed(adata: Any) -> bool:
    """Return whether `adata` is an AnnData whose X stays in a file."""
    return bool(getattr(adata, "isbacked", False))


def _from_anndata(adata: Any, groupby: str | None, layer: str | None, allow: Allowed) -> Dataset:
    labels = no_labels(adata.n_obs) if groupby is None else obs_labels(adata, groupby)
    if layer is not None and layer not in adata.layers:
        # anndata 0.13 lists X among the layers, under None.
        names = [name for name in adata.layers if name is not None]
        raise LayerError(unknown("layer", layer, names))
    where = f"backed by {adata.filename}" if is_backed(adata) else "in memory"
    return Dataset(
        source=_anndata_source(adata, layer, allow),
        labels=labels,
        genes=names_of(adata.var),
        cell_name=lambda row: str(names_of(adata.obs)[row]),
        description=f"AnnData {where}, {'X' if layer is None else f'layer {layer!r}'}",
        column=lambda name: obs_labels(adata, name),
        matrix=lambda name: _obsm_matrix(adata, name),
        matrices=lambda: other_matrices(adata, layer),
    )


def names_of(frame: Any) -> np.ndarray:
    """Return the names of the rows of obs or var as str, shape (n_rows,), object.

    A frame of ``anndata.experimental.read_lazy`` may have left them in its file, with numbers as
    its index instead.
    """
    index = frame.index if is_frame(frame) else frame.true_index
    return object_array(str(name) for name in index)


def is_frame(frame: Any) -> bool:
    """Return whether this is a pandas data frame; otherwise it is one that was read lazily."""
    pandas = sys.modules["pandas"]  # anndata imports it
    return isinstance(frame, pandas.DataFrame)


def frame_in_memory(frame: Any) -> Any:
    """Return a pandas data frame; a lazy one is read whole."""
    return frame if is_frame(frame) else frame.to_memory()


def column_in_memory(frame: Any, name: str) -> Any:
    """Return a column of obs or var as a pandas Series; of a lazy frame, read only this one.

    Raises
    ------
    ColumnError
        There are several of that name.
    """
    found = frame[name] if is_frame(frame) else frame[[name]].to_memory()[name]
    if found.ndim != 1:
        raise ColumnError(f"obs has several columns named {name!r}. Rename all but one.")
    return found


def other_matrices(adata: Any, used: str | None) -> list[str]:
    """See :attr:`Dataset.matrices`; `used` is a layer, ``"raw"``, or None for X."""
    found = [] if used is None else ["X"]
    found += [name for name in adata.layers if name is not None and name != used]
    return found + (["raw"] if used != "raw" and adata.raw is not None else [])


def _obsm_matrix(adata: Any, name: str) -> tuple[Any, Sequence[object] | None]:
    if name not in adata.obsm:
        raise ColumnError(unknown("matrix of obsm", name, list(adata.obsm)))
    found = adata.obsm[name]
    if hasattr(found, "columns"):
        frame = frame_in_memory(found)
        columns = [frame.iloc[:, j] for j in range(frame.shape[1])]
        return [as_values(_pandas_column(column)) for column in columns], list(frame.columns)
    if is_dask(found):
        return found.compute(), None
    return found.to_memory() if hasattr(found, "to_memory") else found, None


def obs_labels(adata: Any, name: str) -> Labels:
    """Return the labels in a column of obs of an AnnData.

    Raises
    ------
    ColumnError
        There is no such column, or several.
    LabelError
        Labels differ only in type.
    """
    if name not in adata.obs.columns:
        raise ColumnError(unknown("column of obs", name, list(adata.obs.columns)))
    column = column_in_memory(adata.obs, name)
    labels = _pandas_labels(column)
    _check_texts(column, labels, name)
    return labels


def _anndata_source(adata: Any, layer: str | None, allow: Allowed) -> Source:
    what = "X" if layer is None else f"layer {layer!r}"
    whole = adata._adata_ref if adata.is_view else adata
    matrix = _matrix(whole, layer)
    if layer is None and is_backed(whole):
        _check_backed(whole, allow)
    if not adata.is_view:
        return source_of(matrix, what, allow)
    if not _is_stored(matrix):
        return source_of(_selected(adata, matrix, layer, what), what)
    from .view import select

    return select(_from_stored(matrix, what, allow), *_selection(adata))


def _check_backed(adata: Any, allow: Allowed) -> None:
    """Raise FileFormatError if X is not in the file, though anndata has opened it."""
    from .hdf5 import reading
    from .hdf5_group import StoredGroup

    with reading(f"X of {adata.filename}"):
        StoredGroup(adata.file["/"], allow).get("X")


def _selection(adata: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the first AnnData that a view shows."""
    # Private attributes, but without them anndata loads all that is selected. Views of views also
    # refer to the first AnnData.
    whole = adata._adata_ref
    return np.arange(whole.n_obs)[adata._oidx], np.arange(whole.n_vars)[adata._vidx]


def _selected(adata: Any, matrix: Any, layer: str | None, what: str) -> Any:
    """Return the part of `matrix`, which is in memory, that a view shows."""
    if getattr(matrix, "format", None) in ("csr", "csc"):
        usable = for_scipy(matrix, what)
        if usable is not matrix:  # anndata would let scipy slice the unusable one
            rows, columns = _selection(adata)
            return usable[rows][:, columns]
    return _matrix(adata, layer)


def _matrix(adata: Any, layer: str | None) -> Any:
    """Return X or a layer, without loading it if it is in a file."""
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
    """Return whether this is in a file or store: a node, or anndata's wrapper around one."""
    return is_node(getattr(matrix, "group", matrix))


def _from_stored(matrix: Any, what: str, allow: Allowed) -> StoredSource:
    return from_node(getattr(matrix, "group", matrix), what=what, allow=allow)


def source_of(matrix: Any, what: str, allow: Allowed = frozenset()) -> Source:
    """Return a source over an array, or over the node of a matrix that anndata left in a file."""
    if _is_stored(matrix):
        return _from_stored(matrix, what, allow)
    if is_dask(matrix):
        from .dask_array import from_dask

        return from_dask(matrix, what=what)
    return from_array(matrix, what=what)


def is_dask(matrix: Any) -> bool:
    """Return whether this is a dask array, without importing dask."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(matrix, module.Array)


def _check_texts(column: Any, labels: Labels, name: str) -> None:
    """Raise LabelError if labels of different types can be confused.

    Tables and files hold labels as text, where 1 and "1" would be one group. True, 1 and 1.0 are
    equal, so pandas has put them into one group.
    """
    categorical = hasattr(column.dtype, "categories")
    if not categorical and column.dtype != object:
        return  # all are of one type
    if all(isinstance(label, str) for label in labels.categories):
        return
    found = list(sizes_of(labels)) if categorical else column.to_numpy()[labels.codes >= 0]
    by_text: dict[str, object] = {}
    texts: dict[object, tuple[str, object]] = {}
    for label in {(type(label), label): label for label in found}.values():
        text = str(label)
        like = by_text.setdefault(text, label)
        if like == label:
            known, like = texts.setdefault(label, (text, label))
            if known == text:
                continue
        raise LabelError(
            f"Column {name!r} of obs has labels that differ only in type: {like!r} "
            f"({type(like).__name__}) and {label!r} ({type(label).__name__}). Convert them to one "
            f"type: adata.obs[{name!r}] = adata.obs[{name!r}].astype(str)."
        )


def _pandas_labels(column: Any) -> Labels:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        found = as_labels(_pandas_column(column))
    else:
        if isinstance(column.dtype, np.dtype):  # pandas knows only this machine's byte order
            column = column.astype(native_labels(column.dtype))
        try:
            codes, uniques = pd.factorize(column)
        except Exception as error:  # values that cannot be hashed or compared
            raise _no_labels(column.name, column.iloc[0], error) from error
        found = Labels(codes.astype(np.int64), object_array(pd.Index(uniques).tolist()))
    if any(isinstance(label, bytes) for label in found.categories):
        found = _decoded(found, f"Column {column.name!r} of obs")
    for label in found.categories:
        try:
            check_label("label", label)
        except OptionError as error:
            raise _no_labels(column.name, label, error) from error
    return found


def _decoded(labels: Labels, what: str) -> Labels:
    """Return labels with bytes decoded to text, as when files are read."""
    names = decode_texts(labels.categories, what)
    found = as_labels(Values(names, np.zeros(len(names), bool)))
    return Labels(np.append(found.codes, -1)[labels.codes], found.categories)


def _no_labels(name: object, value: object, error: Exception) -> DataError:
    return DataError(
        f"Column {name!r} of obs holds values that cannot be used as labels, such as "
        f"{shown(value)} ({kind(value)}): {shown(error)}. Convert it, for instance with "
        "astype(str)."
    )


def _pandas_column(column: Any) -> Column:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = object_array(column.cat.categories.tolist())
        return Labels(column.cat.codes.to_numpy().astype(np.int64), categories)
    missing = column.isna().to_numpy()
    if isinstance(column.dtype, np.dtype):
        return Values(column.to_numpy(), missing)
    numpy_dtype = getattr(column.dtype, "numpy_dtype", None)  # nullable numbers and booleans
    if numpy_dtype is not None and numpy_dtype.kind in "biuf":
        return Values(column.to_numpy(numpy_dtype, na_value=numpy_dtype.type(0)), missing)
    return Values(column.to_numpy(dtype=object), missing)
