"""h5ad files read with h5py alone: importing anndata takes seconds that a command line has not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import h5py
import numpy as np

from ..errors import ColumnError, FileFormatError, LayerError, UnsupportedDataError, unknown
from .base import Source
from .dataset import Dataset, Labels, object_array
from .hdf5 import encoding_of, from_hdf5, reading
from .memory import no_matrix

_NULLABLE = ("nullable-integer", "nullable-boolean", "nullable-string-array")
# Where anndata 0.7 kept the categories of all categorical columns of a data frame.
_OLD_CATEGORIES = "__categories"


def open_h5ad(path: str | os.PathLike[str], groupby: str, layer: str | None = None) -> Dataset:
    """Open an h5ad file; the dataset returned is a context manager and has a ``close()``.

    Parameters
    ----------
    path : str or os.PathLike
    groupby : str
        Column of obs that holds the label of each cell.
    layer : str, optional
        Layer to read in place of X.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    FileFormatError
        The file is not HDF5, is truncated, or is not laid out as anndata writes it.
    ColumnError, LayerError
        There is no such column or layer.
    DataError, UnsupportedDataError
        There is no matrix, or it is of a kind that is not supported.
    """
    path = os.fspath(path)
    with ExitStack() as stack:
        file = stack.enter_context(_open_file(path))
        obs, var = _frame(file, "obs", path), _frame(file, "var", path)
        labels = _labels(obs, groupby)
        genes = _names(var)
        n_cells = len(labels.codes)
        source = _source(file, layer)
        if (source.n_cells, source.n_genes) != (n_cells, len(genes)):
            raise FileFormatError(
                f"{path}: the matrix has {source.n_cells} cells x {source.n_genes} genes, but obs "
                f"has {n_cells} rows and var {len(genes)}."
            )
        return Dataset(
            source=source,
            labels=labels,
            genes=genes,
            cell_name=lambda row: str(_names(obs)[row]),
            description=f"{path}, {'X' if layer is None else f'layer {layer!r}'}",
            close=stack.pop_all().close,
        )


def _open_file(path: str) -> h5py.File:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path!r}. Check the path.")
    if not os.path.isfile(path):
        raise FileFormatError(f"{path} is a folder; only h5ad files (HDF5) are read, not zarr.")
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise
    except OSError as error:
        if not h5py.is_hdf5(path):
            raise FileFormatError(
                f"{path} is not an HDF5 file ({os.path.getsize(path)} bytes). An h5ad file, as "
                f"AnnData.write_h5ad writes it, is needed."
            ) from error
        raise FileFormatError(
            f"{path} cannot be opened: truncated, damaged, or open for writing elsewhere. Copy or "
            f"download it again. HDF5 says: {error}"
        ) from error


def _source(file: h5py.File, layer: str | None) -> Source:
    if layer is None:
        what, node = "X", file.get("X")
    else:
        layers = file.get("layers", {})
        if layer not in layers:
            raise LayerError(unknown("layer", layer, list(layers)))
        what, node = f"layer {layer!r}", layers[layer]
    if node is None or encoding_of(node) == "null":
        raise no_matrix(what)
    return from_hdf5(node, what=what)


def _frame(file: h5py.File, name: str, path: str) -> h5py.Group:
    """The group of a data frame, with its index there."""
    frame = file.get(name)
    if isinstance(frame, h5py.Dataset):
        raise FileFormatError(
            f"{path}: {name} is a compound dataset, as anndata before 0.7 wrote it. Read the file "
            f"with anndata and write it again."
        )
    if frame is None or _index_name(frame) not in frame:
        raise FileFormatError(
            f"{path} is not laid out as anndata writes it: no {name} with an index."
        )
    return frame


def _index_name(frame: h5py.Group) -> str:
    return str(frame.attrs.get("_index", "_index"))


def _columns(frame: h5py.Group) -> Sequence[str]:
    """Names of the columns, the index left out unless it is a column too."""
    listed = [str(name) for name in frame.attrs.get("column-order", ()) if str(name) in frame]
    hidden = {_index_name(frame), _OLD_CATEGORIES}
    return listed + [key for key in frame if key not in hidden and key not in listed]


def _names(frame: h5py.Group) -> np.ndarray:
    """The index of a data frame, as str."""
    index = _column(frame, _index_name(frame))
    return object_array(str(index.categories[code]) if code >= 0 else "nan" for code in index.codes)


def _labels(obs: h5py.Group, groupby: str) -> Labels:
    if groupby not in (columns := _columns(obs)):
        raise ColumnError(unknown("column of obs", groupby, columns))
    return _column(obs, groupby)


def _column(frame: h5py.Group, name: str) -> Labels:
    """A column of any encoding that anndata has written since 0.7."""
    node = frame[name]
    what = f"Column {name!r} of {frame.name[1:]}"
    with reading(what):
        if isinstance(node, h5py.Dataset):
            old = frame.get(f"{_OLD_CATEGORIES}/{name}")
            if old is None:
                return _factorize(*_values(node, what))
            return _categorical(node, old, what)
        if encoding_of(node) == "categorical":
            return _categorical(node["codes"], node["categories"], what)
        return _factorize(*_values(node, what))


def _categorical(codes: h5py.Dataset, categories: h5py.Dataset | h5py.Group, what: str) -> Labels:
    values, _ = _values(categories, what)
    labels = Labels(codes[:].astype(np.int64), object_array(values.tolist()))
    if labels.codes.max(initial=-1) >= len(values) or labels.codes.min(initial=-1) < -1:
        raise FileFormatError(f"{what} is malformed: a code has no category.")
    return labels


def _values(node: h5py.Dataset | h5py.Group, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The values at `node`, strings as object array, and which of them are missing."""
    encoding = encoding_of(node)
    if isinstance(node, h5py.Group) and encoding in _NULLABLE:
        values, _ = _values(node["values"], what)
        return values, node["mask"][:]
    if isinstance(node, h5py.Dataset) and node.ndim == 1:
        if h5py.check_string_dtype(node.dtype):
            values = node.asstr()[:].astype(object)
            return values, np.zeros(len(values), bool)
        if node.dtype.kind in "buif":
            values = node[:]
            return values, values != values  # NaN alone differs from itself
    raise UnsupportedDataError(
        f"{what} has the encoding {encoding or 'none'!r}; supported are categorical, string-array, "
        f"numeric and bool arrays, and the nullable ones."
    )


def _factorize(values: np.ndarray, missing: np.ndarray) -> Labels:
    """Codes in order of first appearance, as pandas.factorize gives them."""
    table: dict[Any, int] = {}
    codes = np.fromiter(
        (
            -1 if absent else table.setdefault(value, len(table))
            for value, absent in zip(values.tolist(), missing.tolist(), strict=True)
        ),
        dtype=np.int64,
        count=len(values),
    )
    return Labels(codes, object_array(table))
